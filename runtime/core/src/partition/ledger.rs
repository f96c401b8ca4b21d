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
//! - A commit whose record would be too large is not made: everything is taken back, and the batch
//!   divided. Numbers are given out when the record is known to fit.
//! - The state a batch changed is written straight from the stages into the record.
//! - [`Progress`] is all that outlives the partition besides its state; recovery makes the same one
//!   from the records.
//!
//! Nothing that is given out may be acted on before the log has taken the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Commit, Draft, OutRun, Partition, layer_of};
use crate::codec::{Batch, CommitHead, DeadRun, EdgeRun, OutputRun, Piece, RecordWriter};
use crate::codec::{Sent, Usage};
use crate::frame::{Frame, FrameBuilder, field};
use crate::ids::{EdgeId, OutputId, Part, PipelineId, RequestId, StageId};
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
    /// The watermark as far as it is written: its stages have seen no higher one.
    pub watermark: u64,
}

impl Progress {
    /// The later of what two nodes know of a partition: one that had it, and one that only sent to
    /// it.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        self.number = self.number.max(other.number);
        for (source, place) in other.positions.iter() {
            // What lies behind is known already.
            let _moved = self.positions.advance(source, place);
        }
        for (edge, counter) in other.numbers.iter() {
            if counter.last() >= self.numbers.next(edge) {
                self.numbers.insert(edge, counter.clone());
            }
        }
        for (output, next) in &other.offsets {
            let known = self.offsets.entry(*output).or_default();
            *known = (*next).max(*known);
        }
        self.dead_letters = self.dead_letters.max(other.dead_letters);
        self.watermark = self.watermark.max(other.watermark);
        self
    }
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
    /// What its calls used.
    pub usage: Usage,
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
    /// The calls of each stage.
    calls: Vec<Calls>,
    /// The batch is nothing but an event that is given up on.
    gives_up: bool,
    scratch: Scratch,
}

/// How often a stage was called.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    /// Calls since the last commit that were taken back.
    reruns: u64,
    /// Calls of the batch that stand, as long as it does.
    stand: u64,
}

/// A commit whose record is larger than a record may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// How large it would be.
    pub bytes: usize,
}

/// Class and message of an event whose commit is too large even alone.
pub(super) const TOO_LARGE: (&str, &str) = (
    "commit.too-large",
    "what its stages emit and write for it alone is more than one commit may hold; lower \
     limits.emit-bytes, or let the stage make less of one event",
);

