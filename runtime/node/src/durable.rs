//! A pipeline with a log: its numbers, and the way of its events into the log.
//!
//! - One of these lives as long as the pipeline, over all its versions.
//! - An ingest is one record: logged whole, then handed to the partitions in the order of the log.
//!   Producers may say which request or event it is; what has come before is taken once and
//!   answered again.
//! - What is refused by the log was not taken: nothing has changed.
//!
//! Acknowledging what was logged is the business of `worker/release.rs`, writing commits that of
//! `worker/record.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicebox_core::codec::{IngestRecord, IngestRun, Producer, RecordWriter, Usage, kind};
use sluicebox_core::dedup::{Dedup, DedupLimits, Seen};
use sluicebox_core::frame::Frame;
use sluicebox_core::ids::{PipelineId, StageId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::position::{Counter, RunHeader, Source};
use sluicebox_core::recovery::Standing;
use sluicebox_core::replayed::{Replayed, ReplayedRun};
use sluicebox_store::log::{Class, Log, Position, Refusal};

use crate::backing::Backing;
use crate::checkpoint::Condition;
use crate::error::Error;
use crate::mailbox::{Delivery, Mailbox, lock};
use crate::running::event_time::now_micros;

/// When to try again what the log refused for want of room.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// The same on a full disk, or when no checkpoint can be made, where somebody has to make room.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) id: PipelineId,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) backing: Arc<Backing>,
    ingest: Mutex<Ingest>,
    /// What the commits that are on disk used, by the root of their segment.
    usage: Mutex<BTreeMap<StageId, Usage>>,
    numbering: Mutex<Numbering>,
    /// Where its partitions stood when the version that runs began.
    standing: Mutex<Standing>,
}

/// What ingest goes on from.
#[derive(Debug)]
pub(crate) struct Ingest {
    numbers: Counter<(StageId, u16)>,
    dedup: Dedup,
    /// The highest event time so far, where there is event time.
    high: u64,
    /// Dead letters that were replayed, and where in the log the last of them is.
    replayed: Replayed,
    replayed_at: Option<Position>,
    writer: RecordWriter,
}

impl Ingest {
    /// Going on from `numbers`, knowing what `dedup` knows.
    pub(crate) fn new(numbers: Counter<(StageId, u16)>, dedup: Dedup) -> Self {
        let (replayed, replayed_at) = (Replayed::default(), None);
        let writer = RecordWriter::new();
        Self { numbers, dedup, high: 0, replayed, replayed_at, writer }
    }

    /// Knowing also which dead letters were replayed.
    pub(crate) fn knowing(self, replayed: Replayed) -> Self {
        Self { replayed, ..self }
    }

    /// Going on from this event time.
    pub(crate) fn since(self, high: u64) -> Self {
        Self { high, ..self }
    }

    /// Of a pipeline that is new. `seed` is secret.
    pub(crate) fn begin(seed: u64) -> Self {
        Self::new(Counter::default(), Dedup::new(seed, DedupLimits::DEFAULT))
    }
}

/// Why events were not logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLogged {
    /// Some of them came before, and others did not.
    SomeKnown(Vec<u128>),
    /// The log takes nothing, or nothing now.
    Log(Refusal),
    /// Too much of the log waits for a checkpoint, and none can be made.
    NoCheckpoint {
        /// It is not tried again before the node is restarted.
        stopped: bool,
    },
}

impl From<Refusal> for NotLogged {
    fn from(refusal: Refusal) -> Self {
        Self::Log(refusal)
    }
}

/// How a producer knows its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The producer, and the number of this request there.
    pub producer: Option<(String, u64)>,
    /// A hash for each event that has an id of its own.
    pub ids: Vec<u128>,
    /// Events are known by their ids.
    pub by_event: bool,
}

/// The events of one ingest for one partition of an entry stage.
#[derive(Debug)]
pub(crate) struct Entry {
    pub stage: StageId,
    pub to: Arc<Mailbox>,
    pub frame: Frame,
}

/// What became of an ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// It is in the log, here.
    At(Position),
    /// It came before, and is in the log at or before this place.
    Repeat(Position),
}

