//! What changed since the last checkpoint: absolute puts and deletes of one partition.
//!
//! - A change is one insert into a hash table and one copy; a later change of a key replaces the
//!   earlier one, in place where it fits. Nothing is in order until a checkpoint wants it so.
//! - [`Dirty::freeze`] sets what there is aside for the checkpoint and goes on with nothing. It
//!   costs the worker a pointer; sorting is done by who writes the checkpoint.
//! - [`Dirty::get`] looks through the active part, then the frozen ones, newest first. What it
//!   does not find is in the store.
//! - Growing is spread over sixteen parts, so that no single change pays for all of it.
//! - Tables are seeded by the caller, so that a tenant cannot choose keys that collide.
//!
//! Leaves to others: what keys mean (`store::keys`), when to freeze (by [`Dirty::bytes`] or by
//! time), and not to let go of frozen parts before their checkpoint is committed.

mod ahead;
mod part;

pub use ahead::Ahead;

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::priority::Stretches;
use part::Part;

/// Parts of a map. A power of two.
const PARTS: usize = 16;
/// Bits of a place in an order that number the entry; the others number the part.
const ENTRY_BITS: u32 = 28;

/// What is known of a key since the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'a> {
    /// It has this value.
    Value(&'a [u8]),
    /// It was deleted.
    Deleted,
}

/// The changes of a partition that are in no checkpoint yet.
#[derive(Debug)]
pub struct Dirty {
    seed: u64,
    active: Changes,
    /// Oldest first: more than one only while a checkpoint that failed has not been made up for.
    frozen: Vec<Arc<Changes>>,
}

impl Dirty {
    /// No changes. `seed` should be secret and differ between partitions.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, active: Changes::new(seed), frozen: Vec::new() }
    }

    /// The key has this value now.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.active.change(key, Some(value));
    }

    /// The key has no value now.
    #[inline]
    pub fn delete(&mut self, key: &[u8]) {
        self.active.change(key, None);
    }

    /// What is known of a key; `None` if it did not change.
    #[inline]
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Known<'_>> {
        let hash = xxh3_64_with_seed(key, self.seed);
        let older = || self.frozen.iter().rev().find_map(|changes| changes.get(hash, key));
        self.active.get(hash, key).or_else(older)
    }

    /// Sets the changes aside, and gives all that were set aside and not let go, oldest first.
    pub fn freeze(&mut self) -> Vec<Arc<Changes>> {
        if !self.active.is_empty() {
            let active = std::mem::replace(&mut self.active, Changes::new(self.seed));
            self.frozen.push(Arc::new(active));
        }
        self.frozen.clone()
    }

    /// Lets go of all that was set aside: its checkpoint is committed.
    pub fn release(&mut self) {
        self.frozen.clear();
    }

    /// Bytes of memory that all changes take, those set aside included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.active.bytes() + self.frozen.iter().map(|changes| changes.bytes()).sum::<usize>()
    }

    /// Keys and values of the changes that are not set aside: what the next checkpoint writes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.active.payload_bytes()
    }
}

/// Changes that were set aside together, one for each key.
#[derive(Debug)]
pub struct Changes {
    seed: u64,
    parts: [Part; PARTS],
}

impl Changes {
    fn new(seed: u64) -> Self {
        Self { seed, parts: std::array::from_fn(|_| Part::default()) }
    }

    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = xxh3_64_with_seed(key, self.seed);
        self.parts[part_of(hash)].change(hash, key, value);
    }

    /// What is known of a key; `None` if it did not change.
    pub(crate) fn known(&self, key: &[u8]) -> Option<Known<'_>> {
        self.get(xxh3_64_with_seed(key, self.seed), key)
    }

    fn get(&self, hash: u64, key: &[u8]) -> Option<Known<'_>> {
        self.parts[part_of(hash)].get(hash, key)
    }

    /// Keys that changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// True if nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.len() == 0)
    }

    /// Each key that changed, in the order of keys, with its value; `None` if it was deleted.
    pub fn each(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.order().into_iter().map(|position| self.entry(position))
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.parts.iter().map(Part::payload_bytes).sum()
    }

    /// The places of all entries, in the order of their keys.
    pub(crate) fn order(&self) -> Vec<Position> {
        // Keys of one partition begin alike. What follows is compared as a number first, which
        // spares most looks at the keys themselves.
        let shared = self.shared_start();
        let mut order = Vec::with_capacity(self.len());
        for (number, part) in self.parts.iter().enumerate() {
            let high = (number as u32) << ENTRY_BITS;
            order.extend((0..part.len() as u32).map(|entry| {
                let position = Position(high | entry);
                (number_of(self.entry(position).0, shared), position)
            }));
        }
        let mut stretches = Stretches::begin();
        order.sort_unstable_by(|(a, a_at), (b, b_at)| {
            stretches.step();
            a.cmp(b).then_with(|| self.entry(*a_at).0.cmp(self.entry(*b_at).0))
        });
        order.into_iter().map(|(_, position)| position).collect()
    }

    /// Bytes that all keys begin with.
    fn shared_start(&self) -> usize {
        let mut keys = self.parts.iter().flat_map(Part::keys);
        let Some(first) = keys.next() else { return 0 };
        keys.fold(first.len(), |shared, key| {
            let same = |(at, byte): (usize, &u8)| key.get(at) != Some(byte);
            first[..shared].iter().enumerate().position(same).unwrap_or(shared)
        })
    }

    /// The key and the value at a place.
    #[inline]
    pub(crate) fn entry(&self, position: Position) -> (&[u8], Option<&[u8]>) {
        let part = &self.parts[(position.0 >> ENTRY_BITS) as usize];
        part.entry(position.0 & ((1 << ENTRY_BITS) - 1))
    }
}

