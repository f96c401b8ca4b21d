//! Traces: which events are followed through their stages, and what was seen of them.
//!
//! - An event says itself whether its trace is kept (`sluicebox_core::frame::TraceContext`), and is
//!   asked only where somebody wants traces and its frame has fields at all.
//! - Who comes in is decided once, by [`Sampler`] and within what the tenant may keep in a second:
//!   what a client asks for is not what it gets without end.
//! - A span is paid for before events go on by it, so that what is kept hangs together.
//! - Finished spans wait in a queue with a bound; what finds no room is dropped and counted. Nobody
//!   waits for whoever takes them.
//!
//! Made of events by `http/ingest/traced.rs` and `worker/spans.rs`; taken away by `export`. Without
//! a collector (`config/traces.rs`) there is nothing of this.

mod budget;
mod export;
pub(crate) mod otlp;
mod queue;
mod sampler;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluicebox_core::frame::TraceContext;
use sluicebox_core::ids::Name;

use crate::config::{Config, Otlp};
use crate::error::Error;
use crate::mailbox::lock;
use crate::metrics::Metrics;
pub(crate) use budget::Budget;
use export::Exporter;
use otlp::Span;
use queue::Queue;
pub use sampler::Sampler;

/// Events of one request, or of one call, that have spans of their own; others go on in the trace
/// as they are, or not at all.
pub(crate) const EVENTS_MAX: usize = 16;

/// Spans of one batch, its calls that are made again included.
pub(crate) const BATCH_SPANS_MAX: usize = 128;

/// After so many it tells of no more calls: its commit and what leaves are to be seen as well.
pub(crate) const CALL_SPANS_MAX: usize = BATCH_SPANS_MAX - 2 * EVENTS_MAX;

/// Bytes of a text in a span that somebody else wrote.
const TEXT_BYTES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Traces {
    sampler: Sampler,
    queue: Arc<Queue>,
    sampled_per_second: u32,
    spans_per_second: u32,
    ids: Ids,
    /// Until its thread is started.
    exporter: Mutex<Option<Exporter>>,
}

/// Ids of spans and traces: who sees some does not know the others, or how many there were.
#[derive(Debug)]
struct Ids {
    key: RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> u64 {
        // All zeros are no id.
        self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed)).max(1)
    }
}

impl Traces {
    /// The traces of a node; none if nobody wants them.
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Result<Option<Arc<Self>>, Error> {
        let Some(otlp) = &config.otlp else { return Ok(None) };
        let Otlp { queue_max, batch_max, sampler, .. } = otlp;
        let queue = Arc::new(Queue::new(*queue_max, *batch_max, metrics.traces()));
        let exporter = Exporter::new(config, otlp, Arc::clone(&queue))?;
        let traces = Self {
            sampler: *sampler,
            queue,
            sampled_per_second: config.traces.sampled_per_second,
            spans_per_second: config.traces.spans_per_second,
            ids: Ids { key: RandomState::new(), count: AtomicU64::new(0) },
            exporter: Mutex::new(Some(exporter)),
        };
        Ok(Some(Arc::new(traces)))
    }

    /// Whoever takes them away, once.
    pub(crate) fn take_exporter(&self) -> Option<Exporter> {
        lock(&self.exporter).take()
    }

    /// Those of one tenant.
    pub(crate) fn of_tenant(self: &Arc<Self>, tenant: &Name) -> Arc<TenantTraces> {
        Arc::new(TenantTraces {
            traces: Arc::clone(self),
            tenant: tenant.clone(),
            sampled: Budget::new(self.sampled_per_second),
            spans: Budget::new(self.spans_per_second),
        })
    }
}

/// The traces of one tenant, and what it may keep.
#[derive(Debug)]
pub(crate) struct TenantTraces {
    traces: Arc<Traces>,
    tenant: Name,
    sampled: Budget,
    spans: Budget,
}

/// What came in goes on by a span of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    /// By which it goes on.
    pub(crate) own: TraceContext,
    /// The span of whoever sent it.
    pub(crate) parent: Option<[u8; 8]>,
}

impl Begun {
    /// Its span, which has ended now.
    pub(crate) fn span(&self, name: String, kind: otlp::Kind, times: (u64, u64)) -> Span {
        Span::new((self.own, self.parent), name, kind, times)
    }
}

