//! The rings of a version: those of the version before where nothing changed, new ones else.
//!
//! In a pipeline with a log offsets go on for ever, over versions and restarts: a new ring begins
//! where the last one ended, and cursors of the pipeline stay good as long as what they point at is
//! kept.

use std::collections::{BTreeMap, BTreeSet};
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

/// Dead letters of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    pub ring: Arc<Output>,
    /// In a pipeline with a log: partitions each stage has in it, those of stage 0 first.
    pub width: u16,
}

impl DeadLetters {
    /// The first partition of it that belongs to the segment with this root.
    pub(crate) fn of(&self, root: StageId) -> u16 {
        root.0 as u16 * self.width
    }

    /// The root and the partition there whose dead letters are in a partition of it.
    pub(crate) fn place(&self, at: u16) -> (StageId, u16) {
        (StageId(u32::from(at / self.width)), at % self.width)
    }
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

    /// The ring of the dead letters. In a pipeline with a log each stage has partitions of it for
    /// ever, as any may be the root of a segment that numbers its own: so those of a segment that
    /// is cut differently in this version can still be read.
    pub(super) fn dead_letters(
        &self,
        pipeline: &Pipeline,
        plan: &Plan,
    ) -> Result<DeadLetters, Error> {
        let partitions = pipeline.partitions.unwrap_or(1);
        let retain = self.node.config().limits.dead_letter_bytes;
        let Some((durable, numbering)) = self.durable else {
            let new = || Arc::new(Output::new(partitions, retain, self.node.next_incarnation()));
            let ring = self.old.map_or_else(new, |old| old.dead_letters().ring.clone());
            return Ok(DeadLetters { ring, width: partitions });
        };
        let old = self.old.map(Running::dead_letters);
        let found = self.tails.dead_letters.keys().map(|(_, partition)| partition + 1).max();
        let width = partitions.max(found.unwrap_or(0)).max(old.map_or(0, |old| old.width));
        let stages = numbering.highest[0].map_or(0, |highest| highest as usize + 1);
        let all = stages * usize::from(width);
        let all = u16::try_from(all).map_err(|_| Error::Conflict {
            what: "pipeline",
            name: pipeline.name.clone(),
            why: format!("its stages have had {all} partitions in all, at most 65535 are possible"),
        })?;
        let incarnation = incarnation(durable, key::hash(&width.to_le_bytes()));
        let ring = match old {
            Some(old) => old.ring.arranged(incarnation, all, |at| {
                let (stage, partition) = (at / width, at % width);
                (partition < old.width).then(|| stage * old.width + partition)
            }),
            None => Output::new(all, retain, incarnation),
        };
        let place = |stage: StageId, partition: u16| stage.0 as u16 * width + partition;
        for ((root, partition), tail) in &self.tails.dead_letters {
            fill(&ring, place(*root, *partition), Some(tail), None);
        }
        let mut others: BTreeSet<u16> = (0..all).filter(|at| ring.holds(*at)).collect();
        for segment in &plan.segments {
            let root = numbering.stage(&pipeline.stages[segment.root].name);
            let root = root.expect("the numbers are of this pipeline");
            for partition in 0..partitions {
                let stages = vec![StageIds { stage: root, leads: Vec::new() }];
                let (pipeline, version) = (durable.id, 0);
                let ids = SegmentIds { pipeline, version, partition, stages };
                let next = self.standing.progress(&ids).dead_letters;
                ring.resume(place(root, partition), next);
                others.remove(&place(root, partition));
            }
        }
        ring.share_among(plan.segments.len() * usize::from(partitions) + others.len());
        Ok(DeadLetters { ring: Arc::new(ring), width })
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
