//! Passing requests on to where they are handled, and the replies back: to the process of their
//! tenant, or to another node.
//!
//! - The caller was known and allowed before. A process believes that, and the token stays here;
//!   another node looks at the token itself. The request goes on as it is, by HTTP/1.1, in both
//!   directions at once; nothing is gathered, so that whoever is slow slows down who sends.
//! - A request that nobody has begun to read there, as its kept connection was just closed, is sent
//!   once more, and so is one that only reads, when the other end went away before it answered.
//!   What else may have been read is not: only the client knows whether it may be.
//! - The reply of the other end is a stranger's: its head is bounded, and what concerns the
//!   connection is left out.
//! - A worker keeps some connections to each process and node for the next request.
//!
//! `way` is how either is reached, `pool` the connections that are kept, `passed` what comes back,
//! `figures` what processes say of themselves.

mod figures;
mod passed;
mod pool;
mod way;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use sluicebox_core::quota::Resource;

use super::auth::Caller;
use super::body::Body;
use super::connection::{Connection, Upgrade};
use super::home;
use super::server::Edge;
use super::session::socket;
use crate::error::Error;
pub(super) use figures::figures;
pub(super) use passed::{Passage, Passed};
pub(super) use pool::Pool;
use way::Reached;
pub(super) use way::Way;

/// How often a request is sent, if that is safe.
const TRIES_MAX: u32 = 3;

/// Headers that concern one connection, and not the request.
const OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Passes a request on. The caller may do what it asks for.
pub(super) async fn pass(
    edge: &Rc<Edge>,
    connection: &Connection,
    (caller, way): (&Caller, &Way),
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let apart = request.version() == Version::HTTP_2;
    let upgrades = request.version() == Version::HTTP_11
        && *request.method() == Method::GET
        && socket::is_wanted(request.headers());
    prepare(&mut request, upgrades);
    let before = if connection.node().is_some() { home::hops(request.headers()) } else { 0 };
    let headers = request.headers_mut();
    headers.remove(home::HOPS);
    if way.is_peer() {
        headers.insert(home::HOPS, HeaderValue::from(u16::from(before) + 1));
    } else {
        headers.remove(AUTHORIZATION);
    }
    let (mut response, sender, reached) = arrive(edge, way, request, upgrades).await?;
    if upgrades && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let passage = Passage { upgrade: hyper::upgrade::on(&mut response), reached };
        connection.upgrade(Upgrade::Passed(passage));
        return Ok(response.map(|_nothing| Body::Whole(Bytes::new())));
    }
    if response.status().is_informational() {
        return Err(reached.failed("said nonsense", true));
    }
    let headers = response.headers_mut();
    OF_CONNECTION.iter().for_each(|name| drop(headers.remove(name)));
    *response.version_mut() = Version::default();
    // One that goes on beside others of its connection counts as a connection.
    let goes_on = apart && response.body().size_hint().exact().is_none();
    let place = goes_on.then(|| caller.account.lend(Resource::Connections, 1)).transpose()?;
    let edge = Rc::clone(edge);
    Ok(response.map(|incoming| {
        let mut passed = Passed::new(edge, incoming, sender, reached);
        passed.place = place;
        Body::Passed(passed)
    }))
}

/// Sends a request there, once more if that is safe.
async fn arrive(
    edge: &Rc<Edge>,
    way: &Way,
    request: Request<Incoming>,
    upgrades: bool,
) -> Result<(Response<Incoming>, SendRequest<Carried>, Reached), Error> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !upgrades;
    let mut copy = reads.then(|| copy_of_head(&request));
    let mut request = request.map(|body| Carried(Some(body).filter(|body| !body.is_end_stream())));
    let mut tries = TRIES_MAX;
    loop {
        let reached = way.reach().await?;
        tries -= 1;
        match send(edge, &reached, request).await {
            Ok((response, sender)) => {
                reached.count();
                return Ok((response, sender, reached));
            }
            Err(Unsent { error, .. }) if tries == 0 => return Err(error),
            Err(Unsent { error, is_gone, request: unsent }) => {
                if is_gone {
                    reached.found_gone();
                }
                request = unsent.or_else(|| copy.take()).ok_or(error)?;
            }
        }
    }
}

/// The body of a request that is passed on, if it has one.
#[derive(Debug)]
struct Carried(Option<Incoming>);

impl hyper::body::Body for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

/// The same request without its body.
fn copy_of_head<B>(request: &Request<B>) -> Request<Carried> {
    let mut copy = Request::new(Carried(None));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy.headers_mut().remove(CONTENT_LENGTH);
    copy
}

/// Leaves out what concerns the client's connection only, and what there is no room for behind it.
fn prepare(request: &mut Request<Incoming>, upgrades: bool) {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_of_connection(headers);
    headers.remove(EXPECT);
    if upgrades {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
    // HTTP/2 has it in the address.
    if !headers.contains_key(HOST)
        && let Some(host) = authority.and_then(|host| HeaderValue::try_from(host).ok())
    {
        headers.insert(HOST, host);
    }
}

fn remove_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != UPGRADE)
        .collect();
    named.iter().chain(&OF_CONNECTION).for_each(|name| drop(headers.remove(name)));
}

/// No reply came, and why; with the request if the other end has seen nothing of it.
struct Unsent {
    error: Error,
    /// There is no way there any more.
    is_gone: bool,
    request: Option<Request<Carried>>,
}

/// Sends a request, by a kept connection if there is one.
async fn send(
    edge: &Rc<Edge>,
    reached: &Reached,
    mut request: Request<Carried>,
) -> Result<(Response<Incoming>, SendRequest<Carried>), Unsent> {
    loop {
        let kept = edge.pool().take(reached);
        let is_new = kept.is_none();
        let mut sender = match kept {
            Some(kept) => kept,
            None => match reached.connect().await {
                Ok(sender) => sender,
                Err(error) => {
                    return Err(Unsent { error, is_gone: true, request: Some(request) });
                }
            },
        };
        // One that still carries a body is nobody else's.
        let is_ready = if is_new { sender.ready().await.is_ok() } else { sender.is_ready() };
        if !is_ready && !is_new {
            continue;
        }
        match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, sender)),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if !is_new => request = unsent,
                unsent => {
                    let error = reached.gone(&failed.into_error()).await;
                    return Err(Unsent { error, is_gone: false, request: unsent });
                }
            },
        }
    }
}
