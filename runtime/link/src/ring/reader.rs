//! The end of a ring that packets are taken out of.
//!
//! Keeps true: where it reads follows from numbers of its own alone. The writer's position and the
//! word before a packet are read once, copied, and then checked; of a packet every word is read
//! once, into memory of our own. At most one packet of the agreed size is asked for at a time.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::format::{HEADER_WORDS, Sizes, Spot, WORD_BYTES, packet_bytes, packet_span};
use super::{raw, wake};
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Reader<M> {
    memory: M,
    sizes: Sizes,
    /// Bytes ever taken out.
    tail: u64,
    /// Bytes ever put in, when it was looked at last.
    head: u64,
}

/// What there was to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// A packet.
    Packet {
        /// It.
        bytes: Bytes,
        /// The writer sleeps and is to be woken.
        wake: bool,
    },
    /// Nothing now.
    Empty,
    /// Nothing ever more: the writer has closed.
    Closed,
}

impl<M: Deref<Target = [AtomicU64]>> Reader<M> {
    /// For memory that is fresh, whose header was read and has these sizes.
    ///
    /// # Panics
    /// The memory has others.
    pub(super) fn new(memory: M, sizes: Sizes) -> Self {
        assert_eq!(memory.len() * WORD_BYTES, sizes.memory_bytes(), "the memory has these sizes");
        Self { memory, sizes, tail: 0, head: 0 }
    }

    /// The memory, for tests that lie in it.
    #[cfg(test)]
    pub(super) fn memory(&self) -> &[AtomicU64] {
        &self.memory
    }

    /// Takes the next packet out.
    ///
    /// # Errors
    /// [`Error::Garbage`]: what is there cannot be.
    pub(super) fn take(&mut self) -> Result<Taken, Error> {
        if self.head == self.tail {
            // First this, as a writer that has closed writes nothing more.
            let is_closed = Spot::WriterClosed.of(&self.memory).load(Ordering::Acquire) == 1;
            self.look()?;
            if self.head == self.tail {
                return Ok(if is_closed { Taken::Closed } else { Taken::Empty });
            }
        }
        let data = &self.memory[HEADER_WORDS..];
        let at = self.place();
        let there = (self.head - self.tail) as usize;
        let word = data[at].load(Ordering::Relaxed);
        let bytes = packet_bytes(word, self.sizes.packet_bytes_max, there)?;
        let span = packet_span(bytes);
        let words = span / WORD_BYTES - 1;
        let from = (at + 1) & (data.len() - 1);
        let up_to_end = words.min(data.len() - from);
        let pieces = [&data[from..from + up_to_end], &data[..words - up_to_end]];
        let bytes = raw::copy_out(pieces, bytes);
        self.tail += span as u64;
        let tail = Spot::Tail.of(&self.memory);
        let wake = wake::publish(tail, self.tail, Spot::WriterSleeps.of(&self.memory));
        Ok(Taken::Packet { bytes: bytes.into(), wake })
    }

    /// Says that this end will sleep for the next packet. Whoever does then tries to take one once
    /// more.
    pub(super) fn lie_down(&self) {
        let (sleeper, head) = (Spot::ReaderSleeps.of(&self.memory), Spot::Head.of(&self.memory));
        wake::lie_down(sleeper, self.tail + 1, head);
    }

    /// Says that this end is awake.
    pub(super) fn wake_up(&self) {
        wake::wake_up(Spot::ReaderSleeps.of(&self.memory));
    }

    /// Says that nothing more is wanted. The writer is to be woken, whatever it does.
    pub(super) fn close(&self) {
        Spot::ReaderClosed.of(&self.memory).store(1, Ordering::Release);
    }

    /// Looks how far the writer is.
    fn look(&mut self) -> Result<(), Error> {
        let head = Spot::Head.of(&self.memory).load(Ordering::Acquire);
        if head < self.head {
            return Err(Error::Garbage { what: "the writer went back" });
        }
        if head - self.tail > self.sizes.ring_bytes as u64 {
            return Err(Error::Garbage { what: "the writer is ahead by more than the ring has" });
        }
        if !head.is_multiple_of(WORD_BYTES as u64) {
            return Err(Error::Garbage { what: "the writer is inside a word" });
        }
        self.head = head;
        Ok(())
    }

    /// The word of the data that is read next.
    fn place(&self) -> usize {
        (self.tail as usize & (self.sizes.ring_bytes - 1)) / WORD_BYTES
    }
}