impl TenantTraces {
    /// Decides whether what comes in with `from` is followed, and begins its span.
    pub(crate) fn begin(&self, from: Option<TraceContext>) -> Option<Begun> {
        let Traces { sampler, queue, ids, .. } = &*self.traces;
        let trace = from.map_or_else(
            || (u128::from(ids.next()) << 64 | u128::from(ids.next())).to_be_bytes(),
            |from| from.trace,
        );
        if !sampler.keeps(from, &trace) {
            return None;
        }
        if !self.sampled.draw() {
            queue.metrics.refused.inc();
            return None;
        }
        let span = self.span()?;
        queue.metrics.sampled.inc();
        let flags = from.map_or(0, |from| from.flags);
        let own = TraceContext { trace, span, flags }.kept(true);
        Some(Begun { own, parent: from.map(|from| from.span) })
    }

    /// The id of a span that will be recorded, if the tenant may have one more.
    pub(crate) fn span(&self) -> Option<[u8; 8]> {
        if self.spans.draw() {
            return Some(self.traces.ids.next().to_be_bytes());
        }
        self.left_out("tenant", 1);
        None
    }

    /// So many spans were not made.
    pub(crate) fn left_out(&self, why: &'static str, spans: usize) {
        if spans > 0 {
            self.traces.queue.metrics.dropped.add(why, spans as u64);
        }
    }

    /// Finished spans are to be taken away.
    pub(crate) fn record(&self, mut spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        for span in &mut spans {
            span.set("sluicebox.tenant", self.tenant.as_str());
        }
        self.traces.queue.push(spans);
    }
}

/// A text that somebody else wrote, cut.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()))]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tenant that may keep so many traces and spans in a second.
    pub(crate) fn tenant(sampler: Sampler, (sampled, spans): (u32, u32)) -> Arc<TenantTraces> {
        let traces = Traces {
            sampler,
            queue: Arc::new(Queue::new(10, 5, Arc::default())),
            sampled_per_second: sampled,
            spans_per_second: spans,
            ids: Ids { key: RandomState::new(), count: AtomicU64::new(7) },
            exporter: Mutex::default(),
        };
        Arc::new(traces).of_tenant(&Name::new("acme").expect("a name"))
    }

    const FROM: TraceContext = TraceContext { trace: [1; 16], span: [2; 8], flags: 3 };

    #[test]
    fn what_comes_in_goes_on_in_its_trace_by_a_span_of_our_own() {
        let tenant = tenant(Sampler::ratio(1.0).of_parent(), (10, 10));
        let begun = tenant.begin(Some(FROM)).expect("it is kept");
        assert_eq!((begun.own.trace, begun.own.flags, begun.parent), ([1; 16], 3, Some([2; 8])));
        assert_ne!(begun.own.span, [2; 8]);
        assert_eq!(tenant.begin(Some(FROM.kept(false))), None);
        let root = tenant.begin(None).expect("it is kept");
        assert!(root.parent.is_none() && root.own.trace != [0; 16] && root.own.is_sampled());
        assert_ne!(tenant.begin(None).expect("kept").own.trace, root.own.trace);
    }

    #[test]
    fn a_client_that_asks_for_everything_gets_what_the_tenant_may_keep() {
        let tenant = tenant(Sampler::ratio(0.0).of_parent(), (3, 1000));
        let kept = (0..1000).filter(|_| tenant.begin(Some(FROM)).is_some()).count();
        // The loop takes far less than a second, in which three more could come.
        assert!((3..=6).contains(&kept), "{kept}");
        let metrics = &tenant.traces.queue.metrics;
        assert_eq!(metrics.sampled.get() + metrics.refused.get(), 1000);
    }

    #[test]
    fn spans_are_bounded_as_well() {
        let tenant = tenant(Sampler::ratio(1.0), (1000, 4));
        let kept = (0..100).filter(|_| tenant.begin(None).is_some()).count();
        assert!((4..=8).contains(&kept), "{kept}");
        let dropped = tenant.traces.queue.metrics.dropped.get();
        assert_eq!(dropped, [("tenant", 100 - kept as u64)]);
    }

    #[test]
    fn a_cut_text_is_text() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(300);
        assert_eq!(cut(&long).len(), TEXT_BYTES_MAX);
        assert_eq!(cut(&long[..2]), "ä");
    }
}
