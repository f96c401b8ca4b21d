//! A slot for each span of time of a key: panes, and an index that lists them.
//!
//! ```text
//! @name            index: when to wake, what the routine notes, ids of the panes, ascending
//! @name/1f         the pane with id 0x1f
//! ```
//!
//! - An event touches its own pane and the index; other panes are neither read nor written.
//! - The index is the truth: a pane it does not list is not there. Without panes there is no index,
//!   and no timer.
//! - What can be guessed from the events is read together with the indices. A pane that was not
//!   read before it is needed is read then, alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::event::Event;
use crate::failure::Result;
use crate::kept::{self, Kept};
use crate::keyed::cell::Writes;
use crate::keyed::{Call, Terms, unreadable};
use crate::output::Output;
use crate::state::StateBatch;

/// The panes of all keys of a call. `N` is what the routine notes in the index of a key, `P` what
/// it keeps in a pane.
pub(crate) struct Shelf<'c, 'a, N, P> {
    terms: Terms,
    call: &'c Call<'a>,
    slot: Slot,
    keys: Vec<Option<Index<N, P>>>,
}

/// What is known of one key.
struct Index<N, P> {
    notes: N,
    ids: Vec<u64>,
    wakes: Option<u64>,
    /// The bytes of the index in the host.
    before: Option<Vec<u8>>,
    /// When its timer is set for in the host.
    set: Option<u64>,
    /// Panes that were read or made in this call.
    panes: BTreeMap<u64, Pane<P>>,
}

struct Pane<P> {
    kept: Option<P>,
    stored: bool,
    changed: bool,
}

/// Names of slots, made in one buffer.
struct Slot {
    name: String,
    index_bytes: usize,
}

impl Slot {
    fn of(terms: &Terms) -> Self {
        let name = terms.slot();
        Self { index_bytes: name.len(), name }
    }

    fn index(&mut self) -> &str {
        self.name.truncate(self.index_bytes);
        &self.name
    }

    fn pane(&mut self, id: u64) -> &str {
        self.name.truncate(self.index_bytes);
        write!(self.name, "/{id:x}").expect("a string takes everything");
        &self.name
    }
}

impl<N: Kept + Default, P: Kept> Index<N, P> {
    fn new() -> Self {
        Self {
            notes: N::default(),
            ids: Vec::new(),
            wakes: None,
            before: None,
            set: None,
            panes: BTreeMap::new(),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let (wakes, notes, count) = <(Option<u64>, N, u64)>::read(&mut rest)?;
        let mut ids = Vec::new();
        let mut last = 0_u64;
        for _ in 0..count {
            last = last.checked_add(u64::read(&mut rest)?)?;
            ids.push(last);
        }
        let before = Some(bytes.to_vec());
        rest.is_empty().then_some(Self { notes, ids, wakes, before, set: wakes, ..Self::new() })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + 2 * self.ids.len());
        self.wakes.write(&mut bytes);
        self.notes.write(&mut bytes);
        (self.ids.len() as u64).write(&mut bytes);
        let mut last = 0;
        for id in &self.ids {
            (id - last).write(&mut bytes);
            last = *id;
        }
        bytes
    }

    fn lists(&self, id: u64) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Takes what the host said of a pane.
    fn take(&mut self, id: u64, value: Option<&[u8]>) -> Option<()> {
        let stored = value.is_some();
        let kept = match value.filter(|_| self.lists(id)) {
            Some(bytes) => Some(kept::read_all(bytes)?),
            None => None,
        };
        self.panes.insert(id, Pane { kept, stored, changed: false });
        Some(())
    }
}

impl<'c, 'a, N: Kept + Default, P: Kept> Shelf<'c, 'a, N, P> {
    /// Reads the indices of all keys, and the panes that `guess` names for each event.
    pub(crate) fn open(
        terms: &Terms,
        call: &'c Call<'a>,
        guess: impl Fn(&Event<'a>, &mut Vec<u64>),
        out: &mut Output,
    ) -> Self {
        let mut slot = Slot::of(terms);
        let (mut guessed, mut ids) = (Vec::with_capacity(call.events.len()), Vec::new());
        for (event, key) in &call.events {
            guess(event, &mut ids);
            guessed.extend(ids.drain(..).map(|id| (*key, id)));
        }
        guessed.sort_unstable();
        guessed.dedup();
        // All of a key one behind the other, so that the host looks it up once.
        let mut batch = StateBatch::new();
        let by_key = || guessed.chunk_by(|one, next| one.0 == next.0).peekable();
        let mut panes = by_key();
        for (place, key) in call.keys.iter().enumerate() {
            batch.get(&key.event, slot.index());
            for (_, id) in panes.next_if(|panes| panes[0].0 == place).unwrap_or_default() {
                batch.get(&key.event, slot.pane(*id));
            }
        }
        let replies = batch.run();
        let mut replies = replies.iter();
        let mut panes = by_key();
        let mut keys = Vec::with_capacity(call.keys.len());
        for place in 0..call.keys.len() {
            let mut index = match replies.next().map(|reply| reply.value()) {
                None | Some(Ok(None)) => Some(Index::new()),
                Some(Ok(Some(bytes))) => Index::read(bytes),
                Some(Err(refused)) => {
                    call.refuse(place, refused, out);
                    None
                }
            };
            for (_, id) in panes.next_if(|panes| panes[0].0 == place).unwrap_or_default() {
                let value = replies.next().and_then(|reply| reply.value().ok().flatten());
                if index.as_mut().is_some_and(|index| index.take(*id, value).is_none()) {
                    index = None;
                }
            }
            keys.push(index);
        }
        Self { terms: *terms, call, slot, keys }
    }

    /// Reads panes that are listed and not yet read, as far as they are.
    pub(crate) fn fetch(&mut self, mut wanted: Vec<(usize, u64)>) {
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|(key, id)| {
            let index = self.keys[*key].as_ref();
            index.is_some_and(|index| index.lists(*id) && !index.panes.contains_key(id))
        });
        let mut batch = StateBatch::new();
        for (key, id) in &wanted {
            batch.get(&self.call.keys[*key].event, self.slot.pane(*id));
        }
        let replies = batch.run();
        for ((key, id), reply) in wanted.into_iter().zip(&replies) {
            let value = reply.value().ok().flatten();
            let taken = self.keys[key].as_mut().and_then(|index| index.take(id, value));
            if taken.is_none() {
                self.keys[key] = None;
            }
        }
    }

