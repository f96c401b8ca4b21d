//! CloudEvents 1.0 in JSON: one (structured mode), an array of them (batched), or one a line.
//!
//! - `data` becomes the payload: as it is written if its content type is JSON or unsaid, as text if
//!   it is a string of another type; `data_base64` as the bytes it stands for.
//! - A batch is taken whole or not at all, as whoever made it looks at the status and no further.
//!   Every mistake is listed by its index, counted from 0. Of lines the bad ones are left out and
//!   reported by number, as in NDJSON.
//! - `partitionkey` is the key, `traceparent` the trace; other extensions are not kept.
//! - In a pipeline with a log an event of a source and id that came before, in this request or an
//!   earlier one, is counted as a duplicate and left out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluicebox_core::dedup::id_hash;
use sluicebox_core::frame::field;

use super::key::Rules;
use super::ndjson::Cut;
use super::single::{self, Parts};
use super::{Fault, STEP_BYTES, Sink, Step, Tally};
use crate::error::{Error, shown};

/// An attribute that is text.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The attributes that mean something here.
#[derive(Debug, Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    specversion: Option<Text<'a>>,
    id: Option<Text<'a>>,
    source: Option<Text<'a>>,
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    subject: Option<Text<'a>>,
    time: Option<Text<'a>>,
    datacontenttype: Option<Text<'a>>,
    partitionkey: Option<Text<'a>>,
    traceparent: Option<Text<'a>>,
    data: Option<&'a RawValue>,
    data_base64: Option<Text<'a>>,
}

/// What was taken before, and is not taken again.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By the log.
    pub(super) before: BTreeSet<u128>,
    /// In this request; nothing in a pipeline without a log.
    here: Option<BTreeSet<u128>>,
}

impl Known {
    /// Nothing is known yet of this request. `looked_at` says whether ids are.
    pub(super) fn begin(&mut self, looked_at: bool) {
        self.here = looked_at.then(BTreeSet::new);
    }

    /// True if an event came before.
    fn holds(&self, hash: u128) -> bool {
        let here = self.here.as_ref();
        here.is_some_and(|here| here.contains(&hash) || self.before.contains(&hash))
    }

    /// An event was taken.
    fn note(&mut self, hash: u128) {
        self.here.as_mut().map(|here| here.insert(hash));
    }
}

/// Takes the one event of a body.
pub(super) fn parse(body: &[u8], rules: &Rules<'_>, sink: &mut impl Sink) -> Result<(), Fault> {
    let text = std::str::from_utf8(body).map_err(|_| no_json("it is not UTF-8"))?;
    take(text, &mut Known::default(), rules, sink).map(drop)
}

/// Takes an event; false if it came before.
fn take(
    text: &str,
    known: &mut Known,
    rules: &Rules<'_>,
    sink: &mut impl Sink,
) -> Result<bool, Fault> {
    // The attributes of an event could be read from an array as well, which no event is.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(no_json("an event is an object"));
    }
    let read: Attributes<'_> =
        serde_json::from_str(text).map_err(|error| no_json(&error.to_string()))?;
    match &read.specversion {
        Some(Text(version)) if version == "1.0" => {}
        Some(Text(version)) => {
            let found = shown(version);
            return Err(bad("specversion", &format!("is {found:?}; only 1.0 is known")));
        }
        None => return Err(bad("specversion", "is missing")),
    }
    let required = |name: &str, value: Option<Text<'_>>| match value {
        Some(Text(text)) if !text.is_empty() => Ok(text.into_owned()),
        _ => Err(bad(name, "is missing or empty")),
    };
    let id = required("id", read.id)?;
    let source = required("source", read.source)?;
    let kind = required("type", read.kind)?;
    let payload = payload(read.datacontenttype.as_ref(), read.data, read.data_base64.as_ref())?;
    let time = read.time.map(|Text(time)| single::time_of("time", &time)).transpose()?;
    let subject = read.subject.map(|Text(subject)| (field::EVENT_SUBJECT, subject));
    let hash = id_hash(source.as_bytes(), id.as_bytes());
    if known.holds(hash) {
        return Ok(false);
    }
    let mut fields =
        vec![(field::EVENT_SOURCE, Cow::Owned(source)), (field::EVENT_TYPE, Cow::Owned(kind))];
    fields.extend(subject);
    let parts = Parts {
        key: read.partitionkey.map(|Text(key)| key),
        id: Some(Cow::Owned(id)),
        time,
        end: false,
        content_type: read.datacontenttype.as_ref().map(|Text(text)| text.as_ref()),
        trace: read.traceparent.as_ref().map(|Text(text)| text.as_ref()),
        fields,
    };
    single::finish(parts, &payload, rules, sink)?;
    known.note(hash);
    Ok(true)
}

