//! A request whose body is written while its reply is read: a stream in, a stream out.
//!
//! - The body ends only by [`Room::end`]. When the feeder is dropped without that, the connection
//!   is broken off, so that the node cannot take a part for the whole.
//! - Reading and writing may be dropped while they wait; nothing that came is lost.
//! - A line has a bound. What stands behind the last line end when the reply breaks off is no line.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use tokio::sync::mpsc;

use super::{Call, Client, REPLY_TIME_MAX, retry_after};
use crate::failure::{Cause, Failure};

/// Pieces of a body that wait for the connection.
const PIECES_MAX: usize = 4;

/// Longest line of a reply: an event of the largest size as escaped text, and some more.
const LINE_BYTES_MAX: usize = 128 << 20;

/// Largest reply that says why there is none.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// Longest time without a word. Nodes say that they are still there, at least every five minutes.
const SILENCE_MAX: Duration = Duration::from_secs(6 * 60);

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Sent {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It comes in pieces; without one the body has ended.
    Live(Option<mpsc::Receiver<Piece>>),
}

/// A part of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    End,
}

/// Whoever wrote the body went away before its end.
#[derive(Debug)]
pub(crate) struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body was broken off")
    }
}

impl std::error::Error for BrokenOff {}

impl Body for Sent {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let pieces = match self.get_mut() {
            Self::Whole(body) => {
                let frame = Pin::new(body).poll_frame(context);
                return frame.map(|frame| frame.map(|frame| frame.map_err(|never| match never {})));
            }
            Self::Live(pieces) => pieces,
        };
        let Some(open) = pieces else { return Poll::Ready(None) };
        open.poll_recv(context).map(|piece| match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                *pieces = None;
                None
            }
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Live(pieces) => pieces.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Live(_) => SizeHint::default(),
        }
    }
}

/// Writes the body of a request.
#[derive(Debug)]
pub(crate) struct Feeder(mpsc::Sender<Piece>);

/// Room for one piece.
pub(crate) struct Room<'a>(mpsc::Permit<'a, Piece>);

impl Feeder {
    /// Waits until the connection takes more; nothing if it never will.
    pub(crate) async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }
}

impl Room<'_> {
    /// Sends bytes.
    pub(crate) fn send(self, bytes: Bytes) {
        self.0.send(Piece::Bytes(bytes));
    }

    /// Ends the body.
    pub(crate) fn end(self) {
        self.0.send(Piece::End);
    }
}

/// A reply that comes in lines.
#[derive(Debug)]
pub(crate) struct Lines {
    headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no line end.
    scanned: usize,
    url: String,
}

impl Lines {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next line, without its end; nothing when the reply is over.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + at).freeze();
                // The line end itself.
                drop(self.buffer.split_to(1));
                self.scanned = 0;
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if self.scanned > LINE_BYTES_MAX {
                let what = "a line of the node's reply is too long";
                return Err(Failure::new(Cause::Internal, what));
            }
            let Ok(frame) = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await else {
                return Err(self.broken(&format!("nothing came for {SILENCE_MAX:?}")));
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(self.broken(&super::innermost(&error))),
            }
        }
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(Cause::Unavailable, format!("{} broke off its reply: {why}", self.url))
    }
}

impl Client {
    /// Makes a request whose body is still to be written, and waits for the head of the reply.
    pub(crate) async fn open(&self, call: Call) -> Result<(Feeder, Lines), Failure> {
        let (feeder, pieces) = mpsc::channel(PIECES_MAX);
        let request = self.request(&call, Sent::Live(Some(pieces)))?;
        match tokio::time::timeout(REPLY_TIME_MAX, self.head(request)).await {
            Ok(lines) => Ok((Feeder(feeder), lines?)),
            Err(_) => Err(self.too_late(REPLY_TIME_MAX)),
        }
    }

    async fn head(&self, request: Request<Sent>) -> Result<Lines, Failure> {
        let response = self.pool.request(request).await.map_err(|error| self.unreached(&error))?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            let (headers, url) = (head.headers, self.base.clone());
            return Ok(Lines { headers, body, buffer: BytesMut::new(), scanned: 0, url });
        }
        let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let mut failure = Failure::reply(head.status.as_u16(), &body);
        failure.retry_after = retry_after(&head.headers);
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> (Feeder, Sent) {
        let (feeder, pieces) = mpsc::channel(PIECES_MAX);
        (Feeder(feeder), Sent::Live(Some(pieces)))
    }

    #[tokio::test]
    async fn a_body_ends_when_it_is_told_to() {
        let (feeder, body) = live();
        feeder.room().await.unwrap().send(Bytes::from_static(b"one"));
        feeder.room().await.unwrap().end();
        drop(feeder);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "one");
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_broken_off() {
        let (feeder, body) = live();
        feeder.room().await.unwrap().send(Bytes::from_static(b"one"));
        drop(feeder);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn there_is_no_room_in_a_body_that_nobody_reads() {
        let (feeder, body) = live();
        drop(body);
        assert!(feeder.room().await.is_none());
    }
}
