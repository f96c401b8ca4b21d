//! Vulkan compute for sandboxed guests, in slices.
//!
//! ```text
//!  work ─► slice (whose turn is it) ─► device ─► vulkan | fake
//!   │                                    │
//!  ledger (memory)                    kernel (checked WGSL)
//! ```
//!
//! - No kernel reaches a device that was not checked and given its safety passes (`kernel`).
//! - What a tenant gets of the device is decided by a scheduler that has no clock and no device
//!   (`slice`), and counted in full: each moment of the device is charged once.
//! - Everything above `device` runs on both devices, and one contract holds for both.
//!
//! Leaves to others: buffers and kernels by tenant, processes, messages and metrics.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod device;
pub mod error;
pub mod fake;
pub mod kernel;
pub mod ledger;
pub mod slice;
pub mod vulkan;

pub use error::Error;
