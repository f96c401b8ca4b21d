//! What is kept of a stream, and what comes of it again.

use std::sync::Arc;

use super::*;
use crate::frame::{FrameBuilder, Head, push_field};
use crate::layer::{LayerLimits, Ports};
use crate::state::StateLimits;

const KEY: &[u8] = b"k";
const MUCH: u64 = 1 << 30;

fn layer() -> Layer {
    let limits = LayerLimits { emit_bytes: 1 << 20, event_bytes: 1 << 20, reply_bytes: 1 << 20 };
    let bounds = StateLimits { key_bytes: 1 << 20, total_bytes: 1 << 30 };
    let mut state = KeyedState::new(1, bounds);
    state.set_hosted(true);
    Layer::new(Arc::new(Ports::new(1, Vec::new())), limits, state)
}

fn call(time: u64, payload: &[u8]) -> Replay {
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(time), KEY, payload, &[]);
    Replay { frame: builder.finish(), time, watermark: time.checked_sub(2), seed: time << 32 | 5 }
}

fn image(pages: &[(u32, &[u8])]) -> Image {
    let page = |(number, bytes): &(u32, &[u8])| (*number, Bytes::copy_from_slice(bytes));
    Image { head: Bytes::from_static(b"head"), pages: pages.iter().map(page).collect() }
}

/// The names and values of the hosted slots that begin so.
fn hosted(state: &KeyedState, part: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    state.hosted_from(KEY, part).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

#[test]
fn a_life_is_read_back() {
    let mut layer = layer();
    assert_eq!(life(layer.state(), KEY), None);
    let written =
        Life { serial: 3, code: 0, opened_at: u64::MAX, last_at: 7, events: 300, bytes: 0 };
    set_life(layer.state(), KEY, &written);
    assert_eq!(life(layer.state(), KEY), Some(written));
}

#[test]
fn calls_come_back_in_order_with_what_they_saw() {
    let mut layer = layer();
    let calls: Vec<Replay> = (0..300).map(|at| call(at, &[at as u8; 3000])).collect();
    let mut long = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        if add(layer.state(), KEY, call, MUCH) {
            long.push(at);
        }
    }
    assert_eq!(long.first(), Some(&21), "22 calls of 3 KB are more than 64 KiB");
    let revival = Revival::read(layer.state(), KEY).expect("all is there");
    assert_eq!(revival.calls, calls);
    assert_eq!(revival.image, None);
}

#[test]
fn an_image_takes_the_place_of_the_history_and_writes_what_changed() {
    let mut layer = layer();
    layer.state().put(KEY, b"own", b"1").expect("it fits");
    add(layer.state(), KEY, &call(1, b"before"), MUCH);
    let first = image(&[(0, b"zero"), (1, b"one"), (1 << 20, b"other memory")]);
    set_image(&mut layer, KEY, &first);
    layer.commit_state();
    layer.state().put(KEY, b"own", b"2").expect("it fits");
    add(layer.state(), KEY, &call(2, b"behind"), MUCH);
    let revival = Revival::read(layer.state(), KEY).expect("all is there");
    assert_eq!(revival.calls, [call(2, b"behind")]);
    assert_eq!(revival.image, Some(first));
    let mut replayed = revival.layer(&layer, KEY);
    assert_eq!(replayed.state().get(KEY, b"own"), Some(&b"1"[..]), "the state of then");
    assert!(!Revival::agrees(&replayed, &layer, KEY));
    replayed.state().put(KEY, b"own", b"2").expect("it fits");
    assert!(Revival::agrees(&replayed, &layer, KEY));

    layer.commit_state();
    let second = image(&[(0, b"zero"), (2, b"two"), (1 << 20, b"other memory")]);
    set_image(&mut layer, KEY, &second);
    let mut changed = Vec::new();
    layer.state_ref().changes(&mut crate::state::Scratch::default(), |change| {
        changed.push((change.slot[1], change.value.is_some()));
    });
    let pages: Vec<_> = changed.iter().filter(|(part, _)| *part == b'p').collect();
    assert_eq!(pages, [&(b'p', false), &(b'p', true)], "one page went and one came");
    let revival = Revival::read(layer.state(), KEY).expect("all is there");
    assert_eq!((revival.image, revival.calls), (Some(second), Vec::new()));
}

#[test]
fn a_history_beyond_its_bound_is_given_up_until_there_is_an_image() {
    let mut layer = layer();
    assert!(!add(layer.state(), KEY, &call(1, &[1; 600]), 1000));
    assert!(add(layer.state(), KEY, &call(2, &[2; 600]), 1000), "an image would help");
    assert_eq!(hosted(layer.state(), CALL), []);
    assert_eq!(Revival::read(layer.state(), KEY).err(), Some(NoRevival::GivenUp));
    assert!(!add(layer.state(), KEY, &call(3, b"3"), 1000), "it stays given up");
    let asked = (0..100).filter(|at| add(layer.state(), KEY, &call(4 + at, &[4; 6000]), 1000));
    assert_eq!(asked.count(), 9, "not with every call");
    set_image(&mut layer, KEY, &image(&[(0, b"zero")]));
    add(layer.state(), KEY, &call(4, b"4"), 1000);
    let revival = Revival::read(layer.state(), KEY).expect("there is an image");
    assert_eq!(revival.calls, [call(4, b"4")]);
}

#[test]
fn what_is_damaged_is_no_revival() {
    let mut layer = layer();
    assert_eq!(Revival::read(layer.state(), KEY).err(), Some(NoRevival::Damaged));
    add(layer.state(), KEY, &call(1, b"e"), MUCH);
    let (name, entry) = hosted(layer.state(), CALL).pop().expect("a call");
    for cut in 0..entry.len() {
        layer.state().put_hosted(KEY, &name, &entry[..cut]);
        assert_eq!(Revival::read(layer.state(), KEY).err(), Some(NoRevival::Damaged), "{cut}");
    }
}

#[test]
fn a_call_with_attachments_ends_the_history_until_there_is_an_image() {
    let mut layer = layer();
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::ATTACHMENTS, &7_u64.to_le_bytes()));
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(2), KEY, b"with", &fields);
    let with = Replay { frame: builder.finish(), ..call(2, b"") };
    assert!(!add(layer.state(), KEY, &call(1, b"before"), MUCH));
    assert!(add(layer.state(), KEY, &with, MUCH), "an image would help");
    assert_eq!(hosted(layer.state(), CALL), [], "no handle is kept");
    assert_eq!(Revival::read(layer.state(), KEY).err(), Some(NoRevival::GivenUp));
    set_image(&mut layer, KEY, &image(&[(0, b"zero")]));
    add(layer.state(), KEY, &call(3, b"behind"), MUCH);
    let revival = Revival::read(layer.state(), KEY).expect("there is an image");
    assert_eq!(revival.calls, [call(3, b"behind")]);
}
