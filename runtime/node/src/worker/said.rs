//! What a call says besides its results: answers to clients that wait, log lines, metrics, and a
//! word for a trap.

use sluicebox_core::frame::Frame;
use sluicebox_core::ids::PipelineId;
use sluicebox_core::layer::request_of;
use sluicebox_engine::invoker::{LogLevel, LogLine, Metric, Said};

use crate::running::event_time::now_micros;
use crate::running::{SegmentRuntime, StageRuntime};
use crate::stage_log::Line;

/// Answers the requests whose events left by the output `reply`.
pub(crate) fn answer(segment: &SegmentRuntime, frame: &Frame) {
    let mut start = sluicebox_core::frame::HEADER_BYTES;
    for event in frame.events() {
        if let Some(request) = request_of(&event) {
            segment.shared.requests.answer(request, frame, start as u32);
        }
        start += event.size();
    }
}

/// The same of events that left on another node: requests of this pipeline and no others, as that
/// node says which they are.
pub(crate) fn answer_of(pipeline: PipelineId, segment: &SegmentRuntime, frame: &Frame) {
    let requests = &segment.shared.requests;
    let mut start = sluicebox_core::frame::HEADER_BYTES;
    for event in frame.events() {
        let request = request_of(&event);
        let its = request.filter(|request| requests.pipeline_of(*request) == Some(pipeline));
        if let Some(request) = its {
            requests.answer(request, frame, start as u32);
        }
        start += event.size();
    }
}

/// A bounded word for what the text of a trap says.
fn cause_of(text: &str) -> &'static str {
    match text {
        _ if text.contains("(limits.memory)") => "memory",
        _ if text.contains("(limits.instances)") || text.contains("(engine.instances)") => {
            "instances"
        }
        _ if text.starts_with("out of fuel") => "fuel",
        _ if text.starts_with("the stack overflowed") => "stack",
        _ if text.contains("emitted") => "emit",
        _ if text.contains("state") => "state",
        _ => "guest",
    }
}

/// Counts a call that ended in a trap, and has its owner know why, behind what it said itself, if
/// it is not made again with each of its events alone.
pub(super) fn trapped(stage: &StageRuntime, said: &mut Said, text: &str, is_last: bool) {
    stage.metrics.traps.add(cause_of(text), 1);
    if is_last {
        said.lines.push(LogLine { level: LogLevel::Error, text: text.to_owned() });
    }
}

/// Passes on what a guest said. Its metrics count only if the call stands: one that is taken back
/// runs again.
pub(super) fn report(
    segment: &SegmentRuntime,
    (stage, partition, trace): (&StageRuntime, u16, Option<String>),
    said: Said,
    stands: bool,
) {
    let metrics = &stage.metrics;
    if said.lines_dropped > 0 {
        metrics.log_lines_dropped.add(said.lines_dropped);
    }
    if said.metrics_dropped > 0 {
        metrics.guest_dropped.add(said.metrics_dropped);
    }
    for (name, metric) in said.metrics.into_iter().filter(|_| stands) {
        match metric {
            Metric::Count(delta) => metrics.guest_count(&name, delta),
            Metric::Gauge(value) => metrics.guest_gauge(&name, value),
        }
    }
    if said.lines.is_empty() {
        return;
    }
    metrics.log_lines.add(said.lines.len() as u64);
    let time = now_micros();
    segment.shared.metrics.stage_log().add(said.lines.iter().map(|line| Line {
        time,
        stage: stage.name.clone(),
        partition,
        level: line.level,
        text: line.text.clone(),
    }));
    let (tenant, pipeline) = (segment.shared.tenant.name(), &segment.shared.name);
    let (stage, trace_id) = (stage.name.as_str(), trace.as_deref());
    for line in said.lines {
        let text = line.text.as_str();
        match line.level {
            LogLevel::Debug => {
                tracing::debug!(target: "guest", %tenant, %pipeline, stage, trace_id, "{text}");
            }
            LogLevel::Info => {
                tracing::info!(target: "guest", %tenant, %pipeline, stage, trace_id, "{text}");
            }
            LogLevel::Warn => {
                tracing::warn!(target: "guest", %tenant, %pipeline, stage, trace_id, "{text}");
            }
            LogLevel::Error => {
                tracing::error!(target: "guest", %tenant, %pipeline, stage, trace_id, "{text}");
            }
        }
    }
}
