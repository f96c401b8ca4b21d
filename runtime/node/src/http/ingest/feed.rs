//! Events that come from elsewhere than a request: what sources take in.
//!
//! The same rules hold as for requests: which key, which time, how large. Lines that are no events
//! are left out and counted.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::HeaderMap;
use sluicebox_core::frame::{Head, field, push_field};
use sluicebox_core::limits::TIME_END;

use super::form::STRUCTURED;
use super::key::{self, HostId, Rules};
use super::ndjson::{Cut, Lines};
use super::single::{self, Parts};
use super::{Fault, Step, Tally, cloudevents, structured};
use crate::error::LineError;
use crate::http::text::{now_micros, push_time};
use crate::running::{Intake, Running};

/// What becomes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Each line, which is JSON.
    Json,
    /// Each line.
    Text,
    /// All of it.
    Whole,
}

/// What a message is that is no CloudEvent.
const MESSAGE: &str = "nats.message";

/// A message that becomes an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it was sent to.
    pub(crate) subject: String,
    /// What is said of its payload: the fields of a CloudEvent, and what it holds.
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
    /// When it was kept elsewhere, in microseconds.
    pub(crate) time: Option<u64>,
}

/// What became of bytes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What could not become one.
    pub(crate) rejected: u64,
    /// The first of those, and why.
    pub(crate) first: Option<LineError>,
}

/// Takes the events of some bytes. `key` is that of events whose key the pipeline does not find.
pub(crate) fn take(
    running: &Running,
    (sort, key): (Sort, Option<&str>),
    bytes: &[u8],
    intake: &mut Intake,
) -> Taken {
    let mut fields = Vec::new();
    if sort == Sort::Text {
        let _fits = push_field(&mut fields, field::CONTENT_TYPE, b"text/plain");
    }
    let rules = rules(running, key, &fields);
    let mut tally = Tally::default();
    match sort {
        Sort::Json => {
            let mut lines = Lines::new(bytes);
            while lines.step(&rules, intake, &mut tally) == Step::More {}
        }
        Sort::Text => {
            let (mut cut, mut host_id) = (Cut::new(bytes), HostId::next());
            while let Some(line) = cut.next_line() {
                match text(line, &rules, (&mut host_id, cut.number()), intake) {
                    Ok(()) => tally.accepted += 1,
                    Err(fault) => tally.reject(cut.number(), fault),
                }
            }
        }
        Sort::Whole => match text(bytes, &rules, (&mut HostId::next(), 1), intake) {
            Ok(()) => tally.accepted += 1,
            Err(fault) => tally.reject(1, fault),
        },
    }
    let Tally { rejected, errors, .. } = tally;
    Taken { rejected, first: errors.into_iter().next() }
}

fn rules<'a>(running: &'a Running, key: Option<&'a str>, fields: &'a [u8]) -> Rules<'a> {
    let ingest = &running.pipeline().ingest;
    Rules {
        pointer: ingest.key.as_ref(),
        request_key: key,
        time: ingest.time.as_ref().map(|pointer| (pointer, ingest.time_unit)),
        event_bytes_max: running.event_bytes_max(),
        received: now_micros(),
        host_fields: fields,
        traced: None,
    }
}

fn text(
    payload: &[u8],
    rules: &Rules<'_>,
    (host_id, line): (&mut HostId, u64),
    intake: &mut Intake,
) -> Result<(), Fault> {
    rules.check_size(0, payload.len(), rules.host_fields)?;
    let found;
    let key = match (rules.pointer, rules.request_key) {
        (Some(pointer), _) => {
            found = key::from_payload(payload, pointer)?;
            found.as_bytes()
        }
        (None, Some(key)) => key.as_bytes(),
        (None, None) => host_id.of_line(line),
    };
    rules.check_size(key.len(), payload.len(), rules.host_fields)?;
    let time = rules.time_of(payload)?;
    intake.push(&Head::data(time), key, payload, rules.host_fields);
    Ok(())
}

/// Takes the events that messages are. `key` is that of events whose key is not found otherwise;
/// without it that is the message's subject.
pub(crate) fn take_messages(
    running: &Running,
    key: Option<&str>,
    messages: &[Message],
    intake: &mut Intake,
) -> Taken {
    let mut tally = Tally::default();
    for (at, message) in (1..).zip(messages) {
        let mut rules = rules(running, Some(key.unwrap_or(&message.subject)), &[]);
        if let Some(time) = message.time.filter(|time| (1..TIME_END).contains(time)) {
            rules.received = time;
        }
        if let Err(fault) = take_message(message, &rules, intake) {
            tally.reject(at, fault);
        }
    }
    let Tally { rejected, errors, .. } = tally;
    Taken { rejected, first: errors.into_iter().next() }
}

