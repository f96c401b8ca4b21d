//! Building frames: append events, take the finished block, use the memory again.

use bytes::Bytes;

use super::{FORMAT, Frame, HEAD_BYTES, HEADER_BYTES, Head, MAGIC};

/// A frame under construction. Keeps its memory when cleared or rolled back.
#[derive(Debug, Clone, Default)]
pub struct FrameBuilder {
    /// Header space and the events so far; empty while there is no event.
    buf: Vec<u8>,
    count: u32,
}

/// A point in a builder to roll back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    bytes: usize,
    count: u32,
}

impl FrameBuilder {
    /// An empty builder that owns no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { buf: Vec::new(), count: 0 }
    }

    /// Number of events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if no event was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the frame as it stands, header included.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.buf.len().max(HEADER_BYTES)
    }

    /// Appends one event. The parts must be within the format's limits: a key of at most 512
    /// bytes of UTF-8, well-formed fields, a time below 2^53.
    #[inline]
    pub fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        self.push_split(head, key, payload, [fields, &[]]);
    }

    /// As [`FrameBuilder::push`], with the packed fields in two pieces.
    #[inline]
    pub fn push_split(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: [&[u8]; 2]) {
        self.open();
        let fields_len = fields[0].len() + fields[1].len();
        let size = HEAD_BYTES + key.len() + payload.len() + fields_len;
        self.buf.reserve(size);
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&(size as u32).to_le_bytes());
        bytes[4] = head.kind as u8;
        bytes[6..8].copy_from_slice(&head.input.to_le_bytes());
        bytes[8..10].copy_from_slice(&head.port.to_le_bytes());
        bytes[10..12].copy_from_slice(&(key.len() as u16).to_le_bytes());
        bytes[12..16].copy_from_slice(&head.cause.to_le_bytes());
        bytes[16..24].copy_from_slice(&head.time.to_le_bytes());
        bytes[24..28].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[28..].copy_from_slice(&(fields_len as u32).to_le_bytes());
        self.buf.extend_from_slice(&bytes);
        self.buf.extend_from_slice(key);
        self.buf.extend_from_slice(payload);
        self.buf.extend_from_slice(fields[0]);
        self.buf.extend_from_slice(fields[1]);
        self.count += 1;
    }

    /// Appends `count` whole events, copied from a checked frame.
    pub fn push_packed(&mut self, events: &[u8], count: u32) {
        if count > 0 {
            self.open();
            self.buf.extend_from_slice(events);
            self.count += count;
        }
    }

    /// Where the builder stands now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.buf.len(), count: self.count }
    }

    /// Drops every event appended since `mark` was taken.
    pub fn rollback(&mut self, mark: Mark) {
        self.buf.truncate(mark.bytes);
        self.count = mark.count;
    }

    /// Forgets all events, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.count = 0;
    }

    /// The finished frame. The builder is empty afterwards and owns no memory.
    #[must_use]
    pub fn finish(&mut self) -> Frame {
        self.open();
        let length = self.buf.len() as u32;
        self.buf[8..12].copy_from_slice(&self.count.to_le_bytes());
        self.buf[12..16].copy_from_slice(&length.to_le_bytes());
        let count = std::mem::take(&mut self.count);
        Frame { bytes: Bytes::from(std::mem::take(&mut self.buf)), count }
    }

    /// Writes the header, with count and length still open, before the first event.
    #[inline]
    fn open(&mut self) {
        if self.buf.is_empty() {
            let mut header = [0; HEADER_BYTES];
            header[..4].copy_from_slice(&MAGIC);
            header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
            header[6..8].copy_from_slice(&FORMAT.to_le_bytes());
            self.buf.extend_from_slice(&header);
        }
    }
}
