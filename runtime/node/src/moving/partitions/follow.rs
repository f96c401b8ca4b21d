//! What partitions change while their state is copied to another node: found in the log, as it
//! grows.
//!
//! ```text
//!          checkpoint            pages are read
//! log  ──────────┬───────────────────────────────────┬─────────► LEAVE
//!                └── changes ──► ── changes ──► ── changes ──► with JOIN
//! ```
//!
//! - It begins where a checkpoint stands. What the store has from then on, at whatever moment it is
//!   read, and then what is found here, is the state of the partitions: values are absolute, and
//!   the last of each slot counts.
//! - It reads what is on disk, by itself: neither workers nor checkpoints do anything for it. The
//!   log is not recycled before it has been read here.
//! - It knows where the pipeline stands as well, by the same code as recovery.
//!
//! When it is read, and what is done with what was found, is the business of `leave`.

use std::ops::ControlFlow;
use std::sync::Arc;

use sluicebox_core::codec::{self, CommitHead, DeadRun, IngestRecord, OutputRun, RecordWriter};
use sluicebox_core::ids::{PipelineId, StageId};
use sluicebox_core::recovery::{Fold, Sink};
use sluicebox_core::state::Change;
use sluicebox_store::dirty::Dirty;
use sluicebox_store::log::{Log, Position};
use sluicebox_store::store::keys::Id;

use crate::backing::{Backing, Reading};
use crate::checkpoint::{Of, key_of_fold};
use crate::error::Error;

/// How often a checkpoint is looked for, as another may take its place at any moment.
const TRIES: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct Follower {
    log: Arc<dyn Log>,
    id: PipelineId,
    fold: Fold,
    found: Found,
    read_to: Position,
    reading: Reading,
}

/// What was found and not taken yet.
#[derive(Debug)]
struct Found {
    of: Of,
    /// In order.
    partitions: Vec<u16>,
    changes: Dirty,
    key: Vec<u8>,
}

impl Follower {
    /// Of partitions of a pipeline, from the last checkpoint on. `seed` is secret. Blocks.
    ///
    /// # Errors
    /// The store fails; the pipeline is not there.
    pub(super) fn begin(
        (log, backing): (Arc<dyn Log>, &Backing),
        (id, of, partitions): (PipelineId, Of, Vec<u16>),
        seed: u64,
    ) -> Result<Self, Error> {
        let reading = backing.read_log();
        let (fold, read_to) = fold_of(backing)?;
        reading.is_at(read_to);
        let fold = fold.only(id);
        if fold.pipeline(id).is_none() {
            return Err(Error::Internal("a checkpoint without the pipeline".to_owned()));
        }
        let found = Found { of, partitions, changes: Dirty::new(seed), key: Vec::new() };
        Ok(Self { log, id, fold, found, read_to, reading })
    }

