//! Format version 1: the header of a segment, groups, records, and the checks of each.
//!
//! `docs/format/log.md` has every byte. In short, numbers little-endian:
//!
//! ```text
//! segment   header of 4096 bytes, then groups, each at a multiple of 512 bytes
//! group     magic u32, bytes u32, records u32, crc u32, position u64, synced u64, then records
//! record    bytes u32, crc u32, kind u8, 3 zero bytes, body, zero bytes up to a multiple of 8
//! ```
//!
//! Checksums are CRC-32C and begin with the generation of the segment (and, for a record, with its
//! position), so that bytes of an earlier use of a file, or of another place, are never valid.
//! A group is valid as a whole or not at all.
//!
//! Everything here works on bytes in memory, believes no length before it was checked, and
//! allocates nothing.

use super::{Position, Record};

/// The format written, and the newest one read.
pub const FORMAT: u16 = 1;
/// Bytes before the first group of a segment.
pub const HEADER_BYTES: u64 = 4096;
/// A torn write touches no sector but those written; groups begin at multiples of this.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes before the first record of a group.
pub const GROUP_HEADER_BYTES: usize = 32;
const _: () = assert!(GROUP_HEADER_BYTES.is_multiple_of(8), "records begin at multiples of 8");
/// Bytes before the body of a record.
pub const RECORD_HEADER_BYTES: usize = 12;
/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 10;
/// The largest segment; bounds what a damaged file can make a reader allocate.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Positions and numbers of files stay below; far beyond what any log reaches, so that sums with
/// what a damaged file claims cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;

const SEGMENT_MAGIC: [u8; 8] = *b"SBXLOG\r\n";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"SBXG");
/// Where the checksum of a segment's header is.
const HEADER_SUM_AT: usize = 56;

/// The header of a segment, as a table of bytes.
pub(super) type HeaderBytes = [u8; HEADER_BYTES as usize];

/// What is wrong with bytes, and where in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) what: &'static str,
}

