//! When streams end, and what becomes of them when a version brings other code.

use super::super::bounds;
use super::{Choice, Field, Kind, Need, choice, count, duration, field, size};

static ON_UPDATE: [Choice; 3] = [
    choice("finish", "They go on to their end with the code they opened with."),
    choice("restart", "They end before the version begins; later events open others."),
    choice(
        "snapshot",
        "They go on with the new code, which is given what the code they have says of them: both \
         components export `sluicebox:stage/snapshot`.",
    ),
];

pub(super) static STREAM: [Field; 6] = [
    duration(
        "idle-timeout",
        bounds::IDLE_TIMEOUT_MS,
        "The stream ends after this long without an event.",
    ),
    count("events-max", bounds::EVENTS_MAX, "The stream ends after this many events."),
    size("bytes-max", bounds::BYTES_MAX, "The stream ends after this much payload."),
    duration("duration-max", bounds::DURATION_MAX_MS, "The stream ends this long after it opened."),
    size(
        "replay-bytes-max",
        bounds::REPLAY_BYTES_MAX,
        "Only with exactly-once: events kept of a stream whose component allows no images of its \
         memory, to make its instance again after a restart. A stream with more ends with it.",
    ),
    field(
        "on-update",
        Kind::Choice(&ON_UPDATE),
        Need::Word("finish"),
        "Only with exactly-once: what becomes of open streams when a version brings another \
         component, config, assets or lower limits. With best-effort they end with each version.",
    ),
];
