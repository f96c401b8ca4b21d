//! A stage's share of a GPU, in the words of WebGPU: buffers, kernels in WGSL, graphs of steps.
//!
//! - The manifest grants it, `grants = { gpu = {} }`. A stage that uses nothing of this module
//!   imports nothing of it and needs no grant.
//! - Whatever is made here frees itself when it is dropped, and goes with the instance. A buffer
//!   that was attached to an event is the batch's: see [`Draft::attach`](crate::Draft::attach).
//! - What is on a device is a cache. It goes when the device is lost, and then its functions say
//!   [`gpu.lost`](Error::is_lost): make it anew, or fail with the error, which has class retry.
//! - Numbers cross as little-endian bytes, which is what a device has; nothing here is unsafe.
//!
//! [`Map`] is all that most stages need: a kernel over the events of a call.
//!
//! In a native build there is no GPU: every function says `gpu.none`, unless the harness of
//! [`testing`](crate::testing) was given a closure that stands for the kernels, `with_gpu`.

use crate::host;

mod attached;
mod buffer;
mod error;
mod graph;
mod kernel;
mod map;
mod record;
mod submission;

pub use attached::Attached;
pub use buffer::{Binding, Buffer};
pub use error::{Error, Result};
pub use graph::{Graph, Place, Steps};
pub use kernel::{Access, Kernel, Slot};
pub use map::Map;
pub use record::{Record, Scalar};
pub use submission::{End, Outcome, Submission};

pub(crate) use graph::Step;

/// The device there is, and what the stage may do with it.
///
/// # Errors
///
/// There is none, or it was lost just now.
pub fn device() -> Result<Device> {
    host::gpu::describe().map_err(Error::new)
}

/// What kind of machine a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// With memory of its own.
    Discrete,
    /// Shares memory with the processor.
    Integrated,
    /// The processor, by a driver of Vulkan.
    Software,
    /// The processor, without one: for tests.
    Interpreter,
}

/// A device, and what this stage may do with it. Made by [`device`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The name of its driver.
    pub driver: String,
    /// What kind of machine it is.
    pub kind: DeviceKind,
    /// Moves on whenever the device is lost: what was made before is over.
    pub generation: u32,
    /// Workgroups on each axis of a dispatch.
    pub groups: u32,
    /// Workgroups of a dispatch.
    pub dispatch_groups: u64,
    /// Invocations of a workgroup.
    pub group_threads: u32,
    /// Bytes that the invocations of a workgroup share.
    pub group_bytes: u32,
    /// Bindings of a kernel.
    pub bindings: u32,
    /// Bytes of one binding.
    pub binding_bytes: u64,
    /// What offsets of bindings are multiples of.
    pub offset_bytes: u32,
    /// Iterations of loops of one invocation, all its loops together: it is ended then.
    pub fuel: u32,
    /// Bytes of memory that the tenant has in any case.
    pub memory_guaranteed: u64,
    /// Bytes it may have besides, while nobody needs them who is guaranteed them.
    pub memory_borrowable: u64,
    /// Submissions of the stage that have not ended, all its instances together.
    pub queue: u32,
}

/// Something on the device, freed when this is dropped.
#[derive(Debug)]
struct Handle(u64);

impl Drop for Handle {
    fn drop(&mut self) {
        // It may have gone with the device, and nothing depends on it any more.
        let _freed = host::gpu::free(self.0);
    }
}

#[cfg(test)]
mod tests;
