//! A client of a node's HTTP interface, over HTTP/1.1 or 2.
//!
//! - Nothing here judges: a reply is handed back as it came, and [`Reply::is`] says what was
//!   expected and what was found.
//! - Every request has an end, whatever the node does.
//! - [`Raw`] is for what no proper client would send.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sluicebox_core::frame::{Event, Frame, FrameLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually::{SOON, eventually};
use crate::{guests, tls};

/// The tenant of development mode.
pub const TENANT: &str = "dev";

/// Media type of packed frames.
pub const FRAME: &str = "application/vnd.sluicebox.frame";
/// Media type of lines of JSON.
pub const NDJSON: &str = "application/x-ndjson";

/// What a node answered.
pub struct Reply {
    /// Protocol.
    pub version: http::Version,
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.body);
        let shown: String = text.chars().take(4_000).collect();
        write!(f, "{} {:?} {shown}", self.status, self.headers)
    }
}

impl Reply {
    /// The reply itself, if it has this status.
    ///
    /// # Panics
    /// If it has another.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert!(self.status == status, "{status} was expected: {self:?}");
        self
    }

    /// The problem document, if it is one of this status and code.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let reply = self.is(status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{problem:#}");
        assert_eq!(problem["status"], status, "{problem:#}");
        problem
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers of a node are ASCII"))
    }

    /// The body as text.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text was asked for")
    }

    /// The body as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as lines of JSON.
    #[must_use]
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines.map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// The body as frames one behind the other.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let mut rest = self.body.clone();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let length: [u8; 4] = rest[12..16].try_into().expect("four of sixteen bytes");
            let frame = rest.split_to(u32::from_le_bytes(length) as usize);
            frames.push(Frame::parse(frame, &FrameLimits::FORMAT).expect("a node packs well"));
        }
        frames
    }

    /// Where to go on reading.
    #[must_use]
    #[track_caller]
    pub fn cursor(&self) -> String {
        self.header("sluicebox-cursor").unwrap_or_else(|| panic!("no cursor: {self:?}")).to_owned()
    }
}

/// The payload of a record of an output.
#[must_use]
pub fn payload(record: &Value) -> Vec<u8> {
    match (&record["data"], &record["data_base64"]) {
        (Value::Null, Value::Null) => Vec::new(),
        (Value::Null, coded) => {
            STANDARD.decode(coded.as_str().expect("text")).expect("base64 of a node is right")
        }
        (data, _) => data.to_string().into_bytes(),
    }
}

/// A client of one tenant.
#[derive(Debug, Clone)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `http` or `https`.
    scheme: &'static str,
    address: SocketAddr,
    tenant: String,
    token: Option<String>,
}

