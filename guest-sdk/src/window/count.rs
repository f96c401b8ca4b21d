//! Windows of a number of events, in the order they come: no event is late.
//!
//! One slot a key holds the window that is being filled. It has a timer only if the window is to
//! end after a time as well.

use crate::event::{Event, Kind};
use crate::failure::Result;
use crate::kept::Kept;
use crate::keyed::cell::{self, Cell};
use crate::keyed::{Call, check_time};
use crate::output::Output;
use crate::window::{Aggregate, Firing, Job, Span};

/// The window of a key that is being filled.
#[derive(Clone, Debug)]
struct Filling<K> {
    wakes: Option<u64>,
    events: u64,
    first: u64,
    last: u64,
    kept: Option<K>,
}

impl<K> Default for Filling<K> {
    fn default() -> Self {
        Self { wakes: None, events: 0, first: u64::MAX, last: 0, kept: None }
    }
}

impl<K: Kept> Kept for Filling<K> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.wakes, self.events).write(bytes);
        (self.first, self.last).write(bytes);
        self.kept.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (wakes, events) = Kept::read(bytes)?;
        let (first, last, kept) = Kept::read(bytes)?;
        Some(Self { wakes, events, first, last, kept })
    }
}

impl<K: Kept> Cell for Filling<K> {
    fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    fn wakes(&self) -> Option<u64> {
        self.wakes
    }
}

pub(super) fn run<A: Aggregate>(
    job: &mut Job<'_, A>,
    (most, after): (u64, u64),
    call: &Call<'_>,
    out: &mut Output,
) {
    let terms = job.window.terms;
    cell::run(&terms, call, out, |event, filling: &mut Filling<A::Kept>, out| {
        if event.kind() == Kind::Timer {
            if filling.wakes.is_some_and(|at| at <= job.watermark_at(event)) {
                give(job, event, filling, out);
            }
            return Ok(());
        }
        add(job, after, event, filling)?;
        if filling.events >= most {
            give(job, event, filling, out);
        }
        Ok(())
    });
}

fn add<A: Aggregate>(
    job: &Job<'_, A>,
    after: u64,
    event: &Event<'_>,
    filling: &mut Filling<A::Kept>,
) -> Result {
    let time = job.window.terms.time(event);
    check_time(time, after)?;
    let input = (job.read)(event)?;
    match &mut filling.kept {
        Some(kept) => job.aggregate.add(kept, input),
        empty @ None => {
            *empty = Some(job.aggregate.first(input));
            filling.wakes = (after > 0).then_some(time + after);
        }
    }
    filling.events += 1;
    filling.first = filling.first.min(time);
    filling.last = filling.last.max(time);
    Ok(())
}

/// Emits the result, and begins the next window.
fn give<A: Aggregate>(
    job: &mut Job<'_, A>,
    event: &Event<'_>,
    filling: &mut Filling<A::Kept>,
    out: &mut Output,
) {
    let Filling { first, last, kept, .. } = std::mem::take(filling);
    if let Some(kept) = kept {
        let span = Span { start: first, end: last + 1, firing: Firing::OnTime, replaces: &[] };
        job.emit(event, span, &kept, out);
    }
}
