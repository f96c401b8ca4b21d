//! Parked keys: order, pauses, bounds, and everything taken back.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const MS: u64 = 1000;

/// What fails, and how often still; `u32::MAX` for ever. By stage and payload.
type Failing = BTreeMap<(usize, String), u32>;

/// Runs what was started to its end. An event that fails traps if its payload begins with t, is
/// rejected if it begins with x, and else fails with class retry; what does not is emitted.
fn drive_with(partition: &mut Partition, failing: &mut Failing) {
    while let Some(mut call) = partition.next_call() {
        let stage = call.stage;
        let layer = &mut call.layer;
        let frame = layer.frame().clone();
        let mut verdict = Verdict::Returned(Vec::new());
        for (index, event) in frame.events().enumerate() {
            let index = index as u32;
            let payload = String::from_utf8_lossy(event.payload).into_owned();
            let left = failing.get_mut(&(stage, payload.clone())).filter(|left| **left > 0);
            if let Some(left) = left {
                *left -= u32::from(*left < u32::MAX);
                if payload.starts_with('t') {
                    verdict = Verdict::Trapped("boom".into());
                    break;
                }
                let class = match payload.starts_with('x') {
                    true => FailureClass::Reject,
                    false => FailureClass::Retry,
                };
                if let Verdict::Returned(failures) = &mut verdict {
                    failures.push(Failure::new(index, class, "not yet".into()));
                }
                continue;
            }
            let key = event.key.to_vec();
            layer.state().add(&key, b"seen", 1).expect("fits");
            let mut builder = FrameBuilder::new();
            let head = Head { cause: index, ..Head::data(event.head.time) };
            builder.push(&head, b"", event.payload, &[]);
            layer.emit(builder.finish().bytes()).expect("good frame");
        }
        partition.done(call.layer, verdict);
    }
}

fn parking(scope: Scope) -> Partition {
    partition(vec![stage("only", scope, OnFailure::Park, None)])
}

fn run(
    partition: &mut Partition,
    events: &[(&str, &str)],
    now: u64,
    failing: &mut Failing,
) -> Commit {
    partition.start(frame(events), now);
    drive_with(partition, failing);
    partition.finish()
}

/// Runs what is due, if anything is.
fn retry(partition: &mut Partition, now: u64, failing: &mut Failing) -> Option<Commit> {
    partition.start_parked(now).then(|| {
        drive_with(partition, failing);
        partition.finish()
    })
}

fn fails(list: &[(usize, &str, u32)]) -> Failing {
    list.iter().map(|(stage, text, times)| ((*stage, (*text).to_owned()), *times)).collect()
}

fn dead(commit: &Commit) -> Vec<(String, String)> {
    let class = |event: &Event<'_>| {
        let class = event.fields.get(dead_letter_field::CLASS).unwrap_or_default();
        String::from_utf8_lossy(class).into_owned()
    };
    let frame = commit.dead_letters.iter();
    let each = frame.flat_map(|frame| frame.events());
    each.map(|event| (String::from_utf8_lossy(event.payload).into_owned(), class(&event))).collect()
}

