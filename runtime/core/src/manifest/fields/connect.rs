//! What the node takes in by itself and hands out by itself: sources and sinks.

use super::super::bounds;
use super::{Choice, Field, Kind, Need, choice, count, duration, field, size};

static SOURCES: Kind = Kind::Table(&SOURCE);
static SINKS: Kind = Kind::Table(&SINK);

pub(super) const fn sources() -> Field {
    field(
        "sources",
        Kind::Map { of: &SOURCES, min: 0, max: bounds::CONNECTORS_MAX, what: "a source" },
        Need::Optional,
        "What the node takes events in from by itself, by name. They enter where ingest does, and \
         the operator allows what may be reached.",
    )
}

pub(super) const fn sinks() -> Field {
    field(
        "sinks",
        Kind::Map { of: &SINKS, min: 0, max: bounds::CONNECTORS_MAX, what: "a sink" },
        Need::Optional,
        "Where the node hands results on to by itself, by name. The operator allows what may be \
         reached.",
    )
}

static SOURCE: [Field; 4] = [
    field(
        "key",
        Kind::Text { bytes_max: crate::limits::KEY_BYTES_MAX },
        Need::Optional,
        "The key of all its events, unless ingest.key finds one. Without either each event has a \
         key of its own.",
    ),
    field(
        "file",
        Kind::Table(&FILE),
        Need::Optional,
        "The lines of one file, as they come; the file may be rotated or truncated.",
    ),
    field(
        "folder",
        Kind::Table(&FOLDER),
        Need::Optional,
        "Each file that comes into a folder, in the order of their names.",
    ),
    field("cron", Kind::Table(&CRON), Need::Optional, "An event each time a schedule says so."),
];

static FORM: [Choice; 2] = [
    choice("json", "Each line is JSON, and the payload of an event; others are left out."),
    choice("text", "Each line is the payload of an event."),
];

static FILE: [Field; 3] = [
    field(
        "path",
        Kind::Text { bytes_max: bounds::PATH_BYTES_MAX },
        Need::Required,
        "The file, from the root; in a folder that the operator allows (connectors.folders).",
    ),
    field("form", Kind::Choice(&FORM), Need::Word("json"), "What a line is."),
    size("line-bytes", bounds::LINE_BYTES, "Longest line; longer ones are left out, and counted."),
];

static FOLDER_FORM: [Choice; 3] = [
    choice("json", "Each line is JSON, and the payload of an event; others are left out."),
    choice("text", "Each line is the payload of an event."),
    choice("whole", "Each file is one event; one that is too large is left out."),
];

static FOLDER: [Field; 4] = [
    field(
        "path",
        Kind::Text { bytes_max: bounds::PATH_BYTES_MAX },
        Need::Required,
        "The folder, from the root; one that the operator allows (connectors.folders), or in one. \
         Files are moved into it when they are complete.",
    ),
    field("form", Kind::Choice(&FOLDER_FORM), Need::Word("json"), "What becomes an event."),
    field("after", Kind::Choice(&AFTER), Need::Word("move"), "What becomes of a file behind that."),
    size("line-bytes", bounds::LINE_BYTES, "Longest line; longer ones are left out, and counted."),
];

static AFTER: [Choice; 2] = [
    choice("move", "It is moved into the folder done in this one."),
    choice("delete", "It is deleted."),
];

static MISSED: [Choice; 3] = [
    choice("skip", "They are left out."),
    choice("once", "The last of them comes, once."),
    choice("all", "They come, each with its time; of very many the last thousand."),
];

static CRON: [Field; 3] = [
    field(
        "at",
        Kind::Text { bytes_max: bounds::CRON_BYTES_MAX },
        Need::Required,
        "When: five fields (minute, hour, day, month, weekday), or six with seconds in front.",
    ),
    field(
        "zone",
        Kind::Text { bytes_max: bounds::CRON_BYTES_MAX },
        Need::Word("UTC"),
        "The time zone the fields are of, by its name in the IANA database: Europe/Berlin.",
    ),
    field(
        "missed",
        Kind::Choice(&MISSED),
        Need::Word("once"),
        "What becomes of times at which the pipeline did not run.",
    ),
];

static SINK: [Field; 3] = [
    field("from", Kind::Name, Need::Required, "The output whose results it hands on."),
    field(
        "on-refusal",
        Kind::Choice(&ON_REFUSAL),
        Need::Word("halt"),
        "What happens to what the receiver will never take.",
    ),
    field("webhook", Kind::Table(&WEBHOOK), Need::Optional, "Each result is posted to a URL."),
];

static ON_REFUSAL: [Choice; 2] = [
    choice("halt", "The sink stops there and says why; so, once the output is full, do stages."),
    choice("drop", "It is left out, logged and counted, and later results go on."),
];

static WEBHOOK_FORM: [Choice; 3] = [
    choice("payload", "The body is the payload, attributes are headers (CloudEvents, binary)."),
    choice("event", "The body is the event as JSON (CloudEvents, structured)."),
    choice("lines", "The body is many events, one a line, as an output shows them."),
];

static WEBHOOK: [Field; 6] = [
    field(
        "url",
        Kind::Text { bytes_max: bounds::URL_BYTES_MAX },
        Need::Required,
        "Where to, http or https; a host that the operator allows (connectors.hosts).",
    ),
    field("form", Kind::Choice(&WEBHOOK_FORM), Need::Word("payload"), "What a request holds."),
    count("batch-events", bounds::BATCH_EVENTS, "Only with lines: most events of a request."),
    field(
        "secret",
        Kind::Name,
        Need::Optional,
        "Name of the secret requests are signed with (Standard Webhooks); the operator keeps it \
         (connectors.secrets).",
    ),
    duration("timeout", bounds::SINK_TIMEOUT_MS, "How long a request may take."),
    duration("pause-max", bounds::SINK_PAUSE_MAX_MS, "Longest pause before it is tried again."),
];
