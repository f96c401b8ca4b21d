//! The rings of a version: those of the version before where nothing changed, new ones else.
//!
//! In a pipeline with a log offsets go on for ever, over versions and restarts: a new ring begins
//! where the last one ended, and cursors of the pipeline stay good as long as what they point at is
//! kept. A ring keeps the partitions it ever had, whatever their number is now.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicebox_core::ids::{OutputId, StageId};
use sluicebox_core::key;
use sluicebox_core::numbering::Numbering;
use sluicebox_core::pipeline::{Output as OutputOf, Pipeline};
use sluicebox_core::recovery::{Fence, Standing};
use sluicebox_core::segment::Plan;

use crate::durable::Durable;
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
    /// How far outputs had come when the number of partitions changed.
    pub fences: Vec<Fence>,
}

/// Makes the rings of a version.
pub(super) struct Rings<'a> {
    pub node: &'a Node,
    pub old: Option<&'a Running>,
    pub durable: Option<(&'a Durable, &'a Numbering)>,
    pub standing: &'a Standing,
    pub tails: &'a Tails,
    /// Partitions of each segment.
    pub partitions: u16,
}

impl Rings<'_> {
    /// The rings of the outputs, in the pipeline's order.
    pub(super) fn outputs(&self, pipeline: &Pipeline) -> Vec<Arc<Output>> {
        let ring = |output: &OutputOf| self.kept(output).unwrap_or_else(|| self.output(output));
        pipeline.outputs.iter().map(ring).collect()
    }

    /// The ring of the version before. Without a log an output whose size changes begins anew, and
    /// cursors of the old one are told. With one nothing may be lost that was not read yet, so that
    /// the ring is made fit.
    fn kept(&self, output: &OutputOf) -> Option<Arc<Output>> {
        let old = self.old?;
        let before = old.pipeline().outputs.iter().find(|o| o.name == output.name)?;
        let ring = old.output(&output.name)?;
        let same = before.retain_bytes == output.retain_bytes;
        let as_before = same && old.partitions() == self.partitions;
        if as_before || (!same && self.durable.is_none()) {
            return as_before.then(|| ring.clone());
        }
        ring.resize(self.retain(output), self.partitions);
        if old.partitions() != self.partitions {
            let number = self.durable.and_then(|(_, numbers)| numbers.output(&output.name));
            // What is on its way from the log into the ring lies in front of the fence as well.
            let offset = |id| move |partition, _| self.standing.offset(id, partition);
            number.map_or_else(|| ring.fence(|_, next| next), |id| ring.fence(offset(id)));
        }
        Some(ring.clone())
    }

    /// Bytes an output keeps.
    fn retain(&self, output: &OutputOf) -> usize {
        let retain = usize::try_from(output.retain_bytes).unwrap_or(usize::MAX);
        retain.min(self.node.config().limits.output_bytes_max)
    }

    fn output(&self, output: &OutputOf) -> Arc<Output> {
        let retain = self.retain(output);
        let Some((durable, numbering)) = self.durable else {
            return Arc::new(Output::new(self.partitions, retain, self.node.next_incarnation()));
        };
        let id = numbering.output(&output.name).expect("the numbers are of this pipeline");
        let ever = self.partitions.max(self.standing.partitions_of(id));
        let ring = Output::new(ever, retain, incarnation(durable, u64::from(id.0)));
        ring.resize(retain, self.partitions);
        for partition in 0..ever {
            let next = self.standing.offset(id, partition);
            fill(&ring, partition, self.tails.outputs.get(&(id, partition)), next);
        }
        for fence in &self.tails.fences {
            ring.fence(|partition, _| fence.get(&(id, partition)).copied().unwrap_or(0));
        }
        ring.resize(retain, self.partitions);
        Arc::new(ring)
    }

    /// The ring of the dead letters. In a pipeline with a log each segment has its own partitions
    /// of it, as it numbers its own: first those of all segments with number 0, then with number
    /// 1, so that more can come behind.
    pub(super) fn dead_letters(&self, pipeline: &Pipeline, plan: &Plan) -> Arc<Output> {
        let retain = self.node.config().limits.dead_letter_bytes;
        let Some((durable, numbering)) = self.durable else {
            let new = || Output::new(self.partitions, retain, self.node.next_incarnation());
            let ring = self.old.map_or_else(|| Arc::new(new()), |old| old.dead_letters().clone());
            ring.resize(retain, self.partitions);
            return ring;
        };
        let roots: Option<Vec<StageId>> = plan
            .segments
            .iter()
            .map(|segment| numbering.stage(&pipeline.stages[segment.root].name))
            .collect();
        let roots = roots.expect("the numbers are of this pipeline");
        let segments = roots.len() as u16;
        let shape = roots.iter().fold(u64::from(segments), |hash, root| {
            key::hash(&[hash.to_le_bytes().as_slice(), &root.0.to_le_bytes()].concat())
        });
        let incarnation = incarnation(durable, shape);
        let kept = self.old.map(Running::dead_letters);
        if let Some(kept) = kept.filter(|kept| kept.incarnation() == incarnation) {
            kept.resize(retain, segments.saturating_mul(self.partitions));
            return kept.clone();
        }
        let used = roots.iter().map(|root| self.standing.partitions_with_dead_letters(*root));
        let ever = used.max().unwrap_or(0).max(self.partitions);
        let ring = Output::new(segments.saturating_mul(ever), retain, incarnation);
        ring.resize(retain, segments.saturating_mul(self.partitions));
        for partition in 0..ever {
            for (at, root) in (0_u16..).zip(&roots) {
                let next = self.standing.dead_letters(*root, partition);
                let tail = self.tails.dead_letters.get(&(*root, partition));
                let place = u32::from(partition) * u32::from(segments) + u32::from(at);
                if let Ok(place) = u16::try_from(place) {
                    fill(&ring, place, tail, next);
                }
            }
        }
        ring.resize(retain, segments.saturating_mul(self.partitions));
        Arc::new(ring)
    }
}

/// Puts back what was kept, and goes on at `next`.
fn fill(ring: &Output, partition: u16, tail: Option<&Tail>, next: u64) {
    for (first, frame) in tail.into_iter().flat_map(|tail| &tail.frames) {
        ring.resume(partition, *first);
        ring.append(partition, frame);
    }
    ring.resume(partition, next);
}

/// Differs for everything a pipeline with a log ever keeps, and stays over restarts.
fn incarnation(durable: &Durable, what: u64) -> u64 {
    key::hash(&[durable.id.0.to_le_bytes(), what.to_le_bytes()].concat())
}
