//! State that is larger than the memory it may take.
//!
//! ```text
//! lacks(key)? ─► (the store is read) ─► load(key, slots) ─► calls ─► commit ─► make_room
//! ```
//!
//! - A state is *whole* while all of it is here. Then a key that is not here does not exist, and
//!   nothing in this file costs anything. A state is whole until its first key leaves.
//! - A key is here with all its slots or not at all.
//! - Only what can be loaded again as it is may leave. Writes belong to a *period*, and whoever
//!   makes checkpoints says which periods are kept.
//! - A key that lost its last slot stays, empty, until its end is kept; the store would otherwise
//!   give it back.
//!
//! What is read when, and how much memory there is, is for the worker and the tenant's quota.

use std::collections::VecDeque;

use super::{KeyedState, SLOT_OVERHEAD, Slot, Value, position};

/// Keys looked at in one go when room is made: some microseconds.
const LOOKS: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Cold {
    /// Nothing of this state is in the store alone.
    whole: bool,
    /// Writes of this period and before are in the store.
    pub(super) kept: u32,
    /// Emptied keys, the oldest first.
    buried: VecDeque<u32>,
    /// Where room is made next.
    hand: usize,
    /// Keys looked at since one could leave.
    in_vain: usize,
}

impl KeyedState {
    /// Puts a store behind the state; `whole` says that all there is of it is here.
    pub fn back(&mut self, whole: bool) {
        if self.cold.is_none() {
            let buried = VecDeque::new();
            self.cold = Some(Box::new(Cold { whole, kept: 0, buried, hand: 0, in_vain: 0 }));
            self.period = 1;
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
        false
    }

    /// True if a key is here, be it as one that was emptied. It does not count as asked for.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Takes what the store has of a key. One that is here stays as it is.
    pub fn load<'a>(&mut self, key: &[u8], slots: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        if self.find(key).is_some() {
            return;
        }
        let index = self.insert_key(key);
        let entry = &mut self.keys[index as usize];
        // Nothing of it was written here.
        entry.written = 0;
        for (name, value) in slots {
            if let Err(at) = position(&entry.slots, name) {
                self.expiry.stamped |= name == super::STAMP;
                entry.insert(at, Slot { name: Value::new(name), value: Value::new(value) });
                entry.bytes += name.len() + value.len();
                self.bytes += name.len() + value.len() + SLOT_OVERHEAD;
            }
        }
    }

    /// Ends the period: what is written from now on belongs to the next. Gives the one that ended.
    /// Between batches: what is not committed may not be among what the store is said to have.
    pub fn next_period(&mut self) -> u32 {
        assert!(self.undo.is_empty(), "a period ends between batches");
        self.period += 1;
        self.period - 1
    }

    /// The store has all writes up to this period.
    pub fn kept(&mut self, period: u32) {
        let Some(cold) = &mut self.cold else { return };
        cold.kept = cold.kept.max(period);
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
}

#[cfg(test)]
mod tests;
