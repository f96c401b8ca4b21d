//! A turn of the host's loop: what the device has done is settled, what takes too long is ended,
//! and the device is given what is next.
//!
//! A piece of work that takes more than eight times as long as it was expected to, and a while at
//! least, or longer than any may, is cancelled; if the device does not end it then, it is hung, and
//! the process around the host has to end. A device that is lost is replaced; what it had done of
//! work that had not ended is charged to nobody, as nobody knows it. Some drivers give a device up
//! that has hung: a kernel that was to end when the device was lost is not run again.

use std::time::Duration;

use super::words::{End, Verdict};
use super::{Host, Refused};
use crate::Error;
use crate::device::{self, Device, Ticket};
use crate::slice::{Chunk, ChunkId, Next, Tenant};

/// How many times as long as expected a piece of work may take.
const WATCH_FACTOR: u32 = 8;

/// Work on the device.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) chunk: ChunkId,
    pub(super) ticket: Ticket,
    pub(super) tenant: Tenant,
    submission: u64,
    /// None is a copy or a fill.
    pub(super) kernel: Option<[u8; 32]>,
    /// How long it may take.
    watch_time: Duration,
    /// When it was cancelled for having taken longer.
    overdue_since: Option<Duration>,
}

/// Why the device is given no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// It has all that is there, or all that it takes.
    All,
    /// There is more, but not before this moment.
    Until(Duration),
    /// A copy is first, which whoever drives has to make.
    Copies,
}

impl Filled {
    const fn at(self) -> Option<Duration> {
        match self {
            Self::Until(at) => Some(at),
            Self::All | Self::Copies => None,
        }
    }
}

/// A try to have another device that has failed.
#[derive(Debug)]
pub(super) struct Failure {
    why: Error,
    /// When there is to be the next; not known before the turn behind it.
    again_at: Option<Duration>,
}

impl<D: Device> Host<D> {
    /// Does what is to be done now, and waits up to `longest` for the device if it works and
    /// nothing has happened. `now` is when the call begins, and never goes back. What is to be done
    /// next is what is returned. What has happened is to be asked for after each call
    /// ([`poll`](Self::poll)): until then no call waits. Nor does it while a copy is due
    /// ([`due_copy`](Self::due_copy)), or begin anything.
    pub fn drive(&mut self, now: Duration, longest: Duration) -> Verdict {
        if let Some(hung) = &self.hung {
            return hung.clone();
        }
        self.now = now;
        let has_landed = self.land(now, Duration::ZERO);
        self.expire(now);
        // One that is lost is not waited for.
        if self.lost.is_none()
            && let Some(hung) = self.watch(now)
        {
            return self.hung.insert(hung).clone();
        }
        let next = self.fill(now);
        if let Err(why) = self.restore(now) {
            return Verdict::Gone(why);
        }
        if matches!(next, Filled::Copies) {
            return Verdict::Busy;
        }
        let due = self.deadlines.first().map(|(at, _, _)| *at);
        if self.flights.is_empty() {
            // Work that is new since is looked at in the next turn.
            let at = next.at().into_iter().chain(due).min();
            return at.map_or(Verdict::Idle, |at| Verdict::Later(at.max(now)));
        }
        // What has happened is not kept waiting.
        if !has_landed && self.events.is_empty() {
            let until = self.watched_until().into_iter().chain(due).min();
            let time = until.map_or(longest, |until| until.saturating_sub(now).min(longest));
            if !time.is_zero() {
                self.land(now, time);
            }
        }
        Verdict::Busy
    }

    /// Waits for what the device has, before it is asked for what waits for that: it would wait
    /// for longer than anything may take, and meanwhile nothing would be ended.
    ///
    /// # Errors
    /// The device is lost, or has hung.
    pub(super) fn settle_before(&mut self, waits: bool) -> Result<(), Refused> {
        if !waits {
            return Ok(());
        }
        self.device()?;
        let now = self.now;
        while let Some(flight) = self.flights.front() {
            let is_overdue = flight.overdue_since.is_some();
            let end_time_max = self.settings.end_time_max;
            let longest = if is_overdue { end_time_max } else { flight.watch_time };
            let (kernel, tenant, submission) = (flight.kernel, flight.tenant, flight.submission);
            if self.land(now, longest) {
                continue;
            }
            self.device()?;
            if is_overdue {
                self.hung = Some(Verdict::Hung { kernel, tenant });
                return Err(Refused::Hung);
            }
            if let Some(flight) = self.flights.front_mut() {
                flight.overdue_since = Some(now);
            }
            self.end(now, tenant, submission, End::Overdue);
        }
        Ok(())
    }

