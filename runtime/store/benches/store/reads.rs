//! Reads of single keys: in the cache, past it, and of keys that are not there.

use std::time::Instant;

use sluicebox_store::Store;
use sluicebox_store::store::{EmbeddedStore, PageLimit, StoreConfig};
use tempfile::TempDir;

use crate::figures::{figure, quantile, section, settle};
use crate::load::{AT_ONCE, Numbers, apply, changes, key_of};

const KEYS: u64 = 1_000_000;
const READS: usize = 100_000;

pub(crate) fn run() {
    section("reads of 1,000,000 keys of 139 bytes, by the clock, after 6 checkpoints");
    let folder = TempDir::new().expect("there is a place for temporary files");
    let open = |cache_bytes| {
        let config = StoreConfig { cache_bytes, ..StoreConfig::default() };
        EmbeddedStore::open(folder.path(), config).expect("it can be opened")
    };
    let store = open(1 << 30);
    apply(&store, 1, &changes(0..KEYS, 1), AT_ONCE);
    let mut numbers = Numbers(5);
    for horizon in 2..7 {
        let some = (0..KEYS / 10).map(|_| numbers.next() % KEYS);
        apply(&store, horizon, &changes(some, horizon), AT_ONCE);
    }
    settle();
    read(&store, "warming", 0..KEYS, true);
    read(&store, "block in the store's cache", 0..KEYS, true);
    read(&store, "key that is not there", KEYS..2 * KEYS, false);
    store.close();
    let store = open(4 << 20);
    read(&store, "cache of 3 % of the state, file in the system's cache", 0..KEYS, true);
    read(&store, "key that is not there, the same", KEYS..2 * KEYS, false);
    scan(&store);
}

fn read(store: &dyn Store, title: &str, keys: std::ops::Range<u64>, there: bool) {
    let mut numbers = Numbers(11);
    let mut key = Vec::new();
    let mut sample = || {
        key_of(keys.start + numbers.next() % (keys.end - keys.start), &mut key);
        let start = Instant::now();
        let value = store.get(&key).expect("it can be read");
        let took = start.elapsed().as_nanos() as f64 / 1e3;
        assert_eq!(value.is_some(), there);
        took
    };
    let mut samples: Vec<f64> = (0..READS).map(|_| sample()).collect();
    figure(&format!("{title}: p50"), quantile(&mut samples, 0.5), "us");
    figure("    p99", quantile(&mut samples, 0.99), "us");
}

fn scan(store: &dyn Store) {
    let limit = PageLimit { entries: 1_000, bytes: 1 << 20 };
    let start = Instant::now();
    let (mut from, mut count) = (Vec::new(), 0);
    loop {
        let page = store.scan(b"", &from, limit).expect("it can be scanned");
        count += page.entries.len();
        let Some(next) = page.next else { break };
        from = next.to_vec();
    }
    assert_eq!(count as u64, KEYS);
    let nanos = start.elapsed().as_nanos() as f64;
    figure("scan in pages of 1,000", nanos / count as f64, "ns/entry");
}
