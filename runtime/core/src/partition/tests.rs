//! The machine against a naive model, driven by a native stage.

mod attached;
mod expire;
mod ledger;
mod park;
mod revive;
mod timers;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::frame::{Event, FrameBuilder, Head, Kind, field, push_field};
use crate::ids::RequestId;
use crate::layer::{Failure, FailureClass, KeyRule, LayerLimits, Ports, Spread, Target};
use crate::pipeline::{OnFailure, OnUpdate, ParkLimits, StreamLimits};

/// A stage that does what an event's payload says: `e` emits the key, `t` traps, `x` rejects, `a`
/// adds 1 to a counter and emits it, `E` asks nothing but counts as an end when kind says so.
/// Every call first writes a counter, so that a discarded call would be seen.
fn play(layer: &mut Layer) -> Verdict {
    let mut failures = Vec::new();
    let frame = layer.frame().clone();
    for (index, event) in frame.events().enumerate() {
        let index = index as u32;
        let key = event.key.to_vec();
        layer.state().add(&key, b"seen", 1).expect("fits");
        let mut emit = |payload: &[u8]| {
            let mut builder = FrameBuilder::new();
            let head = Head { cause: index, ..Head::data(event.head.time) };
            builder.push(&head, b"", payload, &[]);
            layer.emit(builder.finish().bytes()).expect("good frame");
        };
        match (event.head.kind, event.payload.first()) {
            (Kind::Open, _) => emit(b"open"),
            (Kind::End, _) => emit(b"end"),
            (_, Some(b'e')) => emit(event.payload),
            (_, Some(b't')) => return Verdict::Trapped("boom".into()),
            (_, Some(b'x')) => {
                failures.push(Failure::new(index, FailureClass::Reject, "bad".into()));
            }
            _ => {}
        }
    }
    Verdict::Returned(failures)
}

/// Pauses of 1, 2, 4, 4 ms, and no more than four runs again.
const PARK: ParkLimits = ParkLimits {
    attempts: 4,
    pause_ms: 1,
    pause_max_ms: 4,
    age_max_ms: 1000,
    events_max: 5,
    bytes_max: 1000,
};

fn stage(name: &str, scope: Scope, on_failure: OnFailure, child: Option<usize>) -> StagePlan {
    let target = Target {
        port: 0,
        input: 0,
        key: KeyRule::Cause,
        spread: Spread::One,
        inside: child.is_none(),
    };
    StagePlan {
        name: name.into(),
        scope,
        on_failure,
        retries: 2,
        stream: StreamLimits {
            idle_timeout_ms: 10,
            events_max: 3,
            bytes_max: 1 << 20,
            duration_max_ms: 1000,
            replay_bytes_max: 1 << 20,
            on_update: OnUpdate::default(),
        },
        park: PARK,
        codes: Codes::default(),
        ports: Arc::new(Ports::new(1, vec![target])),
        inside: vec![child],
        limits: LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 20, reply_bytes: 1 << 20 },
        state: StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 },
        state_ttl: None,
    }
}

fn partition(stages: Vec<StagePlan>) -> Partition {
    Partition::new(Arc::new(SegmentPlan { stages }), 1)
}

fn frame(events: &[(&str, &str)]) -> Frame {
    let mut builder = FrameBuilder::new();
    for (at, (key, payload)) in events.iter().enumerate() {
        let kind = if *payload == "END" { Kind::End } else { Kind::Data };
        let head = Head { kind, ..Head::data(at as u64) };
        builder.push(&head, key.as_bytes(), payload.as_bytes(), &[]);
    }
    builder.finish()
}

/// Runs what was started to its end; gives the calls made.
fn drive(partition: &mut Partition) -> Vec<(usize, Serves, usize, bool)> {
    let mut calls = Vec::new();
    while let Some(mut call) = partition.next_call() {
        calls.push((call.stage, call.serves.clone(), call.layer.frame().len(), call.last));
        let verdict = play(&mut call.layer);
        partition.done(call.layer, verdict);
    }
    calls
}

