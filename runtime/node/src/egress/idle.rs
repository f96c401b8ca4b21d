//! Connections of a stage: how they begin, and those that wait for another request: few, and not
//! for long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sluicebox_engine::http::Refused;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::body::{Leaving, failed};
use super::target::Target;
use crate::mailbox::lock;

/// Connections that wait; the one that has for longest makes room.
pub(super) const IDLE_MAX: usize = 8;

/// How old a connection is that is used again at most: names lead elsewhere at times.
const REUSED_AGE_MAX: Duration = Duration::from_secs(40);

/// How long a connection lives, whatever goes over it.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// Head of an answer, and what is read at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Headers of an answer.
const HEADERS_MAX: usize = 128;

/// A connection, and what it was made for.
pub(super) struct Connection {
    target: Target,
    pub(super) sender: SendRequest<Leaving>,
    serving: AbortHandle,
    /// How many requests it has had.
    turns: Arc<AtomicU64>,
    since: Instant,
}

/// A connection while it is one request's.
#[derive(Debug)]
pub(super) struct Turn {
    serving: AbortHandle,
    turns: Arc<AtomicU64>,
    own: u64,
}

impl Turn {
    /// Ends the connection, unless it has gone on to another request: then the answer of this one
    /// has come whole, read or not.
    pub(super) fn end(&self) {
        if self.turns.load(Ordering::Acquire) == self.own {
            self.serving.abort();
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Connection {
    /// Begins to speak HTTP.
    pub(super) async fn begin<T>(
        handle: &Handle,
        target: Target,
        stream: T,
        permits: [OwnedSemaphorePermit; 3],
    ) -> Result<Self, Refused>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES).max_headers(HEADERS_MAX);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (sender, serving) = begun.map_err(|error| failed(&error))?;
        let serving = handle.spawn(async move {
            let _permits = permits;
            tokio::select! {
                // What has come is handed on first.
                biased;
                ended = serving => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of a stage broke off");
                },
                () = sleep(LIFE_MAX) => {}
            }
        });
        let (serving, turns) = (serving.abort_handle(), Arc::default());
        Ok(Self { target, sender, serving, turns, since: Instant::now() })
    }

    /// For the request it has now.
    pub(super) fn turn(&self) -> Turn {
        let own = self.turns.load(Ordering::Acquire);
        Turn { serving: self.serving.clone(), turns: self.turns.clone(), own }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<Connection>>);

impl Idle {
    /// One to this target that can take a request now.
    pub(super) fn take(&self, target: &Target) -> Option<Connection> {
        let mut idle = lock(&self.0);
        idle.retain(|known| !known.sender.is_closed() && known.since.elapsed() < REUSED_AGE_MAX);
        let is_it = |known: &Connection| known.target == *target && known.sender.is_ready();
        let at = idle.iter().position(is_it)?;
        let connection = idle.remove(at);
        connection.turns.fetch_add(1, Ordering::AcqRel);
        Some(connection)
    }

    /// Gives up the one that has waited for longest. One that still has an answer on its way ends
    /// behind that.
    pub(super) fn make_room(&self) {
        let mut idle = lock(&self.0);
        if !idle.is_empty() {
            drop(idle.remove(0));
        }
    }

    /// One whose answer has begun: it takes another request when that has ended.
    pub(super) fn put(&self, connection: Connection) {
        let mut idle = lock(&self.0);
        if idle.len() >= IDLE_MAX {
            drop(idle.remove(0));
        }
        idle.push(connection);
    }
}
