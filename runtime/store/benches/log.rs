//! What the log costs: `cargo bench -p sluicebox-store --bench log [-- SECTION...]`.
//!
//! Sections: `append`, `answer`, `recover`, `restart`; all of them without an argument. Files are
//! made below the system's temporary folder; set `TMPDIR` to measure another disk.
//!
//! - Processor time is that of the appending thread, and that of the whole process, which adds the
//!   writer. It is what can be compared; records a second show the disk of the moment.
//! - Every record is counted and its first bytes are checked when it is read back.
//!
//! Targets: recovery of small records at 3 M/s or more, on one core; an opening after little was
//! written within 5 ms of processor time, however long the file is.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};
use sluicebox_store::log::{Class, Config, DurableLog, Log, Position, Record, Refusal};
use tempfile::TempDir;

const SECTIONS: [(&str, fn()); 4] =
    [("append", append), ("answer", answer), ("recover", recover), ("restart", restart)];

#[expect(clippy::disallowed_methods, reason = "a wrong argument ends the program")]
fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Some(name) = wanted.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != name)) {
        println!("there is no section `{name}`; there are append, answer, recover and restart");
        std::process::exit(2);
    }
    for (name, run) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}

/// Seconds of processor time.
fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn open(dir: &TempDir, visit: &mut dyn FnMut(Record<'_>)) -> DurableLog {
    DurableLog::open(dir.path(), Config::default(), Position(0), &mut |record| {
        visit(record);
        ControlFlow::Continue(())
    })
    .expect("a directory of our own")
}

/// Appends records of one size as fast as they are taken. Gives back the last position.
fn append_all(log: &DurableLog, count: u64, body: &mut [u8]) -> Position {
    let mut last = Position(0);
    for number in 0..count {
        body[..8].copy_from_slice(&number.to_le_bytes());
        last = loop {
            let before = log.synced();
            match log.append(Class::Ingest, 1, &[body]) {
                Ok(position) => break position,
                Err(Refusal::Busy) => log.wait_synced(before).expect("the disk works"),
                Err(refusal) => panic!("{refusal:?}"),
            }
        };
    }
    last
}

/// One thread appends, the log's writer writes.
fn append() {
    for (bytes, count) in [(100, 2_000_000), (1024, 300_000), (32 << 10, 12_000)] {
        let dir = TempDir::new().expect("a temporary folder");
        let log = open(&dir, &mut |_| panic!("it is empty"));
        let mut body = vec![7; bytes];
        // Once to make the files and the buffers, then measured.
        let warm = append_all(&log, count / 10, &mut body);
        log.wait_synced(warm).expect("the disk works");
        log.trim(log.synced()).expect("the disk works");
        let (figures, wall) = (log.status().figures, Instant::now());
        let (thread, process) = (cpu(ClockId::ThreadCPUTime), cpu(ClockId::ProcessCPUTime));
        let last = append_all(&log, count, &mut body);
        let thread = cpu(ClockId::ThreadCPUTime) - thread;
        log.wait_synced(last).expect("the disk works");
        let (wall, process) = (wall.elapsed(), cpu(ClockId::ProcessCPUTime) - process);
        let now = log.status().figures;
        let syncs = now.syncs - figures.syncs;
        let written = now.bytes_written - figures.bytes_written;
        let per = |seconds: f64| seconds * 1e9 / count as f64;
        println!(
            "append {bytes:>5} B: {:>9.0}/s, {:>6.0} MB/s; CPU a record {:>6.0} ns appending, \
             {:>6.0} ns in all; {:>6.0} syncs/s, {:>7.1} records and {:>8.0} bytes a group, \
             mean {:.2} ms, longest {:.1} ms; {:.3} bytes written for 1",
            count as f64 / wall.as_secs_f64(),
            written as f64 / wall.as_secs_f64() / 1e6,
            per(thread),
            per(process),
            syncs as f64 / wall.as_secs_f64(),
            count as f64 / syncs as f64,
            written as f64 / syncs as f64,
            (now.sync_time - figures.sync_time).as_secs_f64() * 1e3 / syncs as f64,
            now.sync_time_max.as_secs_f64() * 1e3,
            written as f64 / (count * bytes as u64) as f64,
        );
    }
}

/// Threads append one record each and wait until it is on disk, again and again.
fn answer() {
    const EACH: usize = 2_000;
    for threads in [1, 4, 16, 64] {
        let dir = TempDir::new().expect("a temporary folder");
        let log = open(&dir, &mut |_| panic!("it is empty"));
        let process = cpu(ClockId::ProcessCPUTime);
        let wall = Instant::now();
        let one = |log: &DurableLog| {
            let started = Instant::now();
            let position = log.append(Class::Ingest, 1, &[&[7; 100]]).expect("there is room");
            log.wait_synced(position).expect("the disk works");
            started.elapsed().as_secs_f64() * 1e3
        };
        let mut times: Vec<f64> = thread::scope(|scope| {
            let many = || (0..EACH).map(|_| one(&log)).collect::<Vec<f64>>();
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(many)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        let (wall, process) = (wall.elapsed(), cpu(ClockId::ProcessCPUTime) - process);
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let syncs = log.status().figures.syncs;
        println!(
            "answer, {threads:>2} threads: {:>6.0}/s, {:>6.0} syncs/s, p50 {:.2} ms, p99 {:.2} ms, \
             CPU {:.1} us each",
            times.len() as f64 / wall.as_secs_f64(),
            syncs as f64 / wall.as_secs_f64(),
            at(0.5),
            at(0.99),
            process * 1e6 / times.len() as f64,
        );
    }
}

/// Reads a log back, as an opening does and as a reader does.
fn recover() {
    for (bytes, count) in [(100, 3_000_000), (32 << 10, 8_000)] {
        let dir = TempDir::new().expect("a temporary folder");
        let log = open(&dir, &mut |_| panic!("it is empty"));
        append_all(&log, count, &mut vec![7; bytes]);
        log.close().expect("the disk works");
        drop(log);
        for round in 0..3 {
            let (mut next, cpu_before) = (0_u64, cpu(ClockId::ThreadCPUTime));
            let wall = Instant::now();
            let log = open(&dir, &mut |record| {
                assert!(record.body[..8] == next.to_le_bytes(), "another record");
                next += 1;
            });
            let (wall, took) = (wall.elapsed(), cpu(ClockId::ThreadCPUTime) - cpu_before);
            assert_eq!(next, count);
            let (mut read, started) = (0_u64, Instant::now());
            let end = log.read(Position(0), &mut |record| {
                read += u64::from(black_box(record.kind));
                ControlFlow::Continue(())
            });
            black_box(end.expect("it can be read"));
            let reading = started.elapsed();
            assert_eq!(read, count);
            println!(
                "recover {bytes:>5} B, round {round}: {:.2} M records/s, {:.0} MB/s, CPU {:.0} ns a \
                 record (target for small ones: 3 M/s); reading {:.2} M/s",
                count as f64 / wall.as_secs_f64() / 1e6,
                count as f64 * bytes as f64 / wall.as_secs_f64() / 1e6,
                took * 1e9 / count as f64,
                count as f64 / reading.as_secs_f64() / 1e6,
            );
        }
    }
}

/// Opens a log of which the newest file is all but empty, as a process does that rested.
fn restart() {
    const ROUNDS: usize = 20;
    let cases = [
        ("never written before", false, false),
        ("used again and again", true, false),
        ("the system has nothing of it in memory", true, true),
    ];
    for (file, is_trimmed, is_forgotten) in cases {
        let dir = TempDir::new().expect("a temporary folder");
        let mut from = Position(0);
        let (mut walls, mut cpus) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
        // Once to make a file, then measured.
        for round in 0..=ROUNDS {
            if is_forgotten {
                forget(&dir);
            }
            let (wall, before) = (Instant::now(), cpu(ClockId::ThreadCPUTime));
            let log = DurableLog::open(dir.path(), Config::default(), from, &mut |_| {
                ControlFlow::Continue(())
            });
            if round > 0 {
                walls.push(wall.elapsed().as_secs_f64() * 1e3);
                cpus.push((cpu(ClockId::ThreadCPUTime) - before) * 1e3);
            }
            let log = log.expect("a directory of our own");
            from = log.append(Class::Ingest, 1, &[&[7; 100]]).expect("there is room");
            log.wait_synced(from).expect("the disk works");
            if is_trimmed {
                log.trim(from).expect("the disk works");
            }
            log.close().expect("the disk works");
        }
        walls.sort_by(f64::total_cmp);
        cpus.sort_by(f64::total_cmp);
        println!(
            "restart, {} MiB, {file}: p50 {:.1} ms, longest {:.1} ms, three syncs in it; \
             CPU p50 {:.2} ms, longest {:.2} ms (target: 5)",
            Config::default().segment_bytes >> 20,
            walls[ROUNDS / 2],
            walls[ROUNDS - 1],
            cpus[ROUNDS / 2],
            cpus[ROUNDS - 1],
        );
    }
}

/// Asks the system to keep nothing of the files in memory; what is on disk it can drop at once.
fn forget(dir: &TempDir) {
    for entry in std::fs::read_dir(dir.path()).expect("a directory of our own") {
        let file = std::fs::File::open(entry.expect("a name").path()).expect("a file of our own");
        fadvise(&file, 0, None, Advice::DontNeed).expect("it is but asked");
    }
}
