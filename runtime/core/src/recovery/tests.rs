//! What the fold finds, what it refuses, and that a checkpoint changes nothing of it.

mod moving;
mod parts;

use super::*;
use crate::codec::{
    Batch, EdgeEnds, EdgeRun, IngestRun, NameTable, Piece, RecordWriter, Sent, Usage, decode,
};
use crate::frame::{Frame, FrameBuilder, Head};
use crate::ids::{EdgeId, Name, OutputId, Part};
use crate::limits::FENCE_OFFSETS_MAX;
use crate::partition::{Leads, SegmentIds, StageIds};
use crate::position::{Place, Source};
use crate::replayed::{Offsets, ReplayedRun};

const ONE: PipelineId = PipelineId(1);
const SPLIT: StageId = StageId(1);
const COUNT: StageId = StageId(2);
const WORDS: EdgeId = EdgeId(1);
const COUNTS: OutputId = OutputId(0);

/// Remembers in words what it was given.
#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        let (key, value) = (change.key.escape_ascii(), change.value.map(<[u8]>::escape_ascii));
        let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        self.0.push(format!("{}/{} {key}={value}", stage.0, commit.partition));
    }

    fn output(&mut self, _: &CommitHead, run: &OutputRun, position: u64) {
        self.0.push(format!("out {} +{} at {position}", run.first, run.frame.events));
    }

    fn dead_letters(&mut self, _: &CommitHead, run: &DeadRun, position: u64) {
        self.0.push(format!("dead {} +{} at {position}", run.first, run.frame.events));
    }

    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64) {
        self.0.push(format!("ingest {} at {position}", ingest.seq));
    }

    fn opened(&mut self, tenant: &Name, pipeline: PipelineId) {
        self.0.push(format!("opened {} of {tenant}", pipeline.0));
    }

    fn joined(&mut self, tenant: &Name, pipeline: PipelineId, partitions: &[u16]) {
        self.0.push(format!("joined {} of {tenant}: {partitions:?}", pipeline.0));
    }

    fn released(&mut self, pipeline: PipelineId, partitions: &[u16], of: u16) {
        self.0.push(format!("released {}: {partitions:?} of {of}", pipeline.0));
    }

    fn discarded(&mut self, _: PipelineId, stage: StageId) {
        self.0.push(format!("discarded {}", stage.0));
    }

    fn deleted(&mut self, pipeline: PipelineId) {
        self.0.push(format!("deleted {}", pipeline.0));
    }
}

#[derive(Default)]
struct Log {
    fold: Fold,
    told: Told,
    next: u64,
}

impl Log {
    fn write(&mut self, write: impl FnOnce(&mut RecordWriter)) -> Result<(), Wrong> {
        let mut writer = RecordWriter::new();
        write(&mut writer);
        self.take((writer.kind(), &writer.to_bytes()))
    }

    fn take(&mut self, (kind, body): (u8, &[u8])) -> Result<(), Wrong> {
        let record = decode(kind, body).expect("it was written a moment ago");
        self.next += 100;
        let outcome = self.fold.apply(self.next, &record, &mut self.told);
        outcome.map_err(|stopped| {
            assert_eq!(stopped.position, self.next);
            stopped.wrong
        })
    }

    /// The word count is applied.
    fn counting() -> Self {
        let mut log = Self::default();
        log.write(|writer| writer.apply(&word_count(ONE, 1))).expect("new");
        log
    }

    fn ingest(&mut self, seq: u64, runs: &[(StageId, u16, u64, u32)]) -> Result<(), Wrong> {
        let run = |(stage, partition, previous, events): &(StageId, u16, u64, u32)| IngestRun {
            stage: *stage,
            partition: *partition,
            previous: *previous,
            frame: frame(*events),
        };
        let runs = runs.iter().map(run).collect();
        let (time, producer, ids) = (7, None, Vec::new());
        let record = IngestRecord {
            pipeline: ONE,
            seq,
            time,
            producer,
            ids,
            runs,
            replayed: Vec::new(),
            high: None,
        };
        self.write(|writer| writer.ingest(&record))
    }

