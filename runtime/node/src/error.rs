//! What can go wrong in a node and which kind each is; errors of the lower crates pass through.
//!
//! - Every variant has exactly one kind and one stable dotted code. HTTP status follows from the
//!   code, in `http/respond.rs` and nowhere else.
//! - A message names what was found and what to do. Text of a client is quoted and cut.
//!
//! Expected refusals on the hot path (no room, quota used up) become an `Error` only when they
//! leave the node as a reply.

use std::time::Duration;

use sluicebox_core::error::{Classify, Kind};
use sluicebox_core::ids::NameError;
use sluicebox_core::manifest::Problems;
use sluicebox_core::quota::Refused;
use sluicebox_link::tls::NodeName;

use crate::config::quantity::size_text;

/// Everything a node can answer besides a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such thing for this tenant. Also the answer for what belongs to another tenant.
    #[error("there is no {what} named {name:?}")]
    NotFound {
        /// `pipeline`, `component`, `output`, `tenant` or `route`.
        what: &'static str,
        /// As the client wrote it, cut.
        name: String,
    },
    /// It exists already, is in use, or has changed meanwhile.
    #[error("{what} {name:?}: {why}")]
    Conflict {
        /// `pipeline` or `component`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What stands in the way and what to do about it.
        why: String,
    },
    /// The manifest has mistakes.
    #[error("the manifest has mistakes: {0}")]
    Manifest(#[from] Problems),
    /// A name breaks the rule for names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A part of the request cannot be used as written.
    #[error("{message}")]
    Request {
        /// The stable code, for example `request.query`.
        code: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// No event of the request could be taken.
    #[error("no event was accepted: {} of {rejected} mistakes are listed", errors.len())]
    Rejected {
        /// The first mistakes.
        errors: Vec<LineError>,
        /// How many there are in all.
        rejected: u64,
    },
    /// The content type is none that the route takes.
    #[error("the content type {found:?} is not taken here; use {supported}")]
    MediaType {
        /// As the client wrote it, cut.
        found: String,
        /// What to use.
        supported: &'static str,
    },
    /// The body is compressed in a way that is not known here.
    #[error("the content coding {found:?} is not known here; use gzip or zstd, or none")]
    Coding {
        /// As the client wrote it, cut.
        found: String,
    },
    /// The route exists, with another method.
    #[error("this path takes {allow}")]
    Method {
        /// The methods, as in the header `Allow`.
        allow: &'static str,
    },
    /// Something is larger than it may be.
    #[error("{what} is larger than the {limit} bytes allowed")]
    TooLarge {
        /// For example `the request body`.
        what: &'static str,
        /// The limit in force.
        limit: u64,
    },
    /// The client sent its body too slowly.
    #[error("the request body came too slowly; at least {rate_min} bytes a second are expected")]
    Slow {
        /// The least rate in force.
        rate_min: u64,
    },
    /// No token, or none that is known.
    #[error("send `Authorization: Bearer <token>` with a token of this tenant")]
    Unauthorised,
    /// The token does not allow this.
    #[error("the token lacks the scope {scope:?}")]
    Scope {
        /// The scope it would need.
        scope: &'static str,
    },
    /// In development mode: the request comes from a foreign page or for a foreign name.
    #[error(
        "the header {header} names another site; development mode answers only requests from and \
         to this machine's loopback address"
    )]
    ForeignSite {
        /// Which header.
        header: &'static str,
    },
    /// The pipeline has no room now.
    #[error("{what} is full; try again")]
    Busy {
        /// For example `the pipeline`.
        what: &'static str,
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// A quota of the tenant is used up.
    #[error("{0}")]
    Quota(#[from] Refused),
    /// The tenant's pipelines keep as much on disk as they may, so that no more is taken in.
    #[error(
        "the quota disk-bytes of {} is used up: pipelines of this tenant keep {used} bytes on \
         disk; delete a pipeline, give state up (apply with discard-state), keep less in outputs \
         (retain-bytes), or ask for more; what is freed counts after the next checkpoint",
        size_text(*limit)
    )]
    DiskQuota {
        /// Bytes that are kept, as of the last checkpoint.
        used: u64,
        /// The quota.
        limit: u64,
    },
    /// The node as a whole has no room now.
    #[error("the node has no room for {what} now; try again")]
    Overloaded {
        /// For example `more request bodies`.
        what: &'static str,
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// The tenant's own process cannot be reached.
    #[error("the tenant's process {why}{}", if *is_sent { MAY_BE_TAKEN } else { "" })]
    Process {
        /// What became of it.
        why: &'static str,
        /// It may have got the request.
        is_sent: bool,
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// Another node, which has what this is about, cannot be reached, or does not do its part.
    #[error("the node {node:?} {why}{}", if *is_sent { MAY_BE_TAKEN } else { "; try again" })]
    Peer {
        /// Its name.
        node: String,
        /// What became of it.
        why: String,
        /// It may have got the request.
        is_sent: bool,
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// The node has not restored what it had yet, and does not know what there is.
    #[error("the node is starting; try again")]
    Starting,
    /// The node is shutting down.
    #[error("the node is shutting down; try again")]
    Draining,
    /// What the cursor points at is gone, or never was there.
    #[error("the events behind this cursor are gone; go on from the cursor `oldest`")]
    Trimmed {
        /// A cursor at the oldest event that is kept.
        oldest: String,
    },
    /// A request waited for its result as long as it wanted to.
    #[error("no result within the time given; the event goes on, its result can be read later")]
    Deadline {
        /// A cursor of the output `reply` from before the event, if there is such an output.
        cursor: Option<String>,
    },
    /// From the store.
    #[error(transparent)]
    Store(#[from] sluicebox_store::error::Error),
    /// From the log.
    #[error(transparent)]
    Log(#[from] sluicebox_store::log::Error),
    /// The disk of the log is full. What was taken goes on; nothing new is taken.
    #[error(
        "the disk is full: nothing can be taken until there is room; nothing was taken of this"
    )]
    DiskFull {
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// As much of the log as may waits for a checkpoint, and none can be made.
    #[error(
        "no checkpoint can be made, the node's log says why, and no more is taken until there is \
         one: {}; nothing was taken of this",
        if retry_after.is_some() { "it is tried again by itself" } else { "restart the node" }
    )]
    NoCheckpoint {
        /// When another try is worth it; never before a restart, if there is none.
        retry_after: Option<Duration>,
    },
    /// The log takes nothing more, and whether this is on disk is not known.
    #[error("the log has failed, so that nothing can be acknowledged until the node is restarted")]
    LogFailed,
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] sluicebox_engine::error::Error),
    /// The tenants file.
    #[error(transparent)]
    Tenants(#[from] crate::tenants::Error),
    /// What shows other nodes who this is.
    #[error(transparent)]
    Link(#[from] sluicebox_link::Error),
    /// Tenants' processes cannot be held in as they are to be.
    #[error(transparent)]
    Confine(#[from] sluicebox_confine::Error),
    /// The listener's certificate or its key cannot be used.
    #[error("{field}: {file}: {why}")]
    Tls {
        /// The setting.
        field: &'static str,
        /// What it names.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The system refused something while the node started or ran.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done, for example `listen on 127.0.0.1:8080`.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The GPU, or who has it.
    #[error("{}", .0.text)]
    Gpu(sluicebox_engine::gpu::Refused),
    /// Our own mistake, or bytes that cannot be.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What follows where it is not known what became of a request.
const MAY_BE_TAKEN: &str = "; what was sent may have been taken: send it again with its producer \
                            and sequence, and it is taken once";

/// Why one line or event of a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LineError {
    /// The line, counted from 1; of a packed frame the event's index, counted from 0.
    pub line: u64,
    /// The stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
}

/// Characters of a client's own text that a message shows.
const SHOWN_CHARS_MAX: usize = 80;

/// A client's text, cut to what a message shows.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Error {
    /// There is no such thing for this tenant.
    #[must_use]
    pub fn not_found(what: &'static str, name: &str) -> Self {
        Self::NotFound { what, name: shown(name) }
    }

    /// The pipeline goes to another node, or has just gone there.
    #[must_use]
    pub fn on_its_way(to: &NodeName) -> Self {
        let (node, why) = (to.to_string(), "takes this pipeline over".to_owned());
        Self::Peer { node, why, is_sent: false, retry_after: Duration::from_secs(1) }
    }

    /// A part of the request cannot be used as written.
    #[must_use]
    pub fn request(code: &'static str, message: impl Into<String>) -> Self {
        Self::Request { code, message: message.into() }
    }

    /// When another try is worth it, if one is.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. }
            | Self::Overloaded { retry_after, .. }
            | Self::Process { retry_after, .. }
            | Self::Peer { retry_after, .. }
            | Self::DiskFull { retry_after } => Some(*retry_after),
            Self::NoCheckpoint { retry_after } => *retry_after,
            Self::Quota(refused) => refused.retry_after_micros.map(Duration::from_micros),
            Self::Starting | Self::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// Kind and code of what a GPU's process says: only what a manifest can meet is told apart.
fn gpu_class(why: &sluicebox_engine::gpu::Refused) -> (Kind, &'static str) {
    match why.code.as_str() {
        "gpu.none" => (Kind::Unavailable, "gpu.none"),
        "gpu.lost" => (Kind::Unavailable, "gpu.lost"),
        "gpu.oversold" => (Kind::Exhausted, "gpu.oversold"),
        "gpu.limit" => (Kind::Exhausted, "gpu.limit"),
        "gpu.memory" => (Kind::Exhausted, "gpu.memory"),
        "gpu.terms" => (Kind::Invalid, "gpu.terms"),
        "gpu.hung" => (Kind::Unavailable, "gpu.hung"),
        _ => (Kind::Internal, "gpu.driver"),
    }
}

impl From<sluicebox_engine::gpu::Refused> for Error {
    fn from(why: sluicebox_engine::gpu::Refused) -> Self {
        Self::Gpu(why)
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::Trimmed { .. } => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::Manifest(_)
            | Self::Name(_)
            | Self::Request { .. }
            | Self::Rejected { .. }
            | Self::MediaType { .. }
            | Self::Coding { .. }
            | Self::Method { .. }
            | Self::TooLarge { .. }
            | Self::Tls { .. }
            | Self::Slow { .. } => Kind::Invalid,
            Self::Unauthorised | Self::Scope { .. } | Self::ForeignSite { .. } => Kind::Denied,
            Self::Busy { .. } | Self::Quota(_) | Self::DiskQuota { .. } => Kind::Exhausted,
            Self::Overloaded { .. }
            | Self::Process { .. }
            | Self::Peer { .. }
            | Self::Starting
            | Self::Draining
            | Self::Deadline { .. }
            | Self::DiskFull { .. }
            | Self::NoCheckpoint { .. }
            | Self::LogFailed
            | Self::Io { .. } => Kind::Unavailable,
            Self::Log(error) => error.kind(),
            Self::Link(error) => error.kind(),
            Self::Confine(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Gpu(why) => gpu_class(why).0,
            Self::Tenants(error) => error.kind(),
            Self::Internal(_) => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { what, .. } => match *what {
                "pipeline" => "pipeline.unknown",
                "component" => "component.unknown",
                "output" => "output.unknown",
                "stage" => "stage.unknown",
                "tenant" => "tenant.unknown",
                "version" => "pipeline.unknown-version",
                _ => "route.unknown",
            },
            Self::Conflict { what, .. } => match *what {
                "component" => "component.conflict",
                _ => "pipeline.conflict",
            },
            Self::Manifest(_) => "manifest.invalid",
            Self::Name(_) => "name.invalid",
            Self::Request { code, .. } => code,
            Self::Rejected { .. } => "ingest.rejected",
            Self::MediaType { .. } => "request.media-type",
            Self::Coding { .. } => "request.coding",
            Self::Method { .. } => "request.method",
            Self::TooLarge { .. } => "request.too-large",
            Self::Slow { .. } => "request.slow",
            Self::Unauthorised => "auth.token",
            Self::Scope { .. } => "auth.scope",
            Self::ForeignSite { .. } => "auth.foreign-site",
            Self::Busy { .. } => "pipeline.busy",
            Self::Quota(_) => "quota.exhausted",
            Self::DiskQuota { .. } => "quota.disk",
            Self::Overloaded { .. } => "node.overloaded",
            Self::Process { .. } => "tenant.process",
            Self::Peer { .. } => "peer.unavailable",
            Self::Link(error) => error.code(),
            Self::Confine(error) => error.code(),
            Self::Starting => "node.starting",
            Self::Draining => "node.draining",
            Self::Trimmed { .. } => "output.trimmed",
            Self::Deadline { .. } => "request.deadline",
            Self::Store(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::DiskFull { .. } => "log.full",
            Self::NoCheckpoint { .. } => "log.no-checkpoint",
            Self::LogFailed => "log.failed",
            Self::Engine(error) => error.code(),
            Self::Gpu(why) => gpu_class(why).1,
            Self::Tenants(error) => error.code(),
            Self::Tls { .. } => "tls.unusable",
            Self::Io { .. } => "node.io",
            Self::Internal(_) => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_code_of_lower_crates_pass_through() {
        let error = Error::from(sluicebox_engine::error::Error::CoreModule);
        assert_eq!((error.kind(), error.code()), (Kind::Invalid, "component.core-module"));
    }

    #[test]
    fn a_clients_text_is_cut_and_quoted() {
        let error = Error::not_found("pipeline", &"x\n".repeat(1000));
        let text = error.to_string();
        assert!(text.len() < 300 && !text.contains('\n'), "{text}");
        assert_eq!(error.code(), "pipeline.unknown");
    }

    #[test]
    fn only_passing_refusals_say_when_to_try_again() {
        let busy = Error::Busy { what: "the pipeline", retry_after: Duration::from_millis(5) };
        assert_eq!(busy.retry_after(), Some(Duration::from_millis(5)));
        assert_eq!(Error::Unauthorised.retry_after(), None);
    }
}