#[test]
fn a_failed_event_and_its_followers_wait_and_others_go_on() {
    for scope in [Scope::Shared, Scope::Key] {
        let mut partition = parking(scope);
        // It fails with its two retries, and once more when it is tried again.
        let mut failing = fails(&[(0, "a2", 6)]);
        let batch = [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3"), ("b", "b2")];
        let commit = run(&mut partition, &batch, 0, &mut failing);
        let sorted = |commit: &Commit| {
            let mut all = outputs(commit);
            all.sort();
            all
        };
        assert_eq!(sorted(&commit), pairs(&[("a", "a1"), ("b", "b1"), ("b", "b2")]));
        assert_eq!((partition.parked(0), partition.next_parked()), ((1, 2), Some(MS)));
        let commit = run(&mut partition, &[("a", "a4"), ("b", "b3")], 10, &mut failing);
        assert_eq!(outputs(&commit), pairs(&[("b", "b3")]));
        assert_eq!(retry(&mut partition, MS - 1, &mut failing), None, "its pause is not over");
        let commit = retry(&mut partition, MS, &mut failing).expect("it is");
        assert_eq!((outputs(&commit), dead(&commit)), (vec![], vec![]));
        assert_eq!((partition.parked(0), partition.next_parked()), ((1, 3), Some(3 * MS)));
        let commit = retry(&mut partition, 3 * MS, &mut failing).expect("due");
        assert_eq!(outputs(&commit), pairs(&[("a", "a2"), ("a", "a3"), ("a", "a4")]));
        assert_eq!((partition.parked(0), partition.next_parked()), ((0, 0), None));
        let commit = run(&mut partition, &[("a", "a5")], 4 * MS, &mut failing);
        assert_eq!(outputs(&commit), pairs(&[("a", "a5")]));
        assert_eq!(partition.stages[0].park.state().bytes(), 0, "nothing of it is left");
    }
}

#[test]
fn pauses_double_up_to_a_bound_and_end() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "t1", u32::MAX)]);
    run(&mut partition, &[("a", "t1"), ("a", "a2")], 0, &mut failing);
    let mut now = 0;
    let mut waited = Vec::new();
    let commit = loop {
        let due = partition.next_parked().expect("parked");
        waited.push((due - now) / MS);
        now = due;
        let commit = retry(&mut partition, now, &mut failing).expect("due");
        if commit.dead_letters.is_some() {
            break commit;
        }
    };
    assert_eq!(waited, [1, 2, 4, 4]);
    assert_eq!(dead(&commit), pairs(&[("t1", "trap")]));
    assert_eq!(outputs(&commit), pairs(&[("a", "a2")]), "its followers go on in the same batch");
    assert_eq!(partition.parked(0), (0, 0));
}

#[test]
fn one_that_is_parked_for_too_long_is_given_up_on() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", u32::MAX)]);
    run(&mut partition, &[("a", "a1")], 0, &mut failing);
    let commit = retry(&mut partition, 1000 * MS, &mut failing).expect("due");
    assert_eq!(dead(&commit), pairs(&[("a1", "retry")]));
}

#[test]
fn a_rejected_event_does_not_wait() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "x1", u32::MAX)]);
    let commit = run(&mut partition, &[("a", "x1"), ("a", "a2")], 0, &mut failing);
    assert_eq!(
        (dead(&commit), outputs(&commit)),
        (pairs(&[("x1", "reject")]), pairs(&[("a", "a2")]))
    );
    assert_eq!(partition.parked(0), (0, 0));
}

#[test]
fn what_does_not_fit_is_a_dead_letter_and_the_others_wait() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", 3), (0, "b1", 3)]);
    let many: Vec<(&str, &str)> = std::iter::once(("a", "a1")).chain([("a", "more"); 6]).collect();
    let commit = run(&mut partition, &many, 0, &mut failing);
    assert_eq!(dead(&commit), pairs(&[("more", "park.full"); 2]), "five of a key");
    assert_eq!(partition.parked(0), (1, 5));
    let large = "l".repeat(990);
    let commit = run(&mut partition, &[("b", "b1"), ("b", &large)], 0, &mut failing);
    assert_eq!(dead(&commit), pairs(&[(&large, "park.full")]), "1,000 bytes of a key");
    // The tenant has no room for it: an event that fails is given up on.
    partition.bound_parked(300);
    let wide = "w".repeat(400);
    let mut failing = fails(&[(0, &wide, 3)]);
    let commit = run(&mut partition, &[("c", &wide), ("c", "c2")], 0, &mut failing);
    assert_eq!(dead(&commit), pairs(&[(&wide, "retry")]));
    assert_eq!(outputs(&commit), pairs(&[("c", "c2")]));
}

