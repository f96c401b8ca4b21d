//! How much of outputs and dead letters is kept, and what everything but state takes on disk.
//!
//! Keeps true: what is counted here is what the store holds when the checkpoint stands for which it
//! was settled. State is counted where it lies (`checkpoint/weigh.rs`); here is noted which stages
//! have other state than before.

use std::collections::{BTreeMap, BTreeSet};

use sluicebox_core::ids::{Name, OutputId, PipelineId, StageId};
use sluicebox_core::pipeline::{self, Facts};
use sluicebox_core::recovery::{Fold, Folded};

use super::{Collected, Known, Outputs, Wanted, Way};
use crate::checkpoint::entries;
use crate::connectors::places;
use crate::manifest_text::{self, Format};

/// Bytes a partition may keep of each output, and of dead letters.
pub(super) struct Retained {
    outputs: BTreeMap<OutputId, usize>,
    dead_letters: usize,
    stages: BTreeSet<StageId>,
    /// Those that hand on an output.
    sinks: BTreeMap<OutputId, Vec<String>>,
}

impl Retained {
    /// That of each pipeline.
    pub(super) fn of_all(fold: &Fold, most: Outputs) -> BTreeMap<PipelineId, Self> {
        fold.pipelines().map(|(id, folded)| (id, Self::of(folded, most))).collect()
    }

    fn of(folded: &Folded, most: Outputs) -> Self {
        let partitions = usize::from(folded.partitions()).max(1);
        let value = manifest_text::parse(folded.manifest(), Format::Json).ok();
        let pipeline = value.and_then(|value| pipeline::build(&value, &Facts::default()).ok());
        let retain = |name: &Name| {
            let mut outputs = pipeline.as_ref()?.outputs.iter();
            let output = outputs.find(|output| output.name == name.as_str())?;
            usize::try_from(output.retain_bytes).ok()
        };
        let outputs = folded.names().outputs.iter().map(|(id, name)| {
            let bytes = retain(name).unwrap_or(usize::MAX);
            (*id, bytes.min(most.output_bytes_max) / partitions)
        });
        let sinks_of = |name: &Name| {
            let sinks = pipeline.as_ref().map_or(&[][..], |pipeline| &pipeline.sinks);
            let own = sinks.iter().filter(|sink| sink.from == name.as_str());
            own.map(|sink| sink.name.clone()).collect::<Vec<String>>()
        };
        let names = folded.names().outputs.iter();
        let sinks = names.map(|(id, name)| (*id, sinks_of(name))).collect();
        let stages = folded.names().stages.iter().map(|(id, _)| *id).collect();
        let dead_letters = most.dead_letter_bytes / partitions;
        Self { outputs: outputs.collect(), dead_letters, stages, sinks }
    }

    /// True of what left by an output, or was given up on by a stage, that is gone: its number does
    /// not come again, so that nobody can read it.
    pub(super) fn is_gone(&self, way: Way) -> bool {
        match way {
            Way::Output(output) => !self.outputs.contains_key(&output),
            Way::DeadLetters(root) => !self.stages.contains(&root),
        }
    }

    /// The sinks of an output.
    fn sinks(&self, way: Way) -> &[String] {
        match way {
            Way::Output(output) => self.sinks.get(&output).map_or(&[], Vec::as_slice),
            Way::DeadLetters(_) => &[],
        }
    }

    /// The first event of a partition of an output that some sink has not handed on; none without
    /// sinks. One that has no place yet has handed on nothing.
    pub(super) fn held_from(
        &self,
        mut known: Option<&mut Known>,
        (way, partition): (Way, u16),
    ) -> Option<u64> {
        let Way::Output(output) = way else { return None };
        let place = |sink: &String| {
            let place = places::of_sink(sink, output, partition);
            let known = known.as_deref_mut().and_then(|known| known.dedup.last_of(&place, 0));
            known.map_or(0, |known| known.sequence)
        };
        self.sinks(way).iter().map(place).min()
    }

    pub(super) fn bytes(&self, way: Way) -> usize {
        match way {
            _ if self.is_gone(way) => 0,
            Way::Output(output) => self.outputs.get(&output).copied().unwrap_or(0),
            Way::DeadLetters(_) => self.dead_letters,
        }
    }
}

impl Collected {
    /// Bytes kept of each pipeline, but for its state, as of the last time it was settled.
    pub(crate) fn kept(&self) -> &BTreeMap<PipelineId, u64> {
        &self.kept
    }

    /// Counts that before anything was settled.
    pub(crate) fn look_at_kept(&mut self, fold: &Fold) {
        self.count_kept(fold, &Retained::of_all(fold, self.outputs));
    }

    /// Stages whose state has changed since this was last asked.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<(PipelineId, StageId)> {
        self.changed_last = None;
        std::mem::take(&mut self.changed)
    }

    pub(super) fn note_changed(&mut self, place: (PipelineId, StageId)) {
        // A commit has many changes of one stage.
        if self.changed_last != Some(place) {
            self.changed_last = Some(place);
            self.changed.insert(place);
        }
    }

    /// Runs that wait for their reader.
    pub(super) fn settle_waiting(&mut self, fold: &Fold, wanted: &mut Wanted) {
        let mut now = BTreeSet::new();
        for (id, folded) in fold.pipelines() {
            let of = self.of(id);
            for (to, waiting) in folded.waiting() {
                let offset = waiting.position + waiting.range.start as u64;
                let key = of.waiting(to, offset);
                if !self.waiting.contains(&key) {
                    let place = wanted.entry(waiting.position).or_default();
                    place.push((waiting.range.clone(), key.clone()));
                }
                now.insert(key);
            }
        }
        for gone in self.waiting.difference(&now) {
            self.dirty.delete(gone);
        }
        self.waiting = now;
    }

    pub(super) fn count_kept(&mut self, fold: &Fold, retained: &BTreeMap<PipelineId, Retained>) {
        let waiting = |folded: &Folded| folded.waiting().map(|(_, run)| run.range.len()).sum();
        let mut kept: BTreeMap<PipelineId, usize> =
            fold.pipelines().map(|(id, folded)| (id, waiting(folded))).collect();
        for ((pipeline, way, _), frames) in &self.left {
            let (Some(kept), Some(retained)) = (kept.get_mut(pipeline), retained.get(pipeline))
            else {
                continue;
            };
            // What is more goes when it is settled; the newest frame stays whatever its size.
            let newest = frames.back().filter(|_| !retained.is_gone(*way));
            let mut most = retained.bytes(*way).max(newest.map_or(0, |left| left.bytes));
            if !retained.sinks(*way).is_empty() {
                // What was not handed on stays beyond that.
                most = usize::MAX;
            }
            *kept += frames.iter().map(|left| left.bytes).sum::<usize>().min(most);
        }
        for (pipeline, known) in &self.known {
            if let Some(kept) = kept.get_mut(pipeline) {
                *kept += known.dedup.events().len() * entries::KNOWN_BYTES;
                *kept += known.dedup.producers().count() * entries::PRODUCER_BYTES;
            }
        }
        self.kept = kept.into_iter().map(|(id, bytes)| (id, bytes as u64)).collect();
    }
}
