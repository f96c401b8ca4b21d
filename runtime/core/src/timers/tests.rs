//! Timers against a list that knows nothing of indices, with everything taken back at any time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::Scratch;

/// Key, name: clock, time.
type Model = BTreeMap<(Vec<u8>, Vec<u8>), (Clock, u64)>;

fn timers() -> Timers {
    let mut timers = Timers::none();
    timers.set_watermark(Some(0));
    timers
}

fn fired(frame: &Frame) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    frame.events().map(|e| (e.head.time, e.key.to_vec(), e.payload.to_vec())).collect()
}

/// What a model has due, in the order in which it is to be handled.
fn due(model: &Model, watermark: u64, now: u64) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let of = |clock: Clock, until: u64| {
        let mut due: Vec<_> = model
            .iter()
            .filter(|(_, timer)| timer.0 == clock && timer.1 <= until)
            .map(|((key, name), (_, at))| (*at, key.clone(), name.clone()))
            .collect();
        due.sort();
        due
    };
    [of(Clock::Event, watermark), of(Clock::Wall, now)].concat()
}

fn held(timers: &Timers) -> Model {
    let mut held = Model::new();
    for key in timers.state().all_keys() {
        for (name, value) in timers.state().scan(&key, b"") {
            held.insert((key.to_vec(), name.to_vec()), read(value).expect("a timer"));
        }
    }
    held
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8, bool, u64),
    Cancel(u8, u8),
    Clear(u8),
    Fire(u64, u64, usize),
    Call,
    Trap,
    Commit,
    Abandon,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (key, name) = (0_u8..4, 0_u8..3);
    prop_oneof![
        8 => (key.clone(), name.clone(), any::<bool>(), 0_u64..40)
            .prop_map(|(k, n, wall, at)| Step::Set(k, n, wall, at)),
        3 => (key.clone(), name).prop_map(|(k, n)| Step::Cancel(k, n)),
        1 => key.prop_map(Step::Clear),
        4 => (0_u64..40, 0_u64..40, 1_usize..6).prop_map(|(w, n, m)| Step::Fire(w, n, m)),
        3 => Just(Step::Call),
        2 => Just(Step::Trap),
        3 => Just(Step::Commit),
        1 => Just(Step::Abandon),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn timers_are_those_of_a_list(steps in prop::collection::vec(step(), 1..120)) {
        let mut timers = timers();
        let (mut model, mut at_call, mut at_commit) = (Model::new(), Model::new(), Model::new());
        let mut mark = timers.mark();
        // What the records say, folded.
        let mut folded = Model::new();
        for step in steps {
            match step {
                Step::Set(key, name, wall, at) => {
                    let clock = if wall { Clock::Wall } else { Clock::Event };
                    prop_assert_eq!(timers.set(&[key], &[name], clock, at), Ok(()));
                    model.insert((vec![key], vec![name]), (clock, at));
                }
                Step::Cancel(key, name) => {
                    let was = model.remove(&(vec![key], vec![name])).is_some();
                    prop_assert_eq!(timers.cancel(&[key], &[name]), was);
                }
                Step::Clear(key) => {
                    timers.clear_key(&[key]);
                    model.retain(|(of, _), _| *of != [key]);
                }
                Step::Fire(watermark, now, most) => {
                    timers.set_watermark(Some(watermark));
                    let mut wanted = due(&model, watermark, now);
                    wanted.truncate(most);
                    let frame = timers.take_due(now, most);
                    prop_assert!(frame.events().all(|e| e.head.kind == Kind::Timer));
                    for (_, key, name) in &wanted {
                        model.remove(&(key.clone(), name.clone()));
                    }
                    prop_assert_eq!(fired(&frame), wanted);
                }
                Step::Call => (mark, at_call) = (timers.mark(), model.clone()),
                Step::Trap => {
                    timers.roll_back(mark);
                    model = at_call.clone();
                }
                Step::Commit => {
                    timers.state().changes(&mut Scratch::default(), |change| {
                        let place = (change.key.to_vec(), change.slot.to_vec());
                        match change.value.and_then(read) {
                            Some(timer) => drop(folded.insert(place, timer)),
                            None => drop(folded.remove(&place)),
                        }
                    });
                    timers.commit();
                    (mark, at_call, at_commit) = (timers.mark(), model.clone(), model.clone());
                    prop_assert_eq!(&folded, &model);
                }
                Step::Abandon | Step::Restart => {
                    timers.roll_back_all();
                    model = at_commit.clone();
                    if matches!(step, Step::Restart) {
                        timers = Timers::new(timers.into_state());
                        timers.set_watermark(Some(0));
                    }
                    (mark, at_call) = (timers.mark(), model.clone());
                }
            }
            prop_assert_eq!(held(&timers), model.clone());
            prop_assert_eq!(timers.len(), model.len());
            for clock in [Clock::Event, Clock::Wall] {
                let of = model.values().filter(|timer| timer.0 == clock);
                prop_assert_eq!(timers.next_due(clock), of.map(|timer| timer.1).min());
            }
        }
    }
}

#[test]
fn what_is_out_of_range_or_does_not_fit_is_refused() {
    let mut timers = timers();
    let long = [b'n'; 65];
    assert_eq!(timers.set(b"k", &long, Clock::Wall, 1), Err(TimerRefusal::Name));
    assert_eq!(timers.set(b"k", b"n", Clock::Wall, 1 << 53), Err(TimerRefusal::Time(1 << 53)));
    for name in 0..TIMERS_A_KEY_MAX as u16 {
        assert_eq!(timers.set(b"k", &name.to_le_bytes(), Clock::Event, 1), Ok(()));
    }
    assert_eq!(timers.set(b"k", b"one more", Clock::Event, 1), Err(TimerRefusal::KeyFull));
    assert_eq!(timers.set(b"k", &[0, 0], Clock::Wall, 9), Ok(()), "one that is there is moved");
    assert_eq!(timers.set(b"other", b"n", Clock::Event, 1), Ok(()));
    timers.bound(300);
    assert_eq!(timers.set(b"a", b"n", Clock::Wall, 1), Ok(()));
    let refused = timers.set(b"b", b"n", Clock::Wall, 1);
    assert!(matches!(refused, Err(TimerRefusal::Full { .. })), "{refused:?}");
    timers.set_watermark(None);
    assert_eq!(timers.set(b"a", b"n", Clock::Event, 1), Err(TimerRefusal::NoEventTime));
}

#[test]
fn bytes_are_those_of_what_is_there() {
    let mut timers = timers();
    for key in 0..100_u8 {
        assert_eq!(timers.set(&[key], b"name", Clock::Wall, u64::from(key)), Ok(()));
    }
    assert!(timers.bytes() > 100 * (64 + 64 + 9), "{}", timers.bytes());
    assert_eq!(timers.take_due(1000, 1000).len(), 100);
    timers.commit();
    assert_eq!((timers.bytes(), timers.len()), (0, 0));
}

#[test]
fn a_slot_that_is_put_back_is_a_timer_again() {
    let mut timers = timers();
    let value = [&[1][..], &7_u64.to_le_bytes()].concat();
    timers.restore(b"k", b"n", Some(&value));
    assert_eq!((timers.next_due(Clock::Wall), timers.len()), (Some(7), 1));
    let later = [&[0][..], &9_u64.to_le_bytes()].concat();
    timers.restore(b"k", b"n", Some(&later));
    assert_eq!((timers.next_due(Clock::Wall), timers.next_due(Clock::Event)), (None, Some(9)));
    timers.restore(b"k", b"n", None);
    assert!(timers.is_empty());
}