fn texts(frame: &Frame) -> Vec<(String, String)> {
    let text =
        |e: Event<'_>| (e.key_str().to_owned(), String::from_utf8_lossy(e.payload).into_owned());
    frame.events().map(text).collect()
}

fn outputs(commit: &Commit) -> Vec<(String, String)> {
    commit.runs.iter().flat_map(|run| texts(&run.frame)).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_batch_runs_through_the_stages_of_its_segment() {
    let mut partition = partition(vec![
        stage("first", Scope::Shared, OnFailure::DeadLetter, Some(1)),
        stage("second", Scope::Shared, OnFailure::DeadLetter, None),
    ]);
    partition.start(frame(&[("a", "e1"), ("b", "e2")]), 0);
    let calls = drive(&mut partition);
    assert_eq!(calls.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1]);
    let commit = partition.finish();
    assert_eq!(outputs(&commit), pairs(&[("a", "e1"), ("b", "e2")]));
    assert_eq!(commit.dead_letters, None);
}

#[test]
fn a_trap_in_the_second_stage_repeats_only_that_stage() {
    let mut partition = partition(vec![
        stage("first", Scope::Shared, OnFailure::DeadLetter, Some(1)),
        stage("second", Scope::Shared, OnFailure::DeadLetter, None),
    ]);
    // The first stage emits only payloads that begin with `e`, so the trap comes from the test's
    // own verdict on the second.
    partition.start(frame(&[("a", "e1"), ("b", "e2")]), 0);
    let mut calls = Vec::new();
    while let Some(mut call) = partition.next_call() {
        calls.push((call.stage, call.layer.frame().len()));
        let poisoned =
            call.stage == 1 && texts(call.layer.frame()).contains(&("b".into(), "e2".into()));
        let verdict = play(&mut call.layer);
        let verdict = if poisoned { Verdict::Trapped("poison".into()) } else { verdict };
        partition.done(call.layer, verdict);
    }
    assert_eq!(calls, [(0, 2), (1, 2), (1, 1), (1, 1)]);
    let commit = partition.finish();
    assert_eq!(outputs(&commit), pairs(&[("a", "e1")]));
    let dead = commit.dead_letters.expect("one");
    let event = dead.events().next().expect("one");
    assert_eq!(event.fields.get(dead_letter_field::STAGE), Some(&b"second"[..]));
    assert_eq!(event.fields.get(dead_letter_field::CLASS), Some(&b"trap"[..]));
    assert_eq!(event.fields.get(dead_letter_field::MESSAGE), Some(&b"poison"[..]));
}

#[test]
fn halt_keeps_the_batch_and_takes_everything_back() {
    let mut partition = partition(vec![stage("only", Scope::Shared, OnFailure::Halt, None)]);
    partition.start(frame(&[("a", "e1"), ("a", "x")]), 0);
    drive(&mut partition);
    let halt = partition.halted().cloned().expect("halted");
    assert_eq!((halt.stage.as_str(), halt.message.as_str()), ("only", "reject: bad"));
    let back = partition.resume().expect("the batch");
    assert_eq!(texts(&back), pairs(&[("a", "e1"), ("a", "x")]));
    assert_eq!(partition.state_bytes(), 0);
    partition.start(frame(&[("a", "e1")]), 0);
    drive(&mut partition);
    assert_eq!(outputs(&partition.finish()), pairs(&[("a", "e1")]));
}

#[test]
fn scope_key_makes_one_call_a_key_in_order_of_first_event() {
    let mut partition = partition(vec![stage("only", Scope::Key, OnFailure::DeadLetter, None)]);
    partition.start(frame(&[("b", "e1"), ("a", "e2"), ("b", "e3")]), 0);
    let calls = drive(&mut partition);
    let key = |k: &str| Serves::Key(Arc::from(k.as_bytes()));
    assert_eq!(calls, [(0, key("b"), 2, false), (0, key("a"), 1, false)]);
    assert_eq!(outputs(&partition.finish()), pairs(&[("b", "e1"), ("b", "e3"), ("a", "e2")]));
}

