//! Events go out: an output or the dead letters, from a cursor on, in pages or as they come.
//!
//! - A page is NDJSON, or on request the packed frames as they were written. Where to go on is in
//!   the header `Sluicebox-Cursor`; a page may be empty.
//! - A client that accepts `text/event-stream` follows instead (`follow`).
//! - With `?wait=` a request with nothing to read waits for something to come, and ends early when
//!   the node stops.
//! - A large page is compressed for who takes that.
//! - A page is bounded in bytes and made in steps, so that a reader who catches up does not keep
//!   the worker from others.
//! - A cursor whose events are gone gets `410` with the cursor to go on from.

pub(super) mod follow;
mod render;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, VARY};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;

use super::auth::Caller;
use super::body::{Body, wait_within};
use super::coding::{self, takes_gzip};
use super::ingest::FRAME;
use super::ingest::single::essence;
use super::server::Edge;
use super::text::{query_pairs, unknown_parameter};
use crate::error::{Error, shown};
use crate::metrics::OutputMetrics;
use crate::ring::{Cursor, Output, Page};
use crate::running::Running;
pub(crate) use render::Renderer;

/// Bytes of events read between two looks at what else the worker has to do.
pub(super) const STEP_BYTES: usize = 128 * 1024;

/// The header with the cursor to go on from.
pub(super) const CURSOR: HeaderName = HeaderName::from_static("sluicebox-cursor");

pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const FRAMES: HeaderValue = HeaderValue::from_static(FRAME);

/// Name of the dead letters in figures.
const DEAD_LETTERS: &str = "dead-letters";

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    Output(&'a str),
    DeadLetters,
}

impl Source<'_> {
    const fn name(&self) -> &str {
        match self {
            Self::Output(name) => name,
            Self::DeadLetters => DEAD_LETTERS,
        }
    }

    fn ring(&self, running: &Running) -> Result<Arc<Output>, Error> {
        match self {
            Self::Output(name) => {
                let ring = running.output(name);
                ring.cloned().ok_or_else(|| Error::not_found("output", name))
            }
            Self::DeadLetters => Ok(Arc::clone(&running.dead_letters().ring)),
        }
    }
}

/// In which form a reader wants events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Frames,
    /// Not a page: all there will be.
    ServerSent,
}

impl Form {
    /// The first one accepted that is not lines, which everybody gets who says nothing.
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut named = values.flat_map(|value| value.split(',')).map(essence);
        let known = named.find_map(|name| match name {
            name if name.eq_ignore_ascii_case(FRAME) => Some(Self::Frames),
            name if name.eq_ignore_ascii_case(follow::EVENT_STREAM) => Some(Self::ServerSent),
            _ => None,
        });
        known.unwrap_or(Self::Lines)
    }
}

/// What a reader asks for.
#[derive(Debug)]
struct Asked {
    cursor: Cursor,
    wait: Duration,
    events_max: usize,
    form: Form,
}

impl Asked {
    fn read(
        query: Option<&str>,
        headers: &HeaderMap,
        ring: &Output,
        wait_max: Duration,
    ) -> Result<Self, Error> {
        let form = Form::of(headers);
        let mut asked =
            Self { cursor: Cursor::OLDEST, wait: Duration::ZERO, events_max: usize::MAX, form };
        for pair in query_pairs(query) {
            let (name, value) = pair?;
            match name.as_ref() {
                "cursor" => asked.cursor = cursor(&value, ring)?,
                "wait" if form != Form::ServerSent => asked.wait = wait_within(&value, wait_max)?,
                "limit" => asked.events_max = limit(&value)?,
                other if form == Form::ServerSent => {
                    return Err(unknown_parameter(
                        other,
                        "`cursor` or `limit` to follow an output",
                    ));
                }
                other => return Err(unknown_parameter(other, "`cursor`, `wait` or `limit`")),
            }
        }
        // A client that was cut off asks by the same address again: what it has seen counts.
        if form == Form::ServerSent
            && let Some(seen) = headers.get(follow::LAST_EVENT_ID).filter(|id| !id.is_empty())
        {
            asked.cursor = cursor(seen.to_str().unwrap_or("?"), ring)?;
        }
        Ok(asked)
    }
}

pub(super) fn cursor(text: &str, ring: &Output) -> Result<Cursor, Error> {
    if text == "latest" {
        return Ok(ring.latest());
    }
    Cursor::parse(text).map_err(|error| Error::request("output.cursor", error.to_string()))
}

