//! What can go wrong with a log, and which kind each is.
//!
//! Damage is told with the file, the byte in it, the position in the log and what was expected, as
//! whoever reads the message has to decide whether a backup is needed. Refused appends are no
//! errors but values, see [`Refusal`](super::Refusal).

use sluicebox_core::error::{Classify, Kind};

use super::Position;

/// Everything a log can answer besides records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] crate::Error),
    /// The settings contradict each other.
    #[error("the log cannot be set up so: {what}")]
    Setting {
        /// The rule they break.
        what: &'static str,
    },
    /// Something that was on disk is not there as it was written.
    #[error(
        "the log is damaged in {file} at byte {offset}, position {position}: {what}; nothing was \
         changed: restore the data directory from a backup, or keep a copy and ask for help"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// Where in the log.
        position: Position,
        /// What was found, and what was expected.
        what: String,
    },
    /// A file of another log lies in the directory.
    #[error("{file} is of another log (its id is {found:016x}, not {expected:016x}): move it away")]
    Foreign {
        /// The file.
        file: String,
        /// The id in it.
        found: u64,
        /// The id of the log.
        expected: u64,
    },
    /// Written by a version of sluicebox that this one cannot follow.
    #[error(
        "{file} has format {format}, for readers of format {reader_min} and up; this version reads \
         up to {supported}: use the version that wrote it, or a newer one"
    )]
    FormatNewer {
        /// The file.
        file: String,
        /// The format it was written in.
        format: u16,
        /// The oldest reader that understands it.
        reader_min: u16,
        /// What this version reads.
        supported: u16,
    },
    /// The place that was asked for has been recycled.
    #[error("the log begins at position {oldest}: what was before it has been recycled")]
    Trimmed {
        /// The oldest place there is.
        oldest: Position,
    },
    /// The log ends before a place that was on disk once.
    #[error(
        "the log ends at position {end}, but {from} was on disk once: its last files are missing; \
         restore the data directory from a backup"
    )]
    Behind {
        /// Where it was to be read from.
        from: Position,
        /// Where it ends.
        end: Position,
    },
    /// The reader of an opening wanted no more.
    #[error("reading the log was stopped at position {at}")]
    Stopped {
        /// The record at which it said so.
        at: Position,
    },
    /// It takes no more records, and some that were appended are not on disk.
    #[error("the log has failed: {reason}; check the disk, then restart")]
    Failed {
        /// What the system said.
        reason: String,
    },
    /// Anything else the system refused.
    #[error("cannot {doing} {file} of the log: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Says of an error of the system what was being done.
    pub(super) fn io(doing: &'static str, file: &str) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { doing, file, source }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory(error) => error.kind(),
            Self::Setting { .. } => Kind::Invalid,
            Self::Trimmed { .. } => Kind::NotFound,
            Self::Foreign { .. } => Kind::Conflict,
            Self::Corrupt { .. } | Self::FormatNewer { .. } | Self::Behind { .. } => Kind::Internal,
            Self::Stopped { .. } | Self::Failed { .. } | Self::Io { .. } => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Directory(error) => error.code(),
            Self::Setting { .. } => "log.setting",
            Self::Corrupt { .. } => "log.corrupt",
            Self::Foreign { .. } => "log.foreign",
            Self::FormatNewer { .. } => "log.format-newer",
            Self::Trimmed { .. } => "log.trimmed",
            Self::Behind { .. } => "log.behind",
            Self::Stopped { .. } => "log.stopped",
            Self::Failed { .. } => "log.failed",
            Self::Io { .. } => "log.io",
        }
    }
}
