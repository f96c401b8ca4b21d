//! Commits with a ledger: what is in their record, and where the partition stands behind them.

use super::*;
use crate::codec::{Batch, CommitRecord, Piece, Record, RecordWriter, Usage, decode};
use crate::ids::{EdgeId, OutputId, Part, PipelineId, StageId};
use crate::position::{Place, Source};
use crate::state::{Change, HOSTED};

/// A stage that is number 3, in partition 5, and where it leads.
fn recorded(scope: Scope, on_failure: OnFailure, leads: Leads) -> Partition {
    let mut partition = partition(vec![stage("only", scope, on_failure, None)]);
    let stages = vec![StageIds { stage: StageId(3), leads: vec![leads] }];
    let pipeline = PipelineId(1);
    let ids = SegmentIds { pipeline, version: 2, partition: 5, stages };
    let mut progress = Progress { number: 6, dead_letters: 4, ..Progress::default() };
    progress.offsets.insert(OutputId(0), 10);
    partition.keep_ledger(Arc::new(ids), progress);
    partition
}

/// What the calls of the first stage used.
fn fuel(fuel: u64) -> Usage {
    Usage { fuel, ..Usage::default() }
}

fn piece(from: Place, to: Place, events: u32) -> Vec<Piece> {
    vec![Piece { source: Source::Ingest, from, to, events }]
}

/// What a stage's changes were, in words.
fn text(change: &Change<'_>) -> String {
    let value = change.value.map_or_else(|| "-".into(), |value| value.escape_ascii().to_string());
    format!("{}.{}={value}", change.key.escape_ascii(), change.slot.escape_ascii())
}

/// Ends the batch, and looks at what was written of it.
fn finish(partition: &mut Partition, look: impl FnOnce(&CommitRecord<'_>, &[String])) -> Recorded {
    let mut writer = RecordWriter::new();
    let mut changes = Vec::new();
    let used = [fuel(77)];
    let recorded = partition.finish_recorded((&used, usize::MAX), &mut writer, |stage, change| {
        assert_eq!(stage.split().0, StageId(3));
        if stage.split().1 == Part::Own && change.slot.first() != Some(&HOSTED) {
            changes.push(text(&change));
        }
    });
    let recorded = recorded.expect("it is not too large");
    let body = writer.to_bytes();
    let Ok(Record::Commit(record)) = decode(writer.kind(), &body) else { panic!("a commit") };
    let own = |(stage, change): &(StageId, Change<'_>)| {
        stage.split().1 == Part::Own && change.slot.first() != Some(&HOSTED)
    };
    let written = record.state.iter().filter(own).map(|(_, change)| text(&change));
    let written: Vec<String> = written.collect();
    assert_eq!(written, changes);
    assert_eq!((record.head.number, &record.batch), (recorded.number, &recorded.batch));
    look(&record, &changes);
    recorded
}

#[test]
fn a_record_says_what_was_taken_what_it_left_and_what_it_took() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    let (from, to) = (Place::START, Place { seq: 1, index: 3 });
    partition.start_batch(frame(&[("a", "e1"), ("a", "x"), ("b", "e2")]), piece(from, to, 3), 9);
    drive(&mut partition);
    let recorded = finish(&mut partition, |record, changes| {
        let head = &record.head;
        assert_eq!((head.pipeline, head.version, head.stage), (PipelineId(1), 2, StageId(3)));
        assert_eq!((head.partition, head.number, head.time), (5, 7, 9));
        assert_eq!(record.usage, Usage { fuel: 77, events: 3, reruns: 1 });
        let one = r"\x01\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(changes, [format!("a.seen={one}"), format!("b.seen={one}")]);
    });
    let output = &recorded.sent.outputs[0];
    assert_eq!((output.first, texts(&output.frame)), (10, pairs(&[("a", "e1"), ("b", "e2")])));
    let dead = recorded.sent.dead_letters.as_ref().expect("one");
    assert_eq!((dead.first, texts(&dead.frame)), (4, pairs(&[("a", "x")])));
    let progress = partition.progress().expect("a ledger");
    assert_eq!((progress.number, progress.dead_letters), (7, 5));
    assert_eq!(progress.positions.at(Source::Ingest), to);
    assert_eq!(progress.offsets.get(&OutputId(0)), Some(&12));

    // The next one goes on from there, and says nothing of what it did not change.
    let rest = piece(to, Place { seq: 2, index: 0 }, 1);
    partition.start_batch(frame(&[("b", "n")]), rest, 8);
    drive(&mut partition);
    let recorded = finish(&mut partition, |record, changes| {
        assert_eq!((record.head.time, record.usage.reruns, changes.len()), (8, 0, 1));
        assert!(record.sent.outputs.is_empty() && record.sent.dead_letters.is_none());
    });
    assert_eq!(recorded.number, 8);
}

