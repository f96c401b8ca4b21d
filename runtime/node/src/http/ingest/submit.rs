//! Handing events in, and acknowledging them: at once, or when the log has them on disk.
//!
//! A producer may number its requests (`Sluicebox-Producer`, `Sluicebox-Sequence`) or give events
//! ids. In a pipeline with a log what has come before is then taken once, so that a request whose
//! reply was lost can be sent again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use sluicebox_core::limits::PRODUCER_BYTES_MAX;
use sluicebox_core::quota::Resource;

use super::{Call, PATIENCE};
use crate::durable::{Identity, Logged, NotLogged, refused};
use crate::error::Error;
use crate::http::text::now_micros;
use crate::running::{Intake, Submitted, Unsubmitted};

const PRODUCER: &str = "sluicebox-producer";
const SEQUENCE: &str = "sluicebox-sequence";

/// How long to wait when it is the log that has no room; it has some after the next sync.
const LOG_PAUSE: Duration = Duration::from_millis(1);

/// How the producer knows what it sends.
pub(super) fn identity(headers: &HeaderMap, by_event: bool) -> Result<Identity, Error> {
    let text = |name: &str| headers.get(name).map(http::HeaderValue::to_str).transpose();
    let bad = |message: &str| Error::request("request.producer", message);
    let unreadable = |_| bad("the producer's headers are not text");
    let producer = text(PRODUCER).map_err(unreadable)?;
    let sequence = text(SEQUENCE).map_err(unreadable)?;
    let numbered = match (producer, sequence) {
        (None, None) => None,
        (Some(producer), Some(sequence)) => {
            if producer.is_empty() || producer.len() > PRODUCER_BYTES_MAX {
                return Err(bad("`Sluicebox-Producer` has 1 to 128 bytes"));
            }
            let number = sequence.parse();
            let number =
                number.map_err(|_| bad("`Sluicebox-Sequence` is a number that only grows"))?;
            Some((producer.to_owned(), number))
        }
        _ => return Err(bad("`Sluicebox-Producer` and `Sluicebox-Sequence` come together")),
    };
    Ok(Identity { producer: numbered, ids: Vec::new(), by_event })
}

/// What became of events that were handed in.
#[derive(Debug)]
pub(super) enum Handed {
    Over(Submitted),
    /// The pipeline is being replaced: the next version has to be given the events.
    Replaced,
    /// Nothing was taken, as these came before: the others have to be handed in without them.
    Known(Vec<u128>),
}

impl Call<'_> {
    /// Draws the quota and hands the events in, waiting a little for room.
    pub(super) async fn submit(&mut self, intake: Intake, body: &Bytes) -> Result<Handed, Error> {
        let (events, bytes) = (intake.len() as u64, body.len() as u64);
        if !self.spent {
            self.caller.account.spend(&[(Resource::Events, events), (Resource::Bytes, bytes)])?;
            self.spent = true;
        }
        if let Some(traced) = self.traced {
            traced.handed_in(intake.len());
        }
        let mut next = intake;
        let mut patience = None;
        let submitted = loop {
            let (intake, retry_after) = match next.submit(now_micros()) {
                Ok(submitted) => break submitted,
                Err(Unsubmitted::Refused(NotLogged::SomeKnown(ids))) => {
                    return Ok(Handed::Known(ids));
                }
                Err(Unsubmitted::Refused(refusal)) => return Err(refused(refusal)),
                Err(Unsubmitted::Busy { intake, retry_after }) => (intake, retry_after),
            };
            if self.running.is_paused() {
                return Ok(Handed::Replaced);
            }
            let end = *patience.get_or_insert_with(|| Instant::now() + PATIENCE);
            if tokio::time::timeout_at(end.into(), self.running.room()).await.is_err()
                || Instant::now() >= end
            {
                if !intake.has_room() {
                    self.running.metrics().refused.inc();
                }
                return Err(self.full(retry_after));
            }
            next = *intake;
            if next.has_room() {
                tokio::time::sleep(LOG_PAUSE).await;
            }
        };
        let metrics = self.running.metrics();
        if matches!(submitted, Submitted::Logged(Logged::Repeat(_))) {
            metrics.duplicates.add(events);
        } else {
            metrics.events.add(events);
            metrics.bytes.add(bytes);
        }
        Ok(Handed::Over(submitted))
    }

    /// Waits until the events may be acknowledged. True if they were taken before.
    pub(super) async fn acknowledge(&self, submitted: Submitted) -> Result<bool, Error> {
        let (at, repeat) = match submitted {
            Submitted::Queued => return Ok(false),
            Submitted::Logged(Logged::At(at)) => (at, false),
            Submitted::Logged(Logged::Repeat(at)) => (at, true),
        };
        let since = now_micros();
        self.edge.releases().synced(at).await?;
        if let Some(traced) = self.traced {
            traced.synced(since);
        }
        Ok(repeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Result<Identity, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a header"));
        }
        identity(&headers, false)
    }

    #[test]
    fn a_producer_and_its_number_come_together() {
        let known = of(&[(PRODUCER, "meter-7"), (SEQUENCE, "42")]).expect("both");
        assert_eq!(known.producer, Some(("meter-7".to_owned(), 42)));
        assert_eq!(of(&[]).expect("none").producer, None);
        for wrong in [
            &[(PRODUCER, "meter-7")][..],
            &[(SEQUENCE, "42")],
            &[(PRODUCER, "meter-7"), (SEQUENCE, "-1")],
            &[(PRODUCER, ""), (SEQUENCE, "1")],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
