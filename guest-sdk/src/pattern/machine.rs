//! The automaton behind a pattern, with its state for one key in one slot.
//!
//! - Positions, not steps, are counted: a step of three times is three positions.
//! - A partial match that has all its steps is kept only if something must not follow; it is
//!   complete when its time is over.
//! - Time goes by events and by the timer; whichever comes first ends what is over.

use crate::event::{Event, Kind};
use crate::failure::{Failure, Result};
use crate::kept::Kept;
use crate::keyed::cell::Cell;
use crate::keyed::check_time;
use crate::metrics;
use crate::output::{Draft, Output};
use crate::pattern::{Found, Full, Pattern, Seen, Skip, Step, Taken};

/// The counter of partial matches that gave way.
const DROPPED: &str = "pattern_partials_dropped";

/// What is kept of a key.
#[derive(Clone, Debug)]
pub(super) struct Partials<T> {
    wakes: Option<u64>,
    /// Events looked at since there was nothing of the key.
    ordinal: u64,
    /// Events that wait for the watermark, by time and then as they came.
    waiting: Vec<(u64, T)>,
    /// Partial matches, in the order in which they began.
    partials: Vec<Vec<Taken<T>>>,
}

impl<T> Default for Partials<T> {
    fn default() -> Self {
        Self { wakes: None, ordinal: 0, waiting: Vec::new(), partials: Vec::new() }
    }
}

impl<T: Kept> Kept for Taken<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.ordinal, self.time).write(bytes);
        self.value.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (ordinal, time, value) = Kept::read(bytes)?;
        Some(Self { ordinal, time, value })
    }
}

impl<T: Kept> Kept for Partials<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.wakes, self.ordinal).write(bytes);
        self.waiting.write(bytes);
        self.partials.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (wakes, ordinal) = Kept::read(bytes)?;
        let (waiting, partials) = Kept::read(bytes)?;
        Some(Self { wakes, ordinal, waiting, partials })
    }
}

impl<T: Kept> Cell for Partials<T> {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.partials.is_empty()
    }

    fn wakes(&self) -> Option<u64> {
        self.wakes
    }
}

/// A pattern at work on one call.
pub(super) struct Machine<'m, T> {
    pattern: &'m Pattern<T>,
    read: &'m dyn Fn(&Event<'_>) -> Result<T>,
    emit: &'m mut dyn FnMut(&Found<'_, T>, Draft<'_>),
    watermark: u64,
    /// The step of each position, and its name.
    steps: Vec<&'m Step<T>>,
    names: Vec<&'static str>,
}