    /// A commit of `split` that took a piece of the ingest and sent runs.
    fn split(
        &mut self,
        number: u64,
        (from, to, events): (Place, Place, u32),
        runs: &[(u64, u16, u64, u32)],
    ) -> Result<(), Wrong> {
        let run = |(seq, partition, previous, events): &(u64, u16, u64, u32)| EdgeRun {
            edge: WORDS,
            seq: *seq,
            partition: *partition,
            previous: *previous,
            frame: frame(*events),
        };
        let pieces = vec![Piece { source: Source::Ingest, from, to, events }];
        let runs = runs.iter().map(run).collect();
        let sent = Sent { runs, outputs: Vec::new(), dead_letters: None };
        self.commit(head(SPLIT, number), pieces, &sent)
    }

    fn commit(
        &mut self,
        head: CommitHead,
        pieces: Vec<Piece>,
        sent: &Sent<Frame>,
    ) -> Result<(), Wrong> {
        self.write(|writer| {
            let mut state = writer.commit(&head, &Batch { pieces, ends: None });
            let change = Change { key: b"k", slot: b"s", value: Some(b"v") };
            state.change(head.stage, &change);
            state.finish(sent, &Usage::default());
        })
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn frame(events: u32) -> Frame {
    let mut builder = FrameBuilder::new();
    (0..events).for_each(|_| builder.push(&Head::data(0), b"k", b"", &[]));
    builder.finish()
}

fn head(stage: StageId, number: u64) -> CommitHead {
    CommitHead { pipeline: ONE, version: 1, stage, partition: 0, number, time: 9 }
}

fn word_count(pipeline: PipelineId, version: u32) -> ApplyRecord<'static> {
    let (port, input) = (name("words"), name("in"));
    ApplyRecord {
        tenant: name("dev"),
        name: name(&format!("p{}", pipeline.0)),
        pipeline,
        version,
        partitions: 2,
        manifest: b"text",
        names: NameTable {
            stages: vec![(SPLIT, name("split")), (COUNT, name("count"))],
            edges: vec![(WORDS, EdgeEnds { from: SPLIT, port, to: COUNT, input })],
            outputs: vec![(COUNTS, name("counts"))],
        },
        discarded: Vec::new(),
    }
}

fn place(seq: u64, index: u32) -> Place {
    Place { seq, index }
}

const NOTHING: Sent<Frame> = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };

/// Two ingests, of which the first and half the second were split.
fn under_way() -> Log {
    let mut log = Log::counting();
    log.ingest(1, &[(SPLIT, 0, 0, 3)]).expect("first");
    log.ingest(2, &[(SPLIT, 0, 1, 4), (SPLIT, 1, 0, 1)]).expect("second");
    let piece = (Place::START, place(2, 2), 5);
    log.split(1, piece, &[(1, 0, 0, 2), (1, 1, 0, 3)]).expect("split");
    log
}

fn waiting(log: &Log, stage: StageId, partition: u16) -> Vec<(u64, u64, u32, u32, u64)> {
    let folded = log.fold.pipeline(ONE).expect("applied");
    let runs = folded.backlog(stage, partition);
    runs.map(|w| (w.run.seq, w.run.previous, w.skip, w.events, w.position)).collect()
}

#[test]
fn what_was_sent_and_not_consumed_is_the_backlog() {
    let mut log = under_way();
    assert_eq!(waiting(&log, SPLIT, 0), [(2, 1, 2, 4, 300)]);
    assert_eq!(waiting(&log, SPLIT, 1), [(2, 0, 0, 1, 300)]);
    assert_eq!(waiting(&log, COUNT, 0), [(1, 0, 0, 2, 400)]);
    assert_eq!(waiting(&log, COUNT, 1), [(1, 0, 0, 3, 400)]);
    let source = Source::Edge { edge: WORDS, partition: 0 };
    let piece = Piece { source, from: Place::START, to: place(2, 0), events: 2 };
    let output = OutputRun { output: COUNTS, first: 0, frame: frame(2) };
    let dead_letters = Some(DeadRun { first: 0, frame: frame(1) });
    let sent = Sent { runs: Vec::new(), outputs: vec![output], dead_letters };
    log.commit(head(COUNT, 1), vec![piece], &sent).expect("counted");
    assert_eq!(waiting(&log, COUNT, 0), []);
    let told = [
        "ingest 1 at 200",
        "ingest 2 at 300",
        "1/0 k=v",
        "2/0 k=v",
        "out 0 +2 at 500",
        "dead 0 +1 at 500",
    ];
    assert_eq!(log.told.0, told);

    let ids = |stage, leads| SegmentIds {
        pipeline: ONE,
        version: 1,
        partition: 0,
        stages: vec![StageIds { stage, leads: vec![leads] }],
    };
    let folded = log.fold.pipeline(ONE).expect("applied");
    let progress = folded.progress(&ids(SPLIT, Leads::Edge(WORDS)));
    assert_eq!((progress.number, progress.positions.at(Source::Ingest)), (1, place(2, 2)));
    assert_eq!((progress.numbers.next(WORDS), progress.dead_letters), (2, 0));
    let progress = folded.progress(&ids(COUNT, Leads::Output(COUNTS)));
    assert_eq!((progress.positions.at(source), progress.dead_letters), (place(2, 0), 1));
    assert_eq!(progress.offsets.get(&COUNTS), Some(&2));
    assert_eq!(folded.ingest_numbers().next(), 3);
    assert_eq!(folded.manifest(), b"text");
}

