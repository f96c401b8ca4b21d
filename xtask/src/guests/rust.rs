//! Rust guests: one `cargo build` for the component target, in a target folder of its own.
//!
//! What is up to date is cargo's business.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sluicebox_toolchain::cargo;
use sluicebox_toolchain::rust::{TARGET, for_component, has_target};

use crate::process::{self, say};
use crate::workspace::{Package, Workspace};

use super::{has_extension, name_of, publish};

/// Builds the guests among the workspace's members whose names begin with one of the prefixes.
pub(super) fn build(workspace: &Workspace, prefixes: &[&str]) -> Result<()> {
    let wanted = |package: &&Package| prefixes.iter().any(|p| package.name.starts_with(p));
    let guests: Vec<&Package> = workspace.packages().iter().filter(wanted).collect();
    if guests.is_empty() {
        say("guests: there are no Rust guests");
        return Ok(());
    }
    ensure_target()?;
    say(&format!("guests: building {} in Rust", guests.len()));

    let mut command = workspace.cargo(&["build"]);
    for_component(&mut command).args(["--profile", "guest"]);
    command.env("CARGO_TARGET_DIR", workspace.guests());
    for guest in &guests {
        command.args(["--package", &guest.name]);
    }
    let artefacts = cargo::build(&mut command)?;
    for guest in guests {
        let folder = workspace.root().join(&guest.folder);
        let mut modules = artefacts
            .iter()
            .filter(|artefact| artefact.package == folder && has_extension(&artefact.file, "wasm"));
        let module = modules.next().with_context(|| {
            format!("{} makes no .wasm file; its library must be a `cdylib`", guest.name)
        })?;
        ensure!(modules.next().is_none(), "{} makes more than one .wasm file", guest.name);
        let name = name_of(&guest.folder)
            .with_context(|| format!("{} must lie below tests/guests or examples", guest.name))?;
        copy_if_changed(&module.file, &workspace.guests().join(format!("{name}.wasm")))?;
    }
    Ok(())
}

/// Leaves an equal file alone, so that its time of change says something.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let finished = to.with_extension("wasm.new");
    fs::write(&finished, new)?;
    publish(&finished, to)
}

/// Adds the component target to the toolchain if it is missing.
fn ensure_target() -> Result<()> {
    if has_target() {
        return Ok(());
    }
    say(&format!("guests: adding the target {TARGET} to the toolchain"));
    let added = process::run(Command::new("rustup").args(["target", "add", TARGET]));
    added.with_context(|| format!("the toolchain has no target {TARGET}"))?;
    if !has_target() {
        bail!("the toolchain still has no target {TARGET}; is `rustc` the one of rustup?");
    }
    Ok(())
}
