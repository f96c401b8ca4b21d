//! Another node: whether it can be reached, what it has, and a connection to it.
//!
//! - Only `watch` says whether it is up. Whoever waits for something of it waits no longer when it
//!   is not, however long the system would.
//! - What it has said it has holds until it says otherwise, also while it cannot be reached: else
//!   something could be made twice.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluicebox_core::ids::Name;
use sluicebox_link::ring::Offer;
use sluicebox_link::tls::{self, Identity, NodeName, Settings};
use sluicebox_link::way;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::client::TlsStream;

use super::held::{Held, Subject};
use super::seldom::Seldom;
use crate::config::{ClusterConfig, NodeAddress};
use crate::error::Error;
use crate::metrics::PeerMetrics;

/// What it may have this node do at once with what it says; more waits unread.
const ORDERS_MAX: usize = 2;

/// Copies of partitions it may have this node take at once, which last; more wait unread.
const COPIES_MAX: usize = 2;

/// When another try is worth it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Peer {
    node: NodeAddress,
    identity: Arc<Identity>,
    pub(super) silence_time_max: Duration,
    state: Mutex<State>,
    /// True while it is up.
    up: watch::Sender<bool>,
    /// True while nothing is heard of it, not even a refusal.
    silent: watch::Sender<bool>,
    /// For what it has this node do, with a body that may be large.
    orders: Arc<Semaphore>,
    /// For copies of partitions, with what is to be known for them.
    copies: Arc<Semaphore>,
    /// For what the log says of what is wrong with it.
    wrong: Seldom,
    pub(crate) metrics: Arc<PeerMetrics>,
}

#[derive(Debug)]
struct State {
    /// When it came up, or went.
    since: Instant,
    /// Why it is not up.
    why: String,
    /// How often it came up.
    generation: u64,
    /// It has the same list of nodes.
    agrees: bool,
    /// The machine it is on, if it was told.
    host: Option<Name>,
    /// What it has, once it has said so.
    held: Option<Arc<Held>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) why: String,
    /// Nothing at all came back.
    pub(super) is_silent: bool,
}

/// How a node is, for people.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) is_up: bool,
    pub(crate) since: Instant,
    /// Why it is not up, or what is wrong though it is.
    pub(crate) why: Option<String>,
    pub(crate) pipelines: Option<usize>,
    /// The machine it is on, if it said so.
    pub(crate) host: Option<Name>,
}

impl Peer {
    pub(super) fn new(
        node: NodeAddress,
        identity: Arc<Identity>,
        config: &ClusterConfig,
        metrics: Arc<PeerMetrics>,
    ) -> Self {
        let state = State {
            since: Instant::now(),
            why: "has not answered since this node was started".to_owned(),
            generation: 0,
            agrees: true,
            host: None,
            held: None,
        };
        let silence_time_max = config.silence_time_max;
        let (up, silent) = (watch::Sender::new(false), watch::Sender::new(false));
        Self {
            node,
            identity,
            silence_time_max,
            state: Mutex::new(state),
            up,
            silent,
            orders: Arc::new(Semaphore::new(ORDERS_MAX)),
            copies: Arc::new(Semaphore::new(COPIES_MAX)),
            wrong: Seldom::new(),
            metrics,
        }
    }

    /// A place among what it has this node do at once, when there is one.
    pub(crate) async fn order(&self) -> OwnedSemaphorePermit {
        let place = self.orders.clone().acquire_owned().await;
        place.expect("nobody closes it")
    }

    /// The same among copies it has this node take.
    pub(crate) async fn copy(&self) -> OwnedSemaphorePermit {
        let place = self.copies.clone().acquire_owned().await;
        place.expect("nobody closes it")
    }

    /// What it has said is wrong: counts it, and says so.
    pub(crate) fn is_wrong(&self, why: &str) {
        self.metrics.wrong.inc();
        if self.wrong.is_due() {
            tracing::warn!(node = %self.name(), why, "a node says what it may not; its link ends");
        }
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> &str {
        &self.node.address
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// What it has is known: it is up, and has said so. What one that is away said last is not all
    /// it may have: a pipeline may have moved there just before.
    pub(crate) fn is_known(&self) -> bool {
        self.is_up() && self.lock().held.is_some()
    }

    /// It has the same list of nodes.
    pub(crate) fn agrees(&self) -> bool {
        self.lock().agrees
    }

    /// It has this, as it said last.
    pub(crate) fn has(&self, subject: &Subject) -> bool {
        self.lock().held.as_ref().is_some_and(|held| held.has(subject))
    }

    /// How often it came up: connections of before are of no use.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(crate) fn look(&self) -> Look {
        let state = self.lock();
        let is_up = self.is_up();
        let differs = (!state.agrees).then(|| "has another list of nodes".to_owned());
        Look {
            is_up,
            since: state.since,
            why: if is_up { differs } else { Some(state.why.clone()) },
            pipelines: state.held.as_ref().map(|held| held.pipelines.len()),
            host: state.host.clone(),
        }
    }

    /// Returns when nothing is heard of it any more. What it says goodbye to ends by itself.
    pub(crate) async fn lost(&self) {
        // The sender is here, so that it does not fail.
        drop(self.silent.subscribe().wait_for(|silent| *silent).await);
    }

    /// A new connection to it.
    ///
    /// # Errors
    /// It is not up, or does not take it.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>, Error> {
        if !self.is_up() {
            return Err(self.unreachable(false));
        }
        self.try_connect().await.map_err(|Unreached { why, .. }| {
            tracing::debug!(node = %self.name(), why, "no connection to a node");
            self.failed(&why, false)
        })
    }

