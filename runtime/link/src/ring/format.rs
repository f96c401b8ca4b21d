//! What lies where in the memory of a ring, format 1: `docs/format/ring.md` draws it.
//!
//! The memory is words of 8 bytes in the machine's own order, each read and written as one, since
//! the other end may write any of them at any time. A word is read once and then checked; nothing
//! is read twice that a decision hangs on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// The format written, and the newest one read.
pub(super) const FORMAT: u16 = 1;
/// Bytes before the data.
pub(super) const HEADER_BYTES: usize = 4096;
/// Bytes of a word.
pub(super) const WORD_BYTES: usize = 8;
/// The fewest bytes of data: less would be no larger than its header.
pub(super) const RING_BYTES_MIN: usize = 4096;
/// The most. Address space, and memory as far as it is touched.
pub(super) const RING_BYTES_MAX: usize = 1 << 30;

/// How the memory begins; also what the message says that hands it over.
pub(super) const MAGIC: [u8; 8] = *b"SBXRNG\r\n";

/// Words before the data.
pub(super) const HEADER_WORDS: usize = HEADER_BYTES / WORD_BYTES;

/// Upper half of the word before a packet. A reader that has lost its place notices.
const MARK: u64 = 0x5AC4_E77B << 32;
const LENGTH_BITS: u64 = 0xFFFF_FFFF;

/// Which words of the header the ends talk by, each in cache lines of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// The writer's position: bytes ever put in. Only the writer writes it.
    Head = 16,
    /// The reader's position: bytes ever taken out. Only the reader writes it.
    Tail = 32,
    /// The head that the reader sleeps for; 0 if it is awake.
    ReaderSleeps = 48,
    /// The tail that the writer sleeps for; 0 if it is awake.
    WriterSleeps = 64,
    /// 1 when the writer has closed.
    WriterClosed = 80,
    /// 1 when the reader has closed.
    ReaderClosed = 96,
}

impl Spot {
    /// The word itself.
    pub(super) fn of(self, memory: &[AtomicU64]) -> &AtomicU64 {
        &memory[self as usize]
    }
}

/// What two ends agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of data, a power of two.
    pub ring_bytes: usize,
    /// Bytes of the largest packet.
    pub packet_bytes_max: usize,
}

impl Sizes {
    /// Refuses what cannot be a ring.
    ///
    /// # Errors
    /// [`Error::Setting`] with the rule.
    pub fn check(&self) -> Result<(), Error> {
        let what = if !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.ring_bytes) {
            "a ring has 4 KiB to 1 GiB"
        } else if !self.ring_bytes.is_power_of_two() {
            "the bytes of a ring are a power of two"
        } else if self.packet_bytes_max > self.ring_bytes - WORD_BYTES {
            "the largest packet and 8 bytes fit into the ring"
        } else {
            return Ok(());
        };
        Err(Error::Setting { what })
    }

    /// Bytes of the memory.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        HEADER_BYTES + self.ring_bytes
    }
}

