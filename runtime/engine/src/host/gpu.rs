//! Import `sluicebox:gpu/compute`: a stage's slice of a GPU, as the port `crate::gpu` gives it.
//!
//! Here numbers become the port's, and bytes are charged as host work. Time on the device is
//! charged by whoever has it. An instance that never asks has nothing of a GPU.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, WasmList, WasmStr};

use super::{Host, asset, charge};
use crate::gpu::{self, Asking, Order, Session};
use crate::stage::Charge;

/// What the interface is called; 0.1.x are one compatible track for the linker.
const INTERFACE: &str = "sluicebox:gpu/compute@0.1.0";

/// Bytes of a source of a kernel that are copied out of a guest; the device takes fewer.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Steps of a graph, slots of a step, and bindings, that are passed on; a device takes no more.
const STEPS_MAX: usize = 64;
const SLOTS_MAX: usize = 32;

/// Bytes of a step or a binding, as they are charged.
const STEP_BYTES: usize = 96;
const BINDING_BYTES: usize = 24;

/// Bytes that are read or written at once: they are in memory of the node meanwhile.
const BYTES_MAX: u64 = 64 << 20;

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Kind {
    #[component(name = "discrete")]
    Discrete,
    #[component(name = "integrated")]
    Integrated,
    #[component(name = "software")]
    Software,
    #[component(name = "interpreter")]
    Interpreter,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Device {
    name: String,
    driver: String,
    kind: Kind,
    generation: u32,
    groups: u32,
    #[component(name = "dispatch-groups")]
    dispatch_groups: u64,
    #[component(name = "group-threads")]
    group_threads: u32,
    #[component(name = "group-bytes")]
    group_bytes: u32,
    bindings: u32,
    #[component(name = "binding-bytes")]
    binding_bytes: u64,
    #[component(name = "offset-bytes")]
    offset_bytes: u32,
    fuel: u32,
    #[component(name = "memory-guaranteed")]
    memory_guaranteed: u64,
    #[component(name = "memory-borrowable")]
    memory_borrowable: u64,
    queue: u32,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Access {
    #[component(name = "uniform")]
    Uniform,
    #[component(name = "read")]
    Read,
    #[component(name = "read-write")]
    ReadWrite,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Slot {
    number: u32,
    access: Access,
    #[component(name = "bytes-min")]
    bytes_min: u64,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only ever made by lifting a guest's value")]
enum Action {
    #[component(name = "dispatch")]
    Dispatch,
    #[component(name = "copy")]
    Copy,
    #[component(name = "fill")]
    Fill,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Step {
    action: Action,
    kernel: u64,
    x: u32,
    y: u32,
    z: u32,
    slots: Vec<u32>,
    source: u32,
    offset: u64,
    target: u32,
    #[component(name = "target-offset")]
    target_offset: u64,
    bytes: u64,
    word: u32,
}

impl Step {
    fn into_port(self) -> gpu::Step {
        let Self { bytes, .. } = self;
        let to = gpu::Part { slot: self.target, offset: self.target_offset, bytes };
        match self.action {
            Action::Dispatch => {
                let grid = [self.x, self.y, self.z];
                gpu::Step::Dispatch { kernel: self.kernel, grid, slots: self.slots }
            }
            Action::Copy => {
                let from = gpu::Part { slot: self.source, offset: self.offset, bytes };
                gpu::Step::Copy { from, to }
            }
            Action::Fill => gpu::Step::Fill { at: to, word: self.word },
        }
    }
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(record)]
struct Binding {
    buffer: u64,
    offset: u64,
    bytes: u64,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum End {
    #[component(name = "whole")]
    Whole,
    #[component(name = "fuel")]
    Fuel,
    #[component(name = "cancelled")]
    Cancelled,
    #[component(name = "deadline")]
    Deadline,
    #[component(name = "overdue")]
    Overdue,
    #[component(name = "poisoned")]
    Poisoned,
    #[component(name = "refused")]
    Refused,
    #[component(name = "lost")]
    Lost,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Outcome {
    end: End,
    #[component(name = "device-nanos")]
    device_nanos: u64,
}

impl From<gpu::Outcome> for Outcome {
    fn from(outcome: gpu::Outcome) -> Self {
        let end = match outcome.end {
            gpu::End::Whole => End::Whole,
            gpu::End::Fuel => End::Fuel,
            gpu::End::Cancelled => End::Cancelled,
            gpu::End::Deadline => End::Deadline,
            gpu::End::Overdue => End::Overdue,
            gpu::End::Poisoned => End::Poisoned,
            gpu::End::Refused => End::Refused,
            gpu::End::Lost => End::Lost,
        };
        Self { end, device_nanos: outcome.device_nanos }
    }
}

impl From<gpu::Device> for Device {
    fn from(device: gpu::Device) -> Self {
        Self {
            name: device.name,
            driver: device.driver,
            kind: match device.kind {
                gpu::Kind::Discrete => Kind::Discrete,
                gpu::Kind::Integrated => Kind::Integrated,
                gpu::Kind::Software => Kind::Software,
                gpu::Kind::Interpreter => Kind::Interpreter,
            },
            generation: device.generation,
            groups: device.groups,
            dispatch_groups: device.dispatch_groups,
            group_threads: device.group_threads,
            group_bytes: device.group_bytes,
            bindings: device.bindings,
            binding_bytes: device.binding_bytes,
            offset_bytes: device.offset_bytes,
            fuel: device.fuel,
            memory_guaranteed: device.memory_guaranteed,
            memory_borrowable: device.memory_borrowable,
            queue: device.queue,
        }
    }
}

impl From<gpu::Slot> for Slot {
    fn from(slot: gpu::Slot) -> Self {
        let access = match slot.access {
            gpu::Access::Uniform => Access::Uniform,
            gpu::Access::Read => Access::Read,
            gpu::Access::ReadWrite => Access::ReadWrite,
        };
        Self { number: slot.number, access, bytes_min: slot.bytes_min }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut compute = linker.instance(INTERFACE)?;
    add_device(&mut compute)?;
    add_buffers(&mut compute)?;
    add_programs(&mut compute)?;
    add_work(&mut compute)
}

fn add_device(compute: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    compute.func_wrap_async("describe", |mut cx, (): ()| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.describe()).await.map(Device::from),))
        })
    })?;
    compute.func_wrap_async("free", |mut cx, (handle,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.free(handle)).await,))
        })
    })
}

