//! What everybody has to pay for, and how they stand.
//!
//! Keeps true: bills of all tenants together, of those that are gone too, are what was used; and a
//! tenant's bill is those of its stages together, and its own: constants, which all its stages
//! share, what of its blocks no buffer takes, and what stages had that are gone.

use std::time::Duration;

use super::Host;
use super::space::StageState;
use super::words::{Bill, Figures, StageFigures, Used};
use crate::device::Device;
use crate::slice::{Stage, Tenant};

impl<D: Device> Host<D> {
    /// What a tenant has to pay for until now.
    #[must_use]
    pub fn bill(&mut self, now: Duration, tenant: Tenant) -> Option<Bill> {
        let space = self.spaces.get(&tenant.0)?;
        let mut used = space.moved;
        for state in space.stages.values() {
            used.up_bytes += state.up_bytes;
            used.down_bytes += state.down_bytes;
        }
        let time = self.slicer.bill(tenant)?;
        (used.device_nanos, used.chunks) = (time.nanos, time.chunks);
        used.copy_nanos = time.copy_nanos;
        Some(Bill { used, memory_byte_nanos: self.ledger.billed(now, tenant)? })
    }

    /// What of its tenant's bill is a stage's until now. Those of all stages are no more than the
    /// tenant's: what stages share is its own, and what those had that are gone.
    #[must_use]
    pub fn stage_bill(&mut self, now: Duration, stage: Stage) -> Option<Bill> {
        let state = self.spaces.get(&stage.tenant.0)?.stages.get(&stage.number)?;
        let time = self.slicer.stage_bill(stage)?;
        let StageState { up_bytes, down_bytes, .. } = *state;
        let used = Used {
            device_nanos: time.nanos,
            chunks: time.chunks,
            copy_nanos: time.copy_nanos,
            up_bytes,
            down_bytes,
        };
        Some(Bill { used, memory_byte_nanos: self.ledger.billed_to(now, stage) })
    }

    /// What was used in all, by those that are gone as well: the sum of all bills.
    #[must_use]
    pub fn bill_in_all(&mut self, now: Duration) -> Bill {
        let chunks = self.spaces.keys().filter_map(|tenant| self.slicer.bill(Tenant(*tenant)));
        let chunks = chunks.map(|bill| bill.chunks).sum::<u64>() + self.slicer.gone().chunks;
        let (device_nanos, copy_nanos) = (self.slicer.busy_nanos(), self.slicer.copy_nanos());
        let used = Used { device_nanos, chunks, copy_nanos, ..self.moved };
        Bill { used, memory_byte_nanos: self.ledger.billed_in_all(now) }
    }

    /// How all tenants and their stages stand now.
    pub fn figures(&mut self, now: Duration) -> Vec<Figures> {
        let tenants: Vec<Tenant> = self.spaces.keys().copied().map(Tenant).collect();
        tenants.into_iter().filter_map(|tenant| self.figures_of(now, tenant)).collect()
    }

    /// Memory that a tenant holds, as it is billed.
    #[must_use]
    pub fn held_bytes(&self, tenant: Tenant) -> Option<u64> {
        Some(self.ledger.held(tenant)? * self.settings.block_bytes)
    }

    /// Who has to give back how many bytes it has borrowed, so that all get what they are
    /// guaranteed and have asked for. It is taken from them when it is asked for; what is left is
    /// what the device works with, and what is attached to events.
    #[must_use]
    pub fn owed(&self) -> Vec<(Tenant, u64)> {
        let owed = self.ledger.owed().into_iter();
        owed.map(|(tenant, blocks)| (tenant, blocks * self.settings.block_bytes)).collect()
    }

    /// Nothing is kept for a tenant any more of what it was guaranteed and did not get.
    pub fn withdraw(&mut self, tenant: Tenant) {
        self.ledger.withdraw(tenant);
    }

    fn figures_of(&mut self, now: Duration, tenant: Tenant) -> Option<Figures> {
        let (bill, held_bytes) = (self.bill(now, tenant)?, self.held_bytes(tenant)?);
        let space = self.spaces.get(&tenant.0)?;
        let (handles, kept_bytes) = (space.handles(), space.kept_bytes());
        let (evictions, recalls) = (space.evictions, space.recalls);
        let queues = space.stages.iter().map(|(number, state)| (*number, state.queue));
        let mut stages = Vec::new();
        for (number, queue) in queues.collect::<Vec<_>>() {
            let stage = Stage { tenant, number };
            let (bill, held_bytes) = (self.stage_bill(now, stage)?, self.ledger.held_by(stage));
            stages.push(StageFigures { stage, bill, held_bytes, queue });
        }
        let figures =
            Figures { tenant, bill, held_bytes, kept_bytes, evictions, recalls, handles, stages };
        Some(figures)
    }
}
