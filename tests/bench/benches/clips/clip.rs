//! The pictures that are sent: of a clip of real video as the example takes them, or grey pixels.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memchr::memmem;
use sluicebox_bench::process::own_processor_time;
use sluicebox_bench::root;

use crate::luma::{Format, Luma};

/// From `cargo xtask clips`: 320 by 240, in colour.
const VIDEO: &str = "target/clips/once.mjpeg";
const VIDEO_SIDE: (usize, usize) = (320, 240);
/// A JPEG begins so, and nothing in it does.
const BEGIN: &[u8] = &[0xFF, 0xD8, 0xFF];

/// How the pictures of a clip are given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JPEGs, which the stage decodes: what there is to do for a picture is the stage's.
    Encoded,
    /// A byte a pixel, compared as they are: what there is to do is to move them.
    Grey { width: usize, height: usize },
}

/// See the module.
pub(super) struct Clip {
    pub(super) kind: Kind,
    pub(super) pictures: Vec<Vec<u8>>,
}

impl Clip {
    /// The first pictures of the video.
    pub(super) fn encoded(count: usize) -> Result<Self> {
        let path = root()?.join(VIDEO);
        let fix = || format!("{}: make it with `cargo xtask clips`", path.display());
        let bytes = std::fs::read(&path).with_context(fix)?;
        let mut begins: Vec<usize> = memmem::find_iter(&bytes, BEGIN).collect();
        begins.push(bytes.len());
        let cut = |pair: &[usize]| bytes[pair[0]..pair[1]].to_vec();
        let pictures: Vec<Vec<u8>> = begins.windows(2).take(count).map(cut).collect();
        ensure!(pictures.len() == count, "{} has {} pictures", path.display(), pictures.len());
        Ok(Self { kind: Kind::Encoded, pictures })
    }

    /// Pictures with something in them that moves.
    pub(super) fn grey((width, height): (usize, usize), count: usize) -> Self {
        let pictures = (0..count).map(|number| grey((width, height), number)).collect();
        Self { kind: Kind::Grey { width, height }, pictures }
    }

    /// What the stage is told of it.
    pub(super) fn config(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::Encoded => vec![("format", "jpeg".to_owned()), ("shrink", "2".to_owned())],
            Kind::Grey { width, height } => vec![
                ("format", "grey".to_owned()),
                ("shrink", "1".to_owned()),
                ("width", width.to_string()),
                ("height", height.to_string()),
            ],
        }
    }

    /// How a body of its pictures is cut, as a session asks for it.
    pub(super) fn chunk(&self) -> String {
        match self.kind {
            Kind::Encoded => "prefixed".to_owned(),
            Kind::Grey { width, height } => (width * height).to_string(),
        }
    }

    /// The pictures as units of a body.
    pub(super) fn units(&self) -> Vec<Vec<u8>> {
        let prefixed = |picture: &Vec<u8>| {
            let length = u32::try_from(picture.len()).unwrap_or(u32::MAX).to_le_bytes();
            [&length[..], picture].concat()
        };
        match self.kind {
            Kind::Encoded => self.pictures.iter().map(prefixed).collect(),
            Kind::Grey { .. } => self.pictures.clone(),
        }
    }

    /// Microseconds of a picture by the code of the stage, outside of any sandbox.
    pub(super) fn native(&self, clips: usize) -> Result<f64> {
        let (format, shrink) = match self.kind {
            Kind::Encoded => (Format::Jpeg, 2),
            Kind::Grey { width, height } => {
                (Format::Grey { width: width as u32, height: height as u32 }, 1)
            }
        };
        let began = own_processor_time()?;
        let mut changed = 0.0;
        for _ in 0..clips {
            let mut before: Option<Luma> = None;
            for picture in &self.pictures {
                let size = before.as_ref().map(Luma::size);
                let luma = Luma::read(format, picture, shrink, size).map_err(anyhow::Error::msg)?;
                changed += before.map_or(0.0, |before| luma.changed(&before, 24));
                before = Some(luma);
            }
            if self.kind == Kind::Encoded {
                ensure!(before.is_some_and(|luma| luma.size() == VIDEO_SIDE), "another size");
            }
        }
        ensure!(changed > 0.0, "nothing moves");
        let took: Duration = own_processor_time()? - began;
        Ok(took.as_secs_f64() * 1e6 / (clips * self.pictures.len()) as f64)
    }
}

fn grey((width, height): (usize, usize), number: usize) -> Vec<u8> {
    let at = (number * 5) % width;
    let lit = |pixel: usize| {
        let (x, y) = (pixel % width, pixel / width);
        if x.abs_diff(at) < width / 8 && y.abs_diff(height / 2) < height / 8 { 220 } else { 30 }
    };
    (0..width * height).map(|pixel| lit(pixel) + (pixel % 7) as u8).collect()
}
