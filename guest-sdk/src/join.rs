//! Interval join: pairs of events of one key, from two inputs, that are close in time.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluicebox_guest::join::Join;
//! use sluicebox_guest::{Events, Output, stage};
//!
//! /// A click belongs to what was shown at most ten minutes before it.
//! const SHOWN_BEFORE: Join = Join::within(Duration::ZERO, Duration::from_mins(10)).late_port(1);
//!
//! #[stage]
//! fn clicked(events: Events<'_>, out: &mut Output) {
//!     SHOWN_BEFORE
//!         .of(|shown| Ok(shown.text()?.to_owned()), |click| Ok(click.text()?.to_owned()))
//!         .run(events, out, |shown, click, draft| {
//!             draft.emit(format!("{} after {} µs", shown.value, click.time - shown.time));
//!         });
//! }
//! # fn main() {}
//! ```
//!
//! Left is input 0 of the stage, right is input 1. Both are kept until nothing that can still come
//! is close enough; a pair leaves when its second event comes, exactly once.
//!
//! - An event is late when it is behind the watermark by more than the lateness; all others find
//!   each other, whatever the order in which they come.
//! - Events are kept in buckets of half the length of the interval: an event rewrites one bucket,
//!   and looks at the few that can hold a partner.
//! - At most [`Join::events_max`] events of a key are kept.

use std::time::Duration;

use crate::event::{Event, Events, Kind};
use crate::failure::{Failure, Result};
use crate::kept::Kept;
use crate::keyed::shelf::Shelf;
use crate::keyed::{Call, Terms, check_time, micros, terms};
use crate::output::{Draft, Output};

mod bucket;

use bucket::{Bucket, Notes, Side, Waiting};

/// Events of a key that are kept, unless said otherwise.
const EVENTS_MAX: u64 = 10_000;
/// A bucket is no shorter, so that a narrow interval does not make one for each event.
const BUCKET_MICROS_MIN: u64 = 1_000;

/// Which events are a pair. Made once, as a constant; then [`Join::of`] says what is kept of them.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    terms: Terms,
    lower: i64,
    upper: i64,
    events_max: u64,
}

impl Join {
    /// A right event at most so long before the left one, and at most so long after it.
    #[must_use]
    pub const fn within(before: Duration, after: Duration) -> Self {
        Self::between(-(micros(before) as i64), micros(after) as i64)
    }

    /// A right event whose time, less that of the left one, is from `lower` to `upper`
    /// microseconds.
    ///
    /// # Panics
    ///
    /// If `upper` is below `lower`, or a bound is 2^53 or more; in a constant that is an error of
    /// the compiler.
    #[must_use]
    pub const fn between(lower: i64, upper: i64) -> Self {
        assert!(lower <= upper, "an interval begins before it ends");
        let most = 1 << 53;
        assert!(lower > -most && upper < most, "the bounds of an interval are below 2^53");
        Self { terms: Terms::new("join"), lower, upper, events_max: EVENTS_MAX }
    }

    terms!(lateness);

    /// How many events of a key are kept at most, both sides together; 10,000 if it is not said. An
    /// event that would be one more fails.
    #[must_use]
    pub const fn events_max(mut self, events: u64) -> Self {
        self.events_max = events;
        self
    }

