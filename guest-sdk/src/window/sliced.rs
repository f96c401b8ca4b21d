//! Tumbling and sliding windows, put together from panes.
//!
//! ```text
//! size 6, slide 4      panes of 2:   0 1 2 3 4 5 6 7
//!                      windows:      └─────┘ (ends at 3)
//!                                        └─────┘ (ends at 5)
//!                                            └─────┘ (ends at 7)
//! ```
//!
//! - Times here are counted in panes: a pane's id is its number, a window is known by the number of
//!   the pane behind it, its end.
//! - A key waits for the end of one window, `fire`: the first that is not over and has a pane. From
//!   it follow all later ones, so that one timer does for all windows of a key.
//! - A window before `fire` is over, or empty. If an event changes it, its result leaves at once.

use crate::event::{Event, Kind};
use crate::failure::{Failure, Result};
use crate::kept::Kept;
use crate::keyed::shelf::Shelf;
use crate::keyed::{Call, check_time};
use crate::output::Output;
use crate::window::{Aggregate, Firing, Job, Span};

/// Most panes of a window.
const PANES_A_WINDOW_MAX: u64 = 1_024;
/// Windows of a key that give their results in one call; the rest follow in the next.
const FIRED_MAX: usize = 64;
/// Panes of a key that are read ahead for a timer.
const AHEAD_MAX: usize = 1_024;

/// How time is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    /// Microseconds of a pane.
    width: u64,
    /// Panes of a window.
    size: u64,
    /// Panes from one window to the next.
    slide: u64,
    /// Added to a time before it is cut.
    shift: u64,
}

impl Slices {
    pub(super) const fn new(size: u64, slide: u64) -> Self {
        assert!(size > 0, "the size of a window is at least a microsecond");
        assert!(
            slide > 0 && slide <= size,
            "the slide of windows is from a microsecond to the size"
        );
        let (mut width, mut rest) = (size, slide);
        while rest > 0 {
            (width, rest) = (rest, width % rest);
        }
        let slices = Self { width, size: size / width, slide: slide / width, shift: 0 };
        assert!(slices.size <= PANES_A_WINDOW_MAX, "a window has at most 1,024 panes");
        slices
    }

    pub(super) const fn shift(&mut self, by: u64) {
        let slide = self.slide * self.width;
        self.shift = (slide - by % slide) % slide;
    }

    /// The pane a time is in.
    const fn pane(&self, time: u64) -> u64 {
        (time + self.shift) / self.width
    }

    /// The time at which a pane begins.
    const fn time(&self, pane: u64) -> u64 {
        (pane * self.width).saturating_sub(self.shift)
    }

    /// The end of the first window a pane is in.
    const fn first_end(&self, pane: u64) -> u64 {
        let behind = (pane + 1).saturating_sub(self.size);
        behind.div_ceil(self.slide) * self.slide + self.size
    }

    /// The end of the last window a pane is in.
    const fn last_end(&self, pane: u64) -> u64 {
        pane / self.slide * self.slide + self.size
    }

    /// The end of the first window behind the one that ends at `after` in which one of these panes
    /// is.
    fn end_behind(&self, after: u64, panes: &[u64]) -> Option<u64> {
        let first = panes.partition_point(|pane| self.last_end(*pane) <= after);
        Some(self.first_end(*panes.get(first)?).max(after + self.slide))
    }
}

type Cut = ((u64, u64), (u64, u64));

/// What is noted of a key beside its panes.
#[derive(Clone, Copy, Debug, Default)]
struct Notes {
    /// Width and size, slide and shift the panes were made with; 0 before there are any.
    cut: Cut,
    /// End of the next window to give its result; 0 if there is none.
    fire: u64,
    /// When open windows give results; 0 if nothing came since they last did.
    early: u64,
}

impl Kept for Notes {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.cut.write(bytes);
        (self.fire, self.early).write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let cut = Kept::read(bytes)?;
        let (fire, early) = Kept::read(bytes)?;
        Some(Self { cut, fire, early })
    }
}