    /// Reads on, to the end of what is on disk now. Blocks.
    ///
    /// # Errors
    /// The log cannot be read, or does not follow: it is to be dropped then.
    pub(super) fn read_on(&mut self) -> Result<(), Error> {
        let Self { log, id, fold, found, read_to, .. } = self;
        let (end, mut wrong) = (log.synced(), None);
        log.read(*read_to, &mut |record| {
            if record.position >= end {
                return ControlFlow::Break(());
            }
            let of = codec::pipeline_of(record.kind, record.body);
            // A version has none that can be told so, and there is no other while they move.
            if of != Some(*id) {
                return ControlFlow::Continue(());
            }
            let taken = codec::decode(record.kind, record.body).map_err(|why| why.to_string());
            let taken = taken.and_then(|decoded| {
                let folded = fold.apply(record.position.0, &decoded, found);
                folded.map_err(|stopped| stopped.to_string())
            });
            match taken {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    wrong = Some(why);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(wrong) = wrong {
            return Err(Error::Internal(format!("a pipeline that moves: {wrong}")));
        }
        *read_to = end.max(*read_to);
        self.reading.is_at(self.read_to);
        Ok(())
    }

    /// Bytes of what was found and not taken.
    pub(super) fn bytes(&self) -> usize {
        self.found.changes.payload_bytes()
    }

    /// Takes what was found, in bytes for another node, in pages of about so many.
    ///
    /// # Errors
    /// None that is not our bug.
    pub(super) fn take(&mut self, page_bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
        let frozen = self.found.changes.freeze();
        let (mut pages, mut writer) = (Vec::new(), RecordWriter::new());
        let mut changes = frozen.iter().flat_map(|changes| changes.each()).peekable();
        while changes.peek().is_some() {
            let (mut bytes, mut state) = (0, writer.changed());
            while bytes < page_bytes
                && let Some((key, value)) = changes.next()
            {
                let Some(Id::State { place, key: name, slot }) = Id::decode(key) else {
                    return Err(Error::Internal("a change that is none of state".to_owned()));
                };
                bytes += key.len() + value.map_or(0, <[u8]>::len);
                state.change(StageId(place.stage), &Change { key: &name, slot, value });
            }
            state.end();
            pages.push(writer.to_bytes().into());
        }
        self.found.changes.release();
        Ok(pages)
    }

    /// Where the pipeline stands, as another node is told it.
    pub(super) fn kept(&self) -> Option<Vec<u8>> {
        self.fold.keep_part(self.id)
    }
}

/// The fold of the last checkpoint, and where in the log that is.
fn fold_of(backing: &Backing) -> Result<(Fold, Position), Error> {
    for _ in 0..TRIES {
        let horizon = backing.horizon();
        if let Some(kept) = backing.store().get(&key_of_fold(horizon.0))? {
            let fold = Fold::from_kept(&kept);
            let fold = fold.map_err(|error| Error::Internal(format!("a checkpoint: {error}")))?;
            return Ok((fold, horizon));
        }
    }
    Err(Error::Internal("a checkpoint without its fold".to_owned()))
}

impl Sink for Found {
    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        if self.partitions.binary_search(&commit.partition).is_err() {
            return;
        }
        self.key.clear();
        self.of.slot(stage, change.key, change.slot, &mut self.key);
        match change.value {
            Some(value) => self.changes.put(&self.key, value),
            None => self.changes.delete(&self.key),
        }
    }

    fn output(&mut self, _: &CommitHead, _: &OutputRun, _: u64) {}

    fn dead_letters(&mut self, _: &CommitHead, _: &DeadRun, _: u64) {}

    fn ingested(&mut self, _: &IngestRecord<'_>, _: u64) {}

    fn discarded(&mut self, _: PipelineId, _: StageId) {}

    fn deleted(&mut self, _: PipelineId) {}
}

#[cfg(test)]
mod tests {
    use sluicebox_core::codec::{ApplyRecord, Batch, Changed, NameTable, Sent, Usage};
    use sluicebox_core::ids::{Name, Part};
    use sluicebox_core::key;
    use sluicebox_store::log::{Class, MemoryLog};
    use sluicebox_store::store::{Change as Put, MemoryStore, Store};

    use super::*;

    const STAGE: StageId = StageId(1);
    const PARTITIONS: u16 = 4;
    const OWN: u16 = 2;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    /// A log with two pipelines, a store with a checkpoint of it, and how many commits there were.
    struct Bed {
        log: Arc<MemoryLog>,
        backing: Backing,
        numbers: [u64; PARTITIONS as usize],
    }

    impl Bed {
        fn new() -> Self {
            let log = Arc::new(MemoryLog::default());
            let mut fold = Fold::new();
            for number in [1, 2] {
                let names = NameTable { stages: vec![(STAGE, name("s"))], ..NameTable::default() };
                let mut writer = RecordWriter::new();
                writer.apply(&ApplyRecord {
                    tenant: name("t"),
                    name: name(&format!("p{number}")),
                    pipeline: PipelineId(number),
                    version: 1,
                    partitions: PARTITIONS,
                    manifest: b"{}",
                    names,
                    discarded: Vec::new(),
                });
                let at = log.append(Class::Commit, writer.kind(), &writer.parts()).expect("room");
                let body = writer.to_bytes();
                let record = codec::decode(writer.kind(), &body).expect("a record");
                let nothing = &mut sluicebox_core::recovery::Nothing;
                fold.apply(at.0, &record, nothing).expect("it follows");
            }
            let (store, end) = (MemoryStore::new(), log.synced());
            let (key, kept) = (key_of_fold(end.0), fold.keep());
            let mut checkpoint = store.begin(end.0).expect("begins");
            checkpoint.write(&[Put { key: &key, value: Some(&kept) }]).expect("is written");
            checkpoint.commit(&[]).expect("stands");
            let backing = Backing::new(Arc::new(store), u64::MAX);
            Self { log, backing, numbers: [0; PARTITIONS as usize] }
        }

        /// A partition commits changes.
        fn commit(&mut self, partition: u16, changes: &[(StageId, Change<'_>)]) {
            let number = &mut self.numbers[usize::from(partition)];
            *number += 1;
            let head = CommitHead {
                pipeline: PipelineId(1),
                version: 1,
                stage: STAGE,
                partition,
                number: *number,
                time: 1,
            };
            let mut writer = RecordWriter::new();
            let mut state = writer.commit(&head, &Batch::default());
            changes.iter().for_each(|(stage, change)| state.change(*stage, change));
            let sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
            state.finish(&sent, &Usage::default());
            self.log.append(Class::Commit, writer.kind(), &writer.parts()).expect("room");
        }

        fn begin(&self, number: u64) -> Result<Follower, Error> {
            let id = PipelineId(number);
            let of = (id, Of::new(&name("t"), id), vec![OWN]);
            Follower::begin((self.log.clone(), &self.backing), of, 7)
        }
    }

    /// Keys of a partition.
    fn keys_of(partition: u16) -> impl Iterator<Item = Vec<u8>> {
        let keys = (0_u32..).map(|n| n.to_le_bytes().to_vec());
        keys.filter(move |name| key::partition_of(key::group_of(name), PARTITIONS) == partition)
    }

    fn put<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> (StageId, Change<'a>) {
        (STAGE, Change { key: name, slot: b"s", value })
    }

    #[test]
    fn what_partitions_changed_behind_the_checkpoint_is_found_once_and_as_it_is_last() {
        let mut bed = Bed::new();
        let mut follower = bed.begin(1).expect("there is a checkpoint");
        let keys: Vec<Vec<u8>> = keys_of(OWN).take(5).collect();
        let other = keys_of(0).next().expect("there are many");
        for value in [b"1", b"2"] {
            let changes: Vec<_> = keys.iter().map(|name| put(name, Some(value))).collect();
            bed.commit(OWN, &changes);
            bed.commit(0, &[put(&other, Some(value))]);
        }
        let timer = Change { key: &keys[0], slot: b"t", value: Some(b"3") };
        bed.commit(OWN, &[put(&keys[4], None), (STAGE.part(Part::Timers), timer)]);
        assert_eq!(follower.bytes(), 0, "nothing was read");
        follower.read_on().expect("it follows");
        assert!(follower.bytes() > 0);
        let pages = follower.take(1).expect("state");
        let changed: Vec<_> = pages.iter().map(|page| Changed::read(page).expect("it")).collect();
        let mut found: Vec<_> = changed.iter().flat_map(Changed::iter).collect();
        assert_eq!(found.len(), pages.len(), "pages of one change each");
        found.sort_by_key(|(stage, change)| (*stage, change.key.to_vec()));
        let mut expected: Vec<_> = keys.iter().map(|name| put(name, Some(b"2"))).collect();
        expected[4] = put(&keys[4], None);
        expected.push((STAGE.part(Part::Timers), timer));
        expected.sort_by_key(|(stage, change)| (*stage, change.key.to_vec()));
        assert_eq!(found, expected);
        // What was taken is not given again, and what comes is.
        assert_eq!((follower.bytes(), follower.take(1).expect("state").len()), (0, 0));
        bed.commit(OWN, &[put(&keys[1], Some(b"4"))]);
        follower.read_on().expect("it follows");
        let page = follower.take(1 << 20).expect("state");
        let last = Changed::read(&page[0]).expect("a page").iter().collect::<Vec<_>>();
        assert_eq!(last, [put(&keys[1], Some(b"4"))]);
    }

    #[test]
    fn it_knows_where_the_pipeline_stands() {
        let mut bed = Bed::new();
        let mut follower = bed.begin(1).expect("there is a checkpoint");
        (0..3).for_each(|_| bed.commit(OWN, &[]));
        follower.read_on().expect("it follows");
        let fold = Fold::from_kept(&follower.kept().expect("it is there")).expect("a fold");
        assert_eq!(fold.pipelines().map(|(id, _)| id).collect::<Vec<_>>(), [PipelineId(1)]);
        bed.numbers[usize::from(OWN)] += 1;
        bed.commit(OWN, &[]);
        let error = follower.read_on().expect_err("a commit is missing").to_string();
        assert!(error.contains("a pipeline that moves"), "{error}");
        let error = bed.begin(3).expect_err("there is none").to_string();
        assert!(error.contains("without the pipeline"), "{error}");
    }

    #[test]
    fn the_log_is_kept_until_it_was_read() {
        let mut bed = Bed::new();
        let (begin, mut follower) = (bed.log.synced(), bed.begin(1).expect("a checkpoint"));
        bed.commit(OWN, &[]);
        let end = bed.log.synced();
        assert_eq!(bed.backing.recyclable(end), begin);
        follower.read_on().expect("it follows");
        assert_eq!(bed.backing.recyclable(end), end);
        bed.commit(OWN, &[]);
        assert_eq!(bed.backing.recyclable(bed.log.synced()), end);
        drop(follower);
        assert_eq!(bed.backing.recyclable(bed.log.synced()), bed.log.synced());
    }
}
