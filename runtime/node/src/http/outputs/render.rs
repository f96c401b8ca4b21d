//! Events as lines of JSON, in the shape of CloudEvents.
//!
//! - `data` is the payload itself if it is JSON, or a string if its content type says text; else
//!   `data_base64`. A payload of no bytes has neither. JSON of several lines becomes one line.
//! - A payload without a content type is taken as JSON if it is JSON.
//! - `id` and `source` are the event's own, or name its place in the output, so that together they
//!   are always unique.
//! - Dead letters add `stage`, `class` and `message`.
//!
//! Written by hand into one buffer: no tree is built, and nothing is allocated for an event.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluicebox_core::frame::{Event, field};
use sluicebox_core::partition::dead_letter_field;

use super::super::ingest::single::{essence, is_json};
use super::super::text::{holds_json, push_time};
use super::Source;
use crate::ring::Chunk;
use crate::running::Running;

/// What the lines of one output have in common.
#[derive(Debug)]
pub(crate) struct Renderer<'a> {
    /// Of events that name no source.
    source: String,
    /// Before partition and offset in the id of events that have none.
    id_prefix: String,
    /// Of an output; none for dead letters.
    port: Option<&'a str>,
}

#[cfg(test)]
impl Renderer<'static> {
    /// Of an output that no pipeline has.
    pub(crate) fn of_nobody() -> Self {
        let source = "/v1/tenants/t/pipelines/p/outputs/o".to_owned();
        Self { source, id_prefix: "7-".to_owned(), port: Some("out") }
    }
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(running: &'a Running, source: Source<'_>, incarnation: u64) -> Self {
        let port = match source {
            Source::Output(name) => port_of(running, name),
            Source::DeadLetters => None,
        };
        let place = match source {
            Source::Output(name) => format!("outputs/{name}"),
            Source::DeadLetters => "dead-letters".to_owned(),
        };
        let (tenant, pipeline) = (running.tenant(), running.name());
        let source = format!("/v1/tenants/{tenant}/pipelines/{pipeline}/{place}");
        Self { source, id_prefix: format!("{incarnation:x}-"), port }
    }

    /// Appends a line for each event.
    pub(super) fn chunk(&self, chunk: &Chunk, out: &mut Vec<u8>) {
        for (offset, event) in chunk.events() {
            self.event(chunk.partition, offset, &event, out);
        }
    }

    /// Appends the line of one event.
    pub(crate) fn event(&self, partition: u16, offset: u64, event: &Event<'_>, out: &mut Vec<u8>) {
        let fields = Known::of(event);
        out.extend_from_slice(b"{\"id\":\"");
        match fields.id {
            Some(id) => push_escaped(out, &text(id)),
            None => {
                out.extend_from_slice(self.id_prefix.as_bytes());
                push_number(out, partition.into());
                out.push(b'-');
                push_number(out, offset);
            }
        }
        out.extend_from_slice(b"\",\"source\":\"");
        match fields.source {
            Some(source) => push_escaped(out, &text(source)),
            None => out.extend_from_slice(self.source.as_bytes()),
        }
        out.extend_from_slice(b"\",\"time\":\"");
        push_time(out, event.head.time);
        out.extend_from_slice(b"\",\"key\":\"");
        push_escaped(out, event.key_str());
        out.push(b'"');
        push_member(out, "port", self.port.map(str::as_bytes));
        push_member(out, "type", fields.kind);
        push_member(out, "subject", fields.subject);
        push_member(out, "traceparent", fields.trace);
        push_member(out, "stage", fields.stage);
        push_member(out, "class", fields.class);
        push_member(out, "message", fields.message);
        push_member(out, "datacontenttype", fields.content_type);
        push_data(out, event.payload, fields.content_type);
        out.extend_from_slice(b",\"partition\":");
        push_number(out, partition.into());
        out.extend_from_slice(b",\"offset\":");
        push_number(out, offset);
        out.extend_from_slice(b"}\n");
    }
}

