//! The eight kinds of failure; retry and alarms follow from the kind, HTTP status from the code.
//!
//! Every error enum of every crate gives each variant exactly one [`Kind`] and one stable dotted
//! code (`guest.trap`, `tenant.unknown`). Codes are documented in `docs/guide/errors.md` and never
//! change meaning.

/// What sort of failure this is: decides retry, log level, metric label and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The request can never succeed as written. The caller looks.
    Invalid,
    /// Not allowed for this tenant. The caller looks.
    Denied,
    /// No such thing now. The caller looks.
    NotFound,
    /// Someone else got there first, or it exists already. Re-read and try again.
    Conflict,
    /// A quota or bound is reached. Try again later.
    Exhausted,
    /// A part we need is not answering. Retry with backoff; the operator looks.
    Unavailable,
    /// The component trapped, ran out of a limit, or said no. The stage's author looks.
    Guest,
    /// Our bug, or bytes that cannot be. Never retried.
    Internal,
}

impl Kind {
    /// The word used in logs, metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Guest => "guest",
            Self::Internal => "internal",
        }
    }
}

/// Implemented by every error enum of the system.
pub trait Classify {
    /// The one kind this error has.
    fn kind(&self) -> Kind;
    /// Its stable dotted code.
    fn code(&self) -> &'static str;
}
