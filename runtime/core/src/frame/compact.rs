//! The compact form of a frame: how it lies in records, where a byte costs more than in memory.
//!
//! `docs/format/record.md` has every byte ("Frames"). What an event shares with the one before it
//! is left out, lengths are varints: of a head of 32 bytes 3 are left in most streams.
//!
//! - [`expand`] gives the frame that was put in, byte for byte, or an error.
//! - Which form bytes have is told by the first of them.
//! - Nothing a damaged record claims makes room before it was compared with what is there, or
//!   with [`EXPANDED_BYTES_MAX`].
//!
//! Which frames are worth it is decided by `codec`. In memory, on the wire and for guests there is
//! only the frame itself.

use bytes::Bytes;

use super::event::Words;
use super::{
    CheckedEvents, FORMAT, Frame, FrameError, FrameLimits, HEAD_BYTES, HEADER_BYTES, Head, Kind,
    MAGIC, NO_CAUSE,
};
use crate::limits::{FIELDS_BYTES_MAX, KEY_BYTES_MAX};

/// The first byte of the compact form. A frame begins with [`MAGIC`].
pub(crate) const COMPACT: u8 = 2;

/// Frames above this are not made compact, so that one never expands to more.
pub(crate) const EXPANDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Least bytes of a compact frame with one event: the first byte, count, bytes, shape, lengths.
pub(crate) const COMPACT_BYTES_MIN: usize = 5;

/// Least bytes of an event: its shape and the length of its payload.
const EVENT_BYTES_MIN: usize = 2;

/// Most bytes of an event before its parts: shape, kind, five numbers of 16 and 32 bits, a time.
const SHORT_HEAD_BYTES_MAX: usize = 2 + 3 + 3 + 5 + 10 + 3 + 5 + 3;

/// Bits of the byte an event begins with: what it has as the event before it. The first one is
/// compared with [`Before::NONE`].
const SAME_HEAD: u8 = 1;
const SAME_TIME: u8 = 2;
const SAME_KEY: u8 = 4;
const SAME_FIELDS: u8 = 8;

/// What an event is compared with.
#[derive(Clone, Copy)]
struct Before<'a> {
    head: Head,
    key: &'a [u8],
    fields: &'a [u8],
}

impl Before<'_> {
    const NONE: Self = Self { head: Head::data(0), key: &[], fields: &[] };
}

/// Appends the compact form of a frame.
pub(crate) fn compact(frame: &Frame, out: &mut Vec<u8>) {
    out.push(COMPACT);
    let mut head = Short::new();
    head.number(u64::from(frame.count));
    head.number(frame.bytes.len() as u64);
    out.extend_from_slice(head.bytes());
    let mut before = Before::NONE;
    for event in frame.events() {
        let (head, key, fields) = (event.head, event.key, event.fields.bytes());
        let same_head = Head { time: before.head.time, ..head } == before.head;
        let same_time = head.time == before.head.time;
        let same_key = key == before.key;
        let same_fields = fields == before.fields;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut short = Short::new();
        short.byte(
            bit(same_head, SAME_HEAD)
                | bit(same_time, SAME_TIME)
                | bit(same_key, SAME_KEY)
                | bit(same_fields, SAME_FIELDS),
        );
        if !same_head {
            short.byte(head.kind as u8);
            short.number(head.input.into());
            short.number(head.port.into());
            // Mostly none, which is then the smallest.
            short.number(head.cause.wrapping_add(1).into());
        }
        if !same_time {
            short.number(zigzag(head.time.wrapping_sub(before.head.time)));
        }
        if !same_key {
            short.number(key.len() as u64);
        }
        short.number(event.payload.len() as u64);
        if !same_fields {
            short.number(fields.len() as u64);
        }
        let parts = [if same_key { &[] } else { key }, event.payload];
        let fields_new: &[u8] = if same_fields { &[] } else { fields };
        out.reserve(SHORT_HEAD_BYTES_MAX + parts[0].len() + parts[1].len() + fields_new.len());
        out.extend_from_slice(short.bytes());
        out.extend_from_slice(parts[0]);
        out.extend_from_slice(parts[1]);
        out.extend_from_slice(fields_new);
        before = Before { head, key, fields };
    }
}

