//! One store, one instance, one call at a time; what ends its life.
//!
//! - An instance serves one stage of one tenant, and one key or stream if the stage's scope says
//!   so.
//! - It does not outlive a trap, a limit, or the high-water mark of its memory.
//! - A call has the fuel of its events and no more, host work included.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sluicebox_core::frame::Frame;
use sluicebox_core::image::Image;
use sluicebox_core::layer::Failure;
use sluicebox_core::limits::IMAGE_BYTES_MAX;
use sluicebox_core::partition::Verdict;
use sluicebox_core::pipeline::StageLimits;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Lift, Lower, TypedFunc};
use wasmtime::{AsContextMut as _, Store, Trap};

use crate::component::World;
use crate::error::engine_text;
use crate::explain::{explain, out_of_fuel};
use crate::host::{self, Host, RefusedBy, Toll};
use crate::image::{self, Access, Before, Fresh};
use crate::invoker::{Invocation, NoImage, Outcome, Short, Usage};
use crate::patience::{OutOfPatience, Patience, bounded};
use crate::sandbox::{CallPermit, InstancePermit, SLICE_FUEL};
use crate::snapshot;
use crate::stage::{Charge, StageCode, StageSettings};
use crate::typed::{self, EventIn, WitFailure, WitOutcome};

/// Fuel for instantiating: start functions and initialisers of large runtimes.
pub(crate) const START_FUEL: u64 = 1_000_000_000;

/// Longest a call may wait for something that is not its turn: a clock it sleeps on, for example.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes beyond what a snapshot may have that are copied nevertheless.
const SNAPSHOT_OVER: usize = 1 << 20;

type FramedHandle = TypedFunc<(Bytes,), (Vec<WitFailure>,)>;

/// See the module.
pub(crate) struct Instance {
    store: Store<Host>,
    instance: wasmtime::component::Instance,
    code: Arc<StageCode>,
    framed: Option<FramedHandle>,
    patience: Patience,
    _permit: InstancePermit,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("host", self.store.data()).finish_non_exhaustive()
    }
}

/// Counted from the making of its store to its drop, started or not.
impl Drop for Host {
    fn drop(&mut self) {
        self.settings.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no instance.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The pool is full in spite of the permit: the component takes more of it than most.
    Full(String),
    /// It was refused memory by a quota.
    Short(String, Short),
    /// The guest's own doing.
    Guest(String),
}

impl Instance {
    pub(crate) async fn start(
        code: &Arc<StageCode>,
        settings: &Arc<StageSettings>,
        permit: InstancePermit,
        _stack: &CallPermit,
    ) -> Result<Self, StartError> {
        let host = Host::new(settings.clone(), SLICE_FUEL);
        settings.live.fetch_add(1, Ordering::Relaxed);
        let mut store = Store::new(code.pre.engine(), host);
        store.limiter(|host| &mut host.limiter);
        store.call_hook_async(Toll);
        let prepared = store
            .set_fuel(START_FUEL)
            .and_then(|()| store.fuel_async_yield_interval(Some(SLICE_FUEL)));
        prepared.map_err(|error| StartError::Guest(engine_text(&error)))?;
        store.set_hostcall_fuel(copied_max(&settings.limits));
        let patience = Patience::new();
        let started = bounded(&patience, WAIT_MAX, code.pre.instantiate_async(&mut store)).await;
        let started = started.unwrap_or_else(|OutOfPatience| {
            Err(wasmtime::format_err!("the component waited for something while it started"))
        });
        let instance = match started {
            Ok(instance) => instance,
            Err(error) if error.is::<wasmtime::PoolConcurrencyLimitError>() => {
                return Err(StartError::Full(engine_text(&error)));
            }
            Err(error) => {
                let text = explain(&error, store.data(), None);
                return Err(match short(store.data()) {
                    Some(short) => StartError::Short(text, short),
                    None => StartError::Guest(text),
                });
            }
        };
        let framed = match code.world {
            World::Framed => {
                let found = instance.get_typed_func(&mut store, code.handle);
                Some(found.map_err(|error| StartError::Guest(engine_text(&error)))?)
            }
            World::Typed => None,
        };
        Ok(Self { store, instance, code: code.clone(), framed, patience, _permit: permit })
    }

    /// Whether it was refused room, since it started or its last call began.
    pub(crate) fn short(&self) -> Option<Short> {
        short(self.store.data())
    }

    /// What it has before its first call, unless that is known.
    pub(crate) async fn fresh(&mut self) -> Result<Arc<Fresh>, NoImage> {
        if let Some(fresh) = self.store.data().settings.fresh.get() {
            return Ok(fresh);
        }
        if self.short().is_some() {
            return Err(NoImage::NoRoom("it has less memory than it asked for".to_owned()));
        }
        let fresh = image::note(&mut self.access()?).await;
        self.leave();
        Ok(self.store.data().settings.fresh.set(fresh?))
    }

