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
mod held;
mod invoke;
mod isolate;
mod ledger;
mod streams;

pub use cold::Wanted;
pub use commit::{Commit, OutRun, dead_letter_field};
pub use invoke::{Call, Serves};
pub use isolate::Verdict;
pub use ledger::{Leads, Progress, Recorded, SegmentIds, StageIds};

use std::collections::VecDeque;
use std::sync::Arc;

use crate::frame::Frame;
use crate::layer::{Layer, LayerLimits, Ports};
use crate::pipeline::{OnFailure, Scope, StreamLimits};
use crate::state::{KeyedState, StateLimits};

use cold::Wanting;
use commit::Draft;
use invoke::Work;
use ledger::Ledger;
use streams::Streams;

/// One stage of a segment, as the machine needs it.
#[derive(Debug, Clone)]
pub struct StagePlan {
    /// For dead letters.
    pub name: String,
    /// Whom an instance serves.
    pub scope: Scope,
    /// What happens to an event that failed for good.
    pub on_failure: OnFailure,
    /// Immediate runs of an event that failed with class retry.
    pub retries: u8,
    /// When a stream ends by itself.
    pub stream: StreamLimits,
    /// Where the stage's ports lead.
    pub ports: Arc<Ports>,
    /// For each target of `ports`: the stage of this segment it leads to, if it stays inside.
    pub inside: Vec<Option<usize>>,
    /// Bounds on one call.
    pub limits: LayerLimits,
    /// Bounds on the stage's state in one partition.
    pub state: StateLimits,
}

/// A segment: its stages in topological order, the root first.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    /// The stages.
    pub stages: Vec<StagePlan>,
}

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
    /// Most events in the next call; small after a trap, doubling with each success.
    width: u32,
}

impl Partition {
    /// A partition without state. `seed` keys its hash tables and should be secret.
    #[must_use]
    pub fn new(plan: Arc<SegmentPlan>, seed: u64) -> Self {
        let stage = |(at, plan): (usize, &StagePlan)| {
            let state = KeyedState::new(seed.wrapping_add(at as u64), plan.state);
            let layer = Layer::new(plan.ports.clone(), plan.limits, state);
            Stage {
                layer: Some(Box::new(layer)),
                work: VecDeque::new(),
                streams: Streams::default(),
                width: u32::MAX,
            }
        };
        let stages = plan.stages.iter().enumerate().map(stage).collect();
        let draft = Draft::default();
        let (batch, halted, ledger) = (None, None, None);
        let wanting = Wanting::default();
        Self { plan, stages, current: 0, draft, batch, halted, wanting, now: 0, ledger }
    }

    /// Begins a batch. The one before must be finished, and the partition not halted.
    pub fn start(&mut self, frame: Frame, now: u64) {
        assert!(self.batch.is_none() && self.halted.is_none(), "one batch at a time");
        self.now = now;
        self.current = 0;
        self.draft.consume(&frame);
        self.batch = Some(frame.clone());
        self.enqueue(0, frame);
    }

    /// Begins a batch of nothing but streams that end now. False if there are none.
    pub fn start_ends(&mut self, now: u64) -> bool {
        self.start_ends_until(now, now)
    }

    /// The same for every open stream, whenever its time would come.
    pub fn start_all_ends(&mut self, now: u64) -> bool {
        self.start_ends_until(now, u64::MAX)
    }

    fn start_ends_until(&mut self, now: u64, until: u64) -> bool {
        assert!(self.batch.is_none() && self.halted.is_none(), "one batch at a time");
        self.now = now;
        self.current = 0;
        let mut any = false;
        for stage in &mut self.stages {
            let ends = stage.streams.expire(now, until);
            any |= !ends.is_empty();
            stage.work.extend(ends);
        }
        if any {
            self.batch = Some(crate::frame::FrameBuilder::new().finish());
            self.note_ends(until);
        }
        any
    }

    /// When `start_ends` has something to do next, in the same clock as `now`.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let each = self.stages.iter().zip(&self.plan.stages);
        each.filter_map(|(stage, plan)| stage.streams.next_deadline(&plan.stream)).min()
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
        self.stages[self.current].layer = Some(layer);
        let stands = self.judge(verdict);
        self.note_outcome(stands);
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
        for stage in &mut self.stages {
            layer_of(stage).commit_state();
        }
        self.draft.finish()
    }

    /// Why the partition has stopped, if it has.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Lets a halted partition go on: everything of its batch is taken back, and the batch is
    /// returned to be run again. Streams that were open in it have lost their instances.
    pub fn resume(&mut self) -> Option<Frame> {
        self.halted.take()?;
        self.wanting = Wanting::default();
        for stage in &mut self.stages {
            stage.work.clear();
            stage.streams.abandon();
            let layer = layer_of(stage);
            layer.abandon();
        }
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
