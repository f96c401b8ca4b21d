//! Recovery: from the records of the log, one after another, to where every pipeline stands.
//!
//! - Equal records give an equal fold, whether they were read at once or behind a checkpoint.
//! - What it keeps is tables and the backlog: runs that were sent and not yet consumed, by where
//!   they are in the log. State, outputs, dead letters and ids go to a [`Sink`] as they come, so
//!   that memory does not grow with history.
//! - A record that does not follow from those before it is our bug or damage. It stops its
//!   pipeline, with the position and what is wrong; the others go on. A stopped pipeline takes no
//!   more records but its end.
//! - A pipeline that goes to another node is moved: it refuses all records but its end, and stays
//!   as it was. One that came from another node is opened: it goes on from what was kept there.
//! - Partitions of a pipeline may be on several nodes. Each has the records of those that it has,
//!   and of what it knows of the others; see `parts`.
//!
//! Reading the log, and doing anything about what was found, is the business of the node.

mod backlog;
mod billed;
mod kept;
mod parts;
mod pipeline;
mod standing;
mod wrong;

pub use backlog::Waiting;
pub use pipeline::{Fence, Folded};
pub use standing::Standing;
pub use wrong::{Stopped, Wrong};

use std::collections::BTreeMap;

use crate::bill::{Used, Whose};
use crate::codec::{
    ApplyRecord, CheckpointRecord, CommitHead, DeadRun, IngestRecord, OpenRecord, OutputRun, Record,
};
use crate::ids::{Name, Part, PipelineId, StageId};
use crate::state::Change;

/// Takes what the fold does not keep, in the order of the log.
pub trait Sink {
    /// A slot of a stage's state in the partition of a commit. The last change of a slot holds.
    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>);

    /// Events that left by an output in a commit; the record is at `position`.
    fn output(&mut self, commit: &CommitHead, run: &OutputRun, position: u64);

    /// Events a commit gave up on; the record is at `position`.
    fn dead_letters(&mut self, commit: &CommitHead, run: &DeadRun, position: u64);

    /// An ingest, for the table of what has come before; the record is at `position`.
    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64);

    /// A pipeline of this tenant is new.
    fn applied(&mut self, tenant: &Name, pipeline: PipelineId) {
        let _of_no_interest = (tenant, pipeline);
    }

    /// A pipeline of this tenant came from another node, with everything of it.
    fn opened(&mut self, tenant: &Name, pipeline: PipelineId) {
        let _of_no_interest = (tenant, pipeline);
    }

    /// These partitions of a pipeline of this tenant came from another node, with all they have.
    fn joined(&mut self, tenant: &Name, pipeline: PipelineId, partitions: &[u16]) {
        let _of_no_interest = (tenant, pipeline, partitions);
    }

    /// What is still here of these partitions, `of` so many, is not needed any more.
    fn released(&mut self, pipeline: PipelineId, partitions: &[u16], of: u16) {
        let _of_no_interest = (pipeline, partitions, of);
    }

    /// From here on a pipeline has so many partitions, and each key is in the one that owns it.
    fn repartitioned(&mut self, pipeline: PipelineId, partitions: u16) {
        let _of_no_interest = (pipeline, partitions);
    }

    /// Somebody used so much, as the record at a position says; `when` is its time, in microseconds
    /// since 1970, and that position.
    fn used(&mut self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        let _of_no_interest = (whose, when, used);
    }

    /// A stage was given up, with all state it has in any partition.
    fn discarded(&mut self, pipeline: PipelineId, stage: StageId);

    /// A pipeline is gone, with everything of it.
    fn deleted(&mut self, pipeline: PipelineId);
}

