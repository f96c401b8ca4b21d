//! What one call of a stage may do to its partition, and how it is taken back.
//!
//! A layer belongs to one stage of one partition. It travels into the call with the guest, so that
//! an emit or a state operation needs no look-up and no lock, and comes back with the outcome.
//!
//! - Nothing done in a call stands before [`Layer::accept`]; [`Layer::discard`] takes all of it
//!   back, writes and emits alike. Calls accepted in one batch stand together at
//!   [`Layer::take_runs`] and [`Layer::commit_state`].
//! - A guest names events of its own call by index; keys, requests and trace contexts come from
//!   those events, never from bytes the guest wrote.
//! - An emitted event is checked, given its key and copied once, straight to where it goes next.
//! - Buffers of a device that an event names are lent to the call, and stay in the segment
//!   (`attached`).
//!
//! Which calls are made, in what order and how often is decided by [`crate::partition`].

mod attached;
mod batch;
mod emit;
mod ports;

pub use batch::BatchError;
pub use emit::EmitError;
pub use ports::{KeyRule, Ports, Spread, Target};

use std::sync::Arc;

use crate::frame::{Event, Frame, FrameBuilder, HEADER_BYTES, Mark, STAGE_BYTES, field};
use crate::ids::RequestId;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::state::{KeyedState, Mark as StateMark, StateLimits};
use crate::timers::{Mark as TimersMark, Timers};

use attached::Attached;
use batch::Kept;

/// What the host should do with an event its stage could not handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Try again a few times.
    Retry,
    /// Trying again cannot help.
    Reject,
}

/// One event a call could not handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Index in the frame of the call.
    pub event: u32,
    /// Whether trying again may help.
    pub class: FailureClass,
    /// At most 1 KiB.
    pub message: String,
}

impl Failure {
    /// A failure with its message cut at the bound.
    #[must_use]
    pub fn new(event: u32, class: FailureClass, mut message: String) -> Self {
        if message.len() > MESSAGE_BYTES_MAX {
            let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
            message.truncate(end);
        }
        Self { event, class, message }
    }
}

/// Bounds on what one call may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    /// Bytes of all frames emitted in one call.
    pub emit_bytes: usize,
    /// Bytes of one emitted event.
    pub event_bytes: usize,
    /// Bytes of the replies to one state batch.
    pub reply_bytes: usize,
}

/// Events on their way out of a batch: all that goes to one target (and, for a re-keying edge, one
/// partition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Index of the target in [`Ports`].
    pub target: usize,
    /// Partition, for [`Spread::Groups`]; else 0.
    pub partition: u16,
    /// The events.
    pub frame: Frame,
}

/// See the module.
#[derive(Debug)]
pub struct Layer {
    ports: Arc<Ports>,
    limits: LayerLimits,
    state: KeyedState,
    timers: Timers,
    input: Input,
    call: Call,
    /// One builder a target, or one a partition of a target, at [`Ports::first_sink`].
    sinks: Vec<Sink>,
    /// Sinks that hold events of this batch.
    filled: Vec<u32>,
    /// How many waiting requests' descendants were sent on in this batch.
    sent: Vec<RequestId>,
    scratch: Vec<u8>,
    attached: Attached,
    /// For events of the call whose trace is kept: by which span what they cause goes on.
    spans: Vec<(u32, [u8; 8])>,
    /// For [`Staged`]; made when the stage emits for the first time.
    staging: Option<Box<[u8; STAGE_BYTES]>>,
}

/// The events of the call in progress.
#[derive(Debug)]
struct Input {
    frame: Frame,
    cursor: Cursor,
    /// Where each event begins, found when a guest jumps for the first time.
    starts: Vec<u32>,
}

/// The event of the call that was asked for last, and where it begins. Guests go through a frame
/// from its first event to its last, so the next one asked for is this again or the one behind it.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    index: u32,
    start: u32,
}

/// What the call in progress did.
#[derive(Debug)]
struct Call {
    state_mark: StateMark,
    timers_mark: TimersMark,
    sent_mark: usize,
    filled_mark: usize,
    /// Sinks written to in this call, with where they stood.
    touched: Vec<(u32, Mark)>,
    /// Grows by one a call; a sink that has it was touched in this call.
    number: u32,
    emitted_bytes: usize,
    emitted_events: usize,
    failures: Vec<Failure>,
}

