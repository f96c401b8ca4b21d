//! The store in a directory, on an embedded log-structured tree.
//!
//! ```text
//! <directory>/lock, tmp/            as `dir` has them
//! <directory>/documents/format_doc  which layout this is, and which tree
//! <directory>/documents/extent_doc  horizon, reach, metadata: `extent` draws it
//! <directory>/tree/                 the entries, as the tree keeps them
//! <directory>/making/               a tree being set up; left over only by a crash
//! ```
//!
//! Keeps true: a piece is one table, written in key order straight to where it stays and on disk
//! when the call returns; the extent is replaced after the last piece, so it never speaks of what
//! is not there. The tree's own journal holds nothing, so opening replays nothing.
//!
//! A write that fails may leave half a table behind, and the tree may have stopped its work in
//! the background: the tree is opened anew, which removes the one and starts the other. Until
//! that succeeds every call tries it again.
//!
//! Leaves to others: which entries there are (`keys`), how large pieces are and how fast they
//! come (`checkpoint`).

mod merging;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::dir::DirCatalog;
use crate::error::Error;
use crate::key::Key;
use crate::store::extent::Record;
use crate::store::{Change, Checkpoint, Extent, Measured, Page, PageLimit, Store, check_piece};
use tree::Tree;

/// The layout written, and the newest one read. Since 2 frames in entries may be compact, which is
/// the business of those who write them; here nothing else changed.
pub const LAYOUT: u16 = 2;

/// Keys deleted at once.
const DELETE_KEYS: usize = 64 * 1024;

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes of blocks kept in memory.
    pub cache_bytes: u64,
    /// How values are packed on disk. Fixed when the store is made.
    pub compression: Compression,
    /// Keys and values merged in a second; `None` is as fast as can be. A pace far below that of
    /// checkpoints makes them wait.
    pub merge_bytes_per_second: Option<u64>,
}

/// How values are packed on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// By LZ4: fewer bytes to disk for some more work.
    Lz4,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            compression: Compression::Lz4,
            // A quarter of what a plain disk writes.
            merge_bytes_per_second: Some(40_000_000),
        }
    }
}

/// Entries in a directory that nobody else uses.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    config: StoreConfig,
    open: RwLock<Open>,
    record: RwLock<Record>,
    /// Held by the one checkpoint that is being written.
    writing: Mutex<()>,
}

/// What ends with `close`.
#[derive(Debug)]
struct Open {
    /// `None` after a failed write, until it could be opened again.
    tree: Option<Tree>,
    /// `None` when closed. Holds the lock of the directory.
    catalog: Option<DirCatalog>,
}

impl EmbeddedStore {
    /// Opens the directory, makes it if there is none, and takes it for this process.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotPrivate`], [`Error::ReadOnly`], [`Error::Full`];
    /// [`Error::FormatNewer`] if a later version made it; [`Error::Damaged`].
    pub fn open(path: &Path, config: StoreConfig) -> Result<Self, Error> {
        let catalog = DirCatalog::open(path)?;
        let known = check_format(&catalog)?;
        let record = match catalog.get(&extent_key())? {
            None => Record::default(),
            Some(bytes) => Record::decode(&bytes).ok_or_else(|| Error::Corrupt {
                key: extent_key(),
                what: "it is no extent of a store",
            })?,
        };
        if !tree::is_made(path) {
            if known.is_some() {
                let what = "its folder `tree` is gone".into();
                return Err(Error::Damaged { path: path.into(), what });
            }
            tree::make(path, config)?;
        }
        // What is written from now on older readers do not understand.
        if known.is_none_or(|layout| layout < LAYOUT) {
            catalog.replace(&format_key(), &format())?;
        }
        let tree = Some(Tree::open(path, config)?);
        Ok(Self {
            path: path.into(),
            config,
            open: RwLock::new(Open { tree, catalog: Some(catalog) }),
            record: RwLock::new(record),
            writing: Mutex::new(()),
        })
    }

