//! Which key and which time an event gets, and the ids the host makes up.
//!
//! The rule, for every form of ingest: the key named with the event itself; else the one the
//! pipeline finds in the JSON payload (`[ingest] key`); else `?key=` of the request; else the
//! event's id; else an id the host makes: the request's, and the number of the line.
//! Of times: the one named with the event itself; else the one the pipeline finds in the JSON
//! payload (`[ingest] time`); else when the request was received.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicebox_core::frame::{Fields, HEAD_BYTES, TRACEPARENT_BYTES, TraceContext, field};
use sluicebox_core::json_key::{self, KeyError, Pointer};
use sluicebox_core::limits::{FIELDS_BYTES_MAX, KEY_BYTES_MAX, TIME_END};
use sluicebox_core::pipeline::TimeUnit;

use super::traced::Traced;
use super::{Fault, trace};
use crate::error::shown;
use crate::http::text::{now_micros, parse_rfc3339};

/// What holds for every event of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Where the pipeline finds the key in a JSON payload.
    pub(super) pointer: Option<&'a Pointer>,
    /// `?key=`.
    pub(super) request_key: Option<&'a str>,
    /// Most bytes of one event, its head included.
    pub(super) event_bytes_max: usize,
    /// Where the pipeline finds the time in a JSON payload, and what a number there counts.
    pub(super) time: Option<(&'a Pointer, TimeUnit)>,
    /// Time of events that have none of their own.
    pub(super) received: u64,
    /// Packed fields that each event gets from the host.
    pub(super) host_fields: &'a [u8],
    /// Which of the events are followed, where somebody wants traces.
    pub(super) traced: Option<&'a Traced>,
}

impl<'a> Rules<'a> {
    /// The host's fields of the next event.
    #[inline]
    pub(super) fn fields_of_next(&self) -> &'a [u8] {
        match self.traced {
            None => self.host_fields,
            Some(traced) => traced.of_next(self.host_fields),
        }
    }

    /// The same of one that may name a trace of its own.
    pub(super) fn fields_with(&self, own: Option<&str>) -> Vec<u8> {
        let own = own.and_then(|own| TraceContext::parse(own.as_bytes()));
        let Some(own) = own else { return self.fields_of_next().to_vec() };
        trace::with(self.host_fields, Some(self.traced.map_or(own, |traced| traced.of_own(own))))
    }
}

impl Rules<'_> {
    /// Refuses an event that is too large for the pipeline, or whose fields leave no room for a
    /// trace. Its trace does not count: whether it has one may be chance.
    pub(super) fn check_size(
        &self,
        key: usize,
        payload: usize,
        fields: &[u8],
    ) -> Result<(), Fault> {
        let fields = besides_trace(fields);
        if fields > FIELDS_BYTES_MAX - TRACE_FIELD_BYTES {
            return Err(Fault::new(
                "ingest.fields",
                "the event's attributes are too long together",
            ));
        }
        if HEAD_BYTES + key + payload + fields <= self.event_bytes_max {
            return Ok(());
        }
        let message = format!(
            "the event is larger than the {} bytes the pipeline allows (limits.event-bytes)",
            self.event_bytes_max
        );
        Err(Fault::new("ingest.event-bytes", message))
    }
}

impl Rules<'_> {
    /// The time of an event that does not name it beside its payload.
    pub(super) fn time_of(&self, payload: &[u8]) -> Result<u64, Fault> {
        let Some((pointer, unit)) = self.time else { return Ok(self.received) };
        let text = json_key::extract(payload, pointer).map_err(|error| match error {
            KeyError::Missing(_) => no_time(pointer, "no text and no number is there"),
            other @ KeyError::Json(_) => json_fault(other),
        })?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let time = match is_number {
            true => number(&text, unit),
            false => parse_rfc3339(text.as_bytes()),
        };
        let time = time.filter(|time| (1..TIME_END).contains(time));
        time.ok_or_else(|| no_time(pointer, &format!("{:?} is there", shown(&text))))
    }
}

/// What a trace takes among the fields of an event.
const TRACE_FIELD_BYTES: usize = 4 + TRACEPARENT_BYTES;