#[test]
fn a_follower_that_fails_is_tried_as_often_as_the_first() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", 3), (0, "a2", u32::MAX)]);
    run(&mut partition, &[("a", "a1"), ("a", "a2"), ("a", "a3")], 0, &mut failing);
    let commit = retry(&mut partition, MS, &mut failing).expect("due");
    assert_eq!(outputs(&commit), pairs(&[("a", "a1")]));
    assert_eq!((partition.parked(0), partition.next_parked()), ((1, 2), Some(2 * MS)));
    let mut tries = 0;
    let commit = loop {
        let due = partition.next_parked().expect("parked");
        tries += 1;
        let commit = retry(&mut partition, due, &mut failing).expect("due");
        if !outputs(&commit).is_empty() {
            break commit;
        }
    };
    assert_eq!((tries, dead(&commit)), (4, pairs(&[("a2", "retry")])));
    assert_eq!(outputs(&commit), pairs(&[("a", "a3")]));
}

#[test]
fn parked_events_may_be_tried_at_once() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", 3)]);
    run(&mut partition, &[("a", "a1")], 500, &mut failing);
    partition.hurry_parked();
    let commit = retry(&mut partition, 501, &mut failing).expect("at once");
    assert_eq!(outputs(&commit), pairs(&[("a", "a1")]));
}

#[test]
fn a_client_that_waits_for_a_parked_event_is_not_told_it_was_handled() {
    let mut partition = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", 3)]);
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(1), b"a", b"a1", &fields);
    partition.start(builder.finish(), 0);
    drive_with(&mut partition, &mut failing);
    assert_eq!(partition.finish().requests, [(RequestId(7), 0)]);
    let commit = retry(&mut partition, MS, &mut failing).expect("due");
    assert_eq!((outputs(&commit), commit.requests), (pairs(&[("a", "a1")]), vec![]));
}

#[test]
fn what_is_parked_goes_over_to_the_next_version_and_what_that_says_holds() {
    let mut old = parking(Scope::Shared);
    let mut failing = fails(&[(0, "a1", u32::MAX)]);
    run(&mut old, &[("a", "a1"), ("a", "a2")], 0, &mut failing);
    let states = old.into_states();
    assert_eq!(states.len(), 2);
    let mut new = partition(vec![stage("only", Scope::Shared, OnFailure::DeadLetter, None)]);
    for (name, state) in states {
        new.adopt(&name, state);
    }
    assert_eq!((new.parked(0), new.next_parked()), ((1, 2), Some(MS)));
    let commit = retry(&mut new, MS, &mut failing).expect("due");
    assert_eq!(dead(&commit), pairs(&[("a1", "retry")]));
    assert_eq!(outputs(&commit), pairs(&[("a", "a2")]));
}

#[test]
fn a_halt_behind_a_parked_event_takes_its_parking_back() {
    let mut machine = partition(vec![
        stage("first", Scope::Shared, OnFailure::Park, Some(1)),
        stage("second", Scope::Shared, OnFailure::Halt, None),
    ]);
    let mut failing = fails(&[(0, "a1", 3), (1, "b1", 3)]);
    machine.start(frame(&[("a", "a1"), ("b", "b1")]), 0);
    drive_with(&mut machine, &mut failing);
    assert!(machine.halted().is_some());
    let batch = machine.resume().expect("the batch");
    assert_eq!((batch.len(), machine.parked(0), machine.next_parked()), (2, (0, 0), None));
    machine.start(batch, 0);
    drive_with(&mut machine, &mut failing);
    assert_eq!(outputs(&machine.finish()), pairs(&[("a", "a1"), ("b", "b1")]));
}

fn borrowed(events: &[(String, String)]) -> Vec<(&str, &str)> {
    events.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect()
}

