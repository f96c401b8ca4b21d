//! Timers that fire: once, with their batch or not at all, whatever their calls come to.

use std::collections::BTreeMap;

use super::*;
use crate::timers::Clock;

/// What a stage does, by payload: `s…` sets the timer named by the rest, `c…` cancels it, `t`
/// traps, `x` rejects. A timer that fires emits its name, and fails while it is among `failing`.
fn drive_timers(partition: &mut Partition, failing: &mut BTreeMap<String, u32>) {
    while let Some(mut call) = partition.next_call() {
        let layer = &mut call.layer;
        let frame = layer.frame().clone();
        let mut verdict = Verdict::Returned(Vec::new());
        for (index, event) in frame.events().enumerate() {
            let (index, key) = (index as u32, event.key.to_vec());
            let text = String::from_utf8_lossy(event.payload).into_owned();
            let fails = failing.get_mut(&text).filter(|left| **left > 0);
            if let Some(left) = fails {
                *left -= 1;
                verdict = Verdict::Trapped("boom".into());
                break;
            }
            if event.head.kind == Kind::Timer {
                assert!(!layer.timers().cancel(&key, event.payload), "it is gone before its call");
                let mut builder = FrameBuilder::new();
                let head = Head { cause: index, ..Head::data(event.head.time) };
                builder.push(&head, b"", event.payload, &[]);
                layer.emit(builder.finish().bytes()).expect("good frame");
                continue;
            }
            if event.head.kind != Kind::Data {
                continue;
            }
            let (command, rest) = text.split_at(1);
            match command {
                "s" => {
                    let (name, at) = rest.split_once('@').expect("a time");
                    let at = at.parse().expect("a number");
                    let clock = if name.starts_with('w') { Clock::Wall } else { Clock::Event };
                    layer.timers().set(&key, name.as_bytes(), clock, at).expect("fits");
                }
                "c" => drop(layer.timers().cancel(&key, rest.as_bytes()).then_some(())),
                "t" => verdict = Verdict::Trapped("boom".into()),
                _ => {
                    let failure = Failure::new(index, FailureClass::Reject, "bad".into());
                    if let Verdict::Returned(failures) = &mut verdict {
                        failures.push(failure);
                    }
                }
            }
        }
        partition.done(call.layer, verdict);
    }
}

fn of(scope: Scope, on_failure: OnFailure) -> Partition {
    let mut partition = partition(vec![stage("only", scope, on_failure, None)]);
    partition.keep_event_time();
    partition
}

fn run(partition: &mut Partition, events: &[(&str, &str)], now: u64) -> Commit {
    partition.start(frame(events), now);
    drive_timers(partition, &mut BTreeMap::new());
    partition.finish()
}

/// What fires now, as key and name, until nothing does.
fn fire(partition: &mut Partition, now: u64) -> Vec<(String, String)> {
    fire_failing(partition, now, &mut BTreeMap::new())
}

