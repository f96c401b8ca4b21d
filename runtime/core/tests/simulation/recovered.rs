//! What recovery finds in a log: the fold, and beside it what the fold hands out.

use std::collections::BTreeMap;

use sluicebox_core::bill::{Books, Used, Whose};
use sluicebox_core::codec::{CommitHead, DeadRun, IngestRecord, OutputRun};
use sluicebox_core::dedup::{Dedup, DedupLimits};
use sluicebox_core::ids::{OutputId, PipelineId, StageId};
use sluicebox_core::key::{group_of, partition_of};
use sluicebox_core::recovery::{Fold, Sink};
use sluicebox_core::state::Change;

use crate::log::Entry;

/// The state of one partition of a segment: by stage, key and slot.
pub(crate) type State = BTreeMap<(StageId, Vec<u8>, Vec<u8>), Vec<u8>>;

/// Who came with which ids, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Came {
    producer: Option<(String, u64)>,
    ids: Vec<u128>,
    position: u64,
    time: u64,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) state: BTreeMap<(StageId, u16), State>,
    /// Next offsets of outputs, to see that they have no gaps.
    pub(crate) offsets: BTreeMap<(OutputId, u16), u64>,
    pub(crate) dead: BTreeMap<(StageId, u16), u64>,
    came: Vec<Came>,
    pub(crate) books: Books,
}

impl Found {
    pub(crate) fn dedup(&self, seed: u64) -> Dedup {
        let mut dedup = Dedup::new(seed, DedupLimits::DEFAULT);
        for came in &self.came {
            if let Some((id, sequence)) = &came.producer {
                dedup.note_request(id, *sequence, came.position, came.time);
            }
            for id in &came.ids {
                dedup.note_event(*id, came.position, came.time);
            }
        }
        dedup
    }
}

impl Sink for Found {
    fn used(&mut self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        self.books.used(whose, when, used);
    }

    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        let state = self.state.entry((commit.stage, commit.partition)).or_default();
        note(state, stage, &change);
    }

    fn output(&mut self, commit: &CommitHead, run: &OutputRun, _: u64) {
        let next = self.offsets.entry((run.output, commit.partition)).or_default();
        assert_eq!(run.first, *next, "offsets have no gaps");
        *next += u64::from(run.frame.events);
    }

    fn dead_letters(&mut self, commit: &CommitHead, run: &DeadRun, _: u64) {
        let next = self.dead.entry((commit.stage, commit.partition)).or_default();
        assert_eq!(run.first, *next, "offsets have no gaps");
        *next += u64::from(run.frame.events);
    }

    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64) {
        let producer = ingest.producer.map(|producer| (producer.id.to_owned(), producer.sequence));
        self.came.push(Came { producer, ids: ingest.ids.clone(), position, time: ingest.time });
    }

    fn repartitioned(&mut self, _: PipelineId, partitions: u16) {
        for ((root, _), state) in std::mem::take(&mut self.state) {
            for (slot, value) in state {
                let partition = partition_of(group_of(&slot.1), partitions);
                self.state.entry((root, partition)).or_default().insert(slot, value);
            }
        }
    }

    fn discarded(&mut self, _: PipelineId, _: StageId) {
        unreachable!("no stage goes");
    }

    fn deleted(&mut self, _: PipelineId) {
        unreachable!("no pipeline goes");
    }
}

/// Applies a change to a state.
pub(crate) fn note(state: &mut State, stage: StageId, change: &Change<'_>) {
    let slot = (stage, change.key.to_vec(), change.slot.to_vec());
    match change.value {
        Some(value) => drop(state.insert(slot, value.to_vec())),
        None => drop(state.remove(&slot)),
    }
}

/// A checkpoint: the fold in bytes, what was handed out, and how many records it covers.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    kept: Vec<u8>,
    found: Found,
    pub(crate) entries: usize,
}

impl Checkpoint {
    pub(crate) fn none() -> Self {
        Self { kept: Fold::new().keep(), found: Found::default(), entries: 0 }
    }

    /// Goes on from the checkpoint with the records behind it.
    pub(crate) fn fold(&self, entries: &[Entry]) -> (Fold, Found) {
        let mut fold = Fold::from_kept(&self.kept).expect("it was kept");
        let mut found = self.found.clone();
        for entry in &entries[self.entries..] {
            let taken = fold.apply(entry.position, &entry.record(), &mut found);
            taken.unwrap_or_else(|stopped| panic!("{stopped}"));
        }
        (fold, found)
    }

    /// A checkpoint of these records.
    pub(crate) fn of(&self, entries: &[Entry]) -> Self {
        let (fold, found) = self.fold(entries);
        Self { kept: fold.keep(), found, entries: entries.len() }
    }
}
