//! What the tests of the forms share, and what is decided before a body is read.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use sluicebox_core::frame::Fields;

use super::*;

/// One event as a form gave it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) head: Head,
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    packed: Vec<u8>,
}

impl Event {
    pub(super) fn field(&self, id: u16) -> Option<Vec<u8>> {
        Fields::parse(&self.packed).expect("well-formed fields").get(id).map(<[u8]>::to_vec)
    }
}

/// A sink that checks what the format's builder would rely on.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) events: Vec<Event>,
}

impl Sink for Collected {
    fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], packed: &[u8]) {
        assert!(key.len() <= 512 && std::str::from_utf8(key).is_ok() && !key.is_empty());
        assert!(Fields::parse(packed).is_some() && head.time < sluicebox_core::limits::TIME_END);
        let (key, payload, packed) = (key.to_vec(), payload.to_vec(), packed.to_vec());
        self.events.push(Event { head: *head, key, payload, packed });
    }
}

impl Collected {
    pub(super) fn keys(&self) -> Vec<String> {
        let text = |event: &Event| String::from_utf8(event.key.clone()).expect("UTF-8");
        self.events.iter().map(text).collect()
    }
}

/// The rules of a pipeline that says nothing about keys.
pub(super) fn rules() -> Rules<'static> {
    Rules {
        pointer: None,
        request_key: None,
        time: None,
        event_bytes_max: 64 * 1024,
        received: 1_700_000_000_000_000,
        host_fields: &[],
        traced: None,
    }
}

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    list.iter().map(pair).collect()
}

#[test]
fn the_content_type_decides_the_form() {
    let form = |list: &[(&'static str, &'static str)]| {
        Form::of(&headers(list)).map_err(|error| error.code())
    };
    assert_eq!(form(&[]), Ok(Form::Single));
    assert_eq!(form(&[("content-type", "text/plain")]), Ok(Form::Single));
    assert_eq!(form(&[("content-type", "Application/X-NDJSON; charset=utf-8")]), Ok(Form::Lines));
    assert_eq!(form(&[("content-type", FRAME)]), Ok(Form::Frames));
    let binary = [("ce-specversion", "1.0"), ("content-type", "application/x-ndjson")];
    assert_eq!(form(&binary), Ok(Form::CloudEvent));
    for (media_type, expected) in [
        ("application/cloudevents+json; charset=utf-8", Ok(Form::Structured)),
        ("Application/CloudEvents-Batch+JSON", Ok(Form::Batch)),
        ("application/cloudevents+ndjson", Ok(Form::EventLines)),
        ("application/cloudevents+avro", Err("request.media-type")),
    ] {
        // Attributes in headers do not count where the body is the event.
        assert_eq!(form(&[("content-type", media_type)]), expected);
        assert_eq!(form(&[("content-type", media_type), ("ce-specversion", "1.0")]), expected);
    }
}

fn asked(
    uri: &str,
    list: &[(&'static str, &'static str)],
) -> Result<(Option<String>, Option<Duration>), &'static str> {
    let mut request = http::Request::builder().uri(uri);
    *request.headers_mut().expect("a good URI") = headers(list);
    let parts = request.body(()).expect("a request").into_parts().0;
    let asked = Asked::read(&parts, Duration::from_secs(60)).map_err(|error| error.code())?;
    Ok((asked.key.map(Cow::into_owned), asked.wait))
}

#[test]
fn the_query_says_key_and_wait() {
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(asked("/e?key=a%20b&wait=5s", &[]), Ok((Some("a b".to_owned()), seconds(5))));
    assert_eq!(asked("/e", &[("prefer", "respond-async, wait=7")]), Ok((None, seconds(7))));
    assert_eq!(asked("/e?wait=1", &[("prefer", "wait=7")]), Ok((None, seconds(1))));
    assert_eq!(asked("/e?key=&wait=0", &[]), Ok((None, None)));
    assert_eq!(asked("/e?curser=x", &[]), Err("request.query"));
    assert_eq!(asked("/e?wait=soon", &[]), Err("request.query"));
    assert_eq!(asked("/e?wait=61s", &[]), Err("request.query"));
    assert_eq!(asked("/e?key=%FF", &[]), Err("request.query"));
    let long = format!("/e?key={}", "k".repeat(513));
    assert_eq!(asked(&long, &[]), Err("ingest.key-length"));
}
