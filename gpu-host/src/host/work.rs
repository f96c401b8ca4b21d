//! Submissions: taken, ended, and what becomes of what they have written.
//!
//! Keeps true:
//! - The steps of a submission are done in their order, and submissions of a stage in theirs: all
//!   steps are handed to the scheduler at once, which keeps the order inside a stage, and the
//!   device keeps that in which it is given pieces.
//! - What was taken ends, once, and its owner is told how.
//! - What one that did not end whole may have written is poisoned, and those that were to use it
//!   end as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::graph::{Bound, Graph};
use super::space::{Space, Submission};
use super::words::{Binding, End, Event, Order, Owner};
use super::{Host, Refused};
use crate::device::{Device, Span};
use crate::kernel::LOOK_ITERATIONS;
use crate::slice::{Dispatch, Stage, Tenant};

impl<D: Device> Host<D> {
    /// Takes a submission behind those that the stage has. How it ends is told by an event.
    ///
    /// # Errors
    /// It would block; the graph or a buffer is not there; what is bound does not fit, would be
    /// written and is a constant or attached, or was left half written.
    pub fn submit(&mut self, who: Owner, order: &Order) -> Result<u64, Refused> {
        let space = self.space(who)?;
        let graph = space.graph(who, order.graph);
        let graph = graph.ok_or_else(|| self.numbers.missing("graph", order.graph))?;
        self.enter(who, graph, &order.bindings, order.deadline)
    }

    /// Copies from a buffer to another; both have as many bytes bound. A submission like any other.
    ///
    /// # Errors
    /// As of [`submit`](Self::submit).
    pub fn copy(&mut self, who: Owner, from: Binding, to: Binding) -> Result<u64, Refused> {
        let counts = [self.count(who, from)?, self.count(who, to)?];
        let bytes = counts[0];
        if counts[1] != bytes || !bytes.is_multiple_of(4) {
            let why = "a copy has as many bytes on both sides, a multiple of 4";
            return Err(Refused::Range { offset: to.offset, bytes: counts[1], why });
        }
        self.enter(who, Arc::new(Graph::of_copy(bytes)), &[from, to], None)
    }

    /// Whether a stage takes one more submission of so many steps now.
    #[must_use]
    pub fn has_place(&self, stage: Stage, steps: usize) -> bool {
        let Some(space) = self.spaces.get(&stage.tenant.0) else { return false };
        let Some(state) = space.stages.get(&stage.number) else { return false };
        let room = self.slicer.room(stage).unwrap_or_default();
        state.queue < space.terms.limits.queue && steps <= room
    }

    /// The next stage that may have a place which it had not when it was asked about last.
    pub fn next_freed(&mut self) -> Option<Stage> {
        self.freed.pop_first()
    }

    /// How many steps a graph has; none if there is no such graph.
    #[must_use]
    pub fn steps(&self, who: Owner, graph: u64) -> Option<usize> {
        Some(self.space(who).ok()?.graph(who, graph)?.work().len())
    }

    /// Has a submission end soon. It may have ended already, and may still end whole.
    ///
    /// # Errors
    /// There is no such submission, or its owner was told how it ended.
    pub fn cancel(&mut self, now: Duration, who: Owner, submission: u64) -> Result<(), Refused> {
        let found = self.space(who)?.submissions.get(&submission);
        if found.is_some_and(|found| found.owner == who) {
            self.end(now, who.tenant(), submission, End::Cancelled);
            return Ok(());
        }
        let is_told = |event: &Event| {
            let Event::Ended { owner, submission: ended, .. } = event else { return false };
            *owner == who && *ended == submission
        };
        if self.events.iter().any(is_told) {
            return Ok(());
        }
        Err(self.numbers.missing("submission", submission))
    }

