//! Records of the log: what was written once is read for ever, and what is written reads back.
//!
//! The fixtures in `golden/record-v1` to `-v6` are bytes of published formats and never change.
//! With `SLUICEBOX_GOLDEN=new` those that are missing are made, which is for a new kind only.

#[path = "records/moves.rs"]
mod moves;
#[path = "records/parts.rs"]
mod parts;
#[path = "records/sizes.rs"]
mod sizes;
#[path = "records/usage.rs"]
mod usage;
#[path = "records/written_and_read.rs"]
mod written_and_read;

use std::path::PathBuf;

use bytes::Bytes;
use sluicebox_core::codec::{
    ApplyRecord, Batch, CheckpointRecord, CommitHead, DeadRun, DeleteRecord, EdgeEnds, EdgeRun,
    FrameAt, IngestRecord, IngestRun, NameTable, OutputRun, Piece, Producer, Record, RecordWriter,
    Sent, Usage, decode,
};
use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_core::ids::{EdgeId, Name, OutputId, Part, PipelineId, StageId};
use sluicebox_core::position::{Place, Source};
use sluicebox_core::replayed::{Offsets, ReplayedRun};
use sluicebox_core::state::Change;

/// A frame of events of these keys.
fn frame(keys: &[&str]) -> Frame {
    let mut builder = FrameBuilder::new();
    for (at, key) in keys.iter().enumerate() {
        builder.push(&Head::data(1_700_000_000_000_000 + at as u64), key.as_bytes(), b"one", &[]);
    }
    builder.finish()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn ingest() -> IngestRecord<'static, Frame> {
    IngestRecord {
        pipeline: PipelineId(300),
        seq: 7,
        time: 1_700_000_000_000_000,
        producer: Some(Producer { id: "press-4", sequence: 70_000 }),
        ids: vec![1, u128::MAX],
        runs: vec![
            IngestRun { stage: StageId(1), partition: 0, previous: 6, frame: frame(&["a", "b"]) },
            IngestRun { stage: StageId(1), partition: 1023, previous: 0, frame: frame(&["c"]) },
        ],
        replayed: Vec::new(),
        high: None,
    }
}

/// Dead letters that were given to their stage again.
fn replay() -> IngestRecord<'static, Frame> {
    let mut offsets = Offsets::default();
    offsets.insert(17..20);
    offsets.insert(300..301);
    let run = |partition| {
        let offsets = offsets.clone();
        ReplayedRun { root: StageId(1), partition, kept_from: 16, offsets }
    };
    let replayed = vec![run(0), run(1023)];
    IngestRecord { producer: None, ids: Vec::new(), replayed, ..ingest() }
}

const HEAD: CommitHead = CommitHead {
    pipeline: PipelineId(300),
    version: 2,
    stage: StageId(1),
    partition: 3,
    number: 129,
    time: 1_700_000_000_000_001,
};

fn batch() -> Batch {
    let edge = Source::Edge { edge: EdgeId(4), partition: 9 };
    let place = |seq, index| Place { seq, index };
    Batch {
        pieces: vec![
            Piece { source: Source::Ingest, from: place(5, 2), to: place(8, 0), events: 4 },
            Piece { source: edge, from: Place::START, to: place(1, 17), events: 17 },
        ],
        ends: None,
    }
}

type Changed = (StageId, &'static [u8], &'static [u8], Option<&'static [u8]>);

const CHANGES: [Changed; 5] = [
    (StageId(1), b"a", b"count", Some(b"12345678")),
    (StageId(1), b"b", b"count", Some(b"")),
    (StageId(1), b"b", b"old", None),
    (StageId(2), b"b", b"old", None),
    (StageId(2), b"", b"", Some(b"x")),
];

fn sent() -> Sent<Frame> {
    let run = |partition, previous, key| EdgeRun {
        edge: EdgeId(5),
        seq: 40,
        partition,
        previous,
        frame: frame(&[key]),
    };
    Sent {
        runs: vec![run(0, 39, "a"), run(2, 0, "b")],
        outputs: vec![OutputRun { output: OutputId(0), first: 1000, frame: frame(&["a", "b"]) }],
        dead_letters: Some(DeadRun { first: 3, frame: frame(&["c"]) }),
    }
}

const USAGE: Usage = Usage { fuel: 1_000_000, events: 21, reruns: 1 };

fn apply() -> ApplyRecord<'static> {
    let ends =
        EdgeEnds { from: StageId(1), port: name("words"), to: StageId(4), input: name("in") };
    ApplyRecord {
        tenant: name("dev"),
        name: name("word-count"),
        pipeline: PipelineId(300),
        version: 2,
        partitions: 4,
        manifest: b"{\"version\":1}",
        names: NameTable {
            stages: vec![(StageId(1), name("split")), (StageId(4), name("count"))],
            edges: vec![(EdgeId(5), ends)],
            outputs: vec![(OutputId(0), name("counts"))],
        },
        discarded: vec![StageId(2), StageId(3)],
    }
}

