//! The rings of a version: those of the version before where nothing changed, new ones else.
//!
//! In a pipeline with a log offsets go on for ever, over versions and restarts: a new ring begins
//! where the last one ended, and cursors of the pipeline stay good as long as what they point at is
//! kept. A ring keeps the partitions it ever had, whatever their number is now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicebox_core::ids::{OutputId, StageId};
use sluicebox_core::key;
use sluicebox_core::numbering::Numbering;
use sluicebox_core::pipeline::{Output as OutputOf, Pipeline, Sink};
use sluicebox_core::recovery::{Fence, Standing};
use sluicebox_core::segment::Plan;

use crate::connectors::places;
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
    /// How far outputs had come when the number of partitions changed.
    pub fences: Vec<Fence>,
}

/// Dead letters of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters {
    pub ring: Arc<Output>,
    /// In a pipeline with a log: so many of its partitions belong to one partition of the pipeline,
    /// one for each number a stage may have. So more partitions can come behind. Else 1.
    pub stages: u16,
}

impl DeadLetters {
    /// Where in it the dead letters of a partition of the segment with this root are.
    pub(crate) fn at(&self, root: StageId, partition: u16) -> u16 {
        // Without a log there is one place for all stages.
        partition * self.stages + root.0 as u16 % self.stages
    }

    /// The root and the partition there whose dead letters are in a partition of it.
    pub(crate) fn place(&self, at: u16) -> (StageId, u16) {
        (StageId(u32::from(at % self.stages)), at / self.stages)
    }
}

/// Fewest stages that places are kept for, so that a new stage moves none as a rule.
const STAGES_MIN: u16 = 16;

/// Stages that places are kept for.
fn stages_of(numbering: &Numbering) -> u16 {
    let stages = numbering.highest[0].map_or(0, |highest| highest + 1);
    u16::try_from(stages.next_power_of_two()).unwrap_or(u16::MAX).max(STAGES_MIN)
}

