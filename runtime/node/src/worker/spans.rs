//! What is seen of a batch, for events whose trace is kept: how they came here, the calls they were
//! in, the commit, and what left by it.
//!
//! - Nothing is looked at where nobody wants traces, or in a frame without fields.
//! - A span is of one event. Calls have many, so a call is told once for each of the few of them
//!   that are followed, with how many it had; bounded for a call and for a batch.
//! - What an event of a call causes goes on by the span of that call, which was paid for before. A
//!   call that is taken back is told as such, and made again with the number of the attempt.
//! - What waits for the disk is told when it has come there.

use std::cell::Cell;
use std::sync::Arc;

use sluicebox_core::frame::{Frame, TraceContext};
use sluicebox_core::layer::Layer;
use sluicebox_core::partition::{Verdict, dead_letter_field};
use sluicebox_engine::invoker::Usage;
use sluicebox_store::log::Position;

use super::partition::Driver;
use crate::mailbox::Batch;
use crate::ring::Output;
use crate::running::SegmentRuntime;
use crate::running::event_time::now_micros;
use crate::running::hops::Hop;
use crate::traces::otlp::{Kind, Span};
use crate::traces::{BATCH_SPANS_MAX, CALL_SPANS_MAX, EVENTS_MAX, TenantTraces, cut};

/// What is followed of a batch.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Where its events come from, each once.
    roots: Vec<TraceContext>,
    /// Calls that were taken back: of which stage, with what, how often.
    taken_back: Vec<(usize, TraceContext, u64)>,
    /// Spans so far, of all sorts.
    made: Cell<usize>,
    /// When its commit began; 0: it has not.
    commits_at: u64,
}

impl Followed {
    /// Of a batch that came out of the inbox.
    pub(super) fn of(segment: &SegmentRuntime, batch: &Batch) -> Self {
        let followed = Self::again(segment, &batch.frame);
        if followed.roots.is_empty() || batch.hops.is_empty() {
            return followed;
        }
        let Some(traces) = segment.shared.tenant.traces() else { return followed };
        let mut told: Vec<TraceContext> = Vec::new();
        let mut spans = Vec::new();
        for (event, context) in batch.frame.sampled() {
            if told.len() == followed.roots.len() {
                break;
            }
            if !followed.roots.contains(&context) || told.contains(&context) {
                continue;
            }
            let hop = batch.hops.iter().find(|(range, _)| range.contains(&event));
            let Some((_, hop)) = hop else { continue };
            told.push(context);
            spans.extend(hop_span((segment, traces), context, hop));
        }
        followed.made.set(spans.len());
        traces.record(spans);
        followed
    }

    /// Of one that is run again, or did not come out of the inbox.
    pub(super) fn again(segment: &SegmentRuntime, frame: &Frame) -> Self {
        let mut followed = Self::default();
        let Some(traces) = segment.shared.tenant.traces() else { return followed };
        let mut more = 0;
        for (_, context) in frame.sampled() {
            if followed.roots.contains(&context) {
                continue;
            }
            if followed.roots.len() < EVENTS_MAX {
                followed.roots.push(context);
            } else {
                more += 1;
            }
        }
        traces.left_out("batch", more);
        followed
    }

    /// Its commit begins, or waits on.
    pub(super) fn commits(&mut self, now: impl FnOnce() -> u64) {
        if !self.roots.is_empty() && self.commits_at == 0 {
            self.commits_at = now();
        }
    }

    /// The id of one more span of the batch, if it may have one and has fewer than `most`.
    fn more(&self, traces: &TenantTraces, most: usize) -> Option<[u8; 8]> {
        if self.made.get() >= most {
            traces.left_out("batch", 1);
            return None;
        }
        let span = traces.span()?;
        self.made.set(self.made.get() + 1);
        Some(span)
    }

    /// How often these were in a call of a stage, this one included.
    fn attempt(&self, stage: usize, context: &TraceContext) -> u64 {
        let known = self.taken_back.iter().find(|(at, of, _)| (*at, of) == (stage, context));
        1 + known.map_or(0, |(.., times)| *times)
    }

    fn take_back(&mut self, stage: usize, context: &TraceContext) {
        let known = self.taken_back.iter_mut().find(|(at, of, _)| (*at, *of) == (stage, *context));
        match known {
            Some((.., times)) => *times += 1,
            None => self.taken_back.push((stage, *context, 1)),
        }
    }
}

/// A call, as long as it lasts.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Entered {
    stage: usize,
    /// Events in it.
    events: u64,
    began: u64,
    usage: Usage,
    calls: Vec<Called>,
}

/// The part of one event in a call.
#[derive(Debug)]
struct Called {
    event: u32,
    context: TraceContext,
    span: [u8; 8],
    why: Option<String>,
}

