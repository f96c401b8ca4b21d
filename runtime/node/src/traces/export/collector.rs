//! The collector: OTLP by HTTP, `http/protobuf`, over one connection that is made when it is
//! wanted.
//!
//! Nothing it says is believed beyond a status, a bounded answer and a bounded wait.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::cut;
use super::super::otlp::ExportResponse;
use super::trust;
use crate::config::{CollectorConfig, Url};
use crate::error::Error;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Longest wait that a collector may ask for.
const AFTER_MAX: Duration = Duration::from_secs(30);

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was taken, but for so many spans.
    Taken { rejected: u64, why: String },
    /// Sending it again may help.
    Later { why: String, after: Option<Duration> },
    /// It will never be taken.
    Refused(String),
}

/// See the module.
pub(super) struct Collector {
    url: Url,
    headers: HeaderMap,
    gzip: bool,
    time_max: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        f.debug_struct("Collector").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

impl Collector {
    pub(super) fn new(config: &CollectorConfig) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        let unusable = || Error::Internal("a header of traces that was checked".to_owned());
        let mut add = |name: HeaderName, value: &str| {
            let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<(), Error>(())
        };
        for (name, value) in &config.headers {
            add(HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?, value.text())?;
        }
        add(HOST, &config.url.authority)?;
        add(CONTENT_TYPE, "application/x-protobuf")?;
        add(USER_AGENT, concat!("OTel-OTLP-Exporter-sluicebox/", env!("CARGO_PKG_VERSION")))?;
        if config.gzip {
            add(CONTENT_ENCODING, "gzip")?;
        }
        let tls = config.url.https.then(|| trust::connector(config)).transpose()?;
        Ok(Self {
            url: config.url.clone(),
            headers,
            gzip: config.gzip,
            time_max: config.time_max,
            tls,
            open: None,
        })
    }

    /// Sends a request, and gives what became of it.
    pub(super) async fn send(&mut self, body: &Bytes) -> Answer {
        let body = if self.gzip { pack(body) } else { body.clone() };
        match tokio::time::timeout(self.time_max, self.post(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                self.open = None;
                Answer::Later { why, after: None }
            }
            Err(_) => {
                self.open = None;
                Answer::Later { why: "it does not answer in time".to_owned(), after: None }
            }
        }
    }

    async fn post(&mut self, body: Bytes) -> Result<Answer, String> {
        let is_open = match &mut self.open {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            self.open = Some(self.connect().await?);
        }
        let open = self.open.as_mut().ok_or("no connection")?;
        let mut request = Request::post(self.url.path.as_str())
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        request.headers_mut().clone_from(&self.headers);
        let response = open.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(judge(head.status, head.headers.get(RETRY_AFTER), &body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let place = (self.url.host.as_str(), self.url.port);
        let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
        // Whole requests are written at once; nothing is to wait for more.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => begin(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                begin(stream.map_err(|error| error.to_string())?).await
            }
        }
    }
}

/// Begins to speak on a connection.
async fn begin<T>(stream: T) -> Result<SendRequest<Full<Bytes>>, String>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let begun = http1::handshake(TokioIo::new(stream)).await;
    let (sender, serving) = begun.map_err(|error| error.to_string())?;
    // It ends with the other end, or when nobody has the sender any more.
    drop(tokio::task::spawn_local(async move {
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection to the collector broke off");
        }
    }));
    Ok(sender)
}

fn pack(body: &[u8]) -> Bytes {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    // Into memory, which does not fail.
    let packed = packer.write_all(body).and_then(|()| packer.finish());
    packed.unwrap_or_default().into()
}

/// As the protocol wants it: four statuses are worth another try.
fn judge(status: StatusCode, after: Option<&HeaderValue>, body: &[u8]) -> Answer {
    if status.is_success() {
        // What cannot be read says nothing of spans that were not taken.
        let partly = ExportResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        let (rejected, why) = partly.map_or((0, String::new()), |partly| {
            let why = cut(&partly.error_message).escape_debug().to_string();
            (u64::try_from(partly.rejected_spans).unwrap_or(0), why)
        });
        return Answer::Taken { rejected, why };
    }
    let why = format!("it answers {status}");
    let is_busy = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !is_busy {
        return Answer::Refused(why);
    }
    let seconds = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let after = seconds.map(|seconds| Duration::from_secs(seconds).min(AFTER_MAX));
    Answer::Later { why, after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::otlp::PartialSuccess;

    #[test]
    fn statuses_mean_what_the_protocol_says() {
        let of = |status: u16, after: Option<&'static str>| {
            let status = StatusCode::from_u16(status).expect("a status");
            match judge(status, after.map(HeaderValue::from_static).as_ref(), b"") {
                Answer::Taken { rejected, .. } => ("taken", Some(rejected)),
                Answer::Later { after, .. } => ("later", after.map(|after| after.as_secs())),
                Answer::Refused(_) => ("refused", None),
            }
        };
        assert_eq!(of(200, None), ("taken", Some(0)));
        for status in [429, 502, 503, 504] {
            assert_eq!(of(status, None), ("later", None));
            assert_eq!(of(status, Some("7")), ("later", Some(7)));
            assert_eq!(of(status, Some("86400")), ("later", Some(30)));
            assert_eq!(of(status, Some("soon")), ("later", None));
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert_eq!(of(status, Some("7")), ("refused", None));
        }
    }

    #[test]
    fn what_was_not_taken_is_said_and_nonsense_is_not_believed() {
        let rejected = |rejected_spans| {
            let error_message = "no\nroom".to_owned();
            let partial_success = Some(PartialSuccess { rejected_spans, error_message });
            let body = ExportResponse { partial_success }.encode_to_vec();
            match judge(StatusCode::OK, None, &body) {
                Answer::Taken { rejected, why } => (rejected, why),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rejected(3), (3, "no\\nroom".to_owned()));
        assert_eq!(rejected(-3).0, 0);
        let nonsense = judge(StatusCode::OK, None, &[0xff; 9]);
        assert!(matches!(nonsense, Answer::Taken { rejected: 0, .. }));
    }
}