#[test]
fn a_commit_that_does_not_follow_is_refused() {
    let on = place(2, 2);
    let end = place(3, 0);
    type Write = fn(&mut Log) -> Result<(), Wrong>;
    let cases: [(&str, Write, Wrong); 9] = [
        (
            "a commit is missing",
            |log| log.split(3, (place(2, 2), place(3, 0), 2), &[]),
            Wrong::Number { found: 3, last: 1 },
        ),
        (
            "a batch begins too early",
            |log| log.split(2, (Place::START, place(3, 0), 7), &[]),
            Wrong::Begin { source_of: Source::Ingest, found: Place::START, at: on },
        ),
        (
            "events are left out",
            |log| log.split(2, (place(2, 2), place(3, 0), 1), &[]),
            Wrong::Events { source_of: Source::Ingest, found: 1, sent: 2 },
        ),
        (
            "more is consumed than was sent",
            |log| log.split(2, (place(2, 2), place(4, 0), 2), &[]),
            Wrong::Unsent { source_of: Source::Ingest, to: place(4, 0) },
        ),
        (
            "the end of a run is written as a place inside it",
            |log| log.split(2, (place(2, 2), place(2, 4), 2), &[]),
            Wrong::Unsent { source_of: Source::Ingest, to: place(2, 4) },
        ),
        (
            "a seq is left out",
            |log| log.split(2, (place(2, 2), place(3, 0), 2), &[(3, 0, 1, 1)]),
            Wrong::Seq(crate::position::OutOfOrder { seq: 3, last: 1 }),
        ),
        (
            "a run names a wrong one before it",
            |log| log.split(2, (place(2, 2), place(3, 0), 2), &[(2, 0, 0, 1)]),
            Wrong::Previous { found: 0, last: 1 },
        ),
        (
            "a run goes to a partition that is not there",
            |log| log.split(2, (place(2, 2), place(3, 0), 2), &[(2, 2, 0, 1)]),
            Wrong::Partition(2),
        ),
        (
            "an ingest is left out",
            |log| log.ingest(4, &[(SPLIT, 0, 2, 1)]),
            Wrong::Number { found: 4, last: 2 },
        ),
    ];
    for (what, write, wrong) in cases {
        let mut log = under_way();
        assert_eq!(write(&mut log), Err(wrong), "{what}");
        let stopped = log.fold.pipeline(ONE).and_then(Folded::stopped).expect("stopped");
        assert_eq!((stopped.position, stopped.wrong), (500, wrong));
        assert!(!stopped.to_string().contains('\n'));
        // It takes no more, and says so no more.
        let told = log.told.0.len();
        assert_eq!(log.split(2, (on, end, 2), &[]), Ok(()));
        assert_eq!(log.told.0.len(), told, "{what}");
    }
    assert_eq!(under_way().split(2, (on, end, 2), &[(2, 0, 1, 1)]), Ok(()));
}

