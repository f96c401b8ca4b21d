//! Every number a manifest is held to: how large it may be, and the range and default of each
//! setting.
//!
//! These are policy, not format: raising one accepts more manifests, lowering one may refuse a
//! manifest that was applied. The table of fields, the reader and the published schema all take
//! their numbers from here, so that they cannot disagree.

use crate::limits;

/// The manifest format this reader knows.
pub const VERSION: i64 = 1;
/// Bytes of manifest text.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Tables and arrays within one another; the deepest field needs five.
pub const DEPTH_MAX: usize = 16;
/// Problems reported by one check; the rest are counted.
pub const PROBLEMS_MAX: usize = 100;

/// Stages in a pipeline.
pub const STAGES_MAX: usize = 64;
/// Edges in a pipeline.
pub const EDGES_MAX: usize = 256;
/// Outputs of a pipeline.
pub const OUTPUTS_MAX: usize = 64;
/// Ports, and inputs, of a stage.
pub const PORTS_MAX: usize = 64;
/// Config entries of a stage.
pub const CONFIG_ENTRIES_MAX: usize = 64;
/// Bytes of one config value.
pub const CONFIG_VALUE_BYTES_MAX: usize = 4 * 1024;
/// Assets of a stage.
pub const ASSETS_MAX: usize = 64;
/// Buckets of `wasi:keyvalue` of a stage.
pub const BUCKETS_MAX: usize = 16;
/// Bytes of a JSON pointer.
pub const POINTER_BYTES_MAX: usize = 256;
/// Partitions of a pipeline: each owns at least one key group.
pub const PARTITIONS_MAX: u16 = limits::KEY_GROUPS;

/// The range of a setting and what it is when the manifest does not say.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The least that is accepted.
    pub min: u64,
    /// The most that is accepted.
    pub max: u64,
    /// What holds without the setting.
    pub default: u64,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND_MS: u64 = 1000;
const HOUR_MS: u64 = 3600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Memory of an instance; the most a 32-bit memory can be.
pub const MEMORY: Range = Range { min: 64 * KIB, max: 4 * GIB, default: 64 * MIB };
/// Fuel per event.
pub const FUEL_PER_EVENT: Range =
    Range { min: 1_000, max: 1_000_000_000_000, default: 100_000_000 };
/// Bytes emitted by one call: room for one event of the hard limit by default.
pub const EMIT_BYTES: Range = Range { min: KIB, max: 256 * MIB, default: 16 * MIB };
/// Bytes of an event.
pub const EVENT_BYTES: Range = Range {
    min: KIB,
    max: limits::EVENT_BYTES_HARD as u64,
    default: limits::EVENT_BYTES_DEFAULT as u64,
};
/// Bytes of state of a key.
pub const STATE_BYTES: Range =
    Range { min: 64, max: 64 * MIB, default: limits::KEY_STATE_BYTES_DEFAULT as u64 };
/// Share of a GPU beside the tenant's other stages.
pub const GPU_WEIGHT_MAX: u64 = 1_000_000;
/// How long a submission to a GPU may take. A call waits for at most ten seconds.
pub const GPU_DEADLINE_MS: Range = Range { min: 10, max: 8 * SECOND_MS, default: 2 * SECOND_MS };
/// Origins a stage may make HTTP requests to.
pub const ORIGINS_MAX: usize = 64;
/// HTTP requests of a stage under way at once.
pub const HTTP_IN_FLIGHT: Range = Range { min: 1, max: 256, default: 16 };
/// How long an HTTP request of a stage may take. A call waits for at most ten seconds.
pub const HTTP_DEADLINE_MS: Range = Range { min: 10, max: 8 * SECOND_MS, default: 5 * SECOND_MS };
/// Body of an HTTP request of a stage.
pub const HTTP_REQUEST_BYTES: Range = Range { min: 0, max: 64 * MIB, default: MIB };
/// Body of the answer to one.
pub const HTTP_RESPONSE_BYTES: Range = Range { min: 0, max: 256 * MIB, default: 8 * MIB };
/// The shortest time to live of a key's state.
pub const STATE_TTL_MS_MIN: u64 = SECOND_MS;
/// The longest: ten years.
pub const STATE_TTL_MS_MAX: u64 = 3650 * DAY_MS;
/// Log lines of one call, by default.
pub const LOG_LINES_DEFAULT: u32 = 100;
/// Log lines of one call, at most.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Instances per partition with scope `key`, by default.
pub const INSTANCES_DEFAULT: u32 = 128;
/// Instances per partition with scope `key`, at most.
pub const INSTANCES_MAX: u32 = 10_000;
/// Immediate runs of a failed event, by default.
pub const RETRIES_DEFAULT: u8 = 3;
/// Immediate runs of a failed event, at most: more only hold up the partition.
pub const RETRIES_MAX: u8 = 20;

