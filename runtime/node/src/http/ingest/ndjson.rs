//! NDJSON: each line is the payload of one event.
//!
//! - Good lines are taken and bad ones reported by number, counted from 1, blank lines included.
//! - Lines end in LF or CRLF; the last may lack its end. Blank lines are skipped.
//! - No allocation for a good line whose key has no escapes.
//!
//! The payload is the line as it is, without its end; it is checked to be JSON and UTF-8.

use memchr::memchr;
use sluicebox_core::frame::Head;
use sluicebox_core::json_key;

use super::key::{self, HostId, Rules};
use super::{Fault, STEP_BYTES, STEP_EVENTS, Sink, Step, Tally};

/// A body cut into lines, blank ones left out.
#[derive(Debug)]
pub(super) struct Cut<'a> {
    rest: &'a [u8],
    /// Of the line given out last.
    number: u64,
}

impl<'a> Cut<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        let rest = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        Self { rest, number: 0 }
    }

    /// The next line without its end.
    pub(super) fn next_line(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (line, rest) = match memchr(b'\n', self.rest) {
                Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            self.number += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !is_blank(line) {
                return Some(line);
            }
        }
        None
    }

    /// The number of the line given out last, counted from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that were not given out yet.
    pub(super) const fn left(&self) -> usize {
        self.rest.len()
    }
}

/// The lines of a body that are still to be taken.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    cut: Cut<'a>,
    host_id: HostId,
}

