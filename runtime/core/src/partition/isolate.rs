//! Finding the failing event of a call: which events to run next, and which to give up on.
//!
//! A reported failure names its event: the events before it run again without it, and it runs
//! alone, up to the stage's retries. A trap names nothing: the frame is halved until one event
//! traps alone. After that calls start with one event and double with each success.

use std::collections::VecDeque;
use std::ops::Range;

use crate::layer::{Failure, FailureClass};

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The call returned; the events named here failed.
    Returned(Vec<Failure>),
    /// The call trapped, ran out of fuel or broke a limit; the instance is gone.
    Trapped(String),
    /// Of a stream alone: it is open, and there is no instance and none can be made again.
    Lost(String),
}

/// Why an event was given up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub event: u32,
    pub class: &'static str,
    pub message: String,
}

/// Progress through one frame.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Events before this are resolved.
    next: u32,
    /// The call that trapped reached to here; one of the events up to it is the culprit.
    suspect_end: Option<u32>,
    /// Reported failures ahead, in order of event.
    known: VecDeque<Failure>,
    /// Runs of the event at `next` alone since it was reported.
    attempts: u8,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Run(Range<u32>),
    GiveUp(Lost),
    Finished,
}

impl Isolation {
    /// Of a frame whose first `next` events are resolved.
    pub(super) fn behind(next: u32) -> Self {
        Self { next, ..Self::default() }
    }

    /// The next step for a frame of `len` events, at most `width` of them a call.
    pub(super) fn next(&mut self, len: u32, width: u32, retries: u8) -> Step {
        if self.next >= len {
            return Step::Finished;
        }
        let end = match self.known.front() {
            Some(failure) if failure.event == self.next => {
                if failure.class == FailureClass::Reject || self.attempts >= retries {
                    return Step::GiveUp(self.give_up());
                }
                self.next + 1
            }
            Some(failure) => failure.event,
            None => len,
        };
        let width = match self.suspect_end {
            Some(suspect) => (suspect - self.next).div_ceil(2),
            None => width,
        };
        Step::Run(self.next..end.min(self.next.saturating_add(width.max(1))))
    }

    /// Takes the verdict on `run`, the last step given. Changes `width` as the module says.
    /// Returns what is lost at once: the event that trapped alone.
    pub(super) fn judge(
        &mut self,
        run: &Range<u32>,
        verdict: Verdict,
        width: &mut u32,
    ) -> Option<Lost> {
        match verdict {
            Verdict::Returned(failures) if failures.is_empty() => {
                if self.known.front().is_some_and(|failure| failure.event == self.next) {
                    self.known.pop_front();
                }
                self.attempts = 0;
                self.next = run.end;
                match self.suspect_end {
                    Some(end) if self.next < end => {}
                    Some(_) => {
                        // All of it ran this time: the trap was not one event's.
                        self.suspect_end = None;
                        *width = 1;
                    }
                    None => *width = width.saturating_mul(2),
                }
                None
            }
            Verdict::Returned(failures) => {
                self.note(run, failures);
                None
            }
            Verdict::Trapped(message) if run.len() == 1 => {
                self.known.retain(|failure| failure.event != run.start);
                self.attempts = 0;
                self.next = run.end;
                self.suspect_end = None;
                *width = 1;
                Some(Lost { event: run.start, class: "trap", message })
            }
            // What is lost is never judged here.
            Verdict::Trapped(_) | Verdict::Lost(_) => {
                self.suspect_end = Some(run.end);
                None
            }
        }
    }

    /// Goes on with another frame: its events are those of this one from `from` on which have a
    /// place there, in the same order.
    pub(super) fn renumber(&mut self, from: u32, places: &[Option<u32>]) {
        let place = |event: u32| places.get(event.checked_sub(from)? as usize).copied().flatten();
        self.known = std::mem::take(&mut self.known)
            .into_iter()
            .filter_map(|failure| Some(Failure { event: place(failure.event)?, ..failure }))
            .collect();
        let kept_before = |end: u32| {
            let before = places.iter().take(end.saturating_sub(from) as usize);
            before.filter(|place| place.is_some()).count() as u32
        };
        self.suspect_end = self.suspect_end.map(kept_before).filter(|end| *end > 0);
        self.next = 0;
        self.attempts = 0;
    }

    /// Files the failures of a call that returned. Their events are relative to the call.
    fn note(&mut self, run: &Range<u32>, failures: Vec<Failure>) {
        if run.len() == 1 && self.known.front().is_some_and(|known| known.event == run.start) {
            self.attempts += 1;
            let mut failure = failures.into_iter().next();
            if let (Some(known), Some(failure)) = (self.known.front_mut(), failure.take()) {
                *known = Failure { event: run.start, ..failure };
            }
            return;
        }
        self.suspect_end = None;
        let mut failures: Vec<Failure> = failures
            .into_iter()
            .map(|failure| Failure { event: run.start + failure.event, ..failure })
            .collect();
        failures.sort_by_key(|failure| failure.event);
        failures.dedup_by_key(|failure| failure.event);
        // The call ended before the first failure known so far, so these all come first.
        for failure in failures.into_iter().rev() {
            self.known.push_front(failure);
        }
    }

