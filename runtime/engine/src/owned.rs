//! Instances that serve one key or stream each: who has which, and which one goes when there are
//! too many.
//!
//! - An instance of a key is a cache, kept up to a number, the least recently used going first; one
//!   of a stream lives as long as its stream.
//! - Nobody is given another's.

use std::collections::BTreeMap;

use sluicebox_core::partition::Serves;

/// See the module.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    instances: BTreeMap<Serves, Slot<T>>,
    clock: u64,
}

#[derive(Debug)]
struct Slot<T> {
    instance: T,
    used_at: u64,
}

impl<T> Owned<T> {
    pub(crate) fn new() -> Self {
        Self { instances: BTreeMap::new(), clock: 0 }
    }

    /// Takes an instance out, to be put back after its call.
    pub(crate) fn take(&mut self, serves: &Serves) -> Option<T> {
        self.instances.remove(serves).map(|slot| slot.instance)
    }

    /// Puts an instance where it is found again. `keys_max` bounds those of keys.
    pub(crate) fn put(&mut self, serves: Serves, instance: T, keys_max: usize) {
        self.clock += 1;
        if matches!(serves, Serves::Key(_)) && self.instances.len() >= keys_max {
            let oldest = self.instances.iter().min_by_key(|(_, slot)| slot.used_at);
            if let Some(serves) = oldest.map(|(serves, _)| serves.clone()) {
                self.instances.remove(&serves);
            }
        }
        self.instances.insert(serves, Slot { instance, used_at: self.clock });
    }

    pub(crate) fn get(&self, serves: &Serves) -> Option<&T> {
        self.instances.get(serves).map(|slot| &slot.instance)
    }

    pub(crate) fn holds(&self, serves: &Serves) -> bool {
        self.instances.contains_key(serves)
    }

    /// Drops the least recently used, so that `most` are left.
    pub(crate) fn spare(&mut self, most: usize) {
        let over = self.instances.len().saturating_sub(most);
        if over == 0 {
            return;
        }
        let mut used: Vec<u64> = self.instances.values().map(|slot| slot.used_at).collect();
        let (_, last, _) = used.select_nth_unstable(over - 1);
        let last = *last;
        self.instances.retain(|_, slot| slot.used_at > last);
    }

    /// Drops what only saves time.
    pub(crate) fn trim(&mut self) {
        self.instances.retain(|serves, _| matches!(serves, Serves::Stream(..)));
    }

    pub(crate) fn clear(&mut self) {
        self.instances.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }
}
