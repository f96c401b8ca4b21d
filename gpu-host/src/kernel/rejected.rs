//! Why a kernel is refused.

use sluicebox_core::error::{Classify, Kind};
use thiserror::Error;

/// Characters of a message of the compiler: it may quote the source.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a kernel is refused. Lines count from 1; where none is known it is 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejected {
    /// It is not WGSL, or does not mean anything.
    #[error("line {line}: {message}")]
    Invalid {
        /// Of the source.
        line: u32,
        /// As the compiler says it, escaped and cut.
        message: String,
    },
    /// It has no compute entry point of that name.
    #[error("there is no compute entry point {0:?}")]
    Entry(String),
    /// It is larger than a kernel may be.
    #[error("{found} {what}, at most {limit}")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// How much of it there may be.
        limit: u64,
    },
    /// It is WGSL, but not for kernels.
    #[error("line {line}: {what}")]
    Unsupported {
        /// Of the source.
        line: u32,
        /// What is not there, and what to do instead.
        what: String,
    },
    /// A barrier that some invocations of a workgroup might not reach.
    #[error("line {line}: {why}")]
    Barrier {
        /// Of the barrier.
        line: u32,
        /// What it depends on.
        why: &'static str,
    },
    /// The compiler has failed.
    #[error("the compiler failed: {0}")]
    Failed(String),
}

impl Rejected {
    pub(super) fn invalid(line: u32, message: &str) -> Self {
        Self::Invalid { line, message: cut(message) }
    }

    pub(super) fn unsupported(line: u32, what: impl Into<String>) -> Self {
        Self::Unsupported { line, what: what.into() }
    }

    pub(super) fn failed(message: &str) -> Self {
        Self::Failed(cut(message))
    }
}

impl Classify for Rejected {
    fn kind(&self) -> Kind {
        match self {
            Self::Failed(_) => Kind::Internal,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "kernel.invalid",
            Self::Entry(_) => "kernel.entry",
            Self::Limit { .. } => "kernel.limit",
            Self::Unsupported { .. } => "kernel.unsupported",
            Self::Barrier { .. } => "kernel.barrier",
            Self::Failed(_) => "kernel.failed",
        }
    }
}

/// Text from outside, fit for one line of a log.
pub(super) fn cut(text: &str) -> String {
    let escaped: String = text.chars().flat_map(char::escape_debug).collect();
    let Some((end, _)) = escaped.char_indices().nth(MESSAGE_CHARS_MAX) else { return escaped };
    format!("{}…", &escaped[..end])
}
