//! Building the guests of tests and examples, in five languages, into `target/guests`.
//!
//! What is a guest is found, not listed:
//! - a workspace member whose name starts with `guest-` or `example-` is a Rust guest;
//! - a folder below `tests/guests` or `examples` with a `stage.py` or an `app.py` is a Python
//!   guest, one with a `stage.js` or a `stage.ts` a JavaScript guest, one with a `go.mod` a Go
//!   guest, one with a `.c` file a C guest, one with `.wat` files holds guests in text form. A file
//!   `world` in it names the world of `wit/` it is for, if that is not the one its language and its
//!   sources say.
//!
//! A guest's file is named after its folder: `tests/guests/conformance-c` gives
//! `conformance-c.wasm`, `examples/word-count/split` gives `word-count-split.wasm`. The guests of
//! `tests/guests/hostile` go to a folder `hostile`. What is up to date is not built again; a file
//! appears whole or not at all.

mod recipe;
mod recipes;
mod rust;
mod text;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use sluicebox_toolchain::language as language_called;

use crate::process::say;
use crate::stamp::Stamp;
use crate::workspace::Workspace;

/// Where guests live, from the root of the repository.
const HOMES: [&str; 2] = ["tests/guests", "examples"];

/// The languages a guest may be written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Language {
    Rust,
    C,
    Go,
    Python,
    JavaScript,
    Text,
    /// What `guest-sdk/recipes` has.
    Recipes,
}

const ALL: [Language; 7] = [
    Language::Rust,
    Language::C,
    Language::Go,
    Language::Python,
    Language::JavaScript,
    Language::Text,
    Language::Recipes,
];

/// The command `cargo xtask guests`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut languages = Vec::new();
    let mut check = false;
    for argument in arguments {
        match argument.as_str() {
            "--check" => check = true,
            "rust" => languages.push(Language::Rust),
            "c" => languages.push(Language::C),
            "go" => languages.push(Language::Go),
            "python" => languages.push(Language::Python),
            "js" => languages.push(Language::JavaScript),
            "recipes" => languages.push(Language::Recipes),
            "wat" => languages.push(Language::Text),
            other => {
                let known = "rust, c, go, python, js, wat and recipes";
                bail!("`{other}` is no language; known are {known}")
            }
        }
    }
    if languages.is_empty() {
        languages = ALL.to_vec();
    }
    build(workspace, &languages)?;
    if check {
        say("guests: holding every result against wit/");
        let mut results = components_in(&workspace.guests())?;
        results.extend(components_in(&workspace.guests().join("hostile"))?);
        tools::check(workspace, &results)?;
    }
    Ok(())
}

/// Builds every guest.
pub(crate) fn build_all(workspace: &Workspace) -> Result<()> {
    build(workspace, &ALL)
}

/// Builds the Rust guests.
pub(crate) fn build_rust(workspace: &Workspace) -> Result<()> {
    build(workspace, &[Language::Rust])
}

/// Builds the Rust guests of the examples only.
pub(crate) fn build_examples(workspace: &Workspace) -> Result<()> {
    rust::build(workspace, &["example-"])
}

fn build(workspace: &Workspace, languages: &[Language]) -> Result<()> {
    if languages.contains(&Language::Rust) {
        rust::build(workspace, &["guest-", "example-"])?;
    }
    for folder in folders(workspace)? {
        let Some(language) = language_of(&folder)? else { continue };
        if !languages.contains(&language) {
            continue;
        }
        let guest = Guest::new(workspace, folder)?;
        let name = guest.name.clone();
        match language {
            Language::C => recipe::build(workspace, &guest, language_called("c")?),
            Language::Go => recipe::build(workspace, &guest, language_called("go")?),
            Language::Python => recipe::build(workspace, &guest, language_called("python")?),
            Language::JavaScript => {
                let name = if guest.folder.join("stage.ts").is_file() { "ts" } else { "js" };
                recipe::build(workspace, &guest, language_called(name)?)
            }
            Language::Text => text::build(workspace, &guest),
            // Found by the name of its package, and in a folder of their own.
            Language::Rust | Language::Recipes => Ok(()),
        }
        .with_context(|| format!("guest {name}"))?;
    }
    if languages.contains(&Language::Recipes) {
        recipes::build(workspace)?;
    }
    Ok(())
}