fn add_buffers(compute: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    compute.func_wrap_async("create", |mut cx, (bytes,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.create(bytes)).await,))
        })
    })?;
    compute.func_wrap_async(
        "write",
        |mut cx, (buffer, offset, bytes): (u64, u64, WasmList<u8>)| {
            Box::new(async move {
                charge(&mut cx, bytes.len()).await?;
                let Some(_held) = hold(&mut cx, bytes.len() as u64) else {
                    return Ok((Err(NO_ROOM.to_owned()),));
                };
                let bytes = Bytes::copy_from_slice(bytes.as_le_slice(&cx));
                let session = session(&mut cx)?;
                Ok((told(session.write(buffer, offset, bytes)).await,))
            })
        },
    )?;
    compute.func_wrap_async("read", |mut cx, (buffer, offset, bytes): (u64, u64, u64)| {
        Box::new(async move {
            // What no memory of the guest holds is not fetched, nor what it cannot pay for.
            if bytes > cx.data().settings.limits.memory.min(BYTES_MAX) {
                let text =
                    "gpu.range: more bytes than the stage has memory, or than 64 MiB at once";
                return Ok((Err(text.to_owned()),));
            }
            charge(&mut cx, usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
            let Some(_held) = hold(&mut cx, bytes) else {
                return Ok((Err(NO_ROOM.to_owned()),));
            };
            let session = session(&mut cx)?;
            Ok((told(session.read(buffer, offset, bytes)).await,))
        })
    })?;
    compute.func_wrap_async("size", |mut cx, (buffer,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.size(buffer)).await,))
        })
    })?;
    compute.func_wrap_async("constant", |mut cx, (name,): (WasmStr,)| {
        Box::new(async move {
            let name = name.to_str(&cx)?.into_owned();
            let found = asset(cx.data(), &name).cloned();
            // That it may have to be brought to the device is paid for by whoever asks.
            charge(&mut cx, name.len() + found.as_ref().map_or(0, Bytes::len)).await?;
            let Some(bytes) = found else {
                let refused = "gpu.range: the stage has no asset of this name".to_owned();
                return Ok((Err(refused),));
            };
            let session = session(&mut cx)?;
            Ok((told(session.constant(name, bytes)).await,))
        })
    })
}