/// What bytes in a record say of the frame in them: its events, and its bytes once expanded.
/// Nothing behind that is looked at.
pub(crate) fn header(bytes: &[u8]) -> Result<(u32, usize), FrameError> {
    if bytes.first() == Some(&COMPACT) {
        let mut rest = Rest(&bytes[1..]);
        return rest.header();
    }
    let events = CheckedEvents::new(bytes, &FrameLimits::FORMAT)?.len();
    let least = events.saturating_mul(HEAD_BYTES).saturating_add(HEADER_BYTES);
    if least > bytes.len() {
        return Err(FrameError::Compact("fewer bytes than its events take"));
    }
    Ok((events as u32, bytes.len()))
}

/// The frame in bytes of a record, in whichever form it is there, checked.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn expand(bytes: Bytes) -> Result<Frame, FrameError> {
    if bytes.first() != Some(&COMPACT) {
        return Frame::parse(bytes, &FrameLimits::FORMAT);
    }
    let mut rest = Rest(&bytes[1..]);
    let (count, length) = rest.header()?;
    // More than it could grow to by much is not believed before it did.
    let mut out = Vec::with_capacity(length.min(bytes.len().saturating_mul(HEAD_BYTES)));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    let mut before = Before::NONE;
    for _ in 0..count {
        let payload = rest.event(&mut before)?;
        let parts = [before.key, payload, before.fields];
        let size = HEAD_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        if size > length - out.len() {
            return Err(FrameError::Compact("more than the bytes it says"));
        }
        let words = Words::of(&before.head, before.key.len(), payload.len(), before.fields.len());
        out.extend_from_slice(&words.to_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
    if out.len() != length || !rest.0.is_empty() {
        return Err(FrameError::Compact("not the bytes it says"));
    }
    // Keys, times and fields are checked there, once for both forms.
    Frame::parse(out.into(), &FrameLimits::FORMAT)
}

/// Bytes that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn header(&mut self) -> Result<(u32, usize), FrameError> {
        let count = self.number_to(u64::from(u32::MAX), "its count")? as u32;
        let length = self.number_to(EXPANDED_BYTES_MAX as u64, "its length")? as usize;
        let enough =
            (count as usize).checked_mul(EVENT_BYTES_MIN).is_some_and(|n| n <= self.0.len());
        let least = (count as usize).saturating_mul(HEAD_BYTES).saturating_add(HEADER_BYTES);
        if !enough || least > length {
            return Err(FrameError::Compact("fewer bytes than its events take"));
        }
        Ok((count, length))
    }

    /// Reads an event over the one before it, and gives its payload.
    fn event(&mut self, before: &mut Before<'a>) -> Result<&'a [u8], FrameError> {
        let shape = self.byte("a shape")?;
        if shape & !(SAME_HEAD | SAME_TIME | SAME_KEY | SAME_FIELDS) != 0 {
            return Err(FrameError::Compact("a shape that is unknown"));
        }
        if shape & SAME_HEAD == 0 {
            let kind = Kind::from_byte(self.byte("a kind")?);
            before.head = Head {
                kind: kind.ok_or(FrameError::Compact("a kind that is unknown"))?,
                input: self.number_to(u16::MAX.into(), "an input")? as u16,
                port: self.number_to(u16::MAX.into(), "a port")? as u16,
                cause: (self.number_to(NO_CAUSE.into(), "a cause")? as u32).wrapping_sub(1),
                time: before.head.time,
            };
        }
        if shape & SAME_TIME == 0 {
            let step = unzigzag(self.number_to(u64::MAX, "a time")?);
            before.head.time = before.head.time.wrapping_add(step);
        }
        let key = match shape & SAME_KEY {
            0 => Some(self.number_to(KEY_BYTES_MAX as u64, "a key's length")?),
            _ => None,
        };
        let payload = self.number_to(u32::MAX.into(), "a payload's length")?;
        let fields = match shape & SAME_FIELDS {
            0 => Some(self.number_to(FIELDS_BYTES_MAX as u64, "a length of fields")?),
            _ => None,
        };
        if let Some(length) = key {
            before.key = self.take(length, "a key")?;
        }
        let payload = self.take(payload, "a payload")?;
        if let Some(length) = fields {
            before.fields = self.take(length, "its fields")?;
        }
        Ok(payload)
    }

    fn byte(&mut self, part: &'static str) -> Result<u8, FrameError> {
        let (byte, rest) = self.0.split_first().ok_or(FrameError::Compact(part))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn take(&mut self, length: u64, part: &'static str) -> Result<&'a [u8], FrameError> {
        let length = usize::try_from(length).ok();
        let taken = length.and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = taken.ok_or(FrameError::Compact(part))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A varint in its shortest form, at most `most`.
    #[inline]
    fn number_to(&mut self, most: u64, part: &'static str) -> Result<u64, FrameError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(part)?;
            let bits = u64::from(byte & 0x7F);
            if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return if number <= most { Ok(number) } else { Err(FrameError::Compact(part)) };
            }
        }
        Err(FrameError::Compact(part))
    }
}

/// The short head of an event under construction. Where it ends is a local number: behind a
/// growing buffer it would go through memory for every byte.
struct Short {
    bytes: [u8; SHORT_HEAD_BYTES_MAX],
    end: usize,
}

impl Short {
    #[inline(always)]
    fn new() -> Self {
        Self { bytes: [0; SHORT_HEAD_BYTES_MAX], end: 0 }
    }

    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.end] = byte;
        self.end += 1;
    }

    #[inline(always)]
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