#[test]
fn names_that_are_not_there_are_refused() {
    let unknown = |change: fn(&mut CommitHead, &mut Sent<Frame>)| {
        let (mut head, mut sent) = (head(SPLIT, 2), NOTHING);
        change(&mut head, &mut sent);
        under_way().commit(head, Vec::new(), &sent)
    };
    assert_eq!(unknown(|head, _| head.stage = StageId(9)), Err(Wrong::Stage(StageId(9))));
    assert_eq!(unknown(|head, _| head.pipeline = PipelineId(2)), Err(Wrong::Pipeline));
    assert_eq!(unknown(|head, _| head.partition = 2), Err(Wrong::Partition(2)));
    let wrong = Wrong::Version { found: 2, current: 1 };
    assert_eq!(unknown(|head, _| head.version = 2), Err(wrong));
    let output = |sent: &mut Sent<Frame>, output, first| {
        sent.outputs.push(OutputRun { output, first, frame: frame(1) });
    };
    let wrong = unknown(|_, sent| {
        sent.outputs.push(OutputRun { output: OutputId(7), first: 0, frame: frame(1) });
    });
    assert_eq!(wrong, Err(Wrong::Output(OutputId(7))));
    let mut sent = NOTHING;
    output(&mut sent, COUNTS, 1);
    let wrong = under_way().commit(head(SPLIT, 2), Vec::new(), &sent);
    assert_eq!(wrong, Err(Wrong::Offset { found: 1, next: 0 }));
    // An edge that leads elsewhere is no source.
    let source = Source::Edge { edge: WORDS, partition: 0 };
    let piece = Piece { source, from: Place::START, to: place(2, 0), events: 2 };
    let wrong = under_way().commit(head(SPLIT, 2), vec![piece], &NOTHING);
    assert_eq!(wrong, Err(Wrong::Edge(WORDS)));
}

#[test]
fn one_pipeline_stops_and_the_others_go_on() {
    let mut log = under_way();
    log.write(|writer| writer.apply(&word_count(PipelineId(2), 1))).expect("another");
    assert!(log.ingest(9, &[(SPLIT, 0, 0, 1)]).is_err());
    let other = CommitHead { pipeline: PipelineId(2), ..head(SPLIT, 1) };
    assert_eq!(log.commit(other, Vec::new(), &NOTHING), Ok(()));
    let delete = crate::codec::DeleteRecord { pipeline: ONE };
    assert_eq!(log.write(|writer| writer.delete(&delete)), Ok(()));
    assert_eq!(log.told.0.last().map(String::as_str), Some("deleted 1"));
    assert_eq!(log.write(|writer| writer.delete(&delete)), Err(Wrong::Pipeline));
    assert_eq!(log.fold.pipelines().count(), 1);
}

#[test]
fn a_version_strands_no_run_and_uses_no_number_again() {
    type Change = fn(&mut ApplyRecord<'_>);
    let apply = |log: &mut Log, change: Change| {
        let mut record = word_count(ONE, 2);
        change(&mut record);
        log.write(|writer| writer.apply(&record))
    };
    let new_stage = |id: u32| (StageId(id), name("third"));
    let no_count: Change = |record| {
        record.names.edges.clear();
        record.names.stages.pop();
    };
    let wrong = apply(&mut under_way(), |record| record.version = 0);
    assert_eq!(wrong, Err(Wrong::Version { found: 0, current: 1 }));
    // The same version may go on at another scale, but as nothing else.
    assert_eq!(apply(&mut under_way(), |record| record.version = 1), Ok(()));
    let wrong = apply(&mut under_way(), |record| {
        record.version = 1;
        record.names.stages[0].1 = name("first");
    });
    assert_eq!(wrong, Err(Wrong::Version { found: 1, current: 1 }));
    assert_eq!(apply(&mut under_way(), no_count), Err(Wrong::WouldStrand(2)));
    let wrong = apply(&mut under_way(), |record| record.partitions = 4);
    assert_eq!(wrong, Err(Wrong::WouldStrand(4)));
    let wrong = apply(&mut under_way(), |record| record.discarded.push(SPLIT));
    assert_eq!(wrong, Err(Wrong::Discarded(SPLIT)));
    let wrong = apply(&mut under_way(), |record| record.name = Name::new("p9").expect("a name"));
    assert_eq!(wrong, Err(Wrong::Name));

    let mut log = under_way();
    let discard = |record: &mut ApplyRecord<'_>| {
        record.names.edges.clear();
        record.names.stages.pop();
        record.discarded.push(COUNT);
    };
    assert_eq!(apply(&mut log, discard), Ok(()));
    let held = Part::HELD.map(|part| format!("discarded {}", COUNT.part(part).0));
    let all = [vec!["discarded 2".to_owned()], held.to_vec()].concat();
    assert!(log.told.0.ends_with(&all), "with what is held there");
    assert_eq!(waiting(&log, COUNT, 0), []);
    let mut third = word_count(ONE, 3);
    third.names.edges.clear();
    third.names.stages[1] = new_stage(2);
    let wrong = log.write(|writer| writer.apply(&third));
    assert_eq!(wrong, Err(Wrong::Reused(2)));

    let mut log = Log::counting();
    assert_eq!(apply(&mut log, |record| record.partitions = 4), Ok(()), "nothing waits");
    assert_eq!(log.ingest(1, &[(SPLIT, 3, 0, 1)]), Ok(()));
}