#[test]
fn a_stream_opens_with_its_first_event_and_ends_by_flag_limit_or_idleness() {
    let mut partition = partition(vec![stage("only", Scope::Stream, OnFailure::DeadLetter, None)]);
    partition.start(frame(&[("a", "e1"), ("a", "END"), ("a", "e2"), ("b", "e3")]), 0);
    let calls = drive(&mut partition);
    let serves: Vec<_> = calls.iter().map(|c| (c.1.clone(), c.2, c.3)).collect();
    let stream = |k: &str, serial| Serves::Stream(Arc::from(k.as_bytes()), serial);
    assert_eq!(
        serves,
        [(stream("a", 1), 3, true), (stream("a", 2), 2, false), (stream("b", 3), 2, false)]
    );
    let expected = [
        ("a", "open"),
        ("a", "e1"),
        ("a", "end"),
        ("a", "open"),
        ("a", "e2"),
        ("b", "open"),
        ("b", "e3"),
    ];
    assert_eq!(outputs(&partition.finish()), pairs(&expected));
    assert_eq!(partition.open_streams(), 2);

    // The limit of three events ends stream a with an event made by the host.
    partition.start(frame(&[("a", "e4"), ("a", "e5")]), 5_000);
    drive(&mut partition);
    assert_eq!(outputs(&partition.finish()), pairs(&[("a", "e4"), ("a", "e5"), ("a", "end")]));

    // Ten milliseconds after its last event stream b is idle.
    assert_eq!(partition.next_end(), Some(10_000));
    assert!(!partition.start_ends(9_999));
    assert!(partition.start_ends(10_000));
    let calls = drive(&mut partition);
    assert_eq!((calls.len(), calls[0].3), (1, true));
    assert_eq!(outputs(&partition.finish()), pairs(&[("b", "end")]));
    assert_eq!((partition.open_streams(), partition.next_end()), (0, None));
    assert_eq!(partition.state_bytes(), 0, "a stream's state goes with it");
}

#[test]
fn events_of_one_open_stream_are_handed_on_as_they_came() {
    let mut only = stage("only", Scope::Stream, OnFailure::DeadLetter, None);
    only.stream.events_max = 6;
    let mut partition = partition(vec![only]);
    let mut run = |events: Frame| {
        let bytes = events.bytes().clone();
        partition.start(events, 0);
        let call = partition.next_call().expect("a call");
        let is_same = call.layer.frame().bytes().as_ptr() == bytes.as_ptr();
        let seen = (is_same, call.layer.frame().len(), call.last);
        partition.done(call.layer, Verdict::Returned(Vec::new()));
        drive(&mut partition);
        drop(partition.finish());
        seen
    };
    assert_eq!(run(frame(&[("a", "1"), ("a", "2")])), (false, 3, false), "an open before them");
    assert_eq!(run(frame(&[("a", "3"), ("a", "4")])), (true, 2, false));
    assert_eq!(run(frame(&[("a", "5"), ("b", "1")])), (false, 1, false), "another stream's");
    assert_eq!(run(frame(&[("b", "2"), ("b", "END")])), (false, 2, true));
    assert_eq!(run(frame(&[("a", "6")])), (false, 2, true), "the limit makes an end");
    assert_eq!(run(frame(&[("a", "7")])), (false, 2, false), "another stream of the key");
    assert_eq!(partition.open_streams(), 1);
}

#[test]
fn all_streams_can_be_ended_before_their_time() {
    let mut partition = partition(vec![stage("only", Scope::Stream, OnFailure::DeadLetter, None)]);
    partition.start(frame(&[("a", "e1"), ("b", "e2")]), 0);
    drive(&mut partition);
    drop(partition.finish());
    assert!(partition.start_all_ends(1_000, |_| true));
    drive(&mut partition);
    let commit = partition.finish();
    assert_eq!(outputs(&commit), pairs(&[("a", "end"), ("b", "end")]));
    let mut events = commit.runs.iter().flat_map(|run| run.frame.events());
    assert!(events.all(|event| event.head.time == 1_000), "an end is an event of its own time");
    assert!(!partition.start_all_ends(2_000, |_| true));
}

