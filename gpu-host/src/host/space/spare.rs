//! What of a tenant's memory can make room for something else: constants that nothing needs, and
//! what was borrowed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Space, Submission, What};
use crate::device::Block;

/// A piece of a tenant's memory, as it is looked at when others are promised it.
#[derive(Debug, Clone, Copy)]
pub(in crate::host) struct Lent {
    pub(in crate::host) block: Block,
    pub(in crate::host) blocks: u64,
    /// When something in it was used last.
    used: u64,
    is_pinned: bool,
}

impl Space {
    /// How many constants are kept that nothing needs.
    pub(in crate::host) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The bytes they take.
    pub(in crate::host) fn kept_bytes(&self) -> u64 {
        let stores = self.kept.values().filter_map(|store| self.stores.get(store));
        stores.map(|store| store.place.bytes()).sum()
    }

    /// All constants that are kept.
    pub(in crate::host) fn all_kept(&self) -> Vec<u64> {
        self.kept.values().copied().collect()
    }

    /// The constant that is kept and was used least recently, and when that was.
    pub(in crate::host) fn first_kept(&self) -> Option<(u64, Vec<u64>)> {
        self.kept.first_key_value().map(|(used, store)| (*used, vec![*store]))
    }

    /// All of a piece in which there is nothing but constants that are kept, and when any of them
    /// was used last: the piece of which that is longest ago.
    pub(in crate::host) fn first_kept_piece(&self) -> Option<(u64, Vec<u64>)> {
        if self.kept.is_empty() {
            return None;
        }
        let needed = self.stores.values().filter(|store| store.is_needed());
        let needed: BTreeSet<Block> = needed.map(|store| store.place.block).collect();
        let mut pieces: BTreeMap<Block, (u64, Vec<u64>)> = BTreeMap::new();
        for (used, number) in &self.kept {
            let block = self.stores.get(number).map(|store| store.place.block);
            if let Some(block) = block.filter(|block| !needed.contains(block)) {
                let (latest, stores) = pieces.entry(block).or_default();
                *latest = *used;
                stores.push(*number);
            }
        }
        pieces.into_values().min()
    }

    /// Pieces that can be recalled, those first whose loss is felt least, and how many blocks have
    /// been and are about to go. What is attached goes by itself when its batch ends, which cannot
    /// be made again without it.
    pub(in crate::host) fn lent(&self, borrowed: u64) -> (Vec<Lent>, u64) {
        let attached = self.entries.values().filter(|entry| entry.is_attached);
        let attached: BTreeSet<u64> = attached
            .filter_map(|entry| match entry.what {
                What::Buffer(store) => Some(store),
                _ => None,
            })
            .collect();
        let mut pieces: BTreeMap<Block, Lent> = BTreeMap::new();
        for (block, blocks) in self.arena.pieces() {
            pieces.insert(block, Lent { block, blocks, used: 0, is_pinned: false });
        }
        let mut leaving = 0;
        for (number, store) in &self.stores {
            if attached.contains(number) || store.is_recalled {
                let piece = pieces.remove(&store.place.block);
                leaving += piece.filter(|_| store.is_recalled).map_or(0, |piece| piece.blocks);
            } else if let Some(piece) = pieces.get_mut(&store.place.block) {
                piece.used = piece.used.max(store.used);
                piece.is_pinned |= store.is_pinned();
            }
        }
        let mut pieces: Vec<Lent> = pieces.into_values().collect();
        pieces.sort_unstable_by_key(|piece| (piece.blocks > borrowed, piece.is_pinned, piece.used));
        (pieces, leaving)
    }

    /// All handles of what is in a piece are over. Its stores, and the submissions that use them.
    pub(in crate::host) fn recall(&mut self, block: Block) -> (Vec<u64>, Vec<u64>) {
        self.arena.seal(block);
        let mut stores = BTreeSet::new();
        for (number, store) in &mut self.stores {
            if store.place.block != block {
                continue;
            }
            self.recalls += u64::from(store.is_needed());
            self.evictions += u64::from(!store.is_needed());
            self.kept.remove(&store.used);
            if let Some(hash) = store.constant.take() {
                self.constants.remove(&hash);
            }
            (store.is_recalled, store.handles) = (true, 0);
            stores.insert(*number);
        }
        for entry in self.entries.values_mut() {
            if let What::Buffer(store) = entry.what
                && stores.contains(&store)
            {
                entry.what = What::Recalled;
            }
        }
        let uses = |submission: &Submission| {
            submission.bound.iter().any(|bound| stores.contains(&bound.store))
        };
        let users = self.submissions.iter().filter(|(_, submission)| uses(submission));
        let users = users.map(|(number, _)| *number).collect();
        (stores.into_iter().collect(), users)
    }
}
