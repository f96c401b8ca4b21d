//! Who has how much of a device's memory, who may have more, and what it costs.
//!
//! Memory is counted in blocks, the pieces that are taken from the device: what is inside a block
//! is its tenant's own affair. A tenant is guaranteed so many blocks, and may borrow so many more
//! while nobody needs them. Keeps true:
//!
//! - All tenants together never have more blocks than the device, at any step.
//! - Guarantees together are never more than the device. So a tenant below its guarantee is short
//!   only because of blocks that others have borrowed: it is told so, what they give back is kept
//!   for it, and they are told how much to give back ([`Ledger::owed`]).
//! - No tenant has more than its guarantee and what it may borrow.
//! - Each block is billed for each nanosecond it was taken, to one tenant: all bills together are
//!   the sum over time of the blocks that were taken. Integers only.
//! - Of a tenant's bill, each of its stages has what its buffers took, byte by byte. What is left
//!   is the tenant's own: what all its stages share, what of its blocks nobody uses, and what
//!   stages had that are gone. So a tenant's bill is that of its stages and its own, exactly.
//!
//! Leaves to others: taking and clearing the memory, and when a stage can give back what it has
//! borrowed. A clock that goes back bills nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::slice::{Stage, Tenant};

/// How many blocks a tenant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Blocks that it can have at any time.
    pub guaranteed: u64,
    /// Blocks that it may have besides, while nobody needs them who is guaranteed them.
    pub borrowable: u64,
}

/// Why a tenant does not get blocks, or is not let in. Nothing but claims has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// It would have more than it may. It has to give some back first.
    #[error("the tenant would have more blocks than it may")]
    Quota,
    /// Nothing is left to be borrowed now.
    #[error("no blocks are left to be borrowed")]
    Full,
    /// It is guaranteed these, and others have borrowed them. From now on what is given back is
    /// kept for it, until it asks again or withdraws.
    #[error("others have to give back blocks that they have borrowed")]
    Lent,
    /// There is none.
    #[error("there is no such tenant")]
    Unknown,
    /// There is one of this number.
    #[error("there is a tenant of this number")]
    Exists,
    /// All guarantees together would be more than the device.
    #[error("all guarantees together would be more than the device")]
    Oversold,
    /// It gives back more than it has.
    #[error("the tenant does not have as many blocks")]
    Missing,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    blocks: u64,
    block_bytes: u64,
    accounts: BTreeMap<u64, Account>,
    /// Up to when is billed.
    now: u64,
    /// What tenants that are gone were billed, in blocks times nanoseconds.
    gone: u128,
}

#[derive(Debug, Default)]
struct Account {
    quota: Quota,
    held: u64,
    /// Blocks that are kept for it, at most what it is guaranteed and does not have.
    claimed: u64,
    /// Blocks times nanoseconds.
    billed: u128,
    /// Of stages that have or had some of it.
    holdings: BTreeMap<u32, Holding>,
}

/// What a stage has of its tenant's blocks.
#[derive(Debug, Default)]
struct Holding {
    bytes: u64,
    /// Bytes times nanoseconds, up to when.
    billed: u128,
    since: u64,
}

impl Holding {
    fn billed(&self, now: u64) -> u128 {
        self.billed + u128::from(self.bytes) * u128::from(now - self.since)
    }

    fn change(&mut self, now: u64, bytes: u64) {
        self.billed = self.billed(now);
        (self.bytes, self.since) = (bytes, now);
    }
}

impl Account {
    const fn borrowed(&self) -> u64 {
        self.held.saturating_sub(self.quota.guaranteed)
    }

    /// What may be kept for it.
    const fn owing(&self) -> u64 {
        self.quota.guaranteed.saturating_sub(self.held)
    }
}

impl Ledger {
    /// A device of so much memory, in blocks of a size. What is no whole block is nobody's.
    #[must_use]
    pub fn new(memory_bytes: u64, block_bytes: u64) -> Self {
        let block_bytes = block_bytes.max(1);
        let blocks = memory_bytes / block_bytes;
        Self { blocks, block_bytes, accounts: BTreeMap::new(), now: 0, gone: 0 }
    }

    /// Lets a tenant in.
    ///
    /// # Errors
    /// There is one of this number; the device is promised already.
    pub fn open(&mut self, now: Duration, tenant: Tenant, quota: Quota) -> Result<(), Refused> {
        if self.accounts.contains_key(&tenant.0) {
            return Err(Refused::Exists);
        }
        self.admit(quota, Quota::default())?;
        self.bill_up_to(now);
        self.accounts.insert(tenant.0, Account { quota, ..Account::default() });
        Ok(())
    }

