//! Memory of the device.
//!
//! - Numbers are little-endian, one behind the other.
//! - A binding borrows its buffer, so that what is submitted is still there.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use super::record::{Scalar, bytes_of, values_of};
use super::{Error, Handle, Result};
use crate::host;

/// Memory of the device, freed when this is dropped; what submissions need of it stays until they
/// have ended.
///
/// ```
/// # use sluicebox_guest::gpu::{Buffer, Result};
/// # fn twice() -> Result<()> {
/// let weights = Buffer::of(&[0.5_f32, 0.25, 0.25])?;
/// let sums = Buffer::new(1024)?;              // zeros
/// weights.write(4, &[0.125_f32])?;            // from byte 4 on
/// let first: Vec<u32> = sums.read(0, 10)?;    // ten numbers from the beginning
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Buffer {
    handle: Handle,
    bytes: u64,
}

impl Buffer {
    /// So many bytes, a multiple of 4, all zero.
    ///
    /// # Errors
    ///
    /// There is no room, or the number is none for a buffer.
    pub fn new(bytes: u64) -> Result<Self> {
        let handle = Handle(host::gpu::create(bytes).map_err(Error::new)?);
        Ok(Self { handle, bytes })
    }

    /// A buffer with these values. Bytes are filled up with zeros to a multiple of 4.
    ///
    /// # Errors
    ///
    /// As for [`Buffer::new`].
    pub fn of<T: Scalar>(values: &[T]) -> Result<Self> {
        let bytes = bytes_of(values);
        let buffer = Self::new(bytes.len() as u64)?;
        buffer.write_bytes(0, &bytes)?;
        Ok(buffer)
    }

    /// A buffer with the bytes of an asset, which nothing writes. The device has it once for all
    /// stages of the tenant.
    ///
    /// # Errors
    ///
    /// The manifest grants no such asset, its size is no multiple of 4, or there is no room.
    pub fn constant(asset: &str) -> Result<Self> {
        let handle = Handle(host::gpu::constant(asset).map_err(Error::new)?);
        let bytes = host::gpu::size(handle.0).map_err(Error::new)?;
        Ok(Self { handle, bytes })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The host's number for it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle.0
    }

    /// Writes values from byte `offset` on, a multiple of 4. Bytes are filled up with zeros to a
    /// multiple of 4.
    ///
    /// # Errors
    ///
    /// It does not fit in, or a submission that has not ended uses the buffer.
    pub fn write<T: Scalar>(&self, offset: u64, values: &[T]) -> Result<()> {
        self.write_bytes(offset, &bytes_of(values))
    }

    pub(super) fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        host::gpu::write(self.handle.0, offset, bytes).map_err(Error::new)
    }

    /// Reads `count` values from byte `offset` on, a multiple of 4.
    ///
    /// # Errors
    ///
    /// There are not so many, a submission that has not ended writes the buffer, or one that did
    /// not end whole has.
    pub fn read<T: Scalar>(&self, offset: u64, count: usize) -> Result<Vec<T>> {
        read(self.handle.0, offset, count)
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// As for [`Buffer::read`].
    pub fn read_all<T: Scalar>(&self) -> Result<Vec<T>> {
        Ok(values_of(&self.read_bytes(0, self.bytes)?))
    }

    pub(super) fn read_bytes(&self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        host::gpu::read(self.handle.0, offset, bytes).map_err(Error::new)
    }

    /// All of it, for a slot of a graph.
    #[must_use]
    pub fn whole(&self) -> Binding<'_> {
        self.range(0, self.bytes)
    }

    /// Some bytes of it, for a slot of a graph.
    #[must_use]
    pub fn range(&self, offset: u64, bytes: u64) -> Binding<'_> {
        Binding::new(self.handle.0, offset, bytes)
    }

    /// The handle, which is not freed any more.
    pub(super) fn give(self) -> u64 {
        ManuallyDrop::new(self).handle.0
    }
}

/// Reads `count` values of any buffer.
pub(super) fn read<T: Scalar>(buffer: u64, offset: u64, count: usize) -> Result<Vec<T>> {
    let bytes = (count * T::BYTES).next_multiple_of(4);
    let read = host::gpu::read(buffer, offset, bytes as u64).map_err(Error::new)?;
    let mut values = values_of(&read);
    values.truncate(count);
    Ok(values)
}

/// Some bytes of a buffer, for a slot of a graph. Made by [`Buffer::whole`] and [`Buffer::range`],
/// and those of [`Attached`](super::Attached).
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    buffer: u64,
    offset: u64,
    bytes: u64,
    borrowed: PhantomData<&'a Buffer>,
}

impl Binding<'_> {
    pub(super) fn new(buffer: u64, offset: u64, bytes: u64) -> Self {
        Self { buffer, offset, bytes, borrowed: PhantomData }
    }

    /// Handle, offset, bytes.
    pub(crate) fn parts(self) -> (u64, u64, u64) {
        (self.buffer, self.offset, self.bytes)
    }
}
