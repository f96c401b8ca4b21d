//! Exactly-once: where a partition stands, and writing each of its commits as a record of the log.
//!
//! ```text
//! keep_ledger(ids, progress) · start_batch(frame, pieces) ─► calls ─► finish_recorded(writer)
//! ```
//!
//! - A batch says which events of which runs it holds; its commit moves the places of those sources
//!   to where the batch ends, in the same record that holds what came of it.
//! - Commits, runs and offsets are numbered without gaps. A commit that sends nothing over an edge
//!   takes no number of that edge.
//! - The state a batch changed is written straight from the stages into the record.
//! - [`Progress`] is all that outlives the partition besides its state; recovery makes the same one
//!   from the records.
//!
//! Nothing that is given out may be acted on before the log has taken the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{OutRun, Partition, layer_of};
use crate::codec::{Batch, CommitHead, DeadRun, EdgeRun, OutputRun, Piece, RecordWriter};
use crate::codec::{Sent, Usage};
use crate::frame::Frame;
use crate::ids::{EdgeId, OutputId, PipelineId, RequestId, StageId};
use crate::layer::Spread;
use crate::position::{Numbers, Place, Positions, Source};
use crate::state::{Change, Scratch};

/// The numbers of one partition of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIds {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Its version.
    pub version: u32,
    /// The partition.
    pub partition: u16,
    /// The stages, in the order of the segment's plan.
    pub stages: Vec<StageIds>,
}

/// The numbers of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageIds {
    /// The stage.
    pub stage: StageId,
    /// Where each target of its ports leads.
    pub leads: Vec<Leads>,
}

/// Where a target leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To another stage of the segment.
    Inside,
    /// Over an edge to another segment.
    Edge(EdgeId),
    /// Out of the pipeline.
    Output(OutputId),
}

/// Where a partition stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Its last commit; 0 if there was none.
    pub number: u64,
    /// What it consumed.
    pub positions: Positions,
    /// What it sent.
    pub numbers: Numbers,
    /// The next offset of each of its outputs; 0 for those that are not here.
    pub offsets: BTreeMap<OutputId, u64>,
    /// The next offset of its dead letters.
    pub dead_letters: u64,
}

/// A commit that was written as a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub number: u64,
    /// What was taken.
    pub batch: Batch,
    /// What leaves.
    pub sent: Sent<Frame>,
    /// For each waiting request the batch touched: descendants sent on, less events consumed. Not
    /// in the record: a request does not outlive its node.
    pub requests: Vec<(RequestId, i64)>,
}

impl Batch {
    /// Where the commit of this batch moves its sources to.
    #[must_use]
    pub fn inputs(&self) -> BTreeMap<Source, Place> {
        self.pieces.iter().map(|piece| (piece.source, piece.to)).collect()
    }
}

/// What exactly-once keeps beside the machine.
#[derive(Debug)]
pub(super) struct Ledger {
    ids: Arc<SegmentIds>,
    progress: Progress,
    /// What the batch under way is made of.
    batch: Batch,
    reruns: u64,
    scratch: Scratch,
}

impl Partition {
    /// Makes the partition exactly-once, going on from `progress`.
    pub fn keep_ledger(&mut self, ids: Arc<SegmentIds>, progress: Progress) {
        let plans = self.plan.stages.iter().map(|plan| plan.ports.targets().len());
        let given = ids.stages.iter().map(|ids| ids.leads.len());
        assert!(plans.eq(given), "every stage and every target of the segment has a number");
        assert!(self.batch.is_none(), "a ledger begins between two batches");
        let (batch, scratch) = (Batch::default(), Scratch::default());
        self.ledger = Some(Box::new(Ledger { ids, progress, batch, reruns: 0, scratch }));
    }

