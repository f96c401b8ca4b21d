//! The events a stage receives, borrowed from the frame they came in.
//!
//! - Going through the events of a call allocates nothing and copies nothing.
//! - An [`Event`] cannot outlive the call it came in: what it borrows is the frame.
//! - The index of an event is its place in the frame of the current call, and nothing else; the
//!   host knows events of a call by it.
//!
//! Emitting is in `output.rs`, the state of an event's key in `state.rs`, its timers in
//! `timers.rs`.

use std::fmt;

use serde::Deserialize;

use crate::failure::Failure;
use crate::frame;
use crate::state::State;
use crate::timers::Timers;

/// Ids of extension fields. Ids from [`field::OWN_FIRST`] on are for stages' own use.
pub mod field {
    /// A W3C `traceparent`; written by the host.
    pub const TRACE_CONTEXT: u16 = 1;
    /// What ties the event to a waiting request; written by the host.
    pub const REQUEST: u16 = 2;
    /// Handles of buffers that go with the event, 8 bytes each; the host's but for what a stage
    /// attaches.
    pub const ATTACHMENTS: u16 = 3;
    /// `CloudEvents` `id`.
    pub const EVENT_ID: u16 = 256;
    /// `CloudEvents` `source`.
    pub const EVENT_SOURCE: u16 = 257;
    /// Media type of the payload.
    pub const CONTENT_TYPE: u16 = 258;
    /// `CloudEvents` `type`.
    pub const EVENT_TYPE: u16 = 259;
    /// `CloudEvents` `subject`.
    pub const EVENT_SUBJECT: u16 = 260;
    /// The first id that stages may use as they like.
    pub const OWN_FIRST: u16 = 32_768;
}

/// Why an event is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Something a producer sent or a stage emitted.
    Data = 0,
    /// A wake-up this key asked for.
    Timer = 1,
    /// A stream begins.
    Open = 2,
    /// The stream ends.
    End = 3,
}

impl Kind {
    #[inline]
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Data,
            1 => Self::Timer,
            2 => Self::Open,
            3 => Self::End,
            _ => return None,
        })
    }
}

/// The events of one call, in order.
///
/// Copying it costs nothing, so the same events can be gone through more than once:
///
/// ```
/// # use sluicebox_guest::{Events, Output};
/// fn longest_first(events: Events<'_>, out: &mut Output) {
///     let longest = events.iter().map(|event| event.payload().len()).max();
///     for event in events {
///         if Some(event.payload().len()) == longest {
///             out.emit(&event, event.payload());
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Events<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> Events<'a> {
    /// The events of a frame from the host; panics if it is not one.
    pub(crate) fn open(frame: &'a [u8]) -> Self {
        let (count, bytes) = frame::open(frame);
        Self { bytes, count }
    }

    /// How many events there are: 1 to 256 unless the host's limits were raised.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there are no events; the host makes no such call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events, first to last.
    #[must_use]
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.bytes, index: 0, count: self.count }
    }
}

impl<'a> IntoIterator for Events<'a> {
    type Item = Event<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Events<'a> {
    type Item = Event<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Goes through the events of one call. Made by [`Events::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        if self.index == self.count {
            return None;
        }
        let (event, rest) = Event::first_of(self.rest, self.index);
        self.rest = rest;
        self.index += 1;
        Some(event)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.index) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// One event, borrowed from the frame of the current call.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    index: u32,
    kind: Kind,
    input: u16,
    port: u16,
    time: u64,
    key: &'a [u8],
    payload: &'a [u8],
    fields: &'a [u8],
}

impl<'a> Event<'a> {
    /// Splits the event with this index off the front of `bytes`.
    #[inline]
    pub(crate) fn first_of(bytes: &'a [u8], index: u32) -> (Self, &'a [u8]) {
        let Some((parts, rest)) = frame::split_event(bytes) else {
            frame::broken();
        };
        let event = Self {
            index,
            kind: frame::kind(parts.head.kind),
            input: parts.head.input,
            port: parts.head.port,
            time: parts.head.time,
            key: parts.key,
            payload: parts.payload,
            fields: parts.fields,
        };
        (event, rest)
    }

    /// The event's place among the events of this call, counted from 0.
    #[must_use]
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Why the event is here.
    #[must_use]
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which input of this stage it arrived at, counted from 0 in the order of the manifest.
    #[must_use]
    #[inline]
    pub fn input(&self) -> u16 {
        self.input
    }

    /// The port it left the stage before by; 0 from the ingest.
    #[must_use]
    #[inline]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Event time in microseconds since 1970.
    #[must_use]
    #[inline]
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The key. The host lets no key through that is not UTF-8, but Rust has to look again; a
    /// stage that needs only the bytes saves that with [`Event::key_bytes`].
    #[must_use]
    #[inline]
    pub fn key(&self) -> &'a str {
        match std::str::from_utf8(self.key) {
            Ok(key) => key,
            Err(_) => frame::broken(),
        }
    }

    /// The bytes of the key, without a second look at them.
    #[must_use]
    #[inline]
    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload as text.
    ///
    /// # Errors
    ///
    /// A failure of class reject if it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.payload)
            .map_err(|error| Failure::reject(format!("the payload is not UTF-8: {error}")))
    }

    /// The payload read as JSON. Strings and bytes may be borrowed from the payload.
    ///
    /// # Errors
    ///
    /// A failure of class reject that says what was expected where.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.payload).map_err(|error| {
            Failure::reject(format!("the payload is not the JSON it should be: {error}"))
        })
    }

    /// The value of the first extension field with this id; see [`field`] for ids.
    #[must_use]
    pub fn field(&self, id: u16) -> Option<&'a [u8]> {
        self.fields().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// All extension fields: id and value, in order.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.fields }
    }

    /// The handles of what is attached to this event. For buffers of a GPU there is
    /// [`Event::buffers`].
    pub fn attachments(&self) -> impl Iterator<Item = u64> + use<'a> {
        let handles = self.field(field::ATTACHMENTS).unwrap_or_default();
        handles.as_chunks::<8>().0.iter().map(|handle| u64::from_le_bytes(*handle))
    }

    /// The state of this event's key.
    #[must_use]
    #[inline]
    pub fn state(&self) -> State {
        State::of(self.index)
    }

    /// The timers of this event's key.
    #[must_use]
    #[inline]
    pub fn timers(&self) -> Timers {
        Timers::of(self.index)
    }

    /// The name of the timer that fires; nothing if the event is not one. Its time is the one the
    /// timer was set for.
    #[must_use]
    #[inline]
    pub fn timer(&self) -> Option<&'a str> {
        if self.kind != Kind::Timer {
            return None;
        }
        match std::str::from_utf8(self.payload) {
            Ok(name) => Some(name),
            Err(_) => frame::broken(),
        }
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("index", &self.index)
            .field("kind", &self.kind)
            .field("input", &self.input)
            .field("port", &self.port)
            .field("time", &self.time)
            .field("key", &self.key())
            .field("payload", &String::from_utf8_lossy(self.payload))
            .finish_non_exhaustive()
    }
}

/// Goes through the extension fields of an event. Made by [`Event::fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_first_chunk::<4>()?;
        let bytes = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let Some((value, rest)) = rest.split_at_checked(bytes) else {
            frame::broken();
        };
        self.rest = rest;
        Some((u16::from_le_bytes([head[0], head[1]]), value))
    }
}
