//! A harness that runs a stage natively, for its unit tests.
//!
//! ```
//! use sluicebox_guest::testing::Harness;
//! use sluicebox_guest::{Event, Output, Result};
//!
//! fn upper(event: Event<'_>, out: &mut Output) -> Result {
//!     out.emit(&event, event.text()?.to_uppercase());
//!     Ok(())
//! }
//!
//! let mut harness = Harness::new(upper);
//! let outcome = harness.send("some key", "hello");
//! assert_eq!(outcome.outputs[0].text(), "HELLO");
//! assert!(outcome.failures.is_empty());
//! ```
//!
//! A harness is one instance of the stage with a host in memory. It does what the host does:
//!
//! - An emitted event without a key gets the key of its cause; a cause that does not exist, or a
//!   state call that breaks the contract, panics where the host traps.
//! - When events of a stage function fail, nothing of the call stands: the host runs the others
//!   again without them, so the function sees these twice. A stream function is not run again; what
//!   it emitted stands.
//!
//! - Timers fire when the harness moves a clock, [`Harness::advance_watermark`] or
//!   [`Harness::advance_clock`], and by nothing else: events that are sent leave both as they are.
//!
//! It does not do what a manifest says: no retries, no dead letters, no limits but the largest
//! value of a slot. It exists in native builds only.

use std::collections::BTreeMap;

use crate::event::{Fields, Kind, field};
use crate::failure::{Failed, Outcome};
use crate::frame::{Head, NO_CAUSE, Parts, push_field};
use crate::host::memory::gpu::Gpu;
use crate::host::memory::{Due, Memory, Received, attachments, frame_of, with_host};
use crate::kept::Kept;
use crate::log::Level;
use crate::memory::MemoryStage;
use crate::stage::{FunctionStage, Stage, StageFunction};
use crate::stream::{EventStream, StreamOutput, StreamStage};
use crate::timers::Clock;

/// Most timers in one call.
const TIMERS_A_CALL_MAX: usize = 256;
/// Calls after which a stage is said to set the same timers for ever.
const TIMER_CALLS_MAX: usize = 10_000;

/// An event to be given to a stage.
#[derive(Clone, Debug)]
pub struct Input {
    kind: Kind,
    input: u16,
    port: u16,
    time: u64,
    key: String,
    payload: Vec<u8>,
    fields: Vec<u8>,
    /// What the buffers that are attached to it hold.
    buffers: Vec<Vec<u8>>,
}

impl Input {
    /// An event of kind data at input 0, from port 0, at time 0.
    pub fn data(key: impl Into<String>, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        let (key, fields, buffers) = (key.into(), Vec::new(), Vec::new());
        Self { kind: Kind::Data, input: 0, port: 0, time: 0, key, payload, fields, buffers }
    }

    /// The beginning of a stream.
    pub fn open(key: impl Into<String>) -> Self {
        Self { kind: Kind::Open, ..Self::data(key, "") }
    }

    /// The end of a stream.
    pub fn end(key: impl Into<String>) -> Self {
        Self { kind: Kind::End, ..Self::data(key, "") }
    }

    /// A timer that fires; its name is the payload.
    pub fn timer(key: impl Into<String>, name: &str) -> Self {
        Self { kind: Kind::Timer, ..Self::data(key, name) }
    }

    /// Which input it arrives at.
    #[must_use]
    pub fn input(self, input: u16) -> Self {
        Self { input, ..self }
    }

    /// Which port it left the stage before by.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Event time in microseconds since 1970.
    #[must_use]
    pub fn time(self, micros: u64) -> Self {
        Self { time: micros, ..self }
    }

    /// Adds an extension field.
    ///
    /// # Panics
    ///
    /// If the value is longer than 65,535 bytes.
    #[must_use]
    pub fn field(mut self, id: u16, value: impl AsRef<[u8]>) -> Self {
        let packed = push_field(&mut self.fields, id, value.as_ref());
        assert!(packed, "the value of a field is at most 65,535 bytes long");
        self
    }

    /// Attaches a buffer with these bytes, for a stage with a GPU. It goes when the call ends.
    #[must_use]
    pub fn buffer(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.buffers.push(bytes.into());
        self
    }

