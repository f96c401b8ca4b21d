//! When a stage's keys are looked through for those that are over, and the batches that remove
//! them.
//!
//! - A batch of expiry is nothing but changes of state: it takes no events and makes no calls. So
//!   it is committed, written and taken back like any other.
//! - A look goes through what is in memory, piece by piece, and each piece is a turn. What is in a
//!   store alone is for whoever can read it: once the look has come to its end, they name keys.
//! - Nothing found, nothing written: without a change there is no batch.
//!
//! What makes a key over: `state`. Who takes turns with whom is decided by the worker.

use super::{Partition, StagePlan, layer_of};
use crate::frame::FrameBuilder;
use crate::state::{KeyedState, Looked};

/// Where a stage is in looking through its keys.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// When the next piece of work is due; unknown before the first.
    due: Option<u64>,
    hand: usize,
}

/// What a piece of work came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// A batch has begun, to be run to its end.
    pub started: bool,
    /// The stage whose keys in memory have all been looked at.
    pub ended: Option<usize>,
}

impl Look {
    /// When there is something to do; never for a state that has nothing and can have nothing.
    fn next(&self, plan: &StagePlan, state: &KeyedState) -> Option<u64> {
        plan.state_ttl?;
        let empty = state.keys() == 0 && state.is_whole();
        (!empty).then_some(self.due.unwrap_or(0))
    }
}

impl Partition {
    /// Does a piece of the work that is due: looks at keys of a stage, and begins a batch if some
    /// of them go.
    pub fn start_expiry(&mut self, now: u64) -> Expiry {
        let first = self.looks().min_by_key(|(_, due)| *due);
        let Some((at, _)) = first.filter(|(_, due)| *due <= now) else { return Expiry::default() };
        let Some(ttl) = self.plan.stages[at].state_ttl else { return Expiry::default() };
        let look = &mut self.stages[at].expiry;
        if look.due.is_none() {
            look.due = Some(now.saturating_add(ttl.pause_first()));
            return Expiry::default();
        }
        self.begin(now);
        let stage = &mut self.stages[at];
        let mut hand = stage.expiry.hand;
        let Looked { changed, ended } = layer_of(stage).state().expire(&mut hand);
        stage.expiry.hand = if ended { 0 } else { hand };
        if ended {
            stage.expiry.due = Some(now.saturating_add(ttl.pause()));
        }
        self.begin_expiry(changed);
        Expiry { started: changed, ended: ended.then_some(at) }
    }

    /// Does a piece of work about some keys of a stage, those of them that are in memory, from the
    /// one at `hand` on, which moves. True if that began a batch.
    pub fn start_expiry_of(
        &mut self,
        stage: usize,
        (keys, hand): (&[Box<[u8]>], &mut usize),
        now: u64,
    ) -> bool {
        self.begin(now);
        let looked = layer_of(&mut self.stages[stage]).state().expire_keys(keys, hand);
        self.begin_expiry(looked.changed);
        looked.changed
    }

    /// When `start_expiry` has something to do next, in the same clock as `now`.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.looks().map(|(_, due)| due).min()
    }

    /// True if some of a stage's state may be in the store alone.
    #[must_use]
    pub fn is_cold(&self, stage: usize) -> bool {
        let layer = self.stages[stage].layer.as_ref();
        layer.is_some_and(|layer| !layer.state_ref().is_whole())
    }

    /// Gives out how many keys of each stage went because they were over, since it was last asked.
    pub fn take_expired(&mut self, mut each: impl FnMut(usize, u64)) {
        for (at, stage) in self.stages.iter_mut().enumerate() {
            match layer_of(stage).state().take_expired() {
                0 => {}
                count => each(at, count),
            }
        }
    }

    /// The stages that look through their keys, with when.
    fn looks(&self) -> impl Iterator<Item = (usize, u64)> {
        let stages = self.plan.stages.iter().zip(&self.stages).enumerate();
        stages.filter_map(|(at, (plan, stage))| {
            let state = stage.layer.as_ref()?.state_ref();
            Some((at, stage.expiry.next(plan, state)?))
        })
    }

    fn begin_expiry(&mut self, changed: bool) {
        if changed {
            self.batch = Some(FrameBuilder::new().finish());
            self.note_nothing_taken(false);
        }
    }
}