/// A guest that is a folder and not a package.
struct Guest {
    name: String,
    folder: PathBuf,
}

impl Guest {
    fn new(workspace: &Workspace, folder: PathBuf) -> Result<Self> {
        let relative = folder.strip_prefix(workspace.root()).unwrap_or(&folder);
        let name = name_of(relative)
            .with_context(|| format!("{} is no place for a guest", folder.display()))?;
        Ok(Self { name, folder })
    }

    /// The world it is written for.
    fn world(&self, language: &dyn sluicebox_toolchain::Language) -> Result<String> {
        let file = self.folder.join("world");
        if !file.is_file() {
            return Ok(language.world(&self.folder).to_owned());
        }
        let name = fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(name.trim().to_owned())
    }

    /// The finished component.
    fn result(&self, workspace: &Workspace) -> PathBuf {
        workspace.guests().join(format!("{}.wasm", self.name))
    }

    /// A folder for what is made on the way.
    fn work(&self, workspace: &Workspace) -> Result<PathBuf> {
        let work = workspace.guests().join("work").join(&self.name);
        fs::create_dir_all(&work)?;
        Ok(work)
    }

    /// The stamp over the guest's own files, the contract, the SDK and the way of building it.
    fn stamp(&self, workspace: &Workspace, recipe: &str, sdk: Option<PathBuf>) -> Result<Stamp> {
        let mut inputs = vec![self.folder.clone(), workspace.root().join("wit")];
        inputs.extend(tools::recipes(workspace));
        inputs.extend(sdk);
        Stamp::new(&workspace.guests().join("stamps"), &self.name, recipe, &inputs)
    }

    fn say(&self, what: &str) {
        say(&format!("guests: {}: {what}", self.name));
    }
}

/// The name of the guest in a folder given from the root: the path below its home, with dashes.
fn name_of(folder: &Path) -> Option<String> {
    let below = HOMES.iter().find_map(|home| folder.strip_prefix(home).ok())?;
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let name = parts?.join("-");
    (!name.is_empty()).then_some(name)
}

/// All folders in which a guest may be: one or two levels below a home.
fn folders(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for home in HOMES {
        for folder in folders_in(&workspace.root().join(home))? {
            let nested = folders_in(&folder)?;
            found.push(folder);
            found.extend(nested);
        }
    }
    Ok(found)
}

fn folders_in(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = files_in(parent)?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

/// What is in a folder, sorted; nothing if there is no such folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

fn components_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_in(folder)?;
    files.retain(|path| has_extension(path, "wasm"));
    Ok(files)
}

fn language_of(folder: &Path) -> Result<Option<Language>> {
    let files = files_in(folder)?;
    if files.iter().any(|path| path.ends_with("Cargo.toml")) {
        return Ok(Some(Language::Rust));
    }
    if files.iter().any(|path| path.ends_with("stage.py") || path.ends_with("app.py")) {
        return Ok(Some(Language::Python));
    }
    if files.iter().any(|path| path.ends_with("stage.js") || path.ends_with("stage.ts")) {
        return Ok(Some(Language::JavaScript));
    }
    if files.iter().any(|path| path.ends_with("go.mod")) {
        return Ok(Some(Language::Go));
    }
    if files.iter().any(|path| has_extension(path, "c")) {
        return Ok(Some(Language::C));
    }
    Ok(files.iter().any(|path| has_extension(path, "wat")).then_some(Language::Text))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Moves a finished file to its place, so that nobody ever reads half of one.
fn publish(finished: &Path, place: &Path) -> Result<()> {
    ensure!(finished.exists(), "the tools made no {}", finished.display());
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(finished, place).with_context(|| format!("{} cannot be written", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_named_after_its_folder() {
        assert_eq!(name_of("tests/guests/conformance-c".as_ref()).unwrap(), "conformance-c");
        assert_eq!(name_of("examples/word-count/split".as_ref()).unwrap(), "word-count-split");
        assert_eq!(name_of("examples/host-metrics".as_ref()).unwrap(), "host-metrics");
    }

    #[test]
    fn a_folder_outside_the_homes_has_no_name() {
        assert!(name_of("runtime/core".as_ref()).is_none());
        assert!(name_of("tests/guests".as_ref()).is_none());
    }
}