fn limit(text: &str) -> Result<usize, Error> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| {
        let message = format!("`limit` is {:?}; write a number of events, from 1", shown(text));
        Error::request("request.query", message)
    })
}

/// One request for a page, or to follow.
pub(super) async fn handle(
    edge: &Rc<Edge>,
    caller: &Caller,
    (pipeline, source): (&str, Source<'_>),
    request: &Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let node = edge.node();
    let running = node
        .running(&caller.identity.tenant, pipeline)
        .ok_or_else(|| edge.node().no_pipeline(&caller.identity.tenant, pipeline))?;
    let ring = source.ring(&running)?;
    let http = &node.config().http;
    let asked = Asked::read(request.uri().query(), request.headers(), &ring, http.wait_time_max)?;
    let frames = match asked.form {
        Form::Lines => false,
        Form::Frames => true,
        Form::ServerSent => {
            let asked = follow::Asked { cursor: asked.cursor, events_max: asked.events_max };
            return follow::begin(edge, caller, (&running, source), (request.version(), asked));
        }
    };
    let metrics = running.metrics().output(source.name(), &ring);
    let reader = Reader { ring: &ring, bytes_max: http.page_bytes_max, metrics: &metrics };
    let begun = Instant::now();
    let mut cursor = asked.cursor.clone();
    loop {
        let page = if frames {
            reader.frames(&cursor, asked.events_max)?
        } else {
            let renderer = Renderer::new(&running, source, ring.incarnation());
            reader.lines(&cursor, asked.events_max, &renderer).await?
        };
        let left = asked.wait.saturating_sub(begun.elapsed());
        if page.events > 0 || left.is_zero() {
            metrics.read_events.add(page.events);
            return Ok(page.into_coded_response(frames, takes_gzip(request.headers())).await);
        }
        cursor = page.next;
        if wait(edge, &ring, &cursor, left).await == Waited::Stopping {
            return Ok(Filled { next: cursor, ..Filled::default() }.into_response(frames));
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// Something may be there.
    News,
    /// The time is over; a last look decides.
    TimeOver,
    /// The node stops.
    Stopping,
}

async fn wait(edge: &Edge, ring: &Output, cursor: &Cursor, left: Duration) -> Waited {
    let either = async {
        tokio::select! {
            // What is there is given out even when the node stops.
            biased;
            () = ring.wait(cursor) => Waited::News,
            () = edge.draining() => Waited::Stopping,
        }
    };
    edge.within(left, either).await.unwrap_or(Waited::TimeOver)
}

/// A page under way.
#[derive(Debug)]
struct Filled {
    pieces: VecDeque<Bytes>,
    events: u64,
    next: Cursor,
}

impl Default for Filled {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), events: 0, next: Cursor::OLDEST }
    }
}

impl Filled {
    /// The page as the client takes it.
    async fn into_coded_response(mut self, frames: bool, gzip: bool) -> Response<Body> {
        let bytes = self.pieces.iter().map(Bytes::len).sum();
        let mut pieces = std::iter::from_fn(|| self.pieces.pop_front());
        let packed = if gzip { coding::gzip(&mut pieces, bytes).await } else { None };
        let coded = packed.is_some();
        self.pieces.extend(packed);
        let mut response = self.into_response(frames);
        if coded {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn into_response(mut self, frames: bool) -> Response<Body> {
        let body = if self.pieces.len() == 1 {
            Body::Whole(self.pieces.pop_front().unwrap_or_default())
        } else {
            Body::Pieces(self.pieces)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, if frames { FRAMES } else { NDJSON });
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if let Ok(cursor) = HeaderValue::try_from(self.next.to_string()) {
            headers.insert(CURSOR, cursor);
        }
        response
    }
}

/// Reads pages of one output.
struct Reader<'a> {
    ring: &'a Output,
    bytes_max: usize,
    metrics: &'a OutputMetrics,
}

impl Reader<'_> {
    fn read(&self, cursor: &Cursor, events_max: usize, bytes: usize) -> Result<Page, Error> {
        self.ring
            .read_limited(cursor, events_max, bytes)
            .map_err(|trimmed| Error::Trimmed { oldest: trimmed.oldest.to_string() })
    }

    /// A page of frames: handles of what is kept, nothing is copied.
    fn frames(&self, cursor: &Cursor, events_max: usize) -> Result<Filled, Error> {
        let page = self.read(cursor, events_max, self.bytes_max)?;
        let events = page.chunks.iter().map(|chunk| chunk.take as u64).sum();
        let pieces: VecDeque<_> =
            page.chunks.iter().map(|chunk| chunk.to_frame().bytes().clone()).collect();
        self.metrics.read_bytes.add(pieces.iter().map(|piece| piece.len() as u64).sum());
        Ok(Filled { pieces, events, next: page.next })
    }

