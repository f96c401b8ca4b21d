//! The same by WebSocket (RFC 6455), for clients that have nothing else that goes both ways.
//!
//! - A message in is a unit: text is JSON, bytes are bytes. A message out is a line.
//! - A text of no bytes is the clean end; so is closing with 1000, which leaves nobody to say the
//!   rest to. Whatever else ends the connection suspends the stream.
//! - The HTTP connection answers `101` and ends; then the session has its socket to itself. Until
//!   then nothing of a session has begun.
//!
//! The protocol is tungstenite's; who may open one is looked at as for every request.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{HeaderName, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::super::auth::Caller;
use super::super::body::Body;
use super::super::ingest::unit::Sort;
use super::super::server::Edge;
use super::Session;
use super::intake::{Piece, Pieces};
use crate::error::Error;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// The one version there is.
const VERSION_13: HeaderValue = HeaderValue::from_static("13");

/// What waits to be written at most.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// A session that begins when its connection is upgraded.
#[derive(Debug)]
pub(in crate::http) struct Door {
    caller: Arc<Caller>,
    pipeline: String,
    key: String,
    parts: http::request::Parts,
}

/// True if the request wants to be a WebSocket.
pub(in crate::http) fn is_wanted(headers: &HeaderMap) -> bool {
    let names = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket"))
    };
    headers.get_all(UPGRADE).iter().any(names)
}

/// Answers the request to become one, and gives what is to be run then.
pub(in crate::http) fn upgrade(
    caller: &Arc<Caller>,
    (pipeline, key): (&str, String),
    parts: http::request::Parts,
) -> Result<(Response<Body>, Door), Error> {
    let bad = |message: &str| Error::request("request.upgrade", message);
    if parts.version != Version::HTTP_11 {
        return Err(bad("a WebSocket begins with a request of HTTP/1.1"));
    }
    if parts.headers.get(VERSION) != Some(&VERSION_13) {
        return Err(bad("`Sec-WebSocket-Version` has to be 13"));
    }
    let nonce = parts.headers.get(KEY).filter(|nonce| nonce.len() == 24);
    let nonce = nonce.ok_or_else(|| bad("`Sec-WebSocket-Key` has to be 16 bytes in base64"))?;
    let accept = derive_accept_key(nonce.as_bytes());
    let accept = HeaderValue::try_from(accept).map_err(|_| bad("the key cannot be answered"))?;
    let mut response = Response::new(Body::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(ACCEPT, accept);
    let (caller, pipeline) = (Arc::clone(caller), pipeline.to_owned());
    Ok((response, Door { caller, pipeline, key, parts }))
}

impl Door {
    /// Runs the session to its end. `read` is what came behind the request already.
    pub(in crate::http) async fn run<T>(self, edge: &Rc<Edge>, transport: T, read: Bytes)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let most = edge.node().config().http.body_bytes_max;
        let config = WebSocketConfig::default()
            .max_message_size(Some(most))
            .max_frame_size(Some(most))
            .max_write_buffer_size(WRITE_BYTES_MAX);
        let socket = WebSocketStream::from_partially_read(
            transport,
            read.to_vec(),
            Role::Server,
            Some(config),
        );
        let (mut out, messages) = socket.await.split();
        let pieces: Pieces = Box::pin(
            messages
                .map(piece)
                .take_while(|piece| {
                    // The clean end is the end of the stream of pieces.
                    std::future::ready(!matches!(piece, Ok(None)))
                })
                .filter_map(|piece| std::future::ready(piece.transpose())),
        );
        let place = (self.pipeline.as_str(), self.key);
        let begun = Session::begin(edge, &self.caller, place, &self.parts, pieces);
        let mut session = match begun.await {
            Ok(session) => session,
            Err(error) => {
                let mut said = super::said::Said::new(super::said::Form::Lines);
                said.suspended(0, &error);
                if let Some(line) = said.take() {
                    drop(send(&mut out, &line).await);
                }
                return close(&mut out, CloseCode::Policy).await;
            }
        };
        while let Some(lines) = session.next().await {
            if send(&mut out, &lines).await.is_err() {
                return;
            }
        }
        let code = if session.has_ended() { CloseCode::Normal } else { CloseCode::Away };
        close(&mut out, code).await;
    }
}

type Out<T> = futures_util::stream::SplitSink<WebSocketStream<T>, Message>;

/// Sends each line as a message of its own.
async fn send<T>(out: &mut Out<T>, lines: &Bytes) -> Result<(), tungstenite::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    for line in lines.split(|byte| *byte == b'\n') {
        let message = match std::str::from_utf8(line) {
            // What shows others that both are there is a ping here.
            Ok("") => continue,
            Ok(text) => Message::text(text),
            Err(_) => continue,
        };
        out.feed(message).await?;
    }
    if lines.as_ref() == b"\n" {
        out.feed(Message::Ping(Bytes::new())).await?;
    }
    out.flush().await
}

async fn close<T>(out: &mut Out<T>, code: CloseCode)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code, reason: "".into() };
    // Who is gone does not want to know.
    drop(out.send(Message::Close(Some(frame))).await);
}

/// A message as a piece of the body; none for the clean end.
fn piece(message: Result<Message, tungstenite::Error>) -> Result<Option<Piece>, Error> {
    let broken = |why: &str| Error::request("request.body", format!("it broke off: {why}"));
    match message.map_err(|error| broken(&error.to_string()))? {
        Message::Text(text) if text.is_empty() => Ok(None),
        Message::Text(text) => Ok(Some(Piece { bytes: text.into(), sort: Some(Sort::Line) })),
        Message::Binary(bytes) => Ok(Some(Piece { bytes, sort: Some(Sort::Raw) })),
        // Of no interest; they come in between.
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
            Ok(Some(Piece { bytes: Bytes::new(), sort: None }))
        }
        Message::Close(Some(frame)) if frame.code == CloseCode::Normal => Ok(None),
        Message::Close(_) => Err(broken("it was closed, and not with 1000")),
    }
}
