//! The port by which a stage gets at a GPU: what its imports need, and nothing of how it is done.
//!
//! Keeps true, whoever is behind it:
//! - An instance reaches what it made itself, and nothing else; all of it goes when the instance
//!   does.
//! - Each answer comes after a bounded time. What was lost is told, and can be made anew.
//! - What is asked for is checked by whoever does it: here are only numbers.
//!
//! Leaves to others: devices, processes and shares (the node).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// Something that was asked of a GPU.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send + 'a>>;

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its stable code, `gpu.lost` for example.
    pub code: String,
    /// For people.
    pub text: String,
}

impl fmt::Display for Refused {
    /// As guests are told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

/// What kind of machine a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With memory of its own.
    Discrete,
    /// Shares memory with the processor.
    Integrated,
    /// The processor, by a driver of Vulkan.
    Software,
    /// The processor, without one.
    Interpreter,
}

/// A device, and what a stage may do with it. As `device` of `sluicebox:gpu/compute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As the driver names it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// What kind of machine it is.
    pub kind: Kind,
    /// Handles that were made before it moved on are over.
    pub generation: u32,
    /// Workgroups on each axis.
    pub groups: u32,
    /// Workgroups of a dispatch.
    pub dispatch_groups: u64,
    /// Invocations of a workgroup.
    pub group_threads: u32,
    /// Bytes that they share.
    pub group_bytes: u32,
    /// Bindings of a kernel.
    pub bindings: u32,
    /// Bytes of a binding.
    pub binding_bytes: u64,
    /// What offsets of bindings are multiples of.
    pub offset_bytes: u32,
    /// Iterations of loops of an invocation.
    pub fuel: u32,
    /// Memory of the tenant in any case.
    pub memory_guaranteed: u64,
    /// And besides.
    pub memory_borrowable: u64,
    /// Submissions of the stage that have not ended.
    pub queue: u32,
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// It is read.
    Read,
    /// It is read and written.
    ReadWrite,
}

/// A buffer that a kernel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its `@binding`.
    pub number: u32,
    /// What is done with it.
    pub access: Access,
    /// The fewest bytes that may be bound.
    pub bytes_min: u64,
}

/// Some bytes of what is bound to a slot of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of the graph.
    pub slot: u32,
    /// Of the first byte.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// A step of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Runs a kernel.
    Dispatch {
        /// Its handle.
        kernel: u64,
        /// Workgroups on each axis.
        grid: [u32; 3],
        /// For each slot of the kernel, one of the graph.
        slots: Vec<u32>,
    },
    /// Copies.
    Copy {
        /// What.
        from: Part,
        /// Where to.
        to: Part,
    },
    /// Writes a word again and again.
    Fill {
        /// Where.
        at: Part,
        /// What.
        word: u32,
    },
}

/// Some bytes of a buffer, for a slot of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Its handle.
    pub buffer: u64,
    /// Of the first byte.
    pub offset: u64,
    /// How many; none are all that follow.
    pub bytes: Option<u64>,
}

/// A graph to be done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its handle.
    pub graph: u64,
    /// For each of its slots.
    pub bindings: Vec<Binding>,
    /// How long it may take; none is as long as the stage may.
    pub time_max: Option<Duration>,
}

/// How a submission ended. As `end` of `sluicebox:gpu/compute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was done.
    Whole,
    /// An invocation has used its fuel up.
    Fuel,
    /// It was to end.
    Cancelled,
    /// Its time was up.
    Deadline,
    /// It took far longer than expected.
    Overdue,
    /// One before it did not end whole.
    Poisoned,
    /// The device refused a step of it.
    Refused,
    /// The device was lost.
    Lost,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Nanoseconds of the device that are charged for it.
    pub device_nanos: u64,
}

/// What a stage has of a GPU.
pub trait Gpu: fmt::Debug + Send + Sync {
    /// What a new instance of the stage has of it: nothing yet. Asks nobody.
    fn open(&self) -> Box<dyn Session>;

    /// How often a device was lost until now, with all that was in it.
    fn losses(&self) -> u64;

    /// A batch of a partition has ended: what instances of the stage have attached in it goes.
    fn end_batch(&self, batch: u64);
}

/// What an instance has of a GPU, until it is dropped. All that is asked for may be refused.
pub trait Session: fmt::Debug + Send + Sync {
    /// The device there is.
    fn describe(&self) -> Asking<'_, Device>;
    /// Makes a buffer.
    fn create(&self, bytes: u64) -> Asking<'_, u64>;
    /// Writes to a buffer.
    fn write(&self, buffer: u64, offset: u64, bytes: Bytes) -> Asking<'_, ()>;
    /// Reads a buffer.
    fn read(&self, buffer: u64, offset: u64, bytes: u64) -> Asking<'_, Bytes>;
    /// How many bytes a buffer has.
    fn size(&self, buffer: u64) -> Asking<'_, u64>;
    /// A buffer with the bytes of an asset of the stage, which is called so.
    fn constant(&self, name: String, bytes: Bytes) -> Asking<'_, u64>;
    /// Makes a kernel of a source and its entry point.
    fn kernel(&self, source: String, entry: String) -> Asking<'_, u64>;
    /// What a kernel binds.
    fn slots(&self, kernel: u64) -> Asking<'_, Vec<Slot>>;
    /// Makes a graph.
    fn graph(&self, steps: Vec<Step>) -> Asking<'_, u64>;
    /// Does a graph, and waits for its turn and its end.
    fn submit(&self, order: Order) -> Asking<'_, Outcome>;
    /// Begins a graph, or is refused as `gpu.would-block`.
    fn try_submit(&self, order: Order) -> Asking<'_, u64>;
    /// Waits for the end of a submission.
    fn wait(&self, submission: u64) -> Asking<'_, Outcome>;
    /// Has a submission end soon.
    fn cancel(&self, submission: u64) -> Asking<'_, ()>;
    /// Gives a buffer to a batch, which has a number of the node's: from then on it is read, by all
    /// stages of the tenant, and not written, until the batch has ended.
    fn attach(&self, buffer: u64, batch: u64) -> Asking<'_, ()>;
    /// Frees a buffer, a kernel or a graph.
    fn free(&self, handle: u64) -> Asking<'_, ()>;
}
