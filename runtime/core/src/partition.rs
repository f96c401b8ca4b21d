//! The machine: what a partition of a segment decides, call by call, from a batch to its commit.
//!
//! ```text
//! start(frame) ─► next() ─► Call ─► (the guest runs) ─► done(verdict) ─┐
//!                   ▲                                                  │
//!                   └──────────────────────────────────────────────────┘
//!                 next() == None ─► finish() ─► Commit      or halted(), or wanted()
//! ```
//!
//! - One call is in flight at a time; a commit is the only progress there is.
//! - Every event of a batch is resolved exactly once: handled, or dead-lettered, or the partition
//!   halts and nothing of the batch stands.
//! - A failure takes back and repeats only the call it happened in, from that stage's kept input.
//! - Equal inputs give equal effects. Time is an argument.
//!
//! With a ledger (`ledger`) a commit is also numbered and written as a record of the log; without
//! one it is best-effort. It does not run guests, keep instances, or move frames: the worker that
//! drives it does.

mod cold;
mod commit;
mod entry;
mod expire;
mod fire;
mod held;
mod history;
mod hold;
mod invoke;
mod isolate;
mod ledger;
mod open;
mod own;
mod park;
mod plan;
mod revive;
mod streams;
mod upgrade;

pub use cold::Wanted;
pub use commit::{Commit, OutRun, dead_letter_field};
pub use entry::push_again;
pub use expire::Expiry;
pub use held::{name_of_part, stage_of_state};
pub use history::{NoRevival, Replay, Revival};
pub use invoke::{Call, Serves};
pub use isolate::Verdict;
pub use ledger::{Leads, Progress, Recorded, SegmentIds, StageIds, TooLarge};
pub use plan::{Codes, SegmentPlan, StagePlan};

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::Frame;
use crate::layer::Layer;
use crate::pipeline::Scope;
use crate::state::{KeyedState, StateLimits};
use crate::timers::Timers;

use cold::Wanting;
use commit::Draft;
use expire::Look;
use invoke::Work;
use ledger::Ledger;
use own::Widths;
use park::Park;
use streams::Streams;

/// Why a partition stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// The stage whose policy it was.
    pub stage: String,
    /// The failure.
    pub message: String,
}

/// See the module.
#[derive(Debug)]
pub struct Partition {
    plan: Arc<SegmentPlan>,
    stages: Vec<Stage>,
    /// The stage whose calls are being made.
    current: usize,
    draft: Draft,
    /// The batch, kept until its commit.
    batch: Option<Frame>,
    halted: Option<Halt>,
    /// Keys the next call needs and that are not in memory.
    wanting: Wanting,
    now: u64,
    /// What randomness of the batch's calls grows from.
    seed: u64,
    /// The event time up to which everything was here; `None` without event time.
    watermark: Option<u64>,
    widths: Widths,
    /// What its streams held that are over with a halt, as long as nobody was told.
    abandoned: Vec<(usize, Arc<[u8]>)>,
    /// What fails becomes a dead letter, whatever the stage says.
    never_halts: bool,
    /// What exactly-once needs; without it delivery is best-effort.
    ledger: Option<Box<Ledger>>,
}

/// What the machine keeps of one stage.
#[derive(Debug)]
struct Stage {
    /// Away while a call is in flight.
    layer: Option<Box<Layer>>,
    work: VecDeque<Work>,
    streams: Streams,
    park: Park,
    expiry: Look,
    /// Most events in the next call; small after a trap, doubling with each success.
    width: u32,
}

impl Partition {
    /// A partition without state. `seed` keys its hash tables and should be secret.
    #[must_use]
    pub fn new(plan: Arc<SegmentPlan>, seed: u64) -> Self {
        let stage = |(at, plan): (usize, &StagePlan)| {
            let mut state = KeyedState::new(seed.wrapping_add(at as u64), plan.state);
            state.set_ttl(plan.state_ttl);
            state.set_hosted(plan.scope == Scope::Stream);
            let timers = seed.wrapping_mul(3).wrapping_add(at as u64);
            let timers = Timers::new(KeyedState::new(timers, StateLimits::NONE));
            let layer = Layer::new(plan.ports.clone(), plan.limits, state);
            let layer = layer.in_segment(&plan.inside).with_timers(timers);
            let streams = seed.rotate_left(32);
            let parked = KeyedState::new(seed.wrapping_sub(at as u64 + 1), plan.state);
            Stage {
                layer: Some(Box::new(layer)),
                work: VecDeque::new(),
                streams: Streams::new(KeyedState::new(streams, plan.state), plan.codes),
                park: Park::new(parked),
                expiry: Look::default(),
                width: u32::MAX,
            }
        };
        let stages = plan.stages.iter().enumerate().map(stage).collect();
        let draft = Draft::default();
        let (batch, halted, ledger, watermark) = (None, None, None, None);
        let wanting = Wanting::default();
        Self {
            plan,
            stages,
            current: 0,
            draft,
            batch,
            halted,
            wanting,
            now: 0,
            seed: 0,
            watermark,
            widths: Widths::default(),
            abandoned: Vec::new(),
            never_halts: false,
            ledger,
        }
    }

