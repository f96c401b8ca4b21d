//! Pictures of one size on the device, and what is said of them there.
//!
//! ```text
//!   picture ─along─► rows ─down─► blurred now ─┐
//!                              blurred before ─┴count─► changed, 20 bytes
//! ```
//!
//! - The two blurred pictures change places with each picture: nothing is copied.
//! - What is here is a cache. When something of it cannot be used any more, because the device was
//!   lost or the stream has gone on in another instance, all of it is made anew, once, and the
//!   picture before is blurred once more.

use sluicebox_guest::Result;
use sluicebox_guest::gpu::{self, Buffer, Graph, Kernel, Steps};

use crate::cpu::{Changed, Settings};

const ALONG: &str = include_str!("along.wgsl");
const DOWN: &str = include_str!("down.wgsl");
const COUNT: &str = include_str!("count.wgsl");

/// Bytes that are written at once. A large picture has more.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a result: left, top, right, bottom, moving.
const CHANGED_BYTES: u64 = 20;
/// Of these, what begins as the largest number there is.
const LEAST_BYTES: u64 = 8;

/// Slots of the graphs.
mod slot {
    pub(super) const SETTINGS: u32 = 0;
    pub(super) const PICTURE: u32 = 1;
    pub(super) const ROWS: u32 = 2;
    pub(super) const NOW: u32 = 3;
    pub(super) const BEFORE: u32 = 4;
    pub(super) const CHANGED: u32 = 5;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Device {
    settings: Settings,
    made: Option<Made>,
}

impl Device {
    pub(crate) const fn new(settings: Settings) -> Self {
        Self { settings, made: None }
    }

    /// Which pixels of a picture differ from those of the one before, which is the one that this
    /// was told last.
    pub(crate) fn changed(&mut self, before: Option<&[u8]>, picture: &[u8]) -> Result<Changed> {
        if let Some(made) = &mut self.made
            && let Ok(changed) = made.changed(before.is_some(), picture)
        {
            return Ok(changed);
        }
        // Its memory is given back before more is asked for.
        self.made = None;
        let mut made = Made::new(&self.settings)?;
        if let Some(before) = before {
            made.changed(false, before)?;
        }
        let changed = made.changed(before.is_some(), picture)?;
        self.made = Some(made);
        Ok(changed)
    }
}

/// What is on the device.
#[derive(Debug)]
struct Made {
    settings: Buffer,
    picture: Buffer,
    rows: Buffer,
    now: Buffer,
    before: Buffer,
    changed: Buffer,
    /// Blurs the first picture.
    blur: Graph,
    /// Blurs a picture and compares it with the one before.
    compare: Graph,
}

impl Made {
    fn new(settings: &Settings) -> gpu::Result<Self> {
        let (width, height) = (settings.width, settings.height);
        let pixels = width * height;
        let bytes = u64::from(pixels).next_multiple_of(4);
        let along = Kernel::new(ALONG, "along")?;
        let down = Kernel::new(DOWN, "down")?;
        let count = Kernel::new(COUNT, "count")?;
        let squares = [width.div_ceil(16), height.div_ceil(16), 1];
        let words = [pixels.div_ceil(4 * 256), 1, 1];
        let blurred = |steps: &mut Steps| {
            steps.dispatch(&along, squares, &[slot::SETTINGS, slot::PICTURE, slot::ROWS]);
            steps.dispatch(&down, words, &[slot::SETTINGS, slot::ROWS, slot::NOW]);
        };
        let greatest = (slot::CHANGED, LEAST_BYTES);
        Ok(Self {
            settings: Buffer::of(&settings.words())?,
            picture: Buffer::new(bytes)?,
            rows: Buffer::new(u64::from(pixels) * 4)?,
            now: Buffer::new(bytes)?,
            before: Buffer::new(bytes)?,
            changed: Buffer::new(CHANGED_BYTES)?,
            blur: Graph::record(blurred)?,
            compare: Graph::record(|steps| {
                blurred(steps);
                let slots = [slot::SETTINGS, slot::BEFORE, slot::NOW, slot::CHANGED];
                steps
                    .fill(slot::CHANGED, LEAST_BYTES, u32::MAX)
                    .fill(greatest, CHANGED_BYTES - LEAST_BYTES, 0)
                    .dispatch(&count, words, &slots);
            })?,
        })
    }

    /// Blurs a picture, and compares it if there was one before.
    fn changed(&mut self, compare: bool, picture: &[u8]) -> gpu::Result<Changed> {
        for (at, piece) in picture.chunks(WRITE_BYTES_MAX).enumerate() {
            self.picture.write((at * WRITE_BYTES_MAX) as u64, piece)?;
        }
        // In the order of the slots.
        let buffers = [&self.settings, &self.picture, &self.rows, &self.now];
        let compared = [&self.before, &self.changed];
        let changed = if compare {
            let all: Vec<_> =
                buffers.into_iter().chain(compared).map(|buffer| buffer.whole()).collect();
            self.compare.submit(&all)?.whole()?;
            let words = self.changed.read(0, CHANGED_BYTES as usize / 4)?;
            Changed::of(std::array::from_fn(|at| words.get(at).copied().unwrap_or_default()))
        } else {
            self.blur.submit(&buffers.map(Buffer::whole))?.whole()?;
            Changed::NONE
        };
        std::mem::swap(&mut self.now, &mut self.before);
        Ok(changed)
    }
}
