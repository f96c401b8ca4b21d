//! Open streams that go over to the code their stage has now, in batches of their own.
//!
//! ```text
//! start_upgrades() ─► next_upgrade() ─► Call ─► (the old code says what its instance knows, the
//!                        ▲                       new one makes an instance of that)
//!                        └───────── upgraded(call, image)  or  stays(call) ◄──────────┘
//!                     next_upgrade() == None ─► finish_recorded()      or take_wanted()
//! ```
//!
//! - They do so where the manifest says `on-update = "snapshot"`, and before anything else is done.
//! - A commit has a stream's new code and the image of its new instance, or neither.
//! - Each stream is tried once while the version runs. One that stays goes on to its end with the
//!   code it has, as all do otherwise.
//! - With a batch that is taken back its streams are to be tried again, but for those that stay.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::history;
use super::invoke::{Call, Serves};
use super::own::Own;
use super::streams::push_end;
use super::{Partition, StagePlan, layer_of};
use crate::frame::{Frame, FrameBuilder};
use crate::image::Image;
use crate::pipeline::{OnUpdate, Scope};

/// The streams of a stage that are to go over.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    /// Those not tried yet; not known before the first batch.
    left: Option<VecDeque<Arc<[u8]>>>,
    /// Those of the batch under way.
    batch: Vec<Arc<[u8]>>,
    /// The next of them.
    next: usize,
    /// Those of them that stay as they are.
    stay: BTreeSet<Arc<[u8]>>,
}

impl Upgrades {
    /// Takes the streams of the next batch, `most` of them at most. `all` says which there are.
    pub(super) fn take(&mut self, most: usize, all: impl FnOnce() -> Vec<Arc<[u8]>>) -> bool {
        let left = self.left.get_or_insert_with(|| all().into());
        self.batch = left.drain(..most.min(left.len())).collect();
        (self.next, self.stay) = (0, BTreeSet::new());
        !self.batch.is_empty()
    }

    /// All of the batch stay.
    fn give_up(&mut self) {
        self.next = self.batch.len();
        self.stay = self.batch.iter().cloned().collect();
    }

    /// The batch stands: what was not reached comes with the next.
    pub(super) fn commit(&mut self) {
        let from = self.next;
        self.put_back(from);
    }

    /// The batch is taken back.
    pub(super) fn roll_back(&mut self) {
        self.put_back(0);
    }

    fn put_back(&mut self, from: usize) {
        let stay = std::mem::take(&mut self.stay);
        let batch = std::mem::take(&mut self.batch);
        let Some(left) = &mut self.left else { return };
        let again = batch.into_iter().skip(from).filter(|key| !stay.contains(key));
        again.rev().for_each(|key| left.push_front(key));
    }
}

fn goes_over(plan: &StagePlan) -> bool {
    plan.scope == Scope::Stream && plan.stream.on_update == OnUpdate::Snapshot
}

impl Partition {
    /// Begins a batch of nothing but streams that go over to the code of now. False if there are
    /// none left.
    pub fn start_upgrades(&mut self, now: u64) -> bool {
        let most = self.widths.of(Own::Upgrades);
        let has_ledger = self.ledger.is_some();
        let found = self.stages.iter_mut().zip(&self.plan.stages).position(|(stage, plan)| {
            has_ledger && goes_over(plan) && stage.streams.take_upgrades(most)
        });
        let Some(at) = found else { return false };
        self.begin(now);
        self.current = at;
        self.batch = Some(FrameBuilder::new().finish());
        let frame = keys(self.stages[at].streams.upgrades().batch.iter());
        let gives_up = self.widths.begin(Own::Upgrades, frame.events().map(|event| (at, event)));
        self.note_nothing_taken(false);
        if gives_up {
            self.stages[at].streams.upgrades().give_up();
        }
        true
    }

    /// The next stream to go over, as a call without events of the code it has; `None` if the batch
    /// is done, or has to be given state first.
    pub fn next_upgrade(&mut self) -> Option<Call> {
        let at = self.current;
        loop {
            let stage = &mut self.stages[at];
            let upgrades = stage.streams.upgrades();
            let key = upgrades.batch.get(upgrades.next)?.clone();
            let state = stage.layer.as_mut().expect("no call is in flight").state();
            if state.lacks(&key) {
                let rest = keys(upgrades.batch.iter().skip(upgrades.next));
                let all = 0..rest.len() as u32;
                self.wanting.next(at, state, &rest, all)?;
            }
            upgrades.next += 1;
            // It may have ended meanwhile, or have been opened anew.
            let Some(code) = stage.streams.code_of_before(&key) else { continue };
            let state = layer_of(stage).state_ref();
            let Some(life) = history::life(state, &key) else { continue };
            let mut layer = stage.layer.take().expect("one call at a time");
            layer.begin(FrameBuilder::new().finish());
            let serves = Serves::Stream(key, life.serial);
            return Some(Call { stage: at, serves, code, layer, last: false });
        }
    }

    /// A stream has gone over: `image` is of its new instance.
    pub fn upgraded(&mut self, call: Call, image: &Image) {
        let Call { stage, serves, layer, .. } = call;
        let Serves::Stream(key, _) = serves else { return self.call_again(layer) };
        self.call_again(layer);
        let stage = &mut self.stages[stage];
        history::set_image(layer_of(stage), &key, image);
        stage.streams.upgrade(&key);
    }

    /// A stream stays with the code it has.
    pub fn stays(&mut self, call: Call) {
        if let Serves::Stream(key, _) = &call.serves {
            self.stages[call.stage].streams.upgrades().stay.insert(key.clone());
        }
        self.call_again(call.layer);
    }
}

/// Keys as events, for whoever takes keys from these.
fn keys<'k>(keys: impl Iterator<Item = &'k Arc<[u8]>>) -> Frame {
    let mut builder = FrameBuilder::new();
    keys.for_each(|key| push_end(&mut builder, key, 0));
    builder.finish()
}
