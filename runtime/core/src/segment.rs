//! Cutting a pipeline into segments; what may share a commit.
//!
//! A segment is a maximal tree of stages: events run from its root to its leaves without changing
//! key, partition or resources, so one partition runs all of it over one batch. A stage begins a
//! segment if
//! - it is not fed by exactly one edge (an ingest counts as one): a join, or an entry,
//! - the edge to it takes another key, so its events may belong to another partition, or
//! - it needs other resources than the stage before it, or
//! - one of the two is set apart, since it costs so much (`scaling::fuse`).
//!
//! Every stage is in one segment; edges inside segments form trees, all others cross.

use crate::pipeline::{EdgeIndex, EdgeKey, Pipeline, Stage, StageIndex, graph};

/// Index of a segment in `Plan::segments`.
pub type SegmentIndex = usize;

/// A pipeline cut into segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The segments, so that every crossing edge leads to a later one.
    pub segments: Vec<Segment>,
    /// The segment of each stage.
    pub of_stage: Vec<SegmentIndex>,
}

/// Stages that run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The stage events enter by.
    pub root: StageIndex,
    /// All its stages, the root first, each behind the one that feeds it.
    pub stages: Vec<StageIndex>,
    /// Edges between its stages; each stage but the root is fed by exactly one.
    pub inside: Vec<EdgeIndex>,
    /// Edges from other segments; all lead to the root.
    pub entering: Vec<EdgeIndex>,
    /// Edges to other segments.
    pub leaving: Vec<EdgeIndex>,
    /// Inputs of the root that ingest feeds.
    pub ingest: Vec<u16>,
}

/// Cuts a pipeline into segments.
#[must_use]
pub fn cut(pipeline: &Pipeline) -> Plan {
    let apart = pipeline.scaling.as_ref().and_then(|scaling| scaling.apart.as_deref());
    cut_by(pipeline, |stage| (resources(stage), apart == Some(stage.name.as_str())))
}

/// What a stage needs that not every node has: a GPU. Stages that are next to each other and need
/// the same are together.
const fn resources(stage: &Stage) -> bool {
    stage.grants.gpu.is_some()
}

fn cut_by<'a, R: PartialEq>(pipeline: &'a Pipeline, needs: impl Fn(&'a Stage) -> R) -> Plan {
    let count = pipeline.stages.len();
    let mut feeding: Vec<Vec<EdgeIndex>> = vec![Vec::new(); count];
    for (index, edge) in pipeline.edges.iter().enumerate() {
        feeding[edge.to].push(index);
    }
    let arcs: Vec<graph::Arc> = pipeline.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let order = graph::topological(count, &arcs);
    assert!(order.len() == count, "a checked pipeline has no cycle");

    let mut segments: Vec<Segment> = Vec::new();
    let mut of_stage: Vec<SegmentIndex> = vec![0; count];
    for stage in order {
        let ingest: Vec<u16> = targets(pipeline, stage).collect();
        let joins_feeder = |edge: &EdgeIndex| {
            let edge = &pipeline.edges[*edge];
            let same = needs(&pipeline.stages[edge.from]) == needs(&pipeline.stages[stage]);
            edge.key == EdgeKey::Cause && same
        };
        match feeding[stage].as_slice() {
            [only] if ingest.is_empty() && joins_feeder(only) => {
                let home = of_stage[pipeline.edges[*only].from];
                of_stage[stage] = home;
                segments[home].stages.push(stage);
                segments[home].inside.push(*only);
            }
            edges => {
                of_stage[stage] = segments.len();
                segments.push(Segment {
                    root: stage,
                    stages: vec![stage],
                    inside: Vec::new(),
                    entering: edges.to_vec(),
                    leaving: Vec::new(),
                    ingest,
                });
            }
        }
    }
    for (index, edge) in pipeline.edges.iter().enumerate() {
        if of_stage[edge.from] != of_stage[edge.to] {
            segments[of_stage[edge.from]].leaving.push(index);
        }
    }
    Plan { segments, of_stage }
}

fn targets(pipeline: &Pipeline, stage: StageIndex) -> impl Iterator<Item = u16> {
    let targets = pipeline.ingest.targets.iter();
    targets.filter(move |(target, _)| *target == stage).map(|(_, input)| *input)
}

#[cfg(test)]
mod tests;
