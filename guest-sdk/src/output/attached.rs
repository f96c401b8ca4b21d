//! What the draft at hand attaches to its event.
//!
//! - All of it is one field: of several with one id the host looks at the first only.
//! - What an instance gives away with an event is freed if that is not emitted, and only then.
//! - It is freed by a pointer to a function. Every stage has drafts; one that attaches nothing has
//!   to do without the import that frees, which needs a grant.

use std::mem::ManuallyDrop;

use crate::event::field;
use crate::frame;

/// What can be attached to an emitted event: a [`Buffer`](crate::gpu::Buffer) of the instance, and
/// what an event has [attached](crate::gpu::Attached).
pub trait Attachment: sealed::Sealed {
    /// The handle, and how it is freed if the instance gives it away.
    #[doc(hidden)]
    fn parts(self) -> (u64, Option<fn(u64)>);
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Given {
    handles: Vec<u8>,
    owned: Vec<Owned>,
}

/// A handle that is freed when this is dropped.
#[derive(Debug)]
struct Owned {
    handle: u64,
    free: fn(u64),
}

impl Given {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// How many handles.
    pub(super) fn len(&self) -> usize {
        self.handles.len() / size_of::<u64>()
    }

    pub(super) fn push(&mut self, handle: u64, free: Option<fn(u64)>) {
        self.handles.extend(handle.to_le_bytes());
        self.owned.extend(free.map(|free| Owned { handle, free }));
    }

    /// Adds the field with the handles, if there are any. As many as an event may have fit in.
    pub(super) fn pack(&self, fields: &mut Vec<u8>) {
        if !self.is_empty() {
            let _fits = frame::push_field(fields, field::ATTACHMENTS, &self.handles);
        }
    }

    /// The event was packed: what it has attached is the batch's.
    pub(super) fn keep(&mut self) {
        for owned in self.owned.drain(..) {
            // The host frees it when the batch has ended.
            let _kept = ManuallyDrop::new(owned);
        }
        self.handles.clear();
    }

    /// Another draft begins. What the last one has left was not emitted.
    #[inline]
    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            self.free();
        }
    }

    #[cold]
    fn free(&mut self) {
        self.handles.clear();
        self.owned.clear();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        (self.free)(self.handle);
    }
}
