//! One event whose payload is the request's body; also the last step of a CloudEvent.
//!
//! Headers say the rest: `Sluicebox-Key`, `Sluicebox-Id`, `Sluicebox-Time`, `Sluicebox-End: true`
//! (the end of a stream), and the content type, which travels with the event. A body that says it
//! is JSON must be JSON.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderMap};
use sluicebox_core::frame::{Head, Kind, field, push_field};
use sluicebox_core::json_key;

use super::key::{self, HostId, Rules};
use super::{Fault, Sink};
use crate::error::shown;
use crate::http::text::parse_time;

/// Names of the headers of a single event; replies use them as well.
pub(in crate::http) const KEY: &str = "sluicebox-key";
pub(in crate::http) const ID: &str = "sluicebox-id";
pub(in crate::http) const TIME: &str = "sluicebox-time";
const END: &str = "sluicebox-end";

/// What `curl -d` says when its user said nothing.
const FORM: &str = "application/x-www-form-urlencoded";

/// What is known of an event besides its payload, before the rules fill in the rest.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) time: Option<u64>,
    pub(super) end: bool,
    pub(super) content_type: Option<&'a str>,
    /// The trace it says it belongs to.
    pub(super) trace: Option<&'a str>,
    /// Further extension fields.
    pub(super) fields: Vec<(u16, Cow<'a, str>)>,
}

/// Takes the one event of a request.
pub(super) fn parse(
    headers: &HeaderMap,
    body: &[u8],
    rules: &Rules<'_>,
    sink: &mut impl Sink,
) -> Result<(), Fault> {
    let end = match header(headers, END)? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Fault::new("ingest.header", "`Sluicebox-End` is `true` or `false`")),
    };
    let parts = Parts {
        key: header(headers, KEY)?.map(Cow::Borrowed),
        id: header(headers, ID)?.map(Cow::Borrowed),
        time: header(headers, TIME)?.map(|text| time_of(TIME, text)).transpose()?,
        end,
        content_type: content_type(headers)?,
        trace: None,
        fields: Vec::new(),
    };
    finish(parts, body, rules, sink)
}

/// Checks the parts, fills in what is missing, and gives the event to the sink.
pub(super) fn finish(
    parts: Parts<'_>,
    body: &[u8],
    rules: &Rules<'_>,
    sink: &mut impl Sink,
) -> Result<(), Fault> {
    rules.check_size(0, body.len(), rules.host_fields)?;
    if parts.content_type.is_some_and(is_json) && !is_checked_by_key(&parts, rules) {
        check_json(body)?;
    }
    let id = parts.id.filter(|id| !id.is_empty());
    let mut host_id;
    let key: Cow<'_, [u8]> = match (&parts.key, rules.pointer, rules.request_key, &id) {
        (Some(key), ..) if !key.is_empty() => Cow::Borrowed(key.as_bytes()),
        (_, Some(pointer), ..) => match key::from_payload(body, pointer)? {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        },
        (_, _, Some(key), _) => Cow::Borrowed(key.as_bytes()),
        (.., Some(id)) => Cow::Borrowed(id.as_bytes()),
        _ => {
            host_id = HostId::next();
            Cow::Borrowed(host_id.of_line(1))
        }
    };
    key::check_length(&key)?;
    let mut fields = rules.fields_with(parts.trace);
    let known = [(field::EVENT_ID, id.as_deref()), (field::CONTENT_TYPE, parts.content_type)];
    let known = known.into_iter().filter_map(|(id, value)| Some((id, value?)));
    for (id, value) in known.chain(parts.fields.iter().map(|(id, value)| (*id, value.as_ref()))) {
        if !push_field(&mut fields, id, value.as_bytes()) {
            return Err(Fault::new(
                "ingest.fields",
                "the event's attributes are too long together",
            ));
        }
    }
    rules.check_size(key.len(), body.len(), &fields)?;
    let kind = if parts.end { Kind::End } else { Kind::Data };
    let time = match parts.time.filter(|time| *time > 0) {
        Some(time) => time,
        None => rules.time_of(body)?,
    };
    sink.push(&Head { kind, ..Head::data(time) }, &key, body, &fields);
    Ok(())
}

/// True if finding the key checks the whole payload anyway.
fn is_checked_by_key(parts: &Parts<'_>, rules: &Rules<'_>) -> bool {
    rules.pointer.is_some() && parts.key.as_ref().is_none_or(|key| key.is_empty())
}

fn check_json(body: &[u8]) -> Result<(), Fault> {
    if std::str::from_utf8(body).is_err() {
        return Err(Fault::new("ingest.json", "not JSON: the body is not UTF-8"));
    }
    json_key::check(body).map_err(key::json_fault)
}

/// `application/json` or a type with the suffix `+json`.
pub(in crate::http) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence.eq_ignore_ascii_case("application/json")
        || essence.len() > 5
            && essence.as_bytes()[essence.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// A content type without its parameters.
pub(in crate::http) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// A header as text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| {
        let code = if name == KEY { "ingest.key-utf8" } else { "ingest.header" };
        Fault::new(code, format!("the header `{name}` is not UTF-8"))
    })
}

/// The content type, unless it says nothing about the payload.
pub(super) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let found = header(headers, CONTENT_TYPE.as_str())?;
    Ok(found.filter(|text| !text.is_empty() && !essence(text).eq_ignore_ascii_case(FORM)))
}

