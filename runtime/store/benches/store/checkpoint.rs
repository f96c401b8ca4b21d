//! Checkpoints one after another: how fast, for how much work, and what reaches the disk.

use sluicebox_store::store::{EmbeddedStore, StoreConfig};
use tempfile::TempDir;

use crate::figures::{
    figure, process_seconds, resident_bytes, section, settle, thread_nanos, written_bytes,
};
use crate::load::{AT_ONCE, Numbers, apply, changes};

pub(crate) fn run() {
    section("checkpoints of 1,000,000 keys of 139 bytes, 4 partitions");
    series(1_000_000);
}

pub(crate) fn large() {
    section("checkpoints of 5,000,000 keys of 139 bytes, 4 partitions");
    series(5_000_000);
}

fn series(keys: u64) {
    let folder = TempDir::new().expect("there is a place for temporary files");
    let config = StoreConfig { merge_bytes_per_second: None, ..StoreConfig::default() };
    let store = EmbeddedStore::open(folder.path(), config).expect("the folder is empty");
    let mut horizon = 0;
    let mut numbers = Numbers(3);
    let mut next = |title: &str, count: u64, share: u64| {
        let mut total = Total::default();
        let bytes_before = written_bytes();
        for _ in 0..count {
            horizon += 1;
            let picked = (0..keys / share).map(|at| match share {
                1 => at,
                _ => numbers.next() % keys,
            });
            total.add(&store, horizon, picked);
        }
        settle();
        total.print(title, written_bytes() - bytes_before);
    };
    next("first, all keys", 1, 1);
    next("then 4, all keys changed", 4, 1);
    next("then 20, a tenth changed, random", 20, 10);
    figure("memory in the end", resident_bytes() as f64 / 1e6, "MB");
    figure("on disk for a byte of state", on_disk(folder.path()) / (keys * 139) as f64, "B");
}

#[derive(Default)]
struct Total {
    entries: u64,
    bytes: u64,
    seconds: f64,
    writer: f64,
    process: f64,
}

impl Total {
    fn add(&mut self, store: &EmbeddedStore, horizon: u64, keys: impl Iterator<Item = u64>) {
        let changes = changes(keys, horizon);
        let (thread, process) = (thread_nanos(), process_seconds());
        let written = apply(store, horizon, &changes, AT_ONCE);
        self.writer += (thread_nanos() - thread) / 1e9;
        self.process += process_seconds() - process;
        self.entries += written.entries;
        self.bytes += written.bytes;
        self.seconds += written.took.as_secs_f64();
    }

    fn print(&self, title: &str, on_disk: u64) {
        let entries = self.entries as f64;
        figure(&format!("{title}: entries a second"), entries / self.seconds / 1e3, "k/s");
        figure("    processor time of the writer", self.writer * 1e6 / entries, "us/entry");
        figure("    processor time of all, merging beside it", self.process * 1e6 / entries, "us");
        figure(
            "    to disk for a byte of deduplicated changes",
            on_disk as f64 / self.bytes as f64,
            "B",
        );
    }
}

fn on_disk(folder: &std::path::Path) -> f64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            let metadata = entry.metadata().expect("nothing goes while we look");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
        }
    }
    bytes as f64
}
