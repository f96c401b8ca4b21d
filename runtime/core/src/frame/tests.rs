//! Round trips, golden bytes, and every way to be wrong.

use proptest::prelude::*;

use super::*;

fn golden() -> Frame {
    let mut builder = FrameBuilder::new();
    let time = 1_700_000_000_000_000;
    let head = Head { kind: Kind::Open, input: 1, port: 2, cause: NO_CAUSE, time };
    builder.push(&head, b"k", b"hello", &[]);
    let mut fields = vec![2, 1, 10, 0];
    fields.extend(b"text/plain");
    fields.extend([0x40, 0x9C, 2, 0, 0x00, 0xFF]);
    let head = Head { kind: Kind::Data, input: 0, port: 0, cause: 7, time: 1 };
    builder.push(&head, "schlüssel".as_bytes(), b"", &fields);
    builder.finish()
}

#[test]
fn the_golden_bytes_of_version_one_never_change() {
    let file = include_bytes!("../../testdata/frame-v1.bin");
    assert_eq!(golden().bytes().as_ref(), file);
    let frame = Frame::parse(Bytes::from_static(file), &FrameLimits::FORMAT).expect("golden");
    let events: Vec<_> = frame.events().collect();
    assert_eq!(events[0].payload, b"hello");
    assert_eq!(events[1].key_str(), "schlüssel");
    assert_eq!(events[1].fields.get(field::CONTENT_TYPE), Some(&b"text/plain"[..]));
    assert_eq!(events[1].fields.get(40_000), Some(&[0, 0xFF][..]));
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let good = golden();
    for cut in 0..good.bytes().len() {
        assert!(check(&good.bytes()[..cut], &FrameLimits::FORMAT).is_err(), "cut at {cut}");
    }
    let mut long = good.bytes().to_vec();
    long.push(0);
    let length = long.len() as u32;
    long[12..16].copy_from_slice(&length.to_le_bytes());
    assert_eq!(check(&long, &FrameLimits::FORMAT), Err(FrameError::Trailing { left: 1 }));
}

/// The golden frame with `value` written at `at`.
fn patched(at: usize, value: &[u8]) -> Result<u32, FrameError> {
    let mut bytes = golden().bytes().to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    check(&bytes, &FrameLimits::FORMAT)
}

#[test]
fn each_lie_is_named() {
    let event = |fault| Err(FrameError::Event { index: 0, fault });
    assert_eq!(patched(0, b"SBXG"), Err(FrameError::Magic));
    assert_eq!(patched(6, &[2, 0]), Err(FrameError::Newer { needed: 2 }));
    assert_eq!(patched(4, &[9, 0]), Ok(2), "a newer format with our minimum reader is read");
    assert!(matches!(patched(8, &[1]), Err(FrameError::Trailing { .. })));
    assert_eq!(patched(8, &[3]), Err(FrameError::Event { index: 2, fault: Fault::Truncated }));
    assert!(matches!(patched(12, &[1]), Err(FrameError::Length { .. })));
    assert_eq!(patched(16, &[39]), event(Fault::Size));
    assert_eq!(patched(20, &[4]), event(Fault::Kind));
    assert_eq!(patched(21, &[1]), event(Fault::Flags));
    assert_eq!(patched(26, &[1, 2]), event(Fault::KeyLength));
    assert_eq!(patched(38, &[0x20]), event(Fault::Time));
    assert_eq!(patched(40, &[0xFF; 4]), event(Fault::Size));
    assert_eq!(patched(48, &[0xFF]), event(Fault::KeyUtf8));
    let second = 16 + 38;
    let key_len = "schlüssel".len();
    assert_eq!(
        patched(second + 32 + key_len + 2, &[200]),
        Err(FrameError::Event { index: 1, fault: Fault::Fields })
    );
}

#[test]
fn limits_are_enforced_where_the_frame_enters() {
    let good = golden();
    let limits = |events, bytes, event_bytes| FrameLimits { events, bytes, event_bytes };
    assert!(check(good.bytes(), &limits(2, 200, 100)).is_ok());
    let too_many = check(good.bytes(), &limits(1, 200, 100));
    assert_eq!(too_many, Err(FrameError::TooMany { found: 2, limit: 1 }));
    assert!(matches!(check(good.bytes(), &limits(2, 50, 100)), Err(FrameError::TooLarge { .. })));
    let fault = Fault::TooLarge { limit: 37 };
    assert_eq!(
        check(good.bytes(), &limits(2, 200, 37)),
        Err(FrameError::Event { index: 0, fault })
    );
}

