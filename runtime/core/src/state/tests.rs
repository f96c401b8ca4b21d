//! Behaviour against a naive model, and the exactness of roll-back and accounting.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const WIDE: StateLimits = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 };

type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn dump(state: &KeyedState, keys: &[&[u8]]) -> Model {
    let all = |key: &&[u8]| {
        let slots: BTreeMap<_, _> =
            state.scan(key, b"").map(|(s, v)| (s.to_vec(), v.to_vec())).collect();
        (!slots.is_empty()).then(|| (key.to_vec(), slots))
    };
    keys.iter().filter_map(all).collect()
}

#[test]
fn a_counter_starts_at_zero_and_wraps() {
    let mut state = KeyedState::new(1, WIDE);
    assert_eq!(state.add(b"k", b"n", 5), Ok(5));
    assert_eq!(state.add(b"k", b"n", -7), Ok(-2));
    assert_eq!(state.get(b"k", b"n"), Some(&(-2_i64).to_le_bytes()[..]));
    assert_eq!(state.put(b"k", b"text", b"abc"), Ok(()));
    assert_eq!(state.add(b"k", b"text", 1), Err(Refusal::NotACounter(3)));
    assert_eq!(state.add(b"k", b"n", i64::MAX), Ok(i64::MAX - 2));
    assert_eq!(state.add(b"k", b"n", 3), Ok(i64::MIN));
}

#[test]
fn bounds_refuse_and_change_nothing() {
    let mut state = KeyedState::new(1, StateLimits { key_bytes: 10, total_bytes: 400 });
    assert_eq!(state.put(b"k", b"s", &[0; 9]), Ok(()));
    let refused = state.put(b"k", b"t", &[]);
    assert_eq!(refused, Err(Refusal::KeyFull { wanted: 11, limit: 10 }));
    assert_eq!(state.put(b"k", b"s", &[1; 3]), Ok(()), "a smaller value frees room");
    assert_eq!(state.put(b"k", &[b'x'; 65], &[]), Err(Refusal::SlotName));
    let before = state.bytes();
    let filled = (0..100_u8).take_while(|i| state.put(&[*i], b"s", &[]).is_ok()).count();
    assert_eq!(filled, (400 - before) / (KEY_OVERHEAD + 1 + SLOT_OVERHEAD + 1));
    assert!(state.bytes() <= 400);
    assert!(matches!(state.put(&[200], b"s", &[]), Err(Refusal::Full { limit: 400, .. })));
}

#[test]
fn an_emptied_key_is_forgotten_at_commit_only() {
    let mut state = KeyedState::new(1, WIDE);
    state.put(b"k", b"s", b"1").expect("fits");
    state.commit();
    let mark = state.mark();
    assert!(state.delete(b"k", b"s"));
    state.rollback(mark);
    assert_eq!(state.get(b"k", b"s"), Some(&b"1"[..]));
    state.delete(b"k", b"s");
    state.commit();
    assert_eq!((state.keys(), state.bytes()), (0, 0));
    state.put(b"other", b"s", b"1").expect("fits");
    assert_eq!(state.get(b"k", b"s"), None);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Vec<u8>),
    Delete(u8, u8),
    Add(u8, u8, i64),
    Clear(u8),
    Commit,
    Mark,
    Rollback,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (key, slot) = (0_u8..5, 0_u8..4);
    let step = prop_oneof![
        4 => (key.clone(), slot.clone(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(k, s, v)| Step::Put(k, s, v)),
        2 => (key.clone(), slot.clone()).prop_map(|(k, s)| Step::Delete(k, s)),
        3 => (key.clone(), slot, any::<i64>()).prop_map(|(k, s, d)| Step::Add(k, s, d)),
        1 => key.prop_map(Step::Clear),
        1 => Just(Step::Commit),
        2 => Just(Step::Mark),
        2 => Just(Step::Rollback),
    ];
    prop::collection::vec(step, 0..80)
}

type Delta = Vec<(Vec<u8>, Vec<u8>, Option<Vec<u8>>)>;

fn delta(state: &KeyedState) -> Delta {
    let mut delta = Delta::new();
    state.changes(&mut Scratch::default(), |change| {
        delta.push((change.key.into(), change.slot.into(), change.value.map(<[u8]>::to_vec)));
    });
    delta
}

fn put_back(state: &mut KeyedState, delta: &Delta) {
    for (key, slot, value) in delta {
        match value {
            Some(value) => state.restore(key, slot, value),
            None => state.forget(key, slot),
        }
    }
}

