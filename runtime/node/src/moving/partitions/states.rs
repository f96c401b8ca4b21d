//! What partitions that came go on with: their state, as it was copied to the store, and over it
//! what they changed since, which is in their record alone until the next checkpoint.
//!
//! - State stays on disk, and is read when it is needed. What is held of stages is read whole, as
//!   it never leaves memory.
//! - So is a key that changed: what the record says of it lies over the store until a checkpoint
//!   has it (`backing`). However large keys are, none is read for it.

use std::collections::BTreeMap;

use sluicebox_core::codec::Changed;
use sluicebox_core::ids::{Name, Part, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::partition::name_of_part;
use sluicebox_core::state::{Change, KeyedState, StateLimits};
use sluicebox_store::dirty::{Ahead, Dirty};
use sluicebox_store::log::Position;
use sluicebox_store::store::keys::Id;
use sluicebox_store::store::{PageLimit, Store};

use super::groups::{Groups, Span};
use crate::backing::Backing;
use crate::error::Error;
use crate::mailbox;

/// Entries read at a time.
const PAGE: PageLimit = PageLimit { entries: 4096, bytes: 4 * 1024 * 1024 };

/// Enough to know whether there is any.
const ONE: PageLimit = PageLimit { entries: 1, bytes: 1 };

/// What is held of stages, by part of the stage and partition.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<(StageId, u16), KeyedState>);

impl States {
    /// That of partitions, of so many, in these groups, whose record is in the log before `end`,
    /// and none of their commits is. `seed` is secret. Blocks.
    ///
    /// # Errors
    /// The store fails.
    pub(super) fn of(
        backing: &Backing,
        (groups, count): (&Groups, u16),
        (changed, end): (&[u8], Position),
        seed: u64,
    ) -> Result<Self, Error> {
        let store = backing.store().as_ref();
        for prefix in groups.names() {
            each(store, &Span::all(prefix), |id, _| backing.note_name(id))?;
        }
        for (stage, prefix) in groups.own() {
            // A store may have state whose names were never written.
            let place = (groups.of.pipeline, stage);
            if !backing.has(place) && !store.scan(&prefix, &prefix, ONE)?.entries.is_empty() {
                backing.note_many(place);
            }
        }
        let mut states = Self::default();
        for span in groups.held_spans() {
            each(store, &span, |id, value| {
                if let Id::State { place, key, slot } = id {
                    let at = key::partition_of(place.group, count);
                    states.held((StageId(place.stage), at), seed).restore(key, slot, value);
                }
            })?;
        }
        let changed = Changed::read(changed);
        let changed = changed.map_err(|error| Error::Internal(error.to_string()))?;
        let mut own = Dirty::new(seed);
        for (stage, change) in changed.iter() {
            match stage.split().1 {
                Part::Own => lay(backing, groups, (stage, &change), &mut own),
                Part::Parked | Part::Timers | Part::Streams => {
                    let at = key::partition_of(key::group_of(change.key), count);
                    let state = states.held((stage, at), seed);
                    match change.value {
                        Some(value) => state.restore(change.key, change.slot, value),
                        None => state.forget(change.key, change.slot),
                    }
                }
            }
        }
        let own = own.freeze();
        own.into_iter().for_each(|changes| backing.put_ahead(end, Ahead::new(changes)));
        Ok(states)
    }

    /// What is held of a stage.
    fn held(&mut self, at: (StageId, u16), seed: u64) -> &mut KeyedState {
        self.0.entry(at).or_insert_with(|| KeyedState::new(seed, StateLimits::NONE))
    }

    /// What a partition of a segment with these stages goes on with.
    pub(super) fn take<'a>(
        &mut self,
        (names, stages): (&[(StageId, Name)], impl Iterator<Item = &'a str>),
        (backing, id, at): (&Backing, PipelineId, u16),
        seed: u64,
    ) -> mailbox::States {
        let mut states = Vec::new();
        for name in stages {
            let known = names.iter().find(|(_, known)| known.as_str() == name);
            let Some((stage, _)) = known else { continue };
            // One without any on disk begins with none.
            if backing.has((id, *stage)) {
                states.push((name.to_owned(), cold(seed)));
            }
            for part in Part::HELD {
                if let Some(state) = self.0.remove(&(stage.part(part), at)) {
                    states.push((name_of_part(name, part), state));
                }
            }
        }
        states
    }
}

/// State of which nothing is in memory.
fn cold(seed: u64) -> KeyedState {
    let mut state = KeyedState::new(seed, StateLimits::NONE);
    state.back(false);
    state
}

/// A change of a stage's own state, to lie over the store.
fn lay(
    backing: &Backing,
    groups: &Groups,
    (stage, change): (StageId, &Change<'_>),
    over: &mut Dirty,
) {
    let Change { key, slot, value } = change;
    let mut entry = Vec::new();
    groups.of.slot(stage, key, slot, &mut entry);
    match value {
        Some(value) => {
            // The name is written down by whoever makes checkpoints, with the change.
            let _known = backing.note((groups.of.pipeline, stage), slot);
            over.put(&entry, value);
        }
        None => over.delete(&entry),
    }
}

/// Everything in a span.
fn each(store: &dyn Store, span: &Span, mut take: impl FnMut(&Id<'_>, &[u8])) -> Result<(), Error> {
    let mut from = span.begin.clone();
    loop {
        let page = store.scan(&span.prefix, &from, PAGE)?;
        for (key, value) in &page.entries {
            if !span.has(key) {
                return Ok(());
            }
            if let Some(id) = Id::decode(key) {
                take(&id, value);
            }
        }
        match page.next {
            Some(next) => from = next.to_vec(),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluicebox_core::codec::RecordWriter;
    use sluicebox_store::store::{Change as Put, MemoryStore};

    use super::*;
    use crate::backing::StateOf;
    use crate::checkpoint::Of;

    const STAGE: StageId = StageId(1);
    const ID: PipelineId = PipelineId(3);
    /// Behind the record.
    const END: Position = Position(20);

    fn of() -> Of {
        Of::new(&Name::new("acme").expect("a name"), ID)
    }

    /// A slot of a key, and its value.
    type Slot<'a> = (StageId, &'a [u8], &'a [u8], &'a [u8]);
    /// The same as it changed.
    type Changes<'a> = (StageId, &'a [u8], &'a [u8], Option<&'a [u8]>);

    /// Over a store with these slots of keys, and their names.
    fn backing(slots: &[Slot<'_>]) -> Backing {
        let mut entries = Vec::new();
        for (stage, key, slot, value) in slots {
            let mut entry = Vec::new();
            of().slot(*stage, key, slot, &mut entry);
            entries.push((entry, value.to_vec()));
            if stage.split().1 == Part::Own {
                entries.push((of().slot_name(*stage, Some(slot)), Vec::new()));
            }
        }
        entries.sort();
        entries.dedup();
        let piece: Vec<_> =
            entries.iter().map(|(key, value)| Put { key, value: Some(value) }).collect();
        let store = MemoryStore::new();
        let mut checkpoint = store.begin(7).expect("begins");
        checkpoint.write(&piece).expect("is written");
        checkpoint.commit(&[]).expect("stands");
        Backing::new(Arc::new(store), u64::MAX)
    }

    /// What the one partition there is goes on with, by the name of the state.
    fn came(backing: &Backing, changes: &[Changes<'_>]) -> BTreeMap<String, KeyedState> {
        let mut writer = RecordWriter::new();
        let mut state = writer.changed();
        for (stage, key, slot, value) in changes {
            state.change(*stage, &Change { key, slot, value: *value });
        }
        state.end();
        let groups = Groups::new(of(), [STAGE].into_iter(), (&[0], 1));
        let changed = writer.to_bytes();
        let states = States::of(backing, (&groups, 1), (&changed, END), 7);
        let names = [(STAGE, Name::new("s").expect("a name"))];
        let mut states = states.expect("it is memory");
        states.take((&names, ["s"].into_iter()), (backing, ID, 0), 7).into_iter().collect()
    }

    /// The slots of a key, as they are read for a call.
    fn read(backing: &Backing, key: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (tenant, pipeline) = (of().tenant, ID);
        let of = StateOf { tenant, pipeline, stage: STAGE };
        let slots = backing.read(of, &[key.into()], usize::MAX).expect("it is memory").slots;
        slots.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn a_key_that_changed_is_read_as_it_changed_with_its_other_slots() {
        let backing = backing(&[
            (STAGE, b"k", b"a", b"1"),
            (STAGE, b"k", b"b", b"2"),
            (STAGE, b"gone", b"a", b"3"),
            (STAGE, b"other", b"a", b"4"),
        ]);
        let changes: [Changes<'_>; 4] = [
            (STAGE, b"gone", b"a", None),
            (STAGE, b"k", b"b", Some(b"new")),
            (STAGE, b"k", b"c", Some(b"more")),
            (STAGE, b"new", b"d", Some(b"all")),
        ];
        let mut states = came(&backing, &changes);
        let own = states.get_mut("s").expect("it has state");
        let lacks = [&b"k"[..], b"new", b"gone", b"other"].map(|name| own.lacks(name));
        assert_eq!(lacks, [true; 4], "none was read before it is asked for");
        let slot = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let k = [slot(b"a", b"1"), slot(b"b", b"new"), slot(b"c", b"more")];
        assert_eq!(read(&backing, b"k"), k);
        assert_eq!(read(&backing, b"new"), [slot(b"d", b"all")]);
        assert_eq!(read(&backing, b"gone"), []);
        assert_eq!(read(&backing, b"other"), [slot(b"a", b"4")]);
        // A checkpoint that does not reach their record does not have it.
        backing.reached(Position(END.0 - 1));
        assert_eq!(read(&backing, b"k"), k);
        backing.reached(END);
        assert_eq!(read(&backing, b"k").len(), 2, "what the store has");
    }

    #[test]
    fn what_is_held_of_a_stage_is_there_as_it_changed() {
        let timers = STAGE.part(Part::Timers);
        let backing = backing(&[(timers, b"k", b"a", b"1"), (timers, b"k", b"b", b"2")]);
        let states =
            came(&backing, &[(timers, b"k", b"a", None), (timers, b"l", b"c", Some(b"3"))]);
        let names: Vec<_> = states.keys().cloned().collect();
        assert_eq!(names, [name_of_part("s", Part::Timers)], "it has nothing else");
        let held = &states[&names[0]];
        assert_eq!(held.scan(b"k", b"").collect::<Vec<_>>(), [(&b"b"[..], &b"2"[..])]);
        assert_eq!(held.get(b"l", b"c"), Some(&b"3"[..]));
    }

    #[test]
    fn a_stage_that_has_state_only_since_begins_with_that() {
        let backing_of_none = backing(&[]);
        let states = came(&backing_of_none, &[(STAGE, b"k", b"a", Some(b"1"))]);
        assert!(!states["s"].is_whole());
        assert_eq!(read(&backing_of_none, b"k"), [(b"a".to_vec(), b"1".to_vec())]);
        assert!(came(&backing(&[]), &[]).is_empty());
    }

    #[test]
    fn what_is_held_elsewhere_is_not_taken() {
        let timers = STAGE.part(Part::Timers);
        let names: Vec<Vec<u8>> = (0..50_u32).map(|n| n.to_le_bytes().to_vec()).collect();
        let slots: Vec<Slot<'_>> =
            names.iter().map(|name| (timers, &name[..], &b"a"[..], &b"1"[..])).collect();
        let backing = backing(&slots);
        for partitions in [&[1_u16][..], &[0, 2], &[3]] {
            let groups = Groups::new(of(), [STAGE].into_iter(), (partitions, 4));
            let states = States::of(&backing, (&groups, 4), (&[], END), 7).expect("it is memory");
            let is_its =
                |name: &&Vec<u8>| partitions.contains(&key::partition_of(key::group_of(name), 4));
            let held: usize = states.0.values().map(KeyedState::keys).sum();
            assert_eq!(held, names.iter().filter(is_its).count());
            assert!(states.0.keys().all(|(_, at)| partitions.contains(at)));
        }
    }
}