/// The windows of one call, at work.
struct Work<'w, 'j, 'c, 'a, A: Aggregate> {
    job: &'w mut Job<'j, A>,
    slices: Slices,
    shelf: Shelf<'c, 'a, Notes, A::Kept>,
}

pub(super) fn run<A: Aggregate>(
    job: &mut Job<'_, A>,
    slices: Slices,
    call: &Call<'_>,
    out: &mut Output,
) {
    let terms = job.window.terms;
    let own_pane = |event: &Event<'_>, ids: &mut Vec<u64>| {
        if event.kind() == Kind::Data {
            ids.push(slices.pane(terms.time(event)));
        }
    };
    let shelf = Shelf::open(&terms, call, own_pane, out);
    let mut work = Work { job, slices, shelf };
    work.read_ahead(call);
    for (event, key) in &call.events {
        if let Err(failure) = work.handle(event, *key, out) {
            out.fail(event, failure);
        }
    }
    for key in 0..call.keys.len() {
        if work.shelf.check(key).is_ok() {
            work.wake(key);
        }
    }
    work.shelf.close(out);
}

impl<A: Aggregate> Work<'_, '_, '_, '_, A> {
    /// Reads the panes of windows that will give a result in this call.
    fn read_ahead(&mut self, call: &Call<'_>) {
        let mut wanted = Vec::new();
        let slices = self.slices;
        for (event, key) in &call.events {
            if self.shelf.check(*key).is_err() {
                continue;
            }
            let (first, end) = if event.kind() == Kind::Timer {
                let fire = self.shelf.notes(*key).fire;
                let open = if self.job.window.early == 0 { 0 } else { slices.size };
                (fire.saturating_sub(slices.size), slices.pane(self.job.watermark_at(event)) + open)
            } else {
                let pane = slices.pane(self.job.window.terms.time(event));
                let first_end = slices.first_end(pane);
                if slices.time(first_end) > self.job.watermark {
                    continue;
                }
                (first_end - slices.size, slices.last_end(pane))
            };
            let ids = self.shelf.ids(*key);
            let from = ids.partition_point(|id| *id < first);
            let near = ids[from..].iter().take_while(|id| **id < end).take(AHEAD_MAX);
            wanted.extend(near.map(|id| (*key, *id)));
        }
        if !wanted.is_empty() {
            self.shelf.fetch(wanted);
        }
    }

    fn handle(&mut self, event: &Event<'_>, key: usize, out: &mut Output) -> Result {
        self.shelf.check(key)?;
        let Slices { width, size, slide, shift } = self.slices;
        let cut = ((width, size), (slide, shift));
        let had = &mut self.shelf.notes(key).cut;
        if *had == Cut::default() {
            *had = cut;
        } else if *had != cut {
            return Err(Failure::reject(format!(
                "the windows {} were kept with another size or slide: name them anew, or discard \
                 the state of the stage",
                self.job.window.terms.name
            )));
        }
        match event.kind() {
            Kind::Timer => self.timer(event, key, out),
            _ => self.data(event, key, out),
        }
    }

    fn data(&mut self, event: &Event<'_>, key: usize, out: &mut Output) -> Result {
        let Slices { width, size, slide, .. } = self.slices;
        let (watermark, lateness) = (self.job.watermark, self.job.window.terms.lateness);
        let time = self.job.window.terms.time(event);
        check_time(time, (size + slide + 1) * width + lateness)?;
        let pane = self.slices.pane(time);
        let last_end = self.slices.last_end(pane);
        if self.slices.time(last_end) + lateness <= watermark {
            return self.job.window.terms.too_late(event, watermark, out);
        }
        self.add(event, key, pane)?;
        let mut end = self.slices.first_end(pane);
        while end <= last_end {
            let fire = self.shelf.notes(key).fire;
            if fire != 0 && end >= fire {
                break;
            }
            let ends_at = self.slices.time(end);
            if ends_at > watermark {
                self.shelf.notes(key).fire = end;
                break;
            }
            if ends_at + lateness > watermark {
                self.fire(event, key, (end, Firing::Late), out)?;
            }
            end += slide;
        }
        if self.job.window.early > 0 && self.slices.time(last_end) > watermark {
            let next = self.job.next_early();
            let early = &mut self.shelf.notes(key).early;
            if *early == 0 {
                *early = next;
            }
        }
        Ok(())
    }

