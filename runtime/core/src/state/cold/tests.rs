//! A state with a store behind it against one that has everything in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::{Scratch, StateLimits};

const WIDE: StateLimits = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 };

type Slots = BTreeMap<Vec<u8>, Vec<u8>>;
type Model = BTreeMap<Vec<u8>, Slots>;
type Delta = Vec<(Vec<u8>, Vec<u8>, Option<Vec<u8>>)>;

fn put(model: &mut Model, delta: &Delta) {
    for (key, slot, value) in delta {
        let slots = model.entry(key.clone()).or_default();
        match value {
            Some(value) => slots.insert(slot.clone(), value.clone()),
            None => slots.remove(slot),
        };
        if slots.is_empty() {
            model.remove(key);
        }
    }
}

fn slots_of(state: &KeyedState, key: &[u8]) -> Slots {
    state.scan(key, b"").map(|(slot, value)| (slot.to_vec(), value.to_vec())).collect()
}

/// A state, the store behind it, and the log between them.
struct World {
    state: KeyedState,
    store: Model,
    /// What was committed and is not in the store.
    log: Vec<Delta>,
    /// How much of that a restart found, to be read beside the store.
    found: usize,
    /// Periods that ended, and how much of the log was there then.
    ended: Vec<(u32, usize)>,
    truth: Model,
}

impl World {
    fn new() -> Self {
        let mut state = KeyedState::new(1, WIDE);
        state.back(true);
        let (store, truth) = (Model::new(), Model::new());
        Self { state, store, log: Vec::new(), found: 0, ended: Vec::new(), truth }
    }

    fn need(&mut self, key: &[u8]) {
        if self.state.lacks(key) {
            let mut behind = self.store.clone();
            self.log[..self.found].iter().for_each(|delta| put(&mut behind, delta));
            let slots = behind.get(key).cloned().unwrap_or_default();
            self.state.load(key, slots.iter().map(|(slot, value)| (&slot[..], &value[..])));
        }
        assert!(!self.state.lacks(key));
        assert_eq!(slots_of(&self.state, key), self.truth.get(key).cloned().unwrap_or_default());
    }

    fn commit(&mut self) {
        let mut delta = Delta::new();
        self.state.changes(&mut Scratch::default(), |change| {
            delta.push((change.key.into(), change.slot.into(), change.value.map(<[u8]>::to_vec)));
        });
        self.state.commit();
        put(&mut self.truth, &delta);
        self.log.push(delta);
    }

    /// Moves the first `share` of the log to the store; `told` says whether the state hears of it.
    fn checkpoint(&mut self, share: usize, told: bool) {
        let end = self.log.len().min(share);
        for delta in self.log.drain(..end) {
            put(&mut self.store, &delta);
        }
        self.found = self.found.saturating_sub(end);
        let period = self.state.next_period();
        for (_, at) in &mut self.ended {
            *at = at.saturating_sub(end);
        }
        self.ended.push((period, self.log.len()));
        if told {
            for (period, _) in self.ended.extract_if(.., |(_, at)| *at == 0) {
                self.state.kept(period);
            }
        }
    }

    /// What a restart finds. Pieces of a checkpoint that was not finished may be in the store.
    fn restart(&mut self, pieces: usize) {
        for delta in self.log.iter().take(pieces) {
            put(&mut self.store, delta);
        }
        self.found = self.log.len();
        self.state = KeyedState::new(2, WIDE);
        self.state.back(false);
        let period = self.state.next_period();
        self.ended = vec![(period, self.log.len())];
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Vec<u8>),
    Delete(u8, u8),
    Add(u8, i64),
    Commit,
    TakeBack,
    Checkpoint(usize, bool),
    MakeRoom(usize),
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (key, slot) = (0_u8..12, 0_u8..3);
    let step = prop_oneof![
        6 => (key.clone(), slot.clone(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(k, s, v)| Step::Put(k, s, v)),
        4 => (key.clone(), slot).prop_map(|(k, s)| Step::Delete(k, s)),
        3 => (key, any::<i64>()).prop_map(|(k, d)| Step::Add(k, d)),
        4 => Just(Step::Commit),
        1 => Just(Step::TakeBack),
        3 => (0_usize..6, any::<bool>()).prop_map(|(n, told)| Step::Checkpoint(n, told)),
        3 => (0_usize..600).prop_map(Step::MakeRoom),
        1 => (0_usize..4).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_as_if_everything_were_in_memory(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Put(key, slot, value) => {
                    world.commit();
                    world.need(&[key]);
                    world.state.put(&[key], &[slot], &value).expect("fits");
                }
                Step::Delete(key, slot) => {
                    world.commit();
                    world.need(&[key]);
                    world.state.delete(&[key], &[slot]);
                }
                Step::Add(key, delta) => {
                    world.commit();
                    world.need(&[key]);
                    world.state.add(&[key], b"n", delta).expect("a counter");
                }
                Step::Commit => world.commit(),
                Step::TakeBack => world.state.rollback_all(),
                Step::Checkpoint(share, told) => {
                    world.commit();
                    world.checkpoint(share, told);
                }
                Step::MakeRoom(bytes) => {
                    world.commit();
                    world.state.make_room(bytes);
                }
                Step::Restart(pieces) => {
                    world.commit();
                    world.restart(pieces);
                }
            }
        }
        world.commit();
        for key in 0..12 {
            world.need(&[key]);
        }
        // When everything is in the store, everything can leave.
        world.checkpoint(usize::MAX, true);
        for _ in 0..3 {
            world.state.make_room(0);
        }
        prop_assert_eq!((world.state.bytes(), world.state.keys()), (0, 0));
        let mut expected = world.truth.clone();
        expected.retain(|_, slots| !slots.is_empty());
        prop_assert_eq!(&world.store, &expected);
        for key in 0..12 {
            world.need(&[key]);
        }
    }
}

#[test]
fn what_was_asked_for_lately_leaves_last() {
    let mut world = World::new();
    for key in 0..100_u8 {
        world.state.put(&[key], b"s", b"value").expect("fits");
    }
    world.commit();
    world.checkpoint(usize::MAX, true);
    let all = world.state.bytes();
    // The first round takes the marks of being new away and takes what it comes to.
    world.state.make_room(all * 9 / 10);
    for key in 0..100_u8 {
        if key % 2 == 0 {
            world.need(&[key]);
        }
    }
    world.state.make_room(all / 2);
    let here = |world: &mut World, key: u8| !world.state.lacks(&[key]);
    let even = (0..100).filter(|key| key % 2 == 0 && here(&mut world, *key)).count();
    let odd = (0..100).filter(|key| key % 2 == 1 && here(&mut world, *key)).count();
    assert!(even > 3 * odd, "{even} of those asked for stayed, {odd} of the others");
}

#[test]
fn an_emptied_key_stays_until_its_end_is_in_the_store() {
    let mut world = World::new();
    world.state.put(b"k", b"s", b"value").expect("fits");
    world.commit();
    world.checkpoint(usize::MAX, true);
    assert!(world.state.delete(b"k", b"s"));
    world.commit();
    world.state.put(b"other", b"s", b"value").expect("fits");
    world.commit();
    world.state.make_room(0);
    assert_eq!(world.state.keys(), 2, "neither can leave");
    world.need(b"k");
    world.checkpoint(usize::MAX, true);
    assert_eq!(world.state.keys(), 1, "its end is in the store");
    world.need(b"k");
}