impl Entered {
    /// The call came to this.
    pub(super) fn returned(&mut self, verdict: &Verdict, usage: &Usage) {
        if self.calls.is_empty() {
            return;
        }
        self.usage = *usage;
        for call in &mut self.calls {
            call.why = match verdict {
                Verdict::Returned(failures) => failures
                    .iter()
                    .find(|failure| failure.event == call.event)
                    .map(|failure| cut(&failure.message).to_owned()),
                Verdict::Trapped(text) | Verdict::Lost(text) => Some(cut(text).to_owned()),
            };
        }
    }

    /// The trace of the first event that is followed, for lines of the log.
    pub(super) fn trace(&self) -> Option<String> {
        self.calls.first().map(|call| call.context.trace_text())
    }
}

/// What leaves, until it has left.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Leaving {
    traces: Option<Arc<TenantTraces>>,
    spans: Vec<Span>,
}

impl Leaving {
    fn of(traces: &Arc<TenantTraces>) -> Self {
        Self { traces: Some(Arc::clone(traces)), spans: Vec::new() }
    }

    /// It has.
    pub(super) fn end(mut self) {
        let Some(traces) = self.traces.filter(|_| !self.spans.is_empty()) else { return };
        let now = now_micros() * 1000;
        self.spans.iter_mut().for_each(|span| span.end_nanos = now.max(span.start_nanos));
        traces.record(self.spans);
    }
}

impl Driver {
    /// A call begins: chooses of which of its events it is told, and by which spans they go on.
    pub(super) fn enter(&mut self, stage: usize, layer: &mut Layer) -> Entered {
        let mut entered = Entered::default();
        let Some(traces) = self.segment.shared.tenant.traces() else { return entered };
        if layer.frame().is_plain() {
            return entered;
        }
        let (mut more, mut unpaid) = (0, 0);
        for (event, context) in layer.frame().sampled() {
            if unpaid > 0 {
                // Asked for again it would be refused again, and each time there is a lock.
                unpaid += 1;
            } else if entered.calls.len() >= EVENTS_MAX || self.spans.made.get() >= CALL_SPANS_MAX {
                more += 1;
            } else if let Some(span) = self.spans.more(traces, CALL_SPANS_MAX) {
                entered.calls.push(Called { event, context, span, why: None });
            } else {
                unpaid = 1;
            }
        }
        traces.left_out("batch", more);
        // The first of them is counted where it was refused.
        traces.left_out("tenant", usize::saturating_sub(unpaid, 1));
        if !entered.calls.is_empty() {
            layer.set_spans(entered.calls.iter().map(|call| (call.event, call.span)).collect());
            (entered.stage, entered.events) = (stage, layer.frame().len() as u64);
            entered.began = self.local.clock.now();
        }
        entered
    }

    /// A call has ended, and what it did stands or is taken back.
    pub(super) fn left(&mut self, entered: Entered, stands: bool) {
        let Entered { stage, events, began, usage, calls } = entered;
        let Some(traces) = self.segment.shared.tenant.traces() else { return };
        if calls.is_empty() {
            return;
        }
        let now = self.local.clock.now();
        let name = &self.segment.stages[stage].name;
        let span = |call: &Called| {
            let contexts = (call.context.by(call.span), Some(call.context.span));
            let span = Span::new(contexts, format!("process {name}"), Kind::Consumer, (began, now));
            let attempt = self.spans.attempt(stage, &call.context);
            described(span, &self.segment, self.mailbox.partition)
                .with("messaging.operation.type", "process")
                .with("messaging.batch.message_count", events)
                .with("sluicebox.stage", name.as_str())
                .with("sluicebox.fuel", usage.fuel)
                .with("sluicebox.cold", usage.cold)
                .with("sluicebox.attempt", attempt)
                .with("sluicebox.taken_back", !stands)
                .failed(call.why.as_deref())
        };
        traces.record(calls.iter().map(span).collect());
        if !stands {
            let mut before: Vec<TraceContext> = Vec::new();
            for call in calls {
                if !before.contains(&call.context) {
                    self.spans.take_back(stage, &call.context);
                    before.push(call.context);
                }
            }
        }
    }

    /// The batch is committed; on disk when the record at `position` is.
    pub(super) fn committed(&mut self, position: Option<Position>) {
        let followed = std::mem::take(&mut self.spans);
        let Some(traces) = self.segment.shared.tenant.traces() else { return };
        let mut leaving = Leaving::of(traces);
        for root in &followed.roots {
            let Some(span) = followed.more(traces, BATCH_SPANS_MAX) else { break };
            let name = format!("commit {}", self.segment.root_name());
            let times = (followed.commits_at, followed.commits_at);
            let span = Span::new((root.by(span), Some(root.span)), name, Kind::Internal, times);
            let span = described(span, &self.segment, self.mailbox.partition);
            leaving.spans.push(span.with("sluicebox.logged", position.is_some()));
        }
        match position {
            Some(position) if !leaving.spans.is_empty() => {
                self.local.releases.after(position, move || leaving.end());
            }
            _ => leaving.end(),
        }
    }

