//! Event time of a running pipeline: how far ingest has come, and how far each partition may think
//! it has everything.
//!
//! ```text
//! ingest: highest time ─ lateness ─► partitions it feeds ─ least ─► those behind them ─► …
//! ```
//!
//! - What ingest gives out is in the inboxes before it raises the highest time, and what a
//!   partition sends is there before it publishes its watermark. So whoever looks at the mark first
//!   and at its inbox then, and consumes what was there, may believe the mark, with or without
//!   events.
//! - A partition publishes no watermark at which timers of its are still due: what they emit is of
//!   an earlier time.
//! - Marks only rise. Nothing rises before everything that waited was handed over after a restart.
//! - One partition, the keeper, wakes others whose mark has risen, at most once in [`TICK`]. So
//!   ingest pays for no more than a wake.
//!
//! What a partition makes of it is in `worker/time.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use sluicebox_core::limits::TIME_END;
use sluicebox_core::pipeline::{EventTime as Declared, Pipeline};
use sluicebox_core::segment::Plan;

use crate::mailbox::Mailbox;

/// How often partitions are woken for a mark alone, in microseconds.
const TICK: u64 = 20_000;
/// The same where waking them did not help, since one of them has halted.
const TICK_HELPLESS: u64 = 500_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct EventTime {
    lateness: u64,
    idle_after: Option<u64>,
    /// The highest event time that was handed to partitions; 0 if there was none.
    high: AtomicU64,
    /// When events came last, by the clock.
    arrived: AtomicU64,
    segments: Vec<SegmentTime>,
    /// Everything that waited was handed over.
    open: AtomicBool,
    /// Something rose since the keeper last looked.
    moved: AtomicBool,
    mailboxes: OnceLock<Vec<Vec<Weak<Mailbox>>>>,
}

/// What is known of the partitions of a segment.
#[derive(Debug)]
struct SegmentTime {
    from_ingest: bool,
    /// The segments whose events come in.
    from: Vec<usize>,
    /// What each partition has published, and the least of it.
    marks: Vec<AtomicU64>,
    least: AtomicU64,
    /// The time of the next timer by event time in each partition.
    timers: Vec<AtomicU64>,
}

impl EventTime {
    /// Event time of a pipeline, going on from the highest time there was.
    pub(crate) fn new(
        declared: &Declared,
        (pipeline, plan, partitions): (&Pipeline, &Plan, u16),
        high: u64,
    ) -> Self {
        let segment = |at: usize| {
            let root = plan.segments[at].root;
            let from = plan.segments[at].entering.iter();
            let all = |value: u64| (0..partitions).map(|_| AtomicU64::new(value)).collect();
            SegmentTime {
                from_ingest: pipeline.ingest.targets.iter().any(|(stage, _)| *stage == root),
                from: from.map(|edge| plan.of_stage[pipeline.edges[*edge].from]).collect(),
                marks: all(0),
                least: AtomicU64::new(0),
                timers: all(u64::MAX),
            }
        };
        Self {
            lateness: declared.lateness_ms * 1000,
            idle_after: declared.idle_after_ms.map(|ms| ms * 1000),
            high: AtomicU64::new(high),
            // Silence is counted from here.
            arrived: AtomicU64::new(now_micros()),
            segments: (0..plan.segments.len()).map(segment).collect(),
            open: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            mailboxes: OnceLock::new(),
        }
    }

    /// Whom to wake. The first partition of the first segment becomes the keeper.
    pub(crate) fn set_mailboxes(&self, mailboxes: &[Vec<Arc<Mailbox>>]) {
        let weak = |segment: &Vec<Arc<Mailbox>>| segment.iter().map(Arc::downgrade).collect();
        let _first = self.mailboxes.set(mailboxes.iter().map(weak).collect());
    }

