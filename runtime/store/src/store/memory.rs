//! The store in memory; the reference the others are compared with.
//!
//! Nothing is durable: it is for tests and for a node that is told to keep nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::error::Error;
use crate::store::extent::Record;
use crate::store::{
    Change, Checkpoint, Extent, Measured, Page, PageLimit, Store, check_piece, end_of,
};

/// Entries in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: RwLock<Kept>,
    /// Held by the one checkpoint that is being written.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<Vec<u8>, Bytes>,
    record: Record,
    closed: bool,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic elsewhere leaves the map between two changes, as an error would.
    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> Result<RwLockWriteGuard<'_, Kept>, Error> {
        let kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.closed { Err(Error::Closed) } else { Ok(kept) }
    }

    fn open(&self) -> Result<RwLockReadGuard<'_, Kept>, Error> {
        let kept = self.read();
        if kept.closed { Err(Error::Closed) } else { Ok(kept) }
    }
}

impl Kept {
    fn under(&self, prefix: &[u8], from: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Bytes)> {
        let start = Bound::Included(if from > prefix { from } else { prefix }.to_vec());
        let end = end_of(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        // A range that ends before it starts is no empty range but a panic.
        let none = matches!((&start, &end), (Bound::Included(s), Bound::Excluded(e)) if s >= e);
        let range = if none { (start.clone(), start) } else { (start, end) };
        self.entries.range(range).filter(move |_| !none)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.open()?.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], mut limit: PageLimit) -> Result<Page, Error> {
        let mut page = Page::default();
        for (key, value) in self.open()?.under(prefix, from) {
            if !page.take(key, value, &mut limit) {
                break;
            }
        }
        Ok(page)
    }

    fn measure(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Measured, Error> {
        let mut measured = Measured::default();
        for (key, value) in self.open()?.under(prefix, from) {
            if !measured.take(key, value.len(), limit) {
                break;
            }
        }
        Ok(measured)
    }

    fn extent(&self) -> Extent {
        self.read().record.extent
    }

    fn metadata(&self, name: &str) -> Option<Bytes> {
        self.read().record.metadata.get(name).cloned()
    }

    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.change()?;
        let extent = &mut kept.record.extent;
        if horizon < extent.horizon {
            return Err(Error::HorizonBehind { horizon, stored: extent.horizon });
        }
        extent.reach = extent.reach.max(horizon);
        Ok(Box::new(Writing { store: self, horizon, _writing: writing }))
    }

    fn close(&self) {
        self.kept.write().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

struct Writing<'a> {
    store: &'a MemoryStore,
    horizon: u64,
    _writing: MutexGuard<'a, ()>,
}

impl Checkpoint for Writing<'_> {
    fn write(&mut self, piece: &[Change<'_>]) -> Result<(), Error> {
        check_piece(piece)?;
        let mut kept = self.store.change()?;
        for change in piece {
            match change.value {
                Some(value) => {
                    kept.entries.insert(change.key.to_vec(), Bytes::copy_from_slice(value));
                }
                None => {
                    kept.entries.remove(change.key);
                }
            }
        }
        Ok(())
    }

    fn delete_prefixes(&mut self, prefixes: &[Vec<u8>]) -> Result<u64, Error> {
        let (mut kept, mut count) = (self.store.change()?, 0);
        for prefix in prefixes {
            let keys: Vec<Vec<u8>> = kept.under(prefix, b"").map(|(key, _)| key.clone()).collect();
            for key in &keys {
                kept.entries.remove(key);
            }
            count += keys.len() as u64;
        }
        Ok(count)
    }

    fn commit(self: Box<Self>, metadata: &[(&str, &[u8])]) -> Result<(), Error> {
        let mut kept = self.store.change()?;
        let extent = Extent { horizon: self.horizon, ..kept.record.extent };
        kept.record = Record::with(extent, metadata)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        crate::store::contract::every_promise(&|| Box::new(MemoryStore::new()));
    }
}
