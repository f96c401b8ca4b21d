//! One connection: which protocol it speaks, what it is doing, and when it has gone on too long.
//!
//! - HTTP/2 with prior knowledge is told from HTTP/1.1 by the first three bytes; there is no
//!   upgrade. With TLS the handshake says which it is, and who does not speak TLS is told so.
//! - What a client has to do in time: send the headers of a request, read a reply, say something at
//!   all. While a handler runs, the handler's own deadlines hold. When the worker is full, idle
//!   connections have less time.
//! - Closing and draining are asked for by a flag and a wake, so that a poll of the connection
//!   costs no further timer or channel.

mod node;
mod transport;

use std::cell::{Cell, OnceCell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use sluicebox_link::tls::NodeName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::auth::Known;
use super::body::Body;
use super::pass::Passage;
use super::server::Edge;
use super::session::socket::Door;
use super::{route, tls};
use crate::config::HttpConfig;
pub(super) use transport::Socket;
use transport::{Transport, Watched};

/// Idle time when all connections of the worker are taken.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(5);

/// Buffer of an HTTP/1.1 connection; bodies arrive in pieces of at most this.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a client may send ahead of our reading: on one HTTP/2 stream, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How often a silent HTTP/2 client is asked whether it is there, and how long it has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of at most this is read to its end even if nobody wants it.
const SHORT_BODY_BYTES: u64 = 8 * 1024;

/// How much of a request that was refused before its end is still read, and for how long.
const LINGER_BYTES_MAX: usize = 16 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// How a client of HTTP/2 begins.
const HTTP2: &[u8] = b"PRI";

/// What holds for every connection.
#[derive(Debug)]
pub(super) struct Bounds {
    header_time: Duration,
    write_time: Duration,
    idle_time: Duration,
    http1: http1::Builder,
    http2: http2::Builder<Local>,
}

impl Bounds {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            // Watched by the sweep, at no cost for each request.
            .header_read_timeout(None)
            .max_header_size(config.header_bytes_max)
            .max_buf_size(BUFFER_BYTES.max(config.header_bytes_max));
        let mut http2 = http2::Builder::new(Local);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.streams_max)
            .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        Self {
            header_time: config.header_time_max,
            write_time: config.write_time_max,
            idle_time: config.idle_time_max,
            http1,
            http2,
        }
    }
}

/// Runs the streams of HTTP/2 connections on their worker.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        // A stream ends with its connection, which a task of the server owns.
        drop(tokio::task::spawn_local(async move {
            stream.await;
        }));
    }
}

/// What takes a connection over.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// A session by WebSocket.
    Session(Box<Door>),
    /// One in the process of its tenant.
    Passed(Passage),
}

/// Whose connection it is, and how it is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// A client's.
    Plain,
    /// A client's, by TLS.
    Tls,
    /// The front's, which has looked at who its clients are, in the process of a tenant.
    Front,
    /// Another node's, which shows who it is in the handshake.
    Node,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    peer: SocketAddr,
    via: Via,
    /// The node that has shown who it is.
    node: OnceCell<NodeName>,
    begun: Duration,
    /// When a byte last went in or out, on the edge's clock.
    active: Cell<Duration>,
    /// When the head of the next HTTP/1.1 request began to arrive.
    head_since: Cell<Option<Duration>>,
    requests: Cell<u64>,
    in_flight: Cell<u32>,
    /// The client does not take what we write.
    blocked: Cell<bool>,
    http2: Cell<bool>,
    closing: Cell<bool>,
    draining: Cell<bool>,
    /// A reply came before the end of its request.
    cut_short: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// What takes the connection over when its last request is answered.
    upgrade: RefCell<Option<Upgrade>>,
    /// Who the last request came from.
    known: RefCell<Option<Known>>,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Duration, via: Via) -> Self {
        Self {
            peer,
            via,
            node: OnceCell::new(),
            begun: now,
            active: Cell::new(now),
            head_since: Cell::new(None),
            requests: Cell::new(0),
            in_flight: Cell::new(0),
            blocked: Cell::new(false),
            http2: Cell::new(false),
            closing: Cell::new(false),
            draining: Cell::new(false),
            cut_short: Cell::new(false),
            waker: RefCell::default(),
            upgrade: RefCell::default(),
            known: RefCell::default(),
        }
    }

    pub(super) const fn via(&self) -> Via {
        self.via
    }

    /// The node whose connection it is, if it is a node's.
    pub(super) fn node(&self) -> Option<NodeName> {
        self.node.get().cloned()
    }

    /// It is for nodes, and has not shown whose it is.
    pub(super) fn is_a_strangers(&self) -> bool {
        self.via == Via::Node && self.node.get().is_none() && !self.closing.get()
    }

    /// It is this node's.
    pub(super) fn is_of(&self, node: &NodeName) -> bool {
        self.node.get() == Some(node)
    }

    /// It has shown that it is this node's.
    pub(super) fn is_a_nodes(&self, node: NodeName) {
        // It is said once.
        let _is_new = self.node.set(node);
    }

    /// It is a client's own, and not one of somebody who counts those of clients.
    pub(super) const fn is_a_clients(&self) -> bool {
        matches!(self.via, Via::Plain | Via::Tls)
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How the origin of a page begins that came from here.
    pub(super) const fn origin(&self) -> &'static str {
        if matches!(self.via, Via::Tls) { "https://" } else { "http://" }
    }

    /// When the request under way is answered, this has the connection to itself.
    pub(super) fn upgrade(&self, to: Upgrade) {
        self.upgrade.replace(Some(to));
    }

    pub(super) const fn known(&self) -> &RefCell<Option<Known>> {
        &self.known
    }

    /// Why the connection has to end, if it has to.
    pub(super) fn overdue(
        &self,
        now: Duration,
        bounds: &Bounds,
        full: bool,
    ) -> Option<&'static str> {
        if self.closing.get() {
            return None;
        }
        let silent = now.saturating_sub(self.active.get());
        if self.blocked.get() {
            return (silent > bounds.write_time).then_some("slow-reader");
        }
        if self.in_flight.get() > 0 {
            return None;
        }
        let first_head = (self.requests.get() == 0).then_some(self.begun);
        let head = first_head.or_else(|| self.head_since.get());
        if head.is_some_and(|since| now.saturating_sub(since) > bounds.header_time) {
            return Some("slow-headers");
        }
        let full = full && self.is_a_clients();
        let idle_time = if full { bounds.idle_time.min(IDLE_WHEN_FULL) } else { bounds.idle_time };
        (silent > idle_time).then_some("idle")
    }

    /// Ends the connection now.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Ends the connection when its requests are answered; at once if it never had one.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        if self.requests.get() == 0 {
            self.closing.set(true);
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn keep_waker(&self, context: &Context<'_>) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *kept = Some(context.waker().clone());
        }
    }

    fn begin(self: &Rc<Self>, version: Version) -> InFlight {
        self.http2.set(version == Version::HTTP_2);
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.head_since.set(None);
        InFlight(Rc::clone(self))
    }

    fn note_read(&self, now: Duration) {
        self.active.set(now);
        if self.in_flight.get() == 0 && !self.http2.get() && self.head_since.get().is_none() {
            self.head_since.set(Some(now));
        }
    }
}

