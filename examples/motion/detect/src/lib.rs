//! Finds motion in a clip, or in what a camera sees.
//!
//! A stream function: one instance for each clip. An event is a picture; the one before it is a
//! local variable. Port 0, `motion`, says of each picture which share of it changed, and where
//! motion begins or ends; port 1, `summary`, what there was of it when the clip is over. A picture
//! that cannot be read fails alone, and the next is compared with the last good one.
//!
//! Settings, all with defaults but the last two: `format` of a picture, "jpeg" or "grey" (a byte a
//! pixel, row by row); `shrink`, how many pixels in each direction are averaged to one (2);
//! `threshold`, by how many grey levels of 255 a pixel has changed (24); `begin` and `end`, from
//! which share on motion begins and below which it ends (0.01 and 0.005); `hold`, after how many
//! pictures below it (3); `width` and `height` of grey pictures.

mod course;
mod luma;

use std::fmt::Display;
use std::str::FromStr;

use sluicebox_guest::{EventStream, Failure, Result, StreamOutput, config, stream};

use crate::course::{Bounds, Course};
use crate::luma::{Format, Luma, SIDE_MAX};

const PORT_MOTION: u16 = 0;
const PORT_SUMMARY: u16 = 1;
const SHRINK_MAX: u32 = 64;

#[stream]
async fn motion(mut events: EventStream, mut out: StreamOutput) -> Result {
    let settings = Settings::read()?;
    let mut course = Course::new(settings.bounds);
    let mut before: Option<Luma> = None;
    while let Some(event) = events.next().await {
        let size = before.as_ref().map(Luma::size);
        let picture = match Luma::read(settings.format, event.payload(), settings.shrink, size) {
            Ok(picture) => picture,
            Err(why) => {
                course.refuse();
                out.fail(Failure::reject(why));
                continue;
            }
        };
        let score = before.map_or(0.0, |before| picture.changed(&before, settings.threshold));
        out.draft().port(PORT_MOTION).json(&course.step(score));
        before = Some(picture);
    }
    out.draft().port(PORT_SUMMARY).json(course.summary());
    Ok(())
}

/// What the manifest says, checked.
struct Settings {
    format: Format,
    shrink: u32,
    threshold: u8,
    bounds: Bounds,
}

impl Settings {
    fn read() -> Result<Self> {
        let format = match config::get("format").as_deref() {
            None | Some("jpeg") => Format::Jpeg,
            Some("grey") => {
                let (width, height) = (side("width")?, side("height")?);
                Format::Grey { width, height }
            }
            Some(_) => return Err(Failure::reject("config format is \"jpeg\" or \"grey\"")),
        };
        let shrink = within("shrink", 2, 1, SHRINK_MAX)?;
        let threshold = within("threshold", 24, 0, 254)?;
        let begin = within("begin", 0.01, 0.0, 1.0)?;
        let end = within("end", 0.005, 0.0, 1.0)?;
        if end > begin {
            return Err(Failure::reject("config end is at most as high as begin"));
        }
        let hold = within("hold", 3, 1, 100_000)?;
        Ok(Self { format, shrink, threshold, bounds: Bounds { begin, end, hold } })
    }
}

/// A setting that is there or has a default, and lies between two bounds.
fn within<T>(name: &str, usual: T, least: T, most: T) -> Result<T>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let value = config::parse(name)?.unwrap_or(usual);
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(Failure::reject(format!("config {name} is from {least} to {most}")))
}

/// A side of grey pictures: without it nobody knows where a row ends.
fn side(name: &str) -> Result<u32> {
    match config::parse(name)? {
        Some(side) if (1..=SIDE_MAX).contains(&side) => Ok(side),
        _ => Err(Failure::reject(format!("config {name}, from 1 to {SIDE_MAX}, is needed"))),
    }
}

#[cfg(test)]
mod tests;
