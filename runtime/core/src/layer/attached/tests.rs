//! Which handles an emitted event may name, and by which ports it goes with them.

use proptest::prelude::*;

use super::*;
use crate::frame::{FrameBuilder, Head, push_field};
use crate::layer::{KeyRule, LayerLimits, Spread, Target};
use crate::state::{KeyedState, StateLimits};

/// A stage whose port 0 leads to a stage of the segment, port 1 there and out of it, port 2 out of
/// it, port 3 to two of its stages and port 4 nowhere.
fn layer() -> Layer {
    let targets = [0, 1, 1, 2, 3, 3].map(|port| Target {
        port,
        input: 0,
        key: KeyRule::Cause,
        spread: Spread::One,
        inside: false,
    });
    let inside = [Some(1), Some(1), None, None, Some(1), Some(2)];
    let state = KeyedState::new(1, StateLimits { key_bytes: 1000, total_bytes: 10_000 });
    let limits = LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 16, reply_bytes: 0 };
    Layer::new(Arc::new(Ports::new(5, targets.to_vec())), limits, state).in_segment(&inside)
}

fn packed(handles: &[u64]) -> Vec<u8> {
    handles.iter().flat_map(|handle| handle.to_le_bytes()).collect()
}

/// A frame of events that have these attached, or no field at all.
fn frame(port: u16, events: &[Option<Vec<u64>>]) -> Frame {
    let mut builder = FrameBuilder::new();
    for handles in events {
        let mut fields = Vec::new();
        if let Some(handles) = handles {
            assert!(push_field(&mut fields, field::ATTACHMENTS, &packed(handles)));
        }
        builder.push(&Head { port, cause: 0, ..Head::data(1) }, b"", b"x", &fields);
    }
    builder.finish()
}

fn of(handles: &[u64]) -> Frame {
    frame(0, &[Some(handles.to_vec())])
}

/// One event with exactly these bytes attached.
fn raw(value: &[u8]) -> Frame {
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::ATTACHMENTS, value));
    let mut builder = FrameBuilder::new();
    builder.push(&Head { cause: 0, ..Head::data(1) }, b"", b"x", &fields);
    builder.finish()
}

#[test]
fn a_call_holds_what_it_was_given_and_what_it_was_told_and_no_other_does() {
    let mut layer = layer();
    layer.begin(frame(0, &[Some(vec![5, 6]), None, Some(vec![7])]));
    assert_eq!(layer.unheld(of(&[9, 7, 5, 8, 9]).bytes()), Ok(vec![9, 8]));
    assert_eq!(layer.emit(of(&[7, 5]).bytes()), Ok(()));
    assert_eq!(layer.emit(of(&[7, 9]).bytes()), Err(EmitError::Attachment));
    layer.hold(9);
    assert_eq!(layer.unheld(of(&[9, 7, 5, 8, 9]).bytes()), Ok(vec![8]));
    assert_eq!(layer.emit(of(&[7, 9]).bytes()), Ok(()));
    layer.discard();
    layer.begin(frame(0, &[None, Some(vec![6])]));
    assert_eq!(layer.unheld(of(&[5, 6, 7, 9]).bytes()), Ok(vec![5, 7, 9]));
    assert_eq!(layer.emit(of(&[5]).bytes()), Err(EmitError::Attachment), "of the call before");
    assert_eq!(layer.emit(of(&[9]).bytes()), Err(EmitError::Attachment), "of the call before");
    let mut aside = layer.aside();
    aside.begin(frame(0, &[None]));
    assert_eq!(aside.unheld(of(&[6]).bytes()), Ok(vec![6]));
    aside.hold(6);
    assert_eq!(aside.emit(of(&[6]).bytes()), Ok(()), "it leads where the other does");
}

#[test]
fn what_is_attached_stays_in_the_segment() {
    for (port, expected) in [
        (0, Ok(())),
        (1, Err(EmitError::AttachmentLeaves(1))),
        (2, Err(EmitError::AttachmentLeaves(2))),
        (3, Ok(())),
        (4, Ok(())),
        (5, Err(EmitError::Port(5))),
    ] {
        let mut layer = layer();
        layer.begin(frame(0, &[Some(vec![7])]));
        let emitted = frame(port, &[Some(vec![7])]);
        assert_eq!(layer.unheld(emitted.bytes()).map(drop), expected, "{port}");
        assert_eq!(layer.emit(emitted.bytes()), expected, "{port}");
        let without = frame(port, &[Some(Vec::new())]);
        let allowed = if port < 5 { Ok(()) } else { expected };
        assert_eq!(layer.emit(without.bytes()), allowed, "nothing is attached");
    }
    let why = EmitError::AttachmentLeaves(2).to_string();
    assert!(why.contains("read the buffer and emit its bytes"), "{why}");
}

