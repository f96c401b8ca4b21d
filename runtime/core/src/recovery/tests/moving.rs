//! Pipelines that go to another node and come from one: what is refused, and that they go on there
//! as they would have here.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::{DeleteRecord, MoveRecord, OpenRecord};
use crate::recovery::backlog::Backlog;

const TWO: PipelineId = PipelineId(2);

impl Log {
    fn moves(&mut self, pipeline: PipelineId, to: &str) -> Result<(), Wrong> {
        self.write(|writer| writer.moves(&MoveRecord { pipeline, to: to.to_owned() }))
    }

    fn open(&mut self, pipeline: PipelineId, kept: &[u8]) -> Result<(), Wrong> {
        self.write(|writer| writer.open(&OpenRecord { pipeline, kept }))
    }

    pub(super) fn one(&self) -> &Folded {
        self.fold.pipeline(ONE).expect("it is there")
    }

    /// A log with another pipeline, of which nothing waits, at other positions.
    fn elsewhere(next: u64) -> Self {
        let mut log = Self { next, ..Self::default() };
        log.write(|writer| writer.apply(&word_count(TWO, 1))).expect("new");
        log.write(|writer| writer.checkpoint(&CheckpointRecord { horizon: 3, generation: 2 }))
            .expect("a mark");
        log
    }
}

fn kept(log: &Log) -> Vec<u8> {
    log.fold.keep_one(ONE).expect("it is there")
}

