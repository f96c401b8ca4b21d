//! The edges of a running pipeline, and what goes over them.
//!
//! An edge to another segment ends at its root, whatever way a run goes there. One within a segment
//! leads from call to call.

use std::collections::{BTreeMap, BTreeSet};
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

/// Edges by the stages at both ends. Whoever looks does so once for each call or run.
#[derive(Debug)]
pub(crate) struct Hops {
    /// In the order of their ends.
    all: Vec<(Ends, Arc<HopMetrics>)>,
    /// Where among them is the one within a segment that leads to a stage.
    inside: BTreeMap<(usize, usize), usize>,
}

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
        Self::of_all(ends.into_iter().zip(metrics.set_hops(&names)).collect())
    }

    /// Those that are given in the order of their ends.
    fn of_all(all: Vec<(Ends, Arc<HopMetrics>)>) -> Self {
        let mut inside = BTreeMap::new();
        for (at, ([from, to], _)) in all.iter().enumerate() {
            if from.0 == to.0 {
                inside.entry(*to).or_insert(at);
            }
        }
        Self { all, inside }
    }

    /// The name of the stage that sends.
    pub(crate) fn sender(&self, (hop, to): (Hop, usize)) -> Option<&str> {
        self.between(hop, to).map(|hop| hop.from.as_str())
    }

    fn of(&self, ends: Ends) -> Option<&HopMetrics> {
        let at = self.all.binary_search_by_key(&ends, |(known, _)| *known).ok()?;
        self.all.get(at).map(|(_, hop)| hop.as_ref())
    }

    /// The stage of a segment that calls this one after itself, and the figures between the two.
    pub(crate) fn inside(&self, segment: usize, stage: usize) -> Option<(usize, &HopMetrics)> {
        let (ends, hop) = self.all.get(*self.inside.get(&(segment, stage))?)?;
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

#[cfg(test)]
mod tests {
    use sluicebox_core::ids::Name;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn an_edge_is_found_by_its_ends_as_going_through_all_finds_it() {
        let name = |text: &str| Name::new(text).expect("a name");
        let metrics = Metrics::new().pipeline(&name("acme"), &name("orders"));
        let stages = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)];
        // Of all edges there could be, some.
        let all = stages.into_iter().flat_map(|from| stages.map(|to| [from, to]));
        let ends: Vec<Ends> =
            all.enumerate().filter(|(at, _)| at % 3 != 1).map(|it| it.1).collect();
        let text = |(segment, at): (usize, usize)| format!("s{segment}-{at}");
        let names: Vec<_> = ends.iter().map(|[from, to]| (text(*from), text(*to))).collect();
        let hops = Hops::of_all(ends.iter().copied().zip(metrics.set_hops(&names)).collect());
        for to in stages {
            let inside = ends.iter().find(|ends| ends[0].0 == to.0 && ends[1] == to);
            let found = hops.inside(to.0, to.1);
            let found = found.map(|(from, hop)| (from, hop.from.clone(), hop.to.clone()));
            assert_eq!(found, inside.map(|ends| (ends[0].1, text(ends[0]), text(to))));
            for from in stages {
                let found = hops.of([from, to]).map(|hop| (hop.from.clone(), hop.to.clone()));
                let there = ends.contains(&[from, to]).then(|| (text(from), text(to)));
                assert_eq!(found, there);
            }
        }
    }
}
