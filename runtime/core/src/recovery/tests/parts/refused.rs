//! What neither a home nor a part does, and records of partitions that cannot be.

use super::*;

type Case<'c> = (&'c str, &'c dyn Fn(&mut Log) -> Result<(), Wrong>, Wrong);

/// Each is refused, and the pipeline stops as it was.
fn refused(log: impl Fn() -> Log, cases: &[Case<'_>]) {
    for (what, write, wrong) in cases {
        let mut log = log();
        let parts = log.folded().parts.clone();
        let moves = |log: &Log| {
            let told = log.told.0.iter();
            told.filter(|told| told.starts_with("joined") || told.starts_with("released")).count()
        };
        let before = moves(&log);
        assert_eq!(write(&mut log), Err(*wrong), "{what}");
        assert_eq!(log.folded().stopped().map(|stopped| stopped.wrong), Some(*wrong), "{what}");
        assert_eq!((&log.folded().parts, moves(&log)), (&parts, before), "{what}");
        assert!(!wrong.to_string().is_empty());
    }
}

#[test]
fn a_home_refuses_what_only_a_whole_can_do_and_state_of_what_is_away() {
    let rest = of(INGEST, (place(1, 2), place(2, 0)), 1);
    let apply = |log: &mut Log| {
        let record = ApplyRecord { partitions: 4, ..word_count(ONE, 2) };
        log.write(|writer| writer.apply(&record))
    };
    let moves = |log: &mut Log| {
        log.write(|writer| writer.moves(&MoveRecord { pipeline: ONE, to: "c".to_owned() }))
    };
    let unsent = |to| Wrong::Unsent { source_of: words(0), to };
    refused(
        || apart().0,
        &[
            ("a version", &apply, Wrong::Scattered),
            ("a move", &moves, Wrong::Scattered),
            ("what is here and what is not", &|log| log.leave("b", &[1, 2]), Wrong::Away(2)),
            ("beyond the last", &|log| log.leave("b", &[1, 4]), Wrong::Partition(4)),
            ("what did not leave", &|log| log.release(&[1, 2]), Wrong::NotLeaving(1)),
            ("state", &|log| log.commit(at(SPLIT, 2, 2), vec![rest], &NOTHING), Wrong::Away(2)),
            (
                "runs",
                &|log| log.shadow(at(SPLIT, 2, 2), &[rest], &runs(2, &[(0, 1)])),
                Wrong::Away(2),
            ),
            (
                "an offset that was there",
                &|log| {
                    log.shadow(at(COUNT, 2, 1), &[], &counted(5))?;
                    log.shadow(at(COUNT, 2, 2), &[], &counted(6))
                },
                Wrong::Offset { found: 6, next: 7 },
            ),
            (
                "a gap in what is here",
                &|log| log.commit(at(COUNT, 0, 1), vec![], &counted(1)),
                Wrong::Offset { found: 1, next: 0 },
            ),
            (
                "what nobody sent",
                &|log| {
                    let piece = of(words(0), (Place::START, place(2, 0)), 1);
                    log.commit(at(COUNT, 0, 1), vec![piece], &NOTHING)
                },
                unsent(place(2, 0)),
            ),
            (
                "a gap in what another node sent",
                &|log| {
                    let piece = of(words(2), (place(2, 0), place(3, 0)), 1);
                    log.commit(at(COUNT, 0, 1), vec![piece], &NOTHING)
                },
                Wrong::Begin { source_of: words(2), found: place(2, 0), at: Place::START },
            ),
            (
                "less than what it sent when it was here",
                &|log| {
                    let piece = of(words(2), (Place::START, place(2, 0)), 2);
                    log.commit(at(COUNT, 0, 1), vec![piece], &NOTHING)
                },
                Wrong::Events { source_of: words(2), found: 2, sent: 1 },
            ),
            (
                "of another node for another node",
                &|log| {
                    let piece = of(words(2), (Place::START, place(3, 0)), 1);
                    log.shadow(at(COUNT, 2, 1), &[piece], &NOTHING)
                },
                Wrong::Unsent { source_of: words(2), to: place(3, 0) },
            ),
        ],
    );
}

#[test]
fn a_part_takes_in_no_events_and_nothing_it_cannot_have() {
    let rest = of(INGEST, (place(1, 2), place(2, 0)), 1);
    refused(
        || apart().1,
        &[
            ("an ingest", &|log| log.ingest(1, &[(SPLIT, 2, 0, 1)]), Wrong::Part),
            (
                "a version",
                &|log| log.write(|writer| writer.apply(&word_count(ONE, 2))),
                Wrong::Scattered,
            ),
            (
                "a gap in the ingest",
                &|log| {
                    let piece = of(INGEST, (place(2, 0), place(3, 0)), 1);
                    log.commit(at(SPLIT, 2, 2), vec![piece], &NOTHING)
                },
                Wrong::Begin { source_of: INGEST, found: place(2, 0), at: place(1, 2) },
            ),
            (
                "an ingest for what is away",
                &|log| {
                    log.shadow(
                        at(SPLIT, 1, 1),
                        &[of(INGEST, (Place::START, place(2, 0)), 1)],
                        &NOTHING,
                    )
                },
                Wrong::Unsent { source_of: INGEST, to: place(2, 0) },
            ),
            (
                "more than it had sent elsewhere, and nothing here",
                &|log| {
                    let piece = of(words(2), (Place::START, place(3, 0)), 2);
                    log.commit(at(COUNT, 2, 1), vec![piece], &NOTHING)
                },
                Wrong::Unsent { source_of: words(2), to: place(3, 0) },
            ),
            (
                "a gap in what leaves here",
                &|log| log.commit(at(COUNT, 2, 1), vec![], &counted(80)),
                Wrong::Offset { found: 80, next: 0 },
            ),
            (
                "of two logs in one piece",
                &|log| {
                    log.commit(at(SPLIT, 2, 2), vec![rest], &runs(2, &[(2, 1)]))?;
                    let piece = of(words(2), (Place::START, place(3, 0)), 2);
                    log.commit(at(COUNT, 2, 1), vec![piece], &NOTHING)
                },
                Wrong::Events { source_of: words(2), found: 2, sent: 1 },
            ),
        ],
    );
}

#[test]
fn partitions_that_cannot_join_are_refused() {
    let home_of = Some("a");
    let good = apart().0.part();
    let like = |change: fn(&mut ApplyRecord<'_>)| {
        let (mut log, mut record) = (Log::default(), word_count(ONE, 1));
        record.partitions = 4;
        change(&mut record);
        log.write(|writer| writer.apply(&record)).expect("new");
        log.part()
    };
    let named = like(|record| record.name = name("other"));
    let later = like(|record| record.version = 2);
    let fewer = like(|record| record.partitions = 3);
    let unreadable = Wrong::Joined("what was kept of it cannot be read");
    let disagree = Wrong::Joined("the nodes do not agree whether this is its home");
    let number = Wrong::Joined("it has another number of partitions there");
    let mut stopped = home();
    stopped.ingest(9, &[(SPLIT, 0, 0, 1)]).expect_err("there are ingests between");
    let stopped = stopped.part();
    refused(
        || apart().1,
        &[
            ("what is here", &|log| log.join(("a", home_of), &[1, 2], &good), Wrong::Here(2)),
            ("beyond", &|log| log.join(("a", home_of), &[4], &good), Wrong::Partition(4)),
            ("garbage", &|log| log.join(("a", home_of), &[1], b"garbage"), unreadable),
            ("another name", &|log| log.join(("a", home_of), &[1], &named), Wrong::Name),
            (
                "another version",
                &|log| log.join(("a", home_of), &[1], &later),
                Wrong::Version { found: 2, current: 1 },
            ),
            ("fewer", &|log| log.join(("a", home_of), &[1], &fewer), number),
            ("without its home", &|log| log.join(("a", None), &[1], &good), disagree),
            (
                "what stopped",
                &|log| log.join(("a", home_of), &[1], &stopped),
                Wrong::Joined("it had stopped there"),
            ),
        ],
    );
    refused(
        || apart().0,
        &[
            ("it is the home", &|log| log.join(("b", home_of), &[2], &good), disagree),
            ("it never left", &|log| log.join(("b", None), &[1], &good), Wrong::Here(1)),
        ],
    );
    let mut moved = home();
    moved.write(|w| w.moves(&MoveRecord { pipeline: ONE, to: "c".to_owned() })).expect("whole");
    assert_eq!(moved.join(("b", None), &[1], &good), Err(Wrong::Moved));
    assert_eq!(moved.leave("b", &[1]), Err(Wrong::Moved));
    assert_eq!(moved.release(&[1]), Err(Wrong::Moved));

    let mut new = Log::default();
    let homeless = Wrong::Joined("this is its home, and nothing of it is here");
    assert_eq!(new.join(("a", None), &[2], &good), Err(homeless));
    assert_eq!(new.join(("a", home_of), &[2], b""), Err(unreadable));
    assert_eq!(new.join(("a", home_of), &[4], &good), Err(Wrong::Partition(4)));
    let many = Wrong::Joined("what was kept is not of one pipeline");
    assert_eq!(new.join(("a", home_of), &[2], &Fold::new().keep()), Err(many));
    assert_eq!(new.leave("b", &[1]), Err(Wrong::Pipeline));
    assert_eq!(new.release(&[1]), Err(Wrong::Pipeline));
    let record = ApplyRecord { name: name("p1"), ..word_count(PipelineId(2), 1) };
    new.write(|writer| writer.apply(&record)).expect("new");
    assert_eq!(new.join(("a", home_of), &[2], &good), Err(Wrong::Name));
    assert_eq!(new.fold.pipelines().count(), 1);
}

#[test]
fn numbers_that_would_run_over_are_not_gone_on_from() {
    const HIGH: u64 = u64::MAX - 1;
    fn reader(folded: &mut Folded) -> &mut ReaderState {
        folded.readers.entry((SPLIT, 2)).or_default()
    }
    type Lie = (&'static str, fn(&mut Folded));
    let lies: [Lie; 4] = [
        ("an offset", |folded| {
            folded.offsets.insert((COUNTS, 2), HIGH);
        }),
        ("a commit", |folded| reader(folded).number = HIGH),
        ("dead letters", |folded| reader(folded).dead_letters = HIGH),
        ("a place", |folded| {
            reader(folded).positions.advance(INGEST, place(HIGH, 0)).expect("forward");
        }),
    ];
    for (what, lie) in lies {
        let (mut home, part) = apart();
        let mut folded = part.folded().clone();
        lie(&mut folded);
        let pipelines = BTreeMap::from([(ONE, folded)]);
        let fold = Fold { pipelines, checkpoint: None, last: None };
        let kept = fold.keep_part(ONE).expect("it is there");
        let over = Wrong::Joined("a number of it is higher than any that are given out");
        assert_eq!(home.join(("b", None), &[2], &kept), Err(over), "{what}");
    }
}

#[test]
fn what_changed_last_is_of_partitions_that_come() {
    let kept = home().part();
    let bring = |stage, name: &[u8]| {
        let mut writer = RecordWriter::new();
        let mut state = writer.changed();
        state.change(stage, &Change { key: name, slot: b"s", value: Some(b"v") });
        state.end();
        let last = writer.to_bytes();
        let changed = Changed::read(&last).expect("changes");
        let (from, home) = ("a".to_owned(), Some("a".to_owned()));
        let record =
            JoinRecord { pipeline: ONE, from, home, partitions: vec![2], kept: &kept, changed };
        Log::default().write(|writer| writer.join(&record))
    };
    let of = |at| {
        let is_in = move |n: &u32| key::partition_of(key::group_of(&n.to_le_bytes()), 4) == at;
        (0_u32..).find(is_in).expect("there are many").to_le_bytes()
    };
    assert_eq!(bring(COUNT, &of(2)), Ok(()));
    let others = Wrong::Joined("it brings state of other partitions");
    assert_eq!(bring(COUNT, &of(3)), Err(others));
    assert_eq!(bring(StageId(77), &of(2)), Err(Wrong::Stage(StageId(77))));
}
