//! All that one tenant has in a host, by its handles.
//!
//! Keeps true:
//! - A handle is good for its owner only, but that what is attached is read by every owner. What
//!   it stands for is a buffer, a constant, a kernel or a graph of this tenant; there is no way
//!   from here to another's.
//! - The bytes of what is attached do not change.
//! - Memory goes back once no handle and no submission needs it; but constants stay, until what
//!   they take is wanted for something else (`room`).
//! - Of each sort there is no more than the tenant may have.

mod spare;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Refused;
use super::arena::{Arena, Place};
use super::graph::{Bound, Graph};
use super::kernels::{Cache, Ready};
use super::words::{End, Owner, TenantTerms, Used};
use crate::device::Block;
use crate::slice::Dispatch;

/// See the module.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) terms: TenantTerms,
    entries: BTreeMap<u64, Entry>,
    /// Of each sort.
    counts: [usize; 3],
    pub(super) stores: BTreeMap<u64, Store>,
    /// Which store has the bytes of a hash.
    pub(super) constants: BTreeMap<[u8; 32], u64>,
    /// Stores of constants that nothing needs, the one that was used least recently first.
    kept: BTreeMap<u64, u64>,
    /// Constants that have made room, and buffers that were recalled.
    pub(super) evictions: u64,
    pub(super) recalls: u64,
    pub(super) arena: Arena,
    pub(super) cache: Cache,
    /// Those that have not ended.
    pub(super) submissions: BTreeMap<u64, Submission>,
    pub(super) stages: BTreeMap<u32, StageState>,
    /// Transfers of stages that are gone.
    pub(super) moved: Used,
    /// Takes no more.
    pub(super) is_closing: bool,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    what: What,
    /// Its owner is a holder: all of the tenant's read it, and nobody writes it.
    is_attached: bool,
}

/// What a handle stands for.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// By its store.
    Buffer(u64),
    /// A buffer or a constant whose memory went to whom it was promised.
    Recalled,
    Kernel(Arc<Ready>),
    Graph(Arc<Graph>),
}

impl What {
    const fn sort(&self) -> usize {
        match self {
            Self::Buffer(_) | Self::Recalled => 0,
            Self::Kernel(_) => 1,
            Self::Graph(_) => 2,
        }
    }
}

/// What memory is taken for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Of a stage.
    Buffer(u32),
    /// Of the whole tenant.
    Constant([u8; 32]),
}

/// What a store was that is no longer there.
#[derive(Debug)]
pub(super) struct Freed {
    /// What is to be given back to the device, and how many blocks of the ledger it is.
    pub(super) piece: Option<(Block, u64)>,
    /// Whose it was in the books, and how many bytes.
    pub(super) stage: Option<u32>,
    pub(super) bytes: u64,
}

/// Bytes on the device.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) place: Place,
    pub(super) bytes: u64,
    /// What it is the bytes of, if nobody may write them.
    pub(super) constant: Option<[u8; 32]>,
    /// Whose it is in the books; none is the tenant's own.
    pub(super) stage: Option<u32>,
    /// When it was used last, by a number that no other has.
    pub(super) used: u64,
    /// Nobody has a handle of it any more, and its piece is to be given back.
    is_recalled: bool,
    handles: usize,
    /// Bindings of submissions that have not ended.
    pub(super) readers: usize,
    pub(super) writers: usize,
    /// From and up to where it was left half written.
    poison: Option<(u64, u64)>,
}

impl Store {
    pub(super) fn new(place: Place, bytes: u64, purpose: Purpose, used: u64) -> Self {
        let (constant, stage) = match purpose {
            Purpose::Buffer(stage) => (None, Some(stage)),
            Purpose::Constant(hash) => (Some(hash), None),
        };
        Self {
            place,
            bytes,
            constant,
            stage,
            used,
            is_recalled: false,
            handles: 0,
            readers: 0,
            writers: 0,
            poison: None,
        }
    }

    const fn is_pinned(&self) -> bool {
        self.readers + self.writers > 0
    }

    const fn is_needed(&self) -> bool {
        self.handles > 0 || self.is_pinned()
    }

    /// Whether some of these bytes were left half written.
    pub(super) fn is_poisoned(&self, offset: u64, bytes: u64) -> bool {
        self.poison.is_some_and(|(from, end)| offset < end && from < offset + bytes)
    }

    pub(super) fn poison(&mut self, offset: u64, bytes: u64) {
        let (from, end) = self.poison.unwrap_or((u64::MAX, 0));
        self.poison = Some((from.min(offset), end.max(offset + bytes)));
    }

