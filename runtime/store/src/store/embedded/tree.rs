//! The tree under the store: the only file that knows which one it is.
//!
//! - Entries come in as finished tables (the tree calls that ingestion): each is written once, in
//!   key order, checked by sums, brought to disk, and then made part of the tree in one step.
//! - Tables are merged by one thread of the tree's own. A writer waits when merging lags.
//! - Filters say cheaply that a key is not in a table.
//! - A tree is set up in a folder of its own and renamed into place, since a crash while the tree
//!   makes its files leaves what it cannot open again.
//!
//! Errors of the tree become ours here, and a panic while it reads damaged files becomes damage.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::compaction::filter::Factory;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use fjall::{LsmError, PersistMode, Slice};

use crate::dir::Place;
use crate::error::Error;
use crate::priority::{Stretches, give_way};
use crate::store::embedded::merging::Paced;
use crate::store::embedded::{Compression, StoreConfig};
use crate::store::{Change, Measured, Page, PageLimit, end_of};

/// What the format document calls the tree: its name and the version of its files.
pub(super) const NAME: &[u8] = b"fjall 3";

const FOLDER: &str = "tree";
const MAKING: &str = "making";
const ENTRIES: &str = "entries";
/// The tree's parts: what it keeps for itself, and the entries.
const PARTS: usize = 2;

/// The tree refuses less. Nothing is written to its journal.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Tables written by merging.
const TABLE_BYTES: u64 = 16 * 1024 * 1024;
/// Tables that wait before they are merged: more spare writing, and cost reading.
const TABLES_WAITING: u8 = 32;
/// Tables over one another before a writer waits for merging, and how long it does at most.
const RUNS_MAX: usize = 48;
const WAIT_MAX: Duration = Duration::from_secs(10);
/// One key in so many that are not in a table is looked for in vain.
const FALSE_POSITIVES: f32 = 0.001;

/// An open tree; closed, its thread included, when dropped.
pub(super) struct Tree {
    database: Database,
    entries: Keyspace,
    /// The store's directory, for messages.
    path: PathBuf,
}

impl Tree {
    /// Opens the tree in the store's directory, which must have been made.
    pub(super) fn open(path: &Path, config: StoreConfig) -> Result<Self, Error> {
        let folder = path.join(FOLDER);
        check_parts(path, &folder)?;
        open_at(path, &folder, config)
    }

    /// True if the tree's work in the background has ended with an error.
    pub(super) fn is_stopped(&self) -> bool {
        // Nothing is in the journal; this asks whether the tree would take anything.
        self.database.persist(PersistMode::Buffer).is_err()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.entries.get(key).map_err(|e| self.error("read an entry", e))?;
        // Copied: a part of a block would keep the whole block in memory.
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        mut limit: PageLimit,
    ) -> Result<Page, Error> {
        let mut page = Page::default();
        for entry in self.range(prefix, from) {
            let (key, value) = entry.into_inner().map_err(|e| self.error("scan", e))?;
            if !page.take(&key, &value, &mut limit) {
                break;
            }
        }
        Ok(page)
    }

    /// At most so many keys, in order.
    pub(super) fn keys(
        &self,
        prefix: &[u8],
        from: &[u8],
        keys_max: usize,
    ) -> Result<Vec<Slice>, Error> {
        let keys = self.range(prefix, from).take(keys_max).map(fjall::Guard::key);
        keys.collect::<Result<_, _>>().map_err(|e| self.error("scan", e))
    }

    pub(super) fn measure(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: PageLimit,
    ) -> Result<Measured, Error> {
        let mut measured = Measured::default();
        let mut stretches = Stretches::begin();
        for entry in self.range(prefix, from) {
            stretches.step();
            let (key, value) = entry.into_inner().map_err(|e| self.error("measure", e))?;
            if !measured.take(&key, value.len(), limit) {
                break;
            }
        }
        Ok(measured)
    }

