//! The engine with everything a guest may import linked, and the permits that keep demand below
//! the pool's size.
//!
//! The pool answers a request beyond its size with an error, it does not wait; so whoever wants an
//! instance or a stack takes a permit first, and waits for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::error::{Error, engine_text};
use crate::host::{self, Host};
use crate::invoker::Short;
use crate::stage::TenantSlots;
use crate::tuning::{EngineConfig, runtime_engine};

/// Fuel of one slice: 40 to 70 microseconds of guest code that computes, a quarter of a millisecond
/// of code that waits for memory nearly all the time, on the machine this was measured on
/// (`cargo bench -p sluicebox-engine --bench stage -- slice`). Giving the thread back costs under a
/// microsecond. Correctness does not depend on it, only how finely tenants alternate.
pub const SLICE_FUEL: u64 = 500_000;

/// See the module.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Host>,
    /// Instances, by weight.
    instances: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    /// Grows each time somebody finds no instance free: a sign to drop idle ones.
    pressure: AtomicU64,
    /// The same of shares of tenants.
    shares: AtomicU64,
    pressed: Notify,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("instances_free", &self.instances.available_permits())
            .field("calls_free", &self.calls.available_permits())
            .finish_non_exhaustive()
    }
}

/// The right to hold one instance.
#[derive(Debug)]
pub(crate) struct InstancePermit {
    _node: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

/// The right to have one call in flight.
#[derive(Debug)]
pub(crate) struct CallPermit {
    _node: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Sandbox {
    /// Starts the engine.
    ///
    /// # Errors
    /// A setting is out of range, or the machine refuses the reservation.
    pub fn new(config: &EngineConfig) -> Result<Self, Error> {
        let engine = runtime_engine(config)?;
        let mut linker = Linker::new(&engine);
        host::add_to_linker(&mut linker).map_err(|error| Error::Start(engine_text(&error)))?;
        Ok(Self {
            engine,
            linker,
            instances: Arc::new(Semaphore::new(config.instances as usize)),
            calls: Arc::new(Semaphore::new(config.stacks as usize)),
            pressure: AtomicU64::new(0),
            shares: AtomicU64::new(0),
            pressed: Notify::new(),
        })
    }

    /// The engine, to load artefacts with.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<Host> {
        &self.linker
    }

    /// A number that grows while instances are short. Whoever keeps idle ones looks at it now and
    /// then, and drops them when it has changed.
    #[must_use]
    pub fn pressure(&self) -> u64 {
        self.pressure.load(Ordering::Acquire)
    }

    /// A number that grows while the share of some tenant is short: which one its own number says
    /// ([`TenantSlots::pressure`]).
    #[must_use]
    pub fn pressure_of_shares(&self) -> u64 {
        self.shares.load(Ordering::Acquire)
    }

    /// Lets those know that instances are short, or what they need, who can do something about it:
    /// everybody, or whoever has some of the tenant if it is its own share.
    pub(crate) fn press(&self, tenant: &TenantSlots, why: Short) {
        match why {
            Short::Others => self.pressure.fetch_add(1, Ordering::Release),
            Short::Quota => {
                tenant.pressure.fetch_add(1, Ordering::Release);
                self.shares.fetch_add(1, Ordering::Release)
            }
        };
        self.pressed.notify_waiters();
    }

    /// Waits until one of these numbers grows; it is to be polled once before they are looked at.
    pub fn pressed(&self) -> Notified<'_> {
        self.pressed.notified()
    }

    /// An instance permit if there is one now, or what is short. `weight` is what the component
    /// takes of the pool.
    pub(crate) fn try_instance(
        &self,
        tenant: &TenantSlots,
        weight: u32,
    ) -> Result<InstancePermit, Short> {
        let tenant = tenant.instances.clone().try_acquire_owned().map_err(|_| Short::Quota)?;
        let node = self.instances.clone().try_acquire_many_owned(weight);
        let node = node.map_err(|_| Short::Others)?;
        Ok(InstancePermit { _node: node, _tenant: tenant })
    }

    /// Waits for an instance permit.
    pub(crate) async fn instance(
        &self,
        tenant: &TenantSlots,
        weight: u32,
    ) -> Option<InstancePermit> {
        let tenant = tenant.instances.clone().acquire_owned().await.ok()?;
        let node = self.instances.clone().acquire_many_owned(weight).await.ok()?;
        Some(InstancePermit { _node: node, _tenant: tenant })
    }

    /// Waits for the right to make a call.
    pub(crate) async fn call(&self, tenant: &TenantSlots) -> Option<CallPermit> {
        let tenant = match tenant.calls.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tenant.calls.clone().acquire_owned().await.ok()?,
        };
        let node = match self.calls.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.calls.clone().acquire_owned().await.ok()?,
        };
        Some(CallPermit { _node: node, _tenant: tenant })
    }
}