    /// These bytes were written. What is in the middle of poison stays poisoned: it is one range.
    pub(super) fn cleanse(&mut self, offset: u64, bytes: u64) {
        let written_end = offset + bytes;
        let Some((mut from, mut end)) = self.poison else { return };
        if offset <= from {
            from = from.max(written_end);
        }
        if written_end >= end {
            end = end.min(offset);
        }
        self.poison = (from < end).then_some((from, end));
    }
}

/// Work that was taken and has not ended.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) owner: Owner,
    pub(super) graph: Arc<Graph>,
    pub(super) bound: Vec<Bound>,
    pub(super) fuel: u32,
    pub(super) deadline: Option<Duration>,
    /// Its steps that are not over.
    pub(super) open: BTreeMap<Dispatch, usize>,
    /// Something of it was given to the device.
    pub(super) has_begun: bool,
    /// Why it is to end, or has.
    pub(super) end: Option<End>,
    pub(super) device_nanos: u128,
    /// Nobody is to be told.
    pub(super) is_orphan: bool,
}

/// What is counted of a stage.
#[derive(Debug, Default)]
pub(super) struct StageState {
    /// Submissions whose end was not told.
    pub(super) queue: usize,
    pub(super) up_bytes: u64,
    pub(super) down_bytes: u64,
    pub(super) is_closing: bool,
}

impl Space {
    pub(super) fn new(terms: TenantTerms) -> Self {
        Self {
            terms,
            entries: BTreeMap::new(),
            counts: [0; 3],
            stores: BTreeMap::new(),
            constants: BTreeMap::new(),
            kept: BTreeMap::new(),
            evictions: 0,
            recalls: 0,
            arena: Arena::default(),
            cache: Cache::default(),
            submissions: BTreeMap::new(),
            stages: BTreeMap::new(),
            moved: Used::default(),
            is_closing: false,
        }
    }

    /// The store of a buffer or constant that is an owner's, or attached.
    pub(super) fn buffer(&self, who: Owner, handle: u64) -> Option<u64> {
        let entry = self.entries.get(&handle)?;
        match entry.what {
            What::Buffer(store) if entry.owner == who || entry.is_attached => Some(store),
            _ => None,
        }
    }

    /// Whether a handle of an owner's was good until its memory was recalled.
    pub(super) fn is_recalled(&self, who: Owner, handle: u64) -> bool {
        matches!(self.what(who, handle), Some(What::Recalled))
    }

    /// Who holds what is attached by a handle.
    pub(super) fn holder(&self, handle: u64) -> Option<Owner> {
        let entry = self.entries.get(&handle).filter(|entry| entry.is_attached);
        entry.map(|entry| entry.owner)
    }

    /// Whether nobody writes a store by a handle of it.
    pub(super) fn is_read_only(&self, handle: u64, store: &Store) -> bool {
        store.constant.is_some() || self.holder(handle).is_some()
    }

    pub(super) fn kernel(&self, who: Owner, handle: u64) -> Option<Arc<Ready>> {
        match self.what(who, handle)? {
            What::Kernel(ready) => Some(Arc::clone(ready)),
            What::Buffer(_) | What::Recalled | What::Graph(_) => None,
        }
    }

    pub(super) fn graph(&self, who: Owner, handle: u64) -> Option<Arc<Graph>> {
        match self.what(who, handle)? {
            What::Graph(graph) => Some(Arc::clone(graph)),
            What::Buffer(_) | What::Recalled | What::Kernel(_) => None,
        }
    }

    fn what(&self, who: Owner, handle: u64) -> Option<&What> {
        self.entries.get(&handle).filter(|entry| entry.owner == who).map(|entry| &entry.what)
    }

    /// How many handles there are.
    pub(super) fn handles(&self) -> usize {
        self.entries.len()
    }

    /// Whether there may be one more buffer.
    pub(super) fn room_for_buffer(&self) -> Result<(), Refused> {
        self.room(0, "buffers", self.terms.limits.buffers, "drop some, or make one of several")
    }

    /// Whether there may be one more handle of a kernel.
    pub(super) fn room_for_kernel(&self) -> Result<(), Refused> {
        self.room(1, "handles of kernels", self.terms.limits.kernel_handles, "drop some")
    }

    /// Whether there may be one more graph.
    pub(super) fn room_for_graph(&self) -> Result<(), Refused> {
        self.room(2, "graphs", self.terms.limits.graphs, "drop some")
    }

    fn room(
        &self,
        sort: usize,
        what: &'static str,
        most: usize,
        fix: &'static str,
    ) -> Result<(), Refused> {
        let (found, limit) = (self.counts[sort] as u64 + 1, most as u64);
        if found > limit { Err(Refused::Limit { what, found, limit, fix }) } else { Ok(()) }
    }