fn add_programs(compute: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    compute.func_wrap_async("kernel", |mut cx, (source, entry): (WasmStr, WasmStr)| {
        Box::new(async move {
            let (source, entry) = (source.to_str(&cx)?, entry.to_str(&cx)?);
            let bytes = source.len() + entry.len();
            let taken = (bytes <= SOURCE_BYTES_MAX)
                .then(|| (source.as_ref().to_owned(), entry.as_ref().to_owned()));
            drop((source, entry));
            charge(&mut cx, bytes).await?;
            let Some((source, entry)) = taken else {
                return Ok((Err(format!("kernel.limit: a source of {bytes} bytes")),));
            };
            let session = session(&mut cx)?;
            Ok((told(session.kernel(source, entry)).await,))
        })
    })?;
    compute.func_wrap_async("slots", |mut cx, (kernel,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            let slots = told(session.slots(kernel)).await;
            Ok((slots.map(|slots| slots.into_iter().map(Slot::from).collect::<Vec<_>>()),))
        })
    })?;
    compute.func_wrap_async("graph", |mut cx, (steps,): (Vec<Step>,)| {
        Box::new(async move {
            let slots = steps.iter().map(|step| step.slots.len());
            let bytes = slots.clone().sum::<usize>() * 4 + steps.len() * STEP_BYTES;
            let most_slots = slots.max().unwrap_or_default();
            charge(&mut cx, bytes).await?;
            if steps.len() > STEPS_MAX || most_slots > SLOTS_MAX {
                let text = "gpu.limit: a graph has at most 64 steps with 32 slots";
                return Ok((Err(text.to_owned()),));
            }
            let steps = steps.into_iter().map(Step::into_port).collect();
            let session = session(&mut cx)?;
            Ok((told(session.graph(steps)).await,))
        })
    })
}

fn add_work(compute: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    compute.func_wrap_async("submit", |mut cx, given: (u64, Vec<Binding>, u32)| {
        Box::new(async move {
            let order = match order(&mut cx, given).await? {
                Ok(order) => order,
                Err(refused) => return Ok((Err(refused),)),
            };
            let session = session(&mut cx)?;
            Ok((told(session.submit(order)).await.map(Outcome::from),))
        })
    })?;
    compute.func_wrap_async("try-submit", |mut cx, given: (u64, Vec<Binding>, u32)| {
        Box::new(async move {
            let order = match order(&mut cx, given).await? {
                Ok(order) => order,
                Err(refused) => return Ok((Err(refused),)),
            };
            let session = session(&mut cx)?;
            Ok((told(session.try_submit(order)).await,))
        })
    })?;
    compute.func_wrap_async("wait", |mut cx, (submission,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.wait(submission)).await.map(Outcome::from),))
        })
    })?;
    compute.func_wrap_async("cancel", |mut cx, (submission,): (u64,)| {
        Box::new(async move {
            let session = session(&mut cx)?;
            Ok((told(session.cancel(submission)).await,))
        })
    })
}

/// What is to be done, or why not.
async fn order(
    cx: &mut StoreContextMut<'_, Host>,
    (graph, bindings, deadline_ms): (u64, Vec<Binding>, u32),
) -> wasmtime::Result<Result<Order, String>> {
    charge(cx, bindings.len() * BINDING_BYTES).await?;
    if bindings.len() > SLOTS_MAX {
        return Ok(Err("gpu.binding: a graph has at most 32 slots".to_owned()));
    }
    let bindings = bindings.into_iter().map(|Binding { buffer, offset, bytes }| gpu::Binding {
        buffer,
        offset,
        bytes: (bytes > 0).then_some(bytes),
    });
    let time_max = (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms.into()));
    Ok(Ok(Order { graph, bindings: bindings.collect(), time_max }))
}

/// What is said when there is no memory for bytes on their way.
const NO_ROOM: &str = "gpu.memory: the tenant's quota of memory has no room for the bytes on their \
                       way to or from the device";

/// Counts bytes that are on their way as memory of the tenant's, until it is dropped.
fn hold(cx: &mut StoreContextMut<'_, Host>, bytes: u64) -> Option<Charge> {
    Charge::take(&cx.data().settings, bytes)
}

/// What guests are told of an answer.
async fn told<T>(asking: Asking<'_, T>) -> Result<T, String> {
    asking.await.map_err(|refused| refused.to_string())
}

/// What the instance has of a GPU, from the first time it asks.
///
/// # Errors
/// It is not granted any.
fn session(cx: &mut StoreContextMut<'_, Host>) -> wasmtime::Result<Arc<dyn Session>> {
    let host = cx.data_mut();
    if let Some(session) = &host.gpu {
        return Ok(session.clone());
    }
    let Some(gpu) = &host.settings.gpu else {
        return Err(wasmtime::format_err!("the stage is not granted a GPU (grants.gpu)"));
    };
    let session: Arc<dyn Session> = gpu.open().into();
    host.gpu = Some(session.clone());
    Ok(session)
}
