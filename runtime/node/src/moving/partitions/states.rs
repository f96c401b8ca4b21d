//! What partitions that came go on with: their state, as it was copied to the store, and over it
//! what they changed since, which is in their record alone until the next checkpoint.
//!
//! - State stays on disk, and is read when it is needed. What is held of stages is read whole, as
//!   it never leaves memory.
//! - A key that changed is in memory with all its slots, and does not leave before a checkpoint has
//!   it: the store would give what it was before.

use std::collections::BTreeMap;

use sluicebox_core::codec::Changed;
use sluicebox_core::ids::{Name, Part, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::partition::name_of_part;
use sluicebox_core::state::{Change, KeyedState, StateLimits};
use sluicebox_store::store::keys::Id;
use sluicebox_store::store::{PageLimit, Store};

use super::groups::Groups;
use crate::backing::{Backing, StateOf, in_order};
use crate::error::Error;
use crate::mailbox;

/// Entries read at a time.
const PAGE: PageLimit = PageLimit { entries: 4096, bytes: 4 * 1024 * 1024 };

/// Enough to know whether there is any.
const ONE: PageLimit = PageLimit { entries: 1, bytes: 1 };

/// State by part of the stage and partition.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<(StageId, u16), KeyedState>);

impl States {
    /// That of partitions, of so many, in these groups. `seed` is secret. Blocks.
    ///
    /// # Errors
    /// The store fails.
    pub(super) fn of(
        backing: &Backing,
        (groups, count): (&Groups, u16),
        (changed, seed): (&[u8], u64),
    ) -> Result<Self, Error> {
        let store = backing.store().as_ref();
        for prefix in groups.names() {
            each(store, &prefix, |id, _| backing.note_name(id))?;
        }
        for (stage, prefix) in groups.own() {
            // A store may have state whose names were never written.
            let place = (groups.of.pipeline, stage);
            if !backing.has(place) && !store.scan(&prefix, &prefix, ONE)?.entries.is_empty() {
                backing.note_many(place);
            }
        }
        let mut states = Self::default();
        for prefix in groups.held() {
            each(store, &prefix, |id, value| {
                if let Id::State { place, key, slot } = id
                    && groups.has(id)
                {
                    let at = key::partition_of(place.group, count);
                    states.held((StageId(place.stage), at), seed).restore(key, slot, value);
                }
            })?;
        }
        let changed = Changed::read(changed);
        let changed = changed.map_err(|error| Error::Internal(error.to_string()))?;
        states.read_changed(backing, groups, (&changed, count), seed)?;
        for (stage, change) in changed.iter() {
            let at = key::partition_of(key::group_of(change.key), count);
            let state = match stage.split().1 {
                Part::Own => states.own((stage, at), seed),
                Part::Parked | Part::Timers | Part::Streams => states.held((stage, at), seed),
            };
            let Change { key, slot, value } = change;
            match value {
                Some(value) => state.restore(key, slot, value),
                None => state.forget(key, slot),
            }
        }
        Ok(states)
    }

    /// Reads what the store has of keys that changed since.
    fn read_changed(
        &mut self,
        backing: &Backing,
        groups: &Groups,
        (changed, count): (&Changed<'_>, u16),
        seed: u64,
    ) -> Result<(), Error> {
        let (tenant, pipeline) = (groups.of.tenant, groups.of.pipeline);
        let mut keys: BTreeMap<StageId, Vec<Box<[u8]>>> = BTreeMap::new();
        for (stage, change) in changed.iter().filter(|(stage, _)| stage.split().1 == Part::Own) {
            if change.value.is_some() {
                // It is written down by whoever makes checkpoints, with the change.
                let _known = backing.note((pipeline, stage), change.slot);
            }
            let keys = keys.entry(stage).or_default();
            if keys.last().is_none_or(|last| **last != *change.key) {
                keys.push(change.key.into());
            }
        }
        for (stage, keys) in keys {
            let keys = in_order(keys);
            let read = backing.read(StateOf { tenant, pipeline, stage }, &keys, usize::MAX)?;
            for (index, slots) in read.by_key() {
                let name = &keys[index];
                let at = key::partition_of(key::group_of(name), count);
                let state = self.own((stage, at), seed);
                for (_, slot, value) in slots {
                    state.restore(name, slot, value);
                }
            }
        }
        Ok(())
    }

    /// That of a stage, most of which is on disk.
    fn own(&mut self, at: (StageId, u16), seed: u64) -> &mut KeyedState {
        self.0.entry(at).or_insert_with(|| cold(seed))
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
            let changed = self.0.remove(&(*stage, at));
            // One without any on disk begins with none.
            if let Some(own) = changed.or_else(|| backing.has((id, *stage)).then(|| cold(seed))) {
                states.push((name.to_owned(), own));
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

/// Everything that begins so.
fn each(
    store: &dyn Store,
    prefix: &[u8],
    mut take: impl FnMut(&Id<'_>, &[u8]),
) -> Result<(), Error> {
    let mut from = prefix.to_vec();
    loop {
        let page = store.scan(prefix, &from, PAGE)?;
        for (key, value) in &page.entries {
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
    use crate::checkpoint::Of;

    const STAGE: StageId = StageId(1);
    const ID: PipelineId = PipelineId(3);

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
        let states = States::of(backing, (&groups, 1), (&changed, 7));
        let names = [(STAGE, Name::new("s").expect("a name"))];
        let mut states = states.expect("it is memory");
        states.take((&names, ["s"].into_iter()), (backing, ID, 0), 7).into_iter().collect()
    }

    #[test]
    fn a_key_that_changed_is_there_with_all_its_slots_and_others_are_on_disk() {
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
        assert!(!own.is_whole());
        let found: Vec<_> = own.scan(b"k", b"").collect();
        assert_eq!(found, [(&b"a"[..], &b"1"[..]), (b"b", b"new"), (b"c", b"more")]);
        assert_eq!(own.get(b"new", b"d"), Some(&b"all"[..]));
        assert_eq!(own.get(b"gone", b"a"), None);
        // What is gone is known to be, as the store has it still.
        let lacks = [&b"k"[..], b"new", b"gone", b"other"].map(|name| own.lacks(name));
        assert_eq!(lacks, [false, false, false, true]);
        // Nothing of it leaves before a checkpoint has it.
        assert!(!own.make_room(0));
        assert!(own.holds(b"k") && own.holds(b"gone"));
        let period = own.next_period();
        own.kept(period);
        own.make_room(0);
        own.make_room(0);
        assert!(!own.holds(b"k") && !own.holds(b"gone"));
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
        let states = came(&backing(&[]), &[(STAGE, b"k", b"a", Some(b"1"))]);
        assert_eq!(states["s"].get(b"k", b"a"), Some(&b"1"[..]));
        assert!(came(&backing(&[]), &[]).is_empty());
    }
}