    /// Adds the event to its pane.
    fn add(&mut self, event: &Event<'_>, key: usize, pane: u64) -> Result {
        let input = (self.job.read)(event)?;
        if let Some(kept) = self.shelf.pane_mut(key, pane)? {
            self.job.aggregate.add(kept, input);
            return Ok(());
        }
        let most = self.job.window.panes_max;
        if self.shelf.ids(key).len() >= most {
            let name = self.job.window.terms.name;
            return Err(Failure::reject(format!(
                "the windows {name} of this key have {most} panes already: raise `panes_max`"
            )));
        }
        self.shelf.insert(key, pane, self.job.aggregate.first(input));
        Ok(())
    }

    fn timer(&mut self, event: &Event<'_>, key: usize, out: &mut Output) -> Result {
        let watermark = self.job.watermark_at(event);
        let mut left = FIRED_MAX;
        loop {
            let fire = self.shelf.notes(key).fire;
            if fire == 0 || self.slices.time(fire) > watermark {
                break;
            }
            if left == 0 {
                // The timer is set again, for a time that has come.
                return Ok(());
            }
            left -= 1;
            self.fire(event, key, (fire, Firing::OnTime), out)?;
            let next = self.slices.end_behind(fire, self.shelf.ids(key));
            self.shelf.notes(key).fire = next.unwrap_or(0);
        }
        self.early(event, key, watermark, out)?;
        let lateness = self.job.window.terms.lateness;
        let over =
            |pane: &u64| self.slices.time(self.slices.last_end(*pane)) + lateness <= watermark;
        let ids = self.shelf.ids(key);
        if let Some(last) = ids[..ids.partition_point(over)].last().copied() {
            self.shelf.remove_below(key, last + 1);
        }
        Ok(())
    }

    /// Lets windows that have begun and are not over give a result, if it is time.
    fn early(&mut self, event: &Event<'_>, key: usize, watermark: u64, out: &mut Output) -> Result {
        let Notes { fire, early, .. } = *self.shelf.notes(key);
        if early == 0 || early > watermark {
            return Ok(());
        }
        self.shelf.notes(key).early = 0;
        let mut next = (fire != 0).then_some(fire);
        while let Some(end) =
            next.filter(|end| self.slices.time(end - self.slices.size) < watermark)
        {
            self.fire(event, key, (end, Firing::Early), out)?;
            next = self.slices.end_behind(end, self.shelf.ids(key));
        }
        Ok(())
    }

    /// Emits the result of the window with this end, if there is anything in it.
    fn fire(
        &mut self,
        event: &Event<'_>,
        key: usize,
        (end, firing): (u64, Firing),
        out: &mut Output,
    ) -> Result {
        let first = end - self.slices.size;
        let ids = self.shelf.ids(key);
        let from = ids.partition_point(|id| *id < first);
        let panes: Vec<u64> = ids[from..].iter().copied().take_while(|id| *id < end).collect();
        let mut all: Option<A::Kept> = None;
        for pane in panes {
            match (&mut all, self.shelf.pane(key, pane)?) {
                (Some(all), Some(kept)) => self.job.aggregate.merge(all, kept),
                (None, kept) => all = kept.cloned(),
                (Some(_), None) => {}
            }
        }
        let (start, end) = (self.slices.time(first), self.slices.time(end));
        if let Some(kept) = all {
            self.job.emit(event, Span { start, end, firing, replaces: &[] }, &kept, out);
        }
        Ok(())
    }

    /// Says when the key is to be woken.
    fn wake(&mut self, key: usize) {
        let lateness = self.job.window.terms.lateness;
        let goes = self.shelf.ids(key).first();
        let goes = goes.map(|pane| self.slices.time(self.slices.last_end(*pane)) + lateness);
        let Notes { fire, early, .. } = *self.shelf.notes(key);
        let fires = (fire != 0).then(|| self.slices.time(fire));
        let early = (early != 0).then_some(early);
        self.shelf.wake(key, [goes, fires, early].into_iter().flatten().min());
    }
}
