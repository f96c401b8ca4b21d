//! What pipelines keep on disk, by tenant and by pipeline.
//!
//! - The thread of checkpoints counts it, at the start and behind each checkpoint, and puts all of
//!   it here at once. In between it stands still: the quota `disk-bytes` is looked at, never drawn
//!   from.
//! - A tenant's figure is shared with its [`crate::tenancy::Tenancy`], so that a look at it costs
//!   ingest two loads.
//!
//! How it is counted is in `checkpoint/weigh.rs`; what a tenant over its quota is told in `error`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sluicebox_core::ids::{Name, PipelineId};

use crate::mailbox::lock;
use crate::tenancy::Metered;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DiskUse {
    tenants: Mutex<BTreeMap<Name, Arc<Metered>>>,
    pipelines: Mutex<BTreeMap<PipelineId, u64>>,
}

impl DiskUse {
    /// A tenant's figure. Its quota is set by whoever knows it.
    pub(crate) fn of(&self, tenant: &Name) -> Arc<Metered> {
        let fresh = || Arc::new(Metered::new(u64::MAX));
        lock(&self.tenants).entry(tenant.clone()).or_insert_with(fresh).clone()
    }

    /// What a pipeline keeps; nothing for one that was not counted yet.
    pub(crate) fn of_pipeline(&self, pipeline: PipelineId) -> u64 {
        lock(&self.pipelines).get(&pipeline).copied().unwrap_or(0)
    }

    /// All tenants with a figure, in the order of their names.
    pub(crate) fn all(&self) -> Vec<(Name, Arc<Metered>)> {
        lock(&self.tenants).iter().map(|(name, used)| (name.clone(), used.clone())).collect()
    }

    /// Puts new figures in the place of all there were.
    pub(crate) fn set(&self, kept: &[(PipelineId, &Name, u64)]) {
        let mut sums: BTreeMap<&Name, u64> = BTreeMap::new();
        for (_, tenant, bytes) in kept {
            *sums.entry(tenant).or_default() += bytes;
        }
        *lock(&self.pipelines) = kept.iter().map(|(id, _, bytes)| (*id, *bytes)).collect();
        for tenant in sums.keys() {
            let _made = self.of(tenant);
        }
        for (tenant, used) in lock(&self.tenants).iter() {
            used.set_used(sums.get(tenant).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_the_sum_of_its_pipelines_and_nothing_when_they_are_gone() {
        let disk = DiskUse::default();
        let (ann, bob) = (Name::new("ann").unwrap(), Name::new("bob").unwrap());
        let held = disk.of(&ann);
        let [one, two, three] = [1, 2, 3].map(PipelineId);
        disk.set(&[(one, &ann, 5), (two, &bob, 7), (three, &ann, 6)]);
        assert_eq!((held.used(), disk.of(&bob).used()), (11, 7));
        assert_eq!((disk.of_pipeline(three), disk.of_pipeline(PipelineId(4))), (6, 0));
        disk.set(&[(two, &bob, 8)]);
        assert_eq!((held.used(), disk.of(&bob).used(), disk.of_pipeline(one)), (0, 8, 0));
        assert_eq!(disk.all().len(), 2);
    }
}
