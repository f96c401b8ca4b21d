//! Every metric: its name, unit and meaning; and the counters behind them.
//!
//! - Counting is one relaxed addition on a handle that was fetched before: once a worker, a
//!   pipeline, a stage or an output, never an event.
//! - A set of figures lives as long as its handle is held, and is gone from the next scrape behind
//!   that. So labels are bounded by what exists, and that by the quotas.
//! - Names end in their unit; counters get `_total` when written. Labels are `tenant`, `pipeline`,
//!   `stage`, `output`, `source`, `sink`, `worker`, `peer`, `from`, `to`, and words from short
//!   lists in this project.
//!
//! The text: `metrics/encode.rs`; what is counted in: `metrics/kinds.rs`; figures of the node:
//! `metrics/node.rs`, of the log, event time, workers and tenants' processes: `metrics/log.rs`,
//! `metrics/time.rs`, `metrics/worker.rs`, `metrics/process.rs`, other nodes: `metrics/peer.rs`,
//! ways between segments: `metrics/hop.rs`, traces: `metrics/traces.rs`; who may read it: `http`.

mod connector;
mod encode;
mod gpu;
mod hop;
mod kinds;
mod log;
mod node;
mod output;
mod own;
mod peer;
mod process;
#[cfg(test)]
mod tests;
mod time;
mod traces;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::registry::Registry;
use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::Pipeline;
use sluicebox_link::tls::NodeName;
use sluicebox_store::log::Log;

use crate::backing::Backing;
use crate::disk_use::DiskUse;
use crate::durable::Durable;
use crate::gpu::Gpus;
use crate::ring::Output;
use crate::running::PipelineShared;
use crate::stage_log::StageLog;
use encode::Row;

pub use connector::{ConnectorMetrics, ConnectorState};
pub(crate) use gpu::{GpuSeen, GpuTenantSeen};
pub use hop::{HopMetrics, HopWay, WayMetrics};
pub use kinds::{ByWord, Counter, Gauge, Latency};
pub use node::NodeMetrics;
pub use output::OutputMetrics;
pub use own::GUEST_METRICS_MAX;
pub(crate) use own::GuestValue;
use own::{GUEST_COUNTER, GUEST_GAUGE};
pub use peer::PeerMetrics;
pub use process::ProcessMetrics;
pub use traces::TraceMetrics;
pub use worker::WorkerMetrics;

/// One pipeline, over all its versions.
#[derive(Debug)]
pub struct PipelineMetrics {
    tenant: Name,
    pipeline: Name,
    /// Events accepted.
    pub events: Counter,
    /// Bytes of the bodies they came in.
    pub bytes: Counter,
    /// Requests, by outcome: `accepted`, `partly`, `rejected`, or the code of a refusal.
    pub requests: ByWord,
    /// Requests that were accepted whole; apart, because there are so many.
    pub requests_accepted: Counter,
    /// Requests that found no room in the inboxes, and were refused for it.
    pub refused: Counter,
    /// Events not accepted, by code.
    pub rejected: ByWord,
    /// Batches that were committed.
    pub commits: Counter,
    /// Events that had come before and were not taken again.
    pub duplicates: Counter,
    /// Time from headers to reply of ingest without waiting.
    pub ingest_latency: Latency,
    /// Time from headers to reply of ingest that waits for a result.
    pub wait_latency: Latency,
    /// Dead letters that were given to their stage again.
    pub replayed: Counter,
    /// Times it was taken to another scale.
    pub rescales: Counter,
    /// What it knows of the log, if it has one.
    durable: Mutex<Weak<Durable>>,
    /// The version that runs.
    shared: Mutex<Weak<PipelineShared>>,
    stages: Mutex<BTreeMap<String, Arc<StageMetrics>>>,
    outputs: Mutex<BTreeMap<String, Arc<OutputMetrics>>>,
    hops: Mutex<Vec<Arc<HopMetrics>>>,
    sources: Mutex<BTreeMap<String, Arc<ConnectorMetrics>>>,
    sinks: Mutex<BTreeMap<String, Arc<ConnectorMetrics>>>,
    /// What its stages said last.
    stage_log: StageLog,
}

