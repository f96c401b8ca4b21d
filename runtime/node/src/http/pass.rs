//! Passing requests on to the process of their tenant, and its replies back.
//!
//! - The caller was known and allowed before; its token stays here. The request goes on as it is,
//!   by HTTP/1.1, in both directions at once; nothing is gathered, so that whoever is slow slows
//!   down who sends.
//! - A request that a process has not begun to read, as its kept connection was just closed, is
//!   sent once more, and so is one that only reads, when the process went away before it answered.
//!   What else may have been read is not: only the client knows whether it may be.
//! - The reply of a process is a stranger's: its head is bounded, and what concerns the connection
//!   is left out.
//! - A worker keeps some connections to each process for the next request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io::Cursor;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::UnixStream;

use super::auth::Caller;
use super::body::Body;
use super::connection::{Connection, InFlight, Upgrade};
use super::server::Edge;
use super::session::socket;
use crate::admission::Permit;
use crate::error::Error;
use crate::front::{Inside, Process};

/// Connections to one process that a worker keeps.
const KEPT_MAX: usize = 64;

/// Head of a process's reply.
const BUFFER_BYTES: usize = 64 * 1024;

/// How often a request is sent, if that is safe.
const TRIES_MAX: u32 = 3;

/// When another try is worth it after a process went away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The figures of one process and of all, and how long they may take.
const FIGURES_BYTES_MAX: usize = 2 << 20;
const FIGURES_BYTES_TOTAL: usize = 64 << 20;
const FIGURES_TIME_MAX: Duration = Duration::from_secs(2);

/// Headers that concern one connection, and not the request.
const OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Connections of one worker to tenants' processes, for the next request.
#[derive(Debug, Default)]
pub(super) struct Pool(RefCell<HashMap<Name, Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Of this start of the process.
    generation: u64,
    idle: Vec<SendRequest<Carried>>,
}

impl Pool {
    fn take(&self, inside: &Inside) -> Option<SendRequest<Carried>> {
        let mut all = self.0.borrow_mut();
        let kept = all.get_mut(inside.tenant())?;
        if kept.generation == inside.generation() { kept.idle.pop() } else { None }
    }

    fn put(&self, inside: &Inside, sender: SendRequest<Carried>) {
        if sender.is_closed() {
            return;
        }
        let mut all = self.0.borrow_mut();
        let kept = all.entry(inside.tenant().clone()).or_default();
        if kept.generation < inside.generation() {
            *kept = Kept { generation: inside.generation(), idle: Vec::new() };
        }
        if kept.generation == inside.generation() && kept.idle.len() < KEPT_MAX {
            kept.idle.push(sender);
        }
    }
}

/// Passes a request on. The caller may do what it asks for.
pub(super) async fn pass(
    edge: &Rc<Edge>,
    connection: &Connection,
    (caller, process): (&Caller, &Arc<Process>),
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let apart = request.version() == Version::HTTP_2;
    let upgrades = request.version() == Version::HTTP_11
        && *request.method() == Method::GET
        && socket::is_wanted(request.headers());
    prepare(&mut request, upgrades);
    let (mut response, sender, inside) = arrive(edge, process, request, upgrades).await?;
    if upgrades && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let passage = Passage { upgrade: hyper::upgrade::on(&mut response), inside };
        connection.upgrade(Upgrade::Passed(passage));
        return Ok(response.map(|_nothing| Body::Whole(Bytes::new())));
    }
    if response.status().is_informational() {
        let why = "said nonsense";
        return Err(Error::Process { why, is_sent: true, retry_after: RETRY_AFTER });
    }
    let headers = response.headers_mut();
    OF_CONNECTION.iter().for_each(|name| drop(headers.remove(name)));
    *response.version_mut() = Version::default();
    // One that goes on beside others of its connection counts as a connection.
    let goes_on = apart && response.body().size_hint().exact().is_none();
    let place = goes_on.then(|| caller.account.lend(Resource::Connections, 1)).transpose()?;
    let edge = Rc::clone(edge);
    Ok(response.map(|incoming| {
        let mut passed = Passed::new(edge, incoming, sender, inside);
        passed.place = place;
        Body::Passed(passed)
    }))
}

/// Sends a request to the process, once more if that is safe.
async fn arrive(
    edge: &Rc<Edge>,
    process: &Arc<Process>,
    request: Request<Incoming>,
    upgrades: bool,
) -> Result<(Response<Incoming>, SendRequest<Carried>, Inside), Error> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !upgrades;
    let mut copy = reads.then(|| copy_of_head(&request));
    let mut request = request.map(|body| Carried(Some(body).filter(|body| !body.is_end_stream())));
    let mut tries = TRIES_MAX;
    loop {
        let inside = process.enter().await?;
        tries -= 1;
        match send(edge, &inside, request).await {
            Ok((response, sender)) => return Ok((response, sender, inside)),
            Err(Unsent { error, .. }) if tries == 0 => return Err(error),
            Err(Unsent { error, is_gone, request: unsent }) => {
                if is_gone {
                    inside.found_gone();
                }
                request = unsent.or_else(|| copy.take()).ok_or(error)?;
            }
        }
    }
}

