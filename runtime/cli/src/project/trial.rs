//! `test`: pipelines run with recorded events, and what comes is compared with what is expected.
//!
//! - They run for real, on a node in this process with a directory that is removed afterwards. Only
//!   compiled components are kept, in the folder's `.sluicebox`.
//! - It is over when nothing is under way any more: all queues are empty and no stage counts on,
//!   for a while. As long as something expected is missing it waits longer, up to its patience;
//!   with `--bless` always, as what was expected before says nothing then.
//! - What could not be handled is an output as well, called `dead-letters`.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use sluicebox_core::ids::Name;
use sluicebox_toolchain::Project;

use super::events::{DEAD_LETTERS, Outputs, events, shortened};
use super::{Found, MANIFEST, build_one, components_of, local, pipelines_below, stages_below};
use crate::args::Connection;
use crate::args::project::TestArgs;
use crate::client::{Call, Client};
use crate::deploy::{apply_manifest, push_file};
use crate::failure::{Cause, Failure};
use crate::oci::Registries;
use crate::screen::Screen;
use crate::tail::Follower;

/// What is sent, and what is to come of it.
const EVENTS: &str = "events.ndjson";
const OUTPUTS: &str = "outputs.ndjson";

const MEDIA_EVENTS: &str = "application/cloudevents+ndjson";

/// How often the node is asked whether it still has something to do.
const LOOK: Duration = Duration::from_millis(20);

/// How long nothing may happen until nothing more is waited for, if all that is expected is there,
/// and if not or if it is not known.
const REST: Duration = Duration::from_millis(200);
const LONG_REST: Duration = Duration::from_secs(3);

/// `test`
pub(crate) async fn run(screen: Screen, args: TestArgs) -> Result<(), Failure> {
    let folder = std::fs::canonicalize(&args.dir)
        .map_err(|error| Failure::local(format!("find {}", args.dir.display()), &error))?;
    let found = pipelines_below(&folder)?;
    let trials: Vec<Found> =
        found.into_iter().filter(|found| found.folder.join(EVENTS).is_file()).collect();
    if trials.is_empty() {
        let what = format!("nothing in {} has a {MANIFEST} and {EVENTS}", folder.display());
        return Err(Failure::new(Cause::NotFound, what).fix(
            "put events beside the pipeline, a line of JSON each; see `sluicebox test --help`",
        ));
    }
    let mut stages = Vec::new();
    for stage in stages_below(&folder)? {
        let uses = |found: &Found| {
            found.manifest.components().iter().any(|name| name.as_str() == stage.name)
        };
        if trials.iter().any(uses) {
            stages.push(build_one(screen, stage, args.installing).await?.0);
        }
    }
    let place = tempfile::Builder::new()
        .prefix("sluicebox-test-")
        .tempdir()
        .map_err(|error| Failure::local("make a temporary directory", &error))?;
    keep_compiled(&folder, place.path())?;
    let node = local::node(place.path(), ([127, 0, 0, 1], 0).into()).await?;
    let outcome = all(screen, &args, &trials, &stages, node.url()).await;
    local::end(node).await;
    outcome
}

/// Compiled components outlast the directory: they are known by what they were made of.
fn keep_compiled(folder: &Path, data_dir: &Path) -> Result<(), Failure> {
    let kept = folder.join(".sluicebox/artefacts");
    let place = data_dir.join("artefacts");
    std::fs::create_dir_all(&kept)
        .and_then(|()| std::os::unix::fs::symlink(&kept, &place))
        .map_err(|error| Failure::local(format!("make {}", kept.display()), &error))
}

/// Tries one after the other and tells all of them before it fails.
async fn all(
    screen: Screen,
    args: &TestArgs,
    trials: &[Found],
    stages: &[Project],
    url: String,
) -> Result<(), Failure> {
    let tenant = Name::new("dev").expect("dev keeps the rule for names");
    let connection = Connection { url, ca_cert: None, tenant, token: None, token_file: None };
    let client = Client::new(&connection)?;
    let registries = &Registries::new(screen, args.registry.clone());
    let (mut results, mut failed) = (Vec::new(), 0);
    for found in trials {
        let begun = Instant::now();
        let (patience, is_blessed) = (args.patience, args.bless);
        let trial = Trial { client: &client, registries, found, patience, is_blessed };
        let (sent, came, expected) = trial.play(stages).await?;
        let differences = Outputs::differences(&expected, &came);
        let name = &found.manifest.name;
        let (count, seconds) = (came.len(), begun.elapsed().as_secs_f64());
        let text = if args.bless {
            trial.bless(&came)?;
            format!("blessed {name}: {sent} events gave {count} outputs")
        } else if differences.is_empty() {
            format!("ok {name}: {sent} events gave {count} outputs as expected ({seconds:.1} s)")
        } else {
            failed += 1;
            let wrong = screen.alarm(&format!("WRONG {name}: {} differences", differences.len()));
            format!("{wrong}\n{}", shortened(&differences))
        };
        if !screen.json() {
            screen.line(&text)?;
        }
        results.push(json!({
            "pipeline": name.as_str(), "events": sent, "outputs": count, "seconds": seconds,
            "blessed": args.bless, "differences": if args.bless { Vec::new() } else { differences },
        }));
    }
    if screen.json() {
        screen.document(&Value::Array(results))?;
    }
    if failed == 0 {
        return Ok(());
    }
    let what = format!("{failed} of {} pipelines gave something else", trials.len());
    Err(Failure::new(Cause::Partial, what)
        .code("client.differs")
        .fix("- was expected, + came; if what came is right, --bless writes it"))
}

