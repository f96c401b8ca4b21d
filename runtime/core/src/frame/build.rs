//! Building frames: append events, take the finished block, use the memory again.

use bytes::Bytes;

use super::event::{Simple, Words, are_plain};
use super::{FORMAT, Frame, HEAD_BYTES, HEADER_BYTES, Head, MAGIC};

/// Room a finished frame may have beyond its bytes; it may wait for a reader for a long time.
const SLACK_BYTES: usize = 4 * 1024;

/// A frame under construction. Keeps its memory when cleared or rolled back.
#[derive(Debug, Clone, Default)]
pub struct FrameBuilder {
    /// Header space and the events so far; empty while there is no event.
    buf: Vec<u8>,
    count: u32,
    /// An event with extension fields was appended. Rolling it back does not change that.
    has_fields: bool,
    /// Bytes of the frame before: the next one is expected to be like it.
    expected: usize,
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
        Self { buf: Vec::new(), count: 0, has_fields: false, expected: 0 }
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

    /// Makes room for events that take so many bytes together, so that adding them moves nothing.
    pub fn reserve(&mut self, bytes: usize) {
        self.make_room(bytes);
        if self.count == 0 {
            // The header is written with the first event.
            self.buf.clear();
        }
    }

    /// Appends one event. The parts must be within the format's limits: a key of at most 512
    /// bytes of UTF-8, well-formed fields, a time below 2^53.
    #[inline(always)]
    pub fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        let words = Words::of(head, key.len(), payload.len(), fields.len());
        self.make_room(HEAD_BYTES + key.len() + payload.len() + fields.len());
        self.buf.extend_from_slice(&words.to_bytes());
        self.buf.extend_from_slice(key);
        self.buf.extend_from_slice(payload);
        if !fields.is_empty() {
            self.has_fields = true;
            self.buf.extend_from_slice(fields);
        }
        self.count += 1;
    }

    /// Appends what was staged, and empties the stage.
    pub(crate) fn push_staged(&mut self, staged: &mut Staged<'_>) {
        if staged.count > 0 {
            self.make_room(staged.end);
            self.buf.extend_from_slice(&staged.bytes[..staged.end]);
            self.count += staged.count;
            (staged.end, staged.count) = (0, 0);
        }
    }

    /// As [`FrameBuilder::push`], with the packed fields in two pieces.
    pub fn push_split(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: [&[u8]; 2]) {
        let fields_len = fields[0].len() + fields[1].len();
        let words = Words::of(head, key.len(), payload.len(), fields_len);
        self.make_room(HEAD_BYTES + key.len() + payload.len() + fields_len);
        for part in [&words.to_bytes(), key, payload, fields[0], fields[1]] {
            self.buf.extend_from_slice(part);
        }
        self.has_fields |= fields_len > 0;
        self.count += 1;
    }

    /// Appends `count` whole events, copied from a checked frame.
    pub fn push_packed(&mut self, events: &[u8], count: u32) {
        if count > 0 {
            self.make_room(events.len());
            self.buf.extend_from_slice(events);
            self.has_fields |= !are_plain(events);
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
        self.has_fields = false;
    }

    /// The finished frame. The builder is empty afterwards and owns no memory.
    #[must_use]
    pub fn finish(&mut self) -> Frame {
        self.open();
        let length = self.buf.len() as u32;
        self.buf[8..12].copy_from_slice(&self.count.to_le_bytes());
        self.buf[12..16].copy_from_slice(&length.to_le_bytes());
        let mut buf = std::mem::take(&mut self.buf);
        self.expected = buf.len();
        if buf.capacity() - buf.len() > SLACK_BYTES.max(buf.len() / 4) {
            buf.shrink_to_fit();
        }
        let count = std::mem::take(&mut self.count);
        let plain = !std::mem::take(&mut self.has_fields);
        Frame { bytes: Bytes::from(buf), count, plain }
    }

    /// Makes sure that there is a header and room for an event behind what is there.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.buf.is_empty() || self.buf.capacity() - self.buf.len() < bytes {
            self.open();
            self.buf.reserve(bytes);
        }
    }

    /// Writes the header, with count and length still open, if it is not there.
    #[cold]
    fn open(&mut self) {
        if !self.buf.is_empty() {
            return;
        }
        // A little more than last time, so that frames of nearly equal size never grow.
        self.buf.reserve(self.expected + self.expected / 8);
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        header[6..8].copy_from_slice(&FORMAT.to_le_bytes());
        self.buf.extend_from_slice(&header);
    }
}

/// Room for small events on their way into a builder.
pub(crate) const STAGE_BYTES: usize = 4 * 1024;

/// Keys up to this length, and payloads up to that, are copied without a call. Most events of a
/// stream are about as small.
const KEY_BLOCK: usize = 16;
const PAYLOAD_BLOCK: usize = 64;

/// Small events on their way into a builder, packed. The place to write at is a local number here;
/// behind a growing buffer it would go through memory for every piece of every event.
pub(crate) struct Staged<'a> {
    bytes: &'a mut [u8; STAGE_BYTES],
    end: usize,
    count: u32,
}

impl<'a> Staged<'a> {
    pub(crate) fn new(bytes: &'a mut [u8; STAGE_BYTES]) -> Self {
        Self { bytes, end: 0, count: 0 }
    }

    /// Appends an emitted event under a key: its length, and bytes that begin with it. False if
    /// there is no room.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&mut self, input: u16, event: &Simple<'_>, key: (usize, &[u8])) -> bool {
        let (key_bytes, payload_bytes) = (key.0, event.payload_bytes);
        let most = HEAD_BYTES + key_bytes + payload_bytes + KEY_BLOCK + PAYLOAD_BLOCK;
        let Some(place) = self.bytes.get_mut(self.end..self.end + most) else { return false };
        let head = Head { input, ..Head::data(event.time) };
        place[..HEAD_BYTES]
            .copy_from_slice(&Words::of(&head, key_bytes, payload_bytes, 0).to_bytes());
        let parts = &mut place[HEAD_BYTES..];
        copy_short::<KEY_BLOCK>(parts, key.1, key_bytes);
        copy_short::<PAYLOAD_BLOCK>(&mut parts[key_bytes..], event.payload_on, payload_bytes);
        self.end += HEAD_BYTES + key_bytes + payload_bytes;
        self.count += 1;
        true
    }
}

/// Copies the first `len` of `from`. A short piece is copied as a block of fixed size, with
/// whatever follows it: what comes next overwrites that.
#[inline(always)]
fn copy_short<const BLOCK: usize>(to: &mut [u8], from: &[u8], len: usize) {
    match (to.first_chunk_mut::<BLOCK>(), from.first_chunk::<BLOCK>()) {
        (Some(to), Some(from)) if len <= BLOCK => *to = *from,
        _ => to[..len].copy_from_slice(&from[..len]),
    }
}