    fn parts(&self) -> Parts<'_> {
        let head = Head {
            size: 0,
            kind: self.kind as u8,
            flags: 0,
            input: self.input,
            port: self.port,
            key_bytes: 0,
            cause: NO_CAUSE,
            time: self.time,
            payload_bytes: 0,
            fields_bytes: 0,
        };
        Parts { head, key: self.key.as_bytes(), payload: &self.payload, fields: &self.fields }
    }
}

impl From<&Emitted> for Input {
    /// The event as it arrives at the next stage, with the buffers that are attached to it.
    fn from(emitted: &Emitted) -> Self {
        let Emitted { port, time, key, payload, fields, buffers, .. } = emitted;
        let buffers = buffers.clone();
        let input = Self { buffers, ..Self::data(key, payload).port(*port).time(*time) };
        let fields = fields.iter().filter(|(id, _)| *id != field::ATTACHMENTS);
        fields.fold(input, |input, (id, value)| input.field(*id, value))
    }
}

/// An event a stage emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The port it left by.
    pub port: u16,
    /// Index of the causing event among those given to the call.
    pub cause: u32,
    /// Event time in microseconds since 1970.
    pub time: u64,
    /// Its key: the one the stage gave it, or that of the cause.
    pub key: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// Extension fields: id and value, in order.
    pub fields: Vec<(u16, Vec<u8>)>,
    /// What the buffers that are attached to it hold.
    pub buffers: Vec<Vec<u8>>,
}

impl Emitted {
    /// The payload as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the emitted payload should be UTF-8")
    }

    /// The payload as JSON.
    ///
    /// # Panics
    ///
    /// If it is not the JSON it should be.
    #[must_use]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.payload).expect("the emitted payload should be this JSON")
    }
}

/// What a call came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// What was emitted, in order.
    pub outputs: Vec<Emitted>,
    /// The events that failed, in the order in which they were reported.
    pub failures: Vec<Failed>,
}

/// One instance of a stage, and its host.
pub struct Harness {
    stage: Box<dyn Stage>,
    /// Whether failed events are undone: yes for stage functions, no for stream functions.
    undoes: bool,
    memory: Memory,
}

