//! Emitting events: packed straight into one frame, given to the host when it is full.
//!
//! - One buffer serves all calls of an instance; emitting an event allocates nothing once the
//!   buffer has grown to what the stage needs.
//! - What is emitted leaves at the latest when the call ends.
//! - Every emitted event has a cause, an event of this call. The host takes request, trace and,
//!   unless the event has a key of its own, the key from it.
//! - An event that breaks a limit of the frame is not emitted; its cause fails instead, with a
//!   message that names the limit. So the host never sees a frame it must refuse.
//!
//! Failures of single events are kept here too, for the end of the call. Limits of the host (bytes
//! emitted in a call, ports of the manifest) are the host's to check.

use std::ops::DerefMut;

use serde::Serialize;

use crate::event::{Event, Kind};
use crate::failure::{Failed, Failure};
use crate::frame::{self, Head, Parts};
use crate::host;

mod attached;

pub use attached::Attachment;
use attached::Given;
pub(crate) use attached::sealed;

/// A frame is given to the host when the next event would make it larger than this: just below
/// the 256 KiB a stage is given in one frame, so that the host need not cut it.
const FLUSH_BYTES: usize = 240 << 10;
/// The first size of the buffer. An instance that emits little should own little memory.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// Most attachments of an event; the host takes no more new ones in a frame either.
const ATTACHMENTS_MAX: usize = 256;

/// Where an emitted event comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub(crate) index: u32,
    pub(crate) time: u64,
}

/// What can be the cause of an emitted event: an [`Event`] of this call, or what was read from one.
pub trait Cause {
    /// Index and time of the event.
    fn origin(&self) -> Origin;
}

impl Cause for Event<'_> {
    #[inline]
    fn origin(&self) -> Origin {
        Origin { index: self.index(), time: self.time() }
    }
}

/// What a stage emits, and the events it could not handle.
#[derive(Debug)]
pub struct Output {
    /// The frame being packed. All of it may be written to; `end` says how far it has been.
    buffer: Vec<u8>,
    end: usize,
    count: u32,
    failures: Vec<Failed>,
    /// Fields of the draft at hand, and whether one of them was too long to be packed.
    fields: Vec<u8>,
    fields_overflow: bool,
    /// What the draft at hand attaches.
    attached: Given,
    /// Attachments that the frame being packed names.
    attachments: usize,
    /// Where JSON is written before its length is known. Kept for the next value unless it grew
    /// for a large one.
    json: Vec<u8>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            end: frame::HEADER_BYTES,
            count: 0,
            failures: Vec::new(),
            fields: Vec::new(),
            fields_overflow: false,
            attached: Given::default(),
            attachments: 0,
            json: Vec::new(),
        }
    }

    /// Emits a payload on port 0 with the cause's time and key.
    #[inline]
    pub fn emit(&mut self, cause: &impl Cause, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        let origin = cause.origin();
        self.push(Emitted { origin, time: origin.time, port: 0, key: "", payload, fields: &[] });
    }

    /// Emits a value as JSON on port 0 with the cause's time and key. If the value cannot be
    /// written as JSON, the cause fails.
    pub fn json(&mut self, cause: &impl Cause, value: &impl Serialize) {
        self.draft(cause).json(value);
    }

    /// Begins an event with a port, key, time or fields of its own.
    ///
    /// ```
    /// # use sluicebox_guest::{Event, Output};
    /// fn by_length(event: Event<'_>, out: &mut Output) {
    ///     let port = if event.payload().len() < 100 { 0 } else { 1 };
    ///     out.draft(&event).port(port).key("all").emit(event.payload());
    /// }
    /// ```
    #[inline]
    pub fn draft(&mut self, cause: &impl Cause) -> Draft<'_> {
        Draft::new(self, cause.origin())
    }

    /// Says that an event could not be handled. Nothing that was emitted or written for it stands.
    /// The first failure of an event counts. Functions called for each event may as well return
    /// `Err`.
    pub fn fail(&mut self, cause: &impl Cause, failure: impl Into<Failure>) {
        self.fail_at(cause.origin().index, failure.into());
    }

    #[cold]
    pub(crate) fn fail_at(&mut self, event: u32, failure: Failure) {
        if !self.failures.iter().any(|failed| failed.event == event) {
            self.failures.push(Failed { event, failure });
        }
    }

    /// Gives what is left to the host and the failures to the caller: the end of a call.
    pub(crate) fn finish(&mut self) -> Vec<Failed> {
        self.attached.clear();
        self.flush();
        std::mem::take(&mut self.failures)
    }

    /// Whether it was packed; if not, its cause has failed.
    #[inline]
    fn push(&mut self, event: Emitted<'_>) -> bool {
        if let Some(excess) = event.excess() {
            self.refuse(event.origin.index, excess);
            return false;
        }
        let parts = event.key.len() + event.payload.len() + event.fields.len();
        let size = frame::HEAD_BYTES + parts;
        if self.end + size > FLUSH_BYTES {
            self.flush();
        }
        let end = self.end + size;
        if self.buffer.len() < end {
            self.grow(end);
        }
        let head = Head {
            size: size as u32,
            kind: Kind::Data as u8,
            flags: 0,
            input: 0,
            port: event.port,
            key_bytes: event.key.len() as u16,
            cause: event.origin.index,
            time: event.time,
            payload_bytes: event.payload.len() as u32,
            fields_bytes: event.fields.len() as u32,
        };
        let key = event.key.as_bytes();
        let Emitted { payload, fields, .. } = event;
        frame::write_event(&mut self.buffer[self.end..end], &Parts { head, key, payload, fields });
        self.end = end;
        self.count += 1;
        true
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        let doubled = (self.buffer.len() * 2).clamp(BUFFER_BYTES_FIRST, FLUSH_BYTES);
        self.buffer.resize(doubled.max(bytes), 0);
    }

    /// An event that no frame can carry: its cause fails.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, cause: u32, excess: Excess) {
        let what = match excess {
            Excess::Key(bytes) => format!("a key of {bytes} bytes, the limit is 512"),
            Excess::Fields(bytes) => format!("{bytes} bytes of fields, the limit is 16,384"),
            Excess::Payload(bytes) => format!("a payload of {bytes} bytes, the limit is 15 MiB"),
            Excess::Attachments(count) => format!("{count} attachments, the limit is 256"),
            Excess::Time(time) => format!("the time {time}, the limit is 2^53 microseconds"),
        };
        self.fail_at(cause, Failure::reject(format!("emitted {what}")));
    }

    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let header = frame::header(self.count, self.end as u32);
        self.buffer[..frame::HEADER_BYTES].copy_from_slice(&header);
        host::emit(&self.buffer[..self.end]);
        self.end = frame::HEADER_BYTES;
        self.count = 0;
        self.attachments = 0;
        if self.buffer.len() > FLUSH_BYTES {
            // It grew for one large event; the next one like it may never come.
            self.buffer = Vec::new();
        }
    }
}

