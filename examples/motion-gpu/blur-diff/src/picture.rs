//! A picture as the device is given it: a byte a pixel, row by row.
//!
//! - A picture is checked before its pixels are decoded: a hostile or foreign one costs no memory.
//! - Of a JPEG only the brightness is decoded. One that is cut off or damaged is refused, never
//!   filled up: what was filled up would look like motion.

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

/// How a picture is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Grey { width: u32, height: u32 },
}

/// Width and height of a picture.
pub(crate) type Size = (u32, u32);

/// The brightness of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) size: Size,
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// Reads a picture, which has this size if one is given.
    pub(crate) fn read(
        format: Format,
        bytes: &[u8],
        expected: Option<Size>,
    ) -> Result<Self, String> {
        match format {
            Format::Jpeg => {
                let mut decoder = headers(bytes)?;
                let (width, height) =
                    decoder.dimensions().ok_or("the JPEG does not say its size")?;
                // Both are at most `SIDE_MAX`.
                let size = (width as u32, height as u32);
                fits(size, expected)?;
                let pixels = decoder.decode().map_err(|error| said(&error.to_string()))?;
                Ok(Self { size, pixels })
            }
            Format::Grey { width, height } => {
                let (found, wanted) = (bytes.len(), width as usize * height as usize);
                if found != wanted {
                    return Err(format!(
                        "a grey picture of {width} × {height} has {wanted} bytes, this has {found}"
                    ));
                }
                Ok(Self { size: (width, height), pixels: bytes.to_vec() })
            }
        }
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
fn fits((width, height): Size, expected: Option<Size>) -> Result<(), String> {
    if let Some((before_width, before_height)) = expected.filter(|size| *size != (width, height)) {
        return Err(format!(
            "the picture is {width} × {height}, and those before it {before_width} × {before_height}"
        ));
    }
    match width == 0 || height == 0 {
        true => Err("the picture has no pixels".to_owned()),
        false => Ok(()),
    }
}
