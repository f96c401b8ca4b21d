//! `cargo xtask flink`: what the example `flink` needs, in `target/flink`: Apache Flink itself
//! (`lib`) and the job, compiled (`classes`).
//!
//! Flink comes as a Python package of Java archives, pinned with its hash. Of its 330 MB those
//! stay that a job needs. What is up to date is not made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, say};
use crate::stamp::Stamp;
use crate::workspace::Workspace;

/// Which Flink, and how it is known.
const PINS: &str = include_str!("flink.pins");

/// What the package's own build script may use; it writes its metadata, which pip insists on.
const SCRIPT_PINS: &str = "setuptools==80.9.0\n";

/// The archives that a job needs, as patterns within the package.
const ARCHIVES: [&str; 3] =
    ["*/deps/lib/flink-dist-*", "*/deps/lib/flink-connector-files-*", "*/deps/lib/log4j-*"];

/// Makes it.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("flink takes no arguments, and got `{argument}`");
    }
    process::provide(("javac", "-version"), "default-jdk-headless")?;
    let folder = workspace.root().join("target/flink");
    fs::create_dir_all(&folder)?;
    let archives = provide_archives(&folder)?;
    compile(workspace, &folder, &archives)
}

/// Fetches the archives unless they are there.
fn provide_archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let lib = folder.join("lib");
    let recipe = [PINS, SCRIPT_PINS, &ARCHIVES.join(" ")].concat();
    let stamp = Stamp::new(folder, "lib", &recipe, &[])?;
    if !stamp.is_current(&lib) {
        fetch(folder, &lib).context("Apache Flink could not be fetched")?;
        stamp.save()?;
    }
    let mut archives = Vec::new();
    for entry in fs::read_dir(&lib)? {
        archives.push(entry?.path());
    }
    archives.sort();
    Ok(archives)
}

fn fetch(folder: &Path, lib: &Path) -> Result<()> {
    say("flink: fetching Apache Flink (330 MB)");
    let download = folder.join("download");
    for old in [lib, &download] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
        fs::create_dir_all(old)?;
    }
    let (pins, script_pins) = (download.join("pins"), download.join("script-pins"));
    fs::write(&pins, PINS)?;
    fs::write(&script_pins, SCRIPT_PINS)?;
    // A virtual environment brings pip, which Python is shipped without on some systems.
    let environment = download.join("venv");
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--no-binary", "apache-flink-libraries", "--require-hashes"]);
    pip.arg("--requirement").arg(&pins).arg("--dest").arg(download.join("package"));
    process::run(pip.env("PIP_CONSTRAINT", &script_pins))?;
    let mut packages = fs::read_dir(download.join("package"))?;
    let package = packages.next().context("pip brought nothing")??.path();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&package).arg("-C").arg(lib);
    tar.args(["--strip-components=3", "--wildcards"]).args(ARCHIVES);
    process::run(&mut tar)?;
    fs::remove_dir_all(&download)?;
    Ok(())
}

fn compile(workspace: &Workspace, folder: &Path, archives: &[PathBuf]) -> Result<()> {
    let sources = workspace.root().join("examples/flink/src");
    let classes = folder.join("classes");
    let version = process::output_of(Command::new("javac").arg("-version"))?;
    let stamp =
        Stamp::new(folder, "classes", &[&version, PINS].concat(), std::slice::from_ref(&sources))?;
    if stamp.is_current(&classes) {
        return Ok(());
    }
    say("flink: compiling the job");
    if classes.exists() {
        fs::remove_dir_all(&classes)?;
    }
    let path = std::env::join_paths(archives).context("a path with a colon in it")?;
    let mut javac = Command::new("javac");
    // What the archives name and do not bring is no fault of the job.
    javac.args(["-Xlint:all,-path,-classfile,-processing", "-Werror", "-d"]).arg(&classes);
    javac.arg("-cp").arg(path);
    for entry in fs::read_dir(sources.join("sluicebox"))? {
        javac.arg(entry?.path());
    }
    process::run(&mut javac)?;
    stamp.save()
}