    /// Settles what the device has done, if it has after so long. Whether it had something.
    fn land(&mut self, now: Duration, longest: Duration) -> bool {
        let mut has_landed = false;
        while let (Some(flight), Some(device)) = (self.flights.front(), &mut self.device) {
            let time = if has_landed { Duration::ZERO } else { longest };
            match device.wait(flight.ticket, time) {
                Ok(None) => break,
                Ok(Some(done)) => {
                    has_landed = true;
                    // If it was waited for, it is later now than is known.
                    self.first_since = longest.is_zero().then_some(now);
                    self.settle(now, done);
                }
                Err(why) => {
                    // Whatever it is, what the device has done is not known.
                    let why = match why {
                        Error::Lost(_) => why,
                        why => Error::Lost(why.to_string()),
                    };
                    self.lost.get_or_insert(why);
                    break;
                }
            }
        }
        has_landed
    }

    /// The first piece of work is done.
    fn settle(&mut self, now: Duration, done: device::Done) {
        let Some(flight) = self.flights.pop_front() else { return };
        self.tell_witness();
        let is_whole = done.end == device::End::Whole;
        let completed = self.slicer.complete(flight.chunk, done.took, is_whole);
        self.charge(&flight, done.took);
        // What is over is known to be so before the rest is ended.
        if let Some(completed) = completed.filter(|completed| completed.over.is_some()) {
            if !is_whole {
                self.set_end(&flight, ended(done.end));
            }
            self.step_over(now, completed.dispatch);
        }
        if !is_whole {
            self.end(now, flight.tenant, flight.submission, ended(done.end));
        }
        self.reap(now, flight.tenant);
    }

    fn charge(&mut self, flight: &Flight, took: Duration) {
        if let Some(space) = self.spaces.get_mut(&flight.tenant.0)
            && let Some(submission) = space.submissions.get_mut(&flight.submission)
        {
            submission.device_nanos += took.as_nanos();
        }
    }

    fn set_end(&mut self, flight: &Flight, why: End) {
        if let Some(space) = self.spaces.get_mut(&flight.tenant.0)
            && let Some(submission) = space.submissions.get_mut(&flight.submission)
        {
            submission.end.get_or_insert(why);
        }
    }

    /// Ends what should have ended by itself.
    fn expire(&mut self, now: Duration) {
        while let Some((_, tenant, submission)) =
            self.deadlines.first().copied().filter(|(at, _, _)| *at <= now)
        {
            self.deadlines.pop_first();
            self.end(now, Tenant(tenant), submission, End::Deadline);
            self.reap(now, Tenant(tenant));
        }
    }

    /// Ends what takes too long; how the device has hung, if it has.
    fn watch(&mut self, now: Duration) -> Option<Verdict> {
        let flight = self.flights.front_mut()?;
        let since = *self.first_since.get_or_insert(now);
        if let Some(overdue_since) = flight.overdue_since {
            let may_go_on = now < overdue_since.saturating_add(self.settings.end_time_max);
            let (kernel, tenant) = (flight.kernel, flight.tenant);
            return (!may_go_on).then_some(Verdict::Hung { kernel, tenant });
        }
        if now >= since.saturating_add(flight.watch_time) {
            flight.overdue_since = Some(now);
            let (tenant, submission) = (flight.tenant, flight.submission);
            self.end(now, tenant, submission, End::Overdue);
        }
        None
    }

    /// When the first piece of work is looked at again.
    fn watched_until(&self) -> Option<Duration> {
        let flight = self.flights.front()?;
        Some(match flight.overdue_since {
            Some(since) => since.saturating_add(self.settings.end_time_max),
            None => self.first_since?.saturating_add(flight.watch_time),
        })
    }

    /// Gives the device what is next, as much as it takes.
    fn fill(&mut self, now: Duration) -> Filled {
        while self.device().is_ok() {
            match self.slicer.next(now) {
                Next::Chunk(chunk) => self.send(now, &chunk),
                Next::At(at) => return Filled::Until(at),
                Next::Copy(_) => return Filled::Copies,
                Next::Deep | Next::Idle => break,
            }
        }
        Filled::All
    }

