//! A stream in one request: the body is the stream in, the response the stream out, both at once.
//!
//! - The events are those of one key. What comes back are the events of one output that have the
//!   same key: so what a session shows does not depend on which connection an event came by, and a
//!   client that was cut off gets what it missed by cursor.
//! - Only a clean end of the body ends the stream. Whatever else happens suspends it, and the next
//!   session of the key goes on by ordinal ([`crate::sessions`]).
//! - One future does both directions. It runs while the client reads, so a client that does not is
//!   not read from either: nothing is queued for it.
//! - A session ends with a word that says how (`said`).
//!
//! How a body is cut into units is in `units`, how they are handed in in `intake`; the same by
//! WebSocket is in `socket`.

mod asked;
mod intake;
mod outlet;
mod said;
pub(super) mod socket;
mod units;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use serde_json::json;
use sluicebox_core::frame::{field, push_field};
use sluicebox_core::quota::Resource;
use sluicebox_store::log::Position;
use tokio::time::Instant;

use super::auth::Caller;
use super::body::{Body, Followed, no_memory};
use super::ingest::{self, trace};
use super::outputs::CURSOR;
use super::respond;
use super::server::Edge;
use crate::admission::Permit;
use crate::durable::Logged;
use crate::error::Error;
use crate::node::Node;
use crate::running::{Running, Submitted};
use crate::sessions::{self, Standing};
use asked::Asked;
use intake::{Inlet, Piece, Pieces, Sender, Stepped, taken_over};
use outlet::Outlet;
use said::{Form, Said};
use units::Cutter;

/// The header with the ordinal of the first unit that is taken.
const ORDINAL: HeaderName = HeaderName::from_static("sluicebox-ordinal");

/// Batches that may wait for the log at a time.
const WAITING_MAX: usize = 64;

/// How long what there is to say is held while more of the session is being handled, and how much
/// at most: as a rule there is soon more to say, and a write costs as much as handling an event.
const HOLD_TIME: Duration = Duration::from_millis(1);
const HOLD_BYTES: usize = 16 * 1024;

/// How long a session that has nothing to send waits for what its key sent before a restart.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(2);

/// How long other workers take to let go what is on disk, and more.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// How long the last outputs of a stream are waited for.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// Says how far the streams of a key have come, when that is on disk.
pub(super) async fn look(
    edge: &Edge,
    caller: &Caller,
    (pipeline, key): (&str, &str),
) -> Result<Response<Body>, Error> {
    let running = ingest::current(edge, caller, pipeline)?;
    let standing = running.sessions().standing(running.durable(), key.as_bytes());
    on_disk(edge, &running, key).await?;
    let reply = json!({ "key": key, "at": standing.at, "ended": standing.ended });
    Ok(respond::json(StatusCode::OK, &reply))
}

/// Waits until the log has on disk where a key stands: the client lets go of what is before it.
async fn on_disk(edge: &Edge, running: &Running, key: &str) -> Result<(), Error> {
    match sessions::logged(running.durable(), key.as_bytes()) {
        Some(at) => edge.releases().synced(at).await,
        None => Ok(()),
    }
}

/// Waits until what was handed in before has been handled, and what came of it let go.
async fn settle(edge: &Edge, running: &Running) {
    running.idle().await;
    let appended = running.durable().and_then(|durable| {
        let next = durable.log.status().appended;
        next.0.checked_sub(1).map(Position)
    });
    if let Some(last) = appended {
        // A log that has failed lets nothing go any more.
        drop(edge.releases().synced(last).await);
        // Other workers are told at the same time.
        tokio::time::sleep(RELEASE_PAUSE).await;
    }
}

