//! What the end-to-end suites share: built guests, an engine to run them in, a node and a client of
//! it, a browser, a registry, patience.
//!
//! Keeps true: what is missing fails with the command that makes it, and is never skipped. Nothing
//! sleeps: `eventually` polls with a bound. Every process started here ends with the test that
//! started it. No network beyond loopback, and beyond what `lan` makes.
//!
//! Leaves to others: what is tested. The suites lie beside `Cargo.toml`, one file each.

// Nothing of this is part of a program: it panics like the tests that call it.
#![expect(clippy::unwrap_used, reason = "the whole crate is a test")]

pub mod browser;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod events;
pub mod eventually;
pub mod follow;
pub mod guests;
pub mod lan;
pub mod liar;
pub mod manifest;
pub mod nats;
pub mod node;
pub mod peer;
pub mod registry;
pub mod rig;
pub mod schemathesis;
pub mod session;
pub mod stream_memory;
pub mod tls;
pub mod tutorial;

use std::path::{Path, PathBuf};

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the root")
}

/// The folder this test was built into: `target/debug` as a rule.
#[must_use]
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().expect("a program lies in a folder");
    // Tests lie in `deps`, programs one level up.
    if folder.ends_with("deps") {
        folder.parent().expect("not the root").into()
    } else {
        folder.into()
    }
}
