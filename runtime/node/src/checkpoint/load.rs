//! Reading a checkpoint back, at the start.
//!
//! - State stays where it is: that a stage has some is all that is read of it. So a start takes the
//!   same time whatever is in the store. Only what is held is read, which is bounded.
//! - A checkpoint that did not stand may have left entries from beyond the horizon. State of that
//!   kind does no harm, as the log is read on from the horizon and says all of it again; events of
//!   outputs from there are passed over, since reading the log gives them too.
//! - What the entries of the store are is noted for the next checkpoint, which changes them.

use sluicebox_core::dedup::{Dedup, DedupLimits};
use sluicebox_core::frame::expand;
use sluicebox_core::ids::{Name, OutputId, Part, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::partition::{Leads, SegmentIds, StageIds};
use sluicebox_core::recovery::{Fold, Folded};
use sluicebox_store::log::Position;
use sluicebox_store::store::keys::{self, Id};
use sluicebox_store::store::{PageLimit, Store};

use super::collect::{Collected, Left};
use super::entries::{self, Of};
use crate::backing::Backing;
use crate::error::Error;
use crate::mailbox::lock;
use crate::moving::Groups;
use crate::recover::Found;

/// Entries read at a time.
const PAGE: PageLimit = PageLimit { entries: 4096, bytes: 4 * 1024 * 1024 };

/// To see whether there is anything.
const ONE: PageLimit = PageLimit { entries: 1, bytes: 1 };

/// Where to go on.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The fold at the horizon.
    pub fold: Fold,
    /// From here on the log has to be read.
    pub horizon: Position,
    /// At least up to here.
    pub reach: Position,
}

/// Reads the last checkpoint.
pub(crate) fn load(
    store: &dyn Store,
    found: &mut Found,
    collected: &mut Collected,
) -> Result<Loaded, Error> {
    let extent = store.extent();
    let (horizon, reach) = (Position(extent.horizon), Position(extent.reach));
    collected.note_reach(reach);
    load_accounts(store, collected)?;
    if horizon == Position(0) {
        return Ok(Loaded { fold: Fold::new(), horizon, reach });
    }
    let kept = store.get(&entries::fold(horizon.0))?;
    let kept = kept.ok_or_else(|| damaged("the fold is missing"))?;
    let fold = Fold::from_kept(&kept).map_err(|error| damaged(&error.to_string()))?;
    collected.note_fold(&fold, horizon.0);
    for (id, folded) in fold.pipelines() {
        Loading { id, folded, found, collected, only: None }.pipeline(store)?;
    }
    Ok(Loaded { fold, horizon, reach })
}

/// Reads what came of a pipeline from another node, whose record was just folded. It was in the
/// store before.
pub(crate) fn load_opened(
    store: &dyn Store,
    (fold, id): (&Fold, PipelineId),
    found: Option<&mut Found>,
    collected: &mut Collected,
) -> Result<(), Error> {
    let Some(folded) = fold.pipeline(id) else { return Ok(()) };
    collected.note_opened(id, folded);
    let (seed, bytes_max, backing) = collected.beside();
    let mut aside = Found::new(seed, bytes_max, backing);
    let found = found.unwrap_or(&mut aside);
    Loading { id, folded, found, collected, only: None }.pipeline(store)
}

/// Reads what is held of partitions that came from another node, and the names of slots that came
/// with them, when the record is folded at the start.
pub(crate) fn load_joined(
    store: &dyn Store,
    (fold, id): (&Fold, PipelineId),
    partitions: &[u16],
    (found, collected): (&mut Found, &mut Collected),
) -> Result<(), Error> {
    let Some(folded) = fold.pipeline(id) else { return Ok(()) };
    let is_its = |known: &PipelineId, at: &u16| *known == id && partitions.contains(at);
    // They may have been here before.
    found.held.retain(|(known, _, at), _| !is_its(known, at));
    let groups = Groups::of_fold((id, folded), partitions);
    let prefixes: Vec<Vec<u8>> = groups.names().chain(groups.held()).collect();
    let mut loading = Loading { id, folded, found, collected, only: Some(&groups) };
    prefixes.iter().try_for_each(|prefix| loading.all(store, prefix))?;
    loading.stages(store, groups.of)
}

