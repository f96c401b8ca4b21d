//! The store contract: what the log no longer needs to keep, by key, up to a horizon.
//!
//! The log is the only commit point. A checkpoint moves values from it to the store, so that a
//! restart reads the log from the *horizon* on and not from its beginning.
//!
//! What an implementation promises, and `store::contract` tests:
//!
//! - A checkpoint is written in pieces. A piece that was written is on disk and is there whole;
//!   only the commit, which comes last, moves the horizon and replaces the metadata, at once.
//! - The horizon never goes back. A checkpoint that is not committed leaves it where it was.
//! - What was written is read back, also while a checkpoint is being written; damage is an error.
//! - An error leaves the horizon valid and the store usable once its cause is gone.
//! - There is one checkpoint at a time; a second waits. Reads wait for nobody.
//!
//! What a reader must do: pieces are visible before their commit, so after a crash the store may
//! hold values of up to [`Extent::reach`], which is then beyond the horizon. It may be read once
//! the log is replayed from the horizon to the reach or further, and never before; replay puts
//! absolute values, so what was there already does no harm. A log that ends before the reach has
//! lost records, as only records on disk go into a checkpoint: that is damage, not a tail.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod embedded;
mod extent;
pub mod keys;
pub mod memory;

pub use embedded::{Compression, EmbeddedStore, StoreConfig};
pub use extent::Extent;
#[cfg(any(test, feature = "contract"))]
pub use extent::extent_again;
pub use memory::MemoryStore;

use bytes::Bytes;

use crate::error::Error;

/// Longest key of an entry.
pub const ENTRY_KEY_BYTES_MAX: usize = 4 * 1024;
/// Largest value: an image of a stream's memory.
pub const ENTRY_VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Names and values of all metadata together.
pub const METADATA_BYTES_MAX: usize = 1024 * 1024;

/// Entries by ordered byte keys, changed by checkpoints. All calls block.
pub trait Store: std::fmt::Debug + Send + Sync {
    /// The value under the key; `None` if there is none. A key that is not there is cheap too.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage refuses.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Entries whose keys begin with `prefix`, in order, from `from` on if that is further.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage refuses.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, Error>;

    /// What the entries take that a scan with these arguments would give.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage refuses.
    fn measure(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Measured, Error>;

    /// How far the store is complete, and up to where it may hold values.
    fn extent(&self) -> Extent;

    /// A value of the last checkpoint's metadata.
    fn metadata(&self, name: &str) -> Option<Bytes>;

    /// Begins the checkpoint that will make the store complete up to `horizon`, and brings to
    /// disk that the store may hold values up to there.
    ///
    /// # Errors
    /// [`Error::HorizonBehind`]; what the storage refuses.
    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error>;

    /// Ends the work in the background and lets go of the directory. Later calls fail.
    fn close(&self);
}

/// A checkpoint being written. Dropped without a commit it leaves the horizon where it was.
pub trait Checkpoint {
    /// Writes a piece, whole or not at all. Keys ascend within it; a checkpoint whose keys ascend
    /// from piece to piece too costs least.
    ///
    /// # Errors
    /// [`Error::Unordered`]; [`Error::EntryTooLarge`]; what the storage refuses.
    fn write(&mut self, piece: &[Change<'_>]) -> Result<(), Error>;

    /// Removes everything under each of the prefixes, and says how many entries that was. Many are
    /// removed at once for about what one costs. After an error part of it may be gone.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage refuses.
    fn delete_prefixes(&mut self, prefixes: &[Vec<u8>]) -> Result<u64, Error>;

    /// Moves the horizon, with `metadata` in the place of what there was.
    ///
    /// # Errors
    /// [`Error::EntryTooLarge`]; what the storage refuses.
    fn commit(self: Box<Self>, metadata: &[(&str, &[u8])]) -> Result<(), Error>;
}

/// A value to put under a key, or none to delete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, absolute.
    pub value: Option<&'a [u8]>,
}

/// The most a page holds; one entry is given in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// Entries in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Bytes>,
}

impl Page {
    /// Takes an entry, or gives false and notes it as the first of the next page.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8], room: &mut PageLimit) -> bool {
        let bytes = key.len() + value.len();
        if !self.entries.is_empty() && (room.entries == 0 || room.bytes < bytes) {
            self.next = Some(Bytes::copy_from_slice(key));
            return false;
        }
        room.entries = room.entries.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(bytes);
        // Copied: a part of a block would keep the whole block in memory.
        self.entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        true
    }
}

/// How much some entries take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many they are.
    pub entries: usize,
    /// Bytes of their keys and values, before they are packed.
    pub bytes: u64,
    /// Where to go on; `None` if these were the last.
    pub next: Option<Bytes>,
}

impl Measured {
    /// Counts an entry, or gives false and notes it as the next.
    pub(crate) fn take(&mut self, key: &[u8], value_bytes: usize, limit: PageLimit) -> bool {
        let bytes = (key.len() + value_bytes) as u64;
        let is_full = self.entries >= limit.entries || self.bytes + bytes > limit.bytes as u64;
        if self.entries > 0 && is_full {
            self.next = Some(Bytes::copy_from_slice(key));
            return false;
        }
        self.entries += 1;
        self.bytes += bytes;
        true
    }
}

/// Checks the order and the sizes of a piece.
pub(crate) fn check_piece(piece: &[Change<'_>]) -> Result<(), Error> {
    for change in piece {
        check_size("a key", change.key.len(), ENTRY_KEY_BYTES_MAX)?;
        check_size("a value", change.value.map_or(0, <[u8]>::len), ENTRY_VALUE_BYTES_MAX)?;
    }
    let ascends = piece.windows(2).all(|pair| pair[0].key < pair[1].key);
    let starts = piece.first().is_none_or(|change| !change.key.is_empty());
    if ascends && starts { Ok(()) } else { Err(Error::Unordered) }
}

pub(crate) fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::EntryTooLarge { what, bytes: bytes as u64, bytes_max: bytes_max as u64 })
}

/// The first key behind everything that begins with `prefix`; `None` if there is no such key.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
