//! Bodies on their way, each held to its bytes and counted.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use sluicebox_engine::http::{Body, Refused};
use tokio::time::{Instant, Sleep};

use super::exchange::UnderWay;
use crate::metrics::StageMetrics;

/// The body of a request.
pub(super) struct Leaving {
    /// None of a request that is made again and has none.
    body: Option<Body>,
    left: u64,
    /// Set if it was larger than it may be: hyper only says that it ended early.
    is_over: Arc<AtomicBool>,
    figures: Arc<StageMetrics>,
}

impl Leaving {
    pub(super) fn new(
        body: Body,
        bytes_max: u64,
        is_over: Arc<AtomicBool>,
        figures: Arc<StageMetrics>,
    ) -> Self {
        Self { body: Some(body), left: bytes_max, is_over, figures }
    }

    /// A body without a byte, in place of one that had none.
    pub(super) fn nothing(figures: Arc<StageMetrics>) -> Self {
        Self { body: None, left: 0, is_over: Arc::default(), figures }
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match this.left.checked_sub(bytes) {
            Some(left) => this.left = left,
            None => {
                this.is_over.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(Refused::RequestTooLarge)));
            }
        }
        this.figures.http_sent_bytes.add(bytes);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// The body of an answer.
pub(super) struct Arriving {
    body: Incoming,
    left: u64,
    late: Pin<Box<Sleep>>,
    figures: Arc<StageMetrics>,
    /// Until it has come, its request is under way.
    _under_way: UnderWay,
}

impl Arriving {
    /// # Errors
    /// It says itself that it is too large.
    pub(super) fn new(
        body: Incoming,
        bytes_max: u64,
        until: Instant,
        (figures, under_way): (Arc<StageMetrics>, UnderWay),
    ) -> Result<Self, Refused> {
        if body.size_hint().lower() > bytes_max {
            return Err(Refused::ResponseTooLarge);
        }
        let late = Box::pin(tokio::time::sleep_until(until));
        Ok(Self { body, left: bytes_max, late, figures, _under_way: under_way })
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        let this = self.get_mut();
        if this.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Refused::Late)));
        }
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| failed(&error))?;
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        this.figures.http_received_bytes.add(bytes);
        let Some(left) = this.left.checked_sub(bytes) else {
            return Poll::Ready(Some(Err(Refused::ResponseTooLarge)));
        };
        this.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What an exchange that broke off is called.
pub(super) fn failed(error: &hyper::Error) -> Refused {
    if error.is_user() {
        Refused::GivenUp
    } else if error.is_parse_too_large() {
        Refused::HeadTooLarge
    } else if error.is_parse() {
        Refused::Protocol
    } else {
        Refused::Ended
    }
}