/// A request whose handler runs, or whose reply is being made.
pub(super) struct InFlight(Rc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// Serves a connection to its end.
pub(super) async fn run(edge: &Rc<Edge>, connection: &Rc<Connection>, stream: Socket) {
    let mut serving = pin!(serve(edge, connection, stream));
    poll_fn(|context| {
        connection.keep_waker(context);
        if connection.closing.get() { Poll::Ready(()) } else { serving.as_mut().poll(context) }
    })
    .await;
}

async fn serve(edge: &Rc<Edge>, connection: &Rc<Connection>, stream: Socket) {
    let Some((transport, is_http2)) = open(edge, connection, stream).await else { return };
    let service = Service { edge: Rc::clone(edge), connection: Rc::clone(connection) };
    let (io, bounds) = (TokioIo::new(transport), edge.bounds());
    if is_http2 {
        connection.http2.set(true);
        drive(connection, bounds.http2.serve_connection(io, service)).await;
    } else {
        let serving = bounds.http1.serve_connection(io, service);
        let Some((transport, read)) = drive_http1(connection, serving).await else { return };
        let Some(upgrade) = connection.upgrade.take() else { return };
        let _in_flight = connection.begin(Version::HTTP_11);
        match upgrade {
            Upgrade::Session(door) => door.run(edge, transport, read).await,
            Upgrade::Passed(passage) => passage.run(edge, transport, &read).await,
        }
    }
}

/// What is spoken on, and whether it is HTTP/2; `None` if nothing comes of it.
async fn open(
    edge: &Rc<Edge>,
    connection: &Rc<Connection>,
    stream: Socket,
) -> Option<(Transport, bool)> {
    // A client that goes before it says anything, or sends less than a word, is left to HTTP/1.1.
    let first = stream.first::<{ HTTP2.len() }>().await.ok()?;
    let (first, count) = first.unwrap_or_default();
    if connection.via == Via::Node {
        let stream = node::open_of_node(edge, connection, stream).await?;
        return Some((Transport::Tls(Box::new(stream)), false));
    }
    let watched =
        Watched { inner: stream, edge: Rc::clone(edge), connection: Rc::clone(connection) };
    match (connection.via, edge.tls()) {
        (Via::Front, _) => Some((Transport::Plain(watched), false)),
        (_, None) => Some((Transport::Plain(watched), first[..count] == *HTTP2)),
        (_, Some(tls)) if first[0] == tls::HANDSHAKE => {
            let stream = handshake(tls.acceptor(), watched).await?;
            let is_http2 = tls::is_http2(stream.get_ref().1);
            Some((Transport::Tls(Box::new(stream)), is_http2))
        }
        (_, Some(_)) => {
            refuse_plain(watched).await;
            None
        }
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: Watched) -> Option<TlsStream<Watched>> {
    let (edge, peer) = (Rc::clone(&stream.edge), stream.connection.peer);
    match acceptor.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%peer, %error, "no TLS handshake");
            edge.node().metrics().node().closed.add("handshake", 1);
            None
        }
    }
}