/// Why a header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Newer { format: u16, reader_min: u16 },
    Damaged(&'static str),
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Counts the segments of a log.
    pub number: u64,
    /// Unlike that of every earlier use of the file.
    pub generation: u64,
    /// Position of its first group. Everything before it was synced when the header was written.
    pub base: Position,
    /// Bytes of the file.
    pub segment_bytes: u64,
    /// The log it belongs to.
    pub log_id: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> HeaderBytes {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        let fields = [self.number, self.generation, self.base.0, self.segment_bytes, self.log_id];
        for (field, place) in fields.iter().zip(bytes[16..HEADER_SUM_AT].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let sum = header_sum(&bytes);
        bytes[HEADER_SUM_AT..HEADER_SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &HeaderBytes) -> Result<Self, HeaderFault> {
        let damaged = |what| Err(HeaderFault::Damaged(what));
        if bytes[..8] != SEGMENT_MAGIC {
            return damaged("it does not begin as a segment of a log");
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (format, reader_min) = (u16_at(8), u16_at(10));
        if reader_min > FORMAT {
            return Err(HeaderFault::Newer { format, reader_min });
        }
        if u32_at(bytes, HEADER_SUM_AT) != header_sum(bytes) {
            return damaged("the checksum of its header does not match");
        }
        if format == 0 || reader_min == 0 || u64::from(u32_at(bytes, 12)) != HEADER_BYTES {
            return damaged("its header contradicts itself");
        }
        let header = Self {
            number: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            base: Position(u64_at(bytes, 32)),
            segment_bytes: u64_at(bytes, 40),
            log_id: u64_at(bytes, 48),
        };
        let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        let is_sound = sizes.contains(&header.segment_bytes)
            && header.segment_bytes.is_multiple_of(SECTOR_BYTES)
            && header.base.0.is_multiple_of(SECTOR_BYTES)
            && header.base.0 <= NUMBER_MAX;
        if !is_sound {
            return damaged("its header has sizes that cannot be");
        }
        Ok(header)
    }

    /// Where in the file a position of this segment is.
    pub(super) fn offset_of(&self, position: u64) -> u64 {
        position - self.base.0 + HEADER_BYTES
    }

    /// Which position of this segment is there in the file, behind its header.
    pub(super) fn position_of(&self, offset: u64) -> u64 {
        self.base.0 + offset - HEADER_BYTES
    }

    /// The first position that cannot be in this segment any more.
    pub(super) fn room_end(&self) -> u64 {
        self.base.0 + self.segment_bytes - HEADER_BYTES
    }
}

/// The header of a group that was found at a place, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Of header and records, without the padding behind.
    pub(super) bytes: u32,
    pub(super) records: u32,
    pub(super) position: u64,
    /// Every record before it was on disk when this was written.
    pub(super) synced: u64,
}

impl GroupHeader {
    pub(super) fn encode(&self, generation: u64) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.records.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        let sum = group_sum(&bytes, generation);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None` unless a group of this generation begins here. That it can be as long as it says is
    /// for the caller to check.
    pub(super) fn decode(
        bytes: &[u8; GROUP_HEADER_BYTES],
        generation: u64,
        position: u64,
    ) -> Option<Self> {
        if u32_at(bytes, 0) != GROUP_MAGIC || u32_at(bytes, 12) != group_sum(bytes, generation) {
            return None;
        }
        let header = Self {
            bytes: u32_at(bytes, 4),
            records: u32_at(bytes, 8),
            position: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
        };
        let is_sound = header.position == position
            && header.synced <= position
            && header.bytes as usize >= GROUP_HEADER_BYTES;
        is_sound.then_some(header)
    }

    /// Bytes up to where the next group can begin.
    pub(super) fn padded(&self) -> u64 {
        u64::from(self.bytes).next_multiple_of(SECTOR_BYTES)
    }
}

/// Bytes a record with a body this long takes in a group.
pub(super) const fn record_bytes(body: usize) -> usize {
    (RECORD_HEADER_BYTES + body).next_multiple_of(8)
}

/// The first bytes of a record, its checksum not yet in them.
pub(super) fn record_head(kind: u8, body_bytes: u32) -> [u8; RECORD_HEADER_BYTES] {
    let mut head = [0; RECORD_HEADER_BYTES];
    head[..4].copy_from_slice(&body_bytes.to_le_bytes());
    head[8] = kind;
    head
}

/// Puts the checksums into a group's records, which are well formed. `bytes` is the group with its
/// header, which begins at `position`.
pub(super) fn sign_records(bytes: &mut [u8], generation: u64, position: u64) {
    let mut at = GROUP_HEADER_BYTES;
    while at < bytes.len() {
        let end = at + record_bytes(u32_at(bytes, at) as usize);
        sign_record(&mut bytes[at..end], generation, position + at as u64);
        at = end;
    }
}

/// Puts the checksum into one record, given with its padding.
pub(super) fn sign_record(record: &mut [u8], generation: u64, position: u64) {
    let end = RECORD_HEADER_BYTES + u32_at(record, 0) as usize;
    let sum = record_sum(&record[..end], generation, position);
    record[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Checks everything of a group behind its header, padding included. `bytes` goes up to where the
/// next group can begin.
pub(super) fn check_group(
    header: &GroupHeader,
    bytes: &[u8],
    generation: u64,
) -> Result<(), Fault> {
    let fault = |at: usize, what| Err(Fault { at: at as u64, what });
    let end = header.bytes as usize;
    let (mut at, mut records) = (GROUP_HEADER_BYTES, 0);
    while at < end {
        if end - at < RECORD_HEADER_BYTES {
            return fault(at, "a record's header goes beyond its group");
        }
        let body_bytes = u32_at(bytes, at) as usize;
        if body_bytes > end - at - RECORD_HEADER_BYTES {
            return fault(at, "a record goes beyond its group");
        }
        let record_end = at + RECORD_HEADER_BYTES + body_bytes;
        let next = at + record_bytes(body_bytes);
        let record = &bytes[at..record_end];
        if u32_at(record, 4) != record_sum(record, generation, header.position + at as u64) {
            return fault(at, "the checksum of a record does not match");
        }
        if next > end || record[9..12] != [0; 3] || !is_zero(&bytes[record_end..next]) {
            return fault(at, "a record is not padded as it should be");
        }
        (at, records) = (next, records + 1);
    }
    if records != header.records {
        return fault(0, "a group has another number of records than it says");
    }
    if !is_zero(&bytes[end..]) {
        return fault(end, "a group is not padded with zero bytes");
    }
    Ok(())
}

/// The records of a group that [`check_group`] found good.
#[derive(Debug, Clone)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    position: u64,
    at: usize,
}

impl<'a> Records<'a> {
    /// `bytes` begins with the group's header; what is behind its end is not looked at.
    pub(super) fn of(header: &GroupHeader, bytes: &'a [u8]) -> Self {
        let bytes = &bytes[..header.bytes as usize];
        Self { bytes, position: header.position, at: GROUP_HEADER_BYTES }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let body_bytes = u32_at(rest, 0) as usize;
        let body = &rest[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes];
        let position = Position(self.position + self.at as u64);
        self.at += record_bytes(body_bytes);
        Some(Record { position, kind: rest[8], body })
    }
}

/// Where the record behind one that begins at `position` can begin at the earliest.
pub(super) fn behind(record: &Record<'_>) -> Position {
    Position(record.position.0 + record_bytes(record.body.len()) as u64)
}

/// Name of the file of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:020}.log")
}

/// Name of a file that waits to become a segment.
pub(super) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// The number in a name that ends so; `None` for names we do not give.
pub(super) fn number_in(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end)?;
    let is_ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_ours && *number <= NUMBER_MAX)
}

fn header_sum(bytes: &HeaderBytes) -> u32 {
    let sum = crc32c::crc32c(&bytes[..HEADER_SUM_AT]);
    crc32c::crc32c_append(sum, &bytes[HEADER_SUM_AT + 4..])
}

fn group_sum(bytes: &[u8; GROUP_HEADER_BYTES], generation: u64) -> u32 {
    let mut all = [0; 36];
    all[..8].copy_from_slice(&generation.to_le_bytes());
    all[8..20].copy_from_slice(&bytes[..12]);
    all[20..].copy_from_slice(&bytes[16..]);
    crc32c::crc32c(&all)
}

/// Of a record's header and body, without the checksum in it.
fn record_sum(record: &[u8], generation: u64, position: u64) -> u32 {
    let mut head = [0; 24];
    head[..8].copy_from_slice(&generation.to_le_bytes());
    head[8..16].copy_from_slice(&position.to_le_bytes());
    head[16..20].copy_from_slice(&record[..4]);
    head[20..].copy_from_slice(&record[8..RECORD_HEADER_BYTES]);
    crc32c::crc32c_append(crc32c::crc32c(&head), &record[RECORD_HEADER_BYTES..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
