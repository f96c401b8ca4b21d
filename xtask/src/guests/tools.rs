//! The crate `xtask-guest-tools`, compiled when it is first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// The file that pins the tools from the Python package index. A change rebuilds the guests.
pub(super) fn pins(workspace: &Workspace) -> PathBuf {
    workspace.root().join("xtask").join("guests-requirements.txt")
}

/// Writes the C bindings of a world to a folder.
pub(super) fn c_bindings(workspace: &Workspace, world: &str, out: &Path) -> Result<()> {
    let wit = workspace.root().join("wit");
    process::run(tool(workspace).arg("c-bindings").arg(wit).arg(world).arg(out))
}

/// Wraps a core module into a component.
pub(super) fn component(workspace: &Workspace, core: &Path, out: &Path) -> Result<()> {
    process::run(tool(workspace).arg("component").arg(core).arg(out))
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
