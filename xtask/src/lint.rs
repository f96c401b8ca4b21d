//! `cargo xtask lint`: formatting, clippy and documentation, with warnings as errors.
//!
//! It also says, without failing, when the engine's release line has a newer patch than the lock
//! file: patches of that line are mostly security fixes. Without a network it says nothing.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{self, say};
use crate::workspace::Workspace;

/// Runs every check that does not need to run the code.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("lint takes no arguments, and got `{argument}`");
    }
    say("lint: formatting");
    process::run(&mut workspace.cargo_unlocked(&["fmt", "--all", "--check"]))?;
    say("lint: clippy");
    let mut clippy = workspace.cargo(&["clippy"]);
    process::run(clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    say("lint: documentation");
    let mut doc = workspace.cargo(&["doc"]);
    process::run(doc.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    note_newer_engine(workspace);
    Ok(())
}

fn note_newer_engine(workspace: &Workspace) {
    let lock = fs::read_to_string(workspace.root().join("Cargo.lock")).unwrap_or_default();
    let Some(locked) = locked_version(&lock, "wasmtime") else { return };
    let Some(newest) = newest_patch(locked) else { return };
    if parts(&newest) > parts(locked) {
        say(&format!(
            "note: wasmtime {newest} is out and the lock file has {locked}; \
             run `cargo update --package wasmtime` and read its release notes"
        ));
    }
}

/// The newest release of the same major version, if the registry answers.
fn newest_patch(locked: &str) -> Option<String> {
    let major = locked.split('.').next()?;
    // Inside a workspace the answer would be the locked version.
    let output = Command::new("cargo")
        .current_dir(std::env::temp_dir())
        .args(["info", "--quiet", "--color", "never"])
        .arg(format!("wasmtime@{major}"))
        .env("CARGO_NET_RETRY", "0")
        .env("CARGO_HTTP_TIMEOUT", "10")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

fn version_in(info: &str) -> Option<&str> {
    let line = info.lines().find_map(|line| line.strip_prefix("version:"))?;
    line.split_whitespace().next()
}

fn locked_version<'lock>(lock: &'lock str, package: &str) -> Option<&'lock str> {
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\n"))?;
    entry.lines().next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn parts(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locked_version_is_that_of_the_exact_name() {
        let lock = "name = \"wasmtime-wasi\"\nversion = \"1.0.0\"\n\n[[package]]\n\
                    name = \"wasmtime\"\nversion = \"48.0.8\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "wasmtime"), Some("48.0.8"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }

    #[test]
    fn the_version_is_read_past_its_remark() {
        assert_eq!(version_in("wasmtime\nversion: 48.0.9 (latest 50.0.1)\n"), Some("48.0.9"));
        assert_eq!(version_in(""), None);
    }

    #[test]
    fn patches_are_compared_as_numbers() {
        assert!(parts("48.0.10") > parts("48.0.9"));
        assert!(parts("48.0.8") <= parts("48.0.8"));
    }
}
