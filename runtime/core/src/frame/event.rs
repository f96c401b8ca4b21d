//! One event: its head, its parts, its extension fields, and the checks on each.

use std::fmt;

use super::{Fault, HEAD_BYTES};
use crate::limits::{FIELDS_BYTES_MAX, KEY_BYTES_MAX, TIME_END};

/// Cause of an event that no other event of the call caused.
pub const NO_CAUSE: u32 = u32::MAX;

/// Ids of the extension fields the host knows; the table is in `wit/FRAME.md`.
pub mod field {
    /// A W3C `traceparent`.
    pub const TRACE_CONTEXT: u16 = 1;
    /// Ties the event to a waiting request.
    pub const REQUEST: u16 = 2;
    /// Handles lent by the host.
    pub const ATTACHMENTS: u16 = 3;
    /// Name of the stage of the segment a replayed event enters by; no stage sees it.
    pub const ENTRY: u16 = 4;
    /// CloudEvents `id`.
    pub const EVENT_ID: u16 = 256;
    /// CloudEvents `source`.
    pub const EVENT_SOURCE: u16 = 257;
    /// Media type of the payload.
    pub const CONTENT_TYPE: u16 = 258;
    /// CloudEvents `type`.
    pub const EVENT_TYPE: u16 = 259;
    /// CloudEvents `subject`.
    pub const EVENT_SUBJECT: u16 = 260;
    /// Ids below this belong to the host.
    pub const HOST_END: u16 = 256;
}

/// Why an event is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Something a producer sent or a stage emitted.
    Data = 0,
    /// A wake-up its key asked for.
    Timer = 1,
    /// A stream begins.
    Open = 2,
    /// A stream ends.
    End = 3,
}

impl Kind {
    /// The kind with this byte on the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Data),
            1 => Some(Self::Timer),
            2 => Some(Self::Open),
            3 => Some(Self::End),
            _ => None,
        }
    }
}

/// The fixed part of an event, without the lengths, which follow from the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Why it is here.
    pub kind: Kind,
    /// Input of the receiving stage.
    pub input: u16,
    /// Port it leaves or left by.
    pub port: u16,
    /// Index of the causing event in the call's frame, or [`NO_CAUSE`].
    pub cause: u32,
    /// Microseconds since 1970, below 2^53.
    pub time: u64,
}

impl Head {
    /// A data event from outside: input 0, port 0, no cause.
    #[must_use]
    pub const fn data(time: u64) -> Self {
        Self { kind: Kind::Data, input: 0, port: 0, cause: NO_CAUSE, time }
    }
}

/// An event, borrowed from its frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The fixed part.
    pub head: Head,
    /// UTF-8, at most 512 bytes.
    pub key: &'a [u8],
    /// Any bytes.
    pub payload: &'a [u8],
    /// The extension fields, packed.
    pub fields: Fields<'a>,
}

impl<'a> Event<'a> {
    /// The key as text. Checked frames have no other; should one slip through, an empty text.
    #[must_use]
    pub fn key_str(&self) -> &'a str {
        std::str::from_utf8(self.key).unwrap_or_default()
    }

    /// Bytes this event takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        HEAD_BYTES + self.key.len() + self.payload.len() + self.fields.0.len()
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("head", &self.head)
            .field("key", &self.key_str())
            .field("payload", &self.payload.escape_ascii().to_string())
            .field("fields", &self.fields)
            .finish()
    }
}

/// Packed extension fields of one event, known to be well-formed.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks packed fields.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split(rest)?.2;
        }
        (bytes.len() <= FIELDS_BYTES_MAX).then_some(Self(bytes))
    }

    /// The packed bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Value of the first field with this id.
    #[must_use]
    pub fn get(&self, id: u16) -> Option<&'a [u8]> {
        self.iter().find_map(|(found, value)| (found == id).then_some(value))
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (id, value, behind) = split(rest)?;
            rest = behind;
            Some((id, value))
        })
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(id, v)| (id, v.escape_ascii().to_string())))
            .finish()
    }
}

