//! One worker's share of the edge: accepting, watching over connections, stopping.
//!
//! - Connections are accepted while there are fewer than the worker's share; others wait in the
//!   system's queue, of this worker or of another one.
//! - A tick looks for connections that are too slow, too idle or not read by their client, and
//!   tells requests whose time is over. It runs only while there are connections: an idle node
//!   does nothing.
//! - Stopping takes no new connection, lets each finish what it is doing, and after a while ends
//!   what is left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use http::Response;
use sluicebox_link::tls::NodeName;
use socket2::{Domain, Protocol, Type};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::body::Body;
use super::connection::{self, Bounds, Connection, Socket, Via};
use super::control;
use super::deadline::Deadlines;
use super::pass::Pool;
use super::tls::Tls;
use crate::error::Error;
use crate::front::Theirs;
use crate::node::Node;
use crate::worker::release::Releases;

/// How often connections and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Connections that the system keeps for us while we do not accept.
const BACKLOG: i32 = 1024;

/// Connections of other nodes that a worker takes; a node keeps a few dozen of each worker of
/// another, and one more for each session that it passes on. Those of clients do not take their
/// place, and those that have not shown yet whose they are give way.
const NODE_CONNECTIONS_MAX: usize = 4096;

/// How long to wait when the system has no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a worker's connections come from.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// Those of clients.
    pub(crate) clients: Listener,
    /// Those of other nodes, if there are any.
    pub(crate) nodes: Option<std::net::TcpListener>,
}

/// Where those of clients come from.
#[derive(Debug)]
pub(crate) enum Listener {
    /// Whoever connects.
    Tcp(std::net::TcpListener),
    /// Somebody who has looked at who it is, and hands them over.
    Handed(mpsc::Receiver<Theirs>),
}

/// The same inside a runtime.
enum Accepting {
    Tcp(TcpListener),
    Handed(mpsc::Receiver<Theirs>),
}

/// The peer of a connection that was handed over.
const FRONT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Accepting {
    fn new(listener: Listener) -> std::io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Listener::Handed(handed) => Self::Handed(handed),
        })
    }

    async fn accept(&mut self) -> std::io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), peer))
            }
            Self::Handed(handed) => match handed.recv().await {
                Some(theirs) => Ok((Socket::Handed(theirs.open()?), FRONT)),
                // The front is gone, and this process is about to be.
                None => std::future::pending().await,
            },
        }
    }
}

/// Opens a listening socket. With `reuse_port` each worker can have one at the same address, and
/// the system spreads connections over them.
///
/// # Errors
/// What the system said, with the address.
pub fn listen(address: SocketAddr, reuse_port: bool) -> Result<std::net::TcpListener, Error> {
    let open = || {
        let socket =
            socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A node that restarts may take its address back at once.
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| Error::Io { doing: format!("listen on {address}"), source })
}

/// Serves connections on the calling worker until `shutdown` turns true (or its sender is gone),
/// then until they have finished or the drain time is over. To be called inside a `LocalSet`.
///
/// # Errors
/// The listener cannot be used in this runtime.
pub(crate) async fn serve(
    listeners: Listeners,
    node: Arc<Node>,
    (releases, tls): (Rc<Releases>, Option<Arc<Tls>>),
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "use the listening socket".to_owned(), source };
    let mut listener = Accepting::new(listeners.clients).map_err(io)?;
    let nodes = listeners.nodes.map(TcpListener::from_std).transpose().map_err(io)?;
    let config = node.config();
    let workers = usize::from(config.node.workers).max(1);
    let connections_max = config.http.connections_max.div_ceil(workers);
    let drain_time_max = config.node.drain_time_max;
    let edge = Rc::new(Edge::new(node, (releases, tls), connections_max));
    let mut open = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Stopping comes first; what has ended makes room before the next is accepted.
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(ended) = open.join_next(), if !open.is_empty() => note_end(ended),
            _ = tick.tick(), if !open.is_empty() => edge.sweep(),
            accepted = accept_node(nodes.as_ref()), if edge.has_room_for_nodes() => {
                edge.admit(accepted, Some(Via::Node), &mut open).await;
            }
            accepted = listener.accept(), if edge.clients() < connections_max => {
                edge.admit(accepted, None, &mut open).await;
            }
        }
    }
    drop((listener, nodes));
    edge.drain();
    let end = tokio::time::Instant::now() + drain_time_max;
    while !open.is_empty() {
        tokio::select! {
            // Ends are counted before the time is found to be over.
            biased;
            Some(ended) = open.join_next() => note_end(ended),
            _ = tick.tick() => edge.sweep(),
            () = tokio::time::sleep_until(end) => break,
        }
    }
    Ok(())
}

