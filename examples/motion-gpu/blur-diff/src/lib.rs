//! Finds motion in a clip, or in what a camera sees, on a GPU.
//!
//! A stream function: one instance for each clip. An event is a picture. It is blurred on the
//! device, which takes away noise, and compared there with the blurred picture before, which has
//! stayed there: what comes back is how many pixels have changed, and in which box. Port 0,
//! `motion`, says that of each picture, and where motion begins or ends; port 1, `summary`, what
//! there was of it when the clip is over. A picture that cannot be read fails alone, and the next
//! is compared with the last good one.
//!
//! What is on the device may be lost at any moment. So the picture before is a local variable as
//! well, not blurred: it is given to the device once more if that has nothing of it any more.
//!
//! Settings, all with defaults but the last two: `format` of a picture, "jpeg" or "grey" (a byte a
//! pixel, row by row); `radius` of the blur (2); `threshold`, by how many grey levels of 255 a
//! pixel has changed (24); `begin` and `end`, from which share on motion begins and below which it
//! ends (0.01 and 0.005); `hold`, after how many pictures below it (3); `check`, whether the
//! processor is to come to the same for each picture (false); `width` and `height` of grey
//! pictures.

// When motion begins and ends is as in the example that does the same on the processor.
#[path = "../../../motion/detect/src/course.rs"]
mod course;
mod cpu;
mod device;
mod picture;

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use sluicebox_guest::{EventStream, Failure, Result, StreamOutput, config, stream};

use crate::course::{Bounds, Course, Seen};
use crate::cpu::{Changed, RADIUS_MAX};
use crate::device::Device;
use crate::picture::{Format, Picture, SIDE_MAX};

const PORT_MOTION: u16 = 0;
const PORT_SUMMARY: u16 = 1;

#[stream]
async fn motion(mut events: EventStream, mut out: StreamOutput) -> Result {
    let settings = Settings::read()?;
    let mut course = Course::new(settings.bounds);
    let mut device: Option<Device> = None;
    let mut before: Option<Picture> = None;
    while let Some(event) = events.next().await {
        let size = before.as_ref().map(|before| before.size);
        let read = Picture::read(settings.format, event.payload(), size).map_err(Failure::reject);
        let compared = read.and_then(|picture| {
            let task = settings.task(&picture);
            let device = device.get_or_insert_with(|| Device::new(task));
            let changed = device.changed(before.as_ref().map(|it| &*it.pixels), &picture.pixels)?;
            if settings.check {
                check(&task, before.as_ref(), &picture, changed)?;
            }
            Ok((picture, changed))
        });
        match compared {
            Ok((picture, changed)) => {
                // Both are far below 2^53.
                let score = f64::from(changed.moving) / picture.pixels.len() as f64;
                let seen = course.step(score);
                out.draft().port(PORT_MOTION).json(&Said { seen, within: Within::of(changed) });
                before = Some(picture);
            }
            Err(failure) => {
                course.refuse();
                out.fail(failure);
            }
        }
    }
    out.draft().port(PORT_SUMMARY).json(course.summary());
    Ok(())
}

/// What is said of a picture.
#[derive(Debug, Clone, Copy, Serialize)]
struct Said {
    #[serde(flatten)]
    seen: Seen,
    #[serde(skip_serializing_if = "Option::is_none", rename = "box")]
    within: Option<Within>,
}

/// Where something has changed.
#[derive(Debug, Clone, Copy, Serialize)]
struct Within {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Within {
    fn of(changed: Changed) -> Option<Self> {
        let Changed { left, top, right, bottom, moving } = changed;
        (moving > 0).then(|| Self { x: left, y: top, width: right - left, height: bottom - top })
    }
}

/// Holds what the device says against what the processor does.
fn check(
    task: &cpu::Settings,
    before: Option<&Picture>,
    picture: &Picture,
    changed: Changed,
) -> Result {
    let blurred = |picture: &Picture| task.blurred(&picture.pixels);
    let expected =
        before.map_or(Changed::NONE, |before| task.changed(&blurred(before), &blurred(picture)));
    if changed == expected {
        return Ok(());
    }
    Err(Failure::reject(format!("the device says {changed:?}, the processor {expected:?}")))
}

/// What the manifest says, checked.
struct Settings {
    format: Format,
    radius: u32,
    threshold: u8,
    bounds: Bounds,
    check: bool,
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
        let radius = within("radius", 2, 0, RADIUS_MAX)?;
        let threshold = within("threshold", 24, 0, 254)?;
        let begin = within("begin", 0.01, 0.0, 1.0)?;
        let end = within("end", 0.005, 0.0, 1.0)?;
        if end > begin {
            return Err(Failure::reject("config end is at most as high as begin"));
        }
        let hold = within("hold", 3, 1, 100_000)?;
        let check = config::parse("check")?.unwrap_or(false);
        Ok(Self { format, radius, threshold, bounds: Bounds { begin, end, hold }, check })
    }

    /// What is done with pictures of the size of this one.
    fn task(&self, picture: &Picture) -> cpu::Settings {
        let (width, height) = picture.size;
        cpu::Settings { width, height, radius: self.radius, threshold: self.threshold }
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
