//! CloudEvents 1.0 in binary mode: attributes in `ce-` headers, the body is the data.
//!
//! `id`, `source` and `type` are required, as the specification has it. `partitionkey` is the key;
//! `time`, `subject`, `traceparent` and the content type travel with the event; attributes of other
//! extensions are not kept. The other modes are `structured`.

use std::borrow::Cow;

use http::header::HeaderMap;
use sluicebox_core::frame::field;

use super::Fault;
use super::Sink;
use super::key::Rules;
use super::single::{self, Parts};
use crate::error::shown;
use crate::http::text::percent_decode;

/// The header that makes a request a CloudEvent.
const VERSION: &str = "ce-specversion";

/// True if the request is meant as a CloudEvent in binary mode.
pub(super) fn is_meant(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION)
}

/// Takes the one event of a request.
pub(super) fn parse(
    headers: &HeaderMap,
    body: &[u8],
    rules: &Rules<'_>,
    sink: &mut impl Sink,
) -> Result<(), Fault> {
    match single::header(headers, VERSION)? {
        Some("1.0") => {}
        other => {
            let found = shown(other.unwrap_or_default());
            return Err(bad(VERSION, &format!("is {found:?}; only 1.0 is known")));
        }
    }
    let source = required(headers, "ce-source")?;
    let kind = required(headers, "ce-type")?;
    let mut fields = vec![(field::EVENT_SOURCE, source), (field::EVENT_TYPE, kind)];
    fields.extend(attribute(headers, "ce-subject")?.map(|text| (field::EVENT_SUBJECT, text)));
    let time = attribute(headers, "ce-time")?;
    let trace = attribute(headers, "ce-traceparent")?;
    let parts = Parts {
        key: attribute(headers, "ce-partitionkey")?,
        id: Some(required(headers, "ce-id")?),
        time: time.map(|text| single::time_of("ce-time", &text)).transpose()?,
        end: false,
        content_type: single::content_type(headers)?,
        trace: trace.as_deref(),
        fields,
    };
    single::finish(parts, body, rules, sink)
}

fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<Cow<'a, str>, Fault> {
    let found = attribute(headers, name)?;
    found.filter(|text| !text.is_empty()).ok_or_else(|| bad(name, "is missing or empty"))
}

/// An attribute; by the specification its header may be percent-encoded.
fn attribute<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    let Some(text) = single::header(headers, name)? else { return Ok(None) };
    let decoded = percent_decode(text);
    decoded.map(Some).ok_or_else(|| {
        bad(name, "has a `%` that is not followed by two hex digits, or is not UTF-8")
    })
}

fn bad(name: &str, what: &str) -> Fault {
    Fault::new("ingest.attribute", format!("the CloudEvents header `{name}` {what}"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use sluicebox_core::frame::Head;

    use super::super::tests::{Collected, Event, rules};
    use super::*;

    const GOOD: [(&str, &str); 10] = [
        ("ce-specversion", "1.0"),
        ("ce-id", "A%20234-1"),
        ("ce-source", "/meters/7"),
        ("ce-type", "com.example.reading"),
        ("ce-subject", "sch%C3%BC"),
        ("ce-time", "2023-11-14T22:13:20Z"),
        ("ce-partitionkey", "meter-7"),
        ("ce-traceparent", TRACE),
        ("ce-otherextension", "ignored"),
        ("content-type", "application/json"),
    ];

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// The good event with one header changed, or left out.
    fn with(name: &str, value: Option<&str>) -> Result<Event, &'static str> {
        let mut headers = HeaderMap::new();
        for (known, usual) in GOOD {
            let chosen = if known == name { value } else { Some(usual) };
            if let Some(chosen) = chosen {
                let chosen = HeaderValue::from_bytes(chosen.as_bytes()).expect("a header");
                headers.insert(HeaderName::from_static(known), chosen);
            }
        }
        assert_eq!(is_meant(&headers), name != VERSION || value.is_some());
        let mut sink = Collected::default();
        parse(&headers, b"{}", &rules(), &mut sink).map_err(|fault| fault.code)?;
        Ok(sink.events.remove(0))
    }

    #[test]
    fn attributes_travel_with_the_event() {
        let event = with("", None).expect("good");
        assert_eq!(event.key, b"meter-7");
        assert_eq!(event.head, Head::data(1_700_000_000_000_000));
        let text = |id| event.field(id).map(|value| String::from_utf8(value).expect("UTF-8"));
        assert_eq!(text(field::EVENT_ID).as_deref(), Some("A 234-1"));
        assert_eq!(text(field::EVENT_SOURCE).as_deref(), Some("/meters/7"));
        assert_eq!(text(field::EVENT_TYPE).as_deref(), Some("com.example.reading"));
        assert_eq!(text(field::EVENT_SUBJECT).as_deref(), Some("schü"));
        assert_eq!(text(field::CONTENT_TYPE).as_deref(), Some("application/json"));
        assert_eq!(text(field::TRACE_CONTEXT).as_deref(), Some(TRACE));
    }

    #[test]
    fn without_a_partition_key_the_id_is_the_key() {
        assert_eq!(with("ce-partitionkey", None).expect("good").key, b"A 234-1");
        assert_eq!(with("ce-time", None).expect("good").head.time, rules().received);
    }

    #[test]
    fn missing_and_bad_attributes_are_named() {
        for name in ["ce-id", "ce-source", "ce-type"] {
            assert_eq!(with(name, None).map(drop), Err("ingest.attribute"), "{name}");
            assert_eq!(with(name, Some("")).map(drop), Err("ingest.attribute"), "{name}");
        }
        assert_eq!(with("ce-specversion", Some("0.3")).map(drop), Err("ingest.attribute"));
        assert_eq!(with("ce-subject", Some("%FF")).map(drop), Err("ingest.attribute"));
        assert_eq!(with("ce-time", Some("noon")).map(drop), Err("ingest.time"));
        assert_eq!(
            with("ce-partitionkey", Some(&"k".repeat(513))).map(drop),
            Err("ingest.key-length")
        );
    }
}