/// Silence after which a stream ends.
pub const IDLE_TIMEOUT_MS: Range = Range { min: 10, max: 24 * HOUR_MS, default: 60 * SECOND_MS };
/// Events of a stream.
pub const EVENTS_MAX: Range = Range { min: 1, max: 1_000_000_000, default: 1_000_000 };
/// Payload bytes of a stream.
pub const BYTES_MAX: Range = Range { min: KIB, max: 1024 * GIB, default: GIB };
/// Life of a stream.
pub const DURATION_MAX_MS: Range =
    Range { min: SECOND_MS, max: 7 * 24 * HOUR_MS, default: HOUR_MS };
/// Bytes of a stream's events that are kept for making its instance again.
pub const REPLAY_BYTES_MAX: Range = Range { min: 64 * KIB, max: GIB, default: 16 * MIB };

/// How long the load is low before a pipeline is scaled down.
pub const QUIET_MS: Range = Range { min: SECOND_MS, max: DAY_MS, default: 60 * SECOND_MS };

/// How far a watermark stays behind what came in.
pub const LATENESS_MS: Range = Range { min: 0, max: 30 * DAY_MS, default: 0 };
/// The shortest silence after which a watermark goes on with the clock.
pub const IDLE_AFTER_MS_MIN: u64 = 100;
/// The longest.
pub const IDLE_AFTER_MS_MAX: u64 = 30 * DAY_MS;

/// Runs of a parked event before it is given up on.
pub const PARK_ATTEMPTS: Range = Range { min: 1, max: 1000, default: 10 };
/// The first pause before a parked event is run again.
pub const PARK_PAUSE_MS: Range = Range { min: 10, max: HOUR_MS, default: SECOND_MS };
/// The longest pause.
pub const PARK_PAUSE_MAX_MS: Range = Range { min: 10, max: 24 * HOUR_MS, default: 300 * SECOND_MS };
/// How long an event is parked, before it is given up on when it fails.
pub const PARK_AGE_MAX_MS: Range =
    Range { min: SECOND_MS, max: 7 * 24 * HOUR_MS, default: 24 * HOUR_MS };
/// Parked events of a key.
pub const PARK_EVENTS_MAX: Range = Range { min: 1, max: 100_000, default: 1000 };
/// Bytes of the parked events of a key.
pub const PARK_BYTES_MAX: Range = Range { min: KIB, max: 32 * MIB, default: MIB };

/// Bytes an output keeps for its readers.
pub const RETAIN_BYTES: Range = Range { min: 64 * KIB, max: GIB, default: 16 * MIB };

/// Sources of a pipeline, and sinks.
pub const CONNECTORS_MAX: usize = 16;
/// Bytes of a path.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 2048;
/// Bytes of a schedule, and of a time zone's name.
pub const CRON_BYTES_MAX: usize = 128;
/// Bytes of a line of a file.
pub const LINE_BYTES: Range = Range { min: 64, max: 16 * MIB, default: MIB };
/// Events of one request of a webhook.
pub const BATCH_EVENTS: Range = Range { min: 1, max: 1000, default: 100 };
/// How long a sink waits for an answer.
pub const SINK_TIMEOUT_MS: Range =
    Range { min: 100, max: 300 * SECOND_MS, default: 10 * SECOND_MS };
/// Messages that a sink of NATS has under way.
pub const BATCH_MESSAGES: Range = Range { min: 1, max: 1000, default: 1 };
/// Bytes of a subject, and of the names of a stream, a consumer and a queue.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// The longest pause of a sink between two attempts.
pub const SINK_PAUSE_MAX_MS: Range = Range { min: 100, max: HOUR_MS, default: 60 * SECOND_MS };

/// The port of a stage that names none.
pub const PORT_DEFAULT: &str = "out";
/// The input of a stage that names none.
pub const INPUT_DEFAULT: &str = "in";
