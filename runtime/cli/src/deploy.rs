//! `push`, `apply`, `rollback`, `delete`, `resume`, `move`: changing what a tenant runs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use sluicebox_core::ids::Name;

use crate::args::push::PushArgs;
use crate::args::{ApplyArgs, DeleteArgs, Deleted, MoveArgs, PipelineArgs, RollbackArgs};
use crate::client::{COMPILE_TIME_MAX, Call, Client};
use crate::failure::{Cause, Failure, Mistake, printable};
use crate::oci::{self, Registries};
use crate::render::{grouped, short_digests};
use crate::screen::Screen;

/// Larger files are not even read; the node's own limit is lower unless somebody raised it.
const COMPONENT_BYTES_MAX: u64 = 1 << 30;

/// Largest manifest that is read; the node's own limit is lower.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

const MEDIA_WASM: &str = "application/wasm";
const MEDIA_TOML: &str = "application/toml";
const MEDIA_JSON: &str = "application/json";
const MEDIA_BYTES: &str = "application/octet-stream";

/// What a component's reply says, and whether the node had these bytes under this name already.
pub(crate) struct Pushed {
    pub(crate) info: Value,
    pub(crate) changed: bool,
}

/// `push`
pub(crate) async fn push(screen: Screen, args: PushArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let in_registry = args.file.to_str().filter(|text| oci::is_reference(text));
    match in_registry {
        Some(text) if args.asset => {
            let what = format!("{} is no file", printable(text));
            return Err(Failure::new(Cause::Usage, what)
                .fix("assets are pushed from files; registries have components"));
        }
        Some(text) => return oci::push(screen, &client, (text, args.name), &args.registry).await,
        None if args.asset => return push_asset(screen, &client, &args.file).await,
        None => {}
    }
    let name = match args.name {
        Some(name) => name,
        None => name_of(&args.file)?,
    };
    let pushed = push_file(&client, &name, &args.file).await?;
    screen.result(&pushed.info, &pushed_text(&name, &pushed))?;
    screen.hint("next: `sluicebox apply pipeline.toml`");
    Ok(())
}

/// `push --asset`
async fn push_asset(screen: Screen, client: &Client, file: &Path) -> Result<(), Failure> {
    let bytes = read_file(file, COMPONENT_BYTES_MAX)?;
    let call = Call::new(Method::POST, client.path("assets")).body(MEDIA_BYTES, bytes.into());
    let info = client.send(call).await?.json()?;
    let digest = info.get("digest").and_then(Value::as_str).unwrap_or("-");
    let bytes = info.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    screen
        .result(&info, &format!("pushed asset {} ({} bytes)", printable(digest), grouped(bytes)))?;
    screen
        .hint(&format!("grant it in a manifest: assets = {{ name = \"{}\" }}", printable(digest)));
    Ok(())
}

/// Uploads one file under a name.
pub(crate) async fn push_file(
    client: &Client,
    name: &Name,
    file: &Path,
) -> Result<Pushed, Failure> {
    push_bytes(client, name, read_file(file, COMPONENT_BYTES_MAX)?.into()).await
}

/// Uploads a component under a name.
pub(crate) async fn push_bytes(
    client: &Client,
    name: &Name,
    bytes: Bytes,
) -> Result<Pushed, Failure> {
    let path = client.path(&format!("components/{name}"));
    let before = match client.get(path.clone()).await {
        Ok(info) => info.get("digest").cloned(),
        Err(failure) if failure.cause == Cause::NotFound => None,
        Err(failure) => return Err(failure),
    };
    let call = Call::new(Method::PUT, path).body(MEDIA_WASM, bytes).within(COMPILE_TIME_MAX);
    let info = client.send(call).await?.json()?;
    let changed = before.is_none() || before.as_ref() != info.get("digest");
    Ok(Pushed { info, changed })
}