/// Checks that all dead letters of a version can be read together, by 16 bits of partition.
///
/// # Errors
/// [`Error::Conflict`]: it has had too many stages for its partitions.
pub(super) fn check_size(pipeline: &Pipeline, numbering: &Numbering) -> Result<(), Error> {
    let partitions = usize::from(pipeline.partitions.unwrap_or(1));
    let all = usize::from(stages_of(numbering)) * partitions;
    if all <= usize::from(u16::MAX) {
        return Ok(());
    }
    let why = format!(
        "its stages, those it had before included, have {all} partitions in all, at most {} are \
         possible; apply fewer partitions",
        u16::MAX
    );
    Err(Error::Conflict { what: "pipeline", name: pipeline.name.clone(), why })
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
        let ring = |output: &OutputOf| {
            let ring = self.kept(output).unwrap_or_else(|| self.output(output, pipeline));
            let sinks = || pipeline.sinks.iter().filter(|sink| sink.from == output.name);
            ring.hold_only(|name| sinks().any(|sink| sink.name == name));
            for sink in sinks() {
                self.hold(&ring, output, sink);
            }
            ring
        };
        pipeline.outputs.iter().map(ring).collect()
    }

    /// A sink holds what it has not handed on. One that has no place yet begins with the oldest.
    fn hold(&self, ring: &Output, output: &OutputOf, sink: &Sink) {
        let number = self.durable.and_then(|(_, numbers)| numbers.output(&output.name));
        ring.hold(&sink.name, |partition, oldest, before| {
            let known = self.durable.zip(number).and_then(|((durable, _), number)| {
                durable.place(&places::of_sink(&sink.name, number, partition))
            });
            // It may be further than it has noted down.
            known.max(before.filter(|at| *at >= oldest)).unwrap_or(oldest)
        });
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

    fn output(&self, output: &OutputOf, pipeline: &Pipeline) -> Arc<Output> {
        let retain = self.retain(output);
        let Some((durable, numbering)) = self.durable else {
            return Arc::new(Output::new(self.partitions, retain, self.node.next_incarnation()));
        };
        let id = numbering.output(&output.name).expect("the numbers are of this pipeline");
        let ever = self.partitions.max(self.standing.partitions_of(id));
        let ring = Output::new(ever, retain, incarnation(durable, u64::from(id.0)));
        ring.resize(retain, self.partitions);
        for sink in pipeline.sinks.iter().filter(|sink| sink.from == output.name) {
            // Before it is filled, so that nothing of what they need is dropped.
            self.hold(&ring, output, sink);
        }
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

    /// The ring of the dead letters. In a pipeline with a log each stage has partitions of it for
    /// ever, as any may be the root of a segment that numbers its own: so those of a segment that
    /// is cut differently in this version can still be read.
    pub(super) fn dead_letters(&self, pipeline: &Pipeline, plan: &Plan) -> DeadLetters {
        let retain = self.node.config().limits.dead_letter_bytes;
        let old = self.old.map(Running::dead_letters);
        let Some((durable, numbering)) = self.durable else {
            let new = || Output::new(self.partitions, retain, self.node.next_incarnation());
            let ring = old.map_or_else(|| Arc::new(new()), |old| old.ring.clone());
            ring.resize(retain, self.partitions);
            return DeadLetters { ring, stages: 1 };
        };
        let stages = stages_of(numbering);
        let found = self.tails.dead_letters.keys().map(|(_, partition)| partition + 1).max();
        let ever = self.partitions.max(found.unwrap_or(0));
        let ever = ever.max(old.map_or(0, |old| old.ring.partitions() / old.stages));
        // Those there are fit (`check_size`); of many there were once the last may not.
        let ever = ever.min(u16::MAX / stages);
        let all = stages * ever;
        let incarnation = incarnation(durable, key::hash(&stages.to_le_bytes()));
        let ring = match old {
            Some(old) if old.stages == stages => old.ring.clone(),
            // There are more stages now, and each place means another.
            Some(old) => Arc::new(old.ring.arranged(incarnation, all, |at| {
                let (partition, stage) = (at / stages, at % stages);
                (stage < old.stages).then(|| partition * old.stages + stage)
            })),
            None => Arc::new(Output::new(all, retain, incarnation)),
        };
        ring.grow(all);
        let dead_letters = DeadLetters { ring: ring.clone(), stages };
        let tails = self.tails.dead_letters.iter();
        for ((root, partition), tail) in tails.filter(|((_, partition), _)| *partition < ever) {
            let next = self.standing.dead_letters(*root, *partition);
            fill(&ring, dead_letters.at(*root, *partition), Some(tail), next);
        }
        let mut others: BTreeSet<u16> = (0..all).filter(|at| ring.holds(*at)).collect();
        for segment in &plan.segments {
            let root = numbering.stage(&pipeline.stages[segment.root].name);
            let root = root.expect("the numbers are of this pipeline");
            for partition in 0..ever {
                let at = dead_letters.at(root, partition);
                ring.resume(at, self.standing.dead_letters(root, partition));
                others.remove(&at);
            }
        }
        ring.share_among(plan.segments.len() * usize::from(self.partitions) + others.len());
        dead_letters
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_a_place_in_each_partition_and_stays_there_when_more_come() {
        let ring = Arc::new(Output::new(1, 0, 1));
        let dead_letters = DeadLetters { ring: ring.clone(), stages: 16 };
        let mut places = BTreeSet::new();
        for partition in 0..u16::MAX / 16 {
            for root in 0..16 {
                let at = dead_letters.at(StageId(root), partition);
                assert_eq!(dead_letters.place(at), (StageId(root), partition));
                assert!(places.insert(at));
            }
        }
        let without_log = DeadLetters { ring, stages: 1 };
        assert_eq!(without_log.place(without_log.at(StageId(7), 3)), (StageId(0), 3));
    }
}
