//! The logs keep the contract, and what the tests of the durable one share.

use std::ops::ControlFlow;
use std::sync::Arc;

use tempfile::TempDir;

use super::contract::{self, Owned, small};
use super::sim::SimDisk;
use super::*;

mod damage;
mod faults;
mod golden;
mod holes;
mod power;
mod real;

/// A stepped log over a simulated disk, opened from its beginning; with what it found.
fn open(disk: &SimDisk) -> Result<(DurableLog, Writer, Vec<Owned>), Error> {
    open_from(disk, small(), Position(0))
}

fn open_from(
    disk: &SimDisk,
    config: Config,
    from: Position,
) -> Result<(DurableLog, Writer, Vec<Owned>), Error> {
    let mut found = Vec::new();
    let (log, writer) = DurableLog::open_stepped(disk.shared(), config, from, &mut |record| {
        found.push((record.position, record.kind, record.body.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok((log, writer, found))
}

/// Appends one record, and brings it to disk in a group of its own.
fn write(log: &DurableLog, writer: &mut Writer, kind: u8, body: &[u8]) -> Owned {
    let position = log.append(Class::Commit, kind, &[body]).unwrap();
    assert_eq!(writer.step(), Step::Wrote);
    assert!(position < log.synced());
    (position, kind, body.to_vec())
}

/// A log with some records in each of some segments, its writer gone without a word.
fn some_segments(disk: &SimDisk) -> Vec<Owned> {
    let (log, mut writer, _) = open(disk).unwrap();
    let all = (0..40).map(|n| write(&log, &mut writer, n, &[n; 1000])).collect();
    assert!(log.status().segments >= 3);
    all
}

/// Files of segments, in order.
fn segment_files(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".log")).collect()
}

#[test]
fn memory_keeps_the_contract() {
    contract::every_promise(&|config| Box::new(MemoryLog::new(config)));
}

#[test]
fn a_log_on_a_disk_keeps_the_contract() {
    contract::every_promise(&|config| {
        let disk = SimDisk::new(1).shared();
        let visit: Visit<'_> = &mut |_| panic!("an empty disk has no record");
        Box::new(DurableLog::open_on(disk, config, Position(0), visit).unwrap())
    });
}

#[test]
fn a_log_in_a_directory_keeps_the_contract() {
    let dir = TempDir::new().unwrap();
    let next = std::cell::Cell::new(0);
    contract::every_promise(&|config| {
        next.set(next.get() + 1);
        let path = dir.path().join(next.get().to_string());
        let visit: Visit<'_> = &mut |_| panic!("an empty directory has no record");
        Box::new(DurableLog::open(&path, config, Position(0), visit).unwrap())
    });
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let refused = |config| {
        let disk = SimDisk::new(1);
        let refused = open_from(&disk, config, Position(0)).map(|_| ()).unwrap_err();
        assert!(matches!(refused, Error::Setting { .. }), "{refused}");
        assert_eq!(disk.names(), [""; 0], "something was written");
    };
    refused(Config { segment_bytes: 4096, ..small() });
    refused(Config { segment_bytes: 10_000, ..small() });
    refused(Config { segment_bytes: 2 << 30, ..Config::default() });
    refused(Config { record_bytes_max: 12 << 10, ..small() });
    refused(Config { tries_max: 0, ..small() });
}

#[test]
fn what_is_written_while_the_log_is_read_is_given_once() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let mut all: Vec<Owned> = (0..3).map(|n| write(&log, &mut writer, n, b"before")).collect();
    let mut found: Vec<Owned> = Vec::new();
    log.read(Position(0), &mut |record| {
        found.push((record.position, record.kind, record.body.to_vec()));
        // Each time the end of what was known is reached, a little more is there.
        if found.len() == all.len() && all.len() < 9 {
            all.push(write(&log, &mut writer, all.len() as u8, b"meanwhile"));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, all);
}

#[test]
fn a_memory_log_forgets_in_a_crash_what_was_not_synced() {
    let log = MemoryLog::default();
    let first = log.append(Class::Ingest, 1, &[b"synced"]).unwrap();
    log.hold();
    let second = log.append(Class::Ingest, 2, &[b"held"]).unwrap();
    let third = log.append(Class::Ingest, 3, &[b"held longer"]).unwrap();
    assert!(log.synced() > first && log.synced() <= second);
    log.sync(third);
    let after = log.after_crash();
    let found = contract::read_from(&after, Position(0));
    let expected = [(first, 1, b"synced".to_vec()), (second, 2, b"held".to_vec())];
    assert_eq!(found, expected);
    assert_eq!(after.append(Class::Ingest, 4, &[]).unwrap(), third, "its place is free again");
    log.release();
    assert!(log.synced() > third);
}

#[test]
fn a_memory_log_can_be_full_and_can_fail() {
    let log = MemoryLog::new(small());
    let mut follower = log.subscribe();
    log.set_full(true);
    assert_eq!(follower.borrow_and_update().health, Health::Full);
    assert_eq!(log.append(Class::Ingest, 0, &[]), Err(Refusal::Full));
    let position = log.append(Class::Commit, 0, &[&[0; 4000]]).unwrap();
    assert!(log.synced() <= position);
    while log.append(Class::Commit, 0, &[&[0; 1000]]).is_ok() {}
    assert_eq!(log.append(Class::Commit, 0, &[&[0; 1000]]), Err(Refusal::Busy));
    log.set_full(false);
    assert!(log.synced() > position);
    log.append(Class::Ingest, 0, &[]).unwrap();
    log.fail("for the test");
    assert_eq!(follower.borrow_and_update().health, Health::Failed);
    assert_eq!(log.append(Class::Commit, 0, &[]), Err(Refusal::Failed));
    let never = log.status().appended;
    assert!(log.wait_synced(never).unwrap_err().to_string().contains("for the test"));
}

#[test]
fn a_restart_without_new_records_takes_no_more_room() {
    let disk = SimDisk::new(1);
    some_segments(&disk);
    open(&disk).unwrap();
    let before = disk.names();
    for _ in 0..5 {
        let (log, mut writer, found) = open(&disk).unwrap();
        assert_eq!(found.len(), 40);
        log.close().unwrap();
        writer.finish();
    }
    assert_eq!(disk.names(), before);
}

#[test]
fn a_recycled_segment_is_used_again() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    for round in 0..200_u8 {
        let (position, ..) = write(&log, &mut writer, round, &[round; 2000]);
        log.trim(position).unwrap();
    }
    // The one that is written, the one before it, and those that wait.
    assert!(disk.names().len() <= 5, "{:?}", disk.names());
    let status = log.status();
    assert!(status.spares <= small().spare_segments && status.segments <= 2, "{status:?}");
    drop((log, writer));
    let oldest = status.oldest;
    let (.., found) = open_from(&disk, small(), oldest).unwrap();
    assert_eq!(found.last().unwrap().1, 199);
    let refused = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Trimmed { oldest: told } if told == oldest), "{refused}");
}