/// What a CloudEvent of no other type is.
const RESULT: &str = "sluicebox.result";

impl Renderer<'_> {
    /// The attributes of an event as a CloudEvent, and what its data is. Its id is its own, or its
    /// place in the output, as in a line.
    pub(crate) fn attributes(
        &self,
        (partition, offset): (u16, u64),
        event: &Event<'_>,
    ) -> (Vec<(&'static str, String)>, Option<String>) {
        let fields = Known::of(event);
        let owned = |value: Option<&[u8]>| value.map(|value| text(value).into_owned());
        let id = owned(fields.id);
        let id = id.unwrap_or_else(|| format!("{}{partition}-{offset}", self.id_prefix));
        let mut time = Vec::new();
        push_time(&mut time, event.head.time);
        let mut attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", id),
            ("source", owned(fields.source).unwrap_or_else(|| self.source.clone())),
            ("type", owned(fields.kind).unwrap_or_else(|| RESULT.to_owned())),
            ("time", String::from_utf8_lossy(&time).into_owned()),
            ("partitionkey", event.key_str().to_owned()),
        ];
        attributes.extend(owned(fields.subject).map(|subject| ("subject", subject)));
        attributes.extend(owned(fields.trace).map(|trace| ("traceparent", trace)));
        (attributes, owned(fields.content_type))
    }

    /// Appends an event as a CloudEvent: its line, and what else has to be in one.
    pub(crate) fn cloud_event(
        &self,
        (partition, offset): (u16, u64),
        event: &Event<'_>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"{\"specversion\":\"1.0\",");
        if Known::of(event).kind.is_none() {
            push_member_first(out, "type", RESULT);
        }
        let mut line = Vec::new();
        self.event(partition, offset, event, &mut line);
        // Behind its first brace.
        out.extend_from_slice(line.get(1..).unwrap_or_default());
    }
}

fn push_member_first(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(format!("\"{name}\":\"{value}\",").as_bytes());
}

/// The name of the port an output comes from.
fn port_of<'a>(running: &'a Running, output: &str) -> Option<&'a str> {
    let pipeline = running.pipeline();
    let output = pipeline.outputs.iter().find(|known| known.name == output)?;
    let stage = pipeline.stages.get(output.from)?;
    stage.ports.get(usize::from(output.port)).map(String::as_str)
}

/// The extension fields a line shows.
#[derive(Debug, Default)]
struct Known<'a> {
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    trace: Option<&'a [u8]>,
    stage: Option<&'a [u8]>,
    class: Option<&'a [u8]>,
    message: Option<&'a [u8]>,
}

impl<'a> Known<'a> {
    /// One pass over the fields; the first with an id counts.
    fn of(event: &Event<'a>) -> Self {
        let mut known = Self::default();
        for (id, value) in event.fields.iter() {
            let place = match id {
                field::EVENT_ID => &mut known.id,
                field::EVENT_SOURCE => &mut known.source,
                field::CONTENT_TYPE => &mut known.content_type,
                field::EVENT_TYPE => &mut known.kind,
                field::EVENT_SUBJECT => &mut known.subject,
                field::TRACE_CONTEXT => &mut known.trace,
                dead_letter_field::STAGE => &mut known.stage,
                dead_letter_field::CLASS => &mut known.class,
                dead_letter_field::MESSAGE => &mut known.message,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        known
    }
}

/// A field as text. Stages may write what is no UTF-8.
fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}

fn push_member(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":\"");
        push_escaped(out, &text(value));
        out.push(b'"');
    }
}

fn push_data(out: &mut Vec<u8>, payload: &[u8], content_type: Option<&[u8]>) {
    if payload.is_empty() {
        return;
    }
    let content_type = content_type.map(text);
    let content_type = content_type.as_deref();
    if content_type.is_none_or(is_json) && holds_json(payload) {
        out.extend_from_slice(b",\"data\":");
        return push_line(out, payload);
    }
    if content_type.is_some_and(is_text)
        && let Ok(payload) = std::str::from_utf8(payload)
    {
        out.extend_from_slice(b",\"data\":\"");
        push_escaped(out, payload);
    } else {
        out.extend_from_slice(b",\"data_base64\":\"");
        push_base64(out, payload);
    }
    out.push(b'"');
}

