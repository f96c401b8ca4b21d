//! The way in of a session: from the pieces of a body to events that are handed in.
//!
//! - Events are handed in when the client makes us wait, or when there are enough of them: so a
//!   frame of a camera goes on at once, and a file goes in large batches.
//! - Where the pipeline has no room or the tenant no quota nothing more is read, and the client's
//!   own connection makes it wait. Sessions that wait for a partition stand in one line.
//! - A step may be given up half-way and taken up again: nothing is lost by that.
//! - A bad unit is left out and told of; it keeps its ordinal.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use sluicebox_core::quota::Resource;

use super::super::auth::Caller;
use super::super::body;
use super::super::ingest::unit::{Sort, Units};
use super::super::ingest::{self, REPLACE_POLL};
use super::super::server::Edge;
use super::super::text::now_micros;
use super::units::{Cut, Cutter, NoUnit};
use crate::admission::Held;
use crate::durable::refused;
use crate::error::Error;
use crate::mailbox::Place;
use crate::running::{Identity, Intake, Running, Submitted, Unsubmitted};
use crate::sessions::{Hold, Standing, TakenOver};

/// Events, or bytes of them, that are handed in together at most.
const BATCH_EVENTS: usize = 1024;
const BATCH_BYTES: usize = 256 * 1024;

/// How long to wait when it is the log that has no room.
const LOG_PAUSE: Duration = Duration::from_millis(1);

/// Longest wait for quota before it is looked at again.
const QUOTA_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A piece of a body.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// What its units are, where pieces differ in that.
    pub(super) sort: Option<Sort>,
}

/// The pieces of a body, until it ends or breaks off.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, Error>>>>;

/// Who sends, and where to.
pub(super) struct Sender {
    pub(super) edge: Rc<Edge>,
    pub(super) caller: Arc<Caller>,
    pub(super) pipeline: String,
    pub(super) key: String,
    pub(super) running: Arc<Running>,
    pub(super) hold: Arc<Hold>,
}

/// See the module.
pub(super) struct Inlet {
    pieces: Pieces,
    cutter: Cutter,
    /// What was not cut yet of the last piece.
    rest: Bytes,
    /// Ordinal of the next unit.
    at: u64,
    /// Ordinal of the first one the node does not have.
    from: u64,
    /// Packed fields of each event.
    fields: Vec<u8>,
    sort: Sort,
    batch: Option<Batch>,
    /// Of what is kept of a unit that is not whole.
    held: Held,
    over: bool,
}

/// Events that are not handed in yet.
struct Batch {
    intake: Intake,
    standing: Standing,
    /// It is to be handed in as it is.
    closed: bool,
    spent: bool,
    /// Where it stands in the line for room. It keeps it when the step is given up.
    place: Option<Place>,
}

/// What came of a step.
pub(super) enum Stepped {
    /// Events were handed in, and the key stands there when they are acknowledged.
    Handed(Submitted, Standing),
    /// A unit was left out.
    Rejected { at: u64, code: &'static str, message: String },
    /// The body has ended, and everything of it was handed in.
    Over,
}

impl Inlet {
    pub(super) fn new(
        pieces: Pieces,
        (cutter, sort): (Cutter, Sort),
        (at, from): (u64, u64),
        (fields, held): (Vec<u8>, Held),
    ) -> Self {
        let (rest, batch, over) = (Bytes::new(), None, false);
        Self { pieces, cutter, rest, at, from, fields, sort, batch, held, over }
    }

    /// Ordinal of the first unit the session is to give.
    pub(super) const fn first(&self) -> u64 {
        self.from
    }

