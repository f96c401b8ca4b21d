//! Compute programs, in WGSL.
//!
//! The host checks a source and bounds what it does; here it is a text, and a kernel is the host's
//! number for what it made of it.

use super::{Error, Handle, Result};
use crate::host;

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer, which it reads.
    Uniform,
    /// A storage buffer that it only reads.
    Read,
    /// A storage buffer that it reads and writes. Overlaps nothing else that is bound.
    ReadWrite,
}

/// A buffer that a kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its `@binding`.
    pub number: u32,
    /// How it is used.
    pub access: Access,
    /// The fewest bytes that may be bound.
    pub bytes_min: u64,
}

/// A compute program, freed when this is dropped; graphs that it is part of keep it.
#[derive(Debug)]
pub struct Kernel {
    handle: Handle,
}

impl Kernel {
    /// The compute entry point `entry` of a source in WGSL, of at most 64 KiB, that uses buffers
    /// of `@group(0)`. The host compiles the same source once.
    ///
    /// # Errors
    ///
    /// The source is not WGSL, has no such entry point, or does what kernels may not; the message
    /// names the place.
    pub fn new(source: &str, entry: &str) -> Result<Self> {
        Ok(Self { handle: Handle(host::gpu::kernel(source, entry).map_err(Error::new)?) })
    }

    /// The buffers it uses, in ascending order of their numbers.
    ///
    /// # Errors
    ///
    /// The device was lost.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        host::gpu::slots(self.handle.0).map_err(Error::new)
    }

    /// The host's number for it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle.0
    }
}