/// The same by the thread of checkpoints, behind which it is as any other.
pub(super) fn load_arrived(
    store: &dyn Store,
    (fold, id): (&Fold, PipelineId),
    (backing, collected): (&Backing, &mut Collected),
) -> Result<(), Error> {
    load_opened(store, (fold, id), None, collected)?;
    if let Some(folded) = fold.pipeline(id) {
        backing.note_arrived(Of::new(folded.tenant(), id));
    }
    Ok(())
}

/// Reads what tenants have used. An account may be of a checkpoint that did not stand: it says up
/// to where in the log it is, and is not told that again.
fn load_accounts(store: &dyn Store, collected: &Collected) -> Result<(), Error> {
    let prefix = keys::accounts();
    let mut from = prefix.clone();
    loop {
        let page = store.scan(&prefix, &from, PAGE)?;
        for (key, kept) in &page.entries {
            let Some(Id::Account { name, .. }) = Id::decode(key) else {
                return Err(damaged("a key is none of ours"));
            };
            let tenant = str::from_utf8(name).ok().and_then(|name| Name::new(name).ok());
            let tenant = tenant.ok_or_else(|| damaged("an account is of nobody"))?;
            let taken = lock(collected.books()).take_in(tenant, kept);
            taken.map_err(|error| damaged(&error.to_string()))?;
        }
        match page.next {
            Some(next) => from = next.to_vec(),
            None => return Ok(()),
        }
    }
}

fn damaged(what: &str) -> Error {
    Error::Internal(format!("the last checkpoint: {what}; restore the data directory"))
}

/// Takes the entries of one pipeline.
struct Loading<'a> {
    id: PipelineId,
    folded: &'a Folded,
    found: &'a mut Found,
    collected: &'a mut Collected,
    /// Of some partitions only.
    only: Option<&'a Groups>,
}

