//! One part of the changed keys: a hash table over entries whose bytes lie in chunks.
//!
//! Keys and values are copied into chunks that double in size up to a bound and never move, so a
//! change never waits for a large copy. A value that fits where the old one was is written there;
//! one that does not gets a new place, and the old one is waste. When waste is more than half of
//! what was written the chunks are written anew; each byte is so copied twice at most on average.

use std::mem::size_of;

use hashbrown::HashTable;

use super::{ENTRY_BITS, Known};

/// Bytes of the first chunk and of the largest; an entry that is larger has one of its own.
const CHUNK_BYTES_MIN: usize = 512;
const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Waste below this is not worth writing anew.
const WASTE_BYTES_MIN: usize = 4 * CHUNK_BYTES_MIN;
/// In place of a length: the key was deleted.
const DELETED: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Part {
    table: HashTable<Slot>,
    entries: Vec<Entry>,
    chunks: Vec<Vec<u8>>,
    /// Bytes of all chunks.
    chunk_bytes: usize,
    /// Bytes in chunks that no entry has.
    waste: usize,
    /// Keys and values.
    payload: usize,
}

/// Which entry has a hash. With the hash beside it, growing looks at no entry.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    entry: u32,
}

/// The key is at the place, the value after it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    chunk: u32,
    at: u32,
    key: u32,
    /// Room for the value.
    room: u32,
    /// Its length, or [`DELETED`].
    value: u32,
}

impl Part {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunk_bytes
            + self.entries.capacity() * size_of::<Entry>()
            + self.table.capacity() * (size_of::<Slot>() + 1)
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| entry.key_in(&self.chunks))
    }

    pub(super) fn entry(&self, number: u32) -> (&[u8], Option<&[u8]>) {
        let entry = &self.entries[number as usize];
        (entry.key_in(&self.chunks), entry.value_in(&self.chunks))
    }

    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<Known<'_>> {
        let number = self.find(hash, key)?;
        let value = self.entries[number as usize].value_in(&self.chunks);
        Some(value.map_or(Known::Deleted, Known::Value))
    }

    /// Puts a value, or none.
    pub(super) fn change(&mut self, hash: u64, key: &[u8], value: Option<&[u8]>) {
        let bytes = value.unwrap_or_default();
        let number = match self.find(hash, key) {
            Some(number) => {
                self.replace(number as usize, bytes);
                number as usize
            }
            None => self.insert(hash, key, bytes),
        };
        if value.is_none() {
            self.entries[number].value = DELETED;
        }
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |slot: &Slot| {
            slot.hash == hash && self.entries[slot.entry as usize].key_in(&self.chunks) == key
        };
        self.table.find(hash, is_it).map(|slot| slot.entry)
    }

    fn insert(&mut self, hash: u64, key: &[u8], value: &[u8]) -> usize {
        let number = self.entries.len() as u32;
        assert!(number < 1 << ENTRY_BITS, "a checkpoint is taken long before so many changes");
        let (chunk, at) = self.place(key, value, value.len());
        let (key, value) = (key.len() as u32, value.len() as u32);
        self.entries.push(Entry { chunk, at, key, room: value, value });
        self.table.insert_unique(hash, Slot { hash, entry: number }, |slot| slot.hash);
        self.payload += (key + value) as usize;
        number as usize
    }

    fn replace(&mut self, number: usize, value: &[u8]) {
        let entry = self.entries[number];
        self.payload = self.payload + value.len() - entry.value_bytes();
        if value.len() <= entry.room as usize {
            let at = (entry.at + entry.key) as usize;
            self.chunks[entry.chunk as usize][at..at + value.len()].copy_from_slice(value);
            self.entries[number].value = value.len() as u32;
            return;
        }
        let key = entry.key_in(&self.chunks).to_vec();
        // Some more than asked for, so that a value that grows byte by byte moves seldom.
        let room = value.len() + value.len() / 4;
        let (chunk, at) = self.place(&key, value, room);
        self.waste += (entry.key + entry.room) as usize;
        let value = value.len() as u32;
        self.entries[number] = Entry { chunk, at, room: room as u32, value, ..entry };
        self.renew_if_wasted();
    }

    /// Copies a key and a value to where there is room for them.
    fn place(&mut self, key: &[u8], value: &[u8], room: usize) -> (u32, u32) {
        let bytes = key.len() + room;
        let has_room = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= bytes;
        if !self.chunks.last().is_some_and(has_room) {
            let before = self.chunks.last().map_or(0, Vec::capacity);
            let next = (before * 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(bytes);
            self.waste += self.chunks.last().map_or(0, |chunk| chunk.capacity() - chunk.len());
            self.chunk_bytes += next;
            self.chunks.push(Vec::with_capacity(next));
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let at = chunk.len();
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        chunk.resize(at + bytes, 0);
        (number as u32, at as u32)
    }

    /// Writes the chunks anew without what no entry has.
    fn renew_if_wasted(&mut self) {
        if self.waste < WASTE_BYTES_MIN || self.waste * 2 < self.chunk_bytes {
            return;
        }
        let old = std::mem::take(&mut self.chunks);
        (self.chunk_bytes, self.waste) = (0, 0);
        for number in 0..self.entries.len() {
            let entry = self.entries[number];
            let value = entry.value_in(&old).unwrap_or_default();
            let (chunk, at) = self.place(entry.key_in(&old), value, value.len());
            let room = value.len() as u32;
            self.entries[number] = Entry { chunk, at, room, ..entry };
        }
    }
}

impl Entry {
    #[inline]
    fn key_in<'a>(&self, chunks: &'a [Vec<u8>]) -> &'a [u8] {
        &chunks[self.chunk as usize][self.at as usize..(self.at + self.key) as usize]
    }

    #[inline]
    fn value_in<'a>(&self, chunks: &'a [Vec<u8>]) -> Option<&'a [u8]> {
        if self.value == DELETED {
            return None;
        }
        let at = (self.at + self.key) as usize;
        Some(&chunks[self.chunk as usize][at..at + self.value as usize])
    }

    fn value_bytes(&self) -> usize {
        if self.value == DELETED { 0 } else { self.value as usize }
    }
}
