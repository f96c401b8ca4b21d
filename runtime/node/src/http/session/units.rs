//! A body cut into units, whatever pieces it comes in.
//!
//! ```text
//! lines      {"n":1}\n{"n":2}\n          a line is a unit; blank ones are none
//! frames     packed frames one behind another (wit/FRAME.md); a frame is a unit
//! fixed      so many bytes each
//! prefixed   u32 little-endian length, then as many bytes
//! whole      each piece is a unit, as it comes
//! ```
//!
//! - Equal bodies give equal units, however they are divided into pieces.
//! - A unit that lies in one piece is not copied. What is kept of one that does not is bounded.
//! - A unit that is larger than allowed, or cut off by the end of the body, is a mistake.

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use sluicebox_core::frame::HEADER_BYTES;

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Lines,
    Frames,
    Fixed(usize),
    Prefixed,
    Whole,
}

/// Bytes in front of a prefixed unit.
const PREFIX_BYTES: usize = 4;

/// Where a frame says how long it is.
const FRAME_LENGTH_AT: usize = 12;

/// Why there is no next unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoUnit {
    /// Larger than this.
    TooLarge(usize),
    /// A frame shorter than its own header.
    Malformed,
    /// The body ends within it.
    CutOff,
}

/// Cuts one body.
#[derive(Debug)]
pub(super) struct Cutter {
    cut: Cut,
    unit_bytes_max: usize,
    /// The beginning of a unit that goes on in the next piece.
    carry: BytesMut,
}

impl Cutter {
    pub(super) fn new(cut: Cut, unit_bytes_max: usize) -> Self {
        Self { cut, unit_bytes_max, carry: BytesMut::new() }
    }

    /// Bytes kept of a unit that is not whole yet.
    pub(super) fn kept(&self) -> usize {
        self.carry.len()
    }

    /// The next unit, taken off the front of `piece`; none if the piece is used up.
    pub(super) fn next(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, NoUnit> {
        loop {
            if piece.is_empty() {
                return Ok(None);
            }
            let unit = if self.carry.is_empty() { self.cut_off(piece)? } else { self.join(piece)? };
            match unit {
                Some(unit) if self.cut == Cut::Lines && is_blank(&unit) => {}
                Some(unit) => return Ok(Some(unit)),
                None => return Ok(None),
            }
        }
    }

    /// What is left when the body ends.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, NoUnit> {
        let rest = self.carry.split().freeze();
        match self.cut {
            _ if rest.is_empty() => Ok(None),
            Cut::Lines => Ok(Some(rest).filter(|line| !is_blank(line))),
            _ => Err(NoUnit::CutOff),
        }
    }