    /// Adds a table of these changes, which ascend.
    pub(super) fn write(&self, changes: &[Change<'_>]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.ingest(changes).map_err(|e| self.error("write a table", e))?;
        self.remove_replaced()?;
        self.wait_for_merging();
        Ok(())
    }

    fn ingest(&self, changes: &[Change<'_>]) -> fjall::Result<()> {
        let mut ingestion = self.entries.start_ingestion()?;
        let mut stretches = Stretches::begin();
        for change in changes {
            stretches.step();
            let key = Slice::new(change.key);
            match change.value {
                Some(value) => ingestion.write(key, Slice::new(value))?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()
    }

    /// Removes tables that merging has replaced and no read still uses. The tree itself does that
    /// only when it merges again, and until then takes twice the room.
    fn remove_replaced(&self) -> Result<(), Error> {
        let watermark = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        let mut versions = self.entries.tree.get_version_history_lock();
        let removed = versions.maintenance(self.entries.path(), watermark);
        removed.map_err(|e| self.error("remove replaced tables", e.into()))
    }

    /// Bounds what a read has to look through. Bounded itself: slow is better than never.
    fn wait_for_merging(&self) {
        let start = Instant::now();
        while self.entries.tree.l0_run_count() > RUNS_MAX
            && start.elapsed() < WAIT_MAX
            && !self.is_stopped()
        {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn range(&self, prefix: &[u8], from: &[u8]) -> fjall::Iter {
        let start = if from > prefix { from } else { prefix };
        // From behind the end there is nothing; the tree wants bounds in their order.
        let end = end_of(prefix).map_or(Bound::Unbounded, |end| {
            Bound::Excluded(if *end < *start { start.to_vec() } else { end })
        });
        self.entries.range((Bound::Included(start.to_vec()), end))
    }

    fn error(&self, doing: &str, error: fjall::Error) -> Error {
        error_at(&self.path, doing, error)
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("path", &self.path).finish_non_exhaustive()
    }
}

/// True if there is a tree in the store's directory.
pub(super) fn is_made(path: &Path) -> bool {
    path.join(FOLDER).is_dir()
}

/// Sets up an empty tree.
pub(super) fn make(path: &Path, config: StoreConfig) -> Result<(), Error> {
    let (making, folder) = (path.join(MAKING), path.join(FOLDER));
    let cannot = |e| Place(path).write_error("set up its folder `tree`", e);
    match fs::remove_dir_all(&making) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(e)),
        _ => {}
    }
    drop(open_at(path, &making, config)?);
    fs::rename(&making, &folder).map_err(cannot)?;
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(cannot)
}

/// Looks for what the tree would take for a beginning if it were missing: without its journal it
/// would number tables anew and take old values for newer ones; a part without its list of tables
/// it would remove.
fn check_parts(path: &Path, folder: &Path) -> Result<(), Error> {
    let damaged = |what: &str| Error::Damaged { path: path.into(), what: what.into() };
    let list = |folder: &Path| -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let cannot = |e| error_at(path, "look into its folder `tree`", fjall::Error::Io(e));
    let is_journal = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "jnl");
    if !list(folder).map_err(cannot)?.iter().any(is_journal) {
        return Err(damaged("the journal in its folder `tree` is gone"));
    }
    let parts = list(&folder.join("keyspaces")).map_err(cannot)?;
    if parts.len() != PARTS || !parts.iter().all(|part| part.join("current").is_file()) {
        return Err(damaged("a list of tables in its folder `tree` is gone"));
    }
    Ok(())
}

fn open_at(path: &Path, folder: &Path, config: StoreConfig) -> Result<Tree, Error> {
    let open = || -> fjall::Result<Tree> {
        let pace = config
            .merge_bytes_per_second
            .map(|bytes_per_second| Arc::new(Paced { bytes_per_second }) as Arc<dyn Factory>);
        let of_part = move |part: &str| pace.clone().filter(|_| part == ENTRIES);
        let database = Database::builder(folder)
            .with_compaction_filter_factories(Arc::new(of_part))
            .cache_size(config.cache_bytes)
            .manual_journal_persist(true)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let entries = database.keyspace(ENTRIES, || options(config))?;
        Ok(Tree { database, entries, path: path.into() })
    };
    // The thread the tree starts for merging inherits the priority of the one it is opened on.
    let behind = || {
        give_way();
        open()
    };
    let opened = thread::scope(|scope| {
        let opening = thread::Builder::new().name("store-open".to_owned());
        opening.spawn_scoped(scope, behind).map(thread::ScopedJoinHandle::join)
    });
    let opened = opened.map_err(|e| Place(path).write_error("start a thread", e))?;
    // The tree asserts what it believes of its files; what it held is dropped on the way.
    match opened {
        Ok(opened) => opened.map_err(|e| error_at(path, "open its folder `tree`", e)),
        Err(_) => {
            let what = "the files in its folder `tree` contradict one another".into();
            Err(Error::Damaged { path: path.into(), what })
        }
    }
}

fn options(config: StoreConfig) -> KeyspaceCreateOptions {
    let compression = match config.compression {
        Compression::None => CompressionType::None,
        Compression::Lz4 => CompressionType::Lz4,
    };
    let merging = fjall::compaction::Leveled::default()
        .with_l0_threshold(TABLES_WAITING)
        .with_table_target_size(TABLE_BYTES);
    let filter =
        FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(FALSE_POSITIVES));
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(compression))
        .filter_policy(FilterPolicy::all(filter))
        .compaction_strategy(Arc::new(merging))
        .manual_journal_persist(true)
}

fn error_at(path: &Path, doing: &str, error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) => {
            // What the files say or lack is damage, not a refusal of the system.
            if is_damage(source.kind()) {
                let what = format!("cannot {doing}: {source}");
                return Error::Damaged { path: path.into(), what };
            }
            Place(path).write_error(doing, source)
        }
        fjall::Error::Locked => Error::Locked { path: path.into() },
        fjall::Error::Poisoned => Error::Poisoned { path: path.into() },
        other => Error::Damaged { path: path.into(), what: format!("cannot {doing}: {other}") },
    }
}

fn is_damage(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(kind, AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof)
}
