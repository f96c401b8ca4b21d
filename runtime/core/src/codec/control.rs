//! Records without events: a version of a pipeline begins, a pipeline ends, comes from another node
//! or goes to one, a checkpoint stands.
//!
//! A version carries the numbers of everything the log speaks of. A stage keeps its number when it
//! is renamed, and a number that is free again is not used again.

use super::wire::Reader;
use super::{RecordError, RecordWriter, kind};
use crate::ids::{EdgeId, Name, OutputId, PipelineId, StageId};

/// A version of a pipeline that runs from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyRecord<'a> {
    /// Whose it is.
    pub tenant: Name,
    /// Its name.
    pub name: Name,
    /// Its number in the log.
    pub pipeline: PipelineId,
    /// The version, from 1.
    pub version: u32,
    /// Partitions of each segment.
    pub partitions: u16,
    /// The manifest with every component by its digest; not looked at here.
    pub manifest: &'a [u8],
    /// The numbers of what is in it.
    pub names: NameTable,
    /// Stages whose state and waiting events are given up with this version.
    pub discarded: Vec<StageId>,
}

/// The numbers of one version: which stage, edge and output each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    /// Stages, in order of their numbers.
    pub stages: Vec<(StageId, Name)>,
    /// Edges, in order of their numbers.
    pub edges: Vec<(EdgeId, EdgeEnds)>,
    /// Outputs, in order of their numbers.
    pub outputs: Vec<(OutputId, Name)>,
}

/// The two ends of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeEnds {
    /// The stage that emits.
    pub from: StageId,
    /// Its port.
    pub port: Name,
    /// The stage that receives.
    pub to: StageId,
    /// Its input.
    pub input: Name,
}

/// A pipeline is gone, with all it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteRecord {
    /// Which one.
    pub pipeline: PipelineId,
}

/// A checkpoint stands: recovery need not look before its horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Position in the log up to which the store is complete.
    pub horizon: u64,
    /// Which content of the store it is.
    pub generation: u64,
}

/// A pipeline came from another node: where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRecord<'a> {
    /// Which one.
    pub pipeline: PipelineId,
    /// What the other node kept of it, and of nothing else; not looked at here.
    pub kept: &'a [u8],
}

/// A pipeline goes to another node; from here on this one refuses everything of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRecord {
    /// Which one.
    pub pipeline: PipelineId,
    /// The name of the node it goes to, 1 to 253 bytes.
    pub to: String,
}

impl RecordWriter {
    /// Writes the record of a version. Tables are in order of their numbers.
    pub fn apply(&mut self, record: &ApplyRecord<'_>) {
        self.begin(kind::APPLY);
        self.name(&record.tenant);
        self.name(&record.name);
        self.number(record.pipeline.0);
        self.number(record.version.into());
        self.number(record.partitions.into());
        self.bytes(record.manifest);
        self.names(&record.names);
        self.number(record.discarded.len() as u64);
        for stage in &record.discarded {
            self.number(stage.0.into());
        }
    }

    pub(crate) fn names(&mut self, names: &NameTable) {
        self.number(names.stages.len() as u64);
        for (id, name) in &names.stages {
            self.number(id.0.into());
            self.name(name);
        }
        self.number(names.edges.len() as u64);
        for (id, ends) in &names.edges {
            self.number(id.0.into());
            self.number(ends.from.0.into());
            self.name(&ends.port);
            self.number(ends.to.0.into());
            self.name(&ends.input);
        }
        self.number(names.outputs.len() as u64);
        for (id, name) in &names.outputs {
            self.number(id.0.into());
            self.name(name);
        }
    }

    /// Writes the record of a pipeline's end.
    pub fn delete(&mut self, record: &DeleteRecord) {
        self.begin(kind::DELETE);
        self.number(record.pipeline.0);
    }

    /// Writes the record of a checkpoint.
    pub fn checkpoint(&mut self, record: &CheckpointRecord) {
        self.begin(kind::CHECKPOINT);
        self.number(record.horizon);
        self.number(record.generation);
    }