    /// Events leave by an output, when the returned is told so.
    pub(super) fn leaves_by(&self, ring: &Arc<Output>, frame: &Frame) -> Leaving {
        let traces = self.segment.shared.tenant.traces().filter(|_| !frame.is_plain());
        let Some(traces) = traces else { return Leaving::default() };
        let mut leaving = Leaving::of(traces);
        let now = self.local.clock.now();
        for (_, context) in frame.sampled().take(EVENTS_MAX) {
            let Some(span) = self.spans.more(traces, BATCH_SPANS_MAX) else { break };
            let known = self.segment.outputs.iter().find(|(known, _)| Arc::ptr_eq(known, ring));
            let output = known.map_or("", |(_, name)| name.as_str());
            let contexts = (context.by(span), Some(context.span));
            let span = Span::new(contexts, format!("send {output}"), Kind::Producer, (now, now));
            let span = described(span, &self.segment, self.mailbox.partition)
                .with("messaging.operation.type", "send")
                .with("messaging.batch.message_count", frame.len() as u64)
                .with("sluicebox.output", output);
            leaving.spans.push(span);
        }
        leaving
    }

    /// Events became dead letters.
    pub(super) fn given_up(&self, dead: &Frame) {
        let Some(traces) = self.segment.shared.tenant.traces() else { return };
        if dead.is_plain() {
            return;
        }
        let (now, mut spans) = (self.local.clock.now(), Vec::new());
        let kept =
            dead.events().filter_map(|e| Some((TraceContext::sampled_of(&e.fields)?, e.fields)));
        for (context, fields) in kept.take(EVENTS_MAX) {
            let Some(span) = self.spans.more(traces, BATCH_SPANS_MAX) else { break };
            let text = |id| fields.get(id).map(String::from_utf8_lossy).unwrap_or_default();
            let stage = text(dead_letter_field::STAGE);
            let contexts = (context.by(span), Some(context.span));
            let name = format!("dead letter {stage}");
            let span = Span::new(contexts, name, Kind::Internal, (now, now))
                .with("sluicebox.stage", &*stage)
                .with("error.type", &*text(dead_letter_field::CLASS))
                .failed(Some(&text(dead_letter_field::MESSAGE)));
            spans.push(described(span, &self.segment, self.mailbox.partition));
        }
        traces.record(spans);
    }
}

/// Events went another node's way, and are on its disk.
pub(super) fn went(segment: &SegmentRuntime, (frame, hop): (&Frame, &Hop)) {
    let Some(traces) = segment.shared.tenant.traces() else { return };
    let kept = frame.sampled().take(EVENTS_MAX);
    let spans = kept.filter_map(|(_, context)| hop_span((segment, traces), context, hop));
    traces.record(spans.collect());
}

/// The way of an event to a partition of this segment, which ends now.
fn hop_span(
    (segment, traces): (&SegmentRuntime, &Arc<TenantTraces>),
    context: TraceContext,
    hop: &Hop,
) -> Option<Span> {
    let span = traces.span()?;
    let (to, now) = (segment.root_name(), now_micros());
    let from = segment.shared.hops.sender((*hop, segment.at));
    let name = from.map_or_else(|| format!("wait {to}"), |from| format!("hop {from} {to}"));
    let began = now.saturating_sub(hop.since.elapsed().as_micros() as u64);
    let contexts = (context.by(span), Some(context.span));
    let span = Span::new(contexts, name, Kind::Internal, (began, now));
    let link = hop.way.map_or("inbox", |way| way.word());
    let mut span = span
        .with("sluicebox.pipeline", segment.shared.name.as_str())
        .with("sluicebox.link", link)
        .with("sluicebox.to", to);
    if let Some(from) = from {
        span.set("sluicebox.from", from);
    }
    Some(span)
}

/// What is known of every span of a partition.
fn described(span: Span, segment: &SegmentRuntime, partition: u16) -> Span {
    let shared = &segment.shared;
    let id = partition.to_string();
    span.with("messaging.system", "sluicebox")
        .with("messaging.destination.name", shared.name.as_str())
        .with("messaging.destination.partition.id", id.as_str())
        .with("sluicebox.pipeline", shared.name.as_str())
        .with("sluicebox.pipeline.version", u64::from(shared.version))
        .with("sluicebox.partition", u64::from(partition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::Sampler;
    use crate::traces::tests::tenant;

    #[test]
    fn a_batch_has_so_many_spans_and_calls_leave_room_for_its_end() {
        let traces = tenant(Sampler::ratio(1.0), (1000, 100_000));
        let followed = Followed::default();
        let made = |most| (0..1000).filter(|_| followed.more(&traces, most).is_some()).count();
        assert_eq!(made(CALL_SPANS_MAX), CALL_SPANS_MAX);
        assert_eq!(made(BATCH_SPANS_MAX), 2 * EVENTS_MAX);
        assert_eq!(made(BATCH_SPANS_MAX), 0);
    }
}
