//! A group of records on its way to the disk: filled by appends, signed and written as one piece.
//!
//! Keeps true: where a record lies is known when it is put in, since the group's own place is known
//! when it is begun; signing can be repeated for another segment and changes no position; the
//! buffer is used again.

use super::Position;
use super::format::{self, GROUP_HEADER_BYTES, GroupHeader, SECTOR_BYTES};

/// Records that become one write.
#[derive(Debug, Default)]
pub(super) struct Group {
    position: u64,
    records: u32,
    /// Header and records, and once it is signed the padding behind them.
    bytes: Vec<u8>,
    /// Without the padding.
    used: usize,
}

impl Group {
    /// An empty one that will begin at `position`.
    pub(super) fn at(position: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(GROUP_HEADER_BYTES, 0);
        Self { position, records: 0, bytes: buffer, used: GROUP_HEADER_BYTES }
    }

    /// One that was read, to be written elsewhere; `bytes` has its header and records.
    pub(super) fn copied(header: &GroupHeader, bytes: &[u8]) -> Self {
        let used = header.bytes as usize;
        let bytes = bytes[..used].to_vec();
        Self { position: header.position, records: header.records, bytes, used }
    }

    /// Where it begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Where the next one can begin.
    pub(super) fn end(&self) -> u64 {
        self.position + self.padded_bytes() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes it takes on disk.
    pub(super) fn padded_bytes(&self) -> usize {
        self.used.next_multiple_of(SECTOR_BYTES as usize)
    }

    /// Bytes without the padding.
    pub(super) fn used_bytes(&self) -> usize {
        self.used
    }

    /// Adds a record. That it fits is for the caller to check.
    pub(super) fn push(&mut self, kind: u8, parts: &[&[u8]], body_bytes: usize) -> Position {
        let position = Position(self.position + self.used as u64);
        let end = self.used + format::record_bytes(body_bytes);
        let length = u32::try_from(body_bytes).expect("checked against a bound below 4 GiB");
        self.bytes.reserve(end - self.used);
        self.bytes.extend_from_slice(&format::record_head(kind, length));
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(end, 0);
        self.used = end;
        self.records += 1;
        position
    }

    /// Makes it valid in a segment of this generation, and gives the bytes to write there. Nothing
    /// is put in any more afterwards.
    pub(super) fn sign(&mut self, generation: u64, synced: u64) -> &[u8] {
        let header = GroupHeader {
            bytes: u32::try_from(self.used).expect("a group fits a segment"),
            records: self.records,
            position: self.position,
            synced,
        };
        let used = &mut self.bytes[..self.used];
        used[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode(generation));
        format::sign_records(used, generation, self.position);
        self.bytes.resize(self.padded_bytes(), 0);
        &self.bytes
    }

    /// The buffer, to be used again. One that grew far beyond what is usual is given back.
    pub(super) fn into_buffer(self, keep_bytes_max: usize) -> Vec<u8> {
        let mut buffer = self.bytes;
        buffer.clear();
        buffer.shrink_to(keep_bytes_max);
        buffer
    }
}
