//! What of a ring the compiler cannot check: its memory, made, sealed, inspected, mapped and copied
//! out of, and the watch on its socket. All unsafe code of links is here.
//!
//! - It has a size that neither end can change, which the system keeps (`F_SEAL_SHRINK`,
//!   `F_SEAL_GROW`). Without that the other end could cut it off, and a read would end the process.
//! - It is reached as words that both ends use with atomic operations, never as plain references:
//!   the other end may write any of it at any time.
//! - What was handed over is looked at in an order that calls nothing of a foreign file system:
//!   only memory of the system has seals, so they are asked for first.

use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    FallocateFlags, FsWord, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals,
    fstat, fstatfs, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

use super::format::{HEADER_BYTES, RING_BYTES_MAX, Sizes, WORD_BYTES};
use crate::error::Error;

/// What the system's lists call the memory.
const NAME: &CStr = c"sluicebox-ring";

/// What the other end relies on.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The file system that memory of the usual page size is in. That of huge pages is another, in
/// which a page may be missing when it is touched.
const TMPFS: FsWord = 0x0102_1994;

/// Memory that another process may have as well, as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and all access is atomic.
#[expect(unsafe_code, reason = "a mapping may go to another thread")]
unsafe impl Send for Mapping {}

/// Makes memory of this size, which has it for good.
///
/// # Errors
/// What the system refuses: too little memory above all.
pub(super) fn make(sizes: Sizes) -> Result<OwnedFd, Error> {
    let made = || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Nothing to be executed: some systems want that said, older ones do not know it.
        let file = memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL);
        let file = match file {
            Err(Errno::INVAL) => memfd_create(NAME, flags)?,
            made => made?,
        };
        let bytes = sizes.memory_bytes() as u64;
        ftruncate(&file, bytes)?;
        // Now, as a page that cannot be had later ends the process.
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        Ok(file)
    };
    made().map_err(Error::errno("make the memory"))
}

/// Looks at what another end handed over. Gives the bytes it has, for good.
///
/// # Errors
/// [`Error::Garbage`]: it is no memory that a ring may be in. [`Error::TooLarge`].
pub(super) fn inspect(file: &OwnedFd, ring_bytes_max: usize) -> Result<usize, Error> {
    let garbage = |what| Err(Error::Garbage { what });
    let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    if !seals.contains(SEALS) {
        return garbage("what was handed over is no memory that is sealed against other sizes");
    }
    let system = fstatfs(file).map_err(Error::errno("look at the memory"))?;
    if system.f_type != TMPFS {
        return garbage("what was handed over is memory of another sort");
    }
    let found = fstat(file).map_err(Error::errno("look at the memory"))?;
    let bytes = usize::try_from(found.st_size).unwrap_or(usize::MAX);
    if bytes <= HEADER_BYTES || !bytes.is_multiple_of(WORD_BYTES) {
        return garbage("the memory has a size that no ring has");
    }
    if bytes - HEADER_BYTES > ring_bytes_max.min(RING_BYTES_MAX) {
        return Err(Error::TooLarge { what: "a larger ring" });
    }
    Ok(bytes)
}

/// Maps memory that was made or inspected and has so many bytes.
///
/// # Errors
/// What the system refuses.
pub(super) fn map(file: impl AsFd, bytes: usize) -> Result<Mapping, Error> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    let anywhere = std::ptr::null_mut();
    // SAFETY: the system chooses the place, so that nothing of ours is mapped over.
    #[expect(unsafe_code, reason = "memory that two processes share")]
    let start = unsafe { mmap(anywhere, bytes, protection, flags, file, 0) };
    let start = start.map_err(Error::errno("map the memory"))?;
    let words = NonNull::new(start.cast()).expect("the system maps nothing at zero unasked");
    Ok(Mapping { words, count: bytes / WORD_BYTES })
}

