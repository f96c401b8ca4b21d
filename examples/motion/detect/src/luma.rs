//! A picture as one looks at it for motion: how bright it is, in fewer pixels.
//!
//! - A picture is checked before its pixels are decoded: a hostile or foreign one costs no memory.
//! - Of a JPEG only the brightness is decoded. One that is cut off or damaged is refused, never
//!   filled up: what was filled up would look like motion.
//! - What is done for each pixel is written so that the compiler makes vectors of it; in
//!   WebAssembly it is told that it may.
//!
//! ```text
//!   payload ──decode──► a byte a pixel ──average of shrink × shrink──► Luma ──changed──► share
//! ```

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Longest side of a picture.
pub(crate) const SIDE_MAX: u32 = 4096;

/// Characters of what the decoder says that are passed on.
const SAID_CHARS_MAX: usize = 120;

/// What stands at the end of every JPEG.
const JPEG_END: [u8; 2] = [0xFF, 0xD9];

/// Pixels whose differences are counted in one byte: the most that fill whole vectors of 16.
const GROUP: usize = 240;

/// How a picture is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Grey { width: u32, height: u32 },
}

/// Width and height of a picture as it came.
pub(crate) type Size = (usize, usize);

/// The brightness of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Luma {
    size: Size,
    pixels: Vec<u8>,
}

impl Luma {
    /// Reads a picture, which has this size if one is given.
    pub(crate) fn read(
        format: Format,
        bytes: &[u8],
        shrink: u32,
        expected: Option<Size>,
    ) -> Result<Self, String> {
        let shrink = shrink as usize;
        match format {
            Format::Jpeg => {
                let mut decoder = headers(bytes)?;
                let size = decoder.dimensions().ok_or("the JPEG does not say its size")?;
                fits(size, shrink, expected)?;
                let pixels = decoder.decode().map_err(|error| said(&error.to_string()))?;
                Ok(Self { size, pixels: shrunk(&pixels, size, shrink) })
            }
            Format::Grey { width, height } => {
                let size = (width as usize, height as usize);
                let (found, wanted) = (bytes.len(), size.0 * size.1);
                if found != wanted {
                    return Err(format!(
                        "a grey picture of {width} × {height} has {wanted} bytes, this has {found}"
                    ));
                }
                fits(size, shrink, expected)?;
                Ok(Self { size, pixels: shrunk(bytes, size, shrink) })
            }
        }
    }

    /// Width and height as it came.
    pub(crate) const fn size(&self) -> Size {
        self.size
    }

    /// The share of pixels that differ from those of a picture of the same size by more than this.
    pub(crate) fn changed(&self, before: &Self, threshold: u8) -> f64 {
        let count = differing(&before.pixels, &self.pixels, threshold);
        // Both are far below 2^53.
        count as f64 / self.pixels.len() as f64
    }
}

/// A decoder that has read the headers, and that gives brightness alone.
fn headers(bytes: &[u8]) -> Result<JpegDecoder<ZCursor<&[u8]>>, String> {
    // Some cameras fill up with zeros.
    let filled = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    if !bytes[..bytes.len() - filled].ends_with(&JPEG_END) {
        return Err(match bytes.starts_with(&[0xFF, 0xD8]) {
            true => "the JPEG has no end".to_owned(),
            false => "this is not a JPEG".to_owned(),
        });
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(SIDE_MAX as usize)
        .set_max_height(SIDE_MAX as usize)
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| said(&error.to_string()))?;
    Ok(decoder)
}

/// What the decoder said, as part of a failure.
fn said(error: &str) -> String {
    let line = error.trim().replace('\n', " ");
    let cut: String = line.chars().take(SAID_CHARS_MAX).collect();
    format!("the JPEG cannot be decoded: {cut}")
}

/// Checks the size of a picture before anything is made of it.
fn fits((width, height): Size, shrink: usize, expected: Option<Size>) -> Result<(), String> {
    if let Some((before_width, before_height)) = expected.filter(|size| *size != (width, height)) {
        return Err(format!(
            "the picture is {width} × {height}, and those before it {before_width} × {before_height}"
        ));
    }
    if width < shrink || height < shrink {
        return Err(format!("{width} × {height} leaves nothing when it is shrunk by {shrink}"));
    }
    Ok(())
}

