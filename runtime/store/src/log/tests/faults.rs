//! Disks that fail or are full.

use super::super::sim::Faults;
use super::*;

fn fail_next_sync(disk: &SimDisk) {
    disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
}

#[test]
fn after_a_failed_sync_the_records_are_written_elsewhere() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (log, mut writer, _) = open(&disk).unwrap();
        let before = write(&log, &mut writer, 1, b"before");
        fail_next_sync(&disk);
        let during = write(&log, &mut writer, 2, b"during");
        assert_eq!((log.status().figures.failures, log.status().segments), (1, 2));
        let after = write(&log, &mut writer, 3, b"after");
        let all = [before, during, after];
        assert_eq!(contract::read_from(&log, Position(0)), all);
        drop((log, writer));
        disk.lose_power();
        assert_eq!(open(&disk).unwrap().2, all, "seed {seed}");
    }
}

#[test]
fn what_only_the_cache_of_a_failing_system_has_is_written_again_by_an_opening() {
    // A sync fails, the process ends, the next one can still read the record: then it may only be
    // released if it is on disk by now, which syncing the old file would not achieve.
    let mut found_any = false;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (log, mut writer, _) = open(&disk).unwrap();
        let position = log.append(Class::Commit, 1, &[&[7; 2000]]).unwrap();
        disk.set_faults(Faults { fail_all: true, ..Faults::default() });
        disk.set_faults(Faults {
            power_off_after: Some(2),
            fail_sync_after: Some(0),
            ..Faults::default()
        });
        assert_eq!(writer.step(), Step::Retry);
        assert!(log.synced() <= position);
        drop((log, writer));
        disk.lose_process();
        let (log, _writer, found) = open(&disk).unwrap();
        disk.lose_power();
        if found.is_empty() {
            continue;
        }
        found_any = true;
        assert!(log.synced() > position);
        assert_eq!(open(&disk).unwrap().2, found, "seed {seed}");
    }
    assert!(found_any, "the case did not come up");
}

#[test]
fn a_disk_that_keeps_failing_makes_the_log_fail_and_everybody_is_told() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let before = write(&log, &mut writer, 1, b"before");
    let mut follower = log.subscribe();
    follower.borrow_and_update();
    disk.set_faults(Faults { fail_all: true, ..Faults::default() });
    let lost = log.append(Class::Ingest, 2, &[b"lost"]).unwrap();
    let tries: Vec<_> = (0..5).map(|_| writer.step()).collect();
    assert_eq!(tries[3..], [Step::Retry, Step::Failed]);
    // Nothing helps any more, as nobody knows what is on disk.
    disk.set_faults(Faults::default());
    assert_eq!(writer.step(), Step::Failed);
    assert_eq!(follower.borrow_and_update().health, Health::Failed);
    for class in [Class::Ingest, Class::Commit] {
        assert_eq!(log.append(class, 0, &[]), Err(Refusal::Failed));
    }
    assert!(log.synced() <= lost);
    let error = log.wait_synced(lost).unwrap_err();
    assert!(error.to_string().contains("fails on purpose"), "{error}");
    assert!(matches!(log.close(), Err(Error::Failed { .. })));
    assert_eq!(contract::read_from(&log, Position(0)), [before]);
}

#[test]
fn a_full_disk_refuses_ingest_keeps_commits_and_is_waited_out() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let mut follower = log.subscribe();
    let used = disk.names().len() as u64 * small().segment_bytes;
    disk.set_faults(Faults { capacity: Some(used), ..Faults::default() });
    let mut all = Vec::new();
    let position = loop {
        let position = log.append(Class::Ingest, 1, &[&[1; 2000]]).unwrap();
        all.push((position, 1, vec![1; 2000]));
        if writer.step() == Step::Retry {
            break position;
        }
    };
    assert_eq!(follower.borrow_and_update().health, Health::Full);
    assert_eq!(log.append(Class::Ingest, 2, &[b"new work"]), Err(Refusal::Full));
    while let Ok(position) = log.append(Class::Commit, 3, &[&[3; 900]]) {
        all.push((position, 3, vec![3; 900]));
    }
    assert_eq!(log.append(Class::Commit, 3, &[&[3; 900]]), Err(Refusal::Busy));
    assert!(all.iter().any(|(_, kind, _)| *kind == 3), "the reserve took no commit");
    assert!(log.status().pending_bytes <= small().pending_bytes_max + small().reserve_bytes);
    for _ in 0..20 {
        assert_eq!(writer.step(), Step::Retry, "a full disk is no reason to give up");
    }
    assert!(log.synced() <= position);
    disk.set_faults(Faults::default());
    while writer.step() == Step::Wrote {}
    assert_eq!(follower.borrow_and_update().health, Health::Healthy);
    assert!(contract::read_from(&log, Position(0)) == all);
    log.append(Class::Ingest, 4, &[b"new work"]).unwrap();
}

