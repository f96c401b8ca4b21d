//! Memory of the device with a buffer over all of it, and the processor's view of it where it has
//! one. Mapped once, for as long as it lives.
//!
//! Keeps true: nothing outside the buffer is reached, whatever is asked for. Leaves to `Queue` that
//! nothing is read or written while work uses it, and that it is dropped only once none does.

#![expect(unsafe_code, reason = "calls of Vulkan, and memory the driver maps")]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ash::vk;

use super::adapter::Use;
use super::gpu::{Gpu, failed};
use crate::Error;

/// See the module.
pub(super) struct Buffer {
    gpu: Arc<Gpu>,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    /// A multiple of 4.
    bytes: u64,
    mapped: Option<NonNull<u8>>,
}

// SAFETY: what is mapped belongs to the process, not to a thread.
unsafe impl Send for Buffer {}

// SAFETY: all that touches what is mapped is by atomics, or has its callers see to it (`unsafe`).
unsafe impl Sync for Buffer {}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Buffer {
    /// Takes so many bytes or a few more. What is in them is not known, and may be another's.
    ///
    /// # Errors
    /// There is no more; what the driver says.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: u64, wanted: Use) -> Result<Self, Error> {
        let no_more = Error::Memory { bytes };
        let size = bytes.max(4).checked_next_multiple_of(4);
        let size = size.filter(|size| *size <= gpu.adapter.block_bytes_max);
        let size = size.ok_or_else(|| no_more.clone())?;
        let info = vk::BufferCreateInfo::default().size(size).usage(
            vk::BufferUsageFlags::STORAGE_BUFFER
                | vk::BufferUsageFlags::UNIFORM_BUFFER
                | vk::BufferUsageFlags::TRANSFER_SRC
                | vk::BufferUsageFlags::TRANSFER_DST,
        );
        // SAFETY: the size is not 0 and not more than the driver allows for one piece of memory.
        let buffer = unsafe { gpu.device.create_buffer(&info, None) };
        let buffer = buffer.map_err(no_memory(bytes, "make a buffer"))?;
        // From here on `drop` gives back what there is.
        let (gpu, memory) = (Arc::clone(gpu), vk::DeviceMemory::null());
        let mut made = Self { gpu, buffer, memory, bytes: size, mapped: None };
        let device = &made.gpu.device;
        // SAFETY: it is of this device.
        let needs = unsafe { device.get_buffer_memory_requirements(buffer) };
        let adapter = &made.gpu.adapter;
        let Some((kind, is_mapped)) = adapter.memory_type(needs.memory_type_bits, wanted) else {
            return Err(Error::Driver("it has no memory for buffers".to_owned()));
        };
        if needs.size > adapter.block_bytes_max {
            return Err(no_more);
        }
        let info =
            vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(kind);
        // SAFETY: the type is one of the device's, and the size is within its limits.
        let memory = unsafe { device.allocate_memory(&info, None) };
        made.memory = memory.map_err(no_memory(bytes, "take memory"))?;
        // SAFETY: both are of this device and new, the type fits, and the memory is as large.
        unsafe { device.bind_buffer_memory(buffer, made.memory, 0) }
            .map_err(no_memory(bytes, "bind memory"))?;
        if is_mapped {
            let (memory, all) = (made.memory, vk::MemoryMapFlags::empty());
            // SAFETY: the type can be mapped, and it is not.
            let start = unsafe { device.map_memory(memory, 0, vk::WHOLE_SIZE, all) };
            made.mapped = NonNull::new(start.map_err(no_memory(bytes, "map memory"))?.cast());
        }
        Ok(made)
    }

    pub(super) fn raw(&self) -> vk::Buffer {
        self.buffer
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the processor reaches it.
    pub(super) fn is_mapped(&self) -> bool {
        self.mapped.is_some()
    }

    /// Makes it all zeros, by the processor.
    ///
    /// # Safety
    /// Nobody else uses it now, no work either.
    pub(super) unsafe fn clear(&self) {
        let start = self.at(0, self.bytes as usize);
        // SAFETY: so many bytes from there are mapped, and nobody else uses them.
        unsafe { start.write_bytes(0, self.bytes as usize) };
    }

    /// Writes to it.
    ///
    /// # Safety
    /// Nobody else uses these bytes now, no work either.
    pub(super) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: so many bytes from there are mapped, and nobody else uses them; what the driver
        // maps is not what the caller has.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Reads from it.
    ///
    /// # Safety
    /// Nobody writes these bytes now, no work either.
    pub(super) unsafe fn read(&self, offset: u64, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: so many bytes from there are mapped, and nobody writes them; what the driver maps
        // is not what the caller has. Any bits are bytes.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *into).cast(), into.len()) };
    }

    /// Some of its words, which a kernel may use at the same time.
    pub(super) fn words(&self, offset: u64, count: usize) -> &[AtomicU32] {
        assert!(offset.is_multiple_of(4), "words begin at a multiple of 4");
        let from = self.at(offset, count * 4);
        // SAFETY: so many bytes from there are mapped for as long as this lives, and what is mapped
        // begins at a multiple of 64. Any bits are a number, and all who use it do so by atomics.
        unsafe { std::slice::from_raw_parts(from.cast().as_ptr(), count) }
    }

    /// Where so many bytes are mapped.
    fn at(&self, offset: u64, bytes: usize) -> NonNull<u8> {
        let end = offset.checked_add(bytes as u64);
        assert!(end.is_some_and(|end| end <= self.bytes), "it is inside the buffer");
        let start = self.mapped.expect("only what is mapped is used by the processor");
        // SAFETY: it is inside, or at the end of, what is mapped.
        unsafe { start.add(offset as usize) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.gpu.is_abandoned() {
            return;
        }
        // SAFETY: it was made here, and no work uses it any more (`Queue`).
        unsafe { self.gpu.device.destroy_buffer(self.buffer, None) };
        // SAFETY: as before; freeing unmaps it, and nobody has a reference into it. Nothing is done
        // for what was never taken.
        unsafe { self.gpu.device.free_memory(self.memory, None) };
    }
}

fn no_memory(bytes: u64, doing: &'static str) -> impl FnOnce(vk::Result) -> Error {
    move |why| match why {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY
        | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
        | vk::Result::ERROR_TOO_MANY_OBJECTS => Error::Memory { bytes },
        why => failed(doing)(why),
    }
}
