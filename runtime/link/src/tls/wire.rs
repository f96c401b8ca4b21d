//! What goes over the connection of a link, format 1, inside TLS; numbers are little-endian.
//!
//! The sender begins with its hello, then come packets, each behind a head, and last a head that
//! says that there are no more:
//!
//! | hello: at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `SBXLNK`, carriage return, line feed |
//! | 8 | 2 | format: 1 |
//! | 10 | 2 | minimum reader: the oldest format whose readers understand this |
//! | 12 | 2 | bytes of the sender's name |
//! | 14 | 2 | bytes of the receiver's name |
//! | 16 | 8 | bytes of the largest packet |
//! | 24 | 8 | zero; later formats may use it |
//! | 32 | | both names |
//!
//! | head: at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | bytes of the packet |
//! | 4 | 1 | 1 a packet, 2 the end |
//! | 5 | 3 | zero |
//!
//! The receiver answers the hello, and from then on says how far it is, 8 bytes each: bytes of
//! packets that it has given out since the beginning, and 64 more for each packet. All ones: it has
//! closed, or has everything.
//!
//! | answer: at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | 1 taken, else why not |
//! | 1 | 7 | zero |
//! | 8 | 8 | window: bytes that may be under way, counted in the same way |

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::identity::{NAME_BYTES_MAX, NodeName};
use crate::error::Error;

/// The format written, and the newest one read.
const FORMAT: u16 = 1;
const MAGIC: [u8; 8] = *b"SBXLNK\r\n";
const HELLO_BYTES: usize = 32;
/// Bytes of a hello and the longest names.
pub const HELLO_BYTES_MAX: usize = HELLO_BYTES + 2 * NAME_BYTES_MAX;
/// Bytes of a packet's head.
const HEAD_BYTES: usize = 8;
/// What a packet counts in the window besides its bytes. More than its head, as a receiver needs
/// some memory for each, however empty.
const PACKET_COST: usize = 64;
/// A receiver has closed, or has everything.
pub(super) const ALL: u64 = u64::MAX;

const PACKET: u8 = 1;
const LAST: u8 = 2;

const TAKEN: u8 = 1;
/// Why not, by the code of the answer less 2.
const REFUSALS: [&str; 4] = [
    "its version is older than our format",
    "our packets are larger than it takes",
    "our certificate does not have our name, or it is not whom we want",
    "it did not understand our hello",
];

/// What a packet counts in the window.
pub(super) const fn cost(bytes: usize) -> u64 {
    (PACKET_COST + bytes) as u64
}

/// Bytes of the largest packet that always finds room in a window: a receiver says how far it is
/// only when a quarter of it was given out.
pub(super) fn packet_bytes_max(window: u64) -> usize {
    let bytes = (window / 4).saturating_mul(3).saturating_sub(PACKET_COST as u64);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// How a sender begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub from: NodeName,
    /// Whom it wants.
    pub to: NodeName,
    /// The largest packet it will send.
    pub packet_bytes_max: u64,
}

impl Hello {
    /// As it goes over the connection.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (from, to) = (self.from.as_str(), self.to.as_str());
        let mut bytes = Vec::with_capacity(HELLO_BYTES_MAX);
        bytes.extend(MAGIC);
        for number in [FORMAT, FORMAT, from.len() as u16, to.len() as u16] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.packet_bytes_max.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(from.bytes());
        bytes.extend(to.bytes());
        bytes
    }

    /// Reads one, and nothing behind it.
    ///
    /// # Errors
    /// [`Error::FormatNewer`], [`Error::Garbage`] with what is wrong, or that there is no more.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, Error> {
        let garbage = |what| Err(Error::Garbage { what });
        let fixed: [u8; HELLO_BYTES] = read(from).await?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        if fixed[..8] != MAGIC {
            return garbage("it does not begin as a link");
        }
        let (format, reader_min) = (u16_at(8), u16_at(10));
        if reader_min > FORMAT {
            let (what, supported) = ("link", FORMAT);
            return Err(Error::FormatNewer { what, format, reader_min, supported });
        }
        if format == 0 || reader_min == 0 || reader_min > format {
            return garbage("the version of the link contradicts itself");
        }
        let lengths = [u16_at(12), u16_at(14)].map(usize::from);
        if lengths.iter().any(|length| *length > NAME_BYTES_MAX) {
            return garbage("a name is longer than names are");
        }
        let mut names = vec![0; lengths[0] + lengths[1]];
        from.read_exact(&mut names).await.map_err(Error::io("read the hello"))?;
        let (one, two) = names.split_at(lengths[0]);
        let name = |bytes| std::str::from_utf8(bytes).ok().and_then(|t| NodeName::new(t).ok());
        let (Some(from), Some(to)) = (name(one), name(two)) else {
            return garbage("a name that no node has");
        };
        let largest = fixed[16..24].first_chunk().expect("8 bytes");
        Ok(Self { from, to, packet_bytes_max: u64::from_le_bytes(*largest) })
    }

    /// Refuses one that wants another node, or whose packets are larger than are taken.
    pub(crate) fn fits(&self, own: &NodeName, packet_bytes_max: usize) -> Result<(), Error> {
        if self.to != *own {
            return Err(Error::Peer { why: format!("it wants {}", self.to) });
        }
        if self.packet_bytes_max > packet_bytes_max as u64 {
            return Err(Error::TooLarge { what: "larger packets" });
        }
        Ok(())
    }
}

