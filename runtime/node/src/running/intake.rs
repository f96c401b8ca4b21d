//! The way in: the events of one request, divided by partition and handed over whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::dedup::id_hash;
use sluicebox_core::frame::{Fields, Frame, FrameBuilder, Head, field};
use sluicebox_core::key;
use sluicebox_store::log::Refusal;

use super::Running;
use crate::durable::{Durable, Entry, Identity, Logged, NotLogged};
use crate::mailbox::{Delivery, Mailbox, Place, Unlogged};

/// When a producer should try again after it found no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Collects the events of one request, divided by partition; all or nothing.
#[derive(Debug)]
pub struct Intake {
    running: Arc<Running>,
    /// For each segment that is entered, a builder a partition.
    builders: Vec<FrameBuilder>,
    filled: Vec<usize>,
    /// What the builders made, once they are done.
    frames: Vec<Frame>,
    identity: Identity,
    events: usize,
    bytes: usize,
    /// The highest of their times.
    high: u64,
}

/// What became of the events of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// They are queued; that is all there is to wait for.
    Queued,
    /// They are queued, and may be acknowledged when the log has them on disk.
    Logged(Logged),
}

/// An intake that was not taken; nothing was.
#[derive(Debug)]
pub enum Unsubmitted {
    /// A partition or the log has no room, or the pipeline is being replaced.
    Busy {
        /// To try again with.
        intake: Box<Intake>,
        /// When trying again is worth it.
        retry_after: Duration,
    },
    /// They cannot be logged.
    Refused(NotLogged),
}

impl Intake {
    /// An empty intake. `identity` says how the producer knows its events; a pipeline with a log
    /// takes them once.
    #[must_use]
    pub fn new(running: &Arc<Running>, identity: Identity) -> Self {
        let mut builders = Vec::new();
        let count = running.entered.len() * usize::from(running.partitions);
        builders.resize_with(count, FrameBuilder::new);
        Self {
            running: running.clone(),
            builders,
            filled: Vec::new(),
            frames: Vec::new(),
            identity,
            events: 0,
            bytes: 0,
            high: 0,
        }
    }