    pub(super) fn insert(&mut self, handle: u64, owner: Owner, what: What) {
        self.counts[what.sort()] += 1;
        if let What::Buffer(store) = &what
            && let Some(store) = self.stores.get_mut(store)
        {
            store.handles += 1;
        }
        self.entries.insert(handle, Entry { owner, what, is_attached: false });
    }

    /// A handle is over. The store it needs no longer, if it is of one.
    pub(super) fn remove(&mut self, who: Owner, handle: u64) -> Option<Option<u64>> {
        self.what(who, handle)?;
        let entry = self.entries.remove(&handle)?;
        self.counts[entry.what.sort()] -= 1;
        let What::Buffer(store) = entry.what else { return Some(None) };
        if let Some(store) = self.stores.get_mut(&store) {
            store.handles -= 1;
        }
        Some(Some(store))
    }

    /// A handle is a holder's from now on.
    pub(super) fn attach(&mut self, handle: u64, holder: Owner) {
        if let Some(entry) = self.entries.get_mut(&handle) {
            (entry.owner, entry.is_attached) = (holder, true);
        }
    }

    /// Handles of those that are meant.
    pub(super) fn handles_of(&self, is_meant: impl Fn(Owner) -> bool) -> Vec<(Owner, u64)> {
        let meant = self.entries.iter().filter(|(_, entry)| is_meant(entry.owner));
        meant.map(|(handle, entry)| (entry.owner, *handle)).collect()
    }

    /// Takes a store out if nothing needs it any more; a constant is kept, as long as its tenant
    /// stays.
    pub(super) fn reclaim(&mut self, store: u64) -> Option<Freed> {
        let found = self.stores.get(&store).filter(|found| !found.is_needed())?;
        if found.constant.is_some() && !self.is_closing {
            self.kept.insert(found.used, store);
            return None;
        }
        self.take_out(store)
    }

    /// Takes a store out, with its memory.
    pub(super) fn take_out(&mut self, store: u64) -> Option<Freed> {
        let found = self.stores.remove(&store)?;
        self.kept.remove(&found.used);
        if let Some(hash) = found.constant
            && self.constants.get(&hash) == Some(&store)
        {
            self.constants.remove(&hash);
        }
        let (stage, bytes) = (found.stage, found.place.bytes());
        Some(Freed { piece: self.arena.give(found.place), stage, bytes })
    }

    /// A store was used now.
    pub(super) fn touch(&mut self, store: u64, used: u64) {
        if let Some(found) = self.stores.get_mut(&store) {
            self.kept.remove(&found.used);
            found.used = used;
        }
    }

    /// What a stage that goes has left is the tenant's own.
    pub(super) fn inherit(&mut self, stage: u32) {
        for store in self.stores.values_mut().filter(|store| store.stage == Some(stage)) {
            store.stage = None;
        }
    }

    /// A submission needs what it has bound.
    pub(super) fn pin(&mut self, bound: &[Bound]) {
        for bound in bound {
            if let Some(store) = self.stores.get_mut(&bound.store) {
                let count = if bound.is_written { &mut store.writers } else { &mut store.readers };
                *count += 1;
            }
        }
    }

    /// It needs it no longer. The stores, each once.
    pub(super) fn unpin(&mut self, bound: &[Bound]) -> BTreeSet<u64> {
        for bound in bound {
            if let Some(store) = self.stores.get_mut(&bound.store) {
                let count = if bound.is_written { &mut store.writers } else { &mut store.readers };
                *count -= 1;
            }
        }
        bound.iter().map(|bound| bound.store).collect()
    }

    /// Submissions behind one that would use what was left half written. Those before it have done
    /// so, or are about to.
    pub(super) fn poisoned(&self, behind: u64) -> Vec<u64> {
        let is_hit = |bound: &Bound| {
            let store = self.stores.get(&bound.store);
            store.is_some_and(|store| store.is_poisoned(bound.offset, bound.span.bytes))
        };
        let ill = self.submissions.range(behind + 1..).filter(|(_, submission)| {
            let mut used = submission.bound.iter().filter(|bound| !bound.is_anew);
            submission.end.is_none() && used.any(is_hit)
        });
        ill.map(|(handle, _)| *handle).collect()
    }

    /// All that was on the device is gone.
    pub(super) fn lose(&mut self) {
        self.entries.clear();
        self.counts = [0; 3];
        self.stores.clear();
        self.constants.clear();
        self.kept.clear();
        self.cache.lose();
        self.arena.clear();
    }
}
