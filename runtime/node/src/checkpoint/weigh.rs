//! Counts what the state of each stage takes in the store: bytes of keys and values.
//!
//! - Only stages whose state has changed are counted again, by going through it. Each takes its
//!   turn, and of all together no more is gone through behind a checkpoint than it has written, or
//!   a fixed amount: so counting costs no more than writing.
//! - A stage that is small is counted whole each time. A large one is gone through in several
//!   turns, in the order of its key groups; of the groups that are not reached yet as much is taken
//!   to be there as the last time. So its figure follows what is written, and misses nothing.
//! - What large stages came to is kept with the checkpoint, and holds at a start until they are
//!   counted again.
//!
//! ```text
//! metadata `weights`: format u8 = 1 │ for each: pipeline u64, stage u32, bytes u64 (little-endian)
//! ```
//!
//! Bytes on disk are not the same: values are packed there, and what was replaced goes only when
//! the store merges. Whoever has a quota can know what is counted here from what he sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sluicebox_core::ids::{Part, PipelineId, StageId};
use sluicebox_core::limits::KEY_GROUPS;
use sluicebox_core::recovery::Fold;
use sluicebox_store::store::keys::{self, Id};
use sluicebox_store::store::{METADATA_BYTES_MAX, PageLimit, Store};

use super::entries::Of;
use super::rests::Rests;
use crate::error::Error;

/// What a stage is counted of in one turn.
const TURN: PageLimit = PageLimit { entries: 4096, bytes: 4 * 1024 * 1024 };
/// What a turn counts for, however little it finds.
const TURN_ENTRIES_MIN: usize = 16;
/// What is gone through at a time, if the checkpoint wrote less.
const ONCE: PageLimit = PageLimit { entries: 100_000, bytes: 64 * 1024 * 1024 };

/// Name of the figures in the metadata of a checkpoint, and their format.
pub(super) const METADATA: &str = "weights";
const FORMAT: u8 = 1;
const ROW_BYTES: usize = 8 + 4 + 8;
/// Half of what all metadata may take.
const ROWS_MAX: usize = METADATA_BYTES_MAX / 2 / ROW_BYTES;