/// Averages squares of pixels; what is left over at the right and below does not count.
#[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
fn shrunk(pixels: &[u8], (width, _): Size, shrink: usize) -> Vec<u8> {
    if shrink == 1 {
        return pixels.to_vec();
    }
    let (columns, area) = (width / shrink, (shrink * shrink) as u32);
    let mut small = Vec::new();
    let mut sums = vec![0_u32; columns];
    for rows in pixels.chunks_exact(width * shrink) {
        sums.fill(0);
        for row in rows.chunks_exact(width) {
            for (sum, cell) in sums.iter_mut().zip(row.chunks_exact(shrink)) {
                *sum += cell.iter().map(|pixel| u32::from(*pixel)).sum::<u32>();
            }
        }
        // A mean of bytes is a byte.
        small.extend(sums.iter().map(|sum| (sum / area) as u8));
    }
    small
}

/// How many bytes differ by more than this.
#[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
fn differing(before: &[u8], after: &[u8], threshold: u8) -> u64 {
    let differs = |(one, other): (&u8, &u8)| u8::from(one.abs_diff(*other) > threshold);
    let (before, before_rest) = before.as_chunks::<GROUP>();
    let (after, after_rest) = after.as_chunks::<GROUP>();
    // Counted in a byte, which the compiler keeps in the lanes of a vector.
    let group = |(before, after): (&[u8; GROUP], &[u8; GROUP])| -> u8 {
        before.iter().zip(after).map(differs).sum()
    };
    let whole: u64 = before.iter().zip(after).map(group).map(u64::from).sum();
    let rest = before_rest.iter().zip(after_rest).map(differs);
    whole + rest.map(u64::from).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, pixels: &[u8]) -> Result<Luma, String> {
        Luma::read(Format::Grey { width, height }, pixels, 1, None)
    }

    #[test]
    fn pixels_are_averaged_in_squares_and_what_is_left_over_does_not_count() {
        let pixels: Vec<u8> = (0..35).collect();
        let format = Format::Grey { width: 7, height: 5 };
        let small = Luma::read(format, &pixels, 2, None).unwrap();
        assert_eq!(small.pixels, [4, 6, 8, 18, 20, 22]);
        let smaller = Luma::read(format, &pixels, 3, None).unwrap();
        assert_eq!(smaller.pixels, [8, 11]);
        assert!(Luma::read(format, &pixels, 6, None).is_err());
    }

    #[test]
    fn every_pixel_is_counted_once_whatever_their_number() {
        for length in [1, 15, 16, 17, GROUP - 1, GROUP, GROUP + 1, 9_999] {
            let before: Vec<u8> = (0..length).map(|at| (at * 7 % 256) as u8).collect();
            let after: Vec<u8> = (0..length).map(|at| (at * 11 % 256) as u8).collect();
            for threshold in [0, 1, 24, 254] {
                let differs = |at: &usize| {
                    i16::from(before[*at]).abs_diff(i16::from(after[*at])) > u16::from(threshold)
                };
                let expected = (0..length).filter(differs).count() as u64;
                assert_eq!(differing(&before, &after, threshold), expected);
            }
            let inverted: Vec<u8> = before.iter().map(|pixel| 255 - pixel).collect();
            assert_eq!(differing(&before, &inverted, 0), length as u64);
        }
    }

    #[test]
    fn a_change_is_seen_in_both_directions_and_only_above_the_threshold() {
        let before = grey(4, 1, &[100, 100, 100, 100]).unwrap();
        let after = grey(4, 1, &[124, 125, 76, 75]).unwrap();
        assert_eq!(after.changed(&before, 24), 0.5);
        assert_eq!(before.changed(&after, 24), 0.5);
    }

    #[test]
    fn a_picture_of_another_size_is_refused() {
        assert!(grey(4, 2, &[0; 7]).unwrap_err().contains("8 bytes, this has 7"));
        let other = Luma::read(Format::Grey { width: 2, height: 2 }, &[0; 4], 1, Some((4, 1)));
        let why = "the picture is 2 × 2, and those before it 4 × 1";
        assert_eq!(other.unwrap_err(), why);
    }
}