    /// Where the partition stands, if it has a ledger.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        self.ledger.as_ref().map(|ledger| &ledger.progress)
    }

    /// Begins a batch as [`Partition::start`]. `pieces` say what its frame holds, each beginning at
    /// the place its source was left at.
    pub fn start_batch(&mut self, frame: Frame, pieces: Vec<Piece>, now: u64) {
        let ledger =
            self.ledger.as_mut().expect("a batch of pieces is for a partition with a ledger");
        let mut reached: BTreeMap<Source, Place> = BTreeMap::new();
        for piece in &pieces {
            let at = reached.insert(piece.source, piece.to);
            let at = at.unwrap_or_else(|| ledger.progress.positions.at(piece.source));
            assert!(at == piece.from, "a piece begins where the one before ended");
            assert!(piece.to > piece.from, "a piece goes forward");
        }
        let events: u64 = pieces.iter().map(|piece| u64::from(piece.events)).sum();
        assert!(events == frame.len() as u64, "the pieces are the batch");
        ledger.batch = Batch { pieces, ends: None };
        self.start(frame, now);
    }

    /// Ends a batch that ran to its end: its commit gets its number and is written to `writer`,
    /// which held nothing anybody needs; its state stands. `changed` sees each change of the state
    /// once. `fuel` is what the calls of the batch used.
    #[must_use]
    pub fn finish_recorded(
        &mut self,
        fuel: u64,
        writer: &mut RecordWriter,
        mut changed: impl FnMut(StageId, Change<'_>),
    ) -> Recorded {
        assert!(self.halted.is_none(), "a halted partition commits nothing");
        assert!(!self.wanting.is_some(), "a batch that waits for state is not done");
        let taken = self.batch.take().expect("a batch was started");
        let commit = self.draft.finish();
        let now = self.now;
        let ledger =
            self.ledger.as_mut().expect("a recorded commit is of a partition with a ledger");
        let dead_letters = commit.dead_letters.map(|frame| ledger.dead_letters(frame));
        let mut sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters };
        let spread = |run: &OutRun| self.plan.stages[run.stage].ports.targets()[run.target].spread;
        ledger.number(commit.runs, spread, &mut sent);
        let batch = std::mem::take(&mut ledger.batch);
        let head = ledger.begin(&batch, now);
        let mut record = writer.commit(&head, &batch);
        for (stage, ids) in self.stages.iter_mut().zip(&ledger.ids.stages) {
            let layer = layer_of(stage);
            layer.state_ref().changes(&mut ledger.scratch, |change| {
                record.change(ids.stage, &change);
                changed(ids.stage, change);
            });
            layer.commit_state();
        }
        let reruns = std::mem::take(&mut ledger.reruns);
        record.finish(&sent, &Usage { fuel, events: taken.len() as u64, reruns });
        Recorded { number: head.number, batch, sent, requests: commit.requests }
    }

    /// Lets a halted partition go on as [`Partition::resume`], with what its batch is made of.
    pub fn resume_batch(&mut self) -> Option<(Frame, Batch)> {
        let frame = self.resume()?;
        let ledger = self.ledger.as_mut()?;
        ledger.reruns = 0;
        Some((frame, std::mem::take(&mut ledger.batch)))
    }

    /// Puts back a slot of a stage as some commit left it. Between batches.
    pub fn restore(&mut self, stage: StageId, change: &Change<'_>) {
        let stages = self.ledger.as_ref().map(|ledger| ledger.ids.stages.as_slice());
        let at = stages.and_then(|stages| stages.iter().position(|ids| ids.stage == stage));
        let at = at.expect("the state of a stage is restored in the segment it is in");
        let state = layer_of(&mut self.stages[at]).state();
        match change.value {
            Some(value) => state.restore(change.key, change.slot, value),
            None => state.forget(change.key, change.slot),
        }
    }

    /// The batch under way is of streams that end.
    pub(super) fn note_ends(&mut self, until: u64) {
        if let Some(ledger) = &mut self.ledger {
            ledger.batch = Batch { pieces: Vec::new(), ends: Some(until) };
        }
    }

    /// A call came back.
    pub(super) fn note_outcome(&mut self, stands: bool) {
        if let Some(ledger) = self.ledger.as_mut().filter(|_| !stands) {
            ledger.reruns += 1;
        }
    }
}

impl Ledger {
    /// Gives the next commit its number and moves the places on.
    fn begin(&mut self, batch: &Batch, time: u64) -> CommitHead {
        for piece in &batch.pieces {
            let moved = self.progress.positions.advance(piece.source, piece.to);
            moved.expect("pieces were found to go forward when the batch began");
        }
        self.progress.number += 1;
        let SegmentIds { pipeline, version, partition, .. } = *self.ids;
        let stage = self.ids.stages.first().expect("a segment has a root").stage;
        CommitHead { pipeline, version, stage, partition, number: self.progress.number, time }
    }

    /// Numbers what leaves the segment.
    fn number(
        &mut self,
        runs: Vec<OutRun>,
        spread: impl Fn(&OutRun) -> Spread,
        sent: &mut Sent<Frame>,
    ) {
        // The seq of this commit on each edge it sends over.
        let mut seqs: Vec<(EdgeId, u64)> = Vec::new();
        for run in runs {
            let partition = match spread(&run) {
                Spread::One => self.ids.partition,
                Spread::Groups(_) => run.partition,
            };
            match self.ids.stages[run.stage].leads[run.target] {
                Leads::Edge(edge) => {
                    let known = seqs.iter().find(|(known, _)| *known == edge);
                    let seq =
                        known.map_or_else(|| self.progress.numbers.next(edge), |(_, seq)| *seq);
                    if known.is_none() {
                        seqs.push((edge, seq));
                    }
                    let previous = self.progress.numbers.send(edge, partition, seq);
                    let previous = previous.expect("one run an edge and partition in a commit");
                    let frame = run.frame;
                    sent.runs.push(EdgeRun { edge, seq, partition, previous, frame });
                }
                Leads::Output(output) => {
                    let next = self.progress.offsets.entry(output).or_default();
                    let first = *next;
                    *next += run.frame.len() as u64;
                    sent.outputs.push(OutputRun { output, first, frame: run.frame });
                }
                Leads::Inside => unreachable!("what stays inside is no run of the commit"),
            }
        }
    }

    fn dead_letters(&mut self, frame: Frame) -> DeadRun<Frame> {
        let first = self.progress.dead_letters;
        self.progress.dead_letters += frame.len() as u64;
        DeadRun { first, frame }
    }
}