fn take_message(
    message: &Message,
    rules: &Rules<'_>,
    intake: &mut impl super::Sink,
) -> Result<(), Fault> {
    let Message { subject, headers, payload, .. } = message;
    let kind = single::content_type(headers)?;
    let essence = kind.map(single::essence).unwrap_or_default();
    if essence.eq_ignore_ascii_case(STRUCTURED) {
        return structured::parse(payload, rules, intake);
    }
    if cloudevents::is_meant(headers) {
        return cloudevents::parse(headers, payload, rules, intake);
    }
    let fields = vec![
        (field::EVENT_TYPE, Cow::Borrowed(MESSAGE)),
        (field::EVENT_SUBJECT, Cow::Borrowed(subject.as_str())),
    ];
    single::finish(Parts { content_type: kind, fields, ..Parts::default() }, payload, rules, intake)
}

/// Takes the event of a schedule, which is of the time it says.
pub(crate) fn take_tick(
    (source, key): (&str, Option<&str>),
    time: u64,
    intake: &mut Intake,
) -> usize {
    let mut at = Vec::new();
    push_time(&mut at, time);
    let at = String::from_utf8_lossy(&at).into_owned();
    let payload = format!("{{\"source\":\"{source}\",\"time\":\"{at}\"}}");
    let mut fields = Vec::new();
    for (id, value) in [
        (field::CONTENT_TYPE, "application/json"),
        (field::EVENT_TYPE, "sluicebox.cron"),
        (field::EVENT_SUBJECT, source),
    ] {
        let _fits = push_field(&mut fields, id, value.as_bytes());
    }
    intake.push(&Head::data(time), key.unwrap_or(source).as_bytes(), payload.as_bytes(), &fields);
    payload.len()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::super::tests::{Collected, Event, rules};
    use super::*;

    fn event(
        headers: &[(&'static str, &'static str)],
        payload: &str,
    ) -> Result<Event, &'static str> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let message = Message {
            subject: "orders.7".to_owned(),
            headers: headers.iter().map(pair).collect(),
            payload: Bytes::from(payload.to_owned()),
            time: None,
        };
        let rules = Rules { request_key: Some("orders.7"), ..rules() };
        let mut sink = Collected::default();
        take_message(&message, &rules, &mut sink).map_err(|fault| fault.code)?;
        Ok(sink.events.remove(0))
    }

    fn text(event: &Event, id: u16) -> String {
        String::from_utf8(event.field(id).unwrap_or_default()).expect("UTF-8")
    }

    #[test]
    fn a_message_is_a_cloud_event_if_it_says_so() {
        let plain = event(&[], "any\u{0}thing").expect("good");
        assert_eq!((plain.key.as_slice(), plain.payload.len()), (&b"orders.7"[..], 9));
        let of =
            |event: &Event| (text(event, field::EVENT_TYPE), text(event, field::EVENT_SUBJECT));
        assert_eq!(of(&plain), ("nats.message".to_owned(), "orders.7".to_owned()));
        let binary = [
            ("ce-specversion", "1.0"),
            ("ce-id", "i"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("content-type", "application/json"),
        ];
        let found = event(&binary, "{}").expect("good");
        assert_eq!((of(&found).0, text(&found, field::EVENT_ID)), ("t".to_owned(), "i".to_owned()));
        assert_eq!(found.key, b"orders.7", "the subject comes before the id");
        let body = r#"{"specversion":"1.0","id":"i","source":"/s","type":"u","partitionkey":"k"}"#;
        let found = event(&[("content-type", "application/cloudevents+json")], body);
        let found = found.expect("good");
        assert_eq!((of(&found).0, found.key), ("u".to_owned(), b"k".to_vec()));
    }

    #[test]
    fn what_says_it_is_something_and_is_not_is_named() {
        let json = ("content-type", "application/json");
        assert_eq!(event(&[json], "{").map(drop), Err("ingest.json"));
        let version = ("ce-specversion", "1.0");
        assert_eq!(event(&[version], "{}").map(drop), Err("ingest.attribute"));
        let kind = ("content-type", "application/cloudevents+json; charset=utf-8");
        assert_eq!(event(&[kind], "{}").map(drop), Err("ingest.attribute"));
    }
}
