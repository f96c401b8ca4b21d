//! States whose keys go by themselves, against a naive model and against their promises.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::state::{Mark, Refusal, Scratch, StateLimits, redistribute};

const WIDE: StateLimits = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 };
const SECOND: u64 = 1_000_000;

fn living(ms: u64) -> KeyedState {
    let mut state = KeyedState::new(1, WIDE);
    state.set_ttl(Some(Ttl::of_ms(ms)));
    state
}

type Delta = Vec<(Vec<u8>, Vec<u8>, Option<Vec<u8>>)>;

fn changes(state: &KeyedState) -> Delta {
    let mut changes = Delta::new();
    state.changes(&mut Scratch::default(), |change| {
        changes.push((change.key.into(), change.slot.into(), change.value.map(<[u8]>::to_vec)));
    });
    changes
}

/// Looks through everything that is here; how many pieces of work had changes.
fn expire_all(state: &mut KeyedState) -> usize {
    let (mut hand, mut pieces) = (0, 0);
    loop {
        let looked = state.expire(&mut hand);
        state.commit();
        pieces += usize::from(looked.changed);
        if looked.ended {
            return pieces;
        }
    }
}

#[test]
fn a_key_reads_as_nothing_when_it_was_not_written_for_its_time() {
    let mut state = living(64_000);
    state.set_now(SECOND);
    assert_eq!(state.put(b"k", b"s", b"value"), Ok(()));
    state.commit();
    state.set_now(65 * SECOND);
    assert_eq!(state.get(b"k", b"s"), Some(&b"value"[..]), "not before");
    state.set_now(66 * SECOND);
    assert_eq!((state.get(b"k", b"s"), state.scan(b"k", b"").count()), (None, 0));
    assert!(!state.delete(b"k", b"s"));
    assert_eq!(state.add(b"k", b"s", 1), Ok(1), "it is a counter now, and no text of five bytes");
    assert_eq!(state.scan(b"k", b"").count(), 1);
}

#[test]
fn what_is_written_stays_and_what_is_read_does_not() {
    let mut state = living(64_000);
    for key in [b"a", b"b"] {
        assert_eq!(state.put(key, b"s", b"1"), Ok(()));
    }
    for at in 1..200 {
        state.commit();
        state.set_now(at * SECOND);
        assert_eq!(state.add(b"a", b"n", 1), Ok(at.cast_signed()), "at {at}");
        assert_eq!(state.get(b"b", b"s").is_some(), at < 65, "at {at}");
    }
    assert_eq!(state.get(b"a", b"s"), Some(&b"1"[..]), "the key is the unit");
}

#[test]
fn writes_in_a_row_say_so_once() {
    let mut state = living(64_000);
    let mut stamps = 0;
    for at in 0..100 {
        state.set_now(at * SECOND / 10);
        assert!(state.add(b"k", b"n", 1).is_ok());
        stamps += changes(&state).iter().filter(|(_, slot, _)| slot == STAMP).count();
        state.commit();
    }
    assert_eq!(stamps, 10, "about once a 64th");
}

#[test]
fn a_stage_does_not_see_its_stamp_nor_pay_for_it() {
    let mut state = KeyedState::new(1, StateLimits { key_bytes: 10, total_bytes: 1000 });
    state.set_ttl(Some(Ttl::of_ms(1000)));
    assert_eq!(state.put(b"k", b"s", &[0; 4]), Ok(()));
    assert_eq!(state.put(b"k", b"t", &[0; 4]), Ok(()), "ten bytes fit");
    assert_eq!(state.put(b"k", b"u", b""), Err(Refusal::KeyFull { wanted: 11, limit: 10 }));
    let slots: Vec<&[u8]> = state.scan(b"k", b"").map(|(slot, _)| slot).collect();
    assert_eq!(slots, [b"s", b"t"]);
    assert!(state.delete(b"k", b"s") && state.delete(b"k", b"t"));
    state.commit();
    assert_eq!((state.keys(), state.bytes()), (0, 0), "a stamp alone does not stay");
}

