//! Figures of traces: what is followed, and what becomes of the spans.

use super::encode::Row;
use super::{ByWord, Counter, Gauge};

/// Traces of a node; shown only where somebody wants any.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    /// Requests and events whose trace is kept from here on.
    pub sampled: Counter,
    /// The same that were to be kept, and were too many for their tenant.
    pub refused: Counter,
    /// Spans that a collector took.
    pub exported: Counter,
    /// Spans that got lost or were not made, by reason: `queue` no room, `tenant` too many of one
    /// in a second, `batch` too many events of one call or batch, `export` the collector could not
    /// be reached or did not want them, `rejected` it took others of the same request, `process` a
    /// tenant's process said more of them than it may.
    pub dropped: ByWord,
    /// Batches that were sent once more.
    pub again: Counter,
    /// Spans that wait.
    pub queued: Gauge,
}

pub(super) const TRACE_ROWS: &[Row<TraceMetrics>] = &[
    Row::counter("traces_sampled", "Requests and events whose trace is kept from here on", |m| {
        m.sampled.get()
    }),
    Row::counter(
        "traces_refused",
        "Requests and events whose trace is not kept, as their tenant has too many",
        |m| m.refused.get(),
    ),
    Row::counter("traces_spans_exported", "Spans that a collector took", |m| m.exported.get()),
    Row::words("traces_spans_dropped", "Spans lost or left out, by reason", "reason", |m| {
        m.dropped.get()
    }),
    Row::counter("traces_exports_again", "Batches of spans sent once more", |m| m.again.get()),
    Row::gauge("traces_spans_waiting", "Spans that wait to be sent", |m| m.queued.get()),
];
