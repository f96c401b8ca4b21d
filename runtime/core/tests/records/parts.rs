//! Partitions that go from node to node: what the one writes, and what the other.

use proptest::prelude::*;
use sluicebox_core::codec::{Changed, JoinRecord, LeaveRecord, ReleaseRecord, kind, pipeline_of};
use sluicebox_core::ids::Part;
use sluicebox_core::key;

use super::*;

fn leave() -> LeaveRecord {
    let to = "press-2.halle.example".to_owned();
    LeaveRecord { pipeline: PipelineId(300), to, partitions: vec![0, 2, 3] }
}

fn join(kept: &[u8]) -> JoinRecord<'_> {
    let (from, home) = ("press-1".to_owned(), Some("press-0".to_owned()));
    let changed = Changed::default();
    JoinRecord { pipeline: PipelineId(300), from, home, partitions: vec![2], kept, changed }
}

/// What changed last, in bytes.
fn changed(changes: &[(StageId, Change<'_>)]) -> Bytes {
    let mut writer = RecordWriter::new();
    let mut state = writer.changed();
    changes.iter().for_each(|(stage, change)| state.change(*stage, change));
    state.end();
    writer.to_bytes()
}

/// A key of the third of four partitions; a change of it, and one by which a slot is gone.
fn last_changes() -> Bytes {
    let mut keys = (0_u32..).map(|n| n.to_string());
    let third = |name: &String| key::partition_of(key::group_of(name.as_bytes()), 4) == 2;
    let name = keys.find(third).expect("there are many");
    let of = |slot, value| Change { key: name.as_bytes(), slot, value };
    changed(&[
        (StageId(4), of(b"count", Some(&[7; 8]))),
        (StageId(1), of(b"a", None)),
        (StageId(1).part(Part::Timers), of(b"a", Some(b""))),
    ])
}

fn release() -> ReleaseRecord {
    ReleaseRecord { pipeline: PipelineId(300), partitions: vec![1, 1023] }
}

/// The kinds that came with format 4 and later, by the names of their files.
pub(super) fn samples() -> Vec<(&'static str, (u8, Bytes))> {
    let pipeline = PipelineId(300);
    let (kind, body) = written(|writer| writer.apply(&apply()));
    let kept = moves::folded(77, (kind, &body)).0.keep_part(pipeline).expect("it was applied");
    let back = JoinRecord { home: None, ..join(&kept) };
    let last = last_changes();
    let changed = Changed::read(&last).expect("changes");
    let more = JoinRecord { changed, ..join(&kept) };
    vec![
        ("8-leave", written(|writer| writer.leave(&leave()))),
        ("9-join", written(|writer| writer.join(&join(&kept)))),
        ("9-join-at-home", written(|writer| writer.join(&back))),
        ("9-join-with-changes", written(|writer| writer.join(&more))),
        ("10-release", written(|writer| writer.release(&release()))),
    ]
}

#[test]
fn only_records_of_parts_need_a_reader_of_format_4_or_5() {
    assert!(moves::samples().into_iter().all(|(_, (_, body))| body[..2] == [3, 3]));
    for (name, (_, body)) in samples() {
        let format = if name.contains("changes") { 5 } else { 4 };
        assert_eq!(body[..2], [format; 2], "{name}");
    }
}

#[test]
fn what_changed_last_comes_with_the_record() {
    let body: Bytes = std::fs::read(golden(5).join("9-join-with-changes.bin")).unwrap().into();
    let Ok(Record::Join(read)) = decode(kind::JOIN, &body) else { panic!("a join") };
    let all: Vec<_> = read.changed.iter().collect();
    let values = all.iter().map(|(stage, change)| (*stage, change.slot, change.value));
    assert_eq!(
        values.collect::<Vec<_>>(),
        [
            (StageId(4), &b"count"[..], Some(&[7; 8][..])),
            (StageId(1), b"a", None),
            (StageId(1).part(Part::Timers), b"a", Some(b"")),
        ]
    );
    let (fold, _) = moves::folded(5, (kind::JOIN, &body));
    assert!(fold.pipeline(PipelineId(300)).is_some_and(|found| found.stopped().is_none()));
    assert_eq!(pipeline_of(kind::JOIN, &body), Some(PipelineId(300)));
}

#[test]
fn changes_by_themselves_are_checked_to_their_end() {
    let last = last_changes();
    assert_eq!(Changed::read(&last).expect("changes").bytes(), last);
    assert_eq!(Changed::read(b"").expect("none").iter().count(), 0);
    for length in 1..last.len() {
        assert!(Changed::read(&last[..length]).is_err(), "cut to {length}");
    }
    assert!(Changed::read(&[&last[..], &[0]].concat()).is_err(), "there is something behind");
}

#[test]
fn a_part_that_joined_once_can_join_for_ever() {
    let body = std::fs::read(golden(4).join("9-join.bin")).unwrap().into();
    let (fold, _) = moves::folded(5, (kind::JOIN, &body));
    let found = fold.pipeline(PipelineId(300)).expect("it joined");
    assert_eq!(
        (found.name(), found.version(), found.home()),
        (&name("word-count"), 2, Some("press-0"))
    );
    assert_eq!([0, 1, 2, 3].map(|partition| found.is_here(partition)), [false, false, true, false]);
}

#[test]
fn partitions_are_in_order_and_at_least_one() {
    let body = |partitions: &[u8]| [&[4, 4, 1, partitions.len() as u8], partitions].concat();
    let read = |partitions: &[u8]| decode(kind::RELEASE, &body(partitions)).map(|_| ());
    assert_eq!((read(&[0]), read(&[0, 1, 7])), (Ok(()), Ok(())));
    for bad in [&[][..], &[1, 1], &[2, 1], &[0, 5, 4]] {
        let error = read(bad).expect_err("no list of partitions").to_string();
        assert!(error.contains("the partitions cannot be this"), "{bad:?}: {error}");
    }
    let beyond = decode(kind::RELEASE, &[4, 4, 1, 1, 0x80, 0x08]).expect_err("1024 is too many");
    assert!(beyond.to_string().contains("a partition"));
}

#[test]
fn only_a_home_may_be_without_name() {
    let nameless = [4, 4, 1, 0, 1, 1];
    assert!(decode(kind::LEAVE, &nameless).unwrap_err().to_string().contains("go to"));
    let nameless = [4, 4, 1, 0, 0, 1, 1, 0];
    assert!(decode(kind::JOIN, &nameless).unwrap_err().to_string().contains("came from"));
    let body = [4, 4, 1, 1, b'a', 0, 1, 1, 0];
    let Ok(Record::Join(read)) = decode(kind::JOIN, &body) else { panic!("a join") };
    assert_eq!((read.from.as_str(), read.home, read.kept), ("a", None, &[][..]));
}

proptest! {
    #[test]
    fn records_of_parts_read_back(
        (pipeline, to, home) in (any::<u64>(), "[a-z.-]{1,253}", "[a-z.-]{0,253}"),
        partitions in prop::collection::btree_set(0_u16..1024, 1..1024),
        kept in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let pipeline = PipelineId(pipeline);
        let partitions: Vec<u16> = partitions.into_iter().collect();
        let home = (!home.is_empty()).then_some(home);
        let leave = LeaveRecord { pipeline, to: to.clone(), partitions: partitions.clone() };
        let (kind, body) = written(|writer| writer.leave(&leave));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Leave(leave)));
        let (partitions, release) = (partitions.clone(), ReleaseRecord { pipeline, partitions });
        let (kind, body) = written(|writer| writer.release(&release));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Release(release)));
        let changed = Changed::default();
        let join = JoinRecord { pipeline, from: to, home, partitions, kept: &kept, changed };
        let (kind, body) = written(|writer| writer.join(&join));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Join(join.clone())));
        let last = last_changes();
        let join = JoinRecord { changed: Changed::read(&last).expect("changes"), ..join };
        let (kind, body) = written(|writer| writer.join(&join));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Join(join)));
    }
}