/// Bytes of the fields that are no trace.
fn besides_trace(fields: &[u8]) -> usize {
    let trace = Fields::parse(fields).and_then(|fields| fields.get(field::TRACE_CONTEXT));
    fields.len() - trace.map_or(0, |trace| 4 + trace.len())
}

fn no_time(pointer: &Pointer, found: &str) -> Fault {
    let message = format!(
        "no event time at '{pointer}': {found}; use RFC 3339, for example 2026-01-31T12:00:00Z, or \
         a number since 1970 (ingest.time-unit)"
    );
    Fault::new("ingest.time", message)
}

/// Microseconds of a number of units, which may have a fraction; what is finer is cut off.
fn number(text: &str, unit: TimeUnit) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = unit.micros();
    let mut micros = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut worth = scale;
    for digit in fraction.chars() {
        worth /= 10;
        micros = micros.checked_add(u64::from(digit.to_digit(10)?) * worth)?;
    }
    Some(micros)
}

/// The key at the pipeline's pointer.
pub(super) fn from_payload<'a>(
    payload: &'a [u8],
    pointer: &Pointer,
) -> Result<Cow<'a, str>, Fault> {
    let key = json_key::extract(payload, pointer).map_err(json_fault)?;
    if key.is_empty() {
        return Err(Fault::new("ingest.key", format!("the key at '{pointer}' is empty")));
    }
    check_length(key.as_bytes())?;
    Ok(key)
}

/// Refuses a key that is too long.
pub(super) fn check_length(key: &[u8]) -> Result<(), Fault> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the key has {} bytes, at most {KEY_BYTES_MAX} are allowed", key.len());
    Err(Fault::new("ingest.key-length", message))
}

/// What the client is told about JSON that is none, or that lacks the key.
pub(super) fn json_fault(error: KeyError) -> Fault {
    match error {
        // A payload is one line to the parser; only its column helps.
        KeyError::Json(text) => Fault::new(
            "ingest.json",
            format!("not JSON: {}", text.replace(" at line 1 column", " at column")),
        ),
        KeyError::Missing(pointer) => {
            let message = format!("no string, number or boolean at '{pointer}' to use as the key");
            Fault::new("ingest.key", message)
        }
    }
}

/// Letters of the host's ids: no capitals, nothing that needs escaping anywhere.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The id of a request, and of the events in it that have none: `<node start>-<request>-<line>`.
/// Unique on a node for ever, as no two starts fall into one microsecond.
#[derive(Debug)]
pub(super) struct HostId {
    text: [u8; 48],
    /// Where the line's number begins.
    line_at: usize,
}

impl HostId {
    /// The id of the next request.
    pub(super) fn next() -> Self {
        static START: OnceLock<u64> = OnceLock::new();
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let mut id = Self { text: [b'-'; 48], line_at: 0 };
        let end = id.put(0, *START.get_or_init(now_micros));
        id.line_at = id.put(end + 1, REQUESTS.fetch_add(1, Ordering::Relaxed)) + 1;
        id
    }

    /// The id of an event by its line.
    pub(super) fn of_line(&mut self, line: u64) -> &[u8] {
        let end = self.put(self.line_at, line);
        &self.text[..end]
    }

