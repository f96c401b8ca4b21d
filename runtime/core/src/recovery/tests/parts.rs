//! Partitions that are on several nodes: they go on elsewhere, and here again, from where they
//! were. What is refused is in `refused`, what happens at random in `scattered`.

mod refused;
mod scattered;

use super::*;
use crate::codec::{
    Changed, DeleteRecord, JoinRecord, LeaveRecord, MoveRecord, OpenRecord, ReleaseRecord,
};
use crate::key;
use crate::recovery::pipeline::ReaderState;

const INGEST: Source = Source::Ingest;

fn words(partition: u16) -> Source {
    Source::Edge { edge: WORDS, partition }
}

fn of(source: Source, (from, to): (Place, Place), events: u32) -> Piece {
    Piece { source, from, to, events }
}

fn at(stage: StageId, partition: u16, number: u64) -> CommitHead {
    CommitHead { partition, ..head(stage, number) }
}

fn counted(first: u64) -> Sent<Frame> {
    let outputs = vec![OutputRun { output: COUNTS, first, frame: frame(2) }];
    Sent { outputs, dead_letters: Some(DeadRun { first, frame: frame(2) }), ..NOTHING }
}

/// Runs over the edge, of one event each: partition and the run before.
fn runs(seq: u64, to: &[(u16, u64)]) -> Sent<Frame> {
    let run = |(partition, previous): &(u16, u64)| EdgeRun {
        edge: WORDS,
        seq,
        partition: *partition,
        previous: *previous,
        frame: frame(1),
    };
    Sent { runs: to.iter().map(run).collect(), ..NOTHING }
}

impl Log {
    fn leave(&mut self, to: &str, partitions: &[u16]) -> Result<(), Wrong> {
        let (to, partitions) = (to.to_owned(), partitions.to_vec());
        self.write(|writer| writer.leave(&LeaveRecord { pipeline: ONE, to, partitions }))
    }

    fn join(
        &mut self,
        (from, home): (&str, Option<&str>),
        partitions: &[u16],
        kept: &[u8],
    ) -> Result<(), Wrong> {
        let (from, home) = (from.to_owned(), home.map(str::to_owned));
        let partitions = partitions.to_vec();
        let changed = Changed::default();
        let record = JoinRecord { pipeline: ONE, from, home, partitions, kept, changed };
        self.write(|writer| writer.join(&record))
    }

    fn release(&mut self, partitions: &[u16]) -> Result<(), Wrong> {
        let partitions = partitions.to_vec();
        self.write(|writer| writer.release(&ReleaseRecord { pipeline: ONE, partitions }))
    }

    /// What another node did, as it is written here: without state.
    fn shadow(
        &mut self,
        head: CommitHead,
        pieces: &[Piece],
        sent: &Sent<Frame>,
    ) -> Result<(), Wrong> {
        let batch = Batch { pieces: pieces.to_vec(), ends: None };
        self.write(|writer| writer.commit(&head, &batch).finish(sent, &Usage::default()))
    }

    fn folded(&self) -> &Folded {
        self.fold.pipeline(ONE).expect("it is there")
    }

    fn part(&self) -> Vec<u8> {
        self.fold.keep_part(ONE).expect("it is there")
    }

    /// Goes on from what was kept.
    fn again(self) -> Self {
        let kept = self.fold.keep();
        let fold = Fold::from_kept(&kept).expect("it was kept");
        assert_eq!(fold, self.fold);
        Self { fold, ..self }
    }

    fn number(&self, stage: StageId, partition: u16) -> u64 {
        self.folded().readers.get(&(stage, partition)).map_or(0, |reader| reader.number)
    }
}

/// A log in which the word count has four partitions, of which 1 and 2 have split, the latter a
/// part of what there is.
fn home() -> Log {
    let mut log = Log::default();
    let record = ApplyRecord { partitions: 4, ..word_count(ONE, 1) };
    log.write(|writer| writer.apply(&record)).expect("new");
    log.ingest(1, &[(SPLIT, 1, 0, 2), (SPLIT, 2, 0, 3)]).expect("first");
    let all = of(INGEST, (Place::START, place(2, 0)), 2);
    log.commit(at(SPLIT, 1, 1), vec![all], &runs(1, &[(2, 0)])).expect("split");
    let some = of(INGEST, (Place::START, place(1, 2)), 2);
    log.commit(at(SPLIT, 2, 1), vec![some], &runs(1, &[(0, 0), (2, 0)])).expect("split");
    log
}

