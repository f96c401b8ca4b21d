//! Packed frames (`wit/FRAME.md`), one after another until the body ends.
//!
//! - A frame is checked byte by byte before its events go anywhere, and one bad event refuses the
//!   whole request: who packs frames is a program, and half a batch helps nobody.
//! - Host-owned fields a producer wrote are dropped. Input, port and cause say nothing here.
//! - An event with time 0 gets the time of receipt; one without a key gets it by the usual rule.

use std::borrow::Cow;

use sluicebox_core::frame::{
    CheckedEvents, Event, FrameError, FrameLimits, HEAD_BYTES, HEADER_BYTES, Head, Kind, NO_CAUSE,
    field, push_field,
};

use super::key::{self, HostId, Rules};
use super::{Fault, STEP_BYTES, STEP_EVENTS, Sink, Step, Tally};
use crate::error::{Error, LineError};

/// The frames of a body that are still to be taken.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    /// Behind the current frame.
    rest: &'a [u8],
    current: Option<CheckedEvents<'a>>,
    /// Frames and events taken so far.
    frames: u64,
    events: u64,
    /// Index in the current frame of the next event.
    index: u64,
    host_id: HostId,
    scratch: Vec<u8>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        let host_id = HostId::next();
        let scratch = Vec::new();
        Self { rest: body, current: None, frames: 0, events: 0, index: 0, host_id, scratch }
    }

    /// Takes some events.
    pub(super) fn step(
        &mut self,
        rules: &Rules<'_>,
        sink: &mut impl Sink,
        tally: &mut Tally,
    ) -> Result<Step, Error> {
        let mut bytes = 0;
        for _ in 0..STEP_EVENTS {
            let event = match self.next_event(rules) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Step::Done),
                Err(error) => return Err(self.refuse(frame_fault(error))),
            };
            self.events += 1;
            bytes += event.size();
            self.take(&event, rules, sink).map_err(|fault| self.refuse(fault))?;
            self.index += 1;
            tally.accepted += 1;
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(Step::More)
    }

    fn next_event(&mut self, rules: &Rules<'_>) -> Result<Option<Event<'a>>, FrameError> {
        loop {
            if let Some(frame) = &mut self.current {
                if let Some(event) = frame.next_event()? {
                    return Ok(Some(event));
                }
                self.current = None;
                self.frames += 1;
                self.index = 0;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (frame, rest) = self.rest.split_at(frame_length(self.rest));
            let limits = FrameLimits {
                events: frame.len() / HEAD_BYTES,
                bytes: frame.len(),
                event_bytes: rules.event_bytes_max,
            };
            self.current = Some(CheckedEvents::new(frame, &limits)?);
            self.rest = rest;
        }
    }

    fn take(
        &mut self,
        event: &Event<'_>,
        rules: &Rules<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Fault> {
        if !matches!(event.head.kind, Kind::Data | Kind::End) {
            let message = "its kind is neither 0 data nor 3 end; the others are the host's";
            return Err(Fault::new("ingest.kind", message));
        }
        let time = match event.head.time {
            0 => rules.time_of(event.payload)?,
            time => time,
        };
        let head = Head { kind: event.head.kind, input: 0, port: 0, cause: NO_CAUSE, time };
        let key = if event.key.is_empty() {
            self.make_key(event, rules)?
        } else {
            Cow::Borrowed(event.key)
        };
        let host_fields = rules.fields_of_next();
        if host_fields.is_empty() && !has_host_fields(event) {
            rules.check_size(key.len(), event.payload.len(), event.fields.bytes())?;
            sink.push(&head, &key, event.payload, event.fields.bytes());
            return Ok(());
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(host_fields);
        for (id, value) in event.fields.iter().filter(|field| field.0 >= field::HOST_END) {
            if !push_field(&mut self.scratch, id, value) {
                return Err(Fault::new("ingest.fields", "its extension fields are too long"));
            }
        }
        rules.check_size(key.len(), event.payload.len(), &self.scratch)?;
        sink.push(&head, &key, event.payload, &self.scratch);
        Ok(())
    }

    /// The key of an event that came without.
    #[cold]
    fn make_key<'e>(
        &mut self,
        event: &Event<'e>,
        rules: &Rules<'_>,
    ) -> Result<Cow<'e, [u8]>, Fault> {
        if let Some(pointer) = rules.pointer {
            return Ok(match key::from_payload(event.payload, pointer)? {
                Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
                Cow::Owned(key) => Cow::Owned(key.into_bytes()),
            });
        }
        if let Some(key) = rules.request_key {
            return Ok(Cow::Owned(key.as_bytes().to_vec()));
        }
        match event.fields.get(field::EVENT_ID) {
            Some(id) if !id.is_empty() && std::str::from_utf8(id).is_ok() => {
                key::check_length(id)?;
                Ok(Cow::Borrowed(id))
            }
            _ => Ok(Cow::Owned(self.host_id.of_line(self.events).to_vec())),
        }
    }

    /// The reply to a request with this mistake at the current event.
    #[cold]
    fn refuse(&self, fault: Fault) -> Error {
        let message = format!("frame {}, event {}: {}", self.frames, self.index, fault.message);
        let error = LineError { line: self.index, code: fault.code, message };
        Error::Rejected { errors: vec![error], rejected: 1 }
    }
}

/// Bytes of the first frame according to its header, but not more than there are: what is wrong
/// with it is then found by the check.
fn frame_length(bytes: &[u8]) -> usize {
    let said = bytes.get(12..HEADER_BYTES).and_then(|length| length.first_chunk());
    let said = said.map_or(usize::MAX, |length| u32::from_le_bytes(*length) as usize);
    if (HEADER_BYTES..=bytes.len()).contains(&said) { said } else { bytes.len() }
}

fn has_host_fields(event: &Event<'_>) -> bool {
    !event.fields.is_empty() && event.fields.iter().any(|field| field.0 < field::HOST_END)
}

fn frame_fault(error: FrameError) -> Fault {
    match error {
        FrameError::Event { fault, .. } => Fault::new("ingest.frame", fault.to_string()),
        other => Fault::new("ingest.frame", other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicebox_core::frame::FrameBuilder;
    use sluicebox_core::json_key::Pointer;

    use super::super::tests::{Collected, rules};
    use super::*;

    fn parse(body: &[u8], rules: &Rules<'_>) -> Result<Collected, LineError> {
        let (mut sink, mut tally) = (Collected::default(), Tally::default());
        let mut frames = Frames::new(body);
        loop {
            match frames.step(rules, &mut sink, &mut tally) {
                Ok(Step::More) => {}
                Ok(Step::Done) => return Ok(sink),
                Err(Error::Rejected { mut errors, .. }) => return Err(errors.remove(0)),
                Err(other) => panic!("{other}"),
            }
        }
    }

    type Parts<'a> = (Head, &'a str, &'a [u8], &'a [(u16, &'a [u8])]);

    fn frame(events: &[Parts<'_>]) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        for (head, key, payload, list) in events {
            let mut fields = Vec::new();
            list.iter().for_each(|(id, value)| assert!(push_field(&mut fields, *id, value)));
            builder.push(head, key.as_bytes(), payload, &fields);
        }
        builder.finish().bytes().to_vec()
    }

    #[test]
    fn frames_one_after_another_are_taken_in_order() {
        let end = Head { kind: Kind::End, input: 3, port: 4, cause: 5, time: 0 };
        let mut body = frame(&[(Head::data(7), "a", b"1", &[]), (end, "b", b"2", &[])]);
        body.extend(frame(&[]));
        body.extend(frame(&[(Head::data(8), "c", b"3", &[])]));
        let sink = parse(&body, &rules()).expect("good frames");
        assert_eq!(sink.keys(), ["a", "b", "c"]);
        assert_eq!(sink.events[0].head, Head::data(7));
        let expected = Head { kind: Kind::End, ..Head::data(rules().received) };
        assert_eq!(sink.events[1].head, expected);
    }

    #[test]
    fn a_bad_event_is_named_by_frame_and_index() {
        let good = frame(&[(Head::data(7), "a", b"1", &[])]);
        let bad = |kind| {
            let head = Head { kind, ..Head::data(7) };
            let events = [(Head::data(7), "a", &b"1"[..], &[][..]), (head, "b", b"2", &[])];
            [good.clone(), frame(&events)].concat()
        };
        for kind in [Kind::Timer, Kind::Open] {
            let error = parse(&bad(kind), &rules()).expect_err("a kind of the host's");
            assert_eq!((error.line, error.code), (1, "ingest.kind"));
            assert!(error.message.starts_with("frame 1, event 1: "), "{}", error.message);
        }
        let mut flipped = bad(Kind::Data);
        let second = good.len() + 16 + 34;
        flipped[second + 32] = 0xFF;
        let error = parse(&flipped, &rules()).expect_err("a key that is not UTF-8");
        assert_eq!((error.line, error.code), (1, "ingest.frame"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let good = frame(&[(Head::data(7), "a", b"1", &[])]);
        for cut in 1..good.len() {
            assert!(parse(&good[..cut], &rules()).is_err(), "cut at {cut}");
        }
        for body in [&b"{}\n"[..], &[0; 16], &[good.as_slice(), b"x"].concat()] {
            assert_eq!(parse(body, &rules()).expect_err("no frame").code, "ingest.frame");
        }
        let mut lies = good;
        lies[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&lies, &rules()).is_err(), "more events than its bytes can hold");
        let large = vec![0; rules().event_bytes_max];
        let large = frame(&[(Head::data(7), "a", &large, &[])]);
        let error = parse(&large, &rules()).expect_err("a large event");
        assert!(error.message.contains("larger"), "{}", error.message);
    }

    #[test]
    fn fields_of_the_host_are_stripped_and_others_kept() {
        let fields: &[(u16, &[u8])] =
            &[(1, b"forged"), (2, b"12345678"), (256, b"id"), (40_000, b"x")];
        let body = frame(&[(Head::data(7), "a", b"1", fields)]);
        let sink = parse(&body, &rules()).expect("a good frame");
        let kept = |id| sink.events[0].field(id);
        assert_eq!((kept(1), kept(2)), (None, None));
        assert_eq!(
            (kept(256).as_deref(), kept(40_000).as_deref()),
            (Some(&b"id"[..]), Some(&b"x"[..]))
        );
        let mut trace = Vec::new();
        assert!(push_field(&mut trace, 1, b"ours"));
        let sink = parse(&body, &Rules { host_fields: &trace, ..rules() }).expect("a good frame");
        assert_eq!(sink.events[0].field(1).as_deref(), Some(&b"ours"[..]));
        assert_eq!(sink.events[0].field(256).as_deref(), Some(&b"id"[..]));
    }

    #[test]
    fn an_event_without_a_key_gets_one_by_the_usual_rule() {
        let pointer = Pointer::parse("/k").expect("pointer");
        let body = frame(&[
            (Head::data(7), "", br#"{"k":"p\u0061"}"#, &[(256, b"id")]),
            (Head::data(7), "own", b"no json", &[]),
        ]);
        let with_pointer = Rules { pointer: Some(&pointer), request_key: Some("q"), ..rules() };
        assert_eq!(parse(&body, &with_pointer).expect("good").keys(), ["pa", "own"]);
        let with_query = Rules { request_key: Some("q"), ..rules() };
        assert_eq!(parse(&body, &with_query).expect("good").keys(), ["q", "own"]);
        assert_eq!(parse(&body, &rules()).expect("good").keys(), ["id", "own"]);
        let bare = frame(&[(Head::data(7), "", b"", &[]), (Head::data(7), "", b"", &[])]);
        let sink = parse(&bare, &rules()).expect("good");
        assert!(sink.keys()[0].ends_with("-1") && sink.keys()[1].ends_with("-2"));
        let not_json = frame(&[(Head::data(7), "", b"x", &[])]);
        assert_eq!(parse(&not_json, &with_pointer).expect_err("no JSON").code, "ingest.json");
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(
            mut body in prop::collection::vec(any::<u8>(), 0..200),
            magic: bool,
        ) {
            if magic && body.len() >= 16 {
                let length = body.len() as u32;
                body[..8].copy_from_slice(b"SBXF\x01\0\x01\0");
                body[12..16].copy_from_slice(&length.to_le_bytes());
            }
            let taken = parse(&body, &rules());
            prop_assert!(taken.is_err() || magic || body.is_empty());
        }
    }
}