const PIPELINE_ROWS: &[Row<PipelineMetrics>] = &[
    Row::counter("ingest_events", "Events accepted", |m| m.events.get()),
    Row::counter("ingest_bytes", "Bytes of the bodies of accepted events", |m| m.bytes.get()),
    Row::words("ingest_requests", "Ingest requests by outcome", "outcome", |m| {
        let mut all = m.requests.get();
        all.push(("accepted", m.requests_accepted.get()));
        all
    }),
    Row::counter("ingest_refused_requests", "Ingest requests refused for want of room", |m| {
        m.refused.get()
    }),
    Row::words("ingest_rejected", "Events not accepted, by code", "code", |m| m.rejected.get()),
    Row::counter("commits", "Batches committed", |m| m.commits.get()),
    Row::counter("dead_letters_replayed", "Dead letters given to their stage again", |m| {
        m.replayed.get()
    }),
    Row::gauge("pipeline_partitions", "Partitions of each segment", |m| {
        lock(&m.shared).upgrade().map_or(0, |shared| shared.partitions.into())
    }),
    Row::counter("pipeline_rescales", "Times it was taken to another scale", |m| m.rescales.get()),
];

/// One stage, over all versions of its pipeline and all its instances.
#[derive(Debug, Default)]
pub struct StageMetrics {
    /// Events given to it; a retry counts again.
    pub events_in: Counter,
    /// Events it emitted that were kept.
    pub events_out: Counter,
    /// Calls.
    pub calls: Counter,
    /// Time from entering a call until it returned, waits in it included.
    pub call_latency: Latency,
    /// Fuel it was charged, host work included.
    pub fuel: Counter,
    /// Calls that ended in a trap, by cause.
    pub traps: ByWord,
    /// Events it reported as failed, or that were found to fail.
    pub failures: Counter,
    /// Events of calls that were taken back; they are run again, or given up.
    pub retries: Counter,
    /// Calls that were taken back.
    pub taken_back: Counter,
    /// Events it took of batches that are committed, in a pipeline without a log.
    pub taken: Counter,
    /// Events it left as dead letters.
    pub dead_letters: Counter,
    /// Keys that are parked.
    pub parked_keys: Gauge,
    /// Events of those keys.
    pub parked_events: Gauge,
    /// Timers that wait.
    pub timers: Gauge,
    /// Events that came behind the watermark.
    pub late_events: Counter,
    /// Instances alive.
    pub instances: Gauge,
    /// Open streams whose instances are put away.
    pub streams_away: Gauge,
    /// Instances made.
    pub instances_created: Counter,
    /// Instances of streams that were made again.
    pub stream_revivals: Counter,
    /// Batches that were set aside for want of room for an instance of a stream.
    pub stream_waits: Counter,
    /// Streams that went over to other code.
    pub stream_upgrades: Counter,
    /// Streams that were to go over, and stay with the code they have.
    pub stream_upgrades_refused: Counter,
    /// Images taken of streams.
    pub stream_images: Counter,
    /// Bytes of these images.
    pub stream_image_bytes: Counter,
    /// Keys read from the store.
    pub state_loads: Counter,
    /// Keys whose state went because it was not written for so long.
    pub state_expired: Counter,
    /// HTTP requests it made, by outcome.
    pub http_requests: ByWord,
    /// Bytes of their bodies.
    pub http_sent_bytes: Counter,
    /// Bytes of the bodies of answers.
    pub http_received_bytes: Counter,
    /// Lines it logged.
    pub log_lines: Counter,
    /// Lines that were over its limit.
    pub log_lines_dropped: Counter,
    /// Uses of metrics of its own that were over the limit or misnamed.
    pub guest_dropped: Counter,
    guest: Mutex<BTreeMap<String, GuestValue>>,
}

