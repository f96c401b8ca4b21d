//! Keyed state of one stage in one partition, with writes that can be taken back.
//!
//! - A write is visible at once and stands only after [`KeyedState::commit`]; everything since the
//!   last commit or [`Mark`] can be rolled back, exactly.
//! - A key's slots are kept in byte order of their names.
//! - Bytes are counted for each key and in all; a write over a bound changes nothing.
//! - The hash table is never iterated, and its hash is seeded by the caller, so that a tenant
//!   cannot choose keys that collide.
//! - With a store behind it a state may be larger than memory (`cold`): keys leave and come back
//!   between calls, so a call finds all slots of the keys of its events here.
//! - Keys may go by themselves (`expiry`), and the host may keep slots of its own beside a stage's
//!   (`hosted`). What a stage reads and writes is told apart from both.
//!
//! Which key a stage may touch is decided in [`crate::layer`]; what a batch changed is read off by
//! `changes`; keeping it over a restart is the business of the log and the store.

mod changes;
mod cold;
mod expiry;
mod hosted;
mod keys;
mod moving;
mod scan;
mod value;

pub use changes::{Change, Scratch};
pub use expiry::{Looked, STAMP, Ttl};
pub use hosted::HOSTED;
pub use moving::redistribute;
pub use value::Value;

use std::cell::Cell;

use cold::Cold;
use expiry::Expiry;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::SLOT_BYTES_MAX;

/// What a slot costs besides its name and value; keeps millions of empty slots from being free.
const SLOT_OVERHEAD: usize = 48;
/// The same for a key.
const KEY_OVERHEAD: usize = 64;

/// Bounds of one [`KeyedState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateLimits {
    /// All slots of one key, names and values.
    pub key_bytes: usize,
    /// Everything in this state, overheads included.
    pub total_bytes: usize,
}

