//! What a pipeline's author writes: the value tree, the table of fields it is held against, and
//! the declaration that comes out.
//!
//! - Reading never stops at a mistake: all are collected, each naming its field and the fix.
//! - A declaration can be written back; reading that gives the same declaration, with every
//!   default spelled out, so a stored manifest keeps its meaning when a default changes.
//! - Nothing here knows what a field's neighbours say: whether a port exists or the graph has a
//!   cycle is decided in `pipeline`.
//!
//! Text (TOML or JSON) becomes a value tree in the node; no parser of text is here.

use std::collections::BTreeMap;

use crate::json_key::Pointer;
use crate::pipeline::{Delivery, EdgeKey, EventTime, Scaling, Sink, Source, Stage, TimeUnit};

pub mod bounds;
mod decode;
mod fields;
mod problem;
mod schema;
mod value;
mod walk;
mod words;
mod write;

pub use decode::read;
pub use problem::{Problem, Problems, show};
pub use schema::schema;
pub use value::{Table, Value};
pub use walk::{item, member};
pub use words::{Reference, duration_text, parse_component, size_text};

pub(crate) use words::nearest;

/// A manifest whose fields have been read: defaults filled in, names not yet resolved.
///
/// When it comes with problems, what could not be read holds its default or is empty; it is then
/// of use only for finding more problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The pipeline's name.
    pub name: String,
    /// What is promised about events.
    pub delivery: Delivery,
    /// Partitions of each segment, if the author or the first apply has set the number.
    pub partitions: Option<u16>,
    /// How far it is scaled with its load, if at all.
    pub scaling: Option<Scaling>,
    /// Where events enter.
    pub ingest: IngestDeclaration,
    /// Whether there is event time, and how.
    pub time: Option<EventTime>,
    /// The stages by name; each holds its name too.
    pub stages: BTreeMap<String, Stage>,
    /// The edges, in the author's order.
    pub edges: Vec<EdgeDeclaration>,
    /// The outputs by name.
    pub outputs: BTreeMap<String, OutputDeclaration>,
    /// What it takes in by itself, by name; each holds its name too.
    pub sources: BTreeMap<String, Source>,
    /// Where it hands results on to by itself, by name; each holds its name too.
    pub sinks: BTreeMap<String, Sink>,
}

/// Where events enter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestDeclaration {
    /// Stages, and inputs, that get each event.
    pub to: Vec<Reference>,
    /// Where in a JSON payload the key is found.
    pub key: Option<Pointer>,
    /// Where in a JSON payload the event time is found.
    pub time: Option<Pointer>,
    /// What a number there counts.
    pub time_unit: TimeUnit,
}

/// An edge between two stages, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeDeclaration {
    /// A stage and its port.
    pub from: Reference,
    /// A stage and its input.
    pub to: Reference,
    /// The key events travel by.
    pub key: EdgeKey,
}

/// An output, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputDeclaration {
    /// A stage and its port.
    pub from: Reference,
    /// The key shown with each record.
    pub key: EdgeKey,
    /// Bytes kept for readers.
    pub retain_bytes: u64,
}

#[cfg(test)]
mod tests;
