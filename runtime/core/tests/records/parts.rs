//! Partitions that go from node to node: what the one writes, and what the other.

use proptest::prelude::*;
use sluicebox_core::codec::{JoinRecord, LeaveRecord, ReleaseRecord, kind};

use super::*;

fn leave() -> LeaveRecord {
    let to = "press-2.halle.example".to_owned();
    LeaveRecord { pipeline: PipelineId(300), to, partitions: vec![0, 2, 3] }
}

fn join(kept: &[u8]) -> JoinRecord<'_> {
    let (from, home) = ("press-1".to_owned(), Some("press-0".to_owned()));
    JoinRecord { pipeline: PipelineId(300), from, home, partitions: vec![2], kept }
}

fn release() -> ReleaseRecord {
    ReleaseRecord { pipeline: PipelineId(300), partitions: vec![1, 1023] }
}

/// The kinds that came with format 4, by the names of their files.
pub(super) fn samples() -> Vec<(&'static str, (u8, Bytes))> {
    let pipeline = PipelineId(300);
    let (kind, body) = written(|writer| writer.apply(&apply()));
    let kept = moves::folded(77, (kind, &body)).0.keep_part(pipeline).expect("it was applied");
    let back = JoinRecord { home: None, ..join(&kept) };
    vec![
        ("8-leave", written(|writer| writer.leave(&leave()))),
        ("9-join", written(|writer| writer.join(&join(&kept)))),
        ("9-join-at-home", written(|writer| writer.join(&back))),
        ("10-release", written(|writer| writer.release(&release()))),
    ]
}

#[test]
fn only_records_of_parts_need_a_reader_of_format_4() {
    assert!(moves::samples().into_iter().all(|(_, (_, body))| body[..2] == [3, 3]));
    assert!(samples().into_iter().all(|(_, (_, body))| body[..2] == [4, 4]));
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
        let join = JoinRecord { pipeline, from: to, home, partitions, kept: &kept };
        let (kind, body) = written(|writer| writer.join(&join));
        prop_assert_eq!(decode(kind, &body), Ok(Record::Join(join)));
    }
}
