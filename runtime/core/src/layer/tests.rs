//! Where emitted events go, with which key, and that discarding leaves no trace.

use proptest::prelude::*;

use super::*;
use crate::frame::{Head, Kind, NO_CAUSE, push_field};
use crate::json_key::Pointer;
use crate::state::StateLimits;

const LIMITS: LayerLimits = LayerLimits { emit_bytes: 10_000, event_bytes: 500, reply_bytes: 1000 };

fn target(port: u16, key: KeyRule, spread: Spread) -> Target {
    Target { port, input: 3, key, spread, inside: true }
}

fn layer(targets: Vec<Target>) -> Layer {
    let state = KeyedState::new(1, StateLimits { key_bytes: 1000, total_bytes: 10_000 });
    Layer::new(Arc::new(Ports::new(2, targets)), LIMITS, state)
}

/// A frame of data events with these keys.
fn input(keys: &[&str]) -> Frame {
    let mut builder = FrameBuilder::new();
    for (at, key) in keys.iter().enumerate() {
        builder.push(&Head::data(at as u64), key.as_bytes(), b"in", &[]);
    }
    builder.finish()
}

fn emitted(cause: u32, port: u16, key: &str, payload: &[u8], fields: &[u8]) -> Frame {
    let mut builder = FrameBuilder::new();
    let head = Head { kind: Kind::Data, input: 9, port, cause, time: 77 };
    builder.push(&head, key.as_bytes(), payload, fields);
    builder.finish()
}

fn runs(layer: &mut Layer) -> Vec<Run> {
    let mut out = Vec::new();
    layer.take_runs(|run| out.push(run));
    out
}

#[test]
fn each_target_gets_its_own_copy_with_its_own_key() {
    let pointer = Pointer::parse("/id").expect("pointer");
    let mut layer = layer(vec![
        target(0, KeyRule::Cause, Spread::One),
        target(0, KeyRule::Emitted, Spread::One),
        target(0, KeyRule::Json(pointer), Spread::Groups(8)),
        target(1, KeyRule::Cause, Spread::One),
    ]);
    layer.begin(input(&["a", "b"]));
    layer.emit(emitted(1, 0, "mine", br#"{"id":42}"#, &[]).bytes()).expect("good");
    layer.accept();
    let runs = runs(&mut layer);
    let keys: Vec<_> = runs
        .iter()
        .map(|run| (run.target, run.frame.events().next().map(|e| e.key_str().to_owned())))
        .collect();
    let owned = |key: &str| Some(key.to_owned());
    assert_eq!(keys, [(0, owned("b")), (1, owned("mine")), (2, owned("42"))]);
    assert_eq!(runs[2].partition, crate::key::partition_of(crate::key::group_of(b"42"), 8));
    let event = runs[0].frame.events().next().expect("one");
    assert_eq!((event.head.input, event.head.cause, event.head.time), (3, u32::MAX, 77));
}

#[test]
fn discarding_leaves_no_trace() {
    let mut layer = layer(vec![target(0, KeyRule::Cause, Spread::Groups(4))]);
    layer.begin(input(&["a"]));
    layer.emit(emitted(0, 0, "", b"kept", &[]).bytes()).expect("good");
    layer.keyed(0).expect("one event").0.add(b"a", b"n", 1).expect("fits");
    layer.accept();
    layer.begin(input(&["a", "b"]));
    layer.emit(emitted(0, 0, "", b"gone", &[]).bytes()).expect("good");
    layer.emit(emitted(1, 0, "", b"gone", &[]).bytes()).expect("good");
    layer.keyed(0).expect("event").0.add(b"a", b"n", 1).expect("fits");
    layer.discard();
    layer.begin(input(&["c"]));
    layer.emit(emitted(0, 0, "", b"kept too", &[]).bytes()).expect("good");
    layer.accept();
    let payloads: Vec<Vec<u8>> = runs(&mut layer)
        .iter()
        .flat_map(|run| run.frame.events().map(|e| e.payload.to_vec()).collect::<Vec<_>>())
        .collect();
    assert_eq!(payloads, [b"kept".to_vec(), b"kept too".to_vec()]);
    assert_eq!(layer.state().get(b"a", b"n"), Some(&1_i64.to_le_bytes()[..]));
    assert!(runs(&mut layer).is_empty());
}

#[test]
fn the_host_owns_its_fields() {
    let mut layer = layer(vec![target(0, KeyRule::Cause, Spread::One)]);
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::TRACE_CONTEXT, b"00-trace"));
    assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
    assert!(push_field(&mut fields, field::EVENT_ID, b"not inherited"));
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(0), b"k", b"", &fields);
    layer.begin(builder.finish());
    let mut forged = Vec::new();
    assert!(push_field(&mut forged, field::REQUEST, &99_u64.to_le_bytes()));
    assert!(push_field(&mut forged, 40_000, b"own"));
    layer.emit(emitted(0, 0, "", b"x", &forged).bytes()).expect("good");
    layer.accept();
    assert_eq!(layer.take_sent(), [RequestId(7)]);
    let run = runs(&mut layer).remove(0);
    let event = run.frame.events().next().expect("one");
    assert_eq!(request_of(&event), Some(RequestId(7)));
    assert_eq!(event.fields.get(field::TRACE_CONTEXT), Some(&b"00-trace"[..]));
    assert_eq!(event.fields.get(field::EVENT_ID), None);
    assert_eq!(event.fields.get(40_000), Some(&b"own"[..]));
}