    /// A new connection for a link to it.
    ///
    /// # Errors
    /// It does not take it.
    pub(crate) async fn socket(&self) -> Result<TcpStream, sluicebox_link::Error> {
        let doing = "connect to it";
        let socket = TcpStream::connect(self.address());
        let socket = tokio::time::timeout(self.silence_time_max, socket).await;
        let socket = socket.map_err(|_| sluicebox_link::Error::Timeout { doing })?;
        socket.map_err(|error| sluicebox_link::Error::Io { doing, why: error.to_string() })
    }

    /// How links to it are made.
    pub(crate) fn link_settings(&self) -> way::Settings {
        let handshake_time_max = self.silence_time_max;
        way::Settings {
            ring: Offer { handshake_time_max, ..Offer::default() },
            tls: Settings {
                handshake_time_max,
                silence_time_max: self.silence_time_max.max(Duration::from_secs(1)),
                ..Settings::default()
            },
        }
    }

    /// The same whether it is up or not, to see whether it is.
    pub(super) async fn try_connect(&self) -> Result<TlsStream<TcpStream>, Unreached> {
        let unreached = |why: String, is_silent| Unreached { why, is_silent };
        let time_max = self.silence_time_max;
        let socket = tokio::time::timeout(time_max, TcpStream::connect(self.address())).await;
        let socket = socket.map_err(|_| unreached("is silent".to_owned(), true))?;
        let socket = socket.map_err(|error| {
            let is_refused = error.kind() == ErrorKind::ConnectionRefused;
            unreached(format!("cannot be reached: {error}"), !is_refused)
        })?;
        let settings = Settings {
            handshake_time_max: time_max,
            silence_time_max: time_max.max(Duration::from_secs(1)),
            ..Settings::default()
        };
        let stream = tls::peer_connect(socket, &self.identity, self.name(), settings).await;
        stream.map_err(|error| {
            let is_silent = matches!(error, sluicebox_link::Error::Timeout { .. });
            unreached(format!("cannot be reached: {error}"), is_silent)
        })
    }

    /// It answers: whether it has the same list, and where it is. `held` is what it has, if that is
    /// news.
    pub(super) fn came(&self, (agrees, host): (bool, Option<Name>), held: Option<Held>) {
        {
            let mut state = self.lock();
            if !self.is_up() {
                state.since = Instant::now();
                state.generation += 1;
            }
            (state.agrees, state.host) = (agrees, host);
            if let Some(held) = held {
                state.held = Some(Arc::new(held));
            }
        }
        self.metrics.up.set(1);
        self.silent.send_replace(false);
        if !self.up.send_replace(true) {
            tracing::info!(node = %self.name(), address = %self.address(), "a node is reached");
        }
    }

    /// It does not answer; `is_silent` if nothing at all comes back.
    pub(super) fn went(&self, why: String, is_silent: bool) {
        let was_up = self.is_up();
        {
            let mut state = self.lock();
            if was_up {
                state.since = Instant::now();
            }
            state.why.clone_from(&why);
        }
        self.metrics.up.set(0);
        self.up.send_replace(false);
        self.silent.send_replace(is_silent);
        if was_up {
            tracing::warn!(node = %self.name(), "a node {why}; what it has is unavailable");
        }
    }

    /// What it has cannot be had now.
    pub(crate) fn unreachable(&self, is_sent: bool) -> Error {
        let why = if self.is_up() { "went away".to_owned() } else { self.lock().why.clone() };
        self.failed(&why, is_sent)
    }

    /// It did not do what it was to do.
    pub(crate) fn failed(&self, why: &str, is_sent: bool) -> Error {
        let (node, why) = (self.name().to_string(), why.to_owned());
        Error::Peer { node, why, is_sent, retry_after: RETRY_AFTER }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