#[test]
fn a_call_that_is_taken_back_leaves_a_key_over() {
    let mut state = living(1000);
    assert_eq!(state.put(b"k", b"old", b"value"), Ok(()));
    state.commit();
    state.set_now(2 * SECOND);
    let mark = state.mark();
    assert_eq!(state.put(b"k", b"new", b"value"), Ok(()));
    assert_eq!(state.get(b"k", b"old"), None);
    state.rollback(mark);
    assert_eq!((changes(&state), state.get(b"k", b"new")), (vec![], None));
    state.commit();
    assert_eq!(state.take_expired(), 0, "nothing came of it");
    state.set_now(SECOND / 2);
    assert_eq!(state.get(b"k", b"old"), Some(&b"value"[..]), "the clock went back");
    state.set_now(2 * SECOND);
    assert_eq!(state.put(b"k", b"new", b"value"), Ok(()));
    state.commit();
    assert_eq!(state.take_expired(), 1);
}

#[test]
fn a_clock_that_went_back_or_was_astray_is_got_over() {
    let mut state = living(1000);
    let ahead = 50 * 365 * 24 * 3600 * SECOND;
    state.set_now(u64::MAX - 5);
    assert_eq!(state.put(b"last", b"s", b""), Ok(()), "nothing overflows");
    state.set_now(ahead);
    for key in [b"a", b"b"] {
        assert_eq!(state.put(key, b"s", b""), Ok(()));
    }
    state.commit();
    state.set_now(SECOND);
    assert_eq!(state.put(b"a", b"s", b""), Ok(()));
    state.commit();
    state.set_now(3 * SECOND);
    let there = |state: &KeyedState, key: &[u8]| state.get(key, b"s").is_some();
    assert!(!there(&state, b"a"), "it was written under the right time");
    assert!(there(&state, b"b"));
    assert_eq!(expire_all(&mut state), 1, "and the other is when it is looked at");
    state.set_now(5 * SECOND);
    assert!(!there(&state, b"b") && !there(&state, b"last"));
}

#[test]
fn another_time_to_live_is_none_too_early_for_what_was_stamped_under_the_former() {
    let mut state = living(64 * 3_600_000);
    assert_eq!(state.put(b"k", b"s", b""), Ok(()));
    state.commit();
    // Written again, within the 64th in which nobody says so.
    state.set_now(3599 * SECOND);
    assert_eq!(state.put(b"k", b"s", b"new"), Ok(()));
    state.commit();
    state.set_ttl(Some(Ttl::of_ms(60_000)));
    state.set_now(3658 * SECOND);
    assert_eq!(state.get(b"k", b"s"), Some(&b"new"[..]), "59 seconds later");
    state.set_now(3661 * SECOND);
    assert_eq!(state.get(b"k", b"s"), None);
}

#[test]
fn what_is_written_while_nothing_expires_begins_anew_afterwards() {
    let mut state = living(1000);
    for key in [b"a", b"b"] {
        assert_eq!(state.put(key, b"s", b""), Ok(()));
    }
    state.commit();
    state.set_ttl(None);
    state.set_now(10 * SECOND);
    assert!(state.get(b"a", b"s").is_some() && state.get(b"b", b"s").is_some());
    assert_eq!(state.put(b"a", b"s", b"1"), Ok(()));
    let dropped = (b"a".to_vec(), STAMP.to_vec(), None);
    assert!(changes(&state).contains(&dropped), "{:?}", changes(&state));
    state.commit();
    state.set_ttl(Some(Ttl::of_ms(1000)));
    state.set_now(20 * SECOND);
    assert!(state.get(b"a", b"s").is_some() && state.get(b"b", b"s").is_none());
    assert_eq!(expire_all(&mut state), 1);
    assert_eq!((state.keys(), state.take_expired()), (1, 1));
    state.set_now(22 * SECOND);
    assert_eq!(state.get(b"a", b"s"), None, "counted from when it was looked at");
}

#[test]
fn looking_through_is_done_in_pieces_and_finds_nothing_twice() {
    let mut state = living(1000);
    let key = |n: u32| n.to_be_bytes();
    for n in 0..3000 {
        assert_eq!(state.put(&key(n), b"s", b""), Ok(()));
    }
    state.commit();
    assert_eq!(expire_all(&mut state), 0, "nothing is over");
    state.set_now(2 * SECOND);
    assert_eq!(state.put(&key(7), b"s", b""), Ok(()));
    state.commit();
    let mut hand = 0;
    assert_eq!(state.expire(&mut hand), Looked { changed: true, ended: false });
    assert!(changes(&state).len() <= 2 * KEYS, "no more in a batch");
    state.commit();
    assert!(expire_all(&mut state) > 3);
    assert_eq!((state.keys(), state.take_expired()), (1, 3000));
    assert_eq!(expire_all(&mut state), 0);
}