/// The payload of an event.
fn payload<'a>(
    content_type: Option<&Text<'_>>,
    data: Option<&'a RawValue>,
    base64: Option<&Text<'_>>,
) -> Result<Cow<'a, [u8]>, Fault> {
    let data = match (data, base64) {
        (Some(_), Some(_)) => return Err(bad("data_base64", "stands beside `data`; send one")),
        (None, None) => return Ok(Cow::Borrowed(b"")),
        (None, Some(Text(coded))) => {
            let bytes = STANDARD.decode(coded.as_bytes());
            return bytes.map(Cow::Owned).map_err(|_| bad("data_base64", "is no base64"));
        }
        (Some(data), None) => data.get(),
    };
    let is_json = content_type.is_none_or(|Text(content_type)| single::is_json(content_type));
    if !is_json && data.starts_with('"') {
        let text: Text<'_> =
            serde_json::from_str(data).map_err(|error| no_json(&error.to_string()))?;
        return Ok(Cow::Owned(text.0.into_owned().into_bytes()));
    }
    Ok(Cow::Borrowed(data.as_bytes()))
}

fn bad(name: &str, what: &str) -> Fault {
    Fault::new("ingest.attribute", format!("the CloudEvents attribute `{name}` {what}"))
}

fn no_json(what: &str) -> Fault {
    Fault::new("ingest.json", format!("not a CloudEvent in JSON: {}", shown(what)))
}

/// The events of an array that are still to be taken.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// Behind the event taken last.
    rest: &'a str,
    /// Of the next event.
    index: u64,
}

impl<'a> Batch<'a> {
    /// The events of a body.
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|_| no_json("it is not UTF-8"))?;
        let array = text.trim_ascii_start().strip_prefix('[');
        let rest = array.ok_or_else(|| no_json("a batch is an array of events"))?;
        Ok(Self { rest, index: 0 })
    }

    /// Takes some events.
    pub(super) fn step(
        &mut self,
        (rules, known): (&Rules<'_>, &mut Known),
        sink: &mut impl Sink,
        tally: &mut Tally,
    ) -> Result<Step, Fault> {
        let before = self.rest.len();
        while before - self.rest.len() < STEP_BYTES {
            let Some(event) = self.next()? else { return Ok(Step::Done) };
            match take(event, known, rules, sink) {
                Ok(true) => tally.accepted += 1,
                Ok(false) => tally.duplicates += 1,
                Err(fault) => tally.reject(self.index, fault),
            }
            self.index += 1;
        }
        Ok(Step::More)
    }

    /// The next event's text; none at the end of the array.
    fn next(&mut self) -> Result<Option<&'a str>, Fault> {
        let broken = |what: &str| no_json(&format!("behind event {}: {what}", self.index));
        let mut rest = self.rest.trim_ascii_start();
        match (rest.strip_prefix(']'), rest.strip_prefix(',')) {
            (Some(end), _) if end.trim_ascii().is_empty() => {
                self.rest = "";
                return Ok(None);
            }
            (Some(_), _) => return Err(broken("something follows the array")),
            (None, Some(more)) if self.index > 0 => rest = more.trim_ascii_start(),
            (None, _) if self.index > 0 => return Err(broken("the array does not go on")),
            _ => {}
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let event = match values.next() {
            Some(Ok(value)) => value.get(),
            Some(Err(error)) => return Err(broken(&error.to_string())),
            None => return Err(broken("the array does not end")),
        };
        self.rest = &rest[values.byte_offset()..];
        Ok(Some(event))
    }
}

/// Events one a line that are still to be taken.
#[derive(Debug)]
pub(super) struct EventLines<'a>(Cut<'a>);

