//! Submissions that wait for a place of their stage.
//!
//! Keeps true:
//! - Those of a stage are in the order in which they came.
//! - An owner has one at most: it waits itself meanwhile.
//! - Of each it is known when its time is up.
//! - A stage is looked at only if it may have a place since, or another is its first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::refusal::{refusal, would_block};
use super::{Owners, Server};
use crate::device::Device;
use crate::host::{Order, Owner, Refused};
use crate::slice::Stage;
use crate::wire::Refusal;

/// Submissions of a stage that wait.
const STAGE_PARKED_MAX: usize = 256;
/// Bindings of one that waits: no graph has more slots.
const BINDINGS_MAX: usize = 32;

/// One that waits, or is about to be taken.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) who: Owner,
    /// When it is no longer wanted. The order has it too.
    pub(super) deadline: Duration,
    pub(super) order: Order,
}

impl<D: Device> Server<D> {
    /// Takes those that wait and have a place now. Whether there were any.
    pub(super) fn admit_parked(&mut self) -> bool {
        let mut has_entered = false;
        while let Some(stage) = self.next_freed() {
            while self.parked.first(stage).is_some_and(|first| self.has_place(first))
                && let Some(first) = self.parked.take_first(stage)
            {
                match self.enter(&first) {
                    Ok(_) => has_entered = true,
                    Err(why) => self.say(first.number, Err(refusal(why))),
                }
                // One without steps has ended already.
                self.settle();
            }
        }
        has_entered
    }

    /// The next stage whose first is to be looked at.
    fn next_freed(&mut self) -> Option<Stage> {
        while let Some(stage) = self.host.next_freed() {
            self.parked.free(stage);
        }
        self.parked.next_freed()
    }

    /// Whether one is taken now. One whose graph is gone is refused, for which it needs no place.
    fn has_place(&self, Waiting { who, order, .. }: &Waiting) -> bool {
        let steps = self.host.steps(*who, order.graph);
        steps.is_none_or(|steps| self.host.has_place(who.stage, steps))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// None of them is empty.
    stages: BTreeMap<Stage, VecDeque<Waiting>>,
    deadlines: BTreeSet<(Duration, Owner)>,
    /// Those that are to be looked at.
    freed: BTreeSet<Stage>,
}

impl Parked {
    /// How many of a stage wait.
    pub(super) fn count(&self, stage: Stage) -> usize {
        self.stages.get(&stage).map_or(0, VecDeque::len)
    }

    /// Has one wait behind the others of its stage.
    pub(super) fn add(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        let Waiting { who, deadline, .. } = waiting;
        if waiting.order.bindings.len() > BINDINGS_MAX {
            let why = "more is bound than a graph has slots".to_owned();
            return Err(refusal(Refused::Binding { slot: BINDINGS_MAX, why }));
        }
        let queue = self.stages.entry(who.stage).or_default();
        if queue.iter().any(|other| other.who == who) {
            return Err(would_block("a submission of this instance waits already"));
        }
        if queue.len() >= STAGE_PARKED_MAX {
            return Err(would_block("too many submissions of the stage wait: try again later"));
        }
        queue.push_back(waiting);
        self.deadlines.insert((deadline, who));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.deadlines.is_empty()
    }

    /// A stage may have a place.
    pub(super) fn free(&mut self, stage: Stage) {
        self.freed.insert(stage);
    }

    /// The next stage that may have.
    pub(super) fn next_freed(&mut self) -> Option<Stage> {
        self.freed.pop_first()
    }

    /// The first of a stage.
    pub(super) fn first(&self, stage: Stage) -> Option<&Waiting> {
        self.stages.get(&stage)?.front()
    }

    /// Takes out the first of a stage.
    pub(super) fn take_first(&mut self, stage: Stage) -> Option<Waiting> {
        let queue = self.stages.get_mut(&stage)?;
        let first = queue.pop_front()?;
        if queue.is_empty() {
            self.stages.remove(&stage);
        }
        self.deadlines.remove(&(first.deadline, first.who));
        Some(first)
    }

    /// When the time of any is up next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Those whose time is up wait no longer. Their numbers.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some((_, who)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(&(who..=who), |waiting| numbers.push(waiting.number));
        }
        numbers
    }

    /// Some owners are gone, and what they had wait.
    pub(super) fn forget(&mut self, owners: &Owners) {
        self.remove(owners, |_| {});
    }

    fn remove(&mut self, owners: &Owners, mut each: impl FnMut(&Waiting)) {
        let stages = self.stages.range_mut(owners.start().stage..=owners.end().stage);
        for (_, queue) in stages {
            queue.retain(|waiting| {
                let is_gone = owners.contains(&waiting.who);
                if is_gone {
                    self.deadlines.remove(&(waiting.deadline, waiting.who));
                    self.freed.insert(waiting.who.stage);
                    each(waiting);
                }
                !is_gone
            });
        }
        self.stages.retain(|_, queue| !queue.is_empty());
    }
}