#[test]
fn a_large_key_goes_in_pieces_and_reads_as_nothing_meanwhile() {
    let mut state = living(1000);
    for slot in 0..5000_u32 {
        assert_eq!(state.put(b"k", &slot.to_be_bytes(), b"value"), Ok(()));
    }
    state.commit();
    state.set_now(2 * SECOND);
    let mut hand = 0;
    assert_eq!(state.expire(&mut hand), Looked { changed: true, ended: false });
    assert_eq!(changes(&state).len(), SLOTS);
    state.commit();
    assert_eq!((state.scan(b"k", b"").count(), state.get(b"k", &[0; 4])), (0, None));
    assert_eq!(state.take_expired(), 0, "some of it is there");
    for (ttl, now) in [(Some(Ttl::of_ms(3_600_000)), 2), (None, 2), (Some(Ttl::of_ms(1000)), 0)] {
        state.set_ttl(ttl);
        state.set_now(now * SECOND);
        assert_eq!(state.scan(b"k", b"").count(), 0, "half a key is none: {ttl:?}, at {now} s");
    }
    state.set_now(2 * SECOND);
    let mut again = KeyedState::new(2, WIDE);
    for change in changes(&state) {
        assert_eq!(change.2, None);
        again.forget(&change.0, &change.1);
    }
    assert_eq!(state.put(b"k", &[1], b"new"), Ok(()));
    state.commit();
    assert_eq!((state.scan(b"k", b"").count(), state.take_expired()), (1, 1));
    assert_eq!(expire_all(&mut state), 0);
}

type Slots = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key as a naive model has it.
#[derive(Debug, Clone, Default)]
struct Entry {
    slots: Slots,
    stamp: Option<u64>,
    /// When it was written last, and how long it may stay longer than it should.
    written: u64,
    late: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Entry>,
    gone: u64,
    ttl: Option<u64>,
    now: u64,
}

impl Model {
    fn is_over(&self, entry: &Entry) -> bool {
        let over = |(stamp, ttl): (u64, u64)| stamp + ttl <= self.now;
        entry.stamp.zip(self.ttl).is_some_and(over)
    }

    fn read(&self, key: &[u8]) -> Slots {
        let Some(entry) = self.keys.get(key) else { return Slots::new() };
        let over = self.is_over(entry);
        if let Some(ttl) = self.ttl {
            let early = self.now < entry.written + ttl;
            assert!(!(over && early), "{entry:?} is over too early, at {}", self.now);
            let late = entry.late.is_some_and(|late| self.now >= entry.written + ttl + late);
            assert!(over || !late, "{entry:?} is there too late, at {}", self.now);
        }
        if over { Slots::new() } else { entry.slots.clone() }
    }

    /// The key, to be written.
    fn write(&mut self, key: &[u8]) -> &mut Slots {
        let over = self.keys.get(key).is_some_and(|entry| self.is_over(entry));
        if over {
            self.keys.remove(key);
            self.gone += 1;
        }
        self.keys.entry(key.to_vec()).or_default();
        self.stamp(key);
        &mut self.keys.get_mut(key).expect("it is there").slots
    }

    fn stamp(&mut self, key: &[u8]) {
        let (now, ttl) = (self.now, self.ttl);
        let entry = self.keys.get_mut(key).expect("it is there");
        (entry.written, entry.late) = (now, ttl.map(|ttl| ttl / 64));
        entry.stamp = ttl.map(|ttl| {
            let most = now + ttl / 64;
            entry.stamp.filter(|stamp| (now..=most).contains(stamp)).unwrap_or(most)
        });
    }

    fn tidy(&mut self) {
        self.keys.retain(|_, entry| !entry.slots.is_empty());
    }

    /// What is to be done about keys, of those that `looked` names.
    fn expire(&mut self, looked: impl Fn(&[u8]) -> bool) {
        let Some(ttl) = self.ttl else { return };
        for key in self.keys.keys().cloned().collect::<Vec<_>>() {
            let entry = &self.keys[&key];
            let astray = entry.stamp.is_none_or(|stamp| stamp > self.now + ttl / 64 + ttl);
            if looked(&key) && self.is_over(entry) {
                self.keys.remove(&key);
                self.gone += 1;
            } else if looked(&key) && astray {
                self.stamp(&key);
            }
        }
    }
}

