//! A client that sends a stream in one request and reads what comes of it, as it comes.
//!
//! The body is fed by the test, piece by piece, and ends cleanly or breaks off as it says. What the
//! node sends is read line by line.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::client::Reply;
use crate::eventually::SOON;

/// Pieces of a body that wait to be sent.
const PIECES: usize = 4;

/// A body that a test feeds.
struct Fed(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// A session that is open.
#[derive(Debug)]
pub struct Session {
    /// Headers of the reply.
    pub headers: HeaderMap,
    feed: Option<mpsc::Sender<io::Result<Bytes>>>,
    body: Incoming,
    buffer: Vec<u8>,
}

/// Opens a session, or gives the refusal.
///
/// # Errors
/// The reply, if it is not a session.
///
/// # Panics
/// If the node does not answer.
pub async fn open(
    to: (SocketAddr, bool),
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Session, Reply> {
    begin(to, path, headers).await.expect("the node answers")
}

/// The same of a node that may be killed; none if it is not there.
pub async fn try_open(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Result<Session, Reply>> {
    begin((address, false), path, headers).await.ok()
}

async fn begin(
    (address, http2): (SocketAddr, bool),
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Result<Session, Reply>, legacy::Error> {
    let http: legacy::Client<HttpConnector, Fed> =
        legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (feed, fed) = mpsc::channel(PIECES);
    let request = request.body(Fed(fed)).expect("a test writes good headers");
    let reply = tokio::time::timeout(SOON, http.request(request)).await;
    let reply = reply.expect("the node answers in time")?;
    let (parts, body) = reply.into_parts();
    if parts.status != 200 {
        // What a killed node did not send is not missed by anybody.
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let (version, status) = (parts.version, parts.status.as_u16());
        return Ok(Err(Reply { version, status, headers: parts.headers, body }));
    }
    Ok(Ok(Session { headers: parts.headers, feed: Some(feed), body, buffer: Vec::new() }))
}

impl Session {
    /// Sends a piece of the body.
    ///
    /// # Panics
    /// If the node does not take it.
    pub async fn send(&self, piece: impl Into<Bytes>) {
        assert!(self.try_send(piece).await, "the node takes no more");
    }

    /// The same of a node that may be killed; false if it takes nothing more.
    ///
    /// # Panics
    /// If it makes the client wait for too long.
    pub async fn try_send(&self, piece: impl Into<Bytes>) -> bool {
        let Some(feed) = &self.feed else { return false };
        let sent = tokio::time::timeout(SOON, feed.send(Ok(piece.into()))).await;
        sent.expect("the node takes what it is sent in time").is_ok()
    }

    /// What the body is fed by, for who sends and reads at once. The body ends when all are gone.
    ///
    /// # Panics
    /// If the body has ended.
    #[must_use]
    pub fn feed(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.feed.clone().expect("the body goes on")
    }

    /// True as long as the body has not ended.
    #[must_use]
    pub fn is_fed(&self) -> bool {
        self.feed.is_some()
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.feed = None;
    }

    /// Breaks the body off, and with it the connection.
    pub async fn break_off(mut self) {
        if let Some(feed) = self.feed.take() {
            // A connection that is gone already is broken as well.
            let _gone = feed.send(Err(io::Error::other("the test breaks it off"))).await;
        }
    }

    /// The next line that is not empty; none at the end.
    ///
    /// # Panics
    /// If nothing comes, or the reply breaks off.
    pub async fn next(&mut self) -> Option<Value> {
        self.try_next().await.expect("a reply ends cleanly")
    }

    /// The same of a connection that may break.
    ///
    /// # Errors
    /// It broke off.
    ///
    /// # Panics
    /// If nothing comes.
    pub async fn try_next(&mut self) -> Result<Option<Value>, hyper::Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.len() > 1 {
                    return Ok(Some(serde_json::from_slice(&line).expect("a line of JSON")));
                }
                continue;
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await;
            let Some(frame) = frame.expect("the node sends in time") else { return Ok(None) };
            self.buffer.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
    }

    /// Everything to the end.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(line) = self.next().await {
            all.push(line);
        }
        all
    }
}
