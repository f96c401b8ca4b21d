//! A device in a native build: none, or one whose kernels are a closure that the test gives.
//!
//! - What is done is done at once, in order; a submission that is waited for has long ended.
//! - A handle carries the generation of the device it was made on, so that those of another
//!   harness, or from before a loss, are told apart.
//! - It holds bounds of buffers, copies and fills, which a stage can break by mistake. It does not
//!   read WGSL but for its bindings, and keeps no promise about size or speed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::HOST;
use crate::gpu::{Access, Device, DeviceKind, End, Outcome, Place, Slot, Step};

/// Bits of a handle that count what was made on a device; above them is its generation.
const COUNT_BITS: u32 = 32;
/// Largest buffer: tests are small, and a mistake in a size should not take the machine's memory.
const BUFFER_BYTES_MAX: u64 = 64 << 20;

/// Generations of all devices of this process: no two are alike.
static GENERATIONS: AtomicU32 = AtomicU32::new(1);

/// What stands for every kernel: entry point, what is bound, workgroups.
pub(crate) type Run = Box<dyn FnMut(&str, &mut [Vec<u8>], [u32; 3])>;

/// A buffer, a kernel, a graph or a submission.
#[derive(Clone, Debug)]
enum Made {
    Buffer { bytes: Vec<u8>, kind: Kind },
    Kernel { entry: String, slots: Vec<Slot> },
    Graph(Vec<Recorded>),
    Submission(Outcome),
}

/// Who may write a buffer, and who frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The instance does both.
    Own,
    /// Nobody writes it.
    Constant,
    /// Nobody writes it; it goes with the batch.
    Attached,
}

/// A step of a graph, which keeps its kernel.
#[derive(Clone, Debug)]
enum Recorded {
    Dispatch { entry: String, access: Vec<Access>, groups: [u32; 3], slots: Vec<u32> },
    Move(Step),
}

/// A device, and whatever an instance has made on it.
pub(crate) struct Gpu {
    run: Run,
    generation: u32,
    made: BTreeMap<u64, Made>,
    count: u64,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("made", &self.made.len()).finish_non_exhaustive()
    }
}

type Done<T = ()> = Result<T, String>;
type Bound = (u64, u64, u64);

impl Gpu {
    pub(crate) fn new(run: Run) -> Self {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Self { run, generation, made: BTreeMap::new(), count: 0 }
    }

    /// Loses all that was made.
    pub(crate) fn lose(&mut self) {
        self.made.clear();
        self.generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
    }

    /// How much there is that was made and not freed.
    pub(crate) fn made(&self) -> usize {
        self.made.len()
    }

    fn make(&mut self, made: Made) -> u64 {
        self.count += 1;
        let handle = (u64::from(self.generation) << COUNT_BITS) | self.count;
        self.made.insert(handle, made);
        handle
    }

    fn missing(&self, handle: u64, what: &str) -> String {
        if handle >> COUNT_BITS == u64::from(self.generation) {
            return format!("gpu.handle: there is no {what} {handle:#x}");
        }
        format!("gpu.lost: the device was lost since {handle:#x} was made")
    }

    fn buffer(&self, handle: u64) -> Done<&Vec<u8>> {
        match self.made.get(&handle) {
            Some(Made::Buffer { bytes, .. }) => Ok(bytes),
            _ => Err(self.missing(handle, "buffer")),
        }
    }

    fn create(&mut self, bytes: u64) -> Done<u64> {
        if bytes == 0 || !bytes.is_multiple_of(4) {
            return Err(format!("gpu.range: {bytes} bytes are no multiple of 4 above 0"));
        }
        if bytes > BUFFER_BYTES_MAX {
            return Err(format!("gpu.memory: {bytes} bytes are more than a test has"));
        }
        let bytes = vec![0; bytes as usize];
        Ok(self.make(Made::Buffer { bytes, kind: Kind::Own }))
    }

