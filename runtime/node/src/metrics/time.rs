//! Figures of pipelines that have event time.

use std::sync::Weak;

use super::encode::Row;
use super::{PipelineMetrics, lock};
use crate::running::PipelineShared;
use crate::running::event_time::now_micros;

/// A pipeline with event time.
pub(super) struct Timed {
    /// Its watermark, in microseconds since 1970.
    watermark: u64,
}

pub(super) const TIMED_ROWS: &[Row<Timed>] = &[
    Row::seconds("watermark_seconds", "The watermark, since 1970; 0 if it is not known", |m| {
        m.watermark as f64 / 1e6
    }),
    Row::seconds("watermark_lag_seconds", "How far the watermark is behind the clock", |m| match m
        .watermark
    {
        0 => 0.0,
        watermark => now_micros().saturating_sub(watermark) as f64 / 1e6,
    }),
];

impl Timed {
    /// The pipeline, if it has event time and runs.
    pub(super) fn of(metrics: &PipelineMetrics) -> Option<Self> {
        let shared = lock(&metrics.shared).upgrade()?;
        Some(Self { watermark: shared.event_time.as_ref()?.watermark(&shared.sites) })
    }
}

impl PipelineMetrics {
    /// Says which version runs.
    pub(crate) fn set_running(&self, shared: Weak<PipelineShared>) {
        *lock(&self.shared) = shared;
    }
}