/// The kind and the body of what was written.
fn written(write: impl FnOnce(&mut RecordWriter)) -> (u8, Bytes) {
    let mut writer = RecordWriter::new();
    write(&mut writer);
    assert_eq!(writer.bytes_len(), writer.to_bytes().len());
    (writer.kind(), writer.to_bytes())
}

fn commit() -> (u8, Bytes) {
    written(|writer| {
        let mut state = writer.commit(&HEAD, &batch());
        for (stage, key, slot, value) in CHANGES {
            state.change(stage, &Change { key, slot, value });
        }
        state.finish(&sent(), &USAGE);
    })
}

fn stream_ends() -> (u8, Bytes) {
    written(|writer| {
        let batch = Batch { pieces: Vec::new(), ends: Some(u64::MAX) };
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        writer.commit(&HEAD, &batch).finish(&sent, &Usage::default());
    })
}

/// One record of each kind, by the name of its file.
fn samples() -> Vec<(&'static str, (u8, Bytes))> {
    let checkpoint = CheckpointRecord { horizon: 1 << 40, generation: 12 };
    vec![
        ("1-ingest", written(|writer| writer.ingest(&ingest()))),
        ("2-commit", commit()),
        ("2-commit-of-ends", stream_ends()),
        ("3-apply", written(|writer| writer.apply(&apply()))),
        ("4-delete", written(|w| w.delete(&DeleteRecord { pipeline: PipelineId(300) }))),
        ("5-checkpoint", written(|writer| writer.checkpoint(&checkpoint))),
    ]
}

/// Records that came to be written later, each with an extension.
fn later_samples() -> Vec<(&'static str, (u8, Bytes))> {
    vec![
        ("1-ingest-of-replay", written(|writer| writer.ingest(&replay()))),
        ("2-commit-of-parked", parked()),
    ]
}

/// A batch that parked a key and took nothing new.
fn parked() -> (u8, Bytes) {
    written(|writer| {
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        let mut state = writer.commit(&HEAD, &Batch::default());
        let stage = StageId(1);
        let event = frame(&["a"]);
        let changes = [
            (stage, &b"n"[..], Some(&b"1"[..])),
            (stage.parked(), b"", Some(&[7; 44])),
            (stage.parked(), &[0, 0, 0, 0, 0, 0, 0, 4], Some(event.bytes())),
            (stage.parked(), &[0, 0, 0, 0, 0, 0, 0, 3], None),
        ];
        for (stage, slot, value) in changes {
            state.change(stage, &Change { key: b"a", slot, value });
        }
        state.finish(&sent, &USAGE);
    })
}

/// A batch of a timer that fired and set another one, under a watermark.
fn fired() -> (u8, Bytes) {
    written(|writer| {
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        let mut state = writer.commit(&HEAD, &Batch::default());
        let stage = StageId(1);
        let changes = [
            (stage, &b"n"[..], Some(&b"1"[..])),
            (stage.part(Part::Timers), b"close", None),
            (stage.part(Part::Timers), b"next", Some(&[1, 7, 0, 0, 0, 0, 0, 0, 0])),
        ];
        for (stage, slot, value) in changes {
            state.change(stage, &Change { key: b"a", slot, value });
        }
        state.finish(&sent, &USAGE);
        writer.event_time(1_700_000_000_000_000);
    })
}

/// Records with event times: what came with format 2.
fn event_times() -> Vec<(&'static str, (u8, Bytes))> {
    let high = Some(1_700_000_000_000_001);
    let ingest = written(|writer| writer.ingest(&IngestRecord { high, ..ingest() }));
    vec![("2-commit-of-timers", fired()), ("1-ingest-with-high", ingest)]
}

