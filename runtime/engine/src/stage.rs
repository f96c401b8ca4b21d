//! A stage as the engine runs it: linked code, and the settings every instance of it gets.
//!
//! [`StageCode`] is made once for each component and shared by all stages that use it;
//! [`StageSettings`] once for each stage of a pipeline version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use sluicebox_core::pipeline::StageLimits;
use tokio::sync::Semaphore;
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use crate::component::World;
use crate::error::{Error, engine_text};
use crate::gpu::Gpu;
use crate::host::Host;
use crate::http::Http;
use crate::image::{Accessor, FreshCell};
use crate::sandbox::Sandbox;
use crate::snapshot;
use crate::tuning::weight;

/// What names of interfaces begin with that need the grant `gpu`.
const GPU_PACKAGE: &str = "sluicebox:gpu/";
/// The same of the grant `keyvalue`.
const KEYVALUE_PACKAGE: &str = "wasi:keyvalue/";
/// The same of the grant `http`.
const HTTP_PACKAGE: &str = "wasi:http/";

/// A component ready to be instantiated.
pub struct StageCode {
    pub(crate) pre: InstancePre<Host>,
    pub(crate) handle: ComponentExportIndex,
    pub(crate) world: World,
    /// What an instance takes of the pool, in instances of the usual size.
    pub(crate) weight: u32,
    /// How its memory is reached, or why it is not.
    pub(crate) accessor: Result<Accessor, String>,
    /// What it says of its instances itself, if it does.
    pub(crate) snapshot: Option<snapshot::Exports>,
    wants: Wants,
}

/// What a component imports that only a stage with the grant of that name is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// `sluicebox:gpu`.
    pub gpu: bool,
    /// `wasi:keyvalue`.
    pub keyvalue: bool,
    /// `wasi:http`.
    pub http: bool,
}

impl Wants {
    fn of(component: &Component) -> Self {
        let mut wants = Self::default();
        for (name, _) in component.component_type().imports(component.engine()) {
            wants.gpu |= name.starts_with(GPU_PACKAGE);
            wants.keyvalue |= name.starts_with(KEYVALUE_PACKAGE);
            wants.http |= name.starts_with(HTTP_PACKAGE);
        }
        wants
    }
}

impl std::fmt::Debug for StageCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageCode").field("world", &self.world).finish_non_exhaustive()
    }
}

impl StageCode {
    /// Links a component that passed inspection.
    ///
    /// # Errors
    /// An import is missing or of another type, or there is no `handle` of either world.
    pub fn link(sandbox: &Sandbox, component: &Component) -> Result<Self, Error> {
        let (item, handle) = component
            .get_export(None, "handle")
            .ok_or_else(|| Error::Link("the component exports no function `handle`".to_owned()))?;
        let world = world_of(&item)
            .ok_or_else(|| Error::Link("`handle` has the signature of neither world".to_owned()))?;
        let pre = sandbox
            .linker()
            .instantiate_pre(component)
            .map_err(|error| Error::Link(engine_text(&error)))?;
        let needs = component.resources_required();
        let weight = needs.map_or(1, |needs| weight(needs.num_memories, needs.num_tables));
        let wants = Wants::of(component);
        // What it has on a device, or of requests, would be missing of an image.
        let accessor = if wants.gpu {
            Err("it uses a GPU, and no image has what is there".to_owned())
        } else if wants.http {
            Err("it makes HTTP requests, and no image has what is under way".to_owned())
        } else {
            Accessor::of(component)
        };
        let snapshot = snapshot::Exports::of(component);
        Ok(Self { pre, handle, world, weight, accessor, snapshot, wants })
    }

