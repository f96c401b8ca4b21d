//! Figures of the workers: what they do, and what waits for them.
//!
//! A worker holds its set as long as it runs; who encodes it only looks.

use super::encode::Row;
use super::{Counter, Gauge};

/// One worker.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Time spent inside guests' slices.
    pub busy_micros: Counter,
    /// Slices given out.
    pub slices: Counter,
    /// Invocations that are begun and not ended.
    pub invocations: Gauge,
    /// Bytes that wait in the inboxes of the worker's partitions.
    pub inbox_bytes: Gauge,
}

pub(super) const WORKER_ROWS: &[Row<WorkerMetrics>] = &[
    Row::micros("worker_busy_seconds", "Time spent running guests", |m| m.busy_micros.get()),
    Row::counter("worker_slices", "Slices given to guests", |m| m.slices.get()),
    Row::gauge("worker_invocations", "Invocations in flight", |m| m.invocations.get()),
    Row::gauge("worker_inbox_bytes", "Bytes waiting in inboxes", |m| m.inbox_bytes.get()),
];