#[test]
fn event_times_read_back_and_one_out_of_range_is_refused() {
    let (kind, body) = fired();
    let Record::Commit(read) = decode(kind, &body).unwrap() else { panic!("a commit") };
    assert_eq!(read.watermark, Some(1_700_000_000_000_000));
    let stages: Vec<_> = read.state.iter().map(|(stage, _)| stage.split()).collect();
    let parts = [Part::Own, Part::Timers, Part::Timers];
    assert_eq!(stages, parts.map(|part| (StageId(1), part)));
    for (_, (kind, body)) in event_times() {
        assert_eq!(again((kind, &body)), body);
        for at in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            look_at(kind, flipped.into());
        }
    }
    let (kind, body) = written(|writer| {
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        writer.commit(&HEAD, &Batch::default()).finish(&sent, &USAGE);
        writer.event_time(1 << 53);
    });
    assert!(decode(kind, &body).unwrap_err().to_string().contains("watermark"));
}

#[test]
fn what_is_parked_is_told_from_the_stage_it_is_parked_at() {
    let (kind, body) = parked();
    let Record::Commit(read) = decode(kind, &body).unwrap() else { panic!("a commit") };
    let stages: Vec<_> = read.state.iter().map(|(stage, _)| stage.split()).collect();
    let parts = [Part::Own, Part::Parked, Part::Parked, Part::Parked];
    assert_eq!(stages, parts.map(|part| (StageId(1), part)));
}

/// Records of pipelines and partitions that go from node to node.
fn of_nodes() -> Vec<(&'static str, (u8, Bytes))> {
    moves::samples().into_iter().chain(parts::samples()).collect()
}

/// A record as this program writes it, whatever format it was written in.
fn again((kind, body): (u8, &Bytes)) -> Bytes {
    let whole = |at: &FrameAt| at.frame(body).expect("a frame");
    let record = decode(kind, body).expect("a record");
    let (_, again) = written(|writer| match &record {
        Record::Ingest(read) => {
            let run = |run: &IngestRun| {
                let (stage, frame) = (run.stage, whole(&run.frame));
                IngestRun { stage, partition: run.partition, previous: run.previous, frame }
            };
            let IngestRecord { pipeline, seq, time, producer, ids, replayed, high, .. } =
                read.clone();
            let runs = read.runs.iter().map(run).collect();
            let read = IngestRecord { pipeline, seq, time, producer, ids, runs, replayed, high };
            writer.ingest(&read);
        }
        Record::Commit(read) => {
            let mut state = writer.commit(&read.head, &read.batch);
            read.state.iter().for_each(|(stage, change)| state.change(stage, &change));
            let run = |run: &EdgeRun| {
                let EdgeRun { edge, seq, partition, previous, .. } = *run;
                EdgeRun { edge, seq, partition, previous, frame: whole(&run.frame) }
            };
            let output = |run: &OutputRun| OutputRun {
                output: run.output,
                first: run.first,
                frame: whole(&run.frame),
            };
            let dead = |run: &DeadRun| DeadRun { first: run.first, frame: whole(&run.frame) };
            let sent = Sent {
                runs: read.sent.runs.iter().map(run).collect(),
                outputs: read.sent.outputs.iter().map(output).collect(),
                dead_letters: read.sent.dead_letters.as_ref().map(dead),
            };
            state.finish(&sent, &read.usage);
            writer.by_stage(&read.by_stage);
            if let Some(watermark) = read.watermark {
                writer.event_time(watermark);
            }
        }
        Record::Apply(read) => writer.apply(read),
        Record::Delete(read) => writer.delete(read),
        Record::Checkpoint(read) => writer.checkpoint(read),
        Record::Open(read) => writer.open(read),
        Record::Move(read) => writer.moves(read),
        Record::Leave(read) => writer.leave(read),
        Record::Join(read) => writer.join(read),
        Record::Release(read) => writer.release(read),
        Record::Usage(read) => writer.usage(read),
    });
    again
}

/// The folder of a format's fixtures.
fn golden(format: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/record-v{format}"))
}

#[test]
fn records_of_version_1_are_read_as_they_always_were() {
    for (name, (kind, body)) in samples().into_iter().chain(later_samples()) {
        let old = std::fs::read(golden(1).join(format!("{name}.bin"))).unwrap();
        assert_eq!(old[..2], [1, 1], "{name}");
        assert_eq!(again((kind, &old.into())), body, "{name}");
    }
}