    /// Takes its image: of its memory, or, where there can be none, of what the stage says itself.
    /// On an error other than of kinds that say it stays, it is of no more use.
    pub(crate) async fn capture(&mut self) -> Result<Image, NoImage> {
        use NoImage::{OpenHandles, TooLarge, Unsupported};
        match self.capture_memory().await {
            Err(Unsupported(_) | OpenHandles | TooLarge) if self.code.snapshots() => {
                let snapshot = self.snapshot().await?;
                Ok(snapshot::image_of(&snapshot))
            }
            taken => taken,
        }
    }

    async fn capture_memory(&mut self) -> Result<Image, NoImage> {
        self.code.accessor.as_ref().map_err(|reason| NoImage::Unsupported(reason.clone()))?;
        // Before it is reached for: from then on it has other bounds than calls, until it is left.
        let Some(fresh) = self.store.data().settings.fresh.get() else {
            let why = "what a fresh instance has could not be found out";
            return Err(NoImage::Unsupported(why.to_owned()));
        };
        let image = image::capture(&mut self.access()?, &fresh).await;
        self.leave();
        image
    }

    /// What the stage says another instance needs to go on as this one.
    pub(crate) async fn snapshot(&mut self) -> Result<Bytes, NoImage> {
        self.store.data_mut().limiter.refused = None;
        let code = self.code.clone();
        let exports = code.snapshot.as_ref().ok_or_else(no_snapshots)?;
        let taken = self.beside::<(), Vec<u8>>(&exports.take, ()).await?;
        let bytes = taken.map_err(|reason| snapshot::refused("it gave no snapshot", &reason))?;
        if bytes.len() > IMAGE_BYTES_MAX { Err(NoImage::TooLarge) } else { Ok(bytes.into()) }
    }

    /// Lets it go on from what another instance said, before its first call.
    async fn restore_snapshot(&mut self, bytes: Bytes) -> Result<(), NoImage> {
        let code = self.code.clone();
        let exports = code.snapshot.as_ref().ok_or_else(no_snapshots)?;
        if code.accessor.is_ok() {
            // Later it could not be told from what the snapshot made of it.
            self.fresh().await?;
        }
        let restored = self.beside::<_, ()>(&exports.restore, (bytes,)).await?;
        restored.map_err(|reason| snapshot::refused("it did not take the snapshot", &reason))
    }

    /// Calls a function of the guest's beside `handle`: bounded as a start is, without events. The
    /// inner error is what the guest gives back.
    async fn beside<P, R>(
        &mut self,
        function: &ComponentExportIndex,
        with: P,
    ) -> Result<Result<R, String>, NoImage>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: Lift + Send + Sync + 'static,
    {
        let Self { store, instance, patience, .. } = self;
        let called = async {
            store.set_fuel(START_FUEL)?;
            // A little more, so that one that is too large can be told from one that is not.
            store.set_hostcall_fuel(IMAGE_BYTES_MAX + SNAPSHOT_OVER);
            store.data_mut().charged = 0;
            let function: TypedFunc<P, (Result<R, String>,)> =
                instance.get_typed_func(&mut *store, function)?;
            let call = bounded(patience, WAIT_MAX, function.call_async(&mut *store, with)).await;
            let waited = || wasmtime::format_err!("it waited for more than a call may");
            call.unwrap_or_else(|OutOfPatience| Err(waited()))
        };
        let called = called.await;
        self.leave();
        called.map(|(answer,)| answer).map_err(|error| {
            let host = self.store.data();
            let text = match error.downcast_ref() {
                Some(Trap::OutOfFuel) => {
                    format!("out of fuel: it used more than {START_FUEL} units between two calls")
                }
                _ => explain(&error, host, None),
            };
            match short(host) {
                Some(Short::Others) => NoImage::NoRoom(text),
                Some(Short::Quota) | None => NoImage::Failed(text),
            }
        })
    }

    /// Ends it, and keeps so much of the memory it had in use for what is left of it.
    pub(crate) fn end(mut self, bytes: u64) -> Charge {
        self.store.data_mut().limiter.pass_on(bytes)
    }

    /// Makes it what an image is of, before its first call.
    pub(crate) async fn restore(&mut self, before: &Before<'_>) -> Result<(), NoImage> {
        let (head, image) = match before {
            Before::Memory(head, image) => (head, image),
            Before::Snapshot(bytes) => return self.restore_snapshot(bytes.clone()).await,
        };
        let fresh = self.fresh().await?;
        let restored = image::restore(&mut self.access()?, &fresh, head, image).await;
        self.leave();
        restored
    }

