//! What can go wrong while a process is locked in, by itself or from outside, and which kind each
//! is.
//!
//! What the kernel does not have is no error but a row of the [`Report`](crate::Report). After an
//! error some measures are in place and others are not: the process must end.

use std::io;
use std::path::{Path, PathBuf};

use sluicebox_core::error::{Classify, Kind};

/// Why a process could not lock itself in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other threads run already, and would stay free.
    #[error("the process has {threads} threads; it must lock itself in while it has one")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// A path that is to be kept cannot be opened.
    #[error("cannot open {path:?}, which the process is to keep: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel has the measure and refuses it all the same.
    #[error("`{measure}` cannot be put in place: {why}")]
    Measure {
        /// Its row in the report.
        measure: &'static str,
        /// What was tried, and what the system says.
        why: String,
    },
    /// Control groups cannot be had, made or emptied.
    #[error("control groups: {why}")]
    Groups {
        /// What was tried, and what the system says.
        why: String,
    },
}

impl Error {
    /// A measure that failed while `what` was done.
    pub(crate) fn measure(
        measure: &'static str,
        what: &'static str,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Measure { measure, why: format!("{what}: {errno}") }
    }

    /// Something could not be done with a file or folder of control groups.
    pub(crate) fn group(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Groups { why: format!("cannot {doing} {}: {error}", path.display()) }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Threads { .. } => Kind::Internal,
            Self::Path { .. } | Self::Measure { .. } | Self::Groups { .. } => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Threads { .. } => "confine.threads",
            Self::Path { .. } => "confine.path",
            Self::Measure { .. } => "confine.measure",
            Self::Groups { .. } => "confine.groups",
        }
    }
}
