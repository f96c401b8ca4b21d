//! Stages in JavaScript and TypeScript: `esbuild` bundles the stage with the SDK,
//! `componentize-qjs` puts that and QuickJS into one component.
//!
//! The stage is the default export of `stage.js` or `stage.ts`; what it imports is bundled,
//! packages in `node_modules` included. Types are left out, not checked: that is the business of
//! the author's editor and `tsc`. The engine inside runs the top level when it is built, so what is
//! computed there is fixed in the component.
//!
//! Both tools are packages for Node, which has to be there; they are pinned by a lock file with
//! hashes, and no script of theirs runs when they are installed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::at;
use crate::process::{self, Progress};
use crate::sources::{entries, has_extension};
use crate::{Error, Language, Missing, Project, Result, Tools};

/// Files of npm that pin the tools.
const MANIFEST: &str = include_str!("../pins/js/package.json");
const LOCK: &str = include_str!("../pins/js/package-lock.json");

const WHAT: &str = "componentize-qjs 0.4.5 and esbuild 0.28.2";
const DOWNLOAD: &str = "18 MB from the npm registry";
const NODE_INSTALL: &str = "run `apt-get install nodejs npm`, or your system's equivalent; it takes \
                            version 18 or later";

/// What the bundle may use of QuickJS, which knows that much and more.
const ES: &str = "es2023";

/// The folder of the SDK, which is one for both languages.
const SDK: &str = "js";

/// One of the two languages.
pub(crate) struct Script {
    name: &'static str,
    title: &'static str,
    /// The stage's main module.
    main: &'static str,
}

pub(crate) const JAVASCRIPT: Script = Script { name: "js", title: "JavaScript", main: "stage.js" };

pub(crate) const TYPESCRIPT: Script = Script { name: "ts", title: "TypeScript", main: "stage.ts" };

impl Language for Script {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn sdk(&self) -> &'static str {
        SDK
    }

    fn world(&self, _folder: &Path) -> &'static str {
        "stage"
    }

    fn detects(&self, folder: &Path) -> bool {
        folder.join(self.main).is_file()
    }

    fn is_source(&self, file: &Path) -> bool {
        ["js", "mjs", "ts", "mts", "json"].iter().any(|extension| has_extension(file, extension))
    }

    fn missing(&self, tools: &Tools) -> Vec<Missing> {
        missing(tools)
    }

    fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        fetch(tools, progress)
    }

    fn build(&self, project: &Project, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        let bundle = bundle(project, self.main, tools, progress)?;
        progress.say("building with componentize-qjs");
        let mut componentize = of_package(tools, "componentize-qjs/bin/componentize-qjs");
        componentize.arg("--wit").arg(project.sdk.wit());
        componentize.args(["--world", &project.world, "--sync"]);
        componentize.arg("--js").arg(&bundle).arg("--output").arg(project.finished());
        process::run_quietly(&mut componentize)
    }
}

fn place(tools: &Tools) -> PathBuf {
    tools.place("js", LOCK)
}

fn missing(tools: &Tools) -> Vec<Missing> {
    let mut missing = Vec::new();
    for program in ["node", "npm"] {
        if !process::succeeds(Command::new(program).arg("--version")) {
            let (what, install) = (program.to_owned(), NODE_INSTALL.to_owned());
            missing.push(Missing { what, install, fetch: None });
        }
    }
    if !place(tools).exists() {
        let home = tools.home().display();
        missing.push(Missing {
            what: WHAT.to_owned(),
            install: format!("add --install to fetch {DOWNLOAD} into {home}"),
            fetch: Some(format!("{WHAT}: {DOWNLOAD}")),
        });
    }
    missing
}

fn fetch(tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
    tools.fill(&place(tools), progress, |folder, progress| {
        progress.say(&format!("fetching {WHAT} ({DOWNLOAD})"));
        for (name, text) in [("package.json", MANIFEST), ("package-lock.json", LOCK)] {
            let file = folder.join(name);
            fs::write(&file, text).map_err(at("write", &file))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        process::run(npm.current_dir(folder)).map_err(|error| Error::Tool {
            what: format!("the packages could not be fetched: {error}"),
            fix: "is npm installed, and its registry reachable?".to_owned(),
        })
    })
}

/// Puts the stage, what it imports and the SDK into one file.
fn bundle(
    project: &Project,
    main: &str,
    tools: &Tools,
    progress: &mut Progress<'_>,
) -> Result<PathBuf> {
    let work = fs::canonicalize(project.work()?).map_err(at("find", &project.work))?;
    let sdk = project.sdk.language(SDK);
    let sdk = fs::canonicalize(&sdk).map_err(at("find", &sdk))?;
    let main = project.folder.join(main);
    let main = fs::canonicalize(&main).map_err(at("find", &main))?;
    let (entry, bundle) = (work.join("entry.js"), work.join("bundle.js"));
    fs::write(&entry, entry_of(&main, &project.world)).map_err(at("write", &entry))?;
    progress.say("bundling with esbuild");
    let mut esbuild = esbuild(tools)?;
    esbuild.arg(&entry).args(["--bundle", "--format=esm", "--log-level=warning"]);
    esbuild.arg(format!("--target={ES}")).arg(format!("--alias:sluicebox={}", sdk.display()));
    esbuild.args(["--external:sluicebox:*"]).arg(format!("--outfile={}", bundle.display()));
    process::run(esbuild.current_dir(&project.folder))?;
    Ok(bundle)
}

/// The module that exports what the host calls. The SDK's part comes first, as it brings what code
/// outside of functions may need.
fn entry_of(main: &Path, world: &str) -> String {
    let mut text = String::from("import { component } from \"sluicebox/component\";\n");
    if world.contains("gpu") {
        text.push_str("import \"sluicebox/gpu-component\";\n");
    }
    let main = serde_json::Value::from(main.to_string_lossy());
    writeln!(text, "import stage from {main};").expect("a string takes everything");
    text.push_str("export const handle = component(stage);\n");
    text
}

/// The bundler itself, about to be told what to do. What the package starts is a program of Node
/// that starts it, and adds a page of its own to what the author did wrong.
fn esbuild(tools: &Tools) -> Result<Command> {
    let builds = place(tools).join("node_modules/@esbuild");
    let programs = entries(&builds)?.into_iter().map(|build| build.join("bin/esbuild"));
    let program = programs.into_iter().find(|program| program.is_file());
    program.map(Command::new).ok_or_else(|| Error::Tool {
        what: format!("there is no esbuild for this machine in {}", builds.display()),
        fix: "remove the folder and fetch the tools again".to_owned(),
    })
}

/// Node, about to be told to run a program of a package.
fn of_package(tools: &Tools, program: &str) -> Command {
    let mut command = Command::new("node");
    command.env_remove("NODE_OPTIONS").arg(place(tools).join("node_modules").join(program));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_comes_before_the_stage_and_odd_names_are_quoted() {
        let text = entry_of(Path::new("/a \"b\"/stage.js"), "stage");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "import { component } from \"sluicebox/component\";");
        assert_eq!(lines[1], "import stage from \"/a \\\"b\\\"/stage.js\";");
        assert!(entry_of(Path::new("/x"), "stage-gpu").contains("gpu-component"));
    }

    #[test]
    fn every_pinned_package_has_a_hash_and_names_no_host() {
        let lock: serde_json::Value = serde_json::from_str(LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 2);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].as_str().unwrap().starts_with("sha512-"), "{name}");
            assert!(package["resolved"].is_null(), "{name}");
        }
    }
}