/// The figures of all processes that are up, as they tell them; without those that do not in time,
/// or are too many.
pub(super) async fn figures(edge: &Rc<Edge>) -> Vec<(Name, String)> {
    let inside = edge.node().front().all().into_iter().filter_map(|process| process.look_in());
    let asked = inside.map(|inside| async move {
        match tokio::time::timeout(FIGURES_TIME_MAX, figures_of(&inside)).await {
            Ok(Ok(text)) => return Some((inside.tenant().clone(), text)),
            Ok(Err(error)) => tracing::warn!(tenant = %inside.tenant(), %error, "has no figures"),
            Err(_) => tracing::warn!(tenant = %inside.tenant(), "tells no figures in time"),
        }
        None
    });
    let mut left = FIGURES_BYTES_TOTAL;
    let all = futures_util::future::join_all(asked).await;
    let fits = |(_, text): &(Name, String)| {
        let fits = text.len() <= left;
        left -= if fits { text.len() } else { 0 };
        fits
    };
    all.into_iter().flatten().filter(fits).collect()
}

async fn figures_of(inside: &Inside) -> Result<String, Error> {
    let mut sender = connect::<Empty<Bytes>>(inside).await?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::from_static("/metrics");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let response = sender.send_request(request).await.map_err(|error| gone(&error))?;
    let body = Limited::new(response.into_body(), FIGURES_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Error::Internal(format!("its figures: {error}")))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
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

/// Leaves out what concerns the client's connection only, and what is none of the process's.
fn prepare(request: &mut Request<Incoming>, upgrades: bool) {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_of_connection(headers);
    headers.remove(AUTHORIZATION);
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

/// No reply came, and why; with the request if the process has seen nothing of it.
struct Unsent {
    error: Error,
    /// There is no way to the process any more.
    is_gone: bool,
    request: Option<Request<Carried>>,
}

/// Sends a request, by a kept connection if there is one.
async fn send(
    edge: &Rc<Edge>,
    inside: &Inside,
    mut request: Request<Carried>,
) -> Result<(Response<Incoming>, SendRequest<Carried>), Unsent> {
    loop {
        let kept = edge.pool().take(inside);
        let is_new = kept.is_none();
        let mut sender = match kept {
            Some(kept) => kept,
            None => match connect(inside).await {
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
                    let error = gone(&failed.into_error());
                    return Err(Unsent { error, is_gone: false, request: unsent });
                }
            },
        }
    }
}

async fn connect<B>(inside: &Inside) -> Result<SendRequest<B>, Error>
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |_error: std::io::Error| Error::Process {
        why: "takes no further connection",
        is_sent: false,
        retry_after: RETRY_AFTER,
    };
    let stream = inside.connect().map_err(failed)?;
    stream.set_nonblocking(true).map_err(failed)?;
    let stream = UnixStream::from_std(stream).map_err(failed)?;
    let (sender, serving) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| gone(&error))?;
    // It ends with the process, or when nobody has the sender any more.
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = serving.with_upgrades().await {
            tracing::debug!(%error, "a connection to a tenant's process broke off");
        }
    }));
    Ok(sender)
}

/// The process did not answer.
fn gone(error: &hyper::Error) -> Error {
    tracing::debug!(%error, "a tenant's process did not answer");
    Error::Process { why: "went away before it answered", is_sent: true, retry_after: RETRY_AFTER }
}

/// The body of a reply that is passed on. At its end its connection is kept for the next request.
pub(super) struct Passed {
    edge: Rc<Edge>,
    incoming: Incoming,
    /// Until the end; then the process may rest.
    way: Option<(SendRequest<Carried>, Inside)>,
    /// Of the tenant's connections, where it counts as one.
    place: Option<Permit>,
    in_flight: Option<InFlight>,
}

impl Passed {
    fn new(
        edge: Rc<Edge>,
        incoming: Incoming,
        sender: SendRequest<Carried>,
        inside: Inside,
    ) -> Self {
        let way = Some((sender, inside));
        let mut passed = Self { edge, incoming, way, place: None, in_flight: None };
        if passed.incoming.is_end_stream() {
            passed.end();
        }
        passed
    }

    pub(super) fn outlives(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            None => self.end(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.end(),
            Some(Ok(_)) => {}
            // It is in no state for another request.
            Some(Err(_)) => self.way = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn end(&mut self) {
        self.place = None;
        if let Some((sender, inside)) = self.way.take() {
            self.edge.pool().put(&inside, sender);
        }
    }
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").finish_non_exhaustive()
    }
}

/// A connection whose two ends are joined.
#[derive(Debug)]
pub(super) struct Passage {
    upgrade: OnUpgrade,
    inside: Inside,
}

impl Passage {
    /// Passes bytes in both directions until one end is gone. `read` is what came already.
    pub(super) async fn run<T>(self, transport: T, read: &[u8])
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(upgraded) = self.upgrade.await else { return };
        let mut process = TokioIo::new(upgraded);
        let (from, to) = tokio::io::split(transport);
        let mut client = tokio::io::join(Cursor::new(read).chain(from), to);
        // However it ended: both ends learn of it by theirs.
        drop(tokio::io::copy_bidirectional(&mut client, &mut process).await);
        drop(self.inside);
    }
}