#[test]
fn a_reader_whose_segment_is_recycled_under_it_is_told() {
    // Records so large that the reader has to go back to the file for each.
    const BYTES: usize = 900 << 10;
    let config = Config {
        segment_bytes: 4 << 20,
        record_bytes_max: BYTES,
        pending_bytes_max: 1 << 20,
        ..Config::default()
    };
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open_from(&disk, config, Position(0)).unwrap();
    for n in 0..6 {
        write(&log, &mut writer, n, &vec![n; BYTES]);
    }
    let mut seen = 0;
    let end = log.read(Position(0), &mut |record| {
        seen += 1;
        if seen == 1 {
            log.trim(log.synced()).unwrap();
            for n in 100..108 {
                write(&log, &mut writer, n, &vec![n; BYTES]);
            }
        }
        assert!(record.kind < 100, "a reader was given what is not of its segment");
        ControlFlow::Continue(())
    });
    assert!(matches!(end, Err(Error::Trimmed { .. })), "{end:?}");
    // Every file there is was used, also the one it had open, or this would show nothing.
    assert_eq!(disk.names().len(), segment_files(&disk).len());
    assert_eq!(segment_files(&disk).len(), 3);
}

#[test]
fn an_opening_can_begin_in_the_middle_and_be_stopped() {
    let disk = SimDisk::new(1);
    let all = some_segments(&disk);
    let (.., found) = open_from(&disk, small(), all[25].0).unwrap();
    assert!(found == all[25..]);
    let stop: Visit<'_> = &mut |_| ControlFlow::Break(());
    let refused = DurableLog::open_on(disk.shared(), small(), Position(0), stop).unwrap_err();
    assert!(matches!(refused, Error::Stopped { at } if at == all[0].0), "{refused}");
}

#[test]
fn many_appends_become_one_sync() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let mut follower = log.subscribe();
    let positions: Vec<_> =
        (0..50).map(|n| log.append(Class::Ingest, n, &[&[n; 20]]).unwrap()).collect();
    assert!(!follower.has_changed().unwrap());
    assert_eq!((writer.step(), writer.step()), (Step::Wrote, Step::Idle));
    assert_eq!(log.status().figures.syncs, 1);
    assert!(follower.borrow_and_update().synced > positions[49]);
}

#[test]
fn appending_touches_no_disk() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let calls = disk.calls();
    log.append(Class::Ingest, 1, &[b"x"]).unwrap();
    assert_eq!(disk.calls(), calls);
    writer.step();
    assert!(disk.calls() > calls);
}

#[test]
fn what_waits_is_bounded_and_commits_have_a_reserve() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let taken = |class| (0..100).take_while(|_| log.append(class, 0, &[&[0; 500]]).is_ok()).count();
    let ingest = taken(Class::Ingest);
    assert_eq!(log.append(Class::Ingest, 0, &[&[0; 500]]), Err(Refusal::Busy));
    let commits = taken(Class::Commit);
    assert!(ingest > 5 && commits > 3, "{ingest} and {commits}");
    let most = small().pending_bytes_max + small().reserve_bytes;
    assert!(log.status().pending_bytes <= most);
    assert_eq!(log.append(Class::Commit, 0, &[&[0; 500]]), Err(Refusal::Busy));
    writer.step();
    log.append(Class::Ingest, 0, &[&[0; 500]]).unwrap();
    // One record is taken if nothing waits, whatever the bound is.
    writer.step();
    let config = Config { pending_bytes_max: 0, reserve_bytes: 0, ..small() };
    let (log, _writer, _) = open_from(&SimDisk::new(2), config, Position(0)).unwrap();
    log.append(Class::Ingest, 0, &[&[0; 4000]]).unwrap();
    assert_eq!(log.append(Class::Ingest, 0, &[]), Err(Refusal::Busy));
}

#[test]
fn the_writers_thread_ends_with_the_log() {
    let disk = SimDisk::new(1);
    let shared = disk.shared();
    let log = DurableLog::open_on(Arc::clone(&shared), small(), Position(0), &mut |_| {
        ControlFlow::Continue(())
    });
    log.unwrap().append(Class::Ingest, 3, &[b"dropped, not closed"]).unwrap();
    // The log's own reference is gone, and the record is there.
    assert_eq!(Arc::strong_count(&shared), 1);
    assert_eq!(open(&disk).unwrap().2[0].1, 3);
}