impl Durable {
    pub(crate) fn new(
        id: PipelineId,
        (log, backing): (Arc<dyn Log>, Arc<Backing>),
        ingest: Ingest,
        numbering: Numbering,
    ) -> Self {
        let usage = Mutex::default();
        let (ingest, numbering) = (Mutex::new(ingest), Mutex::new(numbering));
        let standing = Mutex::default();
        Self { id, log, backing, ingest, usage, numbering, standing }
    }

    /// Goes on counting from what was used before.
    pub(crate) fn with_usage(mut self, usage: BTreeMap<StageId, Usage>) -> Self {
        self.usage = Mutex::new(usage);
        self
    }

    /// Counts what a commit used.
    pub(crate) fn used(&self, root: StageId, usage: &Usage) {
        lock(&self.usage).entry(root).or_default().add(usage);
    }

    /// What the commits that are on disk used, by the root of their segment.
    pub(crate) fn usage(&self) -> BTreeMap<StageId, Usage> {
        lock(&self.usage).clone()
    }

    /// The same in all.
    pub(crate) fn usage_in_all(&self) -> Usage {
        let mut all = Usage::default();
        lock(&self.usage).values().for_each(|usage| all.add(usage));
        all
    }

    /// Where its partitions stood when the version that runs began, those that are not in it
    /// included.
    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// From now on another version runs, beginning there.
    pub(crate) fn set_standing(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    /// The numbers of the version that runs.
    pub(crate) fn numbering(&self) -> Numbering {
        lock(&self.numbering).clone()
    }

    /// From now on another version runs.
    pub(crate) fn set_numbering(&self, numbering: Numbering) {
        *lock(&self.numbering) = numbering;
    }

    /// The highest event time so far, as the log has it.
    pub(crate) fn high(&self) -> u64 {
        lock(&self.ingest).high
    }

    /// How far back a request or event that comes again is known for sure.
    pub(crate) fn known_for(&self) -> Duration {
        Duration::from_micros(lock(&self.ingest).dedup.window())
    }

    /// The last number of a producer's requests and where in the log that is, while it is known.
    pub(crate) fn last_of(&self, producer: &str) -> Option<(u64, Position)> {
        let known = lock(&self.ingest).dedup.last_of(producer, now_micros())?;
        Some((known.sequence, Position(known.at)))
    }

    /// How far the node itself has come with something outside.
    pub(crate) fn place(&self, name: &str) -> Option<u64> {
        self.last_of(name).map(|(sequence, _)| sequence)
    }

    /// Logs such a place alone, without events. It is not on disk yet.
    pub(crate) fn note_place(&self, name: &str, sequence: u64) -> Result<Logged, NotLogged> {
        let producer = Some((name.to_owned(), sequence));
        self.ingest(&Identity { producer, ..Identity::default() }, &[], (now_micros(), 0))
    }

    /// Logs the events of one request, the highest of whose times is `high`, and hands them to
    /// their partitions. They are not on disk yet.
    pub(crate) fn ingest(
        &self,
        identity: &Identity,
        entries: &[Entry],
        (now, high): (u64, u64),
    ) -> Result<Logged, NotLogged> {
        let mut ingest = lock(&self.ingest);
        if let Some(at) = repeat(&mut ingest.dedup, identity, now)? {
            return Ok(Logged::Repeat(Position(at)));
        }
        let position = self.append(&mut ingest, identity, entries, (now, high, &[]))?;
        if let Some((producer, sequence)) = &identity.producer {
            ingest.dedup.note_request(producer, *sequence, position.0, now);
        }
        for id in &identity.ids {
            ingest.dedup.note_event(*id, position.0, now);
        }
        Ok(Logged::At(position))
    }

    /// Logs dead letters as events for the stage they failed in. `choose` makes them of those that
    /// were not replayed before. Gives where the last of them is, or of those that came before.
    pub(crate) fn replay(
        &self,
        now: u64,
        choose: impl FnOnce(&Replayed) -> Result<(Vec<Entry>, Vec<ReplayedRun>), Error>,
    ) -> Result<Option<Position>, Error> {
        let mut ingest = lock(&self.ingest);
        let (entries, runs) = choose(&ingest.replayed)?;
        if entries.is_empty() {
            return Ok(ingest.replayed_at);
        }
        let identity = Identity::default();
        // They are of times that were.
        let position = self.append(&mut ingest, &identity, &entries, (now, 0, &runs));
        let position = position.map_err(refused)?;
        runs.iter().for_each(|run| ingest.replayed.note(run));
        ingest.replayed_at = Some(position);
        Ok(Some(position))
    }

    /// Writes the record of an ingest, and hands its events to their partitions.
    fn append(
        &self,
        ingest: &mut Ingest,
        identity: &Identity,
        entries: &[Entry],
        (now, high, replayed): (u64, u64, &[ReplayedRun]),
    ) -> Result<Position, NotLogged> {
        if self.backing.is_behind(self.log.synced()) {
            return Err(match self.backing.checkpoints().condition() {
                Condition::Good => NotLogged::Log(Refusal::Busy),
                Condition::Failing => NotLogged::NoCheckpoint { stopped: false },
                Condition::Stopped => NotLogged::NoCheckpoint { stopped: true },
            });
        }
        let time = entries.first().and_then(|e| e.to.segment.shared.event_time.as_ref());
        let risen = time.map(|_| high).filter(|high| *high > ingest.high);
        let Ingest { numbers, writer, .. } = &mut *ingest;
        let seq = numbers.next();
        let run = |entry: &Entry| IngestRun {
            stage: entry.stage,
            partition: entry.to.partition,
            previous: numbers.previous((entry.stage, entry.to.partition)),
            frame: entry.frame.clone(),
        };
        let record = IngestRecord {
            pipeline: self.id,
            seq,
            time: now,
            producer: identity
                .producer
                .as_ref()
                .map(|(id, sequence)| Producer { id, sequence: *sequence }),
            ids: identity.ids.clone(),
            runs: entries.iter().map(run).collect(),
            replayed: replayed.to_vec(),
            high: risen,
        };
        writer.ingest(&record);
        let position = self.log.append(Class::Ingest, kind::INGEST, &writer.parts())?;
        for entry in entries {
            let previous = numbers.send((entry.stage, entry.to.partition), seq);
            let previous = previous.expect("each partition of a stage is in a request once");
            let run = RunHeader { source: Source::Ingest, seq, previous };
            // In the lock, so that partitions see ingests in the order of their numbers.
            entry.to.push_over(Delivery::of(run, entry.frame.clone(), 0).logged(position));
        }
        ingest.high = risen.unwrap_or(ingest.high);
        if let Some(time) = time {
            time.arrived(high, now);
        }
        Ok(position)
    }
}

/// Where the first copy is, if all of a request has come before.
fn repeat(dedup: &mut Dedup, identity: &Identity, now: u64) -> Result<Option<u64>, NotLogged> {
    if let Some((producer, sequence)) = &identity.producer
        && let Seen::Repeat { at } = dedup.request(producer, *sequence, now)
    {
        return Ok(Some(at));
    }
    let mut known = Vec::new();
    let mut last = None;
    for id in &identity.ids {
        if let Seen::Repeat { at } = dedup.event(*id, now) {
            known.push(*id);
            last = last.max(Some(at));
        }
    }
    let some = !known.is_empty() && known.len() < identity.ids.len();
    if some { Err(NotLogged::SomeKnown(known)) } else { Ok(last) }
}

/// What a client is told when something is not logged.
pub(crate) fn refused(why: impl Into<NotLogged>) -> Error {
    let refusal = match why.into() {
        NotLogged::Log(refusal) => refusal,
        NotLogged::NoCheckpoint { stopped } => {
            let retry_after = (!stopped).then_some(FULL_RETRY);
            return Error::NoCheckpoint { retry_after };
        }
        NotLogged::SomeKnown(_) => {
            return Error::Internal("events that came before were handed in again".to_owned());
        }
    };
    match refusal {
        Refusal::Busy => Error::Busy { what: "the log", retry_after: BUSY_RETRY },
        Refusal::Full => Error::DiskFull { retry_after: FULL_RETRY },
        Refusal::Failed | Refusal::Closed => Error::LogFailed,
        Refusal::TooLarge { bytes_max } => {
            Error::TooLarge { what: "the request's record in the log", limit: bytes_max as u64 }
        }
    }
}
