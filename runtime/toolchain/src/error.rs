//! Why a stage could not be built: each with what to do about it.

use std::path::{Path, PathBuf};

use crate::tools::Missing;

/// Why something was not built, made or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No language has that name.
    #[error("there is no language {name:?}; known are {}", crate::language_names())]
    NoLanguage {
        /// What was asked for.
        name: String,
    },
    /// `stage.toml` is wrong.
    #[error("{}: {what}", file.display())]
    Project {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to write instead.
        fix: String,
    },
    /// Something is there that would have been written over.
    #[error("{} is there already", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// Tools are not installed.
    #[error("{}", said(title, missing))]
    Missing {
        /// The language that takes them.
        title: &'static str,
        /// At least one.
        missing: Vec<Missing>,
    },
    /// A tool could not be started, or failed.
    #[error("{what}")]
    Tool {
        /// What and how.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The sources cannot become a component.
    #[error("{what}")]
    Sources {
        /// Why not.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {error}", path.display())]
    File {
        /// `read`, `write` and the like.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Error {
    /// What to do about it, in a line.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoLanguage { .. } => "choose one of these".to_owned(),
            Self::Project { fix, .. } | Self::Tool { fix, .. } | Self::Sources { fix, .. } => {
                fix.clone()
            }
            Self::Exists { .. } => "nothing was written; choose another name or folder".to_owned(),
            Self::Missing { missing, .. } => {
                let fixes: Vec<&str> = missing.iter().map(|one| one.install.as_str()).collect();
                fixes.join("; ")
            }
            Self::File { .. } => "see to it that it may be read and written".to_owned(),
        }
    }

    /// A stable name of what happened.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoLanguage { .. } => "toolchain.language",
            Self::Project { .. } => "toolchain.project",
            Self::Exists { .. } => "toolchain.exists",
            Self::Missing { .. } => "toolchain.missing",
            Self::Tool { .. } => "toolchain.failed",
            Self::Sources { .. } => "toolchain.sources",
            Self::File { .. } => "toolchain.file",
        }
    }
}

/// An error of the system with the file it is about; for `map_err`.
pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |error| Error::File { doing, path, error }
}

fn said(title: &str, missing: &[Missing]) -> String {
    let names: Vec<&str> = missing.iter().map(|one| one.what.as_str()).collect();
    format!("{title} needs {}, which this machine does not have", names.join(" and "))
}
