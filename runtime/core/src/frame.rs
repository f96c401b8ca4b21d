//! The packed frame: reading, checking and building the unit that crosses every seam.
//!
//! `wit/FRAME.md` is the specification, byte by byte; this file is its host side.
//!
//! - A [`Frame`] exists only for bytes that passed [`Frame::parse`]; reading one cannot fail.
//! - [`FrameBuilder`] writes only frames that would pass, given checked parts.
//! - Reading copies nothing, and building copies each part once.
//!
//! What a frame is for, who may write which field, and what a cause means is decided in
//! [`crate::layer`].

mod build;
pub(crate) mod compact;
mod event;
mod trace;

pub use build::{FrameBuilder, Mark};
pub(crate) use build::{STAGE_BYTES, Staged};
pub use compact::expand;
pub(crate) use event::Simple;
pub use event::{Event, Fields, Head, Kind, NO_CAUSE, field, push_field};
pub use trace::{TRACEPARENT_BYTES, TraceContext};

use bytes::Bytes;

use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_HARD};

/// First four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"SBXF";
/// The format this code writes, and the newest it reads.
pub const FORMAT: u16 = 1;
/// Bytes before the first event.
pub const HEADER_BYTES: usize = 16;
/// Bytes of an event before its key.
pub const HEAD_BYTES: usize = 32;

/// What a frame may hold, where it enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most events.
    pub events: usize,
    /// Most bytes, header included.
    pub bytes: usize,
    /// Most bytes of one event, head included.
    pub event_bytes: usize,
}

impl FrameLimits {
    /// What a stage is given at once.
    pub const BATCH: Self =
        Self { events: BATCH_EVENTS_MAX, bytes: BATCH_BYTES_MAX, event_bytes: EVENT_BYTES_HARD };
    /// No bound but those of the format itself; for bytes we wrote ourselves.
    pub const FORMAT: Self = Self {
        events: u32::MAX as usize,
        bytes: u32::MAX as usize,
        event_bytes: u32::MAX as usize,
    };
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header, or the header's magic is another.
    #[error("not a frame: it does not begin with the 16-byte header 'SBXF' of wit/FRAME.md")]
    Magic,
    /// Written for readers newer than this one.
    #[error("the frame needs a reader of format {needed}; this one reads up to {FORMAT}")]
    Newer {
        /// The header's minimum reader.
        needed: u16,
    },
    /// The header's length is not the number of bytes there are.
    #[error("the header says {said} bytes, there are {found}")]
    Length {
        /// From the header.
        said: u32,
        /// Bytes at hand.
        found: usize,
    },
    /// Larger than allowed here.
    #[error("the frame has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes at hand.
        found: usize,
        /// The limit in force.
        limit: usize,
    },
    /// More events than allowed here.
    #[error("the frame has {found} events, at most {limit} are allowed")]
    TooMany {
        /// From the header.
        found: u32,
        /// The limit in force.
        limit: usize,
    },
    /// The events do not fill the frame exactly.
    #[error("{left} bytes follow the last event")]
    Trailing {
        /// Bytes left over.
        left: usize,
    },
    /// The compact form of a frame in a record is wrong.
    #[error("a compact frame cannot be read: {0}")]
    Compact(&'static str),
    /// One event is wrong.
    #[error("event {index}: {fault}")]
    Event {
        /// Which, counted from 0.
        index: u32,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The frame ends inside it.
    #[error("the frame ends inside it")]
    Truncated,
    /// `size` is not the sum of its parts.
    #[error("its size is not 32 + key + payload + fields")]
    Size,
    /// An unknown kind.
    #[error("its kind is none of 0 data, 1 timer, 2 open, 3 end")]
    Kind,
    /// Flags other than 0.
    #[error("its flags are not 0")]
    Flags,
    /// The key is too long.
    #[error("its key is longer than 512 bytes")]
    KeyLength,
    /// The key is not UTF-8.
    #[error("its key is not UTF-8")]
    KeyUtf8,
    /// The time is too large.
    #[error("its time is not below 2^53 microseconds")]
    Time,
    /// The fields do not fill their part.
    #[error("its extension fields are malformed or longer than 16384 bytes")]
    Fields,
    /// Larger than allowed here.
    #[error("it is larger than the {limit} bytes allowed for an event")]
    TooLarge {
        /// The limit in force.
        limit: usize,
    },
}

/// A checked frame. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    count: u32,
    /// No event has extension fields. False says nothing.
    plain: bool,
}

/// Frames of the same events have the same bytes, and everything else follows from these.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Frame {}

impl Frame {
    /// Checks `bytes` against the format and `limits`.
    ///
    /// # Errors
    /// The first thing that is wrong, with the index of the event it is wrong in.
    pub fn parse(bytes: Bytes, limits: &FrameLimits) -> Result<Self, FrameError> {
        let (count, plain) = scan(&bytes, limits)?;
        Ok(Self { bytes, count, plain })
    }

