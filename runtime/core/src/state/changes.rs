//! What a batch changed, read off before it is committed, and changes put back after a restart.
//!
//! - A slot that was changed is given out once, with the value it has now, or as removed. One that
//!   was changed and changed back may be given out too. Slots that were not touched are not.
//! - Writing costs nothing for it: the changes are found from the undo log, whose entries name a
//!   slot by where it was at the time. Where slots came or went since, a tree over those alive
//!   tells which one that is, in as many steps as the logarithm of their number.
//! - Changes come in an order that follows from the history of this state alone: key by key, and
//!   within a key by slot name.
//! - What was committed once can always be put back, whatever the bounds are now.

use super::{Key, KeyedState, SLOT_OVERHEAD, Slot, Undo, Value, position};

/// One slot as a batch left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The slot's name.
    pub slot: &'a [u8],
    /// The value it has now; `None` if it is gone.
    pub value: Option<&'a [u8]>,
}

/// Memory for [`KeyedState::changes`], to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Entries of the undo log, ordered by key: the key's index above, the entry's below.
    entries: Vec<u64>,
    /// Slots of one key that were touched.
    touched: Vec<u32>,
    /// Slots of one key that are gone: the entry that removed it, and where among those that are
    /// there it would be.
    gone: Vec<(u32, u32)>,
    alive: Alive,
}