#[test]
fn a_rolled_back_builder_is_as_it_was() {
    let mut builder = FrameBuilder::new();
    let empty = builder.mark();
    builder.push(&Head::data(1), b"a", b"1", &[]);
    let one = builder.mark();
    builder.push(&Head::data(2), b"b", b"2", &[]);
    builder.rollback(one);
    assert_eq!(builder.clone().finish().events().map(|e| e.head.time).collect::<Vec<_>>(), [1]);
    builder.rollback(empty);
    assert!(builder.finish().is_empty());
}

type Parts = (u8, u16, u16, u32, u64, String, Vec<u8>, Vec<(u16, Vec<u8>)>);

fn parts() -> impl Strategy<Value = Vec<Parts>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let fields = prop::collection::vec((any::<u16>(), bytes()), 0..4);
    let event = (
        0_u8..4,
        any::<u16>(),
        any::<u16>(),
        any::<u32>(),
        0..crate::limits::TIME_END,
        "\\PC{0,20}",
        bytes(),
        fields,
    );
    prop::collection::vec(event, 0..12)
}

fn pack(fields: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in fields {
        out.extend(id.to_le_bytes());
        out.extend((value.len() as u16).to_le_bytes());
        out.extend(value);
    }
    out
}

proptest! {
    #[test]
    fn what_was_built_is_what_is_read(list in parts()) {
        let mut builder = FrameBuilder::new();
        for (kind, input, port, cause, time, key, payload, fields) in &list {
            let kind = Kind::from_byte(*kind).expect("below 4");
            let head = Head { kind, input: *input, port: *port, cause: *cause, time: *time };
            builder.push(&head, key.as_bytes(), payload, &pack(fields));
        }
        let built = builder.finish();
        let frame = Frame::parse(built.bytes().clone(), &FrameLimits::FORMAT).expect("own frame");
        prop_assert_eq!(frame.len(), list.len());
        let mut starts = Vec::new();
        frame.index_into(&mut starts);
        prop_assert_eq!(starts.last().copied(), Some(frame.bytes().len() as u32));
        for ((event, parts), start) in frame.events().zip(&list).zip(&starts) {
            prop_assert_eq!(event, frame.event_at(*start));
            prop_assert_eq!(event.head.kind as u8, parts.0);
            prop_assert_eq!((event.head.input, event.head.port), (parts.1, parts.2));
            prop_assert_eq!((event.head.cause, event.head.time), (parts.3, parts.4));
            prop_assert_eq!(event.key_str(), parts.5.as_str());
            prop_assert_eq!(event.payload, parts.6.as_slice());
            let fields: Vec<_> = event.fields.iter().map(|(id, v)| (id, v.to_vec())).collect();
            prop_assert_eq!(&fields, &parts.7);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any = check(&bytes, &FrameLimits::FORMAT);
        if bytes.len() >= HEADER_BYTES {
            let length = bytes.len() as u32;
            bytes[..8].copy_from_slice(b"SBXF\x01\0\x01\0");
            bytes[9..12].fill(0);
            bytes[12..16].copy_from_slice(&length.to_le_bytes());
            if check(&bytes, &FrameLimits::FORMAT).is_ok() {
                let frame = Frame::parse(bytes.into(), &FrameLimits::FORMAT).expect("just checked");
                prop_assert_eq!(frame.events().count(), frame.len());
            }
        }
    }
}

#[test]
fn a_frame_knows_whether_its_events_have_fields() {
    let mut plain = FrameBuilder::new();
    plain.push(&Head::data(1), b"k", b"p", &[]);
    let plain = plain.finish();
    assert!(plain.is_plain());
    assert!(!golden().is_plain());
    for frame in [&plain, &golden()] {
        let parsed = Frame::parse(frame.bytes().clone(), &FrameLimits::FORMAT).expect("a frame");
        assert_eq!(parsed.is_plain(), frame.is_plain());
        let mut packed = FrameBuilder::new();
        packed.push_packed(&frame.bytes()[HEADER_BYTES..], frame.len() as u32);
        assert_eq!(packed.finish().is_plain(), frame.is_plain());
    }
}

#[test]
fn a_finished_frame_owns_little_more_than_its_bytes() {
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(1), b"", &[0; 100_000], &[]);
    let large = builder.finish();
    builder.push(&Head::data(1), b"", b"small", &[]);
    let small = Vec::from(builder.finish().into_bytes());
    assert!(small.capacity() < 8192, "{} bytes for {}", small.capacity(), small.len());
    drop(large);
}