    /// Ordinal of the next unit of the body.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// Goes on until there is something to tell. May be given up and called again.
    pub(super) async fn step(&mut self, sender: &mut Sender) -> Result<Stepped, Error> {
        loop {
            if let Some(batch) = self.batch.as_mut().filter(|batch| batch.closed) {
                batch.prepare(sender).await?;
                batch.stand_in_line().await;
                // The version may be another one by now.
                if sender.running.is_paused() {
                    continue;
                }
                if let Some(stepped) = self.hand_in(sender)? {
                    return Ok(stepped);
                }
                self.wait_for_room().await;
                continue;
            }
            if let Some(rejected) = self.fill(sender)? {
                return Ok(rejected);
            }
            if self.batch.as_ref().is_some_and(|batch| batch.closed) {
                continue;
            }
            if self.over {
                if self.batch.is_none() {
                    return Ok(Stepped::Over);
                }
                self.close();
                continue;
            }
            let next = match self.batch {
                // What is there goes on before the client is waited for.
                Some(_) => self.pieces.next().now_or_never(),
                None => Some(self.pieces.next().await),
            };
            match next {
                None => self.close(),
                Some(Some(piece)) => {
                    let piece = piece?;
                    self.rest = piece.bytes;
                    self.sort = piece.sort.unwrap_or(self.sort);
                }
                Some(None) => self.finish()?,
            }
        }
    }

    /// Hands in the end of the stream.
    pub(super) fn end(&mut self, sender: &Sender) {
        let mut intake = Intake::new(&sender.running, Identity::default());
        self.units(&sender.key).end(&mut intake);
        let standing = Standing { at: self.at, ended: true };
        self.batch = Some(Batch { closed: true, ..Batch::new(intake, standing) });
    }

    fn units<'a>(&'a self, key: &'a str) -> Units<'a> {
        Units { sort: self.sort, key, fields: &self.fields }
    }

    /// Takes units off the piece until it is used up, the batch is large enough, or one is bad.
    fn fill(&mut self, sender: &Sender) -> Result<Option<Stepped>, Error> {
        loop {
            let unit = self.cutter.next(&mut self.rest).map_err(|none| no_unit(none, self.at))?;
            let Some(unit) = unit else { break };
            if let Some(rejected) = self.take(&unit, sender) {
                return Ok(Some(rejected));
            }
            if self.batch.as_ref().is_some_and(Batch::is_full) {
                self.close();
                break;
            }
        }
        let kept = self.cutter.kept();
        if kept > self.held.bytes() && !self.held.grow(kept - self.held.bytes()) {
            return Err(body::no_memory());
        }
        self.held.shrink(kept);
        Ok(None)
    }

    /// Takes one unit, unless the node has it.
    fn take(&mut self, unit: &[u8], sender: &Sender) -> Option<Stepped> {
        let at = self.at;
        self.at += 1;
        if at < self.from {
            return None;
        }
        let mut batch = self.batch.take().unwrap_or_else(|| {
            let mut intake = Intake::new(&sender.running, Identity::default());
            // What is left of the piece goes into it, with a head for each unit.
            let likely = unit.len() + self.rest.len() + self.rest.len() / 16;
            intake.reserve(sender.key.as_bytes(), likely.min(BATCH_BYTES));
            Batch::new(intake, Standing::default())
        });
        let taken = self.units(&sender.key).take(&sender.running, unit, &mut batch.intake);
        batch.standing = Standing { at: self.at, ended: false };
        if !batch.intake.is_empty() {
            self.batch = Some(batch);
        }
        let fault = taken.err()?;
        sender.running.metrics().rejected.add(fault.code, 1);
        Some(Stepped::Rejected { at, code: fault.code, message: fault.message })
    }

    fn close(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.closed = true;
        }
    }

    /// The body has ended.
    fn finish(&mut self) -> Result<(), Error> {
        self.over = true;
        let last = self.cutter.finish().map_err(|none| no_unit(none, self.at))?;
        if let Some(last) = last {
            // A last line without its end goes the way of the others.
            self.cutter = Cutter::new(Cut::Whole, last.len());
            self.rest = last;
        }
        Ok(())
    }

    /// Stands in line for room, or waits a little for the log.
    async fn wait_for_room(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        if batch.intake.has_room() {
            tokio::time::sleep(LOG_PAUSE).await;
        } else {
            batch.place = batch.intake.in_line(batch.place.take());
        }
    }

