//! Taking emitted events: check, find the key, copy to the sink.

use super::ports::Route;
use super::{Call, Failure, FailureClass, Input, KeyRule, Layer, Sink, Spread, request_of};
use crate::frame::{
    CheckedEvents, Event, Frame, FrameBuilder, FrameError, FrameLimits, Head, Kind, NO_CAUSE,
    field, push_field,
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
        self.call.emitted_bytes += bytes.len();
        if self.call.emitted_bytes > self.limits.emit_bytes {
            return Err(EmitError::TooMuch(self.limits.emit_bytes));
        }
        let limits = FrameLimits {
            bytes: self.limits.emit_bytes,
            event_bytes: self.limits.event_bytes,
            ..FrameLimits::FORMAT
        };
        let mut events = CheckedEvents::new(bytes, &limits)?;
        while let Some(event) = events.next_event()? {
            self.emit_event(&event)?;
        }
        Ok(())
    }

    /// Takes one event that was already checked against the format. What most events need is here,
    /// the rest in functions of their own: this runs for each event between two stages.
    ///
    /// # Errors
    /// As [`Layer::emit`].
    #[inline(always)]
    fn emit_event(&mut self, event: &Event<'_>) -> Result<(), EmitError> {
        let Input { frame, starts } = &mut self.input;
        let cause = starts.of(event.head.cause, frame);
        let cause = cause.ok_or_else(|| no_cause(event.head.cause, frame))?;
        let port = event.head.port;
        let route = self.ports.of_port(port).ok_or(EmitError::Port(port))?;
        self.call.emitted_events += 1;
        match route {
            Route::Straight { sink, input, .. } if frame.is_plain() && event.fields.is_empty() => {
                let builder = sink_at(*sink, &mut self.sinks, &mut self.call, &mut self.filled);
                let head = going_on(&event.head, *input);
                builder.push(&head, frame.key_at(cause), event.payload, &[]);
                Ok(())
            }
            _ => self.emit_by_target(event, cause),
        }
    }

    /// Takes an event that has extension fields or inherits some, or whose port leads to several
    /// targets, or to one that finds the key or the partition in the event.
    #[inline(never)]
    fn emit_by_target(&mut self, event: &Event<'_>, cause: u32) -> Result<(), EmitError> {
        let Self { ports, input, call, sinks, filled, sent, scratch, .. } = self;
        let frame = &input.frame;
        let mut request = None;
        let fields = if frame.is_plain() && event.fields.is_empty() {
            &[][..]
        } else {
            let cause = frame.event_at(cause);
            request = request_of(&cause);
            inherit(&cause, event, scratch)?;
            scratch.as_slice()
        };
        let targets = match ports.of_port(event.head.port) {
            Some(Route::Targets(targets)) => targets.as_slice(),
            Some(Route::Straight { sink, input, inside }) => {
                let builder = sink_at(*sink, sinks, call, filled);
                let head = going_on(&event.head, *input);
                builder.push(&head, frame.key_at(cause), event.payload, fields);
                note_sent(sent, request, *inside);
                return Ok(());
            }
            None => return Err(EmitError::Port(event.head.port)),
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

/// Writes the fields an emitted event goes on with: the host's own from its cause, then the
/// stage's, without those only the host may write.
#[cold]
fn inherit(cause: &Event<'_>, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), EmitError> {
    out.clear();
    for (id, value) in cause.fields.iter() {
        if id == field::TRACE_CONTEXT || id == field::REQUEST {
            let _fits = push_field(out, id, value);
        }
    }
    for (id, value) in event.fields.iter() {
        if id == field::ATTACHMENTS && !value.is_empty() {
            return Err(EmitError::Attachment);
        }
        if id >= field::HOST_END {
            let _fits = push_field(out, id, value);
        }
    }
    Ok(())
}
