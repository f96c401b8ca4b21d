//! The end of a ring that packets are taken out of.
//!
//! Keeps true: where it reads follows from numbers of its own alone. The writer's position and the
//! word before a packet are read once, copied, and then checked; of a packet every word is read
//! once, into memory of our own. At most one packet of the agreed size is asked for at a time.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::format::{HEADER_WORDS, Sizes, Spot, WORD_BYTES, packet_bytes};
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

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// A packet of so many bytes, all of which are there.
    Packet(usize),
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
        let bytes = match self.begin()? {
            Begun::Packet(bytes) => bytes,
            Begun::Empty => return Ok(Taken::Empty),
            Begun::Closed => return Ok(Taken::Closed),
        };
        let words = bytes.div_ceil(WORD_BYTES);
        let bytes = raw::copy_out(self.words(words), bytes);
        let wake = self.pass(words);
        Ok(Taken::Packet { bytes: bytes.into(), wake })
    }

    /// Goes behind the word before the next packet, which the caller then takes, or parts of it in
    /// order, by [`Reader::words`] and [`Reader::pass`].
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub(super) fn begin(&mut self) -> Result<Begun, Error> {
        if self.head == self.tail {
            // First this, as a writer that has closed writes nothing more.
            let is_closed = Spot::WriterClosed.of(&self.memory).load(Ordering::Acquire) == 1;
            self.look()?;
            if self.head == self.tail {
                return Ok(if is_closed { Begun::Closed } else { Begun::Empty });
            }
        }
        let there = (self.head - self.tail) as usize;
        let word = self.memory[HEADER_WORDS..][self.place()].load(Ordering::Relaxed);
        let bytes = packet_bytes(word, self.sizes.packet_bytes_max, there)?;
        self.tail += WORD_BYTES as u64;
        Ok(Begun::Packet(bytes))
    }

    /// The next so many words of the packet that was begun, which has them.
    pub(super) fn words(&self, words: usize) -> [&[AtomicU64]; 2] {
        debug_assert!(words * WORD_BYTES <= (self.head - self.tail) as usize, "they are there");
        let (data, from) = (&self.memory[HEADER_WORDS..], self.place());
        let up_to_end = words.min(data.len() - from);
        [&data[from..from + up_to_end], &data[..words - up_to_end]]
    }

    /// Gives the writer the room of words that were taken. True if it sleeps and is to be woken.
    pub(super) fn pass(&mut self, words: usize) -> bool {
        self.tail += (words * WORD_BYTES) as u64;
        let tail = Spot::Tail.of(&self.memory);
        wake::publish(tail, self.tail, Spot::WriterSleeps.of(&self.memory))
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
