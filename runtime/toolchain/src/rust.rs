//! Stages in Rust: `cargo build` for the component target.
//!
//! Flags meant for the host (lints as errors, coverage) are removed, since they would break or
//! rebuild what is built for the sandbox. What is up to date is cargo's business.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::at;
use crate::process::{self, Progress};
use crate::sources::has_extension;
use crate::{Error, Language, Missing, Project, Result, Tools, cargo};

/// The target whose results are components.
pub const TARGET: &str = "wasm32-wasip2";

/// Variables that change how the host's code is built and must not reach stages.
const HOST_FLAGS: [&str; 7] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "LLVM_PROFILE_FILE",
];

/// Builds with rustup's toolchain.
pub struct Rust;

impl Language for Rust {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn title(&self) -> &'static str {
        "Rust"
    }

    fn world(&self, _folder: &Path) -> &'static str {
        "stage"
    }

    fn detects(&self, folder: &Path) -> bool {
        folder.join("Cargo.toml").is_file()
    }

    fn is_source(&self, file: &Path) -> bool {
        has_extension(file, "rs") || has_extension(file, "wgsl") || has_extension(file, "toml")
    }

    /// Packages it uses may lie anywhere; cargo knows where.
    fn knows_changes(&self) -> bool {
        true
    }

    fn missing(&self, _tools: &Tools) -> Vec<Missing> {
        let missing = |what: &str, install: &str| {
            vec![Missing { what: what.to_owned(), install: install.to_owned(), fetch: None }]
        };
        if !process::succeeds(Command::new("cargo").arg("--version")) {
            return missing("cargo", "install Rust with rustup, see https://rustup.rs");
        }
        if !has_target() {
            let what = format!("rustc's target {TARGET}");
            return missing(&what, &format!("run `rustup target add {TARGET}`"));
        }
        Vec::new()
    }

    fn fetch(&self, _tools: &Tools, _progress: &mut Progress<'_>) -> Result<()> {
        Ok(())
    }

    fn build(&self, project: &Project, _tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        progress.say("building with cargo");
        let mut command = Command::new("cargo");
        command.args(["build", "--release"]).current_dir(&project.folder);
        let artefacts = cargo::build(for_component(&mut command))?;
        let folder = fs::canonicalize(&project.folder).map_err(at("find", &project.folder))?;
        let is_ours =
            |package: &Path| fs::canonicalize(package).is_ok_and(|package| package == folder);
        let module = artefacts
            .iter()
            .find(|made| has_extension(&made.file, "wasm") && is_ours(&made.package))
            .ok_or_else(|| Error::Sources {
                what: "cargo made no .wasm file of this package".to_owned(),
                fix: "its library must be one: [lib] crate-type = [\"cdylib\"]".to_owned(),
            })?;
        fs::copy(&module.file, project.finished()).map_err(at("copy", &module.file))?;
        Ok(())
    }
}

/// Makes a cargo command one for the component target.
pub fn for_component(command: &mut Command) -> &mut Command {
    for variable in HOST_FLAGS {
        command.env_remove(variable);
    }
    command.args(["--target", TARGET])
}

/// Whether the toolchain can make components.
#[must_use]
pub fn has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let words = ["--print", "target-libdir", "--target", TARGET];
    let folder = process::output_of(Command::new(rustc).args(words));
    folder.is_some_and(|folder| Path::new(folder.trim()).is_dir())
}
