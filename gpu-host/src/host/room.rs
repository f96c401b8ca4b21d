//! Room for memory that is asked for and not there: constants that nobody needs make it first, then
//! what others have borrowed.
//!
//! Keeps true:
//! - A tenant that has as much as it may makes room by its own constants alone.
//! - What makes room for another tenant is beyond its own tenant's guarantee, but for constants
//!   where the device has less memory than it said.
//! - Buffers are taken from a tenant only for one that is guaranteed the memory, and no more of
//!   them than it has borrowed as far as pieces allow. Whoever uses one is told that it is gone.
//! - Of constants the one goes first that was used least recently; where only whole pieces help,
//!   the piece. Of borrowed pieces those first that nothing on the device uses.

use std::time::Duration;

use super::words::End;
use super::{Host, Refused};
use crate::Error;
use crate::device::Device;
use crate::ledger;
use crate::slice::{Stage, Tenant};

/// Constants of a tenant that are kept though nobody needs them.
const KEPT_MAX: usize = 1_024;

impl<D: Device> Host<D> {
    /// Whether there may be room now for what was refused.
    pub(super) fn make_room(&mut self, now: Duration, tenant: Tenant, why: &Refused) -> bool {
        match why {
            Refused::Limit { .. } => self.evict_own(now, tenant),
            Refused::Device(Error::Memory { .. }) => self.evict(now, tenant, true),
            Refused::Memory { why: ledger::Refused::Full, .. } => self.evict(now, tenant, false),
            Refused::Memory { why: ledger::Refused::Lent, .. } => {
                self.evict(now, tenant, false) || self.recall(now)
            }
            _ => false,
        }
    }

    /// No more constants are kept than may be.
    pub(super) fn bound_kept(&mut self, now: Duration, tenant: Tenant) {
        let is_over =
            |host: &Self| host.spaces.get(&tenant.0).is_some_and(|space| space.kept() > KEPT_MAX);
        while is_over(self) && self.evict_own(now, tenant) {}
    }

    /// A tenant that goes keeps nothing.
    pub(super) fn drop_kept(&mut self, now: Duration, tenant: Tenant) {
        let kept = self.spaces.get(&tenant.0).map(super::space::Space::all_kept);
        for store in kept.unwrap_or_default() {
            self.discard(now, tenant, store);
        }
    }

    fn evict_own(&mut self, now: Duration, tenant: Tenant) -> bool {
        let space = self.spaces.get(&tenant.0);
        let Some((_, stores)) = space.and_then(|space| space.first_kept()) else { return false };
        self.evict_these(now, tenant, stores)
    }

    /// Has a constant that nobody needs make room, of the tenant that asks or of those that have
    /// borrowed; `of_any` is of any.
    fn evict(&mut self, now: Duration, asks: Tenant, of_any: bool) -> bool {
        let mut first: Option<(u64, Tenant, Vec<u64>)> = None;
        for (number, space) in &self.spaces {
            let tenant = Tenant(*number);
            let found = if tenant == asks {
                space.first_kept()
            } else if of_any || self.ledger.borrowed(tenant) > 0 {
                space.first_kept_piece()
            } else {
                None
            };
            if let Some((used, stores)) = found
                && first.as_ref().is_none_or(|(least, ..)| used < *least)
            {
                first = Some((used, tenant, stores));
            }
        }
        first.is_some_and(|(_, tenant, stores)| self.evict_these(now, tenant, stores))
    }

    fn evict_these(&mut self, now: Duration, tenant: Tenant, stores: Vec<u64>) -> bool {
        if let Some(space) = self.spaces.get_mut(&tenant.0) {
            space.evictions += stores.len() as u64;
        }
        for store in stores {
            self.discard(now, tenant, store);
        }
        true
    }

    /// Takes back what is owed to those who are guaranteed it. Whether some of it is there now:
    /// what the device works with comes later, and is kept for who is owed it.
    fn recall(&mut self, now: Duration) -> bool {
        let before = self.ledger.free();
        for (debtor, owed) in self.ledger.owed() {
            self.recall_from(now, debtor, owed);
        }
        self.ledger.free() > before
    }

    fn recall_from(&mut self, now: Duration, debtor: Tenant, owed: u64) {
        let Some(space) = self.spaces.get(&debtor.0) else { return };
        let (pieces, mut going) = space.lent(self.ledger.borrowed(debtor));
        for piece in pieces {
            if going >= owed {
                return;
            }
            going += piece.blocks;
            let Some(space) = self.spaces.get_mut(&debtor.0) else { return };
            let (stores, users) = space.recall(piece.block);
            for submission in users {
                self.end(now, debtor, submission, End::Recalled);
            }
            for store in stores {
                self.reclaim(now, debtor, store);
            }
            self.reap(now, debtor);
        }
    }

    /// A stage is gone: what it has left is its tenant's own.
    pub(super) fn inherit(&mut self, stage: Stage) {
        if let Some(space) = self.spaces.get_mut(&stage.tenant.0) {
            space.inherit(stage.number);
        }
        self.ledger.close_stage(stage);
    }
}