/// What of an event is more than a frame can carry, and how much it is.
enum Excess {
    Key(usize),
    Fields(usize),
    Payload(usize),
    Attachments(usize),
    Time(u64),
}

/// One event about to be packed.
#[derive(Clone, Copy)]
struct Emitted<'a> {
    origin: Origin,
    time: u64,
    port: u16,
    key: &'a str,
    payload: &'a [u8],
    fields: &'a [u8],
}

impl Emitted<'_> {
    /// Looked at for every event, so it gives numbers, not a message: the event itself need not
    /// exist in memory to be refused.
    #[inline]
    fn excess(&self) -> Option<Excess> {
        if self.key.len() > frame::KEY_BYTES_MAX {
            Some(Excess::Key(self.key.len()))
        } else if self.fields.len() > frame::FIELDS_BYTES_MAX {
            Some(Excess::Fields(self.fields.len()))
        } else if self.payload.len() > frame::PAYLOAD_BYTES_MAX {
            Some(Excess::Payload(self.payload.len()))
        } else if self.time >= frame::TIME_END {
            Some(Excess::Time(self.time))
        } else {
            None
        }
    }
}

/// An event being put together. Made by [`Output::draft`]; ends with [`Draft::emit`] or
/// [`Draft::json`].
#[derive(Debug)]
#[must_use = "nothing is emitted until `emit` or `json` is called"]
pub struct Draft<'a, O = &'a mut Output>
where
    O: DerefMut<Target = Output>,
{
    output: O,
    origin: Origin,
    time: u64,
    port: u16,
    key: &'a str,
}

impl<'a, O: DerefMut<Target = Output>> Draft<'a, O> {
    #[inline]
    pub(crate) fn new(mut output: O, origin: Origin) -> Self {
        output.fields.clear();
        output.fields_overflow = false;
        output.attached.clear();
        Self { output, origin, time: origin.time, port: 0, key: "" }
    }