#[test]
fn partitions_come_and_go_and_every_number_goes_on() {
    let mut log = Log::counting();
    let partitions = |log: &mut Log, version: u32, partitions: u16| {
        let record = ApplyRecord { partitions, ..word_count(ONE, version) };
        log.write(|writer| writer.apply(&record))
    };
    log.ingest(1, &[(COUNT, 1, 0, 2)]).expect("first");
    let taken = |from, to| vec![Piece { source: Source::Ingest, from, to, events: 2 }];
    let left = |first| Sent {
        runs: Vec::new(),
        outputs: vec![OutputRun { output: COUNTS, first, frame: frame(2) }],
        dead_letters: Some(DeadRun { first, frame: frame(2) }),
    };
    let here = |number| CommitHead { partition: 1, ..head(COUNT, number) };
    log.commit(here(1), taken(Place::START, place(2, 0)), &left(0)).expect("counted");
    assert_eq!(partitions(&mut log, 2, 1), Ok(()));
    assert_eq!(log.ingest(2, &[(COUNT, 1, 1, 2)]), Err(Wrong::Partition(1)));

    let mut log = Log { fold: Fold::from_kept(&log.fold.keep()).expect("kept"), ..log };
    let folded = log.fold.pipelines.get_mut(&ONE).expect("applied");
    folded.stopped = None;
    assert_eq!(partitions(&mut log, 3, 4), Ok(()), "and it comes back");
    assert_eq!(log.ingest(2, &[(COUNT, 1, 1, 2), (COUNT, 3, 0, 1)]), Ok(()));
    let again = log.commit(here(2), taken(place(2, 0), place(3, 0)), &left(0));
    assert_eq!(again, Err(Wrong::Offset { found: 0, next: 2 }), "an offset is used once");

    let folded = log.fold.pipeline(ONE).expect("applied");
    let fence = |next| Fence::from([((COUNTS, 1), next)]);
    assert_eq!(folded.fences(), [fence(2), fence(2)]);
    let standing = Standing::from(folded);
    assert_eq!((standing.offset(COUNTS, 1), standing.offset(COUNTS, 0)), (2, 0));
    assert_eq!((standing.partitions_of(COUNTS), standing.dead_letters(COUNT, 1)), (2, 2));
    assert_eq!(standing.partitions_with_dead_letters(COUNT), 2);
    assert_eq!(standing.partitions_with_dead_letters(SPLIT), 0);
}

#[test]
fn notes_of_where_outputs_stood_are_bounded() {
    let mut log = Log::counting();
    for version in 2..40 {
        let record = ApplyRecord { partitions: version as u16, ..word_count(ONE, version) };
        log.write(|writer| writer.apply(&record)).expect("nothing waits");
        let folded = log.fold.pipelines.get_mut(&ONE).expect("applied");
        let many = (0..1000).map(|partition| ((COUNTS, partition), u64::from(version)));
        folded.offsets = many.collect();
    }
    let folded = log.fold.pipeline(ONE).expect("applied");
    let newest = folded.fences().last().expect("some").get(&(COUNTS, 0));
    assert_eq!((folded.fences().len(), newest), (FENCE_OFFSETS_MAX / 1000, Some(&38)));
}

#[test]
fn a_kept_fold_has_the_bytes_it_always_had() {
    let mut log = under_way();
    log.write(|writer| writer.apply(&word_count(PipelineId(2), 3))).expect("another");
    log.write(|writer| writer.checkpoint(&CheckpointRecord { horizon: 350, generation: 4 }))
        .expect("a mark");
    let kept = log.fold.keep();
    // Records in format 2 are shorter, so that what waits lies elsewhere in them than in that file.
    let old = include_bytes!("../../tests/golden/record-v1/0-kept.bin");
    let read = Fold::from_kept(old).expect("what was kept of records in format 1");
    assert_eq!(read.keep(), old);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record-v2/0-kept.bin");
    if std::env::var_os("SLUICEBOX_GOLDEN").is_some_and(|value| value == "new")
        && !std::path::Path::new(file).exists()
    {
        std::fs::write(file, &kept).expect("a file of the repository");
    }
    let golden = std::fs::read(file).expect("a file of the repository");
    assert_eq!(kept.escape_ascii().to_string(), golden.escape_ascii().to_string());
    assert_eq!(Fold::from_kept(&golden), Ok(log.fold));
}