    /// The bytes of a buffer about to be written.
    fn written(&mut self, handle: u64) -> Done<&mut Vec<u8>> {
        let missing = self.missing(handle, "buffer");
        match self.made.get_mut(&handle) {
            Some(Made::Buffer { bytes, kind: Kind::Own }) => Ok(bytes),
            Some(Made::Buffer { .. }) => Err(format!("gpu.read-only: {handle:#x} is a constant")),
            _ => Err(missing),
        }
    }

    /// A buffer that another stage has attached to an event.
    pub(crate) fn lend(&mut self, bytes: Vec<u8>) -> u64 {
        self.make(Made::Buffer { bytes, kind: Kind::Attached })
    }

    /// An emitted event names this handle. If it is a buffer it is the batch's now: what it holds,
    /// and whether it was the instance's before.
    pub(super) fn attach(&mut self, handle: u64) -> Option<(Vec<u8>, bool)> {
        let Some(Made::Buffer { bytes, kind }) = self.made.get_mut(&handle) else {
            return None;
        };
        let before = std::mem::replace(kind, Kind::Attached);
        Some((bytes.clone(), before != Kind::Attached))
    }

    /// The batch has ended, and what is attached goes.
    pub(crate) fn end_batch(&mut self) {
        let is_attached = |made: &Made| matches!(made, Made::Buffer { kind: Kind::Attached, .. });
        self.made.retain(|_, made| !is_attached(made));
    }

    fn graph(&mut self, steps: &[Step]) -> Done<u64> {
        let steps: Done<Vec<Recorded>> = steps.iter().map(|step| self.recorded(step)).collect();
        Ok(self.make(Made::Graph(steps?)))
    }

    fn recorded(&self, step: &Step) -> Done<Recorded> {
        let Step::Dispatch { kernel, groups, slots } = step else {
            return Ok(Recorded::Move(step.clone()));
        };
        let Some(Made::Kernel { entry, slots: uses }) = self.made.get(kernel) else {
            return Err(self.missing(*kernel, "kernel"));
        };
        if uses.len() != slots.len() {
            let (uses, given) = (uses.len(), slots.len());
            return Err(format!("gpu.graph: the kernel uses {uses} slots, {given} are given"));
        }
        let access = uses.iter().map(|slot| slot.access).collect();
        let (entry, slots) = (entry.clone(), slots.clone());
        Ok(Recorded::Dispatch { entry, access, groups: *groups, slots })
    }

    fn submit(&mut self, graph: u64, bound: &[Bound]) -> Done<Outcome> {
        let Some(Made::Graph(steps)) = self.made.get(&graph) else {
            return Err(self.missing(graph, "graph"));
        };
        for step in steps.clone() {
            match step {
                Recorded::Dispatch { entry, access, groups, slots } => {
                    self.dispatch(&entry, groups, bound, &zipped(&slots, &access))?;
                }
                Recorded::Move(Step::Copy { from, to, bytes }) => {
                    let bytes = self.part(bound, from, Some(bytes))?;
                    self.put(bound, to, &bytes)?;
                }
                Recorded::Move(Step::Fill { to, bytes, word }) => {
                    let words = bytes.min(BUFFER_BYTES_MAX) as usize / 4;
                    self.put(bound, to, &word.to_le_bytes().repeat(words))?;
                }
                Recorded::Move(Step::Dispatch { .. }) => {}
            }
        }
        Ok(Outcome { end: End::Whole, device_time: Duration::ZERO })
    }

    fn dispatch(
        &mut self,
        entry: &str,
        groups: [u32; 3],
        bound: &[Bound],
        slots: &[(u32, Access)],
    ) -> Done {
        let parts = slots.iter().map(|(slot, _)| self.part(bound, Place::from(*slot), None));
        let mut parts: Vec<Vec<u8>> = parts.collect::<Done<_>>()?;
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        (self.run)(entry, &mut parts, groups);
        for ((part, size), (slot, access)) in parts.iter_mut().zip(sizes).zip(slots) {
            // A kernel cannot make a buffer longer or shorter, nor write what it only reads.
            part.resize(size, 0);
            if *access == Access::ReadWrite {
                self.put(bound, Place::from(*slot), part)?;
            }
        }
        Ok(())
    }

