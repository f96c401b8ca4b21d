//! De-duplication: of events that say the same, the first within a time passes.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluicebox_guest::dedup::Dedup;
//! use sluicebox_guest::{Events, Output, stage};
//!
//! const ONCE_AN_HOUR: Dedup = Dedup::within(Duration::from_hours(1));
//!
//! #[stage]
//! fn alarms(events: Events<'_>, out: &mut Output) {
//!     // An alarm is the same if its text is.
//!     ONCE_AN_HOUR.by(|event| Ok(event.payload().to_vec())).run(events, out);
//! }
//! # fn main() {}
//! ```
//!
//! - An event passes if no event of its key with the same id passed whose time is less than the
//!   time of the de-duplication away. "First" is the first to come.
//! - An id is remembered in a slot of its own, named after the span of time it came in, as long as
//!   the de-duplication's, and a hash of it. So an event looks at three slots and writes one,
//!   however many ids are remembered; `limits.state-bytes` of the manifest bounds how many there
//!   are.
//! - Spans that are over are swept away, some slots at a time; a key has one timer for that.
//! - Ids are told apart exactly: a slot holds the ids themselves, in case hashes are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::{Event, Events, Kind};
use crate::failure::Result;
use crate::kept::{self, Kept, read_bytes, write_bytes};
use crate::keyed::cell::Writes;
use crate::keyed::{Call, Terms, check_time, micros, terms, unreadable};
use crate::output::Output;
use crate::state::StateBatch;

/// Slots of a span that are removed in one call; the rest follow in the next.
const SWEPT_MAX: u32 = 1_000;

/// Which events say the same. Made once, as a constant; then [`Dedup::by`] says what they say.
#[derive(Clone, Copy, Debug)]
pub struct Dedup {
    terms: Terms,
    within: u64,
    duplicates: Option<u16>,
}

impl Dedup {
    /// Events are the same if their times are less than this apart.
    ///
    /// # Panics
    ///
    /// If the time is 0; in a constant that is an error of the compiler.
    #[must_use]
    pub const fn within(time: Duration) -> Self {
        assert!(micros(time) > 0, "duplicates are at least a microsecond apart");
        Self { terms: Terms::new("dedup"), within: micros(time), duplicates: None }
    }

    terms!(lateness);

    /// The port by which duplicates leave; without one they go no further, as they are meant to.
    #[must_use]
    pub const fn duplicate_port(mut self, port: u16) -> Self {
        self.duplicates = Some(port);
        self
    }

    /// Says what of an event is its id. If that gives an error the event fails.
    pub fn by<I: Fn(&Event<'_>) -> Result<Vec<u8>>>(self, id: I) -> Deduplicated<I> {
        Deduplicated { dedup: self, id }
    }

    /// The key alone says whether events are the same.
    pub fn by_key(self) -> Deduplicated<impl Fn(&Event<'_>) -> Result<Vec<u8>>> {
        self.by(|_| Ok(Vec::new()))
    }

    /// The spans in which something can be that is close to this time.
    fn near(&self, time: u64) -> impl Iterator<Item = u64> {
        let span = time / self.within;
        span.saturating_sub(1)..=span + 1
    }

    fn slot(&self, (_, span, hash): Place) -> String {
        format!("{}/{span:x}/{hash:x}", self.terms.slot())
    }

    /// The watermark at which nothing of a span need be remembered any more.
    const fn over(&self, span: u64) -> u64 {
        (span + 2) * self.within + self.terms.lateness
    }
}

/// De-duplication with what is an id. Made by [`Dedup::by`].
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing happens until `run` is called"]
pub struct Deduplicated<I> {
    dedup: Dedup,
    id: I,
}

/// Ids with the same hash, and the times at which they passed.
#[derive(Clone, Debug, Default)]
struct Seen(Vec<(Vec<u8>, u64)>);

impl Kept for Seen {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.0.len() as u64).write(bytes);
        for (id, time) in &self.0 {
            write_bytes(id, bytes);
            time.write(bytes);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut seen = Vec::new();
        for _ in 0..u64::read(bytes)? {
            let id = read_bytes(bytes)?.to_vec();
            seen.push((id, u64::read(bytes)?));
        }
        Some(Self(seen))
    }
}