    /// Says what is kept of an event: of one at input 0, and of one at input 1. If that gives an
    /// error the event fails. For what is read with serde there is
    /// [`kept_as_json!`](crate::kept_as_json).
    pub fn of<L, R, FL, FR>(self, left: FL, right: FR) -> Joining<FL, FR>
    where
        L: Kept,
        R: Kept,
        FL: Fn(&Event<'_>) -> Result<L>,
        FR: Fn(&Event<'_>) -> Result<R>,
    {
        Joining { join: self, left, right }
    }

    const fn bucket(&self) -> u64 {
        let half = self.upper.abs_diff(self.lower) / 2;
        if half > BUCKET_MICROS_MIN { half } else { BUCKET_MICROS_MIN }
    }

    /// The first and last time of a partner of an event; nothing if that would be before 1970.
    fn partners(&self, side: Side, time: u64) -> Option<(u64, u64)> {
        let (first, last) = match side {
            Side::Left => (self.lower, self.upper),
            Side::Right => (-self.upper, -self.lower),
        };
        Some((time.saturating_add_signed(first), time.checked_add_signed(last)?))
    }

    /// The watermark at which no partner of an event of the bucket can come any more.
    fn over(&self, id: u64) -> u64 {
        let (bucket, side) = Side::of(id);
        let reach = match side {
            Side::Left => self.upper,
            Side::Right => -self.lower,
        };
        let end = (bucket + 1) * self.bucket() + self.terms.lateness;
        end.saturating_add_signed(reach)
    }
}

/// One event of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<T> {
    /// Its event time.
    pub time: u64,
    /// What was kept of it.
    pub value: T,
}

/// A join with what is kept. Made by [`Join::of`].
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing happens until `run` is called"]
pub struct Joining<FL, FR> {
    join: Join,
    left: FL,
    right: FR,
}

impl<FL, FR> Joining<FL, FR> {
    /// Takes the events of a call, and lets `emit` make an event of each pair. The draft's cause is
    /// the event that completes the pair, its time that of the later one.
    pub fn run<L, R>(
        &self,
        events: Events<'_>,
        out: &mut Output,
        mut emit: impl FnMut(&Item<L>, &Item<R>, Draft<'_>),
    ) where
        L: Kept,
        R: Kept,
        FL: Fn(&Event<'_>) -> Result<L>,
        FR: Fn(&Event<'_>) -> Result<R>,
    {
        self.start(events, out, false, &mut |left, right, draft| {
            if let (Some(left), Some(right)) = (left, right) {
                emit(left, right, draft);
            }
        });
    }

    /// As [`Joining::run`], and of each event that found no partner `emit` is told as well, alone,
    /// when none can come any more: when the watermark is at most half an interval behind that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sluicebox_guest::join::Join;
    /// # use sluicebox_guest::{Events, Output};
    /// /// Orders by port 0 if they were paid within a day, by port 1 if not.
    /// fn paid(events: Events<'_>, out: &mut Output) {
    ///     Join::within(Duration::ZERO, Duration::from_hours(24))
    ///         .of(|order| Ok(order.text()?.to_owned()), |_payment| Ok(()))
    ///         .run_outer(events, out, |order, payment, draft| match (order, payment) {
    ///             (Some(order), Some(_)) => draft.emit(&order.value),
    ///             (Some(order), None) => draft.port(1).emit(&order.value),
    ///             (None, _) => {}
    ///         });
    /// }
    /// ```
    pub fn run_outer<L, R>(
        &self,
        events: Events<'_>,
        out: &mut Output,
        mut emit: impl FnMut(Option<&Item<L>>, Option<&Item<R>>, Draft<'_>),
    ) where
        L: Kept,
        R: Kept,
        FL: Fn(&Event<'_>) -> Result<L>,
        FR: Fn(&Event<'_>) -> Result<R>,
    {
        self.start(events, out, true, &mut emit);
    }

    fn start<L, R>(
        &self,
        events: Events<'_>,
        out: &mut Output,
        outer: bool,
        emit: &mut Emit<'_, L, R>,
    ) where
        L: Kept,
        R: Kept,
        FL: Fn(&Event<'_>) -> Result<L>,
        FR: Fn(&Event<'_>) -> Result<R>,
    {
        let terms = self.join.terms;
        let call = Call::new(events, &terms);
        if call.events.is_empty() {
            return;
        }
        let join = self.join;
        let near = |event: &Event<'_>, ids: &mut Vec<u64>| {
            if let (Kind::Data, Some(side)) = (event.kind(), Side::at(event)) {
                let time = terms.time(event);
                ids.push(side.id(time / join.bucket()));
                let Some((first, last)) = join.partners(side, time) else {
                    return;
                };
                let buckets = first / join.bucket()..=last / join.bucket();
                ids.extend(buckets.map(|bucket| side.other().id(bucket)));
            }
        };
        let mut work = Work {
            join: &join,
            outer,
            emit,
            left: &self.left,
            right: &self.right,
            watermark: terms.watermark(),
            shelf: Shelf::open(&terms, &call, near, out),
        };
        for (event, key) in &call.events {
            if let Err(failure) = work.handle(event, *key, out) {
                out.fail(event, failure);
            }
        }
        for key in 0..call.keys.len() {
            if work.shelf.check(key).is_ok() {
                let next = work.shelf.ids(key).iter().map(|id| join.over(*id)).min();
                work.shelf.wake(key, next);
            }
        }
        work.shelf.close(out);
    }
}

/// How a pair, or one that is left alone, leaves.
type Emit<'e, L, R> = dyn FnMut(Option<&Item<L>>, Option<&Item<R>>, Draft<'_>) + 'e;

/// What was kept of an event at hand.
enum Own<L, R> {
    Left(Waiting<L>),
    Right(Waiting<R>),
}

/// The join over one call, at work.
struct Work<'w, 'e, 'c, 'a, L, R, FL, FR> {
    join: &'w Join,
    outer: bool,
    emit: &'w mut Emit<'e, L, R>,
    left: &'w FL,
    right: &'w FR,
    watermark: u64,
    shelf: Shelf<'c, 'a, Notes, Bucket<L, R>>,
}

impl<L, R, FL, FR> Work<'_, '_, '_, '_, L, R, FL, FR>
where
    L: Kept,
    R: Kept,
    FL: Fn(&Event<'_>) -> Result<L>,
    FR: Fn(&Event<'_>) -> Result<R>,
{
    fn handle(&mut self, event: &Event<'_>, key: usize, out: &mut Output) -> Result {
        self.shelf.check(key)?;
        let bucket = self.join.bucket();
        let had = &mut self.shelf.notes(key).bucket;
        if *had == 0 {
            *had = bucket;
        } else if *had != bucket {
            return Err(Failure::reject(format!(
                "the join {} was kept with another interval: name it anew, or discard the state of \
                 the stage",
                self.join.terms.name
            )));
        }
        if event.kind() == Kind::Timer {
            return self.timer(event, key, out);
        }
        let Some(side) = Side::at(event) else {
            let input = event.input();
            return Err(Failure::reject(format!("a join has inputs 0 and 1, not {input}")));
        };
        let time = self.join.terms.time(event);
        let lateness = self.join.terms.lateness;
        let reach = self.join.lower.unsigned_abs().max(self.join.upper.unsigned_abs());
        check_time(time, reach + bucket + lateness)?;
        if time + lateness < self.watermark {
            return self.join.terms.too_late(event, self.watermark, out);
        }
        let own = match side {
            Side::Left => Own::Left(Waiting::new(time, (self.left)(event)?)),
            Side::Right => Own::Right(Waiting::new(time, (self.right)(event)?)),
        };
        self.data(event, (key, side, time), own, out)
    }

    fn data(
        &mut self,
        event: &Event<'_>,
        (key, side, time): (usize, Side, u64),
        mut own: Own<L, R>,
        out: &mut Output,
    ) -> Result {
        let most = self.join.events_max;
        if self.shelf.notes(key).events >= most {
            let name = self.join.terms.name;
            return Err(Failure::reject(format!(
                "the join {name} keeps {most} events of this key already: raise `events_max`"
            )));
        }
        let bucket = self.join.bucket();
        if let Some((first, last)) = self.join.partners(side, time) {
            for near in first / bucket..=last / bucket {
                let id = side.other().id(near);
                self.pair(event, (key, id), (first, last), (&mut own, out))?;
            }
        }
        let id = side.id(time / bucket);
        if self.join.over(id) <= self.watermark {
            self.alone(event, &own, out);
            return Ok(());
        }
        self.shelf.notes(key).events += 1;
        match (self.shelf.pane_mut(key, id)?, own) {
            (Some(Bucket::Left(all)), Own::Left(own)) => all.push(own),
            (Some(Bucket::Right(all)), Own::Right(own)) => all.push(own),
            (_, Own::Left(own)) => self.shelf.insert(key, id, Bucket::Left(vec![own])),
            (_, Own::Right(own)) => self.shelf.insert(key, id, Bucket::Right(vec![own])),
        }
        Ok(())
    }

    /// Emits the pairs of the event at hand with those of one bucket whose times are in range.
    fn pair(
        &mut self,
        event: &Event<'_>,
        (key, id): (usize, u64),
        (first, last): (u64, u64),
        (own, out): (&mut Own<L, R>, &mut Output),
    ) -> Result {
        let range = first..=last;
        let emit = &mut *self.emit;
        let mut draft = |left: &Item<L>, right: &Item<R>| {
            let time = left.time.max(right.time);
            emit(Some(left), Some(right), out.draft(event).time(time));
        };
        let mut fresh = false;
        match (self.shelf.pane(key, id)?, &mut *own) {
            (Some(Bucket::Right(all)), Own::Left(own)) => {
                for right in all.iter().filter(|one| range.contains(&one.item.time)) {
                    draft(&own.item, &right.item);
                    own.paired = true;
                    fresh |= !right.paired;
                }
            }
            (Some(Bucket::Left(all)), Own::Right(own)) => {
                for left in all.iter().filter(|one| range.contains(&one.item.time)) {
                    draft(&left.item, &own.item);
                    own.paired = true;
                    fresh |= !left.paired;
                }
            }
            _ => {}
        }
        // Only an outer join asks later, and only then is the bucket written for it.
        if self.outer && fresh {
            match self.shelf.pane_mut(key, id)? {
                Some(Bucket::Left(all)) => bucket::mark(all, first, last),
                Some(Bucket::Right(all)) => bucket::mark(all, first, last),
                None => {}
            }
        }
        Ok(())
    }

    /// Tells of an event that found no partner, if that is asked for.
    fn alone(&mut self, event: &Event<'_>, own: &Own<L, R>, out: &mut Output) {
        if !self.outer {
            return;
        }
        match own {
            Own::Left(own) if !own.paired => {
                (self.emit)(Some(&own.item), None, out.draft(event).time(own.item.time));
            }
            Own::Right(own) if !own.paired => {
                (self.emit)(None, Some(&own.item), out.draft(event).time(own.item.time));
            }
            _ => {}
        }
    }

    /// Lets go of the buckets whose time is over.
    fn timer(&mut self, event: &Event<'_>, key: usize, out: &mut Output) -> Result {
        let watermark = self.watermark.max(event.time());
        let ids = self.shelf.ids(key).iter().copied();
        let over: Vec<u64> = ids.filter(|id| self.join.over(*id) <= watermark).collect();
        self.shelf.fetch(over.iter().map(|id| (key, *id)).collect());
        self.shelf.check(key)?;
        for id in over {
            let Some(bucket) = self.shelf.pane(key, id)?.cloned() else {
                continue;
            };
            self.shelf.notes(key).events -= (bucket.len() as u64).min(self.shelf.notes(key).events);
            self.shelf.remove(key, id);
            match bucket {
                Bucket::Left(all) => {
                    all.into_iter().for_each(|one| self.alone(event, &Own::Left(one), out));
                }
                Bucket::Right(all) => {
                    all.into_iter().for_each(|one| self.alone(event, &Own::Right(one), out));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
