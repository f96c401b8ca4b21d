//! Cutting an input into the units of a stream: lines, packed frames, chunks, images.
//!
//! - A unit is what the node takes, or refuses, as one: an event, or the events of a packed frame.
//! - How the input came in pieces makes no difference to what is cut.
//! - A unit has a bound. What is left at the end and is no whole unit is an error, never an event;
//!   only a line needs no end, and the last chunk may be shorter.
//!
//! ```text
//!   read ──► buffer ──next──► unit, as it is sent: a line with its end, a frame,
//!                             or a chunk behind its length
//! ```

mod jpeg;

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sluicebox_core::limits::EVENT_BYTES_HARD;

use self::jpeg::Scan;

/// Largest unit: the largest event a pipeline may allow.
const UNIT_BYTES_MAX: usize = EVENT_BYTES_HARD;

/// Largest packed frame.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes of the head of a packed frame; `wit/FRAME.md` draws it.
const FRAME_HEAD_BYTES: usize = 16;
const FRAME_MAGIC: &[u8] = b"SBXF";
/// Where it says how long it is.
const FRAME_LENGTH_AT: usize = 12;

/// Bytes in front of a chunk that say how long it is.
const PREFIX_BYTES: usize = 4;

/// How an input is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// At line ends; blank lines are left out.
    Lines,
    /// Into packed frames.
    Frames,
    /// After every so many bytes.
    Chunks(usize),
    /// By the length in front of each.
    Prefixed,
    /// At the bounds of images.
    Jpeg,
}

/// Why an input cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CutError {
    /// The next unit is larger than any event may be.
    TooLong,
    /// This is not a packed frame.
    NoFrame,
    /// The input ended within a unit.
    Unfinished,
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "is longer than {UNIT_BYTES_MAX} bytes"),
            Self::NoFrame => f.write_str("is no packed frame"),
            Self::Unfinished => f.write_str("is cut off by the end of the input"),
        }
    }
}

/// Cuts what was read.
#[derive(Debug)]
pub(super) struct Cutter {
    form: Form,
    /// What was read and not cut yet.
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no line end.
    scanned: usize,
    scan: Scan,
}

impl Cutter {
    pub(super) fn new(form: Form) -> Self {
        Self { form, buffer: BytesMut::new(), scanned: 0, scan: Scan::default() }
    }

    /// Where what is read goes.
    pub(super) const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next unit, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, CutError> {
        match self.form {
            Form::Lines => self.line(),
            Form::Frames => self.frame(),
            Form::Chunks(length) if self.buffer.len() >= length => Ok(Some(self.chunk(length))),
            Form::Chunks(_) => Ok(None),
            Form::Prefixed => self.prefixed(),
            Form::Jpeg => match self.scan.next(&mut self.buffer) {
                Some(length) => Ok(Some(self.chunk(length))),
                None => self.bounded(UNIT_BYTES_MAX),
            },
        }
    }

    /// What is left when nothing more comes and `next` has given nothing.
    pub(super) fn rest(&mut self) -> Result<Option<Bytes>, CutError> {
        let left = std::mem::take(&mut self.buffer);
        self.scanned = 0;
        match self.form {
            Form::Lines if is_blank(&left) => Ok(None),
            Form::Lines => Ok(Some(line_of(&left))),
            Form::Jpeg if !self.scan.is_inside() => Ok(None),
            _ if left.is_empty() => Ok(None),
            Form::Chunks(_) => Ok(Some(chunk_of(&left))),
            Form::Frames | Form::Prefixed | Form::Jpeg => Err(CutError::Unfinished),
        }
    }

    /// Nothing yet, if what is there may still become a unit.
    fn bounded(&self, bytes_max: usize) -> Result<Option<Bytes>, CutError> {
        if self.buffer.len() > bytes_max { Err(CutError::TooLong) } else { Ok(None) }
    }

    fn line(&mut self) -> Result<Option<Bytes>, CutError> {
        loop {
            let fresh = &self.buffer[self.scanned..];
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                return self.bounded(UNIT_BYTES_MAX);
            };
            let line = self.buffer.split_to(self.scanned + at + 1);
            self.scanned = 0;
            if line.len() > UNIT_BYTES_MAX + 1 {
                return Err(CutError::TooLong);
            }
            if !is_blank(&line) {
                return Ok(Some(line.freeze()));
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Bytes>, CutError> {
        let known = self.buffer.len().min(FRAME_MAGIC.len());
        if self.buffer[..known] != FRAME_MAGIC[..known] {
            return Err(CutError::NoFrame);
        }
        if self.buffer.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let length = self.number(FRAME_LENGTH_AT);
        if !(FRAME_HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(CutError::NoFrame);
        }
        Ok((self.buffer.len() >= length).then(|| self.buffer.split_to(length).freeze()))
    }

    fn prefixed(&mut self) -> Result<Option<Bytes>, CutError> {
        if self.buffer.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = self.number(0);
        if length > UNIT_BYTES_MAX {
            return Err(CutError::TooLong);
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(PREFIX_BYTES + length).freeze()))
    }

    fn chunk(&mut self, length: usize) -> Bytes {
        let chunk = chunk_of(&self.buffer[..length]);
        self.buffer.advance(length);
        chunk
    }

    /// The number in four bytes from here on.
    fn number(&self, at: usize) -> usize {
        (&self.buffer[at..]).get_u32_le() as usize
    }
}

/// True for what the node would not take for a line.
fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn line_of(line: &[u8]) -> Bytes {
    [line, b"\n"].concat().into()
}

/// A chunk behind its length.
fn chunk_of(chunk: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + chunk.len());
    bytes.put_u32_le(chunk.len() as u32);
    bytes.put_slice(chunk);
    bytes.freeze()
}

#[cfg(test)]
mod tests;