#[test]
fn a_trap_ends_a_stream_and_dead_letters_what_it_held() {
    let mut partition = partition(vec![stage("only", Scope::Stream, OnFailure::DeadLetter, None)]);
    partition.start(frame(&[("a", "e1"), ("b", "e2"), ("a", "t")]), 0);
    drive(&mut partition);
    let commit = partition.finish();
    assert_eq!(outputs(&commit), pairs(&[("b", "open"), ("b", "e2")]));
    let dead = commit.dead_letters.expect("the events of stream a");
    assert!(
        dead.events().all(|e| e.key == b"a"
            && e.fields.get(dead_letter_field::CLASS) == Some(&b"stream.lost"[..]))
    );
    assert_eq!(partition.open_streams(), 1);
    partition.start(frame(&[("a", "e3")]), 0);
    drive(&mut partition);
    assert_eq!(outputs(&partition.finish()), pairs(&[("a", "open"), ("a", "e3")]));
}

#[test]
fn a_stream_keeps_the_code_it_opened_with_over_versions() {
    let with = |codes| {
        let only = stage("s", Scope::Stream, OnFailure::DeadLetter, None);
        partition(vec![StagePlan { codes, ..only }])
    };
    let codes = |partition: &mut Partition| {
        let mut codes = Vec::new();
        while let Some(mut call) = partition.next_call() {
            let Serves::Stream(key, _) = &call.serves else { panic!("a call of a stream") };
            codes.push((String::from_utf8_lossy(key).into_owned(), call.code));
            let verdict = play(&mut call.layer);
            partition.done(call.layer, verdict);
        }
        let _stands = partition.finish();
        codes
    };
    let all = |list: &[(&str, u32)]| -> Vec<(String, u32)> {
        list.iter().map(|(key, code)| ((*key).to_owned(), *code)).collect()
    };
    let mut old = with(Codes { now: 1, oldest: 1 });
    old.start(frame(&[("a", "e"), ("b", "e")]), 0);
    assert_eq!(codes(&mut old), all(&[("a", 1), ("b", 1)]));
    let mut new = with(Codes { now: 4, oldest: 1 });
    old.into_states().into_iter().for_each(|(name, state)| new.adopt(&name, state));
    // The second stream of a key that ends has the code of now, whatever the first one had.
    new.start(frame(&[("a", "e"), ("a", "END"), ("a", "e"), ("b", "e"), ("c", "e")]), 1);
    assert_eq!(codes(&mut new), all(&[("a", 1), ("a", 4), ("b", 1), ("c", 4)]));
    assert_eq!(new.open_codes(), [BTreeSet::from([1, 4])]);
    assert!(new.start_all_ends(2, |_| true));
    let mut ended = codes(&mut new);
    ended.sort();
    assert_eq!(ended, all(&[("a", 4), ("b", 1), ("c", 4)]));
    assert_eq!(new.open_codes(), [BTreeSet::new()]);
}

#[test]
fn streams_that_are_over_with_a_halt_are_told_of_once() {
    let mut partition = partition(vec![stage("s", Scope::Stream, OnFailure::Halt, None)]);
    partition.start(frame(&[("a", "e1"), ("b", "e1")]), 0);
    drive(&mut partition);
    assert_eq!(partition.finish().dead_letters, None);
    for _ in 0..2 {
        partition.start(frame(&[("c", "t")]), 1);
        drive(&mut partition);
        assert!(partition.halted().is_some());
        partition.resume().expect("its batch");
        assert_eq!(partition.open_streams(), 0);
    }
    assert!(partition.start_abandoned(2));
    drive(&mut partition);
    let dead = partition.finish().dead_letters.expect("both are over");
    assert_eq!(texts(&dead), pairs(&[("a", ""), ("b", "")]));
    for event in dead.events() {
        assert_eq!(event.head.kind, Kind::End);
        assert_eq!(event.fields.get(dead_letter_field::CLASS), Some(&b"stream.lost"[..]));
    }
    assert!(!partition.start_abandoned(3));
}