const STAGE_ROWS: &[Row<StageMetrics>] = &[
    Row::counter("stage_events_in", "Events given to the stage", |m| m.events_in.get()),
    Row::counter("stage_events_out", "Events emitted by the stage", |m| m.events_out.get()),
    Row::counter("stage_calls", "Calls of the stage", |m| m.calls.get()),
    Row::latency("stage_call_seconds", "Time a call took, waits included", |m| &m.call_latency),
    Row::counter("stage_fuel", "Fuel charged to the stage", |m| m.fuel.get()),
    Row::words("stage_traps", "Calls that ended in a trap, by cause", "cause", |m| m.traps.get()),
    Row::counter("stage_failures", "Events that failed", |m| m.failures.get()),
    Row::counter("stage_retries", "Events run again", |m| m.retries.get()),
    Row::counter("stage_calls_taken_back", "Calls that were taken back", |m| m.taken_back.get()),
    Row::counter("stage_dead_letters", "Events left as dead letters", |m| m.dead_letters.get()),
    Row::gauge("stage_parked_keys", "Keys that are parked", |m| m.parked_keys.get()),
    Row::gauge("stage_parked_events", "Events of parked keys", |m| m.parked_events.get()),
    Row::gauge("stage_timers", "Timers that wait", |m| m.timers.get()),
    Row::counter("stage_late_events", "Events that came behind the watermark", |m| {
        m.late_events.get()
    }),
    Row::gauge("stage_instances", "Instances alive", |m| m.instances.get()),
    Row::gauge("stage_streams_put_away", "Open streams whose instances are put away", |m| {
        m.streams_away.get()
    }),
    Row::counter("stage_instances_created", "Instances made", |m| m.instances_created.get()),
    Row::counter("stage_stream_revivals", "Instances of streams made again", |m| {
        m.stream_revivals.get()
    }),
    Row::counter("stage_stream_waits", "Batches that waited for room for a stream", |m| {
        m.stream_waits.get()
    }),
    Row::counter("stage_stream_upgrades", "Streams that went over to other code", |m| {
        m.stream_upgrades.get()
    }),
    Row::counter(
        "stage_stream_upgrades_refused",
        "Streams that stay with the code they opened with, as going over failed",
        |m| m.stream_upgrades_refused.get(),
    ),
    Row::counter("stage_stream_images", "Images taken of streams", |m| m.stream_images.get()),
    Row::counter("stage_stream_image_bytes", "Bytes of images of streams", |m| {
        m.stream_image_bytes.get()
    }),
    Row::counter("stage_state_loads", "Keys whose state was not in memory", |m| {
        m.state_loads.get()
    }),
    Row::counter("stage_state_expired_keys", "Keys whose state expired", |m| m.state_expired.get()),
    Row::words("stage_http_requests", "HTTP requests made, by outcome", "outcome", |m| {
        m.http_requests.get()
    }),
    Row::counter("stage_http_sent_bytes", "Bytes of bodies of requests", |m| {
        m.http_sent_bytes.get()
    }),
    Row::counter("stage_http_received_bytes", "Bytes of bodies of answers", |m| {
        m.http_received_bytes.get()
    }),
    Row::counter("stage_log_lines", "Lines logged", |m| m.log_lines.get()),
    Row::counter("stage_log_lines_dropped", "Log lines over the limit", |m| {
        m.log_lines_dropped.get()
    }),
    Row::counter("stage_metrics_dropped", "Uses of own metrics over the limit", |m| {
        m.guest_dropped.get()
    }),
];

impl StageMetrics {
    /// A call returned, with so many events and so much fuel.
    pub fn called(&self, (events, fuel): (u64, u64), took: Duration) {
        self.calls.inc();
        self.call_latency.observe(took);
        self.events_in.add(events);
        self.fuel.add(fuel);
    }
}

impl PipelineMetrics {
    /// What its stages said last.
    pub(crate) const fn stage_log(&self) -> &StageLog {
        &self.stage_log
    }

    /// The figures of a stage; the same ones whenever it is asked for.
    #[must_use]
    pub fn stage(&self, name: &str) -> Arc<StageMetrics> {
        Arc::clone(lock(&self.stages).entry(name.to_owned()).or_default())
    }

    /// The figures of an output, whose events are in `ring` from now on.
    #[must_use]
    pub fn output(&self, name: &str, ring: &Arc<Output>) -> Arc<OutputMetrics> {
        let mut outputs = lock(&self.outputs);
        let metrics = outputs.entry(name.to_owned()).or_insert_with(|| {
            let (read_events, read_bytes) = Default::default();
            Arc::new(OutputMetrics { ring: Mutex::default(), read_events, read_bytes })
        });
        *lock(&metrics.ring) = Arc::downgrade(ring);
        Arc::clone(metrics)
    }

    /// The figures of a source; the same ones whenever it is asked for.
    #[must_use]
    pub fn source(&self, name: &str) -> Arc<ConnectorMetrics> {
        Arc::clone(lock(&self.sources).entry(name.to_owned()).or_default())
    }

    /// The figures of a sink; the same ones whenever it is asked for.
    #[must_use]
    pub fn sink(&self, name: &str) -> Arc<ConnectorMetrics> {
        Arc::clone(lock(&self.sinks).entry(name.to_owned()).or_default())
    }

    /// Forgets the sources and sinks that a new version no longer has.
    pub(crate) fn retain_connectors(&self, pipeline: &Pipeline) {
        lock(&self.sources).retain(|name, _| pipeline.sources.iter().any(|s| s.name == *name));
        lock(&self.sinks).retain(|name, _| pipeline.sinks.iter().any(|s| s.name == *name));
    }