impl<'m, T: Kept + 'static> Machine<'m, T> {
    pub(super) fn new(
        pattern: &'m Pattern<T>,
        read: &'m dyn Fn(&Event<'_>) -> Result<T>,
        emit: &'m mut dyn FnMut(&Found<'_, T>, Draft<'_>),
    ) -> Self {
        let times = |step: &'m Step<T>| std::iter::repeat_n(step, step.times);
        let steps: Vec<&Step<T>> = pattern.steps.iter().flat_map(times).collect();
        let names = steps.iter().map(|step| step.name).collect();
        Self { pattern, read, emit, watermark: pattern.terms.watermark(), steps, names }
    }

    pub(super) fn handle(
        &mut self,
        event: &Event<'_>,
        of: &mut Partials<T>,
        out: &mut Output,
    ) -> Result {
        if event.kind() == Kind::Timer {
            let watermark = self.watermark.max(event.time());
            let count = of.waiting.partition_point(|(time, _)| *time < watermark);
            let ready: Vec<(u64, T)> = of.waiting.drain(..count).collect();
            for (time, value) in ready {
                self.look(event, of, (time, value), out);
            }
            self.end(event, of, watermark, out);
        } else {
            self.data(event, of, out)?;
        }
        if of.is_empty() {
            of.ordinal = 0;
        }
        let waits = of.waiting.first().map(|(time, _)| time + 1);
        let ends = of.partials.iter().map(|taken| taken[0].time + self.pattern.within + 1).min();
        of.wakes = waits.into_iter().chain(ends).min();
        Ok(())
    }

    fn data(&mut self, event: &Event<'_>, of: &mut Partials<T>, out: &mut Output) -> Result {
        let Pattern { terms, within, waiting_max, arrival, .. } = self.pattern;
        let time = terms.time(event);
        check_time(time, within + 1)?;
        if *arrival {
            let value = (self.read)(event)?;
            self.look(event, of, (time, value), out);
            return Ok(());
        }
        if time < self.watermark {
            return terms.too_late(event, self.watermark, out);
        }
        if of.waiting.len() >= *waiting_max {
            return Err(Failure::reject(format!(
                "the pattern {} has {waiting_max} events of this key waiting for the watermark: \
                 raise `waiting_max`",
                terms.name
            )));
        }
        let value = (self.read)(event)?;
        let place = of.waiting.partition_point(|(at, _)| *at <= time);
        of.waiting.insert(place, (time, value));
        Ok(())
    }

    /// Looks at one event, in its turn.
    fn look(
        &mut self,
        event: &Event<'_>,
        of: &mut Partials<T>,
        (time, value): (u64, T),
        out: &mut Output,
    ) {
        self.end(event, of, time, out);
        of.ordinal += 1;
        let taken = Taken { ordinal: of.ordinal, time, value };
        let mut place = 0;
        while place < of.partials.len() {
            match self.advance(&mut of.partials[place], &taken) {
                Advance::Stays => place += 1,
                Advance::Goes => drop(of.partials.remove(place)),
                Advance::Complete => {
                    let complete = of.partials.remove(place);
                    self.tell(event, &complete, (false, complete[complete.len() - 1].time), out);
                    if self.skip(&complete, of) {
                        return;
                    }
                }
            }
        }
        self.begin(event, of, taken, out);
    }

    /// Begins a partial match, if it can begin with this event.
    fn begin(
        &mut self,
        event: &Event<'_>,
        of: &mut Partials<T>,
        taken: Taken<T>,
        out: &mut Output,
    ) {
        if !(self.steps[0].test)(&taken.value, &self.seen(&[])) {
            return;
        }
        let time = taken.time;
        let begun = vec![taken];
        if self.steps.len() == 1 && self.pattern.behind.is_empty() {
            self.tell(event, &begun, (false, time), out);
            self.skip(&begun, of);
            return;
        }
        if of.partials.len() >= self.pattern.partials_max {
            metrics::count(DROPPED, 1);
            match self.pattern.full {
                Full::DropNewest => return,
                Full::DropOldest => drop(of.partials.remove(0)),
            }
        }
        of.partials.push(begun);
    }

    /// What an event does to a partial match.
    fn advance(&self, partial: &mut Vec<Taken<T>>, taken: &Taken<T>) -> Advance {
        let seen = self.seen(partial);
        let is = |test: &super::Test<T>| test(&taken.value, &seen);
        let Some(step) = self.steps.get(partial.len()) else {
            return if self.pattern.behind.iter().any(is) { Advance::Goes } else { Advance::Stays };
        };
        if step.without.iter().any(is) {
            return Advance::Goes;
        }
        if !is(&step.test) {
            // Only the first event of a step has to follow at once.
            let last = self.steps[..partial.len()].last();
            let first = last.is_none_or(|last| !std::ptr::eq(*last, *step));
            return if step.at_once && first { Advance::Goes } else { Advance::Stays };
        }
        partial.push(taken.clone());
        let complete = partial.len() == self.steps.len() && self.pattern.behind.is_empty();
        if complete { Advance::Complete } else { Advance::Stays }
    }

    /// Ends the partial matches whose time is over at `now`.
    fn end(&mut self, event: &Event<'_>, of: &mut Partials<T>, now: u64, out: &mut Output) {
        let over = |taken: &[Taken<T>]| taken[0].time + self.pattern.within;
        // Nothing is moved unless something is over.
        let mut place = 0;
        while place < of.partials.len() {
            let end = over(&of.partials[place]);
            if end >= now {
                place += 1;
                continue;
            }
            let partial = of.partials.remove(place);
            let complete = partial.len() == self.steps.len();
            self.tell(event, &partial, (!complete, end), out);
            if complete && self.skip(&partial, of) {
                place = 0;
            }
        }
    }

    /// Lets partial matches go that share events with a match, if they are to; true if so.
    fn skip(&self, complete: &[Taken<T>], of: &mut Partials<T>) -> bool {
        if self.pattern.skip == Skip::ToNext {
            return false;
        }
        let last = complete.last().map_or(0, |taken| taken.ordinal);
        of.partials.retain(|partial| partial[0].ordinal > last);
        true
    }

    fn tell(
        &mut self,
        event: &Event<'_>,
        taken: &[Taken<T>],
        (timed_out, time): (bool, u64),
        out: &mut Output,
    ) {
        let names = &self.names[..taken.len()];
        let found = Found { key: event.key(), timed_out, seen: Seen { names, taken } };
        (self.emit)(&found, out.draft(event).time(time));
    }

    fn seen<'a>(&'a self, taken: &'a [Taken<T>]) -> Seen<'a, T> {
        Seen { names: &self.names[..taken.len()], taken }
    }
}

/// What became of a partial match.
enum Advance {
    Stays,
    Goes,
    Complete,
}
