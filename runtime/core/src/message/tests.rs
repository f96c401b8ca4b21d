//! Messages between nodes: round trips, and bytes that are none.

use proptest::prelude::*;

use super::*;
use crate::ids::EdgeId;
use crate::limits::{KEY_GROUPS, TIME_END};

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode_head(&mut bytes);
    bytes.extend(message.frame());
    bytes
}

fn fault(bytes: &[u8]) -> MessageFault {
    Message::decode(bytes).expect_err("it was taken").fault
}

const AT: At = At { pipeline: PipelineId(300), root: StageId(2), partition: 5 };
const SOURCE: Source = Source::Edge { edge: EdgeId(7), partition: 1023 };

/// One of each kind.
fn all() -> [(Message<'static>, &'static [u8]); 9] {
    let (pipeline, partition) = (AT.pipeline, AT.partition);
    let run = RunHeader { source: SOURCE, seq: 10, previous: 8 };
    let places = vec![(Source::Ingest, Place::START), (SOURCE, Place { seq: 3, index: 2 })];
    let outputs = vec![(OutputId(1), 130)];
    let dead_letters = vec![(StageId(2), 0), (StageId(3), 9)];
    let deltas = vec![(RequestId(1), -1), (RequestId(9), 2), (RequestId(3), i64::MIN)];
    [
        (
            Message::Run { to: AT, run, skip: 1, frame: b"frame" },
            b"\x01\x01\xAC\x02\x02\x05\x08\xFF\x07\x0A\x02\x01frame",
        ),
        (
            Message::Settled { of: AT, places },
            b"\x01\x02\xAC\x02\x02\x05\x02\0\x01\0\x08\xFF\x07\x03\x02",
        ),
        (Message::Later { of: AT, source: Source::Ingest }, b"\x01\x03\xAC\x02\x02\x05\0"),
        (
            Message::Output { pipeline, output: OutputId(4), partition, first: 0, frame: b"f" },
            b"\x01\x04\xAC\x02\x04\x05\0f",
        ),
        (
            Message::DeadLetters { of: AT, first: 128, frame: b"" },
            b"\x01\x05\xAC\x02\x02\x05\x80\x01",
        ),
        (
            Message::Kept { pipeline, partition, outputs, dead_letters },
            b"\x01\x06\xAC\x02\x05\x01\x01\x82\x01\x02\x02\0\x03\x09",
        ),
        (
            Message::Requests { deltas },
            b"\x01\x07\x03\x01\x01\x09\x04\x03\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
        ),
        (Message::Moved { pipeline }, b"\x01\x08\xAC\x02"),
        (
            Message::Marks { to: AT, ingest: 0, sources: vec![(StageId(2), 1023, 130)] },
            b"\x01\x09\xAC\x02\x02\x05\0\x01\x02\xFF\x07\x82\x01",
        ),
    ]
}

#[test]
fn messages_have_the_bytes_that_are_documented_and_read_back() {
    for (message, bytes) in all() {
        assert_eq!(encoded(&message), bytes, "{message:?}");
        assert_eq!(Message::decode(bytes), Ok(message));
    }
}

#[test]
fn what_a_message_cannot_say_is_refused() {
    use MessageFault::{Format, Kind, Longer, Truncated, Value};
    let cases: [(&[u8], MessageFault); 20] = [
        (b"", Truncated("the format")),
        (b"\x01", Truncated("the kind")),
        (b"\x02", Format(2)),
        (b"\0\x01", Format(0)),
        (b"\x01\0", Kind),
        (b"\x01\x0A", Kind),
        (b"\x01\x03\x01\x02\x05\0\0", Longer),
        // Partitions.
        (b"\x01\x03\x01\x02\x80\x08\0", Value("a partition")),
        (b"\x01\x03\x01\x02\x05\x01\x80\x08", Value("a source's partition")),
        (b"\x01\x04\x01\x04\x80\x08\0f", Value("a partition")),
        (b"\x01\x06\x01\x80\x08\0\0", Value("a partition")),
        // Numbers of runs.
        (b"\x01\x01\x01\x02\x05\0\0\x01\0f", Value("a run's seq")),
        (b"\x01\x01\x01\x02\x05\0\x04\0\0f", Value("how far back the previous run is")),
        (b"\x01\x01\x01\x02\x05\0\x04\x05\0f", Value("how far back the previous run is")),
        (b"\x01\x02\x01\x02\x05\x01\0\0\0", Value("a place")),
        // Times behind the end of time.
        (b"\x01\x09\x01\x02\x05\x80\x80\x80\x80\x80\x80\x80\x10\0", Value("the mark of ingest")),
        (b"\x01\x09\x01\x02\x05\0\x01\x02\x03\x80\x80\x80\x80\x80\x80\x80\x10", Value("a mark")),
        // A number in a longer form.
        (b"\x01\x03\x81\0\x02\x05\0", Value("the pipeline")),
        // No request has this number.
        (b"\x01\x07\x01\0\x02", Value("a request")),
        // A list that is longer than the message.
        (b"\x01\x07\xFF\xFF\xFF\xFF\x0F\x01\x02", Truncated("the requests")),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fault(bytes), expected, "{bytes:?}");
    }
    let message = Message::decode(b"\x01\x0A").expect_err("it was taken").to_string();
    assert_eq!(message, "message of kind 10, byte 1: there is no such kind");
}

