//! Taking emitted events: check, find the key, copy to the sink.

use super::ports::Route;
use super::{Call, Failure, FailureClass, KeyRule, Layer, LayerLimits, Sink, Spread, request_of};
use crate::frame::{
    CheckedEvents, Event, Frame, FrameBuilder, FrameError, FrameLimits, Head, Kind, NO_CAUSE,
    STAGE_BYTES, Staged, TraceContext, field, push_field,
};
use crate::ids::RequestId;
use crate::json_key;
use crate::key;
use crate::limits::KEY_BYTES_MAX;

/// Why an emit ends the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The frame breaks the format.
    #[error("emitted frame: {0}")]
    Frame(FrameError),
    /// The call emitted too much.
    #[error("the call emitted more than {0} bytes (limits.emit-bytes)")]
    TooMuch(usize),
    /// The cause is no event of this call.
    #[error("an emitted event names event {cause} as its cause, the call has {events}")]
    Cause {
        /// As written.
        cause: u32,
        /// Events in the call.
        events: usize,
    },
    /// The port is not declared in the manifest.
    #[error("an emitted event leaves by port {0}, which the stage does not declare (ports)")]
    Port(u16),
    /// The stage was lent no such handle.
    #[error("an emitted event names an attachment the stage does not hold")]
    Attachment,
    /// What is attached are not whole handles.
    #[error("an emitted event has {0} bytes of attachments, which are 8 bytes each")]
    AttachmentBytes(usize),
    /// More is attached than may be.
    #[error("an emitted frame names more than {0} attachments")]
    Attachments(usize),
    /// What is attached does not leave the segment.
    #[error(
        "an emitted event with attachments leaves by port {0}, which leads out of its segment, \
         where no buffer goes: read the buffer and emit its bytes"
    )]
    AttachmentLeaves(u16),
}

/// The frame's fault is part of the message, so it is not a source to be shown once more.
impl From<FrameError> for EmitError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl Layer {
    /// Takes the events of one packed frame.
    ///
    /// # Errors
    /// The frame or one of its events is wrong; the call must end and be discarded.
    pub fn emit(&mut self, bytes: &[u8]) -> Result<(), EmitError> {
        let limits = self.emit_limits(bytes.len());
        self.call.emitted_bytes += bytes.len();
        let limits = limits?;
        let mut events = CheckedEvents::new(bytes, &limits)?;
        loop {
            self.emit_simple(&mut events);
            let Some(event) = events.next_event()? else { return Ok(()) };
            self.emit_event(&event)?;
        }
    }

    /// Bounds on one more frame of so many bytes.
    pub(super) fn emit_limits(&self, bytes: usize) -> Result<FrameLimits, EmitError> {
        let LayerLimits { emit_bytes, event_bytes, .. } = self.limits;
        if self.call.emitted_bytes + bytes > emit_bytes {
            return Err(EmitError::TooMuch(emit_bytes));
        }
        Ok(FrameLimits { bytes: emit_bytes, event_bytes, ..FrameLimits::FORMAT })
    }

    /// Takes the events up to the first that needs more than most: data without key or fields of
    /// its own, on a first port that leads straight on. A loop of its own, because it runs for each
    /// event between two stages.
    fn emit_simple(&mut self, events: &mut CheckedEvents<'_>) {
        let Self { ports, input, call, sinks, filled, staging, .. } = self;
        let Some(Route::Straight { sink, input: to, .. }) = ports.of_port(0) else { return };
        if !input.frame.is_plain() || events.peek_simple().is_none() {
            return;
        }
        let staging = staging.get_or_insert_with(|| Box::new([0; STAGE_BYTES]));
        let mut staged = Staged::new(staging);
        let builder = sink_at(*sink, sinks, call, filled);
        // Copies, so that nothing is read again after each write.
        let (frame, mut cursor, mut rest) = (&input.frame, input.cursor, events.clone());
        while let Some(event) = rest.peek_simple() {
            let Some(cause) = cursor.find(event.cause, frame, &mut input.starts) else { break };
            let key = frame.key_onward(cause);
            if !staged.push(*to, &event, key) {
                builder.push_staged(&mut staged);
                if !staged.push(*to, &event, key) {
                    break;
                }
            }
            rest.skip(&event);
        }
        builder.push_staged(&mut staged);
        call.emitted_events += events.len() - rest.len();
        input.cursor = cursor;
        *events = rest;
    }