/// Takes nothing: for who wants to know where pipelines stand and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl Sink for Nothing {
    fn changed(&mut self, _: &CommitHead, _: StageId, _: Change<'_>) {}

    fn output(&mut self, _: &CommitHead, _: &OutputRun, _: u64) {}

    fn dead_letters(&mut self, _: &CommitHead, _: &DeadRun, _: u64) {}

    fn ingested(&mut self, _: &IngestRecord<'_>, _: u64) {}

    fn discarded(&mut self, _: PipelineId, _: StageId) {}

    fn deleted(&mut self, _: PipelineId) {}
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    pipelines: BTreeMap<PipelineId, Folded>,
    checkpoint: Option<CheckpointRecord>,
    /// Position of the last record.
    last: Option<u64>,
}

impl Fold {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record, which is at `position`.
    ///
    /// # Errors
    /// It does not follow from those before it. Its pipeline has stopped, unless it has moved; go
    /// on with the next.
    ///
    /// # Panics
    /// `position` does not lie behind the record before.
    pub fn apply(
        &mut self,
        position: u64,
        record: &Record<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Stopped> {
        let follows = self.last.is_none_or(|last| last < position);
        assert!(follows, "records come in the log's order: {position} behind {:?}", self.last);
        self.last = Some(position);
        let (pipeline, outcome) = match record {
            Record::Ingest(record) => (record.pipeline, self.ingest(position, record, sink)),
            Record::Commit(record) => {
                let pipeline = record.head.pipeline;
                let folded = running(&mut self.pipelines, pipeline);
                let commit = |folded: &mut Folded| folded.commit(position, record, sink);
                (pipeline, folded.and_then(|folded| folded.map_or(Ok(()), commit)))
            }
            Record::Apply(record) => (record.pipeline, self.version(record, sink)),
            Record::Delete(record) => {
                let known = self.pipelines.remove(&record.pipeline);
                let outcome = known.map(|_| sink.deleted(record.pipeline));
                (record.pipeline, outcome.ok_or(Wrong::Pipeline))
            }
            Record::Checkpoint(record) => {
                self.checkpoint = Some(*record);
                return Ok(());
            }
            Record::Open(record) => (record.pipeline, self.open(record, sink)),
            Record::Move(record) => {
                let known = self.pipelines.get_mut(&record.pipeline);
                let outcome = known.map(|folded| folded.go(&record.to));
                (record.pipeline, outcome.unwrap_or(Err(Wrong::Pipeline)))
            }
            Record::Leave(record) => (record.pipeline, self.leave(record)),
            Record::Join(record) => (record.pipeline, self.join(record, sink)),
            Record::Release(record) => (record.pipeline, self.release(record, sink)),
            Record::Usage(record) => {
                let when = (record.time, position);
                record.lines.iter().for_each(|line| sink.used(line.whose(), when, &line.used));
                return Ok(());
            }
        };
        outcome.map_err(|wrong| {
            let stopped = Stopped { pipeline, position, wrong };
            if let Some(folded) = self.pipelines.get_mut(&pipeline) {
                folded.stop(stopped.clone());
            }
            stopped
        })
    }

    /// The pipelines there are, those that stopped among them.
    pub fn pipelines(&self) -> impl Iterator<Item = (PipelineId, &Folded)> {
        self.pipelines.iter().map(|(id, folded)| (*id, folded))
    }

    /// One pipeline.
    #[must_use]
    pub fn pipeline(&self, pipeline: PipelineId) -> Option<&Folded> {
        self.pipelines.get(&pipeline)
    }

    /// The same of one pipeline and of no other: to follow that one further.
    #[must_use]
    pub fn only(mut self, pipeline: PipelineId) -> Self {
        self.pipelines.retain(|id, _| *id == pipeline);
        self
    }

    /// The last checkpoint the log speaks of.
    #[must_use]
    pub fn checkpoint(&self) -> Option<CheckpointRecord> {
        self.checkpoint
    }

    /// Position of the last record that was taken.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    fn ingest(
        &mut self,
        position: u64,
        record: &IngestRecord<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Wrong> {
        let Some(folded) = running(&mut self.pipelines, record.pipeline)? else { return Ok(()) };
        folded.ingest(position, record)?;
        folded.bill_ingest(position, record, sink);
        sink.ingested(record, position);
        Ok(())
    }

    fn version(&mut self, record: &ApplyRecord<'_>, sink: &mut impl Sink) -> Result<(), Wrong> {
        match running(&mut self.pipelines, record.pipeline) {
            Ok(None) => Ok(()),
            Ok(Some(folded)) => {
                let before = folded.partitions();
                folded.change(record)?;
                if record.partitions != before {
                    sink.repartitioned(record.pipeline, record.partitions);
                }
                for stage in &record.discarded {
                    sink.discarded(record.pipeline, *stage);
                    for part in Part::HELD {
                        sink.discarded(record.pipeline, stage.part(part));
                    }
                }
                Ok(())
            }
            Err(Wrong::Pipeline) => {
                if self.has_name(&record.tenant, &record.name) {
                    return Err(Wrong::Name);
                }
                self.pipelines.insert(record.pipeline, Folded::begin(record)?);
                sink.applied(&record.tenant, record.pipeline);
                Ok(())
            }
            Err(wrong) => Err(wrong),
        }
    }

    /// Takes in a pipeline from another node. Where that node's log stood is of no matter here.
    fn open(&mut self, record: &OpenRecord<'_>, sink: &mut impl Sink) -> Result<(), Wrong> {
        let id = record.pipeline;
        if let Some(known) = self.pipelines.get(&id) {
            let here = Wrong::Opened("there is a pipeline with its number");
            return Err(if known.moved.is_some() { Wrong::Moved } else { here });
        }
        let folded = only_one(id, record.kept).map_err(Wrong::Opened)?;
        let refused = [
            (!folded.parts.is_whole(), "only a part of it was there"),
            (folded.waiting().next().is_some(), "runs wait that are in the log of that node"),
            (self.has_name(&folded.tenant, &folded.name), "another one of the tenant has its name"),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(refused, _)| *refused) {
            return Err(Wrong::Opened(why));
        }
        sink.opened(&folded.tenant, id);
        self.pipelines.insert(id, folded);
        Ok(())
    }

    fn has_name(&self, tenant: &Name, name: &Name) -> bool {
        self.pipelines.values().any(|known| known.tenant == *tenant && known.name == *name)
    }
}

/// The pipeline another node kept, and it alone; or why it cannot go on here.
fn only_one(pipeline: PipelineId, kept: &[u8]) -> Result<Folded, &'static str> {
    let kept = Fold::from_kept(kept).map_err(|_| "what was kept of it cannot be read")?;
    let mut pipelines = kept.pipelines.into_iter();
    let (Some((found, folded)), None) = (pipelines.next(), pipelines.next()) else {
        return Err("what was kept is not of one pipeline");
    };
    let refused = [
        (found != pipeline, "what was kept is of another pipeline"),
        (folded.stopped.is_some(), "it had stopped there"),
        (folded.moved.is_some(), "it had moved there"),
    ];
    match refused.into_iter().find(|(refused, _)| *refused) {
        Some((_, why)) => Err(why),
        None => Ok(folded),
    }
}

/// The pipeline a record is of; `None` if it has stopped. Wrong if it is another node's.
fn running(
    pipelines: &mut BTreeMap<PipelineId, Folded>,
    pipeline: PipelineId,
) -> Result<Option<&mut Folded>, Wrong> {
    let folded = pipelines.get_mut(&pipeline).ok_or(Wrong::Pipeline)?;
    if folded.moved.is_some() {
        return Err(Wrong::Moved);
    }
    Ok(folded.stopped().is_none().then_some(folded))
}

#[cfg(test)]
mod tests;
