//! Following an output: its events as server-sent events, for as long as the client stays.
//!
//! ```text
//! id: <cursor behind the event>
//! event: message
//! data: {"id":…}                 the line that a page would have
//! ```
//!
//! - A client that was cut off sends the last `id` as `Last-Event-ID` and misses nothing. Before
//!   the first event there is an `id` alone, so that this holds from the beginning.
//! - Nothing is made before the connection has room for it: a client that does not read costs its
//!   connection and one piece. What the ring drops meanwhile it is told by an event `trimmed`,
//!   with the problem document, and gets the oldest that is kept next.
//! - A comment now and then shows both sides that the other is there. Between two pieces nothing
//!   of the pipeline is held, so that it may be replaced; when it is deleted, the stream ends.
//! - Over HTTP/2 each stream draws a connection of the tenant's quota, as it would over HTTP/1.1.
//! - When the node stops, a stream ends behind what was there.
//!
//! A browser's `EventSource` cannot send a token; `fetch` can, and reads the same.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, Version};
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;

use super::render::Renderer;
use super::{STEP_BYTES, Source, Waited, wait};
use crate::admission::Permit;
use crate::error::Error;
use crate::http::auth::Caller;
use crate::http::body::{Body, Followed};
use crate::http::respond;
use crate::http::server::Edge;
use crate::node::Node;
use crate::ring::{Cursor, Output, Page, Trimmed};
use crate::running::Running;

/// Media type of server-sent events.
pub(in crate::http) const EVENT_STREAM: &str = "text/event-stream";

/// Where a client that was cut off says what it has seen.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// A comment.
const HEARTBEAT: &[u8] = b":\n\n";

/// From where on, and how much.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) cursor: Cursor,
    pub(super) events_max: usize,
}

/// Begins to follow.
pub(super) fn begin(
    edge: &Rc<Edge>,
    caller: &Caller,
    (running, source): (&Running, Source<'_>),
    (version, asked): (Version, Asked),
) -> Result<Response<Body>, Error> {
    let gone = |trimmed: Trimmed| Error::Trimmed { oldest: trimmed.oldest.to_string() };
    source.ring(running)?.read_limited(&asked.cursor, usize::MAX, STEP_BYTES).map_err(gone)?;
    let apart = version >= Version::HTTP_2;
    let place = apart.then(|| caller.account.lend(Resource::Connections, 1)).transpose()?;
    let follower = Follower {
        edge: Rc::clone(edge),
        tenant: caller.identity.tenant.clone(),
        pipeline: running.name().to_string(),
        output: match source {
            Source::Output(name) => Some(name.to_owned()),
            Source::DeadLetters => None,
        },
        cursor: asked.cursor,
        events_left: asked.events_max,
        begun: false,
        _counted: Counted::new(edge.node(), place),
    };
    let pieces = futures_util::stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((piece, follower))
    });
    let mut response = Response::new(Body::Followed(Followed::new(pieces)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What a common proxy has to be told, or it gathers before it passes on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// A client that follows.
struct Follower {
    edge: Rc<Edge>,
    tenant: Name,
    pipeline: String,
    /// An output; none for dead letters.
    output: Option<String>,
    cursor: Cursor,
    events_left: usize,
    begun: bool,
    _counted: Counted,
}

impl Follower {
    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from(format!("id: {}\n\n", self.cursor)));
        }
        // A client that reads fast must not keep the worker from others.
        tokio::task::yield_now().await;
        while self.events_left > 0 {
            let ring = match self.look()? {
                Seen::Piece(piece) => return Some(piece),
                Seen::Nothing(ring) => ring,
            };
            let most = self.edge.node().config().http.heartbeat_time;
            match wait(&self.edge, &ring, &self.cursor, most).await {
                Waited::News => {}
                Waited::TimeOver => return Some(Bytes::from_static(HEARTBEAT)),
                Waited::Stopping => return None,
            }
        }
        None
    }

    /// Looks what is there; none if the pipeline or the output is not.
    fn look(&mut self) -> Option<Seen> {
        let running = self.edge.node().running(&self.tenant, &self.pipeline)?;
        let output = self.output.clone();
        let source = output.as_deref().map_or(Source::DeadLetters, Source::Output);
        let ring = source.ring(&running).ok()?;
        let page = match ring.read_limited(&self.cursor, self.events_left, STEP_BYTES) {
            Ok(page) => page,
            Err(trimmed) => return Some(Seen::Piece(self.trimmed(trimmed))),
        };
        if page.chunks.is_empty() {
            self.cursor = page.next;
            return Some(Seen::Nothing(ring));
        }
        let renderer = Renderer::new(&running, source, ring.incarnation());
        let (piece, events) = self.render(page, &renderer);
        let metrics = running.metrics().output(source.name(), &ring);
        metrics.read_events.add(events as u64);
        metrics.read_bytes.add(piece.len() as u64);
        Some(Seen::Piece(piece))
    }

    /// The events of a page, or as many as one piece takes.
    fn render(&mut self, page: Page, renderer: &Renderer<'_>) -> (Bytes, usize) {
        let mut out = Vec::new();
        let mut cursor = page.begin();
        let mut rendered = 0;
        for chunk in &page.chunks {
            for (offset, event) in chunk.events() {
                if out.len() >= STEP_BYTES {
                    break;
                }
                cursor.pass(chunk.partition, offset);
                out.extend_from_slice(format!("id: {cursor}\nevent: message\ndata: ").as_bytes());
                renderer.event(chunk.partition, offset, &event, &mut out);
                out.push(b'\n');
                rendered += 1;
            }
        }
        let whole = rendered == page.chunks.iter().map(|chunk| chunk.take).sum::<usize>();
        self.cursor = if whole { page.next } else { cursor };
        self.events_left -= rendered;
        (Bytes::from(out), rendered)
    }

    /// Tells of a gap, and goes on behind it.
    fn trimmed(&mut self, trimmed: Trimmed) -> Bytes {
        let oldest = trimmed.oldest.to_string();
        self.cursor = trimmed.oldest;
        let mut out = format!("id: {oldest}\nevent: trimmed\ndata: ").into_bytes();
        let problem: Response<Bytes> = respond::problem(&Error::Trimmed { oldest });
        out.extend_from_slice(problem.body());
        out.extend_from_slice(b"\n\n");
        Bytes::from(out)
    }
}

/// What a look found.
enum Seen {
    Piece(Bytes),
    /// Nothing; where to wait.
    Nothing(Arc<Output>),
}

/// One more follower, for as long as it follows.
struct Counted {
    node: Arc<Node>,
    _place: Option<Permit>,
}

impl Counted {
    fn new(node: &Arc<Node>, place: Option<Permit>) -> Self {
        node.metrics().node().followers.add(1);
        Self { node: Arc::clone(node), _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.metrics().node().followers.add(-1);
    }
}
