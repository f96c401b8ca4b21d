//! What the simulated disk has of one file: what readers see, what is on disk, what lies between.
//!
//! Keeps true: a sector that was never written is a hole and holds zero bytes, for readers and, by
//! itself, on disk: after a loss of power only what survived it was written.

use std::ops::Range;

use super::Dice;

const SECTOR: usize = 512;

/// Bytes, and where they are from.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// For each sector, whether any of it was written. Those behind were not.
    is_written: Vec<bool>,
}

impl Content {
    /// With a hole wherever a sector has only zero bytes.
    pub(super) fn sparse(bytes: &[u8]) -> Self {
        let sectors = bytes.chunks(SECTOR);
        let is_written = sectors.map(|sector| sector.iter().any(|byte| *byte != 0)).collect();
        Self { bytes: bytes.to_vec(), is_written }
    }

    fn grow(&mut self, bytes: usize) {
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.grow(end);
        self.bytes[offset..end].copy_from_slice(bytes);
        if self.is_written.len() < end.div_ceil(SECTOR) {
            self.is_written.resize(end.div_ceil(SECTOR), false);
        }
        self.is_written[offset / SECTOR..end.div_ceil(SECTOR)].fill(true);
    }

    /// The first part at or behind `offset` that was written.
    pub(super) fn written(&self, offset: u64) -> Option<Range<u64>> {
        let first = usize::try_from(offset).ok()? / SECTOR;
        let rest = self.is_written.get(first..)?;
        let start = first + rest.iter().position(|is_written| *is_written)?;
        let length = self.is_written[start..].iter().take_while(|is_written| **is_written).count();
        let place = |sector: usize| (sector * SECTOR) as u64;
        Some(place(start).max(offset)..place(start + length))
    }
}

/// A change of a file that is not on disk.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Grow { bytes: usize },
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// As readers see it.
    pub(super) seen: Content,
    /// As it is after a loss of power without any of the changes.
    durable: Content,
    changes: Vec<Change>,
}

impl Inode {
    /// One without changes.
    pub(super) fn on_disk(content: Content) -> Self {
        Self { seen: content.clone(), durable: content, changes: Vec::new() }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.seen.write(offset, bytes);
        self.changes.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn grow(&mut self, bytes: usize) {
        if self.seen.bytes.len() < bytes {
            self.seen.grow(bytes);
            self.changes.push(Change::Grow { bytes });
        }
    }

    pub(super) fn persist_all(&mut self) {
        self.changes.clear();
        self.durable.clone_from(&self.seen);
    }

    /// Any part of the changes reaches the disk, the others are lost for it.
    pub(super) fn persist_some(&mut self, dice: &mut Dice) {
        // All, none, or each piece by itself.
        let mode = dice.below(4);
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Grow { bytes } => {
                    if mode != 0 && self.durable.bytes.len() < bytes && !dice.once_in(3) {
                        self.durable.grow(bytes);
                    }
                }
                Change::Write { offset, bytes } => {
                    for (start, piece) in sectors(offset, &bytes) {
                        if mode == 1 || (mode > 1 && dice.once_in(2)) {
                            self.durable.write(start, piece);
                        }
                    }
                }
            }
        }
    }

    /// Readers see what is on disk.
    pub(super) fn forget(&mut self) {
        self.seen.clone_from(&self.durable);
    }
}

/// A write cut where sectors begin.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR - offset % SECTOR).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let head = std::iter::once((offset, head)).filter(|(_, piece)| !piece.is_empty());
    let rest = rest.chunks(SECTOR).enumerate();
    head.chain(rest.map(move |(at, piece)| (offset + first + at * SECTOR, piece)))
}
