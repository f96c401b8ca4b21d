//! Batches that remove what is over: when there are any, and what they are made of.

use super::*;
use crate::codec::{Batch, CommitRecord, Record, RecordWriter, decode};
use crate::ids::{OutputId, PipelineId, StageId};
use crate::limits::{KEY_BYTES_MAX, SLOT_BYTES_MAX};
use crate::state::Change;
use crate::state::Ttl;

const SECOND: u64 = 1_000_000;

/// One stage, whose keys stay for eight seconds and are looked at every second.
fn living() -> Partition {
    let mut only = stage("only", Scope::Shared, OnFailure::DeadLetter, None);
    only.state_ttl = Some(Ttl::of_ms(8000));
    partition(vec![only])
}

fn recorded() -> Partition {
    let mut partition = living();
    let stages = vec![StageIds { stage: StageId(3), leads: vec![Leads::Output(OutputId(0))] }];
    let ids = SegmentIds { pipeline: PipelineId(1), version: 2, partition: 5, stages };
    partition.keep_ledger(Arc::new(ids), Progress::default());
    partition
}

fn run(partition: &mut Partition, events: &[(&str, &str)], now: u64) -> Commit {
    partition.start(frame(events), now);
    drive(partition);
    partition.finish()
}

/// How often a key was seen, as its stage would be told.
fn seen(partition: &mut Partition, key: &str) -> Option<i64> {
    let state = layer_of(&mut partition.stages[0]).state();
    let bytes = state.get(key.as_bytes(), b"seen")?.try_into().expect("a counter");
    Some(i64::from_le_bytes(bytes))
}

fn expired(partition: &mut Partition) -> Vec<(usize, u64)> {
    let mut all = Vec::new();
    partition.take_expired(|stage, count| all.push((stage, count)));
    all
}

const LOOKED: Expiry = Expiry { started: false, ended: Some(0) };

#[test]
fn keys_are_looked_at_now_and_then_and_go_in_a_batch_without_calls() {
    let mut partition = living();
    assert_eq!(partition.next_expiry(), None, "there is nothing to look at");
    run(&mut partition, &[("a", "e1"), ("b", "e1")], 5);
    assert_eq!(partition.next_expiry(), Some(0));
    assert_eq!(partition.start_expiry(5), Expiry::default());
    assert_eq!(partition.next_expiry(), Some(SECOND + 5), "and not at once");
    assert_eq!(partition.start_expiry(SECOND), Expiry::default(), "it is not time");
    assert_eq!(partition.start_expiry(SECOND + 5), LOOKED);
    assert_eq!(partition.next_expiry(), Some(2 * SECOND + 5));
    run(&mut partition, &[("b", "e1")], 8 * SECOND);
    let started = Expiry { started: true, ended: Some(0) };
    assert_eq!(partition.start_expiry(9 * SECOND), started);
    assert_eq!(drive(&mut partition), []);
    let commit = partition.finish();
    assert_eq!((commit.runs.len(), commit.dead_letters, commit.requests), (0, None, vec![]));
    assert_eq!(expired(&mut partition), [(0, 1)]);
    assert_eq!(expired(&mut partition), []);
    assert_eq!((seen(&mut partition, "a"), seen(&mut partition, "b")), (None, Some(2)));
    assert_eq!(partition.start_expiry(17 * SECOND), started);
    drop(partition.finish());
    assert_eq!((partition.state_bytes(), partition.next_expiry()), (0, None));
}

#[test]
fn a_stage_begins_anew_with_a_key_that_is_over_and_not_in_a_call_that_is_taken_back() {
    let mut partition = living();
    run(&mut partition, &[("a", "e1"), ("a", "e2"), ("b", "e1")], 0);
    let before = partition.state_bytes();
    let commit = run(&mut partition, &[("a", "t")], 9 * SECOND);
    assert!(commit.dead_letters.is_some());
    assert_eq!((partition.state_bytes(), expired(&mut partition)), (before, vec![]));
    run(&mut partition, &[("a", "t"), ("a", "e3")], 9 * SECOND);
    assert_eq!((seen(&mut partition, "a"), seen(&mut partition, "b")), (Some(1), None));
    assert_eq!(expired(&mut partition), [(0, 1)], "that of the call that stands");
}

#[test]
fn a_stage_without_a_time_to_live_is_not_looked_through() {
    let plans = ["for-ever", "living"].map(|name| {
        stage(name, Scope::Shared, OnFailure::DeadLetter, (name == "for-ever").then_some(1))
    });
    let [for_ever, mut living] = plans;
    living.state_ttl = Some(Ttl::of_ms(8000));
    let mut partition = partition(vec![for_ever, living]);
    run(&mut partition, &[("a", "e1")], 0);
    partition.start_expiry(0);
    let started = Expiry { started: true, ended: Some(1) };
    assert_eq!(partition.start_expiry(9 * SECOND), started);
    drop(partition.finish());
    assert_eq!(expired(&mut partition), [(1, 1)]);
    assert_eq!((seen(&mut partition, "a"), partition.next_expiry()), (Some(1), None));
}

