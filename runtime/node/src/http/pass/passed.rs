//! What comes back of a request that was passed on: a body, or a connection that is joined.

use std::fmt;
use std::io::Cursor;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::Carried;
use super::way::Reached;
use crate::admission::Permit;
use crate::http::connection::InFlight;
use crate::http::server::Edge;

/// The body of a reply that is passed on. At its end its connection is kept for the next request.
pub(in crate::http) struct Passed {
    edge: Rc<Edge>,
    incoming: Incoming,
    /// Until the end; then the process may rest.
    way: Option<(SendRequest<Carried>, Reached)>,
    /// Of the tenant's connections, where it counts as one.
    pub(super) place: Option<Permit>,
    in_flight: Option<InFlight>,
    /// Ends when the node is about to stop; only for one that may go on for ever.
    draining: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Passed {
    pub(super) fn new(
        edge: Rc<Edge>,
        incoming: Incoming,
        sender: SendRequest<Carried>,
        reached: Reached,
    ) -> Self {
        let way = Some((sender, reached));
        let goes_on = incoming.size_hint().exact().is_none();
        let draining = goes_on.then(|| {
            let edge = Rc::clone(&edge);
            Box::pin(async move { edge.draining().await }) as Pin<Box<dyn Future<Output = ()>>>
        });
        let mut passed = Self { edge, incoming, way, place: None, in_flight: None, draining };
        if passed.incoming.is_end_stream() {
            passed.end();
        }
        passed
    }

    pub(in crate::http) fn outlives(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(in crate::http) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(draining) = self.draining.as_mut() else { return Poll::Pending };
                ready!(draining.as_mut().poll(context));
                // Broken off, so that nobody takes it for the whole.
                self.way = None;
                self.draining = None;
                let why = std::io::Error::other("the node is shutting down");
                return Poll::Ready(Some(Err(axum::Error::new(why))));
            }
        };
        match &frame {
            None => self.end(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.end(),
            Some(Ok(_)) => {}
            // It is in no state for another request.
            Some(Err(_)) => self.way = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn end(&mut self) {
        self.place = None;
        if let Some((sender, reached)) = self.way.take() {
            self.edge.pool().put(&reached, sender);
        }
    }
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").finish_non_exhaustive()
    }
}

/// A connection whose two ends are joined.
#[derive(Debug)]
pub(in crate::http) struct Passage {
    pub(super) upgrade: OnUpgrade,
    pub(super) reached: Reached,
}

impl Passage {
    /// Passes bytes in both directions until one end is gone. `read` is what came already.
    pub(in crate::http) async fn run<T>(self, edge: &Edge, transport: T, read: &[u8])
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(upgraded) = self.upgrade.await else { return };
        let mut there = TokioIo::new(upgraded);
        let (from, to) = tokio::io::split(transport);
        let mut client = tokio::io::join(Cursor::new(read).chain(from), to);
        tokio::select! {
            // However it ended: both ends learn of it by theirs.
            biased;
            _ended = tokio::io::copy_bidirectional(&mut client, &mut there) => {}
            () = self.reached.lost() => {}
            () = edge.draining() => {}
        }
    }
}
