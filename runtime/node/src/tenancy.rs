//! One tenant at run time: its share of the engine, its state, its turn on the workers.
//!
//! Made when a tenant's first pipeline runs, shared by all its pipelines, and adjusted when the
//! tenants file changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicebox_core::ids::Name;
use sluicebox_engine::stage::TenantSlots;

/// See the module.
#[derive(Debug)]
pub struct Tenancy {
    name: Name,
    /// Tells tenants apart in tables indexed by number.
    number: usize,
    weight: AtomicUsize,
    slots: Arc<TenantSlots>,
    state_bytes: AtomicUsize,
    state_bytes_max: AtomicUsize,
}

impl Tenancy {
    pub(crate) fn new(
        name: Name,
        number: usize,
        weight: u8,
        slots: TenantSlots,
        state_bytes_max: u64,
    ) -> Self {
        let state_bytes_max = usize::try_from(state_bytes_max).unwrap_or(usize::MAX);
        Self {
            name,
            number,
            weight: AtomicUsize::new(weight.into()),
            slots: Arc::new(slots),
            state_bytes: AtomicUsize::new(0),
            state_bytes_max: AtomicUsize::new(state_bytes_max),
        }
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
    pub(crate) fn adjust(&self, weight: u8, state_bytes_max: u64) {
        self.weight.store(weight.into(), Ordering::Relaxed);
        let max = usize::try_from(state_bytes_max).unwrap_or(usize::MAX);
        self.state_bytes_max.store(max, Ordering::Relaxed);
    }

    /// The quota on state.
    pub(crate) fn state_bytes_max(&self) -> usize {
        self.state_bytes_max.load(Ordering::Relaxed)
    }

    /// Bytes of state that may be added now.
    pub(crate) fn state_room(&self) -> usize {
        self.state_bytes_max().saturating_sub(self.state_bytes.load(Ordering::Relaxed))
    }

    /// A partition's state has changed in size.
    pub(crate) fn state_changed(&self, before: usize, after: usize) {
        if after >= before {
            self.state_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.state_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}
