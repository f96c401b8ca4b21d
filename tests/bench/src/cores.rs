//! Which cores a thread or a program runs on.
//!
//! A program inherits the cores of the thread that starts it, so there is no moment at which it
//! runs elsewhere.

use std::sync::OnceLock;

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
    let usable = usable();
    let place = match core {
        Core::Server => usable.first(),
        Core::Client => usable.get(1).or_else(|| usable.first()),
        Core::Any => return Ok(()),
    };
    let mut set = CpuSet::new();
    set.set(*place.context("no core that may be used")?);
    sched_setaffinity(None, &set).context("bind this thread to a core")
}

/// The cores this program was given, as they were before any thread was bound.
fn usable() -> &'static [usize] {
    static USABLE: OnceLock<Vec<usize>> = OnceLock::new();
    USABLE.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    })
}