    /// Writes the record of a pipeline that came from another node.
    pub fn open(&mut self, record: &OpenRecord<'_>) {
        self.begin(kind::OPEN);
        self.number(record.pipeline.0);
        self.bytes(record.kept);
    }

    /// Writes the record of a pipeline that goes to another node.
    pub fn moves(&mut self, record: &MoveRecord) {
        self.begin(kind::MOVE);
        self.number(record.pipeline.0);
        self.bytes(record.to.as_bytes());
    }

    pub(crate) fn name(&mut self, name: &Name) {
        self.bytes(name.as_str().as_bytes());
    }
}

pub(super) fn apply<'a>(reader: &mut Reader<'a>) -> Result<ApplyRecord<'a>, RecordError> {
    let tenant = reader.name("the tenant")?;
    let name = reader.name("the pipeline's name")?;
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let version = reader.number_u32("the version")?;
    let partitions = reader.partitions()?;
    let manifest = reader.bytes(usize::MAX, "the manifest")?;
    let names = name_table(reader)?;
    let discarded =
        reader.list(1, "the discarded", |r| Ok(StageId(r.number_u32("a discarded stage")?)))?;
    ascending(reader, discarded.iter(), "the discarded")?;
    reader.extensions()?;
    let record =
        ApplyRecord { tenant, name, pipeline, version, partitions, manifest, names, discarded };
    Ok(record)
}

pub(crate) fn name_table(reader: &mut Reader<'_>) -> Result<NameTable, RecordError> {
    let stages = reader.list(3, "the stages", |reader| {
        Ok((StageId(reader.number_u32("a stage")?), reader.name("a stage's name")?))
    })?;
    ascending(reader, stages.iter().map(|(id, _)| id), "the stages")?;
    let is_stage = |id: &StageId| stages.binary_search_by_key(id, |(id, _)| *id).is_ok();
    let edges = reader.list(7, "the edges", |reader| {
        let id = EdgeId(reader.number_u32("an edge")?);
        let ends = EdgeEnds {
            from: StageId(reader.number_u32("an edge's stage")?),
            port: reader.name("an edge's port")?,
            to: StageId(reader.number_u32("an edge's stage")?),
            input: reader.name("an edge's input")?,
        };
        if !is_stage(&ends.from) || !is_stage(&ends.to) {
            return Err(reader.bad("an edge's stage"));
        }
        Ok((id, ends))
    })?;
    ascending(reader, edges.iter().map(|(id, _)| id), "the edges")?;
    let outputs = reader.list(3, "the outputs", |reader| {
        Ok((OutputId(reader.number_u32("an output")?), reader.name("an output's name")?))
    })?;
    ascending(reader, outputs.iter().map(|(id, _)| id), "the outputs")?;
    Ok(NameTable { stages, edges, outputs })
}

/// In order and none twice.
pub(super) fn ascending<'t, T: Ord + 't>(
    reader: &Reader<'_>,
    mut ids: impl Iterator<Item = &'t T>,
    part: &'static str,
) -> Result<(), RecordError> {
    let mut last = ids.next();
    for id in ids {
        if last.is_some_and(|last| last >= id) {
            return Err(reader.bad(part));
        }
        last = Some(id);
    }
    Ok(())
}

pub(super) fn delete(reader: &mut Reader<'_>) -> Result<DeleteRecord, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    reader.extensions()?;
    Ok(DeleteRecord { pipeline })
}

pub(super) fn checkpoint(reader: &mut Reader<'_>) -> Result<CheckpointRecord, RecordError> {
    let horizon = reader.number("the horizon")?;
    let generation = reader.number("the generation")?;
    reader.extensions()?;
    Ok(CheckpointRecord { horizon, generation })
}

pub(super) fn open<'a>(reader: &mut Reader<'a>) -> Result<OpenRecord<'a>, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let kept = reader.bytes(usize::MAX, "what was kept of it")?;
    reader.extensions()?;
    Ok(OpenRecord { pipeline, kept })
}

pub(super) fn moves(reader: &mut Reader<'_>) -> Result<MoveRecord, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let to = reader.node("the node it goes to")?;
    reader.extensions()?;
    Ok(MoveRecord { pipeline, to })
}