/// Begins a session.
pub(super) async fn handle(
    edge: &Rc<Edge>,
    caller: &Arc<Caller>,
    (pipeline, key): (&str, String),
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let (parts, incoming) = request.into_parts();
    let form = Form::of(&parts.headers);
    let pieces = BodyStream::new(incoming).filter_map(|frame| async {
        let broken = |error| Error::request("request.body", format!("it broke off: {error}"));
        let frame = frame.map_err(broken).map(|frame| frame.into_data().ok()).transpose();
        frame.map(|bytes| bytes.map(|bytes| Piece { bytes, sort: None }))
    });
    let begun = Session::begin(edge, caller, (pipeline, key), &parts, Box::pin(pieces));
    let session = begun.await?;
    let (ordinal, cursor) = (session.inlet.first(), session.outlet.cursor().to_string());
    let pieces = futures_util::stream::unfold(session, |mut session| async move {
        let piece = session.next().await?;
        Some((piece, session))
    });
    let mut response = Response::new(Body::Followed(Followed::new(pieces)));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, form.media_type());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(ORDINAL, HeaderValue::from(ordinal));
    if let Ok(cursor) = HeaderValue::try_from(cursor) {
        headers.insert(CURSOR, cursor);
    }
    Ok(response)
}

/// Something that is in the log and not on disk yet.
type Acknowledged = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The body goes on.
    Open,
    /// The body has ended; its end is on its way.
    Ending,
    /// What follows from it is waited for.
    Ended,
    /// Its last word was said.
    Over,
}

struct Session {
    sender: Sender,
    inlet: Inlet,
    outlet: Outlet,
    said: Said,
    waiting: VecDeque<(u64, Acknowledged)>,
    /// All units before this are acknowledged; the client was told so of those before `told`.
    taken: u64,
    told: u64,
    /// Since when there is something to say that is held.
    held: Option<Instant>,
    phase: Phase,
    /// What was handed in before this session, by a process that is no more perhaps, is handled.
    settled: bool,
    ended: bool,
    /// On the edge's clock: when something came or went.
    active: Duration,
    _counted: Counted,
}

/// What a wait brought.
enum News {
    /// Outputs, or nothing that has to be looked at here.
    Look,
    /// What there is to say was held for long enough.
    Tell,
    Acknowledged(Result<(), Error>),
    Stepped(Result<Stepped, Error>),
    Done,
    Settled,
    TakenOver,
    Stopping,
}