impl Seen {
    fn has(&self, id: &[u8], time: u64, within: u64) -> bool {
        self.0.iter().any(|(seen, at)| seen == id && at.abs_diff(time) < within)
    }
}

/// The spans of a key in which an id passed, ascending.
#[derive(Clone, Debug, Default)]
struct Spans {
    wakes: Option<u64>,
    spans: Vec<u64>,
}

impl Kept for Spans {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.wakes.write(bytes);
        self.spans.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (wakes, spans) = Kept::read(bytes)?;
        Some(Self { wakes, spans })
    }
}

/// One slot of ids: key, span and hash.
type Place = (usize, u64, u64);

/// What an event asks for.
enum Asks {
    /// It could not be read, and has failed.
    Nothing,
    /// It is the timer.
    Sweep,
    /// Whether this id may pass, at this time.
    Id { id: Vec<u8>, time: u64, hash: u64 },
}

/// De-duplication over one call, at work.
struct Work<'w, 'c, 'a> {
    dedup: &'w Dedup,
    call: &'c Call<'a>,
    watermark: u64,
    /// By key: the spans, and their bytes when the call began. Nothing if they could not be read.
    keys: Vec<Option<(Spans, Option<Vec<u8>>)>>,
    slots: BTreeMap<Place, Option<Seen>>,
    changed: BTreeSet<Place>,
    /// Slots to be removed, by key.
    swept: Vec<(usize, String)>,
}