/// Which entry of some changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position(u32);

/// The table uses the highest and the lowest bits of a hash; these are between.
#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

/// Eight bytes of the key after those all keys share, as a number of the same order.
fn number_of(key: &[u8], shared: usize) -> u64 {
    let mut bytes = [0; 8];
    let rest = &key[shared.min(key.len())..];
    let length = rest.len().min(8);
    bytes[..length].copy_from_slice(&rest[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn listed(changes: &Changes) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        changes.each().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
    }

    fn change() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
        let key = prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xFF]), 0..12);
        let value = (any::<u8>(), prop::sample::select(vec![0, 1, 7, 100, 5_000]))
            .prop_map(|(byte, length)| vec![byte; length]);
        (key, prop::option::weighted(0.8, value))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_a_map_of_the_last_changes(
            rounds in prop::collection::vec(prop::collection::vec(change(), 0..60), 1..4),
        ) {
            let mut dirty = Dirty::new(7);
            let mut all = BTreeMap::new();
            for changes in rounds {
                let mut round = BTreeMap::new();
                for (key, value) in changes {
                    match &value {
                        Some(value) => dirty.put(&key, value),
                        None => dirty.delete(&key),
                    }
                    round.insert(key, value);
                }
                all.extend(round.clone());
                for (key, value) in &all {
                    let known = value.as_deref().map_or(Known::Deleted, Known::Value);
                    prop_assert_eq!(dirty.get(key), Some(known));
                }
                let payload = round.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len));
                prop_assert_eq!(dirty.payload_bytes(), payload.sum::<usize>());
                let before = dirty.freeze().len();
                prop_assert_eq!(dirty.payload_bytes(), 0);
                if let Some(last) = dirty.freeze().last().filter(|_| !round.is_empty()) {
                    prop_assert_eq!(listed(last), round.into_iter().collect::<Vec<_>>());
                }
                prop_assert_eq!(dirty.freeze().len(), before, "nothing new to set aside");
            }
            dirty.release();
            prop_assert!(all.keys().all(|key| dirty.get(key).is_none()));
            prop_assert_eq!(dirty.bytes(), 0);
        }
    }

    #[test]
    fn memory_is_counted_and_bounded_by_what_is_kept() {
        let mut dirty = Dirty::new(1);
        for round in 0..50_u32 {
            for key in 0..2_000_u32 {
                dirty.put(&key.to_be_bytes(), &[round as u8; 96]);
            }
        }
        let payload = 2_000 * 100;
        assert_eq!(dirty.payload_bytes(), payload);
        assert!((payload..payload * 4).contains(&dirty.bytes()), "{} bytes", dirty.bytes());
        // Values that grow leave room behind, which is made good before it is as much as is kept.
        let mut growing = Dirty::new(1);
        for length in 0..2_000 {
            growing.put(b"key", &vec![0; length]);
        }
        assert!(growing.bytes() < 64 * 1024, "{} bytes for one key", growing.bytes());
    }

    #[test]
    fn frozen_changes_are_read_by_another_thread() {
        let mut dirty = Dirty::new(1);
        dirty.put(b"k", b"1");
        let frozen = dirty.freeze();
        let reader = std::thread::spawn(move || listed(&frozen[0]));
        dirty.put(b"k", b"2");
        assert_eq!(dirty.get(b"k"), Some(Known::Value(b"2")));
        assert_eq!(reader.join().unwrap(), [(b"k".to_vec(), Some(b"1".to_vec()))]);
        dirty.delete(b"k");
        assert_eq!(dirty.get(b"k"), Some(Known::Deleted));
    }
}
