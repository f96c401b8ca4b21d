//! Events as the suites write them, and as they read them back.
//!
//! Leaves to others: the format (`sluicebox_core::frame`), which this only fills and reads.

use std::fmt;

use sluicebox_core::frame::{Event, Frame, FrameBuilder, Head, Kind, NO_CAUSE, push_field};
use sluicebox_core::partition::{Commit, dead_letter_field};

/// Event time of the first event of a frame; each further one is a microsecond later.
pub const TIME: u64 = 1_700_000_000_000_000;

/// An event to be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Why it is here.
    pub kind: Kind,
    /// Which input it arrives at.
    pub input: u16,
    /// Its key.
    pub key: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its extension fields.
    pub fields: Vec<(u16, Vec<u8>)>,
}

impl Given {
    /// A data event.
    pub fn new(key: &str, payload: impl Into<Vec<u8>>) -> Self {
        let (key, payload) = (key.to_owned(), payload.into());
        Self { kind: Kind::Data, input: 0, key, payload, fields: Vec::new() }
    }

    /// Of another kind.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// At another input.
    #[must_use]
    pub fn input(self, input: u16) -> Self {
        Self { input, ..self }
    }

    /// With an extension field.
    #[must_use]
    pub fn field(mut self, id: u16, value: &[u8]) -> Self {
        self.fields.push((id, value.to_vec()));
        self
    }
}

/// A frame of these events.
#[must_use]
pub fn frame(events: &[Given]) -> Frame {
    let mut builder = FrameBuilder::new();
    for (at, event) in events.iter().enumerate() {
        let mut fields = Vec::new();
        for (id, value) in &event.fields {
            assert!(push_field(&mut fields, *id, value), "fields of at most 16 KiB");
        }
        let time = TIME + at as u64;
        let (kind, input) = (event.kind, event.input);
        let head = Head { kind, input, port: 0, cause: NO_CAUSE, time };
        builder.push(&head, event.key.as_bytes(), &event.payload, &fields);
    }
    builder.finish()
}

/// An event that left a chain.
#[derive(Clone, PartialEq, Eq)]
pub struct Out {
    /// The port it left by.
    pub port: u16,
    /// Its time, counted from [`TIME`]: the index of the event it came of, as a rule.
    pub at: u64,
    /// Its key.
    pub key: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its extension fields.
    pub fields: Vec<(u16, Vec<u8>)>,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, at, key) = (self.port, self.at, &self.key);
        write!(f, "port {port} at {at} key {key:?} payload ")?;
        text(&self.payload, f)?;
        for (id, value) in &self.fields {
            write!(f, " field {id} ")?;
            text(value, f)?;
        }
        Ok(())
    }
}

/// Short bytes as text, of long ones the beginning and the length.
fn text(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let shown = &bytes[..bytes.len().min(100)];
    write!(f, "\"{}\"", shown.escape_ascii())?;
    if shown.len() < bytes.len() { write!(f, "… ({} bytes)", bytes.len()) } else { Ok(()) }
}

impl Out {
    /// An event that came of event `at`, by port 0, with an empty key.
    pub fn of(at: u64, payload: impl Into<Vec<u8>>) -> Self {
        let (key, payload) = (String::new(), payload.into());
        Self { port: 0, at, key, payload, fields: Vec::new() }
    }

    /// By another port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// With a key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }

    /// With an extension field.
    #[must_use]
    pub fn field(mut self, id: u16, value: &[u8]) -> Self {
        self.fields.push((id, value.to_vec()));
        self
    }

    /// As it is in a frame. The port is not: what is received says where it arrives.
    #[must_use]
    pub fn read(port: u16, event: &Event<'_>) -> Self {
        Self {
            port,
            at: event.head.time.wrapping_sub(TIME),
            key: event.key_str().to_owned(),
            payload: event.payload.to_vec(),
            fields: event.fields.iter().map(|(id, value)| (id, value.to_vec())).collect(),
        }
    }
}

/// An event that was given up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The stage that gave up.
    pub stage: String,
    /// `retry`, `reject`, `trap` or `stream.lost`.
    pub class: String,
    /// Why.
    pub message: String,
    /// The event as it was.
    pub key: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Dead {
    /// As it is in a frame of dead letters.
    #[must_use]
    pub fn read(event: &Event<'_>) -> Self {
        let text = |id| {
            let value = event.fields.get(id).expect("every dead letter has it");
            std::str::from_utf8(value).expect("it is text").to_owned()
        };
        Self {
            stage: text(dead_letter_field::STAGE),
            class: text(dead_letter_field::CLASS),
            message: text(dead_letter_field::MESSAGE),
            key: event.key_str().to_owned(),
            payload: event.payload.to_vec(),
        }
    }
}

/// What left the last stage of a chain, by port, each port's events in order.
#[must_use]
pub fn outputs(commit: &Commit) -> Vec<Out> {
    let mut runs: Vec<_> = commit.runs.iter().collect();
    runs.sort_by_key(|run| run.target);
    // In a chain target and port are the same number.
    let port = |target: usize| u16::try_from(target).expect("a chain has few targets");
    runs.iter()
        .flat_map(|run| run.frame.events().map(|event| Out::read(port(run.target), &event)))
        .collect()
}

/// What was given up on.
#[must_use]
pub fn dead(commit: &Commit) -> Vec<Dead> {
    let dead = commit.dead_letters.iter();
    dead.flat_map(|frame| frame.events().map(|event| Dead::read(&event)).collect::<Vec<_>>())
        .collect()
}