/// Writes the header of fresh memory, which is zero.
pub(super) fn write_header(memory: &[AtomicU64], sizes: Sizes) {
    let version = u64::from(FORMAT) | u64::from(FORMAT) << 16 | (HEADER_BYTES as u64) << 32;
    let words = [
        u64::from_ne_bytes(MAGIC),
        version,
        sizes.ring_bytes as u64,
        sizes.packet_bytes_max as u64,
    ];
    for (word, value) in memory.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Reads the header of memory that another end made.
///
/// # Errors
/// [`Error::FormatNewer`], or [`Error::Garbage`] with what is wrong.
pub(super) fn read_header(memory: &[AtomicU64]) -> Result<Sizes, Error> {
    let garbage = |what| Err(Error::Garbage { what });
    let Some(words) = memory.first_chunk::<4>() else { return garbage("the memory has no header") };
    let [magic, version, ring_bytes, packet_bytes_max] =
        words.each_ref().map(|word| word.load(Ordering::Relaxed));
    if magic != u64::from_ne_bytes(MAGIC) {
        return garbage("the memory does not begin as a ring");
    }
    let (format, reader_min) = (version as u16, (version >> 16) as u16);
    if reader_min > FORMAT {
        let (what, supported) = ("ring", FORMAT);
        return Err(Error::FormatNewer { what, format, reader_min, supported });
    }
    if format == 0 || reader_min == 0 || reader_min > format {
        return garbage("the version of the ring contradicts itself");
    }
    if version >> 32 != HEADER_BYTES as u64 {
        return garbage("the header of the ring has another size");
    }
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let sizes = Sizes { ring_bytes: size(ring_bytes), packet_bytes_max: size(packet_bytes_max) };
    if let Err(Error::Setting { what }) = sizes.check() {
        return garbage(what);
    }
    if memory.len() != sizes.memory_bytes() / WORD_BYTES {
        return garbage("the ring has not the size its header says");
    }
    Ok(sizes)
}

/// Bytes in the ring that a packet takes: its word, and itself up to the next word.
pub(super) const fn packet_span(bytes: usize) -> usize {
    WORD_BYTES + bytes.next_multiple_of(WORD_BYTES)
}

/// The word before a packet.
pub(super) const fn packet_word(bytes: usize) -> u64 {
    MARK | bytes as u64
}

/// Bytes of the packet behind a word, if it is one and the packet can be there.
pub(super) fn packet_bytes(word: u64, bytes_max: usize, there: usize) -> Result<usize, Error> {
    if word & !LENGTH_BITS != MARK {
        return Err(Error::Garbage { what: "no packet begins where one should" });
    }
    let bytes = (word & LENGTH_BITS) as usize;
    if bytes > bytes_max {
        return Err(Error::Garbage { what: "a packet is larger than was agreed" });
    }
    if packet_span(bytes) > there {
        return Err(Error::Garbage { what: "a packet ends behind what was written" });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { ring_bytes: 4096, packet_bytes_max: 1000 };

    fn fresh() -> Vec<AtomicU64> {
        let memory: Vec<_> = (0..1024).map(|_| AtomicU64::new(0)).collect();
        write_header(&memory, SIZES);
        memory
    }

    /// What a header with one word changed is taken for.
    fn with(at: usize, word: u64) -> Result<Sizes, Error> {
        let memory = fresh();
        memory[at].store(word, Ordering::Relaxed);
        read_header(&memory)
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(read_header(&fresh()), Ok(SIZES));
    }

    /// Bytes of a published format never change.
    #[test]
    fn the_header_has_the_bytes_that_are_documented() {
        let memory = fresh();
        let bytes: Vec<u8> = memory[..5]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        assert_eq!(bytes[..12], *b"SBXRNG\r\n\x01\0\x01\0");
        assert_eq!(bytes[12..24], *b"\0\x10\0\0\0\x10\0\0\0\0\0\0");
        assert_eq!(bytes[24..], *b"\xE8\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(packet_word(0x0102).to_le_bytes(), *b"\x02\x01\0\0\x7B\xE7\xC4\x5A");
        let spots = [
            (Spot::Head, 128),
            (Spot::Tail, 256),
            (Spot::ReaderSleeps, 384),
            (Spot::WriterSleeps, 512),
            (Spot::WriterClosed, 640),
            (Spot::ReaderClosed, 768),
        ];
        assert!(spots.iter().all(|(spot, at)| *spot as usize * WORD_BYTES == *at));
    }

    #[test]
    fn a_later_format_is_refused_by_its_least_reader_alone() {
        let version = |format: u64, reader: u64| format | reader << 16 | 4096 << 32;
        assert_eq!(with(1, version(9, 1)), Ok(SIZES));
        let newer = Error::FormatNewer { what: "ring", format: 9, reader_min: 2, supported: 1 };
        assert_eq!(with(1, version(9, 2)), Err(newer));
        for wrong in [version(0, 0), version(1, 0), 1 | 1 << 16, u64::MAX >> 32 & 0xFFFF_0000] {
            assert!(with(1, wrong).is_err(), "{wrong:x}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for wrong in [0, 1, 4095, 2048, 8192, 6000, 1 << 31, 1 << 63, u64::MAX] {
            assert!(matches!(with(2, wrong), Err(Error::Garbage { .. })), "ring of {wrong}");
        }
        for wrong in [4089, 1 << 32, u64::MAX] {
            assert!(matches!(with(3, wrong), Err(Error::Garbage { .. })), "packet of {wrong}");
        }
        assert!(with(3, 4088).is_ok());
        assert!(matches!(with(0, 7), Err(Error::Garbage { .. })));
        assert!(read_header(&fresh()[..3]).is_err());
    }

    #[test]
    fn the_word_before_a_packet_is_checked() {
        assert_eq!(packet_bytes(packet_word(100), 100, 112), Ok(100));
        assert!(packet_bytes(packet_word(100), 99, 112).is_err());
        assert!(packet_bytes(packet_word(100), 100, 111).is_err());
        assert!(packet_bytes(100, 100, 112).is_err());
        assert_eq!(packet_bytes(packet_word(0), 0, 8), Ok(0));
    }
}