/// One line about an upload.
pub(crate) fn pushed_text(name: &Name, pushed: &Pushed) -> String {
    let member = |name: &str| pushed.info.get(name);
    let digest = member("digest").and_then(Value::as_str).unwrap_or("-");
    let bytes = member("bytes").and_then(Value::as_u64).unwrap_or_default();
    let done = if pushed.changed { "pushed" } else { "unchanged:" };
    format!("{done} component {name} ({} bytes, {})", grouped(bytes), printable(digest))
}

/// `apply`
pub(crate) async fn apply(screen: Screen, args: ApplyArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let manifest = Manifest::read(&args.file)?;
    if let Some(directory) = &args.push {
        for component in manifest.components() {
            let file = manifest.component_file(directory, &component);
            let pushed = push_file(&client, &component, &file).await?;
            screen.hint(&pushed_text(&component, &pushed));
        }
    }
    let registries = Registries::new(screen, args.registry);
    let brought = registries.bring(&client, &manifest, args.dry_run).await?;
    let call = apply_call(&client, &brought.manifest);
    let call = ordered(call, args.dry_run, &args.discard_state);
    let applied = client.send(call).await.map_err(|failure| brought.told(failure))?.json()?;
    screen.result(&applied, &applied_text(&manifest.name, &applied, args.dry_run))?;
    if !args.dry_run {
        let next = &manifest.name;
        screen.hint(&format!("next: `sluicebox send {next}`, `sluicebox describe {next}`"));
    }
    Ok(())
}

/// `rollback`
pub(crate) async fn roll_back(screen: Screen, args: RollbackArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let path = client.pipeline(&args.pipeline, "/rollback");
    let call = Call::new(Method::POST, path).within(COMPILE_TIME_MAX);
    let mut call = ordered(call, args.dry_run, &args.discard_state);
    if let Some(to) = args.to {
        call = call.query("to", to.to_string());
    }
    let applied = client.send(call).await?.json()?;
    screen.result(&applied, &applied_text(&args.pipeline, &applied, args.dry_run))
}

/// Adds what an apply is told besides the manifest.
fn ordered(mut call: Call, dry_run: bool, discard_state: &[Name]) -> Call {
    if dry_run {
        call = call.query("dry-run", "true");
    }
    for stage in discard_state {
        call = call.query("discard-state", stage.as_str());
    }
    call
}

/// Sends a manifest and gives the node's answer.
pub(crate) async fn apply_manifest(client: &Client, manifest: &Manifest) -> Result<Value, Failure> {
    client.send(apply_call(client, manifest)).await?.json()
}

fn apply_call(client: &Client, manifest: &Manifest) -> Call {
    Call::new(Method::PUT, client.pipeline(&manifest.name, ""))
        .body(manifest.media_type, manifest.text.clone())
        .within(COMPILE_TIME_MAX)
}

pub(crate) fn applied_text(name: &Name, applied: &Value, dry_run: bool) -> String {
    let flag = |member: &str| applied.get(member).and_then(Value::as_bool).unwrap_or(false);
    let number = |member: &str| applied.get(member).and_then(Value::as_u64).unwrap_or_default();
    let done = match (flag("created"), flag("changed"), dry_run) {
        (true, _, false) => "created",
        (true, _, true) => "would create",
        (false, true, false) => "updated",
        (false, true, true) => "would update",
        (false, false, _) => "unchanged:",
    };
    let mut text = format!("{done} pipeline {name}, version {}", number("version"));
    if number("manifest-of") > 0 {
        text.push_str(&format!(" (the manifest of version {})", number("manifest-of")));
    }
    if number("partitions") > 0 {
        text.push_str(&format!(", {} partitions", number("partitions")));
    }
    for change in applied.get("changes").and_then(Value::as_array).into_iter().flatten() {
        let change = short_digests(change.as_str().unwrap_or_default());
        text.push_str(&format!("\n  {}", printable(&change)));
    }
    text
}

