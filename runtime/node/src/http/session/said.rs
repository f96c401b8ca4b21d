//! What a session says to its client: outputs as they come, and how the stream stands.
//!
//! ```text
//! lines                              server-sent events
//! {"id":…,"data":…,"cursor":"…"}     id: <cursor>  event: message   data: {"id":…}
//! {"taken":7}                        event: taken       data: {"taken":7}
//! {"rejected":{"at":7,…}}            event: rejected    data: {"rejected":…}
//! {"ended":{"at":9,"cursor":"…"}}    event: ended       data: {"ended":…}
//! {"suspended":{"at":9,…}}           event: suspended   data: {"suspended":…}
//! ```
//!
//! Packed frames hold outputs and nothing else. How an output looks is decided in `outputs/render`.

use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, HeaderValue};
use serde_json::{Map, Value, json};
use sluicebox_core::frame::{Event, FrameBuilder};

use super::super::ingest::FRAME;
use super::super::ingest::single::essence;
use super::super::outputs::Renderer;
use super::super::outputs::follow::EVENT_STREAM;
use super::super::respond;
use crate::error::Error;
use crate::ring::Cursor;

/// In which form a client wants what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    ServerSent,
    Frames,
}

impl Form {
    /// The first one accepted that is not lines, which everybody gets who says nothing.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut named = values.flat_map(|value| value.split(',')).map(essence);
        let known = named.find_map(|name| match name {
            name if name.eq_ignore_ascii_case(FRAME) => Some(Self::Frames),
            name if name.eq_ignore_ascii_case(EVENT_STREAM) => Some(Self::ServerSent),
            _ => None,
        });
        known.unwrap_or(Self::Lines)
    }

    pub(super) const fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Lines => "application/x-ndjson",
            Self::ServerSent => EVENT_STREAM,
            Self::Frames => FRAME,
        })
    }
}

/// A piece of a response under way.
#[derive(Debug)]
pub(super) struct Said {
    form: Form,
    out: Vec<u8>,
    frame: FrameBuilder,
}

impl Said {
    pub(super) fn new(form: Form) -> Self {
        Self { form, out: Vec::new(), frame: FrameBuilder::new() }
    }

    /// Bytes of it so far.
    pub(super) fn len(&self) -> usize {
        self.out.len() + self.frame.bytes_len()
    }

    /// There is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.frame.is_empty()
    }

    /// What there is to send, if there is something.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if !self.frame.is_empty() {
            return Some(self.frame.finish().bytes().clone());
        }
        (!self.out.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.out)))
    }

    /// An output; `cursor` is behind it.
    pub(super) fn output(
        &mut self,
        renderer: &Renderer<'_>,
        (partition, offset): (u16, u64),
        event: &Event<'_>,
        cursor: &Cursor,
    ) {
        let out = &mut self.out;
        match self.form {
            Form::Frames => {
                let (head, fields) = (&event.head, event.fields.bytes());
                self.frame.push(head, event.key, event.payload, fields);
            }
            Form::Lines => {
                renderer.event(partition, offset, event, out);
                // The line is an object and goes on with one more member.
                out.truncate(out.len() - 2);
                push(out, format_args!(",\"cursor\":\"{cursor}\"}}\n"));
            }
            Form::ServerSent => {
                push(out, format_args!("id: {cursor}\nevent: message\ndata: "));
                renderer.event(partition, offset, event, out);
                out.push(b'\n');
            }
        }
    }

    /// All units before `at` are acknowledged.
    pub(super) fn taken(&mut self, at: u64) {
        self.line("taken", &json!(at));
    }

    /// A unit was left out.
    pub(super) fn rejected(&mut self, at: u64, code: &str, message: &str) {
        self.line("rejected", &json!({ "at": at, "code": code, "message": message }));
    }

    /// The stream is over, and all that followed from it was said.
    pub(super) fn ended(&mut self, at: u64, cursor: &Cursor) {
        self.line("ended", &json!({ "at": at, "cursor": cursor.to_string() }));
    }

    /// The session is over and the stream is not.
    pub(super) fn suspended(&mut self, at: u64, error: &Error) {
        let problem: http::Response<Bytes> = respond::problem(error);
        let members: Option<Map<String, Value>> = serde_json::from_slice(problem.body()).ok();
        let mut members = members.unwrap_or_default();
        members.insert("at".to_owned(), json!(at));
        self.line("suspended", &Value::Object(members));
    }

    /// Both sides are there.
    pub(super) fn heartbeat(&mut self) {
        match self.form {
            Form::Lines => self.out.push(b'\n'),
            Form::ServerSent => self.out.extend_from_slice(b":\n\n"),
            Form::Frames => {}
        }
    }

    fn line(&mut self, what: &str, value: &Value) {
        let line = json!({ what: value });
        match self.form {
            Form::Lines => push(&mut self.out, format_args!("{line}\n")),
            Form::ServerSent => {
                push(&mut self.out, format_args!("event: {what}\ndata: {line}\n\n"));
            }
            Form::Frames => {}
        }
    }
}

fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(said: &mut Said) -> String {
        String::from_utf8(said.take().map(|bytes| bytes.to_vec()).unwrap_or_default())
            .expect("UTF-8")
    }

    #[test]
    fn what_is_said_is_one_line_each() {
        let mut said = Said::new(Form::Lines);
        said.taken(7);
        said.rejected(8, "ingest.json", "not \"JSON\"");
        said.heartbeat();
        said.ended(9, &Cursor::OLDEST);
        assert_eq!(
            text(&mut said),
            "{\"taken\":7}\n\
             {\"rejected\":{\"at\":8,\"code\":\"ingest.json\",\"message\":\"not \\\"JSON\\\"\"}}\n\
             \n\
             {\"ended\":{\"at\":9,\"cursor\":\"oldest\"}}\n"
        );
        assert!(said.take().is_none());
        said.suspended(3, &Error::Draining);
        let line: Value = serde_json::from_str(&text(&mut said)).expect("JSON");
        assert_eq!(line["suspended"]["at"], 3);
        assert_eq!(line["suspended"]["code"], "node.draining");
        assert_eq!(line["suspended"]["status"], 503);
    }

    #[test]
    fn server_sent_events_say_the_same() {
        let mut said = Said::new(Form::ServerSent);
        said.taken(7);
        said.heartbeat();
        assert_eq!(text(&mut said), "event: taken\ndata: {\"taken\":7}\n\n:\n\n");
        let mut frames = Said::new(Form::Frames);
        frames.taken(7);
        frames.heartbeat();
        assert!(frames.take().is_none());
    }
}
