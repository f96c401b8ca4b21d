//! What comes from other nodes, and what goes there: it is in the store before the log speaks of
//! it, and in the log before it may go from the store.

use std::collections::BTreeSet;

use sluicebox_core::codec::Changed;
use sluicebox_core::ids::{Part, PipelineId};
use sluicebox_core::recovery::Folded;

use super::{Collected, Of};
use crate::moving::Groups;

impl Collected {
    /// Notes a pipeline that came from another node; all its state is to be counted.
    pub(in crate::checkpoint) fn note_opened(&mut self, pipeline: PipelineId, folded: &Folded) {
        self.tenants.insert(pipeline, Of::new(folded.tenant(), pipeline).tenant);
        let stages = folded.names().stages.iter().map(|(stage, _)| *stage);
        let all = stages
            .flat_map(|stage| [stage].into_iter().chain(Part::HELD.map(|part| stage.part(part))));
        self.changed.extend(all.map(|stage| (pipeline, stage)));
        // It may be looked at for the second time, after an error.
        self.left.retain(|(known, ..), _| *known != pipeline);
        self.known.remove(&pipeline);
        // It may have been here before, and gone: what it has now is not what was to go then.
        let of = self.of(pipeline);
        self.keep(|prefix| of.has(prefix));
    }

    /// Notes partitions that came from another node; all their state is to be counted.
    pub(in crate::checkpoint) fn note_joined(&mut self, groups: &Groups) {
        self.tenants.insert(groups.of.pipeline, groups.of.tenant);
        self.changed.extend(groups.stages().map(|stage| (groups.of.pipeline, stage)));
        let prefixes: BTreeSet<Vec<u8>> = groups.prefixes().chain(groups.names()).collect();
        // All of the pipeline may have been here before, and gone.
        self.keep(|prefix| prefixes.iter().any(|joined| joined.starts_with(prefix)));
        self.backing.note_joined(prefixes.into_iter());
    }

    /// Takes what partitions that came changed since their state was copied to the store. That is
    /// in their record and nowhere else, and so may be the names of their slots, though whoever
    /// runs them knows them by now.
    pub(in crate::checkpoint) fn note_brought(
        &mut self,
        pipeline: PipelineId,
        changed: &Changed<'_>,
    ) {
        let mut names = BTreeSet::new();
        for (stage, change) in changed.iter() {
            self.change((pipeline, stage), change);
            if stage.split().1 == Part::Own && change.value.is_some() {
                names.insert((stage, change.slot));
            }
        }
        let of = self.of(pipeline);
        for (stage, slot) in names {
            self.dirty.put(&of.slot_name(stage, Some(slot)), b"");
        }
    }

    /// Notes that state of partitions that left may go.
    pub(in crate::checkpoint) fn note_released(&mut self, groups: &Groups) {
        self.changed.extend(groups.stages().map(|stage| (groups.of.pipeline, stage)));
        self.discarded.extend(groups.prefixes());
    }

    /// What was to go stays after all.
    fn keep(&mut self, stays: impl Fn(&Vec<u8>) -> bool) {
        let going = self.discarded.iter().take(self.discarding);
        self.discarding = going.filter(|prefix| !stays(prefix)).count();
        self.discarded.retain(|prefix| !stays(prefix));
        self.discarded_before.retain(|prefix| !stays(prefix));
    }
}