impl<'a> EventLines<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self(Cut::new(body))
    }

    /// Takes some lines.
    pub(super) fn step(
        &mut self,
        (rules, known): (&Rules<'_>, &mut Known),
        sink: &mut impl Sink,
        tally: &mut Tally,
    ) -> Step {
        let before = self.0.left();
        while before - self.0.left() < STEP_BYTES {
            let Some(line) = self.0.next_line() else { return Step::Done };
            let text = std::str::from_utf8(line).map_err(|_| no_json("it is not UTF-8"));
            match text.and_then(|text| take(text, known, rules, sink)) {
                Ok(true) => tally.accepted += 1,
                Ok(false) => tally.duplicates += 1,
                Err(fault) => tally.reject(self.0.number(), fault),
            }
        }
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::tests::{Collected, Event, rules};
    use super::*;

    fn good() -> Value {
        json!({
            "specversion": "1.0", "id": "A 234", "source": "/meters/7", "type": "reading",
            "subject": "schü", "time": "2023-11-14T22:13:20Z", "partitionkey": "meter-7",
            "traceparent": TRACE, "comexampleother": 5, "data": {"a": [1, null]},
        })
    }

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// The good event with something changed; null takes it out.
    fn with(change: Value) -> Result<Event, &'static str> {
        let mut event = good();
        for (name, value) in change.as_object().expect("an object") {
            event[name] = value.clone();
        }
        event.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        let mut sink = Collected::default();
        let text = event.to_string();
        parse(text.as_bytes(), &rules(), &mut sink).map_err(|fault| fault.code)?;
        Ok(sink.events.remove(0))
    }

    #[test]
    fn attributes_travel_with_the_event() {
        let event = with(json!({})).expect("good");
        assert_eq!(
            (&event.key[..], &event.payload[..]),
            (&b"meter-7"[..], &b"{\"a\":[1,null]}"[..])
        );
        assert_eq!(event.head.time, 1_700_000_000_000_000);
        let text = |id| event.field(id).map(|value| String::from_utf8(value).expect("UTF-8"));
        assert_eq!(text(field::EVENT_ID).as_deref(), Some("A 234"));
        assert_eq!(text(field::EVENT_SOURCE).as_deref(), Some("/meters/7"));
        assert_eq!(text(field::EVENT_TYPE).as_deref(), Some("reading"));
        assert_eq!(text(field::EVENT_SUBJECT).as_deref(), Some("schü"));
        assert_eq!(text(field::TRACE_CONTEXT).as_deref(), Some(TRACE));
        assert_eq!(text(field::CONTENT_TYPE), None);
        let plain = with(json!({"partitionkey": null, "time": null})).expect("good");
        assert_eq!((plain.key, plain.head.time), (b"A 234".to_vec(), rules().received));
    }

    #[test]
    fn data_becomes_the_payload_it_stands_for() {
        let payload = |change: Value| with(change).map(|event| event.payload);
        assert_eq!(payload(json!({"data": "text"})), Ok(b"\"text\"".to_vec()));
        let plain = json!({"data": "te\u{e9}\nt", "datacontenttype": "text/plain"});
        assert_eq!(payload(plain), Ok("te\u{e9}\nt".as_bytes().to_vec()));
        let typed = json!({"data": {"a": 1}, "datacontenttype": "application/vnd.x+json"});
        assert_eq!(payload(typed), Ok(b"{\"a\":1}".to_vec()));
        let coded = json!({"data": null, "data_base64": "AP8=", "datacontenttype": "image/png"});
        assert_eq!(payload(coded), Ok(vec![0, 255]));
        assert_eq!(payload(json!({"data": null})), Ok(Vec::new()));
        assert_eq!(payload(json!({"data_base64": "AP8="})), Err("ingest.attribute"), "both");
        assert_eq!(payload(json!({"data": null, "data_base64": "?"})), Err("ingest.attribute"));
    }

    #[test]
    fn missing_and_bad_attributes_are_named() {
        for name in ["specversion", "id", "source", "type"] {
            assert_eq!(with(json!({name: null})).map(drop), Err("ingest.attribute"), "{name}");
            assert_eq!(with(json!({name: ""})).map(drop), Err("ingest.attribute"), "{name}");
            assert_eq!(with(json!({name: 7})).map(drop), Err("ingest.json"), "{name}");
        }
        assert_eq!(with(json!({"specversion": "0.3"})).map(drop), Err("ingest.attribute"));
        assert_eq!(with(json!({"time": "noon"})).map(drop), Err("ingest.time"));
        assert_eq!(
            with(json!({"partitionkey": "k".repeat(513)})).map(drop),
            Err("ingest.key-length")
        );
        let large = json!({"data": "x".repeat(rules().event_bytes_max)});
        assert_eq!(with(large).map(drop), Err("ingest.event-bytes"));
        for text in
            ["", "[]", "7", "{", "[\"1.0\",\"i\",\"s\",\"t\"]", "{\"id\":\"a\",\"id\":\"b\"}"]
        {
            let found = parse(text.as_bytes(), &rules(), &mut Collected::default());
            assert_eq!(found.map_err(|fault| fault.code), Err("ingest.json"), "{text}");
        }
    }

    fn batch(body: &[u8], known: &mut Known) -> (Collected, Tally, Option<&'static str>) {
        let (mut sink, mut tally) = <(Collected, Tally)>::default();
        let Ok(mut batch) = Batch::new(body) else { return (sink, tally, Some("no array")) };
        loop {
            match batch.step((&rules(), &mut *known), &mut sink, &mut tally) {
                Ok(Step::More) => {}
                Ok(Step::Done) => return (sink, tally, None),
                Err(fault) => return (sink, tally, Some(fault.code)),
            }
        }
    }

    fn numbered(id: &str) -> Value {
        json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": id})
    }

    #[test]
    fn a_batch_is_read_event_by_event_and_mistakes_by_index() {
        let events =
            json!([numbered("a"), numbered("b"), {"specversion": "1.0"}, numbered("c"), 5]);
        for text in [events.to_string(), format!(" {events:#}\n")] {
            let (sink, tally, end) = batch(text.as_bytes(), &mut Known::default());
            assert_eq!((sink.keys(), end), (vec!["a".into(), "b".into(), "c".into()], None));
            let lines: Vec<u64> = tally.errors.iter().map(|error| error.line).collect();
            assert_eq!((tally.accepted, lines), (3, vec![2, 4]));
        }
        assert_eq!(batch(b" [ ] ", &mut Known::default()).2, None);
        for bad in
            ["", "{}", "[", "[{}", "[{},", "[{} {}]", "[,{}]", "[{},]", "[{}] x", "[{}}", "\u{FF}"]
        {
            let (_, _, end) = batch(bad.as_bytes(), &mut Known::default());
            assert!(end.is_some(), "{bad}");
        }
    }

    #[test]
    fn an_id_that_comes_again_is_left_out() {
        let text = json!([numbered("a"), numbered("b"), numbered("a"), numbered("c")]).to_string();
        let mut known = Known::default();
        known.begin(true);
        let (sink, tally, _) = batch(text.as_bytes(), &mut known);
        assert_eq!((sink.keys().join(""), tally.accepted, tally.duplicates), ("abc".into(), 3, 1));
        known.before.insert(id_hash(b"/s", b"b"));
        known.begin(true);
        let (sink, tally, _) = batch(text.as_bytes(), &mut known);
        assert_eq!((sink.keys().join(""), tally.accepted, tally.duplicates), ("ac".into(), 2, 2));
        known.begin(false);
        assert_eq!(batch(text.as_bytes(), &mut known).0.keys().join(""), "abac");
    }

    #[test]
    fn an_id_whose_event_was_refused_did_not_come_yet() {
        let mut bad = numbered("a");
        bad["partitionkey"] = json!("k".repeat(513));
        let good = numbered("a");
        let text = format!("{bad}\n{good}\n{good}");
        let (mut sink, mut tally) = <(Collected, Tally)>::default();
        let mut lines = EventLines::new(text.as_bytes());
        let mut known = Known::default();
        known.begin(true);
        while lines.step((&rules(), &mut known), &mut sink, &mut tally) == Step::More {}
        assert_eq!((sink.keys().len(), tally.rejected, tally.duplicates), (1, 1, 1));
    }

    #[test]
    fn of_lines_the_good_ones_are_taken() {
        let text = format!("{}\r\n\nnone\n{}", numbered("a"), numbered("b"));
        let (mut sink, mut tally) = <(Collected, Tally)>::default();
        let mut lines = EventLines::new(text.as_bytes());
        let mut known = Known::default();
        while lines.step((&rules(), &mut known), &mut sink, &mut tally) == Step::More {}
        assert_eq!(sink.keys().join(""), "ab");
        let found: Vec<_> = tally.errors.iter().map(|e| (e.line, e.code)).collect();
        assert_eq!(found, [(3, "ingest.json")]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            body in prop::collection::vec(any::<u8>(), 0..200),
            text in "[\\[\\]{},:\"a1 \\\\n]{0,60}",
        ) {
            for body in [&body[..], text.as_bytes()] {
                drop(parse(body, &rules(), &mut Collected::default()));
                drop(batch(body, &mut Known::default()));
            }
        }

        #[test]
        fn every_event_of_a_batch_comes_through(ids in prop::collection::vec("\\PC{1,9}", 0..40)) {
            let events: Vec<Value> = ids.iter().map(|id| numbered(id)).collect();
            let text = serde_json::to_vec_pretty(&events).expect("JSON");
            let (sink, tally, end) = batch(&text, &mut Known::default());
            prop_assert_eq!((sink.keys(), tally.rejected, end), (ids, 0, None));
        }
    }
}