fn fire_failing(
    partition: &mut Partition,
    now: u64,
    failing: &mut BTreeMap<String, u32>,
) -> Vec<(String, String)> {
    let mut fired = Vec::new();
    while partition.start_timers(now) {
        drive_timers(partition, failing);
        fired.extend(partition.finish().runs.iter().flat_map(|run| texts(&run.frame)));
    }
    fired
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn a_timer_fires_once_when_its_clock_has_come() {
    let mut partition = of(Scope::Shared, OnFailure::DeadLetter);
    run(&mut partition, &[("b", "se@20"), ("a", "se@20"), ("a", "sf@10"), ("a", "sw@20")], 1);
    assert_eq!(partition.next_timer(Clock::Event), Some(10));
    assert_eq!(partition.next_timer(Clock::Wall), Some(20));
    assert_eq!(fire(&mut partition, 19), []);
    partition.raise_watermark(25);
    assert!(partition.has_due_timers(0));
    assert_eq!(fire(&mut partition, 19), pairs(&[("a", "f"), ("a", "e"), ("b", "e")]));
    assert_eq!(fire(&mut partition, 20), pairs(&[("a", "w")]));
    assert_eq!((fire(&mut partition, 99), partition.timers(0)), (vec![], 0));
    partition.raise_watermark(3);
    assert_eq!(partition.watermark(), 25, "it never goes back");
}

#[test]
fn what_a_call_that_is_taken_back_set_or_cancelled_is_as_it_was() {
    let mut partition = of(Scope::Shared, OnFailure::DeadLetter);
    run(&mut partition, &[("a", "se@5"), ("b", "se@5")], 1);
    // Each is in a call with one that traps or fails, and stands alone.
    run(&mut partition, &[("a", "ce"), ("a", "t"), ("b", "se@9"), ("b", "x"), ("c", "se@7")], 1);
    partition.raise_watermark(7);
    assert_eq!(fire(&mut partition, 1), pairs(&[("c", "e")]));
    partition.raise_watermark(9);
    assert_eq!(fire(&mut partition, 1), pairs(&[("b", "e")]));
}

#[test]
fn a_timer_that_fails_is_retried_then_follows_the_policy_of_its_stage() {
    let events = [("a", "se@5"), ("a", "sg@6")];
    let fails = |name: &str, times| BTreeMap::from([(name.to_owned(), times)]);
    let mut lost = of(Scope::Shared, OnFailure::DeadLetter);
    run(&mut lost, &events, 1);
    lost.raise_watermark(9);
    assert!(lost.start_timers(1));
    drive_timers(&mut lost, &mut fails("e", u32::MAX));
    let commit = lost.finish();
    let dead = commit.dead_letters.expect("one was given up on");
    assert_eq!(texts(&dead), pairs(&[("a", "e")]));
    assert_eq!(dead.events().next().map(|event| event.head.kind), Some(Kind::Timer));
    assert_eq!(texts(&commit.runs[0].frame), pairs(&[("a", "g")]));
    assert_eq!((fire(&mut lost, 1), lost.timers(0)), (vec![], 0));

    let mut parked = of(Scope::Shared, OnFailure::Park);
    run(&mut parked, &events, 1);
    parked.raise_watermark(9);
    let mut failing = fails("e", 4);
    assert_eq!(fire_failing(&mut parked, 1, &mut failing), [], "the other waits behind it");
    assert_eq!(parked.parked(0), (1, 2));
    let mut fired = Vec::new();
    for now in (0..50).map(|at| at * 1000) {
        if parked.start_parked(now) {
            drive_timers(&mut parked, &mut failing);
            fired.extend(parked.finish().runs.iter().flat_map(|run| texts(&run.frame)));
        }
    }
    assert_eq!(fired, pairs(&[("a", "e"), ("a", "g")]), "in order");

    let mut halted = of(Scope::Shared, OnFailure::Halt);
    run(&mut halted, &events, 1);
    halted.raise_watermark(9);
    assert!(halted.start_timers(1));
    drive_timers(&mut halted, &mut fails("e", u32::MAX));
    assert!(halted.halted().is_some());
    assert!(halted.resume().is_some_and(|batch| batch.is_empty()), "nothing was taken");
    assert_eq!(halted.timers(0), 2, "both are back");
    assert_eq!(fire(&mut halted, 1), pairs(&[("a", "e"), ("a", "g")]));
}

#[test]
fn a_batch_of_timers_is_bounded() {
    let mut partition = of(Scope::Shared, OnFailure::DeadLetter);
    let keys: Vec<String> = (0..600).map(|key| format!("{key:03}")).collect();
    let events: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "sw@5")).collect();
    run(&mut partition, &events, 1);
    let mut sizes = Vec::new();
    while partition.start_timers(5) {
        drive_timers(&mut partition, &mut BTreeMap::new());
        let runs = partition.finish().runs;
        sizes.push(runs.iter().map(|run| run.frame.len()).sum::<usize>());
    }
    assert_eq!(sizes, [256, 256, 88]);
}

#[test]
fn timers_of_a_stream_end_with_it() {
    let mut partition = of(Scope::Stream, OnFailure::DeadLetter);
    run(&mut partition, &[("a", "sw@50"), ("b", "sw@50")], 1);
    assert_eq!(partition.timers(0), 2);
    run(&mut partition, &[("a", "END")], 2);
    assert_eq!(partition.timers(0), 1);
    assert_eq!(fire(&mut partition, 50), pairs(&[("b", "w")]), "as an event of its stream");
    assert_eq!(partition.open_streams(), 1);
}

#[test]
fn timers_are_handed_over_beside_the_state() {
    let mut partition = of(Scope::Shared, OnFailure::DeadLetter);
    run(&mut partition, &[("a", "sw@5"), ("b", "se@6")], 1);
    let states = partition.into_states();
    let names: Vec<&str> = states.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["only/timers", "only"]);
    for reversed in [false, true] {
        let mut heir = of(Scope::Shared, OnFailure::DeadLetter);
        let mut states = of(Scope::Shared, OnFailure::DeadLetter);
        run(&mut states, &[("a", "sw@5"), ("b", "se@6")], 1);
        let mut states = states.into_states();
        if reversed {
            states.reverse();
        }
        states.into_iter().for_each(|(name, state)| heir.adopt(&name, state));
        heir.raise_watermark(6);
        assert_eq!(fire(&mut heir, 5), pairs(&[("b", "e"), ("a", "w")]));
    }
}
