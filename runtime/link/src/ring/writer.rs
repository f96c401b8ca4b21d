//! The end of a ring that packets are put into.
//!
//! Keeps true: where it writes follows from numbers of its own alone. The reader's position is read
//! once and must lie between what it was and what was written; else the link is over. What is in
//! the ring is never read back.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{HEADER_WORDS, Sizes, Spot, WORD_BYTES, packet_span, packet_word};
use super::wake;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Writer<M> {
    memory: M,
    sizes: Sizes,
    /// Bytes ever put in.
    head: u64,
    /// Bytes ever taken out, when it was looked at last.
    tail: u64,
    /// Bytes in the ring of the packet that found no room.
    wanted: usize,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in the ring.
    Done {
        /// The reader sleeps and is to be woken.
        wake: bool,
    },
    /// There is no room.
    Full,
}

impl<M: Deref<Target = [AtomicU64]>> Writer<M> {
    /// For memory that is fresh, and has these sizes.
    ///
    /// # Panics
    /// The memory has others.
    pub(super) fn new(memory: M, sizes: Sizes) -> Self {
        assert_eq!(memory.len() * WORD_BYTES, sizes.memory_bytes(), "the memory has these sizes");
        Self { memory, sizes, head: 0, tail: 0, wanted: 0 }
    }

    /// What was agreed.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Puts a packet in, made of these parts, which are not larger than was agreed.
    ///
    /// # Errors
    /// [`Error::Garbage`]: the reader's position cannot be.
    pub(super) fn put(&mut self, parts: &[&[u8]], bytes: usize) -> Result<Put, Error> {
        debug_assert!(bytes <= self.sizes.packet_bytes_max, "the caller has looked");
        let span = packet_span(bytes);
        if self.room() < span {
            self.look()?;
        }
        if self.room() < span {
            self.wanted = span;
            return Ok(Put::Full);
        }
        self.wanted = 0;
        let mut pen = Pen { data: &self.memory[HEADER_WORDS..], at: self.place() };
        pen.word(packet_word(bytes));
        pen.parts(parts);
        self.head += span as u64;
        let head = Spot::Head.of(&self.memory);
        let wake = wake::publish(head, self.head, Spot::ReaderSleeps.of(&self.memory));
        Ok(Put::Done { wake })
    }

    /// Bytes of a packet that would find room now, of so many. If those are fewer than `least`, it
    /// is room for that which [`Writer::lie_down`] sleeps for.
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub(super) fn room_for(&mut self, bytes: usize, least: usize) -> Result<usize, Error> {
        if self.room() < packet_span(bytes) {
            self.look()?;
        }
        self.wanted = packet_span(least);
        Ok(bytes.min(self.room().saturating_sub(WORD_BYTES)))
    }

    /// True if the packet that found no room would find some now.
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub(super) fn has_room(&mut self) -> Result<bool, Error> {
        if self.room() < self.wanted {
            self.look()?;
        }
        Ok(self.room() >= self.wanted)
    }

    /// Says that this end will sleep for room. True if there is some by now: then it stays awake.
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub(super) fn lie_down(&mut self) -> Result<bool, Error> {
        // Until the packet fits, and until half of the ring is free: a writer that is woken for
        // each packet that leaves would change places with the reader for each.
        let free = self.wanted.max(self.sizes.ring_bytes / 2) as u64;
        let waits_for = (self.head + free).saturating_sub(self.sizes.ring_bytes as u64);
        let sleeper = Spot::WriterSleeps.of(&self.memory);
        if waits_for > 0 {
            wake::lie_down(sleeper, waits_for, Spot::Tail.of(&self.memory));
        }
        let has_room = self.has_room()?;
        if has_room {
            self.wake_up();
        }
        Ok(has_room)
    }

    /// Says that this end is awake.
    pub(super) fn wake_up(&self) {
        wake::wake_up(Spot::WriterSleeps.of(&self.memory));
    }

    /// Says that nothing more comes. The reader is to be woken, whatever it does.
    pub(super) fn close(&self) {
        Spot::WriterClosed.of(&self.memory).store(1, Ordering::Release);
    }

    /// True if the reader has said that it wants nothing more.
    pub(super) fn is_closed_by_reader(&self) -> bool {
        Spot::ReaderClosed.of(&self.memory).load(Ordering::Acquire) == 1
    }

    /// Bytes that are free, as far as is known.
    fn room(&self) -> usize {
        self.sizes.ring_bytes - (self.head - self.tail) as usize
    }

    /// Looks how far the reader is.
    fn look(&mut self) -> Result<(), Error> {
        let tail = Spot::Tail.of(&self.memory).load(Ordering::Acquire);
        if !(self.tail..=self.head).contains(&tail) {
            return Err(Error::Garbage { what: "the reader is where it cannot be" });
        }
        if !tail.is_multiple_of(WORD_BYTES as u64) {
            return Err(Error::Garbage { what: "the reader is inside a word" });
        }
        self.tail = tail;
        Ok(())
    }

    /// The word of the data that is written next.
    fn place(&self) -> usize {
        (self.head as usize & (self.sizes.ring_bytes - 1)) / WORD_BYTES
    }
}

/// Writes words one behind the other, going round.
struct Pen<'a> {
    data: &'a [AtomicU64],
    at: usize,
}

impl Pen<'_> {
    fn word(&mut self, word: u64) {
        self.data[self.at].store(word, Ordering::Relaxed);
        self.at = if self.at + 1 == self.data.len() { 0 } else { self.at + 1 };
    }

    /// The parts joined, then zeros up to the end of a word.
    fn parts(&mut self, parts: &[&[u8]]) {
        // What is left of the parts before, less than a word.
        let (mut rest, mut filled) = ([0; WORD_BYTES], 0);
        for part in parts {
            let mut part = *part;
            if filled > 0 {
                let more = part.len().min(WORD_BYTES - filled);
                rest[filled..filled + more].copy_from_slice(&part[..more]);
                (filled, part) = (filled + more, &part[more..]);
                if filled < WORD_BYTES {
                    continue;
                }
                self.word(u64::from_ne_bytes(rest));
            }
            let (words, tail) = part.as_chunks::<WORD_BYTES>();
            self.words(words);
            rest = [0; WORD_BYTES];
            rest[..tail.len()].copy_from_slice(tail);
            filled = tail.len();
        }
        if filled > 0 {
            self.word(u64::from_ne_bytes(rest));
        }
    }

    fn words(&mut self, mut words: &[[u8; WORD_BYTES]]) {
        while !words.is_empty() {
            let up_to_end = words.len().min(self.data.len() - self.at);
            let (now, later) = words.split_at(up_to_end);
            store_all(&self.data[self.at..self.at + up_to_end], now);
            self.at = if self.at + up_to_end == self.data.len() { 0 } else { self.at + up_to_end };
            words = later;
        }
    }
}

/// Stores as many words as there are; both have the same length.
fn store_all(to: &[AtomicU64], from: &[[u8; WORD_BYTES]]) {
    // Eight at a time, as the compiler leaves loops over atomics as they are.
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks::<8>(), from.as_chunks::<8>());
    for (to, from) in to.iter().zip(from) {
        for at in 0..8 {
            to[at].store(u64::from_ne_bytes(from[at]), Ordering::Relaxed);
        }
    }
    for (to, from) in to_rest.iter().zip(from_rest) {
        to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
    }
}