    /// Has a submission end for a reason, unless there is one already. It has ended at once if the
    /// device has nothing of it.
    pub(super) fn end(&mut self, now: Duration, tenant: Tenant, submission: u64, why: End) {
        let mut over = Vec::new();
        over.extend(self.stop(tenant, submission, why).then_some(submission));
        while let Some(submission) = over.pop() {
            for ill in self.close_submission(now, tenant, submission) {
                over.extend(self.stop(tenant, ill, End::Poisoned).then_some(ill));
            }
        }
    }

    /// A step of a submission is over. The submission has ended if it was the last.
    pub(super) fn step_over(&mut self, now: Duration, dispatch: Dispatch) {
        let tenant = dispatch.stage().tenant;
        let Some(number) = self.parts.remove(&dispatch) else { return };
        let space = self.spaces.get_mut(&tenant.0);
        let Some(submission) = space.and_then(|space| space.submissions.get_mut(&number)) else {
            return;
        };
        submission.open.remove(&dispatch);
        if submission.open.is_empty() {
            self.end(now, tenant, number, End::Whole);
        }
    }

    /// Nothing more of a submission is begun. Whether the device has nothing of it.
    fn stop(&mut self, tenant: Tenant, number: u64, why: End) -> bool {
        let space = self.spaces.get_mut(&tenant.0);
        let Some(submission) = space.and_then(|space| space.submissions.get_mut(&number)) else {
            return false;
        };
        submission.end.get_or_insert(why);
        for dispatch in submission.open.keys().copied().collect::<Vec<_>>() {
            // One that is not known any more is over.
            let chunks = self.slicer.cancel(dispatch).unwrap_or_default();
            if chunks.is_empty() {
                submission.open.remove(&dispatch);
                self.parts.remove(&dispatch);
            }
            let flights = self.flights.iter().filter(|flight| chunks.contains(&flight.chunk));
            if let Some(device) = &mut self.device {
                flights.for_each(|flight| device.cancel(flight.ticket));
            }
        }
        submission.open.is_empty()
    }