#[derive(Debug, Default)]
struct Sink {
    builder: FrameBuilder,
    touched_in: u32,
}

impl Layer {
    /// A layer over `state` for a stage with these ports.
    #[must_use]
    pub fn new(ports: Arc<Ports>, limits: LayerLimits, state: KeyedState) -> Self {
        let mut sinks = Vec::new();
        sinks.resize_with(ports.sinks(), Sink::default);
        let frame = FrameBuilder::new().finish();
        let input = Input::new(frame);
        let timers = Timers::none();
        let call = Call {
            state_mark: state.mark(),
            timers_mark: timers.mark(),
            sent_mark: 0,
            filled_mark: 0,
            touched: Vec::new(),
            number: 0,
            emitted_bytes: 0,
            emitted_events: 0,
            failures: Vec::new(),
        };
        let (filled, sent, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            ports,
            limits,
            state,
            timers,
            input,
            call,
            sinks,
            filled,
            sent,
            scratch,
            attached: Attached::default(),
            spans: Vec::new(),
            staging: None,
        }
    }

    /// The same with these timers of the stage.
    #[must_use]
    pub fn with_timers(self, timers: Timers) -> Self {
        Self { timers, ..self }
    }

    /// A layer with the ports and bounds of this one, and with no state.
    #[must_use]
    pub fn aside(&self) -> Self {
        let bounds = StateLimits { total_bytes: usize::MAX, ..self.state.limits() };
        let timers = Timers::new(KeyedState::new(0, StateLimits::NONE));
        let layer = Self::new(self.ports.clone(), self.limits, KeyedState::new(0, bounds));
        Self { attached: self.attached.aside(), ..layer.with_timers(timers) }
    }

    /// Begins a call with these events. The call before must have been accepted or discarded.
    pub fn begin(&mut self, frame: Frame) {
        self.input.begin(frame);
        self.attached.begin();
        self.spans.clear();
        self.call.state_mark = self.state.mark();
        self.call.timers_mark = self.timers.mark();
        self.call.sent_mark = self.sent.len();
        self.call.filled_mark = self.filled.len();
        self.call.touched.clear();
        self.call.number = self.call.number.wrapping_add(1).max(1);
        self.call.emitted_bytes = 0;
        self.call.emitted_events = 0;
        self.call.failures.clear();
    }