    /// Gives a tenant another quota. What it has beyond that it keeps, as borrowed.
    ///
    /// # Errors
    /// There is no such tenant; the device is promised already.
    pub fn change(&mut self, tenant: Tenant, quota: Quota) -> Result<(), Refused> {
        let before = self.accounts.get(&tenant.0).ok_or(Refused::Unknown)?.quota;
        self.admit(quota, before)?;
        let account = self.accounts.get_mut(&tenant.0).ok_or(Refused::Unknown)?;
        account.quota = quota;
        account.claimed = account.claimed.min(account.owing());
        Ok(())
    }

    /// Has a tenant go with all it has, which is free from now on. What it was billed in all, in
    /// bytes times nanoseconds.
    ///
    /// # Errors
    /// There is no such tenant.
    pub fn close(&mut self, now: Duration, tenant: Tenant) -> Result<u128, Refused> {
        self.bill_up_to(now);
        let account = self.accounts.remove(&tenant.0).ok_or(Refused::Unknown)?;
        self.gone += account.billed;
        Ok(account.billed.saturating_mul(self.block_bytes.into()))
    }

    /// A tenant takes so many blocks, all or none.
    ///
    /// # Errors
    /// It may not have as many; nothing is left to be borrowed; others have borrowed what it is
    /// guaranteed; there is no such tenant.
    pub fn take(&mut self, now: Duration, tenant: Tenant, blocks: u64) -> Result<(), Refused> {
        self.bill_up_to(now);
        let (free, claimed) = (self.free(), self.claimed());
        let account = self.accounts.get_mut(&tenant.0).ok_or(Refused::Unknown)?;
        let most = account.quota.guaranteed.saturating_add(account.quota.borrowable);
        if blocks > most.saturating_sub(account.held) {
            return Err(Refused::Quota);
        }
        let is_guaranteed = blocks <= account.owing();
        if is_guaranteed && blocks > free {
            account.claimed = blocks;
            return Err(Refused::Lent);
        }
        // What is kept for others is not there to be borrowed.
        let kept = claimed - account.claimed;
        if !is_guaranteed && blocks > free.saturating_sub(kept) {
            return Err(Refused::Full);
        }
        account.held += blocks;
        account.claimed = 0;
        Ok(())
    }

    /// A tenant gives so many blocks back.
    ///
    /// # Errors
    /// It does not have as many; there is no such tenant.
    pub fn give(&mut self, now: Duration, tenant: Tenant, blocks: u64) -> Result<(), Refused> {
        self.bill_up_to(now);
        let account = self.accounts.get_mut(&tenant.0).ok_or(Refused::Unknown)?;
        account.held = account.held.checked_sub(blocks).ok_or(Refused::Missing)?;
        Ok(())
    }

    /// A tenant gives all it has back, and so its stages.
    ///
    /// # Errors
    /// There is no such tenant.
    pub fn give_all(&mut self, now: Duration, tenant: Tenant) -> Result<(), Refused> {
        self.bill_up_to(now);
        let now = self.now;
        let account = self.accounts.get_mut(&tenant.0).ok_or(Refused::Unknown)?;
        account.held = 0;
        account.holdings.values_mut().for_each(|holding| holding.change(now, 0));
        Ok(())
    }

    /// So many bytes of its tenant's blocks are a stage's from now on.
    ///
    /// # Errors
    /// There is no such tenant.
    pub fn hold(&mut self, now: Duration, stage: Stage, bytes: u64) -> Result<(), Refused> {
        self.bill_up_to(now);
        let now = self.now;
        let account = self.accounts.get_mut(&stage.tenant.0).ok_or(Refused::Unknown)?;
        let holding = account.holdings.entry(stage.number).or_default();
        holding.change(now, holding.bytes + bytes);
        Ok(())
    }

    /// So many bytes are a stage's no longer.
    ///
    /// # Errors
    /// It does not have as many; there is no such tenant.
    pub fn release(&mut self, now: Duration, stage: Stage, bytes: u64) -> Result<(), Refused> {
        self.bill_up_to(now);
        let now = self.now;
        let account = self.accounts.get_mut(&stage.tenant.0).ok_or(Refused::Unknown)?;
        let holding = account.holdings.get_mut(&stage.number).ok_or(Refused::Missing)?;
        holding.change(now, holding.bytes.checked_sub(bytes).ok_or(Refused::Missing)?);
        Ok(())
    }

