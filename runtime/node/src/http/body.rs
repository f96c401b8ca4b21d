//! Bodies: of replies, and of requests on their way into memory.
//!
//! A request's body is bounded three times: by its own limit, by what all bodies of the node may
//! take together, and in time. The time it may take grows with what has arrived, so a slow client
//! is told from a stalled one; a client that sends nothing is refused after a grace.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::connection::InFlight;
use super::pass::Passed;
use super::server::Edge;
use super::text::parse_wait;
use crate::admission::Held;
use crate::error::{Error, shown};

/// Time a client has to begin sending, and may stall in all.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes a second that a client must keep up after the grace.
const RATE_MIN: u64 = 8 * 1024;

/// How much a body of unknown length asks of the node's budget at a time.
const GROWTH_BYTES: usize = 64 * 1024;

/// The body of a reply.
#[derive(Debug)]
pub(super) enum Body {
    /// In one piece.
    Whole(Bytes),
    /// In pieces that are written one after another.
    Pieces(VecDeque<Bytes>),
    /// In pieces that are made when there is room for them.
    Followed(Followed),
    /// From the router of the control routes.
    Routed(axum::body::Body),
    /// From the process of the tenant.
    Passed(Passed),
}

/// A reply that goes on until its maker ends it, and occupies its connection for as long.
pub(super) struct Followed {
    pieces: Pin<Box<dyn Stream<Item = Bytes>>>,
    in_flight: Option<InFlight>,
}

impl Followed {
    pub(super) fn new(pieces: impl Stream<Item = Bytes> + 'static) -> Self {
        Self { pieces: Box::pin(pieces), in_flight: None }
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").finish_non_exhaustive()
    }
}

impl Body {
    /// The handler is done. Where its reply is still being made the request stays in flight, so
    /// that its connection does not pass for an idle one.
    pub(super) fn outlives(&mut self, in_flight: InFlight) {
        match self {
            Self::Followed(followed) => followed.in_flight = Some(in_flight),
            Self::Passed(passed) => passed.outlives(in_flight),
            Self::Whole(_) | Self::Pieces(_) | Self::Routed(_) => {}
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let piece = match self.get_mut() {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Pieces(pieces) => pieces.pop_front(),
            Self::Followed(followed) => {
                let piece = followed.pieces.as_mut().poll_next(context);
                return piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))));
            }
            Self::Routed(body) => return Pin::new(body).poll_frame(context),
            Self::Passed(passed) => return passed.poll_frame(context),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
            Self::Followed(_) => false,
            Self::Routed(body) => body.is_end_stream(),
            Self::Passed(passed) => passed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Self::Followed(_) => SizeHint::default(),
            Self::Routed(body) => body.size_hint(),
            Self::Passed(passed) => passed.size_hint(),
        }
    }
}

/// The length the client announced. (hyper refuses what is no number, or names two.)
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// There is no memory for another body now.
pub(super) fn no_memory() -> Error {
    Error::Overloaded { what: "more request bodies", retry_after: Duration::from_secs(1) }
}

/// Reads a body whole, together with its share of the node's budget.
pub(super) async fn collect(
    edge: &Rc<Edge>,
    headers: &HeaderMap,
    mut incoming: Incoming,
) -> Result<(Bytes, Held), Error> {
    let limit = edge.node().config().http.body_bytes_max;
    let announced = announced(headers);
    let too_large = || Error::TooLarge { what: "the request body", limit: limit as u64 };
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let expected = announced.unwrap_or(0) as usize;
    let mut held = edge.node().admission().bodies().take(expected).ok_or_else(no_memory)?;
    let mut gathered = Gathered::new(expected);
    let mut reading = Reading::new(edge);
    while !incoming.is_end_stream() {
        let Some(frame) = reading.next(&mut incoming, gathered.len()).await? else { break };
        let Ok(data) = frame.into_data() else { continue };
        if gathered.len() + data.len() > limit {
            return Err(too_large());
        }
        let missing = (gathered.len() + data.len()).saturating_sub(held.bytes());
        if missing > 0 && !held.grow(missing.next_multiple_of(GROWTH_BYTES)) {
            return Err(no_memory());
        }
        gathered.push(data);
    }
    Ok((gathered.finish(), held))
}

