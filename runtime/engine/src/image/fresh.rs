//! What a fresh instance has: what an image is told apart from.
//!
//! Keeps true: of each page a hash is kept, not the page, so that a component with tens of
//! megabytes of data costs kilobytes. The hash is seeded by chance and stays in the process; what
//! goes into images is a digest of everything, equal wherever the same code starts with the same
//! settings.
//!
//! Two instances of the same code and settings are taken to start alike: whatever they can ask
//! while they start (time, randomness, configuration, assets) is part of the settings. A grown
//! memory that a quota refused to one of them shows in the sizes, which are compared.

use std::sync::{Arc, OnceLock};

use sluicebox_core::limits::IMAGE_PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Where what a fresh instance has is kept once it is known: with the settings of a stage.
#[derive(Debug, Default)]
pub struct FreshCell(OnceLock<Arc<Fresh>>);

impl FreshCell {
    pub(crate) fn get(&self) -> Option<Arc<Fresh>> {
        self.0.get().cloned()
    }

    /// Keeps the first; they are equal.
    pub(crate) fn set(&self, fresh: Fresh) -> Arc<Fresh> {
        self.0.get_or_init(|| Arc::new(fresh)).clone()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Of everything below, and of the pages themselves.
    pub(crate) digest: [u8; 32],
    /// Size of each memory, in pages of 64 KiB.
    pub(crate) memories: Vec<u32>,
    /// Values of all mutable globals.
    pub(crate) globals: Vec<u64>,
    /// Hashes of each memory's pages, 0 for one of zeros.
    hashes: Vec<Vec<u128>>,
    seed: u64,
}

impl Fresh {
    /// Whether a page is as a fresh instance has it.
    pub(crate) fn has(&self, memory: usize, page: u32, bytes: &[u8]) -> bool {
        match self.hash(memory, page) {
            0 => is_zero(bytes),
            hash => hash_of(bytes, self.seed) == hash,
        }
    }

    /// Whether a fresh instance has nothing but zeros there.
    pub(crate) fn is_zero(&self, memory: usize, page: u32) -> bool {
        self.hash(memory, page) == 0
    }

    fn hash(&self, memory: usize, page: u32) -> u128 {
        let hashes = self.hashes.get(memory);
        hashes.and_then(|hashes| hashes.get(page as usize)).copied().unwrap_or(0)
    }
}

/// Puts together what a fresh instance has, from its pages in order.
#[derive(Debug)]
pub(crate) struct Noting {
    hasher: blake3::Hasher,
    hashes: Vec<Vec<u128>>,
    seed: u64,
}

impl Noting {
    pub(crate) fn new(memories: usize) -> Self {
        let mut seed = [0; 8];
        // Without chance it is only easier to foresee, which harms nobody but the guest itself.
        getrandom::fill(&mut seed).unwrap_or_default();
        let hashes = vec![Vec::new(); memories];
        Self { hasher: blake3::Hasher::new(), hashes, seed: u64::from_le_bytes(seed) }
    }

    /// The next page of this memory.
    pub(crate) fn page(&mut self, memory: usize, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), IMAGE_PAGE_BYTES);
        let hash = if is_zero(bytes) { 0 } else { hash_of(bytes, self.seed) };
        let Some(hashes) = self.hashes.get_mut(memory) else { return };
        if hash != 0 {
            self.hasher.update(&(memory as u32).to_le_bytes());
            self.hasher.update(&(hashes.len() as u32).to_le_bytes());
            self.hasher.update(bytes);
        }
        hashes.push(hash);
    }

    pub(crate) fn finish(mut self, memories: Vec<u32>, globals: Vec<u64>) -> Fresh {
        for pages in &memories {
            self.hasher.update(&pages.to_le_bytes());
        }
        for value in &globals {
            self.hasher.update(&value.to_le_bytes());
        }
        for hashes in &mut self.hashes {
            // Pages beyond the last with something in it are zeros anyway.
            let used = hashes.iter().rposition(|hash| *hash != 0).map_or(0, |last| last + 1);
            hashes.truncate(used);
            hashes.shrink_to_fit();
        }
        let digest = *self.hasher.finalize().as_bytes();
        Fresh { digest, memories, globals, hashes: self.hashes, seed: self.seed }
    }
}

/// A hash that is 0 for nothing.
fn hash_of(bytes: &[u8], seed: u64) -> u128 {
    xxh3_128_with_seed(bytes, seed).max(1)
}

/// In blocks, so that the compiler may compare many bytes at once.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let any = |block: &[u8; 64]| block.iter().fold(0, |or, byte| or | byte) != 0;
    !blocks.iter().any(any) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(pages: &[[u8; IMAGE_PAGE_BYTES]]) -> Fresh {
        let mut noting = Noting::new(1);
        for page in pages {
            noting.page(0, page);
        }
        noting.finish(vec![1], vec![7])
    }

    #[test]
    fn what_is_beyond_what_was_there_is_zero() {
        let mut written = [0; IMAGE_PAGE_BYTES];
        written[4095] = 1;
        let zero = [0; IMAGE_PAGE_BYTES];
        let fresh = fresh(&[written, zero]);
        assert!(fresh.has(0, 0, &written) && !fresh.has(0, 0, &zero));
        for page in [1, 2, u32::MAX] {
            assert!(fresh.has(0, page, &zero) && !fresh.has(0, page, &written));
            assert!(fresh.is_zero(0, page));
        }
        assert!(!fresh.is_zero(0, 0));
    }

    #[test]
    fn equal_instances_have_equal_digests_and_others_have_not() {
        let zero = [0; IMAGE_PAGE_BYTES];
        let mut written = zero;
        written[0] = 1;
        let digest = fresh(&[written, zero]).digest;
        assert_eq!(fresh(&[written, zero]).digest, digest);
        assert_ne!(fresh(&[zero, written]).digest, digest);
        assert_ne!(fresh(&[zero, zero]).digest, digest);
        let mut noting = Noting::new(1);
        noting.page(0, &written);
        assert_ne!(noting.finish(vec![1], vec![8]).digest, digest);
    }
}
