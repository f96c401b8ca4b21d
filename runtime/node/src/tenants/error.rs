//! What can go wrong with the tenants file and which kind each is.

use std::io;
use std::path::PathBuf;

use sluicebox_core::error::{Classify, Kind};
use sluicebox_core::ids::Name;
use sluicebox_core::manifest::Problems;

/// Why the file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none.
    #[error(
        "there is no tenants file {}; make one with: sluicebox tenant add <name>", path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Users other than its owner can read or change it.
    #[error(
        "{} has mode {mode:03o} and can be used by other users; run: chmod 600 {}",
        path.display(), path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a file, or not one that a person or our command wrote.
    #[error("{} is not a tenants file: {why}", path.display())]
    Unusable {
        /// What was found.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It has mistakes; all of them.
    #[error("{} has mistakes:\n{problems}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every mistake, with its field and the fix.
        problems: Problems,
    },
    /// There is a tenant of this name already.
    #[error("the tenant {name} exists already")]
    TenantExists {
        /// Its name.
        name: Name,
    },
    /// There is no tenant of this name.
    #[error("there is no tenant {name}; add it with: sluicebox tenant add {name}")]
    TenantUnknown {
        /// The name.
        name: Name,
    },
    /// The tenant has a token of this id already.
    #[error("the tenant {tenant} has a token {id} already; revoke it first, or use another id")]
    TokenExists {
        /// Whose.
        tenant: Name,
        /// Its id.
        id: Name,
    },
    /// The tenant has no token of this id.
    #[error("the tenant {tenant} has no token {id}")]
    TokenUnknown {
        /// Whose.
        tenant: Name,
        /// The id.
        id: Name,
    },
    /// A change would make the file one that is refused.
    #[error("{what} must be {allowed}")]
    OutOfRange {
        /// For example `weight`.
        what: &'static str,
        /// For example `1 to 100`.
        allowed: String,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes to make a token of: {source}")]
    NoRandomness {
        /// What it said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotPrivate { .. }
            | Self::Unusable { .. }
            | Self::Invalid { .. }
            | Self::OutOfRange { .. } => Kind::Invalid,
            Self::Missing { .. } | Self::TenantUnknown { .. } | Self::TokenUnknown { .. } => {
                Kind::NotFound
            }
            Self::TenantExists { .. } | Self::TokenExists { .. } => Kind::Conflict,
            Self::NoRandomness { .. } | Self::Io { .. } => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "tenants.missing",
            Self::NotPrivate { .. } => "tenants.not-private",
            Self::Unusable { .. } => "tenants.unusable",
            Self::Invalid { .. } => "tenants.invalid",
            Self::TenantExists { .. } => "tenant.exists",
            Self::TenantUnknown { .. } => "tenant.unknown",
            Self::TokenExists { .. } => "tenant.token-exists",
            Self::TokenUnknown { .. } => "tenant.token-unknown",
            Self::OutOfRange { .. } => "tenant.out-of-range",
            Self::NoRandomness { .. } => "tenants.no-randomness",
            Self::Io { .. } => "tenants.io",
        }
    }
}