/// Tells a client that does not speak TLS why nothing comes of it.
async fn refuse_plain(mut stream: Watched) {
    // What it makes of the answer is its business.
    if stream.write_all(tls::NOT_TLS).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

/// Polls a connection to its end, and tells it when to finish. How it ended is the client's
/// business: what it did wrong it was told, and a break needs no word.
async fn drive<C>(connection: &Connection, serving: C)
where
    C: GracefulConnection,
    C::Error: std::error::Error,
{
    let mut serving = pin!(serving);
    let mut told = false;
    poll_fn(|context| {
        if connection.draining.get() && !told {
            told = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(peer = %connection.peer, %error, "a connection broke off");
            }
        })
    })
    .await;
}

/// The same for HTTP/1.1, whose connection may be taken over at its end: gives it then, with what
/// was read too much.
async fn drive_http1(
    connection: &Connection,
    mut serving: http1::Connection<TokioIo<Transport>, Service>,
) -> Option<(Transport, Bytes)> {
    let mut told = false;
    let ended = poll_fn(|context| {
        if connection.draining.get() && !told {
            told = true;
            Pin::new(&mut serving).graceful_shutdown();
        }
        serving.poll_without_shutdown(context)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(peer = %connection.peer, %error, "a connection broke off");
        return None;
    }
    let parts = serving.into_parts();
    let mut transport = parts.io.into_inner();
    if connection.upgrade.borrow().is_some() {
        return Some((transport, parts.read_buf));
    }
    // Who is gone does not want to know.
    drop(transport.shutdown().await);
    if connection.cut_short.get() {
        // Else the reply would be lost with what of the request was not read.
        drop(tokio::time::timeout(LINGER_TIME_MAX, linger(transport)).await);
    }
    None
}

/// Reads what still comes, and forgets it, until the peer closes or has said enough.
async fn linger(mut transport: Transport) {
    let mut buffer = [0; 8 * 1024];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        match transport.read(&mut buffer).await {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            _ => return,
        }
    }
}

/// Answers the requests of one connection.
struct Service {
    edge: Rc<Edge>,
    connection: Rc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = self.connection.begin(request.version());
        let edge = Rc::clone(&self.edge);
        let long = request.body().size_hint().exact().is_none_or(|bytes| bytes > SHORT_BODY_BYTES);
        let in_the_way = long && request.version() < Version::HTTP_2;
        Box::pin(async move {
            let mut response = route::answer(&edge, &in_flight.0, request).await;
            if in_the_way && response.status().as_u16() >= 400 {
                // The rest of it is not read: the client must not send another request behind it.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                in_flight.0.cut_short.set(true);
            }
            edge.count(&response);
            response.body_mut().outlives(in_flight);
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn bounds() -> Bounds {
        let mut config = Config::default().http;
        config.header_time_max = 10 * SECOND;
        config.write_time_max = 60 * SECOND;
        config.idle_time_max = 120 * SECOND;
        Bounds::new(&config)
    }

    fn connection() -> Rc<Connection> {
        Rc::new(Connection::new(([127, 0, 0, 1], 1).into(), Duration::ZERO, Via::Plain))
    }

    #[test]
    fn a_client_that_never_finishes_its_first_head_is_closed() {
        let (bounds, connection) = (bounds(), connection());
        assert_eq!(connection.overdue(10 * SECOND, &bounds, false), None);
        connection.note_read(9 * SECOND);
        assert_eq!(connection.overdue(11 * SECOND, &bounds, false), Some("slow-headers"));
    }

    #[test]
    fn a_client_that_drips_a_later_head_is_closed() {
        let (bounds, connection) = (bounds(), connection());
        drop(connection.begin(Version::HTTP_11));
        (20..31).for_each(|second| connection.note_read(second * SECOND));
        assert_eq!(connection.overdue(30 * SECOND, &bounds, false), None);
        assert_eq!(connection.overdue(31 * SECOND, &bounds, false), Some("slow-headers"));
    }

    #[test]
    fn an_idle_client_has_less_time_when_the_worker_is_full() {
        let (bounds, connection) = (bounds(), connection());
        drop(connection.begin(Version::HTTP_11));
        assert_eq!(connection.overdue(6 * SECOND, &bounds, false), None);
        assert_eq!(connection.overdue(6 * SECOND, &bounds, true), Some("idle"));
        assert_eq!(connection.overdue(121 * SECOND, &bounds, false), Some("idle"));
    }

    #[test]
    fn a_handler_has_its_own_deadlines_but_a_client_must_read() {
        let (bounds, connection) = (bounds(), connection());
        let running = connection.begin(Version::HTTP_2);
        assert_eq!(connection.overdue(1000 * SECOND, &bounds, true), None);
        connection.blocked.set(true);
        assert_eq!(connection.overdue(61 * SECOND, &bounds, false), Some("slow-reader"));
        drop(running);
        connection.close();
        assert_eq!(connection.overdue(61 * SECOND, &bounds, false), None, "closing already");
    }
}
