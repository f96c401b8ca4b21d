//! The host's functions for a GPU in a Wasm build: the import of the world `gpu`.
//!
//! They are apart from the others so that a stage that uses none of them does not import it.

use std::time::Duration;

use crate::__private::bindings::gpu::sluicebox::gpu::compute as host;
use crate::gpu::{Access, Device, DeviceKind, End, Outcome, Slot, Step};

pub(crate) fn describe() -> Result<Device, String> {
    let host::Device {
        name,
        driver,
        kind,
        generation,
        groups,
        dispatch_groups,
        group_threads,
        group_bytes,
        bindings,
        binding_bytes,
        offset_bytes,
        fuel,
        memory_guaranteed,
        memory_borrowable,
        queue,
    } = host::describe()?;
    let kind = match kind {
        host::Kind::Discrete => DeviceKind::Discrete,
        host::Kind::Integrated => DeviceKind::Integrated,
        host::Kind::Software => DeviceKind::Software,
        host::Kind::Interpreter => DeviceKind::Interpreter,
    };
    Ok(Device {
        name,
        driver,
        kind,
        generation,
        groups,
        dispatch_groups,
        group_threads,
        group_bytes,
        bindings,
        binding_bytes,
        offset_bytes,
        fuel,
        memory_guaranteed,
        memory_borrowable,
        queue,
    })
}

pub(crate) fn create(bytes: u64) -> Result<u64, String> {
    host::create(bytes)
}

pub(crate) fn write(buffer: u64, offset: u64, bytes: &[u8]) -> Result<(), String> {
    host::write(buffer, offset, bytes)
}

pub(crate) fn read(buffer: u64, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
    host::read(buffer, offset, bytes)
}

pub(crate) fn size(buffer: u64) -> Result<u64, String> {
    host::size(buffer)
}

pub(crate) fn constant(asset: &str) -> Result<u64, String> {
    host::constant(asset)
}

pub(crate) fn kernel(source: &str, entry: &str) -> Result<u64, String> {
    host::kernel(source, entry)
}

pub(crate) fn slots(kernel: u64) -> Result<Vec<Slot>, String> {
    let access = |access| match access {
        host::Access::Uniform => Access::Uniform,
        host::Access::Read => Access::Read,
        host::Access::ReadWrite => Access::ReadWrite,
    };
    let slot = |slot: host::Slot| Slot {
        number: slot.number,
        access: access(slot.access),
        bytes_min: slot.bytes_min,
    };
    Ok(host::slots(kernel)?.into_iter().map(slot).collect())
}

pub(crate) fn graph(steps: &[Step]) -> Result<u64, String> {
    let steps: Vec<host::Step> = steps.iter().map(step).collect();
    host::graph(&steps)
}

/// A step with all its fields; those that say nothing of its action are 0.
fn step(step: &Step) -> host::Step {
    let zero = |action| host::Step {
        action,
        kernel: 0,
        x: 0,
        y: 0,
        z: 0,
        slots: Vec::new(),
        source: 0,
        offset: 0,
        target: 0,
        target_offset: 0,
        bytes: 0,
        word: 0,
    };
    match step {
        Step::Dispatch { kernel, groups: [x, y, z], slots } => host::Step {
            kernel: *kernel,
            x: *x,
            y: *y,
            z: *z,
            slots: slots.clone(),
            ..zero(host::Action::Dispatch)
        },
        Step::Copy { from, to, bytes } => host::Step {
            source: from.slot,
            offset: from.offset,
            target: to.slot,
            target_offset: to.offset,
            bytes: *bytes,
            ..zero(host::Action::Copy)
        },
        Step::Fill { to, bytes, word } => host::Step {
            target: to.slot,
            target_offset: to.offset,
            bytes: *bytes,
            word: *word,
            ..zero(host::Action::Fill)
        },
    }
}

type Bound = (u64, u64, u64);

pub(crate) fn submit(graph: u64, bound: &[Bound], deadline_ms: u32) -> Result<Outcome, String> {
    host::submit(graph, &bindings(bound), deadline_ms).map(outcome)
}

pub(crate) fn try_submit(graph: u64, bound: &[Bound], deadline_ms: u32) -> Result<u64, String> {
    host::try_submit(graph, &bindings(bound), deadline_ms)
}

pub(crate) fn wait(submission: u64) -> Result<Outcome, String> {
    host::wait(submission).map(outcome)
}

pub(crate) fn cancel(submission: u64) -> Result<(), String> {
    host::cancel(submission)
}

pub(crate) fn free(handle: u64) -> Result<(), String> {
    host::free(handle)
}

fn bindings(bound: &[Bound]) -> Vec<host::Binding> {
    let binding = |&(buffer, offset, bytes): &Bound| host::Binding { buffer, offset, bytes };
    bound.iter().map(binding).collect()
}

fn outcome(outcome: host::Outcome) -> Outcome {
    let end = match outcome.end {
        host::End::Whole => End::Whole,
        host::End::Fuel => End::Fuel,
        host::End::Cancelled => End::Cancelled,
        host::End::Deadline => End::Deadline,
        host::End::Overdue => End::Overdue,
        host::End::Poisoned => End::Poisoned,
        host::End::Refused => End::Refused,
        host::End::Lost => End::Lost,
    };
    Outcome { end, device_time: Duration::from_nanos(outcome.device_nanos) }
}
