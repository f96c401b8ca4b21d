//! The two ways of a request: into the process of its tenant, and to another node.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use sluicebox_core::ids::Name;
use sluicebox_link::tls::NodeName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cluster::Peer;
use crate::error::Error;
use crate::front::{Inside, Process};

/// Head of a reply.
const BUFFER_BYTES: usize = 64 * 1024;

/// When another try is worth it after a process went away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a request is passed on to.
#[derive(Debug, Clone)]
pub(in crate::http) enum Way {
    /// The process of its tenant.
    Process(Arc<Process>),
    /// The node that has what it is about.
    Peer(Arc<Peer>),
}

/// Which of those a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum End {
    Process(Name),
    Peer(NodeName),
}

/// The other end, there now.
#[derive(Debug)]
pub(super) enum Reached {
    Process(Inside),
    Peer(Arc<Peer>, u64),
}

impl Way {
    /// Waits until it is there, if it is to come, and keeps it.
    pub(super) async fn reach(&self) -> Result<Reached, Error> {
        match self {
            Self::Process(process) => process.enter().await.map(Reached::Process),
            Self::Peer(peer) if peer.is_up() => {
                Ok(Reached::Peer(Arc::clone(peer), peer.generation()))
            }
            Self::Peer(peer) => Err(peer.unreachable(false)),
        }
    }

    /// Another node, which looks at who the client is itself.
    pub(super) const fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(_))
    }
}

impl Reached {
    pub(super) fn end(&self) -> End {
        match self {
            Self::Process(inside) => End::Process(inside.tenant().clone()),
            Self::Peer(peer, _) => End::Peer(peer.name().clone()),
        }
    }

    /// Which life of the other end it is.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Self::Process(inside) => inside.generation(),
            Self::Peer(_, generation) => *generation,
        }
    }

    /// There is no way to it any more.
    pub(super) fn found_gone(self) {
        if let Self::Process(inside) = self {
            inside.found_gone();
        }
    }

    /// A request is on its way.
    pub(super) fn count(&self) {
        if let Self::Peer(peer, _) = self {
            peer.metrics.passed.inc();
        }
    }

    /// Returns when it is known not to answer any more.
    pub(super) async fn lost(&self) {
        match self {
            // It has a socket, and that says so.
            Self::Process(_) => pending().await,
            Self::Peer(peer, _) => peer.lost().await,
        }
    }

    /// What the client is told of an end that did not answer, or not as it should.
    pub(super) fn failed(&self, why: &'static str, is_sent: bool) -> Error {
        match self {
            Self::Process(_) => Error::Process { why, is_sent, retry_after: RETRY_AFTER },
            Self::Peer(peer, _) => peer.failed(why, is_sent),
        }
    }

    /// What the client is told of an end that went away; why, if that is known soon.
    pub(super) async fn gone(&self, error: &hyper::Error) -> Error {
        tracing::debug!(end = ?self.end(), %error, "a request that was passed on has no answer");
        let why = match self {
            Self::Process(inside) => inside.end().await,
            Self::Peer(..) => None,
        };
        self.failed(why.unwrap_or("went away before it answered"), true)
    }

    /// A new connection to it.
    pub(super) async fn connect<B>(&self) -> Result<SendRequest<B>, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self {
            Self::Process(inside) => {
                let lane = inside
                    .connect()
                    .map_err(|_| self.failed("takes no further connection", false))?;
                self.begin(lane, pending()).await
            }
            Self::Peer(peer, _) => {
                let stream = peer.connect().await?;
                let peer = Arc::clone(peer);
                self.begin(stream, async move { peer.lost().await }).await
            }
        }
    }

    /// Begins to speak on a connection, which ends when `lost` does.
    async fn begin<B, T>(
        &self,
        stream: T,
        lost: impl Future<Output = ()> + 'static,
    ) -> Result<SendRequest<B>, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut builder = http1::Builder::new();
        let begun = builder.max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
        let (sender, serving) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(self.gone(&error).await),
        };
        // It ends with the other end, or when nobody has the sender any more.
        drop(tokio::task::spawn_local(async move {
            tokio::select! {
                // What has come is handed on first.
                biased;
                ended = serving.with_upgrades() => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to another process broke off");
                },
                () = lost => {}
            }
        }));
        Ok(sender)
    }
}