#[test]
fn records_have_the_bytes_they_always_had() {
    let later = later_samples().into_iter().chain(event_times()).chain(of_nodes());
    let later = later.chain(usage::samples());
    let all = samples().into_iter().chain(later);
    for (name, (_, body)) in all {
        let (folder, new) = (golden(body[0]), std::env::var_os("SLUICEBOX_GOLDEN"));
        let file = folder.join(format!("{name}.bin"));
        if !file.exists() && new.is_some_and(|v| v == "new") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &body).unwrap();
        }
        let golden = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(body.escape_ascii().to_string(), golden.escape_ascii().to_string(), "{name}");
    }
}

#[test]
fn an_ingest_reads_back() {
    let (kind, body) = written(|writer| writer.ingest(&ingest()));
    let Record::Ingest(read) = decode(kind, &body).unwrap() else { panic!("an ingest") };
    let wanted = ingest();
    assert_eq!((read.pipeline, read.seq, read.time), (wanted.pipeline, wanted.seq, wanted.time));
    assert_eq!((read.producer, &read.ids), (wanted.producer, &wanted.ids));
    let runs = read.runs.iter().map(|run| IngestRun {
        stage: run.stage,
        partition: run.partition,
        previous: run.previous,
        frame: run.frame.frame(&body).unwrap(),
    });
    assert_eq!(runs.collect::<Vec<_>>(), wanted.runs);
    assert_eq!(read.runs[0].frame.events, 2);
}

#[test]
fn an_ingest_says_which_dead_letters_it_is() {
    let (kind, body) = written(|writer| writer.ingest(&replay()));
    let Record::Ingest(read) = decode(kind, &body).unwrap() else { panic!("an ingest") };
    assert_eq!(read.replayed, replay().replayed);
    for at in 0..body.len() * 8 {
        let mut flipped = body.to_vec();
        flipped[at / 8] ^= 1 << (at % 8);
        look_at(kind, flipped.into());
    }
}

#[test]
fn a_commit_reads_back() {
    let (kind, body) = commit();
    let Record::Commit(read) = decode(kind, &body).unwrap() else { panic!("a commit") };
    assert_eq!((read.head, &read.batch, read.usage), (HEAD, &batch(), USAGE));
    let changes: Vec<_> = read.state.iter().map(|(s, c)| (s, c.key, c.slot, c.value)).collect();
    assert_eq!(changes, CHANGES);
    let wanted = sent();
    for (read, wanted) in read.sent.runs.iter().zip(&wanted.runs) {
        let numbers = (read.edge, read.seq, read.partition, read.previous);
        assert_eq!(numbers, (wanted.edge, wanted.seq, wanted.partition, wanted.previous));
        assert_eq!(read.frame.frame(&body).unwrap(), wanted.frame);
    }
    let output = &read.sent.outputs[0];
    assert_eq!((output.output, output.first), (OutputId(0), 1000));
    assert_eq!(output.frame.frame(&body).unwrap(), wanted.outputs[0].frame);
    let dead = read.sent.dead_letters.unwrap();
    assert_eq!((dead.first, dead.frame.frame(&body).unwrap()), (3, frame(&["c"])));
    let places = read.batch.inputs();
    assert_eq!(places.get(&Source::Ingest), Some(&Place { seq: 8, index: 0 }));
}

#[test]
fn the_other_kinds_read_back() {
    let (kind, body) = stream_ends();
    let Record::Commit(read) = decode(kind, &body).unwrap() else { panic!("a commit") };
    assert_eq!((read.batch.ends, read.state.iter().count()), (Some(u64::MAX), 0));
    let (kind, body) = written(|writer| writer.apply(&apply()));
    assert_eq!(decode(kind, &body), Ok(Record::Apply(apply())));
    let record = DeleteRecord { pipeline: PipelineId(300) };
    let (kind, body) = written(|writer| writer.delete(&record));
    assert_eq!(decode(kind, &body), Ok(Record::Delete(record)));
    let record = CheckpointRecord { horizon: u64::MAX, generation: 0 };
    let (kind, body) = written(|writer| writer.checkpoint(&record));
    assert_eq!(decode(kind, &body), Ok(Record::Checkpoint(record)));
}

