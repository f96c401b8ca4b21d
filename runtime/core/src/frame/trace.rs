//! The trace an event belongs to: a W3C `traceparent`, taken apart and put together.
//!
//! Only version 0 is known, and what is malformed is none: an event is worth more than its trace.

use super::Frame;
use super::event::{Fields, field};

/// Length of a `traceparent` of version 0.
pub const TRACEPARENT_BYTES: usize = 55;

/// Where its parts begin.
const TRACE_AT: usize = 3;
const SPAN_AT: usize = 36;
const FLAGS_AT: usize = 53;

/// The flag that says that somebody keeps this trace.
const SAMPLED: u8 = 1;

/// Whose trace, which span of it, and whether it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not all zeros.
    pub trace: [u8; 16],
    /// The span that caused the event; not all zeros.
    pub span: [u8; 8],
    /// The last byte of a `traceparent`.
    pub flags: u8,
}

impl TraceContext {
    /// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>` in small letters, neither id all zeros.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TRACEPARENT_BYTES] = text.try_into().ok()?;
        let dashes = [2, SPAN_AT - 1, FLAGS_AT - 1];
        if !text.starts_with(b"00") || dashes.iter().any(|at| text[*at] != b'-') {
            return None;
        }
        let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0; 1]);
        read_hex(&text[TRACE_AT..], &mut trace)?;
        read_hex(&text[SPAN_AT..], &mut span)?;
        read_hex(&text[FLAGS_AT..], &mut flags)?;
        let named = trace.iter().any(|byte| *byte != 0) && span.iter().any(|byte| *byte != 0);
        named.then_some(Self { trace, span, flags: flags[0] })
    }

    /// As a `traceparent`.
    #[must_use]
    pub fn to_text(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = [b'-'; TRACEPARENT_BYTES];
        text[..2].copy_from_slice(b"00");
        write_hex(&self.trace, &mut text[TRACE_AT..]);
        write_hex(&self.span, &mut text[SPAN_AT..]);
        write_hex(&[self.flags], &mut text[FLAGS_AT..]);
        text
    }

    /// The id of the trace, as people see it.
    #[must_use]
    pub fn trace_text(&self) -> String {
        let text = &self.to_text()[TRACE_AT..SPAN_AT - 1];
        text.iter().map(|digit| char::from(*digit)).collect()
    }

    /// The same trace by another span.
    #[must_use]
    pub fn by(self, span: [u8; 8]) -> Self {
        Self { span, ..self }
    }

    /// The same, kept or not.
    #[must_use]
    pub fn kept(self, kept: bool) -> Self {
        let flags = if kept { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Self { flags, ..self }
    }

    /// Somebody keeps it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace of an event with these fields, if it is kept.
    #[must_use]
    pub fn sampled_of(fields: &Fields<'_>) -> Option<Self> {
        let text = fields.get(field::TRACE_CONTEXT)?;
        // Most are not kept, and that is in the last digit.
        let last = hex_value(*text.last()?)?;
        if last & SAMPLED == 0 {
            return None;
        }
        Self::parse(text)
    }
}

impl Frame {
    /// The events whose trace is kept, by their index. A frame without any extension fields costs
    /// nothing.
    pub fn sampled(&self) -> impl Iterator<Item = (u32, TraceContext)> + '_ {
        let events = (!self.is_plain()).then(|| self.events());
        let numbered = (0_u32..).zip(events.into_iter().flatten());
        numbered.filter_map(|(at, event)| Some((at, TraceContext::sampled_of(&event.fields)?)))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Fills `out` from twice as many digits.
fn read_hex(digits: &[u8], out: &mut [u8]) -> Option<()> {
    for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Some(())
}

/// Writes two digits for each byte.
fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FrameBuilder, Head, push_field};
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_alike() {
        let read = TraceContext::parse(GOOD.as_bytes()).expect("a good one");
        assert_eq!(read.trace[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(read.span[6..], [0x33, 0x31]);
        assert!(read.is_sampled());
        assert_eq!(read.to_text(), GOOD.as_bytes());
        let other = read.by([1; 8]).kept(false);
        assert!(!other.is_sampled());
        assert_eq!(other.to_text(), *b"00-0af7651916cd43dd8448eb211c80319c-0101010101010101-00");
        assert_eq!(other.by(read.span).kept(true), read);
    }

    #[test]
    fn what_is_malformed_is_none() {
        for bad in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c80319cXb7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn only_events_whose_trace_is_kept_are_found() {
        let field = |text: &[u8]| {
            let mut fields = Vec::new();
            assert!(push_field(&mut fields, field::TRACE_CONTEXT, text));
            fields
        };
        let good = TraceContext::parse(GOOD.as_bytes()).expect("a good one");
        let mut builder = FrameBuilder::new();
        let all = [Vec::new(), field(GOOD.as_bytes()), field(&good.kept(false).to_text())];
        for fields in all.iter().chain([&field(b"nonsense1"), &field(b"")]) {
            builder.push(&Head::data(1), b"k", b"v", fields);
        }
        let found: Vec<_> = builder.finish().sampled().collect();
        assert_eq!(found, [(1, good)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Some(read) = TraceContext::parse(&bytes) {
                let text = read.to_text();
                prop_assert_eq!(text.as_slice(), bytes);
            }
        }
    }
}
