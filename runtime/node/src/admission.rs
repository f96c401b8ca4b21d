//! Draws from a tenant's quota before work begins; a permit is returned when the work ends.
//!
//! - One account a tenant, made when the tenant is first seen and kept for the life of the node,
//!   so that a reload of the tenants file never forgets what is lent.
//! - A lock is held for one draw. A draw of several amounts succeeds whole or changes nothing.
//! - A [`Permit`] puts back on drop exactly what it holds.
//! - Apart from tenants, the bodies of requests that are in memory at one time are bounded for the
//!   node as a whole ([`Budget`]).
//!
//! What allowances there are comes from `tenants`; the arithmetic is `core::quota`; what a refused
//! client is told is decided in `http`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use dashmap::DashMap;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::{Allowance, Ledger, Refused, Resource};

use crate::tenants;

/// The accounts of all tenants and the budget for bodies.
#[derive(Debug)]
pub struct Admission {
    accounts: DashMap<Name, Arc<Account>>,
    bodies: Arc<Budget>,
}

impl Admission {
    /// No accounts yet. Bodies in memory are bounded by `body_bytes_max` together.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        Self { accounts: DashMap::new(), bodies: Arc::new(Budget::new(body_bytes_max)) }
    }

    /// The account of a tenant; made with what the tenants file allows now, or, if it is no longer
    /// in the file, with nothing.
    #[must_use]
    pub fn account(&self, tenant: &Name, tenants: &tenants::Set) -> Arc<Account> {
        if let Some(known) = self.accounts.get(tenant) {
            return Arc::clone(&known);
        }
        let allowance = tenants.tenant(tenant).map_or(NOTHING, |known| known.allowance);
        let entry = self.accounts.entry(tenant.clone());
        Arc::clone(&entry.or_insert_with(|| Arc::new(Account::new(allowance))))
    }

    /// Puts the allowances of a newly read tenants file in force.
    pub fn refresh(&self, tenants: &tenants::Set) {
        for entry in &self.accounts {
            let allowance = tenants.tenant(entry.key()).map_or(NOTHING, |known| known.allowance);
            entry.value().change(allowance);
        }
    }

    /// The node's budget for bodies in memory.
    #[must_use]
    pub fn bodies(&self) -> &Arc<Budget> {
        &self.bodies
    }
}

/// What a tenant has that is no longer in the file.
const NOTHING: Allowance = {
    let mut none = Allowance::DEFAULT;
    let mut at = 0;
    while at < Resource::ALL.len() {
        none.set_limit(Resource::ALL[at], 0);
        at += 1;
    }
    none
};

/// One tenant's account.
#[derive(Debug)]
pub struct Account(Mutex<Ledger>);

