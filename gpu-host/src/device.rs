//! What a device does, as everything above needs it: memory, kernels, work.
//!
//! What every device keeps true, and `contract` tests:
//!
//! - A block reads as zeros until something is written to it, whoever had its memory before.
//! - Nothing that a kernel does changes a byte outside the spans that are bound for it: reads out
//!   of range give 0, writes vanish.
//! - A dispatch in pieces leaves the same bytes as in one.
//! - Work is done in the order in which it was submitted, whole or with the reason why not. What a
//!   kernel that was ended early has written is there in part.
//!
//! A device is used by one thread. It knows no tenants.

pub(crate) mod check;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::kernel::Kernel;

/// What a device is and what fits into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// As the driver names it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// What kind of machine it is.
    pub kind: Kind,
    /// Memory of the largest heap that kernels may use.
    pub memory_bytes: u64,
    /// Reading and writing wait for all work that was submitted before: the processor does not
    /// reach its memory.
    pub copies_wait: bool,
    /// Loading a kernel does: it is run once.
    pub loads_wait: bool,
    /// What one dispatch may be.
    pub limits: Limits,
}

/// What kind of machine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// With memory of its own.
    Discrete,
    /// Shares memory with the processor.
    Integrated,
    /// The processor, by a driver of Vulkan.
    Software,
    /// The processor, without one.
    Fake,
}

/// What one dispatch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Workgroups on each axis.
    pub groups: u32,
    /// Invocations in a workgroup.
    pub group_threads: u32,
    /// Bytes that the invocations of a workgroup share.
    pub group_bytes: u32,
    /// Bytes of one binding.
    pub binding_bytes: u64,
    /// Bindings of one kernel.
    pub bindings: u32,
    /// What offsets of bindings are multiples of.
    pub offset_bytes: u64,
    /// Iterations of loops of an invocation behind which the driver goes on without a word; none
    /// if there is no such end. Work ends before that, as without fuel, from about half of it on.
    pub iterations: Option<u64>,
}

/// A piece of device memory. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(pub u64);

/// A kernel that a device can run. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loaded(pub u64);

/// Work that was submitted. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Some bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which block.
    pub block: Block,
    /// Of the first byte.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl Span {
    /// Whether a byte is in both. Both are inside their blocks.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let end = |span: &Self| span.offset.saturating_add(span.bytes);
        let from = self.offset.max(other.offset);
        self.block == other.block && from < end(self).min(end(other))
    }
}

/// One step of work. All steps of a submission come one after the other, each with what those
/// before have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes a word again and again; offset and length are multiples of 4.
    Fill {
        /// Where.
        at: Span,
        /// What.
        word: u32,
    },
    /// Copies as many bytes as `from` has; the two do not overlap. Multiples of 4.
    Copy {
        /// What.
        from: Span,
        /// Where to.
        to: Block,
        /// Of the first byte there.
        offset: u64,
    },
    /// Runs some groups of a dispatch.
    Run(Run),
}

/// Some groups of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub kernel: Loaded,
    /// For each slot of the kernel, in its order. One that is written overlaps no other.
    pub bindings: Vec<Span>,
    /// Groups of the whole dispatch, as the kernel sees them.
    pub grid: [u32; 3],
    /// The first of these groups.
    pub from: [u32; 3],
    /// How many there are.
    pub groups: [u32; 3],
    /// Iterations of loops that each invocation may make.
    pub fuel: u32,
}

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Time of the device.
    pub took: Duration,
    /// Why it ended.
    pub end: End,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it was done.
    Whole,
    /// An invocation has used its fuel up.
    Fuel,
    /// It was to end.
    Cancelled,
}

/// See the module.
pub trait Device: Send {
    /// What it is.
    fn info(&self) -> &Info;

    /// Takes memory, all zeros.
    ///
    /// # Errors
    /// There is no more; it would be no byte; the device is lost.
    fn allocate(&mut self, bytes: u64) -> Result<Block, Error>;

    /// Gives memory back, once all work that uses it is done. One that is not there is ignored.
    fn free(&mut self, block: Block);

    /// Writes to memory that no work uses now. How long that takes, without what it waits for.
    ///
    /// # Errors
    /// It is not there, or not as large; work that has not ended uses it; the device is lost.
    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error>;

    /// Reads memory that no work writes now. How long that takes, as of [`write`](Self::write).
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error>;

    /// Makes a kernel ready, so that its first dispatch takes no longer than the next.
    ///
    /// # Errors
    /// The driver refuses it; it is too large for the device.
    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error>;

    /// Forgets a kernel, once all work that uses it is done.
    fn unload(&mut self, kernel: Loaded);

    /// Begins work.
    ///
    /// # Errors
    /// Something it names is not there or out of its bounds: then nothing of it is done.
    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error>;

    /// How work ended, or nothing if it has not after so long. A ticket is good for one answer.
    ///
    /// # Errors
    /// There is no such ticket; the device is lost.
    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error>;

    /// Has kernels of some work end soon. It has still to be waited for.
    fn cancel(&mut self, ticket: Ticket);
}

/// One that is chosen as the process starts.
impl<D: Device + ?Sized> Device for Box<D> {
    fn info(&self) -> &Info {
        (**self).info()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Block, Error> {
        (**self).allocate(bytes)
    }

    fn free(&mut self, block: Block) {
        (**self).free(block);
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error> {
        (**self).write(block, offset, bytes)
    }

    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error> {
        (**self).read(block, offset, into)
    }

    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error> {
        (**self).load(kernel)
    }

    fn unload(&mut self, kernel: Loaded) {
        (**self).unload(kernel);
    }

    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error> {
        (**self).submit(steps)
    }

    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error> {
        (**self).wait(ticket, longest)
    }

    fn cancel(&mut self, ticket: Ticket) {
        (**self).cancel(ticket);
    }
}
