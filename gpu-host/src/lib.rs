//! Vulkan compute for sandboxed guests, in slices.
//!
//! ```text
//!  node ─► wire ─► serve (what waits, who is gone)
//!                    │
//!  host (buffers, kernels, graphs) ─► slice (whose turn is it) ─► device ─► vulkan | fake
//!                    │                                              │
//!             ledger (memory)                               kernel (checked WGSL)
//! ```
//!
//! - No kernel reaches a device that was not checked and given its safety passes (`kernel`).
//! - What a tenant gets of the device is decided by a scheduler that has no clock and no device
//!   (`slice`), and counted in full: each moment of the device is charged once.
//! - Everything above `device` runs on both devices, and one contract holds for both.
//! - What a node and the process that has the device say to each other is here (`wire`), and what
//!   that process does, but for I/O and the clock (`serve`).
//!
//! Leaves to others: processes, how packets get there, and metrics (the node).

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod device;
pub mod error;
pub mod fake;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod serve;
pub mod slice;
pub mod vulkan;
pub mod wire;

pub use error::Error;