#[test]
fn a_run_that_keeps_its_key_stays_in_its_partition() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Edge(EdgeId(9)));
    let mut sent = Vec::new();
    for (seq, payload) in [(1, "e1"), (2, "n"), (3, "e2")] {
        let pieces = piece(Place { seq, index: 0 }, Place::after(seq), 1);
        partition.start_batch(frame(&[("a", payload)]), pieces, 0);
        drive(&mut partition);
        let recorded = finish(&mut partition, |_, _| ());
        sent.extend(recorded.sent.runs.iter().map(|run| (run.seq, run.previous, run.partition)));
    }
    // The commit between them sent nothing, and took no number of the edge.
    assert_eq!(sent, [(1, 0, 5), (2, 1, 5)]);
}

#[test]
fn a_halted_batch_comes_back_with_what_it_is_made_of() {
    let mut partition = recorded(Scope::Shared, OnFailure::Halt, Leads::Output(OutputId(0)));
    let pieces = piece(Place::START, Place::after(1), 2);
    partition.start_batch(frame(&[("a", "e1"), ("a", "x")]), pieces.clone(), 0);
    drive(&mut partition);
    assert!(partition.halted().is_some());
    let (frame, batch) = partition.resume_batch().expect("the batch");
    assert_eq!(batch, Batch { pieces: pieces.clone(), ends: None });
    assert_eq!(texts(&frame), pairs(&[("a", "e1"), ("a", "x")]));
    assert_eq!(partition.progress().map(|progress| progress.number), Some(6));
    partition.start_batch(frame, pieces, 0);
}

#[test]
fn streams_that_end_are_a_batch_of_their_own() {
    let mut partition = recorded(Scope::Stream, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    let pieces = piece(Place::START, Place::after(1), 1);
    partition.start_batch(frame(&[("a", "e1")]), pieces, 0);
    drive(&mut partition);
    finish(&mut partition, |record, changes| {
        assert_eq!((record.batch.ends, changes.len()), (None, 1));
    });
    assert!(partition.start_ends(10_000));
    drive(&mut partition);
    finish(&mut partition, |record, changes| {
        assert_eq!(record.batch, Batch { pieces: Vec::new(), ends: Some(10_000) });
        assert_eq!(changes, ["a.seen=-"], "a stream's state goes with it");
        assert_eq!(record.usage.events, 0);
    });
}

#[test]
fn state_is_put_back_between_batches() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    let put = |value| Change { key: b"a", slot: b"seen", value };
    let seven = 7_i64.to_le_bytes();
    partition.restore(StageId(3), &put(Some(&seven)));
    partition.start_batch(frame(&[("a", "n")]), piece(Place::START, Place::after(1), 1), 0);
    drive(&mut partition);
    finish(&mut partition, |_, changes| {
        assert_eq!(changes, [r"a.seen=\x08\x00\x00\x00\x00\x00\x00\x00"]);
    });
    partition.restore(StageId(3), &put(None));
    assert_eq!(partition.state_bytes(), 0);
}

#[test]
#[should_panic(expected = "a piece begins where the one before ended")]
fn a_batch_that_begins_elsewhere_is_a_bug() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    let from = Place { seq: 2, index: 0 };
    partition.start_batch(frame(&[("a", "e1")]), piece(from, Place::after(2), 1), 0);
}

#[test]
#[should_panic(expected = "a commit of a partition with a ledger is recorded")]
fn a_commit_that_is_not_recorded_is_a_bug() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    partition.start_batch(frame(&[("a", "e1")]), piece(Place::START, Place::after(1), 1), 0);
    drive(&mut partition);
    let _commit = partition.finish();
}

