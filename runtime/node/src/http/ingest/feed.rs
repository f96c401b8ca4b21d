//! Events that come from elsewhere than a request: what sources take in.
//!
//! The same rules hold as for requests: which key, which time, how large. Lines that are no events
//! are left out and counted.

use sluicebox_core::frame::{Head, field, push_field};

use super::key::{self, HostId, Rules};
use super::ndjson::{Cut, Lines};
use super::{Fault, Step, Tally};
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
    rules.check_size(0, payload.len(), rules.host_fields.len())?;
    let found;
    let key = match (rules.pointer, rules.request_key) {
        (Some(pointer), _) => {
            found = key::from_payload(payload, pointer)?;
            found.as_bytes()
        }
        (None, Some(key)) => key.as_bytes(),
        (None, None) => host_id.of_line(line),
    };
    rules.check_size(key.len(), payload.len(), rules.host_fields.len())?;
    let time = rules.time_of(payload)?;
    intake.push(&Head::data(time), key, payload, rules.host_fields);
    Ok(())
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
