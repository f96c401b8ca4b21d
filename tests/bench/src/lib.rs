//! Benches of the whole node: the real program in a process of its own, driven over loopback.
//!
//! Keeps true: every bench checks what it counts, so that a fast wrong answer fails it; every
//! process started here ends with the bench, by its own id; nothing listens beyond loopback; every
//! bench has a bound in time and prints its targets beside what it found.
//!
//! The load generator (`client`, `load`) does as little as it can for each byte, because on a small
//! machine it shares the processor with what it measures. Where that matters the two are bound to
//! different cores (`cores`).
//!
//! Leaves to others: what the targets mean and past results (`docs/bench`), benches without HTTP
//! (the engine's own).

// A bench says what it found, and that is all it does.
#![allow(clippy::print_stdout, reason = "the result of a bench is what it prints")]

pub mod client;
pub mod cluster;
pub mod cores;
pub mod disk;
pub mod events;
pub mod histogram;
pub mod load;
pub mod node;
pub mod options;
pub mod pipelines;
pub mod process;
pub mod report;
pub mod rounds;
pub mod session;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// The root of the repository.
///
/// # Errors
/// This crate was moved.
pub fn root() -> Result<&'static Path> {
    let up = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    up.context("this crate lies two folders below the root")
}

/// A program of the workspace, built in the profile of the running bench.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    // Benches lie in `deps`, programs one level up.
    let folder = this.parent().and_then(Path::parent).context("a bench lies in a folder")?;
    let program = folder.join(name);
    anyhow::ensure!(
        program.exists(),
        "there is no {}; run `cargo build --release -p sluicebox`",
        program.display()
    );
    Ok(program)
}

/// The end of a bench: prints why it failed, if it did.
pub fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime for the load generator: one thread, so that it has a place of its own.
///
/// # Errors
/// The system has no more threads or handles.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
