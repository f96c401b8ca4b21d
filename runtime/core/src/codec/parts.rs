//! Records of partitions that are on several nodes: some leave from here, some come here, and what
//! was kept here of those that left may go.
//!
//! Each names partitions of one pipeline, in order and at least one. Each of the two nodes has its
//! own record of what goes from one to the other; which of them comes first is not decided here.
//! Partitions that came may bring what they changed last with their record: a reader that skipped
//! that would take old state for theirs, so such a record is of a later format.

use super::control::ascending;
use super::wire::Reader;
use super::{Changed, RecordError, RecordWriter, format_of, kind};
use crate::ids::PipelineId;

/// Partitions go to another node; those that were elsewhere before are now known to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveRecord {
    /// Of which pipeline.
    pub pipeline: PipelineId,
    /// The name of the node that has them from here on, 1 to 253 bytes.
    pub to: String,
    /// Which, in order and at least one.
    pub partitions: Vec<u16>,
}

/// Partitions came from another node: where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRecord<'a> {
    /// Of which pipeline.
    pub pipeline: PipelineId,
    /// The name of the node they came from, 1 to 253 bytes.
    pub from: String,
    /// The name of the pipeline's home; `None` if that is this node.
    pub home: Option<String>,
    /// Which, in order and at least one.
    pub partitions: Vec<u16>,
    /// What the other node kept of the pipeline; not looked at here.
    pub kept: &'a [u8],
    /// What they changed since their state was copied to this node.
    pub changed: Changed<'a>,
}

/// The extension with what partitions changed, and the first format that has it.
const CHANGED: u64 = 25;
const FORMAT_OF_CHANGED: u8 = 5;

/// What is still here of partitions that left may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// Of which pipeline.
    pub pipeline: PipelineId,
    /// Which, in order and at least one.
    pub partitions: Vec<u16>,
}

impl RecordWriter {
    /// Writes the record of partitions that go to another node.
    pub fn leave(&mut self, record: &LeaveRecord) {
        self.begin(kind::LEAVE);
        self.number(record.pipeline.0);
        self.bytes(record.to.as_bytes());
        self.partitions(&record.partitions);
    }

    /// Writes the record of partitions that came from another node.
    pub fn join(&mut self, record: &JoinRecord<'_>) {
        let format = match record.changed.bytes() {
            [] => format_of(kind::JOIN),
            _ => FORMAT_OF_CHANGED,
        };
        self.begin_in(format, kind::JOIN);
        self.number(record.pipeline.0);
        self.bytes(record.from.as_bytes());
        self.bytes(record.home.as_deref().unwrap_or_default().as_bytes());
        self.partitions(&record.partitions);
        self.bytes(record.kept);
        if format == FORMAT_OF_CHANGED {
            self.extension(CHANGED, |out| out.extend_from_slice(record.changed.bytes()));
        }
    }

    /// Writes the record of partitions that left and of which nothing is needed here any more.
    pub fn release(&mut self, record: &ReleaseRecord) {
        self.begin(kind::RELEASE);
        self.number(record.pipeline.0);
        self.partitions(&record.partitions);
    }

    fn partitions(&mut self, partitions: &[u16]) {
        self.number(partitions.len() as u64);
        partitions.iter().for_each(|partition| self.number((*partition).into()));
    }
}

pub(super) fn leave(reader: &mut Reader<'_>) -> Result<LeaveRecord, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let to = reader.node("the node they go to")?;
    let partitions = some_partitions(reader)?;
    reader.extensions()?;
    Ok(LeaveRecord { pipeline, to, partitions })
}

pub(super) fn join<'a>(reader: &mut Reader<'a>) -> Result<JoinRecord<'a>, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let from = reader.node("the node they came from")?;
    let home = reader.node_or_none("the home")?;
    let partitions = some_partitions(reader)?;
    let kept = reader.bytes(usize::MAX, "what was kept of it")?;
    let mut changed = Changed::default();
    let (needs, mut has) = (reader.needed() >= FORMAT_OF_CHANGED, false);
    reader.extensions_known(|id, reader| {
        if id == CHANGED {
            (changed, has) = (Changed::read(reader.rest())?, true);
        }
        Ok(())
    })?;
    // Only they make it one of that format: without them it is not whole.
    if needs && !has {
        return Err(reader.bad("what changed"));
    }
    Ok(JoinRecord { pipeline, from, home, partitions, kept, changed })
}

pub(super) fn release(reader: &mut Reader<'_>) -> Result<ReleaseRecord, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let partitions = some_partitions(reader)?;
    reader.extensions()?;
    Ok(ReleaseRecord { pipeline, partitions })
}

fn some_partitions(reader: &mut Reader<'_>) -> Result<Vec<u16>, RecordError> {
    let partitions = reader.list(1, "the partitions", |reader| reader.partition("a partition"))?;
    if partitions.is_empty() {
        return Err(reader.bad("the partitions"));
    }
    ascending(reader, partitions.iter(), "the partitions")?;
    Ok(partitions)
}
