//! The index of the streams that are open, each with a time at which it is looked at.
//!
//! It is state beside the stage's own, and whole in memory. What is derived from it, to find what
//! is due, is made again by key when a batch is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::state::{KeyedState, StateLimits};

/// The slot of an entry.
const ENTRY: &[u8] = b"";

/// Every open stream, and when it is looked at.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) state: KeyedState,
    pub(super) at: BTreeMap<Arc<[u8]>, u64>,
    pub(super) due: BTreeSet<(u64, Arc<[u8]>)>,
    /// Keys that are not in it as `state` says.
    pub(super) touched: BTreeSet<Arc<[u8]>>,
}

impl Index {
    pub(super) fn new(mut state: KeyedState) -> Self {
        state.set_limits(StateLimits::NONE);
        let (at, due, touched) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let keys = state.all_keys();
        let mut index = Self { state, at, due, touched };
        keys.into_iter().for_each(|key| index.reload(&Arc::from(key)));
        index
    }

    /// Adds a stream that opens.
    pub(super) fn set(&mut self, key: &Arc<[u8]>, at: u64) {
        let written = self.state.put(key, ENTRY, &at.to_le_bytes());
        written.expect("there is no bound on the index");
        self.touched.insert(key.clone());
        self.put_off(key, at);
    }

    /// Looks at a stream at another time. What is kept of it stays as it is: it is looked at once
    /// too often after a restart.
    pub(super) fn put_off(&mut self, key: &Arc<[u8]>, at: u64) {
        self.take(key);
        self.at.insert(key.clone(), at);
        self.due.insert((at, key.clone()));
    }

    /// Takes a stream from those that are due; it is put off or removed, or the batch taken back.
    pub(super) fn take(&mut self, key: &Arc<[u8]>) {
        if let Some(at) = self.at.get(key) {
            self.due.remove(&(*at, key.clone()));
            self.touched.insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &Arc<[u8]>) {
        self.take(key);
        if self.at.remove(key).is_some() {
            self.state.delete(key, ENTRY);
        }
    }

    pub(super) fn reload(&mut self, key: &Arc<[u8]>) {
        if let Some(at) = self.at.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
        let Some(entry) = self.state.get(key, ENTRY) else { return };
        let at = entry.try_into().map_or(0, u64::from_le_bytes);
        self.at.insert(key.clone(), at);
        self.due.insert((at, key.clone()));
    }
}