/// The home after partition 2 went to `b`, and that one.
fn apart() -> (Log, Log) {
    let (mut home, mut part) = (home(), Log { next: 7_000, ..Log::default() });
    let kept = home.part();
    home.leave("b", &[2]).expect("it is here");
    part.join(("a", Some("a")), &[2], &kept).expect("it came");
    (home.again(), part.again())
}

fn progress(log: &Log, stage: StageId, leads: Leads) -> crate::partition::Progress {
    let stages = vec![StageIds { stage, leads: vec![leads] }];
    log.folded().progress(&SegmentIds { pipeline: ONE, version: 1, partition: 2, stages })
}

#[test]
fn a_partition_goes_on_at_another_node_from_where_it_was() {
    let whole = home();
    let (home, part) = apart();
    let (here, there) = (home.folded(), part.folded());
    assert_eq!((here.home(), there.home()), (None, Some("a")));
    assert_eq!(here.away(), &BTreeMap::from([(2, "b".to_owned())]));
    assert_eq!(there.away(), &BTreeMap::from([0, 1, 3].map(|p| (p, "a".to_owned()))));
    assert_eq!((here.leaving().len(), there.leaving().len()), (1, 0));
    assert_eq!([0, 1, 2, 3].map(|p| (here.is_here(p), there.is_here(p))), {
        let (of_home, of_part) = ((true, false), (false, true));
        [of_home, of_home, of_part, of_home]
    });
    assert_eq!(part.told.0, ["joined 1 of dev: [2]"]);
    assert_eq!(there.waiting().count(), 0, "they stay in the other log");
    assert_eq!(here.waiting().count(), whole.folded().waiting().count());
    for (stage, leads) in [(SPLIT, Leads::Edge(WORDS)), (COUNT, Leads::Output(COUNTS))] {
        assert_eq!(progress(&part, stage, leads), progress(&whole, stage, leads));
    }
    assert_eq!(there.readers.keys().filter(|(_, partition)| *partition != 2).count(), 0);
    assert_eq!((there.partitions(), there.version(), there.names()), (4, 1, here.names()));
    assert_eq!((&home.fold.keep()[..2], &part.fold.keep()[..2]), (&[4, 4][..], &[4, 4][..]));
    let from = Standing::from(there);
    assert_eq!(
        from.progress(&SegmentIds {
            pipeline: ONE,
            version: 1,
            partition: 2,
            stages: { vec![StageIds { stage: SPLIT, leads: vec![Leads::Edge(WORDS)] }] }
        }),
        progress(&whole, SPLIT, Leads::Edge(WORDS))
    );

    // After the source has restarted it may have only what it kept behind the record.
    let mut late = Log::default();
    assert_eq!(late.join(("a", Some("a")), &[2], &home.part()), Ok(()));
    assert_eq!(late.folded(), there);
}

#[test]
fn a_partition_lives_here_and_there_and_here_again() {
    let (mut home, mut part) = apart();
    // There: the rest of the ingest, which is in the log of the home.
    let rest = of(INGEST, (place(1, 2), place(2, 0)), 1);
    part.commit(at(SPLIT, 2, 2), vec![rest], &runs(2, &[(1, 0), (2, 1)])).expect("foreign");
    home.shadow(at(SPLIT, 2, 2), &[rest], &NOTHING).expect("it waits here");
    let (mut home, mut part) = (home.again(), part.again());
    assert_eq!(waiting(&home, SPLIT, 2), []);

    // Of the partition itself some runs are in the log of the home and some here.
    let one = of(words(1), (Place::START, place(2, 0)), 1);
    let own =
        [of(words(2), (Place::START, place(2, 0)), 1), of(words(2), (place(2, 0), place(3, 0)), 1)];
    part.commit(at(COUNT, 2, 1), vec![one, own[0], own[1]], &counted(0)).expect("of both logs");
    home.shadow(at(COUNT, 2, 1), &[one, own[0]], &counted(0)).expect("its part");
    let (mut home, mut part) = (home.again(), part.again());
    assert_eq!((waiting(&home, COUNT, 2), waiting(&part, COUNT, 2)), (vec![], vec![]));
    assert_eq!(waiting(&part, COUNT, 1).len(), 1, "for the other node");

    // What it sent goes to the home, and is written there when it was taken.
    let sent = of(words(2), (Place::START, place(3, 0)), 1);
    home.commit(at(COUNT, 1, 1), vec![sent], &counted(0)).expect("foreign");
    part.shadow(at(COUNT, 1, 1), &[sent], &NOTHING).expect("it waits here");
    assert_eq!(part.again().folded().waiting().count(), 0);
    assert_eq!(home.again().folded().offsets.get(&(COUNTS, 2)), Some(&2));
}

