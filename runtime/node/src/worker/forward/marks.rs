//! Up to when a partition elsewhere has everything that is sent from here.
//!
//! - What is to be said is looked at first and what is queued then; it is said when all that was
//!   queued has been consumed there. So it is true whenever it arrives, and in whatever order.
//! - It is said again after a while: the other node may not have had the partition yet.
//!
//! What may be said is in `running/event_time.rs`.

use std::time::{Duration, Instant};

use sluicebox_core::message::Message;

use super::Forwarder;
use crate::running::event_time::Words;

/// After how long the same is said again.
const AGAIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// What is to be said, and how many of the runs that are taken or queued have to be consumed
    /// before: the first ones.
    coming: Option<(Words, usize)>,
    /// Of those, how many are gone since they were last counted.
    gone: usize,
    said: Option<(Words, Instant)>,
    /// When it last woke others, as the keeper, by the clock.
    ticked: u64,
    next_tick: Option<u64>,
}

impl Marks {
    /// The run at this place of those that were taken is consumed.
    pub(super) fn is_done(&mut self, at: usize) {
        if self.coming.as_ref().is_some_and(|(_, behind)| at < *behind) {
            self.gone += 1;
        }
    }

    /// Those that are consumed are taken out.
    pub(super) fn are_counted(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        if let Some((_, behind)) = &mut self.coming {
            *behind -= gone;
        }
    }
}

impl Forwarder {
    /// Says what has come to be true, and keeps time for others if that is this one's task.
    pub(super) fn say_marks(&mut self) {
        let Some(time) = &self.segment.shared.event_time else { return };
        let (sites, now) = (&self.segment.shared.sites, self.local.clock.now());
        let partition = self.mailbox.partition;
        if time.is_keeper((self.segment.at, partition)) {
            self.marks.next_tick = time.tick(&mut self.marks.ticked, sites, now);
        }
        if self.marks.coming.is_none() {
            let words = time.words(self.segment.at, sites, now);
            let is_known = self
                .marks
                .said
                .as_ref()
                .is_some_and(|(said, at)| *said == words && at.elapsed() < AGAIN);
            if words != Words::default() && !is_known {
                self.marks.coming = Some((words, self.taken.len() + self.mailbox.queued()));
            }
        }
        let Some((words, _)) = self.marks.coming.take_if(|(_, behind)| *behind == 0) else {
            return;
        };
        let roots = &self.segment.shared.roots;
        let source = |(segment, partition, mark): &(usize, u16, u64)| {
            Some((*roots.get(*segment)?, *partition, *mark))
        };
        let sources = words.sources.iter().filter_map(source).collect();
        self.trunk.say(&Message::Marks { to: self.at, ingest: words.ingest, sources });
        self.marks.said = Some((words, Instant::now()));
    }

    /// When there is something to do for it without anything having happened.
    pub(super) fn marks_again(&self) -> Option<Instant> {
        let again = self.marks.said.as_ref().map(|(_, at)| *at + AGAIN);
        let now = self.local.clock.now();
        let tick = self.marks.next_tick;
        let tick = tick.map(|at| Instant::now() + Duration::from_micros(at.saturating_sub(now)));
        again.into_iter().chain(tick).min()
    }
}
