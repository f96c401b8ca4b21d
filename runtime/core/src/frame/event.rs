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

/// The raw numbers of a head, before any of them is believed.
struct Raw {
    size: usize,
    kind: u8,
    flags: u8,
    key_bytes: usize,
    payload_bytes: usize,
    fields_bytes: usize,
    input: u16,
    port: u16,
    cause: u32,
    time: u64,
}

#[inline]
fn raw(head: &[u8; HEAD_BYTES]) -> Raw {
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    Raw {
        size: u32_at(0) as usize,
        kind: head[4],
        flags: head[5],
        input: u16_at(6),
        port: u16_at(8),
        key_bytes: u16_at(10).into(),
        cause: u32_at(12),
        time: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
        payload_bytes: u32_at(24) as usize,
        fields_bytes: u32_at(28) as usize,
    }
}

/// Size field of the event that begins at `at` in a checked frame.
#[inline]
pub(super) fn size_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |size| u32::from_le_bytes(*size))
}

/// Reads the first event of bytes that passed the check.
#[inline]
pub(super) fn read(bytes: &[u8]) -> (Event<'_>, &[u8]) {
    let (head, rest) = bytes.split_first_chunk().expect("a checked frame holds whole events");
    let raw = raw(head);
    let (key, rest) = rest.split_at(raw.key_bytes);
    let (payload, rest) = rest.split_at(raw.payload_bytes);
    let (fields, rest) = rest.split_at(raw.fields_bytes);
    let kind = Kind::from_byte(raw.kind).unwrap_or(Kind::Data);
    let head = Head { kind, input: raw.input, port: raw.port, cause: raw.cause, time: raw.time };
    (Event { head, key, payload, fields: Fields(fields) }, rest)
}

/// Reads and checks the first event of `bytes`.
#[inline]
pub(super) fn read_checked(
    bytes: &[u8],
    event_bytes_max: usize,
) -> Result<(Event<'_>, &[u8]), Fault> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Fault::Truncated)?;
    let raw = raw(head);
    let kind = Kind::from_byte(raw.kind).ok_or(Fault::Kind)?;
    if raw.flags != 0 {
        return Err(Fault::Flags);
    }
    if raw.key_bytes > KEY_BYTES_MAX {
        return Err(Fault::KeyLength);
    }
    if raw.time >= TIME_END {
        return Err(Fault::Time);
    }
    if raw.size > event_bytes_max {
        return Err(Fault::TooLarge { limit: event_bytes_max });
    }
    let sum = HEAD_BYTES as u64
        + raw.key_bytes as u64
        + raw.payload_bytes as u64
        + raw.fields_bytes as u64;
    if raw.size as u64 != sum {
        return Err(Fault::Size);
    }
    let (key, rest) = rest.split_at_checked(raw.key_bytes).ok_or(Fault::Truncated)?;
    let (payload, rest) = rest.split_at_checked(raw.payload_bytes).ok_or(Fault::Truncated)?;
    let (fields, rest) = rest.split_at_checked(raw.fields_bytes).ok_or(Fault::Truncated)?;
    if std::str::from_utf8(key).is_err() {
        return Err(Fault::KeyUtf8);
    }
    let fields = if fields.is_empty() {
        Fields(fields)
    } else {
        Fields::parse(fields).ok_or(Fault::Fields)?
    };
    let head = Head { kind, input: raw.input, port: raw.port, cause: raw.cause, time: raw.time };
    Ok((Event { head, key, payload, fields }, rest))
}
