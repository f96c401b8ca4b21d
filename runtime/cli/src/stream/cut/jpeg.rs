//! Where a JPEG ends, among others that lie one behind the other.
//!
//! - An image is followed marker by marker: a segment is passed over by its length, so that the
//!   picture within it (a thumbnail) or any other bytes there end nothing; coded pixels are
//!   searched for the next marker.
//! - Bytes between two images are left out: what a camera's server puts there, such as the parts of
//!   `multipart/x-mixed-replace`.
//! - An image that stops where another begins is cut there, and left to whoever decodes it.

use bytes::{Buf as _, BytesMut};

pub(super) const BEGIN: u8 = 0xD8;
pub(super) const END: u8 = 0xD9;
/// Begins coded pixels.
pub(super) const PIXELS: u8 = 0xDA;
/// What a byte 0xFF is followed by among coded pixels where it is no marker.
pub(super) const STUFFED: u8 = 0x00;

/// How an image begins: the marker, and the first byte of the next.
pub(super) const BEGINNING: [u8; 3] = [0xFF, BEGIN, 0xFF];

/// How far the image at the beginning of the buffer is known.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes that are looked at; may lie behind what is there.
    at: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Between images.
    #[default]
    Outside,
    /// At a marker.
    Marker,
    /// Among coded pixels, or where a marker should be and is not.
    Pixels,
}

impl Scan {
    /// The length of the image at the beginning of the buffer, if all of it is there. Drops what is
    /// no image.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Option<usize> {
        loop {
            let found = match self.place {
                Place::Outside => self.outside(buffer)?,
                Place::Marker => self.marker(buffer)?,
                Place::Pixels => self.pixels(buffer)?,
            };
            if let Some(length) = found {
                *self = Self::default();
                return Some(length);
            }
        }
    }

    /// True within an image.
    pub(super) fn is_inside(&self) -> bool {
        self.place != Place::Outside
    }

    /// Seeks a beginning. Nothing if more is needed, as in those below.
    fn outside(&mut self, buffer: &mut BytesMut) -> Option<Option<usize>> {
        let begin = buffer.windows(BEGINNING.len()).position(|bytes| bytes == BEGINNING);
        // The last bytes may be the first of a beginning.
        let junk = begin.unwrap_or_else(|| buffer.len().saturating_sub(BEGINNING.len() - 1));
        buffer.advance(junk);
        begin?;
        *self = Self { at: 2, place: Place::Marker };
        Some(None)
    }

    fn marker(&mut self, buffer: &BytesMut) -> Option<Option<usize>> {
        let rest = buffer.get(self.at..)?;
        let (first, marker) = (*rest.first()?, *rest.get(1)?);
        if first != 0xFF {
            self.place = Place::Pixels;
            return Some(None);
        }
        match marker {
            END => return Some(Some(self.at + 2)),
            // Another image begins: this one is not whole.
            BEGIN => return Some(Some(self.at)),
            // Filled up.
            0xFF => self.at += 1,
            STUFFED | 0x01 | 0xD0..=0xD7 => {
                self.at += 2;
                self.place = Place::Pixels;
            }
            _ => {
                let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
                // The length counts itself.
                self.at += 2 + length.max(2);
                self.place = if marker == PIXELS { Place::Pixels } else { Place::Marker };
            }
        }
        Some(None)
    }

    fn pixels(&mut self, buffer: &BytesMut) -> Option<Option<usize>> {
        let rest = buffer.get(self.at..)?;
        let Some(at) = rest.iter().position(|byte| *byte == 0xFF) else {
            self.at = buffer.len();
            return None;
        };
        self.at += at;
        match *rest.get(at + 1)? {
            STUFFED | 0xD0..=0xD7 => self.at += 2,
            0xFF => self.at += 1,
            _ => self.place = Place::Marker,
        }
        Some(None)
    }
}
