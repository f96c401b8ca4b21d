//! Hand-over: a pipeline moves to another node, with everything it keeps.
//!
//! ```text
//! source:  prepare ─► pause, drain ─► checkpoint ─► take ─► log MOVE ─► open ─► log DELETE
//! target:  files, code                      entries of the store      log OPEN, run
//! ```
//!
//! - Up to the record MOVE the pipeline is the source's: whatever goes wrong, it runs on there.
//!   From there on the source refuses it, and keeps what it has until the target has said that it
//!   runs.
//! - The target takes the entries of the store, which mean nothing before its record OPEN. After
//!   that the pipeline is its own.
//! - A source that is started again between the two goes on where it stopped, as often as it
//!   takes. A target remembers what it has opened until the source says that it has let go, so that
//!   it opens nothing twice, whatever became of it since.
//! - Nothing is converted: numbers of the pipeline, offsets, places and ids stay. What is counted
//!   in positions of the source's log is put behind everything (`pages`).
//!
//! `depart` is the source, `arrive` the target, `pages` what goes from one to the other. See ADR
//! 0038. `partitions` moves some partitions of a pipeline, and leaves its home where it is.

mod arrive;
mod depart;
pub(crate) mod pages;
mod partitions;
mod steps;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::PipelineId;
use sluicebox_link::tls::NodeName;

pub(crate) use arrive::{Opening, Preparing};
pub(crate) use partitions::groups::Groups;
pub(crate) use partitions::take::{Copied, Shape};
pub(crate) use partitions::{Joining, KEPT_MORE_BYTES, Placed, why_in_one_place};

/// A pipeline that is going to another node.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    pub(crate) id: PipelineId,
    /// Where it goes.
    pub(crate) to: NodeName,
    /// The record is in the log: there is no way back.
    pub(crate) is_gone: bool,
}

/// A pipeline that has gone to another node.
#[derive(Debug, Clone)]
pub(crate) struct Gone {
    pub(crate) to: NodeName,
    pub(crate) since: Instant,
}

/// What a move came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Moved {
    /// The pipeline.
    pub name: String,
    /// The node it was on.
    pub from: String,
    /// The node it is on.
    pub to: String,
    /// The partitions that were moved; all of them, if none is named.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub partitions: Vec<u16>,
    /// How long it took nothing in, or the partitions nothing of what was for them.
    pub pause_millis: u64,
}
