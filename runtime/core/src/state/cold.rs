//! State that is larger than the memory it may take.
//!
//! ```text
//! lacks(key)? ─► (the store is read) ─► load(key, slots) ─► calls ─► commit ─► make_room
//! ```
//!
//! - A state is *whole* while all of it is here. Then a key that is not here does not exist, and
//!   nothing in this file costs anything. A state is whole until its first key leaves.
//! - A key is here with all its slots, or it is *part*: it has what was written behind the store
//!   and was found in the log; the rest is laid under that when it is loaded.
//! - Only what the store has as it is here may leave. Writes belong to an *epoch*, and whoever
//!   makes checkpoints says which epochs are kept.
//! - A key that lost its last slot stays, empty, until its end is kept; the store would otherwise
//!   give it back.
//!
//! What is read when, and how much memory there is, is for the worker and the tenant's quota.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{KeyedState, SLOT_OVERHEAD, Slot, Value, position};

/// Keys looked at in one go when room is made: some microseconds.
const LOOKS: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Cold {
    /// Nothing of this state is in the store alone.
    whole: bool,
    /// Writes of this epoch and before are in the store.
    kept: u32,
    /// Slots of part keys that are gone, whatever the store has.
    gone: BTreeMap<u32, BTreeSet<Box<[u8]>>>,
    /// Emptied keys, the oldest first.
    buried: VecDeque<u32>,
    /// Where room is made next.
    hand: usize,
    /// Keys looked at since one could leave.
    in_vain: usize,
}

impl Cold {
    /// A place is free: what it said of its key goes.
    pub(super) fn forget(&mut self, index: u32) {
        self.gone.remove(&index);
    }
}

impl KeyedState {
    /// Puts a store behind the state; `whole` says that all there is of it is here.
    pub fn back(&mut self, whole: bool) {
        if self.cold.is_none() {
            let (gone, buried) = (BTreeMap::new(), VecDeque::new());
            self.cold = Some(Box::new(Cold { whole, kept: 0, gone, buried, hand: 0, in_vain: 0 }));
            self.epoch = 1;
        }
    }