#[test]
fn a_pipeline_that_has_moved_refuses_everything_but_its_end() {
    let mut log = under_way();
    log.write(|writer| writer.apply(&word_count(TWO, 1))).expect("another");
    let empty = kept(&Log::counting());
    assert_eq!(log.one().moved(), None);
    assert_eq!(log.moves(ONE, "b.example"), Ok(()));
    assert_eq!(log.one().moved(), Some("b.example"));
    let (before, told) = (log.one().clone(), log.told.0.clone());
    type Write<'w> = &'w dyn Fn(&mut Log) -> Result<(), Wrong>;
    let cases: [(&str, Write<'_>); 7] = [
        ("a commit", &|log| log.split(2, (place(2, 2), place(3, 0), 2), &[])),
        ("and another one", &|log| log.split(2, (place(2, 2), place(3, 0), 2), &[])),
        ("an ingest", &|log| log.ingest(3, &[(SPLIT, 0, 2, 1)])),
        ("a version", &|log| log.write(|writer| writer.apply(&word_count(ONE, 2)))),
        ("a move", &|log| log.moves(ONE, "c.example")),
        ("the move it had", &|log| log.moves(ONE, "b.example")),
        ("an opening", &|log| log.open(ONE, &empty)),
    ];
    for (what, write) in cases {
        assert_eq!(write(&mut log), Err(Wrong::Moved), "{what}");
        assert_eq!((log.one(), &log.told.0), (&before, &told), "{what}");
    }
    assert_eq!(log.one().stopped(), None, "it is not its fault");
    let other = CommitHead { pipeline: TWO, ..head(SPLIT, 1) };
    assert_eq!(log.commit(other, Vec::new(), &NOTHING), Ok(()), "the other one goes on");
    let mut named = word_count(PipelineId(3), 1);
    named.name = name("p1");
    assert_eq!(log.write(|writer| writer.apply(&named)), Err(Wrong::Name), "it has its name");

    let delete = DeleteRecord { pipeline: ONE };
    assert_eq!(log.write(|writer| writer.delete(&delete)), Ok(()));
    assert_eq!(log.told.0.last().map(String::as_str), Some("deleted 1"));
    assert_eq!(log.moves(ONE, "b.example"), Err(Wrong::Pipeline));
    assert_eq!(log.open(ONE, &empty), Ok(()), "it comes back");
    assert_eq!(log.one().moved(), None);
}

#[test]
fn a_pipeline_that_stopped_can_move() {
    let mut log = under_way();
    assert!(log.ingest(9, &[(SPLIT, 0, 0, 1)]).is_err());
    assert_eq!(log.moves(ONE, "b"), Ok(()));
    assert_eq!((log.one().moved(), log.one().stopped().is_some()), (Some("b"), true));
    assert_eq!(log.ingest(3, &[(SPLIT, 0, 2, 1)]), Err(Wrong::Moved));
    assert_eq!(
        Log::elsewhere(7).open(ONE, &kept(&log)),
        Err(Wrong::Opened("it had stopped there"))
    );
}

#[test]
fn what_cannot_be_opened_is_refused_and_the_others_stay() {
    let good = kept(&Log::counting());
    let mut two = Log::counting();
    two.write(|writer| writer.apply(&word_count(TWO, 1))).expect("another");
    let stopped = || {
        let mut log = Log::counting();
        assert!(log.ingest(9, &[(SPLIT, 0, 0, 1)]).is_err());
        kept(&log)
    };
    let mut moved = Log::counting();
    moved.moves(ONE, "b").expect("it is there");
    let mut named = Log::default();
    let record = ApplyRecord { name: name("p2"), ..word_count(ONE, 1) };
    named.write(|writer| writer.apply(&record)).expect("new");
    let unreadable = "what was kept of it cannot be read";
    let many = "what was kept is not of one pipeline";
    let cases: [(PipelineId, Vec<u8>, &str); 11] = [
        (ONE, Vec::new(), unreadable),
        (ONE, b"garbage".to_vec(), unreadable),
        (ONE, good[..good.len() - 1].to_vec(), unreadable),
        (ONE, [&[9, 9], &good[2..]].concat(), unreadable),
        (ONE, Fold::new().keep(), many),
        (ONE, two.fold.keep(), many),
        (PipelineId(7), good.clone(), "what was kept is of another pipeline"),
        (ONE, stopped(), "it had stopped there"),
        (ONE, moved.fold.keep(), "it had moved there"),
        (ONE, kept(&under_way()), "runs wait that are in the log of that node"),
        (ONE, kept(&named), "another one of the tenant has its name"),
    ];
    for (pipeline, kept, why) in cases {
        let mut log = Log::elsewhere(70);
        let (before, told) = (log.fold.pipelines.clone(), log.told.0.clone());
        assert_eq!(log.open(pipeline, &kept), Err(Wrong::Opened(why)));
        assert_eq!((&log.fold.pipelines, &log.told.0), (&before, &told), "{why}");
        assert!(Wrong::Opened(why).to_string().ends_with(why));
        assert_eq!(log.open(ONE, &good), Ok(()), "what is right is opened behind it");
        assert_eq!(log.told.0, ["opened 1 of dev"]);
    }
}

#[test]
fn a_pipeline_that_is_there_is_not_opened_again() {
    let mut log = Log::counting();
    log.write(|writer| writer.apply(&word_count(TWO, 1))).expect("another");
    let (before, good) = (log.one().clone(), kept(&log));
    let wrong = Wrong::Opened("there is a pipeline with its number");
    assert_eq!(log.open(ONE, &good), Err(wrong));
    // As with every record that does not follow, nobody knows what else is wrong with it.
    let stopped = log.one().stopped().expect("stopped");
    assert_eq!((stopped.position, stopped.wrong), (log.next, wrong));
    assert_eq!(Folded { stopped: None, ..log.one().clone() }, before);
    assert_eq!(log.fold.pipeline(TWO).and_then(Folded::stopped), None);
    assert_eq!(log.open(ONE, &good), Err(wrong), "and is told again");
}

#[test]
fn another_tenant_may_have_a_pipeline_of_its_name() {
    let (mut log, mut other) = (Log::elsewhere(70), Log::default());
    let record = ApplyRecord { tenant: name("ops"), name: name("p2"), ..word_count(ONE, 1) };
    other.write(|writer| writer.apply(&record)).expect("new");
    assert_eq!(log.open(ONE, &kept(&other)), Ok(()));
    assert_eq!(log.told.0, ["opened 1 of ops"]);
}

#[test]
fn one_pipeline_is_kept_alone_and_without_its_log() {
    let mut log = under_way();
    log.write(|writer| writer.apply(&word_count(TWO, 1))).expect("another");
    log.write(|writer| writer.checkpoint(&CheckpointRecord { horizon: 350, generation: 4 }))
        .expect("a mark");
    assert_eq!(log.fold.keep_one(PipelineId(3)), None);
    let one = kept(&log);
    assert_eq!(one[..2], [1, 1], "as it always was");
    let read = Fold::from_kept(&one).expect("it was kept");
    assert_eq!((read.last(), read.checkpoint()), (None, None));
    assert_eq!(read.pipelines().collect::<Vec<_>>(), [(ONE, log.one())]);
    log.moves(ONE, "b").expect("it is there");
    assert_eq!(kept(&log), one, "it is not moved where it goes on");
}

#[test]
fn a_kept_fold_with_a_pipeline_that_moved_is_for_readers_that_know_it() {
    let mut log = under_way();
    log.write(|writer| writer.apply(&word_count(TWO, 1))).expect("another");
    let plain = log.fold.keep();
    assert_eq!(plain[..2], [1, 1]);
    log.moves(ONE, "b.example").expect("it is there");
    let kept = log.fold.keep();
    assert_eq!(kept[..2], [3, 3], "readers of format 2 would run it");
    let read = Fold::from_kept(&kept).expect("it was kept");
    assert_eq!(read.pipeline(ONE).and_then(Folded::moved), Some("b.example"));
    assert_eq!(read.pipeline(TWO).and_then(Folded::moved), None);
    assert_eq!(read, log.fold);
    let mut log = Log { fold: read, ..log };
    assert_eq!(log.ingest(3, &[(SPLIT, 0, 2, 1)]), Err(Wrong::Moved));
    for length in plain.len() + 1..kept.len() {
        assert!(Fold::from_kept(&kept[..length]).is_err(), "cut to {length}");
    }
    let nameless = [&kept[..plain.len()], &[23, 2, 1, 0]].concat();
    assert!(Fold::from_kept(&nameless).is_err(), "a node has a name");
    for bit in 0..kept.len() * 8 {
        let mut flipped = kept.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(fold) = Fold::from_kept(&flipped) {
            assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold));
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record-v3/0-kept.bin");
    if std::env::var_os("SLUICEBOX_GOLDEN").is_some_and(|value| value == "new")
        && !std::path::Path::new(file).exists()
    {
        std::fs::write(file, &kept).expect("a file of the repository");
    }
    let golden = std::fs::read(file).expect("a file of the repository");
    assert_eq!(kept.escape_ascii().to_string(), golden.escape_ascii().to_string());
    let removed = log.write(|writer| writer.delete(&DeleteRecord { pipeline: ONE }));
    assert_eq!((removed, &log.fold.keep()[..2]), (Ok(()), &[1, 1][..]), "and then for all again");
}

/// A record as it is written.
pub(super) type Written = (u8, Bytes);

pub(super) fn written(write: impl FnOnce(&mut RecordWriter)) -> Written {
    let mut writer = RecordWriter::new();
    write(&mut writer);
    (writer.kind(), writer.to_bytes())
}

/// A record that may come next in a log, as dice say.
fn any_next(log: &Log, dice: [u16; 4]) -> Written {
    let one = log.one();
    let (stage, partition) = ([SPLIT, COUNT][usize::from(dice[1] % 2)], dice[2] % one.partitions);
    match dice[0] % 8 {
        0..=2 => any_ingest(log, (stage, partition), dice[3]),
        3..=6 => any_commit(log, (stage, partition), dice),
        _ => {
            let waits = one.waiting().next().is_some();
            let partitions = if waits { one.partitions } else { 1 + dice[1] % 4 };
            let record = ApplyRecord { partitions, ..word_count(ONE, one.version + 1) };
            written(|writer| writer.apply(&record))
        }
    }
}

pub(super) fn any_ingest(log: &Log, to: (StageId, u16), dice: u16) -> Written {
    let numbers = log.one().ingest_numbers();
    let (seq, previous) = (numbers.next(), numbers.previous(to));
    let frame = frame(1 + u32::from(dice % 4));
    let runs = vec![IngestRun { stage: to.0, partition: to.1, previous, frame }];
    let mut replayed = Vec::new();
    if dice & 8 > 0 {
        let mut offsets = Offsets::default();
        offsets.insert(seq..seq + 1);
        replayed.push(ReplayedRun { root: COUNT, partition: to.1, kept_from: 0, offsets });
    }
    let high = (dice & 16 > 0).then_some(u64::from(dice));
    let (pipeline, time, producer, ids) = (ONE, 7, None, Vec::new());
    let record = IngestRecord { pipeline, seq, time, producer, ids, runs, replayed, high };
    written(|writer| writer.ingest(&record))
}

/// A piece of what waits: so many runs of its first source, the last perhaps in part.
pub(super) fn any_piece(
    log: &Log,
    to: (StageId, u16),
    runs: usize,
    in_part: bool,
) -> Option<Piece> {
    let one = log.one();
    let source = one.backlog(to.0, to.1).next()?.run.source;
    let waiting = one.backlog(to.0, to.1).filter(|waiting| waiting.run.source == source);
    let taken: Vec<&Waiting> = waiting.take(runs).collect();
    let last = taken.last()?;
    let mut events: u32 = taken.iter().map(|waiting| waiting.events - waiting.skip).sum();
    let mut end = Place::after(last.run.seq);
    if in_part && last.events - last.skip > 1 {
        end = place(last.run.seq, last.skip + 1);
        events -= last.events - last.skip - 1;
    }
    let from = one.readers.get(&to)?.positions.at(source);
    Some(Piece { source, from, to: end, events })
}

fn any_commit(log: &Log, to: (StageId, u16), dice: [u16; 4]) -> Written {
    let piece = any_piece(log, to, 1 + usize::from(dice[3] % 3), dice[3] & 8 > 0);
    committed(log, to, piece, dice)
}

pub(super) fn committed(
    log: &Log,
    to: (StageId, u16),
    piece: Option<Piece>,
    dice: [u16; 4],
) -> Written {
    let (one, partition) = (log.one(), to.1);
    let reader = one.readers.get(&to).cloned().unwrap_or_default();
    let mut sent = NOTHING;
    if to.0 == SPLIT && dice[3] & 16 > 0 {
        let numbers = one.sent.get(&(WORDS, partition)).cloned().unwrap_or_default();
        let goes = (dice[3] >> 8) % one.partitions;
        let (seq, previous) = (numbers.next(), numbers.previous(goes));
        let frame = frame(1 + u32::from(dice[3] % 3));
        sent.runs.push(EdgeRun { edge: WORDS, seq, partition: goes, previous, frame });
    }
    if to.0 == COUNT {
        let first = one.offsets.get(&(COUNTS, partition)).copied().unwrap_or(0);
        sent.outputs.push(OutputRun { output: COUNTS, first, frame: frame(2) });
        let dead = DeadRun { first: reader.dead_letters, frame: frame(1) };
        sent.dead_letters = (dice[3] & 32 > 0).then_some(dead);
    }
    let number = reader.number + 1;
    let head = CommitHead { version: one.version, partition, ..head(to.0, number) };
    let used = Usage { fuel: dice[1].into(), events: dice[2].into(), reruns: 1 };
    written(|writer| {
        let batch = Batch { pieces: piece.into_iter().collect(), ends: None };
        let mut state = writer.commit(&head, &batch);
        state.change(to.0, &Change { key: b"k", slot: b"s", value: Some(b"v") });
        state.finish(&sent, &used);
        if dice[3] & 64 > 0 {
            writer.event_time(dice[3].into());
        }
    })
}

/// A history of the word count, after which nothing waits.
fn drained(history: &[[u16; 4]]) -> Log {
    let mut log = Log::counting();
    let mut take = |write: &dyn Fn(&Log) -> Option<Written>| {
        let (kind, body) = write(&log)?;
        log.take((kind, &body)).expect("it follows");
        Some(())
    };
    for dice in history {
        take(&|log| Some(any_next(log, *dice))).expect("a record");
    }
    let rest = |log: &Log| {
        let to = log.one().waiting().next()?.0;
        Some(committed(log, to, any_piece(log, to, usize::MAX, false), [0; 4]))
    };
    while take(&rest).is_some() {}
    log
}

/// A pipeline as it would be if its records were so many bytes further on.
fn further_on(folded: &Folded, bytes: u64) -> Folded {
    let mut folded = folded.clone();
    for reader in folded.readers.values_mut() {
        let runs = reader.backlog.iter().cloned();
        let runs = runs.map(|run| Waiting { position: run.position + bytes, ..run });
        reader.backlog = Backlog::restore(runs.collect()).expect("in order");
    }
    if let Some(stopped) = &mut folded.stopped {
        stopped.position += bytes;
    }
    folded
}

fn told_further_on(told: &str, bytes: u64) -> String {
    let Some((what, position)) = told.rsplit_once(" at ") else { return told.to_owned() };
    format!("{what} at {}", position.parse::<u64>().expect("a position") + bytes)
}

proptest! {
    #[test]
    fn a_pipeline_goes_on_elsewhere_as_it_would_have_here(
        history in prop::collection::vec(any::<[u16; 4]>(), 0..60),
        after in prop::collection::vec(any::<[u16; 4]>(), 0..40),
        start in 100_000_u64..1 << 40,
    ) {
        let mut here = drained(&history);
        let kept = kept(&here);
        let mut there = Log::elsewhere(start);
        prop_assert_eq!(there.open(ONE, &kept), Ok(()));
        prop_assert_eq!(there.one(), here.one());
        let bytes = there.next - here.next;
        let told = (here.told.0.len(), there.told.0.len());
        for dice in after {
            let (kind, body) = any_next(&here, dice);
            prop_assert_eq!(here.take((kind, &body)), Ok(()));
            prop_assert_eq!(there.take((kind, &body)), Ok(()));
            prop_assert_eq!(there.one(), &further_on(here.one(), bytes));
        }
        // What does not follow here does not follow there.
        let beyond = here.one().ingest_numbers().next() + 1;
        let wrong = Wrong::Number { found: beyond, last: beyond - 2 };
        for log in [&mut here, &mut there] {
            prop_assert_eq!(log.ingest(beyond, &[(SPLIT, 0, 0, 1)]), Err(wrong));
        }
        prop_assert_eq!(there.one(), &further_on(here.one(), bytes));
        let shifted = here.told.0[told.0..].iter().map(|told| told_further_on(told, bytes));
        prop_assert_eq!(&there.told.0[told.1..], &shifted.collect::<Vec<_>>()[..]);
    }
}
