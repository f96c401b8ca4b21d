//! The crate `xtask-guest-tools`, compiled when it is first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// The folders that decide how guests are built. A change there builds them anew.
pub(super) fn recipes(workspace: &Workspace) -> [PathBuf; 2] {
    ["src", "pins"].map(|part| workspace.root().join("runtime/toolchain").join(part))
}

/// Builds one guest into the guests' folder.
pub(super) fn build(
    workspace: &Workspace,
    language: &str,
    name: &str,
    folder: &Path,
    world: &str,
) -> Result<()> {
    let mut command = tool(workspace);
    command.arg("build").args([language, name, world]).arg(folder);
    process::run(command.arg(workspace.root()).arg(workspace.guests()))
}

/// Wraps a core module into a component for a world.
pub(super) fn wrap(workspace: &Workspace, core: &Path, out: &Path, world: &str) -> Result<()> {
    let wit = workspace.root().join("wit");
    process::run(tool(workspace).arg("wrap").arg(core).arg(out).arg(wit).arg(world))
}

/// Encodes the text form.
pub(super) fn encode_text(workspace: &Workspace, text: &[(PathBuf, PathBuf)]) -> Result<()> {
    let mut command = tool(workspace);
    command.arg("wat");
    for (text, out) in text {
        command.arg(text).arg(out);
    }
    process::run(&mut command)
}

/// Holds components against the contract.
pub(super) fn check(workspace: &Workspace, components: &[PathBuf]) -> Result<()> {
    let wit = workspace.root().join("wit");
    process::run(tool(workspace).arg("check").arg(wit).args(components))
}

fn tool(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(&["run"]);
    command.args(["--quiet", "--package", "xtask-guest-tools", "--"]);
    command
}
