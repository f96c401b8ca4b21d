//! Keys on their way to other partitions, when their number changes.
//!
//! - A key moves whole, with all its slots, to the partition that owns its group. Nothing is looked
//!   at, copied or counted anew but the key's place.
//! - What is in the store alone need not move: by its group it is found from anywhere. What the
//!   store has not yet is not there for good before it has, wherever it moves.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{KEY_OVERHEAD, Key, KeyedState, SLOT_OVERHEAD, StateLimits};
use crate::key;

/// Divides what a stage keeps among `partitions`, however many it was divided among before. `seed`
/// is secret. The bounds are left to whoever takes it over.
///
/// # Panics
/// A batch is under way in one of them, or two hold one key.
#[must_use]
pub fn redistribute(
    from: impl IntoIterator<Item = KeyedState>,
    partitions: u16,
    seed: u64,
) -> Vec<KeyedState> {
    let unbounded = StateLimits { key_bytes: usize::MAX, total_bytes: usize::MAX };
    let from: Vec<KeyedState> = from.into_iter().collect();
    let (backed, whole) =
        (from.iter().any(|s| s.cold.is_some()), from.iter().all(|s| s.is_whole()));
    let stamped = from.iter().any(|s| s.expiry.stamped);
    let empty = |at: u16| {
        let mut state = KeyedState::new(seed.wrapping_add(at.into()), unbounded);
        state.expiry.stamped = stamped;
        if backed {
            state.back(whole);
        }
        state
    };
    let mut to: Vec<KeyedState> = (0..partitions).map(empty).collect();
    for state in from {
        let kept = state.cold.as_ref().map(|cold| cold.kept);
        for key in state.into_keys() {
            let is_fresh = kept.is_some_and(|kept| key.written > kept);
            let partition = key::partition_of(key::group_of(&key.name), partitions);
            to[usize::from(partition)].take_in(key, is_fresh);
        }
    }
    to
}

impl KeyedState {
    /// The keys that are there.
    fn into_keys(self) -> impl Iterator<Item = Key> {
        let Self { keys, undo, emptied, .. } = self;
        assert!(undo.is_empty() && emptied.is_empty(), "keys move between two batches");
        keys.into_iter().filter(|key| !key.vacant)
    }

    /// Takes over a key that it does not have; `is_fresh` says that the store does not have it as
    /// it is. An emptied one is only there to say so.
    fn take_in(&mut self, mut key: Key, is_fresh: bool) {
        if key.slots.is_empty() && !is_fresh {
            return;
        }
        assert!(self.find(&key.name).is_none(), "a key is in one partition");
        key.hash = xxh3_64_with_seed(&key.name, self.seed);
        key.written = if is_fresh { self.period } else { 0 };
        self.bytes += KEY_OVERHEAD + key.name.len() + key.bytes + SLOT_OVERHEAD * key.slots.len();
        let (hash, index) = (key.hash, self.keys.len() as u32);
        self.keys.push(key);
        self.table.insert_unique(hash, index, |at| self.keys[*at as usize].hash);
        self.bury(index);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const WIDE: StateLimits = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 20 };

    type Model = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

    /// Everything the partitions hold, each key in the one that owns it.
    fn held(states: &[KeyedState], model: &Model) -> Model {
        let mut held = Model::new();
        for (key, slot) in model.keys() {
            let owner = key::partition_of(key::group_of(key), states.len() as u16);
            for (partition, state) in states.iter().enumerate() {
                let value = state.get(key, slot).map(<[u8]>::to_vec);
                assert_eq!(value.is_some(), partition == usize::from(owner), "{key:?}");
                value.map(|value| held.insert((key.clone(), slot.clone()), value));
            }
        }
        held
    }

    proptest! {
        #[test]
        fn each_key_is_whole_in_the_partition_that_owns_it(
            writes in prop::collection::vec((0_u8..30, 0_u8..3, any::<Option<u16>>()), 0..120),
            counts in prop::collection::vec(1_u16..12, 1..5),
        ) {
            let mut model = Model::new();
            let mut states = vec![KeyedState::new(7, WIDE)];
            for (round, partitions) in counts.iter().enumerate() {
                // Writes go on between the moves, and some take keys away again.
                for (key, slot, value) in writes.iter().skip(round).step_by(2) {
                    let (key, slot) = (vec![b'k', *key], vec![b's', *slot]);
                    let owner = key::partition_of(key::group_of(&key), states.len() as u16);
                    let state = &mut states[usize::from(owner)];
                    match value {
                        Some(value) => {
                            let value = value.to_le_bytes();
                            prop_assert_eq!(state.put(&key, &slot, &value), Ok(()));
                            model.insert((key, slot), value.to_vec());
                        }
                        None => {
                            let was = model.remove(&(key.clone(), slot.clone())).is_some();
                            prop_assert_eq!(state.delete(&key, &slot), was);
                        }
                    }
                }
                states.iter_mut().for_each(KeyedState::commit);
                let before: usize = states.iter().map(KeyedState::bytes).sum();
                let keys: usize = states.iter().map(KeyedState::keys).sum();
                states = redistribute(states, *partitions, round as u64);
                prop_assert_eq!(states.len(), usize::from(*partitions));
                prop_assert_eq!(states.iter().map(KeyedState::bytes).sum::<usize>(), before);
                prop_assert_eq!(states.iter().map(KeyedState::keys).sum::<usize>(), keys);
                states.iter_mut().for_each(|state| state.set_limits(WIDE));
                prop_assert_eq!(held(&states, &model), model.clone());
            }
        }
    }

    #[test]
    fn what_the_store_has_not_stays_until_it_has_it() {
        let mut state = KeyedState::new(7, WIDE);
        state.back(true);
        for key in [b"kept", b"gone"] {
            assert!(state.put(key, b"s", b"v").is_ok());
        }
        state.commit();
        let period = state.next_period();
        state.kept(period);
        assert!(state.put(b"new", b"s", b"v").is_ok() && state.delete(b"gone", b"s"));
        state.commit();
        let mut to = redistribute([state], 1, 3).remove(0);
        assert!(to.is_whole());
        while to.make_room(0) {}
        assert!(!to.is_whole() && to.lacks(b"kept"));
        assert!(!to.lacks(b"new") && !to.lacks(b"gone"), "the store is wrong about both");
        assert_eq!((to.get(b"new", b"s"), to.get(b"gone", b"s")), (Some(&b"v"[..]), None));
        // Moved once more, by now not whole, and then the store has all.
        let mut to = redistribute([to], 1, 4).remove(0);
        assert!(to.lacks(b"kept") && !to.lacks(b"gone"));
        let period = to.next_period();
        to.kept(period);
        assert!(to.lacks(b"gone"), "its end is in the store");
        while to.make_room(0) {}
        assert_eq!((to.keys(), to.bytes()), (0, 0));
    }

    #[test]
    #[should_panic(expected = "between two batches")]
    fn a_batch_under_way_is_not_moved() {
        let mut state = KeyedState::new(7, WIDE);
        assert!(state.put(b"k", b"s", b"v").is_ok());
        drop(redistribute([state], 2, 1));
    }
}
