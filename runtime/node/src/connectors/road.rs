//! The way of a source or sink to its server, which is gone anew for each connection. How names,
//! addresses and certificates are looked at is in `egress`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::Fault;
use super::grants::Refused;
use crate::egress::connect::{NotConnected, look_up, open, secure, trusting};
use crate::egress::reach::Reach;
use crate::egress::target::Target;

/// Names that are looked up at a time, of all connectors: each may take one of the few threads of
/// a worker for as long as a resolver does not answer.
static LOOKING: Semaphore = Semaphore::const_new(4);

/// See the module.
pub(super) struct Road {
    target: Target,
    reach: Reach,
    tls: Option<Arc<ClientConfig>>,
    /// A name that is being looked up. Nothing ends that, so the next attempt waits for it too.
    looking: Option<JoinHandle<Result<Vec<SocketAddr>, NotConnected>>>,
}

impl Road {
    /// The way to a target. Reads the authorities, if it is spoken to by TLS.
    pub(super) async fn new(
        target: Target,
        reach: Reach,
        authorities: PathBuf,
    ) -> Result<Self, Refused> {
        let tls = match target.by_tls {
            false => None,
            true => {
                let shown = authorities.display().to_string();
                let read = tokio::task::spawn_blocking(move || trusting(&authorities)).await;
                let read = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
                Some(Arc::new(read.map_err(|why| {
                    let message = format!("needs authorities to trust: {shown}: {why}");
                    let fix = "the operator names a file of certificates, connectors.authorities";
                    Refused::new("url", "connector.authorities", message, fix)
                })?))
            }
        };
        Ok(Self { target, reach, tls, looking: None })
    }

    /// Where it leads.
    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// A connection, without TLS yet.
    pub(super) async fn connect(&mut self) -> Result<TcpStream, Fault> {
        let found = self.look_up().await?;
        open(&found, &self.reach).await.map_err(|error| not_connected(&error))
    }

    /// Whether TLS is spoken.
    pub(super) const fn is_by_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Puts TLS under what is said from here on.
    pub(super) async fn secure(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
        let Some(tls) = &self.tls else {
            return Err(Fault::new("internal", "there are no authorities to trust"));
        };
        secure(stream, &self.target, tls).await.map_err(|error| not_connected(&error))
    }

    async fn look_up(&mut self) -> Result<Vec<SocketAddr>, Fault> {
        if let Some(address) = self.target.address() {
            return Ok(vec![address]);
        }
        let looking = self.looking.get_or_insert_with(|| {
            let target = self.target.clone();
            tokio::task::spawn_local(async move { look_up(LOOKING.acquire().await, target).await })
        });
        let found = looking.await;
        self.looking = None;
        let found = found.map_err(|error| unreachable(&error))?;
        found.map_err(|error| not_connected(&error))
    }
}

fn not_connected(error: &NotConnected) -> Fault {
    if !matches!(error, NotConnected::Prohibited(_)) {
        return unreachable(error);
    }
    let message = format!("{error}; the operator can allow it (connectors.networks)");
    Fault::new("connector.address", message)
}

/// What is told of a host that cannot be had.
pub(super) fn unreachable(error: &dyn std::error::Error) -> Fault {
    let mut message = format!("the host cannot be reached: {error}");
    let mut why = error.source();
    while let Some(error) = why {
        message.push_str(&format!(": {error}"));
        why = error.source();
    }
    Fault::new("connector.unreachable", message)
}
