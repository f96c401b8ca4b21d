//! A directory keeps the contract.

use tempfile::TempDir;

use super::*;
use crate::store::contract;

/// A store that takes its directory with it.
#[derive(Debug)]
struct Scratch {
    store: EmbeddedStore,
    _dir: TempDir,
}

impl Store for Scratch {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.store.get(key)
    }
    fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, Error> {
        self.store.scan(prefix, from, limit)
    }
    fn bytes(&self, prefix: &[u8]) -> Result<u64, Error> {
        self.store.bytes(prefix)
    }
    fn extent(&self) -> Extent {
        self.store.extent()
    }
    fn metadata(&self, name: &str) -> Option<Bytes> {
        self.store.metadata(name)
    }
    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error> {
        self.store.begin(horizon)
    }
    fn close(&self) {
        self.store.close();
    }
}

#[test]
fn a_directory_keeps_the_contract() {
    contract::every_promise(&|| {
        let dir = TempDir::new().unwrap();
        let store = EmbeddedStore::open(dir.path(), StoreConfig::default()).unwrap();
        Box::new(Scratch { store, _dir: dir })
    });
}