    /// Adds one event. The parts are within the format's limits, see [`FrameBuilder::push`].
    pub fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        let partitions = self.running.partitions;
        let partition = usize::from(key::partition_of(key::group_of(key), partitions));
        for entry in &self.running.entries {
            let at = entry.place * usize::from(partitions) + partition;
            let builder = &mut self.builders[at];
            if builder.is_empty() {
                self.filled.push(at);
            }
            builder.push(&Head { input: entry.input, ..*head }, key, payload, fields);
        }
        self.events += 1;
        self.bytes += payload.len();
        self.high = self.high.max(head.time);
        if self.identity.by_event && self.running.is_logged() {
            self.identity.ids.extend(id_of(fields));
        }
    }

    /// It is for this version of the pipeline.
    pub(crate) fn is_for(&self, running: &Arc<Running>) -> bool {
        Arc::ptr_eq(&self.running, running)
    }

    /// The same for another version of the pipeline. Nothing of it was handed in.
    #[must_use]
    pub fn for_version(mut self, running: &Arc<Running>) -> Self {
        let mut again = Self::new(running, std::mem::take(&mut self.identity));
        if self.frames.is_empty() {
            self.frames = self.filled.iter().map(|at| self.builders[*at].finish()).collect();
        }
        // Each event is in it once for each entry; those of the first are all of them.
        let Some(first) = self.running.entries.first() else { return again };
        let partitions = usize::from(self.running.partitions);
        let of_first = |at: &&usize| **at / partitions == first.place;
        for (_, frame) in self.filled.iter().zip(&self.frames).filter(|(at, _)| of_first(at)) {
            for event in frame.events().filter(|event| event.head.input == first.input) {
                again.push(&event.head, event.key, event.payload, event.fields.bytes());
            }
        }
        again
    }

    /// Makes room for events of a key that have so many bytes together.
    pub fn reserve(&mut self, key: &[u8], bytes: usize) {
        let partitions = usize::from(self.running.partitions);
        let partition = key::partition_of(key::group_of(key), self.running.partitions);
        for entry in &self.running.entries {
            self.builders[entry.place * partitions + usize::from(partition)].reserve(bytes);
        }
    }

    /// Says anew how the producer knows its events.
    pub fn identify(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often each event is handed in: once for each stage that ingest feeds.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.running.entries.len()
    }

    /// Hands all events to their partitions; in a pipeline with a log they are logged before, and
    /// `now` is when they came.
    ///
    /// # Errors
    /// They were not taken, and why.
    pub fn submit(mut self, now: u64) -> Result<Submitted, Unsubmitted> {
        // Counted as under way before the look at `paused`, so that whoever pauses and then waits
        // for idleness waits for this intake too.
        let running = self.running.clone();
        running.shared.entered();
        let outcome = if running.is_paused() || !self.has_room() {
            Err(Unsubmitted::Busy { intake: Box::new(self), retry_after: RETRY_AFTER })
        } else if let Some(durable) = &running.shared.durable {
            self.log(durable, now)
        } else {
            // Another thread may have filled an inbox since the look; the excess is one frame.
            for at in std::mem::take(&mut self.filled) {
                let frame = self.builders[at].finish();
                let to = self.mailbox_of(at);
                to.load.unlogged(Unlogged::In, frame.bytes().len());
                to.push_over(Delivery::from(frame));
            }
            if let Some(time) = running.event_time() {
                time.arrived(self.high, now);
            }
            Ok(Submitted::Queued)
        };
        running.shared.left(1);
        outcome
    }

    fn log(mut self, durable: &Arc<Durable>, now: u64) -> Result<Submitted, Unsubmitted> {
        if self.frames.is_empty() {
            self.frames = self.filled.iter().map(|at| self.builders[*at].finish()).collect();
        }
        let entry = |(at, frame): (&usize, &Frame)| {
            let to = self.mailbox_of(*at).clone();
            let segment = to.segment.durable.as_ref().expect("its pipeline has a log");
            let root = segment.stages.first().expect("a segment has a root").stage;
            Entry { stage: root, to, frame: frame.clone() }
        };
        let entries: Vec<Entry> = self.filled.iter().zip(&self.frames).map(entry).collect();
        match durable.ingest(&self.identity, &entries, (now, self.high)) {
            Ok(logged) => Ok(Submitted::Logged(logged)),
            Err(NotLogged::Log(Refusal::Busy)) => {
                Err(Unsubmitted::Busy { intake: Box::new(self), retry_after: RETRY_AFTER })
            }
            Err(refusal) => Err(Unsubmitted::Refused(refusal)),
        }
    }

    /// True if every partition it is for has room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.filled.iter().all(|at| self.mailbox_of(*at).has_room())
    }

    /// A place behind those who wait for room in a partition it is for, if there are any.
    pub(crate) fn behind_others(&self) -> Option<Place> {
        self.filled.iter().find_map(|at| self.mailbox_of(*at).room.behind_others())
    }

    /// A place in the line of the first partition without room, where `place`, if it is there, was
    /// no use. If all have room by now it stays as it is.
    pub(crate) fn in_line(&self, place: Option<Place>) -> Option<Place> {
        let mut rooms = self.filled.iter().map(|at| &self.mailbox_of(*at).room);
        let Some(full) = rooms.find(|room| !room.is_there()) else { return place };
        if let Some(place) = place.filter(|place| place.is_at(full)) {
            place.first_again();
            return Some(place);
        }
        Some(full.stand())
    }

    fn mailbox_of(&self, at: usize) -> &Arc<Mailbox> {
        let partitions = usize::from(self.running.partitions);
        let segment = self.running.entered[at / partitions];
        &self.running.mailboxes[segment][at % partitions]
    }
}

/// The hash by which an event with an id of its own is known.
fn id_of(fields: &[u8]) -> Option<u128> {
    let fields = Fields::parse(fields)?;
    let id = fields.get(field::EVENT_ID)?;
    Some(id_hash(fields.get(field::EVENT_SOURCE).unwrap_or_default(), id))
}
