//! A receiver of webhooks that answers as it is told, and remembers what came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sluicebox_tests::eventually::{SOON, eventually};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
}

impl Came {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A status, and headers.
type Answer = (u16, Vec<(&'static str, String)>);

#[derive(Debug, Default)]
struct Shared {
    came: Mutex<Vec<Came>>,
    /// What the next answers are; behind them all are 204.
    answers: Mutex<VecDeque<Answer>>,
    /// Bodies that are refused.
    poison: Mutex<Option<String>>,
}

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Anywhere on loopback.
    pub(super) async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::default()).await
    }

    /// At this address.
    pub(super) async fn start_at(address: SocketAddr) -> Self {
        Self::at(address, Arc::default()).await
    }

    /// The same again where it was, knowing what it knew.
    pub(super) async fn again(self) -> Self {
        let (address, shared) = (self.address, self.shared.clone());
        drop(self);
        Self::at(address, shared).await
    }

    async fn at(address: SocketAddr, shared: Arc<Shared>) -> Self {
        // The one before may not have let go of it yet.
        let bound = || async { TcpListener::bind(address).await.ok() };
        let listener = eventually("there is room on loopback", SOON, bound).await;
        let address = listener.local_addr().expect("it is bound");
        let mut serving = JoinSet::new();
        let own = shared.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = own.clone();
                connections.spawn(async move {
                    let answer = service_fn(move |request| answer(shared.clone(), request));
                    let connection = http1::Builder::new();
                    drop(connection.serve_connection(TokioIo::new(stream), answer).await);
                });
            }
        });
        Self { address, shared, _serving: serving }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }

    /// The next answers.
    pub(super) fn answers(&self, next: &[(u16, &[(&'static str, &str)])]) {
        let mut answers = self.shared.answers.lock().expect("nobody panics with it");
        answers.extend(next.iter().map(|(status, headers)| {
            (*status, headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
        }));
    }

    /// Bodies that hold this are refused for ever.
    pub(super) fn refuses(&self, text: Option<&str>) {
        *self.shared.poison.lock().expect("nobody panics with it") = text.map(str::to_owned);
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.shared.came.lock().expect("nobody panics with it").clone()
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::default()) };
    let body = body.to_bytes();
    let poison = shared.poison.lock().expect("nobody panics with it").clone();
    let is_poison = poison.is_some_and(|text| String::from_utf8_lossy(&body).contains(&text));
    let (status, headers) = match shared.answers.lock().expect("nobody panics with it").pop_front()
    {
        Some(next) => next,
        None => (if is_poison { 422 } else { 204 }, Vec::new()),
    };
    let came = Came { headers: parts.headers, body, status };
    shared.came.lock().expect("nobody panics with it").push(came);
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::default()).expect("a response"))
}
