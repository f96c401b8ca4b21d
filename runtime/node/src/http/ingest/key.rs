//! Which key an event gets, and the ids the host makes up.
//!
//! The rule, for every form of ingest: the key named with the event itself; else the one the
//! pipeline finds in the JSON payload (`[ingest] key`); else `?key=` of the request; else the
//! event's id; else an id the host makes: the request's, and the number of the line.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicebox_core::frame::HEAD_BYTES;
use sluicebox_core::json_key::{self, KeyError, Pointer};
use sluicebox_core::limits::KEY_BYTES_MAX;

use super::Fault;
use crate::http::text::now_micros;

/// What holds for every event of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Where the pipeline finds the key in a JSON payload.
    pub(super) pointer: Option<&'a Pointer>,
    /// `?key=`.
    pub(super) request_key: Option<&'a str>,
    /// Most bytes of one event, its head included.
    pub(super) event_bytes_max: usize,
    /// Time of events that have none of their own.
    pub(super) received: u64,
    /// Packed fields that each event gets from the host.
    pub(super) host_fields: &'a [u8],
}

impl Rules<'_> {
    /// Refuses an event that is too large for the pipeline.
    pub(super) fn check_size(
        &self,
        key: usize,
        payload: usize,
        fields: usize,
    ) -> Result<(), Fault> {
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
    use super::*;

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
