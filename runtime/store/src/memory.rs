//! The catalog in memory; the reference the others are compared with.
//!
//! Nothing is durable: it is for tests and for a node that is told to keep nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::catalog::{Catalog, check_size, is_under};
use crate::error::Error;
use crate::key::Key;

/// Documents in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    documents: RwLock<BTreeMap<Key, Bytes>>,
}

impl MemoryCatalog {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic elsewhere cannot leave the map half changed: every change is one map operation.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Bytes>> {
        self.documents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Bytes>> {
        self.documents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog for MemoryCatalog {
    fn create(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        check_size(key, value)?;
        let value = Bytes::copy_from_slice(value);
        let mut documents = self.write();
        if documents.contains_key(key) {
            return Err(Error::Conflict { key: key.clone() });
        }
        documents.insert(key.clone(), value);
        Ok(())
    }

    fn replace(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        check_size(key, value)?;
        let value = Bytes::copy_from_slice(value);
        self.write().insert(key.clone(), value);
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        Ok(self.read().get(key).cloned())
    }

    fn list(&self, under: Option<&Key>) -> Result<Vec<Key>, Error> {
        let documents = self.read();
        let Some(under) = under else {
            return Ok(documents.keys().cloned().collect());
        };
        // Everything that begins with the text is in one range, and what is under it among that.
        let begins_with = |key: &&Key| key.as_str().starts_with(under.as_str());
        let after = (Bound::Excluded(under.clone()), Bound::Unbounded);
        let range = documents.range(after).map(|(key, _)| key).take_while(begins_with);
        Ok(range.filter(|key| is_under(key, under)).cloned().collect())
    }

    fn delete(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.write().remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        crate::contract::every_promise(&|| Box::new(MemoryCatalog::new()));
    }
}