#[test]
fn a_kept_trace_goes_on_by_the_span_of_the_call_and_others_as_they_are() {
    let context = |last: &str| format!("00-{}-{}-{last}", "a".repeat(32), "b".repeat(16));
    let mut layer = layer(vec![target(0, KeyRule::Cause, Spread::One)]);
    let mut builder = FrameBuilder::new();
    for text in [context("01"), context("00"), context("01"), "00-nonsense".to_owned()] {
        let mut fields = Vec::new();
        assert!(push_field(&mut fields, field::TRACE_CONTEXT, text.as_bytes()));
        builder.push(&Head::data(0), b"k", b"", &fields);
    }
    let frame = builder.finish();
    layer.begin(frame.clone());
    layer.set_spans(vec![(0, [1; 8]), (3, [3; 8])]);
    (0..4).for_each(|at| layer.emit(emitted(at, 0, "", b"x", &[]).bytes()).expect("good"));
    layer.accept();
    // The next call has others, or none.
    layer.begin(frame);
    layer.emit(emitted(0, 0, "", b"x", &[]).bytes()).expect("good");
    layer.accept();
    let run = runs(&mut layer).remove(0);
    let traces =
        run.frame.events().map(|event| event.fields.get(field::TRACE_CONTEXT).map(Vec::from));
    let traces: Vec<Vec<u8>> = traces.flatten().collect();
    let by_span = format!("00-{}-{}-01", "a".repeat(32), "01".repeat(8));
    let expected = [by_span, context("00"), context("01"), "00-nonsense".into(), context("01")];
    assert_eq!(traces, expected.map(String::into_bytes));
}

#[test]
fn a_bad_emit_is_named() {
    let mut layer = layer(vec![target(0, KeyRule::Cause, Spread::One)]);
    layer.begin(input(&["a"]));
    let cause = EmitError::Cause { cause: 1, events: 1 };
    assert_eq!(layer.emit(emitted(1, 0, "", b"", &[]).bytes()), Err(cause));
    assert_eq!(layer.emit(emitted(0, 2, "", b"", &[]).bytes()), Err(EmitError::Port(2)));
    assert_eq!(layer.emit(emitted(0, 1, "", b"", &[]).bytes()), Ok(()), "declared, leads nowhere");
    let large = layer.emit(emitted(0, 0, "", &[0; 600], &[]).bytes());
    assert!(matches!(large, Err(EmitError::Frame(_))));
    let flood = (0..100).find_map(|_| layer.emit(emitted(0, 0, "", &[0; 400], &[]).bytes()).err());
    assert_eq!(flood, Some(EmitError::TooMuch(10_000)));
    assert!(matches!(layer.emit(b"junk"), Err(EmitError::Frame(_) | EmitError::TooMuch(_))));
    layer.discard();
    assert!(runs(&mut layer).is_empty());
}

