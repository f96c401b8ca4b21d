//! What a client asks for when it begins a session.

use http::header::{CONTENT_TYPE, HeaderValue};
use sluicebox_core::frame::HEADER_BYTES;

use super::super::coding::Coding;
use super::super::ingest::single::essence;
use super::super::ingest::unit::Sort;
use super::super::ingest::{FRAME, REPLY, is_lines};
use super::super::outputs;
use super::super::text::{query_pairs, unknown_parameter};
use super::socket;
use super::units::Cut;
use crate::config::Config;
use crate::error::{Error, shown};
use crate::ring::Cursor;
use crate::running::Running;
use crate::sessions::Standing;

/// See the module.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) cut: Cut,
    pub(super) sort: Sort,
    /// Of the events, where they are raw bytes.
    pub(super) content_type: Option<HeaderValue>,
    /// Name of the output that comes back.
    pub(super) output: String,
    /// What the client has seen; none: it begins now.
    pub(super) cursor: Option<Cursor>,
    /// Ordinal of the first unit of the body.
    from: Option<u64>,
}

impl Asked {
    pub(super) fn read(parts: &http::request::Parts, running: &Running) -> Result<Self, Error> {
        if Coding::of(&parts.headers)?.is_some() {
            let message = "the body of a session cannot be compressed; leave out Content-Encoding";
            return Err(Error::request("request.coding", message));
        }
        let (mut chunk, mut output, mut cursor, mut from) = (None, None, None, None);
        for pair in query_pairs(parts.uri.query()) {
            match pair? {
                (name, value) if name == "chunk" => chunk = Some(value),
                (name, value) if name == "output" => output = Some(value),
                (name, value) if name == "cursor" => cursor = Some(value),
                (name, value) if name == "from" => from = Some(ordinal(&value)?),
                (name, _) => {
                    let known = "`chunk`, `output`, `cursor` or `from`";
                    return Err(unknown_parameter(&name, known));
                }
            }
        }
        let content_type = parts.headers.get(CONTENT_TYPE);
        let (cut, sort) = match (socket::is_wanted(&parts.headers), &chunk) {
            (true, None) => (Cut::Whole, Sort::Raw),
            (true, Some(_)) => {
                let message = "`chunk` has no meaning here; each message of a WebSocket is a unit";
                return Err(Error::request("stream.chunk", message));
            }
            (false, _) => cut(content_type, chunk.as_deref())?,
        };
        let content_type = content_type.filter(|_| sort == Sort::Raw).cloned();
        let output = named(running, output.as_deref())?;
        let ring = running.output(&output).ok_or_else(|| Error::not_found("output", &output))?;
        let cursor = cursor.map(|cursor| outputs::cursor(&cursor, ring)).transpose()?;
        Ok(Self { cut, sort, content_type, output, cursor, from })
    }

    /// Ordinal of the first unit of the body, of a key that stands there.
    pub(super) fn first(&self, standing: Standing) -> Result<u64, Error> {
        let first = self.from.unwrap_or(standing.at);
        if first <= standing.at {
            return Ok(first);
        }
        let message = format!(
            "the session begins at unit {first}, and the units from {} on are missing; send them \
             first, or leave `from` out",
            standing.at
        );
        Err(Error::request("stream.gap", message))
    }

    /// Most bytes of a unit.
    pub(super) fn unit_bytes_max(&self, running: &Running, config: &Config) -> usize {
        match self.sort {
            Sort::Frame => config.http.body_bytes_max.max(HEADER_BYTES),
            // Blanks around a line, and its end.
            Sort::Line | Sort::Raw => running.event_bytes_max() + HEADER_BYTES,
        }
    }
}

fn ordinal(text: &str) -> Result<u64, Error> {
    // One bit of what is kept of it says whether the stream has ended.
    text.parse().ok().filter(|at: &u64| at >> 62 == 0).ok_or_else(|| {
        let message = format!("`from` is {:?}; write the ordinal of a unit, from 0", shown(text));
        Error::request("request.query", message)
    })
}