fn is_text(content_type: &str) -> bool {
    essence(content_type).get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

/// Appends JSON as one line. Outside strings a line break is mere space, and inside there is none.
fn push_line(out: &mut Vec<u8>, json: &[u8]) {
    let from = out.len();
    out.extend_from_slice(json);
    if memchr::memchr2(b'\n', b'\r', json).is_some() {
        for byte in &mut out[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

fn push_base64(out: &mut Vec<u8>, payload: &[u8]) {
    let from = out.len();
    out.resize(from + payload.len().div_ceil(3) * 4, b'=');
    // The place is exactly as large as the encoding with its padding.
    let written = STANDARD.encode_slice(payload, &mut out[from..]);
    debug_assert!(written.is_ok_and(|count| from + count == out.len()));
}

/// Appends text as the inside of a JSON string.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use sluicebox_core::frame::{FrameBuilder, Head, push_field};

    use super::*;

    fn line(key: &str, payload: &[u8], fields: &[(u16, &[u8])]) -> Value {
        let mut packed = Vec::new();
        fields.iter().for_each(|(id, value)| assert!(push_field(&mut packed, *id, value)));
        let mut builder = FrameBuilder::new();
        builder.push(&Head::data(1_700_000_000_000_000), b"other", b"", &[]);
        builder.push(&Head::data(1_700_000_000_000_000), key.as_bytes(), payload, &packed);
        let chunk =
            Chunk { partition: 3, first_offset: 40, frame: builder.finish(), skip: 1, take: 1 };
        let mut out = Vec::new();
        Renderer::of_nobody().chunk(&chunk, &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1, "one event is one line");
        serde_json::from_slice(&out).expect("a line of JSON")
    }

    #[test]
    fn a_bare_event_shows_its_place() {
        let expected = serde_json::json!({
            "id": "7-3-41",
            "source": "/v1/tenants/t/pipelines/p/outputs/o",
            "time": "2023-11-14T22:13:20.000000Z",
            "key": "schlüssel",
            "port": "out",
            "data": {"a": [1, null]},
            "partition": 3,
            "offset": 41,
        });
        assert_eq!(line("schlüssel", b"{\"a\":\n [1,\r\nnull]}", &[]), expected);
    }

    #[test]
    fn an_events_own_attributes_are_shown() {
        let fields: &[(u16, &[u8])] = &[
            (field::EVENT_ID, b"id\"1"),
            (field::EVENT_SOURCE, b"/s\xFF"),
            (field::CONTENT_TYPE, b"text/plain"),
            (field::EVENT_TYPE, b"t"),
            (field::EVENT_SUBJECT, b"u"),
            (field::TRACE_CONTEXT, b"00-a-b-01"),
            (field::EVENT_ID, b"second"),
            (dead_letter_field::STAGE, b"count"),
            (dead_letter_field::CLASS, b"reject"),
            (dead_letter_field::MESSAGE, b"no\nway"),
        ];
        let line = line("k", b"12", fields);
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((text("id"), text("source")), ("id\"1".into(), "/s\u{FFFD}".into()));
        assert_eq!((text("type"), text("subject")), ("t".into(), "u".into()));
        assert_eq!((text("stage"), text("class")), ("count".into(), "reject".into()));
        assert_eq!((text("message"), text("data")), ("no\nway".into(), "12".into()));
        assert_eq!(
            (text("datacontenttype"), text("traceparent")),
            ("text/plain".into(), "00-a-b-01".into())
        );
    }

    #[test]
    fn a_cloud_event_has_all_that_one_must_have() {
        let mut builder = FrameBuilder::new();
        let mut fields = Vec::new();
        builder.push(&Head::data(1_700_000_000_000_000), b"k", b"1", &fields);
        assert!(push_field(&mut fields, field::EVENT_TYPE, b"own"));
        builder.push(&Head::data(1_700_000_000_000_000), b"k", b"1", &fields);
        let frame = builder.finish();
        for (offset, event) in (40_u64..).zip(frame.events()) {
            let mut out = Vec::new();
            Renderer::of_nobody().cloud_event((3, offset), &event, &mut out);
            let value: Value = serde_json::from_slice(&out).expect("JSON");
            let kind = if offset == 40 { "sluicebox.result" } else { "own" };
            assert_eq!((&value["specversion"], &value["type"]), (&"1.0".into(), &kind.into()));
            let (attributes, _) = Renderer::of_nobody().attributes((3, offset), &event);
            for name in ["specversion", "id", "source", "type", "time"] {
                let own = attributes.iter().find(|(known, _)| *known == name).expect("it has one");
                assert_eq!(value[name], own.1.as_str(), "{name}");
            }
        }
    }

    #[test]
    fn the_payload_takes_the_form_that_keeps_it() {
        let typed = |payload: &[u8], content_type: &'static [u8]| {
            let line = line("k", payload, &[(field::CONTENT_TYPE, content_type)]);
            (line.get("data").cloned(), line.get("data_base64").cloned())
        };
        let base64 = |payload: &[u8]| Some(Value::from(STANDARD.encode(payload)));
        assert_eq!(typed(b"12", b"application/json"), (Some(Value::from(12)), None));
        assert_eq!(typed(b"1 2", b"application/json"), (None, base64(b"1 2")));
        assert_eq!(typed(b"12", b"application/octet-stream"), (None, base64(b"12")));
        assert_eq!(typed(b"a\xFF", b"text/plain"), (None, base64(b"a\xFF")));
        assert_eq!(typed(b"\"\xFF\"", b"application/json"), (None, base64(b"\"\xFF\"")));
        let bare = |payload: &[u8]| {
            let line = line("k", payload, &[]);
            (line.get("data").cloned(), line.get("data_base64").cloned())
        };
        assert_eq!(bare(b""), (None, None));
        assert_eq!(bare(b" true "), (Some(Value::Bool(true)), None));
        assert_eq!(bare(b"hello"), (None, base64(b"hello")));
        assert_eq!(bare(&[b'['; 1000]), (None, base64(&[b'['; 1000])), "too deep");
    }

    proptest! {
        #[test]
        fn every_event_becomes_one_line_that_keeps_it(
            key in "\\PC{0,20}",
            raw_key in "[\\x00-\\x1f\"\\\\a]{0,20}",
            payload in prop::collection::vec(any::<u8>(), 0..60),
            content_type in prop::option::of("[ -~]{0,12}|text/plain|application/json"),
            id in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut fields: Vec<(u16, &[u8])> = vec![(field::EVENT_ID, &id)];
            if let Some(content_type) = &content_type {
                fields.push((field::CONTENT_TYPE, content_type.as_bytes()));
            }
            for key in [&key, &raw_key] {
                let line = line(key, &payload, &fields);
                prop_assert_eq!(line["key"].as_str(), Some(key.as_str()));
                prop_assert_eq!(line["id"].as_str().unwrap_or_default(), text(&id));
                if let Some(encoded) = line["data_base64"].as_str() {
                    prop_assert_eq!(STANDARD.decode(encoded).expect("base64"), payload.clone());
                }
            }
        }

        #[test]
        fn json_payloads_come_back_equal(
            words in prop::collection::vec("\\PC{0,10}", 0..5),
            n: i64,
        ) {
            let value = serde_json::json!({ "words": words, "n": n, "nested": [[{}], null] });
            let pretty = serde_json::to_vec_pretty(&value).expect("JSON");
            prop_assert_eq!(&line("k", &pretty, &[])["data"], &value);
        }
    }
}
