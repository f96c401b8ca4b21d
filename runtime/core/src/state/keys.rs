//! The slots of a key, and every key there is for those who have to look at each once.

use super::{Key, KeyedState, Slot};

/// Slots up to which a key has room for no more than it has. Most keys of large states have one or
/// two, and there are millions of them.
const EXACT_SLOTS: usize = 4;

impl Key {
    /// Puts a slot in its place.
    pub(super) fn insert(&mut self, at: usize, slot: Slot) {
        if self.slots.len() < EXACT_SLOTS {
            self.slots.reserve_exact(1);
        }
        self.slots.insert(at, slot);
    }
}

impl KeyedState {
    /// The keys that hold something, in their order as bytes.
    #[must_use]
    pub fn all_keys(&self) -> Vec<Box<[u8]>> {
        let full = self.keys.iter().filter(|key| !key.slots.is_empty());
        let mut keys: Vec<Box<[u8]>> = full.map(|key| key.name.clone()).collect();
        keys.sort_unstable();
        keys
    }
}