/// `delete`
pub(crate) async fn delete(screen: Screen, args: DeleteArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let (noun, path) = match args.what {
        Deleted::Pipeline => ("pipeline", client.pipeline(&args.name, "")),
        Deleted::Component => ("component", client.path(&format!("components/{}", args.name))),
    };
    client.send(Call::new(Method::DELETE, path)).await?;
    let done = json!({ "deleted": noun, "name": args.name.as_str() });
    screen.result(&done, &format!("deleted {noun} {}", args.name))
}

/// `resume`
pub(crate) async fn resume(screen: Screen, args: PipelineArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    client.send(Call::new(Method::POST, client.pipeline(&args.pipeline, "/resume"))).await?;
    let done = json!({ "resumed": args.pipeline.as_str() });
    screen.result(&done, &format!("resumed pipeline {}", args.pipeline))
}

/// `move`
pub(crate) async fn move_to(screen: Screen, args: MoveArgs) -> Result<(), Failure> {
    let client = Client::new(&args.connection)?;
    let path = client.pipeline(&args.pipeline, "/move");
    // The other node may have to compile what the pipeline runs.
    let mut call = Call::new(Method::POST, path).query("to", args.to).within(COMPILE_TIME_MAX);
    if let Some(partitions) = args.partitions {
        call = call.query("partitions", partitions);
    }
    let moved = client.send(call).await?.json()?;
    screen.result(&moved, &moved_text(&args.pipeline, &moved))
}

pub(crate) fn moved_text(name: &Name, moved: &Value) -> String {
    let member = |name: &str| {
        moved.get(name).map_or_else(String::new, |it| match it {
            Value::String(text) => printable(text),
            other => other.to_string(),
        })
    };
    let (from, to, pause) = (member("from"), member("to"), member("pause-millis"));
    let partitions = moved.get("partitions").and_then(Value::as_array);
    let numbers: Vec<u64> = partitions.into_iter().flatten().filter_map(Value::as_u64).collect();
    let (noun, it) = match numbers.len() {
        0 => {
            return format!(
                "moved pipeline {name} from {from} to {to}; it took nothing in for {pause} ms"
            );
        }
        1 => ("partition", "it"),
        _ => ("partitions", "they"),
    };
    let list = ranges(&numbers);
    format!("moved {noun} {list} of pipeline {name} to {to}; {it} took nothing for {pause} ms")
}

/// Ascending numbers as people write them: three and more in a row as a range.
pub(crate) fn ranges(numbers: &[u64]) -> String {
    let in_a_row = numbers.chunk_by(|one, next| one + 1 == *next);
    let texts = in_a_row.flat_map(|row| match row {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.iter().map(u64::to_string).collect(),
    });
    texts.collect::<Vec<String>>().join(", ")
}

/// A manifest as far as this program needs to understand it; the node checks all of it.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) name: Name,
    text: Bytes,
    media_type: &'static str,
    tree: Value,
}

