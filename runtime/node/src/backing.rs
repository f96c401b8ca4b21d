//! The store behind state: what partitions read from it, and how far it has got.
//!
//! - A key's slots are read by their names where a stage has few of them, which is a look at
//!   filters for a key that is not there; else by looking through everything the key has. A name is
//!   noted before anything under it is in the store.
//! - What is in the log and in no checkpoint, and in no partition's memory, lies over the store
//!   until a checkpoint has it: what a start found, and what partitions that came brought.
//! - What is read of a key is all there is of it on disk. That this is everything that is not in
//!   memory is kept true by [`sluicebox_core::state::KeyedState`].
//! - Keys whose state is over are found by going through the store (`aged`).
//! - Whoever has no room until a checkpoint is made asks for one here and is told.
//!
//! Reading blocks, and is done off the workers. What goes into the store is the business of
//! `checkpoint`.

mod aged;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::Thread;

pub(crate) use aged::{Aged, AgedPage};
pub(crate) use readers::Reading;

use bytes::Bytes;
use sluicebox_core::ids::{PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::state::STAMP;
use sluicebox_store::dirty::{Ahead, Known};
use sluicebox_store::log::Position;
use sluicebox_store::store::keys::{self, Id, Place};
use sluicebox_store::store::{PageLimit, Store};
use tokio::sync::Semaphore;

use crate::checkpoint::{Health, Of};
use crate::error::Error;
use crate::mailbox::{Mailbox, lock};
use readers::Readers;

/// Names of slots that are noted for a stage, besides that of stamps; with more a key is looked
/// through.
const NAMES_MAX: usize = 4;

/// Entries read at a time where a key is looked through.
const PAGE: PageLimit = PageLimit { entries: 1024, bytes: 1024 * 1024 };

/// Whose state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateOf {
    /// The number that stands for the tenant in the store.
    pub tenant: u32,
    pub pipeline: PipelineId,
    pub stage: StageId,
}

/// What was read: all slots of the first keys of those asked for.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// How many keys were read.
    pub keys: usize,
    /// Index of the key, name, value; in the order of the keys.
    pub slots: Vec<(usize, Bytes, Bytes)>,
}

impl Slots {
    /// Each key that was read, by its index, with its slots.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = (usize, &[(usize, Bytes, Bytes)])> {
        let mut rest = &self.slots[..];
        (0..self.keys).map(move |key| {
            let count = rest.iter().take_while(|(of, ..)| *of == key).count();
            let (own, behind) = rest.split_at(count);
            rest = behind;
            (key, own)
        })
    }
}

/// The names slots of a stage have.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    These(Arc<[Box<[u8]>]>),
    /// Too many to look for one by one.
    Many,
}

/// What was new about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The name is to be kept.
    Name,
    /// That there are too many is to be kept.
    Many,
}

/// What lies over the store, the oldest first: each with the place in the log that it is before.
type Layers = Vec<(Position, Arc<Ahead>)>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Backing {
    store: Arc<dyn Store>,
    ahead: RwLock<Layers>,
    names: RwLock<BTreeMap<(PipelineId, StageId), Names>>,
    horizon: AtomicU64,
    /// Log that may wait for a checkpoint.
    log_bytes_max: u64,
    /// Checkpoints that were made, or were found not to be needed.
    rounds: AtomicU64,
    hurry: AtomicBool,
    waiting: Mutex<Vec<Arc<Mailbox>>>,
    checkpoints: Health,
    /// Pipelines that come from other nodes, or have.
    arriving: Mutex<Vec<Of>>,
    /// What entries of partitions begin with that come, or have.
    joining: Mutex<BTreeSet<Vec<u8>>>,
    /// What makes checkpoints, and may be asleep.
    maker: OnceLock<Thread>,
    /// The right to look through the store for what is over.
    looking: Semaphore,
    readers: Arc<Readers>,
}

impl Backing {
    /// Over this store. More than `log_bytes_max` bytes of log shall not wait for a checkpoint.
    pub(crate) fn new(store: Arc<dyn Store>, log_bytes_max: u64) -> Self {
        let horizon = AtomicU64::new(store.extent().horizon);
        Self {
            store,
            ahead: RwLock::default(),
            names: RwLock::default(),
            horizon,
            log_bytes_max,
            rounds: AtomicU64::new(0),
            hurry: AtomicBool::new(false),
            waiting: Mutex::default(),
            checkpoints: Health::default(),
            arriving: Mutex::default(),
            joining: Mutex::default(),
            maker: OnceLock::new(),
            looking: Semaphore::new(1),
            readers: Arc::default(),
        }
    }