impl<I: Fn(&Event<'_>) -> Result<Vec<u8>>> Deduplicated<I> {
    /// Takes the events of a call, and emits those that pass by port 0, as they came.
    pub fn run(&self, events: Events<'_>, out: &mut Output) {
        self.run_with(events, out, |event, out| out.emit(event, event.payload()));
    }

    /// Takes the events of a call, and gives `pass` those that pass.
    pub fn run_with(
        &self,
        events: Events<'_>,
        out: &mut Output,
        mut pass: impl FnMut(&Event<'_>, &mut Output),
    ) {
        let call = Call::new(events, &self.dedup.terms);
        if call.events.is_empty() {
            return;
        }
        let asks: Vec<Asks> = call.events.iter().map(|(event, _)| self.asks(event, out)).collect();
        let mut work = Work::read(&self.dedup, &call, &asks);
        for ((event, key), asks) in call.events.iter().zip(asks) {
            let done = match asks {
                Asks::Nothing => Ok(()),
                Asks::Sweep => work.sweep(event, *key),
                Asks::Id { id, time, hash } => {
                    work.data(event, (*key, time, hash), id, (&mut pass, out))
                }
            };
            if let Err(failure) = done {
                out.fail(event, failure);
            }
        }
        work.write(out);
    }

    fn asks(&self, event: &Event<'_>, out: &mut Output) -> Asks {
        if event.kind() == Kind::Timer {
            return Asks::Sweep;
        }
        match (self.id)(event) {
            Ok(id) => Asks::Id { time: self.dedup.terms.time(event), hash: hash(&id), id },
            Err(failure) => {
                out.fail(event, failure);
                Asks::Nothing
            }
        }
    }
}

impl<'w, 'c, 'a> Work<'w, 'c, 'a> {
    /// Reads the spans of all keys, and the slots in which the ids of the call may be.
    fn read(dedup: &'w Dedup, call: &'c Call<'a>, asks: &[Asks]) -> Self {
        let mut places = BTreeSet::new();
        for ((_, key), asks) in call.events.iter().zip(asks) {
            if let Asks::Id { time, hash, .. } = asks {
                places.extend(dedup.near(*time).map(|span| (*key, span, *hash)));
            }
        }
        let mut batch = StateBatch::new();
        call.keys.iter().for_each(|key| batch.get(&key.event, &dedup.terms.slot()));
        for place in &places {
            batch.get(&call.keys[place.0].event, &dedup.slot(*place));
        }
        let replies = batch.run();
        let mut values = replies.iter().map(|reply| reply.value().ok().flatten());
        let spans = |value: Option<&[u8]>| match value {
            Some(bytes) => kept::read_all(bytes).map(|spans| (spans, Some(bytes.to_vec()))),
            None => Some((Spans::default(), None)),
        };
        let keys = values.by_ref().take(call.keys.len()).map(spans).collect();
        let seen = |value: Option<&[u8]>| match value {
            Some(bytes) => kept::read_all(bytes),
            None => Some(Seen::default()),
        };
        let slots = places.into_iter().zip(values.map(seen)).collect();
        let watermark = dedup.terms.watermark();
        let (changed, swept) = (BTreeSet::new(), Vec::new());
        Self { dedup, call, watermark, keys, slots, changed, swept }
    }

    fn data(
        &mut self,
        event: &Event<'_>,
        (key, time, hash): (usize, u64, u64),
        id: Vec<u8>,
        (pass, out): (&mut impl FnMut(&Event<'_>, &mut Output), &mut Output),
    ) -> Result {
        let Dedup { terms, within, duplicates } = self.dedup;
        check_time(time, 3 * within + terms.lateness)?;
        let unreadable = || unreadable(&format!("{}/…", terms.slot()));
        if time + terms.lateness < self.watermark {
            return terms.too_late(event, self.watermark, out);
        }
        for span in self.dedup.near(time) {
            let seen = self.slots.get(&(key, span, hash)).and_then(Option::as_ref);
            if !seen.ok_or_else(unreadable)?.has(&id, time, *within) {
                continue;
            }
            if let Some(port) = duplicates {
                out.draft(event).port(*port).emit(event.payload());
            }
            return Ok(());
        }
        let place = (key, time / within, hash);
        let Some((Spans { spans, .. }, _)) = &mut self.keys[key] else {
            return Err(unreadable());
        };
        if let Err(at) = spans.binary_search(&place.1) {
            spans.insert(at, place.1);
        }
        if let Some(Some(seen)) = self.slots.get_mut(&place) {
            seen.0.push((id, time));
            self.changed.insert(place);
        }
        pass(event, out);
        Ok(())
    }

    /// Removes slots of spans that are over, as far as one call may.
    fn sweep(&mut self, event: &Event<'_>, key: usize) -> Result {
        let watermark = self.watermark.max(event.time());
        let slot = self.dedup.terms.slot();
        let Some((Spans { spans, .. }, _)) = &mut self.keys[key] else {
            return Err(unreadable(&slot));
        };
        let mut left = SWEPT_MAX;
        while let Some(span) =
            spans.first().copied().filter(|span| self.dedup.over(*span) <= watermark)
        {
            let found = event.state().scan(&format!("{slot}/{span:x}/"), left);
            left -= found.len() as u32;
            self.swept.extend(found.into_iter().map(|(slot, _)| (key, slot)));
            if left == 0 {
                // The timer is set again, for a time that has come.
                break;
            }
            spans.remove(0);
        }
        Ok(())
    }

    fn write(self, out: &mut Output) {
        let (dedup, call) = (self.dedup, self.call);
        let mut writes = Writes { batch: StateBatch::new(), asked: Vec::new() };
        for (key, slot) in &self.swept {
            writes.batch.delete(&call.keys[*key].event, slot);
            writes.asked.push(*key);
        }
        for place in &self.changed {
            if let Some(Some(seen)) = self.slots.get(place) {
                let mut bytes = Vec::new();
                seen.write(&mut bytes);
                writes.batch.put(&call.keys[place.0].event, &dedup.slot(*place), bytes);
                writes.asked.push(place.0);
            }
        }
        let slot = dedup.terms.slot();
        for (key, kept) in self.keys.into_iter().enumerate() {
            let (Some((mut spans, before)), of) = (kept, &call.keys[key]) else {
                continue;
            };
            let set = if of.fired { None } else { spans.wakes };
            spans.wakes = spans.spans.first().map(|span| dedup.over(*span));
            if spans.wakes.is_none() && before.is_some() {
                writes.batch.delete(&of.event, &slot);
                writes.asked.push(key);
            } else if spans.wakes.is_some() {
                let mut bytes = Vec::new();
                spans.write(&mut bytes);
                if before.as_ref() != Some(&bytes) {
                    writes.batch.put(&of.event, &slot, bytes);
                    writes.asked.push(key);
                }
            }
            writes.timer(&dedup.terms, call, key, (set, spans.wakes));
        }
        writes.done(call, out);
    }
}

/// FNV-1a: the names of slots must not change with versions of anything.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests;
