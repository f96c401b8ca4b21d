//! The index of open streams of one stage: when each is looked at, and with which code it opened.
//!
//! - It is state beside the stage's own, whole in memory. An entry is written when a stream opens
//!   and goes when it ends: the time, and the code behind it, 8 and 4 bytes. Those of before have
//!   no code; it is the oldest there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Codes;
use crate::state::{KeyedState, StateLimits};

/// The slot of an entry.
const ENTRY: &[u8] = b"";

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    state: KeyedState,
    at: BTreeMap<Arc<[u8]>, Entry>,
    due: BTreeSet<(u64, Arc<[u8]>)>,
    /// Keys that are not in it as `state` says.
    touched: BTreeSet<Arc<[u8]>>,
    codes: Codes,
    /// Codes that streams had before the batch and have no more, which may not stand.
    ended: BTreeSet<u32>,
    /// Streams with another code than the one of now.
    earlier: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: u64,
    code: u32,
}

impl Entry {
    fn read(bytes: &[u8], oldest: u32) -> Self {
        let (at, code) = bytes.split_at_checked(size_of::<u64>()).unwrap_or((bytes, &[]));
        let at = at.try_into().map_or(0, u64::from_le_bytes);
        let code = code.try_into().map_or(oldest, u32::from_le_bytes);
        Self { at, code }
    }

    fn write(&self) -> Vec<u8> {
        [&self.at.to_le_bytes()[..], &self.code.to_le_bytes()].concat()
    }
}

impl Index {
    pub(super) fn new(mut state: KeyedState, codes: Codes) -> Self {
        state.set_limits(StateLimits::NONE);
        let (at, due, touched) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let keys = state.all_keys();
        let ended = BTreeSet::new();
        let mut index = Self { state, at, due, touched, codes, ended, earlier: 0 };
        keys.into_iter().for_each(|key| index.reload(&Arc::from(key)));
        index
    }

    pub(super) fn state(&self) -> &KeyedState {
        &self.state
    }

    pub(super) fn into_state(self) -> KeyedState {
        self.state
    }

    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn keys(&self) -> Vec<Arc<[u8]>> {
        self.at.keys().cloned().collect()
    }

    /// The code the open stream of a key has.
    pub(super) fn code(&self, key: &[u8]) -> Option<u32> {
        self.at.get(key).map(|entry| entry.code)
    }

    /// Streams with a code that the stage had before.
    pub(super) fn earlier(&self) -> usize {
        self.earlier
    }

    /// The codes streams are open with, whether the batch stands or not.
    pub(super) fn codes(&self) -> BTreeSet<u32> {
        self.at.values().map(|entry| entry.code).chain(self.ended.iter().copied()).collect()
    }

    /// Puts back an entry as some commit left it. Between batches.
    pub(super) fn restore(&mut self, key: &[u8], slot: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.state.restore(key, slot, value),
            None => self.state.forget(key, slot),
        }
        self.reload(&key.into());
    }

    /// Adds a stream that opens.
    pub(super) fn set(&mut self, key: &Arc<[u8]>, at: u64, code: u32) {
        let entry = Entry { at, code };
        let written = self.state.put(key, ENTRY, &entry.write());
        written.expect("there is no bound on the index");
        self.touched.insert(key.clone());
        self.place(key, entry);
    }

    /// Those of them, in order of their keys.
    pub(super) fn keys_of_before(&self) -> Vec<Arc<[u8]>> {
        let before = self.at.iter().filter(|(_, entry)| entry.code != self.codes.now);
        before.map(|(key, _)| key.clone()).collect()
    }

    /// An open stream has the code of now.
    pub(super) fn upgrade(&mut self, key: &Arc<[u8]>) {
        if let Some(entry) = self.at.get(key) {
            self.ended.insert(entry.code);
            self.set(key, entry.at, self.codes.now);
        }
    }

    /// Looks at a stream at another time. What is kept of it stays as it is: it is looked at once
    /// too often after a restart.
    pub(super) fn put_off(&mut self, key: &Arc<[u8]>, at: u64) {
        let code = self.code(key).unwrap_or(self.codes.oldest);
        self.place(key, Entry { at, code });
    }

    fn place(&mut self, key: &Arc<[u8]>, entry: Entry) {
        self.take(key);
        self.insert(key, entry);
    }

    fn insert(&mut self, key: &Arc<[u8]>, entry: Entry) {
        let before = self.at.insert(key.clone(), entry);
        self.count_out(before);
        self.earlier += usize::from(entry.code != self.codes.now);
        self.due.insert((entry.at, key.clone()));
    }

    fn count_out(&mut self, gone: Option<Entry>) {
        self.earlier -= usize::from(gone.is_some_and(|entry| entry.code != self.codes.now));
    }

    /// When there is something to look at next.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next stream that is due by then; it is put off or removed, or the batch is taken
    /// back.
    pub(super) fn take_due(&mut self, until: u64) -> Option<Arc<[u8]>> {
        let (_, key) = self.due.first().filter(|(at, _)| *at <= until)?.clone();
        self.take(&key);
        Some(key)
    }

    /// Takes a stream from those that are due.
    fn take(&mut self, key: &Arc<[u8]>) {
        if let Some(entry) = self.at.get(key) {
            self.due.remove(&(entry.at, key.clone()));
            self.touched.insert(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &Arc<[u8]>) {
        self.take(key);
        let gone = self.at.remove(key);
        if let Some(entry) = gone {
            self.ended.insert(entry.code);
            self.state.delete(key, ENTRY);
        }
        self.count_out(gone);
    }

    fn reload(&mut self, key: &Arc<[u8]>) {
        let before = self.at.remove(key);
        if let Some(entry) = before {
            self.due.remove(&(entry.at, key.clone()));
        }
        self.count_out(before);
        let Some(entry) = self.state.get(key, ENTRY) else { return };
        self.insert(key, Entry::read(entry, self.codes.oldest));
    }

    pub(super) fn commit(&mut self) {
        self.state.commit();
        self.touched.clear();
        self.ended.clear();
    }

    pub(super) fn roll_back(&mut self) {
        self.state.rollback_all();
        for key in std::mem::take(&mut self.touched) {
            self.reload(&key);
        }
        self.ended.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_before_has_the_oldest_code_and_keeps_the_one_it_has() {
        let mut index =
            Index::new(KeyedState::new(1, StateLimits::NONE), Codes { now: 5, oldest: 3 });
        let (old, new) = (Arc::from(&b"old"[..]), Arc::from(&b"new"[..]));
        index.restore(&old, ENTRY, Some(&7_u64.to_le_bytes()));
        index.set(&new, 9, 5);
        index.commit();
        index.put_off(&old, 11);
        index.put_off(&new, 10);
        assert_eq!((index.code(&old), index.code(&new)), (Some(3), Some(5)));
        assert_eq!((index.codes(), index.earlier()), (BTreeSet::from([3, 5]), 1));
        index.remove(&old);
        assert_eq!((index.earlier(), index.codes()), (0, BTreeSet::from([3, 5])));
        index.roll_back();
        assert_eq!(index.earlier(), 1);
        index.remove(&new);
        index.commit();
        assert_eq!(index.codes(), BTreeSet::from([3]), "the batch stands");
        index.set(&new, 9, 5);
        index.commit();
        let index = Index::new(index.into_state(), Codes { now: 6, oldest: 2 });
        assert_eq!(index.earlier(), 2);
        assert_eq!((index.code(&old), index.code(&new)), (Some(2), Some(5)));
        assert_eq!(index.next_due(), Some(7), "what is put off is not written");
    }
}
