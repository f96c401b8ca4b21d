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
//! - Where partitions are on several nodes, what is said of those elsewhere comes from there: that
//!   a partition has consumed all that it was sent up to a mark. Such a word is true for good,
//!   however late it comes and wherever either partition has gone meanwhile.
//!
//! What a partition makes of it is in `worker/time.rs`, what is said to other nodes in
//! `worker/forward/marks.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use sluicebox_core::limits::TIME_END;
use sluicebox_core::pipeline::{EventTime as Declared, Pipeline};
use sluicebox_core::segment::Plan;

use crate::mailbox::{Mailbox, lock};
use crate::spread::{Site, Sites};

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
    /// Ingest is here.
    is_home: bool,
    /// What other nodes say, by partition: of ingest, and of partitions before it.
    told: Mutex<BTreeMap<(usize, u16), Told>>,
    /// Everything that waited was handed over.
    open: AtomicBool,
    /// Something rose since the keeper last looked.
    moved: AtomicBool,
    mailboxes: OnceLock<Vec<Vec<Weak<Mailbox>>>>,
}

/// What other nodes say that a partition here has everything of.
#[derive(Debug, Default)]
struct Told {
    ingest: u64,
    /// By segment and partition.
    sources: BTreeMap<(usize, u16), u64>,
}

