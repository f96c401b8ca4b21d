//! The log contract: the one order in which everything a node must not lose is written down.
//!
//! ```text
//! 0 ............ oldest ............ synced ............ appended
//!    recycled      |  can be read      |  in memory only    |
//! ```
//!
//! What an implementation promises, and `log/contract.rs` tests:
//!
//! - [`Log::append`] gives a record its place in the one order and copies it. It waits for no disk.
//!   A record that begins before [`Log::synced`] is on disk and is found by every later opening;
//!   nothing else may be told to anybody outside.
//! - What an opening finds is a prefix of what was appended, in order, whole, none twice.
//! - Positions grow for ever, whichever file a record lies in. That of a synced record is never
//!   used for another; places of records that were lost, never having been synced, are used again.
//! - When a sync fails, nothing it covered is believed; when it cannot be made good, the log has
//!   failed for good, and everybody who follows it is told.
//! - A full disk refuses ingest at once and commits when their reserve is used; both are taken
//!   again when there is room.
//! - Damage before a place that is known to be synced is an error that names it, never a shorter
//!   log.
//!
//! Leaves to others: what records mean, and how far the log is still needed.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::sync::watch;

mod config;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod disk;
mod durable;
mod error;
#[cfg(any(test, feature = "contract"))]
pub mod forge;
pub mod format;
mod group;
pub mod inspect;
mod memory;
mod recover;
mod scan;
mod segments;
mod shared;
#[cfg(any(test, feature = "contract"))]
pub mod sim;
mod wait;
mod writer;

pub use config::Config;
pub use durable::DurableLog;
pub use error::Error;
pub use memory::MemoryLog;
pub use writer::{Step, Writer};

/// A place in the log: bytes since its beginning, over all segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Who is refused first when memory or disk run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// New work. Refused while the disk is full and when much waits to be written.
    Ingest,
    /// The end of work that was accepted. Has a reserve of its own on top.
    Commit,
}

/// Why a record was not appended. The log is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits to be written. There is room at the next change of the [`Subscription`].
    Busy,
    /// The disk is full. A change of the subscription says when it no longer is.
    Full,
    /// The log has failed for good; its status has the reason.
    Failed,
    /// The log was closed.
    Closed,
    /// The record can never be taken.
    TooLarge {
        /// How large a record may be.
        bytes_max: usize,
    },
}

/// A record as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins; what `append` gave.
    pub position: Position,
    /// What the writer called it.
    pub kind: u8,
    /// What the writer gave, its parts joined.
    pub body: &'a [u8],
}

/// Takes records in order, and says whether it wants more.
pub type Visit<'a> = &'a mut dyn FnMut(Record<'_>) -> ControlFlow<()>;

/// Whether the log takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It does.
    #[default]
    Healthy,
    /// There is no room on the disk; tried again until there is.
    Full,
    /// Writing failed and could not be made good. It stays so until the log is opened again.
    Failed,
}

/// What those who follow the log are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Every record that begins before it is on disk.
    pub synced: Position,
    /// Whether the log takes records.
    pub health: Health,
}

/// Follows a log: changes once for each sync and for each change of health.
///
/// To wait for room: look at it (`borrow_and_update`), append, and if that is refused as busy wait
/// for the next change and append again. There is always one, as something waits to be written.
pub type Subscription = watch::Receiver<Progress>;

/// How a log is, and what it did since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether it takes records.
    pub health: Health,
    /// Why not, if it does not: what the system said.
    pub reason: Option<String>,
    /// Where the next record would go, or a little before.
    pub appended: Position,
    /// Every record that begins before it is on disk.
    pub synced: Position,
    /// Nothing before it is kept.
    pub oldest: Position,
    /// Files that hold records.
    pub segments: usize,
    /// Files that wait to be used again.
    pub spares: usize,
    /// Bytes in memory that are not on disk.
    pub pending_bytes: usize,
    /// What was written and synced.
    pub figures: Figures,
}

/// Sums since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Records appended.
    pub records: u64,
    /// Groups that reached the disk, each by one sync.
    pub syncs: u64,
    /// Bytes written, with headers and padding.
    pub bytes_written: u64,
    /// Time spent writing and syncing groups.
    pub sync_time: Duration,
    /// The longest of it for one group.
    pub sync_time_max: Duration,
    /// Groups by that time: below 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100 ms, and longer.
    pub sync_times: [u64; 11],
    /// Writes and syncs that failed and were answered with a new segment.
    pub failures: u64,
}

impl Figures {
    /// Upper bounds of [`sync_times`](Self::sync_times) in microseconds, all but the last.
    pub const SYNC_TIMES_US: [u64; 10] =
        [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

    /// Counts one group that took so long to reach the disk.
    pub(crate) fn add_sync(&mut self, took: Duration, bytes: u64) {
        self.syncs += 1;
        self.bytes_written += bytes;
        self.sync_time += took;
        self.sync_time_max = self.sync_time_max.max(took);
        let below = |bound: &&u64| took.as_micros() < u128::from(**bound);
        let at = Self::SYNC_TIMES_US.iter().position(|bound| below(&bound));
        self.sync_times[at.unwrap_or(Self::SYNC_TIMES_US.len())] += 1;
    }
}

/// The log of a node. Calls come from any number of threads.
pub trait Log: std::fmt::Debug + Send + Sync {
    /// Gives a record its place, which it keeps, and copies it. Never waits for the disk.
    ///
    /// # Errors
    /// Expected on the hot path, so a value: [`Refusal`].
    fn append(&self, class: Class, kind: u8, parts: &[&[u8]]) -> Result<Position, Refusal>;

    /// How large a record may be; a larger one is refused as [`Refusal::TooLarge`].
    fn record_bytes_max(&self) -> usize;

    /// Every record that begins before it is on disk.
    fn synced(&self) -> Position;

    /// Follows the log from here on.
    fn subscribe(&self) -> Subscription;

    /// Gives the synced records that begin at `from` or later, in order. Gives back where to go on:
    /// behind the last record visited, or at the end of what is synced.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if that place is no longer kept; [`Error::Corrupt`]; what the storage
    /// refuses. Records visited before an error are good.
    fn read(&self, from: Position, visit: Visit<'_>) -> Result<Position, Error>;

    /// Says that nothing before `horizon` is needed any more. Segments that lie before it as a
    /// whole are used again, or deleted. Blocks for the disk.
    ///
    /// # Errors
    /// What the storage refuses; what could not be recycled is tried at the next call.
    fn trim(&self, horizon: Position) -> Result<(), Error>;

    /// How it is.
    fn status(&self) -> Status;

    /// Writes what is pending and ends. Appends are refused from now on; reading goes on.
    ///
    /// # Errors
    /// [`Error::Failed`] if something that was appended is not on disk.
    fn close(&self) -> Result<(), Error>;

    /// Blocks the thread until the record that begins at `position` is on disk.
    ///
    /// # Errors
    /// [`Error::Failed`] if it will never be, as far as this process can tell.
    fn wait_synced(&self, position: Position) -> Result<(), Error> {
        wait::until_synced(self.subscribe(), position).ok_or_else(|| Error::Failed {
            reason: self.status().reason.unwrap_or_else(|| "the log was closed".into()),
        })
    }
}

#[cfg(test)]
mod tests;
