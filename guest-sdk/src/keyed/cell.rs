//! One slot a key: read for all keys of a call at once, changed in memory, written at once.
//!
//! - A cell says when it wants to be woken; its one timer is set, moved or cancelled to match.
//! - A cell that is empty has no slot and no timer.
//! - Nothing is written that did not change.

use crate::event::Event;
use crate::failure::Result;
use crate::kept::{self, Kept};
use crate::keyed::{Call, KeyOf, Terms, unreadable};
use crate::output::Output;
use crate::state::StateBatch;

/// What a routine keeps of a key in one slot.
pub(crate) trait Cell: Kept + Default {
    /// Whether there is nothing to keep.
    fn is_empty(&self) -> bool;

    /// When it has something to do although nothing comes.
    fn wakes(&self) -> Option<u64>;
}

/// Gives each event of the call to `handle` with the cell of its key. An `Err` fails the event, and
/// then the cell must be as it was.
pub(crate) fn run<C: Cell>(
    terms: &Terms,
    call: &Call<'_>,
    out: &mut Output,
    mut handle: impl FnMut(&Event<'_>, &mut C, &mut Output) -> Result,
) {
    if call.events.is_empty() {
        return;
    }
    let slot = terms.slot();
    let mut batch = StateBatch::new();
    call.keys.iter().for_each(|key| batch.get(&key.event, &slot));
    let replies = batch.run();
    let mut cells = Vec::with_capacity(call.keys.len());
    for (place, reply) in replies.iter().enumerate() {
        cells.push(match reply.value() {
            Ok(None) => Some(Loaded { before: None, wakes: None, cell: C::default() }),
            Ok(Some(before)) => kept::read_all(before).map(|cell: C| Loaded {
                before: Some(before),
                wakes: cell.wakes(),
                cell,
            }),
            Err(refused) => {
                call.refuse(place, refused, out);
                None
            }
        });
    }
    for (event, key) in &call.events {
        let done = match &mut cells[*key] {
            Some(loaded) => handle(event, &mut loaded.cell, out),
            None => Err(unreadable(&slot)),
        };
        if let Err(failure) = done {
            out.fail(event, failure);
        }
    }
    let mut writes = Writes { batch, asked: Vec::new() };
    for (key, loaded) in cells.into_iter().enumerate() {
        if let Some(loaded) = loaded {
            write(terms, call, (key, &slot), loaded, &mut writes);
        }
    }
    writes.done(call, out);
}

/// A cell, and what the host has of it.
struct Loaded<'a, C> {
    before: Option<&'a [u8]>,
    wakes: Option<u64>,
    cell: C,
}

fn write<C: Cell>(
    terms: &Terms,
    call: &Call<'_>,
    (key, slot): (usize, &str),
    loaded: Loaded<'_, C>,
    writes: &mut Writes,
) {
    let KeyOf { event, fired, .. } = &call.keys[key];
    if loaded.cell.is_empty() {
        if loaded.before.is_some() {
            writes.batch.delete(event, slot);
            writes.asked.push(key);
        }
    } else {
        let mut bytes = Vec::new();
        loaded.cell.write(&mut bytes);
        if loaded.before != Some(&bytes) {
            writes.batch.put(event, slot, bytes);
            writes.asked.push(key);
        }
    }
    let set = if *fired { None } else { loaded.wakes };
    let wanted = if loaded.cell.is_empty() { None } else { loaded.cell.wakes() };
    writes.timer(terms, call, key, (set, wanted));
}

/// Writes of many keys, and which key asked for which.
pub(crate) struct Writes {
    pub(crate) batch: StateBatch,
    pub(crate) asked: Vec<usize>,
}

impl Writes {
    /// Sets the timer of a key from what it is set for to what is wanted.
    pub(crate) fn timer(
        &mut self,
        terms: &Terms,
        call: &Call<'_>,
        key: usize,
        (set, wanted): (Option<u64>, Option<u64>),
    ) {
        if set == wanted {
            return;
        }
        let event = &call.keys[key].event;
        match wanted {
            Some(at) => self.batch.set_timer(event, &terms.slot(), terms.clock, at),
            None => self.batch.cancel_timer(event, &terms.slot()),
        }
        self.asked.push(key);
    }

    /// Has the host do it; what it refuses fails the events of the key.
    pub(crate) fn done(mut self, call: &Call<'_>, out: &mut Output) {
        let replies = self.batch.run();
        for (reply, key) in replies.iter().zip(self.asked) {
            if let Err(refused) = reply.done() {
                call.refuse(key, refused, out);
            }
        }
    }
}