    /// True if a key that is not here does not exist.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cold.as_ref().is_none_or(|cold| cold.whole)
    }

    /// True if a key has to be loaded before a call may use it.
    pub fn lacks(&mut self, key: &[u8]) -> bool {
        if self.is_whole() {
            return false;
        }
        let Some(index) = self.find(key) else { return true };
        let entry = &mut self.keys[index as usize];
        entry.used = true;
        entry.part
    }

    /// Takes what the store has of a key. What was written since stands.
    pub fn load<'a>(&mut self, key: &[u8], slots: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let found = self.find(key);
        if found.is_some_and(|index| !self.keys[index as usize].part) {
            return;
        }
        let index = found.unwrap_or_else(|| {
            let index = self.insert_key(key);
            // Nothing of it was written here.
            self.keys[index as usize].written = 0;
            index
        });
        let gone = self.cold.as_mut().and_then(|cold| cold.gone.remove(&index));
        let gone = gone.unwrap_or_default();
        let entry = &mut self.keys[index as usize];
        entry.part = false;
        entry.used = true;
        for (name, value) in slots {
            if gone.contains(name) {
                continue;
            }
            if let Err(at) = position(&entry.slots, name) {
                entry.slots.insert(at, Slot { name: Value::new(name), value: Value::new(value) });
                entry.bytes += name.len() + value.len();
                self.bytes += name.len() + value.len() + SLOT_OVERHEAD;
            }
        }
    }

    /// Ends the epoch: what is written from now on belongs to the next. Gives the one that ended.
    /// Between batches: what is not committed may not be among what the store is said to have.
    pub fn next_epoch(&mut self) -> u32 {
        assert!(self.undo.is_empty(), "an epoch ends between batches");
        self.epoch += 1;
        self.epoch - 1
    }

    /// The store has all writes up to this epoch.
    pub fn kept(&mut self, epoch: u32) {
        let Some(cold) = &mut self.cold else { return };
        cold.kept = cold.kept.max(epoch);
        cold.in_vain = 0;
        while let Some(index) = self.cold.as_mut().and_then(|cold| cold.buried.front().copied()) {
            if self.is_fresh(index) {
                break;
            }
            if let Some(cold) = &mut self.cold {
                cold.buried.pop_front();
            }
            self.remove_if_empty(index);
        }
    }

    /// Lets keys leave until at most `bytes` are held, those that were not asked for lately first.
    /// Stops after a bounded piece of work; what the store has not yet cannot leave. Between
    /// batches. True if there is more that may leave.
    pub fn make_room(&mut self, bytes: usize) -> bool {
        assert!(self.undo.is_empty(), "keys leave between batches");
        let Some(cold) = &self.cold else { return false };
        let (mut at, mut in_vain) = (cold.hand, cold.in_vain);
        let before = self.bytes;
        for _ in 0..LOOKS.min(2 * self.keys.len()) {
            if self.bytes <= bytes {
                break;
            }
            at = if at + 1 < self.keys.len() { at + 1 } else { 0 };
            let entry = &mut self.keys[at];
            let spared = std::mem::take(&mut entry.used);
            in_vain += 1;
            if !entry.vacant && !spared && !self.is_fresh(at as u32) {
                self.remove_key(at as u32);
                in_vain = 0;
            }
        }
        if self.table.is_empty() {
            // Everything left: give the tables back as well.
            (self.keys, self.free) = (Vec::new(), Vec::new());
            self.table.shrink_to_fit(|_| 0);
        }
        // Each was looked at twice: the first look takes away the mark of having been asked for.
        let is_all = in_vain >= 2 * self.keys.len();
        if let Some(cold) = &mut self.cold {
            cold.hand = at;
            cold.in_vain = if is_all { 0 } else { in_vain };
            cold.whole &= self.bytes == before;
        }
        self.bytes > bytes && !is_all
    }

    /// True if nothing was written that the store has not.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let kept = self.cold.as_ref().map_or(0, |cold| cold.kept);
        self.keys.iter().all(|key| key.vacant || key.written <= kept)
    }

    /// True if the last write of a key is not in the store.
    fn is_fresh(&self, index: u32) -> bool {
        let kept = self.cold.as_ref().map_or(0, |cold| cold.kept);
        let entry = &self.keys[index as usize];
        !entry.vacant && entry.written > kept
    }

    /// Keeps an emptied key until its end is in the store.
    pub(super) fn bury(&mut self, index: u32) {
        let entry = &self.keys[index as usize];
        if entry.vacant || !entry.slots.is_empty() {
            return;
        }
        match (self.is_fresh(index), &mut self.cold) {
            (true, Some(cold)) => cold.buried.push_back(index),
            _ => self.remove_if_empty(index),
        }
    }

    /// A key that is to hold what was found in the log.
    pub(super) fn find_to_restore(&mut self, key: &[u8]) -> u32 {
        let whole = self.is_whole();
        let index = self.find(key).unwrap_or_else(|| {
            let index = self.insert_key(key);
            self.keys[index as usize].part = !whole;
            index
        });
        self.keys[index as usize].written = self.epoch;
        index
    }

    /// A slot of a part key is gone.
    pub(super) fn note_gone(&mut self, index: u32, slot: &[u8]) {
        let part = self.keys[index as usize].part;
        let Some(cold) = self.cold.as_mut().filter(|_| part) else { return };
        cold.gone.entry(index).or_default().insert(slot.into());
    }

    /// A slot of a key is there again.
    pub(super) fn unearth(&mut self, index: u32, slot: &[u8]) {
        let Some(cold) = self.cold.as_mut().filter(|cold| !cold.gone.is_empty()) else { return };
        if let Some(gone) = cold.gone.get_mut(&index) {
            gone.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests;
