//! Which cores a thread or a program runs on.
//!
//! A program inherits the cores of the thread that starts it, so there is no moment at which it
//! runs elsewhere.

use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the measured program and the load generator run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The first core: the program that is measured.
    Server,
    /// The second core, or the only one: the load generator.
    Client,
    /// Wherever the system likes.
    Any,
}

/// Runs `start` on the given core, then gives the calling thread its cores back.
///
/// # Errors
/// The system refuses, or `start` fails.
pub fn on<T>(core: Core, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("read the cores of this thread")?;
    bind(core)?;
    let result = start();
    sched_setaffinity(None, &before).context("restore the cores of this thread")?;
    result
}

/// Binds the calling thread, and the threads and programs it starts from now on.
///
/// # Errors
/// The system refuses.
pub fn bind(core: Core) -> Result<()> {
    let mut set = CpuSet::new();
    match core {
        Core::Server => set.set(0),
        Core::Client => set.set(count().min(2) - 1),
        Core::Any => return Ok(()),
    }
    sched_setaffinity(None, &set).context("bind this thread to a core")
}

/// Cores of this machine that we may use.
#[must_use]
pub fn count() -> usize {
    available_parallelism().map_or(1, usize::from)
}
