//! What can go wrong with a store and which kind each is.
//!
//! Every message names the key or path, and what to do if something can be done. What the
//! operating system said is the source of the error and is part of the message too, as the
//! operator needs it.

use std::io;
use std::path::PathBuf;

use sluicebox_core::error::{Classify, Kind};

use crate::key::Key;

/// Everything a store can answer besides a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a key.
    #[error("{text:?} is not a key: {rule}")]
    KeyInvalid {
        /// The start of the text.
        text: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The value is larger than a store takes.
    #[error("{key}: {bytes} bytes are too many, a value has at most {bytes_max}")]
    TooLarge {
        /// Where it should have gone.
        key: Key,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
    /// There is something under the key already.
    #[error("{key} exists already")]
    Conflict {
        /// The key.
        key: Key,
    },
    /// What is stored is not what was written.
    #[error("{key} is damaged: {what}; restore it from a backup, or delete it")]
    Corrupt {
        /// The key.
        key: Key,
        /// What is wrong with the bytes.
        what: &'static str,
    },
    /// Written by a version of sluicebox that this one cannot follow.
    #[error(
        "{key} has format {format}, for readers of format {reader_min} and up; this version reads \
         up to {supported}: use the version that wrote it, or a newer one"
    )]
    FormatNewer {
        /// The key.
        key: Key,
        /// The format it was written in.
        format: u16,
        /// The oldest reader that understands it.
        reader_min: u16,
        /// What this version reads.
        supported: u16,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process: stop it, or use another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Others may change what is in the directory.
    #[error(
        "{} has mode {mode:03o} and can be changed by other users; run: chmod go-w {}",
        path.display(), path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory cannot be written to.
    #[error("cannot write in {}: {source}; make it writable for the user running this", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room. What was there before is unchanged.
    #[error("no room in {}: {source}; free some space, then try again", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not known whether an earlier change is on disk, so no further one is taken.
    #[error(
        "{} takes no more changes: an earlier one could not be brought to disk; check the disk, \
         then restart", path.display()
    )]
    Poisoned {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else the system refused.
    #[error("cannot {doing} in {}: {source}", path.display())]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint that would make the store older than it is.
    #[error("a checkpoint up to {horizon} does not go with a store complete up to {stored}")]
    HorizonBehind {
        /// Where the checkpoint would have ended.
        horizon: u64,
        /// Where the store is.
        stored: u64,
    },
    /// Part of a checkpoint is larger than the store takes.
    #[error("{what} has {bytes} bytes, at most {bytes_max} go into a checkpoint")]
    EntryTooLarge {
        /// Which part.
        what: &'static str,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
    /// The keys of a piece of a checkpoint do not ascend.
    #[error("the keys of a checkpoint do not ascend; this is a bug, report it with the log")]
    Unordered,
    /// The files of the checkpoint store are not what was written.
    #[error("the checkpoint store in {} is damaged: {what}; restore it from a backup", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The store was closed.
    #[error("the checkpoint store is closed")]
    Closed,
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::KeyInvalid { .. } | Self::TooLarge { .. } | Self::NotPrivate { .. } => {
                Kind::Invalid
            }
            Self::Conflict { .. } | Self::Locked { .. } => Kind::Conflict,
            Self::Corrupt { .. } | Self::FormatNewer { .. } => Kind::Internal,
            Self::EntryTooLarge { .. } => Kind::Invalid,
            Self::HorizonBehind { .. } => Kind::Conflict,
            Self::Damaged { .. } | Self::Unordered => Kind::Internal,
            Self::Closed => Kind::Unavailable,
            Self::ReadOnly { .. } | Self::Full { .. } | Self::Poisoned { .. } | Self::Io { .. } => {
                Kind::Unavailable
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::KeyInvalid { .. } => "store.key-invalid",
            Self::TooLarge { .. } => "store.too-large",
            Self::Conflict { .. } => "store.conflict",
            Self::Corrupt { .. } => "store.corrupt",
            Self::FormatNewer { .. } => "store.format-newer",
            Self::Locked { .. } => "store.locked",
            Self::NotPrivate { .. } => "store.not-private",
            Self::ReadOnly { .. } => "store.read-only",
            Self::Full { .. } => "store.full",
            Self::Poisoned { .. } => "store.poisoned",
            Self::Io { .. } => "store.io",
            Self::HorizonBehind { .. } => "store.horizon-behind",
            Self::EntryTooLarge { .. } => "store.entry-too-large",
            Self::Unordered => "store.unordered",
            Self::Damaged { .. } => "store.damaged",
            Self::Closed => "store.closed",
        }
    }
}
