//! Writing a record: small parts and compact frames into one buffer that is used again, frames of
//! large events by reference.
//!
//! A record is handed to the log as slices, so that a large event is copied once: from where the
//! stages wrote it to where the log will write it from. Of small events most of a frame is heads;
//! those are made compact, which copies the rest twice and writes half as much.

use bytes::Bytes;

use super::wire::{put, put_bytes};
use super::{format_of, put_source};
use crate::frame::Frame;
use crate::frame::compact::{EXPANDED_BYTES_MAX, compact};
use crate::position::Source;

/// Above so many bytes an event a compact frame is hardly smaller.
const COMPACT_EVENT_BYTES_MAX: usize = 1024;

/// Memory for compact frames that is kept from one record to the next.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

/// A record under construction. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct RecordWriter {
    kind: u8,
    buffer: Vec<u8>,
    /// Frames by reference, each with where in the buffer it belongs.
    frames: Vec<(usize, Bytes)>,
    /// A compact frame, before its length is known.
    compact: Vec<u8>,
}

impl RecordWriter {
    /// A writer that owns no memory yet. It holds no record before one was written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The kind of the record that was written.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Bytes of the body.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.buffer.len() + self.frames.iter().map(|(_, frame)| frame.len()).sum::<usize>()
    }

    /// The body, in pieces to be written one behind the other.
    #[must_use]
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.frames.len() + 1);
        let mut from = 0;
        for (at, frame) in &self.frames {
            parts.push(&self.buffer[from..*at]);
            parts.push(frame);
            from = *at;
        }
        parts.push(&self.buffer[from..]);
        parts
    }

    /// The body in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.parts().concat().into()
    }

    /// Lets go of the frames; the next record begins by itself.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BYTES_MAX);
        self.frames.clear();
    }

    pub(crate) fn begin(&mut self, kind: u8) {
        self.begin_in(format_of(kind), kind);
    }

    /// Begins a record that only readers of `format` and later ones can take.
    pub(crate) fn begin_in(&mut self, format: u8, kind: u8) {
        self.clear();
        self.kind = kind;
        self.buffer.extend_from_slice(&[format; 2]);
    }

    #[inline]
    pub(crate) fn number(&mut self, number: u64) {
        put(&mut self.buffer, number);
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.buffer.push(byte);
    }

    /// Appends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        put_bytes(&mut self.buffer, bytes);
    }

    pub(crate) fn source(&mut self, source: Source) {
        put_source(&mut self.buffer, source);
    }

    /// Appends an extension, at the end of a body; `fill` writes what is in it.
    pub(crate) fn extension(&mut self, id: u64, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut inside = Vec::new();
        fill(&mut inside);
        self.number(id);
        self.bytes(&inside);
    }

    pub(crate) fn hash(&mut self, hash: u128) {
        self.buffer.extend_from_slice(&hash.to_le_bytes());
    }

    pub(crate) fn frame(&mut self, frame: &Frame) {
        let bytes = frame.bytes();
        if goes_as_it_is(frame) {
            self.number(bytes.len() as u64);
            self.frames.push((self.buffer.len(), bytes.clone()));
            return;
        }
        self.compact.clear();
        self.compact.shrink_to(KEEP_BYTES_MAX);
        compact(frame, &mut self.compact);
        put_bytes(&mut self.buffer, &self.compact);
    }

    /// Where the buffer ends.
    pub(crate) fn end(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of the buffer.
    pub(crate) fn written(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.buffer[range]
    }
}

/// True of a frame that is long beside what its compact form would spare.
fn goes_as_it_is(frame: &Frame) -> bool {
    let bytes = frame.bytes().len();
    bytes > EXPANDED_BYTES_MAX || bytes > frame.len() * COMPACT_EVENT_BYTES_MAX
}

/// Appends a frame in the form it has in records, for [`expand`](crate::frame::expand).
pub(crate) fn put_frame(frame: &Frame, out: &mut Vec<u8>) {
    match goes_as_it_is(frame) {
        true => out.extend_from_slice(frame.bytes()),
        false => compact(frame, out),
    }
}
