//! The HTTP API from the outside.
//!
//! - One connection, kept alive; requests are made one after another, which keeps the order of
//!   events per key. A request that is a stream has one of its own (`client/live.rs`).
//! - Every reply is bounded in size and time. Anything but a success becomes a [`Failure`].
//! - A request whose fate is unknown is never repeated here: best-effort events would count twice.
//!   Who repeats what, and when, is decided by the commands.
//!
//! Whether it speaks TLS is said by the URL; whom it trusts then, by `client/trust.rs`.

pub(crate) mod live;
mod trust;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::Value;
use sluicebox_core::ids::Name;

use self::live::Sent;
use crate::args::Connection;
use crate::failure::{Cause, Failure, printable};

/// Longest time until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// After how much silence the system asks whether the other side is there, how often, and how many
/// times.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Longest time of a request that does little.
const REPLY_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest time of a request that may have a component compiled.
pub(crate) const COMPILE_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Largest reply; a page of an output is the largest there is.
const REPLY_BYTES_MAX: usize = 512 << 20;

/// Longest delay a node may ask for; more is cut.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How the address of a node begins that speaks TLS.
const HTTPS: &str = "https://";

/// Largest token file.
const TOKEN_BYTES_MAX: usize = 4096;

/// A node, as one tenant sees it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Sent>,
    /// `http://host:port` or `https://host:port`, no slash behind.
    base: String,
    tenant: Name,
    /// `Bearer …`.
    authorisation: Option<HeaderValue>,
}

/// A request, without what is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    /// From the slash behind the authority on.
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    time_max: Duration,
}

/// A successful reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// 200 to 299.
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// A request without a body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            time_max: REPLY_TIME_MAX,
        }
    }

    /// Adds a parameter, quoted as needed.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self, Failure> {
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            let what = format!("{} cannot be sent in a header", printable(value));
            Failure::new(Cause::Usage, what).fix("leave out control characters")
        })?;
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }

    /// Sets the body and its media type.
    pub(crate) fn body(mut self, media_type: &'static str, body: Bytes) -> Self {
        let media_type = HeaderValue::from_static(media_type);
        self.headers.push((hyper::header::CONTENT_TYPE, media_type));
        self.body = body;
        self
    }

    /// Allows more time than usual.
    pub(crate) fn within(mut self, more: Duration) -> Self {
        self.time_max = REPLY_TIME_MAX + more;
        self
    }

    fn target(&self) -> String {
        let mut target = self.path.clone();
        for (at, (name, value)) in self.query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            quote_into(value, &mut target);
        }
        target
    }
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let what = format!("the node's reply is not JSON: {error}");
            Failure::new(Cause::Internal, what).fix("is --url the address of a sluicebox node?")
        })
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// For the node and tenant the flags name; connects with the first request.
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = base(&connection.url)?;
        let token = match (&connection.token, &connection.token_file) {
            (Some(token), _) => Some(token.trim().to_owned()),
            (None, Some(file)) => Some(token_of(file)?),
            (None, None) => None,
        };
        let authorisation = token
            .filter(|token| !token.is_empty())
            .map(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                    Failure::new(Cause::Usage, "the token contains characters no token has")
                        .fix("copy it again, as `sluicebox tenant token add` printed it")
                })?;
                value.set_sensitive(true);
                Ok::<_, Failure>(value)
            })
            .transpose()?;
        let trusted = trust::config(connection.ca_cert.as_deref(), base.starts_with(HTTPS))?;
        let connector = connector(trusted);
        let pool = Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build(connector);
        Ok(Self { pool, base, tenant: connection.tenant.clone(), authorisation })
    }

    /// A path of this tenant.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{}/{rest}", self.tenant)
    }

    /// A path of one of this tenant's pipelines.
    pub(crate) fn pipeline(&self, pipeline: &Name, rest: &str) -> String {
        self.path(&format!("pipelines/{pipeline}{rest}"))
    }

    /// The address of the node.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// Fetches a JSON document.
    pub(crate) async fn get(&self, path: String) -> Result<Value, Failure> {
        self.send(Call::new(Method::GET, path)).await?.json()
    }

    /// Sends a request and waits for the whole reply.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let request = self.request(&call, Sent::Whole(Full::new(call.body.clone())))?;
        match tokio::time::timeout(call.time_max, self.exchange(request)).await {
            Ok(reply) => reply,
            Err(_) => Err(self.too_late(call.time_max)),
        }
    }

    fn request(&self, call: &Call, body: Sent) -> Result<Request<Sent>, Failure> {
        let target = format!("{}{}", self.base, call.target());
        let mut request = Request::builder().method(&call.method).uri(target);
        if let Some(headers) = request.headers_mut() {
            headers.extend(call.headers.iter().cloned());
            headers.extend(self.authorisation.iter().map(|value| (AUTHORIZATION, value.clone())));
        }
        request.body(body).map_err(|error| {
            Failure::new(Cause::Usage, format!("the request cannot be formed: {error}"))
        })
    }

    fn too_late(&self, time_max: Duration) -> Failure {
        let what = format!("{} did not answer within {time_max:?}", self.base);
        Failure::new(Cause::Unavailable, what)
            .fix("the node may be overloaded; what became of the request is unknown")
    }

    async fn exchange(&self, request: Request<Sent>) -> Result<Reply, Failure> {
        let response = self.pool.request(request).await.map_err(|error| self.unreached(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, REPLY_BYTES_MAX).collect().await.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                return Failure::new(Cause::Internal, "the node's reply is too large")
                    .fix("ask for fewer records with --limit");
            }
            Failure::new(Cause::Unavailable, format!("{} broke off its reply: {error}", self.base))
                .fix("try again; what became of the request is unknown")
        })?;
        let body = body.to_bytes();
        if head.status.is_success() {
            return Ok(Reply { status: head.status, headers: head.headers, body });
        }
        let mut failure = Failure::reply(head.status.as_u16(), &body);
        failure.retry_after = retry_after(&head.headers);
        Err(failure)
    }

    fn unreached(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let cause = innermost(error);
        if error.is_connect() {
            return Failure::new(
                Cause::Unavailable,
                format!("no node answers at {}: {cause}", self.base),
            )
            .code("client.connect")
            .fix(if cause.contains("certificate") {
                "name the file with the certificate that vouches for the node's with --ca-cert"
            } else {
                "start one with `sluicebox serve --dev`, or say where it is with --url"
            });
        }
        Failure::new(Cause::Unavailable, format!("the connection to {} failed: {cause}", self.base))
            .fix("try again; what became of the request is unknown")
    }
}