/// Appends one field to packed fields under construction; false, and nothing appended, if the
/// event's fields would become larger than the format allows.
#[must_use]
pub fn push_field(out: &mut Vec<u8>, id: u16, value: &[u8]) -> bool {
    let fits = out.len() + 4 + value.len() <= FIELDS_BYTES_MAX;
    if fits {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(value);
    }
    fits
}

/// The first field and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let ([i0, i1, n0, n1], rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes([*n0, *n1]).into())?;
    Some((u16::from_le_bytes([*i0, *i1]), value, rest))
}

/// A head as it lies in a frame, in four words; nothing in it is believed yet. Loads of whole words
/// keep the compiler from putting an event together in memory piece by piece, for every event.
#[derive(Clone, Copy)]
pub(super) struct Words([u64; HEAD_BYTES / 8]);

impl Words {
    #[inline]
    fn load(head: &[u8; HEAD_BYTES]) -> Self {
        let (words, _) = head.as_chunks();
        Self(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    /// The words of a head with parts of these lengths, which are within the format's limits.
    #[inline]
    pub(super) fn of(head: &Head, key: usize, payload: usize, fields: usize) -> Self {
        let size = (HEAD_BYTES + key + payload + fields) as u32;
        Self([
            u64::from(size) | (head.kind as u64) << 32 | u64::from(head.input) << 48,
            u64::from(head.port) | (key as u64) << 16 | u64::from(head.cause) << 32,
            head.time,
            payload as u64 | (fields as u64) << 32,
        ])
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    #[inline]
    fn size(self) -> usize {
        self.0[0] as u32 as usize
    }

    #[inline]
    fn kind(self) -> u8 {
        (self.0[0] >> 32) as u8
    }

    #[inline]
    fn flags(self) -> u8 {
        (self.0[0] >> 40) as u8
    }

    #[inline]
    fn key_bytes(self) -> usize {
        usize::from((self.0[1] >> 16) as u16)
    }

    #[inline]
    fn payload_bytes(self) -> usize {
        self.0[3] as u32 as usize
    }

    #[inline]
    fn fields_bytes(self) -> usize {
        (self.0[3] >> 32) as usize
    }

    #[inline]
    fn head(self, kind: Kind) -> Head {
        Head {
            kind,
            input: (self.0[0] >> 48) as u16,
            port: self.0[1] as u16,
            cause: (self.0[1] >> 32) as u32,
            time: self.0[2],
        }
    }

    /// The first event of `bytes`, which begin with this head, and what follows it.
    #[inline(always)]
    fn split(self, kind: Kind, bytes: &[u8]) -> (Event<'_>, &[u8]) {
        let (event, rest) = bytes.split_at(self.size());
        let (key, parts) = event[HEAD_BYTES..].split_at(self.key_bytes());
        let (payload, fields) = parts.split_at(self.payload_bytes());
        (Event { head: self.head(kind), key, payload, fields: Fields(fields) }, rest)
    }

    /// What is wrong with the head of the first event of `bytes`.
    #[cold]
    #[inline(never)]
    fn fault(self, event_bytes_max: usize) -> Fault {
        if Kind::from_byte(self.kind()).is_none() {
            Fault::Kind
        } else if self.flags() != 0 {
            Fault::Flags
        } else if self.key_bytes() > KEY_BYTES_MAX {
            Fault::KeyLength
        } else if self.0[2] >= TIME_END {
            Fault::Time
        } else if self.size() > event_bytes_max {
            Fault::TooLarge { limit: event_bytes_max }
        } else if self.size() != self.sum() {
            Fault::Size
        } else {
            Fault::Truncated
        }
    }

    /// What the size must be. Cannot overflow: three numbers of 32 bits at most.
    #[inline]
    fn sum(self) -> usize {
        HEAD_BYTES + self.key_bytes() + self.payload_bytes() + self.fields_bytes()
    }
}

/// The head of the event that begins at `at` in a checked frame.
#[inline]
fn words_at(bytes: &[u8], at: usize) -> Words {
    let head = bytes.get(at..at + HEAD_BYTES).and_then(<[u8]>::first_chunk);
    Words::load(head.expect("a checked frame holds whole events"))
}

/// Size of the event that begins at `at` in a checked frame.
#[inline]
pub(super) fn size_at(bytes: &[u8], at: usize) -> u32 {
    words_at(bytes, at).size() as u32
}

/// The length of the key of the event that begins at `at` in a checked frame, and all bytes from
/// that key on.
#[inline(always)]
pub(super) fn key_onward(bytes: &[u8], at: usize) -> (usize, &[u8]) {
    (words_at(bytes, at).key_bytes(), &bytes[at + HEAD_BYTES..])
}

/// True if none of these whole events has extension fields.
pub(super) fn are_plain(events: &[u8]) -> bool {
    let mut at = 0;
    let mut fields = 0;
    while at < events.len() {
        let words = words_at(events, at);
        fields |= words.fields_bytes();
        at += words.size();
    }
    fields == 0
}

/// Reads the first event of bytes that passed the check.
#[inline]
pub(super) fn read(bytes: &[u8]) -> (Event<'_>, &[u8]) {
    let words = words_at(bytes, 0);
    words.split(Kind::from_byte(words.kind()).unwrap_or(Kind::Data), bytes)
}

/// Reads and checks the first event of `bytes`.
#[inline(always)]
pub(super) fn read_checked(
    bytes: &[u8],
    event_bytes_max: usize,
) -> Result<(Event<'_>, &[u8]), Fault> {
    let head = bytes.first_chunk().ok_or(Fault::Truncated)?;
    let words = Words::load(head);
    let Some(kind) = Kind::from_byte(words.kind()) else {
        return Err(Fault::Kind);
    };
    let sound = words.flags() == 0
        && words.key_bytes() <= KEY_BYTES_MAX
        && words.0[2] < TIME_END
        && words.size() <= event_bytes_max
        && words.size() == words.sum()
        && words.size() <= bytes.len();
    if !sound {
        return Err(words.fault(event_bytes_max));
    }
    let (event, rest) = words.split(kind, bytes);
    if !event.key.is_empty() && !is_text(event.key) {
        return Err(Fault::KeyUtf8);
    }
    if !event.fields.0.is_empty() && Fields::parse(event.fields.0).is_none() {
        return Err(Fault::Fields);
    }
    Ok((event, rest))
}

/// An event as most stages emit them: data on port 0, with neither key nor fields of its own.
pub(crate) struct Simple<'a> {
    pub(crate) cause: u32,
    pub(crate) time: u64,
    pub(crate) payload_bytes: usize,
    /// All bytes from its payload on, those of later events too.
    pub(crate) payload_on: &'a [u8],
}

/// Reads and checks the first event of `bytes` if it is a simple one; whether another one is sound
/// is for [`read_checked`] to say.
#[inline(always)]
pub(super) fn read_simple(bytes: &[u8], event_bytes_max: usize) -> Option<Simple<'_>> {
    let words = Words::load(bytes.first_chunk()?);
    let [first, second, time, lengths] = words.0;
    // Kind and flags, port and key length, fields length.
    let simple = (first >> 32) as u16 == 0 && second as u32 == 0 && lengths >> 32 == 0;
    let size = words.size();
    let sound = time < TIME_END
        && size == HEAD_BYTES + words.payload_bytes()
        && size <= event_bytes_max
        && size <= bytes.len();
    if !simple || !sound {
        return None;
    }
    let payload_bytes = words.payload_bytes();
    let cause = (second >> 32) as u32;
    Some(Simple { cause, time, payload_bytes, payload_on: &bytes[HEAD_BYTES..] })
}

/// True for UTF-8. Most keys are short and ASCII, and not worth a call.
#[inline]
fn is_text(key: &[u8]) -> bool {
    key.is_ascii() || std::str::from_utf8(key).is_ok()
}