    /// Reaches for its memory: bounded, and at nobody's cost.
    fn access(&mut self) -> Result<Access<'_>, NoImage> {
        let accessor = self.code.accessor.as_ref();
        let accessor = accessor.map_err(|reason| NoImage::Unsupported(reason.clone()))?;
        let fuel = self.store.set_fuel(START_FUEL);
        fuel.map_err(|error| NoImage::Failed(engine_text(&error)))?;
        self.store.set_hostcall_fuel(Access::COPIED_MAX);
        self.store.data_mut().charged = 0;
        Ok(Access { store: &mut self.store, instance: self.instance, accessor })
    }

    /// The bound that calls of the guest have.
    fn leave(&mut self) {
        let limits = self.store.data().settings.limits;
        self.store.set_hostcall_fuel(copied_max(&limits));
    }

    /// Makes one call. The second value says whether the instance may be used again.
    pub(crate) async fn call(&mut self, invocation: Invocation) -> (Outcome, bool) {
        let Invocation { layer, time, seed, .. } = invocation;
        let limits = self.store.data().settings.limits;
        let events = layer.frame().len() as u64;
        let fuel = limits.fuel_per_event.saturating_mul(events.max(1));
        let frame = layer.frame().clone();
        self.store.data_mut().begin(layer, time, seed);
        let result = match self.store.set_fuel(fuel) {
            Ok(()) => self.enter(frame).await,
            Err(error) => Err(error),
        };
        let left = self.store.get_fuel().unwrap_or(0);
        let host = self.store.data_mut();
        host.settle();
        let layer = host.layer.take().expect("every import that takes the layer puts it back");
        let used = fuel.saturating_sub(left).saturating_add(host.charged);
        let memory = host.limiter.used() as u64;
        let verdict = match result {
            Ok(_) if used > fuel => Verdict::Trapped(out_of_fuel(fuel, events)),
            Ok(failures) => Verdict::Returned(failures),
            Err(error) => Verdict::Trapped(explain(&error, host, Some((fuel, events)))),
        };
        let alive = matches!(verdict, Verdict::Returned(_));
        let keep = alive && memory <= high_water(limits.memory);
        let memory_bytes = if alive { memory } else { 0 };
        let usage = Usage { fuel: used, memory_bytes, cold: false, short: short(host) };
        let said = host.take_said();
        (Outcome { layer, verdict, usage, said }, keep)
    }

    async fn enter(&mut self, frame: Frame) -> wasmtime::Result<Vec<Failure>> {
        let Self { store, instance, code, framed, patience, .. } = self;
        let entered = match framed {
            Some(handle) => {
                let call = handle.call_async(store, (frame.into_bytes(),));
                bounded(patience, WAIT_MAX, call).await.map(|result| result.map(|(failed,)| failed))
            }
            // In a box, so that calls of the other world do not make room for it.
            None => {
                let call = Box::pin(enter_typed(store, instance, &code.handle, &frame));
                bounded(patience, WAIT_MAX, call).await
            }
        };
        let failures = entered.unwrap_or_else(|OutOfPatience| {
            let seconds = WAIT_MAX.as_secs();
            Err(wasmtime::format_err!("the call waited for more than {seconds} s"))
        })?;
        Ok(failures.into_iter().map(WitFailure::into_core).collect())
    }
}

fn short(host: &Host) -> Option<Short> {
    match host.limiter.refused {
        Some(RefusedBy::Room(short)) => Some(short),
        Some(RefusedBy::Stage) | None => None,
    }
}

fn no_snapshots() -> NoImage {
    NoImage::Unsupported(snapshot::NONE.to_owned())
}

/// Bytes one import or export may make the host copy out of the guest.
fn copied_max(limits: &StageLimits) -> usize {
    usize::try_from(limits.emit_bytes.max(limits.event_bytes * 2)).unwrap_or(usize::MAX)
}

async fn enter_typed(
    store: &mut Store<Host>,
    instance: &wasmtime::component::Instance,
    handle: &ComponentExportIndex,
    frame: &Frame,
) -> wasmtime::Result<Vec<WitFailure>> {
    let events = typed::lower(frame);
    // The function's type carries the lifetime of the events, so it is looked up for each call.
    let handle: TypedFunc<(&[EventIn<'_>],), (WitOutcome,)> =
        instance.get_typed_func(&mut *store, handle)?;
    let (outcome,) = handle.call_async(&mut *store, (events.as_slice(),)).await?;
    if !outcome.outputs.is_empty() {
        let frame = typed::lift(&outcome.outputs).map_err(wasmtime::Error::msg)?;
        host::emit(&mut store.as_context_mut(), frame.bytes()).await?;
    }
    Ok(outcome.failures)
}

/// A shared or keyed instance that has grown beyond this is not used again: what it holds is only
/// a cache, and memory never shrinks.
fn high_water(limit: u64) -> u64 {
    limit / 4 * 3
}