impl Session {
    async fn begin(
        edge: &Rc<Edge>,
        caller: &Arc<Caller>,
        (pipeline, key): (&str, String),
        parts: &http::request::Parts,
        pieces: Pieces,
    ) -> Result<Self, Error> {
        let node = edge.node();
        if node.draining() {
            return Err(Error::Draining);
        }
        let running = ingest::current(edge, caller, pipeline)?;
        let asked = Asked::read(parts, &running)?;
        running.check_disk()?;
        caller.account.look(&[Resource::Events, Resource::Bytes])?;
        let apart = parts.version >= Version::HTTP_2;
        let place = apart.then(|| caller.account.lend(Resource::Connections, 1)).transpose()?;
        let sessions = running.sessions();
        let hold = sessions.hold((running.durable(), node.requests()), key.as_bytes());
        let retry_after = Duration::from_secs(1);
        let full = || Error::Overloaded { what: "more waiting clients", retry_after };
        let hold = hold.ok_or_else(full)?;
        let standing = hold.standing();
        on_disk(edge, &running, &key).await?;
        let first = asked.first(standing)?;
        let mut fields = trace::of_session(&running, &parts.headers);
        let id = hold.following().id().0.to_le_bytes();
        let type_of = asked.content_type.as_ref().map(HeaderValue::as_bytes);
        let _fits = push_field(&mut fields, field::REQUEST, &id);
        if !type_of.is_none_or(|value| push_field(&mut fields, field::CONTENT_TYPE, value)) {
            return Err(Error::request("ingest.fields", "the content type is too long"));
        }
        let held = node.admission().bodies().take(0).ok_or_else(no_memory)?;
        let cutter = Cutter::new(asked.cut, asked.unit_bytes_max(&running, node.config()));
        let ordinals = (first, standing.at.max(first));
        let inlet = Inlet::new(pieces, (cutter, asked.sort), ordinals, (fields, held));
        let outlet = Outlet::begin(&running, &asked.output, &key, asked.cursor)?;
        let (caller, pipeline) = (Arc::clone(caller), pipeline.to_owned());
        let counted = Counted::new(node, place);
        let (edge, hold) = (Rc::clone(edge), Arc::new(hold));
        let sender = Sender { edge, caller, pipeline, key, running, hold };
        Ok(Self {
            active: sender.edge.now(),
            sender,
            inlet,
            outlet,
            said: Said::new(Form::of(&parts.headers)),
            waiting: VecDeque::new(),
            taken: standing.at,
            told: standing.at,
            held: None,
            phase: Phase::Open,
            settled: standing.at == 0,
            ended: false,
            _counted: counted,
        })
    }

    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        while self.phase != Phase::Over {
            if let Err(error) = self.look() {
                self.suspend(&error);
            }
            if self.speaks() {
                self.tell();
                if let Some(piece) = self.said.take() {
                    return Some(piece);
                }
            }
            if self.phase == Phase::Over {
                break;
            }
            let heartbeat = self.sender.edge.node().config().http.heartbeat_time;
            let edge = Rc::clone(&self.sender.edge);
            let news = edge.within(heartbeat, self.wait()).await;
            // A client that sends or catches up fast must not keep the worker from others.
            if matches!(news, Some(News::Stepped(_) | News::Look)) {
                tokio::task::yield_now().await;
            }
            if let Err(error) = self.learn(news) {
                self.suspend(&error);
            }
        }
        self.said.take()
    }

    /// The stream has ended, and that was said.
    fn has_ended(&self) -> bool {
        self.ended
    }

    /// Says what there is to say.
    fn look(&mut self) -> Result<(), Error> {
        self.outlet.look(&self.sender.running, &mut self.said)?;
        let handled = self.waiting.is_empty() && self.sender.hold.following().is_done();
        let done = self.phase == Phase::Ended && handled && self.settled;
        // What follows was handled before that was known: one more look finds all of it.
        if done && !self.outlet.has_more(&self.sender.running, &mut self.said)? {
            self.tell();
            self.said.ended(self.taken, self.outlet.cursor());
            self.ended = true;
            self.phase = Phase::Over;
        }
        Ok(())
    }

    /// There is something to say, and it is not held any more.
    fn speaks(&mut self) -> bool {
        if self.said.is_empty() && self.taken == self.told {
            self.held = None;
            return false;
        }
        let more_comes = self.phase != Phase::Over
            && self.said.len() < HOLD_BYTES
            && !self.sender.hold.following().is_done();
        let since = *self.held.get_or_insert_with(Instant::now);
        if more_comes && since.elapsed() < HOLD_TIME {
            return false;
        }
        self.held = None;
        true
    }

    /// Says how far units are acknowledged.
    fn tell(&mut self) {
        if self.taken > self.told {
            self.told = self.taken;
            self.said.taken(self.taken);
        }
    }

    /// Waits for something to happen. May be given up and called again.
    async fn wait(&mut self) -> News {
        let Self { sender, inlet, outlet, waiting, phase, settled, held, .. } = self;
        let reads = *phase == Phase::Open || *phase == Phase::Ending;
        let reads = reads && waiting.len() < WAITING_MAX;
        let ended = *phase == Phase::Ended && waiting.is_empty();
        let settles = ended && !*settled;
        let edge = Rc::clone(&sender.edge);
        let acknowledged = std::future::poll_fn(|context| match waiting.front_mut() {
            Some((_, first)) => first.as_mut().poll(context),
            None => Poll::Pending,
        });
        let (hold, running) = (Arc::clone(&sender.hold), Arc::clone(&sender.running));
        tokio::select! {
            // Whoever lost the key stops first; outputs go out before more comes in.
            biased;
            () = hold.taken_over() => News::TakenOver,
            () = outlet.news() => News::Look,
            result = acknowledged => News::Acknowledged(result),
            () = hold.following().done(), if ended && !settles || held.is_some() => News::Done,
            _ = tokio::time::timeout(SETTLE_TIME_MAX, settle(&edge, &running)), if settles => {
                News::Settled
            }
            () = edge.draining() => News::Stopping,
            () = held_for(*held) => News::Tell,
            stepped = inlet.step(sender), if reads => News::Stepped(stepped),
        }
    }

    /// Notes what happened.
    fn learn(&mut self, news: Option<News>) -> Result<(), Error> {
        let now = self.sender.edge.now();
        match news {
            None => return self.rest(now),
            // It happened before.
            Some(News::Tell) => return Ok(()),
            Some(News::Look | News::Done) => {}
            Some(News::Settled) => self.settled = true,
            Some(News::Acknowledged(result)) => {
                result?;
                let at = self.waiting.pop_front().map(|(at, _)| at);
                self.taken = self.taken.max(at.unwrap_or(0));
            }
            Some(News::Stepped(stepped)) => self.stepped(stepped?)?,
            Some(News::TakenOver) => return Err(taken_over()),
            Some(News::Stopping) => return Err(Error::Draining),
        }
        self.active = now;
        Ok(())
    }

    fn stepped(&mut self, stepped: Stepped) -> Result<(), Error> {
        match stepped {
            Stepped::Handed(submitted, standing) => self.handed(submitted, standing),
            Stepped::Rejected { at, code, message } => self.said.rejected(at, code, &message),
            Stepped::Over if self.phase == Phase::Ending => self.phase = Phase::Ended,
            Stepped::Over => {
                self.phase = Phase::Ending;
                let at = self.inlet.at();
                let stands = self.sender.hold.standing().at;
                if at < stands {
                    return Err(intake::ends_before(at, stands));
                }
                // A client that was cut off behind the end sends nothing new, and no second end.
                if self.sender.hold.standing() != (Standing { at, ended: true }) {
                    self.inlet.end(&self.sender);
                }
            }
        }
        Ok(())
    }

    /// Events were handed in: they are acknowledged now, or when they are on disk.
    fn handed(&mut self, submitted: Submitted, standing: Standing) {
        // What comes of it comes behind what came of all that was before.
        self.settled = true;
        match submitted {
            Submitted::Queued => self.taken = standing.at,
            Submitted::Logged(Logged::At(at) | Logged::Repeat(at)) => {
                let edge = Rc::clone(&self.sender.edge);
                let synced = async move { edge.releases().synced(at).await };
                self.waiting.push_back((standing.at, Box::pin(synced)));
            }
        }
    }

    /// Nothing happened for a while.
    fn rest(&mut self, now: Duration) -> Result<(), Error> {
        let silent = now.saturating_sub(self.active);
        let bound = match self.phase {
            Phase::Open => self.sender.edge.node().config().http.session_idle_time_max,
            _ => END_TIME_MAX,
        };
        if silent < bound {
            let Sender { edge, caller, pipeline, running, .. } = &mut self.sender;
            // Whoever sends nothing does not learn of another version in any other way.
            *running = ingest::current(edge, caller, pipeline)?;
            self.said.heartbeat();
            return Ok(());
        }
        let message = match self.phase {
            Phase::Open => format!("nothing came or went for {bound:?}; go on from here"),
            _ => format!("what follows from the stream was not handled within {bound:?}"),
        };
        Err(Error::request("stream.idle", message))
    }

    fn suspend(&mut self, error: &Error) {
        self.tell();
        self.said.suspended(self.taken, error);
        self.phase = Phase::Over;
    }
}

/// Waits until what there is to say was held for long enough, if there is something.
async fn held_for(since: Option<Instant>) {
    match since {
        Some(since) => tokio::time::sleep_until(since + HOLD_TIME).await,
        None => std::future::pending().await,
    }
}

/// One more session, for as long as it lasts.
struct Counted {
    node: Arc<Node>,
    _place: Option<Permit>,
}

impl Counted {
    fn new(node: &Arc<Node>, place: Option<Permit>) -> Self {
        node.metrics().node().sessions.add(1);
        Self { node: Arc::clone(node), _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.metrics().node().sessions.add(-1);
    }
}
