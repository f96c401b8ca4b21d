//! The figures of the log, of what is told apart by it and of what is kept on disk: taken from
//! where they are when they are asked for.
//!
//! A node has one log, so its figures have no tenant. What producers sent twice is the pipeline's,
//! and shown only for pipelines with a log.

use std::sync::{Arc, PoisonError, Weak};

use sluicebox_store::log::{Figures, Health, Log, Status};

use super::encode::{Buckets, Row};
use super::{Metrics, PipelineMetrics, lock};
use crate::backing::Backing;
use crate::checkpoint::Condition;
use crate::disk_use::DiskUse;
use crate::durable::Durable;
use crate::tenancy::Metered;

pub(super) const LOG_ROWS: &[Row<Status>] = &[
    Row::gauges("log_health", "1 for the state the log is in", "state", |s| {
        let states =
            [("healthy", Health::Healthy), ("full", Health::Full), ("failed", Health::Failed)];
        states.into_iter().map(|(word, health)| (word, u64::from(s.health == health))).collect()
    }),
    Row::gauges(
        "log_position_bytes",
        "Where the log is appended to, synced up to, and begins",
        "at",
        |s| vec![("appended", s.appended.0), ("synced", s.synced.0), ("oldest", s.oldest.0)],
    ),
    Row::gauge("log_segments", "Files that hold records", |s| s.segments as u64),
    Row::gauge("log_spares", "Files that wait to be used again", |s| s.spares as u64),
    Row::gauge("log_pending_bytes", "Bytes in memory that are not on disk", |s| {
        s.pending_bytes as u64
    }),
    Row::counter("log_records", "Records appended", |s| s.figures.records),
    Row::counter("log_syncs", "Groups of records brought to disk", |s| s.figures.syncs),
    Row::counter("log_written_bytes", "Bytes written, with headers and padding", |s| {
        s.figures.bytes_written
    }),
    Row::counter("log_failures", "Writes and syncs that failed", |s| s.figures.failures),
    Row::buckets("log_sync_seconds", "Time to write and sync a group", |s| sync_times(&s.figures)),
    Row::seconds("log_sync_max_seconds", "The longest of it since the start", |s| {
        s.figures.sync_time_max.as_secs_f64()
    }),
];

/// Checkpoints, which the log waits for.
pub(super) const CHECKPOINT_ROWS: &[Row<Backing>] = &[
    Row::gauges("checkpoint_health", "1 for how it stands with checkpoints", "state", |b| {
        let states = [
            ("good", Condition::Good),
            ("failing", Condition::Failing),
            ("stopped", Condition::Stopped),
        ];
        let now = b.checkpoints().condition();
        states.into_iter().map(|(word, state)| (word, u64::from(now == state))).collect()
    }),
    Row::counter("checkpoints", "Checkpoints made", |b| b.checkpoints().made()),
    Row::counter("checkpoint_failures", "Checkpoints that failed", |b| b.checkpoints().failed()),
];

/// What a tenant's pipelines keep.
pub(super) const TENANT_ROWS: &[Row<Metered>] = &[
    Row::gauge("tenant_disk_bytes", "Bytes pipelines keep, as of the last checkpoint", |m| {
        m.used() as u64
    }),
    Row::gauge("tenant_disk_quota_bytes", "Bytes they may keep", |m| m.most() as u64),
];

fn sync_times(figures: &Figures) -> Buckets {
    let ends = Figures::SYNC_TIMES_US.iter().map(|micros| *micros as f64 / 1e6);
    let ends = ends.chain([f64::INFINITY]);
    Buckets { sum: figures.sync_time.as_secs_f64(), counts: ends.zip(figures.sync_times).collect() }
}

/// A pipeline with a log.
pub(super) struct Logged {
    metrics: Arc<PipelineMetrics>,
    durable: Arc<Durable>,
}

pub(super) const LOGGED_ROWS: &[Row<Logged>] = &[
    Row::counter(
        "ingest_duplicates",
        "Events that had come before and were not taken again",
        |m| m.metrics.duplicates.get(),
    ),
    Row::seconds(
        "ingest_duplicate_window_seconds",
        "How far back an event or request that comes again is known for sure",
        |m| m.durable.known_for().as_secs_f64(),
    ),
    Row::counter("committed_fuel", "Fuel of commits on disk, runs again included", |m| {
        m.durable.usage_in_all().fuel
    }),
    Row::counter("committed_events", "Events taken by commits on disk", |m| {
        m.durable.usage_in_all().events
    }),
    Row::counter("committed_reruns", "Calls taken back before commits on disk", |m| {
        m.durable.usage_in_all().reruns
    }),
];

impl Logged {
    /// The pipeline, if it has a log and lives.
    pub(super) fn of(metrics: &Arc<PipelineMetrics>) -> Option<Self> {
        let durable = lock(&metrics.durable).upgrade()?;
        Some(Self { metrics: metrics.clone(), durable })
    }
}

impl PipelineMetrics {
    /// Says what the pipeline knows of the log, if it has one.
    pub(crate) fn set_durable(&self, durable: Option<&Arc<Durable>>) {
        *lock(&self.durable) = durable.map_or_else(Weak::new, Arc::downgrade);
    }
}

impl Metrics {
    /// Shows what tenants keep on disk from now on, and how it stands with checkpoints.
    pub(crate) fn set_kept(&self, disk: Arc<DiskUse>, backing: Arc<Backing>) {
        *lock(&self.sets.kept) = Some((disk, backing));
    }

    /// Shows this log from now on.
    pub fn set_log(&self, log: Arc<dyn Log>) {
        *self.sets.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }
}
