//! Windows: what came within a span of time, or how much of it, as one result.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluicebox_guest::window::{Window, sum};
//! use sluicebox_guest::{Events, Output, stage};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     cents: i64,
//! }
//!
//! const HOURLY: Window = Window::tumbling(Duration::from_hours(1)).late_port(1);
//!
//! #[stage]
//! fn revenue(events: Events<'_>, out: &mut Output) {
//!     HOURLY.aggregate(sum(), |event| Ok(event.json::<Order>()?.cents)).run(events, out);
//! }
//! # fn main() {}
//! ```
//!
//! A window is of one key. Its result leaves when the watermark has passed its end: by port 0, as
//! `{"key":"shop 7","start":…,"end":…,"value":…}`, with the last microsecond of the window as its
//! time, so that windows of windows nest.
//!
//! - An event behind the watermark still counts if the window it belongs to is not over for longer
//!   than [`Window::allowed_lateness`]: the window's result leaves at once, anew. Later ones go to
//!   the [`Window::late_port`], or fail; none is lost silently.
//! - Sliding windows keep panes, each as long as the greatest time that divides size and slide: an
//!   event changes one pane, however many windows it is in, and a result puts panes together.
//! - State goes with the last window it is needed for. At most [`Window::panes_max`] panes or
//!   sessions of a key are kept, and `limits.state-bytes` of the manifest bounds them together.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::event::{Event, Events};
use crate::failure::Result;
use crate::frame;
use crate::keyed::{Call, Terms, micros, terms};
use crate::output::{Draft, Output};

mod aggregate;
mod count;
mod session;
mod sliced;
mod top;

pub use aggregate::{
    Aggregate, Count, Distinct, DistinctCount, Max, Mean, Min, Sum, Summable, count, distinct, max,
    mean, min, sum,
};
pub use top::{Counted, MostFrequent, Ranked, Top, most_frequent, top};

/// Panes or sessions of one key that are kept, unless said otherwise.
const PANES_MAX: usize = 1_024;

/// Which events belong together. Made once, as a constant; then [`Window::aggregate`] says what is
/// made of them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    shape: Shape,
    terms: Terms,
    /// How often windows that are open give a result; 0 is never.
    early: u64,
    panes_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Sliced(sliced::Slices),
    Session { gap: u64 },
    Count { events: u64, after: u64 },
}

impl Window {
    /// Windows of this size, one behind the other. They begin at multiples of their size since
    /// 1970, in UTC; see [`Window::shifted`].
    ///
    /// # Panics
    ///
    /// If the size is 0; in a constant that is an error of the compiler.
    #[must_use]
    pub const fn tumbling(size: Duration) -> Self {
        Self::sliding(size, size)
    }

    /// Windows of this size, of which one begins each `slide`.
    ///
    /// # Panics
    ///
    /// If the size is 0, the slide is 0 or longer than the size, or a window would have more than
    /// 1,024 panes.
    #[must_use]
    pub const fn sliding(size: Duration, slide: Duration) -> Self {
        Self::of(Shape::Sliced(sliced::Slices::new(micros(size), micros(slide))))
    }

    /// Sessions: events that follow each other by less than `gap`. An event that lies between two
    /// sessions makes them one.
    ///
    /// # Panics
    ///
    /// If the gap is 0.
    #[must_use]
    pub const fn session(gap: Duration) -> Self {
        assert!(micros(gap) > 0, "the gap of sessions is at least a microsecond");
        Self::of(Shape::Session { gap: micros(gap) })
    }

    /// Windows of so many events, in the order they come.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    pub const fn count(events: u64) -> Self {
        assert!(events > 0, "a window is of at least one event");
        Self::of(Shape::Count { events, after: 0 })
    }

    const fn of(shape: Shape) -> Self {
        Self { shape, terms: Terms::new("window"), early: 0, panes_max: PANES_MAX }
    }

    terms!(lateness);

    /// Lets windows begin at multiples of the slide and this much more: `from_hours(23)` for days
    /// that begin at midnight in UTC+1.
    ///
    /// # Panics
    ///
    /// If they are sessions or windows of a count.
    #[must_use]
    pub const fn shifted(mut self, by: Duration) -> Self {
        match &mut self.shape {
            Shape::Sliced(slices) => slices.shift(micros(by)),
            Shape::Session { .. } | Shape::Count { .. } => {
                panic!("only tumbling and sliding windows can be shifted")
            }
        }
        self
    }

    /// Gives a window of a count that is not full after this time anyway. The time begins with the
    /// time of its first event.
    ///
    /// # Panics
    ///
    /// If they are other windows, or the time is 0.
    #[must_use]
    pub const fn or_after(mut self, time: Duration) -> Self {
        assert!(micros(time) > 0, "a window is open for at least a microsecond");
        match &mut self.shape {
            Shape::Count { after, .. } => *after = micros(time),
            Shape::Sliced(_) | Shape::Session { .. } => {
                panic!("only windows of a count end after a time")
            }
        }
        self
    }

    /// Gives results of open windows as well, with [`Firing::Early`], when the watermark passes
    /// multiples of this time; of keys that had no event since the last time it gives none.
    ///
    /// # Panics
    ///
    /// If the time is 0, or they are windows of a count.
    #[must_use]
    pub const fn early_every(mut self, time: Duration) -> Self {
        assert!(micros(time) > 0, "early results are at least a microsecond apart");
        assert!(!matches!(self.shape, Shape::Count { .. }), "windows of a count give none early");
        self.early = micros(time);
        self
    }

    /// How many panes or sessions of a key are kept at most, 1,024 if it is not said. An event that
    /// needs one more fails.
    #[must_use]
    pub const fn panes_max(mut self, panes: usize) -> Self {
        self.panes_max = panes;
        self
    }

    /// Says what is made of a window's events: what `read` takes from each, put together by an
    /// [`Aggregate`]. If `read` gives an error the event fails.
    pub fn aggregate<A, R>(self, aggregate: A, read: R) -> Aggregated<A, R>
    where
        A: Aggregate,
        R: Fn(&Event<'_>) -> Result<A::Input>,
    {
        Aggregated { window: self, aggregate, read }
    }
}

