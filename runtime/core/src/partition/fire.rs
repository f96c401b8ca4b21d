//! When timers fire, and the watermark they are compared with.
//!
//! - A batch of timers is one of its own (`own`), of one stage. Its timers are gone with it: they
//!   are taken away before the first call, and come back if the batch is taken back, not if a call
//!   is.
//! - The stage whose timer has been due for longest goes first.
//! - A watermark never goes back. It is the same for a whole batch, and written with the commit of
//!   the first batch that saw it.
//! - A timer whose event fails is treated as any event of the stage that fails.
//!
//! How far the watermark has come is found out by the worker.

use super::Partition;
use crate::timers::{Clock, Timers};

impl Partition {
    /// From here on there is event time: a watermark at least as high as what is written of it.
    pub fn keep_event_time(&mut self) {
        let written = self.progress().map_or(0, |progress| progress.watermark);
        self.watermark = Some(self.watermark.unwrap_or(0).max(written));
    }

    /// The watermark; 0 if it is not known.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.watermark.unwrap_or(0)
    }

    /// Lets the watermark rise, for the batches that follow. Where there is no event time, and if
    /// it is lower than before, nothing changes.
    pub fn raise_watermark(&mut self, to: u64) {
        self.watermark = self.watermark.map(|known| known.max(to));
    }

    /// True if `start_timers` has something to do.
    #[must_use]
    pub fn has_due_timers(&self, now: u64) -> bool {
        (0..self.stages.len()).any(|at| self.due_at(at, now).is_some())
    }

    /// The time of the next timer of a clock, over all stages.
    #[must_use]
    pub fn next_timer(&self, clock: Clock) -> Option<u64> {
        (0..self.stages.len()).filter_map(|at| self.timers_at(at)?.next_due(clock)).min()
    }

    /// How many timers a stage of the segment has.
    #[must_use]
    pub fn timers(&self, stage: usize) -> usize {
        self.timers_at(stage).map_or(0, Timers::len)
    }

    /// The time of the first timer of a stage that is due.
    pub(super) fn due_at(&self, at: usize, now: u64) -> Option<u64> {
        let timers = self.timers_at(at)?;
        let event = timers.next_due(Clock::Event).filter(|due| *due <= self.watermark());
        let wall = timers.next_due(Clock::Wall).filter(|due| *due <= now);
        event.into_iter().chain(wall).min()
    }

    fn timers_at(&self, stage: usize) -> Option<&Timers> {
        Some(self.stages.get(stage)?.layer.as_ref()?.timers_ref())
    }
}
