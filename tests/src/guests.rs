//! Built guest components, from `target/guests`.
//!
//! `cargo xtask guests` puts them there. A missing one fails the test and says so: a suite that
//! skips what it cannot find proves nothing.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::root;

/// The folder of built guests.
#[must_use]
pub fn folder() -> PathBuf {
    // Guests do not depend on the profile the tests are built in.
    root().join("target/guests")
}

/// A guest by its name below the folder, without the ending: `hostile/spin`.
#[must_use]
pub fn bytes(name: &str) -> Bytes {
    read(&path(name))
}

/// Where a guest lies.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    folder().join(format!("{name}.wasm"))
}

/// The names of all guests in a folder below, without the ending, in order.
#[must_use]
pub fn names(below: &str) -> Vec<String> {
    let folder = folder().join(below);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| missing(&folder, &error));
    let paths = files.map(|file| file.expect("a folder that opens can be read").path());
    let wasm = paths.filter(|path| path.extension().is_some_and(|ending| ending == "wasm"));
    let mut names: Vec<String> =
        wasm.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty; run `cargo xtask guests`", folder.display());
    names
}

fn read(path: &Path) -> Bytes {
    std::fs::read(path).unwrap_or_else(|error| missing(path, &error)).into()
}

fn missing(path: &Path, error: &std::io::Error) -> ! {
    panic!("{}: {error}; build the guests with `cargo xtask guests`", path.display());
}