/// A state and the store behind it.
struct World {
    state: KeyedState,
    store: BTreeMap<Vec<u8>, Slots>,
    log: Delta,
    model: Model,
    marks: Vec<(Mark, Model)>,
    counted: u64,
    moves: u64,
}

const KEYS_THERE: u8 = 10;

impl World {
    fn new() -> Self {
        let mut state = KeyedState::new(1, WIDE);
        state.back(true);
        let model = Model { now: 5_000 * SECOND, ..Model::default() };
        state.set_now(model.now);
        let (store, log, marks) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { state, store, log, model, marks, counted: 0, moves: 0 }
    }

    fn need(&mut self, key: &[u8]) {
        if self.state.lacks(key) {
            // Keys come between batches only.
            self.commit();
            let slots = self.store.get(key).cloned().unwrap_or_default();
            self.state.load(key, slots.iter().map(|(slot, value)| (&slot[..], &value[..])));
        }
    }

    fn commit(&mut self) {
        self.log.extend(changes(&self.state));
        self.state.commit();
        self.marks.clear();
        self.counted += self.state.take_expired();
        assert_eq!(self.counted, self.model.gone, "each that went is counted once");
    }

    fn checkpoint(&mut self) {
        self.commit();
        for (key, slot, value) in self.log.drain(..) {
            let slots = self.store.entry(key.clone()).or_default();
            match value {
                Some(value) => drop(slots.insert(slot, value)),
                None => drop(slots.remove(&slot)),
            }
            if slots.is_empty() {
                self.store.remove(&key);
            }
        }
        let period = self.state.next_period();
        self.state.kept(period);
    }

    fn take_over(&mut self, state: KeyedState) {
        self.state = state;
        self.state.set_limits(WIDE);
        self.state.set_ttl(self.model.ttl.map(|ttl| Ttl::of_ms(ttl / 1000)));
        self.state.set_now(self.model.now);
    }

    /// Removes what is over in memory, or what only the store has.
    fn expire(&mut self, in_store: bool) {
        self.commit();
        let ttl = self.model.ttl.map(|ttl| Ttl::of_ms(ttl / 1000));
        if !in_store {
            let here: BTreeSet<Vec<u8>> =
                (0..KEYS_THERE).map(|key| vec![key]).filter(|k| !self.state.lacks(k)).collect();
            self.model.expire(|key| here.contains(key));
            let mut hand = 0;
            while !self.state.expire(&mut hand).ended {}
        } else if let Some(ttl) = ttl {
            let due = |(key, slots): (&Vec<u8>, &Slots)| {
                let stamp = slots.get(STAMP).map(Vec::as_slice);
                ttl.is_due(stamp, self.model.now).then(|| key.as_slice().into())
            };
            let keys: Vec<Box<[u8]>> = self.store.iter().filter_map(due).collect();
            keys.iter().for_each(|key| self.need(key));
            self.model.expire(|key| keys.iter().any(|k| **k == *key));
            while !self.state.expire_keys(&keys, &mut 0).ended {}
        }
        self.commit();
    }