    /// Begins a batch. The one before must be finished, and the partition not halted.
    pub fn start(&mut self, frame: Frame, now: u64) {
        self.begin(now);
        self.draft.consume(&frame);
        self.batch = Some(frame.clone());
        self.enter(frame);
    }

    /// Looks at the time for the batch that begins. The one before must be finished.
    fn begin(&mut self, now: u64) {
        assert!(self.batch.is_none() && self.halted.is_none(), "one batch at a time");
        self.now = now;
        self.current = 0;
        for stage in &mut self.stages {
            let layer = layer_of(stage);
            layer.state().set_now(now);
            layer.timers().set_watermark(self.watermark);
        }
    }

    /// The next call to make; `None` when the batch is done, the partition has halted, or it has
    /// to be given state first: [`Partition::take_wanted`].
    pub fn next_call(&mut self) -> Option<Call> {
        while self.halted.is_none() && self.current < self.stages.len() {
            if let Some(call) = self.call_of_current() {
                return Some(call);
            }
            if self.wanting.is_some() {
                return None;
            }
            if self.halted.is_none() {
                self.pass_on();
                self.current += 1;
            }
        }
        None
    }

    /// Takes the outcome of the call in flight. True if what the call did stands; else it is taken
    /// back, and its events run again or are given up on.
    pub fn done(&mut self, layer: Box<Layer>, verdict: Verdict) -> bool {
        let stage = self.current;
        self.stages[stage].layer = Some(layer);
        let stands = self.judge(verdict);
        self.note_outcome(stage, stands);
        stands
    }

    /// The commit of a batch that ran to its end; the partition is ready for the next one. Of a
    /// partition with a ledger take `finish_recorded`.
    #[must_use]
    pub fn finish(&mut self) -> Commit {
        assert!(self.halted.is_none(), "a halted partition commits nothing");
        assert!(!self.wanting.is_some(), "a batch that waits for state is not done");
        assert!(self.ledger.is_none(), "a commit of a partition with a ledger is recorded");
        self.batch = None;
        self.tell_abandoned();
        self.settle_parked();
        for stage in &mut self.stages {
            layer_of(stage).commit_state();
            stage.park.commit();
            stage.streams.commit();
        }
        self.draft.finish()
    }

    /// Why the partition has stopped, if it has.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Lets a halted partition go on: everything of its batch is taken back, and the batch is
    /// returned to be run again. Without a ledger its streams have lost their instances and are
    /// over: each becomes a dead letter of the next commit.
    pub fn resume(&mut self) -> Option<Frame> {
        self.halted.take()?;
        self.take_back_stages();
        self.widths.take_back();
        self.draft = Draft::default();
        self.batch.take()
    }

    /// Hands the emitted events of the current stage to the stages behind it and to the commit.
    fn pass_on(&mut self) {
        let at = self.current;
        let plan = self.plan.clone();
        let mut inside = Vec::new();
        let layer = layer_of(&mut self.stages[at]);
        let draft = &mut self.draft;
        layer.take_runs(|run| match plan.stages[at].inside.get(run.target).copied().flatten() {
            Some(child) => inside.push((child, run.frame)),
            None => draft.runs.push(OutRun {
                stage: at,
                target: run.target,
                partition: run.partition,
                frame: run.frame,
            }),
        });
        draft.sent(layer.take_sent());
        for (child, frame) in inside {
            self.enqueue(child, frame);
        }
    }
}

/// The machine only looks at a layer while no call of that stage is in flight.
fn layer_of(stage: &mut Stage) -> &mut Layer {
    stage.layer.as_mut().expect("no call is in flight while the machine decides")
}

#[cfg(test)]
mod tests;
