//! What a partition of a segment has done: events and time for who scales its pipeline; bytes for
//! who plans on which node it is.
//!
//! Each count only grows, and is added to by one thread at a time; who reads it takes differences.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Mailbox;

/// What a partition of a segment has done by a moment, for who scales its pipeline from another
/// node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Done {
    /// Events that were ever queued for it.
    pub(crate) arrived: u64,
    /// Those of them that were taken.
    pub(crate) taken: u64,
    /// Time it took.
    pub(crate) busy_micros: u64,
    /// Events that wait.
    pub(crate) waiting: u64,
}

impl Done {
    /// That of a partition here.
    pub(crate) fn of(mailbox: &Mailbox) -> Self {
        let (arrived, taken) = mailbox.load.events();
        // Not what is between the two counts: what went on to another node, or was passed over, is
        // in the one alone.
        let waiting = mailbox.queued_events();
        Self { arrived, taken, busy_micros: mailbox.load.busy_micros(), waiting }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Load {
    busy_micros: AtomicU64,
    events_arrived: AtomicU64,
    events_taken: AtomicU64,
    ingest_bytes: AtomicU64,
    output_bytes: AtomicU64,
    /// Bytes of a pipeline without a log: that came in, left, and went to other partitions.
    unlogged: [AtomicU64; 3],
    /// Bytes of runs for each partition, in whichever segment; nothing where there are no other
    /// nodes.
    sent: Box<[AtomicU64]>,
}

/// Which way bytes went of a pipeline without a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlogged {
    /// In, from clients.
    In,
    /// Out, by outputs.
    Out,
    /// To another partition.
    Between,
}

impl Load {
    /// Of one of so many partitions; 0 if nobody wants to know.
    pub(super) fn new(partitions: u16) -> Self {
        let sent = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        Self { sent, ..Self::default() }
    }

    /// Its worker was busy with it.
    pub(crate) fn was_busy(&self, took: Duration) {
        self.busy_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// So many events were queued for it.
    pub(super) fn arrived(&self, events: usize) {
        self.events_arrived.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// So many were taken by it.
    pub(super) fn took(&self, events: usize) {
        self.events_taken.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Events that were ever queued for it, and those of them that were taken.
    pub(crate) fn events(&self) -> (u64, u64) {
        // In this order no more are taken than arrived.
        let taken = self.events_taken.load(Ordering::Relaxed);
        (self.events_arrived.load(Ordering::Relaxed), taken)
    }

    /// Events for it were taken in.
    pub(super) fn came_in(&self, bytes: usize) {
        self.ingest_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Events left it by an output.
    pub(crate) fn left(&self, bytes: usize) {
        self.output_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes went some way, of a pipeline whose log does not say so.
    pub(crate) fn unlogged(&self, way: Unlogged, bytes: usize) {
        self.unlogged[way as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn unlogged_bytes(&self, way: Unlogged) -> u64 {
        self.unlogged[way as usize].load(Ordering::Relaxed)
    }

    /// It has sent something to a partition.
    pub(crate) fn has_sent(&self, to: u16, bytes: usize) {
        if let Some(sent) = self.sent.get(usize::from(to)) {
            sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Time, in microseconds.
    pub(crate) fn busy_micros(&self) -> u64 {
        self.busy_micros.load(Ordering::Relaxed)
    }

    /// Bytes of ingest for it.
    pub(crate) fn ingest_bytes(&self) -> u64 {
        self.ingest_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that left by outputs.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.output_bytes.load(Ordering::Relaxed)
    }

    /// Bytes sent to each partition that got any.
    pub(crate) fn sent(&self) -> impl Iterator<Item = (u16, u64)> {
        let all = (0_u16..).zip(&self.sent);
        all.map(|(to, sent)| (to, sent.load(Ordering::Relaxed))).filter(|(_, sent)| *sent > 0)
    }
}