/// A pipeline with its events.
struct Trial<'a> {
    client: &'a Client,
    registries: &'a Registries,
    found: &'a Found,
    patience: Duration,
    /// What comes becomes what is expected.
    is_blessed: bool,
}

impl Trial<'_> {
    /// Runs it: how many events went in, what came, and what is expected.
    async fn play(&self, stages: &[Project]) -> Result<(usize, Outputs, Outputs), Failure> {
        let (client, manifest) = (self.client, &self.found.manifest);
        let expected = Outputs::expected(&self.found.folder.join(OUTPUTS))?;
        let (body, sent) = events(&self.found.folder.join(EVENTS))?;
        for (name, file) in components_of(manifest, stages) {
            push_file(client, &name, file).await?;
        }
        let brought = self.registries.bring(client, manifest, false).await?;
        apply_manifest(client, &brought.manifest).await?;
        let call = Call::new(Method::POST, client.pipeline(&manifest.name, "/events"));
        let reply = client.send(call.body(MEDIA_EVENTS, body.into())).await?.json()?;
        if let Some(refused) = reply.get("rejected").and_then(Value::as_u64).filter(|n| *n > 0) {
            let what = format!("{refused} of {sent} events were refused: {reply}");
            return Err(Failure::new(Cause::Invalid, what).fix("correct these lines"));
        }
        let enough = (!self.is_blessed).then_some(expected.len() as u64);
        let came = self.outputs(enough).await?;
        Ok((sent, came, expected))
    }

    /// Everything that comes, read when nothing is under way any more. Less is waited for once
    /// there is enough, if that is known.
    async fn outputs(&self, enough: Option<u64>) -> Result<Outputs, Failure> {
        let begun = Instant::now();
        let (mut before, mut since) = (Value::Null, Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let (standing, has_work, came) = self.standing().await?;
            if standing != before || has_work {
                (before, since) = (standing, Instant::now());
            }
            let rest = if enough.is_some_and(|enough| came >= enough) { REST } else { LONG_REST };
            if since.elapsed() >= rest || begun.elapsed() >= self.patience {
                break;
            }
        }
        let manifest = &self.found.manifest;
        let mut outputs = Outputs::default();
        for output in manifest.outputs() {
            let client = self.client.clone();
            let follower = Follower::output(client, &manifest.name, &output, "oldest");
            read_all(follower, output.as_str(), &mut outputs).await?;
        }
        let follower = Follower::dead_letters(self.client.clone(), &manifest.name, "oldest");
        read_all(follower, DEAD_LETTERS, &mut outputs).await?;
        Ok(outputs)
    }

    /// What counts on while there is something to do, whether something waits, and how many events
    /// have come out.
    async fn standing(&self) -> Result<(Value, bool, u64), Failure> {
        let path = self.client.pipeline(&self.found.manifest.name, "");
        let detail = self.client.get(path).await?;
        let of = |list: &str, number: &str| -> Vec<u64> {
            let rows = detail.get(list).and_then(Value::as_array).into_iter().flatten();
            rows.filter_map(|row| row.get(number)?.as_u64()).collect()
        };
        let has_work = of("partition", "inbox-bytes").iter().any(|bytes| *bytes > 0);
        let (outputs, dead) = (of("output", "events"), of("stage", "dead-letters"));
        let came = outputs.iter().chain(&dead).sum();
        let counts = ["events-in", "events-out", "calls", "failures", "fuel"];
        let counts: Vec<Vec<u64>> = counts.iter().map(|count| of("stage", count)).collect();
        Ok((json!([counts, outputs, dead]), has_work, came))
    }

    /// Writes what came as what is expected. Times are if all events said theirs.
    fn bless(&self, came: &Outputs) -> Result<(), Failure> {
        let events = self.found.folder.join(EVENTS);
        let text = std::fs::read_to_string(&events)
            .map_err(|error| Failure::local(format!("read {}", events.display()), &error))?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let has_time = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|event| event.get("time").is_some())
        };
        let file = self.found.folder.join(OUTPUTS);
        std::fs::write(&file, came.text(lines.all(has_time)))
            .map_err(|error| Failure::local(format!("write {}", file.display()), &error))
    }
}

async fn read_all(mut from: Follower, name: &str, into: &mut Outputs) -> Result<(), Failure> {
    loop {
        let records = from.records(Duration::ZERO).await?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            into.add(name, record);
        }
    }
}
