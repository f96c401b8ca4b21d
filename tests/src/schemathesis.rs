//! The fuzzer of the HTTP interface: schemathesis, which makes requests out of the published
//! description, good ones and bad ones, and holds each reply against it.
//!
//! - It is pinned in `tests/pins`, with hashes, and fetched by `cargo xtask test` below
//!   `target/guests/tools`. Where it is missing the test fails and says so.
//! - Its choices follow from a seed, so a failure comes again.
//! - It is given a bound, and what it says is shown whole if it finds something.

use std::fs;
use std::path::{Path, PathBuf};

use sluicebox_toolchain::Tools;
use sluicebox_toolchain::python_tools::Packages;
use tempfile::TempDir;

use crate::guests;

/// The packages; `xtask/src/test.rs` fetches the same.
const PACKAGES: Packages = Packages {
    name: "schemathesis",
    what: "schemathesis 4.32",
    download: "some 15 MB, from the Python package index",
    pins: include_str!("../pins/schemathesis.txt"),
};

/// How long one run takes, and from which seed, unless the environment says otherwise.
const SECONDS: &str = "40";
const SEED: &str = "7";

/// A run of it, to be.
#[derive(Debug)]
pub struct Fuzzer {
    url: String,
    /// Where its settings and hooks are.
    settings: PathBuf,
    /// Where it runs, and what it may send.
    folder: TempDir,
}

impl Fuzzer {
    /// Against a node, with `schemathesis.toml` and `hooks.py` of a folder.
    #[must_use]
    pub fn new(url: &str, settings: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        Self { url: url.to_owned(), settings: settings.to_path_buf(), folder }
    }

    /// Gives it a file to make bodies of.
    #[must_use]
    pub fn with(self, name: &str, bytes: &[u8]) -> Self {
        fs::write(self.folder.path().join(name), bytes).expect("the folder is new");
        self
    }

    /// Runs it.
    ///
    /// # Panics
    /// If it finds something, with what it says; or if it is not there.
    #[track_caller]
    pub fn finds_nothing(self, arguments: &[&str]) {
        let tools = Tools::in_folder(guests::folder().join("tools"));
        let missing = PACKAGES.missing(&tools);
        assert!(missing.is_empty(), "{missing:?}; `cargo xtask test` fetches it");
        let mut command = PACKAGES.command(&tools);
        let packages = command.get_envs().find(|(name, _)| *name == "PYTHONPATH");
        let packages = packages.and_then(|(_, path)| path).map(ToOwned::to_owned);
        let path = [Some(self.settings.clone().into_os_string()), packages];
        let path = std::env::join_paths(path.into_iter().flatten()).expect("plain names");
        let set =
            |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
        command.env("PYTHONPATH", path).env("PYTHONHASHSEED", "0");
        command.env("SLUICEBOX_FUZZ", self.folder.path()).current_dir(self.folder.path());
        command.args(["-m", "schemathesis.cli", "--no-color", "--config-file"]);
        command.arg(self.settings.join("schemathesis.toml")).arg("run");
        command.arg(format!("{}/v1/openapi.json", self.url)).args(arguments);
        command.args(["--max-time", &set("SLUICEBOX_FUZZ_SECONDS", SECONDS)]);
        command.args(["--seed", &set("SLUICEBOX_SEED", SEED)]);
        let output = command.output().expect("Python can be started");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{}\n{said}", output.status);
        // One that tries nothing finds nothing.
        assert!(said.contains("Fuzzing") && said.contains("generated"), "{said}");
    }
}
