//! Round trips of any record, and any bytes as a record.

use proptest::prelude::*;

use sluicebox_core::codec::{MoveRecord, OpenRecord};

use super::*;

fn any_frame() -> impl Strategy<Value = Frame> {
    // Frames of large events are written as they are, of small ones compact.
    let payload = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..20),
        1 => any::<u8>().prop_map(|byte| vec![byte; 3000]),
    ];
    let event = ("[a-zä]{0,9}", payload);
    prop::collection::vec(event, 1..5).prop_map(|events| {
        let mut builder = FrameBuilder::new();
        for (key, payload) in events {
            builder.push(&Head::data(payload.len() as u64), key.as_bytes(), &payload, &[]);
        }
        builder.finish()
    })
}

/// Numbers of all lengths.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn seqs() -> impl Strategy<Value = (u64, u64)> {
    (number(), number()).prop_map(|(a, b)| (a.min(b), a.max(b).max(a.min(b).saturating_add(1))))
}

fn source() -> impl Strategy<Value = Source> {
    let edge = (any::<u32>(), 0_u16..1024);
    prop_oneof![
        Just(Source::Ingest),
        edge.prop_map(|(edge, partition)| Source::Edge { edge: EdgeId(edge), partition }),
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    (source(), seqs(), any::<[u32; 2]>(), 1_u32..).prop_map(|(source, seqs, [a, b], events)| {
        let from = Place { seq: seqs.0.max(1), index: a };
        let to = Place { seq: seqs.1.max(2), index: b };
        Piece { source, from, to, events }
    })
}

fn ingest_run() -> impl Strategy<Value = (u32, u16, u64, Frame)> {
    (any::<u32>(), 0_u16..1024, number(), any_frame())
}

fn edge_run() -> impl Strategy<Value = EdgeRun<Frame>> {
    let run = (any::<u32>(), seqs(), 0_u16..1024, any_frame());
    run.prop_map(|(edge, (previous, seq), partition, frame)| EdgeRun {
        edge: EdgeId(edge),
        seq,
        partition,
        previous,
        frame,
    })
}

fn any_sent() -> impl Strategy<Value = Sent<Frame>> {
    let output = (any::<u32>(), number(), any_frame())
        .prop_map(|(output, first, frame)| OutputRun { output: OutputId(output), first, frame });
    let dead = (number(), any_frame()).prop_map(|(first, frame)| DeadRun { first, frame });
    let runs = prop::collection::vec(edge_run(), 0..4);
    let outputs = prop::collection::vec(output, 0..3);
    (runs, outputs, prop::option::of(dead)).prop_map(|(runs, outputs, dead_letters)| Sent {
        runs,
        outputs,
        dead_letters,
    })
}

type Changed = (u32, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// Few keys and slots, so that many are as before.
fn changes() -> impl Strategy<Value = Vec<Changed>> {
    let name = || prop::collection::vec(0_u8..2, 0..3);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..30));
    let mut changes = prop::collection::vec((0_u32..3, name(), name(), value), 0..20).boxed();
    changes = changes
        .prop_map(|mut list| {
            list.sort_by_key(|change| change.0);
            list
        })
        .boxed();
    changes
}

