//! Events come in: one as the body, NDJSON, CloudEvents, or packed frames.
//!
//! In order: may this tenant, is there such a pipeline, has it room, is there quota, is the body
//! small enough and is there memory for it. Only then is the body read. Keeps true:
//!
//! - A request is taken whole or not at all, except that bad lines are left out and reported by
//!   number, and that events which are known by their ids are taken once.
//! - No request holds its worker for long: a large body is taken in steps, and others run between.
//! - What the events of all requests take while they are being read is bounded for the node.
//! - A pipeline without room is waited for briefly, then the client is told when to try again.
//!
//! The forms are read by the files beside this one, which know nothing of HTTP bodies or nodes.

mod asked;
mod cloudevents;
pub(crate) mod feed;
mod form;
mod frames;
mod key;
mod ndjson;
mod result;
pub(super) mod single;
mod structured;
mod submit;
#[cfg(test)]
mod tests;
pub(super) mod trace;
mod traced;
pub(super) mod unit;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use sluicebox_core::error::Classify;
use sluicebox_core::frame::Head;
use sluicebox_core::quota::Resource;

use super::auth::Caller;
use super::body::{self, Body};
use super::coding::{self, Coding};
use super::respond;
use super::server::Edge;
use super::text::now_micros;
use crate::admission::Held;
use crate::error::{Error, LineError};
use crate::running::{Intake, Running};
use asked::Asked;
use form::Form;
pub(super) use form::{FRAME, is_lines};
use frames::Frames;
use key::Rules;
use ndjson::Lines;
use structured::{Batch, EventLines, Known};
use submit::Handed;
use traced::Traced;

/// Mistakes that a reply lists; the rest are counted.
const ERRORS_MAX: usize = 32;

/// Mistakes after which a request is refused whole, so that nonsense costs little.
const REJECTED_MAX: u64 = 10_000;

/// Events, or bytes, taken between two looks at what else the worker has to do. Either is well
/// under a millisecond.
const STEP_EVENTS: usize = 2048;
const STEP_BYTES: usize = 128 * 1024;

/// How long a request waits for room before its client is sent away.
const PATIENCE: Duration = Duration::from_millis(80);

/// How long it waits for the next version of a pipeline that is being replaced, and how often it
/// looks; a replacement takes milliseconds.
const REPLACE_PATIENCE: Duration = Duration::from_secs(2);
pub(super) const REPLACE_POLL: Duration = Duration::from_millis(2);

/// What an event takes in memory besides its payload, roughly: its head and a short key.
const EVENT_OVERHEAD_BYTES: usize = 48;

/// Name of the output that answers requests which wait for a result.
pub(super) const REPLY: &str = "reply";

/// Where the forms put their events.
trait Sink {
    /// Takes one event; its parts keep the format's limits.
    fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]);
}

impl Sink for Intake {
    #[inline]
    fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        Self::push(self, head, key, payload, fields);
    }
}

/// Why an event is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Request { code: fault.code, message: fault.message }
    }
}

/// Whether a form has more events to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Done,
}

/// What became of the events of a request.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    /// Taken before, and not again.
    duplicates: u64,
    rejected: u64,
    errors: Vec<LineError>,
    /// For the metrics.
    codes: BTreeMap<&'static str, u64>,
}

impl Tally {
    #[cold]
    fn reject(&mut self, line: u64, fault: Fault) {
        self.rejected += 1;
        *self.codes.entry(fault.code).or_default() += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(LineError { line, code: fault.code, message: fault.message });
        }
    }

    /// So many mistakes that this is not what it says it is.
    fn is_hopeless(&self) -> bool {
        self.rejected > REJECTED_MAX
    }
}

/// One ingest request.
pub(super) async fn handle(
    edge: &Rc<Edge>,
    caller: &Caller,
    pipeline: &str,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let started = Instant::now();
    let running = current(edge, caller, pipeline)?;
    let metrics = Arc::clone(running.metrics());
    let known = Known::default();
    let traced = Traced::begin(&running, trace::of_request(request.headers()));
    let of = traced.as_ref();
    let call = Call { edge, caller, pipeline, running, started, spent: false, known, traced: of };
    let result = call.run(request).await;
    if let Some(traced) = traced {
        let (status, error) = match &result {
            Ok((response, _)) => (response.status(), None),
            Err(error) => (respond::status_of(error), Some(error.code())),
        };
        traced.end(status, error);
    }
    match &result {
        Ok((_, true)) => metrics.requests_accepted.inc(),
        Ok((_, false)) => metrics.requests.add("partly", 1),
        Err(error) => metrics.requests.add(error.code(), 1),
    }
    result.map(|(response, _)| response)
}

/// The version of a pipeline that runs now.
pub(super) fn current(edge: &Edge, caller: &Caller, pipeline: &str) -> Result<Arc<Running>, Error> {
    let found = edge.node().running(&caller.identity.tenant, pipeline);
    found.ok_or_else(|| edge.node().no_pipeline(&caller.identity.tenant, pipeline))
}

