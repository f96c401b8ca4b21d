//! The rings of a version: those of the version before where nothing changed, new ones else.
//!
//! In a pipeline with a log offsets go on for ever, over versions and restarts: a new ring begins
//! where the last one ended, and cursors of the pipeline stay good as long as what they point at is
//! kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicebox_core::ids::{OutputId, StageId};
use sluicebox_core::key;
use sluicebox_core::numbering::Numbering;
use sluicebox_core::partition::{Leads, SegmentIds, StageIds};
use sluicebox_core::pipeline::{Output as OutputOf, Pipeline};
use sluicebox_core::segment::Plan;

use super::standing::Standing;
use crate::durable::Durable;
use crate::error::Error;
use crate::node::Node;
use crate::recover::Tail;
use crate::ring::Output;
use crate::running::Running;

/// The newest events of outputs and dead letters, as they were found in the log.
#[derive(Debug, Default)]
pub(super) struct Tails {
    pub outputs: BTreeMap<(OutputId, u16), Tail>,
    /// By the root of the segment.
    pub dead_letters: BTreeMap<(StageId, u16), Tail>,
}

/// Makes the rings of a version.
pub(super) struct Rings<'a> {
    pub node: &'a Node,
    pub old: Option<&'a Running>,
    pub durable: Option<(&'a Durable, &'a Numbering)>,
    pub standing: &'a Standing,
    pub tails: &'a Tails,
}

impl Rings<'_> {
    /// The rings of the outputs, in the pipeline's order.
    pub(super) fn outputs(&self, pipeline: &Pipeline) -> Vec<Arc<Output>> {
        let partitions = pipeline.partitions.unwrap_or(1);
        // Without a log an output whose size changes begins anew, and cursors of the old one are
        // told. With one nothing may be lost that was not read yet, so that the ring is made fit.
        let kept = |output: &OutputOf| {
            let before = self.old?.pipeline().outputs.iter().find(|o| o.name == output.name)?;
            let ring = self.old?.output(&output.name)?;
            let same = before.retain_bytes == output.retain_bytes;
            if !same && self.durable.is_some() {
                ring.resize(self.retain(output));
                return Some(ring.clone());
            }
            same.then(|| ring.clone())
        };
        let ring = |output: &OutputOf| {
            kept(output).unwrap_or_else(|| self.output(pipeline, output, partitions))
        };
        pipeline.outputs.iter().map(ring).collect()
    }

    /// Bytes an output keeps.
    fn retain(&self, output: &OutputOf) -> usize {
        let retain = usize::try_from(output.retain_bytes).unwrap_or(usize::MAX);
        retain.min(self.node.config().limits.output_bytes_max)
    }

    fn output(&self, pipeline: &Pipeline, output: &OutputOf, partitions: u16) -> Arc<Output> {
        let retain = self.retain(output);
        let Some((durable, numbering)) = self.durable else {
            return Arc::new(Output::new(partitions, retain, self.node.next_incarnation()));
        };
        let id = numbering.output(&output.name).expect("the numbers are of this pipeline");
        let root = numbering.stage(&pipeline.stages[output.from].name);
        let root = root.expect("the numbers are of this pipeline");
        let ring = Output::new(partitions, retain, incarnation(durable, u64::from(id.0)));
        for partition in 0..partitions {
            // Any segment will do that has this output.
            let stages = vec![StageIds { stage: root, leads: vec![Leads::Output(id)] }];
            let (pipeline, version) = (durable.id, 0);
            let ids = SegmentIds { pipeline, version, partition, stages };
            let next = self.standing.progress(&ids).offsets.get(&id).copied();
            fill(&ring, partition, self.tails.outputs.get(&(id, partition)), next);
        }
        Arc::new(ring)
    }

    /// The ring of the dead letters. In a pipeline with a log each segment has its own partitions
    /// of it, as it numbers its own.
    pub(super) fn dead_letters(
        &self,
        pipeline: &Pipeline,
        plan: &Plan,
    ) -> Result<Arc<Output>, Error> {
        let partitions = pipeline.partitions.unwrap_or(1);
        let retain = self.node.config().limits.dead_letter_bytes;
        let Some((durable, numbering)) = self.durable else {
            let new = || Arc::new(Output::new(partitions, retain, self.node.next_incarnation()));
            return Ok(self.old.map_or_else(new, |old| old.dead_letters().clone()));
        };
        let all = plan.segments.len() * usize::from(partitions);
        let all = u16::try_from(all).map_err(|_| Error::Conflict {
            what: "pipeline",
            name: pipeline.name.clone(),
            why: format!("it has {all} partitions in all, at most 65535 are possible"),
        })?;
        let roots: Option<Vec<StageId>> = plan
            .segments
            .iter()
            .map(|segment| numbering.stage(&pipeline.stages[segment.root].name))
            .collect();
        let roots = roots.expect("the numbers are of this pipeline");
        let shape = roots.iter().fold(key::hash(&all.to_le_bytes()), |hash, root| {
            key::hash(&[hash.to_le_bytes().as_slice(), &root.0.to_le_bytes()].concat())
        });
        let incarnation = incarnation(durable, shape);
        let kept = self.old.map(Running::dead_letters);
        if let Some(kept) = kept.filter(|kept| kept.incarnation() == incarnation) {
            return Ok(kept.clone());
        }
        let ring = Output::new(all, retain, incarnation);
        for (at, root) in (0_u16..).zip(&roots) {
            for partition in 0..partitions {
                let stages = vec![StageIds { stage: *root, leads: Vec::new() }];
                let (pipeline, version) = (durable.id, 0);
                let ids = SegmentIds { pipeline, version, partition, stages };
                let next = self.standing.progress(&ids).dead_letters;
                let tail = self.tails.dead_letters.get(&(*root, partition));
                fill(&ring, at * partitions + partition, tail, Some(next));
            }
        }
        Ok(Arc::new(ring))
    }
}

/// Puts back what was kept, and goes on at `next`.
fn fill(ring: &Output, partition: u16, tail: Option<&Tail>, next: Option<u64>) {
    for (first, frame) in tail.into_iter().flat_map(|tail| &tail.frames) {
        ring.resume(partition, *first);
        ring.append(partition, frame);
    }
    ring.resume(partition, next.unwrap_or(0));
}

/// Differs for everything a pipeline with a log ever keeps, and stays over restarts.
fn incarnation(durable: &Durable, what: u64) -> u64 {
    key::hash(&[durable.id.0.to_le_bytes(), what.to_le_bytes()].concat())
}
