//! A pipeline that has been checked, and the only way to make one from a declaration.
//!
//! A `Pipeline` is what the runtime works from. Names have become indices, defaults are filled in,
//! and every rule of the manifest holds:
//! - every index in `ingest`, `edges` and `outputs` points at a stage, port or input that exists;
//! - the graph has no cycle, and events can reach every stage;
//! - `stages` is in the order of their names, `outputs` too; `edges` is as declared;
//! - nothing is changed after the check but the scale: how many partitions, which stage is apart.
//!
//! What a manifest looks like and how its fields are read: `manifest`. Cutting into segments:
//! `segment`. What a new version may change: `plan`.

mod check;
mod connect;
pub(crate) mod graph;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::json_key::Pointer;
use crate::manifest::bounds;
use crate::origin::Origin;

pub use check::{Facts, KnownComponents, build, check};
pub use connect::{
    Cron, LineForm, Lines, Missed, NatsSink, NatsSource, Sink, SinkKind, Source, SourceKind,
    Webhook, WebhookForm,
};

/// Index of a stage in `Pipeline::stages`.
pub type StageIndex = usize;

/// Index of an edge in `Pipeline::edges`.
pub type EdgeIndex = usize;

/// A checked pipeline; immutable after the check.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name, unique within the tenant.
    pub name: String,
    /// What is promised about the events in it.
    pub delivery: Delivery,
    /// Partitions of each segment; `None` until an apply has fixed the number.
    pub partitions: Option<u16>,
    /// How far it is scaled with its load, if at all.
    pub scaling: Option<Scaling>,
    /// Where events enter from outside.
    pub ingest: Ingest,
    /// Whether there is event time, and how.
    pub time: Option<EventTime>,
    /// The stages, in the order of their names.
    pub stages: Vec<Stage>,
    /// The edges between stages, as declared.
    pub edges: Vec<Edge>,
    /// Where results leave, in the order of their names.
    pub outputs: Vec<Output>,
    /// What it takes in by itself, in the order of their names.
    pub sources: Vec<Source>,
    /// Where it hands results on to by itself, in the order of their names.
    pub sinks: Vec<Sink>,
}

impl Pipeline {
    /// Whether a stage may use a GPU: then it runs only where there is one.
    #[must_use]
    pub fn needs_gpu(&self) -> bool {
        self.stages.iter().any(|stage| stage.grants.gpu.is_some())
    }

    /// Sets the number of partitions if the manifest left it open; a number that is there stays.
    /// With `scaling` it is brought within its bounds.
    pub fn fix_partitions(&mut self, partitions: u16) {
        let partitions = partitions.clamp(1, bounds::PARTITIONS_MAX);
        let partitions = self.scaling.as_ref().map_or(partitions, |own| own.clamp(partitions));
        self.partitions = self.partitions.or(Some(partitions));
    }

    /// The number of partitions it begins with if nobody says another.
    #[must_use]
    pub fn first_partitions(&self, usual: u16) -> u16 {
        self.scaling.as_ref().map_or(usual, |scaling| scaling.min)
    }

    /// The index of the stage of this name.
    #[must_use]
    pub fn stage_index(&self, name: &str) -> Option<StageIndex> {
        self.stages.binary_search_by(|stage| stage.name.as_str().cmp(name)).ok()
    }
}

/// What is promised about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// Acknowledged when the log has it on disk; state and outputs are as if each event had been
    /// handled once, whatever happens to the node.
    ExactlyOnce,
    /// Nothing is logged: acknowledged when queued, and state is lost on restart.
    BestEffort,
}

impl Delivery {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::BestEffort => "best-effort",
        }
    }
}

/// How far a pipeline is scaled with its load. What scales it is the node; see `scaling`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// Fewest partitions of each segment.
    pub min: u16,
    /// Most; `None`: as many as there are workers.
    pub max: Option<u16>,
    /// Milliseconds the load must have been low before there are fewer.
    pub quiet_ms: u64,
    /// The stage that has a segment of its own now, since it costs so much.
    pub apart: Option<String>,
}

impl Scaling {
    /// The number within the bounds that is closest to this.
    #[must_use]
    pub fn clamp(&self, partitions: u16) -> u16 {
        partitions.min(self.max.unwrap_or(u16::MAX)).max(self.min)
    }
}

/// Where events enter a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// Each event goes to all of these: a stage and the index of one of its inputs.
    pub targets: Vec<(StageIndex, u16)>,
    /// Where in a JSON payload the key is found; `None`: the producer names the key.
    pub key: Option<Pointer>,
    /// Where in a JSON payload the event time is found; `None`: the producer names it.
    pub time: Option<Pointer>,
    /// What a number there counts.
    pub time_unit: TimeUnit,
}

