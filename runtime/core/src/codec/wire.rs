//! Numbers, texts and frames in a record: written one way, read with every check.
//!
//! - A number is a LEB128 varint in its shortest form: seven bits a byte, the lowest first, the top
//!   bit set on all but the last. Another form is refused, so that equal records have equal bytes.
//! - A length is compared with the bytes that are left before anything is done with it, and a count
//!   with how many items could be there at all.

use std::ops::Range;

use super::{FORMAT, Fault, FrameAt, RecordError};
use crate::frame::compact::{self, COMPACT, COMPACT_BYTES_MIN};
use crate::ids::Name;
use crate::limits::{KEY_GROUPS, NODE_BYTES_MAX, TIME_END};

/// Least bytes of a frame with an event, behind its length.
pub(crate) const FRAME_BYTES_MIN: usize = 1 + COMPACT_BYTES_MIN;

/// The first format with frames in their compact form.
const FORMAT_OF_COMPACT: u8 = 2;

/// Most items room is made for before the first of them was read.
const ITEMS_AT_ONCE: usize = 1024;

/// Appends a number.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends bytes behind their length.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a record's body from its beginning to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    kind: u8,
    body: &'a [u8],
    at: usize,
    /// The format the body is written in.
    format: u8,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(kind: u8, body: &'a [u8]) -> Self {
        Self { kind, body, at: 0, format: FORMAT }
    }

    /// Reads on behind the first `at` bytes of a body.
    pub(crate) fn behind(kind: u8, body: &'a [u8], at: usize) -> Self {
        Self { kind, body, at, format: FORMAT }
    }

    /// The first two bytes: what wrote this, and who can read it.
    pub(crate) fn format(&mut self) -> Result<(), RecordError> {
        let format = self.byte("the format")?;
        let needed = self.byte("the format")?;
        if needed > FORMAT {
            return Err(self.error(Fault::Newer(needed)));
        }
        if needed == 0 || format < needed {
            return Err(self.bad("the format"));
        }
        self.format = format;
        Ok(())
    }

    /// The oldest format whose readers understand the record.
    pub(crate) fn needed(&self) -> u8 {
        self.body.get(1).copied().unwrap_or_default()
    }

    /// How many partitions a pipeline has.
    pub(crate) fn partitions(&mut self) -> Result<u16, RecordError> {
        let number = self.number("the partitions")?;
        let partitions = u16::try_from(number).ok().filter(|n| (1..=KEY_GROUPS).contains(n));
        partitions.ok_or_else(|| self.bad("the partitions"))
    }

    /// Where it stands.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// An error at the place it stands at.
    #[cold]
    pub(crate) fn error(&self, fault: Fault) -> RecordError {
        RecordError { kind: self.kind, at: self.at, fault }
    }

    /// A value that cannot be.
    #[cold]
    pub(crate) fn bad(&self, part: &'static str) -> RecordError {
        self.error(Fault::Value(part))
    }

    /// Everything from where it stands to the end.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.body[self.at..];
        self.at = self.body.len();
        rest
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.body.len()
    }

    pub(crate) fn byte(&mut self, part: &'static str) -> Result<u8, RecordError> {
        let byte = self.body.get(self.at).copied();
        let byte = byte.ok_or_else(|| self.error(Fault::Truncated(part)))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn number(&mut self, part: &'static str) -> Result<u64, RecordError> {
        match self.body.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_number(part),
        }
    }

    fn long_number(&mut self, part: &'static str) -> Result<u64, RecordError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(part)?;
            let bits = u64::from(byte & 0x7F);
            let fits = shift < 63 || bits <= 1;
            if !fits || (byte == 0 && shift > 0) {
                return Err(self.bad(part));
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.bad(part))
    }

    pub(crate) fn number_u32(&mut self, part: &'static str) -> Result<u32, RecordError> {
        let number = self.number(part)?;
        u32::try_from(number).map_err(|_| self.bad(part))
    }

    /// A number that is not 0.
    pub(crate) fn positive(&mut self, part: &'static str) -> Result<u64, RecordError> {
        match self.number(part)? {
            0 => Err(self.bad(part)),
            number => Ok(number),
        }
    }

    /// The index of a partition.
    pub(crate) fn partition(&mut self, part: &'static str) -> Result<u16, RecordError> {
        let number = self.number(part)?;
        let partition = u16::try_from(number).ok().filter(|partition| *partition < KEY_GROUPS);
        partition.ok_or_else(|| self.bad(part))
    }

    /// How many items follow, each of which takes at least `least` bytes.
    pub(crate) fn count(&mut self, least: usize, part: &'static str) -> Result<usize, RecordError> {
        let number = self.number(part)?;
        let most = (self.body.len() - self.at) / least;
        let count = usize::try_from(number).ok().filter(|count| *count <= most);
        count.ok_or_else(|| self.error(Fault::Truncated(part)))
    }

    /// The next `length` bytes, as a range of the body.
    fn take(&mut self, length: u64, part: &'static str) -> Result<Range<usize>, RecordError> {
        let left = self.body.len() - self.at;
        let length = usize::try_from(length).ok().filter(|length| *length <= left);
        let length = length.ok_or_else(|| self.error(Fault::Truncated(part)))?;
        let from = self.at;
        self.at += length;
        Ok(from..self.at)
    }

    /// Bytes behind their length, at most `most`.
    #[inline]
    pub(crate) fn bytes(
        &mut self,
        most: usize,
        part: &'static str,
    ) -> Result<&'a [u8], RecordError> {
        let length = self.number(part)?;
        if length > most as u64 {
            return Err(self.bad(part));
        }
        let range = self.take(length, part)?;
        Ok(&self.body[range])
    }

    pub(crate) fn hash(&mut self, part: &'static str) -> Result<u128, RecordError> {
        let range = self.take(16, part)?;
        let bytes = self.body[range].first_chunk();
        bytes.map(|bytes| u128::from_le_bytes(*bytes)).ok_or_else(|| self.bad(part))
    }

    pub(crate) fn text(&mut self, most: usize, part: &'static str) -> Result<&'a str, RecordError> {
        let bytes = self.bytes(most, part)?;
        std::str::from_utf8(bytes).map_err(|_| self.bad(part))
    }

    pub(crate) fn name(&mut self, part: &'static str) -> Result<Name, RecordError> {
        let text = self.text(crate::limits::NAME_BYTES_MAX, part)?;
        Name::new(text).map_err(|_| self.bad(part))
    }

    /// The name of a node.
    pub(crate) fn node(&mut self, part: &'static str) -> Result<String, RecordError> {
        match self.text(NODE_BYTES_MAX, part)? {
            "" => Err(self.bad(part)),
            name => Ok(name.to_owned()),
        }
    }

    /// The name of a node, or none, which is written as no bytes.
    pub(crate) fn node_or_none(
        &mut self,
        part: &'static str,
    ) -> Result<Option<String>, RecordError> {
        let name = self.text(NODE_BYTES_MAX, part)?;
        Ok((!name.is_empty()).then(|| name.to_owned()))
    }

    /// A number of items of which each is read by `read`.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        part: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        let count = self.count(least, part)?;
        // The rest of the room is made as items turn out to be there.
        let mut items = Vec::with_capacity(count.min(ITEMS_AT_ONCE));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// A frame of at least one event behind its length. Its header is checked here, its events by
    /// whoever takes it out.
    pub(crate) fn frame(&mut self, part: &'static str) -> Result<FrameAt, RecordError> {
        let length = self.number(part)?;
        let range = self.take(length, part)?;
        let frame = &self.body[range.clone()];
        if self.format < FORMAT_OF_COMPACT && frame.first() == Some(&COMPACT) {
            return Err(self.bad(part));
        }
        let (events, bytes) =
            compact::header(frame).map_err(|error| self.error(Fault::Frame(error)))?;
        if events == 0 {
            return Err(self.bad(part));
        }
        Ok(FrameAt { range, events, bytes })
    }

    /// An event time.
    pub(crate) fn time(&mut self, part: &'static str) -> Result<u64, RecordError> {
        let time = self.number(part)?;
        if time < TIME_END { Ok(time) } else { Err(self.bad(part)) }
    }

    /// What later writers of this format may have added: skipped.
    pub(crate) fn extensions(&mut self) -> Result<(), RecordError> {
        self.extensions_known(|_, _| Ok(()))
    }

    /// Gives out each extension by its id; what `take` does not read of it is skipped.
    pub(crate) fn extensions_known(
        &mut self,
        mut take: impl FnMut(u64, &mut Self) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        while !self.is_at_end() {
            let id = self.number("an extension's id")?;
            let length = self.number("an extension")?;
            let range = self.take(length, "an extension")?;
            let body = &self.body[..range.end];
            take(id, &mut Self { kind: self.kind, body, at: range.start, format: self.format })?;
        }
        Ok(())
    }
}