impl Harness {
    /// An instance of a stage function.
    pub fn new<Form: 'static>(function: impl StageFunction<Form>) -> Self {
        let stage = Box::new(FunctionStage::new(function));
        Self { stage, undoes: true, memory: Memory::new() }
    }

    /// An instance of a stream function. Give it its `open` and `end` as well.
    pub fn stream<F, R>(function: F) -> Self
    where
        F: Fn(EventStream, StreamOutput) -> R + 'static,
        R: Future<Output: Outcome> + 'static,
    {
        let stage = Box::new(StreamStage::new(function));
        Self { stage, undoes: false, memory: Memory::new() }
    }

    /// An instance of a stream function with a memory.
    pub fn stream_with_memory<F, R, T>(function: F) -> Self
    where
        F: Fn(EventStream, StreamOutput, crate::Memory<T>) -> R + 'static,
        R: Future<Output: Outcome> + 'static,
        T: Kept + Default + 'static,
    {
        let stage = Box::new(MemoryStage::new(function));
        Self { stage, undoes: false, memory: Memory::new() }
    }

    /// What the host would get to let other code go on.
    ///
    /// # Errors
    /// The stage says no, and why.
    pub fn take_snapshot(&self) -> Result<Vec<u8>, String> {
        self.stage.take()
    }

    /// Lets the instance go on from what another one gave, before its first call.
    ///
    /// # Errors
    /// The stage says no, and why.
    pub fn with_snapshot(mut self, snapshot: &[u8]) -> Result<Self, String> {
        self.stage.restore(snapshot)?;
        Ok(self)
    }

    /// Adds a setting.
    #[must_use]
    pub fn with_config(mut self, name: &str, value: &str) -> Self {
        self.memory.config.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds an asset.
    #[must_use]
    pub fn with_asset(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.memory.assets.insert(name.to_owned(), bytes.into());
        self
    }

    /// Fills a slot of a key.
    #[must_use]
    pub fn with_state(mut self, key: &str, slot: &str, value: impl Into<Vec<u8>>) -> Self {
        self.memory.slots.insert((key.to_owned(), slot.to_owned()), value.into());
        self
    }

    /// Sets the largest value a slot may have; it is 1 MiB.
    #[must_use]
    pub fn with_value_bytes_max(mut self, bytes: usize) -> Self {
        self.memory.value_bytes_max = bytes;
        self
    }

    /// Gives the stage a GPU whose kernels are all this closure: it is given the entry point, what
    /// is bound to each slot of the kernel in their order, and the workgroups, and does to the
    /// bytes what the kernel would.
    ///
    /// The WGSL is read only for its bindings. Submissions end whole, before they are waited for.
    #[must_use]
    pub fn with_gpu(
        mut self,
        kernel: impl FnMut(&str, &mut [Vec<u8>], [u32; 3]) + 'static,
    ) -> Self {
        self.memory.gpu = Some(Gpu::new(Box::new(kernel)));
        self
    }

    /// Loses the GPU and gives the stage another: whatever was made on it is over.
    pub fn lose_gpu(&mut self) {
        if let Some(gpu) = &mut self.memory.gpu {
            gpu.lose();
        }
    }

    /// How many buffers, kernels, graphs and submissions the stage has on its GPU.
    #[must_use]
    pub fn gpu_handles(&self) -> usize {
        self.memory.gpu.as_ref().map_or(0, Gpu::made)
    }

    /// Calls the stage with one event of kind data.
    pub fn send(&mut self, key: &str, payload: impl AsRef<[u8]>) -> Handled {
        self.handle([Input::data(key, payload)])
    }

    /// Calls the stage with these events.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Input>) -> Handled {
        let mut events: Vec<Input> = events.into_iter().collect();
        events.iter_mut().for_each(|event| self.lend(event));
        let handled = self.handle_batch(&events);
        if let Some(gpu) = &mut self.memory.gpu {
            gpu.end_batch();
        }
        handled
    }

    /// Makes the buffers that are attached to an event.
    fn lend(&mut self, event: &mut Input) {
        if event.buffers.is_empty() {
            return;
        }
        let gpu = self.memory.gpu.as_mut().expect("a stage that is given buffers has a GPU");
        let lent = event.buffers.iter().map(|bytes| gpu.lend(bytes.clone()).to_le_bytes());
        let packed =
            push_field(&mut event.fields, field::ATTACHMENTS, &lent.collect::<Vec<_>>().concat());
        assert!(packed, "an event has at most 256 buffers");
    }

    fn handle_batch(&mut self, events: &[Input]) -> Handled {
        // Which of `events` the stage is given: all, then all but those that have failed.
        let mut given: Vec<usize> = (0..events.len()).collect();
        let mut handled = Handled::default();
        loop {
            let before = (self.memory.slots.clone(), self.memory.timers.clone());
            let failures = self.call(events, &given);
            let emitted = std::mem::take(&mut self.memory.emitted);
            let again = self.undoes && !failures.is_empty();
            if again {
                (self.memory.slots, self.memory.timers) = before;
            } else {
                handled.outputs = emitted.into_iter().map(|e| self.routed(&given, e)).collect();
            }
            let place = |failed: &Failed| given[failed.event as usize];
            let failed: Vec<usize> = failures.iter().map(place).collect();
            handled.failures.extend(
                failures
                    .into_iter()
                    .zip(&failed)
                    .map(|(failed, place)| Failed { event: *place as u32, ..failed }),
            );
            given.retain(|place| !failed.contains(place));
            if !again || given.is_empty() {
                return handled;
            }
        }
    }

    /// Moves the watermark and calls the stage with every event-time timer that is due, those
    /// included that it sets in these calls. Indices in what comes back are places among all that
    /// fired. A watermark never goes back: an earlier one changes nothing.
    pub fn advance_watermark(&mut self, micros: u64) -> Handled {
        let timers = &mut self.memory.timers;
        timers.watermark = timers.watermark.max(micros);
        self.fire()
    }

    /// Moves the time of day and calls the stage with every wall timer that is due, as
    /// [`Harness::advance_watermark`] does.
    pub fn advance_clock(&mut self, micros: u64) -> Handled {
        let timers = &mut self.memory.timers;
        timers.now = timers.now.max(micros);
        self.fire()
    }

    /// The timers of a key that wait, by name.
    #[must_use]
    pub fn timers(&self, key: &str) -> Vec<(&str, Clock, u64)> {
        let waiting = self.memory.timers.pending.iter();
        waiting
            .filter(|((of, _), _)| of == key)
            .map(|((_, name), (clock, at))| (name.as_str(), *clock, *at))
            .collect()
    }

    /// What a slot of a key holds.
    #[must_use]
    pub fn state(&self, key: &str, slot: &str) -> Option<&[u8]> {
        self.memory.slots.get(&(key.to_owned(), slot.to_owned())).map(Vec::as_slice)
    }

    /// The slots of a key and what they hold, in byte order.
    pub fn slots(&self, key: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let slots = self.memory.slots.iter().filter(move |((of, _), _)| of == key);
        slots.map(|((_, slot), value)| (slot.as_str(), value.as_slice()))
    }

    /// What a counter of a key says; nothing if there is none.
    #[must_use]
    pub fn counter(&self, key: &str, slot: &str) -> Option<i64> {
        self.state(key, slot)?.try_into().ok().map(i64::from_le_bytes)
    }

    /// The lines the stage wrote to its log.
    #[must_use]
    pub fn log(&self) -> &[(Level, String)] {
        &self.memory.lines
    }

    /// What the stage added to its counters, by name.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.memory.counters
    }

    /// What the stage set its gauges to, by name.
    #[must_use]
    pub fn gauges(&self) -> &BTreeMap<String, f64> {
        &self.memory.gauges
    }

    /// Calls the stage with what is due until nothing is.
    ///
    /// # Panics
    ///
    /// If that has no end.
    fn fire(&mut self) -> Handled {
        let (mut all, mut fired) = (Handled::default(), 0);
        for _ in 0..TIMER_CALLS_MAX {
            let due = self.memory.timers.take_due(TIMERS_A_CALL_MAX);
            if due.is_empty() {
                return all;
            }
            let count = due.len() as u32;
            let event = |due: Due| Input::timer(due.key, &due.name).time(due.at);
            let mut handled = self.handle(due.into_iter().map(event));
            handled.outputs.iter_mut().for_each(|output| output.cause += fired);
            handled.failures.iter_mut().for_each(|failed| failed.event += fired);
            all.outputs.append(&mut handled.outputs);
            all.failures.append(&mut handled.failures);
            fired += count;
        }
        panic!("the stage keeps setting timers for a time that has come; they fire for ever");
    }

    /// State batches the stage has asked for.
    #[cfg(test)]
    pub(crate) fn batches(&self) -> u32 {
        self.memory.batches
    }

    fn call(&mut self, events: &[Input], given: &[usize]) -> Vec<Failed> {
        let events = given.iter().map(|place| &events[*place]);
        self.memory.keys = events.clone().map(|event| event.key.clone()).collect();
        self.memory.lent = events.clone().flat_map(|event| attachments(&event.fields)).collect();
        let frame = frame_of(events.map(Input::parts));
        let stage = &mut self.stage;
        let failures = with_host(&mut self.memory, || stage.handle(frame));
        for failed in &failures {
            let exists = (failed.event as usize) < given.len();
            assert!(exists, "trap: the call has no event {} that could fail", failed.event);
        }
        failures
    }

    /// An emitted event with what the host adds to it.
    fn routed(&self, given: &[usize], event: Received) -> Emitted {
        let cause = event.cause as usize;
        let key = if event.key.is_empty() { self.memory.keys[cause].clone() } else { event.key };
        let fields = Fields::new(&event.fields).map(|(id, value)| (id, value.to_vec())).collect();
        Emitted {
            port: event.port,
            cause: given[cause] as u32,
            time: event.time,
            key,
            payload: event.payload,
            fields,
            buffers: event.buffers,
        }
    }
}

#[cfg(test)]
mod tests;