    /// The port it leaves by, counted from 0 in the order of the manifest.
    #[inline]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A key of its own, at most 512 bytes. It takes effect on edges with `key = "emitted"`.
    #[inline]
    pub fn key(mut self, key: &'a str) -> Self {
        self.key = key;
        self
    }

    /// An event time of its own, in microseconds since 1970.
    #[inline]
    pub fn time(mut self, micros: u64) -> Self {
        self.time = micros;
        self
    }

    /// Another event of this call as its cause, by index. If there is no such event the host ends
    /// the call with a trap.
    #[inline]
    pub fn cause(mut self, index: u32) -> Self {
        self.origin.index = index;
        self
    }

    /// Adds an extension field; see [`field`](crate::field) for ids.
    pub fn field(mut self, id: u16, value: impl AsRef<[u8]>) -> Self {
        let output = &mut *self.output;
        if !frame::push_field(&mut output.fields, id, value.as_ref()) {
            output.fields_overflow = true;
        }
        self
    }

    /// Attaches a buffer of the instance, which is given away by that, or passes on what an event
    /// of this call has attached. Called again it attaches another, at most 256.
    ///
    /// From then on everybody may read the buffer and nobody write it. It is freed when the batch
    /// has ended, or at once if the event is not emitted. Have no submission under way that uses
    /// it, and have all that the port leads to in the same segment; else the host ends the call.
    ///
    /// ```
    /// # use sluicebox_guest::{Event, Output, Result, gpu::Buffer};
    /// fn first(event: Event<'_>, out: &mut Output) -> Result {
    ///     let numbers = Buffer::of(&[1.0_f32, 2.0])?;
    ///     out.draft(&event).attach(numbers).emit("two numbers");
    ///     Ok(())
    /// }
    /// ```
    pub fn attach(mut self, attachment: impl Attachment) -> Self {
        let (handle, free) = attachment.parts();
        self.output.attached.push(handle, free);
        self
    }

    /// Attaches by number: what this call's events have attached, or buffers of the instance, for
    /// one that is attached to an event of this call already and is to go with another as well.
    ///
    /// A buffer that was attached is not to be freed, which [`Draft::attach`] sees to and this
    /// does not.
    pub fn attachments(mut self, handles: &[u64]) -> Self {
        for handle in handles {
            self.output.attached.push(*handle, None);
        }
        self
    }

    /// Emits the event with this payload.
    #[inline]
    pub fn emit(mut self, payload: impl AsRef<[u8]>) {
        self.finish(payload.as_ref());
    }

    /// Emits the event with this value as JSON. If it cannot be written as JSON, the cause fails.
    pub fn json(mut self, value: &impl Serialize) {
        let mut json = std::mem::take(&mut self.output.json);
        json.clear();
        match serde_json::to_writer(&mut json, value) {
            Ok(()) => self.finish(&json),
            Err(error) => {
                let failure = Failure::reject(format!("emitted what is not JSON: {error}"));
                self.output.fail_at(self.origin.index, failure);
            }
        }
        if json.capacity() <= FLUSH_BYTES {
            self.output.json = json;
        }
    }

    #[inline]
    fn finish(&mut self, payload: &[u8]) {
        let Self { origin, time, port, key, .. } = *self;
        let output = &mut *self.output;
        let is_plain = output.fields.is_empty() && output.attached.is_empty();
        if is_plain && !output.fields_overflow {
            output.push(Emitted { origin, time, port, key, payload, fields: &[] });
            return;
        }
        self.finish_with_fields(payload);
    }

    #[cold]
    fn finish_with_fields(&mut self, payload: &[u8]) {
        let Self { origin, time, port, key, .. } = *self;
        let output = &mut *self.output;
        if output.fields_overflow {
            let failure =
                Failure::reject("emitted a field whose value is longer than 65,535 bytes");
            output.fail_at(origin.index, failure);
            return;
        }
        let count = output.attached.len();
        if count > ATTACHMENTS_MAX {
            output.refuse(origin.index, Excess::Attachments(count));
            return;
        }
        if output.attachments + count > ATTACHMENTS_MAX {
            output.flush();
        }
        let mut fields = std::mem::take(&mut output.fields);
        output.attached.pack(&mut fields);
        if output.push(Emitted { origin, time, port, key, payload, fields: &fields }) {
            output.attachments += count;
            output.attached.keep();
        }
        output.fields = fields;
    }
}

#[cfg(test)]
mod tests;