fn at_any() -> impl Strategy<Value = At> {
    (any::<u64>(), any::<u32>(), 0..KEY_GROUPS).prop_map(|(pipeline, root, partition)| At {
        pipeline: PipelineId(pipeline),
        root: StageId(root),
        partition,
    })
}

fn source_any() -> impl Strategy<Value = Source> {
    let edge = (any::<u32>(), 0..KEY_GROUPS)
        .prop_map(|(edge, partition)| Source::Edge { edge: EdgeId(edge), partition });
    prop_oneof![Just(Source::Ingest), edge]
}

fn place_any() -> impl Strategy<Value = (Source, Place)> {
    let place = (1..=u64::MAX, any::<u32>()).prop_map(|(seq, index)| Place { seq, index });
    (source_any(), place)
}

fn mark_any() -> impl Strategy<Value = (StageId, u16, u64)> {
    (any::<u32>(), 0..KEY_GROUPS, 0..TIME_END)
        .prop_map(|(root, partition, mark)| (StageId(root), partition, mark))
}

/// Any message; those that have one have this frame.
fn message_any(frame: &[u8]) -> impl Strategy<Value = Message<'_>> {
    let run = (at_any(), source_any(), 1..=u64::MAX, any::<u64>(), any::<u32>());
    let pairs = || prop::collection::vec((any::<u32>(), any::<u64>()), 0..9);
    let deltas = prop::collection::vec((1..=u64::MAX, any::<i64>()), 0..9);
    prop_oneof![
        run.prop_map(move |(to, source, seq, previous, skip)| {
            let run = RunHeader { source, seq, previous: previous % seq };
            Message::Run { to, run, skip, frame }
        }),
        (at_any(), prop::collection::vec(place_any(), 0..9))
            .prop_map(|(of, places)| Message::Settled { of, places }),
        (at_any(), source_any()).prop_map(|(of, source)| Message::Later { of, source }),
        (at_any(), any::<u64>()).prop_map(move |(at, first)| {
            let At { pipeline, root, partition } = at;
            Message::Output { pipeline, output: OutputId(root.0), partition, first, frame }
        }),
        (at_any(), any::<u64>()).prop_map(move |(of, first)| Message::DeadLetters {
            of,
            first,
            frame
        }),
        (at_any(), pairs(), pairs()).prop_map(|(at, outputs, dead_letters)| Message::Kept {
            pipeline: at.pipeline,
            partition: at.partition,
            outputs: outputs.into_iter().map(|(id, next)| (OutputId(id), next)).collect(),
            dead_letters: dead_letters.into_iter().map(|(id, next)| (StageId(id), next)).collect(),
        }),
        deltas.prop_map(|deltas| Message::Requests {
            deltas: deltas.into_iter().map(|(id, delta)| (RequestId(id), delta)).collect(),
        }),
        any::<u64>().prop_map(|id| Message::Moved { pipeline: PipelineId(id) }),
        (at_any(), 0..TIME_END, prop::collection::vec(mark_any(), 0..9))
            .prop_map(|(to, ingest, sources)| Message::Marks { to, ingest, sources }),
    ]
}

proptest! {
    #[test]
    fn messages_read_back(message in message_any(b"any bytes")) {
        let bytes = encoded(&message);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused_or_another_with_a_shorter_frame(
        message in message_any(b"any bytes"),
    ) {
        let bytes = encoded(&message);
        let head = bytes.len() - message.frame().len();
        for length in 0..bytes.len() {
            match Message::decode(&bytes[..length]) {
                Ok(shorter) => {
                    prop_assert!(length >= head, "the head lacks something");
                    prop_assert_eq!(encoded(&shorter), &bytes[..length]);
                }
                Err(_) => prop_assert!(length < head),
            }
        }
    }

    #[test]
    fn any_bytes_are_one_message_or_none(
        mut bytes in prop::collection::vec(any::<u8>(), 0..60),
        kind in 0_u8..11,
        small in any::<bool>(),
    ) {
        // So that most go beyond the first checks.
        if small {
            bytes.iter_mut().for_each(|byte| *byte %= 8);
        }
        for (byte, begins) in bytes.iter_mut().zip([FORMAT, kind]) {
            *byte = begins;
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(encoded(&message), bytes);
        }
    }
}