/// The home and the part, which is half through an ingest of which the home does not know yet.
fn half_through() -> (Log, Log) {
    let (mut home, mut part) = apart();
    home.ingest(2, &[(SPLIT, 1, 1, 1), (SPLIT, 2, 1, 4)]).expect("events come in");
    let rest = of(INGEST, (place(1, 2), place(2, 0)), 1);
    let more = of(INGEST, (place(2, 0), place(2, 2)), 2);
    part.commit(at(SPLIT, 2, 2), vec![rest], &runs(2, &[(0, 1), (2, 1)])).expect("foreign");
    part.commit(at(SPLIT, 2, 3), vec![more], &NOTHING).expect("foreign");
    home.shadow(at(SPLIT, 2, 2), &[rest], &NOTHING).expect("it waits here");
    home.shadow(at(COUNT, 2, 1), &[], &counted(0)).expect("it left there");
    home.shadow(at(COUNT, 2, 2), &[], &counted(70)).expect("what lay between was dropped");
    (home, part)
}

#[test]
fn a_partition_comes_back_and_what_was_taken_elsewhere_is_taken() {
    let (home, mut part) = half_through();
    let kept = part.part();
    part.leave("a", &[2]).expect("it is here");
    let (mut home, mut part) = (home.again(), part.again());
    assert_eq!(waiting(&home, SPLIT, 2), [(2, 1, 0, 4, 600)]);
    assert_eq!(home.join(("b", None), &[2], &kept), Ok(()));
    let mut home = home.again();
    assert_eq!(home.told.0.last().map(String::as_str), Some("joined 1 of dev: [2]"));
    let here = home.folded();
    assert_eq!((here.home(), here.away().len(), here.leaving().len()), (None, 0, 0));
    assert_eq!(waiting(&home, SPLIT, 2), [(2, 1, 2, 4, 600)], "half of it was taken");
    assert_eq!((home.number(SPLIT, 2), home.number(COUNT, 2)), (3, 2), "the later of both");
    let found = progress(&home, SPLIT, Leads::Edge(WORDS));
    assert_eq!((found.positions.at(INGEST), found.numbers.next(WORDS)), (place(2, 2), 3));
    assert_eq!(progress(&home, COUNT, Leads::Output(COUNTS)).offsets.get(&COUNTS), Some(&72));

    let rest = of(INGEST, (place(2, 2), place(3, 0)), 2);
    home.commit(at(SPLIT, 2, 4), vec![rest], &runs(3, &[(0, 2), (2, 2)])).expect("it goes on");
    let mut home = home.again();
    // The first run was sent here, the second there, the third here again.
    let each = [1, 2, 3].map(|seq| of(words(2), (place(seq, 0), place(seq + 1, 0)), 1));
    home.commit(at(COUNT, 0, 1), each.to_vec(), &NOTHING).expect("of both logs");
    home.commit(at(COUNT, 2, 3), each.to_vec(), &counted(72)).expect("of both logs");
    // There only the second is, and the first lay before it.
    let second = of(words(2), (Place::START, place(3, 0)), 1);
    part.shadow(at(COUNT, 0, 1), &[second], &NOTHING).expect("it is all that waits there");
    assert_eq!(waiting(&part, COUNT, 0), []);

    let mut log = half_through().1;
    log.leave("a", &[2]).expect("it is here");
    assert_eq!(log.folded().leaving().len(), 1);
    assert_eq!(log.release(&[2]), Ok(()));
    let log = log.again();
    assert_eq!(log.told.0.last().map(String::as_str), Some("released 1: [2] of 4"));
    assert_eq!((log.folded().leaving().len(), log.folded().away().len()), (0, 4));
}

#[test]
fn more_partitions_come_to_a_part_and_others_are_heard_of() {
    let (mut home, mut part) = apart();
    home.leave("b", &[1, 3]).expect("they are here");
    let kept = home.part();
    part.join(("a", Some("a")), &[1, 3], &kept).expect("they came");
    let mut part = part.again();
    assert_eq!(part.folded().away(), &BTreeMap::from([(0, "a".to_owned())]));
    assert_eq!(part.number(SPLIT, 1), 1);
    part.leave("c", &[0]).expect("it is known to be there");
    assert_eq!(part.folded().away(), &BTreeMap::from([(0, "c".to_owned())]));
    assert_eq!(part.folded().leaving().len(), 0, "it did not leave from here");
    home.leave("c", &[2, 3]).expect("they went on");
    let home = home.again();
    assert_eq!(home.folded().away().values().collect::<Vec<_>>(), ["b", "c", "c"]);
    assert_eq!(home.folded().leaving().len(), 3);
    // A third node knows what the second knew.
    let mut third = Log::default();
    third.join(("b", Some("a")), &[1], &part.part()).expect("it came");
    let away = [(0, "c"), (2, "b"), (3, "b")].map(|(p, node)| (p, node.to_owned()));
    assert_eq!(third.again().folded().away(), &BTreeMap::from(away));
    // It ends as any other.
    let delete = DeleteRecord { pipeline: ONE };
    assert_eq!(part.write(|writer| writer.delete(&delete)), Ok(()));
    assert_eq!(part.fold.keep()[..2], [1, 1]);
}

