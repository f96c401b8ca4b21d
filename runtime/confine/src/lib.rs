//! A process locks itself in: it keeps one directory or none, what it was handed open, and few
//! calls. And who starts it holds it to what it may use, by a control group.
//!
//! [`confine`] is called first thing in `main`, while there is one thread. What it puts in place
//! holds for all threads and programs the process starts later, and nothing takes it back.
//!
//! Keeps true: a measure is in place, or its row in the [`Report`] says why not. What the kernel
//! has and refuses all the same is an error, after which the process must not go on.
//!
//! - `files`: Landlock. Only the paths of [`Bounds`] can be opened, made, renamed and removed.
//! - [`drivers`]: the paths that drivers of devices need.
//! - `calls`: seccomp. An allow-list of system calls; why not a deny-list is said there.
//! - `apart`: a network without any device, where the kernel lets the process make one.
//! - `rights`: no capabilities, none to be gained by programs, no dumps and no tracers.
//! - `limits`: memory, open files, their size, processor time and core dumps.
//! - [`cgroup`]: memory, processors and tasks of all processes together. From outside.
//!
//! Leaves to who starts the process: a user of its own (as root, what Landlock cannot see, such as
//! whether a file exists, can be asked of the whole machine), a directory no other user can enter,
//! and closing all descriptors the process is not meant to have: what is open stays open.

mod apart;
mod calls;
pub mod cgroup;
pub mod drivers;
mod error;
mod files;
mod limits;
mod rights;

use std::fmt;
use std::path::{Path, PathBuf};

pub use error::Error;

/// What the process keeps.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// The directory in which it may read, write, make, rename and remove files and directories;
    /// not execute, and not make links, devices or sockets. It must exist. `None`: there is none.
    pub directory: Option<&'a Path>,
    /// Files and directories it may read besides. What does not exist is left out. Not for files
    /// below `/proc/self`: open those before, and keep them open.
    pub read: &'a [PathBuf],
    /// Files and directories whose files it may read and execute: its own program, the loader and
    /// the libraries. What does not exist is left out.
    pub execute: &'a [PathBuf],
    /// Directories of which it may see what is in them. What does not exist is left out.
    pub list: &'a [PathBuf],
    /// Devices, and directories of devices, that it may read, write and control. What does not
    /// exist is left out.
    pub devices: &'a [PathBuf],
    /// What it calls the system for.
    pub calls: Calls,
    /// Most bytes of private memory each process may be able to write, used or not: heaps, stacks
    /// of threads, memories of guests. Memory that is only reserved is not counted, and shared
    /// memory never is. `None`: no limit.
    pub memory_bytes_max: Option<u64>,
    /// Most descriptors that may be open at once; less if the process was started with less.
    pub open_files_max: u64,
    /// Most bytes a file may get to have, those that are in memory alone too. Who writes more gets
    /// a signal. `None`: no limit.
    pub file_bytes_max: Option<u64>,
    /// Most seconds of processor time, at which it is killed. `None`: no limit.
    pub cpu_seconds_max: Option<u64>,
}

impl<'a> Bounds<'a> {
    /// Nothing but a directory, or not even that: what else a process may have is for the caller
    /// to set.
    #[must_use]
    pub const fn of(calls: Calls, directory: Option<&'a Path>) -> Self {
        Self {
            directory,
            read: &[],
            execute: &[],
            list: &[],
            devices: &[],
            calls,
            memory_bytes_max: None,
            open_files_max: u64::MAX,
            file_bytes_max: None,
            cpu_seconds_max: None,
        }
    }
}

/// Which list of system calls a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// That of a node: it starts its own program, which is held in with it, and signals what is
    /// held in where that can be bounded.
    Node,
    /// That of a process which gives drivers work of others: it controls devices, starts nothing
    /// and signals nobody but itself.
    Drivers,
}

/// What became of a measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force; with what exactly, in words.
    InPlace(String),
    /// The kernel does not have it or does not let this process have it; why, in words.
    Absent(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InPlace(detail) => write!(f, "in place: {detail}"),
            Self::Absent(reason) => write!(f, "absent: {reason}"),
        }
    }
}

/// Names of the measures, in the order in which they are put in place.
pub const MEASURES: [&str; 7] = [
    NO_NEW_PRIVILEGES,
    limits::MEASURE,
    apart::MEASURE,
    rights::CAPABILITIES,
    rights::DUMPABLE,
    files::MEASURE,
    calls::MEASURE,
];

/// The measure that goes before all others, which rely on it.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// What was put in place: one row for each of [`MEASURES`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is absent has to be told"]
pub struct Report {
    rows: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Name and outcome of each measure, in the order of [`MEASURES`].
    #[must_use]
    pub fn rows(&self) -> &[(&'static str, Outcome)] {
        &self.rows
    }

    /// The rows of what is not in force: name and reason.
    pub fn absent(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.rows.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::InPlace(_) => None,
            Outcome::Absent(reason) => Some((*name, reason.as_str())),
        })
    }
}

/// Locks the calling process in, for good.
///
/// Call it in `main`, before there is a second thread. A program that the process starts is locked
/// in as well, and may call this again with narrower bounds.
///
/// # Errors
/// When there are other threads, a path cannot be opened, or the kernel refuses what it has. Some
/// measures may be in place then: end the process.
pub fn confine(bounds: &Bounds<'_>) -> Result<Report, Error> {
    one_thread()?;
    let mut rows = Vec::with_capacity(MEASURES.len());
    let mut row = |name, outcome| rows.push((name, outcome));
    row(NO_NEW_PRIVILEGES, no_new_privileges()?);
    row(limits::MEASURE, limits::set(bounds)?);
    // Takes a capability or makes some, and writes below /proc/self.
    row(apart::MEASURE, apart::leave()?);
    row(rights::CAPABILITIES, rights::drop_capabilities()?);
    // Not before the above: it takes files below /proc/self from their owner.
    row(rights::DUMPABLE, rights::forbid_dumps()?);
    let kept = files::keep(bounds)?;
    row(files::MEASURE, kept.outcome);
    // Last, as it refuses some of what the others call.
    row(calls::MEASURE, calls::allow(bounds.calls, kept.signals_bounded)?);
    Ok(Report { rows })
}

/// Landlock and seccomp hold for the calling thread and what comes from it, not for its siblings.
fn one_thread() -> Result<(), Error> {
    // Without /proc, or locked in already, the number cannot be known; the rule stands.
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Ok(()) };
    match tasks.count() {
        0 | 1 => Ok(()),
        threads => Err(Error::Threads { threads }),
    }
}

fn no_new_privileges() -> Result<Outcome, Error> {
    rustix::thread::set_no_new_privs(true).map_err(Error::measure(NO_NEW_PRIVILEGES, "prctl"))?;
    Ok(Outcome::InPlace("programs gain nothing when they are executed".to_owned()))
}