/// Windows with what is made of them. Made by [`Window::aggregate`].
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing happens until `run` is called"]
pub struct Aggregated<A, R> {
    window: Window,
    aggregate: A,
    read: R,
}

impl<A, R> Aggregated<A, R>
where
    A: Aggregate,
    R: Fn(&Event<'_>) -> Result<A::Input>,
{
    /// Takes the events of a call, and emits each result as JSON by port 0.
    pub fn run(&self, events: Events<'_>, out: &mut Output)
    where
        A::Output: Serialize,
    {
        self.run_with(events, out, |result, draft| draft.json(result));
    }

    /// Takes the events of a call, and lets `emit` make an event of each result. The draft has the
    /// time of the result, and the key of the window; a port or payload of its own is said there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sluicebox_guest::window::{Window, count};
    /// # use sluicebox_guest::{Events, Output};
    /// const LAST_MINUTE: Window =
    ///     Window::sliding(Duration::from_mins(1), Duration::from_secs(10));
    ///
    /// fn busy(events: Events<'_>, out: &mut Output) {
    ///     LAST_MINUTE.aggregate(count(), |_| Ok(())).run_with(events, out, |window, draft| {
    ///         if window.value > 100 {
    ///             draft.port(1).emit(format!("{} had {}", window.key, window.value));
    ///         }
    ///     });
    /// }
    /// ```
    pub fn run_with(
        &self,
        events: Events<'_>,
        out: &mut Output,
        mut emit: impl FnMut(&Closed<'_, A::Output>, Draft<'_>),
    ) {
        let call = Call::new(events, &self.window.terms);
        if call.events.is_empty() {
            return;
        }
        let mut job = Job {
            window: &self.window,
            aggregate: &self.aggregate,
            read: &self.read,
            emit: &mut emit,
            watermark: self.window.terms.watermark(),
        };
        match self.window.shape {
            Shape::Sliced(slices) => sliced::run(&mut job, slices, &call, out),
            Shape::Session { gap } => session::run(&mut job, gap, &call, out),
            Shape::Count { events, after } => count::run(&mut job, (events, after), &call, out),
        }
    }
}

/// The result of one window.
#[derive(Clone, Debug, Serialize)]
pub struct Closed<'a, V> {
    /// The key.
    pub key: &'a str,
    /// When the window begins. Of a session or a count: the time of its first event.
    pub start: u64,
    /// When it ends, itself not included. Of a session: its last event and the gap; of a count:
    /// behind its last event.
    pub end: u64,
    /// Why there is a result.
    #[serde(skip_serializing_if = "Firing::is_on_time")]
    pub firing: Firing,
    /// Starts of the results that this one takes the place of; only sessions name any, as a late
    /// event can change their start, or make one of two.
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    pub replaces: &'a [u64],
    /// What was made of its events.
    pub value: V,
}

/// Why a window gives a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firing {
    /// It is open, and the stage wants to know early.
    Early,
    /// It is over, or full.
    OnTime,
    /// It was over, and an event came late.
    Late,
}

impl Firing {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_on_time(&self) -> bool {
        *self == Self::OnTime
    }
}

impl Serialize for Firing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Early => "early",
            Self::OnTime => "on-time",
            Self::Late => "late",
        })
    }
}

/// A run of windows over one call.
struct Job<'j, A: Aggregate> {
    window: &'j Window,
    aggregate: &'j A,
    read: &'j dyn Fn(&Event<'_>) -> Result<A::Input>,
    emit: &'j mut dyn FnMut(&Closed<'_, A::Output>, Draft<'_>),
    watermark: u64,
}

/// Which window a result is of.
#[derive(Clone, Copy)]
struct Span<'a> {
    start: u64,
    end: u64,
    firing: Firing,
    replaces: &'a [u64],
}

impl<A: Aggregate> Job<'_, A> {
    /// Emits the result of a window because of `event`.
    fn emit(&mut self, event: &Event<'_>, span: Span<'_>, kept: &A::Kept, out: &mut Output) {
        let Span { start, end, firing, replaces } = span;
        let value = self.aggregate.output(kept);
        let result = Closed { key: event.key(), start, end, firing, replaces, value };
        (self.emit)(&result, out.draft(event).time(end - 1));
    }

    /// The next time after the watermark at which open windows give results.
    fn next_early(&self) -> u64 {
        let early = self.window.early;
        (self.watermark / early + 1).saturating_mul(early).min(frame::TIME_END - 1)
    }

    /// The watermark at which a timer is handled: it fired, so the watermark has come that far.
    fn watermark_at(&self, timer: &Event<'_>) -> u64 {
        self.watermark.max(timer.time())
    }
}

#[cfg(test)]
mod tests;
