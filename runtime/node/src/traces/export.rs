//! Takes finished spans to the collector: one thread, one batch at a time, each for a bounded time.
//!
//! - A batch goes when it is full, or after a while. What the collector is too busy for is sent
//!   again, later each time; after [`Otlp::export_time_max`] it is given up and counted.
//! - Meanwhile spans pile up in the queue to its bound, and then are dropped and counted there.
//! - Nothing of this is waited for by a worker; a node that ends waits for a few seconds at most.

mod collector;
mod front;
mod trust;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;

use self::collector::{Answer, Collector};
use super::otlp::{ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use super::queue::Queue;
use crate::config::{Config, Otlp};
use crate::error::Error;

/// How long what is left is sent when the node ends.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// How long it waits until it sends a batch again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Who takes what was seen.
#[derive(Debug)]
enum To {
    Collector(Box<Collector>),
    /// The front of a tenant's process, once it is known by which way.
    Front(Option<OwnedFd>),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collector(collector) => write!(f, "{collector}"),
            Self::Front(_) => f.write_str("the front"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Arc<Queue>,
    to: To,
    resource: Resource,
    scope: Scope,
    delay: Duration,
    export_time_max: Duration,
    /// The node ends: from then on there is so much time.
    ends: Option<Instant>,
    /// The last batch did not get there, which was said.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(config: &Config, otlp: &Otlp, queue: Arc<Queue>) -> Result<Self, Error> {
        let own = otlp.collector.iter().flat_map(|collector| &collector.resource);
        let own = own.map(|(key, value)| KeyValue::new(key, value.as_str()));
        let mut attributes: Vec<KeyValue> = own.collect();
        let mut usual = |key: &str, value: &str| {
            if attributes.iter().all(|known| known.key != key) {
                attributes.push(KeyValue::new(key, value));
            }
        };
        usual("service.name", "sluicebox");
        usual("service.version", env!("CARGO_PKG_VERSION"));
        if let Some(node) = &config.cluster.node {
            usual("service.instance.id", node.as_str());
        }
        let scope =
            Scope { name: "sluicebox".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let to = match &otlp.collector {
            Some(collector) => To::Collector(Box::new(Collector::new(collector)?)),
            None => To::Front(None),
        };
        Ok(Self {
            queue,
            to,
            resource: Resource { attributes },
            scope,
            delay: otlp.delay,
            export_time_max: otlp.export_time_max,
            ends: None,
            failing: false,
        })
    }

    /// The front takes what was seen, by this way.
    pub(crate) fn by_front(self, control: OwnedFd) -> Self {
        Self { to: To::Front(Some(control)), ..self }
    }

    /// Works until it is told to end, and a little longer. To be run on a thread of its own.
    pub(crate) fn run(self, stop: watch::Receiver<bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build();
        match runtime {
            Ok(runtime) => {
                tokio::task::LocalSet::new().block_on(&runtime, self.serve(stop));
                // A name that is still looked up is waited for by nobody.
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "no traces are sent"),
        }
    }

    async fn serve(mut self, mut stop: watch::Receiver<bool>) {
        while self.ends.is_none() {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => self.end(),
                () = self.queue.filled() => {}
                () = tokio::time::sleep(self.delay) => {}
            }
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                self.export(spans, &mut stop).await;
                if self.ends.is_none() && !self.queue.has_batch() {
                    break;
                }
            }
        }
    }

    /// From now on there is little time.
    fn end(&mut self) {
        self.ends.get_or_insert_with(|| Instant::now() + FLUSH_TIME_MAX);
    }

    /// Sends a batch, again and again if that may help.
    async fn export(&mut self, spans: Vec<Span>, stop: &mut watch::Receiver<bool>) {
        let count = spans.len() as u64;
        if let To::Front(control) = &self.to {
            let end = self.ends.unwrap_or_else(|| Instant::now() + self.export_time_max);
            let handed = tokio::time::timeout_at(end, front::hand_on(control.as_ref(), spans));
            let lost = handed.await.unwrap_or(count);
            self.queue.metrics.exported.add(count - lost);
            return self.queue.metrics.dropped.add("export", lost);
        }
        let body = self.body(spans);
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let end = began + self.export_time_max;
            let end = self.ends.map_or(end, |ends| end.min(ends));
            let To::Collector(collector) = &mut self.to else { return };
            let answer = tokio::select! {
                // Whoever has an answer need not be hurried.
                biased;
                answer = tokio::time::timeout_at(end, collector.send(&body)) => Some(answer),
                () = stopped(stop), if self.ends.is_none() => None,
            };
            let (why, after) = match answer {
                Some(Ok(Answer::Taken { rejected, why })) => {
                    return self.taken((count, rejected), &why);
                }
                Some(Ok(Answer::Refused(why))) => return self.lost(count, &why),
                Some(Ok(Answer::Later { why, after })) => (why, after),
                Some(Err(_)) => ("it took too long".to_owned(), None),
                None => {
                    // Begun anew, with less time.
                    self.end();
                    continue;
                }
            };
            // Not all nodes at once.
            let spread = pause.mul_f64(0.5 + f64::from(began.elapsed().subsec_nanos() % 512) / 1e3);
            let next = Instant::now() + after.map_or(spread, |after| after.max(spread));
            if next >= end {
                return self.lost(count, &why);
            }
            self.queue.metrics.again.inc();
            tracing::debug!("traces are sent again: {why}");
            tokio::select! {
                biased;
                () = stopped(stop), if self.ends.is_none() => self.end(),
                () = tokio::time::sleep_until(next) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn body(&self, spans: Vec<Span>) -> Bytes {
        let scope_spans = vec![ScopeSpans { scope: Some(self.scope.clone()), spans }];
        let resource = Some(self.resource.clone());
        let request =
            ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] };
        request.encode_to_vec().into()
    }

    fn taken(&mut self, (count, rejected): (u64, u64), why: &str) {
        let metrics = &self.queue.metrics;
        metrics.exported.add(count.saturating_sub(rejected));
        if rejected > 0 {
            metrics.dropped.add("rejected", rejected.min(count));
            tracing::debug!(rejected, "the collector did not take all spans: {why}");
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("traces are taken again");
        }
    }

    fn lost(&mut self, count: u64, why: &str) {
        self.queue.metrics.dropped.add("export", count);
        // Once, or there would be as many lines as batches.
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("traces do not get to {}: {why}", self.to);
        }
    }
}

/// Returns when it is told to end, or nobody could tell it any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Either is an end.
    let _either = stop.wait_for(|stop| *stop).await;
}
