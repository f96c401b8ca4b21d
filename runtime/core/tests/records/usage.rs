//! Records of what was used: by stage in a commit, and of what no commit has.

use sluicebox_core::bill::{Item, Used};
use sluicebox_core::codec::{UsageLine, UsageRecord};

use super::*;

/// A commit of three stages, of which one used nothing, and a record of what was measured.
pub(super) fn samples() -> Vec<(&'static str, (u8, Bytes))> {
    let record = written(|writer| writer.usage(&measured()));
    vec![("2-commit-by-stage", by_stage(&OTHERS)), ("11-usage", record)]
}

/// What stages used that are not the root.
const OTHERS: [(StageId, Usage); 2] = [
    (StageId(2), Usage { fuel: 1000, events: 5, reruns: 1 }),
    (StageId(9), Usage { fuel: 1, events: 300, reruns: 0 }),
];

const WHOLE: Usage = Usage { fuel: 1 << 40, events: 3, reruns: 2 };

fn by_stage(others: &[(StageId, Usage)]) -> (u8, Bytes) {
    written(|writer| {
        let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        writer.commit(&HEAD, &Batch::default()).finish(&sent, &WHOLE);
        writer.by_stage(others);
        writer.event_time(1_700_000_000_000_000);
    })
}

fn measured() -> UsageRecord {
    let used = Item::ALL.into_iter().enumerate();
    let used = used.fold(Used::default(), |used, (at, item)| used.and(item, 1 << (at * 4)));
    let line = |pipeline: Option<&str>, stage: Option<&str>, used| UsageLine {
        tenant: name("acme"),
        pipeline: pipeline.map(name),
        stage: stage.map(name),
        used,
    };
    let lines = vec![
        line(None, None, Used::of(Item::GpuMemory, u64::MAX)),
        line(Some("orders"), None, Used::of(Item::Disk, 7)),
        line(Some("orders"), Some("count"), used),
    ];
    UsageRecord { time: 1_700_000_000_000_000, lines }
}

#[test]
fn what_stages_used_is_what_the_commit_did() {
    let (kind, body) = by_stage(&OTHERS);
    let Record::Commit(read) = decode(kind, &body).unwrap() else { panic!("a commit") };
    assert_eq!((read.usage, &read.by_stage[..]), (WHOLE, &OTHERS[..]));
    let root = Usage { fuel: (1 << 40) - 1001, events: 3, reruns: 1 };
    let used: Vec<_> = read.used().collect();
    assert_eq!(used, [(HEAD.stage, root), OTHERS[0], OTHERS[1]]);
    let fuel: u64 = used.iter().map(|(_, used)| used.fuel).sum();
    assert_eq!(fuel, WHOLE.fuel);
}

/// Records of before have no such part: the root used it all.
#[test]
fn a_commit_of_before_is_its_roots() {
    for format in [1, 2] {
        let old = std::fs::read(golden(format).join("2-commit.bin")).unwrap();
        let Record::Commit(read) = decode(2, &old).unwrap() else { panic!("a commit") };
        assert_eq!(read.used().collect::<Vec<_>>(), [(HEAD.stage, USAGE)]);
    }
}

#[test]
fn stages_that_used_more_than_their_commit_are_refused() {
    let other = |stage, fuel, reruns| (StageId(stage), Usage { fuel, events: 0, reruns });
    let wrong: [&[(StageId, Usage)]; 5] = [
        &[other(2, (1 << 40) + 1, 0)],
        &[other(2, 1, 3)],
        &[other(2, u64::MAX, 0), other(3, 1, 0)],
        &[other(3, 1, 0), other(2, 1, 0)],
        &[other(HEAD.stage.0, 1, 0)],
    ];
    for others in wrong {
        let (kind, body) = by_stage(others);
        let refused = decode(kind, &body).unwrap_err().to_string();
        assert!(refused.contains("what stages used"), "{refused}");
    }
}

#[test]
fn what_was_measured_reads_back() {
    let (kind, body) = written(|writer| writer.usage(&measured()));
    assert_eq!(decode(kind, &body), Ok(Record::Usage(measured())));
}