    fn check(&mut self) {
        for key in 0..KEYS_THERE {
            self.need(&[key]);
            let read: Slots =
                self.state.scan(&[key], b"").map(|(s, v)| (s.to_vec(), v.to_vec())).collect();
            assert_eq!(read, self.model.read(&[key]), "key {key}");
            for slot in 0..3 {
                let value = self.state.get(&[key], &[slot]);
                assert_eq!(value, read.get(&vec![slot]).map(Vec::as_slice));
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(key, slot, value) => {
                self.need(&[key]);
                assert_eq!(self.state.put(&[key], &[slot], &value), Ok(()));
                self.model.write(&[key]).insert(vec![slot], value);
            }
            Step::Add(key, slot) => {
                self.need(&[key]);
                let old = self.model.read(&[key]).get(&vec![slot]).cloned();
                let old = old.map_or(Some(0), |old| old.try_into().ok().map(i64::from_le_bytes));
                let new = old.map(|old| old.wrapping_add(1));
                assert_eq!(self.state.add(&[key], &[slot], 1).ok(), new);
                if let Some(new) = new {
                    self.model.write(&[key]).insert(vec![slot], new.to_le_bytes().to_vec());
                }
            }
            Step::Delete(key, slot) => {
                self.need(&[key]);
                let there = self.model.read(&[key]).contains_key(&vec![slot]);
                assert_eq!(self.state.delete(&[key], &[slot]), there);
                if there {
                    self.model.write(&[key]).remove(&vec![slot]);
                }
            }
            Step::Clear(key) => {
                self.need(&[key]);
                self.state.clear_key(&[key]);
                self.model.keys.remove(&vec![key]);
            }
            Step::Commit => self.commit(),
            Step::Mark => self.marks.push((self.state.mark(), self.model.clone())),
            Step::RollBack => {
                if let Some((mark, model)) = self.marks.pop() {
                    self.state.rollback(mark);
                    self.model = model;
                }
            }
            Step::Time(by) => {
                self.commit();
                self.model.now = self.model.now.saturating_add_signed(by);
                self.state.set_now(self.model.now);
            }
            Step::Ttl(seconds) => {
                self.commit();
                self.model.ttl = seconds.map(|seconds| seconds * SECOND);
                self.state.set_ttl(self.model.ttl.map(|ttl| Ttl::of_ms(ttl / 1000)));
            }
            Step::Expire(in_store) => self.expire(in_store),
            Step::Checkpoint => self.checkpoint(),
            Step::MakeRoom(bytes) => {
                self.commit();
                self.state.make_room(bytes);
            }
            Step::Move => {
                self.commit();
                self.moves += 1;
                let state = std::mem::replace(&mut self.state, KeyedState::new(0, WIDE));
                let moved = redistribute([state], 1, self.moves).remove(0);
                self.take_over(moved);
            }
            Step::Restart => {
                self.checkpoint();
                let mut state = KeyedState::new(3, WIDE);
                state.back(false);
                self.take_over(state);
            }
        }
        self.model.tidy();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Vec<u8>),
    Add(u8, u8),
    Delete(u8, u8),
    Clear(u8),
    Commit,
    Mark,
    RollBack,
    Time(i64),
    Ttl(Option<u64>),
    Expire(bool),
    Checkpoint,
    MakeRoom(usize),
    Move,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (key, slot) = (0..KEYS_THERE, 0_u8..3);
    let time = prop_oneof![
        6 => 0_i64..3,
        4 => 0_i64..40,
        1 => -3600_i64..0,
        1 => Just(50_000_i64),
    ];
    let step = prop_oneof![
        6 => (key.clone(), slot.clone(), prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(key, slot, value)| Step::Put(key, slot, value)),
        4 => (key.clone(), slot.clone()).prop_map(|(key, slot)| Step::Add(key, slot)),
        3 => (key.clone(), slot).prop_map(|(key, slot)| Step::Delete(key, slot)),
        1 => key.prop_map(Step::Clear),
        3 => Just(Step::Commit),
        2 => Just(Step::Mark),
        2 => Just(Step::RollBack),
        6 => (time, 0_i64..1_000_000).prop_map(|(s, part)| Step::Time(s * 1_000_000 + part)),
        1 => prop::sample::select(vec![None, Some(10), Some(64), Some(6400)])
            .prop_map(Step::Ttl),
        2 => any::<bool>().prop_map(Step::Expire),
        2 => Just(Step::Checkpoint),
        2 => (0_usize..500).prop_map(Step::MakeRoom),
        1 => Just(Step::Move),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn keys_go_when_they_should_and_never_before(steps in steps()) {
        let mut world = World::new();
        world.step(Step::Ttl(Some(64)));
        for step in steps {
            world.step(step);
        }
        world.commit();
        world.check();
        // In the end everything goes, wherever it is, and leaves nothing behind.
        world.step(Step::Restart);
        world.step(Step::Ttl(Some(10)));
        for _ in 0..2 {
            world.step(Step::Expire(true));
            world.step(Step::Time(60_000_000));
        }
        world.step(Step::Expire(true));
        world.step(Step::Checkpoint);
        while world.state.make_room(0) {}
        prop_assert_eq!((world.state.bytes(), world.state.keys()), (0, 0));
        world.check();
        let left: Vec<_> = world.model.keys.values().map(|entry| entry.written).collect();
        let ahead = left.iter().all(|written| *written > world.model.now);
        prop_assert!(ahead, "{left:?} stay, at {}", world.model.now);
        prop_assert_eq!(world.store.len(), left.len());
    }
}
