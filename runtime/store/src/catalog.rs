//! The catalog contract: small documents and blobs by key, each whole or not there.
//!
//! What an implementation promises, and `contract` tests:
//!
//! - A call that returned `Ok` is durable: it survives the end of the process and, for a disk, of
//!   the machine's power. One that returned an error changed nothing, except
//!   [`Error::Poisoned`] and the error that caused it, after which the
//!   change may or may not be there and no further one is taken.
//! - A reader sees a document as it was before a change or after it, never in between, and needs
//!   no lock for that. Calls come from any number of threads.
//! - Of several `create` for one key, exactly one succeeds.
//! - A value read is the value written: damage and newer formats are errors that name the key.
//! - Empty values are values. Keys do not disturb one another, also where one begins with the
//!   segments of another.
//!
//! There are no transactions over several keys: what belongs together is one document.

use bytes::Bytes;

use crate::error::Error;
use crate::key::Key;

/// Bytes in a value: twice the largest component that may be uploaded by default.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Documents by key. All calls block.
pub trait Catalog: std::fmt::Debug + Send + Sync {
    /// Puts a value where there is none.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there is one; [`Error::TooLarge`]; what the storage refuses.
    fn create(&self, key: &Key, value: &[u8]) -> Result<(), Error>;

    /// Puts a value, in the place of the one there is, if any.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; what the storage refuses.
    fn replace(&self, key: &Key, value: &[u8]) -> Result<(), Error>;

    /// The value under the key; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::FormatNewer`]; what the storage refuses.
    fn get(&self, key: &Key) -> Result<Option<Bytes>, Error>;

    /// The keys that have `under` as their first segments and at least one more, in the order of
    /// their bytes; without `under`, all keys. Values are not looked at.
    ///
    /// # Errors
    /// What the storage refuses.
    fn list(&self, under: Option<&Key>) -> Result<Vec<Key>, Error>;

    /// Takes the value away. `false` if there was none.
    ///
    /// # Errors
    /// What the storage refuses.
    fn delete(&self, key: &Key) -> Result<bool, Error>;
}

/// Refuses a value that is too large for any implementation.
pub(crate) fn check_size(key: &Key, value: &[u8]) -> Result<(), Error> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let (bytes, bytes_max) = (value.len() as u64, VALUE_BYTES_MAX as u64);
    Err(Error::TooLarge { key: key.clone(), bytes, bytes_max })
}

/// True if `key` has the segments of `under` first, and more.
pub(crate) fn is_under(key: &Key, under: &Key) -> bool {
    key.as_str().strip_prefix(under.as_str()).is_some_and(|rest| rest.starts_with('/'))
}