#[test]
fn a_layer_that_is_in_no_segment_lets_nothing_go() {
    let target =
        Target { port: 0, input: 0, key: KeyRule::Cause, spread: Spread::One, inside: true };
    let limits = LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 16, reply_bytes: 0 };
    let state = KeyedState::new(1, StateLimits::NONE);
    let mut layer = Layer::new(Arc::new(Ports::new(1, vec![target])), limits, state);
    layer.begin(frame(0, &[Some(vec![7])]));
    assert_eq!(layer.emit(of(&[7]).bytes()), Err(EmitError::AttachmentLeaves(0)));
}

#[test]
fn attachments_are_whole_and_bounded() {
    let mut layer = layer();
    layer.begin(frame(0, &[None]));
    let cut = Err(EmitError::AttachmentBytes(7));
    assert_eq!(layer.unheld(raw(&[0; 7]).bytes()).map(drop), cut);
    assert_eq!(layer.emit(raw(&[0; 7]).bytes()), cut);
    let many: Vec<u64> = (0..257).collect();
    let too_many = Err(EmitError::Attachments(256));
    // Of an event, and of a frame that names some twice.
    assert_eq!(layer.unheld(of(&many).bytes()).map(drop), too_many);
    let halves = |end: usize| frame(0, &[many[..128].to_vec(), many[..end].to_vec()].map(Some));
    assert_eq!(layer.unheld(halves(256).bytes()), Ok(many[..256].to_vec()));
    let more = frame(0, &[many[..200].to_vec(), many[150..].to_vec()].map(Some));
    assert_eq!(layer.unheld(more.bytes()).map(drop), too_many);
    many.iter().for_each(|handle| layer.hold(*handle));
    assert_eq!(layer.emit(of(&many).bytes()), too_many);
    assert_eq!(layer.emit(of(&many[..256]).bytes()), Ok(()));
    assert_eq!(layer.unheld(more.bytes()), Ok(Vec::new()), "they are held");
}

#[test]
fn what_is_no_frame_is_so_before_it_is_emitted() {
    let mut layer = layer();
    layer.begin(frame(0, &[None]));
    assert!(matches!(layer.unheld(b"junk"), Err(EmitError::Frame(_))));
    let good = of(&[7]);
    let cut = &good.bytes()[..good.bytes().len() - 1];
    assert!(matches!(layer.unheld(cut), Err(EmitError::Frame(_))));
    let large = vec![0; 1 << 21];
    assert_eq!(layer.unheld(&large), Err(EmitError::TooMuch(1 << 20)));
    assert_eq!(layer.emitted_bytes(), 0, "nothing was emitted");
}

/// Handles that meet often.
fn some_events() -> impl Strategy<Value = Vec<Option<Vec<u64>>>> {
    let handles = prop::collection::vec(0_u64..12, 0..4);
    prop::collection::vec(prop::option::weighted(0.4, handles), 1..20)
}

proptest! {
    /// Plain events go their short way between those that are not.
    #[test]
    fn what_goes_on_is_what_is_held(
        calls in prop::collection::vec(
            (some_events(), some_events(), prop::collection::btree_set(0_u64..12, 0..8)),
            1..4,
        ),
        port in prop_oneof![Just(0_u16), Just(3)],
    ) {
        let mut layer = layer();
        for (given, emitted, told) in calls {
            layer.begin(frame(0, &given));
            let mut held: BTreeSet<u64> = given.iter().flatten().flatten().copied().collect();
            let packed_frame = frame(port, &emitted);
            let mut unheld = Vec::new();
            for handle in emitted.iter().flatten().flatten() {
                if !held.contains(handle) && !unheld.contains(handle) {
                    unheld.push(*handle);
                }
            }
            prop_assert_eq!(layer.unheld(packed_frame.bytes()), Ok(unheld));
            told.iter().for_each(|handle| layer.hold(*handle));
            held.extend(told);
            let is_good = emitted.iter().flatten().flatten().all(|handle| held.contains(handle));
            let expected = if is_good { Ok(()) } else { Err(EmitError::Attachment) };
            prop_assert_eq!(layer.emit(packed_frame.bytes()), expected);
            if !is_good {
                layer.discard();
                continue;
            }
            layer.accept();
            let mut runs = Vec::new();
            layer.take_runs(|run| runs.push(run.frame));
            prop_assert_eq!(runs.len(), if port == 0 { 1 } else { 2 });
            for run in runs {
                let attached = |event: Event<'_>| {
                    event.fields.get(field::ATTACHMENTS).map(<[u8]>::to_vec)
                };
                let found: Vec<Option<Vec<u8>>> = run.events().map(attached).collect();
                let some = |handles: &Option<Vec<u64>>| {
                    handles.as_ref().filter(|it| !it.is_empty()).map(|it| packed(it))
                };
                prop_assert_eq!(found, emitted.iter().map(some).collect::<Vec<_>>());
                let is_plain = emitted.iter().all(|it| some(it).is_none());
                prop_assert!(is_plain || !run.is_plain());
            }
        }
    }
}