#[test]
fn a_new_version_says_anew_how_long_keys_stay() {
    let mut old = living();
    run(&mut old, &[("a", "e1")], 0);
    let mut new = partition(vec![stage("only", Scope::Shared, OnFailure::DeadLetter, None)]);
    for (name, state) in old.into_states() {
        new.adopt(&name, state);
    }
    run(&mut new, &[("b", "e1")], 9 * SECOND);
    assert_eq!((seen(&mut new, "a"), new.next_expiry()), (Some(1), None));
    let mut again = living();
    for (name, state) in new.into_states() {
        again.adopt(&name, state);
    }
    run(&mut again, &[("c", "e1")], 10 * SECOND);
    assert_eq!(seen(&mut again, "a"), None, "it was not written for ten seconds");
    assert_eq!(seen(&mut again, "b"), Some(1), "nobody knows since when");
    again.start_expiry(10 * SECOND);
    assert!(again.start_expiry(11 * SECOND).started);
    drop(again.finish());
    run(&mut again, &[("d", "e1")], 20 * SECOND);
    assert_eq!(seen(&mut again, "b"), None, "eight seconds after it was looked at");
}

/// Ends the batch with its record, which `look` is shown. How large it is.
fn finish(partition: &mut Partition, look: impl FnOnce(&CommitRecord<'_>)) -> usize {
    let mut writer = RecordWriter::new();
    let recorded = partition.finish_recorded((&[], usize::MAX), &mut writer, |_, _| {});
    assert!(recorded.is_ok());
    let body = writer.to_bytes();
    let Ok(Record::Commit(record)) = decode(writer.kind(), &body) else { panic!("a commit") };
    look(&record);
    body.len()
}

#[test]
fn its_record_is_of_deletions_only_and_never_too_large() {
    let mut partition = recorded();
    // As many of the longest names as go in a piece.
    let name = |n: usize, length: usize| format!("{n:0length$}").into_bytes();
    let zero = 0_u64.to_le_bytes();
    for key in 0..300 {
        let key = name(key, KEY_BYTES_MAX);
        for slot in 0..3 {
            let slot = name(slot, SLOT_BYTES_MAX);
            let change = Change { key: &key, slot: &slot, value: Some(b"value") };
            partition.restore(StageId(3), &change);
        }
        let stamp = Change { key: &key, slot: crate::state::STAMP, value: Some(&zero) };
        partition.restore(StageId(3), &stamp);
    }
    partition.start_expiry(20 * SECOND);
    assert_eq!(partition.start_expiry(30 * SECOND), Expiry { started: true, ended: None });
    assert_eq!(drive(&mut partition), []);
    let bytes = finish(&mut partition, |record| {
        assert_eq!((&record.batch, record.usage.events), (&Batch::default(), 0));
        assert_eq!(record.state.iter().count(), 256 * 4);
        assert!(record.state.iter().all(|(_, change)| change.value.is_none()));
    });
    assert!(bytes < 512 * 1024 / 2, "{bytes} bytes; a record may have half of a file of 1 MiB");
    // One that the log refuses is taken back, and what is over is over later.
    assert!(partition.start_expiry(30 * SECOND).started);
    let refused = partition.finish_recorded((&[], 10), &mut RecordWriter::new(), |_, _| {});
    assert!(refused.is_err());
    let (frame, batch) = partition.take_back();
    assert_eq!((frame.len(), batch), (0, Batch::default()));
    assert_eq!(expired(&mut partition), [(0, 256)]);
    assert!(partition.start_expiry(31 * SECOND).started);
    finish(&mut partition, |record| assert_eq!(record.state.iter().count(), 44 * 4));
    assert_eq!((partition.state_bytes(), expired(&mut partition)), (0, vec![(0, 44)]));
}

#[test]
fn keys_that_are_in_the_store_alone_go_when_they_are_named() {
    let mut partition = recorded();
    partition.back_state();
    let keys: Vec<Box<[u8]>> = [b"a", b"b", b"c"].map(|key| key[..].into()).to_vec();
    let stamp = |at: u64| (at * SECOND).to_le_bytes();
    for (key, at) in keys.iter().zip([1_u64, 1, 6]) {
        let change = |slot, value| Change { key, slot, value: Some(value) };
        partition.restore(StageId(3), &change(b"seen", b"12345678"));
        partition.restore(StageId(3), &change(crate::state::STAMP, &stamp(at)));
    }
    let periods = partition.next_periods();
    partition.kept(&periods);
    assert!(!partition.is_cold(0));
    while partition.make_room(0) {}
    assert!(partition.is_cold(0) && partition.state_bytes() == 0);
    partition.start_expiry(10 * SECOND);
    assert_eq!(partition.start_expiry(11 * SECOND), LOOKED, "nothing is here");
    assert!(partition.next_expiry().is_some(), "and something may be elsewhere");
    // Those that are named and were not loaded are passed over.
    for (key, at) in [(b"a", 1), (b"c", 6)] {
        let slots = [(&b"seen"[..], &b"12345678"[..]), (crate::state::STAMP, &stamp(at))];
        partition.load(0, key, slots.into_iter());
    }
    let mut hand = 0;
    assert!(partition.start_expiry_of(0, (&keys, &mut hand), 11 * SECOND));
    finish(&mut partition, |record| {
        let gone: Vec<_> =
            record.state.iter().map(|(_, change)| (change.key, change.slot)).collect();
        assert_eq!(gone, [(&b"a"[..], &b"seen"[..]), (b"a", crate::state::STAMP)]);
    });
    assert_eq!((hand, expired(&mut partition)), (3, vec![(0, 1)]));
    assert!(!partition.start_expiry_of(0, (&keys, &mut 0), 11 * SECOND));
}