/// How far the watermark is behind what comes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventTime {
    /// Milliseconds it stays behind the highest event time.
    pub lateness_ms: u64,
    /// Milliseconds without an event after which it goes on with the clock; `None`: never.
    pub idle_after_ms: Option<u64>,
}

/// What a number that is a time counts, since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    #[default]
    Milliseconds,
    /// Microseconds.
    Microseconds,
}

impl TimeUnit {
    /// The word in the manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
        }
    }

    /// Microseconds of one.
    #[must_use]
    pub const fn micros(self) -> u64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1,
        }
    }
}

/// One component with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique within the pipeline.
    pub name: String,
    /// What it was called before, if this version renames it.
    pub from: Option<String>,
    /// What runs. The digest is set if the check knew the tenant's components.
    pub component: ComponentRef,
    /// Whom an instance serves.
    pub scope: Scope,
    /// Settings the stage reads through `config`.
    pub config: BTreeMap<String, String>,
    /// Name to digest (`b3:` and 64 hex digits) of the blobs it reads through `assets`.
    pub assets: BTreeMap<String, String>,
    /// What it may do besides the always-present imports.
    pub grants: Grants,
    /// What an instance, a call or an event may use.
    pub limits: StageLimits,
    /// Milliseconds after its last write in which a key's state goes; `None`: never.
    pub state_ttl_ms: Option<u64>,
    /// What happens to an event it could not handle.
    pub on_failure: OnFailure,
    /// Immediate runs of an event whose failure says that trying again may help.
    pub retries: u8,
    /// Names of its ports; an event's port number is an index into this.
    pub ports: Vec<String>,
    /// Names of its inputs; never empty.
    pub inputs: Vec<String>,
    /// When a stream ends by itself; of use only with scope `stream`.
    pub stream: StreamLimits,
    /// How long and how often parked events are tried; of use only where they are parked.
    pub park: ParkLimits,
}

/// Which component a stage runs: by name, by digest, or a name pinned to a digest. At least one of
/// the two is set in a checked pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComponentRef {
    /// The name it was uploaded under.
    pub name: Option<String>,
    /// `b3:` and the 64 hex digits of the BLAKE3 of the uploaded bytes.
    pub digest: Option<String>,
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.digest) {
            (Some(name), Some(digest)) => write!(f, "{name}@{digest}"),
            (Some(one), None) | (None, Some(one)) => f.write_str(one),
            (None, None) => Ok(()),
        }
    }
}

/// Whom an instance serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Any key; instances are interchangeable.
    #[default]
    Shared,
    /// One key for life; its memory is a cache.
    Key,
    /// One stream, from its first event to its end.
    Stream,
}

impl Scope {
    /// The word in the manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Key => "key",
            Self::Stream => "stream",
        }
    }
}

/// What a stage may do that is not allowed to every stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grants {
    /// It may use the node's GPU: the imports of `sluicebox:gpu`.
    pub gpu: Option<GpuGrant>,
    /// Names of the buckets it may open through `wasi:keyvalue`.
    pub buckets: Vec<String>,
    /// It may make HTTP requests: the imports of `wasi:http`.
    pub http: Option<HttpGrant>,
}

/// Which HTTP requests a stage may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// Where to; nowhere else.
    pub allow: Vec<Origin>,
    /// Requests under way at once, in all instances of the stage on a node.
    pub in_flight: u16,
    /// Milliseconds from a request to the end of its answer.
    pub deadline_ms: u64,
    /// Bytes of the body of a request.
    pub request_bytes: u64,
    /// Bytes of the body of an answer.
    pub response_bytes: u64,
}

/// How much of the tenant's slice of a GPU a stage may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuGrant {
    /// Its share beside the tenant's other stages that want the device.
    pub weight: u32,
    /// Milliseconds in which a submission ends, or is ended.
    pub deadline_ms: u64,
}

/// What happens to an event that failed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OnFailure {
    /// It is kept aside, and later events of its key go on.
    #[default]
    DeadLetter,
    /// The partition stops and says why.
    Halt,
    /// It waits with the later events of its key, and is tried again; other keys go on.
    Park,
}

impl OnFailure {
    /// The word in the manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead-letter",
            Self::Halt => "halt",
            Self::Park => "park",
        }
    }
}

