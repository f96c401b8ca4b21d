//! Kernels that are tried elsewhere before the device is given them.
//!
//! A compiler takes seconds of some kernels, and a driver may die of one. So what is not known yet
//! is given out, checked on another thread and tried in another process, and the others are served
//! meanwhile. Keeps true:
//! - Whoever of a tenant asks for a kernel that is tried shares its trial.
//! - Of what waits there is no more than a tenant may have, and all together.
//! - Tenants take turns, and one kernel of each is tried at a time while others wait: who has slow
//!   ones waits for them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::Owners;
use super::refusal::would_block;
use crate::host::Owner;
use crate::kernel::{Kernel, KernelLimits, Rejected};
use crate::slice::Tenant;
use crate::wire::Refusal;

/// Kernels of a tenant that are tried or wait for it.
pub(super) const TENANT_TRIALS_MAX: usize = 4;
/// Kernels of all tenants that are.
const TRIALS_MAX: usize = 256;
/// Who waits for one of them.
const ASKERS_MAX: usize = 256;

/// A kernel that is to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// To say by what it has come to.
    pub number: u64,
    /// By [`Kernel::hash_of`].
    pub hash: [u8; 32],
    /// In WGSL.
    pub source: String,
    /// Its entry point.
    pub entry: String,
    /// What it may be.
    pub limits: KernelLimits,
}

impl Trial {
    /// Checks it, which takes up to some tenths of a second and asks no driver.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(&self) -> Result<Arc<Kernel>, Rejected> {
        Kernel::check(&self.source, &self.entry, &self.limits).map(Arc::new)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// In the order in which they came.
    open: BTreeMap<u64, Open>,
    last: u64,
    /// Whose was given out last.
    turn: Option<Tenant>,
}

/// One that is tried or waits for it.
#[derive(Debug)]
pub(super) struct Open {
    tenant: Tenant,
    pub(super) hash: [u8; 32],
    /// By which number, and who.
    pub(super) askers: Vec<(u64, Owner)>,
    /// None once it was given out.
    waiting: Option<Trial>,
}

impl Trials {
    /// Has a kernel tried, and its asker told. The trial's number is given here.
    pub(super) fn ask(&mut self, number: u64, who: Owner, mut trial: Trial) -> Result<(), Refusal> {
        let tenant = who.tenant();
        let same = |open: &&mut Open| (open.tenant, open.hash) == (tenant, trial.hash);
        if let Some(open) = self.open.values_mut().find(same) {
            if open.askers.len() >= ASKERS_MAX {
                return Err(would_block("too many wait for this kernel: try again later"));
            }
            open.askers.push((number, who));
            return Ok(());
        }
        let count = self.open.values().filter(|open| open.tenant == tenant).count();
        if count >= TENANT_TRIALS_MAX || self.open.len() >= TRIALS_MAX {
            return Err(would_block("too many new kernels are being compiled: try again later"));
        }
        self.last += 1;
        trial.number = self.last;
        let (hash, askers) = (trial.hash, vec![(number, who)]);
        self.open.insert(self.last, Open { tenant, hash, askers, waiting: Some(trial) });
        Ok(())
    }

    /// The next to be tried: the oldest of the tenant whose turn it is.
    pub(super) fn next(&mut self) -> Option<Trial> {
        let of = |is_meant: fn(&Open) -> bool| {
            let meant = self.open.values().filter(|open| is_meant(open));
            meant.map(|open| open.tenant).collect::<BTreeSet<_>>()
        };
        let waiting = of(|open| open.waiting.is_some());
        let tried = of(|open| open.waiting.is_none());
        let behind = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = waiting.range((behind, Bound::Unbounded)).chain(&waiting);
        let is_alone = waiting.len() == 1;
        let tenant = *turns.find(|tenant| is_alone || !tried.contains(tenant))?;
        self.turn = Some(tenant);
        let mut theirs = self.open.values_mut().filter(|open| open.tenant == tenant);
        theirs.find_map(|open| open.waiting.take())
    }

    /// One was tried.
    pub(super) fn end(&mut self, trial: u64) -> Option<Open> {
        self.open.remove(&trial)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Some owners are gone. What nobody waits for is not tried; what is tried counts until then.
    pub(super) fn forget(&mut self, owners: &Owners) {
        self.open.retain(|_, open| {
            open.askers.retain(|(_, who)| !owners.contains(who));
            !open.askers.is_empty() || open.waiting.is_none()
        });
    }
}

/// A source that may be worth a trial.
pub(super) fn expect_source<'a>(
    source: &'a [u8],
    entry: &str,
    limits: &KernelLimits,
) -> Result<&'a str, Rejected> {
    if source.len() > limits.source_bytes {
        let (found, limit) = (source.len() as u64, limits.source_bytes as u64);
        return Err(Rejected::Limit { what: "bytes of source", found, limit });
    }
    // The name is in the source, so that it has its bound from there.
    if entry.len() > source.len() {
        return Err(Rejected::Entry(format!("a name of {} bytes", entry.len())));
    }
    str::from_utf8(source)
        .map_err(|_| Rejected::Invalid { line: 0, message: "the source is no UTF-8".to_owned() })
}
