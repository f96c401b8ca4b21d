//! The frame against bytes written by hand from the tables in `wit/FRAME.md`.

use std::path::Path;

use super::check::checked;
use super::*;
use crate::event::{Event, Events, field};
use crate::host::memory::frame_of;

/// What "Golden bytes" in `wit/FRAME.md` describes, byte by byte.
fn golden() -> Vec<u8> {
    let mut bytes = Vec::new();
    // Header: magic, format, minimum reader, count, length.
    bytes.extend(b"SBXF");
    bytes.extend([1, 0, 1, 0, 2, 0, 0, 0, 116, 0, 0, 0]);
    // First event: size, kind open, no flags, input 1, port 2, key length, cause, time, payload
    // length, fields length, key, payload.
    bytes.extend([38, 0, 0, 0, 2, 0, 1, 0, 2, 0, 1, 0]);
    bytes.extend([0xFF, 0xFF, 0xFF, 0xFF]);
    bytes.extend([0x00, 0x40, 0x1E, 0x18, 0x24, 0x0A, 0x06, 0x00]);
    bytes.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"khello");
    // Second event: the same in the same order, with fields instead of a payload.
    bytes.extend([62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0]);
    bytes.extend([7, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 0, 0, 20, 0, 0, 0]);
    bytes.extend("schlüssel".as_bytes());
    bytes.extend([0x02, 0x01, 10, 0]);
    bytes.extend(b"text/plain");
    bytes.extend([0x40, 0x9C, 2, 0, 0x00, 0xFF]);
    bytes
}

/// The golden bytes with one of them changed.
fn golden_but(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = golden();
    assert_ne!(bytes[at], byte, "the change at {at} should change something");
    bytes[at] = byte;
    bytes
}

#[test]
fn the_bytes_by_hand_are_those_of_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/core/testdata/frame-v1.bin");
    // Outside the repository there is the crate alone.
    if path.parent().is_some_and(Path::exists) {
        assert_eq!(std::fs::read(path).expect("the golden file is there"), golden());
    }
}

#[test]
fn the_golden_bytes_are_read_as_the_two_events_they_describe() {
    let bytes = golden();
    let events: Vec<Event<'_>> = Events::open(&bytes).iter().collect();
    let [first, second] = events.as_slice() else {
        panic!("two events, not {}", events.len());
    };
    assert_eq!((first.index(), first.kind()), (0, Kind::Open));
    assert_eq!((first.input(), first.port()), (1, 2));
    assert_eq!(first.time(), 1_700_000_000_000_000);
    assert_eq!((first.key(), first.key_bytes()), ("k", &b"k"[..]));
    assert_eq!(first.payload(), b"hello");
    assert_eq!(first.fields().count(), 0);

    assert_eq!((second.index(), second.kind()), (1, Kind::Data));
    assert_eq!((second.input(), second.port()), (0, 0));
    assert_eq!(second.time(), 1);
    assert_eq!(second.key(), "schlüssel");
    assert_eq!(second.payload(), b"");
    assert_eq!(second.field(field::CONTENT_TYPE), Some(&b"text/plain"[..]));
    assert_eq!(second.field(40_000), Some(&[0x00, 0xFF][..]));
    assert_eq!(second.field(field::EVENT_ID), None);
    let ids: Vec<u16> = second.fields().map(|(id, _)| id).collect();
    assert_eq!(ids, [258, 40_000]);
}

#[test]
fn the_two_events_are_written_as_the_golden_bytes() {
    let mut fields = Vec::new();
    assert!(push_field(&mut fields, field::CONTENT_TYPE, b"text/plain"));
    assert!(push_field(&mut fields, 40_000, &[0x00, 0xFF]));
    let head = Head {
        size: 0,
        kind: 0,
        flags: 0,
        input: 0,
        port: 0,
        key_bytes: 0,
        cause: 7,
        time: 1,
        payload_bytes: 0,
        fields_bytes: 0,
    };
    let time = 1_700_000_000_000_000;
    let open = Head { kind: 2, input: 1, port: 2, cause: NO_CAUSE, time, ..head };
    let events = [
        Parts { head: open, key: b"k", payload: b"hello", fields: &[] },
        Parts { head, key: "schlüssel".as_bytes(), payload: &[], fields: &fields },
    ];
    assert_eq!(frame_of(events.into_iter()), golden());
}

#[test]
fn the_thorough_check_accepts_the_golden_bytes() {
    let bytes = golden();
    let causes: Vec<u32> =
        checked(&bytes).expect("it is a frame").iter().map(|parts| parts.head.cause).collect();
    assert_eq!(causes, [NO_CAUSE, 7]);
}

#[test]
fn the_thorough_check_refuses_each_broken_byte() {
    // Place, new byte, part of the message.
    let broken = [
        (0, b'T', "magic"),
        (6, 2, "newer reader"),
        (8, 1, "behind the last event"),
        (8, 3, "event 2 is cut short"),
        (12, 117, "length in the header"),
        (16, 39, "event 0: the size"),
        (20, 4, "event 0: unknown kind 4"),
        (21, 1, "event 0: flags"),
        (38, 0x20, "event 0: the time"),
        (48, 0xFF, "event 0: the key is not UTF-8"),
        (98, 200, "event 1: a field is longer"),
        (112, 3, "event 1: a field is longer"),
    ];
    for (at, byte, message) in broken {
        let bytes = golden_but(at, byte);
        let error = checked(&bytes).expect_err(message);
        assert!(error.contains(message), "byte {at}: {error}");
    }
    for length in 0..golden().len() {
        assert!(checked(&golden()[..length]).is_err(), "the first {length} bytes are no frame");
    }
}

#[test]
fn a_later_format_with_this_minimum_reader_is_read() {
    assert_eq!(Events::open(&golden_but(4, 2)).len(), 2);
}

#[test]
#[should_panic(expected = "needs a newer sluicebox-guest")]
fn a_frame_for_newer_readers_ends_the_call() {
    Events::open(&golden_but(6, 2));
}

#[test]
#[should_panic(expected = "the frame is broken")]
fn an_event_that_is_cut_short_ends_the_call() {
    let bytes = golden();
    Events::open(&bytes[..100]).iter().for_each(drop);
}

#[test]
fn a_field_longer_than_a_length_can_say_is_not_packed() {
    let mut fields = Vec::new();
    assert!(!push_field(&mut fields, 40_000, &[0; 65_536]));
    assert!(fields.is_empty());
}

#[test]
fn pieces_of_every_length_are_copied_whole() {
    for length in 0..200 {
        let from: Vec<u8> = (1..=length).collect();
        let mut to = vec![0; from.len()];
        copy(&mut to, &from);
        assert_eq!(to, from);
    }
}
