//! A ring in memory of our own, both of whose ends may lie: for tests and fuzzing.
//!
//! [`play`] takes any bytes as a list of moves of an honest writer, an honest reader, and of
//! somebody who writes whatever he likes into the memory between their steps. It panics only if an
//! end breaks a promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{RING_BYTES_MIN, Sizes, WORD_BYTES, read_header, write_header};
use super::reader::{Reader, Taken};
use super::writer::{Put, Writer};
use crate::error::Error;

/// What the ends of a game agree on.
pub const SIZES: Sizes = Sizes { ring_bytes: RING_BYTES_MIN, packet_bytes_max: 1024 };

/// Moves of a game are at most so many; a longer one ends there.
const MOVES_MAX: usize = 4096;

/// Memory for a ring, fresh, without a process on the other side.
#[must_use]
pub fn memory(sizes: Sizes) -> Arc<[AtomicU64]> {
    let words = sizes.memory_bytes() / WORD_BYTES;
    let memory: Arc<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
    write_header(&memory, sizes);
    memory
}

/// What came of a game.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Played {
    /// Packets the reader gave out.
    pub packets: usize,
    /// How the reader ended.
    pub reader: Option<Error>,
    /// How the writer ended.
    pub writer: Option<Error>,
    /// Somebody lied: packets may be anything.
    pub has_lies: bool,
    /// The header at the end is one.
    pub has_header: bool,
}

/// Plays any bytes.
///
/// | move | what follows it | |
/// |---|---|---|
/// | 0 | | the reader takes a packet |
/// | 1 | length, 2 bytes | the writer puts one |
/// | 2 | place, 2 bytes; 8 bytes | somebody writes a word anywhere |
/// | 3 | word of the header, 1 byte; signed, 1 byte | somebody moves that word by so much |
/// | 4 | | the reader lies down, the writer looks for room, and lies down |
///
/// # Panics
/// An end broke a promise.
#[must_use]
pub fn play(mut moves: &[u8]) -> Played {
    let memory = memory(SIZES);
    let mut writer = Writer::new(memory.clone(), SIZES);
    let mut reader = Reader::new(memory.clone(), SIZES);
    let (mut played, mut sent, mut number) = (Played::default(), Vec::new(), 0_u8);
    for _ in 0..MOVES_MAX {
        let Some(step) = next(&mut moves) else { break };
        match step[0] % 5 {
            0 if played.reader.is_none() => match reader.take() {
                Ok(Taken::Packet { bytes, .. }) => {
                    assert!(bytes.len() <= SIZES.packet_bytes_max, "larger than was agreed");
                    let is_known = played.packets < sent.len() && bytes == sent[played.packets];
                    assert!(played.has_lies || is_known, "not what was sent");
                    played.packets += 1;
                }
                Ok(Taken::Empty) => {
                    assert!(played.has_lies || played.packets == sent.len(), "a packet is lost");
                }
                Ok(Taken::Closed) => assert!(played.has_lies, "nobody has closed"),
                Err(error) => played.reader = Some(error),
            },
            1 if played.writer.is_none() => {
                number = number.wrapping_add(1);
                let length = u16_of(&step[1..]) % (SIZES.packet_bytes_max + 1);
                let packet = vec![number; length];
                let (one, two) = packet.split_at(length / 3);
                match writer.put(&[one, &[], two], length) {
                    Ok(Put::Done { .. }) => sent.push(packet),
                    Ok(Put::Full) => assert!(
                        played.has_lies || played.packets < sent.len(),
                        "it is full of nothing"
                    ),
                    Err(error) => played.writer = Some(error),
                }
            }
            2 => {
                let word = u64::from_le_bytes(*step[3..].first_chunk().expect("8 bytes follow"));
                memory[u16_of(&step[1..]) % memory.len()].store(word, Ordering::Relaxed);
                played.has_lies = true;
            }
            3 => {
                let by = i64::from(step[2].cast_signed()).cast_unsigned();
                memory[usize::from(step[1]) % 128].fetch_add(by, Ordering::Relaxed);
                played.has_lies = true;
            }
            4 => lie_down(&reader, &mut writer, &mut played),
            _ => {}
        }
    }
    for end in [&played.reader, &played.writer].into_iter().flatten() {
        assert!(played.has_lies, "nobody lied: {end}");
        assert!(matches!(end, Error::Garbage { .. }), "the memory alone is at fault: {end}");
    }
    played.has_header = match read_header(&memory) {
        Ok(sizes) => {
            assert!(sizes.memory_bytes() == SIZES.memory_bytes(), "not the size of the memory");
            true
        }
        Err(_) => false,
    };
    played
}

fn lie_down(
    reader: &Reader<Arc<[AtomicU64]>>,
    writer: &mut Writer<Arc<[AtomicU64]>>,
    played: &mut Played,
) {
    reader.lie_down();
    if played.writer.is_none() {
        played.writer = writer.lie_down().err();
    }
}

/// The next move with what follows it.
fn next<'a>(moves: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = 1 + [0, 2, 10, 2, 0][usize::from(moves.first()? % 5)];
    let (step, rest) = moves.split_at_checked(length)?;
    *moves = rest;
    Some(step)
}

fn u16_of(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}
