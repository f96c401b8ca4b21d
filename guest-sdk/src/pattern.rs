//! Patterns: events of one key that follow each other in a way that means something.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluicebox_guest::pattern::Pattern;
//! use sluicebox_guest::{Events, Output, kept_as_json, stage};
//!
//! #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! struct Payment {
//!     cents: i64,
//! }
//! kept_as_json!(Payment);
//!
//! /// Two small payments and a large one, of one card within ten minutes.
//! #[stage]
//! fn probed(events: Events<'_>, out: &mut Output) {
//!     Pattern::within(Duration::from_mins(10))
//!         .begin("probe", |payment: &Payment, _| payment.cents < 200)
//!         .times(2)
//!         .then("drain", |payment, seen| payment.cents > 100 * seen.last("probe").cents)
//!         .run(events, out, |event| event.json(), |found, draft| {
//!             draft.json(&found.last("drain").cents);
//!         });
//! }
//! # fn main() {}
//! ```
//!
//! Events are looked at in the order of their times: each waits until the watermark has passed it.
//! With [`Pattern::in_arrival_order`] they are looked at as they come, and a match leaves at once.
//!
//! - Each event that a pattern may begin with begins a partial match. It takes the first event that
//!   is its next step; it does not branch, so from one first event comes one match at most.
//! - A partial match goes when its time is over, when what it is without comes, or, for a step that
//!   has to follow at once, when something else does.
//! - At most [`Pattern::partials_max`] partial matches of a key are kept, and
//!   [`Pattern::waiting_max`] events that wait for the watermark.

use std::time::Duration;

use crate::event::{Event, Events};
use crate::failure::Result;
use crate::kept::Kept;
use crate::keyed::{Call, Terms, cell, micros, terms};
use crate::output::{Draft, Output};

mod machine;

use machine::{Machine, Partials};

/// Partial matches of a key, unless said otherwise.
const PARTIALS_MAX: usize = 64;
/// Events of a key that wait for the watermark, unless said otherwise.
const WAITING_MAX: usize = 1_000;

/// Says whether an event is a step, by what was seen before it.
type Test<T> = Box<dyn Fn(&T, &Seen<'_, T>) -> bool>;

/// What a pattern is. Begins with [`Pattern::within`]; [`Pattern::run`] looks for it.
pub struct Pattern<T> {
    terms: Terms,
    within: u64,
    steps: Vec<Step<T>>,
    /// What must not come behind the last step.
    behind: Vec<Test<T>>,
    skip: Skip,
    full: Full,
    partials_max: usize,
    waiting_max: usize,
    arrival: bool,
}

/// One step of a pattern.
struct Step<T> {
    name: &'static str,
    test: Test<T>,
    times: usize,
    /// Whether it must be the very next event.
    at_once: bool,
    /// What must not come while it is waited for.
    without: Vec<Test<T>>,
}

/// What becomes of other partial matches when one is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Those that began before its last event go, so that no event is in two matches.
    PastLast,
    /// They go on: every event that can begin a match may.
    ToNext,
}

/// What becomes of partial matches when a key has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The one that began first goes.
    DropOldest,
    /// The one that would begin does not.
    DropNewest,
}