    /// Takes one event that was already checked against the format.
    ///
    /// # Errors
    /// As [`Layer::emit`].
    fn emit_event(&mut self, event: &Event<'_>) -> Result<(), EmitError> {
        let Self { ports, input, call, sinks, filled, sent, scratch, attached, spans, .. } = self;
        let cause = input.find(event.head.cause);
        let frame = &input.frame;
        let cause = cause.ok_or_else(|| no_cause(event.head.cause, frame))?;
        let route = ports.of_port(event.head.port).ok_or(EmitError::Port(event.head.port))?;
        call.emitted_events += 1;
        let mut request = None;
        let fields = if frame.is_plain() && event.fields.is_empty() {
            &[][..]
        } else {
            let cause = frame.event_at(cause);
            request = request_of(&cause);
            let attachments = attached.check(event, ports, frame)?;
            inherit(&cause, event, attachments, span_of(spans, event), scratch);
            scratch.as_slice()
        };
        let targets = match route {
            Route::Targets(targets) => targets.as_slice(),
            Route::Straight { sink, input, inside } => {
                let builder = sink_at(*sink, sinks, call, filled);
                let head = going_on(&event.head, *input);
                builder.push(&head, frame.key_at(cause), event.payload, fields);
                note_sent(sent, request, *inside);
                return Ok(());
            }
        };
        for index in targets {
            let target = &ports.targets()[*index];
            let from_json;
            let key = match &target.key {
                KeyRule::Cause => frame.key_at(cause),
                KeyRule::Emitted => event.key,
                KeyRule::Json(pointer) => match json_key::extract(event.payload, pointer) {
                    Ok(found) if found.len() <= KEY_BYTES_MAX => {
                        from_json = found;
                        from_json.as_bytes()
                    }
                    Ok(_) => {
                        fail(&mut call.failures, event, &"the key is longer than 512 bytes");
                        continue;
                    }
                    Err(error) => {
                        fail(&mut call.failures, event, &error);
                        continue;
                    }
                },
            };
            let partition = match target.spread {
                Spread::One => 0,
                Spread::Groups(n) => key::partition_of(key::group_of(key), n),
            };
            let sink = ports.first_sink(*index) + usize::from(partition);
            let builder = sink_at(sink as u32, sinks, call, filled);
            builder.push(&going_on(&event.head, target.input), key, event.payload, fields);
            note_sent(sent, request, target.inside);
        }
        Ok(())
    }
}

/// The head an emitted event goes on with. A stage may end a stream further down; opening streams
/// and timers is the host's.
#[inline]
fn going_on(head: &Head, input: u16) -> Head {
    let kind = if head.kind == Kind::End { Kind::End } else { Kind::Data };
    Head { kind, input, cause: NO_CAUSE, ..*head }
}

/// The builder of a sink, which is noted the first time a call writes to it.
#[inline]
fn sink_at<'a>(
    index: u32,
    sinks: &'a mut [Sink],
    call: &mut Call,
    filled: &mut Vec<u32>,
) -> &'a mut FrameBuilder {
    let sink = &mut sinks[index as usize];
    if sink.touched_in != call.number {
        sink.touched_in = call.number;
        call.touched.push((index, sink.builder.mark()));
        if sink.builder.is_empty() {
            filled.push(index);
        }
    }
    &mut sink.builder
}

#[cold]
fn no_cause(cause: u32, frame: &Frame) -> EmitError {
    EmitError::Cause { cause, events: frame.len() }
}

#[inline]
fn note_sent(sent: &mut Vec<RequestId>, request: Option<RequestId>, inside: bool) {
    if let Some(request) = request.filter(|_| inside) {
        sent.push(request);
    }
}

/// One failure for each cause is enough; a later one of the same event adds nothing.
#[cold]
fn fail(failures: &mut Vec<Failure>, event: &Event<'_>, why: &dyn std::fmt::Display) {
    let cause = event.head.cause;
    if failures.last().is_none_or(|last| last.event != cause) {
        let message = format!("key of an emitted event: {why}");
        failures.push(Failure::new(cause, FailureClass::Reject, message));
    }
}

/// The span of this call by which the trace of an event's cause goes on, if it is kept.
fn span_of(spans: &[(u32, [u8; 8])], event: &Event<'_>) -> Option<[u8; 8]> {
    spans.iter().find(|(cause, _)| *cause == event.head.cause).map(|(_, span)| *span)
}

/// Writes the fields an emitted event goes on with: the host's own from its cause, what it has
/// attached, then the stage's, without those only the host may write.
#[cold]
fn inherit(
    cause: &Event<'_>,
    event: &Event<'_>,
    attachments: &[u8],
    span: Option<[u8; 8]>,
    out: &mut Vec<u8>,
) {
    out.clear();
    for (id, value) in cause.fields.iter() {
        let by_span = span.filter(|_| id == field::TRACE_CONTEXT);
        if let Some(span) = by_span
            && let Some(context) = TraceContext::parse(value)
        {
            let _fits = push_field(out, id, &context.by(span).to_text());
        } else if id == field::TRACE_CONTEXT || id == field::REQUEST {
            let _fits = push_field(out, id, value);
        }
    }
    if !attachments.is_empty() {
        // Before the stage's own, so that it fits: the host's are short.
        let _fits = push_field(out, field::ATTACHMENTS, attachments);
    }
    for (id, value) in event.fields.iter().filter(|(id, _)| *id >= field::HOST_END) {
        let _fits = push_field(out, id, value);
    }
}
