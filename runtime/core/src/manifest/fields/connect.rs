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

static SOURCE: [Field; 5] = [
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
    field(
        "nats",
        Kind::Table(&NATS_SOURCE),
        Need::Optional,
        "Messages of NATS: of a stream each once, of a subject at most once.",
    ),
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

static NATS_BEGIN: [Choice; 2] = [
    choice("first", "With the first message that is there."),
    choice("new", "With what comes from then on."),
];

static NATS_SOURCE: [Field; 8] = [
    field("url", Kind::Text { bytes_max: bounds::URL_BYTES_MAX }, Need::Required, NATS_URL_ABOUT),
    field(
        "subject",
        Kind::Text { bytes_max: bounds::SUBJECT_BYTES_MAX },
        Need::Optional,
        "Which messages, with the wildcards of NATS; of a stream all, unless it is said.",
    ),
    field(
        "stream",
        Kind::Text { bytes_max: bounds::SUBJECT_BYTES_MAX },
        Need::Optional,
        "The stream of JetStream the messages are in. Without one each comes at most once.",
    ),
    field(
        "consumer",
        Kind::Text { bytes_max: bounds::SUBJECT_BYTES_MAX },
        Need::Optional,
        "Only with a stream: the durable consumer, made if it is not there. Without it its name is \
         made of tenant, pipeline and source.",
    ),
    field(
        "begin",
        Kind::Choice(&NATS_BEGIN),
        Need::Word("first"),
        "Only with a stream: where a consumer begins that is made.",
    ),
    field(
        "queue",
        Kind::Text { bytes_max: bounds::SUBJECT_BYTES_MAX },
        Need::Optional,
        "Only without a stream: the queue group that shares the messages.",
    ),
    size(
        "message-bytes",
        bounds::LINE_BYTES,
        "Largest message; larger ones are left out, and counted.",
    ),
    field("secret", Kind::Name, Need::Optional, NATS_SECRET_ABOUT),
];

const NATS_URL_ABOUT: &str = "The server, nats://host:port or tls://host:port; a host that the \
                              operator allows (connectors.hosts).";

const NATS_SECRET_ABOUT: &str = "Name of the secret that says who this is: a token, user and \
                                 password, an nkey, or a file of credentials; the operator keeps \
                                 it (connectors.secrets).";

static SINK: [Field; 4] = [
    field("from", Kind::Name, Need::Required, "The output whose results it hands on."),
    field(
        "on-refusal",
        Kind::Choice(&ON_REFUSAL),
        Need::Word("halt"),
        "What happens to what the receiver will never take.",
    ),
    field("webhook", Kind::Table(&WEBHOOK), Need::Optional, "Each result is posted to a URL."),
    field(
        "nats",
        Kind::Table(&NATS_SINK),
        Need::Optional,
        "Each result is published to a subject of NATS.",
    ),
];

static NATS_FORM: [Choice; 2] = [
    choice("payload", "The payload; attributes are headers (CloudEvents, binary)."),
    choice("event", "The event as JSON (CloudEvents, structured)."),
];

static CONFIRMED_BY: [Choice; 2] = [
    choice("stream", "A stream of JetStream has it on its disk, and knows it if it comes again."),
    choice("server", "The server has it; who does not listen then does not get it."),
];

static NATS_SINK: [Field; 8] = [
    field("url", Kind::Text { bytes_max: bounds::URL_BYTES_MAX }, Need::Required, NATS_URL_ABOUT),
    field(
        "subject",
        Kind::Text { bytes_max: bounds::SUBJECT_BYTES_MAX },
        Need::Required,
        "The subject results are published to.",
    ),
    field("form", Kind::Choice(&NATS_FORM), Need::Word("payload"), "What a message holds."),
    field(
        "confirmed-by",
        Kind::Choice(&CONFIRMED_BY),
        Need::Word("stream"),
        "Who has to have a result before it counts as handed on.",
    ),
    count(
        "batch-events",
        bounds::BATCH_MESSAGES,
        "Most results that are under way at a time. With more than one, one that is refused may \
         arrive behind those that follow it.",
    ),
    field("secret", Kind::Name, Need::Optional, NATS_SECRET_ABOUT),
    duration("timeout", bounds::SINK_TIMEOUT_MS, "How long the confirmation may take."),
    duration("pause-max", bounds::SINK_PAUSE_MAX_MS, "Longest pause before it is tried again."),
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
