//! A reader's place in an output, and its text.
//!
//! The text is opaque to readers: base64url of a version byte, the output's incarnation, the
//! partition to read first, and one offset a partition, as numbers of variable length; where most
//! offsets are 0, as of dead letters, only the others, each behind how many were left out. The
//! empty text and `oldest` mean the oldest events that are there when the cursor is used. A cursor
//! is not secret and not signed: whatever its numbers say, reading through it stays inside its
//! output.

use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// First byte of every cursor of this form.
const VERSION: u8 = 1;
/// First byte of one in which offsets of 0 are left out.
const SPARSE: u8 = 2;
/// Longest text that is looked at: 1,024 partitions with offsets of ten bytes each fit.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// As many partitions as an output may have.
const PARTITIONS_MAX: u64 = u16::MAX as u64;

/// A reader's place in an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Option<Place>);

/// A place in a certain output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) incarnation: u64,
    /// Partition to begin the next page with.
    pub(super) start: u16,
    /// By partition: offset of the next event to read.
    pub(super) offsets: Vec<u64>,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor; use one from the header `Sluicebox-Cursor`, `oldest` or `latest`")]
pub struct CursorError;

impl Cursor {
    /// The oldest events that are there when the cursor is used.
    pub const OLDEST: Self = Self(None);

    pub(super) const fn at(place: Place) -> Self {
        Self(Some(place))
    }

    pub(super) const fn place(&self) -> Option<&Place> {
        self.0.as_ref()
    }

    pub(super) const fn is_oldest(&self) -> bool {
        self.0.is_none()
    }

    /// True if nothing between this and `other`, of the same output, is left to read.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        let (Some(here), Some(there)) = (&self.0, &other.0) else { return false };
        let there = there.offsets.iter().chain(std::iter::repeat(&0));
        here.offsets.iter().zip(there).all(|(here, there)| here >= there)
    }

    /// The offset of the next event to read of a partition.
    #[must_use]
    pub fn offset(&self, partition: u16) -> u64 {
        let place = self.0.as_ref();
        place.and_then(|place| place.offsets.get(usize::from(partition)).copied()).unwrap_or(0)
    }

    /// Moves behind an event; the next page begins in its partition. A cursor that says `oldest`
    /// stays where it is.
    pub fn pass(&mut self, partition: u16, offset: u64) {
        self.stand_before(partition, offset + 1);
    }

    /// Moves forward to where `other`, of the same output, is further.
    pub fn advance(&mut self, other: &Self) {
        let (Some(here), Some(there)) = (&mut self.0, &other.0) else { return };
        if here.offsets.len() < there.offsets.len() {
            here.offsets.resize(there.offsets.len(), 0);
        }
        for (here, there) in here.offsets.iter_mut().zip(&there.offsets) {
            *here = (*here).max(*there);
        }
    }

    /// Moves in front of an event.
    pub(super) fn stand_before(&mut self, partition: u16, offset: u64) {
        let Some(place) = &mut self.0 else { return };
        if let Some(at) = place.offsets.get_mut(usize::from(partition)) {
            *at = offset;
            place.start = partition;
        }
    }

    /// Reads the text of a cursor. (`latest` is not one: ask the output for it.)
    ///
    /// # Errors
    /// [`CursorError`] if the text was not written by this file.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.is_empty() || text == "oldest" {
            return Ok(Self::OLDEST);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(CursorError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        decode(&bytes).map(|place| Self(Some(place))).ok_or(CursorError)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("oldest"),
            Some(place) => Base64Display::new(&encode(place), &URL_SAFE_NO_PAD).fmt(f),
        }
    }
}

