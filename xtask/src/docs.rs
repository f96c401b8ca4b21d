//! `cargo xtask docs`: writes the documents that are made of the source, in the order in which one
//! is made of the other: the schema of manifests and the description of the HTTP interface, the
//! help texts, and of these the references.
//!
//! Each is written by the test that holds it against the source.

use anyhow::{Result, bail};

use crate::process::{self, say};
use crate::workspace::Workspace;

/// Writes them.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("docs takes no arguments, and got `{argument}`");
    }
    say("docs: the schema of manifests, the description of the HTTP interface");
    let mut published = workspace.cargo(&["test", "--quiet", "--workspace", "--lib"]);
    process::run(published.args(["--", "the_published"]).env("SLUICEBOX_BLESS", "1"))?;
    process::run(&mut workspace.cargo(&["build", "--quiet", "--workspace", "--bin", "sluicebox"]))?;
    say("docs: help texts");
    let mut help = workspace.cargo(&["test", "--quiet", "--workspace", "--test", "cli"]);
    process::run(help.args(["--", "help::"]).env("SLUICEBOX_GOLDEN", "write"))?;
    say("docs: references");
    let mut references =
        workspace.cargo(&["test", "--quiet", "--workspace", "--test", "reference"]);
    process::run(references.env("SLUICEBOX_BLESS", "1"))
}
