//! Recovery: from the records of the log, one after another, to where every pipeline stands.
//!
//! - Equal records give an equal fold, whether they were read at once or behind a checkpoint.
//! - What it keeps is tables and the backlog: runs that were sent and not yet consumed, by where
//!   they are in the log. State, outputs, dead letters and ids go to a [`Sink`] as they come, so
//!   that memory does not grow with history.
//! - A record that does not follow from those before it is our bug or damage. It stops its
//!   pipeline, with the position and what is wrong; the others go on. A stopped pipeline takes no
//!   more records but its end.
//!
//! Reading the log, and doing anything about what was found, is the business of the node.

mod backlog;
mod kept;
mod pipeline;
mod standing;
mod wrong;

pub use backlog::Waiting;
pub use pipeline::{Fence, Folded};
pub use standing::Standing;
pub use wrong::{Stopped, Wrong};

use std::collections::BTreeMap;

use crate::codec::{
    ApplyRecord, CheckpointRecord, CommitHead, DeadRun, IngestRecord, OutputRun, Record,
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

    /// From here on a pipeline has so many partitions, and each key is in the one that owns it.
    fn repartitioned(&mut self, pipeline: PipelineId, partitions: u16) {
        let _of_no_interest = (pipeline, partitions);
    }

    /// A stage was given up, with all state it has in any partition.
    fn discarded(&mut self, pipeline: PipelineId, stage: StageId);

    /// A pipeline is gone, with everything of it.
    fn deleted(&mut self, pipeline: PipelineId);
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
    /// It does not follow from those before it. Its pipeline has stopped; go on with the next.
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
            Err(_) => {
                let mut named = self.pipelines.values();
                if named.any(|f| *f.tenant() == record.tenant && *f.name() == record.name) {
                    return Err(Wrong::Name);
                }
                self.pipelines.insert(record.pipeline, Folded::begin(record)?);
                sink.applied(&record.tenant, record.pipeline);
                Ok(())
            }
        }
    }
}

/// The pipeline a record is of; `None` if it has stopped.
fn running(
    pipelines: &mut BTreeMap<PipelineId, Folded>,
    pipeline: PipelineId,
) -> Result<Option<&mut Folded>, Wrong> {
    let folded = pipelines.get_mut(&pipeline).ok_or(Wrong::Pipeline)?;
    Ok(folded.stopped().is_none().then_some(folded))
}

#[cfg(test)]
mod tests;