/// A body so far. A single piece is passed on as it came; further ones are copied together.
struct Gathered {
    first: Bytes,
    all: BytesMut,
    expected: usize,
}

impl Gathered {
    fn new(expected: usize) -> Self {
        Self { first: Bytes::new(), all: BytesMut::new(), expected }
    }

    fn len(&self) -> usize {
        if self.all.is_empty() { self.first.len() } else { self.all.len() }
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(self.expected.max(self.first.len() + data.len()));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
    }

    fn finish(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// Reading against the clock. The clock is looked at only when the client makes us wait.
struct Reading<'a> {
    edge: &'a Rc<Edge>,
    since: Option<Duration>,
}

impl<'a> Reading<'a> {
    const fn new(edge: &'a Rc<Edge>) -> Self {
        Self { edge, since: None }
    }

    async fn next(
        &mut self,
        incoming: &mut Incoming,
        received: usize,
    ) -> Result<Option<Frame<Bytes>>, Error> {
        let now = self.edge.now();
        let since = *self.since.get_or_insert(now);
        let earned = GRACE + Duration::from_secs(received as u64 / RATE_MIN);
        let whole = earned.min(self.edge.node().config().http.body_time_max);
        let left = (since + whole).saturating_sub(now);
        match self.edge.within(left, incoming.frame()).await {
            Some(frame) => frame.transpose().map_err(|error| {
                Error::request("request.body", format!("the request body broke off: {error}"))
            }),
            None => Err(Error::Slow { rate_min: RATE_MIN }),
        }
    }
}

/// A wait that a client asks for.
pub(super) fn wait_within(text: &str, wait_max: Duration) -> Result<Duration, Error> {
    let bad = |what: String| Error::request("request.query", format!("`wait` {what}"));
    let wait = parse_wait(text).ok_or_else(|| {
        bad(format!("is {:?}; write a duration such as 5s or 500ms", shown(text)))
    })?;
    if wait > wait_max {
        return Err(bad(format!("is {wait:?}, at most {wait_max:?} are possible")));
    }
    Ok(wait)
}

/// Reads the body of a control request: the same bounds, by simpler means.
pub(super) async fn collect_control(
    body: axum::body::Body,
    limit: usize,
    time_max: Duration,
) -> Result<Bytes, Error> {
    let limited = http_body_util::Limited::new(body, limit);
    let collected = tokio::time::timeout(time_max, limited.collect()).await;
    let collected = collected.map_err(|_| Error::Slow { rate_min: RATE_MIN })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::TooLarge { what: "the request body", limit: limit as u64 })
        }
        Err(error) => {
            Err(Error::request("request.body", format!("the request body broke off: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_passed_on_and_several_are_joined() {
        let mut gathered = Gathered::new(0);
        gathered.push(Bytes::from_static(b"one"));
        let first = gathered.first.as_ptr();
        assert_eq!(gathered.finish().as_ptr(), first);
        let mut gathered = Gathered::new(6);
        for text in ["one", "two", "", "three"] {
            gathered.push(Bytes::from(text));
        }
        assert_eq!((gathered.len(), &gathered.finish()[..]), (11, &b"onetwothree"[..]));
    }

    #[test]
    fn a_wait_beyond_the_limit_is_refused_with_the_limit() {
        let limit = Duration::from_secs(60);
        assert_eq!(wait_within("60s", limit).ok(), Some(limit));
        let error = wait_within("61s", limit).expect_err("too long").to_string();
        assert!(error.contains("at most 60s"), "{error}");
        assert!(wait_within("later", limit).is_err());
    }
}
