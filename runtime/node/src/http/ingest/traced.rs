//! What is seen of an ingest request whose trace is kept, and by which traces its events go on.
//!
//! - It is decided once for a request, and for each event that names a trace of its own, which
//!   counts before that of the request.
//! - Of a request that is kept only the first few events are followed: the others go on in the same
//!   trace as not kept, or without one.
//! - What is not kept here is said so to whoever comes behind: a flag of a client goes no further
//!   than its tenant may have traced.
//! - Its span is told, whatever becomes of the request: what its events caused hangs on it. Of a
//!   client that is gone before the answer it has no status.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use http::{Method, StatusCode};
use sluicebox_core::frame::TraceContext;
use sluicebox_core::ids::Name;

use super::trace;
use crate::http::text::now_micros;
use crate::running::Running;
use crate::traces::otlp::{Kind, Span};
use crate::traces::{Begun, EVENTS_MAX, TenantTraces};

/// See the module.
#[derive(Debug)]
pub(in crate::http) struct Traced {
    traces: Arc<TenantTraces>,
    pipeline: Name,
    /// Its span, if it is kept.
    begun: Option<Begun>,
    began: u64,
    /// Fields of its events, and of those that are not followed any more.
    fields: Vec<u8>,
    others: Vec<u8>,
    /// Events that may still be followed.
    left: Cell<usize>,
    events: Cell<u64>,
    /// Of events with a trace of their own.
    own: RefCell<Vec<Begun>>,
    /// When it began to wait for the disk, and when it ended.
    synced: Cell<Option<(u64, u64)>>,
}

impl Traced {
    /// Of a request that comes with `from`; none where nobody wants traces.
    pub(in crate::http) fn begin(running: &Running, from: Option<TraceContext>) -> Option<Self> {
        let traces = Arc::clone(running.shared().tenant.traces()?);
        let begun = traces.begin(from);
        let not_kept = from.map(|from| from.kept(false));
        let others = trace::packed(not_kept);
        let fields = begun.map_or_else(|| others.clone(), |begun| trace::packed(Some(begun.own)));
        Some(Self {
            traces,
            pipeline: running.name().clone(),
            begun,
            began: now_micros(),
            fields,
            others,
            left: Cell::new(EVENTS_MAX),
            events: Cell::new(0),
            own: RefCell::default(),
            synced: Cell::new(None),
        })
    }

    /// The fields of events of this request that are followed, or of all if it is not kept.
    pub(in crate::http) fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Its events are read from the beginning.
    pub(super) fn again(&self) {
        self.left.set(EVENTS_MAX);
        self.own.borrow_mut().clear();
    }

    /// The fields of the next event, of those that one that is followed has.
    pub(super) fn of_next<'a>(&'a self, followed: &'a [u8]) -> &'a [u8] {
        if self.begun.is_none() || self.takes_one() { followed } else { &self.others }
    }

    /// The trace of an event that names its own.
    pub(super) fn of_own(&self, own: TraceContext) -> TraceContext {
        let is_wanted = own.is_sampled() && self.takes_one();
        let begun = is_wanted.then(|| self.traces.begin(Some(own))).flatten();
        let Some(begun) = begun else { return own.kept(false) };
        self.own.borrow_mut().push(begun);
        begun.own
    }

    fn takes_one(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// So many events were handed in.
    pub(super) fn handed_in(&self, events: usize) {
        self.events.set(events as u64);
    }

    /// It waited for the disk since then.
    pub(super) fn synced(&self, since: u64) {
        self.synced.set(Some((since, now_micros())));
    }

    /// The request has been answered so.
    pub(super) fn end(mut self, status: StatusCode, error: Option<&'static str>) {
        self.tell(Some(status), error);
    }

    /// Tells its spans, once.
    fn tell(&mut self, status: Option<StatusCode>, error: Option<&'static str>) {
        let (now, pipeline) = (now_micros(), self.pipeline.as_str());
        let mut spans = Vec::new();
        if let Some(begun) = self.begun.take() {
            spans.push(self.request(begun, (now, status, error)));
            let synced = self.synced.get();
            if let Some((times, id)) = synced.and_then(|times| Some((times, self.traces.span()?))) {
                let contexts = (begun.own.by(id), Some(begun.own.span));
                let span = Span::new(contexts, "sync".to_owned(), Kind::Internal, times);
                spans.push(span.with("sluicebox.pipeline", pipeline));
            }
        }
        for begun in self.own.take() {
            let name = format!("create {pipeline}");
            let span = begun.span(name, Kind::Producer, (self.began, now));
            let span = span.with("messaging.operation.type", "create");
            spans.push(described(span, pipeline).failed(error.filter(|_| status.is_some())));
        }
        if !spans.is_empty() {
            self.traces.record(spans);
        }
    }

    fn request(
        &self,
        begun: Begun,
        (now, status, error): (u64, Option<StatusCode>, Option<&'static str>),
    ) -> Span {
        const ROUTE: &str = "/v1/tenants/{tenant}/pipelines/{pipeline}/events";
        let name = format!("POST {ROUTE}");
        let mut span = begun
            .span(name, Kind::Server, (self.began, now))
            .with("http.request.method", Method::POST.as_str())
            .with("http.route", ROUTE)
            .with("messaging.operation.type", "send")
            .with("messaging.batch.message_count", self.events.get());
        if let Some(status) = status {
            span.set("http.response.status_code", u64::from(status.as_u16()));
        }
        if let Some(code) = error {
            span.set("error.type", code);
        }
        // What a client did wrong is no failure of the server's.
        let failed = error.filter(|_| status.is_some_and(|status| status.is_server_error()));
        described(span, self.pipeline.as_str()).failed(failed)
    }
}

/// What became of a request whose client did not wait for the answer.
const GONE: &str = "client.gone";

impl Drop for Traced {
    fn drop(&mut self) {
        self.tell(None, Some(GONE));
    }
}

fn described(span: Span, pipeline: &str) -> Span {
    span.with("messaging.system", "sluicebox")
        .with("messaging.destination.name", pipeline)
        .with("sluicebox.pipeline", pipeline)
}
