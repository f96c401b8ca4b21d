//! When timers fire, and the watermark they are compared with.
//!
//! - A batch of timers is a batch of its own, of one stage, that takes nothing new, as one of
//!   parked events is. Its timers are gone with it: they are taken away before the first call, and
//!   come back if the batch is taken back, not if a call is.
//! - The stage whose timer has been due for longest goes first.
//! - A watermark never goes back. It is the same for a whole batch, and written with the commit of
//!   the first batch that saw it.
//! - A timer whose event fails is treated as any event of the stage that fails.
//!
//! How far the watermark has come is found out by the worker.

use super::ledger::TOO_LARGE;
use super::{Partition, layer_of};
use crate::frame::FrameBuilder;
use crate::limits::BATCH_EVENTS_MAX;
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

    /// Begins a batch of timers that are due. False if there are none.
    pub fn start_timers(&mut self, now: u64) -> bool {
        let due = |at: &usize| self.due_at(*at, now);
        let first = (0..self.stages.len()).filter(|at| due(at).is_some()).min_by_key(due);
        let Some(at) = first else { return false };
        self.begin(now);
        let width = self.own_width as usize;
        let most = width.clamp(1, BATCH_EVENTS_MAX);
        let frame = layer_of(&mut self.stages[at]).timers().take_due(now, most);
        self.batch = Some(FrameBuilder::new().finish());
        self.note_nothing_taken(width == 0);
        if width > 0 {
            self.enqueue(at, frame);
            return true;
        }
        // Alone it made a commit that is too large.
        for event in frame.events() {
            let (class, why) = TOO_LARGE;
            self.draft.dead_letter(&self.plan.stages[at].name, &event, class, why);
        }
        true
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
    fn due_at(&self, at: usize, now: u64) -> Option<u64> {
        let timers = self.timers_at(at)?;
        let event = timers.next_due(Clock::Event).filter(|due| *due <= self.watermark());
        let wall = timers.next_due(Clock::Wall).filter(|due| *due <= now);
        event.into_iter().chain(wall).min()
    }

    fn timers_at(&self, stage: usize) -> Option<&Timers> {
        Some(self.stages.get(stage)?.layer.as_ref()?.timers_ref())
    }
}