    /// How it stands with checkpoints.
    pub(crate) fn checkpoints(&self) -> &Health {
        &self.checkpoints
    }

    /// Lays what the log has before `end` over the store, until there is a checkpoint with it.
    pub(crate) fn put_ahead(&self, end: Position, ahead: Ahead) {
        let mut layers = self.ahead.write().unwrap_or_else(PoisonError::into_inner);
        if self.horizon() < end {
            layers.push((end, Arc::new(ahead)));
        }
    }

    /// True if there may be state of a stage on disk.
    pub(crate) fn has(&self, of: (PipelineId, StageId)) -> bool {
        self.names_of(of).is_some()
    }

    /// Notes that slots of a stage have this name. `None` if that was known.
    pub(crate) fn note(&self, of: (PipelineId, StageId), slot: &[u8]) -> Option<Noted> {
        match self.names_of(of) {
            Some(Names::Many) => return None,
            Some(Names::These(names)) if names.iter().any(|name| **name == *slot) => return None,
            _ => {}
        }
        let mut all = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let names = all.entry(of).or_insert_with(|| Names::These(Arc::default()));
        let Names::These(known) = names else { return None };
        let own = known.iter().filter(|name| ***name != *STAMP).count();
        if own == NAMES_MAX && slot != STAMP {
            *names = Names::Many;
            return Some(Noted::Many);
        }
        let more = known.iter().cloned().chain([slot.into()]);
        *names = Names::These(more.collect());
        Some(Noted::Name)
    }