impl StateLimits {
    /// No bounds.
    pub const NONE: Self = Self { key_bytes: usize::MAX, total_bytes: usize::MAX };
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The slot name is too long.
    #[error("a slot name has at most 64 bytes")]
    SlotName,
    /// `add` on something that is no counter.
    #[error("the slot holds {0} bytes, a counter has 8")]
    NotACounter(usize),
    /// The key would hold too much.
    #[error("the key's state would have {wanted} bytes, its limit is {limit} (limits.state-bytes)")]
    KeyFull {
        /// Bytes it would have.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
    /// The partition would hold too much.
    #[error("the partition's state would have {wanted} bytes, its limit is {limit}")]
    Full {
        /// Bytes it would have.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
}

/// A point to roll back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

#[derive(Debug)]
struct Slot {
    name: Value,
    value: Value,
}

/// The key that was found last, and where its name lay with whoever asked. Operations on a key come
/// one behind the other and name it by the same bytes of their call's frame; its place is then
/// known without the hash. What is believed is the name that is stored, not the address.
#[derive(Debug, Clone, Copy, Default)]
struct Near {
    address: usize,
    index: u32,
}

#[derive(Debug)]
struct Key {
    name: Box<[u8]>,
    hash: u64,
    slots: Vec<Slot>,
    /// Names and values of the slots.
    bytes: usize,
    /// The period of the last write.
    written: u32,
    /// A call asked for it since it was last looked at for making room.
    used: bool,
    /// Nothing is here: the place is on the list of free ones.
    vacant: bool,
}

/// How to take one write back. Applied in reverse order, so that indices fit.
#[derive(Debug)]
enum Undo {
    Replaced { key: u32, slot: u32, old: Value },
    Inserted { key: u32, slot: u32 },
    Removed { key: u32, slot: u32, old: Slot },
}

/// See the module.
#[derive(Debug)]
pub struct KeyedState {
    seed: u64,
    limits: StateLimits,
    table: HashTable<u32>,
    near: Cell<Near>,
    keys: Vec<Key>,
    /// Places in `keys` to use again.
    free: Vec<u32>,
    undo: Vec<Undo>,
    /// Keys that lost their last slot since the last commit.
    emptied: Vec<u32>,
    bytes: usize,
    /// Grows with each checkpoint; tells which writes the store has.
    period: u32,
    /// What a store behind this state needs; `None` if all there is is in memory.
    cold: Option<Box<Cold>>,
    expiry: Expiry,
    /// The host may keep slots beside the stage's.
    hosted: bool,
    /// A write was refused because of what other keys hold.
    full: bool,
}

impl KeyedState {
    /// Empty state. `seed` should be secret and differ between partitions.
    #[must_use]
    pub fn new(seed: u64, limits: StateLimits) -> Self {
        Self {
            seed,
            limits,
            table: HashTable::new(),
            near: Cell::default(),
            keys: Vec::new(),
            free: Vec::new(),
            undo: Vec::new(),
            emptied: Vec::new(),
            bytes: 0,
            period: 0,
            cold: None,
            expiry: Expiry::default(),
            hosted: false,
            full: false,
        }
    }

    /// Bytes held, overheads included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the bound on everything in this state. What is there stays, even beyond it.
    pub fn bound_total(&mut self, total_bytes: usize) {
        self.limits.total_bytes = total_bytes;
    }

    /// True if since this was last asked a write was refused because of what other keys hold.
    pub fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> StateLimits {
        self.limits
    }

    /// Sets other bounds. What is there stays, even beyond them.
    pub fn set_limits(&mut self, limits: StateLimits) {
        self.limits = limits;
    }

    /// Number of keys, those of writes not committed included.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.table.len()
    }

    /// The value of a slot.
    #[must_use]
    pub fn get(&self, key: &[u8], slot: &[u8]) -> Option<&[u8]> {
        let entry = &self.keys[self.find(key)? as usize];
        if self.is_over(entry) {
            return None;
        }
        let at = position(&entry.slots, slot).ok()?;
        Some(entry.slots[at].value.as_slice())
    }

    /// Sets a slot.
    ///
    /// # Errors
    /// The write would break a bound; nothing changed that could be read.
    pub fn put(&mut self, key: &[u8], slot: &[u8], value: &[u8]) -> Result<(), Refusal> {
        if slot.len() > SLOT_BYTES_MAX {
            return Err(Refusal::SlotName);
        }
        let index = self.find(key);
        if let Some(index) = index.filter(|i| self.is_over(&self.keys[*i as usize])) {
            self.clear_over(index);
        }
        let entry = index.map(|i| &self.keys[i as usize]);
        let at = entry.map_or(Err(0), |entry| position(&entry.slots, slot));
        let used = entry.map_or(0, |entry| self.paid_bytes(entry));
        let old = match (entry, at) {
            (Some(entry), Ok(at)) => slot.len() + entry.slots[at].value.len(),
            _ => 0,
        };
        let overhead = if at.is_err() { SLOT_OVERHEAD } else { 0 }
            + if index.is_none() { KEY_OVERHEAD + key.len() } else { 0 };
        let admitted = self.admit(used + slot.len() + value.len() - old, used, overhead);
        self.full |= matches!(admitted, Err(Refusal::Full { .. }));
        admitted?;
        let index = index.unwrap_or_else(|| self.insert_key(key));
        let value = Value::new(value);
        match at {
            Ok(at) => self.replace_slot(index, at, value),
            Err(at) => self.insert_slot(index, at, Slot { name: Value::new(slot), value }),
        }
        self.wrote(index);
        Ok(())
    }

    /// Adds to a counter of 8 bytes, little-endian, wrapping around; an absent one counts as 0.
    ///
    /// # Errors
    /// The slot holds something else, or the write would break a bound; nothing changed that could
    /// be read.
    #[inline]
    pub fn add(&mut self, key: &[u8], slot: &[u8], delta: i64) -> Result<i64, Refusal> {
        if let Some(index) = self.find(key).filter(|i| !self.is_over(&self.keys[*i as usize])) {
            let entry = &self.keys[index as usize];
            if let Ok(at) = position(&entry.slots, slot) {
                let value = &entry.slots[at].value;
                let old = value.as_counter().ok_or(Refusal::NotACounter(value.len()))?;
                let new = old.wrapping_add(delta);
                self.replace_slot(index, at, Value::counter(new));
                self.wrote(index);
                return Ok(new);
            }
        }
        self.put(key, slot, &delta.to_le_bytes())?;
        Ok(delta)
    }

    /// Removes a slot; true if there was one.
    pub fn delete(&mut self, key: &[u8], slot: &[u8]) -> bool {
        let Some(index) = self.find(key) else { return false };
        let entry = &self.keys[index as usize];
        let Ok(at) = position(&entry.slots, slot) else { return false };
        if self.is_over(entry) {
            return false;
        }
        self.remove_slot(index, at);
        self.wrote(index);
        true
    }

    /// Removes every slot of a key. Used when a stream ends; committed like any write.
    pub fn clear_key(&mut self, key: &[u8]) {
        let Some(index) = self.find(key) else { return };
        while let Some(last) = self.keys[index as usize].slots.len().checked_sub(1) {
            self.remove_slot(index, last);
        }
    }

    /// Where the writes stand now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Takes back every write since `mark`, which must be of this batch.
    pub fn rollback(&mut self, mark: Mark) {
        self.expiry.roll_back(mark.0);
        while self.undo.len() > mark.0 {
            match self.undo.pop() {
                Some(Undo::Replaced { key, slot, old }) => {
                    let entry = &mut self.keys[key as usize];
                    let new = std::mem::replace(&mut entry.slots[slot as usize].value, old);
                    let back = entry.slots[slot as usize].value.len();
                    entry.bytes = entry.bytes + back - new.len();
                    self.bytes = self.bytes + back - new.len();
                }
                Some(Undo::Inserted { key, slot }) => {
                    let entry = &mut self.keys[key as usize];
                    let gone = entry.slots.remove(slot as usize);
                    entry.bytes -= gone.name.len() + gone.value.len();
                    self.bytes -= gone.name.len() + gone.value.len() + SLOT_OVERHEAD;
                    if entry.slots.is_empty() {
                        self.emptied.push(key);
                    }
                }
                Some(Undo::Removed { key, slot, old }) => {
                    let entry = &mut self.keys[key as usize];
                    entry.bytes += old.name.len() + old.value.len();
                    self.bytes += old.name.len() + old.value.len() + SLOT_OVERHEAD;
                    entry.insert(slot as usize, old);
                }
                None => return,
            }
        }
    }

    /// Takes back every write since the last commit.
    pub fn rollback_all(&mut self) {
        self.rollback(Mark(0));
        self.commit();
    }

    /// Makes every write since the last commit stand.
    pub fn commit(&mut self) {
        self.undo.clear();
        self.expiry.commit();
        while let Some(index) = self.emptied.pop() {
            match self.cold {
                None => self.remove_if_empty(index),
                Some(_) => self.bury(index),
            }
        }
    }

    /// Gives a slot that is there another value, for now.
    #[inline]
    fn replace_slot(&mut self, index: u32, at: usize, value: Value) {
        let entry = &mut self.keys[index as usize];
        entry.written = self.period;
        let slot = &mut entry.slots[at].value;
        let (new, old) = (value.len(), slot.len());
        let old_value = std::mem::replace(slot, value);
        entry.bytes = entry.bytes + new - old;
        self.bytes = self.bytes + new - old;
        self.undo.push(Undo::Replaced { key: index, slot: at as u32, old: old_value });
    }

    /// Adds a slot in its place, for now.
    fn insert_slot(&mut self, index: u32, at: usize, slot: Slot) {
        let entry = &mut self.keys[index as usize];
        entry.written = self.period;
        let bytes = slot.name.len() + slot.value.len();
        entry.bytes += bytes;
        self.bytes += bytes + SLOT_OVERHEAD;
        entry.insert(at, slot);
        self.undo.push(Undo::Inserted { key: index, slot: at as u32 });
    }

    /// Removes a slot, for now.
    fn remove_slot(&mut self, index: u32, at: usize) {
        let entry = &mut self.keys[index as usize];
        let old = entry.slots.remove(at);
        let freed = old.name.len() + old.value.len();
        entry.written = self.period;
        entry.bytes -= freed;
        self.bytes -= freed + SLOT_OVERHEAD;
        if entry.slots.is_empty() {
            self.emptied.push(index);
        }
        self.undo.push(Undo::Removed { key: index, slot: at as u32, old });
    }

    /// Bytes of a key that its stage pays for.
    #[inline]
    fn paid_bytes(&self, key: &Key) -> usize {
        key.bytes - if self.hosted { self.hosted_bytes(key) } else { self.stamp_bytes(key) }
    }

    /// Checks the bounds for a key that would hold `wanted` bytes where it held `used`, and take
    /// `overhead` more.
    fn admit(&self, wanted: usize, used: usize, overhead: usize) -> Result<(), Refusal> {
        if wanted > self.limits.key_bytes {
            return Err(Refusal::KeyFull { wanted, limit: self.limits.key_bytes });
        }
        let total = self.bytes + overhead + wanted - used;
        if total > self.limits.total_bytes && wanted + overhead > used {
            return Err(Refusal::Full { wanted: total, limit: self.limits.total_bytes });
        }
        Ok(())
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<u32> {
        let Near { address, index } = self.near.get();
        if address == key.as_ptr().addr() && self.is_at(key, index) {
            return Some(index);
        }
        let hash = xxh3_64_with_seed(key, self.seed);
        let index = self.table.find(hash, |i| *self.keys[*i as usize].name == *key).copied()?;
        self.near.set(Near { address: key.as_ptr().addr(), index });
        Some(index)
    }

    /// Whether this key has this place.
    fn is_at(&self, key: &[u8], index: u32) -> bool {
        self.keys.get(index as usize).is_some_and(|at| !at.vacant && *at.name == *key)
    }

    fn insert_key(&mut self, name: &[u8]) -> u32 {
        let hash = xxh3_64_with_seed(name, self.seed);
        let key = Key {
            name: name.into(),
            hash,
            slots: Vec::new(),
            bytes: 0,
            written: self.period,
            used: true,
            vacant: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.keys[index as usize] = key;
                index
            }
            None => {
                self.keys.push(key);
                (self.keys.len() - 1) as u32
            }
        };
        self.bytes += KEY_OVERHEAD + name.len();
        self.table.insert_unique(hash, index, |i| self.keys[*i as usize].hash);
        index
    }

    /// An emptied key may have been filled again, or be listed twice.
    fn remove_if_empty(&mut self, index: u32) {
        let entry = &self.keys[index as usize];
        if entry.slots.is_empty() && !entry.vacant {
            self.remove_key(index);
        }
    }

    /// Takes a key out with all it has.
    fn remove_key(&mut self, index: u32) {
        let entry = &mut self.keys[index as usize];
        let Ok(found) = self.table.find_entry(entry.hash, |i| *i == index) else { return };
        found.remove();
        self.bytes -= KEY_OVERHEAD + entry.name.len();
        self.bytes -= entry.bytes + entry.slots.len() * SLOT_OVERHEAD;
        entry.name = Box::default();
        entry.slots = Vec::new();
        entry.bytes = 0;
        entry.vacant = true;
        self.free.push(index);
    }
}

/// Where a slot is, or where it would be. Few slots a key is the common case: one, or one and a
/// stamp.
#[inline]
fn position(slots: &[Slot], name: &[u8]) -> Result<usize, usize> {
    match slots {
        [first] | [first, _] if first.name.as_slice() == name => Ok(0),
        _ => slots.binary_search_by(|slot| slot.name.as_slice().cmp(name)),
    }
}

#[cfg(test)]
mod tests;