    fn send(&mut self, now: Duration, chunk: &Chunk) {
        let tenant = chunk.dispatch.stage().tenant;
        let number = self.parts.get(&chunk.dispatch).copied().unwrap_or_default();
        let space = self.spaces.get_mut(&tenant.0);
        let found = space.and_then(|space| space.submissions.get_mut(&number));
        let piece = found.and_then(|submission| {
            let step = *submission.open.get(&chunk.dispatch)?;
            let device = self.device.as_mut()?;
            let graph = &submission.graph;
            let piece = graph.piece(step, &submission.bound, chunk, submission.fuel)?;
            let kernel = graph.kernel(step);
            if let Some(kernel) = kernel {
                self.witness.give(tenant.0, kernel);
            }
            let answer = device.submit(&[piece]);
            submission.has_begun |= answer.is_ok();
            Some((answer, kernel))
        });
        let Some((answer, kernel)) = piece else {
            // Nothing is scheduled that no submission has.
            self.slicer.complete(chunk.id, Duration::ZERO, false);
            return;
        };
        let watch_time = chunk.expected.saturating_mul(WATCH_FACTOR);
        let watch_time = watch_time.min(self.settings.watch_time_max);
        let watch_time = watch_time.max(self.settings.watch_time_min);
        match answer {
            Ok(ticket) => {
                if self.flights.is_empty() {
                    self.first_since = Some(now);
                }
                self.flights.push_back(Flight {
                    chunk: chunk.id,
                    ticket,
                    tenant,
                    submission: number,
                    kernel,
                    watch_time,
                    overdue_since: None,
                });
            }
            Err(why) => self.unsent(now, chunk, number, why),
        }
        self.tell_witness();
    }

    /// The device did not take a piece of work.
    fn unsent(&mut self, now: Duration, chunk: &Chunk, submission: u64, why: Error) {
        let tenant = chunk.dispatch.stage().tenant;
        let completed = self.slicer.complete(chunk.id, Duration::ZERO, false);
        let is_over = completed.is_some_and(|completed| completed.over.is_some());
        let end = match &why {
            Error::Lost(_) => End::Lost,
            _ => End::Refused(why.clone()),
        };
        if matches!(why, Error::Lost(_)) {
            self.lost.get_or_insert(why);
        }
        if let Some(space) = self.spaces.get_mut(&tenant.0)
            && let Some(submission) = space.submissions.get_mut(&submission)
        {
            submission.end.get_or_insert_with(|| end.clone());
        }
        if is_over {
            self.step_over(now, chunk.dispatch);
        }
        self.end(now, tenant, submission, end);
        self.reap(now, tenant);
    }

    /// Has another device if it was lost.
    fn restore(&mut self, now: Duration) -> Result<(), Error> {
        if let Some(why) = self.lost.take() {
            self.lose(now);
            self.device = None;
            // What it was lost for is said if there is no other.
            return self.make_anew(now).map_err(|_| why);
        }
        self.make_anew(now)
    }

    /// Has another device, unless the last try for one has failed just now.
    fn make_anew(&mut self, now: Duration) -> Result<(), Error> {
        if self.device.is_some() {
            return Ok(());
        }
        if let Some(Failure { why, again_at }) = &mut self.failure {
            // How long it took is not known before.
            let pause = self.settings.renew_pause;
            if now < *again_at.get_or_insert(now.saturating_add(pause)) {
                return Err(why.clone());
            }
        }
        match (self.make)() {
            Ok(device) => {
                self.info = device.info().clone();
                self.device = Some(device);
                self.failure = None;
                Ok(())
            }
            Err(why) => {
                self.failure = Some(Failure { why: why.clone(), again_at: None });
                Err(why)
            }
        }
    }

    /// All that was in the device is gone: all work has ended, and all handles are over.
    fn lose(&mut self, now: Duration) {
        self.device = None;
        if let Some(Flight { tenant, kernel: Some(kernel), overdue_since: Some(_), .. }) =
            self.flights.front()
        {
            self.quarantine(*tenant, *kernel);
        }
        let flights = std::mem::take(&mut self.flights);
        self.tell_witness();
        for flight in flights {
            let completed = self.slicer.complete(flight.chunk, Duration::ZERO, false);
            self.set_end(&flight, End::Lost);
            if let Some(completed) = completed.filter(|completed| completed.over.is_some()) {
                self.step_over(now, completed.dispatch);
            }
        }
        let tenants: Vec<u64> = self.spaces.keys().copied().collect();
        for tenant in tenants.into_iter().map(Tenant) {
            let Some(space) = self.spaces.get_mut(&tenant.0) else { continue };
            for submission in space.submissions.keys().copied().collect::<Vec<_>>() {
                self.end(now, tenant, submission, End::Lost);
            }
            let Some(space) = self.spaces.get_mut(&tenant.0) else { continue };
            space.lose();
            let given = self.ledger.give_all(now, tenant);
            debug_assert_eq!(given, Ok(()), "it is there");
            self.reap(now, tenant);
        }
        self.numbers.renew();
    }
}

fn ended(end: device::End) -> End {
    match end {
        device::End::Whole => End::Whole,
        device::End::Fuel => End::Fuel,
        device::End::Cancelled => End::Cancelled,
    }
}