    /// Whether instances can have images, or why not. Known before any traffic.
    ///
    /// # Errors
    /// The reason, as part of a sentence.
    pub fn images(&self) -> Result<(), String> {
        match &self.accessor {
            Err(reason) if self.snapshot.is_none() => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Whether the stage says itself what another instance needs to go on.
    #[must_use]
    pub fn snapshots(&self) -> bool {
        self.snapshot.is_some()
    }

    /// What it imports that needs a grant.
    #[must_use]
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// Which world it speaks.
    #[must_use]
    pub fn world(&self) -> World {
        self.world
    }
}

/// The framed world takes bytes, the typed one records; the full types are checked when a
/// function is taken from an instance.
fn world_of(handle: &ComponentItem) -> Option<World> {
    let ComponentItem::ComponentFunc(function) = handle else { return None };
    let (_, parameter) = function.params().next()?;
    let Type::List(list) = parameter else { return None };
    Some(match list.ty() {
        Type::U8 => World::Framed,
        _ => World::Typed,
    })
}

/// What a tenant may hold of the engine at once, over all its stages.
#[derive(Debug)]
pub struct TenantSlots {
    /// Live instances.
    pub instances: Arc<Semaphore>,
    /// Calls and instantiations in flight.
    pub calls: Arc<Semaphore>,
    /// Memories and tables of all its instances.
    pub memory: MemoryMeter,
    pub(crate) pressure: AtomicU64,
}

impl TenantSlots {
    /// Slots for this many instances and calls, and this much memory.
    #[must_use]
    pub fn new(instances: usize, calls: usize, memory: MemoryMeter) -> Self {
        Self {
            instances: Arc::new(Semaphore::new(instances)),
            calls: Arc::new(Semaphore::new(calls)),
            memory,
            pressure: AtomicU64::new(0),
        }
    }

    /// A number that grows while this share is short. Whoever keeps idle instances of the tenant
    /// drops them when it has changed.
    #[must_use]
    pub fn pressure(&self) -> u64 {
        self.pressure.load(Ordering::Acquire)
    }
}

/// Memory in use by many instances, against a limit; a tenant's is also counted against the
/// node's.
#[derive(Debug)]
pub struct MemoryMeter {
    used: AtomicU64,
    limit: AtomicU64,
    node: Option<Arc<Self>>,
}

impl MemoryMeter {
    /// A meter with nothing in use. `node` is the one this is part of.
    #[must_use]
    pub fn new(limit: u64, node: Option<Arc<Self>>) -> Self {
        Self { used: AtomicU64::new(0), limit: AtomicU64::new(limit), node }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Sets another limit. What is in use stays.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes `bytes` if that is within the limits.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return false;
        }
        let granted = self.node.as_ref().is_none_or(|node| node.take(bytes));
        if !granted {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        granted
    }

    /// Whether `bytes` are within the limits when nothing else is in use.
    pub(crate) fn would_hold(&self, bytes: u64) -> bool {
        bytes <= self.limit.load(Ordering::Relaxed)
            && self.node.as_ref().is_none_or(|node| node.would_hold(bytes))
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(node) = &self.node {
            node.give_back(bytes);
        }
    }
}

/// Memory in use of a stage of a tenant; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    tenant: Arc<TenantSlots>,
    stage: Arc<AtomicU64>,
    bytes: u64,
}

impl Charge {
    /// Takes bytes for a stage, if its tenant and the node have them.
    pub(crate) fn take(settings: &StageSettings, bytes: u64) -> Option<Self> {
        let (tenant, stage) = (settings.tenant.clone(), settings.memory.clone());
        if !tenant.memory.take(bytes) {
            return None;
        }
        stage.fetch_add(bytes, Ordering::Relaxed);
        Some(Self { tenant, stage, bytes })
    }

    /// Of bytes that are in use already, and are given back by nobody else.
    pub(crate) fn of_used((tenant, stage): (Arc<TenantSlots>, Arc<AtomicU64>), bytes: u64) -> Self {
        Self { tenant, stage, bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.tenant.memory.give_back(self.bytes);
        self.stage.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The buckets of `wasi:keyvalue` a stage may open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Their names.
    pub names: Vec<String>,
    /// A call of the stage has events of one key only, so that a name alone says which bucket.
    pub one_key: bool,
}

/// What the manifest says about a stage, as an instance needs it.
#[derive(Debug)]
pub struct StageSettings {
    /// Bounds on an instance and a call.
    pub limits: StageLimits,
    /// What `config` gives.
    pub config: BTreeMap<String, String>,
    /// What `assets` gives.
    pub assets: BTreeMap<String, Bytes>,
    /// What it has of a GPU, if it is granted any.
    pub gpu: Option<Arc<dyn Gpu>>,
    /// What it may open through `wasi:keyvalue`.
    pub buckets: Buckets,
    /// What it has of HTTP, if it is granted any.
    pub http: Option<Arc<dyn Http>>,
    /// What the randomness of the pipeline's stages grows from, with partition and commit.
    pub secret: [u8; 32],
    /// Live instances of the stage, on all workers.
    pub live: AtomicI64,
    /// Open streams whose instances are put away, on all workers.
    pub away: AtomicI64,
    /// Bytes of memories and tables of its instances, and of what is put away of streams.
    pub memory: Arc<AtomicU64>,
    /// The tenant's share of the engine.
    pub tenant: Arc<TenantSlots>,
    /// What a fresh instance of the stage has, once an image may be wanted. Empty at first.
    pub fresh: FreshCell,
}