    /// A stage is gone: what it had and what it was billed is its tenant's own.
    pub fn close_stage(&mut self, stage: Stage) {
        if let Some(account) = self.accounts.get_mut(&stage.tenant.0) {
            account.holdings.remove(&stage.number);
        }
    }

    /// Bytes that a stage has.
    #[must_use]
    pub fn held_by(&self, stage: Stage) -> u64 {
        let account = self.accounts.get(&stage.tenant.0);
        let holding = account.and_then(|account| account.holdings.get(&stage.number));
        holding.map_or(0, |holding| holding.bytes)
    }

    /// What of its tenant's bill a stage has up to now, in bytes times nanoseconds.
    #[must_use]
    pub fn billed_to(&mut self, now: Duration, stage: Stage) -> u128 {
        self.bill_up_to(now);
        let account = self.accounts.get(&stage.tenant.0);
        let holding = account.and_then(|account| account.holdings.get(&stage.number));
        holding.map_or(0, |holding| holding.billed(self.now))
    }

    /// Nothing is kept for a tenant any more: it does not need what it asked for.
    pub fn withdraw(&mut self, tenant: Tenant) {
        if let Some(account) = self.accounts.get_mut(&tenant.0) {
            account.claimed = 0;
        }
    }

    /// Who has to give back how many blocks it has borrowed, so that all claims can be met: those
    /// who have borrowed most first. Empty if nobody waits.
    #[must_use]
    pub fn owed(&self) -> Vec<(Tenant, u64)> {
        let mut short = self.claimed().saturating_sub(self.free());
        let borrowers = self.accounts.iter().filter(|(_, account)| account.borrowed() > 0);
        let mut borrowers: Vec<(u64, u64)> =
            borrowers.map(|(tenant, account)| (account.borrowed(), *tenant)).collect();
        borrowers.sort_unstable_by(|one, other| other.cmp(one));
        let mut owed = Vec::new();
        for (borrowed, tenant) in borrowers {
            let blocks = borrowed.min(short);
            if blocks > 0 {
                owed.push((Tenant(tenant), blocks));
            }
            short -= blocks;
        }
        owed
    }

    /// Blocks that a tenant has. None if there is no such tenant.
    #[must_use]
    pub fn held(&self, tenant: Tenant) -> Option<u64> {
        self.accounts.get(&tenant.0).map(|account| account.held)
    }

    /// Blocks that a tenant has beyond what it is guaranteed.
    #[must_use]
    pub fn borrowed(&self, tenant: Tenant) -> u64 {
        self.accounts.get(&tenant.0).map_or(0, Account::borrowed)
    }

    /// Blocks that nobody has.
    #[must_use]
    pub fn free(&self) -> u64 {
        let held: u64 = self.accounts.values().map(|account| account.held).sum();
        self.blocks - held
    }

    /// What a tenant was billed up to now, in bytes times nanoseconds. None if there is no such
    /// tenant.
    #[must_use]
    pub fn billed(&mut self, now: Duration, tenant: Tenant) -> Option<u128> {
        self.bill_up_to(now);
        let account = self.accounts.get(&tenant.0)?;
        Some(account.billed.saturating_mul(self.block_bytes.into()))
    }

    /// What all tenants were billed up to now, also those that are gone: bytes times nanoseconds.
    #[must_use]
    pub fn billed_in_all(&mut self, now: Duration) -> u128 {
        self.bill_up_to(now);
        let billed: u128 = self.accounts.values().map(|account| account.billed).sum();
        (billed + self.gone).saturating_mul(self.block_bytes.into())
    }

    fn claimed(&self) -> u64 {
        self.accounts.values().map(|account| account.claimed).sum()
    }

    fn admit(&self, quota: Quota, before: Quota) -> Result<(), Refused> {
        let promised: u64 = self.accounts.values().map(|account| account.quota.guaranteed).sum();
        let others = promised - before.guaranteed;
        if quota.guaranteed > self.blocks - others { Err(Refused::Oversold) } else { Ok(()) }
    }

