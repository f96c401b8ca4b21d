//! One connection to a receiver, kept for the next request.
//!
//! - The name is looked up for each connection, and the addresses it has are looked at: what is
//!   connected to is what was looked at.
//! - One request at a time. An answer is read to a bound, and the connection is given up where
//!   there is more.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::super::Fault;
use super::super::grants::{Refused, may_reach};
use crate::egress::Network;

/// Bytes of an answer's body that are read before the connection is given up.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Longest wait an answer may ask for.
const RETRY_AFTER_MAX: u64 = 3600;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// As in the URL: an address of the new kind has brackets.
    pub host: String,
    pub port: u16,
    pub by_tls: bool,
    /// With its query.
    pub path: String,
    pub authority: String,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
}

/// See the module.
pub(super) struct Connection {
    target: Target,
    networks: Vec<Network>,
    tls: Option<Arc<ClientConfig>>,
    open: Option<Open>,
    /// A name that is being looked up. Nothing ends that, so the next attempt waits for it too.
    looking: Option<JoinHandle<std::io::Result<Vec<SocketAddr>>>>,
}

/// Names that are looked up at a time, of all sinks: each may take one of the few threads of a
/// worker for as long as a resolver does not answer.
static LOOKING: Semaphore = Semaphore::const_new(4);

/// A connection that is open, and what keeps it going.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    serving: Pin<Box<dyn Future<Output = Result<(), hyper::Error>>>>,
    used: bool,
}

impl Connection {
    /// None is open yet.
    pub(super) async fn new(
        target: Target,
        networks: Vec<Network>,
        authorities: Option<PathBuf>,
    ) -> Result<Self, Refused> {
        let tls = match authorities {
            None => None,
            Some(path) => {
                let shown = path.display().to_string();
                let read = tokio::task::spawn_blocking(move || trusting(&path)).await;
                let read = read.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
                Some(Arc::new(read.map_err(|why| {
                    let message = format!("needs authorities to trust: {shown}: {why}");
                    let fix = "the operator names a file of certificates, connectors.authorities";
                    Refused::new("url", "connector.authorities", message, fix)
                })?))
            }
        };
        Ok(Self { target, networks, tls, open: None, looking: None })
    }

    /// The next request has a connection of its own.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Posts, and waits for the answer.
    pub(super) async fn post(&mut self, headers: HeaderMap, body: Bytes) -> Result<Answer, Fault> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.connect().await?,
            };
            let was_used = std::mem::replace(&mut open.used, true);
            match open.send(self.request(headers.clone(), body.clone())).await {
                Ok((answer, is_whole)) => {
                    self.open = is_whole.then_some(open);
                    return Ok(answer);
                }
                // One that was kept may have been closed meanwhile: the receiver knows the request
                // by its name, should it have come all the same.
                Err(_) if was_used => {}
                Err(error) => return Err(unreachable(&error)),
            }
        }
    }

    fn request(&self, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        if let Ok(host) = HeaderValue::try_from(&self.target.authority) {
            request.headers_mut().insert(HOST, host);
        }
        let agent = concat!("sluicebox/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        request
    }

    async fn connect(&mut self) -> Result<Open, Fault> {
        let found = self.look_up().await?;
        let bare = self.target.host.trim_start_matches('[').trim_end_matches(']');
        let mut last = Fault::new("connector.unreachable", "its name has no address");
        for address in found.into_iter().take(ADDRESSES_MAX) {
            // One that must not be reached is not made up for by another: who answers so is not
            // to be asked.
            may_reach(address.ip(), &self.networks)?;
            match TcpStream::connect(address).await {
                Ok(stream) => return self.begin(stream, bare).await,
                Err(error) => last = unreachable(&error),
            }
        }
        Err(last)
    }

    async fn look_up(&mut self) -> Result<Vec<SocketAddr>, Fault> {
        let looking = self.looking.get_or_insert_with(|| {
            let bare = self.target.host.trim_start_matches('[').trim_end_matches(']');
            let (host, port) = (bare.to_owned(), self.target.port);
            tokio::task::spawn_local(async move {
                let _one_of_few = LOOKING.acquire().await;
                Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect())
            })
        });
        let found = looking.await;
        self.looking = None;
        let found = found.map_err(|error| unreachable(&error))?;
        found.map_err(|error| unreachable(&error))
    }

    async fn begin(&self, stream: TcpStream, host: &str) -> Result<Open, Fault> {
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let Some(tls) = &self.tls else { return speak(stream).await };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(&error))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        speak(stream.map_err(|error| unreachable(&error))?).await
    }
}

impl Open {
    /// Sends a request and reads its answer; says too whether the connection is good for another.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, bool), hyper::Error> {
        let Self { sender, serving, .. } = self;
        let answered = async {
            let response = sender.send_request(request).await?;
            let retry_after = retry_after(response.headers());
            let answer = Answer { status: response.status(), retry_after };
            Ok((answer, read(response.into_body()).await))
        };
        let mut answered = std::pin::pin!(answered);
        tokio::select! {
            biased;
            answered = &mut answered => answered,
            // What came before the end is there; nothing else will be.
            _ended = serving => answered.await.map(|(answer, _)| (answer, false)),
        }
    }
}

/// Reads what comes, to a bound, and says whether that was all.
async fn read(body: Incoming) -> bool {
    Limited::new(body, BODY_BYTES_MAX).collect().await.is_ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX)))
}

async fn speak<T>(stream: T) -> Result<Open, Fault>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    let begun = builder.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
    let (sender, serving) = begun.map_err(|error| unreachable(&error))?;
    Ok(Open { sender, serving: Box::pin(serving), used: false })
}

fn unreachable(error: &dyn std::error::Error) -> Fault {
    let mut message = format!("the receiver cannot be reached: {error}");
    let mut why = error.source();
    while let Some(error) = why {
        message.push_str(&format!(": {error}"));
        why = error.source();
    }
    Fault::new("connector.unreachable", message)
}

/// Trusts the authorities in a file.
fn trusting(path: &std::path::Path) -> Result<ClientConfig, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // Files of systems hold some that nobody can use.
    let (added, _) = roots.add_parsable_certificates(certificates.map_while(Result::ok));
    if added == 0 {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
