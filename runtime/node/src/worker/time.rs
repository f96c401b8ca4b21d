//! What a partition makes of event time: its watermark, late events, and the figures of its timers.
//!
//! The mark is looked at first and the inbox then; when everything that was queued has been
//! committed, and passed on, the watermark rises to the mark. Which timers fire, and when, is
//! decided by the machine (`core/partition/fire.rs`), how far ingest and the partitions before have
//! come in `running/event_time.rs`.

use sluicebox_core::frame::Frame;
use sluicebox_core::timers::Clock;

use super::partition::Driver;

/// What a partition knows of time besides the machine.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// A mark, and how many runs of the inbox have to be taken whole before it holds.
    coming: Option<(u64, usize)>,
    /// The watermark those behind know.
    published: u64,
    /// When it last woke others, as the keeper.
    ticked: u64,
    /// When it is to do so again.
    pub next_tick: Option<u64>,
    /// Timers of each stage, as its figures know.
    known: Vec<i64>,
    /// Bytes of all timers, as the tenant's sum knows.
    bytes: usize,
}

impl Timing {
    /// So many runs were taken whole.
    pub(super) fn took(&mut self, runs: usize) {
        if let Some((_, behind)) = &mut self.coming {
            *behind = behind.saturating_sub(runs);
        }
    }
}

impl Driver {
    /// Lets the watermark rise as far as it may, and tells those behind. Between batches, when all
    /// that came of the last one was passed on.
    pub(super) fn note_time(&mut self, now: u64) {
        let Some(time) = &self.segment.shared.event_time else { return };
        if !self.recording.divided.is_empty() {
            return;
        }
        let place = (self.segment.at, self.mailbox.partition);
        if self.timing.coming.is_none() {
            let mark = time.mark_before(place, &self.segment.shared.sites, now);
            if mark > self.machine.watermark() {
                self.timing.coming = Some((mark, self.mailbox.queued()));
            }
        }
        if let Some((mark, _)) = self.timing.coming.take_if(|(_, behind)| *behind == 0) {
            self.machine.raise_watermark(mark);
        }
        let watermark = self.machine.watermark();
        let next = self.machine.next_timer(Clock::Event);
        if next.is_none_or(|at| at > watermark) {
            time.publish(place, &self.segment.shared.sites, watermark);
            self.timing.published = watermark;
        }
    }

    /// True if another turn would let the watermark rise, or be known.
    pub(super) fn has_time_to_note(&self) -> bool {
        let Timing { coming, published, .. } = &self.timing;
        coming.is_some_and(|(_, behind)| behind == 0) || self.machine.watermark() > *published
    }

    /// Wakes other partitions for what has risen, if it is this one's task.
    pub(super) fn keep_time(&mut self, now: u64) {
        let Some(time) = &self.segment.shared.event_time else { return };
        if time.is_keeper((self.segment.at, self.mailbox.partition)) {
            let sites = &self.segment.shared.sites;
            self.timing.next_tick = time.tick(&mut self.timing.ticked, sites, now);
        }
    }

    /// Counts events that are behind the watermark as they arrive.
    pub(super) fn note_late(&self, frame: &Frame) {
        let watermark = self.machine.watermark();
        if watermark == 0 {
            return;
        }
        let late = frame.events().filter(|event| event.head.time < watermark).count();
        if let Some(root) = self.segment.stages.first().filter(|_| late > 0) {
            root.metrics.late_events.add(late as u64);
        }
    }

    /// Brings the figures of timers up to date.
    pub(super) fn note_timers(&mut self) {
        let bytes = self.machine.timers_bytes();
        if bytes != self.timing.bytes {
            let before = std::mem::replace(&mut self.timing.bytes, bytes);
            self.segment.shared.tenant.timer_bytes().changed(before, bytes);
        }
        self.timing.known.resize(self.segment.stages.len(), 0);
        let stages = self.timing.known.iter_mut().zip(&self.segment.stages);
        for (at, (known, stage)) in stages.enumerate() {
            let now = self.machine.timers(at) as i64;
            if now != *known {
                stage.metrics.timers.add(now - *known);
                *known = now;
            }
        }
        if let Some(time) = &self.segment.shared.event_time {
            let place = (self.segment.at, self.mailbox.partition);
            time.set_next_timer(place, self.machine.next_timer(Clock::Event));
        }
    }

    /// When a timer fires next, in the clock of the worker.
    pub(super) fn next_timer(&self) -> Option<u64> {
        let now = self.machine.next_timer(Clock::Event);
        let due = now.filter(|at| *at <= self.machine.watermark()).map(|_| 0);
        due.or_else(|| self.machine.next_timer(Clock::Wall))
    }
}
