//! Every field of a manifest: one table, from which it is checked and its schema is published.
//!
//! A field that is not here does not exist: the reader refuses it. Each has one line that says
//! what it is for, which the schema and the guide repeat. Rules that need more than one field (a
//! port that exists, a graph without cycles) are in `pipeline`.

mod connect;
mod grants;
mod streams;

use super::bounds;
use grants::GRANTS;

/// A field of a table.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    pub(crate) about: &'static str,
}

/// Whether a field must be there, and what holds if it is not.
#[derive(Debug)]
pub(crate) enum Need {
    Required,
    /// Absence has a meaning of its own, told in `about`.
    Optional,
    Number(u64),
    Size(u64),
    Duration(u64),
    Word(&'static str),
    Words(&'static [&'static str]),
}

/// What a value must be.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The format's number.
    Version,
    Integer {
        min: u64,
        max: u64,
    },
    Size {
        min: u64,
        max: u64,
    },
    Duration {
        min: u64,
        max: u64,
    },
    Choice(&'static [Choice]),
    Name,
    Pointer,
    /// `stage` or `stage.part`; the word says which part.
    Reference(&'static str),
    Component,
    Digest,
    /// Scheme, host and port of a place for HTTP requests.
    Origin,
    Text {
        bytes_max: usize,
    },
    EdgeKey,
    List {
        of: &'static Self,
        min: usize,
        max: usize,
        unique: bool,
    },
    /// Names chosen by the author; the word says what they name.
    Map {
        of: &'static Self,
        min: usize,
        max: usize,
        what: &'static str,
    },
    Table(&'static [Field]),
}

/// A word of a choice and what it means.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) word: &'static str,
    pub(crate) about: &'static str,
}

const fn field(name: &'static str, kind: Kind, need: Need, about: &'static str) -> Field {
    Field { name, kind, need, about }
}

const fn choice(word: &'static str, about: &'static str) -> Choice {
    Choice { word, about }
}

const fn size(name: &'static str, range: bounds::Range, about: &'static str) -> Field {
    let kind = Kind::Size { min: range.min, max: range.max };
    field(name, kind, Need::Size(range.default), about)
}

const fn duration(name: &'static str, range: bounds::Range, about: &'static str) -> Field {
    let kind = Kind::Duration { min: range.min, max: range.max };
    field(name, kind, Need::Duration(range.default), about)
}

const fn count(name: &'static str, range: bounds::Range, about: &'static str) -> Field {
    let kind = Kind::Integer { min: range.min, max: range.max };
    field(name, kind, Need::Number(range.default), about)
}

/// The whole manifest.
pub(crate) static MANIFEST: [Field; 12] = [
    field("version", Kind::Version, Need::Required, "The format of this manifest: 1."),
    field("name", Kind::Name, Need::Required, "The pipeline's name, unique within the tenant."),
    field(
        "delivery",
        Kind::Choice(&DELIVERY),
        Need::Word("exactly-once"),
        "What is promised about events.",
    ),
    field(
        "partitions",
        Kind::Integer { min: 1, max: bounds::PARTITIONS_MAX as u64 },
        Need::Optional,
        "Partitions of each segment: how far the work can be spread. Without it those there are, \
         at the first apply twice the number of workers.",
    ),
    field(
        "scaling",
        Kind::Table(&SCALING),
        Need::Optional,
        "How far the node scales it with its load: with this table, even an empty one, there are as \
         many partitions as the rate needs; `partitions` then only says how many there are first.",
    ),
    field("ingest", Kind::Table(&INGEST), Need::Required, "Where events enter from outside."),
    field(
        "time",
        Kind::Table(&TIME),
        Need::Optional,
        "Event time: with this table, even an empty one, stages have a watermark, and timers by \
         event time fire.",
    ),
    field(
        "stages",
        Kind::Map { of: &Kind::Table(&STAGE), min: 1, max: bounds::STAGES_MAX, what: "a stage" },
        Need::Required,
        "The stages, by name.",
    ),
    field(
        "edges",
        Kind::List { of: &Kind::Table(&EDGE), min: 0, max: bounds::EDGES_MAX, unique: false },
        Need::Words(&[]),
        "Which emitted events go to which stage.",
    ),
    field(
        "outputs",
        Kind::Map {
            of: &Kind::Table(&OUTPUT),
            min: 0,
            max: bounds::OUTPUTS_MAX,
            what: "an output",
        },
        Need::Optional,
        "Where results leave, by name. The output called reply also answers requests that wait \
         for a result. Without any, results are only what the stages log and count.",
    ),
    connect::sources(),
    connect::sinks(),
];

static DELIVERY: [Choice; 2] = [
    choice(
        "best-effort",
        "Nothing is logged: an event is acknowledged when it is queued, and queued events and \
         state are lost when the node restarts.",
    ),
    choice(
        "exactly-once",
        "An event is acknowledged when it is on disk; state and outputs outlive the node, and are \
         as if each event had been handled once.",
    ),
];

static SCALING: [Field; 4] = [
    field(
        "min",
        Kind::Integer { min: 1, max: bounds::PARTITIONS_MAX as u64 },
        Need::Number(1),
        "Fewest partitions of each segment. Partitions without events have no instances.",
    ),
    field(
        "max",
        Kind::Integer { min: 1, max: bounds::PARTITIONS_MAX as u64 },
        Need::Optional,
        "Most partitions of each segment. Without it as many as there are workers.",
    ),
    duration("quiet", bounds::QUIET_MS, "How long the load is low before there are fewer."),
    field(
        "apart",
        Kind::Name,
        Need::Optional,
        "The stage that has a segment of its own at first. The node sets another apart, or none, as \
         it sees fit.",
    ),
];

static TIME: [Field; 2] = [
    duration(
        "lateness",
        bounds::LATENESS_MS,
        "How far the watermark stays behind the highest event time that came in: how late an event \
         may be without being late.",
    ),
    field(
        "idle-after",
        Kind::Duration { min: bounds::IDLE_AFTER_MS_MIN, max: bounds::IDLE_AFTER_MS_MAX },
        Need::Optional,
        "When nothing came in for so long, the watermark goes on with the clock. Without it the \
         watermark waits for the next event.",
    ),
];

static TIME_UNIT: [Choice; 3] =
    [choice("s", "Seconds."), choice("ms", "Milliseconds."), choice("us", "Microseconds.")];

static INGEST: [Field; 4] = [
    field(
        "to",
        Kind::List { of: &Kind::Reference("input"), min: 1, max: bounds::EDGES_MAX, unique: true },
        Need::Required,
        "Stages that get each event: a stage, or stage.input.",
    ),
    field(
        "key",
        Kind::Pointer,
        Need::Optional,
        "JSON pointer (RFC 6901) to the key inside a JSON payload. Without it the producer names \
         the key.",
    ),
    field(
        "time",
        Kind::Pointer,
        Need::Optional,
        "JSON pointer (RFC 6901) to the event time inside a JSON payload: a text as RFC 3339 has \
         it, or a number since 1970. Without it the producer names it, or the time of receipt is \
         taken.",
    ),
    field(
        "time-unit",
        Kind::Choice(&TIME_UNIT),
        Need::Word("ms"),
        "Only with time: what a number there counts.",
    ),
];

static STAGE: [Field; 14] = [
    field(
        "component",
        Kind::Component,
        Need::Required,
        "What runs: the name a component was uploaded under, its digest, or name@digest.",
    ),
    field(
        "from",
        Kind::Name,
        Need::Optional,
        "The name the stage had before: its state goes on under the new one. Of no effect once \
         the version that renames it runs.",
    ),
    field("scope", Kind::Choice(&SCOPE), Need::Word("shared"), "Whom an instance serves."),
    field(
        "ports",
        Kind::List { of: &Kind::Name, min: 0, max: bounds::PORTS_MAX, unique: true },
        Need::Words(&[bounds::PORT_DEFAULT]),
        "Names of the ports events leave by; port 0 is the first. Events at a port with no edge \
         and no output are dropped.",
    ),
    field(
        "inputs",
        Kind::List { of: &Kind::Name, min: 1, max: bounds::PORTS_MAX, unique: true },
        Need::Words(&[bounds::INPUT_DEFAULT]),
        "Names of the inputs events arrive at; input 0 is the first.",
    ),
    field(
        "config",
        Kind::Map {
            of: &Kind::Text { bytes_max: bounds::CONFIG_VALUE_BYTES_MAX },
            min: 0,
            max: bounds::CONFIG_ENTRIES_MAX,
            what: "a config entry",
        },
        Need::Optional,
        "Settings the stage reads by name; text only.",
    ),
    field(
        "assets",
        Kind::Map { of: &Kind::Digest, min: 0, max: bounds::ASSETS_MAX, what: "an asset" },
        Need::Optional,
        "Uploaded blobs the stage reads by name, each given by its digest.",
    ),
    field(
        "grants",
        Kind::Table(&GRANTS),
        Need::Optional,
        "What the stage may do besides the imports every stage has.",
    ),
    field("limits", Kind::Table(&LIMITS), Need::Optional, "What the stage may use."),
    field(
        "state-ttl",
        Kind::Duration { min: bounds::STATE_TTL_MS_MIN, max: bounds::STATE_TTL_MS_MAX },
        Need::Optional,
        "The state of a key goes when nothing of it was written for so long. Without it state \
         stays until the stage deletes it. Not with scope stream.",
    ),
    field(
        "on-failure",
        Kind::Choice(&ON_FAILURE),
        Need::Word("dead-letter"),
        "What happens to an event the stage could not handle.",
    ),
    field(
        "retries",
        Kind::Integer { min: 0, max: bounds::RETRIES_MAX as u64 },
        Need::Number(bounds::RETRIES_DEFAULT as u64),
        "Immediate runs of an event whose failure has the class retry.",
    ),
    field(
        "stream",
        Kind::Table(&streams::STREAM),
        Need::Optional,
        "Only with scope stream: when a stream ends by itself.",
    ),
    field(
        "park",
        Kind::Table(&PARK),
        Need::Optional,
        "Only with on-failure park: how long and how often parked events are tried.",
    ),
];

static SCOPE: [Choice; 3] = [
    choice("shared", "Any key; instances are interchangeable and their memory is only a cache."),
    choice("key", "An instance serves one key for life; its memory is a cache."),
    choice("stream", "An instance serves one stream, from its first event to its end."),
];

static ON_FAILURE: [Choice; 3] = [
    choice("dead-letter", "It is kept aside with the reason, and later events go on."),
    choice("halt", "The partition stops and says why."),
    choice(
        "park",
        "It waits, with the later events of its key, and is tried again after pauses; other keys go \
         on. Not with scope stream.",
    ),
];

static LIMITS: [Field; 7] = [
    size("memory", bounds::MEMORY, "All memories and tables of one instance."),
    count(
        "fuel-per-event",
        bounds::FUEL_PER_EVENT,
        "Fuel for each event of a call; one unit is about one Wasm instruction.",
    ),
    size("event-bytes", bounds::EVENT_BYTES, "One event, received or emitted."),
    size("emit-bytes", bounds::EMIT_BYTES, "All that one call emits."),
    size("state-bytes", bounds::STATE_BYTES, "The state of one key."),
    field(
        "log-lines",
        Kind::Integer { min: 0, max: bounds::LOG_LINES_MAX as u64 },
        Need::Number(bounds::LOG_LINES_DEFAULT as u64),
        "Log lines of one call; more are dropped and counted.",
    ),
    field(
        "instances",
        Kind::Integer { min: 1, max: bounds::INSTANCES_MAX as u64 },
        Need::Number(bounds::INSTANCES_DEFAULT as u64),
        "With scope key and stream: instances kept per partition. The least recently used is \
         dropped, or put away if it is all there is of a stream.",
    ),
];

static PARK: [Field; 6] = [
    count(
        "attempts",
        bounds::PARK_ATTEMPTS,
        "How often a parked event is run again before it becomes a dead letter.",
    ),
    duration(
        "pause",
        bounds::PARK_PAUSE_MS,
        "The pause before it is run again; twice as long each time it fails.",
    ),
    duration("pause-max", bounds::PARK_PAUSE_MAX_MS, "The longest pause."),
    duration(
        "age-max",
        bounds::PARK_AGE_MAX_MS,
        "An event that fails after being parked for so long becomes a dead letter.",
    ),
    count(
        "events-max",
        bounds::PARK_EVENTS_MAX,
        "Events of one key that may be parked; further ones become dead letters.",
    ),
    size("bytes-max", bounds::PARK_BYTES_MAX, "The same in bytes."),
];

static EDGE: [Field; 3] = [
    field(
        "from",
        Kind::Reference("port"),
        Need::Required,
        "Where events come from: a stage, meaning its first port, or stage.port.",
    ),
    field(
        "to",
        Kind::Reference("input"),
        Need::Required,
        "Where they go: a stage, meaning its first input, or stage.input.",
    ),
    field("key", Kind::EdgeKey, Need::Word("cause"), EDGE_KEY_ABOUT),
];

static OUTPUT: [Field; 3] = [
    field(
        "from",
        Kind::Reference("port"),
        Need::Required,
        "Where results come from: a stage, meaning its first port, or stage.port.",
    ),
    field("key", Kind::EdgeKey, Need::Word("cause"), EDGE_KEY_ABOUT),
    size(
        "retain-bytes",
        bounds::RETAIN_BYTES,
        "Results kept for readers; the oldest are dropped first, and counted.",
    ),
];

const EDGE_KEY_ABOUT: &str = "The key events travel by: that of the event that caused them \
    (cause), the one the stage wrote (emitted), or one from the JSON payload ({ json = \"/pointer\" }).";

/// The words an edge's key may be.
pub(crate) static EDGE_KEYS: [Choice; 2] = [
    choice("cause", "The key of the event that caused it, whatever the stage wrote."),
    choice("emitted", "The key the stage wrote."),
];

/// The table an edge's key may be.
pub(crate) static JSON_KEY: [Field; 1] = [field(
    "json",
    Kind::Pointer,
    Need::Required,
    "JSON pointer (RFC 6901) to the key inside the JSON payload.",
)];
