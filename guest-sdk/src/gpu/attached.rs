//! Buffers that go with an event from stage to stage.
//!
//! - Whoever emits a buffer gives it away: it is the batch's, which frees it when it has ended.
//! - Whoever gets one can read it and bind it to be read, and has nothing to free.
//! - It cannot be kept for another call: it borrows the event, as its bytes last no longer for
//!   certain.
//!
//! How a draft takes them is in `output/attached.rs`.

use std::marker::PhantomData;

use super::buffer::read;
use super::record::{Scalar, values_of};
use super::{Binding, Buffer, Error, Result};
use crate::event::Event;
use crate::host;
use crate::output::{Attachment, sealed};

impl<'a> Event<'a> {
    /// The buffers of a GPU that the stage before has attached, in its order.
    pub fn buffers(&self) -> impl Iterator<Item = Attached<'a>> + use<'a> {
        self.attachments().map(|handle| Attached { handle, event: PhantomData })
    }
}

/// A buffer that an event of this call has attached. Everybody reads it and nobody writes it.
///
/// ```
/// # use sluicebox_guest::{Event, Output, Result};
/// fn second(event: Event<'_>, out: &mut Output) -> Result {
///     for buffer in event.buffers() {
///         let first = buffer.read::<f32>(0, 1)?;
///         out.json(&event, &first);
///         out.draft(&event).attach(buffer).emit("the same to the next stage");
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached<'a> {
    handle: u64,
    event: PhantomData<&'a ()>,
}

impl<'a> Attached<'a> {
    /// The host's number for it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// How many bytes it has. Asks the host.
    ///
    /// # Errors
    ///
    /// The device was lost, and the buffer with it.
    pub fn bytes(&self) -> Result<u64> {
        host::gpu::size(self.handle).map_err(Error::new)
    }

    /// Reads `count` values from byte `offset` on, a multiple of 4.
    ///
    /// # Errors
    ///
    /// As for [`Buffer::read`], and [`Attached::bytes`].
    pub fn read<T: Scalar>(&self, offset: u64, count: usize) -> Result<Vec<T>> {
        read(self.handle, offset, count)
    }

    /// Reads all of it, at most 64 MiB.
    ///
    /// # Errors
    ///
    /// As for [`Attached::read`].
    pub fn read_all<T: Scalar>(&self) -> Result<Vec<T>> {
        let read = host::gpu::read(self.handle, 0, self.bytes()?).map_err(Error::new)?;
        Ok(values_of(&read))
    }

    /// All of it, for a slot of a graph that is only read.
    #[must_use]
    pub fn whole(&self) -> Binding<'a> {
        // 0 are all that follow.
        self.range(0, 0)
    }

    /// Some bytes of it, for a slot of a graph that is only read.
    #[must_use]
    pub fn range(&self, offset: u64, bytes: u64) -> Binding<'a> {
        Binding::new(self.handle, offset, bytes)
    }
}

impl sealed::Sealed for Buffer {}
impl Attachment for Buffer {
    fn parts(self) -> (u64, Option<fn(u64)>) {
        (self.give(), Some(free))
    }
}

impl sealed::Sealed for Attached<'_> {}
impl Attachment for Attached<'_> {
    fn parts(self) -> (u64, Option<fn(u64)>) {
        (self.handle, None)
    }
}

/// Frees what was not emitted after all.
fn free(handle: u64) {
    // It may have gone with the device, as in the drop of `Handle`.
    let _freed = host::gpu::free(handle);
}

#[cfg(test)]
mod tests;
