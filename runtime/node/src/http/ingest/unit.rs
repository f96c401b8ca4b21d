//! One unit of a stream session: a line, a packed frame or raw bytes, as events of one key.
//!
//! - A unit is taken whole or not at all.
//! - Its events belong to the stream the session is of. An event that names another key is a
//!   mistake, and so is an end: it is the session that ends.

use sluicebox_core::frame::{Head, Kind};
use sluicebox_core::json_key;

use super::frames::Frames;
use super::key::{self, Rules};
use super::{Fault, Sink, Step, Tally};
use crate::error::Error;
use crate::http::text::now_micros;
use crate::running::{Intake, Running};

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Sort {
    /// JSON.
    Line,
    /// A packed frame.
    Frame,
    /// Any bytes.
    Raw,
}

/// What the units of a session have in common.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Units<'a> {
    pub(in crate::http) sort: Sort,
    /// Of the stream.
    pub(in crate::http) key: &'a str,
    /// Packed fields that each event gets.
    pub(in crate::http) fields: &'a [u8],
}

impl Units<'_> {
    /// Takes the events of a unit.
    pub(in crate::http) fn take(
        &self,
        running: &Running,
        unit: &[u8],
        intake: &mut Intake,
    ) -> Result<(), Fault> {
        let ingest = &running.pipeline().ingest;
        let rules = Rules {
            pointer: None,
            request_key: Some(self.key),
            event_bytes_max: running.event_bytes_max(),
            time: ingest.time.as_ref().map(|pointer| (pointer, ingest.time_unit)),
            received: now_micros(),
            host_fields: self.fields,
            traced: None,
        };
        self.take_by(&rules, unit, intake)
    }

    fn take_by(&self, rules: &Rules<'_>, unit: &[u8], sink: &mut impl Sink) -> Result<(), Fault> {
        if self.sort == Sort::Frame {
            // Looked at before anything is taken, as one bad event refuses them all.
            let mut checked = OfKey { key: self.key.as_bytes(), wrong: None, events: 0 };
            frame(rules, unit, &mut checked)?;
            if let Some(wrong) = checked.wrong {
                return Err(wrong);
            }
            if checked.events == 0 {
                return Err(Fault::new("ingest.empty", "the frame holds no event"));
            }
            return frame(rules, unit, sink);
        }
        rules.check_size(self.key.len(), unit.len(), self.fields)?;
        if self.sort == Sort::Line {
            if std::str::from_utf8(unit).is_err() {
                return Err(Fault::new("ingest.json", "not JSON: the line is not UTF-8"));
            }
            json_key::check(unit).map_err(key::json_fault)?;
        }
        let head = Head::data(rules.time_of(unit)?);
        sink.push(&head, self.key.as_bytes(), unit, self.fields);
        Ok(())
    }

    /// Takes the end of the stream.
    pub(in crate::http) fn end(&self, intake: &mut Intake) {
        let head = Head { kind: Kind::End, ..Head::data(now_micros()) };
        intake.push(&head, self.key.as_bytes(), &[], self.fields);
    }
}

fn frame(rules: &Rules<'_>, unit: &[u8], sink: &mut impl Sink) -> Result<(), Fault> {
    let mut tally = Tally::default();
    let mut frames = Frames::new(unit);
    loop {
        match frames.step(rules, sink, &mut tally) {
            Ok(Step::More) => {}
            Ok(Step::Done) => return Ok(()),
            Err(Error::Rejected { mut errors, .. }) if !errors.is_empty() => {
                let first = errors.swap_remove(0);
                return Err(Fault::new(first.code, first.message));
            }
            Err(other) => return Err(Fault::new("ingest.frame", other.to_string())),
        }
    }
}

/// Looks whether events are of one key, and keeps none.
struct OfKey<'a> {
    key: &'a [u8],
    wrong: Option<Fault>,
    events: usize,
}

impl Sink for OfKey<'_> {
    fn push(&mut self, head: &Head, key: &[u8], _payload: &[u8], _fields: &[u8]) {
        self.events += 1;
        let message = if key != self.key {
            "an event names another key than that of the stream; leave its key empty"
        } else if head.kind == Kind::End {
            "an event is an end; the session ends the stream when its body does"
        } else {
            return;
        };
        self.wrong.get_or_insert_with(|| Fault::new("stream.event", message));
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::FrameBuilder;

    use super::super::tests::{Collected, rules};
    use super::*;

    fn take(sort: Sort, unit: &[u8]) -> Result<Collected, Fault> {
        let mut sink = Collected::default();
        let rules = Rules { request_key: Some("cam"), ..rules() };
        let units = Units { sort, key: "cam", fields: &[] };
        units.take_by(&rules, unit, &mut sink).map(|()| sink)
    }

    fn code(sort: Sort, unit: &[u8]) -> Result<Vec<String>, &'static str> {
        let keys = |sink: Collected| sink.keys().iter().map(ToString::to_string).collect();
        take(sort, unit).map(keys).map_err(|fault| fault.code)
    }

    #[test]
    fn a_line_is_json_and_raw_bytes_are_anything() {
        assert_eq!(code(Sort::Line, b"{\"k\":\"other\"}"), Ok(vec!["cam".to_owned()]));
        assert_eq!(code(Sort::Line, b"{"), Err("ingest.json"));
        assert_eq!(code(Sort::Line, b"\"\xFF\""), Err("ingest.json"));
        assert_eq!(code(Sort::Raw, b"\xFF\x00"), Ok(vec!["cam".to_owned()]));
        let large = vec![b'1'; rules().event_bytes_max];
        assert_eq!(code(Sort::Raw, &large), Err("ingest.event-bytes"));
        assert_eq!(code(Sort::Line, &large), Err("ingest.event-bytes"));
    }

    #[test]
    fn a_frame_is_taken_whole_and_of_its_stream_alone() {
        let frame = |events: &[(Kind, &str)]| {
            let mut builder = FrameBuilder::new();
            for (kind, key) in events {
                let head = Head { kind: *kind, ..Head::data(5) };
                builder.push(&head, key.as_bytes(), b"x", &[]);
            }
            builder.finish().bytes().to_vec()
        };
        let good = frame(&[(Kind::Data, ""), (Kind::Data, "cam")]);
        assert_eq!(code(Sort::Frame, &good), Ok(vec!["cam".to_owned(); 2]));
        let foreign = frame(&[(Kind::Data, "cam"), (Kind::Data, "other")]);
        assert_eq!(code(Sort::Frame, &foreign), Err("stream.event"));
        assert_eq!(code(Sort::Frame, &frame(&[(Kind::End, "cam")])), Err("stream.event"));
        assert_eq!(code(Sort::Frame, &frame(&[(Kind::Open, "cam")])), Err("ingest.kind"));
        assert_eq!(code(Sort::Frame, &frame(&[])), Err("ingest.empty"));
        assert_eq!(code(Sort::Frame, &good[..good.len() - 1]), Err("ingest.frame"));
    }
}
