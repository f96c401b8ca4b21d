//! The packed frame, version 1: how events lie in the bytes that cross the border.
//!
//! Every number is little-endian and unaligned, every byte has a meaning, and a list of events has
//! one encoding only. `wit/FRAME.md` is the specification; this is the guest's own reader and
//! writer of it, written without a line of the host's.
//!
//! - A frame from the host is trusted to be well formed, so reading it checks only what safe Rust
//!   needs; a frame that is not ends the call with a panic, never with a wrong event.
//! - What this module writes always passes the host's checks: sizes are checked before a byte is
//!   written.
//!
//! Events as a stage author sees them are in `event.rs`, emitting is in `output.rs`. The thorough
//! check of a frame is here only for the test harness, which plays the host.

use crate::event::Kind;

#[cfg(not(target_family = "wasm"))]
pub(crate) mod check;

/// First bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = *b"SBXF";
/// The format this module reads and writes.
pub(crate) const FORMAT: u16 = 1;
/// Bytes of the header of a frame.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes of the head of an event.
pub(crate) const HEAD_BYTES: usize = 32;
/// Most bytes of a key.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// Most bytes of an event's fields together.
pub(crate) const FIELDS_BYTES_MAX: usize = 16_384;
/// Most bytes of a payload: an event with the longest key and fields still fits into the 16 MiB no
/// host goes beyond. A host may allow less.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 15 << 20;
/// Event times are below this, so that a reader with 53-bit numbers sees them exactly.
pub(crate) const TIME_END: u64 = 1 << 53;
/// The cause of a received event.
#[cfg(not(target_family = "wasm"))]
pub(crate) const NO_CAUSE: u32 = u32::MAX;

/// The fixed part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) input: u16,
    pub(crate) port: u16,
    pub(crate) key_bytes: u16,
    pub(crate) cause: u32,
    pub(crate) time: u64,
    pub(crate) payload_bytes: u32,
    pub(crate) fields_bytes: u32,
}

impl Head {
    /// Reads a head. Every value is possible; the caller checks what matters to it.
    #[inline]
    pub(crate) fn read(b: &[u8; HEAD_BYTES]) -> Self {
        Self {
            size: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            kind: b[4],
            flags: b[5],
            input: u16::from_le_bytes([b[6], b[7]]),
            port: u16::from_le_bytes([b[8], b[9]]),
            key_bytes: u16::from_le_bytes([b[10], b[11]]),
            cause: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
            time: u64::from_le_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]),
            payload_bytes: u32::from_le_bytes([b[24], b[25], b[26], b[27]]),
            fields_bytes: u32::from_le_bytes([b[28], b[29], b[30], b[31]]),
        }
    }

    /// Writes the head over `b`.
    #[inline]
    pub(crate) fn write(&self, b: &mut [u8; HEAD_BYTES]) {
        b[0..4].copy_from_slice(&self.size.to_le_bytes());
        b[4] = self.kind;
        b[5] = self.flags;
        b[6..8].copy_from_slice(&self.input.to_le_bytes());
        b[8..10].copy_from_slice(&self.port.to_le_bytes());
        b[10..12].copy_from_slice(&self.key_bytes.to_le_bytes());
        b[12..16].copy_from_slice(&self.cause.to_le_bytes());
        b[16..24].copy_from_slice(&self.time.to_le_bytes());
        b[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        b[28..32].copy_from_slice(&self.fields_bytes.to_le_bytes());
    }
}

/// One event where it lies in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) head: Head,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) fields: &'a [u8],
}

/// Splits the first event off `bytes`; nothing if there is none or it is cut short.
#[inline]
pub(crate) fn split_event(bytes: &[u8]) -> Option<(Parts<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let head = Head::read(head);
    let (key, rest) = rest.split_at_checked(usize::from(head.key_bytes))?;
    let (payload, rest) = rest.split_at_checked(head.payload_bytes as usize)?;
    let (fields, rest) = rest.split_at_checked(head.fields_bytes as usize)?;
    Some((Parts { head, key, payload, fields }, rest))
}

/// The number of events and the bytes that hold them, of a frame given by the host.
///
/// # Panics
///
/// If this is no frame, or one that needs a newer reader.
pub(crate) fn open(frame: &[u8]) -> (u32, &[u8]) {
    let Some((header, events)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        broken();
    };
    let minimum_reader = u16::from_le_bytes([header[6], header[7]]);
    if header[..4] != MAGIC || minimum_reader > FORMAT {
        broken();
    }
    (u32::from_le_bytes([header[8], header[9], header[10], header[11]]), events)
}

/// The header of a frame of `count` events that is `bytes` long in all.
pub(crate) fn header(count: u32, bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
    header[6..8].copy_from_slice(&FORMAT.to_le_bytes());
    header[8..12].copy_from_slice(&count.to_le_bytes());
    header[12..16].copy_from_slice(&bytes.to_le_bytes());
    header
}

/// Writes one event over `place`, which must be exactly as long as the event.
///
/// The lengths in `head` are the caller's: they must be those of the parts.
#[inline]
pub(crate) fn write_event(place: &mut [u8], parts: &Parts<'_>) {
    let Some((head, rest)) = place.split_first_chunk_mut::<HEAD_BYTES>() else {
        broken();
    };
    parts.head.write(head);
    let (key, rest) = rest.split_at_mut(parts.key.len());
    let (payload, fields) = rest.split_at_mut(parts.payload.len());
    copy(key, parts.key);
    copy(payload, parts.payload);
    // Most emitted events have no fields, and a copy of nothing still costs a call.
    if !parts.fields.is_empty() {
        fields.copy_from_slice(parts.fields);
    }
}

/// As `copy_from_slice`, but short pieces, which most events are made of, are copied in two blocks
/// that may overlap: a copy of any length is a call of the host's runtime.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        0 => {}
        8..16 => copy_ends::<8>(to, from),
        16..32 => copy_ends::<16>(to, from),
        32..=64 => copy_ends::<32>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last `BLOCK` bytes, which are all if there are no more than two blocks.
#[inline]
fn copy_ends<const BLOCK: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<BLOCK>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<BLOCK>(), from.last_chunk()) {
        *to = *from;
    }
}

/// Adds one extension field behind those in `fields`; false, and nothing added, if the value is
/// longer than a field can say.
#[must_use]
pub(crate) fn push_field(fields: &mut Vec<u8>, id: u16, value: &[u8]) -> bool {
    let Ok(bytes) = u16::try_from(value.len()) else {
        return false;
    };
    fields.extend_from_slice(&id.to_le_bytes());
    fields.extend_from_slice(&bytes.to_le_bytes());
    fields.extend_from_slice(value);
    true
}

/// The kind in a head given by the host.
#[inline]
pub(crate) fn kind(byte: u8) -> Kind {
    match Kind::from_byte(byte) {
        Some(kind) => kind,
        None => broken(),
    }
}

/// Ends the call: the host checks every frame before a stage sees it, so this is a fault of the
/// host or memory that was overwritten, and no event of it can be believed.
#[cold]
#[inline(never)]
pub(crate) fn broken() -> ! {
    panic!("the frame is broken, or needs a newer sluicebox-guest");
}

#[cfg(test)]
mod tests;