/// Makes connections to anybody, with TLS to whom the system trusts.
pub(crate) fn to_anybody() -> Result<HttpsConnector<HttpConnector>, Failure> {
    Ok(connector(trust::config(None, true)?))
}

fn connector(trusted: ClientConfig) -> HttpsConnector<HttpConnector> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
    connector.set_nodelay(true);
    // A stream may be silent for long; a node that is gone without a word is found all the same.
    connector.set_keepalive(Some(KEEPALIVE_TIME));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // By its own lights it takes http only.
    connector.enforce_http(false);
    HttpsConnectorBuilder::new()
        .with_tls_config(trusted)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector)
}

/// The last error of a chain says what happened; those around it say where.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    printable(&error.to_string())
}

/// Seconds only; a node never sends a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Checks the node's address.
fn base(url: &str) -> Result<String, Failure> {
    let refuse = |what: &str| {
        Failure::new(Cause::Usage, format!("--url {}: {what}", printable(url)))
            .fix("write it as http://HOST:PORT or https://HOST:PORT")
    };
    let uri: Uri = url.parse().map_err(|_| refuse("this is no URL"))?;
    let scheme = match uri.scheme_str() {
        Some("http") => "http://",
        Some("https") => HTTPS,
        _ => return Err(refuse("the scheme must be http or https")),
    };
    let authority = uri.authority().ok_or_else(|| refuse("there is no host"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("a token goes into --token-file or SLUICEBOX_TOKEN, not into the URL"));
    }
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(refuse("only host and port are wanted, no path"));
    }
    Ok(format!("{scheme}{authority}"))
}

fn token_of(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::local(format!("read the token file {}", file.display()), &error)
    })?;
    if text.len() > TOKEN_BYTES_MAX || text.trim().is_empty() {
        let what = format!("{} does not hold a token", file.display());
        return Err(Failure::new(Cause::Usage, what).fix("write the token alone into the file"));
    }
    Ok(text.trim().to_owned())
}

/// A text as one part of a path.
pub(crate) fn quoted(text: &str) -> String {
    let mut part = String::new();
    quote_into(text, &mut part);
    part
}

/// Percent-quotes everything but what never needs it.
fn quote_into(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_quoted() {
        let call = Call::new(Method::GET, "/x").query("key", "a b&c=ü").query("wait", "5s");
        assert_eq!(call.target(), "/x?key=a%20b%26c%3D%C3%BC&wait=5s");
    }

    #[test]
    fn only_a_plain_address_is_taken_for_a_url() {
        assert_eq!(base("http://127.0.0.1:7411/"), Ok("http://127.0.0.1:7411".to_owned()));
        assert_eq!(base("http://[::1]:7411"), Ok("http://[::1]:7411".to_owned()));
        assert_eq!(base("https://node.example"), Ok("https://node.example".to_owned()));
        for bad in ["h:80", "http://h/v1", "http://u:p@h", "ftp://h", "", "http://h?x"] {
            let failure = base(bad).unwrap_err();
            assert_eq!(failure.cause, Cause::Usage, "{bad:?}");
            assert!(failure.fix.is_some());
        }
    }

    #[test]
    fn a_delay_is_bounded() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("86400"));
        assert_eq!(retry_after(&headers), Some(RETRY_AFTER_MAX));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&headers), None);
    }

    #[test]
    fn a_header_cannot_be_split() {
        let call = Call::new(Method::GET, "/").header("sluicebox-id", "a\r\nx: y");
        assert_eq!(call.unwrap_err().cause, Cause::Usage);
    }
}