impl Client {
    /// A client. To be used in one runtime: its connections end with it.
    #[must_use]
    pub fn new(address: SocketAddr, tenant: &str, token: Option<&str>) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::trusting());
        let connector = connector.https_or_http().enable_http1().build();
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        let (tenant, token) = (tenant.to_owned(), token.map(str::to_owned));
        Self { http, scheme: "http", address, tenant, token }
    }

    /// The same by TLS, if that is wanted; it trusts the authority of the tests.
    #[must_use]
    pub fn by_tls(self, wanted: bool) -> Self {
        Self { scheme: if wanted { "https" } else { "http" }, ..self }
    }

    /// The same over HTTP/2.
    #[must_use]
    pub fn http2(&self) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::trusting());
        let connector = connector.https_or_http().enable_http2().build();
        let http = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        Self { http, ..self.clone() }
    }

    /// The path of something of the tenant's.
    #[must_use]
    pub fn path(&self, below: &str) -> String {
        format!("/v1/tenants/{}/{below}", self.tenant)
    }

    /// Any request.
    ///
    /// # Panics
    /// If the node does not answer, or not in time.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let what = format!("{method} {path}");
        let request = self.request((method, path), headers, body.into());
        let answered = async {
            let reply = self.http.request(request).await;
            let (parts, body) = reply.unwrap_or_else(|e| panic!("{what}: {e:?}")).into_parts();
            let body = body.collect().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            let (version, status) = (parts.version, parts.status.as_u16());
            Reply { version, status, headers: parts.headers, body: body.to_bytes() }
        };
        let answered = tokio::time::timeout(SOON * 2, answered).await;
        answered.unwrap_or_else(|_| panic!("{what}: no answer"))
    }

    fn request(
        &self,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://{}{path}", self.scheme, self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        request.body(Full::new(body)).expect("a test writes good headers")
    }

    /// Sends a body of events to a node that may not be there; gives its answer, if it gave one.
    pub async fn attempt(
        &self,
        pipeline: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let path = self.path(&format!("pipelines/{pipeline}/events"));
        self.try_to(Method::POST, &path, headers, body).await
    }

    /// Applies a manifest at a node that may not be there; gives its answer, if it gave one.
    pub async fn attempt_apply(&self, name: &str, manifest: impl Into<Bytes>) -> Option<Reply> {
        self.try_to(Method::PUT, &self.path(&format!("pipelines/{name}")), &[], manifest).await
    }

    async fn try_to(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let request = self.request((method, path), headers, body.into());
        let answered = async {
            let (parts, body) = self.http.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            let (version, status) = (parts.version, parts.status.as_u16());
            Some(Reply { version, status, headers: parts.headers, body })
        };
        tokio::time::timeout(SOON, answered).await.ok()?
    }

    /// Asks for a path that belongs to no tenant.
    pub async fn plain(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, &[], "").await
    }

    /// Asks for something of the tenant's.
    pub async fn get(&self, below: &str) -> Reply {
        self.ask(Method::GET, &self.path(below), &[], "").await
    }

    /// Puts something of the tenant's.
    pub async fn put(&self, below: &str, body: impl Into<Bytes>) -> Reply {
        self.ask(Method::PUT, &self.path(below), &[], body).await
    }

    /// Deletes something of the tenant's.
    pub async fn delete(&self, below: &str) -> Reply {
        self.ask(Method::DELETE, &self.path(below), &[], "").await
    }

    /// Uploads a built guest under the last part of its name.
    pub async fn push(&self, guest: &str) -> Value {
        let name = guest.rsplit('/').next().expect("a name");
        let reply = self.put(&format!("components/{name}"), guests::bytes(guest)).await;
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        reply.json()
    }

    /// Applies a manifest.
    pub async fn apply(&self, name: &str, manifest: impl Into<Bytes>) -> Value {
        let reply = self.put(&format!("pipelines/{name}"), manifest).await;
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        reply.json()
    }

    /// A pipeline in detail.
    pub async fn describe(&self, pipeline: &str) -> Value {
        self.get(&format!("pipelines/{pipeline}")).await.is(200).json()
    }

    /// Sends a body of events. `more` is what follows the path: `?wait=5s`.
    pub async fn send(
        &self,
        pipeline: &str,
        more: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let path = self.path(&format!("pipelines/{pipeline}/events{more}"));
        self.ask(Method::POST, &path, headers, body).await
    }

    /// Sends lines of JSON.
    pub async fn lines(&self, pipeline: &str, lines: impl Into<Bytes>) -> Reply {
        self.send(pipeline, "", &[("content-type", NDJSON)], lines).await
    }

    /// Sends packed frames.
    pub async fn frame(&self, pipeline: &str, frame: &Frame) -> Reply {
        self.send(pipeline, "", &[("content-type", FRAME)], frame.bytes().clone()).await
    }

    /// Sends one event and waits for its result.
    pub async fn call(&self, pipeline: &str, key: &str, payload: impl Into<Bytes>) -> Reply {
        self.send(pipeline, "?wait=20s", &[("sluicebox-key", key)], payload).await
    }

    /// Reads a page: of `outputs/name` or of `dead-letters`.
    pub async fn page(&self, pipeline: &str, source: &str, query: &str) -> Reply {
        self.get(&format!("pipelines/{pipeline}/{source}?{query}")).await
    }

    /// Reads from the oldest on until there are so many records, and gives all of them.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn records(&self, pipeline: &str, source: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} records of {source} of {pipeline}");
        eventually(&what, SOON, || async {
            let found = self.page(pipeline, source, "").await.is(200).records();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// All events of an output as they are in frames.
    pub async fn events<T>(
        &self,
        pipeline: &str,
        source: &str,
        read: impl Fn(&Event<'_>) -> T,
    ) -> Vec<T> {
        let path = self.path(&format!("pipelines/{pipeline}/{source}"));
        let reply = self.ask(Method::GET, &path, &[("accept", FRAME)], "").await.is(200);
        assert_eq!(reply.header("content-type"), Some(FRAME), "{reply:?}");
        let frames = reply.frames();
        frames
            .iter()
            .flat_map(|frame| frame.events().map(|e| read(&e)).collect::<Vec<_>>())
            .collect()
    }
}

/// A connection on which a test writes bytes.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// If the node does not listen.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("the node listens"))
    }

    /// Writes; false once the node has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Everything the node sends until it closes.
    ///
    /// # Panics
    /// If it does not close.
    pub async fn until_closed(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(SOON, self.0.read_to_end(&mut bytes)).await;
        // A node that closes while we still write ends the connection hard; what it said before
        // that is what counts.
        drop(read.expect("the node closes the connection"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until the node has sent this text.
    ///
    /// # Panics
    /// If it does not.
    pub async fn until(&mut self, text: &str) -> String {
        let mut bytes = Vec::new();
        let found = async {
            while !String::from_utf8_lossy(&bytes).contains(text) {
                let more = self.0.read_buf(&mut bytes).await.expect("the connection stays open");
                assert!(more > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
            }
        };
        tokio::time::timeout(SOON, found).await.unwrap_or_else(|_| panic!("no {text:?}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
