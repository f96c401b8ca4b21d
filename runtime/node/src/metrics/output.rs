//! Figures of outputs and dead letters.

use std::sync::{Mutex, Weak};

use super::encode::Row;
use super::{Counter, lock};
use crate::ring::Output;

/// One output, or the dead letters (`output="dead-letters"`).
#[derive(Debug)]
pub struct OutputMetrics {
    /// Where the events are; when a new version of the pipeline has another, so has this.
    pub(super) ring: Mutex<Weak<Output>>,
    /// Events given to readers.
    pub read_events: Counter,
    /// Bytes given to readers.
    pub read_bytes: Counter,
}

impl OutputMetrics {
    fn stats(&self) -> crate::ring::OutputStats {
        lock(&self.ring).upgrade().map(|ring| ring.stats()).unwrap_or_default()
    }
}

pub(super) const OUTPUT_ROWS: &[Row<OutputMetrics>] = &[
    Row::counter("output_events", "Events that left by the output", |m| m.stats().appended),
    Row::counter("output_dropped", "Events dropped to make room", |m| m.stats().dropped),
    Row::gauge("output_kept_bytes", "Bytes kept for readers", |m| m.stats().bytes as u64),
    Row::counter("output_read_events", "Events given to readers", |m| m.read_events.get()),
    Row::counter("output_read_bytes", "Bytes given to readers", |m| m.read_bytes.get()),
];