impl Account {
    /// An account with nothing lent.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        Self(Mutex::new(Ledger::new(allowance, now_micros())))
    }

    /// Spends from rates, all or none.
    ///
    /// # Errors
    /// [`Refused`] for the first that there is not enough of.
    pub fn spend(&self, draws: &[(Resource, u64)]) -> Result<(), Refused> {
        debug_assert!(draws.iter().all(|draw| draw.0.is_rate()), "counted resources are lent");
        self.lock().draw_all(draws, now_micros())
    }

    /// Borrows from a counted resource until the permit is dropped.
    ///
    /// # Errors
    /// [`Refused`] if there is not enough of it.
    pub fn lend(self: &Arc<Self>, resource: Resource, amount: u64) -> Result<Permit, Refused> {
        debug_assert!(!resource.is_rate(), "rates are spent");
        self.lock().draw(resource, amount, now_micros())?;
        Ok(Permit { account: Arc::clone(self), resource, amount })
    }

    /// Whether a draw of one unit of each of some rates would be refused now; for a look before
    /// work begins.
    ///
    /// # Errors
    /// What such a draw would be told.
    pub fn look(&self, rates: &[Resource]) -> Result<(), Refused> {
        let mut ledger = self.lock();
        let now = now_micros();
        rates.iter().try_for_each(|rate| {
            if ledger.left(*rate, now) > 0 { Ok(()) } else { ledger.draw(*rate, 1, now) }
        })
    }

    /// How much of a counted resource is lent.
    #[must_use]
    pub fn lent(&self, resource: Resource) -> u64 {
        self.lock().lent(resource)
    }

    fn change(&self, allowance: Allowance) {
        let mut ledger = self.lock();
        if *ledger.allowance() != allowance {
            ledger.change(allowance, now_micros());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A ledger that found more put back than lent has panicked before it changed anything.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An amount of a counted resource that is lent. Dropping it puts the amount back.
#[derive(Debug)]
pub struct Permit {
    account: Arc<Account>,
    resource: Resource,
    amount: u64,
}

impl Permit {
    /// How much is lent.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Borrows more, or puts some back.
    ///
    /// # Errors
    /// [`Refused`] if there is not enough; the permit holds what it held.
    pub fn resize(&mut self, amount: u64) -> Result<(), Refused> {
        let mut ledger = self.account.lock();
        if let Some(more) = amount.checked_sub(self.amount) {
            ledger.draw(self.resource, more, now_micros())?;
        } else {
            ledger.put_back(self.resource, self.amount - amount);
        }
        drop(ledger);
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.account.lock().put_back(self.resource, self.amount);
    }
}

/// Microseconds since the first call: a clock that only goes forward, the same for all accounts.
fn now_micros() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes that many may hold together.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Nothing held.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    /// Takes bytes; `None` if there are not as many left.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let mut held = Held { budget: Arc::clone(self), bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Bytes of a budget. Dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Bytes held by this.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more; false, and nothing taken, if there are not as many left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.budget.max);
        let order = Ordering::Relaxed;
        let taken = self.budget.held.fetch_update(order, order, add).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// Gives back all but so many.
    pub fn shrink(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        self.budget.held.fetch_sub(over, Ordering::Relaxed);
        self.bytes -= over;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::quota::Rate;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    #[test]
    fn a_permit_puts_back_what_it_holds() {
        let account = Arc::new(Account::new(Allowance { pipelines: 3, ..Allowance::DEFAULT }));
        let mut permit = account.lend(Resource::Pipelines, 2).expect("enough");
        assert!(permit.resize(4).is_err());
        assert_eq!((permit.amount(), account.lent(Resource::Pipelines)), (2, 2));
        permit.resize(3).expect("enough");
        assert!(account.lend(Resource::Pipelines, 1).is_err());
        permit.resize(1).expect("less");
        drop(permit);
        assert_eq!(account.lent(Resource::Pipelines), 0);
    }

    #[test]
    fn spending_stops_at_the_rate_and_says_so_before_the_work() {
        let events = Rate { per_second: 1, burst: 10 };
        let account = Account::new(Allowance { events, ..Allowance::DEFAULT });
        account.look(&[Resource::Bytes, Resource::Events]).expect("a full bucket");
        account.spend(&[(Resource::Events, 10), (Resource::Bytes, 5)]).expect("a full bucket");
        let refused = account.spend(&[(Resource::Bytes, 1), (Resource::Events, 2)]).unwrap_err();
        assert_eq!(refused.resource, Resource::Events);
        assert!(refused.retry_after_micros.is_some());
        assert!(account.look(&[Resource::Bytes, Resource::Events]).is_err());
    }

    #[test]
    fn accounts_outlive_a_reload_and_get_its_allowances() {
        let admission = Admission::new(100);
        let tenants = tenants::Tenants::dev(Allowance::DEFAULT);
        let account = admission.account(&name("dev"), &tenants.current());
        let permit = account.lend(Resource::Streams, 5).expect("enough");
        assert!(Arc::ptr_eq(&account, &admission.account(&name("dev"), &tenants.current())));
        admission.refresh(&tenants::Set::default());
        assert!(account.lend(Resource::Streams, 1).is_err(), "the tenant is no longer known");
        assert_eq!(account.lent(Resource::Streams), 5);
        drop(permit);
        let stranger = admission.account(&name("stranger"), &tenants.current());
        assert!(stranger.look(&[Resource::Events]).is_err());
    }

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = Arc::new(Budget::new(100));
        let mut held = budget.take(60).expect("room");
        assert!(budget.take(41).is_none());
        assert!(held.grow(40));
        assert!(!held.grow(1));
        assert!(!held.grow(usize::MAX));
        held.shrink(30);
        held.shrink(50);
        assert_eq!((budget.held(), held.bytes()), (30, 30));
        drop(held);
        assert_eq!(budget.held(), 0);
    }
}