#[test]
fn a_checkpoint_keeps_what_was_used_and_what_was_replayed() {
    let mut log = under_way();
    let kept = log.fold.keep();
    let mut offsets = Offsets::default();
    offsets.insert(3..7);
    let runs = vec![IngestRun { stage: SPLIT, partition: 0, previous: 2, frame: frame(1) }];
    let replayed = vec![ReplayedRun { root: COUNT, partition: 1, kept_from: 4, offsets }];
    let (time, producer, ids) = (7, None, Vec::new());
    let seq = log.fold.pipeline(ONE).expect("applied").ingest_numbers().next();
    let previous = log.fold.pipeline(ONE).expect("applied").ingest_numbers().previous((SPLIT, 0));
    let runs = runs.into_iter().map(|run| IngestRun { previous, ..run }).collect();
    let record =
        IngestRecord { pipeline: ONE, seq, time, producer, ids, runs, replayed, high: None };
    log.write(|writer| writer.ingest(&record)).expect("the next");
    let stages = vec![StageIds { stage: SPLIT, leads: Vec::new() }];
    let split = SegmentIds { pipeline: ONE, version: 1, partition: 0, stages };
    let number = log.fold.pipeline(ONE).expect("applied").progress(&split).number;
    let used = Usage { fuel: 1 << 40, events: 3, reruns: 2 };
    log.write(|writer| {
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        writer.commit(&head(SPLIT, number + 1), &Batch::default()).finish(&sent, &used);
    })
    .expect("the next");
    let folded = log.fold.pipeline(ONE).expect("applied");
    assert_eq!(folded.usage().get(&SPLIT), Some(&used));
    let known = |offset| folded.replayed().contains((COUNT, 1), offset);
    assert_eq!([3, 4, 6, 7].map(known), [false, true, true, false], "3 is not kept any more");
    let more = log.fold.keep();
    assert!(more.len() > kept.len());
    assert_eq!(Fold::from_kept(&more), Ok(log.fold.clone()));
    for bit in 0..more.len() * 8 {
        let mut flipped = more.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(fold) = Fold::from_kept(&flipped) {
            assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold));
        }
    }
}

#[test]
fn a_checkpoint_keeps_the_fold() {
    let mut log = under_way();
    let folded = log.fold.pipelines.get_mut(&ONE).expect("applied");
    folded.fences = vec![Fence::from([((COUNTS, 0), 3), ((COUNTS, 1), 400)]), Fence::new()];
    let checkpoint = CheckpointRecord { horizon: 350, generation: 4 };
    log.write(|writer| writer.checkpoint(&checkpoint)).expect("a mark");
    let kept = log.fold.keep();
    assert_eq!(Fold::from_kept(&kept), Ok(log.fold.clone()));
    assert_eq!(Fold::from_kept(&Fold::new().keep()), Ok(Fold::new()));
    let mut plain = log.fold.clone();
    plain.pipelines.get_mut(&ONE).expect("applied").fences.clear();
    let plain = plain.keep().len();
    // Cut where an extension begins, it is one of an older writer.
    for length in (0..kept.len()).filter(|length| *length != plain) {
        assert!(Fold::from_kept(&kept[..length]).is_err(), "cut to {length}");
    }
    for bit in 0..kept.len() * 8 {
        let mut flipped = kept.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(fold) = Fold::from_kept(&flipped) {
            // Whatever was taken can be kept again.
            assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold));
        }
    }
    // A pipeline that had stopped has stopped.
    assert!(log.ingest(9, &[(SPLIT, 0, 0, 1)]).is_err());
    let again = Fold::from_kept(&log.fold.keep()).expect("kept");
    let stopped = again.pipeline(ONE).and_then(Folded::stopped).expect("stopped");
    assert_eq!((stopped.position, stopped.wrong), (log.next, Wrong::Earlier));
}
