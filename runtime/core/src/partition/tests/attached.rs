//! Attachments go from stage to stage of a segment, and nothing that is put aside has any.

use super::*;
use crate::layer::EmitError;

const OWN: u16 = 40_000;

/// Two stages, of which the second does with what failed as it is said.
fn two(scope: Scope, on_failure: OnFailure) -> Partition {
    partition(vec![
        stage("first", Scope::Shared, OnFailure::DeadLetter, Some(1)),
        stage("second", scope, on_failure, None),
    ])
}

fn attached(event: &Event<'_>) -> Option<u64> {
    let value = event.fields.get(field::ATTACHMENTS)?;
    value.first_chunk().map(|handle| u64::from_le_bytes(*handle))
}

/// The first stage attaches one handle to each event, beside a field of its own; the second fails
/// by the payload, and gives what it was given.
fn run_two(partition: &mut Partition) -> Vec<(String, Option<u64>)> {
    run_that(partition, true)
}

fn run_that(partition: &mut Partition, fails: bool) -> Vec<(String, Option<u64>)> {
    let mut given = Vec::new();
    while let Some(mut call) = partition.next_call() {
        let layer = &mut call.layer;
        let frame = layer.frame().clone();
        let mut verdict = Verdict::Returned(Vec::new());
        for (index, event) in (0..).zip(frame.events()) {
            let text = String::from_utf8_lossy(event.payload).into_owned();
            if call.stage == 1 {
                given.push((text.clone(), attached(&event)));
                match (text.as_bytes().first().filter(|_| fails), &mut verdict) {
                    (Some(b't'), _) => verdict = Verdict::Trapped("boom".into()),
                    (Some(b'x'), Verdict::Returned(failures)) => {
                        failures.push(Failure::new(index, FailureClass::Reject, "bad".into()));
                    }
                    _ => {}
                }
                continue;
            }
            let handle = u64::from(index) + 7;
            layer.hold(handle);
            let mut fields = Vec::new();
            assert!(push_field(&mut fields, field::ATTACHMENTS, &handle.to_le_bytes()));
            assert!(push_field(&mut fields, OWN, b"own"));
            let mut builder = FrameBuilder::new();
            let head = Head { cause: index, ..Head::data(event.head.time) };
            builder.push(&head, b"", event.payload, &fields);
            layer.emit(builder.finish().bytes()).expect("it stays in the segment");
        }
        partition.done(call.layer, verdict);
    }
    given
}

fn owned(list: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>)> {
    list.iter().map(|(text, handle)| ((*text).to_owned(), *handle)).collect()
}

fn expect_without(dead: Option<Frame>, count: usize) {
    let dead = dead.expect("dead letters");
    assert_eq!(dead.len(), count);
    for event in dead.events() {
        assert_eq!(event.fields.get(field::ATTACHMENTS), None, "it is over with the batch");
        assert_eq!(event.fields.get(OWN), Some(&b"own"[..]), "all else is kept");
    }
}

#[test]
fn a_dead_letter_of_the_second_stage_has_no_attachments() {
    let mut partition = two(Scope::Shared, OnFailure::DeadLetter);
    partition.start(frame(&[("a", "good"), ("b", "xbad"), ("c", "t")]), 0);
    let given = run_two(&mut partition);
    let all = owned(&[("good", Some(7)), ("xbad", Some(8)), ("t", Some(9))]);
    assert_eq!(given[..3], all, "they are there");
    assert!(given.iter().all(|each| all.contains(each)), "a call that is made again finds them");
    expect_without(partition.finish().dead_letters, 2);
}

#[test]
fn what_is_parked_comes_again_without_attachments() {
    let mut partition = two(Scope::Shared, OnFailure::Park);
    partition.start(frame(&[("a", "t1"), ("a", "t2")]), 0);
    assert!(run_two(&mut partition).contains(&("t1".to_owned(), Some(7))));
    let commit = partition.finish();
    assert_eq!((commit.dead_letters, partition.parked(1)), (None, (1, 2)));
    // Another of its key comes while it is parked, and waits behind it.
    partition.start(frame(&[("a", "t3")]), 1);
    assert_eq!(run_two(&mut partition), []);
    assert_eq!((partition.finish().dead_letters, partition.parked(1)), (None, (1, 3)));
    assert!(partition.start_parked(2000));
    let given = run_that(&mut partition, false);
    assert_eq!(given, owned(&[("t1", None), ("t2", None), ("t3", None)]));
    let _commit = partition.finish();
}

#[test]
fn what_no_stream_takes_has_no_attachments_and_a_lost_stream_neither() {
    let mut partition = two(Scope::Stream, OnFailure::DeadLetter);
    partition.bound_streams(1);
    partition.start(frame(&[("a", "good"), ("b", "over"), ("a", "t")]), 0);
    let given = run_two(&mut partition);
    assert_eq!(given, owned(&[("", None), ("good", Some(7)), ("t", Some(9))]));
    let dead = partition.finish().dead_letters.expect("dead letters");
    assert_eq!(texts(&dead).len(), 4, "the stream with its beginning, and one over the quota");
    assert!(dead.events().all(|event| event.fields.get(field::ATTACHMENTS).is_none()));
}

#[test]
fn what_was_given_leaves_the_segment_only_without() {
    let mut partition = two(Scope::Shared, OnFailure::DeadLetter);
    partition.start(frame(&[("a", "e")]), 0);
    while let Some(mut call) = partition.next_call() {
        call.layer.hold(7);
        let mut fields = Vec::new();
        assert!(push_field(&mut fields, field::ATTACHMENTS, &7_u64.to_le_bytes()));
        let mut builder = FrameBuilder::new();
        builder.push(&Head { cause: 0, ..Head::data(1) }, b"", b"e", &fields);
        let emitted = call.layer.emit(builder.finish().bytes());
        let leaves = Err(EmitError::AttachmentLeaves(0));
        assert_eq!(emitted, if call.stage == 0 { Ok(()) } else { leaves });
        if call.stage == 1 {
            call.layer.discard();
        }
        partition.done(call.layer, Verdict::Returned(Vec::new()));
    }
    let _commit = partition.finish();
}

#[test]
fn state_that_is_taken_over_leaves_the_ports_as_they_are() {
    let mut partition = two(Scope::Shared, OnFailure::DeadLetter);
    let state = KeyedState::new(1, StateLimits::NONE);
    partition.adopt("first", state);
    partition.start(frame(&[("a", "good")]), 0);
    assert_eq!(run_two(&mut partition), owned(&[("good", Some(7))]));
    let _commit = partition.finish();
}