    fn give_up(&mut self) -> Lost {
        let failure = self.known.pop_front().expect("only called with a known failure at the head");
        self.attempts = 0;
        self.next = failure.event + 1;
        let class = match failure.class {
            FailureClass::Retry => "retry",
            FailureClass::Reject => "reject",
        };
        Lost { event: failure.event, class, message: failure.message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a frame of `len` events through a stage in which some events always trap, some are
    /// always rejected, and some succeed after a number of retries. Gives the events handled, the
    /// events lost, and the number of calls.
    fn run(
        len: u32,
        traps: &[u32],
        rejects: &[u32],
        flaky: &[(u32, u8)],
        retries: u8,
    ) -> (Vec<u32>, Vec<u32>, usize) {
        let mut isolation = Isolation::default();
        let (mut handled, mut lost, mut calls, mut width) = (vec![], vec![], 0, u32::MAX);
        let mut flaky: std::collections::BTreeMap<u32, u8> = flaky.iter().copied().collect();
        loop {
            match isolation.next(len, width, retries) {
                Step::Finished => return (handled, lost, calls),
                Step::GiveUp(gone) => lost.push(gone.event),
                Step::Run(range) => {
                    calls += 1;
                    assert!(calls < 10_000, "no progress");
                    assert!(!range.is_empty());
                    let mut class_of = |event: u32| {
                        let flaky = flaky.get_mut(&event).filter(|left| **left > 0);
                        let again = flaky.map(|left| *left -= 1).map(|()| FailureClass::Retry);
                        if rejects.contains(&event) { Some(FailureClass::Reject) } else { again }
                    };
                    let verdict = if range.clone().any(|e| traps.contains(&e)) {
                        Verdict::Trapped("trap".into())
                    } else {
                        let fail = |event: u32| {
                            let class = class_of(event)?;
                            Some(Failure::new(event - range.start, class, "no".into()))
                        };
                        Verdict::Returned(range.clone().filter_map(fail).collect())
                    };
                    if verdict == Verdict::Returned(vec![]) {
                        handled.extend(range.clone());
                    }
                    lost.extend(isolation.judge(&range, verdict, &mut width).map(|l| l.event));
                }
            }
        }
    }

    #[test]
    fn one_trap_is_found_by_halving() {
        let (handled, lost, calls) = run(256, &[100], &[], &[], 3);
        assert_eq!(lost, [100]);
        assert_eq!(handled.len(), 255);
        assert!(calls <= 9 + 8 + 9, "{calls} calls");
    }

    #[test]
    fn a_rejected_event_is_not_run_again() {
        let (handled, lost, calls) = run(256, &[], &[0, 255], &[], 3);
        assert_eq!((lost, handled.len(), calls), (vec![0, 255], 254, 2));
    }

    #[test]
    fn a_flaky_event_gets_its_retries_alone() {
        let (handled, lost, _) = run(4, &[], &[], &[(2, 3)], 3);
        assert_eq!((handled, lost), (vec![0, 1, 2, 3], vec![]));
        let (handled, lost, _) = run(4, &[], &[], &[(2, 9)], 3);
        assert_eq!((handled, lost), (vec![0, 1, 3], vec![2]));
    }

    #[test]
    fn after_a_trap_calls_start_small_and_double() {
        let mut isolation = Isolation::default();
        let mut width = 1;
        let mut sizes = vec![];
        while let Step::Run(range) = isolation.next(100, width, 0) {
            sizes.push(range.len());
            let lost = isolation.judge(&range, Verdict::Returned(vec![]), &mut width);
            assert_eq!(lost, None);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 37]);
    }

    proptest! {
        #[test]
        fn every_event_is_resolved_once_and_in_order(
            len in 1_u32..80,
            traps in prop::collection::btree_set(0_u32..80, 0..6),
            rejects in prop::collection::btree_set(0_u32..80, 0..6),
            flaky in prop::collection::btree_map(0_u32..80, 0_u8..6, 0..6),
            retries in 0_u8..5,
        ) {
            let traps: Vec<u32> = traps.into_iter().collect();
            let rejects: Vec<u32> = rejects.into_iter().collect();
            let flaky: Vec<(u32, u8)> = flaky.into_iter().collect();
            let (handled, lost, _) = run(len, &traps, &rejects, &flaky, retries);
            prop_assert!(handled.is_sorted() && lost.is_sorted());
            let mut all = [handled, lost.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..len).collect::<Vec<_>>());
            for event in traps.iter().chain(&rejects).filter(|event| **event < len) {
                prop_assert!(lost.contains(event));
            }
        }
    }
}
