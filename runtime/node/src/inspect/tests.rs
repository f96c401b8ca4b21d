//! Logs as nodes leave them, and as disks spoil them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use sluicebox_core::codec::{
    ApplyRecord, Batch, CheckpointRecord, CommitHead, DeadRun, DeleteRecord, IngestRun, NameTable,
    OutputRun, Producer, RecordWriter, Sent, Usage,
};
use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_core::ids::OutputId;
use sluicebox_core::state::Change;
use sluicebox_store::log::{Class, Config, DurableLog, Log as _};
use tempfile::TempDir;

use super::*;

const PIPELINE: PipelineId = PipelineId(300);

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn frame(keys: &[&str]) -> Frame {
    let mut builder = FrameBuilder::new();
    keys.iter().for_each(|key| builder.push(&Head::data(1), key.as_bytes(), b"x", &[]));
    builder.finish()
}

fn apply(writer: &mut RecordWriter) {
    let names = NameTable { stages: vec![(StageId(0), name("count"))], ..NameTable::default() };
    writer.apply(&ApplyRecord {
        tenant: name("acme"),
        name: name("words"),
        pipeline: PIPELINE,
        version: 2,
        partitions: 4,
        manifest: b"{}",
        names,
        discarded: Vec::new(),
    });
}

fn ingest(writer: &mut RecordWriter) {
    let run = |partition, keys: &[&str]| IngestRun {
        stage: StageId(0),
        partition,
        previous: 0,
        frame: frame(keys),
    };
    writer.ingest(&IngestRecord {
        pipeline: PIPELINE,
        seq: 7,
        time: 1,
        producer: Some(Producer { id: "press-4", sequence: 70 }),
        ids: vec![9],
        runs: vec![run(0, &["a", "b"]), run(3, &["c"])],
        replayed: Vec::new(),
        high: None,
    });
}

fn commit(writer: &mut RecordWriter) {
    let head = CommitHead {
        pipeline: PIPELINE,
        version: 2,
        stage: StageId(0),
        partition: 3,
        number: 5,
        time: 1,
    };
    let mut state = writer.commit(&head, &Batch::default());
    state.change(StageId(0), &Change { key: b"c", slot: b"n", value: Some(b"1") });
    let sent = Sent {
        runs: Vec::new(),
        outputs: vec![OutputRun { output: OutputId(0), first: 0, frame: frame(&["c", "d"]) }],
        dead_letters: Some(DeadRun { first: 0, frame: frame(&["e"]) }),
    };
    state.finish(&sent, &Usage { fuel: 10, events: 1, reruns: 0 });
}

/// A data directory with a log of one record of each kind; it was closed unless `more` is there,
/// which is appended as it is.
fn data_dir(more: Option<(u8, &[u8])>) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = DurableLog::open(&dir.path().join(LOG), Config::default(), Position(0), &mut |_| {
        ControlFlow::Continue(())
    });
    let log = log.expect("a new log");
    let mut writer = RecordWriter::new();
    let writes: [fn(&mut RecordWriter); 5] = [
        apply,
        ingest,
        commit,
        |writer| writer.checkpoint(&CheckpointRecord { horizon: 512, generation: 3 }),
        |writer| writer.delete(&DeleteRecord { pipeline: PIPELINE }),
    ];
    for write in writes {
        write(&mut writer);
        let parts = writer.parts();
        log.append(Class::Commit, writer.kind(), &parts).expect("there is room");
    }
    if let Some((kind, body)) = more {
        log.append(Class::Commit, kind, &[body]).expect("there is room");
    }
    log.close().expect("it is written");
    dir
}

fn found(dir: &TempDir) -> Look {
    log(dir.path()).expect("it can be read").expect("there is one")
}

fn told_of(dir: &TempDir) -> Vec<Told> {
    let mut all = Vec::new();
    let told = records(&found(dir), &mut |told| {
        all.push(told);
        ControlFlow::Continue(())
    });
    told.expect("it can be read");
    all
}

/// Changes a byte of the first segment.
fn flip(dir: &TempDir, at: u64) {
    let path = dir.path().join(LOG).join("00000000000000000001.log");
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is so long");
    file.write_all_at(&[byte[0] ^ 1], at).expect("a file of ours");
}

#[test]
fn a_sound_log_is_counted_by_kind() {
    let dir = data_dir(None);
    let look = found(&dir);
    assert_eq!(look.found.verdict, Verdict::Clean(look.end()));
    let kinds: Vec<_> = look.kinds.iter().map(|(kind, count)| (*kind, *count)).collect();
    let each = ["apply", "checkpoint", "commit", "delete", "ingest"].map(|kind| (kind, 1));
    assert_eq!(kinds, each);
    assert_eq!((look.records(), look.unreadable), (5, None));
    assert_eq!(look.found.segments.len(), 1);
}