    /// A unit that lies whole at the front of the piece; else the piece is kept.
    fn cut_off(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, NoUnit> {
        let wanted = self.wanted(piece)?;
        if wanted.is_some_and(|wanted| wanted <= piece.len()) {
            let unit = piece.split_to(wanted.unwrap_or_default());
            return Ok(Some(self.content(unit)));
        }
        self.check(piece.len())?;
        self.carry.extend_from_slice(piece);
        piece.clear();
        Ok(None)
    }

    /// Adds to what is kept until it is a unit.
    fn join(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, NoUnit> {
        if self.cut == Cut::Lines {
            let end = memchr(b'\n', piece);
            let more = piece.split_to(end.map_or(piece.len(), |end| end + 1));
            self.check(self.carry.len() + more.len())?;
            self.carry.extend_from_slice(&more);
            let line = end.map(|_| self.carry.split().freeze());
            return Ok(line.map(|line| self.content(line)));
        }
        while !piece.is_empty() {
            let wanted = self.wanted(&self.carry)?.unwrap_or(usize::MAX);
            let missing = wanted.saturating_sub(self.carry.len()).min(piece.len());
            self.carry.extend_from_slice(&piece.split_to(missing));
            if self.wanted(&self.carry)?.is_some_and(|wanted| wanted <= self.carry.len()) {
                let unit = self.carry.split().freeze();
                return Ok(Some(self.content(unit)));
            }
        }
        Ok(None)
    }

    /// Bytes the first unit of `bytes` takes, or how many it takes to tell; none if that is not
    /// known.
    fn wanted(&self, bytes: &[u8]) -> Result<Option<usize>, NoUnit> {
        let length = |at: usize| {
            let four = bytes.get(at..at + 4).and_then(<[u8]>::first_chunk);
            four.map(|four| u32::from_le_bytes(*four) as usize)
        };
        let wanted = match self.cut {
            Cut::Lines => memchr(b'\n', bytes).map(|end| end + 1),
            Cut::Fixed(each) => Some(each),
            Cut::Whole => Some(bytes.len()),
            Cut::Prefixed => Some(length(0).map_or(PREFIX_BYTES, |said| PREFIX_BYTES + said)),
            Cut::Frames => match length(FRAME_LENGTH_AT) {
                None => Some(HEADER_BYTES),
                Some(said) if said < HEADER_BYTES => return Err(NoUnit::Malformed),
                Some(said) => Some(said),
            },
        };
        wanted.map_or(Ok(()), |wanted| self.check(wanted))?;
        Ok(wanted)
    }

    fn check(&self, bytes: usize) -> Result<(), NoUnit> {
        let most = self.unit_bytes_max + PREFIX_BYTES;
        if bytes > most { Err(NoUnit::TooLarge(self.unit_bytes_max)) } else { Ok(()) }
    }

    /// A unit without what marks it off.
    fn content(&self, mut unit: Bytes) -> Bytes {
        match self.cut {
            Cut::Prefixed => unit.split_off(PREFIX_BYTES),
            Cut::Lines => {
                let line = unit.strip_suffix(b"\n").unwrap_or(&unit);
                let line = line.strip_suffix(b"\r").unwrap_or(line).len();
                unit.truncate(line);
                unit
            }
            Cut::Frames | Cut::Fixed(_) | Cut::Whole => unit,
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluicebox_core::frame::{FrameBuilder, Head};

    use super::*;

    const MOST: usize = 1000;

    /// The units of a body that comes in pieces of these lengths.
    fn cut(cut: Cut, body: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, NoUnit> {
        let mut cutter = Cutter::new(cut, MOST);
        let mut units = Vec::new();
        let mut rest = body;
        let mut lengths = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let length = lengths.next().unwrap_or(1).clamp(1, rest.len());
            let (now, later) = rest.split_at(length);
            rest = later;
            let mut piece = Bytes::copy_from_slice(now);
            while let Some(unit) = cutter.next(&mut piece)? {
                units.push(unit.to_vec());
            }
            assert!(cutter.kept() <= MOST + PREFIX_BYTES);
        }
        units.extend(cutter.finish()?.map(|unit| unit.to_vec()));
        Ok(units)
    }

    fn body(cut: Cut, units: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for unit in units {
            match cut {
                Cut::Prefixed => {
                    out.extend_from_slice(&(unit.len() as u32).to_le_bytes());
                    out.extend_from_slice(unit);
                }
                Cut::Lines => {
                    out.extend_from_slice(unit);
                    out.extend_from_slice(b"\r\n \n");
                }
                Cut::Frames | Cut::Fixed(_) | Cut::Whole => out.extend_from_slice(unit),
            }
        }
        out
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        builder.push(&Head::data(1), b"", payload, &[]);
        builder.finish().bytes().to_vec()
    }

    proptest! {
        #[test]
        fn equal_bodies_give_equal_units_however_they_are_divided(
            which in 0..4_usize,
            payloads in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 1..60), 0..20),
            pieces in prop::collection::vec(1..40_usize, 0..60),
        ) {
            let how = [Cut::Lines, Cut::Frames, Cut::Fixed(7), Cut::Prefixed][which];
            let units: Vec<Vec<u8>> = match how {
                Cut::Frames => payloads.iter().map(|p| frame(p)).collect(),
                Cut::Fixed(each) => {
                    payloads.iter().map(|p| p.repeat(each)[..each].to_vec()).collect()
                }
                _ => payloads,
            };
            prop_assert_eq!(cut(how, &body(how, &units), &pieces), Ok(units));
        }

        #[test]
        fn no_body_makes_it_panic(
            which in 0..5_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            pieces in prop::collection::vec(1..20_usize, 0..30),
        ) {
            let how = [Cut::Lines, Cut::Frames, Cut::Fixed(3), Cut::Prefixed, Cut::Whole][which];
            let _any = cut(how, &bytes, &pieces);
        }
    }

    #[test]
    fn an_empty_prefixed_unit_is_one() {
        let units = vec![vec![], b"a".to_vec(), vec![]];
        assert_eq!(cut(Cut::Prefixed, &body(Cut::Prefixed, &units), &[]), Ok(units.clone()));
        assert_eq!(cut(Cut::Prefixed, &body(Cut::Prefixed, &units), &[1, 2, 3]), Ok(units));
    }

    #[test]
    fn the_last_line_may_lack_its_end_and_no_other_unit_may() {
        let lines = vec![b"a".to_vec(), b"b".to_vec()];
        assert_eq!(cut(Cut::Lines, b"a\nb", &[1]), Ok(lines));
        assert_eq!(cut(Cut::Fixed(2), b"aab", &[]), Err(NoUnit::CutOff));
        assert_eq!(cut(Cut::Prefixed, &[1, 0, 0], &[]), Err(NoUnit::CutOff));
        assert_eq!(cut(Cut::Prefixed, &[2, 0, 0, 0, 7], &[]), Err(NoUnit::CutOff));
        let whole = frame(b"x");
        assert_eq!(cut(Cut::Frames, &whole[..whole.len() - 1], &[9]), Err(NoUnit::CutOff));
    }

    #[test]
    fn what_is_too_large_is_refused_as_soon_as_that_is_known() {
        let mut cutter = Cutter::new(Cut::Prefixed, MOST);
        let mut piece = Bytes::copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(cutter.next(&mut piece), Err(NoUnit::TooLarge(MOST)));
        let line = vec![b'x'; MOST + PREFIX_BYTES + 1];
        assert_eq!(cut(Cut::Lines, &line, &[100, 1]), Err(NoUnit::TooLarge(MOST)));
        assert_eq!(cut(Cut::Lines, &line[..MOST], &[100, 1]).map(|units| units.len()), Ok(1));
        let mut short = frame(b"x");
        short[12..16].copy_from_slice(&3_u32.to_le_bytes());
        assert_eq!(cut(Cut::Frames, &short, &[]), Err(NoUnit::Malformed));
    }
}