/// What the steps of a request share.
struct Call<'a> {
    edge: &'a Rc<Edge>,
    caller: &'a Caller,
    pipeline: &'a str,
    /// The version that gets the events; another one if it is replaced meanwhile.
    running: Arc<Running>,
    started: Instant,
    /// The quota was drawn from.
    spent: bool,
    /// Events of it that were taken before.
    known: Known,
    /// What is seen of it, where somebody wants traces.
    traced: Option<&'a Traced>,
}

impl Call<'_> {
    /// The response, and whether everything was accepted.
    async fn run(
        mut self,
        request: http::Request<Incoming>,
    ) -> Result<(Response<Body>, bool), Error> {
        let node = self.edge.node();
        if node.draining() {
            return Err(Error::Draining);
        }
        let (parts, incoming) = request.into_parts();
        let asked = Asked::read(&parts, node.config().http.wait_time_max)?;
        let form = Form::of(&parts.headers)?;
        let coding = Coding::of(&parts.headers)?;
        if asked.wait.is_some() && !form.is_one_event() {
            let message = "a request can wait for the result of one event, not of a batch";
            return Err(Error::request("request.wait", message));
        }
        self.room().await?;
        if !form.is_one_event() && self.running.is_crowded() {
            return Err(self.full(Duration::from_secs(1)));
        }
        self.running.check_disk()?;
        self.caller.account.look(&[Resource::Events, Resource::Bytes])?;
        let (body, mut held) = body::collect(self.edge, &parts.headers, incoming).await?;
        let body_bytes_max = node.config().http.body_bytes_max;
        let body = coding::expand((body, coding), body_bytes_max, &mut held).await?;
        let host_fields = match self.traced {
            Some(traced) => traced.fields().to_vec(),
            None => trace::packed(trace::of_request(&parts.headers)),
        };
        let request = Request { parts: &parts, form, asked: &asked, body: &body };
        if let Some(wait) = asked.wait {
            let waiting = self.hand_in(request, host_fields).await?;
            // The event is on its way; what it came in need not wait with the client.
            drop((body, held));
            let response = self.result(waiting, wait).await;
            let took = self.started.elapsed();
            node.metrics().node().wait_latency.observe(took);
            self.running.metrics().wait_latency.observe(took);
            return Ok((response?, true));
        }
        let _turn = match form.is_one_event() {
            true => None,
            false => match self.running.turn(PATIENCE).await {
                Some(turn) => Some(turn),
                None => return Err(self.full(Duration::from_secs(1))),
            },
        };
        let tally = loop {
            if let Some(tally) = self.take(request, &host_fields, &mut held).await? {
                break tally;
            }
            self.room().await?;
        };
        let took = self.started.elapsed();
        node.metrics().node().ingest_latency.observe(took);
        self.running.metrics().ingest_latency.observe(took);
        Ok((accepted(&tally), tally.rejected == 0))
    }

    /// Takes the events of a body and hands them in; `None` if the pipeline was replaced just then.
    async fn take(
        &mut self,
        request: Request<'_>,
        host_fields: &[u8],
        held: &mut Held,
    ) -> Result<Option<Tally>, Error> {
        let identity = submit::identity(&request.parts.headers, request.form.knows_by_id())?;
        let mut intake = Intake::new(&self.running, identity);
        let mut tally = Tally::default();
        self.fill(request, host_fields, (&mut intake, &mut tally, held)).await?;
        self.count_rejected(&tally);
        if tally.rejected > 0 && request.form.is_whole() {
            return Err(Error::Rejected { errors: tally.errors, rejected: tally.rejected });
        }
        if intake.is_empty() {
            return Err(nothing_taken(tally));
        }
        let submitted = match self.submit(intake, request.body).await? {
            Handed::Over(submitted) => submitted,
            Handed::Replaced => return Ok(None),
            Handed::Known(before) => {
                self.known.before.extend(before);
                return Ok(None);
            }
        };
        self.running.metrics().duplicates.add(tally.duplicates);
        if self.acknowledge(submitted).await? {
            tally.duplicates += std::mem::take(&mut tally.accepted);
        }
        Ok(Some(tally))
    }

    /// Reads the events of a body.
    async fn fill(
        &mut self,
        request: Request<'_>,
        host_fields: &[u8],
        (intake, tally, held): (&mut Intake, &mut Tally, &mut Held),
    ) -> Result<(), Error> {
        if let Some(traced) = self.traced {
            traced.again();
        }
        let mut known = std::mem::take(&mut self.known);
        known.begin(self.running.is_logged());
        let rules = self.rules(&request, host_fields);
        let body = request.body;
        let mut reader = match request.form {
            Form::Lines => Reader::Lines(Lines::new(body)),
            Form::Frames => Reader::Frames(Frames::new(body)),
            Form::Batch => Reader::Batch(Batch::new(body)?),
            Form::EventLines => Reader::EventLines(EventLines::new(body)),
            Form::CloudEvent | Form::Structured | Form::Single => {
                request.take_one(&rules, intake)?;
                tally.accepted = 1;
                return Ok(());
            }
        };
        loop {
            let step = match &mut reader {
                Reader::Lines(lines) => lines.step(&rules, intake, tally),
                Reader::Frames(frames) => frames.step(&rules, intake, tally)?,
                Reader::Batch(batch) => batch.step((&rules, &mut known), intake, tally)?,
                Reader::EventLines(lines) => lines.step((&rules, &mut known), intake, tally),
            };
            if step == Step::Done {
                break;
            }
            self.between_steps(intake, tally, (&mut *held, body.len())).await?;
        }
        self.known = known;
        Ok(())
    }

    fn rules<'r>(&'r self, request: &'r Request<'_>, host_fields: &'r [u8]) -> Rules<'r> {
        let ingest = &self.running.pipeline().ingest;
        Rules {
            pointer: ingest.key.as_ref(),
            request_key: request.asked.key.as_deref(),
            time: ingest.time.as_ref().map(|pointer| (pointer, ingest.time_unit)),
            event_bytes_max: self.running.event_bytes_max(),
            received: now_micros(),
            host_fields,
            traced: self.traced,
        }
    }

    /// Lets others run, after a look at what the request has come to.
    async fn between_steps(
        &self,
        intake: &Intake,
        tally: &Tally,
        (held, body_bytes): (&mut Held, usize),
    ) -> Result<(), Error> {
        if tally.is_hopeless() {
            self.count_rejected(tally);
            return Err(Error::Rejected { errors: tally.errors.clone(), rejected: tally.rejected });
        }
        // Many tiny events take far more memory than the body they came in.
        let each = intake.bytes() + intake.len() * EVENT_OVERHEAD_BYTES;
        let wanted = (body_bytes + intake.copies() * each).saturating_sub(held.bytes());
        if wanted > 0 && !held.grow(wanted) {
            return Err(body::no_memory());
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Waits a little until the pipeline has room; goes on with the next version if it is replaced.
    async fn room(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        while !self.running.has_room() {
            let paused = self.running.is_paused();
            let end = begun + if paused { REPLACE_PATIENCE } else { PATIENCE };
            if Instant::now() >= end {
                if !paused {
                    self.running.metrics().refused.inc();
                }
                return Err(self.full(Duration::from_secs(1)));
            }
            if paused {
                tokio::time::sleep(REPLACE_POLL).await;
                self.running = current(self.edge, self.caller, self.pipeline)?;
            } else {
                // What counts is the look at the head of the loop.
                let _either = tokio::time::timeout_at(end.into(), self.running.room()).await;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn full(&self, retry_after: Duration) -> Error {
        Error::Busy { what: "the pipeline", retry_after }
    }

    fn count_rejected(&self, tally: &Tally) {
        for (code, count) in &tally.codes {
            self.running.metrics().rejected.add(code, *count);
        }
    }
}

/// Reads the events of a body one after another.
enum Reader<'a> {
    Lines(Lines<'a>),
    Frames(Frames<'a>),
    Batch(Batch<'a>),
    EventLines(EventLines<'a>),
}

/// A request whose body is there.
#[derive(Clone, Copy)]
struct Request<'a> {
    parts: &'a http::request::Parts,
    form: Form,
    asked: &'a Asked<'a>,
    body: &'a Bytes,
}

impl Request<'_> {
    fn take_one(&self, rules: &Rules<'_>, sink: &mut impl Sink) -> Result<(), Fault> {
        match self.form {
            Form::CloudEvent => cloudevents::parse(&self.parts.headers, self.body, rules, sink),
            Form::Structured => structured::parse(self.body, rules, sink),
            _ => single::parse(&self.parts.headers, self.body, rules, sink),
        }
    }
}

fn nothing_taken(tally: Tally) -> Error {
    if tally.rejected == 0 {
        return Error::request("ingest.empty", "the body holds no event");
    }
    Error::Rejected { errors: tally.errors, rejected: tally.rejected }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

/// `202`, with what was left out.
fn accepted(tally: &Tally) -> Response<Body> {
    #[derive(serde::Serialize)]
    struct Accepted<'a> {
        accepted: u64,
        #[serde(skip_serializing_if = "is_none")]
        duplicates: u64,
        rejected: u64,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        errors: &'a [LineError],
    }
    let Tally { accepted, duplicates, rejected, .. } = *tally;
    let reply = Accepted { accepted, duplicates, rejected, errors: &tally.errors };
    respond::json(StatusCode::ACCEPTED, &reply)
}
