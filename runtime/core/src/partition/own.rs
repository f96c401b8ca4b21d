//! Batches of what a partition keeps itself: timers, parked events, streams that end or go over to
//! other code.
//!
//! - Such a batch takes nothing new, and what it is made of stays where it is until its commit.
//! - When its commit is too large the next of its kind is half as long; when it stands, twice.
//! - What makes too large a commit even alone is given up on when it comes again: that, and nothing
//!   that happens to come before it.

use super::ledger::TOO_LARGE;
use super::{Partition, layer_of};
use crate::frame::{Event, Frame, FrameBuilder};
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// What a batch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Timers,
    Parked,
    Ends,
    Upgrades,
}

/// One event of a stage, in as much as it has to be known again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alone {
    own: Own,
    stage: usize,
    key: Box<[u8]>,
    /// Which of the key: its payload. A key has one open stream.
    which: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Widths {
    /// Most events in the next batch of each kind.
    next: [usize; 4],
    /// The batch under way.
    under_way: Option<Own>,
    /// It is of nothing but this.
    alone: Option<Alone>,
    /// What is given up on when it comes again.
    too_large: Option<Alone>,
}

impl Default for Widths {
    fn default() -> Self {
        let next = [BATCH_EVENTS_MAX; 4];
        Self { next, under_way: None, alone: None, too_large: None }
    }
}

impl Widths {
    /// Most events in the next batch.
    pub(super) fn of(&self, own: Own) -> usize {
        self.next[own as usize]
    }

    /// A batch begins. True if it is what has to be given up on.
    pub(super) fn begin<'e>(
        &mut self,
        own: Own,
        events: impl IntoIterator<Item = (usize, Event<'e>)>,
    ) -> bool {
        let mut events = events.into_iter();
        let alone = |(stage, event): (usize, Event<'_>)| {
            let is_stream = matches!(own, Own::Ends | Own::Upgrades);
            let which = if is_stream { &[][..] } else { event.payload };
            Alone { own, stage, key: event.key.into(), which: which.into() }
        };
        self.under_way = Some(own);
        self.alone = events.next().map(alone).filter(|_| events.next().is_none());
        self.alone.is_some() && self.alone == self.too_large
    }

    /// The commit of the batch under way stands.
    pub(super) fn stand(&mut self) {
        let Some(own) = self.under_way.take() else { return };
        let next = &mut self.next[own as usize];
        *next = (*next * 2).min(BATCH_EVENTS_MAX);
        if self.alone.take().is_some_and(|alone| Some(alone) == self.too_large) {
            self.too_large = None;
        }
    }

    /// The commit of the batch under way is too large.
    pub(super) fn refuse(&mut self) {
        let Some(own) = self.under_way else { return };
        let next = &mut self.next[own as usize];
        *next = (*next / 2).max(1);
        if self.alone.is_some() {
            self.too_large = self.alone.take();
        }
    }

    /// The batch under way is taken back.
    pub(super) fn take_back(&mut self) {
        (self.under_way, self.alone) = (None, None);
    }
}

impl Partition {
    /// Begins a batch of timers that are due. False if there are none.
    pub fn start_timers(&mut self, now: u64) -> bool {
        let due = |at: &usize| self.due_at(*at, now);
        let first = (0..self.stages.len()).filter(|at| due(at).is_some()).min_by_key(due);
        let Some(at) = first else { return false };
        self.begin(now);
        let most = self.widths.of(Own::Timers);
        let frame = layer_of(&mut self.stages[at]).timers().take_due(now, most);
        self.start_own((Own::Timers, at), frame);
        true
    }

    /// Begins a batch of parked events whose pause is over. False if there are none.
    pub fn start_parked(&mut self, now: u64) -> bool {
        let due = |at: &usize| self.stages[*at].park.next_due();
        let first = (0..self.stages.len()).filter(|at| due(at).is_some()).min_by_key(due);
        let Some(at) = first.filter(|at| due(at).is_some_and(|due| due <= now)) else {
            return false;
        };
        self.begin(now);
        let most = self.widths.of(Own::Parked) as u64;
        let frame = self.stages[at].park.take_due(now, most, BATCH_BYTES_MAX);
        self.start_own((Own::Parked, at), frame);
        true
    }

    fn start_own(&mut self, (own, at): (Own, usize), frame: Frame) {
        self.batch = Some(FrameBuilder::new().finish());
        let gives_up = self.widths.begin(own, frame.events().map(|event| (at, event)));
        self.note_nothing_taken(gives_up);
        match own {
            _ if gives_up => {
                let stage = &self.plan.stages[at].name;
                let (class, why) = TOO_LARGE;
                frame.events().for_each(|event| self.draft.dead_letter(stage, &event, class, why));
            }
            // They are parked already.
            Own::Parked => self.dispatch(at, frame),
            Own::Timers | Own::Ends | Own::Upgrades => self.enqueue(at, frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Head;

    fn events(payloads: &[&str]) -> Frame {
        let mut builder = FrameBuilder::new();
        let head = Head::data(1);
        payloads.iter().for_each(|payload| builder.push(&head, b"k", payload.as_bytes(), &[]));
        builder.finish()
    }

    fn begins(widths: &mut Widths, own: Own, payloads: &[&str]) -> bool {
        widths.begin(own, events(payloads).events().map(|event| (0, event)))
    }

    #[test]
    fn only_what_was_too_large_alone_is_given_up_on() {
        let mut widths = Widths::default();
        assert!(!begins(&mut widths, Own::Timers, &["a", "b"]));
        widths.refuse();
        assert_eq!((widths.of(Own::Timers), widths.of(Own::Parked)), (128, 256));
        assert!(!begins(&mut widths, Own::Timers, &["a"]));
        widths.refuse();
        widths.take_back();
        // What comes before it has its turn, and whatever else there is.
        for (own, payloads) in [
            (Own::Timers, &["earlier"][..]),
            (Own::Parked, &["a"]),
            (Own::Ends, &["a"]),
            (Own::Timers, &["a", "b"]),
        ] {
            assert!(!begins(&mut widths, own, payloads), "{own:?} {payloads:?}");
            widths.stand();
        }
        assert!(begins(&mut widths, Own::Timers, &["a"]));
        // There was no room for it.
        widths.take_back();
        assert!(begins(&mut widths, Own::Timers, &["a"]));
        widths.stand();
        assert!(!begins(&mut widths, Own::Timers, &["a"]), "another of that name");
    }

    #[test]
    fn batches_shrink_to_one_and_grow_again() {
        let mut widths = Widths::default();
        for _ in 0..20 {
            begins(&mut widths, Own::Ends, &["a", "b"]);
            widths.refuse();
            widths.take_back();
        }
        assert_eq!(widths.of(Own::Ends), 1);
        for _ in 0..20 {
            begins(&mut widths, Own::Ends, &["a", "b"]);
            widths.stand();
        }
        assert_eq!(widths.of(Own::Ends), 256);
    }
}