    /// Notes that a stage has more names than are noted.
    pub(crate) fn note_many(&self, of: (PipelineId, StageId)) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(of, Names::Many);
    }

    /// The state of some stages is gone.
    pub(crate) fn forget(&self, gone: impl Fn(PipelineId, StageId) -> bool) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.retain(|(pipeline, stage), _| !gone(*pipeline, *stage));
    }

    fn names_of(&self, of: (PipelineId, StageId)) -> Option<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&of).cloned()
    }

    /// Reads the slots of keys, best [`in_order`], one key after the other, until there are
    /// `bytes_max` bytes of them. The first key is read in any case. Blocks.
    pub(crate) fn read(
        &self,
        of: StateOf,
        keys: &[Box<[u8]>],
        bytes_max: usize,
    ) -> Result<Slots, Error> {
        let names = self.names_of((of.pipeline, of.stage));
        let ahead = self.ahead.read().unwrap_or_else(PoisonError::into_inner).clone();
        let behind = Behind { store: &*self.store, ahead };
        let mut read = Slots::default();
        let (mut bytes, mut prefix) = (0, Vec::new());
        for (index, name) in keys.iter().enumerate() {
            if bytes > bytes_max {
                break;
            }
            let (tenant, pipeline) = (of.tenant, of.pipeline.0);
            let place = Place { tenant, pipeline, stage: of.stage.0, group: key::group_of(name) };
            prefix.clear();
            keys::put_state(&mut prefix, place, name, b"");
            let before = read.slots.len();
            match &names {
                None => {}
                Some(Names::These(names)) => {
                    behind.by_name(&mut prefix, names, index, &mut read)?;
                }
                Some(Names::Many) => behind.all(&prefix, index, &mut read)?,
            }
            read.keys += 1;
            bytes += name.len();
            bytes += read.slots[before..].iter().map(|(_, n, v)| n.len() + v.len()).sum::<usize>();
        }
        Ok(read)
    }

    /// The last checkpoint that stands.
    pub(crate) fn horizon(&self) -> Position {
        Position(self.horizon.load(Ordering::Acquire))
    }

    /// True if so much of the log waits for a checkpoint that nothing new may come in: what a start
    /// has to read is bounded by this.
    pub(crate) fn is_behind(&self, synced: Position) -> bool {
        synced.0.saturating_sub(self.horizon().0) > self.log_bytes_max
    }

    /// Somebody begins to read the log: nothing of it is recycled that it has still to read.
    pub(crate) fn read_log(&self) -> Reading {
        self.readers.begin()
    }

    /// How far the log may be recycled behind a checkpoint: others may not have read so far.
    pub(crate) fn recyclable(&self, horizon: Position) -> Position {
        self.readers.first().map_or(horizon, |first| first.min(horizon))
    }

    /// Grows with each checkpoint, and each that was asked for and had nothing to do.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// A partition has no room before there is another checkpoint. It is scheduled then.
    pub(crate) fn hurry(&self, mailbox: &Arc<Mailbox>) {
        let mut waiting = lock(&self.waiting);
        if !waiting.iter().any(|other| Arc::ptr_eq(other, mailbox)) {
            waiting.push(mailbox.clone());
        }
        drop(waiting);
        self.ask();
    }

    /// Asks for a checkpoint, as soon as can be.
    pub(crate) fn ask(&self) {
        self.hurry.store(true, Ordering::Release);
        if let Some(maker) = self.maker.get() {
            maker.unpark();
        }
    }

    /// A pipeline comes from another node: from here on what the store has of it is not to go
    /// because it was here before. False if that was known.
    pub(crate) fn note_arriving(&self, of: Of) -> bool {
        let mut arriving = lock(&self.arriving);
        let is_new = !arriving.contains(&of);
        if is_new {
            arriving.push(of);
        }
        is_new
    }

    /// It is in the log now, or does not come.
    pub(crate) fn note_arrived(&self, of: Of) {
        lock(&self.arriving).retain(|known| *known != of);
    }

    /// Among the keys that begin so are some of a pipeline that comes, or of partitions.
    pub(crate) fn arrives(&self, prefix: &[u8]) -> bool {
        let joins = |prefix: &[u8]| {
            let joining = lock(&self.joining);
            let mut from = joining.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
            from.next().is_some_and(|joins| joins.starts_with(prefix))
        };
        lock(&self.arriving).iter().any(|of| of.has(prefix)) || joins(prefix)
    }

    /// Partitions come from another node, whose entries begin so: from here on what the store has
    /// of them is not to go because they were here before. False if that was known.
    pub(crate) fn note_joining(&self, prefixes: impl Iterator<Item = Vec<u8>>) -> bool {
        let mut joining = lock(&self.joining);
        let before = joining.len();
        joining.extend(prefixes);
        joining.len() > before
    }

    /// They are in the log now.
    pub(crate) fn note_joined(&self, prefixes: impl Iterator<Item = Vec<u8>>) {
        let mut joining = lock(&self.joining);
        for prefix in prefixes {
            joining.remove(&prefix);
        }
    }

    /// No partitions of a pipeline come any more: it is gone from here.
    pub(crate) fn note_gone(&self, of: Of) {
        lock(&self.joining).retain(|prefix| !of.has(prefix));
    }

    /// Notes a name of slots that came from another node.
    pub(crate) fn note_name(&self, id: &Id<'_>) {
        let Id::SlotName { place, slot } = id else { return };
        let of = (PipelineId(place.pipeline), StageId(place.stage));
        match place.group {
            0 => drop(self.note(of, slot)),
            _ => self.note_many(of),
        }
    }

    /// This thread makes the checkpoints.
    pub(crate) fn made_by(&self, maker: Thread) {
        // There is one for as long as the node runs.
        let _known = self.maker.set(maker);
    }

    /// The store itself, for what is in it of a pipeline that moves.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// True if somebody waits for a checkpoint.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.hurry.load(Ordering::Acquire)
    }

    /// True if somebody waits for a checkpoint; whoever asks makes one.
    pub(crate) fn take_hurry(&self) -> bool {
        self.hurry.load(Ordering::Acquire) && self.hurry.swap(false, Ordering::AcqRel)
    }

    /// A checkpoint up to `horizon` stands.
    pub(crate) fn reached(&self, horizon: Position) {
        // Before anybody is told what may leave memory: what was found in the log is not that as
        // it is now.
        let mut layers = self.ahead.write().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|(end, _)| *end > horizon);
        drop(layers);
        self.horizon.store(horizon.0, Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        for mailbox in std::mem::take(&mut *lock(&self.waiting)) {
            mailbox.schedule();
        }
    }
}

/// Keys in the order in which the store has their state: what is read next then lies near what was
/// just read, and much of it is at hand.
pub(crate) fn in_order(keys: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    let mut keys: Vec<_> = keys.into_iter().map(|key| (key::group_of(&key), key)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key).collect()
}

/// What is on disk.
struct Behind<'a> {
    store: &'a dyn Store,
    ahead: Layers,
}