impl<'a> Lines<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { cut: Cut::new(body), host_id: HostId::next() }
    }

    /// Takes some lines.
    pub(super) fn step(
        &mut self,
        rules: &Rules<'_>,
        sink: &mut impl Sink,
        tally: &mut Tally,
    ) -> Step {
        let before = self.cut.left();
        for _ in 0..STEP_EVENTS {
            if before - self.cut.left() >= STEP_BYTES {
                break;
            }
            let Some(line) = self.cut.next_line() else { return Step::Done };
            match self.take(line, rules, sink) {
                Ok(()) => tally.accepted += 1,
                Err(fault) => tally.reject(self.cut.number, fault),
            }
        }
        Step::More
    }

    fn take(&mut self, line: &[u8], rules: &Rules<'_>, sink: &mut impl Sink) -> Result<(), Fault> {
        // Before the parser looks at it: a line that is far too long costs nothing more.
        rules.check_size(0, line.len(), rules.host_fields)?;
        if std::str::from_utf8(line).is_err() {
            return Err(Fault::new("ingest.json", "not JSON: the line is not UTF-8"));
        }
        let found;
        let key = match (rules.pointer, rules.request_key) {
            (Some(pointer), _) => {
                found = key::from_payload(line, pointer)?;
                found.as_bytes()
            }
            (None, given) => {
                json_key::check(line).map_err(key::json_fault)?;
                given.map_or_else(|| self.host_id.of_line(self.cut.number), str::as_bytes)
            }
        };
        rules.check_size(key.len(), line.len(), rules.host_fields)?;
        let time = rules.time_of(line)?;
        sink.push(&Head::data(time), key, line, rules.fields_of_next());
        Ok(())
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicebox_core::json_key::Pointer;

    use super::super::tests::{Collected, rules};
    use super::*;

    fn parse(body: &[u8], rules: &Rules<'_>) -> (Collected, Tally) {
        let (mut sink, mut tally) = Default::default();
        let mut lines = Lines::new(body);
        while lines.step(rules, &mut sink, &mut tally) == Step::More {}
        (sink, tally)
    }

    fn faults(tally: &Tally) -> Vec<(u64, &'static str)> {
        tally.errors.iter().map(|error| (error.line, error.code)).collect()
    }

    #[test]
    fn a_bad_line_in_the_middle_is_reported_by_number_and_the_rest_is_taken() {
        let pointer = Pointer::parse("/k").expect("pointer");
        let rules = Rules { pointer: Some(&pointer), ..rules() };
        let body = b"{\"k\":\"a\"}\r\n\n  \n{\"k\":\n{\"k\":2}\n{\"x\":1}\n[]\n{\"k\":\"z\"}";
        let (sink, tally) = parse(body, &rules);
        assert_eq!(sink.keys(), ["a", "2", "z"]);
        assert_eq!(sink.events[0].payload, b"{\"k\":\"a\"}");
        assert_eq!(faults(&tally), [(4, "ingest.json"), (6, "ingest.key"), (7, "ingest.key")]);
        assert_eq!((tally.accepted, tally.rejected), (3, 3));
        assert!(tally.errors[0].message.ends_with("at column 5"), "{}", tally.errors[0].message);
    }

    #[test]
    fn without_a_pointer_the_request_or_the_host_gives_the_key() {
        let (sink, _) = parse(b"1\n\"a\"\nnull\n", &rules());
        let keys = sink.keys();
        assert_eq!(keys.len(), 3);
        assert!(keys[0] != keys[1] && keys[0].ends_with("-1") && keys[2].ends_with("-3"));
        let (sink, _) = parse(b"1\n2", &Rules { request_key: Some("both"), ..rules() });
        assert_eq!(sink.keys(), ["both", "both"]);
        assert!(sink.events.iter().all(|event| event.head == Head::data(rules().received)));
    }

    #[test]
    fn hostile_lines_are_refused_one_by_one() {
        let pointer = Pointer::parse("/k").expect("pointer");
        let rules = Rules { pointer: Some(&pointer), ..rules() };
        let deep = "[".repeat(100_000);
        let long_key = format!("{{\"k\":\"{}\"}}", "x".repeat(513));
        let huge = format!("{{\"k\":\"a\",\"p\":\"{}\"}}", "x".repeat(rules.event_bytes_max));
        let lines: [&[u8]; 7] = [
            b"{\"k\":\"\xFF\"}",
            b"{\"k\":\"a\",\"p\":\"\xC3\"}",
            long_key.as_bytes(),
            huge.as_bytes(),
            &deep.as_bytes()[..1000],
            b"{\"k\":\"a\"} {\"k\":\"b\"}",
            b"{\"k\":\"good\"}",
        ];
        let (sink, tally) = parse(&lines.join(&b'\n'), &rules);
        assert_eq!(sink.keys(), ["good"]);
        let codes: Vec<_> = faults(&tally).into_iter().map(|fault| fault.1).collect();
        let expected = [
            "ingest.json",
            "ingest.json",
            "ingest.key-length",
            "ingest.event-bytes",
            "ingest.json",
            "ingest.json",
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn a_body_without_a_line_gives_nothing() {
        for body in [&b""[..], b"\n\n", b"\r\n \t\r\n", b"\xEF\xBB\xBF"] {
            let (sink, tally) = parse(body, &rules());
            assert_eq!((sink.events.len(), tally.rejected), (0, 0), "{body:?}");
        }
        assert_eq!(parse(b"\xEF\xBB\xBF1\n", &rules()).1.accepted, 1, "a byte order mark");
    }

    #[test]
    fn the_list_of_mistakes_is_bounded_and_too_many_are_noticed() {
        let (_, tally) = parse(&b"x\n".repeat(20_000), &rules());
        assert_eq!(tally.errors.len(), super::super::ERRORS_MAX);
        assert!(tally.is_hopeless());
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let (sink, tally) = parse(&body, &rules());
            prop_assert_eq!(sink.events.len() as u64, tally.accepted);
        }

        #[test]
        fn every_line_is_taken_once_in_order(
            numbers in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let text: Vec<_> = numbers.iter().map(|n| format!("{n}\r\n")).collect();
            let (sink, _) = parse(text.concat().as_bytes(), &rules());
            let payloads = sink.events.iter().map(|event| event.payload.clone());
            prop_assert!(payloads.eq(numbers.iter().map(|n| n.to_string().into_bytes())));
        }
    }
}