/// The time in a header.
pub(super) fn time_of(name: &str, text: &str) -> Result<u64, Fault> {
    parse_time(text).ok_or_else(|| {
        let message = format!(
            "`{name}` is {:?}; use RFC 3339, for example 2026-01-31T12:00:00Z, or microseconds \
             since 1970",
            shown(text)
        );
        Fault::new("ingest.time", message)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sluicebox_core::json_key::Pointer;

    use super::super::tests::{Collected, Event, rules};
    use super::*;

    fn headers(list: &[(&'static str, &[u8])]) -> HeaderMap {
        let pair = |(name, bytes): &(&'static str, &[u8])| {
            let value = HeaderValue::from_bytes(bytes).expect("a header");
            (http::HeaderName::from_static(name), value)
        };
        list.iter().map(pair).collect()
    }

    fn one(
        list: &[(&'static str, &[u8])],
        body: &[u8],
        rules: &Rules<'_>,
    ) -> Result<Event, &'static str> {
        let mut sink = Collected::default();
        parse(&headers(list), body, rules, &mut sink).map_err(|fault| fault.code)?;
        Ok(sink.events.remove(0))
    }

    #[test]
    fn the_headers_say_what_the_body_does_not() {
        let list: &[(&str, &[u8])] = &[
            ("sluicebox-key", "schlüssel".as_bytes()),
            ("sluicebox-id", b"id-1"),
            ("sluicebox-time", b"2023-11-14T22:13:20Z"),
            ("sluicebox-end", b"true"),
            ("content-type", b"text/plain; charset=utf-8"),
        ];
        let event = one(list, b"\xFF\x00", &rules()).expect("good");
        assert_eq!(event.key, "schlüssel".as_bytes());
        assert_eq!(event.head, Head { kind: Kind::End, ..Head::data(1_700_000_000_000_000) });
        assert_eq!(event.field(field::EVENT_ID).as_deref(), Some(&b"id-1"[..]));
        assert_eq!(event.field(field::CONTENT_TYPE).as_deref(), Some(list[4].1));
        assert_eq!(event.payload, b"\xFF\x00");
    }

    #[test]
    fn the_key_follows_the_usual_rule() {
        let pointer = Pointer::parse("/k").expect("pointer");
        let all = Rules { pointer: Some(&pointer), request_key: Some("q"), ..rules() };
        let body = br#"{"k":"p"}"#;
        let key = |list: &[(&'static str, &[u8])], rules: &Rules<'_>| {
            String::from_utf8(one(list, body, rules).expect("good").key).expect("UTF-8")
        };
        assert_eq!(key(&[("sluicebox-key", b"h"), ("sluicebox-id", b"i")], &all), "h");
        assert_eq!(key(&[("sluicebox-key", b""), ("sluicebox-id", b"i")], &all), "p");
        let query = Rules { request_key: Some("q"), ..rules() };
        assert_eq!(key(&[("sluicebox-id", b"i")], &query), "q");
        assert_eq!(key(&[("sluicebox-id", b"i")], &rules()), "i");
        assert!(key(&[], &rules()).ends_with("-1"));
    }

    #[test]
    fn bad_headers_and_bodies_are_named() {
        let long = [b'x'; 513];
        let cases: [(&'static str, &[u8], &str); 6] = [
            ("sluicebox-key", b"\xFF", "ingest.key-utf8"),
            ("sluicebox-key", &long, "ingest.key-length"),
            ("sluicebox-id", &long, "ingest.key-length"),
            ("sluicebox-time", b"yesterday", "ingest.time"),
            ("sluicebox-end", b"perhaps", "ingest.header"),
            ("content-type", b"application/vnd.x+json", "ingest.json"),
        ];
        for (name, value, code) in cases {
            assert_eq!(one(&[(name, value)], b"{", &rules()).map(drop), Err(code), "{name}");
        }
        let json: &[(&str, &[u8])] = &[("content-type", b"Application/JSON;charset=utf-8")];
        assert_eq!(one(json, b"\"\xFF\"", &rules()).map(drop), Err("ingest.json"));
        assert!(one(json, b"[1]", &rules()).is_ok());
        assert!(one(&[], b"{", &rules()).is_ok(), "without a type any bytes will do");
        let pointer = Pointer::parse("/k").expect("pointer");
        let with_pointer = Rules { pointer: Some(&pointer), ..rules() };
        assert_eq!(one(&[], b"{", &with_pointer).map(drop), Err("ingest.json"));
        let large = vec![b'x'; rules().event_bytes_max];
        assert_eq!(one(&[], &large, &rules()).map(drop), Err("ingest.event-bytes"));
        let id = vec![b'x'; 17_000];
        let list: &[(&str, &[u8])] = &[("sluicebox-key", b"k"), ("sluicebox-id", &id)];
        assert_eq!(one(list, b"", &rules()).map(drop), Err("ingest.fields"));
    }

    #[test]
    fn the_type_that_curl_makes_up_says_nothing() {
        let event = one(&[("content-type", FORM.as_bytes())], b"{}", &rules()).expect("good");
        assert_eq!(event.field(field::CONTENT_TYPE), None);
    }
}