    /// A page of lines, made in steps.
    async fn lines(
        &self,
        cursor: &Cursor,
        events_max: usize,
        renderer: &Renderer<'_>,
    ) -> Result<Filled, Error> {
        let mut filled = Filled { next: cursor.clone(), ..Filled::default() };
        let mut bytes = 0;
        let mut left = events_max;
        while left > 0 && bytes < self.bytes_max {
            let page = match self.read(&filled.next, left, STEP_BYTES) {
                Ok(page) => page,
                // What was read before is good; the reader learns of the gap next time.
                Err(_) if filled.events > 0 => break,
                Err(error) => return Err(error),
            };
            filled.next = page.next;
            if page.chunks.is_empty() {
                break;
            }
            let mut out = Vec::new();
            for chunk in &page.chunks {
                renderer.chunk(chunk, &mut out);
                filled.events += chunk.take as u64;
                left -= chunk.take;
            }
            bytes += out.len();
            filled.pieces.push_back(Bytes::from(out));
            tokio::task::yield_now().await;
        }
        self.metrics.read_bytes.add(bytes as u64);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::{FrameBuilder, Head};

    use super::*;

    fn ring() -> Output {
        let ring = Output::new(1, 100_000, 1);
        let mut builder = FrameBuilder::new();
        builder.push(&Head::data(1), b"k", b"1", &[]);
        ring.append(0, &builder.finish());
        ring
    }

    fn ask(query: &str, list: &[(&'static str, &str)]) -> Result<Asked, &'static str> {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
        };
        let headers = list.iter().map(pair).collect();
        let wait_max = Duration::from_secs(60);
        Asked::read(Some(query), &headers, &ring(), wait_max).map_err(|error| {
            use sluicebox_core::error::Classify;
            error.code()
        })
    }

    fn asked(query: &str) -> Result<Asked, &'static str> {
        ask(query, &[])
    }

    #[test]
    fn the_query_says_from_where_how_much_and_how_long() {
        let all = asked("cursor=latest&limit=5&wait=2s").expect("good");
        assert_eq!(all.cursor, ring().latest());
        assert_eq!((all.events_max, all.wait), (5, Duration::from_secs(2)));
        let none = asked("").expect("good");
        assert_eq!((none.cursor, none.wait), (Cursor::OLDEST, Duration::ZERO));
        let text = ring().latest().to_string();
        assert_eq!(asked(&format!("cursor={text}")).expect("good").cursor, ring().latest());
        for (bad, code) in [
            ("cursor=%21", "output.cursor"),
            ("limit=0", "request.query"),
            ("limit=-1", "request.query"),
            ("wait=2h", "request.query"),
            ("curser=x", "request.query"),
        ] {
            assert_eq!(asked(bad).map(drop), Err(code), "{bad}");
        }
    }

    #[test]
    fn what_is_accepted_decides_the_form() {
        let form = |text| {
            let value = HeaderValue::from_static(text);
            Form::of(&[(ACCEPT, value)].into_iter().collect())
        };
        assert_eq!(form("application/vnd.sluicebox.frame"), Form::Frames);
        assert_eq!(form("text/html, Application/vnd.sluicebox.FRAME;q=0.9"), Form::Frames);
        assert_eq!(form("Text/Event-Stream"), Form::ServerSent);
        assert_eq!(form("text/event-stream, application/vnd.sluicebox.frame"), Form::ServerSent);
        assert_eq!((form("*/*"), form("application/x-ndjson")), (Form::Lines, Form::Lines));
    }

    #[test]
    fn a_client_that_was_cut_off_goes_on_behind_what_it_saw() {
        let accept = ("accept", "text/event-stream");
        let latest = ring().latest().to_string();
        let seen = ask("cursor=oldest", &[accept, ("last-event-id", &latest)]).expect("good");
        assert_eq!(seen.cursor, ring().latest());
        let empty = ask("cursor=latest", &[accept, ("last-event-id", "")]).expect("good");
        assert_eq!(empty.cursor, ring().latest());
        let page = ask("", &[("last-event-id", &latest)]).expect("good");
        assert_eq!(page.cursor, Cursor::OLDEST, "a page is asked for by its cursor");
        assert_eq!(ask("", &[accept, ("last-event-id", "!")]).map(drop), Err("output.cursor"));
        assert_eq!(ask("wait=1s", &[accept]).map(drop), Err("request.query"));
    }
}
