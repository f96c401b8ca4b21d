//! Buffers and constants: made, written, read, attached, dropped.
//!
//! Keeps true: a buffer reads as zeros until it is written, whichever of the tenant's had its place
//! before; nothing is written or read while a submission that has not ended uses it; and what is
//! attached is not written any more. What a driver lets kernels read behind a uniform binding is
//! the buffer's own, or zeros: others of the tenant's instances have theirs in the same piece of
//! memory.

use std::ops::Range;
use std::time::Duration;

use super::arena::Place;
use super::space::{Freed, Purpose, Store, What};
use super::words::Owner;
use super::{Host, Refused};
use crate::device::{Block, Device};
use crate::ledger::{self, Quota};
use crate::slice::{Stage, Tenant};

/// What places begin at multiples of at least, whatever the device wants: a line of most caches.
pub(super) const GRAIN_BYTES_MIN: u64 = 64;
/// Multiples to which a driver may round up how long a uniform binding is.
const UNIFORM_BYTES_MAX: u64 = 256;
/// What lengths of buffers are multiples of.
const WORD_BYTES: u64 = 4;

/// Memory is cleared in pieces of these.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl<D: Device> Host<D> {
    /// Makes a buffer, all zeros.
    ///
    /// # Errors
    /// It is none or not a multiple of 4 bytes; the owner's tenant has as many or as much as it
    /// may; there is no memory for it now.
    pub fn create(&mut self, now: Duration, who: Owner, bytes: u64) -> Result<u64, Refused> {
        let handle = self.expect_room(who, bytes)?;
        let store = self.take(now, who, bytes, Purpose::Buffer(who.stage.number))?;
        self.space_mut(who)?.insert(handle, who, What::Buffer(store));
        Ok(handle)
    }

    /// Makes a handle of a constant: bytes that the whole tenant shares and nobody writes. They are
    /// written once, and are there as long as anybody has a handle, and then until their memory is
    /// wanted for something else.
    ///
    /// # Errors
    /// As of [`create`](Self::create); the hash is not their blake3.
    pub fn constant(
        &mut self,
        now: Duration,
        who: Owner,
        hash: [u8; 32],
        bytes: &[u8],
    ) -> Result<u64, Refused> {
        if let Some(handle) = self.find_constant(who, hash)? {
            return Ok(handle);
        }
        let handle = self.expect_room(who, bytes.len() as u64)?;
        if blake3::hash(bytes) != hash {
            return Err(Refused::Constant);
        }
        let store = self.take(now, who, bytes.len() as u64, Purpose::Constant(hash))?;
        if let Err(why) = self.put(who, store, 0, bytes) {
            self.discard(now, who.tenant(), store);
            return Err(why);
        }
        let space = self.space_mut(who)?;
        space.constants.insert(hash, store);
        space.insert(handle, who, What::Buffer(store));
        Ok(handle)
    }

    /// Makes a handle of a constant that is there already; none if it is not.
    ///
    /// # Errors
    /// The owner's tenant has as many as it may; there is no such tenant or stage.
    pub fn find_constant(&mut self, who: Owner, hash: [u8; 32]) -> Result<Option<u64>, Refused> {
        let space = self.space(who)?;
        let Some(store) = space.constants.get(&hash).copied() else { return Ok(None) };
        space.room_for_buffer()?;
        let handle = self.numbers.next()?;
        self.touch(who, store);
        self.space_mut(who)?.insert(handle, who, What::Buffer(store));
        Ok(Some(handle))
    }

    /// Writes to a buffer.
    ///
    /// # Errors
    /// It is not there, not as large, a constant, or attached; a submission uses it.
    pub fn write(
        &mut self,
        who: Owner,
        buffer: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        let (number, store) = self.store(who, buffer)?;
        expect_inside(store, offset, bytes.len() as u64)?;
        if self.space(who)?.is_read_only(buffer, store) {
            return Err(Refused::ReadOnly(buffer));
        }
        if store.readers + store.writers > 0 {
            return Err(Refused::Busy(buffer));
        }
        self.put(who, number, offset, bytes)?;
        if let Some(store) = self.space_mut(who)?.stores.get_mut(&number) {
            store.cleanse(offset, bytes.len() as u64);
        }
        Ok(())
    }

    /// Reads a buffer or a constant.
    ///
    /// # Errors
    /// It is not there, or not as large; a submission writes it; one that did not end whole has.
    pub fn read(
        &mut self,
        who: Owner,
        buffer: u64,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), Refused> {
        let bytes = into.len() as u64;
        let (number, store) = self.store(who, buffer)?;
        expect_inside(store, offset, bytes)?;
        if store.writers > 0 {
            return Err(Refused::Busy(buffer));
        }
        if store.is_poisoned(offset, bytes) {
            return Err(Refused::Poisoned(buffer));
        }
        let place = store.place;
        self.settle_before(self.info.copies_wait)?;
        let read = self.device()?.read(place.block, place.offset + offset, into);
        let took = self.noted(read)?;
        self.slicer.charge_copy(who.stage, took);
        self.touch(who, number);
        self.moved.down_bytes += bytes;
        if let Some(state) = self.space_mut(who)?.stages.get_mut(&who.stage.number) {
            state.down_bytes += bytes;
        }
        Ok(())
    }

    /// How many bytes a buffer or a constant has.
    ///
    /// # Errors
    /// It is not there.
    pub fn bytes(&self, who: Owner, buffer: u64) -> Result<u64, Refused> {
        self.store(who, buffer).map(|(_, store)| store.bytes)
    }

    /// Gives a buffer or a constant to a holder: an owner of the same stage that stands for a
    /// batch rather than for an instance. The handle stays. From now on every owner of the tenant
    /// reads it, nobody writes it, and it is there until the holder goes, whatever becomes of
    /// `who`.
    ///
    /// The handle of a constant goes the same way. Whoever needs the constant further makes
    /// another handle, which moves no bytes.
    ///
    /// What the holder has already stays with it, so that a call that is made again may attach it
    /// again.
    ///
    /// # Errors
    /// It is not there, or another holder has it; the holder is not of the same tenant and stage;
    /// a submission that has not ended uses it, unless it is a constant.
    pub fn attach(&mut self, who: Owner, buffer: u64, holder: Owner) -> Result<(), Refused> {
        let (_, store) = self.store(who, buffer)?;
        if holder.stage != who.stage {
            return Err(Refused::Foreign);
        }
        match self.space(who)?.holder(buffer) {
            Some(before) if before == holder => return Ok(()),
            Some(_) => return Err(self.numbers.missing("buffer", buffer)),
            None => {}
        }
        if store.constant.is_none() && store.readers + store.writers > 0 {
            return Err(Refused::Busy(buffer));
        }
        self.space_mut(who)?.attach(buffer, holder);
        Ok(())
    }

    /// Drops a buffer, a constant, a kernel or a graph. What a submission needs of it stays until
    /// that has ended.
    ///
    /// # Errors
    /// It is not there, or a holder has it.
    pub fn drop_handle(&mut self, now: Duration, who: Owner, handle: u64) -> Result<(), Refused> {
        self.space(who)?;
        if self.remove(now, who, handle) {
            return Ok(());
        }
        Err(self.numbers.missing("handle", handle))
    }

    /// The store of a buffer that an owner may read, and its number.
    pub(super) fn store(&self, who: Owner, buffer: u64) -> Result<(u64, &Store), Refused> {
        let space = self.space(who)?;
        if space.is_recalled(who, buffer) {
            return Err(Refused::Recalled { handle: buffer });
        }
        let number = space.buffer(who, buffer);
        let found = number.and_then(|number| Some((number, space.stores.get(&number)?)));
        found.ok_or_else(|| self.numbers.missing("buffer", buffer))
    }

    /// A handle is over, if it was one.
    pub(super) fn remove(&mut self, now: Duration, who: Owner, handle: u64) -> bool {
        let space = self.spaces.get_mut(&who.tenant().0);
        let Some(store) = space.and_then(|space| space.remove(who, handle)) else { return false };
        if let Some(store) = store {
            self.reclaim(now, who.tenant(), store);
        }
        true
    }

    /// Gives the memory of a store back, if nothing needs it and it is not to be kept.
    pub(super) fn reclaim(&mut self, now: Duration, tenant: Tenant, store: u64) {
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return };
        let freed = space.reclaim(store);
        self.give_back(now, tenant, freed);
        self.bound_kept(now, tenant);
    }

    /// Gives the memory of a store back, which nothing needs.
    pub(super) fn discard(&mut self, now: Duration, tenant: Tenant, store: u64) {
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return };
        let freed = space.take_out(store);
        self.give_back(now, tenant, freed);
    }

    fn give_back(&mut self, now: Duration, tenant: Tenant, freed: Option<Freed>) {
        let Some(Freed { piece, stage, bytes }) = freed else { return };
        if let Some(number) = stage {
            let released = self.ledger.release(now, Stage { tenant, number }, bytes);
            debug_assert_eq!(released, Ok(()), "it was held");
        }
        let Some((block, blocks)) = piece else { return };
        if let Some(device) = &mut self.device {
            device.free(block);
        }
        let given = self.ledger.give(now, tenant, blocks);
        debug_assert_eq!(given, Ok(()), "it was taken");
    }

    /// A store was used now.
    pub(super) fn touch(&mut self, who: Owner, store: u64) {
        self.uses += 1;
        if let Some(space) = self.spaces.get_mut(&who.tenant().0) {
            space.touch(store, self.uses);
        }
    }

    /// A handle for a buffer of so many bytes, if there may be one.
    fn expect_room(&mut self, who: Owner, bytes: u64) -> Result<u64, Refused> {
        self.space(who)?.room_for_buffer()?;
        if bytes == 0 || !bytes.is_multiple_of(WORD_BYTES) {
            let why = "buffers have a multiple of 4 bytes, and some";
            return Err(Refused::Range { offset: 0, bytes, why });
        }
        self.device()?;
        self.numbers.next()
    }

    /// Takes memory for a store that nobody has a handle of yet. It is zeros unless it is to be a
    /// constant.
    fn take(
        &mut self,
        now: Duration,
        who: Owner,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<u64, Refused> {
        let number = self.numbers.next()?;
        let tenant = who.tenant();
        let (place, old) = loop {
            match self.place(now, tenant, bytes) {
                Ok(found) => break found,
                Err(why) if self.make_room(now, tenant, &why) => {}
                Err(why) => return Err(why),
            }
        };
        self.uses += 1;
        let store = Store::new(place, bytes, purpose, self.uses);
        let from = match (store.stage, purpose) {
            // All but what is behind it is written at once.
            (_, Purpose::Constant(_)) => place.offset + bytes,
            (stage, Purpose::Buffer(_)) => {
                let held = stage.map(|number| Stage { tenant, number });
                let held = held.map_or(Ok(()), |it| self.ledger.hold(now, it, place.bytes()));
                debug_assert_eq!(held, Ok(()), "the tenant is there");
                old.start
            }
        };
        self.open_space(tenant)?.stores.insert(number, store);
        let cleared = self.clear(who.stage, place.block, old.start.max(from)..old.end);
        if let Err(why) = cleared {
            self.discard(now, tenant, number);
            return Err(why);
        }
        Ok(number)
    }

    /// A place in the tenant's memory, or in more of the device's, and what of it may hold old
    /// bytes.
    fn place(
        &mut self,
        now: Duration,
        tenant: Tenant,
        bytes: u64,
    ) -> Result<(Place, Range<u64>), Refused> {
        let grain = self.info.limits.offset_bytes.max(GRAIN_BYTES_MIN);
        // What is large would take long to be cleared: it begins a new piece.
        let is_small = bytes <= self.settings.block_bytes / 2;
        let padded = bytes.saturating_add(slack(grain));
        let arena = &mut self.open_space(tenant)?.arena;
        let found = if is_small { arena.take(padded, grain) } else { None };
        match found {
            Some(found) => Ok(found),
            None => Ok((self.grow(now, tenant, bytes, grain)?, 0..0)),
        }
    }

    /// Takes a piece of the device's memory, and a place in it.
    fn grow(
        &mut self,
        now: Duration,
        tenant: Tenant,
        bytes: u64,
        grain: u64,
    ) -> Result<Place, Refused> {
        let block_bytes = self.settings.block_bytes;
        let blocks = bytes.checked_next_multiple_of(grain).map(|taken| taken.div_ceil(block_bytes));
        let blocks = blocks.unwrap_or(u64::MAX);
        self.pay(now, tenant, bytes, blocks)?;
        // What has been paid for can be counted in bytes.
        let piece_bytes = blocks * block_bytes;
        // Nothing follows on a piece.
        let taken = (bytes + slack(grain)).next_multiple_of(grain).min(piece_bytes);
        let answer = self.device().and_then(|device| Ok(device.allocate(piece_bytes)?));
        let block = answer.or_else(|why| {
            let given = self.ledger.give(now, tenant, blocks);
            debug_assert_eq!(given, Ok(()), "it was taken just now");
            match why {
                Refused::Device(why) => self.noted(Err(why)),
                why => Err(why),
            }
        })?;
        Ok(self.open_space(tenant)?.arena.add(block, piece_bytes, blocks, taken))
    }

    /// Has the ledger give blocks to a tenant, for so many bytes.
    fn pay(
        &mut self,
        now: Duration,
        tenant: Tenant,
        bytes: u64,
        blocks: u64,
    ) -> Result<(), Refused> {
        let block_bytes = self.settings.block_bytes;
        self.ledger.take(now, tenant, blocks).map_err(|why| {
            let quota = self.spaces.get(&tenant.0).map(|space| self.quota(&space.terms));
            let Some(Quota { guaranteed, borrowable }) = quota else {
                return Refused::Tenant(tenant.0);
            };
            if why != ledger::Refused::Quota {
                return Refused::Memory { bytes, why };
            }
            let held = self.ledger.held(tenant).unwrap_or_default();
            let in_bytes = |blocks: u64| blocks.saturating_mul(block_bytes);
            Refused::Limit {
                what: "bytes of the device's memory, in whole blocks",
                found: in_bytes(held.saturating_add(blocks)),
                limit: in_bytes(guaranteed.saturating_add(borrowable)),
                fix: "drop buffers",
            }
        })
    }

    /// Writes zeros over what a place may hold of others.
    fn clear(&mut self, stage: Stage, block: Block, old: Range<u64>) -> Result<(), Refused> {
        if old.is_empty() {
            return Ok(());
        }
        self.settle_before(self.info.copies_wait)?;
        let mut from = old.start;
        while from < old.end {
            let bytes = (old.end - from).min(ZEROS.len() as u64);
            let written = self.device()?.write(block, from, &ZEROS[..bytes as usize]);
            let took = self.noted(written)?;
            self.slicer.charge_copy(stage, took);
            from += bytes;
        }
        Ok(())
    }

    /// Writes to a store, and counts it.
    fn put(&mut self, who: Owner, store: u64, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let Some(place) = self.space(who)?.stores.get(&store).map(|store| store.place) else {
            return Ok(());
        };
        self.settle_before(self.info.copies_wait)?;
        let written = self.device()?.write(place.block, place.offset + offset, bytes);
        let took = self.noted(written)?;
        self.slicer.charge_copy(who.stage, took);
        self.touch(who, store);
        self.moved.up_bytes += bytes.len() as u64;
        if let Some(state) = self.space_mut(who)?.stages.get_mut(&who.stage.number) {
            state.up_bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Bytes behind a buffer that are nobody's. There are none where bindings begin at such multiples
/// that they end in the same place as their buffer, however they are rounded up.
const fn slack(grain: u64) -> u64 {
    if grain < UNIFORM_BYTES_MAX { UNIFORM_BYTES_MAX - WORD_BYTES } else { 0 }
}

fn expect_inside(store: &Store, offset: u64, bytes: u64) -> Result<(), Refused> {
    match offset.checked_add(bytes) {
        Some(end) if end <= store.bytes => Ok(()),
        _ => Err(Refused::Range { offset, bytes, why: "the buffer does not have them" }),
    }
}