impl Behind<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.ahead.iter().rev().find_map(|(_, ahead)| ahead.get(key)) {
            Some(Known::Value(value)) => Ok(Some(Bytes::copy_from_slice(value))),
            Some(Known::Deleted) => Ok(None),
            None => Ok(self.store.get(key)?),
        }
    }

    fn by_name(
        &self,
        prefix: &mut Vec<u8>,
        names: &[Box<[u8]>],
        index: usize,
        read: &mut Slots,
    ) -> Result<(), Error> {
        let length = prefix.len();
        for name in names {
            prefix.extend_from_slice(name);
            if let Some(value) = self.get(prefix)? {
                read.slots.push((index, Bytes::copy_from_slice(name), value));
            }
            prefix.truncate(length);
        }
        Ok(())
    }

    fn all(&self, prefix: &[u8], index: usize, read: &mut Slots) -> Result<(), Error> {
        let mut found = BTreeMap::new();
        let mut from = Bytes::new();
        loop {
            let page = self.store.scan(prefix, &from, PAGE)?;
            found.extend(page.entries);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        for (key, known) in self.ahead.iter().flat_map(|(_, ahead)| ahead.under(prefix)) {
            match known {
                Known::Value(value) => {
                    found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                Known::Deleted => drop(found.remove(key)),
            }
        }
        let slots = found.into_iter().map(|(key, value)| (index, key.slice(prefix.len()..), value));
        read.slots.extend(slots);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_store::store::{Change, MemoryStore};

    use super::*;

    const OF: StateOf = StateOf { tenant: 1, pipeline: PipelineId(2), stage: StageId(3) };

    /// Over a store with these entries.
    pub(super) fn filled(mut entries: Vec<(Vec<u8>, Vec<u8>)>) -> Backing {
        let store = MemoryStore::new();
        entries.sort();
        let piece: Vec<Change<'_>> =
            entries.iter().map(|(key, value)| Change { key, value: Some(value) }).collect();
        let mut checkpoint = store.begin(7).expect("begins");
        checkpoint.write(&piece).expect("is written");
        checkpoint.commit(&[]).expect("stands");
        Backing::new(Arc::new(store), 100)
    }

    fn backing(entries: &[(&[u8], &[u8], &[u8])]) -> Backing {
        let mut written = Vec::new();
        for (name, slot, value) in entries {
            let group = key::group_of(name);
            let place = Place { tenant: 1, pipeline: 2, stage: 3, group };
            let mut key = keys::slots_of(place, name);
            key.extend_from_slice(slot);
            written.push((key, value.to_vec()));
        }
        filled(written)
    }

    fn read(backing: &Backing, keys: &[&[u8]], bytes_max: usize) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        let keys: Vec<Box<[u8]>> = keys.iter().map(|key| (*key).into()).collect();
        let slots = backing.read(OF, &keys, bytes_max).expect("is read");
        let owned = |(_, slot, value): &(usize, Bytes, Bytes)| (slot.to_vec(), value.to_vec());
        slots.by_key().map(|(_, slots)| slots.iter().map(owned).collect()).collect()
    }

    #[test]
    fn the_same_is_read_by_names_and_by_looking_through() {
        let backing = backing(&[
            (b"a", b"n", b"1"),
            (b"a", b"s", b"2"),
            (b"a\0", b"n", b"3"),
            (b"b", b"s", b"4"),
        ]);
        assert_eq!(backing.note((OF.pipeline, OF.stage), b"n"), Some(Noted::Name));
        assert_eq!(backing.note((OF.pipeline, OF.stage), b"s"), Some(Noted::Name));
        assert_eq!(backing.note((OF.pipeline, OF.stage), b"s"), None);
        let keys: [&[u8]; 4] = [b"b", b"none", b"a", b"a\0"];
        let by_name = read(&backing, &keys, 1 << 20);
        assert_eq!(by_name.len(), 4);
        assert_eq!(by_name[1], []);
        assert_eq!(by_name[2].len(), 2);
        backing.note_many((OF.pipeline, OF.stage));
        assert_eq!(read(&backing, &keys, 1 << 20), by_name);
    }

    #[test]
    fn keys_are_put_in_the_order_of_the_store() {
        let names = (0..500_u32).map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes());
        let names = names.flat_map(|name| [name[..2].into(), name.into(), [0; 3].into()]);
        let stored = |name: &[u8]| {
            let place = Place { tenant: 1, pipeline: 2, stage: 3, group: key::group_of(name) };
            keys::slots_of(place, name)
        };
        let ordered = in_order(names.collect());
        assert_eq!(ordered.len(), 1_500);
        assert!(ordered.is_sorted_by_key(|name| stored(name)));
    }

    #[test]
    fn what_was_found_in_the_log_lies_over_the_store() {
        let backing = backing(&[(b"a", b"n", b"1"), (b"a", b"s", b"2"), (b"b", b"n", b"3")]);
        let of = (OF.pipeline, OF.stage);
        for slot in [b"n", b"s"] {
            assert_eq!(backing.note(of, slot), Some(Noted::Name));
        }
        let key = |name: &[u8], slot: &[u8]| {
            let group = key::group_of(name);
            let mut key = keys::slots_of(Place { tenant: 1, pipeline: 2, stage: 3, group }, name);
            key.extend_from_slice(slot);
            key
        };
        let mut dirty = sluicebox_store::dirty::Dirty::new(1);
        dirty.delete(&key(b"a", b"n"));
        dirty.put(&key(b"a", b"s"), b"new");
        dirty.put(&key(b"c", b"n"), b"only here");
        backing.put_ahead(Position(9), Ahead::new(dirty.freeze()[0].clone()));
        let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
        let slot = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let laid =
            [vec![slot(b"s", b"new")], vec![slot(b"n", b"3")], vec![slot(b"n", b"only here")]];
        assert_eq!(read(&backing, &keys, 1 << 20), laid);
        let Names::These(names) = backing.names_of(of).expect("names") else { panic!("few") };
        backing.note_many(of);
        assert_eq!(read(&backing, &keys, 1 << 20), laid);
        backing.names.write().unwrap().insert(of, Names::These(names));
        assert!(backing.is_behind(Position(108)) && !backing.is_behind(Position(107)));
        backing.reached(Position(9));
        assert!(!backing.is_behind(Position(108)));
        assert_eq!(read(&backing, &keys, 1 << 20)[0].len(), 2, "the store alone");
    }

    #[test]
    fn the_last_of_what_lies_over_the_store_counts_and_each_goes_with_its_checkpoint() {
        let backing = backing(&[(b"a", b"n", b"old")]);
        let of = (OF.pipeline, OF.stage);
        backing.note(of, b"n");
        let mut key = Vec::new();
        let place = Place { tenant: 1, pipeline: 2, stage: 3, group: key::group_of(b"a") };
        keys::put_state(&mut key, place, b"a", b"n");
        for (end, value) in [(9, &b"first"[..]), (12, b"second")] {
            let mut dirty = sluicebox_store::dirty::Dirty::new(1);
            dirty.put(&key, value);
            backing.put_ahead(Position(end), Ahead::new(dirty.freeze()[0].clone()));
        }
        let is = |value: &[u8]| {
            let found = read(&backing, &[b"a"], 1 << 20);
            assert_eq!(found, [vec![(b"n".to_vec(), value.to_vec())]]);
        };
        is(b"second");
        backing.note_many(of);
        is(b"second");
        // A checkpoint that was begun before the second came is made while it lies there.
        backing.reached(Position(11));
        is(b"second");
        backing.reached(Position(12));
        is(b"old");
        // What the store has already lies over nothing.
        let mut dirty = sluicebox_store::dirty::Dirty::new(1);
        dirty.put(&key, b"late");
        backing.put_ahead(Position(12), Ahead::new(dirty.freeze()[0].clone()));
        is(b"old");
    }

    #[test]
    fn too_many_names_are_noted_as_many() {
        let backing = backing(&[]);
        let of = (OF.pipeline, OF.stage);
        for n in 0..NAMES_MAX as u8 {
            assert_eq!(backing.note(of, &[n]), Some(Noted::Name));
        }
        assert_eq!(backing.note(of, STAMP), Some(Noted::Name), "it is none of the stage's");
        assert_eq!(backing.note(of, STAMP), None);
        assert_eq!(backing.note(of, b"more"), Some(Noted::Many));
        assert_eq!(backing.note(of, b"still more"), None);
        backing.forget(|pipeline, _| pipeline == OF.pipeline);
        for slot in [STAMP, b"anew", b"1", b"2", b"3"] {
            assert_eq!(backing.note(of, slot), Some(Noted::Name));
        }
    }

    #[test]
    fn the_first_key_is_read_however_large_it_is() {
        let backing = backing(&[(b"a", b"s", &[0; 1000]), (b"b", b"s", &[0; 1000])]);
        assert_eq!(backing.note((OF.pipeline, OF.stage), b"s"), Some(Noted::Name));
        assert_eq!(read(&backing, &[b"a", b"b"], 0).len(), 1);
        assert_eq!(read(&backing, &[b"a", b"b"], 1000).len(), 1);
        assert_eq!(read(&backing, &[b"a", b"b"], 1002).len(), 2);
    }
}
