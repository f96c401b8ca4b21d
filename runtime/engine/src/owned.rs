//! Instances that serve one key or stream each: who has which, and which one goes when there are
//! too many.
//!
//! - An instance of a key is a cache, kept up to a number, the least recently used going first; one
//!   of a stream lives as long as its stream.
//! - An instance of a stream that cannot be put away stays until it was used again.
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
    /// It could not be put away as it is.
    stays: bool,
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
        self.instances.insert(serves, Slot { instance, used_at: self.clock, stays: false });
    }

    /// Takes out the least recently used of streams that may be put away, and says when that was.
    pub(crate) fn take_oldest(&mut self) -> Option<(Serves, T, u64)> {
        let is_stream = |serves: &Serves| matches!(serves, Serves::Stream(..));
        let slots = self.instances.iter();
        let slots = slots.filter(|(serves, slot)| is_stream(serves) && !slot.stays);
        let serves = slots.min_by_key(|(_, slot)| slot.used_at)?.0.clone();
        let slot = self.instances.remove(&serves)?;
        Some((serves, slot.instance, slot.used_at))
    }

    /// Puts back one that could not be put away.
    pub(crate) fn put_back(&mut self, serves: Serves, instance: T, used_at: u64) {
        self.instances.insert(serves, Slot { instance, used_at, stays: true });
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn stream(serial: u64) -> Serves {
        Serves::Stream(Arc::from(&b"k"[..]), serial)
    }

    #[test]
    fn what_cannot_be_put_away_is_left_alone_until_it_is_used() {
        let mut owned = Owned::new();
        (1..=3).for_each(|serial| owned.put(stream(serial), serial, 1));
        let (serves, first, used_at) = owned.take_oldest().expect("there are three");
        assert_eq!((&serves, first), (&stream(1), 1));
        owned.put_back(serves, first, used_at);
        assert_eq!(owned.take_oldest().map(|(_, instance, _)| instance), Some(2));
        assert_eq!(owned.take_oldest().map(|(_, instance, _)| instance), Some(3));
        assert_eq!(owned.take_oldest(), None);
        let first = owned.take(&stream(1)).expect("it stays");
        owned.put(stream(1), first, 1);
        assert_eq!(owned.take_oldest().map(|(_, instance, _)| instance), Some(1));
    }
}