type Place = (PipelineId, StageId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Weights {
    stages: BTreeMap<Place, Weight>,
    /// Stages to be gone through, each once.
    due: VecDeque<Place>,
}

/// What is known of a stage.
#[derive(Debug, Default)]
struct Weight {
    /// What it came to when it was gone through to the end.
    whole: u64,
    /// True if that took more than one turn.
    is_large: bool,
    /// Where to go on, and what was counted before.
    under_way: Option<(Bytes, u64)>,
    is_due: bool,
    /// It has changed since it was begun.
    has_changed: bool,
}

impl Weight {
    fn bytes(&self) -> u64 {
        let Some((from, counted)) = &self.under_way else { return self.whole };
        // As Id::decode says it, a group is less than their number.
        let group = match Id::decode(from) {
            Some(Id::State { place, .. }) => u64::from(place.group),
            _ => 0,
        };
        let groups = u64::from(KEY_GROUPS);
        let rest = u128::from(self.whole) * u128::from(groups - group) / u128::from(groups);
        counted.saturating_add(rest as u64)
    }
}

impl Weights {
    /// What a start goes on from: the figures that were kept, and all stages to be counted. The
    /// figures may be those of before the last checkpoint, and of stages that are gone since.
    pub(super) fn new(kept: Option<&[u8]>, fold: &Fold) -> Self {
        let all = |(id, folded): (PipelineId, &sluicebox_core::recovery::Folded)| {
            let stages = folded.names().stages.clone();
            let parts = [Part::Own, Part::Parked, Part::Timers];
            stages.into_iter().flat_map(move |(stage, _)| parts.map(|part| (id, stage.part(part))))
        };
        let all: BTreeSet<Place> = fold.pipelines().flat_map(all).collect();
        let mut weights = Self::default();
        for (place, whole) in kept.into_iter().flat_map(rows).filter(|row| all.contains(&row.0)) {
            weights.stages.insert(place, Weight { whole, is_large: true, ..Weight::default() });
        }
        weights.note(all);
        weights
    }

    /// True if there is something to be gone through.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The state of these stages has changed.
    pub(super) fn note(&mut self, changed: BTreeSet<Place>) {
        for place in changed {
            let weight = self.stages.entry(place).or_default();
            weight.has_changed = true;
            if !std::mem::replace(&mut weight.is_due, true) {
                self.due.push_back(place);
            }
        }
    }

    /// Goes through the next of what is due: as much as was written, in entries and bytes.
    ///
    /// # Errors
    /// What the store answers. What was counted before stands, and the rest is still due.
    pub(super) fn go_on(
        &mut self,
        (store, fold): (&dyn Store, &Fold),
        written: PageLimit,
        rests: &mut Rests,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let tenants: BTreeMap<PipelineId, Of> =
            fold.pipelines().map(|(id, folded)| (id, Of::new(folded.tenant(), id))).collect();
        // What is gone takes nothing.
        self.stages.retain(|(pipeline, _), _| tenants.contains_key(pipeline));
        self.due.retain(|(pipeline, _)| tenants.contains_key(pipeline));
        let (mut entries, mut bytes) = (0, 0);
        while let Some(place) = self.due.front().copied() {
            let is_enough = entries >= written.entries.max(ONCE.entries)
                || bytes >= written.bytes.max(ONCE.bytes);
            if is_enough || stop.load(Ordering::Relaxed) {
                break;
            }
            let Some(of) = tenants.get(&place.0) else { break };
            let weight = self.stages.entry(place).or_default();
            let prefix = keys::state_of_stage(of.tenant, place.0.0, place.1.0);
            let (from, counted) = weight.under_way.clone().unwrap_or_default();
            if from.is_empty() {
                weight.has_changed = false;
            }
            let measured = store.measure(&prefix, &from, TURN)?;
            entries += measured.entries.max(TURN_ENTRIES_MIN);
            bytes += usize::try_from(measured.bytes).unwrap_or(usize::MAX);
            rests.after(usize::try_from(measured.bytes).unwrap_or(usize::MAX));
            let counted = counted + measured.bytes;
            self.due.pop_front();
            match measured.next {
                Some(next) => {
                    weight.is_large = true;
                    weight.under_way = Some((next, counted));
                    self.due.push_back(place);
                }
                None => {
                    weight.is_large = !from.is_empty();
                    weight.whole = counted;
                    weight.under_way = None;
                    weight.is_due = weight.has_changed;
                    self.due.extend(weight.has_changed.then_some(place));
                }
            }
        }
        self.stages.retain(|_, weight| weight.is_due || weight.whole > 0);
        Ok(())
    }

    /// What the state of each pipeline takes.
    pub(super) fn by_pipeline(&self) -> BTreeMap<PipelineId, u64> {
        let mut sums = BTreeMap::new();
        for ((pipeline, _), weight) in &self.stages {
            *sums.entry(*pipeline).or_default() += weight.bytes();
        }
        sums
    }

    /// The figures that are to be kept with a checkpoint.
    pub(super) fn keep(&self) -> Vec<u8> {
        let mut kept = vec![FORMAT];
        let large = self.stages.iter().filter(|(_, weight)| weight.is_large).take(ROWS_MAX);
        for ((pipeline, stage), weight) in large {
            kept.extend_from_slice(&pipeline.0.to_le_bytes());
            kept.extend_from_slice(&stage.0.to_le_bytes());
            kept.extend_from_slice(&weight.bytes().to_le_bytes());
        }
        kept
    }
}

/// Figures as `keep` wrote them; of another format none, so that all is counted anew.
fn rows(kept: &[u8]) -> impl Iterator<Item = (Place, u64)> + '_ {
    let rows = kept.strip_prefix(&[FORMAT]).unwrap_or_default();
    rows.as_chunks::<ROW_BYTES>().0.iter().map(|row| {
        let (pipeline, rest) = row.split_first_chunk().expect("a row has twenty bytes");
        let (stage, bytes) = rest.split_first_chunk().expect("of which twelve are left");
        let bytes = *bytes.first_chunk().expect("and then eight");
        let place =
            (PipelineId(u64::from_le_bytes(*pipeline)), StageId(u32::from_le_bytes(*stage)));
        (place, u64::from_le_bytes(bytes))
    })
}

#[cfg(test)]
mod tests;