#[test]
fn a_trim_makes_room_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    let capacity = Some(2 * small().segment_bytes);
    disk.set_faults(Faults { capacity, ..Faults::default() });
    let mut number = 0;
    while log.status().health == Health::Healthy {
        number += 1;
        log.append(Class::Commit, number, &[&[1; 2000]]).unwrap();
        writer.step();
    }
    log.trim(log.synced()).unwrap();
    assert_eq!(writer.step(), Step::Wrote);
    assert_eq!(log.status().health, Health::Healthy);
    log.append(Class::Ingest, 0, &[]).unwrap();
}

#[test]
fn a_thread_that_waits_for_a_full_disk_goes_on_when_there_is_room() {
    let disk = SimDisk::new(1);
    let pause = Duration::from_secs(3600);
    let config = Config { retry_pause: pause, ..small() };
    let log =
        DurableLog::open_on(disk.shared(), config, Position(0), &mut |_| ControlFlow::Continue(()));
    let log = log.unwrap();
    let first = contract::append(&log, 0, &[0; 4000]);
    log.wait_synced(first).unwrap();
    let capacity = Some(2 * small().segment_bytes);
    disk.set_faults(Faults { capacity, ..Faults::default() });
    let mut last = first;
    while let Ok(position) = log.append(Class::Commit, 1, &[&[1; 2000]]) {
        last = position;
        while log.synced() <= last && log.status().health == Health::Healthy {
            std::thread::yield_now();
        }
    }
    assert_eq!(log.status().health, Health::Full);
    // Without the trim it would wait an hour.
    log.trim(log.synced()).unwrap();
    let started = std::time::Instant::now();
    while log.synced() <= last {
        assert!(started.elapsed() < Duration::from_secs(30), "the writer was not woken");
        std::thread::yield_now();
    }
    log.close().unwrap();
}

#[test]
fn closing_on_a_full_disk_ends_and_says_so() {
    let disk = SimDisk::new(1);
    let log =
        DurableLog::open_on(
            disk.shared(),
            small(),
            Position(0),
            &mut |_| ControlFlow::Continue(()),
        );
    let log = log.unwrap();
    disk.set_faults(Faults { capacity: Some(1), fail_write_after: Some(0), ..Faults::default() });
    log.append(Class::Ingest, 1, &[b"x"]).unwrap();
    assert!(matches!(log.close(), Err(Error::Failed { .. })));
}

#[test]
fn a_trim_that_failed_is_made_good_by_the_next() {
    let disk = SimDisk::new(3);
    let all = some_segments(&disk);
    let (log, _writer, _) = open(&disk).unwrap();
    fail_next_sync(&disk);
    assert!(log.trim(all[30].0).is_err());
    log.trim(all[30].0).unwrap();
    disk.lose_power();
    let (.., found) = open_from(&disk, small(), all[30].0).unwrap();
    assert!(found == all[30..]);
}

#[test]
fn a_spare_that_may_still_be_a_segment_on_disk_is_not_written_over() {
    // A trim renames a segment, the process ends before the new name is on disk, and the power goes
    // while the next process uses the file.
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let all = some_segments(&disk);
        let (log, _writer, _) = open(&disk).unwrap();
        fail_next_sync(&disk);
        assert!(log.trim(all[30].0).is_err());
        disk.lose_process();
        let power_off_after = Some(seed as u32 % 8);
        disk.set_faults(Faults { power_off_after, ..Faults::default() });
        let opened = open_from(&disk, small(), all[30].0);
        assert!(opened.is_ok() || disk.faults().power_off_after == Some(0));
        disk.lose_power();
        let (.., found) = open_from(&disk, small(), all[30].0).unwrap();
        assert!(found == all[30..], "seed {seed}");
    }
}