/// The next connection of another node.
async fn accept_node(nodes: Option<&TcpListener>) -> std::io::Result<(Socket, SocketAddr)> {
    match nodes {
        Some(nodes) => nodes.accept().await.map(|(stream, peer)| (Socket::Tcp(stream), peer)),
        None => std::future::pending().await,
    }
}

/// A connection's task ends by itself, or by a panic, which is our bug and that connection's end
/// only.
fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended.as_ref()
        && error.is_panic()
    {
        tracing::error!(%error, "serving a connection panicked");
    }
}

/// What the requests of one worker share.
#[derive(Debug)]
pub(super) struct Edge {
    node: Arc<Node>,
    releases: Rc<Releases>,
    tls: Option<Arc<Tls>>,
    router: Router,
    /// Connections to tenants' processes.
    pool: Pool,
    bounds: Bounds,
    connections_max: usize,
    start: Instant,
    /// Time since the start, as of the last tick.
    now: Cell<Duration>,
    deadlines: Deadlines,
    open: RefCell<BTreeMap<u64, Rc<Connection>>>,
    accepted: Cell<u64>,
    /// How many of the open connections are other nodes'.
    nodes: Cell<usize>,
    draining: Cell<bool>,
    /// Told when draining begins.
    drain: Notify,
}

impl Edge {
    fn new(
        node: Arc<Node>,
        (releases, tls): (Rc<Releases>, Option<Arc<Tls>>),
        connections_max: usize,
    ) -> Self {
        Self {
            releases,
            tls,
            router: control::router(&node),
            pool: Pool::default(),
            bounds: Bounds::new(&node.config().http),
            node,
            connections_max,
            start: Instant::now(),
            now: Cell::new(Duration::ZERO),
            deadlines: Deadlines::default(),
            open: RefCell::default(),
            accepted: Cell::new(0),
            nodes: Cell::new(0),
            draining: Cell::new(false),
            drain: Notify::new(),
        }
    }

    /// What waits for the log.
    pub(super) fn releases(&self) -> &Releases {
        &self.releases
    }