impl KeyedState {
    /// Gives out every slot that was changed since the last commit.
    pub fn changes(&self, scratch: &mut Scratch, mut each: impl FnMut(Change<'_>)) {
        let mut entries = std::mem::take(&mut scratch.entries);
        entries.clear();
        let of_key = |(at, undo): (usize, &Undo)| u64::from(undo.key()) << 32 | at as u64;
        entries.extend(self.undo.iter().enumerate().map(of_key));
        entries.sort_unstable();
        for group in entries.chunk_by(|a, b| a >> 32 == b >> 32) {
            let Some(first) = group.first() else { continue };
            let key = &self.keys[(first >> 32) as usize];
            let undo = group.iter().map(|entry| &self.undo[(entry & 0xFFFF_FFFF) as usize]);
            scratch.touched.clear();
            let mut stable = true;
            for entry in undo {
                match entry {
                    Undo::Replaced { slot, .. } => scratch.touched.push(*slot),
                    Undo::Inserted { .. } | Undo::Removed { .. } => stable = false,
                }
            }
            scratch.gone.clear();
            if !stable {
                self.trace(key, group, scratch);
            }
            self.give(key, scratch, &mut each);
        }
        scratch.entries = entries;
    }

    /// Sets a slot to what was committed once. Bounds do not hold, and it cannot be taken back:
    /// there must be no write that still can.
    pub fn restore(&mut self, key: &[u8], slot: &[u8], value: &[u8]) {
        assert!(self.undo.is_empty(), "state is restored between batches");
        self.note_slot(slot);
        let index = self.find(key).unwrap_or_else(|| self.insert_key(key));
        let entry = &mut self.keys[index as usize];
        match position(&entry.slots, slot) {
            Ok(at) => {
                let old = std::mem::replace(&mut entry.slots[at].value, Value::new(value));
                entry.bytes = entry.bytes + value.len() - old.len();
                self.bytes = self.bytes + value.len() - old.len();
            }
            Err(at) => {
                entry.insert(at, Slot { name: Value::new(slot), value: Value::new(value) });
                entry.bytes += slot.len() + value.len();
                self.bytes += slot.len() + value.len() + SLOT_OVERHEAD;
            }
        }
    }

    /// Removes a slot for good, as [`KeyedState::restore`] sets one.
    pub fn forget(&mut self, key: &[u8], slot: &[u8]) {
        assert!(self.undo.is_empty(), "state is restored between batches");
        let Some(index) = self.find(key) else { return };
        if let Ok(at) = position(&self.keys[index as usize].slots, slot) {
            self.remove_slot(index, at);
            self.commit();
        }
    }

    /// Finds which slots the entries of a key are about, where slots came or went. What it writes
    /// to `touched` are places among all slots the key had at any time of the batch, by name.
    fn trace(&self, key: &Key, group: &[u64], scratch: &mut Scratch) {
        let Scratch { touched, gone, alive, .. } = scratch;
        for entry in group {
            let entry = *entry as u32;
            if let Undo::Removed { old, .. } = &self.undo[entry as usize]
                && let Err(before) = position(&key.slots, old.name.as_slice())
            {
                gone.push((entry, before as u32));
            }
        }
        gone.sort_unstable_by(|a, b| self.removed(a.0).cmp(self.removed(b.0)));
        gone.dedup_by(|a, b| self.removed(a.0) == self.removed(b.0));
        alive.fill(key.slots.len() + gone.len());
        for (at, (_, before)) in gone.iter().enumerate() {
            alive.set(*before as usize + at, false);
        }
        touched.clear();
        for entry in group.iter().rev() {
            match &self.undo[*entry as u32 as usize] {
                Undo::Replaced { slot, .. } => touched.push(alive.nth(*slot) as u32),
                Undo::Inserted { slot, .. } => {
                    let at = alive.nth(*slot);
                    touched.push(at as u32);
                    alive.set(at, false);
                }
                Undo::Removed { old, .. } => {
                    let at = self.place_of(key, gone, old.name.as_slice());
                    touched.push(at as u32);
                    alive.set(at, true);
                }
            }
        }
    }

    /// Where a slot is among all slots the key had.
    fn place_of(&self, key: &Key, gone: &[(u32, u32)], name: &[u8]) -> usize {
        match gone.binary_search_by(|(entry, _)| self.removed(*entry).cmp(name)) {
            Ok(at) => gone[at].1 as usize + at,
            Err(before) => key.slots.partition_point(|slot| slot.name.as_slice() < name) + before,
        }
    }

    /// The name of the slot an entry removed.
    fn removed(&self, entry: u32) -> &[u8] {
        match &self.undo[entry as usize] {
            Undo::Removed { old, .. } => old.name.as_slice(),
            Undo::Replaced { .. } | Undo::Inserted { .. } => &[],
        }
    }

    /// Gives out the touched slots of a key, each once.
    fn give(&self, key: &Key, scratch: &mut Scratch, each: &mut impl FnMut(Change<'_>)) {
        let Scratch { touched, gone, .. } = scratch;
        touched.sort_unstable();
        touched.dedup();
        let mut left = gone.iter().enumerate().peekable();
        let mut passed = 0;
        for place in touched.iter() {
            let at_or_before =
                |(at, (_, before)): &(usize, &(u32, u32))| *before + *at as u32 <= *place;
            let mut last = None;
            while let Some((at, (entry, before))) = left.next_if(at_or_before) {
                passed += 1;
                last = Some((*before + at as u32, *entry));
            }
            match last {
                Some((at, entry)) if at == *place => {
                    each(Change { key: &key.name, slot: self.removed(entry), value: None });
                }
                _ => {
                    let slot = &key.slots[(*place - passed) as usize];
                    let (name, value) = (slot.name.as_slice(), slot.value.as_slice());
                    each(Change { key: &key.name, slot: name, value: Some(value) });
                }
            }
        }
    }
}

impl Undo {
    fn key(&self) -> u32 {
        match self {
            Self::Replaced { key, .. } | Self::Inserted { key, .. } | Self::Removed { key, .. } => {
                *key
            }
        }
    }
}

/// Which of a number of places are taken, and the n-th of those: a Fenwick tree.
#[derive(Debug, Default)]
struct Alive {
    /// At `i`, how many of the places that end before `i` are taken, in a range as long as the
    /// lowest bit of `i`. The first is not used.
    sums: Vec<u32>,
}

impl Alive {
    /// So many places, all taken.
    fn fill(&mut self, places: usize) {
        self.sums.clear();
        self.sums.extend((0..=places).map(|i| (i & i.wrapping_neg()) as u32));
    }

    /// Takes a place that is free, or frees one that is taken.
    fn set(&mut self, place: usize, taken: bool) {
        let mut i = place + 1;
        while let Some(sum) = self.sums.get_mut(i) {
            *sum = if taken { *sum + 1 } else { *sum - 1 };
            i += i & i.wrapping_neg();
        }
    }

    /// The place with `n` taken ones before it, itself taken.
    fn nth(&self, n: u32) -> usize {
        let mut left = n;
        let mut at = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get(at + step)
                && *sum <= left
            {
                left -= sum;
                at += step;
            }
            step /= 2;
        }
        at
    }
}