#[test]
fn a_change_among_thousands_of_slots_is_given_out_alone() {
    let mut state = KeyedState::new(1, WIDE);
    for slot in 0..5000_u32 {
        state.put(b"k", &slot.to_be_bytes(), b"x").expect("fits");
    }
    state.commit();
    assert_eq!(delta(&state), []);
    state.put(b"k", &7_u32.to_be_bytes(), b"y").expect("fits");
    state.put(b"k", &7_u32.to_be_bytes(), b"z").expect("fits");
    let one = |slot: u32, value: Option<&[u8]>| {
        (b"k".to_vec(), slot.to_be_bytes().to_vec(), value.map(<[u8]>::to_vec))
    };
    assert_eq!(delta(&state), [one(7, Some(b"z"))]);
    // Slots that come and go before it move it about.
    state.delete(b"k", &3_u32.to_be_bytes());
    state.put(b"k", &[0, 0, 0, 3, 1], b"new").expect("fits");
    state.put(b"k", &[0, 0, 0, 3, 2], b"new").expect("fits");
    state.put(b"k", &9_u32.to_be_bytes(), b"y").expect("fits");
    state.delete(b"k", &[0, 0, 0, 3, 1]);
    let slot = |slot: &[u8], value: Option<&[u8]>| {
        (b"k".to_vec(), slot.to_vec(), value.map(<[u8]>::to_vec))
    };
    let expected = [
        one(3, None),
        slot(&[0, 0, 0, 3, 1], None),
        slot(&[0, 0, 0, 3, 2], Some(b"new")),
        one(7, Some(b"z")),
        one(9, Some(b"y")),
    ];
    assert_eq!(delta(&state), expected);
    state.commit();
    assert_eq!(delta(&state), []);
}

#[test]
fn what_was_taken_back_is_no_change() {
    let mut state = KeyedState::new(1, WIDE);
    state.put(b"k", b"s", b"1").expect("fits");
    let mark = state.mark();
    state.put(b"k", b"t", b"2").expect("fits");
    state.delete(b"k", b"s");
    state.rollback(mark);
    assert_eq!(delta(&state), [(b"k".to_vec(), b"s".to_vec(), Some(b"1".to_vec()))]);
    state.rollback_all();
    assert_eq!(delta(&state), []);
}

#[test]
fn what_was_committed_comes_back_under_smaller_bounds() {
    let mut state = KeyedState::new(1, StateLimits { key_bytes: 2, total_bytes: 10 });
    state.restore(b"k", b"s", &[0; 100]);
    state.restore(b"k", b"t", b"");
    assert_eq!(state.get(b"k", b"s"), Some(&[0; 100][..]));
    assert_eq!(state.bytes(), KEY_OVERHEAD + 1 + 2 * (SLOT_OVERHEAD + 1) + 100);
    assert!(matches!(state.put(b"k", b"u", b""), Err(Refusal::KeyFull { .. })));
    state.restore(b"k", b"s", b"");
    state.forget(b"k", b"s");
    state.forget(b"k", b"t");
    state.forget(b"k", b"t");
    assert_eq!((state.bytes(), state.keys(), delta(&state)), (0, 0, Delta::new()));
}

