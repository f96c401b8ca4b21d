//! Read-only blobs that the manifest grants by content digest, under a name of its choice.

use crate::host;

/// How much [`read_all`] asks for at once.
const PIECE_BYTES: u32 = 1 << 20;

/// The asset's size in bytes, or nothing if the manifest grants no asset of that name.
#[must_use]
pub fn size(name: &str) -> Option<u64> {
    host::asset_size(name)
}

/// At most `length` bytes from `offset` on: fewer at the end, none behind it or if there is no such
/// asset.
#[must_use]
pub fn read(name: &str, offset: u64, length: u32) -> Vec<u8> {
    host::asset_read(name, offset, length)
}

/// The whole asset, or nothing if the manifest grants no asset of that name. It must fit into the
/// instance's memory.
#[must_use]
pub fn read_all(name: &str) -> Option<Vec<u8>> {
    let size = size(name)?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let piece = read(name, bytes.len() as u64, PIECE_BYTES);
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}