/// What an instance, a call or an event of a stage may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageLimits {
    /// Bytes of all memories and tables of one instance.
    pub memory: u64,
    /// Fuel per event of a frame; a call gets this times the events it is given.
    pub fuel_per_event: u64,
    /// Bytes one call may emit.
    pub emit_bytes: u64,
    /// Bytes of one event, received or emitted.
    pub event_bytes: u64,
    /// Log lines one call may write; more are dropped and counted.
    pub log_lines: u32,
    /// Bytes of state one key may hold, slot names included.
    pub state_bytes: u64,
    /// Scope `key`, and scope `stream` with exactly-once: instances kept per partition.
    pub instances: u32,
}

impl Default for StageLimits {
    fn default() -> Self {
        Self {
            memory: bounds::MEMORY.default,
            fuel_per_event: bounds::FUEL_PER_EVENT.default,
            emit_bytes: bounds::EMIT_BYTES.default,
            event_bytes: bounds::EVENT_BYTES.default,
            log_lines: bounds::LOG_LINES_DEFAULT,
            state_bytes: bounds::STATE_BYTES.default,
            instances: bounds::INSTANCES_DEFAULT,
        }
    }
}

/// When a stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Milliseconds without an event.
    pub idle_timeout_ms: u64,
    /// Events in all.
    pub events_max: u64,
    /// Payload bytes in all.
    pub bytes_max: u64,
    /// Milliseconds since it opened.
    pub duration_max_ms: u64,
    /// Bytes of events kept for making an instance again of which there can be no image. Of use
    /// only with exactly-once.
    pub replay_bytes_max: u64,
    /// What becomes of open streams when a version brings other code. Of use only with
    /// exactly-once.
    pub on_update: OnUpdate,
}

/// What becomes of open streams when a version brings other code for their stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUpdate {
    /// They go on to their end with the code they opened with.
    #[default]
    Finish,
    /// They end before the version begins.
    Restart,
    /// They go on with the new code, from what the code they have says of them.
    Snapshot,
}

impl OnUpdate {
    /// The word in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Finish => "finish",
            Self::Restart => "restart",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            idle_timeout_ms: bounds::IDLE_TIMEOUT_MS.default,
            events_max: bounds::EVENTS_MAX.default,
            bytes_max: bounds::BYTES_MAX.default,
            duration_max_ms: bounds::DURATION_MAX_MS.default,
            replay_bytes_max: bounds::REPLAY_BYTES_MAX.default,
            on_update: OnUpdate::default(),
        }
    }
}

/// How long and how often parked events are tried, and how many of a key may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkLimits {
    /// How often the event in front is run again before it is given up on.
    pub attempts: u32,
    /// Milliseconds before it is run again for the first time; twice as many each time after.
    pub pause_ms: u64,
    /// At most so many.
    pub pause_max_ms: u64,
    /// Milliseconds after which it is given up on when it fails, whatever the attempts.
    pub age_max_ms: u64,
    /// Events of one key.
    pub events_max: u64,
    /// Bytes of one key's events.
    pub bytes_max: u64,
}

impl Default for ParkLimits {
    fn default() -> Self {
        Self {
            attempts: bounds::PARK_ATTEMPTS.default as u32,
            pause_ms: bounds::PARK_PAUSE_MS.default,
            pause_max_ms: bounds::PARK_PAUSE_MAX_MS.default,
            age_max_ms: bounds::PARK_AGE_MAX_MS.default,
            events_max: bounds::PARK_EVENTS_MAX.default,
            bytes_max: bounds::PARK_BYTES_MAX.default,
        }
    }
}

/// Which emitted events go to which stage, and by which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The stage that emits.
    pub from: StageIndex,
    /// The port, an index into its `ports`.
    pub port: u16,
    /// The stage that receives.
    pub to: StageIndex,
    /// The input, an index into its `inputs`.
    pub input: u16,
    /// The key the event travels by.
    pub key: EdgeKey,
}

/// The key an emitted event travels by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum EdgeKey {
    /// The key of the event that caused it; never leaves the partition.
    #[default]
    Cause,
    /// The key the stage wrote.
    Emitted,
    /// A key from the JSON payload.
    Json(Pointer),
}

/// Where results leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name. `reply` also answers requests that wait for a result.
    pub name: String,
    /// The stage that emits.
    pub from: StageIndex,
    /// The port, an index into its `ports`.
    pub port: u16,
    /// The key shown with each record.
    pub key: EdgeKey,
    /// Bytes kept for readers, over all partitions; the oldest are dropped first.
    pub retain_bytes: u64,
}