    /// Lets sources and sinks go on that have halted.
    pub(crate) fn resume_connectors(&self) {
        lock(&self.sources).values().for_each(|source| source.resume());
        lock(&self.sinks).values().for_each(|sink| sink.resume());
    }

    /// Forgets the stages and outputs that a new version no longer has.
    pub fn retain(&self, stage: impl Fn(&str) -> bool, output: impl Fn(&str) -> bool) {
        lock(&self.stages).retain(|name, _| stage(name));
        lock(&self.outputs).retain(|name, _| output(name));
    }
}

/// All figures of a node.
#[derive(Debug)]
pub struct Metrics {
    sets: Arc<Sets>,
    registry: Registry,
}

/// What a scrape goes through.
#[derive(Debug, Default)]
struct Sets {
    node: NodeMetrics,
    log: Mutex<Option<Arc<dyn Log>>>,
    kept: Mutex<Option<(Arc<DiskUse>, Arc<Backing>)>>,
    gpus: Mutex<Option<Arc<Gpus>>>,
    traces: Mutex<Option<Arc<TraceMetrics>>>,
    workers: Mutex<BTreeMap<u16, Weak<WorkerMetrics>>>,
    processes: Mutex<BTreeMap<Name, Weak<ProcessMetrics>>>,
    peers: Mutex<BTreeMap<NodeName, Weak<PeerMetrics>>>,
    pipelines: Mutex<BTreeMap<(Name, Name), Weak<PipelineMetrics>>>,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let sets: Arc<Sets> = Arc::default();
        let mut registry = Registry::with_prefix("sluicebox");
        registry.register_collector(Box::new(Arc::clone(&sets)));
        Self { sets, registry }
    }

    /// The edge and the node as a whole.
    #[must_use]
    pub fn node(&self) -> &NodeMetrics {
        &self.sets.node
    }

    /// The GPU is shown as well.
    pub(crate) fn set_gpus(&self, gpus: Arc<Gpus>) {
        *lock(&self.sets.gpus) = Some(gpus);
    }

    /// The figures of traces, which are shown from now on.
    #[must_use]
    pub fn traces(&self) -> Arc<TraceMetrics> {
        lock(&self.sets.traces).get_or_insert_default().clone()
    }

    /// The figures of a worker.
    #[must_use]
    pub fn worker(&self, number: u16) -> Arc<WorkerMetrics> {
        let mut workers = lock(&self.sets.workers);
        let known = workers.entry(number).or_default();
        known.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *known = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// The figures of a tenant's process: those that somebody still holds, else new ones.
    #[must_use]
    pub fn process(&self, tenant: &Name) -> Arc<ProcessMetrics> {
        let mut processes = lock(&self.sets.processes);
        processes.retain(|_, known| known.strong_count() > 0);
        let known = processes.entry(tenant.clone()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *known = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// The figures of another node: those that somebody still holds, else new ones.
    #[must_use]
    pub fn peer(&self, node: &NodeName) -> Arc<PeerMetrics> {
        let mut peers = lock(&self.sets.peers);
        let known = peers.entry(node.clone()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *known = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// The figures of a pipeline: those that somebody still holds, else new ones.
    #[must_use]
    pub fn pipeline(&self, tenant: &Name, pipeline: &Name) -> Arc<PipelineMetrics> {
        let mut pipelines = lock(&self.sets.pipelines);
        pipelines.retain(|_, known| known.strong_count() > 0);
        let known = pipelines.entry((tenant.clone(), pipeline.clone())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(PipelineMetrics {
                tenant: tenant.clone(),
                pipeline: pipeline.clone(),
                events: Counter::default(),
                bytes: Counter::default(),
                requests: ByWord::default(),
                requests_accepted: Counter::default(),
                refused: Counter::default(),
                rejected: ByWord::default(),
                commits: Counter::default(),
                duplicates: Counter::default(),
                ingest_latency: Latency::default(),
                wait_latency: Latency::default(),
                replayed: Counter::default(),
                rescales: Counter::default(),
                durable: Mutex::default(),
                shared: Mutex::default(),
                stages: Mutex::default(),
                outputs: Mutex::default(),
                hops: Mutex::default(),
                sources: Mutex::default(),
                sinks: Mutex::default(),
                stage_log: StageLog::new(crate::deploy::secret_number().unwrap_or_default()),
            });
            *known = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps of counters are whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