#[test]
fn a_missing_json_key_fails_the_cause() {
    let pointer = Pointer::parse("/id").expect("pointer");
    let mut layer = layer(vec![target(0, KeyRule::Json(pointer), Spread::Groups(2))]);
    layer.begin(input(&["a", "b"]));
    layer.emit(emitted(1, 0, "", b"{}", &[]).bytes()).expect("the frame is good");
    let failures = layer.take_failures();
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].event, failures[0].class), (1, FailureClass::Reject));
    assert!(failures[0].message.contains("'/id'"), "{}", failures[0].message);
}

#[test]
fn a_state_batch_reaches_only_the_keys_of_the_call() {
    let mut layer = layer(vec![]);
    layer.begin(input(&["a"]));
    let mut add = vec![4, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, b'n'];
    add.extend(5_i64.to_le_bytes());
    let mut out = Vec::new();
    assert_eq!(layer.state_batch(&add, &mut out), Ok(()));
    assert_eq!(out[8..16], 5_i64.to_le_bytes());
    add[4] = 1;
    assert_eq!(layer.state_batch(&add, &mut out), Err(BatchError::Event(0)));
}

#[test]
fn a_malformed_batch_is_refused_at_the_first_bad_operation() {
    let good = |code: u8, slot: &[u8], value: &[u8]| {
        let mut op = vec![code, slot.len() as u8, 0, 0, 0, 0, 0, 0];
        op.extend((value.len() as u32).to_le_bytes());
        op.extend([0; 4]);
        op.extend(slot);
        op.extend(value);
        op
    };
    let run = |bytes: &[u8]| {
        let mut layer = layer(vec![]);
        layer.begin(input(&["k"]));
        layer.state_batch(bytes, &mut Vec::new())
    };
    assert_eq!(run(&good(4, b"n", &1_i64.to_le_bytes())), Ok(()));
    assert_eq!(run(&good(4, b"n", b"short")), Err(BatchError::Value(0)));
    assert_eq!(run(&good(9, b"n", b"")), Err(BatchError::Operation(0)));
    assert_eq!(run(&good(1, b"\xFF", b"")), Err(BatchError::Slot(0)));
    assert_eq!(run(&good(1, b"n", b"x")), Err(BatchError::Value(0)));
    assert_eq!(run(&good(1, b"n", b"")[..15]), Err(BatchError::Truncated(0)));
    let timer = |clock: u8| [&[clock][..], &7_u64.to_le_bytes()].concat();
    assert_eq!(run(&good(5, b"t", &timer(1))), Ok(()));
    assert_eq!(run(&good(5, b"t", &timer(2))), Err(BatchError::Value(0)), "no such clock");
    assert_eq!(run(&good(5, b"t", &timer(1)[..8])), Err(BatchError::Value(0)));
    assert_eq!(run(&good(6, b"t", b"")), Ok(()));
    assert_eq!(run(&good(6, b"t", b"x")), Err(BatchError::Value(0)));
    let mut other = [good(1, b"n", b""), good(1, b"n", b"")].concat();
    other[17 + 4] = 1;
    assert_eq!(run(&other), Err(BatchError::Event(1)));
}