    /// Buffer, and where in it, of so many bytes at a place, or of all from there on.
    fn place(
        &self,
        bound: &[Bound],
        place: Place,
        bytes: Option<u64>,
    ) -> Done<(u64, usize, usize)> {
        let wrong = |why: &str| format!("gpu.binding: slot {}: {why}", place.slot);
        let &(buffer, offset, length) =
            bound.get(place.slot as usize).ok_or_else(|| wrong("nothing is bound to it"))?;
        let size = self.buffer(buffer)?.len() as u64;
        let rest = size.checked_sub(offset).ok_or_else(|| wrong("it begins behind its buffer"))?;
        let length = if length == 0 { rest } else { length };
        let within = length.checked_sub(place.offset).filter(|_| length <= rest);
        let within = within.ok_or_else(|| wrong("it does not lie within its buffer"))?;
        let bytes = bytes.unwrap_or(within);
        if bytes > within {
            return Err(wrong("a step goes beyond what is bound"));
        }
        let first = (offset + place.offset) as usize;
        Ok((buffer, first, first + bytes as usize))
    }

    fn part(&self, bound: &[Bound], place: Place, bytes: Option<u64>) -> Done<Vec<u8>> {
        let (buffer, first, end) = self.place(bound, place, bytes)?;
        Ok(self.buffer(buffer)?[first..end].to_vec())
    }

    fn put(&mut self, bound: &[Bound], place: Place, bytes: &[u8]) -> Done {
        let (buffer, first, end) = self.place(bound, place, Some(bytes.len() as u64))?;
        self.written(buffer)?[first..end].copy_from_slice(bytes);
        Ok(())
    }
}

fn zipped(slots: &[u32], access: &[Access]) -> Vec<(u32, Access)> {
    slots.iter().copied().zip(access.iter().copied()).collect()
}

/// The buffers that a source declares, as if each of its kernels used all of them.
fn slots_of(source: &str) -> Vec<Slot> {
    let mut slots: Vec<Slot> = source.split("@binding(").skip(1).filter_map(slot_of).collect();
    slots.sort_by_key(|slot| slot.number);
    slots
}

/// The buffer declared behind `@binding(`.
fn slot_of(text: &str) -> Option<Slot> {
    let (number, rest) = text.split_once(')')?;
    let space = rest.split_once("var<")?.1.split_once('>')?.0;
    let access = match space.split_once(',').map(|(_, access)| access.trim()) {
        Some("read_write") => Access::ReadWrite,
        _ if space.trim() == "uniform" => Access::Uniform,
        _ => Access::Read,
    };
    Some(Slot { number: number.trim().parse().ok()?, access, bytes_min: 4 })
}

/// Asks the device of this thread's host. Things are dropped when the thread ends too, and then
/// there is neither.
fn ask<T>(question: impl FnOnce(&mut Gpu) -> Done<T>) -> Done<T> {
    const NONE: &str = "gpu.none: a test has no GPU but the one given by `Harness::with_gpu`";
    let asked = HOST.try_with(|host| {
        let mut host = host.try_borrow_mut().ok()?;
        Some(question(host.gpu.as_mut()?))
    });
    asked.ok().flatten().unwrap_or_else(|| Err(NONE.to_owned()))
}

pub(crate) fn describe() -> Done<Device> {
    ask(|gpu| {
        Ok(Device {
            name: "a closure".to_owned(),
            driver: "the test harness".to_owned(),
            kind: DeviceKind::Interpreter,
            generation: gpu.generation,
            groups: 65_535,
            dispatch_groups: 1 << 24,
            group_threads: 256,
            group_bytes: 16 << 10,
            bindings: 8,
            binding_bytes: BUFFER_BYTES_MAX,
            offset_bytes: 4,
            fuel: 1 << 20,
            memory_guaranteed: BUFFER_BYTES_MAX,
            memory_borrowable: 0,
            queue: 8,
        })
    })
}

pub(crate) fn create(bytes: u64) -> Done<u64> {
    ask(|gpu| gpu.create(bytes))
}