    /// What protects connections, if anything does.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) const fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(super) const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Time on the edge's clock, as of the last tick.
    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    /// Runs a future for a limited time; `None` if it is not done by then.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let now = self.now();
            let deadline = deadline.get_or_insert_with(|| self.deadlines.start(now + limit));
            deadline.poll(now, context).map(|()| None)
        })
        .await
    }

    /// Returns when the worker begins to stop.
    pub(super) async fn draining(&self) {
        let told = self.drain.notified();
        if !self.draining.get() {
            told.await;
        }
    }

    /// Counts a reply.
    pub(super) fn count(&self, response: &Response<Body>) {
        let class = usize::from(response.status().as_u16() / 100);
        if let Some(counter) = self.node.metrics().node().replies.get(class.saturating_sub(1)) {
            counter.inc();
        }
    }

    /// There is room for a connection of another node, or will be when a stranger has gone.
    fn has_room_for_nodes(&self) -> bool {
        self.nodes.get() < NODE_CONNECTIONS_MAX || self.oldest_stranger().is_some()
    }

    /// Of the connections for nodes the oldest that has not shown whose it is.
    fn oldest_stranger(&self) -> Option<Rc<Connection>> {
        let open = self.open.borrow();
        open.values().find(|connection| connection.is_a_strangers()).cloned()
    }

    /// A connection is of this node, from now on. False if that has its share of them, so that one
    /// node does not take the place of all others.
    pub(super) fn welcome(&self, connection: &Connection, node: NodeName) -> bool {
        let others = self.node.cluster().map_or(0, |cluster| cluster.names().len());
        let most = NODE_CONNECTIONS_MAX / if others > 1 { 2 } else { 1 };
        let open = self.open.borrow();
        let its = open.values().filter(|known| known.is_of(&node)).count();
        let is_welcome = its < most;
        if is_welcome {
            connection.is_a_nodes(node);
        } else if let Some(peer) = self.node.peer(&node) {
            peer.metrics.refused.inc();
        }
        is_welcome
    }

    /// Open connections of clients.
    fn clients(&self) -> usize {
        self.open.borrow().len() - self.nodes.get()
    }

    /// Begins to serve a new connection; `via` says whose it is if the socket does not.
    async fn admit(
        self: &Rc<Self>,
        accepted: std::io::Result<(Socket, SocketAddr)>,
        via: Option<Via>,
        open: &mut JoinSet<()>,
    ) {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Gone before we looked: nobody is waiting for anything.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => return,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        // A peer that is gone without a word is found by what it does not acknowledge.
        if stream.tune(self.node.config().http.write_time_max).is_err() {
            return;
        }
        // The tick may have rested; a new connection must not look old.
        self.now.set(self.start.elapsed());
        let number = self.accepted.get();
        self.accepted.set(number + 1);
        let usual = match (&stream, &self.tls) {
            (Socket::Handed(_), _) => Via::Front,
            (Socket::Tcp(_), Some(_)) => Via::Tls,
            (Socket::Tcp(_), None) => Via::Plain,
        };
        let via = via.unwrap_or(usual);
        let connection = Rc::new(Connection::new(peer, self.now(), via));
        let is_a_nodes = via == Via::Node;
        if is_a_nodes
            && self.nodes.get() >= NODE_CONNECTIONS_MAX
            && let Some(stranger) = self.oldest_stranger()
        {
            self.node.metrics().node().closed.add("stranger", 1);
            stranger.close();
        }
        self.nodes.update(|nodes| nodes + usize::from(is_a_nodes));
        self.open.borrow_mut().insert(number, Rc::clone(&connection));
        let metrics = self.node.metrics().node();
        metrics.accepted.inc();
        metrics.connections.add(1);
        let listed = Listed { edge: Rc::clone(self), number, is_a_nodes };
        open.spawn_local(async move {
            connection::run(&listed.edge, &connection, stream).await;
            drop(listed);
        });
    }

    /// What is done every tick.
    fn sweep(&self) {
        let now = self.start.elapsed();
        self.now.set(now);
        self.deadlines.tell(now);
        let open = self.open.borrow();
        let full = open.len() - self.nodes.get() >= self.connections_max;
        for connection in open.values() {
            if let Some(reason) = connection.overdue(now, &self.bounds, full) {
                self.node.metrics().node().closed.add(reason, 1);
                connection.close();
            }
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        self.drain.notify_waiters();
        self.open.borrow().values().for_each(|connection| connection.drain());
    }
}

/// A connection's place in the list. Dropping it, with the task, takes it off.
struct Listed {
    edge: Rc<Edge>,
    number: u64,
    is_a_nodes: bool,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.edge.open.borrow_mut().remove(&self.number);
        self.edge.nodes.update(|nodes| nodes - usize::from(self.is_a_nodes));
        self.edge.node.metrics().node().connections.add(-1);
    }
}
