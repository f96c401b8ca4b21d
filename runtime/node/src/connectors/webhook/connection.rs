//! One connection to a receiver, kept for the next request.
//!
//! - One request at a time. An answer is read to a bound, and the connection is given up where
//!   there is more.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::Fault;
use super::super::road::{Road, unreachable};

/// Bytes of an answer's body that are read before the connection is given up.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest wait an answer may ask for.
const RETRY_AFTER_MAX: u64 = 3600;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
}

/// See the module.
pub(super) struct Connection {
    road: Road,
    /// With its query.
    path: Uri,
    open: Option<Open>,
}

/// A connection that is open, and what keeps it going.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    serving: Pin<Box<dyn Future<Output = Result<(), hyper::Error>>>>,
    used: bool,
}

impl Connection {
    /// None is open yet.
    pub(super) const fn new(road: Road, path: Uri) -> Self {
        Self { road, path, open: None }
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
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = headers;
        if let Some(host) = self.road.target().authority() {
            request.headers_mut().insert(HOST, host);
        }
        let agent = concat!("sluicebox/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        request
    }

    async fn connect(&mut self) -> Result<Open, Fault> {
        let stream = self.road.connect().await?;
        match self.road.is_by_tls() {
            true => speak(self.road.secure(stream).await?).await,
            false => speak(stream).await,
        }
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