/// A difference, with small ones of either sign small.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64) >> 63) as u64
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{FrameBuilder, push_field};

    fn packed(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        compact(frame, &mut out);
        out
    }

    /// Events that often share something with the one before, with every part of a head.
    fn any_frame() -> impl Strategy<Value = Frame> {
        let head =
            (0_u8..4, prop_oneof![Just(0), any::<u16>()], prop_oneof![Just(0), any::<u16>()]);
        let cause = prop_oneof![Just(NO_CAUSE), Just(0), any::<u32>()];
        let time = prop_oneof![Just(5_u64), 0_u64..1 << 53];
        let payload = prop::collection::vec(any::<u8>(), 0..200);
        let event = (head, cause, time, "[aä]{0,2}", payload, 0_u8..3);
        prop::collection::vec(event, 1..20).prop_map(|events| {
            let mut builder = FrameBuilder::new();
            for ((kind, input, port), cause, time, key, payload, fields) in events {
                let kind = Kind::from_byte(kind).expect("one of four");
                let head = Head { kind, input, port, cause, time };
                let mut packed = Vec::new();
                if fields > 0 {
                    assert!(push_field(&mut packed, 300, &[fields; 3]));
                }
                builder.push(&head, key.as_bytes(), &payload, &packed);
            }
            builder.finish()
        })
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_byte_for_byte(frame in any_frame()) {
            let bytes = packed(&frame);
            let told = header(&bytes).expect("a header");
            prop_assert_eq!(told, (frame.len() as u32, frame.bytes().len()));
            let back = expand(bytes.into()).expect("a frame");
            prop_assert_eq!(back.bytes(), frame.bytes());
        }

        #[test]
        fn any_change_gives_a_frame_or_an_error(
            frame in any_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = packed(&frame);
            let mut bytes = whole.clone();
            bytes[at.index(whole.len())] = byte;
            if let Ok(frame) = expand(bytes.into()) {
                prop_assert!(frame.bytes().len() <= EXPANDED_BYTES_MAX);
            }
            let cut = whole[..cut.index(whole.len())].to_vec();
            prop_assert!(expand(cut.into()).is_err());
        }
    }

    #[test]
    fn an_event_like_the_one_before_costs_three_bytes_and_its_own() {
        let mut builder = FrameBuilder::new();
        for key in [b"one", b"two"] {
            builder.push(&Head::data(7), key, b"payload", &[]);
        }
        let frame = builder.finish();
        // First byte, count, length; then a time more in the first event.
        assert_eq!(packed(&frame).len(), 3 + 1 + 2 * (3 + 3 + 7));
    }

    #[test]
    fn a_small_record_cannot_claim_much_memory() {
        let mut builder = FrameBuilder::new();
        builder.push(&Head::data(7), b"key", &[0; 400], &[]);
        let mut bytes = packed(&builder.finish());
        let same = SAME_HEAD | SAME_TIME | SAME_KEY | SAME_FIELDS;
        bytes.extend_from_slice(&[same, 0]);
        assert!(expand(bytes.into()).is_err(), "more events than it says");
        // Two events, and bytes for more than any frame may have.
        let mut bytes = vec![COMPACT, 2];
        bytes.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 1]);
        bytes.extend_from_slice(&[same, 0, same, 0]);
        let error = expand(bytes.clone().into()).expect_err("too long");
        assert_eq!(error, FrameError::Compact("its length"));
        assert!(header(&bytes).is_err());
    }

    #[test]
    fn a_frame_in_its_own_form_is_read_as_well() {
        let mut builder = FrameBuilder::new();
        builder.push(&Head::data(7), b"key", b"payload", &[]);
        let frame = builder.finish();
        assert_eq!(header(frame.bytes()).expect("a header"), (1, frame.bytes().len()));
        assert_eq!(expand(frame.bytes().clone()).expect("a frame"), frame);
    }
}