/// What happens next: a batch of keys, or time.
#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<u8>),
    Wait(u64),
    /// A batch, and everything of it is taken back and run again.
    Again(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::vec(0_u8..4, 1..8);
    let step = prop_oneof![
        4 => keys().prop_map(Step::Batch),
        4 => (0_u64..6).prop_map(Step::Wait),
        1 => keys().prop_map(Step::Again),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled_and_keys_stay_in_order(
        steps in steps(),
        failing in prop::collection::btree_map(
            (0_usize..2, 0_u32..60), prop_oneof![1_u32..12, Just(u32::MAX)], 0..25,
        ),
        words in prop::collection::vec(prop_oneof!["e", "t", "x"], 60),
        key_scope: bool,
    ) {
        let scope = if key_scope { Scope::Key } else { Scope::Shared };
        let mut machine = partition(vec![
            stage("first", scope, OnFailure::Park, Some(1)),
            stage("second", Scope::Shared, OnFailure::Park, None),
        ]);
        let name = |n: u32| format!("{}{n:03}", words.get(n as usize).map_or("e", |w| w.as_str()));
        let mut failing: Failing =
            failing.into_iter().map(|((stage, n), times)| ((stage, name(n)), times)).collect();
        let mut given: Vec<(String, String)> = Vec::new();
        let mut commits: Vec<Commit> = Vec::new();
        let mut now = 0;
        let mut number = 0;
        for step in steps {
            let mut events = |keys: Vec<u8>| {
                let event = |key: u8| {
                    number += 1;
                    (format!("k{key}"), name(number - 1))
                };
                keys.into_iter().map(event).collect::<Vec<_>>()
            };
            match step {
                Step::Wait(ms) => now += ms * MS,
                Step::Batch(keys) => {
                    let batch = events(keys);
                    let pairs = borrowed(&batch);
                    commits.push(run(&mut machine, &pairs, now, &mut failing));
                    given.extend(batch);
                }
                Step::Again(keys) => {
                    let batch = events(keys);
                    let pairs = borrowed(&batch);
                    machine.start(frame(&pairs), now);
                    drive_with(&mut machine, &mut failing);
                    let before = machine.halted.replace(Halt {
                        stage: String::new(), message: String::new(),
                    });
                    prop_assert!(before.is_none());
                    let batch_again = machine.resume().expect("the batch");
                    machine.start(batch_again, now);
                    drive_with(&mut machine, &mut failing);
                    commits.push(machine.finish());
                    given.extend(batch);
                }
            }
            commits.extend(retry(&mut machine, now, &mut failing));
            for at in 0..2 {
                prop_assert!(machine.parked(at).1 <= 5 * machine.parked(at).0 as u64);
            }
        }
        // Everything comes to an end.
        let mut left = 10_000;
        while let Some(due) = machine.next_parked() {
            now = now.max(due);
            commits.extend(retry(&mut machine, now, &mut failing));
            left -= 1;
            prop_assert!(left > 0, "it is tried for ever");
        }
        prop_assert_eq!((machine.parked(0), machine.parked(1)), ((0, 0), (0, 0)));
        let out: Vec<(String, String)> = commits.iter().flat_map(outputs).collect();
        let lost: Vec<String> =
            commits.iter().flat_map(dead).map(|(payload, _)| payload).collect();
        let handled: BTreeSet<&String> = out.iter().map(|(_, text)| text).collect();
        prop_assert_eq!(handled.len(), out.len(), "one came out twice");
        let all: BTreeSet<&String> = handled.iter().copied().chain(&lost).collect();
        prop_assert_eq!(all.len(), out.len() + lost.len(), "one came out and was given up on");
        let sent: BTreeSet<&String> = given.iter().map(|(_, text)| text).collect();
        prop_assert_eq!(all, sent);
        for key in 0..4 {
            let key = format!("k{key}");
            let order: Vec<&str> =
                out.iter().filter(|(of, _)| *of == key).map(|(_, text)| &text[1..]).collect();
            prop_assert!(order.is_sorted(), "{key}: {order:?}");
        }
    }
}