impl Loading<'_> {
    fn pipeline(&mut self, store: &dyn Store) -> Result<(), Error> {
        let of = Of::new(self.folded.tenant(), self.id);
        for prefix in keys::of_pipeline_but_state(of.tenant, self.id.0) {
            self.all(store, &prefix)?;
        }
        self.stages(store, of)?;
        self.held(store, of)
    }

    fn all(&mut self, store: &dyn Store, prefix: &[u8]) -> Result<(), Error> {
        let mut from = prefix.to_vec();
        loop {
            let page = store.scan(prefix, &from, PAGE)?;
            for (key, value) in &page.entries {
                self.take(key, value)?;
            }
            match page.next {
                Some(next) => from = next.to_vec(),
                None => return Ok(()),
            }
        }
    }

    fn take(&mut self, key: &[u8], value: &bytes::Bytes) -> Result<(), Error> {
        let id = Id::decode(key).ok_or_else(|| damaged("a key is none of ours"))?;
        if self.only.is_some_and(|groups| !groups.has(&id)) {
            return Ok(());
        }
        match id {
            Id::SlotName { place, slot } => {
                self.slot_name(StageId(place.stage), (place.group == 0).then_some(slot));
            }
            Id::Backlog { .. } => self.collected.note_waiting(key.to_vec()),
            Id::Dedup { event, .. } => self.known(key, event, value)?,
            Id::Output { place, port, offset } => {
                self.left((place.stage, place.group, port), offset, value)?;
            }
            Id::State { place, key, slot } => self.slot(StageId(place.stage), &key, (slot, value)),
            Id::Account { .. } | Id::Position { .. } => {}
        }
        Ok(())
    }

    /// Notes which stages have state in the store; the state itself is read when it is needed.
    fn stages(&mut self, store: &dyn Store, of: Of) -> Result<(), Error> {
        for (stage, _) in &self.folded.names().stages {
            let place = (self.id, *stage);
            if self.found.backing.has(place) {
                continue;
            }
            // Written by a checkpoint that did not stand, or before names were kept.
            let prefix = keys::state_of_stage(of.tenant, self.id.0, stage.0);
            if !store.scan(&prefix, &prefix, ONE)?.entries.is_empty() {
                self.collected.note_many(self.id, *stage);
            }
        }
        Ok(())
    }

    /// Reads what is held of each stage: when something is to be done is said nowhere else. It is
    /// bounded, and stays in memory.
    fn held(&mut self, store: &dyn Store, of: Of) -> Result<(), Error> {
        for (stage, _) in &self.folded.names().stages {
            for part in Part::HELD {
                let stage = stage.part(part);
                self.all(store, &keys::state_of_stage(of.tenant, self.id.0, stage.0))?;
            }
        }
        Ok(())
    }

    fn slot(&mut self, stage: StageId, key: &[u8], (slot, value): (&[u8], &[u8])) {
        let partition = key::partition_of(key::group_of(key), self.folded.partitions());
        self.found.held_at((self.id, stage, partition)).restore(key, slot, value);
    }

    fn slot_name(&mut self, stage: StageId, slot: Option<&[u8]>) {
        let place = (self.id, stage);
        match slot {
            Some(slot) => drop(self.found.backing.note(place, slot)),
            None => self.found.backing.note_many(place),
        }
    }

    fn known(&mut self, key: &[u8], event: &[u8], value: &[u8]) -> Result<(), Error> {
        let seed = self.found.seed;
        let dedup = self.found.dedup.entry(self.id);
        let dedup = dedup.or_insert_with(|| Dedup::new(seed, DedupLimits::DEFAULT));
        match entries::holds_ids(event) {
            Some(true) => {
                let ids: Vec<_> = entries::ids(value).collect();
                ids.iter().for_each(|id| dedup.note_event(id.hash, id.at, id.time));
                self.collected.note_ids(self.id, key.to_vec(), &ids);
            }
            Some(false) => {
                for producer in entries::producers(value) {
                    dedup.note_producer(producer);
                    self.collected.note_producer(self.id, producer);
                }
            }
            None => return Err(damaged("what it knows of producers cannot be read")),
        }
        Ok(())
    }

    fn left(
        &mut self,
        (number, partition, port): (u32, u16, u16),
        first: u64,
        value: &bytes::Bytes,
    ) -> Result<(), Error> {
        let dead = port == entries::DEAD_LETTER;
        if first >= self.next((number, partition), dead) {
            return Ok(());
        }
        let frame = expand(value.clone());
        let frame = frame.map_err(|error| damaged(&error.to_string()))?;
        let left = Left { first, bytes: frame.bytes().len(), place: None };
        if dead {
            let place = (self.id, StageId(number), partition);
            self.collected.note_dead(place, left);
            self.found.dead_letter(place, (first, frame));
        } else {
            let place = (self.id, OutputId(number), partition);
            self.collected.note_output(place, left);
            self.found.left(place, (first, frame));
        }
        Ok(())
    }

    /// The offset behind what the fold knows of an output or of dead letters.
    fn next(&self, (number, partition): (u32, u16), dead: bool) -> u64 {
        let output = OutputId(number);
        let leads = if dead { Vec::new() } else { vec![Leads::Output(output)] };
        let stages = vec![StageIds { stage: StageId(number), leads }];
        let ids = SegmentIds { pipeline: self.id, version: 0, partition, stages };
        let progress = self.folded.progress(&ids);
        match dead {
            true => progress.dead_letters,
            false => progress.offsets.get(&output).copied().unwrap_or(0),
        }
    }
}