    /// A submission of which the device has nothing is no longer there. Those that were to use what
    /// it has left half written.
    fn close_submission(&mut self, now: Duration, tenant: Tenant, number: u64) -> Vec<u64> {
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return Vec::new() };
        let Some(submission) = space.submissions.remove(&number) else { return Vec::new() };
        let Submission { owner, bound, deadline, end, has_begun, .. } = submission;
        let end = end.unwrap_or(End::Whole);
        let stores = space.unpin(&bound);
        let mut ill = Vec::new();
        if end == End::Whole {
            mark(space, &bound, |bound| bound.is_anew, false);
        } else if has_begun && end != End::Lost {
            mark(space, &bound, |bound| bound.is_written, true);
            ill = space.poisoned(number);
        }
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, tenant.0, number));
        }
        if submission.is_orphan {
            if let Some(state) = space.stages.get_mut(&owner.stage.number) {
                state.queue -= 1;
                self.freed.insert(owner.stage);
            }
        } else {
            let device_nanos = submission.device_nanos;
            self.events.push_back(Event::Ended { owner, submission: number, end, device_nanos });
        }
        for store in stores {
            self.reclaim(now, tenant, store);
        }
        ill
    }

    fn enter(
        &mut self,
        who: Owner,
        graph: Arc<Graph>,
        bindings: &[Binding],
        deadline: Option<Duration>,
    ) -> Result<u64, Refused> {
        self.device()?;
        let space = self.space(who)?;
        let limits = space.terms.limits;
        // What is bound is looked at last: whoever finds no place tries again and again.
        if !self.has_place(who.stage, graph.work().len()) {
            let queued = space.stages.get(&who.stage.number).map_or(0, |state| state.queue);
            return Err(Refused::WouldBlock(queued as u64));
        }
        let bound = self.bind(who, &graph, bindings)?;
        let number = self.numbers.next()?;
        let mut open = BTreeMap::new();
        for (step, work) in graph.work().enumerate() {
            // There is room, and its grid was looked at.
            let dispatch = self.slicer.submit(who.stage, work)?;
            self.parts.insert(dispatch, number);
            open.insert(dispatch, step);
        }
        let is_empty = open.is_empty();
        let submission = Submission {
            owner: who,
            graph,
            bound,
            fuel: looked_at(limits.fuel),
            deadline,
            open,
            has_begun: false,
            end: None,
            device_nanos: 0,
            is_orphan: false,
        };
        let bound = submission.bound.iter().map(|bound| bound.store);
        for store in bound.collect::<Vec<_>>() {
            self.touch(who, store);
        }
        let space = self.space_mut(who)?;
        space.pin(&submission.bound);
        space.submissions.insert(number, submission);
        if let Some(state) = space.stages.get_mut(&who.stage.number) {
            state.queue += 1;
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, who.tenant().0, number));
        }
        if is_empty {
            // Nothing is given back by it, so that it does not matter when it is.
            self.end(Duration::ZERO, who.tenant(), number, End::Whole);
        }
        Ok(number)
    }

    /// What is bound to the slots of a graph.
    fn bind(&self, who: Owner, graph: &Graph, bindings: &[Binding]) -> Result<Vec<Bound>, Refused> {
        if bindings.len() != graph.slots.len() {
            let why = format!("{} are bound to {} slots", bindings.len(), graph.slots.len());
            return Err(Refused::Binding { slot: bindings.len().min(graph.slots.len()), why });
        }
        let mut bound = Vec::with_capacity(bindings.len());
        for (slot, binding) in graph.slots.iter().zip(bindings) {
            let bytes = self.count(who, *binding)?;
            let (number, store) = self.store(who, binding.buffer)?;
            if slot.is_written && self.space(who)?.is_read_only(binding.buffer, store) {
                return Err(Refused::ReadOnly(binding.buffer));
            }
            let is_anew = slot.is_anew(bytes);
            if !is_anew && store.is_poisoned(binding.offset, bytes) {
                return Err(Refused::Poisoned(binding.buffer));
            }
            let offset = binding.offset;
            let span =
                Span { block: store.place.block, offset: store.place.offset + offset, bytes };
            let is_written = slot.is_written;
            bound.push(Bound { store: number, offset, span, is_written, is_anew });
        }
        graph.check(&bound, &self.info.limits)?;
        Ok(bound)
    }

    /// How many bytes a binding has, which are all in its buffer.
    fn count(&self, who: Owner, binding: Binding) -> Result<u64, Refused> {
        let Binding { buffer, offset, bytes } = binding;
        let (_, store) = self.store(who, buffer)?;
        let wrong = |why| Refused::Range { offset, bytes: bytes.unwrap_or_default(), why };
        let rest = store.bytes.checked_sub(offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or_else(|| wrong("the buffer ends before"))?;
        let bytes = bytes.unwrap_or(rest);
        if bytes > rest {
            return Err(wrong("the buffer does not have them"));
        }
        if bytes == 0 || !bytes.is_multiple_of(4) || !offset.is_multiple_of(4) {
            return Err(wrong("what is bound are words of 4 bytes, and some"));
        }
        Ok(bytes)
    }
}

/// So much fuel that the first iteration is a look at whether it is cancelled, if it is enough.
const fn looked_at(fuel: u32) -> u32 {
    if fuel < LOOK_ITERATIONS { fuel } else { fuel - fuel % LOOK_ITERATIONS }
}

/// Marks what is meant of what was bound as half written, or as written.
fn mark(space: &mut Space, bound: &[Bound], is_meant: impl Fn(&Bound) -> bool, is_half: bool) {
    for bound in bound.iter().filter(|bound| is_meant(bound)) {
        let Some(store) = space.stores.get_mut(&bound.store) else { continue };
        if is_half {
            store.poison(bound.offset, bound.span.bytes);
        } else {
            store.cleanse(bound.offset, bound.span.bytes);
        }
    }
}
