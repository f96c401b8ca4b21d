//! Every key there is, for those who have to look at each once.

use super::KeyedState;

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
