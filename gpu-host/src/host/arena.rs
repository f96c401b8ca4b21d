//! A tenant's memory: pieces of the device that it shares with nobody, and places in them.
//!
//! Keeps true:
//! - Places do not overlap, begin at multiples of the grain and are inside their piece.
//! - What of a place may hold old bytes is known, and these are the tenant's own.
//! - A piece in which nothing is taken is given back at once.
//!
//! The first place that is large enough is taken. Leaves to others: taking pieces, clearing, and
//! counting.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::device::Block;

/// Where a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: Block,
    pub(super) offset: u64,
    /// With what its length was rounded up by.
    bytes: u64,
}

impl Place {
    /// What it takes of its piece.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pieces: BTreeMap<Block, Piece>,
}

#[derive(Debug)]
struct Piece {
    /// As the ledger counts it.
    blocks: u64,
    bytes: u64,
    /// What is free: where it begins, and its length. No two touch.
    free: BTreeMap<u64, u64>,
    /// From here on nothing was ever taken.
    fresh_from: u64,
    /// Nothing more is taken.
    is_sealed: bool,
}

impl Arena {
    /// A place in the pieces there are, and what of it may hold old bytes. Both numbers are more
    /// than 0.
    pub(super) fn take(&mut self, bytes: u64, grain: u64) -> Option<(Place, Range<u64>)> {
        let bytes = bytes.checked_next_multiple_of(grain)?;
        let open = self.pieces.iter_mut().filter(|(_, piece)| !piece.is_sealed);
        let (block, piece, offset) = open.into_iter().find_map(|(block, piece)| {
            let mut free = piece.free.iter();
            let (offset, _) = free.find(|(_, length)| **length >= bytes)?;
            let offset = *offset;
            Some((*block, piece, offset))
        })?;
        let length = piece.free.remove(&offset)?;
        let end = offset + bytes;
        if length > bytes {
            piece.free.insert(end, length - bytes);
        }
        let old = offset..end.min(piece.fresh_from).max(offset);
        piece.fresh_from = piece.fresh_from.max(end);
        Some((Place { block, offset, bytes }, old))
    }

    /// A new piece, all zeros, which counts as so many blocks. Its first bytes are taken as a
    /// place; they are a multiple of the grain and all in it.
    pub(super) fn add(&mut self, block: Block, bytes: u64, blocks: u64, taken: u64) -> Place {
        let free = BTreeMap::from([(taken, bytes - taken)]);
        let free = free.into_iter().filter(|(_, length)| *length > 0).collect();
        let piece = Piece { blocks, bytes, free, fresh_from: taken, is_sealed: false };
        self.pieces.insert(block, piece);
        Place { block, offset: 0, bytes: taken }
    }

    /// A place is free. If its piece is so as well, it is no longer there: which, and how many
    /// blocks it counts as.
    pub(super) fn give(&mut self, place: Place) -> Option<(Block, u64)> {
        let piece = self.pieces.get_mut(&place.block)?;
        let (mut from, mut end) = (place.offset, place.offset + place.bytes);
        if let Some((before, length)) = piece.free.range(..from).next_back()
            && before + length == from
        {
            from = *before;
        }
        if let Some(length) = piece.free.remove(&end) {
            end += length;
        }
        piece.free.insert(from, end - from);
        if end - from < piece.bytes {
            return None;
        }
        self.pieces.remove(&place.block).map(|piece| (place.block, piece.blocks))
    }

    /// A piece is to go: no place in it is taken any more.
    pub(super) fn seal(&mut self, block: Block) {
        if let Some(piece) = self.pieces.get_mut(&block) {
            piece.is_sealed = true;
        }
    }

    /// How many blocks each piece counts as.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Block, u64)> {
        self.pieces.iter().map(|(block, piece)| (*block, piece.blocks))
    }

    /// Nothing of it is there any more.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: Block = Block(1);

    #[test]
    fn what_was_taken_before_may_be_old() {
        let mut arena = Arena::default();
        assert_eq!(arena.take(1, 4), None);
        let first = arena.add(BLOCK, 64, 1, 16);
        assert_eq!((first.offset, first.bytes), (0, 16));
        let (second, old) = arena.take(16, 16).unwrap();
        assert_eq!((second.offset, old), (16, 16..16));
        assert_eq!(arena.give(first), None);
        assert_eq!(arena.take(17, 16).map(|(place, old)| (place.offset, old)), Some((32, 32..32)));
        assert_eq!(arena.give(second), None);
        assert_eq!(arena.take(32, 16).map(|(place, old)| (place.offset, old)), Some((0, 0..32)));
        assert_eq!(arena.take(1, 16), None);
        assert_eq!(arena.take(u64::MAX, 16), None);
    }

    #[test]
    fn nothing_is_taken_in_a_piece_that_is_to_go() {
        let mut arena = Arena::default();
        let place = arena.add(BLOCK, 64, 1, 16);
        arena.seal(BLOCK);
        assert_eq!(arena.take(16, 16), None);
        assert_eq!(arena.give(place), Some((BLOCK, 1)));
    }

    #[test]
    fn an_empty_piece_is_given_back() {
        let mut arena = Arena::default();
        let mut places = vec![arena.add(BLOCK, 64, 3, 16)];
        places.extend((0..3).map(|_| arena.take(16, 16).unwrap().0));
        for at in [2, 0, 3] {
            assert_eq!(arena.give(places[at]), None);
        }
        assert_eq!(arena.give(places[1]), Some((BLOCK, 3)));
        assert_eq!(arena.pieces().count(), 0);
    }

    proptest! {
        #[test]
        fn places_never_meet_and_all_come_back(
            steps in prop::collection::vec((any::<bool>(), 1_u64..90), 1..120),
        ) {
            let mut arena = Arena::default();
            let mut taken: Vec<Place> = Vec::new();
            let (mut pieces, mut named) = (0, 0);
            for (is_taken, number) in steps {
                if is_taken || taken.is_empty() {
                    let found = arena.take(number, 8).map(|(place, _)| place);
                    let place = found.unwrap_or_else(|| {
                        named += 1;
                        pieces += 1;
                        arena.add(Block(named), 96, 1, number.next_multiple_of(8))
                    });
                    taken.push(place);
                } else {
                    let place = taken.swap_remove(number as usize % taken.len());
                    pieces -= u64::from(arena.give(place).is_some());
                }
                for (at, one) in taken.iter().enumerate() {
                    prop_assert!(one.offset % 8 == 0 && one.offset + one.bytes <= 96);
                    for other in &taken[..at] {
                        let meet = one.block == other.block
                            && one.offset < other.offset + other.bytes
                            && other.offset < one.offset + one.bytes;
                        prop_assert!(!meet, "{one:?} and {other:?}");
                    }
                }
            }
            for place in taken {
                pieces -= u64::from(arena.give(place).is_some());
            }
            prop_assert_eq!(pieces, 0);
        }
    }
}