    fn bill_up_to(&mut self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let passed = u128::from(now.saturating_sub(self.now));
        self.now = self.now.max(now);
        if passed == 0 {
            return;
        }
        for account in self.accounts.values_mut() {
            account.billed += u128::from(account.held) * passed;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Tenant = Tenant(1);
    const B: Tenant = Tenant(2);

    fn at(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    /// Ten blocks of 16 bytes: A is guaranteed 6 and B 4, and each may borrow as many more.
    fn two() -> Ledger {
        let mut ledger = Ledger::new(10 * 16 + 15, 16);
        for (tenant, guaranteed, borrowable) in [(A, 6, 4), (B, 4, 6)] {
            ledger.open(at(0), tenant, Quota { guaranteed, borrowable }).unwrap();
        }
        ledger
    }

    #[test]
    fn no_more_than_the_device_is_guaranteed() {
        let mut ledger = two();
        let quota = |guaranteed| Quota { guaranteed, borrowable: u64::MAX };
        assert_eq!(ledger.open(at(0), Tenant(3), quota(1)), Err(Refused::Oversold));
        assert_eq!(ledger.open(at(0), A, quota(0)), Err(Refused::Exists));
        assert_eq!(ledger.change(A, quota(7)), Err(Refused::Oversold));
        assert_eq!(ledger.change(A, quota(5)), Ok(()));
        assert_eq!(ledger.open(at(0), Tenant(3), quota(u64::MAX)), Err(Refused::Oversold));
        assert_eq!(ledger.open(at(0), Tenant(3), quota(1)), Ok(()));
        assert_eq!(ledger.take(at(0), Tenant(3), u64::MAX), Err(Refused::Full));
    }

    #[test]
    fn a_tenant_has_no_more_than_it_may() {
        let mut ledger = two();
        ledger.change(B, Quota { guaranteed: 4, borrowable: 2 }).unwrap();
        assert_eq!(ledger.take(at(0), B, 7), Err(Refused::Quota));
        assert_eq!(ledger.take(at(0), B, 6), Ok(()));
        assert_eq!(ledger.take(at(0), B, 1), Err(Refused::Quota));
        assert_eq!(ledger.give(at(0), B, 7), Err(Refused::Missing));
        assert_eq!(ledger.held(B), Some(6));
    }

    #[test]
    fn what_was_lent_is_given_back_to_whom_it_is_guaranteed() {
        let mut ledger = two();
        let third = Tenant(3);
        ledger.open(at(0), third, Quota { guaranteed: 0, borrowable: 9 }).unwrap();
        ledger.take(at(0), B, 9).unwrap();
        ledger.take(at(0), third, 1).unwrap();
        assert_eq!(ledger.take(at(0), A, 4), Err(Refused::Lent));
        assert_eq!(ledger.owed(), [(B, 4)]);
        ledger.give(at(0), B, 3).unwrap();
        // It is kept for A, whoever would like to borrow it.
        assert_eq!(ledger.take(at(0), third, 1), Err(Refused::Full));
        assert_eq!(ledger.take(at(0), B, 1), Err(Refused::Full));
        assert_eq!(ledger.owed(), [(B, 1)]);
        ledger.give(at(0), third, 1).unwrap();
        assert_eq!(ledger.take(at(0), A, 4), Ok(()));
        assert_eq!(ledger.owed(), []);
    }

    #[test]
    fn what_is_withdrawn_can_be_borrowed() {
        let mut ledger = two();
        ledger.take(at(0), B, 10).unwrap();
        assert_eq!(ledger.take(at(0), A, 1), Err(Refused::Lent));
        ledger.give(at(0), B, 1).unwrap();
        assert_eq!(ledger.take(at(0), B, 1), Err(Refused::Full));
        ledger.withdraw(A);
        assert_eq!(ledger.take(at(0), B, 1), Ok(()));
    }

    #[test]
    fn no_more_is_kept_for_a_tenant_than_it_is_guaranteed() {
        let mut ledger = two();
        ledger.take(at(0), B, 10).unwrap();
        assert_eq!(ledger.take(at(0), A, 4), Err(Refused::Lent));
        ledger.change(A, Quota { guaranteed: 2, borrowable: 8 }).unwrap();
        assert_eq!(ledger.owed(), [(B, 2)]);
    }

    #[test]
    fn blocks_are_billed_for_the_time_they_were_taken() {
        let mut ledger = two();
        ledger.take(at(10), A, 2).unwrap();
        ledger.take(at(13), A, 1).unwrap();
        assert_eq!(ledger.billed(at(15), A), Some(16 * (2 * 3 + 3 * 2)));
        assert_eq!(ledger.billed(at(11), A), Some(16 * 12));
        assert_eq!(ledger.close(at(16), A), Ok(16 * 15));
        assert_eq!(ledger.billed_in_all(at(99)), 16 * 15);
        assert_eq!([ledger.close(at(16), A), Err(Refused::Unknown)], [Err(Refused::Unknown); 2]);
    }

    #[test]
    fn a_stage_has_its_part_of_the_bill() {
        let mut ledger = two();
        let [one, two] = [1, 2].map(|number| Stage { tenant: A, number });
        ledger.take(at(0), A, 2).unwrap();
        ledger.hold(at(0), one, 20).unwrap();
        ledger.hold(at(3), two, 4).unwrap();
        ledger.hold(at(5), one, 2).unwrap();
        assert_eq!((ledger.held_by(one), ledger.held_by(two)), (22, 4));
        assert_eq!(ledger.billed_to(at(7), one), 20 * 5 + 22 * 2);
        assert_eq!(ledger.billed_to(at(6), two), 4 * 4, "a clock that goes back bills nothing");
        assert_eq!(ledger.release(at(7), two, 5), Err(Refused::Missing));
        ledger.release(at(7), two, 4).unwrap();
        assert_eq!((ledger.billed_to(at(9), two), ledger.held_by(two)), (16, 0));
        ledger.give_all(at(10), A).unwrap();
        assert_eq!((ledger.billed_to(at(20), one), ledger.held_by(one)), (100 + 22 * 5, 0));
        assert_eq!((ledger.billed(at(20), A), ledger.held(A)), (Some(320), Some(0)));
        // What it was billed is its tenant's still.
        ledger.close_stage(one);
        assert_eq!(ledger.billed_to(at(20), one), 0);
        assert_eq!(ledger.billed(at(20), A), Some(320));
        assert_eq!(
            ledger.hold(at(20), Stage { tenant: Tenant(9), number: 1 }, 1),
            Err(Refused::Unknown)
        );
    }

    /// Does something that hosts do; what it does follows from the numbers. A refusal is an answer
    /// like any other here.
    fn step(ledger: &mut Ledger, now: Duration, what: u8, tenant: Tenant, blocks: u64) {
        let quota = Quota { guaranteed: blocks / 2, borrowable: blocks };
        if what == 5 {
            return ledger.withdraw(tenant);
        }
        match what {
            0 => ledger.open(now, tenant, quota).ok(),
            1 => ledger.close(now, tenant).map(|_| ()).ok(),
            2 => ledger.change(tenant, quota).ok(),
            3 | 4 => ledger.give(now, tenant, blocks / 2).ok(),
            _ => ledger.take(now, tenant, blocks).ok(),
        };
    }

    proptest! {
        #[test]
        fn memory_is_never_oversold_and_billed_exactly(
            steps in prop::collection::vec((0_u64..50, 0_u8..12, 0_u64..4, 0_u64..14), 1..120),
        ) {
            let mut ledger = Ledger::new(20 * 8, 8);
            let (mut now, mut billed) = (0, 0);
            for (passed, what, tenant, blocks) in steps {
                billed += u128::from(20 - ledger.free()) * u128::from(passed) * 8;
                now += passed;
                step(&mut ledger, at(now), what, Tenant(tenant), blocks);
                let held: u64 = (0..4).filter_map(|tenant| ledger.held(Tenant(tenant))).sum();
                prop_assert_eq!(held + ledger.free(), 20);
                prop_assert_eq!(ledger.billed_in_all(at(now)), billed);
            }
            for tenant in 0..4 {
                step(&mut ledger, at(now), 1, Tenant(tenant), 0);
            }
            prop_assert_eq!(ledger.free(), 20);
            prop_assert_eq!(ledger.billed_in_all(at(now)), billed);
        }

        #[test]
        fn who_gives_back_what_it_owes_lets_every_claim_be_met(
            takes in prop::collection::vec((0_u64..4, 1_u64..14), 1..80),
        ) {
            let mut ledger = Ledger::new(20, 1);
            for tenant in 0..4 {
                let quota = Quota { guaranteed: 5, borrowable: 8 };
                ledger.open(at(0), Tenant(tenant), quota).unwrap();
            }
            for (tenant, blocks) in takes {
                let tenant = Tenant(tenant);
                prop_assert!((0..4).all(|tenant| ledger.held(Tenant(tenant)).unwrap() <= 13));
                if ledger.take(at(0), tenant, blocks) == Err(Refused::Lent) {
                    for (debtor, owed) in ledger.owed() {
                        prop_assert!(ledger.held(debtor).unwrap() - owed >= 5);
                        ledger.give(at(0), debtor, owed).unwrap();
                    }
                    prop_assert_eq!(ledger.owed(), []);
                    prop_assert_eq!(ledger.take(at(0), tenant, blocks), Ok(()));
                } else if blocks % 3 == 0 {
                    let held = ledger.held(tenant).unwrap();
                    ledger.give(at(0), tenant, held.min(blocks)).unwrap();
                }
            }
        }
    }
}