impl Partition {
    /// Makes the partition exactly-once, going on from `progress`.
    pub fn keep_ledger(&mut self, ids: Arc<SegmentIds>, progress: Progress) {
        let plans = self.plan.stages.iter().map(|plan| plan.ports.targets().len());
        let given = ids.stages.iter().map(|ids| ids.leads.len());
        assert!(plans.eq(given), "every stage and every target of the segment has a number");
        assert!(self.batch.is_none(), "a ledger begins between two batches");
        self.watermark = self.watermark.map(|known| known.max(progress.watermark));
        let (batch, scratch) = (Batch::default(), Scratch::default());
        let calls = vec![Calls::default(); ids.stages.len()];
        let ledger = Ledger { ids, progress, batch, calls, gives_up: false, scratch };
        self.ledger = Some(Box::new(ledger));
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
    /// once. `used` is what the calls of each stage used, in the order of the segment's plan: fuel,
    /// and events of those that stood. Repeated calls are counted here.
    ///
    /// # Errors
    /// The record has more than `bytes_max` bytes, so that nothing of it stands: what `changed` saw
    /// is not so. Then comes [`Partition::take_back`]. A batch that gives up on one event is never
    /// refused.
    pub fn finish_recorded(
        &mut self,
        (used, bytes_max): (&[Usage], usize),
        writer: &mut RecordWriter,
        mut changed: impl FnMut(StageId, Change<'_>),
    ) -> Result<Recorded, TooLarge> {
        assert!(self.halted.is_none(), "a halted partition commits nothing");
        assert!(!self.wanting.is_some(), "a batch that waits for state is not done");
        self.settle_parked();
        let events = self.batch.as_ref().expect("a batch was started").len() as u64;
        let commit = self.draft.finish();
        let now = self.now;
        let ledger =
            self.ledger.as_mut().expect("a recorded commit is of a partition with a ledger");
        let spread = |run: &OutRun| self.plan.stages[run.stage].ports.targets()[run.target].spread;
        let sent = ledger.number(commit, spread);
        let head = ledger.head(now);
        let risen = self.watermark.filter(|watermark| *watermark > ledger.progress.watermark);
        let mut record = writer.commit(&head, &ledger.batch);
        for (stage, ids) in self.stages.iter().zip(&ledger.ids.stages) {
            let layer = stage.layer.as_ref().expect("no call is in flight while it commits");
            let parts = [
                (Part::Own, layer.state_ref()),
                (Part::Parked, stage.park.state()),
                (Part::Timers, layer.timers_ref().state()),
                (Part::Streams, stage.streams.index()),
            ];
            for (part, state) in parts {
                let id = ids.stage.part(part);
                state.changes(&mut ledger.scratch, |change| {
                    record.change(id, &change);
                    changed(id, change);
                });
            }
        }
        let (usage, by_stage) = ledger.usage(used, events);
        record.finish(&sent.0, &usage);
        writer.by_stage(&by_stage);
        if let Some(watermark) = risen {
            writer.event_time(watermark);
        }
        // Nothing less is left to try than giving up on one event.
        let is_last_resort = std::mem::take(&mut ledger.gives_up);
        if writer.bytes_len() > bytes_max && !is_last_resort {
            return Err(TooLarge { bytes: writer.bytes_len() });
        }
        self.batch = None;
        for stage in &mut self.stages {
            layer_of(stage).commit_state();
            stage.park.commit();
            stage.streams.commit();
        }
        self.widths.stand();
        let (sent, requests) = sent;
        ledger.progress.watermark = risen.unwrap_or(ledger.progress.watermark);
        let batch = ledger.stand(&sent);
        Ok(Recorded { number: head.number, batch, sent, usage, requests })
    }

    /// Takes back everything of a batch that ran to its end and cannot be committed, and gives it
    /// back, to be divided: what is in each part makes a smaller commit. Of parked events and of
    /// timers there is nothing to give; the next batch of them is smaller.
    pub fn take_back(&mut self) -> (Frame, Batch) {
        self.widths.refuse();
        self.set_aside()
    }

    /// Takes back everything of a batch that cannot go on now, and gives it back, to be run again
    /// as it is; parked events, timers and ends are due again. No call is in flight.
    pub fn set_aside(&mut self) -> (Frame, Batch) {
        let frame = self.batch.take().expect("a batch was started");
        self.take_back_stages();
        self.widths.take_back();
        self.draft = Draft::default();
        let ledger = self.ledger.as_mut().expect("only a recorded commit can be too large");
        for calls in &mut ledger.calls {
            calls.reruns += std::mem::take(&mut calls.stand);
        }
        (frame, std::mem::take(&mut ledger.batch))
    }

    /// Begins a batch of events that are given up on at once, as [`Partition::start_batch`]: alone
    /// each of them makes a commit that is too large.
    pub fn start_lost(&mut self, frame: Frame, pieces: Vec<Piece>, now: u64) {
        self.start_batch(FrameBuilder::new().finish(), Vec::new(), now);
        self.draft.consume(&frame);
        for event in frame.events() {
            let entry = event.fields.get(field::ENTRY).and_then(|name| str::from_utf8(name).ok());
            let stage = entry.unwrap_or(&self.plan.stages[0].name);
            self.draft.dead_letter(stage, &event, TOO_LARGE.0, TOO_LARGE.1);
        }
        self.batch = Some(frame);
        let ledger = self.ledger.as_mut().expect("a batch was begun with it");
        ledger.batch = Batch { pieces, ends: None };
        ledger.gives_up = true;
    }

    /// Lets a halted partition go on as [`Partition::resume`], with what its batch is made of.
    pub fn resume_batch(&mut self) -> Option<(Frame, Batch)> {
        let frame = self.resume()?;
        let ledger = self.ledger.as_mut()?;
        ledger.calls.fill(Calls::default());
        Some((frame, std::mem::take(&mut ledger.batch)))
    }

    /// Puts back a slot of a stage as some commit left it. Between batches.
    pub fn restore(&mut self, stage: StageId, change: &Change<'_>) {
        let (stage, part) = stage.split();
        let stages = self.ledger.as_ref().map(|ledger| ledger.ids.stages.as_slice());
        let at = stages.and_then(|stages| stages.iter().position(|ids| ids.stage == stage));
        let at = at.expect("the state of a stage is restored in the segment it is in");
        let Change { key, slot, value } = *change;
        let layer = match part {
            Part::Parked => return self.stages[at].park.restore(key, slot, value),
            Part::Timers => {
                return layer_of(&mut self.stages[at]).timers().restore(key, slot, value);
            }
            Part::Streams => return self.stages[at].streams.restore(key, slot, value),
            Part::Own => layer_of(&mut self.stages[at]),
        };
        let state = layer.state();
        match change.value {
            Some(value) => state.restore(change.key, change.slot, value),
            None => state.forget(change.key, change.slot),
        }
    }

    /// The batch under way is of streams that end.
    pub(super) fn note_ends(&mut self, until: u64, gives_up: bool) {
        if let Some(ledger) = &mut self.ledger {
            ledger.batch = Batch { pieces: Vec::new(), ends: Some(until) };
            ledger.gives_up = gives_up;
        }
    }

    /// The batch under way takes nothing new: it is of parked events, timers, or expiry.
    pub(super) fn note_nothing_taken(&mut self, gives_up: bool) {
        if let Some(ledger) = &mut self.ledger {
            ledger.batch = Batch::default();
            ledger.gives_up = gives_up;
        }
    }

    /// A call of a stage came back.
    pub(super) fn note_outcome(&mut self, stage: usize, stands: bool) {
        if let Some(ledger) = &mut self.ledger {
            let calls = &mut ledger.calls[stage];
            *(if stands { &mut calls.stand } else { &mut calls.reruns }) += 1;
        }
    }
}

impl Ledger {
    /// The next commit.
    fn head(&self, time: u64) -> CommitHead {
        let SegmentIds { pipeline, version, partition, .. } = *self.ids;
        let stage = self.ids.stages.first().expect("a segment has a root").stage;
        CommitHead { pipeline, version, stage, partition, number: self.progress.number + 1, time }
    }

    /// What the batch used in all, and what of that stages did other than the root, by number.
    fn usage(&self, used: &[Usage], events: u64) -> (Usage, Vec<(StageId, Usage)>) {
        let mut all = Usage { events, ..Usage::default() };
        let mut by_stage = Vec::new();
        for (at, (ids, calls)) in self.ids.stages.iter().zip(&self.calls).enumerate() {
            let used = used.get(at).copied().unwrap_or_default();
            let usage = Usage { reruns: calls.reruns, ..used };
            all.fuel = all.fuel.saturating_add(usage.fuel);
            all.reruns = all.reruns.saturating_add(usage.reruns);
            if at > 0 && usage != Usage::default() {
                by_stage.push((ids.stage, usage));
            }
        }
        by_stage.sort_unstable_by_key(|(stage, _)| *stage);
        (all, by_stage)
    }

    /// Numbers what leaves the segment; nothing is moved on by it.
    fn number(
        &self,
        commit: Commit,
        spread: impl Fn(&OutRun) -> Spread,
    ) -> (Sent<Frame>, Vec<(RequestId, i64)>) {
        let progress = &self.progress;
        let mut sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        let first = progress.dead_letters;
        sent.dead_letters = commit.dead_letters.map(|frame| DeadRun { first, frame });
        let mut offsets: BTreeMap<OutputId, u64> = BTreeMap::new();
        for run in commit.runs {
            let partition = match spread(&run) {
                Spread::One => self.ids.partition,
                Spread::Groups(_) => run.partition,
            };
            match self.ids.stages[run.stage].leads[run.target] {
                Leads::Edge(edge) => {
                    let seq = progress.numbers.next(edge);
                    let previous = progress.numbers.previous(edge, partition);
                    let frame = run.frame;
                    sent.runs.push(EdgeRun { edge, seq, partition, previous, frame });
                }
                Leads::Output(output) => {
                    let before = || progress.offsets.get(&output).copied().unwrap_or_default();
                    let next = offsets.entry(output).or_insert_with(before);
                    let first = *next;
                    *next += run.frame.len() as u64;
                    sent.outputs.push(OutputRun { output, first, frame: run.frame });
                }
                Leads::Inside => unreachable!("what stays inside is no run of the commit"),
            }
        }
        (sent, commit.requests)
    }

    /// The commit that was numbered stands: everything is moved on.
    fn stand(&mut self, sent: &Sent<Frame>) -> Batch {
        let Progress { number, positions, numbers, offsets, dead_letters, .. } = &mut self.progress;
        *number += 1;
        for piece in &self.batch.pieces {
            let moved = positions.advance(piece.source, piece.to);
            moved.expect("pieces were found to go forward when the batch began");
        }
        for run in &sent.runs {
            let sent = numbers.send(run.edge, run.partition, run.seq);
            sent.expect("one run an edge and partition in a commit");
        }
        for run in &sent.outputs {
            offsets.insert(run.output, run.first + run.frame.len() as u64);
        }
        if let Some(dead) = &sent.dead_letters {
            *dead_letters = dead.first + dead.frame.len() as u64;
        }
        self.calls.fill(Calls::default());
        std::mem::take(&mut self.batch)
    }
}
