//! How what is asked and answered becomes a packet, and is read from one.
//!
//! ```text
//! length of the head, u32 | head, by postcard | tail
//! ```
//!
//! Keeps true: what is written, the other side reads; what is read is no longer than it may be, and
//! nothing is between the head and the tail. A list that claims more elements than its packet has
//! bytes is given no memory for them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Ask, Reply, TAIL_BYTES_MAX};

/// Bytes of what is asked for, without its tail: 64 steps of 32 slots fit many times.
pub const ASK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer, without its tail: the figures of as many tenants and stages as may be fit.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

const LENGTH_BYTES: usize = size_of::<u32>();

/// Why a packet cannot be read, or would not be by the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It ends before its head does.
    #[error("a packet of {0} bytes ends before its head")]
    Short(usize),
    /// The head is longer than it may be.
    #[error("a head of {found} bytes, at most {most}")]
    Head {
        /// How long it is.
        found: usize,
        /// How long it may be.
        most: usize,
    },
    /// The tail is longer than it may be.
    #[error("a tail of {0} bytes, at most {TAIL_BYTES_MAX}")]
    Tail(usize),
    /// The head is none of anything known, or is not all of what it says it is.
    #[error("a head of {0} bytes that says nothing known")]
    Unknown(usize),
    /// Something is behind what the head says.
    #[error("a head that goes on for {0} bytes")]
    Longer(usize),
}

impl Ask {
    /// All of the packet before its tail.
    ///
    /// # Errors
    /// It, or a tail of so many bytes, is longer than the other side takes.
    pub fn head(&self, tail_bytes: usize) -> Result<Vec<u8>, Malformed> {
        write(self, tail_bytes, ASK_BYTES_MAX)
    }

    /// What a packet asks for, and its tail.
    ///
    /// # Errors
    /// It is none.
    pub fn read(packet: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        read(packet, ASK_BYTES_MAX)
    }
}

impl Reply {
    /// All of the packet before its tail.
    ///
    /// # Errors
    /// It, or a tail of so many bytes, is longer than the other side takes.
    pub fn head(&self, tail_bytes: usize) -> Result<Vec<u8>, Malformed> {
        write(self, tail_bytes, REPLY_BYTES_MAX)
    }

    /// What a packet answers, and its tail.
    ///
    /// # Errors
    /// It is none.
    pub fn read(packet: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        read(packet, REPLY_BYTES_MAX)
    }
}

/// What a packet asks for, written again: not always as it came, as numbers may be padded.
///
/// # Errors
/// It is none that asks.
#[cfg(any(test, feature = "contract"))]
pub fn reread_ask(packet: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (ask, tail) = Ask::read(packet)?;
    Ok([&ask.head(tail.len())?, tail].concat())
}

/// The same of what a packet answers.
///
/// # Errors
/// It is none that answers.
#[cfg(any(test, feature = "contract"))]
pub fn reread_reply(packet: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (reply, tail) = Reply::read(packet)?;
    Ok([&reply.head(tail.len())?, tail].concat())
}

fn write(what: &impl Serialize, tail_bytes: usize, most: usize) -> Result<Vec<u8>, Malformed> {
    if tail_bytes > TAIL_BYTES_MAX {
        return Err(Malformed::Tail(tail_bytes));
    }
    let written = postcard::to_extend(what, vec![0; LENGTH_BYTES]);
    let mut written = written.map_err(|_| Malformed::Unknown(0))?;
    let found = written.len() - LENGTH_BYTES;
    match u32::try_from(found) {
        Ok(length) if found <= most => {
            written[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(written)
        }
        _ => Err(Malformed::Head { found, most }),
    }
}

fn read<T: DeserializeOwned>(packet: &[u8], most: usize) -> Result<(T, &[u8]), Malformed> {
    let short = Malformed::Short(packet.len());
    let (length, rest) = packet.split_first_chunk::<LENGTH_BYTES>().ok_or(short)?;
    let found = u32::from_le_bytes(*length) as usize;
    if found > most {
        return Err(Malformed::Head { found, most });
    }
    let (head, tail) = rest.split_at_checked(found).ok_or(short)?;
    if tail.len() > TAIL_BYTES_MAX {
        return Err(Malformed::Tail(tail.len()));
    }
    let taken = postcard::take_from_bytes::<T>(head);
    let (what, behind) = taken.map_err(|_| Malformed::Unknown(found))?;
    if !behind.is_empty() {
        return Err(Malformed::Longer(behind.len()));
    }
    Ok((what, tail))
}

#[cfg(test)]
mod tests;
