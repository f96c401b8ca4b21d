//! The edges of a running pipeline, and what goes over them.
//!
//! An edge to another segment ends at its root, whatever way a run goes there. One within a segment
//! leads from call to call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use sluicebox_core::pipeline::{Pipeline, StageIndex};
use sluicebox_core::segment::Plan;

use crate::metrics::{HopMetrics, HopWay, PipelineMetrics};

/// A run on its way from a segment to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop {
    /// The segment it comes from, and which of its stages.
    pub(crate) from: (u16, u16),
    /// The way it goes; nobody knows yet how it gets to another node.
    pub(crate) way: Option<HopWay>,
    /// When it was handed over.
    pub(crate) since: Instant,
}

impl Hop {
    /// From wherever it came into an inbox, now.
    pub(crate) fn into_inbox() -> Self {
        Self { from: (u16::MAX, u16::MAX), way: None, since: Instant::now() }
    }
}

/// Stages by segment and place in it: the one that sends, and the one that is sent to.
type Ends = [(usize, usize); 2];

/// By the stages at both ends.
#[derive(Debug)]
pub(crate) struct Hops(Vec<(Ends, Arc<HopMetrics>)>);

impl Hops {
    /// Those of a pipeline that is cut so.
    pub(super) fn new(metrics: &PipelineMetrics, (pipeline, plan): (&Pipeline, &Plan)) -> Self {
        let place = |stage: StageIndex| {
            let segment = plan.of_stage[stage];
            let at = plan.segments[segment].stages.iter().position(|known| *known == stage);
            (segment, at.unwrap_or(0))
        };
        let ends = pipeline.edges.iter().map(|edge| [place(edge.from), place(edge.to)]);
        let ends: BTreeSet<Ends> = ends.collect();
        let name = |(segment, at): (usize, usize)| {
            pipeline.stages[plan.segments[segment].stages[at]].name.clone()
        };
        let names: Vec<_> = ends.iter().map(|[from, to]| (name(*from), name(*to))).collect();
        Self(ends.into_iter().zip(metrics.set_hops(&names)).collect())
    }

    /// The name of the stage that sends.
    pub(crate) fn sender(&self, (hop, to): (Hop, usize)) -> Option<&str> {
        self.between(hop, to).map(|hop| hop.from.as_str())
    }

    fn of(&self, ends: Ends) -> Option<&HopMetrics> {
        self.0.iter().find(|(known, _)| *known == ends).map(|(_, hop)| hop.as_ref())
    }

    /// The stage of a segment that calls this one after itself, and the figures between the two.
    pub(crate) fn inside(&self, segment: usize, stage: usize) -> Option<(usize, &HopMetrics)> {
        let leads_there = |ends: &Ends| ends[0].0 == segment && ends[1] == (segment, stage);
        let (ends, hop) = self.0.iter().find(|(ends, _)| leads_there(ends))?;
        Some((ends[0].1, hop.as_ref()))
    }

    /// A run was handed over.
    pub(crate) fn passed(&self, (hop, to): (Hop, usize), (events, bytes): (usize, usize)) {
        if let Some((way, metrics)) = hop.way.zip(self.between(hop, to)) {
            metrics.way(way).passed(events, bytes);
        }
    }

    /// A run was taken.
    pub(crate) fn took(&self, (hop, to): (Hop, usize)) {
        if let Some((way, metrics)) = hop.way.zip(self.between(hop, to)) {
            metrics.way(way).took(hop.since.elapsed());
        }
    }

    fn between(&self, Hop { from: (segment, stage), .. }: Hop, to: usize) -> Option<&HopMetrics> {
        self.of([(segment.into(), stage.into()), (to, 0)])
    }
}