/// Many slots of few keys, so that slots come and go before those that are written.
fn crowded() -> impl Strategy<Value = Vec<Step>> {
    // All names of a byte but that of a stamp.
    let (key, slot) = (0_u8..3, 0_u8..STAMP[0]);
    let step = prop_oneof![
        6 => (key.clone(), slot.clone()).prop_map(|(k, s)| Step::Put(k, s, vec![s, k])),
        4 => (key.clone(), slot.clone()).prop_map(|(k, s)| Step::Delete(k, s)),
        6 => (key, slot, any::<i64>()).prop_map(|(k, s, d)| Step::Add(k, s, d)),
        1 => Just(Step::Mark),
        1 => Just(Step::Rollback),
        1 => Just(Step::Commit),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn the_fold_of_all_changes_is_the_state(
        steps in prop_oneof![steps(), crowded()],
    ) {
        let keys: Vec<[u8; 1]> = (0..5).map(|k| [k]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|k| &k[..]).collect();
        let mut state = KeyedState::new(7, WIDE);
        let mut again = KeyedState::new(8, StateLimits { key_bytes: 0, total_bytes: 0 });
        let mut before = Model::new();
        let mut written: std::collections::BTreeSet<(u8, u8)> = Default::default();
        let mut marks = Vec::new();
        for step in steps.into_iter().chain([Step::Commit]) {
            match step {
                Step::Put(k, s, v) => {
                    state.put(&[k], &[s], &v).expect("wide");
                    written.insert((k, s));
                }
                Step::Delete(k, s) => {
                    state.delete(&[k], &[s]);
                    written.insert((k, s));
                }
                Step::Add(k, s, d) => {
                    let _refused = state.add(&[k], &[s], d);
                    written.insert((k, s));
                }
                Step::Clear(k) => {
                    written.extend((0..=255).map(|s| (k, s)));
                    state.clear_key(&[k]);
                }
                Step::Mark => marks.push(state.mark()),
                Step::Rollback => {
                    if let Some(mark) = marks.pop() {
                        state.rollback(mark);
                    }
                }
                Step::Commit => {
                    let delta = delta(&state);
                    let mut slots: Vec<_> = delta.iter().map(|(k, s, _)| (k, s)).collect();
                    slots.sort_unstable();
                    prop_assert!(slots.is_sorted_by(|a, b| a < b), "a slot came twice");
                    prop_assert!(slots.iter().all(|(k, s)| written.contains(&(k[0], s[0]))));
                    let after = dump(&state, &keys);
                    for (k, s, v) in &delta {
                        let now = after.get(k).and_then(|slots| slots.get(s));
                        prop_assert_eq!(now, v.as_ref());
                    }
                    put_back(&mut again, &delta);
                    prop_assert_eq!(dump(&again, &keys), after.clone());
                    state.commit();
                    prop_assert_eq!((again.bytes(), again.keys()), (state.bytes(), state.keys()));
                    before = after;
                    written.clear();
                    marks.clear();
                }
            }
        }
        prop_assert_eq!(dump(&again, &keys), before);
    }
}

proptest! {
    #[test]
    fn behaves_like_a_map_that_can_be_copied(steps in steps()) {
        let keys: Vec<[u8; 1]> = (0..5).map(|k| [k]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|k| &k[..]).collect();
        let mut state = KeyedState::new(7, WIDE);
        let mut model = Model::new();
        let mut saved: Vec<(Mark, Model)> = vec![(state.mark(), model.clone())];
        for step in steps {
            match step {
                Step::Put(k, s, v) => {
                    state.put(&[k], &[s], &v).expect("wide");
                    model.entry(vec![k]).or_default().insert(vec![s], v);
                }
                Step::Delete(k, s) => {
                    let there = model.get_mut(&vec![k]).and_then(|m| m.remove(&vec![s])).is_some();
                    prop_assert_eq!(state.delete(&[k], &[s]), there);
                }
                Step::Add(k, s, d) => {
                    let slot = model.entry(vec![k]).or_default();
                    let old = slot.get(&vec![s]).map_or(Some(0), |v| {
                        v.as_slice().try_into().ok().map(i64::from_le_bytes)
                    });
                    let new = old.map(|old| old.wrapping_add(d));
                    prop_assert_eq!(state.add(&[k], &[s], d).ok(), new);
                    if let Some(new) = new {
                        slot.insert(vec![s], new.to_le_bytes().to_vec());
                    }
                }
                Step::Clear(k) => {
                    state.clear_key(&[k]);
                    model.remove(&vec![k]);
                }
                Step::Commit => {
                    state.commit();
                    saved = vec![(state.mark(), model.clone())];
                }
                Step::Mark => saved.push((state.mark(), model.clone())),
                Step::Rollback => {
                    let last = saved.len() - 1;
                    let (mark, back) = saved[last].clone();
                    state.rollback(mark);
                    model = back;
                    if last > 0 {
                        saved.pop();
                    }
                }
            }
            model.retain(|_, slots| !slots.is_empty());
            prop_assert_eq!(dump(&state, &keys), model.clone());
        }
        state.commit();
        let bytes: usize = model.iter().map(|(k, slots)| {
            let slots: usize = slots.iter().map(|(s, v)| s.len() + v.len() + SLOT_OVERHEAD).sum();
            k.len() + KEY_OVERHEAD + slots
        }).sum();
        prop_assert_eq!((state.bytes(), state.keys()), (bytes, model.len()));
    }
}

#[test]
fn a_key_is_not_taken_for_the_one_whose_name_lay_at_the_same_place() {
    let mut state = KeyedState::new(7, StateLimits::NONE);
    let mut name = *b"one";
    state.put(&name, b"slot", b"1").unwrap();
    assert_eq!(state.get(&name, b"slot"), Some(&b"1"[..]));
    name = *b"two";
    assert_eq!(state.get(&name, b"slot"), None);
    state.put(&name, b"slot", b"2").unwrap();
    name = *b"one";
    assert_eq!(state.get(&name, b"slot"), Some(&b"1"[..]));
    // A shorter name that begins at the same place.
    assert_eq!(state.get(&name[..2], b"slot"), None);
    // A place that was given back and is another's.
    assert!(state.delete(&name, b"slot"));
    state.commit();
    state.put(b"three", b"slot", b"3").unwrap();
    assert_eq!(state.get(&name, b"slot"), None);
}

#[test]
fn a_key_of_few_slots_has_room_for_those_alone() {
    let mut state = KeyedState::new(1, StateLimits::NONE);
    for slots in 1..=4_u8 {
        state.put(b"k", &[slots], b"").expect("there is no limit");
        let entry = &state.keys[0];
        assert_eq!((entry.slots.len(), entry.slots.capacity()), (slots.into(), slots.into()));
    }
}
