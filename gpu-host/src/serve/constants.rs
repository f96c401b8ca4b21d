//! Constants that come in parts, until all of one is there.
//!
//! An owner has one at a time, and its parts come in their order. One that is begun anew, or whose
//! parts do not fit, is dropped. What was begun counts in full, so that it can be ended, and
//! within its tenant first: who begins many keeps out itself before others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Owners;
use super::refusal::refusal;
use crate::host::{Owner, Refused};
use crate::slice::Tenant;
use crate::wire::Refusal;

/// Bytes of one constant.
pub(super) const CONSTANT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of those of a tenant that are not there yet: one as large as may be fits.
const TENANT_OPEN_BYTES_MAX: u64 = CONSTANT_BYTES_MAX;
/// Bytes of all that are not there yet.
pub(super) const OPEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The next part of a constant.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) hash: [u8; 32],
    /// Of all of it.
    pub(super) bytes: u64,
    pub(super) offset: u64,
    pub(super) part: &'a [u8],
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Constants {
    open: BTreeMap<Owner, Assembly>,
    /// Of all that are open.
    bytes: u64,
    /// Of those of each tenant that has any.
    tenants: BTreeMap<Tenant, u64>,
}

#[derive(Debug)]
struct Assembly {
    hash: [u8; 32],
    bytes: u64,
    begun: Vec<u8>,
}

impl Constants {
    /// All of a constant, if this was the last part.
    pub(super) fn add(
        &mut self,
        who: Owner,
        piece: &Piece<'_>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if piece.offset == 0 {
            self.begin(who, piece)?;
        }
        let is_whole = self.open.get_mut(&who).and_then(|assembly| assembly.add(piece));
        if is_whole != Some(false) {
            let done = self.discard(who);
            let why = "parts of a constant follow each other, up to its end";
            let (offset, bytes) = (piece.offset, piece.part.len() as u64);
            is_whole.ok_or_else(|| refusal(Refused::Range { offset, bytes, why }))?;
            return Ok(done);
        }
        Ok(None)
    }

    /// Some owners are gone, and what they have begun.
    pub(super) fn forget(&mut self, owners: &Owners) {
        let gone = self.open.range(owners.clone()).map(|(who, _)| *who);
        for who in gone.collect::<Vec<_>>() {
            self.discard(who);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.bytes == 0 && self.tenants.is_empty()
    }

    fn begin(&mut self, who: Owner, piece: &Piece<'_>) -> Result<(), Refusal> {
        self.discard(who);
        let limit =
            |what, found, limit, fix| Err(refusal(Refused::Limit { what, found, limit, fix }));
        let (bytes, hash) = (piece.bytes, piece.hash);
        if bytes > CONSTANT_BYTES_MAX {
            let fix = "make several of it";
            return limit("bytes of a constant", bytes, CONSTANT_BYTES_MAX, fix);
        }
        let tenant = who.tenant();
        let theirs = self.tenants.get(&tenant).copied().unwrap_or_default() + bytes;
        if theirs > TENANT_OPEN_BYTES_MAX {
            let fix = "have its instances write theirs to the end, one after the other";
            let what = "bytes of constants of the tenant that are being written";
            return limit(what, theirs, TENANT_OPEN_BYTES_MAX, fix);
        }
        if self.bytes + bytes > OPEN_BYTES_MAX {
            let fix = "try again in a while";
            let what = "bytes of constants of all tenants that are being written";
            return limit(what, self.bytes + bytes, OPEN_BYTES_MAX, fix);
        }
        // It is small enough to be given at once. What is not written of it is not there.
        let begun = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        self.bytes += bytes;
        self.tenants.insert(tenant, theirs);
        self.open.insert(who, Assembly { hash, bytes, begun });
        Ok(())
    }

    fn discard(&mut self, who: Owner) -> Option<Vec<u8>> {
        let assembly = self.open.remove(&who)?;
        self.bytes -= assembly.bytes;
        if let Entry::Occupied(mut theirs) = self.tenants.entry(who.tenant()) {
            *theirs.get_mut() -= assembly.bytes;
            if *theirs.get() == 0 {
                theirs.remove();
            }
        }
        Some(assembly.begun)
    }
}

impl Assembly {
    /// Whether it is whole with one more part; none if that is not its next.
    fn add(&mut self, piece: &Piece<'_>) -> Option<bool> {
        let has = self.begun.len() as u64;
        let is_same = (self.hash, self.bytes, has) == (piece.hash, piece.bytes, piece.offset);
        let rest = self.bytes - has;
        let part = piece.part.len() as u64;
        if !is_same || part == 0 || part > rest {
            return None;
        }
        self.begun.extend_from_slice(piece.part);
        Some(part == rest)
    }
}
