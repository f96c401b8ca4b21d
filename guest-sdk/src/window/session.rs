//! Session windows: events of a key that follow each other without a gap.
//!
//! - The sessions of a key do not touch, and are kept in the order of time in one slot: a key has
//!   one or two as a rule.
//! - An event is a session of its own, as long as the gap, until it is put together with those it
//!   overlaps.
//! - A session that gave its result is kept while late events are allowed. If one changes it, the
//!   next result names those it takes the place of.

use crate::event::{Event, Kind};
use crate::failure::{Failure, Result};
use crate::kept::Kept;
use crate::keyed::cell::{self, Cell};
use crate::keyed::{Call, check_time};
use crate::output::Output;
use crate::window::{Aggregate, Firing, Job, Span};

/// One session.
#[derive(Clone, Debug)]
struct Session<K> {
    start: u64,
    /// Time of its last event, and the gap.
    end: u64,
    /// Whether it gave its result as it is now.
    told: bool,
    /// Starts of the results it gave, or what it was made of.
    replaces: Vec<u64>,
    kept: K,
}

impl<K: Kept> Kept for Session<K> {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.start.write(bytes);
        (self.end - self.start).write(bytes);
        self.told.write(bytes);
        self.replaces.write(bytes);
        self.kept.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let start = u64::read(bytes)?;
        let end = start.checked_add(u64::read(bytes)?)?;
        let (told, replaces, kept) = Kept::read(bytes)?;
        Some(Self { start, end, told, replaces, kept })
    }
}

/// The sessions of a key.
#[derive(Clone, Debug)]
struct Sessions<K> {
    wakes: Option<u64>,
    /// When open sessions give results; 0 if nothing came since they last did.
    early: u64,
    list: Vec<Session<K>>,
}

impl<K> Default for Sessions<K> {
    fn default() -> Self {
        Self { wakes: None, early: 0, list: Vec::new() }
    }
}

impl<K: Kept> Kept for Sessions<K> {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.wakes.write(bytes);
        self.early.write(bytes);
        self.list.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (wakes, early, list) = Kept::read(bytes)?;
        Some(Self { wakes, early, list })
    }
}

impl<K: Kept> Cell for Sessions<K> {
    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn wakes(&self) -> Option<u64> {
        self.wakes
    }
}

impl<K> Sessions<K> {
    /// Says when to wake: at the end of a session, or when no late event can change it any more.
    fn wake(&mut self, lateness: u64) {
        let at = |one: &Session<K>| if one.told { one.end + lateness } else { one.end };
        let next = self.list.iter().map(at).min();
        let early = (self.early != 0).then_some(self.early);
        self.wakes = next.into_iter().chain(early).min();
    }
}

pub(super) fn run<A: Aggregate>(job: &mut Job<'_, A>, gap: u64, call: &Call<'_>, out: &mut Output) {
    let terms = job.window.terms;
    cell::run(&terms, call, out, |event, sessions: &mut Sessions<A::Kept>, out| {
        match event.kind() {
            Kind::Timer => timer(job, event, sessions, out),
            _ => data(job, gap, event, (sessions, out))?,
        }
        sessions.wake(terms.lateness);
        Ok(())
    });
}

fn data<A: Aggregate>(
    job: &mut Job<'_, A>,
    gap: u64,
    event: &Event<'_>,
    (sessions, out): (&mut Sessions<A::Kept>, &mut Output),
) -> Result {
    let terms = &job.window.terms;
    let (watermark, lateness) = (job.watermark, terms.lateness);
    let time = terms.time(event);
    check_time(time, gap + lateness)?;
    let list = &mut sessions.list;
    let from = list.partition_point(|one| one.end <= time);
    let to = list.partition_point(|one| one.start < time + gap);
    if from == to && time + gap + lateness <= watermark {
        return terms.too_late(event, watermark, out);
    }
    if from == to && list.len() >= job.window.panes_max {
        return Err(Failure::reject(format!(
            "the windows {} of this key have {} sessions already: raise `panes_max`",
            terms.name,
            list.len()
        )));
    }
    let input = (job.read)(event)?;
    let mut all = Session {
        start: time,
        end: time + gap,
        told: false,
        replaces: Vec::new(),
        kept: job.aggregate.first(input),
    };
    let mut waits = false;
    // From the last to the first, so that each is put before what is behind it.
    for mut one in list.drain(from..to).rev() {
        waits |= !one.told && one.end <= watermark;
        (all.start, all.end) = (all.start.min(one.start), all.end.max(one.end));
        one.replaces.append(&mut all.replaces);
        job.aggregate.merge(&mut one.kept, &all.kept);
        (all.replaces, all.kept) = (one.replaces, one.kept);
    }
    // If one of them was over already its timer is on the way, and tells of all.
    if all.end <= watermark && !waits {
        tell(job, event, &mut all, (Firing::Late, out));
    }
    if all.end > watermark && job.window.early > 0 && sessions.early == 0 {
        sessions.early = job.next_early();
    }
    sessions.list.insert(from, all);
    Ok(())
}

fn timer<A: Aggregate>(
    job: &mut Job<'_, A>,
    event: &Event<'_>,
    sessions: &mut Sessions<A::Kept>,
    out: &mut Output,
) {
    let watermark = job.watermark_at(event);
    for one in sessions.list.iter_mut().filter(|one| !one.told && one.end <= watermark) {
        tell(job, event, one, (Firing::OnTime, out));
    }
    if sessions.early != 0 && sessions.early <= watermark {
        sessions.early = 0;
        for one in sessions.list.iter().filter(|one| !one.told && one.start < watermark) {
            let Session { start, end, ref replaces, .. } = *one;
            let span = Span { start, end, firing: Firing::Early, replaces };
            job.emit(event, span, &one.kept, out);
        }
    }
    let lateness = job.window.terms.lateness;
    sessions.list.retain(|one| one.end + lateness > watermark);
}

/// Emits the result of a session that is over.
fn tell<A: Aggregate>(
    job: &mut Job<'_, A>,
    event: &Event<'_>,
    one: &mut Session<A::Kept>,
    (firing, out): (Firing, &mut Output),
) {
    let span = Span { start: one.start, end: one.end, firing, replaces: &one.replaces };
    job.emit(event, span, &one.kept, out);
    one.told = true;
    one.replaces = vec![one.start];
}