/// How a body is cut, and what its units are.
fn cut(content_type: Option<&HeaderValue>, chunk: Option<&str>) -> Result<(Cut, Sort), Error> {
    let text = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = essence(text.as_deref().unwrap_or_default());
    let known = match () {
        () if is_lines(essence) => Some((Cut::Lines, Sort::Line)),
        () if essence.eq_ignore_ascii_case(FRAME) => Some((Cut::Frames, Sort::Frame)),
        () => None,
    };
    let wrong = |message: String| Error::request("stream.chunk", message);
    match (known, chunk) {
        (Some(known), None) => Ok(known),
        (Some(_), Some(_)) => {
            Err(wrong(format!("`chunk` is for raw bytes; {essence:?} says where a unit ends")))
        }
        (None, Some("prefixed")) => Ok((Cut::Prefixed, Sort::Raw)),
        (None, Some(text)) => {
            let bytes = text.parse().ok().filter(|bytes| *bytes > 0);
            let message = || {
                let shown = shown(text);
                format!("`chunk` is {shown:?}; write a number of bytes, from 1, or `prefixed`")
            };
            Ok((Cut::Fixed(bytes.ok_or_else(|| wrong(message()))?), Sort::Raw))
        }
        (None, None) => Err(wrong(format!(
            "a body of type {:?} has to be cut into events: add ?chunk=<bytes> or ?chunk=prefixed, \
             or send application/x-ndjson or {FRAME}",
            shown(essence)
        ))),
    }
}

/// The output that comes back.
fn named(running: &Running, asked: Option<&str>) -> Result<String, Error> {
    if let Some(asked) = asked {
        let known = running.output(asked).map(|_| asked.to_owned());
        return known.ok_or_else(|| Error::not_found("output", asked));
    }
    let mut names = running.outputs().map(|(name, _)| name);
    let all: Vec<&str> = names.by_ref().collect();
    match all.as_slice() {
        [only] => Ok((*only).to_owned()),
        all if all.contains(&REPLY) => Ok(REPLY.to_owned()),
        [] => Err(Error::request("stream.output", "the pipeline has no output to send back")),
        all => {
            let message =
                format!("say which output comes back: ?output= and one of {}", all.join(", "));
            Err(Error::request("stream.output", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::error::Classify;

    use super::*;

    fn cut_of(content_type: &'static str, chunk: Option<&str>) -> Result<Cut, &'static str> {
        let value = HeaderValue::from_static(content_type);
        let content_type = (!content_type.is_empty()).then_some(&value);
        cut(content_type, chunk).map(|(cut, _)| cut).map_err(|error| error.code())
    }

    #[test]
    fn the_content_type_and_the_chunk_say_how_a_body_is_cut() {
        assert_eq!(cut_of("application/x-ndjson; charset=utf-8", None), Ok(Cut::Lines));
        assert_eq!(cut_of("application/vnd.sluicebox.frame", None), Ok(Cut::Frames));
        assert_eq!(cut_of("image/jpeg", Some("prefixed")), Ok(Cut::Prefixed));
        assert_eq!(cut_of("", Some("4096")), Ok(Cut::Fixed(4096)));
        for (content_type, chunk) in [
            ("image/jpeg", None),
            ("image/jpeg", Some("0")),
            ("image/jpeg", Some("-1")),
            ("", Some("")),
            ("application/x-ndjson", Some("10")),
        ] {
            assert_eq!(
                cut_of(content_type, chunk),
                Err("stream.chunk"),
                "{content_type} {chunk:?}"
            );
        }
    }

    #[test]
    fn an_ordinal_is_a_number() {
        assert_eq!(ordinal("0").ok(), Some(0));
        for wrong in ["", "-1", "x", "18446744073709551615"] {
            assert!(ordinal(wrong).is_err(), "{wrong}");
        }
    }
}