#[test]
fn each_record_says_what_it_is() {
    let told = told_of(&data_dir(None));
    let kinds: Vec<&str> = told.iter().map(|told| told.kind).collect();
    assert_eq!(kinds, ["apply", "ingest", "commit", "checkpoint", "delete"]);
    assert!(told.windows(2).all(|pair| pair[0].position < pair[1].position));
    let number = |at: usize, name: &str| {
        let fact = told[at].facts.iter().find(|(known, _)| *known == name);
        match fact.map(|(_, fact)| fact) {
            Some(Fact::Number(number)) => Some(*number),
            _ => None,
        }
    };
    assert_eq!((number(0, "version"), number(0, "partitions")), (Some(2), Some(4)));
    assert_eq!(
        (number(1, "seq"), number(1, "events"), number(1, "ids")),
        (Some(7), Some(3), Some(1))
    );
    assert!(told[1].facts.contains(&("producer", Fact::Text("press-4".into()))));
    assert!(told[2].facts.contains(&("stage", Fact::Text("count".into()))));
    assert_eq!((number(2, "partition"), number(2, "number")), (Some(3), Some(5)));
    assert_eq!((number(2, "changes"), number(2, "results")), (Some(1), Some(2)));
    assert_eq!((number(2, "dead-letters"), number(2, "passed-on")), (Some(1), None));
    assert_eq!(number(3, "horizon"), Some(512));
    let names: Vec<_> = told.iter().map(|told| (told.pipeline, told.name.as_deref())).collect();
    let words = (Some(PIPELINE), Some("acme/words"));
    assert_eq!(names, [words, words, words, (None, None), words]);
}

#[test]
fn damage_before_something_that_was_synced_is_found_with_its_place() {
    let dir = data_dir(None);
    // Within the first group: the header of the file has 4096 bytes, that of the group 32.
    flip(&dir, 4096 + 32 + 20);
    let look = found(&dir);
    assert_eq!(look.found.verdict, Verdict::Damaged);
    let (file, problem) = look.problem().expect("something is wrong");
    assert_eq!(file, "00000000000000000001.log");
    assert!(problem.offset >= 4096, "{problem:?}");
    assert_eq!(told_of(&dir), []);
}

#[test]
fn a_last_group_that_is_not_whole_is_torn_and_not_damage() {
    let dir = data_dir(None);
    let end = found(&dir).end();
    // The last group is the empty one of the closing; behind it nothing is known to be on disk.
    let last = end.0 - 512;
    flip(&dir, 4096 + last + 4);
    let look = found(&dir);
    assert!(matches!(look.found.verdict, Verdict::Clean(_) | Verdict::Torn(_)), "{look:?}");
    assert_eq!((look.records(), look.end()), (5, Position(last)));
}

#[test]
fn a_record_of_a_newer_program_is_told_and_named() {
    let dir = data_dir(Some((99, b"from the future")));
    let look = found(&dir);
    assert!(matches!(look.found.verdict, Verdict::Clean(_)), "{look:?}");
    assert_eq!(look.kinds.get("unknown"), Some(&1));
    let (position, error) = look.unreadable.expect("it is no record");
    assert_eq!(error.kind, 99);
    let told = told_of(&dir);
    let last = told.last().expect("there are records");
    assert_eq!((last.position, last.kind), (position, "unknown"));
    assert!(matches!(&last.facts[..], [("unreadable", Fact::Text(_))]), "{last:?}");
}

#[test]
fn where_no_node_was_there_is_no_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(log(dir.path()).expect("no error"), None);
    assert_eq!(log(&dir.path().join("nowhere")).expect("no error"), None);
}

#[test]
fn a_log_is_looked_at_beside_its_node() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join(LOG);
    let config = Config { segment_bytes: 64 << 10, record_bytes_max: 4096, ..Config::default() };
    let open = DurableLog::open(&path, config, Position(0), &mut |_| ControlFlow::Continue(()));
    let node = open.expect("a new log");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = RecordWriter::new();
            for round in 0..400 {
                ingest(&mut writer);
                let at = node.append(Class::Commit, writer.kind(), &writer.parts());
                let at = at.expect("there is room");
                node.wait_synced(at).expect("it is synced");
                if round % 50 == 0 {
                    node.trim(node.synced()).expect("segments can be recycled");
                }
            }
        });
        while !writer.is_finished() {
            let look = found(&dir);
            assert_ne!(look.found.verdict, Verdict::Damaged, "{look:#?}");
        }
    });
}

#[test]
fn there_is_room_where_a_directory_would_be_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let here = room(dir.path()).expect("it is there");
    let below = room(&dir.path().join("not/yet")).expect("its parent is there");
    assert!(here.free_bytes > 0 && here.free_bytes <= here.bytes);
    assert_eq!(here.bytes, below.bytes);
    assert!(room(Path::new("data")).is_ok(), "a relative path");
}