#[test]
fn a_commit_that_is_too_large_is_taken_back_and_made_in_parts() {
    let mut partition = recorded(Scope::Shared, OnFailure::DeadLetter, Leads::Output(OutputId(0)));
    let before = partition.progress().cloned();
    let place = |index| Place { seq: 1, index };
    let events = [("a", "e1"), ("a", "e2"), ("b", "e3")];
    partition.start_batch(frame(&events), piece(Place::START, place(3), 3), 9);
    drive(&mut partition);
    let mut writer = RecordWriter::new();
    let refused = partition.finish_recorded((&[fuel(77)], 70), &mut writer, |_, _| {});
    let bytes = writer.bytes_len();
    assert_eq!(refused, Err(TooLarge { bytes }));
    let (back, batch) = partition.take_back();
    assert_eq!((texts(&back), batch.pieces.len()), (pairs(&events), 1));
    assert_eq!((partition.state_bytes(), partition.progress().cloned()), (0, before));
    // Again, in two parts.
    partition.start_batch(frame(&events[..2]), piece(Place::START, place(2), 2), 9);
    drive(&mut partition);
    let first = finish(&mut partition, |record, _| {
        assert_eq!(record.usage.reruns, 1, "the call that was for nothing");
    });
    // The other part is too large even alone.
    partition.start_lost(frame(&events[2..]), piece(place(2), place(3), 1), 9);
    assert!(drive(&mut partition).is_empty());
    let second = finish(&mut partition, |record, changes| {
        assert_eq!((record.usage.events, changes.len()), (1, 0));
    });
    assert_eq!((first.number, second.number), (7, 8));
    assert_eq!(first.sent.outputs[0].first, 10);
    let dead = second.sent.dead_letters.expect("the event");
    let event = dead.frame.events().next().expect("one");
    assert_eq!((dead.first, event.payload), (4, &b"e3"[..]));
    assert_eq!(event.fields.get(dead_letter_field::CLASS), Some(&b"commit.too-large"[..]));
    assert_eq!(event.fields.get(dead_letter_field::STAGE), Some(&b"only"[..]));
    let positions = &partition.progress().expect("a ledger").positions;
    assert_eq!(positions.at(Source::Ingest), place(3));
}

#[test]
fn parked_events_whose_commit_is_too_large_come_in_smaller_batches() {
    let mut partition = recorded(Scope::Shared, OnFailure::Park, Leads::Output(OutputId(0)));
    let place = |index| Place { seq: 1, index };
    let events = [("a", "t1"), ("a", "e2"), ("a", "e3")];
    partition.start_batch(frame(&events), piece(Place::START, place(3), 3), 0);
    drive(&mut partition);
    let mut writer = RecordWriter::new();
    let stands = |_: StageId, _: Change<'_>| {};
    partition.finish_recorded((&[fuel(1)], usize::MAX), &mut writer, stands).expect("it fits");
    assert_eq!(partition.parked(0), (1, 3));
    let mut refused = 0;
    let mut dead = Vec::new();
    let mut now = 1000;
    // No commit with results fits; those of dead letters and of parking do.
    while partition.parked(0).0 > 0 {
        assert!(partition.start_parked(now), "it is due");
        while let Some(mut call) = partition.next_call() {
            // The first event has stopped trapping.
            call.layer.begin(frame(&vec![("a", "e"); call.layer.frame().len()]));
            let verdict = play(&mut call.layer);
            partition.done(call.layer, verdict);
        }
        let sends = partition.draft.runs.iter().any(|run| !run.frame.is_empty());
        let bytes_max = if sends { 1 } else { usize::MAX };
        match partition.finish_recorded((&[fuel(1)], bytes_max), &mut writer, stands) {
            Ok(recorded) => dead.extend(recorded.sent.dead_letters),
            Err(_) => {
                refused += 1;
                partition.take_back();
                assert_eq!(partition.parked(0), (1, 3 - dead.len() as u64));
            }
        }
        now = partition.next_parked().unwrap_or(now).max(now);
        assert!(refused < 100);
    }
    let lost: Vec<_> = dead.iter().flat_map(|run| texts(&run.frame)).collect();
    assert_eq!(lost, pairs(&events));
}