    /// A panic elsewhere leaves the tree open or absent, and both are fine.
    fn read_open(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_open(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record is replaced at once, so a panic cannot leave half of it.
    fn read_record(&self) -> RwLockReadGuard<'_, Record> {
        self.record.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the tree, opening it again if it was lost.
    fn with_tree<R>(&self, work: impl Fn(&Tree) -> Result<R, Error>) -> Result<R, Error> {
        loop {
            let open = self.read_open();
            match (&open.catalog, &open.tree) {
                (None, _) => return Err(Error::Closed),
                (_, Some(tree)) => return work(tree),
                _ => {}
            }
            drop(open);
            self.reopen(false)?;
        }
    }

    /// Opens the tree if there is none, or if `anew` in any case.
    fn reopen(&self, anew: bool) -> Result<(), Error> {
        let mut open = self.write_open();
        if open.catalog.is_none() {
            return Err(Error::Closed);
        }
        if anew {
            open.tree = None;
        }
        if open.tree.is_none() {
            open.tree = Some(Tree::open(&self.path, self.config)?);
        }
        Ok(())
    }

    /// Runs a change of the tree; one that fails loses it.
    fn change_tree<R>(&self, work: impl Fn(&Tree) -> Result<R, Error>) -> Result<R, Error> {
        self.with_tree(work).inspect_err(|_| {
            // If it cannot be opened now the next call says why.
            self.reopen(true).ok();
        })
    }

    fn keep(&self, record: Record) -> Result<(), Error> {
        let open = self.read_open();
        let catalog = open.catalog.as_ref().ok_or(Error::Closed)?;
        catalog.replace(&extent_key(), &record.encode())?;
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }
}

impl Store for EmbeddedStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.with_tree(|tree| tree.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, Error> {
        self.with_tree(|tree| tree.scan(prefix, from, limit))
    }

    fn measure(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Measured, Error> {
        self.with_tree(|tree| tree.measure(prefix, from, limit))
    }

    fn extent(&self) -> Extent {
        self.read_record().extent
    }

    fn metadata(&self, name: &str) -> Option<Bytes> {
        self.read_record().metadata.get(name).cloned()
    }

    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.with_tree(|tree| Ok(tree.is_stopped()))? {
            self.reopen(true)?;
        }
        let mut record = self.read_record().clone();
        let stored = record.extent.horizon;
        if horizon < stored {
            return Err(Error::HorizonBehind { horizon, stored });
        }
        if horizon > record.extent.reach {
            record.extent.reach = horizon;
            self.keep(record)?;
        }
        Ok(Box::new(Writing { store: self, horizon, _writing: writing }))
    }

    fn close(&self) {
        let mut open = self.write_open();
        open.tree = None;
        open.catalog = None;
    }
}

struct Writing<'a> {
    store: &'a EmbeddedStore,
    horizon: u64,
    _writing: MutexGuard<'a, ()>,
}

impl Writing<'_> {
    /// Removes keys, each once, and says how many there were.
    fn delete(&self, keys: &mut Vec<fjall::Slice>) -> Result<u64, Error> {
        // One prefix may begin with another.
        keys.sort_unstable();
        keys.dedup();
        let changes: Vec<Change<'_>> = keys.iter().map(|key| Change { key, value: None }).collect();
        self.store.change_tree(|tree| tree.write(&changes))?;
        let count = keys.len() as u64;
        keys.clear();
        Ok(count)
    }
}

impl Checkpoint for Writing<'_> {
    fn write(&mut self, piece: &[Change<'_>]) -> Result<(), Error> {
        check_piece(piece)?;
        self.store.change_tree(|tree| tree.write(piece))
    }

    fn delete_prefixes(&mut self, prefixes: &[Vec<u8>]) -> Result<u64, Error> {
        // Each write is a table, and a sync: they are gathered.
        let (mut keys, mut deleted) = (Vec::new(), 0);
        for prefix in prefixes {
            let mut from = Vec::new();
            loop {
                let room = DELETE_KEYS - keys.len();
                let found = self.store.with_tree(|tree| tree.keys(prefix, &from, room))?;
                let is_all = found.len() < room;
                if let Some(last) = found.last() {
                    from = [last, &b"\0"[..]].concat();
                }
                keys.extend(found);
                if is_all {
                    break;
                }
                deleted += self.delete(&mut keys)?;
            }
        }
        Ok(deleted + self.delete(&mut keys)?)
    }

    fn commit(self: Box<Self>, metadata: &[(&str, &[u8])]) -> Result<(), Error> {
        let extent = Extent { horizon: self.horizon, ..self.store.extent() };
        self.store.keep(Record::with(extent, metadata)?)
    }
}

fn format_key() -> Key {
    Key::new("format").expect("a plain word is a key")
}

fn extent_key() -> Key {
    Key::new("extent").expect("a plain word is a key")
}

/// The layout, the oldest layout whose readers understand this one, and the tree.
fn format() -> Vec<u8> {
    [&LAYOUT.to_le_bytes(), &LAYOUT.to_le_bytes(), tree::NAME].concat()
}

/// The layout of the store that is there, which we can read; `None` if there is none yet.
fn check_format(catalog: &DirCatalog) -> Result<Option<u16>, Error> {
    let key = format_key();
    let Some(bytes) = catalog.get(&key)? else { return Ok(None) };
    let corrupt = |what| Err(Error::Corrupt { key: format_key(), what });
    let Some(([layout, layout_high, min, min_high], name)) = bytes.split_first_chunk() else {
        return corrupt("it is too short");
    };
    let format = u16::from_le_bytes([*layout, *layout_high]);
    let reader_min = u16::from_le_bytes([*min, *min_high]);
    if reader_min > LAYOUT {
        return Err(Error::FormatNewer { key, format, reader_min, supported: LAYOUT });
    }
    if name != tree::NAME {
        return corrupt("it names another kind of tree");
    }
    Ok(Some(format))
}

#[cfg(test)]
mod tests;
