//! A client that follows an output by server-sent events, as a browser does.
//!
//! It reads what the node sends into events, keeps the last id, and never reads ahead of what a
//! test asks for by more than one piece of the body.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::client::Reply;
use crate::eventually::SOON;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSent {
    /// The cursor behind it.
    pub id: String,
    /// `message`, or what the node has to say.
    pub event: String,
    /// One line of JSON.
    pub data: Value,
}

/// A stream that is open.
#[derive(Debug)]
pub struct Follower {
    /// Headers of the reply.
    pub headers: HeaderMap,
    body: Incoming,
    buffer: String,
    /// The id seen last.
    pub last_id: Option<String>,
    /// Comments so far.
    pub heartbeats: usize,
}

/// Opens a stream, or gives the refusal.
///
/// # Errors
/// The reply, if it is not a stream.
///
/// # Panics
/// If the node does not answer.
pub async fn follow(
    (address, http2): (SocketAddr, bool),
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Follower, Reply> {
    let http: legacy::Client<HttpConnector, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let mut request = Request::get(format!("http://{address}{path}"));
    request = request.header("accept", "text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).expect("a test writes good headers");
    let reply = tokio::time::timeout(SOON, http.request(request)).await;
    let reply = reply.expect("the node answers in time").expect("the node answers");
    let (parts, body) = reply.into_parts();
    let streams = parts.headers.get("content-type").is_some_and(|t| t == "text/event-stream");
    if !streams {
        let body = body.collect().await.expect("a whole reply").to_bytes();
        let (version, status) = (parts.version, parts.status.as_u16());
        return Err(Reply { version, status, headers: parts.headers, body });
    }
    let (headers, buffer, last_id) = (parts.headers, String::new(), None);
    Ok(Follower { headers, body, buffer, last_id, heartbeats: 0 })
}

impl Follower {
    /// The next event; none if the node ended the stream.
    ///
    /// # Panics
    /// If nothing comes, or the stream breaks off.
    pub async fn next(&mut self) -> Option<ServerSent> {
        self.try_next().await.expect("a stream ends cleanly")
    }

    /// The same of a node that may be killed.
    ///
    /// # Errors
    /// The stream broke off.
    ///
    /// # Panics
    /// If nothing comes.
    pub async fn try_next(&mut self) -> Result<Option<ServerSent>, hyper::Error> {
        loop {
            let Some(block) = self.block().await? else { return Ok(None) };
            let field = |name: &str| {
                let lines = block.lines().filter_map(|line| line.split_once(": "));
                lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
            };
            if let Some(id) = field("id") {
                self.last_id = Some(id.to_owned());
            }
            if block == ":" {
                self.heartbeats += 1;
            }
            let Some(data) = field("data") else { continue };
            let data = serde_json::from_str(data).expect("a line of JSON");
            let event = field("event").unwrap_or("message").to_owned();
            let id = self.last_id.clone().expect("an event has an id");
            return Ok(Some(ServerSent { id, event, data }));
        }
    }

    /// So many events.
    ///
    /// # Panics
    /// If the stream ends before.
    pub async fn take(&mut self, count: usize) -> Vec<ServerSent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("the stream goes on"));
        }
        events
    }

    /// Reads until a comment comes.
    ///
    /// # Panics
    /// If none does, or an event before it.
    pub async fn heartbeat(&mut self) {
        while self.block().await.expect("it is whole").expect("the stream goes on") != ":" {}
        self.heartbeats += 1;
    }

    /// What stands before the next empty line.
    async fn block(&mut self) -> Result<Option<String>, hyper::Error> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let rest = self.buffer.split_off(end + 2);
                let block = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(block.trim_end().to_owned()));
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await;
            let Some(frame) = frame.expect("the node sends in time") else { return Ok(None) };
            let data = frame?.into_data();
            let text = data.unwrap_or_default();
            self.buffer.push_str(std::str::from_utf8(&text).expect("pieces end between events"));
        }
    }
}