    /// Hands the batch in; none if there is no room.
    fn hand_in(&mut self, sender: &Sender) -> Result<Option<Stepped>, Error> {
        let Some(batch) = self.batch.take() else { return Ok(None) };
        let Batch { mut intake, standing, spent, place, .. } = batch;
        let (events, bytes) = (intake.len() as u64, intake.bytes() as u64);
        let copies = (intake.len() * intake.copies()) as i64;
        // Before the events can be read, as the first of them may be done at once.
        let following = sender.hold.following();
        following.add(copies);
        let handed = sender.hold.advance(standing, |producer, sequence| {
            let producer = Some((producer, sequence));
            intake.identify(Identity { producer, ..Identity::default() });
            intake.submit(now_micros())
        });
        let submitted = match handed {
            Ok(Ok(submitted)) => submitted,
            other => {
                following.add(-copies);
                return match other {
                    Err(TakenOver) => Err(taken_over()),
                    Ok(Err(Unsubmitted::Refused(why))) => Err(refused(why)),
                    Ok(Err(Unsubmitted::Busy { intake, .. })) => {
                        let intake = *intake;
                        self.batch = Some(Batch { intake, standing, closed: true, spent, place });
                        Ok(None)
                    }
                    Ok(Ok(_)) => unreachable!("it was handed in"),
                };
            }
        };
        let metrics = sender.running.metrics();
        metrics.events.add(events);
        metrics.bytes.add(bytes);
        Ok(Some(Stepped::Handed(submitted, standing)))
    }
}

impl Batch {
    fn new(intake: Intake, standing: Standing) -> Self {
        Self { intake, standing, closed: false, spent: false, place: None }
    }

    /// Waits until it may look for room.
    async fn stand_in_line(&mut self) {
        if self.place.is_none() {
            self.place = self.intake.behind_others();
        }
        if let Some(place) = &self.place {
            place.turn().await;
        }
    }

    fn is_full(&self) -> bool {
        self.intake.len() >= BATCH_EVENTS || self.intake.bytes() >= BATCH_BYTES
    }

    /// Draws the quota, waiting for it, and sees to it that the version that runs gets the events.
    async fn prepare(&mut self, sender: &mut Sender) -> Result<(), Error> {
        sender.running.check_disk()?;
        while !self.spent {
            let (events, bytes) = (self.intake.len() as u64, self.intake.bytes() as u64);
            let draws = [(Resource::Events, events), (Resource::Bytes, bytes)];
            match sender.caller.account.spend(&draws) {
                Ok(()) => self.spent = true,
                Err(refused) => {
                    let Some(after) = refused.retry_after_micros else {
                        return Err(refused.into());
                    };
                    let pause = Duration::from_micros(after).min(QUOTA_PAUSE_MAX);
                    tokio::time::sleep(pause.max(LOG_PAUSE)).await;
                }
            }
        }
        while sender.running.is_paused() {
            tokio::time::sleep(REPLACE_POLL).await;
            let (edge, caller) = (&sender.edge, &sender.caller);
            sender.running = ingest::current(edge, caller, &sender.pipeline)?;
        }
        // It may have learnt of another version in some other way, too.
        if !self.intake.is_for(&sender.running) {
            let empty = Intake::new(&sender.running, Identity::default());
            let intake = std::mem::replace(&mut self.intake, empty);
            self.intake = intake.for_version(&sender.running);
            self.place = None;
        }
        Ok(())
    }
}

/// Why another one cannot be handed in.
pub(super) fn taken_over() -> Error {
    let message = "another session sends the stream of this key now";
    Error::request("stream.taken-over", message)
}

/// A body that was sent before, or a part of it: what goes on by now is not its to end.
pub(super) fn ends_before(at: u64, stands: u64) -> Error {
    let message = format!(
        "the body ends before unit {at}, and the key stands at {stands}; the stream was not ended"
    );
    Error::request("stream.gap", message)
}

fn no_unit(why: NoUnit, at: u64) -> Error {
    match why {
        NoUnit::TooLarge(limit) => {
            Error::TooLarge { what: "a unit of the body", limit: limit as u64 }
        }
        NoUnit::Malformed => {
            let message = format!("unit {at} is no frame: it is shorter than its own header");
            Error::request("ingest.frame", message)
        }
        NoUnit::CutOff => {
            let message = format!("the body ends within unit {at}; the stream was not ended");
            Error::request("stream.cut-off", message)
        }
    }
}