#[test]
fn a_newer_record_is_refused_and_a_newer_part_is_skipped() {
    for (name, (kind, body)) in samples().into_iter().chain(of_nodes()).chain(usage::samples()) {
        let mut newer = body.to_vec();
        newer[..2].copy_from_slice(&[9, 9]);
        let refused = decode(kind, &newer).unwrap_err().to_string();
        assert!(refused.contains("needs a reader of format 9"), "{name}: {refused}");
        // A later format that this reader still understands, with a part it does not know.
        let mut later = body.to_vec();
        later[0] = 9;
        later.extend([0x80, 0x01, 3, 1, 2, 3]);
        assert!(decode(kind, &later).is_ok(), "{name}");
        later.pop();
        assert!(decode(kind, &later).is_err(), "{name}");
    }
    let unknown = decode(12, &[1, 1]).unwrap_err().to_string();
    assert!(unknown.contains("kind 12") && unknown.contains("1 to 11 of format 6"), "{unknown}");
}

#[test]
fn whatever_is_cut_off_or_flipped_is_an_error_or_a_record() {
    for (name, (kind, body)) in samples().into_iter().chain(of_nodes()).chain(usage::samples()) {
        for length in 0..body.len() {
            // What an extension says can be missing: the record of a reader that did not know it.
            let is_whole = name == "2-commit-by-stage" && [31, 44].contains(&length);
            assert!(is_whole || decode(kind, &body[..length]).is_err(), "{name} cut to {length}");
        }
        for at in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            look_at(kind, flipped.into());
        }
    }
}

#[test]
fn a_length_beyond_the_end_makes_no_room() {
    // 2^40 runs, ids, pieces or names in a record of a few bytes.
    let many = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let heads: [(u8, &[u8]); 3] = [
        (1, &[1, 1, 0, 1, 0, 0]),
        (2, &[1, 1, 0, 0, 0, 0, 1, 0, 0]),
        (3, &[1, 1, 1, b'a', 1, b'b', 0, 0, 1, 0]),
    ];
    for (kind, head) in heads {
        let error = decode(kind, &[head, &many].concat()).unwrap_err();
        assert!(error.to_string().contains("ends inside"), "{error}");
    }
}

#[test]
fn a_table_of_names_is_in_order_and_leads_to_stages_it_has() {
    type Change = fn(&mut ApplyRecord<'_>);
    let cases: [(Change, &str); 5] = [
        (|record| record.names.stages.swap(0, 1), "the stages"),
        (|record| record.names.stages[1].0 = StageId(1), "stage"),
        (|record| record.names.edges[0].1.to = StageId(2), "an edge's stage"),
        (|record| record.names.outputs.push((OutputId(0), name("more"))), "the outputs"),
        (|record| record.discarded.swap(0, 1), "the discarded"),
    ];
    for (change, part) in cases {
        let mut record = apply();
        change(&mut record);
        let (kind, body) = written(|writer| writer.apply(&record));
        let error = decode(kind, &body).unwrap_err().to_string();
        assert!(error.contains(part), "{error}, not {part}");
    }
}

#[test]
fn a_number_has_one_form() {
    let long = [1, 1, 0x80, 0x00];
    assert!(decode(4, &long).unwrap_err().to_string().contains("pipeline"));
    let most = [&[1, 1][..], &[0xFF; 9], &[1]].concat();
    assert!(decode(4, &most).is_ok());
    let beyond = [&[1, 1][..], &[0xFF; 9], &[2]].concat();
    assert!(decode(4, &beyond).is_err());
}

/// Reads all of a record that may be anything; writes it again if it is one.
fn look_at(kind: u8, body: Bytes) {
    match decode(kind, &body) {
        Ok(Record::Ingest(record)) => {
            let frames = record.runs.iter().map(|run| run.frame.frame(&body));
            assert!(frames.count() > 0);
        }
        Ok(Record::Commit(record)) => {
            let changes = record.state.iter().filter(|(_, change)| change.key.len() > 512);
            assert_eq!(changes.count(), 0);
            let _places = record.batch.inputs();
            for run in &record.sent.runs {
                let _whole = run.frame.frame(&body);
            }
        }
        Ok(Record::Apply(record)) => {
            let (_, again) = written(|writer| writer.apply(&record));
            assert!(body[2..].starts_with(&again[2..]));
        }
        Ok(Record::Move(record)) => assert!((1..=253).contains(&record.to.len())),
        Ok(Record::Open(record)) => assert!(record.kept.len() < body.len()),
        Ok(record @ (Record::Leave(_) | Record::Join(_) | Record::Release(_))) => {
            // What stands among its parts and is not known is not written again.
            assert_eq!(decode(kind, &again((kind, &body))), Ok(record));
        }
        Ok(Record::Usage(record)) => assert!(record.lines.len() < body.len()),
        Ok(Record::Delete(_) | Record::Checkpoint(_)) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
