//! From a kill in the middle of a checkpoint to the first read.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sluicebox_store::Store;
use sluicebox_store::store::{EmbeddedStore, StoreConfig};
use tempfile::TempDir;

use crate::figures::{figure, quantile, section};
use crate::load::{AT_ONCE, apply, changes, key_of};

/// Says to this program, started by itself, to write until it is killed.
pub(crate) const CHILD: &str = "reopen-child";
const KEYS: u64 = 5_000_000;
const ROUNDS: usize = 7;

pub(crate) fn run() {
    section("opening a store of 5,000,000 keys after its process was killed writing it");
    let folder = TempDir::new().expect("there is a place for temporary files");
    let store =
        EmbeddedStore::open(folder.path(), StoreConfig::default()).expect("the folder is empty");
    apply(&store, 1, &changes(0..KEYS, 1), AT_ONCE);
    drop(store);
    let mut key = Vec::new();
    let mut opened = Vec::new();
    for round in 0..ROUNDS {
        let program = std::env::current_exe().expect("a running program has a file");
        let mut child = Command::new(program);
        let child = child.arg(CHILD).arg(folder.path()).stdout(Stdio::null());
        let mut child = child.spawn().expect("it ran before");
        thread::sleep(Duration::from_millis(1_500 + 300 * round as u64));
        child.kill().expect("it writes until it is killed");
        child.wait().expect("it was killed");
        let start = Instant::now();
        let store = EmbeddedStore::open(folder.path(), StoreConfig::default());
        let store = store.expect("a kill leaves a store that opens");
        key_of(KEYS / 2, &mut key);
        assert!(store.get(&key).expect("it can be read").is_some());
        opened.push(start.elapsed().as_secs_f64() * 1e3);
        assert!(store.extent().horizon >= 1);
    }
    figure("open and first read: median", quantile(&mut opened, 0.5), "ms");
    figure("    slowest", quantile(&mut opened, 1.0), "ms");
}

/// Checkpoints of a tenth of the keys until the end.
pub(crate) fn child(folder: &Path) {
    let store = EmbeddedStore::open(folder, StoreConfig::default()).expect("it was there");
    for round in 0.. {
        let some = (0..KEYS / 10).map(|at| (at * 10 + round) % KEYS);
        let horizon = store.extent().horizon + 1;
        apply(&store, horizon, &changes(some, round), AT_ONCE);
    }
}
