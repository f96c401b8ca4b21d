//! One tenant at run time: its share of the engine, its state, its turn on the workers.
//!
//! Made when a tenant's first pipeline runs, shared by all its pipelines, and adjusted when the
//! tenants file changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicebox_core::ids::Name;
use sluicebox_core::quota::Allowance;
use sluicebox_engine::stage::TenantSlots;

use crate::traces::{TenantTraces, Traces};

/// At most one in so many bytes of the quota for state may be of parked events, and as many of
/// timers: they cannot leave memory, and the rest has to be enough for what a call needs.
const HELD_PART: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Tenancy {
    name: Name,
    /// Tells tenants apart in tables indexed by number.
    number: usize,
    weight: AtomicUsize,
    slots: Arc<TenantSlots>,
    state_bytes: Metered,
    parked_bytes: Metered,
    timer_bytes: Metered,
    streams: Metered,
    disk_bytes: Arc<Metered>,
    traces: Option<Arc<TenantTraces>>,
}

/// What a tenant uses at the moment, against a quota: mostly a sum over all its partitions.
#[derive(Debug)]
pub(crate) struct Metered {
    used: AtomicUsize,
    most: AtomicUsize,
}

impl Metered {
    pub(crate) fn new(most: u64) -> Self {
        let meter = Self { used: AtomicUsize::new(0), most: AtomicUsize::new(0) };
        meter.set_most(most);
        meter
    }

    pub(crate) fn set_most(&self, most: u64) {
        self.most.store(usize::try_from(most).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The quota.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// What is used.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What may be added now. Partitions on other threads may add at the same time, so a quota is
    /// overdrawn by at most one batch of each worker.
    pub(crate) fn room(&self) -> usize {
        self.most().saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Another amount is used now, whatever it was.
    pub(crate) fn set_used(&self, used: u64) {
        self.used.store(usize::try_from(used).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// A partition's part of the sum has changed.
    pub(crate) fn changed(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl Tenancy {
    pub(crate) fn new(
        name: Name,
        number: usize,
        weight: u8,
        (slots, disk_bytes): (TenantSlots, Arc<Metered>),
        allowance: &Allowance,
    ) -> Self {
        disk_bytes.set_most(allowance.disk_bytes);
        Self {
            name,
            number,
            weight: AtomicUsize::new(weight.into()),
            slots: Arc::new(slots),
            state_bytes: Metered::new(allowance.state_bytes),
            parked_bytes: Metered::new(allowance.state_bytes / HELD_PART),
            timer_bytes: Metered::new(allowance.state_bytes / HELD_PART),
            streams: Metered::new(allowance.streams),
            disk_bytes,
            traces: None,
        }
    }

    /// The same, of a node that keeps traces.
    pub(crate) fn traced(self, traces: Option<&Arc<Traces>>) -> Self {
        let traces = traces.map(|traces| traces.of_tenant(&self.name));
        Self { traces, ..self }
    }

    /// Its traces, where somebody wants them.
    pub(crate) fn traces(&self) -> Option<&Arc<TenantTraces>> {
        self.traces.as_ref()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Its share of the workers beside other tenants'.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed).max(1) as u64
    }

    pub(crate) fn slots(&self) -> &Arc<TenantSlots> {
        &self.slots
    }

    /// Takes over what the tenants file says now.
    pub(crate) fn adjust(&self, weight: u8, allowance: &Allowance) {
        self.weight.store(weight.into(), Ordering::Relaxed);
        self.state_bytes.set_most(allowance.state_bytes);
        self.parked_bytes.set_most(allowance.state_bytes / HELD_PART);
        self.timer_bytes.set_most(allowance.state_bytes / HELD_PART);
        self.streams.set_most(allowance.streams);
        self.disk_bytes.set_most(allowance.disk_bytes);
        self.slots.memory.set_limit(allowance.memory_bytes);
    }

    /// Bytes of keyed state.
    pub(crate) fn state_bytes(&self) -> &Metered {
        &self.state_bytes
    }

    /// Bytes of parked events; they are among those of keyed state.
    pub(crate) fn parked_bytes(&self) -> &Metered {
        &self.parked_bytes
    }

    /// Bytes of timers; they are among those of keyed state.
    pub(crate) fn timer_bytes(&self) -> &Metered {
        &self.timer_bytes
    }

    /// Open streams.
    pub(crate) fn streams(&self) -> &Metered {
        &self.streams
    }

    /// Bytes on disk of what its pipelines keep, as of the last checkpoint.
    pub(crate) fn disk_bytes(&self) -> &Metered {
        &self.disk_bytes
    }
}