#[test]
fn a_part_is_not_opened_and_a_stopped_one_takes_nothing() {
    let (home, part) = apart();
    for log in [&home, &part] {
        let mut folded = log.folded().clone();
        folded.readers.values_mut().for_each(|reader| reader.backlog = Default::default());
        let pipelines = BTreeMap::from([(ONE, folded)]);
        let kept = Fold { pipelines, checkpoint: None, last: None }.keep();
        let mut new = Log::default();
        let wrong = new.write(|writer| writer.open(&OpenRecord { pipeline: ONE, kept: &kept }));
        assert_eq!(wrong, Err(Wrong::Opened("only a part of it was there")));
    }
    let mut stopped = home;
    stopped.ingest(9, &[(SPLIT, 0, 0, 1)]).expect_err("there are ingests between");
    let before = stopped.folded().clone();
    assert_eq!(stopped.leave("b", &[1]), Ok(()));
    assert_eq!(stopped.join(("b", None), &[2], &part.part()), Ok(()));
    assert_eq!(stopped.release(&[2]), Ok(()));
    assert_eq!(stopped.folded(), &before);
    assert_eq!(stopped.told.0.iter().filter(|told| told.starts_with("joined")).count(), 0);
    assert_eq!(stopped.fold.keep_part(PipelineId(3)), None);
}

#[test]
fn partitions_that_left_together_may_come_one_after_the_other() {
    let mut home = home();
    assert_eq!(home.leave("b", &[1, 2]), Ok(()));
    let mut part = Log::default();
    assert_eq!(part.join(("a", Some("a")), &[2], &home.part()), Ok(()));
    let at_home: Vec<(u16, &str)> =
        part.folded().away().iter().map(|(at, node)| (*at, node.as_str())).collect();
    assert_eq!(at_home, [(0, "a"), (1, "a"), (3, "a")], "what has not come is where it was");
    assert_eq!(home.release(&[2]), Ok(()));
    assert_eq!(part.join(("a", Some("a")), &[1], &home.part()), Ok(()));
    assert_eq!(home.release(&[1]), Ok(()));
    assert!(part.folded().is_here(1) && part.folded().is_here(2));
}

#[test]
fn what_was_kept_of_a_part_is_checked() {
    let (mut home, part) = apart();
    home.ingest(2, &[(SPLIT, 2, 1, 4)]).expect("events come in");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record-v4/0-kept.bin");
    if std::env::var_os("SLUICEBOX_GOLDEN").is_some_and(|value| value == "new")
        && !std::path::Path::new(file).exists()
    {
        std::fs::write(file, home.fold.keep()).expect("a file of the repository");
    }
    let golden = std::fs::read(file).expect("a file of the repository");
    assert_eq!(home.fold.keep().escape_ascii().to_string(), golden.escape_ascii().to_string());
    for log in [home, part] {
        let kept = log.fold.keep();
        let mut plain = log.fold.clone();
        plain.pipelines.get_mut(&ONE).expect("it is there").parts = Default::default();
        let plain = plain.keep().len();
        for length in plain + 1..kept.len() {
            assert!(Fold::from_kept(&kept[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..kept.len() * 8 {
            let mut flipped = kept.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(fold) = Fold::from_kept(&flipped) {
                assert_eq!(Fold::from_kept(&fold.keep()), Ok(fold));
            }
        }
        let cases: [&[u8]; 5] = [
            &[24, 6, 1, 0, 1, 4, 1, b'b'],
            &[24, 5, 1, 0, 1, 1, 0],
            &[24, 5, 1, 0, 0, 1, 2],
            &[24, 4, 2, 0, 0, 0],
            &[24, 3, 1, 0, 0],
        ];
        for case in cases {
            assert!(Fold::from_kept(&[&kept, case].concat()).is_err(), "{case:?}");
        }
        assert!(Fold::from_kept(&[&kept[..], &[24, 5, 1, 0, 0, 0, 0]].concat()).is_ok());
    }
}