impl<T: Kept + 'static> Pattern<T> {
    /// A pattern whose last event comes at most this long after its first.
    ///
    /// # Panics
    ///
    /// If the time is 2^53 microseconds or more.
    #[must_use]
    pub const fn within(time: Duration) -> Self {
        Self {
            terms: Terms::new("pattern"),
            within: micros(time),
            steps: Vec::new(),
            behind: Vec::new(),
            skip: Skip::PastLast,
            full: Full::DropOldest,
            partials_max: PARTIALS_MAX,
            waiting_max: WAITING_MAX,
            arrival: false,
        }
    }

    terms!();

    /// What it begins with.
    ///
    /// # Panics
    ///
    /// If it has begun.
    #[must_use]
    pub fn begin(
        self,
        name: &'static str,
        test: impl Fn(&T, &Seen<'_, T>) -> bool + 'static,
    ) -> Self {
        assert!(self.steps.is_empty(), "a pattern begins once");
        self.step(name, false, Box::new(test))
    }

    /// What comes then; events between that are something else do not matter.
    ///
    /// # Panics
    ///
    /// If the pattern has not begun.
    #[must_use]
    pub fn then(
        self,
        name: &'static str,
        test: impl Fn(&T, &Seen<'_, T>) -> bool + 'static,
    ) -> Self {
        assert!(!self.steps.is_empty(), "a pattern begins with `begin`");
        self.step(name, false, Box::new(test))
    }

    /// What comes at once: as the next event of the key.
    ///
    /// # Panics
    ///
    /// If the pattern has not begun.
    #[must_use]
    pub fn next(
        self,
        name: &'static str,
        test: impl Fn(&T, &Seen<'_, T>) -> bool + 'static,
    ) -> Self {
        assert!(!self.steps.is_empty(), "a pattern begins with `begin`");
        self.step(name, true, Box::new(test))
    }

    fn step(mut self, name: &'static str, at_once: bool, test: Test<T>) -> Self {
        let without = std::mem::take(&mut self.behind);
        self.steps.push(Step { name, test, times: 1, at_once, without });
        self
    }

    /// So many events of the step said last.
    ///
    /// # Panics
    ///
    /// If there is no step, `times` is 0, or a `without` was said since.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        assert!(times > 0 && self.behind.is_empty(), "`times` stands behind a step");
        let last = self.steps.last_mut().expect("`times` stands behind a step");
        last.times = times;
        self
    }

    /// What must not come before the step said next. Behind the last step: what must not come until
    /// the pattern's time is over, so that the match leaves only then. An event that is both the
    /// step and this ends the match.
    ///
    /// # Panics
    ///
    /// If the pattern has not begun.
    #[must_use]
    pub fn without(mut self, test: impl Fn(&T, &Seen<'_, T>) -> bool + 'static) -> Self {
        assert!(!self.steps.is_empty(), "a pattern begins with `begin`");
        self.behind.push(Box::new(test));
        self
    }

    /// What becomes of other partial matches when one is complete; [`Skip::PastLast`] if it is not
    /// said.
    #[must_use]
    pub const fn skip(mut self, skip: Skip) -> Self {
        self.skip = skip;
        self
    }

    /// How many partial matches of a key there are at most, and what gives way; 64, and
    /// [`Full::DropOldest`] if it is not said. Those that are dropped are counted in the stage's
    /// counter `pattern_partials_dropped`.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    pub const fn partials_max(mut self, partials: usize, full: Full) -> Self {
        assert!(partials > 0, "a match begins as a partial match");
        (self.partials_max, self.full) = (partials, full);
        self
    }

    /// How many events of a key wait for the watermark at most, 1,000 if it is not said. One more
    /// fails.
    #[must_use]
    pub const fn waiting_max(mut self, events: usize) -> Self {
        self.waiting_max = events;
        self
    }

    /// Looks at events as they come, not in the order of their times. None is late.
    #[must_use]
    pub const fn in_arrival_order(mut self) -> Self {
        self.arrival = true;
        self
    }

    /// Takes the events of a call: `read` says what is kept of one, and `emit` makes an event of
    /// each match. If `read` gives an error the event fails.
    pub fn run(
        &self,
        events: Events<'_>,
        out: &mut Output,
        read: impl Fn(&Event<'_>) -> Result<T>,
        mut emit: impl FnMut(&Found<'_, T>, Draft<'_>),
    ) {
        self.start(events, out, &read, &mut |found, draft| {
            if !found.timed_out {
                emit(found, draft);
            }
        });
    }

    /// As [`Pattern::run`], and `emit` is told as well of each partial match whose time is over:
    /// [`Found::timed_out`].
    pub fn run_with_timeouts(
        &self,
        events: Events<'_>,
        out: &mut Output,
        read: impl Fn(&Event<'_>) -> Result<T>,
        mut emit: impl FnMut(&Found<'_, T>, Draft<'_>),
    ) {
        self.start(events, out, &read, &mut emit);
    }

    fn start(
        &self,
        events: Events<'_>,
        out: &mut Output,
        read: &dyn Fn(&Event<'_>) -> Result<T>,
        emit: &mut dyn FnMut(&Found<'_, T>, Draft<'_>),
    ) {
        assert!(!self.steps.is_empty(), "a pattern begins with `begin`");
        let call = Call::new(events, &self.terms);
        let mut machine = Machine::new(self, read, emit);
        cell::run(&self.terms, &call, out, |event, partials: &mut Partials<T>, out| {
            machine.handle(event, partials, out)
        });
    }
}

/// One event that is a step of a match.
#[derive(Clone, Debug)]
struct Taken<T> {
    /// Which event of the key it was, counted since there was nothing of the key.
    ordinal: u64,
    time: u64,
    value: T,
}

/// The events a partial match has taken so far.
#[derive(Debug)]
pub struct Seen<'a, T> {
    /// Name of the step of each event, in order.
    names: &'a [&'static str],
    taken: &'a [Taken<T>],
}

impl<'a, T> Seen<'a, T> {
    /// The events of a step, in order.
    pub fn all(&self, step: &str) -> impl Iterator<Item = &'a T> {
        let named = self.names.iter().zip(self.taken).filter(move |(name, _)| **name == step);
        named.map(|(_, taken)| &taken.value)
    }

    /// The last event of a step.
    ///
    /// # Panics
    ///
    /// If there is none: the step is not one before this.
    #[must_use]
    pub fn last(&self, step: &str) -> &'a T {
        self.all(step).last().unwrap_or_else(|| panic!("the step {step} is not one before this"))
    }

    /// When the first event was.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.taken.first().map_or(0, |taken| taken.time)
    }

    /// When the last event was.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.taken.last().map_or(0, |taken| taken.time)
    }
}

/// A match, or a partial one whose time is over.
#[derive(Debug)]
pub struct Found<'a, T> {
    /// The key.
    pub key: &'a str,
    /// Whether it is not complete, and its time is over.
    pub timed_out: bool,
    seen: Seen<'a, T>,
}

impl<'a, T> std::ops::Deref for Found<'a, T> {
    type Target = Seen<'a, T>;

    fn deref(&self) -> &Seen<'a, T> {
        &self.seen
    }
}

#[cfg(test)]
mod tests;