pub(crate) fn write(buffer: u64, offset: u64, bytes: &[u8]) -> Done {
    ask(|gpu| {
        let buffer = gpu.written(buffer)?;
        let range = range(buffer.len(), offset, bytes.len() as u64)?;
        buffer[range].copy_from_slice(bytes);
        Ok(())
    })
}

pub(crate) fn read(buffer: u64, offset: u64, bytes: u64) -> Done<Vec<u8>> {
    ask(|gpu| {
        let buffer = gpu.buffer(buffer)?;
        Ok(buffer[range(buffer.len(), offset, bytes)?].to_vec())
    })
}

fn range(size: usize, offset: u64, bytes: u64) -> Done<std::ops::Range<usize>> {
    let end = offset.checked_add(bytes).filter(|end| *end <= size as u64);
    match end {
        Some(end) if offset.is_multiple_of(4) && bytes.is_multiple_of(4) => {
            Ok(offset as usize..end as usize)
        }
        _ => Err(format!("gpu.range: {bytes} bytes from {offset} of a buffer of {size}")),
    }
}

pub(crate) fn size(buffer: u64) -> Done<u64> {
    ask(|gpu| Ok(gpu.buffer(buffer)?.len() as u64))
}

pub(crate) fn constant(asset: &str) -> Done<u64> {
    let size = super::asset_size(asset).unwrap_or_default();
    let bytes = super::asset_read(asset, 0, size as u32);
    ask(|gpu| {
        if bytes.is_empty() || !bytes.len().is_multiple_of(4) {
            return Err(format!("gpu.wrong: there is no asset {asset} of a multiple of 4 bytes"));
        }
        Ok(gpu.make(Made::Buffer { bytes, kind: Kind::Constant }))
    })
}

pub(crate) fn kernel(source: &str, entry: &str) -> Done<u64> {
    ask(|gpu| {
        if !source.contains(&format!("fn {entry}")) {
            return Err(format!("gpu.kernel: there is no entry point {entry}"));
        }
        let (entry, slots) = (entry.to_owned(), slots_of(source));
        Ok(gpu.make(Made::Kernel { entry, slots }))
    })
}

pub(crate) fn slots(kernel: u64) -> Done<Vec<Slot>> {
    ask(|gpu| match gpu.made.get(&kernel) {
        Some(Made::Kernel { slots, .. }) => Ok(slots.clone()),
        _ => Err(gpu.missing(kernel, "kernel")),
    })
}

pub(crate) fn graph(steps: &[Step]) -> Done<u64> {
    ask(|gpu| gpu.graph(steps))
}

pub(crate) fn submit(graph: u64, bound: &[Bound], _deadline_ms: u32) -> Done<Outcome> {
    ask(|gpu| gpu.submit(graph, bound))
}

pub(crate) fn try_submit(graph: u64, bound: &[Bound], _deadline_ms: u32) -> Done<u64> {
    ask(|gpu| {
        let outcome = gpu.submit(graph, bound)?;
        Ok(gpu.make(Made::Submission(outcome)))
    })
}

pub(crate) fn wait(submission: u64) -> Done<Outcome> {
    ask(|gpu| match gpu.made.get(&submission) {
        Some(Made::Submission(outcome)) => {
            let outcome = *outcome;
            gpu.made.remove(&submission);
            Ok(outcome)
        }
        _ => Err(gpu.missing(submission, "submission")),
    })
}

pub(crate) fn cancel(submission: u64) -> Done {
    ask(|gpu| match gpu.made.get(&submission) {
        Some(Made::Submission(_)) => Ok(()),
        _ => Err(gpu.missing(submission, "submission")),
    })
}

pub(crate) fn free(handle: u64) -> Done {
    ask(|gpu| match gpu.made.get(&handle) {
        // The batch frees what is attached.
        Some(Made::Buffer { kind: Kind::Attached, .. }) | None => {
            Err(gpu.missing(handle, "thing of its own"))
        }
        Some(_) => {
            gpu.made.remove(&handle);
            Ok(())
        }
    })
}