#[test]
fn an_end_that_fails_behind_a_halt_is_a_dead_letter() {
    let mut partition = partition(vec![
        stage("s", Scope::Stream, OnFailure::Halt, Some(1)),
        stage("behind", Scope::Shared, OnFailure::Halt, None),
    ]);
    partition.start(frame(&[("a", "e1")]), 0);
    drive(&mut partition);
    let _first = partition.finish();
    partition.halt_no_more();
    assert!(partition.start_all_ends(1, |_| true));
    while let Some(mut call) = partition.next_call() {
        let verdict = match call.stage {
            0 => play(&mut call.layer),
            _ => Verdict::Trapped("boom".into()),
        };
        partition.done(call.layer, verdict);
    }
    assert_eq!(partition.halted(), None);
    let dead = partition.finish().dead_letters.expect("what the end said");
    assert_eq!(texts(&dead), pairs(&[("a", "end")]));
}

#[test]
fn a_stream_beyond_the_quota_is_not_opened() {
    let mut partition = partition(vec![stage("only", Scope::Stream, OnFailure::DeadLetter, None)]);
    partition.bound_streams(1);
    partition.start(frame(&[("a", "e1"), ("b", "e2"), ("a", "e3")]), 0);
    drive(&mut partition);
    let commit = partition.finish();
    assert_eq!(outputs(&commit), pairs(&[("a", "open"), ("a", "e1"), ("a", "e3")]));
    let dead = commit.dead_letters.expect("the event of stream b");
    let classes: Vec<_> = dead.events().map(|e| e.fields.get(dead_letter_field::CLASS)).collect();
    assert_eq!(classes, [Some(&b"stream.quota"[..])]);
    assert_eq!(partition.open_streams(), 1);
}

#[test]
fn requests_are_counted_to_zero() {
    let mut partition = partition(vec![stage("only", Scope::Shared, OnFailure::DeadLetter, None)]);
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(0), b"k", b"e", &fields);
    builder.push(&Head::data(0), b"k", b"x", &fields);
    partition.start(builder.finish(), 0);
    drive(&mut partition);
    // Two consumed, one sent on over an edge.
    assert_eq!(partition.finish().requests, [(RequestId(7), -1)]);
}

#[test]
fn a_failure_of_an_event_that_does_not_exist_is_a_trap() {
    let mut partition = partition(vec![stage("only", Scope::Shared, OnFailure::DeadLetter, None)]);
    partition.start(frame(&[("a", "e1")]), 0);
    let call = partition.next_call().expect("one");
    let lie = Failure::new(5, FailureClass::Reject, String::new());
    partition.done(call.layer, Verdict::Returned(vec![lie]));
    assert!(partition.next_call().is_none());
    let dead = partition.finish().dead_letters.expect("one");
    let event = dead.events().next().expect("one");
    assert_eq!(event.fields.get(dead_letter_field::CLASS), Some(&b"trap"[..]));
}

#[test]
fn a_large_run_is_cut_into_batches() {
    let mut partition = partition(vec![stage("only", Scope::Shared, OnFailure::DeadLetter, None)]);
    let many: Vec<(&str, &str)> = (0..600).map(|_| ("k", "e")).collect();
    partition.start(frame(&many), 0);
    let sizes: Vec<_> = drive(&mut partition).iter().map(|c| c.2).collect();
    assert_eq!(sizes, [256, 256, 88]);
    let large = "e".repeat(200_000);
    drop(partition.finish());
    partition.start(frame(&[("k", &large), ("k", &large), ("k", "e")]), 0);
    let sizes: Vec<_> = drive(&mut partition).iter().map(|c| c.2).collect();
    assert_eq!(sizes, [1, 2]);
}

