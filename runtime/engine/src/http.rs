//! The port by which a stage makes HTTP requests: what its imports need, and nothing of how it is
//! done.
//!
//! Keeps true, whoever is behind it:
//! - A request goes to where the stage may make requests, or nowhere. Redirects are answers.
//! - Each comes to an answer or a refusal by the moment that is given with it, its body included.
//! - Bodies are bounded both ways, and as much of them is in memory as is on its way.
//! - What is dropped ends.
//!
//! Leaves to others: names, addresses, connections and TLS (the node).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

/// A body on its way.
pub type Body = UnsyncBoxBody<Bytes, Refused>;

/// An answer that is waited for.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Refused>> + Send>>;

/// Why a request has no answer, or its body no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The stage may not make it.
    #[error("the manifest does not list it (grants.http.allow), or the operator allows it no more")]
    Denied,
    /// It is no request that can be made.
    #[error("it is no request that can be made: {0}")]
    Invalid(&'static str),
    /// The name leads nowhere.
    #[error("the host is not known")]
    NotFound,
    /// The host has no address that stages may connect to.
    #[error("the host's address is not one that stages may connect to (connectors.networks)")]
    Prohibited,
    /// Nobody takes the connection.
    #[error("no connection")]
    Unreachable,
    /// The other end is not who it should be.
    #[error("the certificate is not good")]
    Certificate,
    /// TLS came to nothing for another reason.
    #[error("TLS")]
    Tls,
    /// There are too many under way.
    #[error("too many requests under way")]
    TooMany,
    /// Its time is over.
    #[error("its time is over (grants.http.deadline)")]
    Late,
    /// The body of the request is too large.
    #[error("the request's body is too large (grants.http.request-bytes)")]
    RequestTooLarge,
    /// The head of the answer is too large.
    #[error("the answer's head is too large")]
    HeadTooLarge,
    /// The body of the answer is too large.
    #[error("the answer's body is too large (grants.http.response-bytes)")]
    ResponseTooLarge,
    /// The other end went away.
    #[error("the connection ended before the answer")]
    Ended,
    /// What came is no answer.
    #[error("what came is no HTTP")]
    Protocol,
    /// The guest gave its body up.
    #[error("the request's body came to no end")]
    GivenUp,
    /// There is no memory for it.
    #[error("the tenant's quota of memory has no room for it")]
    NoRoom,
}

/// What a stage has of HTTP.
pub trait Http: fmt::Debug + Send + Sync {
    /// Makes a request, and waits for its answer.
    fn send(&self, request: Request<Body>, until: Instant) -> Answering;

    /// How long a request may take.
    fn deadline(&self) -> Duration;
}