/// What this node has to say to a partition elsewhere, once that has consumed what is queued for
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Of ingest; 0: nothing.
    pub(crate) ingest: u64,
    /// Of partitions that are here, by segment.
    pub(crate) sources: Vec<(usize, u16, u64)>,
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
        (high, is_home): (u64, bool),
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
            is_home,
            told: Mutex::default(),
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
    pub(crate) fn mark_before(
        &self,
        (segment, partition): (usize, u16),
        sites: &Sites,
        now: u64,
    ) -> u64 {
        if !self.open.load(Ordering::Acquire) {
            return 0;
        }
        let SegmentTime { from_ingest, from, .. } = &self.segments[segment];
        if self.is_home && sites.are_all_here() {
            let ingest = from_ingest.then(|| self.ingest_mark(now));
            let edges = from.iter().map(|at| self.segments[*at].least.load(Ordering::SeqCst));
            return ingest.into_iter().chain(edges).min().unwrap_or(0);
        }
        let all = lock(&self.told);
        let told = all.get(&(segment, partition));
        let ingest = from_ingest.then(|| match self.is_home {
            true => self.ingest_mark(now),
            false => told.map_or(0, |told| told.ingest),
        });
        let edges = from.iter().flat_map(|at| {
            let marks = (0..).zip(&self.segments[*at].marks);
            marks.map(|(source, mark)| {
                let told = told.and_then(|told| told.sources.get(&(*at, source)).copied());
                mark.load(Ordering::SeqCst).max(told.unwrap_or(0))
            })
        });
        ingest.into_iter().chain(edges).min().unwrap_or(0)
    }

    /// What is to be said to a partition elsewhere, once it has consumed all that is queued for it
    /// by now.
    pub(crate) fn words(&self, segment: usize, sites: &Sites, now: u64) -> Words {
        let SegmentTime { from_ingest, from, .. } = &self.segments[segment];
        if !self.open.load(Ordering::Acquire) {
            return Words::default();
        }
        let ingest = if self.is_home && *from_ingest { self.ingest_mark(now) } else { 0 };
        let of = |at: &usize| {
            let at = *at;
            let marks = (0..).zip(&self.segments[at].marks);
            let here = marks.filter(|(source, _)| sites.of(*source) == Site::Here);
            let marks = here.map(move |(source, mark)| (at, source, mark.load(Ordering::SeqCst)));
            marks.filter(|(.., mark)| *mark > 0).collect::<Vec<_>>()
        };
        Words { ingest, sources: from.iter().flat_map(of).collect() }
    }

    /// Another node says that a partition here has consumed everything up to these marks.
    pub(crate) fn told(&self, to: (usize, u16), words: &Words) {
        let from = &self.segments[to.0].from;
        let is_known = |(at, source, _): &&(usize, u16, u64)| {
            from.contains(at) && usize::from(*source) < self.segments[*at].marks.len()
        };
        let mut rises = false;
        {
            let mut raise = |known: &mut u64, mark: u64| {
                rises |= *known < mark;
                *known = mark.max(*known);
            };
            let mut all = lock(&self.told);
            let told = all.entry(to).or_default();
            raise(&mut told.ingest, words.ingest);
            for (at, source, mark) in words.sources.iter().filter(is_known) {
                raise(told.sources.entry((*at, *source)).or_default(), *mark);
            }
        }
        if rises {
            self.nudge();
        }
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
    pub(crate) fn publish(&self, (segment, partition): (usize, u16), sites: &Sites, mark: u64) {
        let SegmentTime { marks, least, .. } = &self.segments[segment];
        let before = marks[usize::from(partition)].fetch_max(mark, Ordering::SeqCst);
        if before < mark && !(self.is_home && sites.are_all_here()) {
            // The least of those here is not the least of all, and others are to be told.
            self.nudge();
        }
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

    /// The watermark of the pipeline: the least of all partitions that are here.
    pub(crate) fn watermark(&self, sites: &Sites) -> u64 {
        let all = self.segments.iter().flat_map(|segment| (0..).zip(&segment.marks));
        let here = all.filter(|(partition, _)| sites.of(*partition) == Site::Here);
        here.map(|(_, mark)| mark.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// The watermark of a partition that is here.
    pub(crate) fn watermark_of(&self, (segment, partition): (usize, u16)) -> u64 {
        self.segments[segment].marks[usize::from(partition)].load(Ordering::SeqCst)
    }

    /// True for the partition that wakes the others.
    pub(crate) fn is_keeper(&self, (segment, partition): (usize, u16)) -> bool {
        (segment, partition) == (0, 0)
    }

    /// The keeper wakes every partition whose mark has risen, and gives when it is to look again.
    /// `last` is when it last did.
    pub(crate) fn tick(&self, last: &mut u64, sites: &Sites, now: u64) -> Option<u64> {
        let idle_wake = self.idle_wake(sites);
        let is_due = now >= last.saturating_add(TICK);
        let idle_due = idle_wake.is_some_and(|at| at <= now && now >= *last + TICK_HELPLESS);
        if is_due && (self.moved.swap(false, Ordering::AcqRel) || idle_due) {
            *last = now;
            self.wake(sites, now);
        }
        let moved = self.moved.load(Ordering::Acquire).then(|| last.saturating_add(TICK));
        let idle = idle_wake.map(|at| at.max(last.saturating_add(TICK_HELPLESS)));
        moved.into_iter().chain(idle).min()
    }

    /// When, if nothing comes in, the mark of ingest reaches the next timer.
    fn idle_wake(&self, sites: &Sites) -> Option<u64> {
        let (after, high) = (self.idle_after.filter(|_| self.is_home)?, self.high());
        if high > 0 && !sites.are_all_here() {
            // Of timers elsewhere nothing is known.
            return Some(self.arrived.load(Ordering::Acquire).saturating_add(after));
        }
        let timers = self.segments.iter().flat_map(|segment| &segment.timers);
        let next = timers.map(|timer| timer.load(Ordering::Acquire)).min()?;
        if high == 0 || next == u64::MAX {
            return None;
        }
        let needed = next.saturating_add(self.lateness).saturating_sub(high);
        Some(self.arrived.load(Ordering::Acquire).saturating_add(needed.max(after)))
    }

    fn wake(&self, sites: &Sites, now: u64) {
        let Some(mailboxes) = self.mailboxes.get() else { return };
        let are_all_here = self.is_home && sites.are_all_here();
        for (at, segment) in mailboxes.iter().enumerate() {
            let of_all = self.mark_before((at, 0), sites, now);
            for (partition, mailbox) in (0..).zip(segment) {
                let place = (at, partition);
                let rises = match sites.of(partition) {
                    _ if are_all_here => self.watermark_of(place) < of_all,
                    Site::Here => self.watermark_of(place) < self.mark_before(place, sites, now),
                    // Who is there is told.
                    Site::There(_) | Site::Between => true,
                };
                if let Some(mailbox) = mailbox.upgrade().filter(|_| rises) {
                    mailbox.schedule();
                }
            }
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
                is_home: true,
                told: Mutex::default(),
                open: AtomicBool::new(false),
                moved: AtomicBool::new(false),
                mailboxes: OnceLock::new(),
            };
            let begin = Barrier::new(PARTITIONS);
            let sites = Sites::new(PARTITIONS as u16);
            std::thread::scope(|scope| {
                for partition in 0..PARTITIONS as u16 {
                    let (time, begin, sites) = (&time, &begin, &sites);
                    scope.spawn(move || {
                        begin.wait();
                        (1..200).for_each(|mark| time.publish((0, partition), sites, mark));
                    });
                }
            });
            assert_eq!(time.watermark(&Sites::new(PARTITIONS as u16)), 199);
        }
    }

    /// A segment of two partitions that ingest feeds, and one behind it.
    fn chain(is_home: bool) -> EventTime {
        let segment = |from_ingest: bool| SegmentTime {
            from_ingest,
            from: if from_ingest { Vec::new() } else { vec![0] },
            marks: (0..2).map(|_| AtomicU64::new(0)).collect(),
            least: AtomicU64::new(0),
            timers: (0..2).map(|_| AtomicU64::new(u64::MAX)).collect(),
        };
        EventTime {
            lateness: 0,
            idle_after: None,
            high: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            segments: vec![segment(true), segment(false)],
            is_home,
            told: Mutex::default(),
            open: AtomicBool::new(true),
            moved: AtomicBool::new(false),
            mailboxes: OnceLock::new(),
        }
    }

    #[test]
    fn a_partition_waits_for_those_elsewhere_too() {
        let (home, home_sites) = (chain(true), Sites::new(2));
        let (part, part_sites) = (chain(false), Sites::new(2));
        home_sites.set(1, Site::There(0));
        part_sites.set(0, Site::There(0));
        home.arrived(100, 5);
        assert_eq!(home.mark_before((0, 0), &home_sites, 5), 100);
        assert_eq!(part.mark_before((0, 1), &part_sites, 5), 0, "nothing was said of ingest");
        let words = home.words(0, &home_sites, 5);
        assert_eq!(words, Words { ingest: 100, sources: Vec::new() });
        part.told((0, 1), &words);
        assert_eq!(part.mark_before((0, 1), &part_sites, 5), 100);
        // Behind it each waits for both.
        home.publish((0, 0), &home_sites, 100);
        assert_eq!(home.mark_before((1, 0), &home_sites, 5), 0);
        part.publish((0, 1), &part_sites, 90);
        let words = part.words(1, &part_sites, 5);
        assert_eq!(words, Words { ingest: 0, sources: vec![(0, 1, 90)] });
        home.told((1, 0), &words);
        assert_eq!(home.mark_before((1, 0), &home_sites, 5), 90);
        // What comes late says nothing new, and what is not before it nothing at all.
        home.told((1, 0), &Words { ingest: 0, sources: vec![(0, 1, 50), (1, 0, 70), (0, 7, 9)] });
        assert_eq!(home.mark_before((1, 0), &home_sites, 5), 90);
        assert_eq!(home.watermark(&home_sites), 0, "the second segment has published nothing");
        // It is here again, with what was said of it.
        home_sites.set(1, Site::Here);
        home.publish((0, 1), &home_sites, 95);
        assert_eq!(home.mark_before((1, 0), &home_sites, 5), 95);
    }
}