    /// Writes a number at a place and says where it ends. 13 letters hold 64 bits.
    fn put(&mut self, at: usize, mut number: u64) -> usize {
        let mut letters = [0; 13];
        let mut count = 0;
        loop {
            letters[count] = LETTERS[(number & 31) as usize];
            count += 1;
            number >>= 5;
            if number == 0 {
                break;
            }
        }
        let places = self.text[at..at + count].iter_mut();
        places.zip(letters[..count].iter().rev()).for_each(|(place, letter)| *place = *letter);
        at + count
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::push_field;

    use super::super::tests::rules;
    use super::*;

    #[test]
    fn whether_an_event_is_followed_does_not_decide_whether_it_is_taken() {
        let context = TraceContext { trace: [1; 16], span: [2; 8], flags: 1 };
        let traces = [Vec::new(), trace::packed(Some(context))];
        let of = |own: usize| {
            traces.clone().map(|mut fields| {
                assert!(push_field(&mut fields, field::HOST_END, &vec![7; own]));
                fields
            })
        };
        let most = rules().event_bytes_max - HEAD_BYTES - 3;
        for fields in of(100) {
            let check =
                |payload| rules().check_size(3, payload, &fields).map_err(|fault| fault.code);
            assert_eq!(check(most - 104), Ok(()));
            assert_eq!(check(most - 103), Err("ingest.event-bytes"));
        }
        let room = FIELDS_BYTES_MAX - TRACE_FIELD_BYTES - 4;
        for (own, expected) in [(room, Ok(())), (room + 1, Err("ingest.fields"))] {
            let mut plain = Vec::new();
            assert!(push_field(&mut plain, field::HOST_END, &vec![7; own]));
            assert_eq!(rules().check_size(3, 5, &plain).map_err(|fault| fault.code), expected);
        }
        assert!(of(room).iter().all(|fields| rules().check_size(3, 5, fields).is_ok()));
    }

    #[test]
    fn host_ids_differ_by_request_and_by_line() {
        let (mut one, mut two) = (HostId::next(), HostId::next());
        let mut seen = std::collections::BTreeSet::new();
        for line in [1, 2, 31, 32, 33, u64::MAX] {
            assert!(seen.insert(one.of_line(line).to_vec()));
            assert!(seen.insert(two.of_line(line).to_vec()));
        }
        assert!(seen.iter().all(|id| id.len() <= 48 && id.is_ascii()));
        let long = HostId { text: [b'-'; 48], line_at: 28 }.of_line(u64::MAX).len();
        assert_eq!(long, 28 + 13, "the longest id fits");
    }

    #[test]
    fn the_time_in_the_payload_is_read_in_every_form_and_checked() {
        let pointer = Pointer::parse("/t").expect("pointer");
        let time = |unit: TimeUnit, value: &str| {
            let time = Some((&pointer, unit));
            let rules = Rules { time, ..rules() };
            let payload = format!("{{\"t\":{value}}}");
            rules.time_of(payload.as_bytes()).map_err(|fault| fault.code)
        };
        let ms = TimeUnit::Milliseconds;
        assert_eq!(time(ms, "1700000000000"), Ok(1_700_000_000_000_000));
        assert_eq!(time(ms, "1700000000000.25"), Ok(1_700_000_000_000_250));
        assert_eq!(time(TimeUnit::Seconds, "1700000000.1234567"), Ok(1_700_000_000_123_456));
        assert_eq!(time(TimeUnit::Microseconds, "1700000000000000"), Ok(1_700_000_000_000_000));
        assert_eq!(time(ms, "\"2023-11-14T22:13:20Z\""), Ok(1_700_000_000_000_000));
        assert_eq!(time(ms, "\"2023-11-14T23:13:20.5+01:00\""), Ok(1_700_000_000_500_000));
        assert_eq!(time(ms, "\"1700000000000\""), Ok(1_700_000_000_000_000));
        let bad = ["0", "-1", "1e9", "\"1.2.3\"", "\"noon\"", "\"\"", "null", "{}", "true"];
        for bad in bad {
            assert_eq!(time(ms, bad), Err("ingest.time"), "{bad}");
        }
        assert_eq!(time(TimeUnit::Seconds, "99999999999999999999"), Err("ingest.time"));
        assert_eq!(time(TimeUnit::Seconds, "9007199255"), Err("ingest.time"), "beyond 2^53");
        assert_eq!(time(ms, "{"), Err("ingest.json"));
        let rules = rules();
        assert_eq!(rules.time_of(b"no JSON").ok(), Some(rules.received));
    }

    #[test]
    fn the_key_in_the_payload_is_checked() {
        let pointer = Pointer::parse("/k").expect("pointer");
        let code = |payload: &str| {
            let key = from_payload(payload.as_bytes(), &pointer).map(Cow::into_owned);
            key.map_err(|fault| fault.code)
        };
        assert_eq!(code(r#"{"k":"a"}"#).as_deref(), Ok("a"));
        assert_eq!(code(r#"{"k":""}"#), Err("ingest.key"));
        assert_eq!(code(r#"{"j":1}"#), Err("ingest.key"));
        assert_eq!(code(r#"{"k":"#), Err("ingest.json"));
        let key = |bytes: usize| format!(r#"{{"k":"{}"}}"#, "x".repeat(bytes));
        assert!(code(&key(512)).is_ok());
        assert_eq!(code(&key(513)), Err("ingest.key-length"));
    }
}
