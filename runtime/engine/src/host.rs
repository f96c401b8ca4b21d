//! The state behind one instance: what it may call, what it may use, what it has said.
//!
//! - Every way from a guest into the host, WASI included, charges what it costs to a counter here;
//!   past a slice it yields to the worker, past the call's fuel it traps. The engine's own fuel is
//!   never set during a call.
//! - The limiter counts all memories and tables of the instance together.
//! - Nothing here reaches another tenant, another key, a file or the real clock; what is outside
//!   only by a port that the stage is granted.

mod gpu;
mod http;
mod keyvalue;
mod log;
mod metrics;
mod output;
mod settings;
mod state;
mod timers;
pub(crate) mod wasi;

pub(crate) use output::emit;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use sluicebox_core::layer::Layer;
use wasmtime::component::{Linker, ResourceTable, WasmStr};
use wasmtime::{CallHook, CallHookHandler, ResourceLimiter, StoreContextMut, Trap};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::gpu::Session;
use crate::image::head::Standard;
use crate::invoker::{Said, Short};
use crate::stage::{Charge, StageSettings, TenantSlots};

/// The prefix of every interface of our own; 0.1.x are one compatible track for the linker.
const PACKAGE: &str = "sluicebox:stage";
const VERSION: &str = "0.1.0";

/// What a host call costs at least, in fuel. One unit of fuel is 0.1 to 0.15 nanoseconds of guest
/// code that computes, and an import takes 70 nanoseconds before it has done anything.
const CALL_FUEL: u64 = 500;

/// Bytes the host copies for the price of one unit of fuel.
const BYTES_PER_FUEL: u64 = 8;

/// Handles a guest may hold at once: streams, pollables and errors of WASI, buckets and swaps.
pub(crate) const HANDLES_MAX: usize = 1_000;

/// What the guest sees as time and randomness, fixed for a batch. Shared with its clocks.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    time: AtomicU64,
    seed: AtomicU64,
}

impl Recorded {
    pub(crate) fn set(&self, time: u64, seed: u64) {
        self.time.store(time, Ordering::Relaxed);
        self.seed.store(seed, Ordering::Relaxed);
    }

    pub(crate) fn time_micros(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Relaxed)
    }
}

/// Store data of every instance.
pub(crate) struct Host {
    pub(crate) settings: Arc<StageSettings>,
    /// Here while a call is in progress.
    pub(crate) layer: Option<Box<Layer>>,
    pub(crate) limiter: Limiter,
    pub(crate) recorded: Arc<Recorded>,
    pub(crate) said: Arc<wasi::SharedSaid>,
    /// Host work of the call in progress, in fuel.
    pub(crate) charged: u64,
    /// Host work since the last time the call yielded for it.
    since_yield: u64,
    slice: u64,
    wasi: WasiCtx,
    table: ResourceTable,
    /// What it has of a GPU, once it has asked for something.
    gpu: Option<Arc<dyn Session>>,
    outgoing: http::Outgoing,
    http_context: WasiHttpCtx,
}

impl Host {
    pub(crate) fn new(settings: Arc<StageSettings>, slice: u64) -> Self {
        let recorded = Arc::new(Recorded::default());
        let said = Arc::new(wasi::SharedSaid::new(settings.limits.log_lines));
        let wasi = wasi::context(&recorded, &said, settings.secret);
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let outgoing = http::Outgoing::new(settings.clone());
        Self {
            limiter: Limiter::new(&settings),
            settings,
            layer: None,
            recorded,
            said,
            charged: 0,
            since_yield: 0,
            slice,
            wasi,
            table,
            gpu: None,
            outgoing,
            http_context: http::context(),
        }
    }

    /// Makes the host ready for a call.
    pub(crate) fn begin(&mut self, layer: Box<Layer>, time: u64, seed: u64) {
        self.outgoing.begin(layer.frame().len());
        self.layer = Some(layer);
        self.recorded.set(time, seed);
        self.charged = 0;
        self.since_yield = 0;
        self.limiter.refused = None;
    }

    /// Charges what is owed at the end of a call.
    pub(crate) fn settle(&mut self) {
        self.charged = self.charged.saturating_add(self.outgoing.owed());
    }

    /// The standard streams the guest has open, by slot; nothing if it has anything else.
    ///
    /// A slot of the host's table is that of the guest's, less one: each handle is made at once in
    /// both, dropped at once in both, and both give out again last in, first out.
    pub(crate) fn standard_handles(&mut self) -> Option<Vec<(u32, Standard)>> {
        let mut handles = Vec::new();
        if self.table.is_empty() {
            return Some(handles);
        }
        for slot in 0..HANDLES_MAX as u32 {
            let Ok(entry) = self.table.get_any_mut(slot) else { continue };
            let kind = if entry.is::<DynOutputStream>() {
                // No other is ever given out where there are images: no files, no connections.
                Standard::Out
            } else if entry.is::<DynInputStream>() {
                Standard::In
            } else {
                return None;
            };
            handles.push((slot, kind));
        }
        Some(handles)
    }

