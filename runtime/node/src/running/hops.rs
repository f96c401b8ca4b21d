//! The ways between the segments of a running pipeline, and what goes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::segment::Plan;

use crate::metrics::{HopMetrics, HopWay, PipelineMetrics};

/// A run on its way from a segment to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop {
    /// The segment it comes from.
    pub(crate) from: u16,
    /// The way it goes; nobody knows yet how it gets to another node.
    pub(crate) way: Option<HopWay>,
    /// When it was handed over.
    pub(crate) since: Instant,
}

/// By segment that sends, and segment that is sent to.
#[derive(Debug)]
pub(crate) struct Hops(Vec<((usize, usize), Arc<HopMetrics>)>);

impl Hops {
    /// Those of a pipeline that is cut so.
    pub(super) fn new(metrics: &PipelineMetrics, (pipeline, plan): (&Pipeline, &Plan)) -> Self {
        let crossing = plan.segments.iter().flat_map(|segment| &segment.leaving);
        let ends = crossing.map(|edge| {
            let edge = &pipeline.edges[*edge];
            (plan.of_stage[edge.from], plan.of_stage[edge.to])
        });
        let ends: BTreeSet<(usize, usize)> = ends.collect();
        let root = |segment: usize| pipeline.stages[plan.segments[segment].root].name.clone();
        let names: Vec<_> = ends.iter().map(|(from, to)| (root(*from), root(*to))).collect();
        Self(ends.into_iter().zip(metrics.set_hops(&names)).collect())
    }

    fn of(&self, ends: (usize, usize)) -> Option<&HopMetrics> {
        self.0.iter().find(|(known, _)| *known == ends).map(|(_, hop)| hop.as_ref())
    }

    /// A run was handed over.
    pub(crate) fn passed(&self, (hop, to): (Hop, usize), (events, bytes): (usize, usize)) {
        let way = hop.way.zip(self.of((hop.from.into(), to)));
        if let Some((way, metrics)) = way {
            metrics.way(way).passed(events, bytes);
        }
    }

    /// A run was taken.
    pub(crate) fn took(&self, (hop, to): (Hop, usize)) {
        let way = hop.way.zip(self.of((hop.from.into(), to)));
        if let Some((way, metrics)) = way {
            metrics.way(way).took(hop.since.elapsed());
        }
    }
}
