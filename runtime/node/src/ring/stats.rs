//! Figures of an output.

use std::sync::atomic::Ordering;

use super::{Output, lock};

/// Figures of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputStats {
    /// By partition.
    pub partitions: Vec<PartitionStats>,
    /// Bytes kept, bookkeeping included.
    pub bytes: usize,
    /// Events appended since the output was made.
    pub appended: u64,
    /// Events dropped since the output was made.
    pub dropped: u64,
}

/// Figures of one partition of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// Offset of the oldest event that is kept.
    pub oldest: u64,
    /// Offset of the next event.
    pub next: u64,
}

impl Output {
    /// Events that were dropped to make room, since the output was made.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Figures for people and metrics.
    #[must_use]
    pub fn stats(&self) -> OutputStats {
        let mut bytes = 0;
        let partitions = self.partitions.iter().map(|ring| {
            let ring = lock(ring);
            bytes += ring.bytes;
            PartitionStats { oldest: ring.oldest(), next: ring.next }
        });
        let partitions = partitions.collect();
        let appended = self.shared.appended.load(Ordering::Relaxed);
        OutputStats { partitions, bytes, appended, dropped: self.dropped() }
    }
}