    /// What the guest said since the last time.
    pub(crate) fn take_said(&mut self) -> Said {
        self.said.take()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("charged", &self.charged).finish_non_exhaustive()
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Everything a stage may import.
pub(crate) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    output::add_to_linker(linker)?;
    state::add_to_linker(linker)?;
    timers::add_to_linker(linker)?;
    settings::add_to_linker(linker)?;
    keyvalue::add_to_linker(linker)?;
    http::add_to_linker(linker)?;
    log::add_to_linker(linker)?;
    metrics::add_to_linker(linker)?;
    gpu::add_to_linker(linker)
}

fn interface(name: &str) -> String {
    format!("{PACKAGE}/{name}@{VERSION}")
}

/// Charges each way from the guest into the host for the way itself. Without it a guest could
/// spend hours in WASI functions for the fuel of the loop around them.
///
/// The engine asks at every way in and out, many times for each event of the typed world, so what
/// can be said at once allocates nothing.
pub(crate) struct Toll;

type Answer<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>;

impl CallHookHandler<Host> for Toll {
    // As the engine's own macro would write it, but for the box around each answer.
    fn handle_call_event<'handler, 'store, 'answer>(
        &'handler self,
        mut cx: StoreContextMut<'store, Host>,
        event: CallHook,
    ) -> Answer<'answer>
    where
        'handler: 'answer,
        'store: 'answer,
        Self: 'answer,
    {
        if !matches!(event, CallHook::CallingHost) {
            return Box::pin(Granted);
        }
        match spend_now(&mut cx, CALL_FUEL) {
            Ok(false) => Box::pin(Granted),
            Ok(true) => Box::pin(async {
                yield_once().await;
                Ok(())
            }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// The usual answer. It has no size, so that a box of it is no allocation.
struct Granted;

impl Future for Granted {
    type Output = wasmtime::Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

/// Charges the bytes a host call moves; the call itself is charged by [`Toll`].
///
/// # Errors
/// The call has used up its fuel.
async fn charge(cx: &mut StoreContextMut<'_, Host>, bytes: usize) -> wasmtime::Result<()> {
    spend(cx, bytes as u64 / BYTES_PER_FUEL).await
}

/// A text of the guest's. It may be as long as all that a call may hand over, so it is paid for
/// whatever comes of it.
///
/// # Errors
/// It is no UTF-8, or the call has used up its fuel.
async fn text(cx: &mut StoreContextMut<'_, Host>, text: &WasmStr) -> wasmtime::Result<String> {
    let text = text.to_str(&*cx)?.into_owned();
    charge(cx, text.len()).await?;
    Ok(text)
}

/// Charges host work, and gives the worker back when the call has used a slice of it.
async fn spend(cx: &mut StoreContextMut<'_, Host>, cost: u64) -> wasmtime::Result<()> {
    if spend_now(cx, cost)? {
        yield_once().await;
    }
    Ok(())
}

/// Charges host work. True if the call has used a slice of it.
fn spend_now(cx: &mut StoreContextMut<'_, Host>, cost: u64) -> wasmtime::Result<bool> {
    let left = cx.get_fuel()?;
    let host = cx.data_mut();
    let cost = cost.saturating_add(host.outgoing.owed());
    host.charged += cost;
    host.since_yield += cost;
    if host.charged > left {
        return Err(Trap::OutOfFuel.into());
    }
    let slice_used = host.since_yield >= host.slice;
    if slice_used {
        host.since_yield = 0;
    }
    Ok(slice_used)
}

/// Pending once, woken at once: the sign the scheduler reads as "slice used".
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The layer of the call in progress.
///
/// # Errors
/// There is none: the guest called out while it was instantiated.
fn layer(host: &mut Host) -> wasmtime::Result<&mut Layer> {
    host.layer.as_deref_mut().ok_or_else(|| {
        wasmtime::format_err!("state, timers and output may be used in `handle` only, not at start")
    })
}

/// Asset bytes by name.
fn asset<'a>(host: &'a Host, name: &str) -> Option<&'a Bytes> {
    host.settings.assets.get(name)
}

/// Counts all memories and tables of an instance against one limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    used: usize,
    limit: usize,
    tenant: Arc<TenantSlots>,
    /// What all instances of the stage use.
    stage: Arc<AtomicU64>,
    /// A growth was refused, and by which limit: explains the trap that usually follows.
    pub(crate) refused: Option<RefusedBy>,
}

/// The limit that was in the way of a growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    /// The stage's own.
    Stage,
    /// The tenant's or the node's.
    Room(Short),
}

/// Bytes of a table element in the engine.
const ELEMENT_BYTES: usize = 8;

impl Limiter {
    fn new(settings: &StageSettings) -> Self {
        let limit = usize::try_from(settings.limits.memory).unwrap_or(usize::MAX);
        let (tenant, stage) = (settings.tenant.clone(), settings.memory.clone());
        Self { used: 0, limit, tenant, stage, refused: None }
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Gives up so many bytes of what is used, without giving them back: as many as there are.
    pub(crate) fn pass_on(&mut self, bytes: u64) -> Charge {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.used);
        self.used -= bytes;
        Charge::of_used((self.tenant.clone(), self.stage.clone()), bytes as u64)
    }

    fn grow(&mut self, by: usize) -> bool {
        let wanted = self.used.saturating_add(by);
        if wanted > self.limit {
            self.refused = Some(RefusedBy::Stage);
        } else if self.tenant.memory.take(by as u64) {
            self.stage.fetch_add(by as u64, Ordering::Relaxed);
            self.used = wanted;
            return true;
        } else if self.tenant.memory.would_hold(wanted as u64) {
            self.refused = Some(RefusedBy::Room(Short::Others));
        } else {
            self.refused = Some(RefusedBy::Room(Short::Quota));
        }
        false
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.tenant.memory.give_back(self.used as u64);
        self.stage.fetch_sub(self.used as u64, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }
}