proptest! {
    #[test]
    fn any_ingest_reads_back(
        (pipeline, seq, time) in (number(), 1_u64.., number()),
        producer in prop::option::of(("[a-zö/]{0,60}", number())),
        ids in prop::collection::vec(any::<u128>(), 0..5),
        runs in prop::collection::vec(ingest_run(), 1..5),
        replayed in prop::collection::vec((0_u32..9, 0_u16..1024, number(), 0_u64..9), 0..3),
        high in prop::option::of(0_u64..1 << 53),
    ) {
        let replayed = replayed.into_iter().map(|(root, partition, kept_from, gap)| {
            let mut offsets = Offsets::default();
            (1..gap).for_each(|at| offsets.insert(at * gap..at * gap + at));
            ReplayedRun { root: StageId(root), partition, kept_from, offsets }
        }).collect();
        let producer = producer.as_ref().map(|(id, sequence)| Producer { id, sequence: *sequence });
        let runs = runs.into_iter().map(|(stage, partition, previous, frame)| IngestRun {
            stage: StageId(stage), partition, previous: previous % seq, frame,
        }).collect();
        let pipeline = PipelineId(pipeline);
        let record = IngestRecord { pipeline, seq, time, producer, ids, runs, replayed, high };
        let (kind, body) = written(|writer| writer.ingest(&record));
        let Ok(Record::Ingest(read)) = decode(kind, &body) else { panic!("an ingest") };
        let runs = read.runs.iter().map(|run| IngestRun {
            stage: run.stage,
            partition: run.partition,
            previous: run.previous,
            frame: run.frame.frame(&body).expect("it was one"),
        }).collect();
        let IngestRecord { pipeline, seq, time, producer, ids, replayed, high, .. } = read;
        let read = IngestRecord { pipeline, seq, time, producer, ids, runs, replayed, high };
        prop_assert_eq!(read, record);
    }

    #[test]
    fn any_commit_reads_back(
        (pipeline, version, stage) in (number(), any::<u32>(), any::<u32>()),
        (partition, number, time) in (0_u16..1024, 1_u64.., number()),
        pieces in prop::collection::vec(piece(), 0..5),
        ends in prop::option::of(number()),
        changes in changes(),
        sent in any_sent(),
        usage in (number(), number(), number()),
    ) {
        let (pipeline, stage) = (PipelineId(pipeline), StageId(stage));
        let head = CommitHead { pipeline, version, stage, partition, number, time };
        let batch = Batch { pieces, ends };
        let usage = Usage { fuel: usage.0, events: usage.1, reruns: usage.2 };
        let (kind, body) = written(|writer| {
            let mut state = writer.commit(&head, &batch);
            for (stage, key, slot, value) in &changes {
                state.change(StageId(*stage), &Change { key, slot, value: value.as_deref() });
            }
            state.finish(&sent, &usage);
        });
        let Ok(Record::Commit(read)) = decode(kind, &body) else { panic!("a commit") };
        prop_assert_eq!((read.head, read.batch, read.usage), (head, batch, usage));
        let read_changes: Vec<Changed> = read.state.iter().map(|(stage, change)| {
            let value = change.value.map(<[u8]>::to_vec);
            (stage.0, change.key.to_vec(), change.slot.to_vec(), value)
        }).collect();
        prop_assert_eq!(read_changes, changes);
        let runs = read.sent.runs.iter().map(|run| EdgeRun {
            edge: run.edge,
            seq: run.seq,
            partition: run.partition,
            previous: run.previous,
            frame: run.frame.frame(&body).expect("it was one"),
        }).collect();
        let outputs = read.sent.outputs.iter().map(|run| OutputRun {
            output: run.output,
            first: run.first,
            frame: run.frame.frame(&body).expect("it was one"),
        }).collect();
        let dead_letters = read.sent.dead_letters.map(|dead| DeadRun {
            first: dead.first,
            frame: dead.frame.frame(&body).expect("it was one"),
        });
        prop_assert_eq!(Sent { runs, outputs, dead_letters }, sent);
    }

    #[test]
    fn any_open_and_any_move_reads_back(
        pipeline in number(),
        kept in prop::collection::vec(any::<u8>(), 0..300),
        to in "[a-zä.]{1,120}",
    ) {
        let pipeline = PipelineId(pipeline);
        let record = OpenRecord { pipeline, kept: &kept };
        let (kind, body) = written(|writer| writer.open(&record));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Open(record)));
        let record = MoveRecord { pipeline, to };
        let (kind, body) = written(|writer| writer.moves(&record));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Move(record)));
    }

    #[test]
    fn any_bytes_may_come_as_a_record(
        kind in 0_u8..10,
        sample in 0_usize..8,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        look_at(kind, [&[1, 1][..], &noise].concat().into());
        look_at(kind, [&[2, 2][..], &noise].concat().into());
        look_at(kind, [&[3, 3][..], &noise].concat().into());
        let mut all = samples();
        all.extend(moves::samples());
        let (_, (kind, body)) = all.swap_remove(sample);
        let mut body = body.to_vec();
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        look_at(kind, body.clone().into());
        body.splice(cut.index(body.len()).., noise);
        look_at(kind, body.into());
    }
}
