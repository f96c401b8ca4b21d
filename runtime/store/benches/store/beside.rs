//! A log beside a checkpoint: what its commits wait for the same disk and processor.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluicebox_store::store::{EmbeddedStore, StoreConfig};
use tempfile::TempDir;

use crate::figures::{figure, quantile, section, settle};
use crate::load::{Speed, apply, changes};

const KEYS: u64 = 1_000_000;
const MEGA: u64 = 1_000_000;
const COMMIT_BYTES: usize = 16 * 1024;
const EVERY: Duration = Duration::from_millis(5);
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn run() {
    section("a log of 200 synced commits of 16 KiB a second beside checkpoints of 1,000,000 keys");
    let folder = TempDir::new().expect("there is a place for temporary files");
    let log = segment(&folder.path().join("segment"));
    let store = EmbeddedStore::open(&folder.path().join("store"), StoreConfig::default())
        .expect("the folder is empty");
    let mut horizon = 0;
    for (piece, rate) in [(8, None), (8, Some(20)), (2, Some(20)), (8, Some(10))] {
        let bytes_per_second = rate.map(|rate| rate * MEGA);
        let speed = Speed { piece_bytes: piece * 1024 * 1024, bytes_per_second };
        horizon += 1;
        let changes = changes(0..KEYS, horizon);
        settle();
        let alone = commits_while(&log, || thread::sleep(Duration::from_secs(4)));
        let beside = commits_while(&log, || {
            apply(&store, horizon, &changes, speed);
        });
        // Nothing settles while the log is written: some time in which merging is done.
        let after = commits_while(&log, || thread::sleep(Duration::from_secs(2)));
        let rate = rate.map_or_else(|| "at once".into(), |rate| format!("{rate} MB/s"));
        print(&format!("pieces of {piece} MiB, {rate}"), alone, beside, after);
    }
}

fn print(title: &str, mut alone: Vec<f64>, mut beside: Vec<f64>, mut after: Vec<f64>) {
    for share in [0.5, 0.99] {
        let [alone, beside, after] =
            [&mut alone, &mut beside, &mut after].map(|samples| quantile(samples, share));
        let title = format!("{title}: p{}", share * 100.0);
        figure(&format!("{title} alone"), alone, "ms");
        figure(&format!("{title} beside"), beside, "ms");
        figure(&format!("{title} while merging after it"), after, "ms");
    }
}

/// A segment as a log has it: all of it written once.
fn segment(path: &Path) -> File {
    let file = File::create(path).expect("the folder is there");
    file.write_all_at(&vec![1; SEGMENT_BYTES], 0).expect("there is room");
    file.sync_all().expect("the disk works");
    file
}

/// Milliseconds from when each commit was due to when it was on disk.
fn commits_while(log: &File, work: impl FnOnce()) -> Vec<f64> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let commits = scope.spawn(|| commit_until(log, &done));
        work();
        done.store(true, Ordering::Relaxed);
        commits.join().expect("commits do not fail")
    })
}

fn commit_until(log: &File, done: &AtomicBool) -> Vec<f64> {
    let record = vec![2; COMMIT_BYTES];
    let mut samples = Vec::new();
    let mut due = Instant::now();
    let mut at = 0;
    while !done.load(Ordering::Relaxed) || samples.is_empty() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        log.write_all_at(&record, at as u64).expect("it was written before");
        log.sync_data().expect("the disk works");
        samples.push(due.elapsed().as_secs_f64() * 1e3);
        due += EVERY;
        at = (at + COMMIT_BYTES) % SEGMENT_BYTES;
    }
    samples
}
