//! In which form events come: told by the content type, before the body is read.

use http::header::{CONTENT_TYPE, HeaderMap};

use super::{cloudevents, single};
use crate::error::{Error, shown};

/// Media types with a meaning here.
const NDJSON: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
pub(in crate::http) const FRAME: &str = "application/vnd.sluicebox.frame";
pub(super) const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const EVENT_LINES: [&str; 2] = ["application/cloudevents+ndjson", "application/cloudevents+jsonl"];

/// How media types begin that are meant as CloudEvents.
const CLOUDEVENTS: &str = "application/cloudevents";

/// True of a media type that means a JSON text a line.
pub(in crate::http) fn is_lines(essence: &str) -> bool {
    NDJSON.iter().any(|known| essence.eq_ignore_ascii_case(known))
}

/// The forms of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Frames,
    /// One, with its attributes in headers.
    CloudEvent,
    /// One in JSON.
    Structured,
    /// An array of them.
    Batch,
    /// One a line.
    EventLines,
    Single,
}

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let found = headers.get(CONTENT_TYPE);
        let found = found.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let essence = single::essence(found.as_deref().unwrap_or_default());
        let is = |known: &&str| essence.eq_ignore_ascii_case(known);
        let starts = |prefix: &str| {
            essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if is(&STRUCTURED) {
            return Ok(Self::Structured);
        }
        if is(&BATCH) {
            return Ok(Self::Batch);
        }
        if EVENT_LINES.iter().any(is) {
            return Ok(Self::EventLines);
        }
        if starts(CLOUDEVENTS) {
            let supported = "application/cloudevents+json, application/cloudevents-batch+json, \
                             application/cloudevents+ndjson, or attributes in `ce-` headers";
            return Err(Error::MediaType { found: shown(essence), supported });
        }
        if cloudevents::is_meant(headers) {
            return Ok(Self::CloudEvent);
        }
        Ok(match essence {
            _ if is_lines(essence) => Self::Lines,
            _ if is(&FRAME) => Self::Frames,
            _ => Self::Single,
        })
    }

    /// It holds one event, which may be waited for.
    pub(super) const fn is_one_event(self) -> bool {
        matches!(self, Self::CloudEvent | Self::Structured | Self::Single)
    }

    /// Its events are known by their ids, where they have one.
    pub(super) const fn knows_by_id(self) -> bool {
        !matches!(self, Self::Lines | Self::Frames)
    }

    /// One mistake refuses all of it.
    pub(super) const fn is_whole(self) -> bool {
        !matches!(self, Self::Lines | Self::EventLines)
    }
}