#[test]
fn a_batch_sets_and_cancels_timers_of_the_keys_of_the_call() {
    let operation = |code: u8, event: u8, value: &[u8]| {
        let head = [code, 1, 0, 0, event, 0, 0, 0, value.len() as u8, 0, 0, 0, 0, 0, 0, 0, b't'];
        [&head[..], value].concat()
    };
    let timer = |clock: u8, at: u64| [&[clock][..], &at.to_le_bytes()].concat();
    let mut layer = layer(vec![]);
    layer.begin(input(&["a", "b"]));
    let operations = [
        operation(5, 0, &timer(1, 7)),
        operation(5, 1, &timer(1, 8)),
        operation(6, 0, &[]),
        operation(6, 0, &[]),
        operation(5, 0, &timer(0, 9)),
    ];
    let mut out = Vec::new();
    assert_eq!(layer.state_batch(&operations.concat(), &mut out), Ok(()));
    let statuses: Vec<u8> = out.chunks(8).take(5).map(|reply| reply[0]).collect();
    assert_eq!(statuses, [0, 0, 0, 1, 2], "the last is refused: there is no event time here");
    layer.accept();
    assert_eq!((layer.timers_ref().len(), layer.state_ref().keys()), (1, 0));
    layer.begin(input(&["b"]));
    assert_eq!(layer.state_batch(&operation(6, 0, &[]), &mut Vec::new()), Ok(()));
    assert!(layer.timers_ref().is_empty());
    layer.discard();
    assert_eq!(layer.timers_ref().len(), 1, "it is back");
}

/// What an event is emitted with, besides its payload.
#[derive(Debug, Clone, Copy)]
enum With {
    Nothing,
    AKey,
    AField,
}

proptest! {
    /// Most events take a short way through `emit`.
    #[test]
    fn the_short_way_and_the_long_one_lead_to_the_same_place(
        keys in prop::collection::vec("[a-z]{0,20}", 1..40),
        events in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop_oneof![
                    9 => Just(With::Nothing),
                    1 => Just(With::AKey),
                    1 => Just(With::AField),
                ],
                prop_oneof![20 => 0_usize..100, 1 => 3_900_usize..4_200],
            ),
            1..120,
        ),
        in_order in any::<bool>(),
    ) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (mut emitted, mut expected) = (FrameBuilder::new(), FrameBuilder::new());
        for (number, (cause, with, length)) in events.iter().enumerate() {
            let any = cause.index(keys.len());
            let cause = if in_order { number * keys.len() / events.len() } else { any };
            let payload: Vec<u8> = (0..*length).map(|at| (at + number) as u8).collect();
            let mut fields = Vec::new();
            if matches!(with, With::AField) {
                assert!(push_field(&mut fields, 40_000, b"own"));
            }
            let key: &[u8] = if matches!(with, With::AKey) { b"ignored" } else { b"" };
            let time = number as u64;
            let head = Head { kind: Kind::Data, input: 9, port: 0, cause: cause as u32, time };
            emitted.push(&head, key, &payload, &fields);
            let head = Head { input: 3, cause: NO_CAUSE, ..head };
            expected.push(&head, keys[cause].as_bytes(), &payload, &fields);
        }
        let state = KeyedState::new(1, StateLimits { key_bytes: 0, total_bytes: 0 });
        let ports = Ports::new(1, vec![target(0, KeyRule::Cause, Spread::One)]);
        let limits = LayerLimits { emit_bytes: 1 << 20, event_bytes: 8192, reply_bytes: 0 };
        let mut layer = Layer::new(Arc::new(ports), limits, state);
        layer.begin(input(&keys));
        layer.emit(emitted.finish().bytes()).expect("good");
        layer.accept();
        let expected = expected.finish();
        let runs = runs(&mut layer);
        prop_assert_eq!(runs.len(), 1);
        prop_assert_eq!(&runs[0].frame, &expected);
        prop_assert_eq!(runs[0].frame.is_plain(), expected.is_plain());
        prop_assert_eq!(layer.emitted_events(), events.len());
    }
}