    /// Everything that waited was handed over: from here on marks rise.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.moved.store(true, Ordering::Release);
        self.wake_keeper();
    }

    /// The highest event time so far.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Ordering::Acquire)
    }

    /// Events of times up to `high` came in at `now`, and are in their inboxes.
    pub(crate) fn arrived(&self, high: u64, now: u64) {
        self.arrived.fetch_max(now, Ordering::AcqRel);
        if self.high.fetch_max(high, Ordering::AcqRel) < high {
            self.nudge();
        }
    }

    /// How far a partition of a segment may come that consumes all that is in its inbox by now.
    pub(crate) fn mark_before(&self, segment: usize, now: u64) -> u64 {
        if !self.open.load(Ordering::Acquire) {
            return 0;
        }
        let SegmentTime { from_ingest, from, .. } = &self.segments[segment];
        let ingest = from_ingest.then(|| self.ingest_mark(now));
        let edges = from.iter().map(|at| self.segments[*at].least.load(Ordering::SeqCst));
        ingest.into_iter().chain(edges).min().unwrap_or(0)
    }

    /// How far ingest has come, less the lateness. After a silence it goes on with the clock.
    fn ingest_mark(&self, now: u64) -> u64 {
        let high = self.high();
        if high == 0 {
            return 0;
        }
        let silent = now.saturating_sub(self.arrived.load(Ordering::Acquire));
        let gone = self.idle_after.filter(|after| silent >= *after).map_or(0, |_| silent);
        high.saturating_add(gone).saturating_sub(self.lateness).min(TIME_END - 1)
    }

    /// A partition has everything up to `mark`, and what came of it was passed on.
    pub(crate) fn publish(&self, (segment, partition): (usize, u16), mark: u64) {
        let SegmentTime { marks, least, .. } = &self.segments[segment];
        let before = marks[usize::from(partition)].fetch_max(mark, Ordering::SeqCst);
        // Only who was the least can move it. Of two that were, the later one sees the other.
        if before >= mark || before > least.load(Ordering::SeqCst) {
            return;
        }
        loop {
            let of_all = || marks.iter().map(|mark| mark.load(Ordering::SeqCst)).min().unwrap_or(0);
            let now = of_all();
            if least.fetch_max(now, Ordering::SeqCst) < now {
                self.nudge();
            }
            // Who rose meanwhile may have seen the least of before, and left it to us.
            if of_all() == now {
                return;
            }
        }
    }

    /// The next timer by event time of a partition.
    pub(crate) fn set_next_timer(&self, (segment, partition): (usize, u16), at: Option<u64>) {
        let at = at.unwrap_or(u64::MAX);
        let before =
            self.segments[segment].timers[usize::from(partition)].swap(at, Ordering::AcqRel);
        if at < before && self.idle_after.is_some() {
            self.nudge();
        }
    }

    /// The watermark of the pipeline: the least of all partitions.
    pub(crate) fn watermark(&self) -> u64 {
        let all = self.segments.iter().map(|segment| segment.least.load(Ordering::SeqCst));
        all.min().unwrap_or(0)
    }

    /// True for the partition that wakes the others.
    pub(crate) fn is_keeper(&self, (segment, partition): (usize, u16)) -> bool {
        (segment, partition) == (0, 0)
    }

    /// The keeper wakes every partition whose mark has risen, and gives when it is to look again.
    /// `last` is when it last did.
    pub(crate) fn tick(&self, last: &mut u64, now: u64) -> Option<u64> {
        let idle_wake = self.idle_wake();
        let is_due = now >= last.saturating_add(TICK);
        let idle_due = idle_wake.is_some_and(|at| at <= now && now >= *last + TICK_HELPLESS);
        if is_due && (self.moved.swap(false, Ordering::AcqRel) || idle_due) {
            *last = now;
            self.wake(now);
        }
        let moved = self.moved.load(Ordering::Acquire).then(|| last.saturating_add(TICK));
        let idle = idle_wake.map(|at| at.max(last.saturating_add(TICK_HELPLESS)));
        moved.into_iter().chain(idle).min()
    }

    /// When, if nothing comes in, the mark of ingest reaches the next timer.
    fn idle_wake(&self) -> Option<u64> {
        let (after, high) = (self.idle_after?, self.high());
        let timers = self.segments.iter().flat_map(|segment| &segment.timers);
        let next = timers.map(|timer| timer.load(Ordering::Acquire)).min()?;
        if high == 0 || next == u64::MAX {
            return None;
        }
        let needed = next.saturating_add(self.lateness).saturating_sub(high);
        Some(self.arrived.load(Ordering::Acquire).saturating_add(needed.max(after)))
    }

    fn wake(&self, now: u64) {
        let Some(mailboxes) = self.mailboxes.get() else { return };
        for (at, segment) in mailboxes.iter().enumerate() {
            let coming = self.mark_before(at, now);
            let marks = self.segments[at].marks.iter();
            let behind = segment.iter().zip(marks);
            let behind = behind.filter(|(_, mark)| mark.load(Ordering::SeqCst) < coming);
            behind.filter_map(|(mailbox, _)| mailbox.upgrade()).for_each(|m| m.schedule());
        }
    }

    fn nudge(&self) {
        if self.moved.swap(true, Ordering::AcqRel) || !self.open.load(Ordering::Acquire) {
            return;
        }
        self.wake_keeper();
    }

    fn wake_keeper(&self) {
        let keeper = self.mailboxes.get().and_then(|all| all.first()?.first()?.upgrade());
        if let Some(keeper) = keeper {
            keeper.schedule();
        }
    }
}

/// The clock, in microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn the_least_rises_with_all_however_they_meet() {
        const PARTITIONS: usize = 3;
        for _ in 0..400 {
            let all = |value| (0..PARTITIONS).map(|_| AtomicU64::new(value)).collect();
            let segment = SegmentTime {
                from_ingest: true,
                from: Vec::new(),
                marks: all(0),
                least: AtomicU64::new(0),
                timers: all(u64::MAX),
            };
            let time = EventTime {
                lateness: 0,
                idle_after: None,
                high: AtomicU64::new(0),
                arrived: AtomicU64::new(0),
                segments: vec![segment],
                open: AtomicBool::new(false),
                moved: AtomicBool::new(false),
                mailboxes: OnceLock::new(),
            };
            let begin = Barrier::new(PARTITIONS);
            std::thread::scope(|scope| {
                for partition in 0..PARTITIONS as u16 {
                    let (time, begin) = (&time, &begin);
                    scope.spawn(move || {
                        begin.wait();
                        (1..200).for_each(|mark| time.publish((0, partition), mark));
                    });
                }
            });
            assert_eq!(time.watermark(), 199);
        }
    }
}
