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
//! - An id is remembered in a slot of its own, with a timer of its own: an event costs the same
//!   however many are remembered. `limits.state-bytes` of the manifest bounds how many there are.
//! - Ids are told apart exactly; a slot is named after a hash, and holds the ids themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Event, Events, Kind};
use crate::failure::Result;
use crate::kept::{self, Kept, read_bytes, write_bytes};
use crate::keyed::{Call, Terms, check_time, micros, terms, unreadable};
use crate::output::Output;
use crate::state::StateBatch;

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

    /// When an event at this time need not be remembered any more.
    const fn over(&self, time: u64) -> u64 {
        time + self.within + self.terms.lateness
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

/// What is known of one slot.
#[derive(Default)]
struct Known {
    seen: Option<Seen>,
    stored: bool,
    changed: bool,
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
        let terms = &self.dedup.terms;
        let call = Call::of(events, |event| {
            terms.takes(event) || terms.below(event).is_some_and(|name| name.starts_with('/'))
        });
        if call.events.is_empty() {
            return;
        }
        let mut abouts = Vec::with_capacity(call.events.len());
        let mut slots: BTreeMap<(usize, u64), Known> = BTreeMap::new();
        for (event, key) in &call.events {
            let about = self.about(event);
            let about = about.map_err(|failure| out.fail(event, failure)).ok();
            if let Some((hash, _)) = about {
                slots.entry((*key, hash)).or_default();
            }
            abouts.push(about);
        }
        let mut batch = StateBatch::new();
        for (key, hash) in slots.keys() {
            batch.get(&call.keys[*key].event, &self.slot(*hash));
        }
        let replies = batch.run();
        for (known, reply) in slots.values_mut().zip(&replies) {
            let value = reply.value().ok().flatten();
            known.stored = value.is_some();
            known.seen = value.map_or_else(|| Some(Seen::default()), kept::read_all);
        }
        for ((event, key), about) in call.events.iter().zip(abouts) {
            let Some((hash, id)) = about else {
                continue;
            };
            let known = slots.entry((*key, hash)).or_default();
            if let Err(failure) = self.handle(event, known, id, (&mut pass, out)) {
                out.fail(event, failure);
            }
        }
        self.write(&call, &slots, out);
    }

    fn slot(&self, hash: u64) -> String {
        format!("@{}/{hash:x}", self.dedup.terms.name)
    }

    /// The hash of the id an event is about, and unless it is a timer the id.
    fn about(&self, event: &Event<'_>) -> Result<(u64, Vec<u8>)> {
        if let Some(name) = self.dedup.terms.below(event) {
            let hash = u64::from_str_radix(name.trim_start_matches('/'), 16)?;
            return Ok((hash, Vec::new()));
        }
        let id = (self.id)(event)?;
        Ok((hash(&id), id))
    }

    fn handle(
        &self,
        event: &Event<'_>,
        known: &mut Known,
        id: Vec<u8>,
        (pass, out): (&mut impl FnMut(&Event<'_>, &mut Output), &mut Output),
    ) -> Result {
        let Dedup { terms, within, duplicates } = &self.dedup;
        let Some(seen) = &mut known.seen else {
            return Err(unreadable(&format!("@{}/…", terms.name)));
        };
        if event.kind() == Kind::Timer {
            let watermark = terms.watermark().max(event.time());
            seen.0.retain(|(_, at)| self.dedup.over(*at) > watermark);
            known.changed = true;
            return Ok(());
        }
        let watermark = terms.watermark();
        let time = terms.time(event);
        check_time(time, within + terms.lateness)?;
        if time + terms.lateness < watermark {
            return terms.too_late(event, watermark, out);
        }
        if seen.has(&id, time, *within) {
            if let Some(port) = duplicates {
                out.draft(event).port(*port).emit(event.payload());
            }
            return Ok(());
        }
        seen.0.push((id, time));
        known.changed = true;
        pass(event, out);
        Ok(())
    }

    /// Writes what changed; a slot's timer is set for when the first of its ids is over.
    fn write(&self, call: &Call<'_>, slots: &BTreeMap<(usize, u64), Known>, out: &mut Output) {
        let mut batch = StateBatch::new();
        let mut asked = Vec::new();
        for ((key, hash), known) in slots.iter().filter(|(_, known)| known.changed) {
            let (event, slot) = (&call.keys[*key].event, self.slot(*hash));
            let Some(seen) = &known.seen else {
                continue;
            };
            let Some(next) = seen.0.iter().map(|(_, at)| self.dedup.over(*at)).min() else {
                if known.stored {
                    batch.delete(event, &slot);
                    asked.push(*key);
                }
                continue;
            };
            let mut bytes = Vec::new();
            seen.write(&mut bytes);
            batch.put(event, &slot, bytes);
            batch.set_timer(event, &slot, self.dedup.terms.clock, next);
            asked.extend([*key; 2]);
        }
        let replies = batch.run();
        for (reply, key) in replies.iter().zip(asked) {
            if let Err(refused) = reply.done() {
                call.refuse(key, refused, out);
            }
        }
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