impl Manifest {
    /// Reads a manifest from a file, or from standard input for `-`.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = if file == Path::new("-") {
            let mut bytes = Vec::new();
            let mut input = std::io::stdin().lock().take(MANIFEST_BYTES_MAX + 1);
            input
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::local("read standard input", &error))?;
            bounded(bytes, MANIFEST_BYTES_MAX, "the manifest")?
        } else {
            read_file(file, MANIFEST_BYTES_MAX)?
        };
        Self::parse(text, &file.display().to_string())
    }

    pub(crate) fn parse(text: Vec<u8>, file: &str) -> Result<Self, Failure> {
        let refuse = |place: String, what: String, fix: &str| {
            let mut failure = Failure::new(Cause::Invalid, format!("{file} cannot be applied"))
                .code("manifest.text");
            failure.mistakes.push(Mistake { place, what, fix: Some(fix.to_owned()) });
            failure
        };
        let Ok(words) = std::str::from_utf8(&text) else {
            let what = "it is not UTF-8 text".to_owned();
            return Err(refuse(String::new(), what, "write the manifest as TOML or JSON"));
        };
        let json = words.trim_start().starts_with('{');
        let tree = if json { json_tree(words) } else { toml_tree(words) };
        let tree = tree.map_err(|(line, what)| {
            refuse(format!("line {line}"), printable(&what), "correct the line")
        })?;
        let Some(name) = tree.get("name").and_then(Value::as_str) else {
            let what = "the pipeline's name is missing".to_owned();
            return Err(refuse(
                "name".to_owned(),
                what,
                "add a line such as name = \"my-pipeline\"",
            ));
        };
        let name = Name::new(name).map_err(|error| {
            refuse("name".to_owned(), error.to_string(), "choose a name that keeps the rule")
        })?;
        let media_type = if json { MEDIA_JSON } else { MEDIA_TOML };
        Ok(Self { name, text: text.into(), media_type, tree })
    }

    /// Names of the components it uses, each once; digests and what is no name are left to the
    /// node.
    pub(crate) fn components(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self
            .stages_components()
            .filter_map(|(_, component)| Name::new(component.split('@').next()?).ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Its stages, and what each says is its component.
    pub(crate) fn stages_components(&self) -> impl Iterator<Item = (&str, &str)> {
        let stages = self.tree.get("stages").and_then(Value::as_object);
        stages
            .into_iter()
            .flatten()
            .filter_map(|(name, stage)| Some((name.as_str(), stage.get("component")?.as_str()?)))
    }

    /// The same with other components in the place of these.
    pub(crate) fn with_components(&self, stand_for: &BTreeMap<String, String>) -> Self {
        let mut tree = self.tree.clone();
        let stages = tree.get_mut("stages").and_then(Value::as_object_mut);
        for stage in stages.into_iter().flat_map(|stages| stages.values_mut()) {
            if let Some(component) = stage.get_mut("component")
                && let Some(other) = component.as_str().and_then(|text| stand_for.get(text))
            {
                *component = Value::String(other.clone());
            }
        }
        let text = tree.to_string().into();
        Self { name: self.name.clone(), text, media_type: MEDIA_JSON, tree }
    }

    /// Names of its outputs.
    pub(crate) fn outputs(&self) -> Vec<Name> {
        let outputs = self.tree.get("outputs").and_then(Value::as_object);
        let names = outputs.into_iter().flat_map(|outputs| outputs.keys());
        names.filter_map(|name| Name::new(name).ok()).collect()
    }

    /// The file of a component in a directory: by its name, else by the pipeline's and its name,
    /// as builds of several pipelines into one directory have it.
    pub(crate) fn component_file(&self, directory: &Path, component: &Name) -> PathBuf {
        let own = directory.join(format!("{component}.wasm"));
        let shared = directory.join(format!("{}-{component}.wasm", self.name));
        if !own.exists() && shared.exists() { shared } else { own }
    }
}

fn json_tree(text: &str) -> Result<Value, (usize, String)> {
    serde_json::from_str(text).map_err(|error| (error.line(), error.to_string()))
}

fn toml_tree(text: &str) -> Result<Value, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        (line, error.message().to_owned())
    })
}

/// The name a file suggests.
fn name_of(file: &Path) -> Result<Name, Failure> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    // Compilers write underscores where names have dashes.
    Name::new(&stem.replace('_', "-")).map_err(|error| {
        Failure::new(Cause::Usage, format!("{}: {error}", file.display()))
            .fix("give the component a name with --name")
    })
}

/// Reads a file that is not larger than it may be.
fn read_file(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let doing = || format!("read {}", file.display());
    let opened = std::fs::File::open(file).map_err(|error| Failure::local(doing(), &error))?;
    let mut bytes = Vec::new();
    opened
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::local(doing(), &error))?;
    bounded(bytes, bytes_max, &file.display().to_string())
}

