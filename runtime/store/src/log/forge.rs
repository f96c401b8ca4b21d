//! Makes the checksums of a damaged segment right again, so that tests reach the checks behind.
//!
//! A reader that trusts a length because its checksum was right would be found by nobody else: any
//! change of a byte breaks a checksum first. Nothing here is fit for repairing a log.

use super::format::{self, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, SegmentHeader};

/// Makes a file of any bytes: a segment with a good header for `number`, and behind it as many
/// groups as the bytes can be read as, each with good checksums.
#[must_use]
pub fn segment(number: u64, base: u64, bytes: &[u8]) -> Vec<u8> {
    let room = bytes.len().next_multiple_of(512).max(4096);
    let header = SegmentHeader {
        number,
        generation: 7,
        base: super::Position(base),
        segment_bytes: HEADER_BYTES + room as u64,
        log_id: 9,
    };
    let mut file = header.encode().to_vec();
    file.extend_from_slice(bytes);
    file.resize(HEADER_BYTES as usize + room, 0);
    sign_groups(&mut file, header.generation, base);
    file
}

/// Signs the groups of a segment from its first on, for as long as lengths make sense.
pub fn sign_groups(file: &mut [u8], generation: u64, base: u64) {
    let mut at = HEADER_BYTES as usize;
    while let Some(bytes) = file.get_mut(at..).filter(|rest| rest.len() >= GROUP_HEADER_BYTES) {
        let field = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let mut synced = [0; 8];
        synced.copy_from_slice(&bytes[24..32]);
        let header = GroupHeader {
            bytes: field(4),
            records: field(8),
            position: base + (at as u64 - HEADER_BYTES),
            synced: u64::from_le_bytes(synced),
        };
        bytes[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode(generation));
        let end = (header.bytes as usize).min(bytes.len());
        sign_records(&mut bytes[..end], generation, header.position);
        at += header.padded().max(format::SECTOR_BYTES) as usize;
    }
}

/// Signs the records that lie within a group; the first that does not ends it.
fn sign_records(group: &mut [u8], generation: u64, position: u64) {
    let mut at = GROUP_HEADER_BYTES;
    while let Some(head) = group.get(at..at + format::RECORD_HEADER_BYTES) {
        let body_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at + format::record_bytes(body_bytes);
        if end > group.len() {
            return;
        }
        format::sign_record(&mut group[at..end], generation, position + at as u64);
        at = end;
    }
}