impl Deref for Mapping {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `map` made it: so many bytes from there are mapped, at the beginning of a page,
        // until `drop`. The file keeps its size (`make`, `inspect`), so that all of them can be
        // touched. Atomics may be changed by others, and any bits are a number.
        #[expect(unsafe_code, reason = "memory that two processes share")]
        unsafe {
            std::slice::from_raw_parts(self.words.as_ptr(), self.count)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start = self.words.as_ptr().cast::<c_void>();
        // SAFETY: `map` made it with this size; nobody has a reference, as it would hold this.
        #[expect(unsafe_code, reason = "memory that two processes share")]
        let unmapped = unsafe { munmap(start, self.count * WORD_BYTES) };
        debug_assert!(unmapped.is_ok(), "what is mapped can be unmapped");
    }
}

/// Lets the runtime say when a socket can be read. Only that: a socket that is watched for room to
/// write as well wakes its thread each time the other end has read.
pub(super) fn watch(socket: UnixStream) -> Result<AsyncFd<UnixStream>, Error> {
    // SAFETY: a `UnixStream` owns its descriptor until it is dropped, and always gives that one.
    #[expect(unsafe_code, reason = "the runtime asks for a descriptor that stays open")]
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(|error| Error::io("watch the socket")(error.into()))
}

/// Copies so many bytes out of words, each of which is read once. The pieces have at least as many
/// words as that takes.
pub(super) fn copy_out(pieces: [&[AtomicU64]; 2], bytes: usize) -> Vec<u8> {
    let words: usize = pieces.iter().map(|piece| piece.len()).sum();
    let space = words * WORD_BYTES;
    assert!(bytes <= space, "the words hold the bytes");
    let mut copy: Vec<u8> = Vec::with_capacity(space);
    fill(&mut copy.spare_capacity_mut()[..space], pieces);
    // SAFETY: `fill` has written all `space` bytes, of which there are at least so many.
    #[expect(unsafe_code, reason = "what is copied is not zeroed before")]
    unsafe {
        copy.set_len(bytes);
    }
    copy
}

/// Copies bytes out of words to where a reader wants them: as many as there are, each word read
/// once.
///
/// # Panics
/// There is less room than `bytes`, or the pieces have not the words that so many take.
pub(super) fn copy_to(buffer: &mut ReadBuf<'_>, pieces: [&[AtomicU64]; 2], bytes: usize) {
    assert!(bytes <= buffer.remaining(), "the caller has looked for room");
    // SAFETY: `fill` only writes, and so makes nothing uninitialised that was not.
    #[expect(unsafe_code, reason = "what is copied is not zeroed before")]
    let to = unsafe { buffer.unfilled_mut() };
    fill(&mut to[..bytes], pieces);
    // SAFETY: `fill` has written all of these, or has not come back.
    #[expect(unsafe_code, reason = "what is copied is not zeroed before")]
    unsafe {
        buffer.assume_init(bytes);
    }
    buffer.advance(bytes);
}

/// Writes all of `to` from words: the last may have more bytes than are wanted.
///
/// # Panics
/// The pieces have more or fewer words than that takes.
fn fill(to: &mut [MaybeUninit<u8>], [first, second]: [&[AtomicU64]; 2]) {
    let words = to.len().div_ceil(WORD_BYTES);
    assert_eq!(first.len() + second.len(), words, "the words are those of the bytes");
    let up_to_end = to.len().min(first.len() * WORD_BYTES);
    let (to_first, to_second) = to.split_at_mut(up_to_end);
    for (to, from) in [(to_first, first), (to_second, second)] {
        let (to, to_tail) = to.as_chunks_mut::<WORD_BYTES>();
        let (from, from_tail) = from.split_at(to.len());
        // Eight at a time, as the compiler leaves loops over atomics as they are.
        let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut::<8>(), from.as_chunks::<8>());
        for (to, from) in to.iter_mut().zip(from) {
            for at in 0..8 {
                to[at] = from[at].load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
            }
        }
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = from.load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
        }
        if let Some(last) = from_tail.first() {
            let last = last.load(Ordering::Relaxed).to_ne_bytes();
            to_tail.iter_mut().zip(last).for_each(|(to, byte)| *to = MaybeUninit::new(byte));
        }
    }
}
