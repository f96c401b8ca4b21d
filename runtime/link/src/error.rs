//! What can go wrong with a link, and which kind each is.
//!
//! Refused packets and links that were closed are no errors but values, see
//! [`Refusal`](crate::Refusal) and [`End`](crate::End). An error can be cloned, as both what waits
//! and what comes later is told of it.

use std::{fmt, io};

use sluicebox_core::error::{Classify, Kind};

/// Why a link could not be made, or broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings contradict each other.
    #[error("the link cannot be set up so: {what}")]
    Setting {
        /// The rule they break.
        what: &'static str,
    },
    /// What this node shows itself with, or knows others by, cannot be used.
    #[error("the {part} cannot be used: {why}")]
    Identity {
        /// Which part of it.
        part: Part,
        /// What is wrong with it.
        why: String,
    },
    /// The other end went without closing.
    #[error("the other end of the link is gone; what was under way may have arrived or not")]
    Gone,
    /// The other end wrote what cannot be: it is broken, or means harm.
    #[error("the other end of the link says what cannot be: {what}; the link was given up")]
    Garbage {
        /// What was found.
        what: &'static str,
    },
    /// The other end speaks a later version.
    #[error(
        "the other end's {what} has format {format}, for readers of format {reader_min} and up; \
         this version reads up to {supported}: update this node first"
    )]
    FormatNewer {
        /// Which format.
        what: &'static str,
        /// The format it was written in.
        format: u16,
        /// The oldest reader that understands it.
        reader_min: u16,
        /// What this version reads.
        supported: u16,
    },
    /// The other end does not want this link.
    #[error("the other end refuses the link: {why}")]
    Refused {
        /// What it says.
        why: &'static str,
    },
    /// The other end asks for more memory than this one gives.
    #[error("the other end of the link asks for {what} than is allowed here")]
    TooLarge {
        /// More of what.
        what: &'static str,
    },
    /// The other end is not who it should be, or cannot show it.
    #[error("the other end of the link is not trusted: {why}")]
    Peer {
        /// What is wrong.
        why: String,
    },
    /// The other end did not answer while the link was made.
    #[error("the other end of the link did not answer in time: {doing}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
    },
    /// Anything else the system refused.
    #[error("cannot {doing} of a link: {why}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        why: String,
    },
}

/// A part of what a node shows itself with and knows others by, so that a caller can name the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate with the node's name, and what leads from it to an authority.
    Certificate,
    /// The private key of that certificate.
    Key,
    /// The certificates of those who sign.
    Authority,
    /// The private key they sign with.
    AuthorityKey,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate of the node",
            Self::Key => "key of the node",
            Self::Authority => "certificate of the authority",
            Self::AuthorityKey => "key of the authority",
        })
    }
}

impl Error {
    /// Says of a part of an identity why it cannot be used.
    pub(crate) fn unusable(part: Part, why: impl fmt::Display) -> Self {
        Self::Identity { part, why: why.to_string() }
    }

    /// Says of an error of the system what was being done. That the other end is gone, or does not
    /// answer, has a name of its own.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout { doing },
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => Self::Gone,
            _ => Self::Io { doing, why: error.to_string() },
        }
    }

    /// The same for calls that answer with the number of an error.
    pub(crate) fn errno(doing: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::io(doing)(errno.into())
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Setting { .. } | Self::Identity { .. } => Kind::Invalid,
            Self::Peer { .. } | Self::Refused { .. } | Self::TooLarge { .. } => Kind::Denied,
            Self::Garbage { .. } | Self::FormatNewer { .. } => Kind::Internal,
            Self::Gone | Self::Timeout { .. } | Self::Io { .. } => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "link.setting",
            Self::Identity { .. } => "link.identity",
            Self::Gone => "link.gone",
            Self::Garbage { .. } => "link.garbage",
            Self::FormatNewer { .. } => "link.format-newer",
            Self::Refused { .. } => "link.refused",
            Self::TooLarge { .. } => "link.too-large",
            Self::Peer { .. } => "link.peer",
            Self::Timeout { .. } => "link.timeout",
            Self::Io { .. } => "link.io",
        }
    }
}