fn encode(place: &Place) -> Vec<u8> {
    let mut out = Vec::new();
    let read = place.offsets.iter().enumerate().filter(|(_, offset)| **offset > 0);
    let sparse = 2 * read.clone().count() < place.offsets.len();
    out.push(if sparse { SPARSE } else { VERSION });
    out.extend_from_slice(&place.incarnation.to_le_bytes());
    push_number(&mut out, place.start.into());
    push_number(&mut out, place.offsets.len() as u64);
    if !sparse {
        place.offsets.iter().for_each(|offset| push_number(&mut out, *offset));
        return out;
    }
    let mut at = 0;
    for (partition, offset) in read {
        push_number(&mut out, (partition - at) as u64);
        push_number(&mut out, *offset);
        at = partition + 1;
    }
    out
}

fn decode(bytes: &[u8]) -> Option<Place> {
    let (version, rest) = bytes.split_first()?;
    let (incarnation, mut rest) = rest.split_first_chunk::<8>()?;
    let start = take_number(&mut rest)?;
    let count = take_number(&mut rest)?;
    if !(1..=PARTITIONS_MAX).contains(&count) || start >= count {
        return None;
    }
    let offsets = match *version {
        VERSION => (0..count).map(|_| take_number(&mut rest)).collect::<Option<_>>()?,
        SPARSE => sparse(count, &mut rest)?,
        _ => return None,
    };
    let incarnation = u64::from_le_bytes(*incarnation);
    rest.is_empty().then_some(Place { incarnation, start: start as u16, offsets })
}

/// Offsets of which those of 0 are left out.
fn sparse(count: u64, rest: &mut &[u8]) -> Option<Vec<u64>> {
    let mut offsets = vec![0; usize::try_from(count).ok()?];
    let mut places = offsets.iter_mut();
    while !rest.is_empty() {
        let left_out = usize::try_from(take_number(rest)?).ok()?;
        let offset = take_number(rest).filter(|offset| *offset > 0)?;
        *places.nth(left_out)? = offset;
    }
    Some(offsets)
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7F);
        if low << shift >> shift != low {
            return None;
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_it_was_written(
            incarnation: u64,
            start: u16,
            mut offsets in prop::collection::vec(any::<u64>(), 1..50),
            zeros in prop::collection::vec(any::<bool>(), 50),
        ) {
            offsets.iter_mut().zip(&zeros).filter(|(_, zero)| **zero).for_each(|(at, _)| *at = 0);
            let start = start % offsets.len() as u16;
            let cursor = Cursor::at(Place { incarnation, start, offsets });
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Za-z0-9_-]{0,60}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION + *first % 2;
            }
            if let Some(place) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&place)), Some(place));
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = Cursor::at(Place { incarnation: 7, start: 1, offsets: vec![1, 300] });
        let good = encode(&good.0.expect("a place"));
        assert!(decode(&good).is_some());
        let mut long = good.clone();
        long.push(0);
        assert_eq!(decode(&long), None);
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
        let mut other_version = good.clone();
        other_version[0] = 3;
        assert_eq!(decode(&other_version), None);
        let mut many = good[..10].to_vec();
        push_number(&mut many, 1_000_000_000);
        assert_eq!(decode(&many), None);
        for text in ["latest", "!", "AQ==", &"A".repeat(TEXT_BYTES_MAX + 1)] {
            assert_eq!(Cursor::parse(text), Err(CursorError));
        }
    }

    #[test]
    fn a_cursor_of_many_partitions_of_which_few_were_read_is_short() {
        let mut offsets = vec![0; usize::from(u16::MAX)];
        (offsets[0], offsets[40_000]) = (7, 9);
        let text = Cursor::at(Place { incarnation: 7, start: 0, offsets }).to_string();
        assert!(text.len() < 40, "{text}");
        let place = Cursor::parse(&text).expect("a cursor").0.expect("a place");
        assert_eq!((place.offsets[0], place.offsets[40_000], place.offsets[1]), (7, 9, 0));
    }

    #[test]
    fn the_oldest_place_has_words() {
        assert_eq!(Cursor::parse(""), Ok(Cursor::OLDEST));
        assert_eq!(Cursor::parse(&Cursor::OLDEST.to_string()), Ok(Cursor::OLDEST));
    }
}