/// Reads a hello out of bytes and writes it again, for fuzzing.
///
/// # Errors
/// As [`Hello::read`].
#[cfg(any(test, feature = "contract"))]
pub fn reread_hello(mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let read = std::pin::pin!(Hello::read(&mut bytes));
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    match read.poll(&mut nobody) {
        std::task::Poll::Ready(hello) => hello.map(|hello| hello.encode()),
        std::task::Poll::Pending => Err(Error::Io { doing: "read", why: "it waits".to_owned() }),
    }
}

/// What a receiver says to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    code: u8,
    window: u64,
}

impl Answer {
    /// To a hello that is taken, or is not.
    pub(super) fn to(error: Option<&Error>, window: u64) -> Self {
        let code = match error {
            None => TAKEN,
            Some(Error::FormatNewer { .. }) => 2,
            Some(Error::TooLarge { .. }) => 3,
            Some(Error::Peer { .. }) => 4,
            Some(_) => 5,
        };
        Self { code, window: if code == TAKEN { window } else { 0 } }
    }

    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.code;
        bytes[8..].copy_from_slice(&self.window.to_le_bytes());
        bytes
    }

    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, Error> {
        let bytes: [u8; 16] = read(from).await?;
        let window = bytes[8..].first_chunk().expect("8 bytes");
        Ok(Self { code: bytes[0], window: u64::from_le_bytes(*window) })
    }

    /// The window, if the hello was taken.
    pub(super) fn window(self) -> Result<u64, Error> {
        match self.code {
            TAKEN => Ok(self.window),
            code => Err(match REFUSALS.get(usize::from(code).wrapping_sub(2)) {
                Some(why) => Error::Refused { why },
                None => Error::Garbage { what: "an answer that does not exist" },
            }),
        }
    }
}

/// What a sender says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A packet of so many bytes follows.
    Packet(usize),
    /// Nothing more comes.
    Last,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD_BYTES] {
        let (bytes, kind) = match self {
            Self::Packet(bytes) => (bytes as u32, PACKET),
            Self::Last => (0, LAST),
        };
        let [a, b, c, d] = bytes.to_le_bytes();
        [a, b, c, d, kind, 0, 0, 0]
    }

    pub(super) fn decode(head: [u8; HEAD_BYTES]) -> Result<Self, Error> {
        let [a, b, c, d, kind, zeros @ ..] = head;
        let bytes = u32::from_le_bytes([a, b, c, d]);
        match (kind, bytes, zeros) {
            (PACKET, _, [0, 0, 0]) => Ok(Self::Packet(bytes as usize)),
            (LAST, 0, [0, 0, 0]) => Ok(Self::Last),
            _ => Err(Error::Garbage { what: "neither a packet nor the end" }),
        }
    }
}

/// So many bytes and no more.
pub(super) async fn read<const N: usize>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await.map_err(Error::io("read"))?;
    Ok(bytes)
}

/// All of it, and sends it off.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Error> {
    to.write_all(bytes).await.map_err(Error::io("write"))?;
    to.flush().await.map_err(Error::io("write"))
}
