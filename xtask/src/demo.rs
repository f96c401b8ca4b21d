//! `cargo xtask demo`: builds the example guests and the command, then becomes `sluicebox demo`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use sluicebox_toolchain::cargo;

use crate::guests;
use crate::process::say;
use crate::workspace::Workspace;

/// Runs the demo; arguments are handed on.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    guests::build_examples(workspace)?;
    say("demo: building sluicebox (the first time takes some minutes)");
    // With the features of the whole workspace, so that tests find the engine built.
    let build = ["build", "--workspace", "--bin", "sluicebox"];
    let artefacts = cargo::build(&mut workspace.cargo(&build))?;
    let program = artefacts
        .into_iter()
        .map(|artefact| artefact.file)
        .rfind(|file| file.file_stem().is_some_and(|stem| stem == "sluicebox"))
        .context("cargo built no program named sluicebox")?;
    become_demo(program, workspace, arguments)
}

/// Replaces this process where the system can, so that signals and the exit code are the demo's.
fn become_demo(program: PathBuf, workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let mut demo = Command::new(program);
    demo.current_dir(workspace.root()).arg("demo").args(arguments);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        Err(demo.exec()).context("sluicebox could not be started")
    }
    #[cfg(not(unix))]
    {
        let status = demo.status().context("sluicebox could not be started")?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
