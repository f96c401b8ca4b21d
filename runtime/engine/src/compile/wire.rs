//! What goes between the node and its compile process: one request, one reply, then the end.
//!
//! ```text
//! request: "SLBXASK" 0 | version u32 | threads u32 | memory u64 | cpu seconds u64
//!          | output bytes max u64 | wasm bytes u64 | the component
//! reply:   "SLBXANS" 0 | version u32 | status u32 | fingerprint 32 bytes | body bytes u64 | body
//! ```
//!
//! Numbers are little-endian. The body is code if the status says so, else a text. Both sides are
//! the same program, so that another version is refused rather than understood.

use crate::tuning::Fingerprint;

const ASK: &[u8; 8] = b"SLBXASK\0";
const ANSWER: &[u8; 8] = b"SLBXANS\0";
const VERSION: u32 = 1;

/// Bytes of a request before the component.
pub(super) const REQUEST_BYTES: usize = 48;

/// Bytes of a reply before the body.
pub(super) const REPLY_BYTES: usize = 56;

/// The head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Address space of the process.
    pub(super) memory_bytes: u64,
    /// Its processor time.
    pub(super) cpu_seconds: u64,
    /// Size of the code it may send back.
    pub(super) output_bytes_max: u64,
    /// Threads to compile with.
    pub(super) threads: u32,
    /// Size of the component that follows.
    pub(super) wasm_bytes: u64,
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut out = [0; REQUEST_BYTES];
        out[..8].copy_from_slice(ASK);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.threads.to_le_bytes());
        out[16..24].copy_from_slice(&self.memory_bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.cpu_seconds.to_le_bytes());
        out[32..40].copy_from_slice(&self.output_bytes_max.to_le_bytes());
        out[40..48].copy_from_slice(&self.wasm_bytes.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        if bytes[..8] != *ASK || u32_at(bytes, 8)? != VERSION {
            return None;
        }
        Some(Self {
            threads: u32_at(bytes, 12)?,
            memory_bytes: u64_at(bytes, 16)?,
            cpu_seconds: u64_at(bytes, 24)?,
            output_bytes_max: u64_at(bytes, 32)?,
            wasm_bytes: u64_at(bytes, 40)?,
        })
    }
}

/// How a compilation ended that could still say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The body is code.
    Compiled,
    /// The component is at fault.
    Refused,
    /// The code is larger than allowed.
    OutputTooLarge,
    /// Memory ran out.
    OutOfMemory,
}

/// The head of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    /// What the body is.
    pub(super) status: Status,
    /// The engine that answered.
    pub(super) fingerprint: Fingerprint,
    /// Size of the body.
    pub(super) body_bytes: u64,
}

impl Reply {
    pub(super) fn encode(&self) -> [u8; REPLY_BYTES] {
        let status: u32 = match self.status {
            Status::Compiled => 0,
            Status::Refused => 1,
            Status::OutputTooLarge => 2,
            Status::OutOfMemory => 3,
        };
        let mut out = [0; REPLY_BYTES];
        out[..8].copy_from_slice(ANSWER);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&status.to_le_bytes());
        out[16..48].copy_from_slice(&self.fingerprint.0);
        out[48..56].copy_from_slice(&self.body_bytes.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPLY_BYTES] = bytes.first_chunk()?;
        if bytes[..8] != *ANSWER || u32_at(bytes, 8)? != VERSION {
            return None;
        }
        let status = match u32_at(bytes, 12)? {
            0 => Status::Compiled,
            1 => Status::Refused,
            2 => Status::OutputTooLarge,
            3 => Status::OutOfMemory,
            _ => return None,
        };
        let fingerprint = Fingerprint(*bytes[16..].first_chunk()?);
        Some(Self { status, fingerprint, body_bytes: u64_at(bytes, 48)? })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Whether a text is how the allocator, the kernel or the thread pool say that memory ran out.
pub(super) fn says_out_of_memory(text: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "out of memory", "failed to spawn thread"]
        .iter()
        .any(|sign| text.contains(sign))
}