proptest! {
    #[test]
    fn handled_and_lost_together_are_the_batch(
        events in prop::collection::vec((0_u8..4, prop::sample::select(vec!["e", "t", "x", "n"])), 1..120),
        scope in prop::sample::select(vec![Scope::Shared, Scope::Key]),
    ) {
        let mut partition = partition(vec![stage("only", scope, OnFailure::DeadLetter, None)]);
        let events: Vec<(String, String)> = events
            .iter()
            .enumerate()
            .map(|(at, (key, what))| (key.to_string(), format!("{what}{at}")))
            .collect();
        let list: Vec<(&str, &str)> =
            events.iter().map(|(k, p)| (k.as_str(), p.as_str())).collect();
        partition.start(frame(&list), 0);
        drive(&mut partition);
        let commit = partition.finish();
        let of_key = |list: Vec<(String, String)>, key: &str| -> Vec<String> {
            list.into_iter().filter(|(k, _)| k == key).map(|(_, p)| p).collect()
        };
        for key in ["0", "1", "2", "3"] {
            let wanted = |first: &[char]| -> Vec<String> {
                let mine = events.iter().filter(|(k, p)| k == key && p.starts_with(first));
                mine.map(|(_, p)| p.clone()).collect()
            };
            prop_assert_eq!(of_key(outputs(&commit), key), wanted(&['e']));
            let dead = commit.dead_letters.as_ref().map(texts).unwrap_or_default();
            prop_assert_eq!(of_key(dead, key), wanted(&['t', 'x']));
            let handled = wanted(&['e', 'n']).len() as i64;
            let layer = partition.stages[0].layer.as_ref().expect("idle");
            let seen = layer.state_ref().get(key.as_bytes(), b"seen").map(<[u8]>::to_vec);
            let expected = (handled > 0).then(|| handled.to_le_bytes().to_vec());
            prop_assert_eq!(seen, expected, "writes of failed calls must not stand");
        }
    }
}

#[test]
fn a_replayed_event_enters_by_the_stage_it_failed_in() {
    let mut machine = partition(vec![
        stage("first", Scope::Shared, OnFailure::DeadLetter, Some(1)),
        stage("second", Scope::Shared, OnFailure::DeadLetter, None),
    ]);
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
    assert!(push_field(&mut fields, field::EVENT_ID, b"id"));
    let mut builder = FrameBuilder::new();
    let head = Head { input: 3, ..Head::data(8) };
    builder.push(&head, b"k", b"e1", &fields);
    // A dead letter of the second stage.
    let mut draft = Draft::default();
    for event in builder.finish().events() {
        draft.dead_letter("second", &event, "trap", "boom");
    }
    let dead = draft.finish().dead_letters.expect("one");
    let mut batch = FrameBuilder::new();
    batch.push(&Head::data(1), b"k", b"e0", &[]);
    for event in dead.events() {
        push_again(&event, Some("second"), &mut batch);
        push_again(&event, None, &mut batch);
        push_again(&event, Some("gone"), &mut batch);
    }
    machine.start(batch.finish(), 0);
    let mut given = Vec::new();
    while let Some(mut call) = machine.next_call() {
        let each = call.layer.frame().clone();
        for event in each.events() {
            let ids: Vec<u16> = event.fields.iter().map(|(id, _)| id).collect();
            let text = String::from_utf8_lossy(event.payload).into_owned();
            given.push((call.stage, event.head.input, text, ids));
        }
        let verdict = play(&mut call.layer);
        machine.done(call.layer, verdict);
    }
    let id = vec![field::EVENT_ID];
    let expected = [
        (0, 0, "e0".to_owned(), vec![]),
        (0, 3, "e1".to_owned(), id.clone()),
        (1, 3, "e1".to_owned(), id),
        (1, 0, "e0".to_owned(), vec![]),
        (1, 0, "e1".to_owned(), vec![]),
    ];
    assert_eq!(given, expected);
    let commit = machine.finish();
    let dead = commit.dead_letters.expect("the one whose stage is gone");
    let event = dead.events().next().expect("one");
    assert_eq!(event.fields.get(dead_letter_field::STAGE), Some(&b"gone"[..]));
    assert_eq!(event.fields.get(dead_letter_field::CLASS), Some(&b"replay"[..]));
    assert_eq!((event.head.input, event.payload), (3, &b"e1"[..]));
}