fn bounded(bytes: Vec<u8>, bytes_max: u64, what: &str) -> Result<Vec<u8>, Failure> {
    if bytes.len() as u64 <= bytes_max {
        return Ok(bytes);
    }
    Err(Failure::new(Cause::Invalid, format!("{what} is larger than {bytes_max} bytes"))
        .fix("name the right file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, Failure> {
        Manifest::parse(text.as_bytes().to_vec(), "pipeline.toml")
    }

    #[test]
    fn components_are_found_once_and_digests_left_out() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!(
            "name = \"wc\"\n[stages.a]\ncomponent = \"split\"\n[stages.b]\ncomponent = \
             \"split@{digest}\"\n[stages.c]\ncomponent = \"{digest}\"\n[stages.d]\ncomponent = 5\n\
             [stages.e]\ncomponent = \"../x\"\n"
        );
        let manifest = parse(&text).unwrap();
        assert_eq!(manifest.components(), [Name::new("split").unwrap()]);
        assert_eq!(manifest.media_type, MEDIA_TOML);
    }

    #[test]
    fn a_component_is_found_by_its_name_or_by_the_pipelines_and_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = parse("name = \"wc\"\n").unwrap();
        let name = Name::new("split").unwrap();
        let found = || manifest.component_file(directory.path(), &name);
        assert_eq!(found(), directory.path().join("split.wasm"));
        std::fs::write(directory.path().join("wc-split.wasm"), b"").unwrap();
        assert_eq!(found(), directory.path().join("wc-split.wasm"));
        std::fs::write(directory.path().join("split.wasm"), b"").unwrap();
        assert_eq!(found(), directory.path().join("split.wasm"));
    }

    #[test]
    fn json_is_recognised() {
        let manifest = parse("\n {\"name\": \"wc\"}").unwrap();
        assert_eq!((manifest.name.as_str(), manifest.media_type), ("wc", MEDIA_JSON));
    }

    #[test]
    fn a_broken_manifest_names_the_line() {
        for (text, place) in [
            ("name = \"a\"\nx = = 1\n", "line 2"),
            ("{\"name\":\n\"a\",,}", "line 2"),
            ("version = 1\n", "name"),
            ("name = \"A B\"\n", "name"),
        ] {
            let failure = parse(text).err().unwrap();
            assert_eq!(failure.mistakes[0].place, place, "{text:?}");
            assert_eq!(failure.cause, Cause::Invalid);
        }
    }

    #[test]
    fn a_file_suggests_a_name() {
        assert_eq!(name_of(Path::new("x/word_split.wasm")).unwrap().as_str(), "word-split");
        assert_eq!(name_of(Path::new("x/Ä.wasm")).unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn what_apply_did_is_said() {
        let name = Name::new("wc").unwrap();
        let applied = json!({ "created": false, "changed": true, "version": 3, "partitions": 4,
                              "changes": ["stage count: component"] });
        assert_eq!(
            applied_text(&name, &applied, true),
            "would update pipeline wc, version 3, 4 partitions\n  stage count: component"
        );
        let applied = json!({ "changed": true, "version": 4, "manifest-of": 2 });
        assert_eq!(
            applied_text(&name, &applied, false),
            "updated pipeline wc, version 4 (the manifest of version 2)"
        );
    }

    #[test]
    fn what_a_move_came_to_is_said() {
        let name = Name::new("wc").unwrap();
        let mut moved = json!({ "name": "wc", "from": "a", "to": "b", "pause-millis": 12 });
        let text = moved_text(&name, &moved);
        assert_eq!(text, "moved pipeline wc from a to b; it took nothing in for 12 ms");
        moved["partitions"] = json!([2, 3]);
        let text = moved_text(&name, &moved);
        assert_eq!(text, "moved partitions 2, 3 of pipeline wc to b; they took nothing for 12 ms");
        moved["partitions"] = json!([7]);
        let text = moved_text(&name, &moved);
        assert_eq!(text, "moved partition 7 of pipeline wc to b; it took nothing for 12 ms");
        assert_eq!(ranges(&[0, 2, 3, 5, 6, 7, 8, 10]), "0, 2, 3, 5-8, 10");
    }
}