    /// Whether what the host has of the key could be read.
    pub(crate) fn check(&mut self, key: usize) -> Result {
        match self.keys[key] {
            Some(_) => Ok(()),
            None => Err(unreadable(self.slot.index())),
        }
    }

    /// What the routine notes of a key that passed [`Shelf::check`].
    pub(crate) fn notes(&mut self, key: usize) -> &mut N {
        &mut self.index(key).notes
    }

    /// When the key is to be woken.
    pub(crate) fn wake(&mut self, key: usize, at: Option<u64>) {
        self.index(key).wakes = at;
    }

    /// The panes of a key, ascending.
    pub(crate) fn ids(&self, key: usize) -> &[u64] {
        self.keys[key].as_ref().map_or(&[], |index| &index.ids)
    }

    /// A pane, to be looked at.
    pub(crate) fn pane(&mut self, key: usize, id: u64) -> Result<Option<&P>> {
        self.load(key, id)?;
        Ok(self.index(key).panes.get(&id).and_then(|pane| pane.kept.as_ref()))
    }

    /// A pane, to be changed.
    pub(crate) fn pane_mut(&mut self, key: usize, id: u64) -> Result<Option<&mut P>> {
        self.load(key, id)?;
        let Some(pane) = self.index(key).panes.get_mut(&id) else {
            return Ok(None);
        };
        pane.changed |= pane.kept.is_some();
        Ok(pane.kept.as_mut())
    }

    /// Makes a pane that is not listed.
    pub(crate) fn insert(&mut self, key: usize, id: u64, kept: P) {
        let index = self.index(key);
        if let Err(place) = index.ids.binary_search(&id) {
            index.ids.insert(place, id);
        }
        let stored = index.panes.get(&id).is_some_and(|pane| pane.stored);
        index.panes.insert(id, Pane { kept: Some(kept), stored, changed: true });
    }

    /// Removes the first panes of a key: those with an id below `end`.
    pub(crate) fn remove_below(&mut self, key: usize, end: u64) {
        let index = self.index(key);
        let count = index.ids.partition_point(|id| *id < end);
        for id in index.ids.drain(..count) {
            // A pane that was made in this call has nothing to be deleted.
            let stored = index.panes.get(&id).is_none_or(|pane| pane.stored);
            index.panes.insert(id, Pane { kept: None, stored, changed: true });
        }
    }

    /// Removes one pane.
    pub(crate) fn remove(&mut self, key: usize, id: u64) {
        let index = self.index(key);
        if let Ok(place) = index.ids.binary_search(&id) {
            index.ids.remove(place);
            let stored = index.panes.get(&id).is_none_or(|pane| pane.stored);
            index.panes.insert(id, Pane { kept: None, stored, changed: true });
        }
    }

    /// Has the host write all that changed.
    pub(crate) fn close(mut self, out: &mut Output) {
        let mut writes = Writes { batch: StateBatch::new(), asked: Vec::new() };
        for key in 0..self.keys.len() {
            if let Some(index) = self.keys[key].take() {
                self.write(key, index, &mut writes);
            }
        }
        writes.done(self.call, out);
    }

    fn write(&mut self, key: usize, index: Index<N, P>, writes: &mut Writes) {
        let of = &self.call.keys[key];
        let empty = index.ids.is_empty();
        for (id, pane) in index.panes.iter().filter(|(_, pane)| pane.changed) {
            match &pane.kept {
                Some(kept) => {
                    let mut bytes = Vec::new();
                    kept.write(&mut bytes);
                    writes.batch.put(&of.event, self.slot.pane(*id), bytes);
                }
                None if pane.stored => writes.batch.delete(&of.event, self.slot.pane(*id)),
                None => continue,
            }
            writes.asked.push(key);
        }
        if empty && index.before.is_some() {
            writes.batch.delete(&of.event, self.slot.index());
            writes.asked.push(key);
        } else if !empty {
            let bytes = index.write();
            if index.before.as_ref() != Some(&bytes) {
                writes.batch.put(&of.event, self.slot.index(), bytes);
                writes.asked.push(key);
            }
        }
        let set = if of.fired { None } else { index.set };
        let wanted = index.wakes.filter(|_| !empty);
        writes.timer(&self.terms, self.call, key, (set, wanted));
    }

    fn load(&mut self, key: usize, id: u64) -> Result {
        let index = self.index(key);
        if index.lists(id) && !index.panes.contains_key(&id) {
            self.fetch(vec![(key, id)]);
        }
        self.check(key)
    }

    fn index(&mut self, key: usize) -> &mut Index<N, P> {
        self.keys[key].as_mut().expect("the caller has checked that the key can be read")
    }
}