    /// The events of the call in progress.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.input.frame
    }

    /// Says by which spans the traces of these events go on in what they cause. Of others the trace
    /// goes on as it is.
    pub fn set_spans(&mut self, spans: Vec<(u32, [u8; 8])>) {
        self.spans = spans;
    }

    /// Events emitted in the call in progress.
    #[must_use]
    pub fn emitted_events(&self) -> usize {
        self.call.emitted_events
    }

    /// Bytes emitted in the call in progress.
    #[must_use]
    pub fn emitted_bytes(&self) -> usize {
        self.call.emitted_bytes
    }

    /// Failures the host found while taking emitted events, such as a key that is not in the
    /// payload.
    #[must_use]
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.call.failures)
    }

    /// What was done in this call stands, with the batch.
    pub fn accept(&mut self) {
        self.call.touched.clear();
    }

    /// Takes back everything done in this call.
    pub fn discard(&mut self) {
        self.state.rollback(self.call.state_mark);
        self.timers.roll_back(self.call.timers_mark);
        self.sent.truncate(self.call.sent_mark);
        self.filled.truncate(self.call.filled_mark);
        for (sink, mark) in self.call.touched.drain(..) {
            self.sinks[sink as usize].builder.rollback(mark);
        }
        self.call.failures.clear();
    }

    /// Takes back everything of the batch, accepted calls included.
    pub fn abandon(&mut self) {
        self.state.rollback_all();
        self.timers.roll_back_all();
        for sink in self.filled.drain(..) {
            self.sinks[sink as usize].builder.clear();
        }
        self.sent.clear();
        self.call.touched.clear();
        self.call.failures.clear();
    }

    /// Makes what was written stand, and drops everything that was emitted: of a batch that is made
    /// again for what it leaves in an instance.
    pub fn forget_batch(&mut self) {
        self.take_runs(drop);
        self.sent.clear();
        self.call.touched.clear();
        self.call.failures.clear();
        self.state.commit();
        self.timers.commit();
    }

    /// Gives out everything the accepted calls emitted, in order of first emission.
    pub fn take_runs(&mut self, mut each: impl FnMut(Run)) {
        for sink in self.filled.drain(..) {
            let (target, partition) = self.ports.target_of(sink as usize);
            let frame = self.sinks[sink as usize].builder.finish();
            each(Run { target, partition, frame });
        }
    }

    /// The requests whose descendants the accepted calls sent on, one entry an event.
    pub fn take_sent(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.sent)
    }

    /// Makes the accepted writes permanent.
    pub fn commit_state(&mut self) {
        self.state.commit();
        self.timers.commit();
    }

    /// Removes what is kept of a key: its stream has ended.
    pub fn clear_key(&mut self, key: &[u8]) {
        self.state.clear_key(key);
        self.timers.clear_key(key);
    }

    /// The key of an event of the call.
    #[must_use]
    pub fn key(&self, event: u32) -> Option<&[u8]> {
        self.input.frame.events().nth(event as usize).map(|event| event.key)
    }

    /// The stage's state, for the typed operations; keys come from [`Layer::key`].
    pub fn state(&mut self) -> &mut KeyedState {
        &mut self.state
    }

    /// The stage's state, to look at.
    #[must_use]
    pub fn state_ref(&self) -> &KeyedState {
        &self.state
    }

    /// The stage's timers.
    pub fn timers(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// The stage's timers, to look at.
    #[must_use]
    pub fn timers_ref(&self) -> &Timers {
        &self.timers
    }

    /// Gives up the layer, keeps the state and the timers.
    #[must_use]
    pub fn into_kept(self) -> (KeyedState, Timers) {
        (self.state, self.timers)
    }

    /// The timers and the key of an event, together.
    pub fn keyed_timers(&mut self, event: u32) -> Option<(&mut Timers, &[u8])> {
        Some((&mut self.timers, self.input.key(event)?))
    }

    /// The state and the key of an event, together.
    pub fn keyed(&mut self, event: u32) -> Option<(&mut KeyedState, &[u8])> {
        Some((&mut self.state, self.input.key(event)?))
    }

    /// Does a packed batch of operations on state and timers and appends the replies to `out`.
    ///
    /// # Errors
    /// The batch is malformed; the call must end and be discarded.
    pub fn state_batch(&mut self, operations: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        let input = &mut self.input;
        // Shares the bytes with the call's frame, so that a key can be lent out of a closure that
        // moves the cursor.
        let frame = input.frame.clone();
        let key_of = |event| input.find(event).map(|start| frame.key_at(start));
        let mut kept = Kept { state: &mut self.state, timers: &mut self.timers };
        kept.batch(operations, key_of, out, self.limits.reply_bytes)
    }
}

impl Input {
    fn new(frame: Frame) -> Self {
        Self { frame, cursor: Cursor::FIRST, starts: Vec::new() }
    }

    fn begin(&mut self, frame: Frame) {
        self.frame = frame;
        self.cursor = Cursor::FIRST;
        self.starts.clear();
    }

    /// Where an event of the call begins.
    #[inline]
    fn find(&mut self, index: u32) -> Option<u32> {
        self.cursor.find(index, &self.frame, &mut self.starts)
    }

    /// The key of an event of the call.
    fn key(&mut self, index: u32) -> Option<&[u8]> {
        let start = self.find(index)?;
        Some(self.frame.key_at(start))
    }
}

impl Cursor {
    const FIRST: Self = Self { index: 0, start: HEADER_BYTES as u32 };

    #[inline(always)]
    fn find(&mut self, index: u32, frame: &Frame, starts: &mut Vec<u32>) -> Option<u32> {
        if index as usize >= frame.len() {
            return None;
        }
        if index == self.index + 1 {
            self.start = frame.after(self.start);
        } else if index != self.index {
            self.start = jump(index, frame, starts);
        }
        self.index = index;
        Some(self.start)
    }
}

#[cold]
fn jump(index: u32, frame: &Frame, starts: &mut Vec<u32>) -> u32 {
    if starts.is_empty() {
        frame.index_into(starts);
    }
    starts[index as usize]
}

/// The request an event belongs to.
#[must_use]
pub fn request_of(event: &Event<'_>) -> Option<RequestId> {
    let value = event.fields.get(field::REQUEST)?;
    Some(RequestId(u64::from_le_bytes(*value.first_chunk()?)))
}

#[cfg(test)]
mod tests;