    /// The whole frame, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole frame, header included, and nothing else of it.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if it is known that no event has extension fields, which is then true of all of them.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The events in order.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events { rest: &self.bytes[HEADER_BYTES..], left: self.count }
    }

    /// Writes where each event begins, and the frame's end behind the last, into `starts`.
    /// Reuses its memory.
    pub fn index_into(&self, starts: &mut Vec<u32>) {
        starts.clear();
        let mut at = HEADER_BYTES as u32;
        for _ in 0..self.count {
            starts.push(at);
            at += event::size_at(&self.bytes, at as usize);
        }
        starts.push(at);
    }

    /// The event that begins at `start`, one of the offsets of [`Frame::index_into`].
    #[inline]
    #[must_use]
    pub fn event_at(&self, start: u32) -> Event<'_> {
        event::read(&self.bytes[start as usize..]).0
    }

    /// The key of the event that begins at `start`.
    #[inline]
    pub(crate) fn key_at(&self, start: u32) -> &[u8] {
        let (length, bytes) = self.key_onward(start);
        &bytes[..length]
    }

    /// The length of the key of the event that begins at `start`, and all bytes from that key on.
    #[inline(always)]
    pub(crate) fn key_onward(&self, start: u32) -> (usize, &[u8]) {
        event::key_onward(&self.bytes, start as usize)
    }

    /// Where the event behind the one at `start` begins.
    #[inline]
    pub(crate) fn after(&self, start: u32) -> u32 {
        start + event::size_at(&self.bytes, start as usize)
    }
}

/// Checks a frame in place and gives its number of events.
///
/// # Errors
/// As [`Frame::parse`].
pub fn check(bytes: &[u8], limits: &FrameLimits) -> Result<u32, FrameError> {
    scan(bytes, limits).map(|(count, _)| count)
}

/// Number of events, and whether none of them has extension fields.
fn scan(bytes: &[u8], limits: &FrameLimits) -> Result<(u32, bool), FrameError> {
    let mut reader = CheckedEvents::new(bytes, limits)?;
    let count = reader.left;
    let mut plain = true;
    while let Some(event) = reader.next_event()? {
        plain &= event.fields.is_empty();
    }
    Ok((count, plain))
}

/// The events of bytes that are not yet known to be a frame: each is checked just before it is
/// given out. For code that checks and uses events in one pass and can undo what it did.
#[derive(Debug, Clone)]
pub struct CheckedEvents<'a> {
    rest: &'a [u8],
    left: u32,
    index: u32,
    event_bytes_max: usize,
}

impl<'a> CheckedEvents<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// Every [`FrameError`] but `Event` and `Trailing`.
    pub fn new(bytes: &'a [u8], limits: &FrameLimits) -> Result<Self, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Magic);
        };
        let [m0, m1, m2, m3, _, _, n0, n1, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        let needed = u16::from_le_bytes([n0, n1]);
        if needed > FORMAT {
            return Err(FrameError::Newer { needed });
        }
        let said = u32::from_le_bytes([l0, l1, l2, l3]);
        if said as usize != bytes.len() {
            return Err(FrameError::Length { said, found: bytes.len() });
        }
        if bytes.len() > limits.bytes {
            return Err(FrameError::TooLarge { found: bytes.len(), limit: limits.bytes });
        }
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        if count as usize > limits.events {
            return Err(FrameError::TooMany { found: count, limit: limits.events });
        }
        Ok(Self { rest, left: count, index: 0, event_bytes_max: limits.event_bytes })
    }

    /// The next event, `None` behind the last.
    ///
    /// # Errors
    /// `Event` for the first bad one, `Trailing` if bytes are left behind the last.
    #[inline(always)]
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>, FrameError> {
        if self.left == 0 {
            return match self.rest.len() {
                0 => Ok(None),
                left => Err(FrameError::Trailing { left }),
            };
        }
        match event::read_checked(self.rest, self.event_bytes_max) {
            Ok((event, rest)) => {
                self.rest = rest;
                self.left -= 1;
                self.index += 1;
                Ok(Some(event))
            }
            Err(fault) => Err(FrameError::Event { index: self.index, fault }),
        }
    }
}

impl<'a> CheckedEvents<'a> {
    /// Events not given out yet.
    pub(crate) fn len(&self) -> usize {
        self.left as usize
    }

    /// The next event if it is a simple one, without a step on to the one behind it.
    #[inline(always)]
    pub(crate) fn peek_simple(&self) -> Option<Simple<'a>> {
        if self.left == 0 {
            return None;
        }
        event::read_simple(self.rest, self.event_bytes_max)
    }

    /// Goes on behind the event that was just peeked at.
    #[inline(always)]
    pub(crate) fn skip(&mut self, event: &Simple<'a>) {
        self.rest = &event.payload_on[event.payload_bytes..];
        self.left -= 1;
        self.index += 1;
    }
}

/// The events of a checked frame, in order.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (event, rest) = event::read(self.rest);
        self.rest = rest;
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Events<'_> {}

#[cfg(test)]
mod tests;
