//! What the machine is told of the stages it runs.

use std::sync::Arc;

use crate::layer::{LayerLimits, Ports};
use crate::pipeline::{OnFailure, ParkLimits, Scope, StreamLimits};
use crate::state::{StateLimits, Ttl};

/// Which codes the streams of a stage may be open with, each known by a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Codes {
    /// The one they open with.
    pub now: u32,
    /// The one of those of which it is not known.
    pub oldest: u32,
}

/// One stage of a segment, as the machine needs it.
#[derive(Debug, Clone)]
pub struct StagePlan {
    /// For dead letters.
    pub name: String,
    /// Whom an instance serves.
    pub scope: Scope,
    /// What happens to an event that failed for good.
    pub on_failure: OnFailure,
    /// Immediate runs of an event that failed with class retry.
    pub retries: u8,
    /// When a stream ends by itself.
    pub stream: StreamLimits,
    /// Which codes its streams have.
    pub codes: Codes,
    /// How long and how often parked events are tried.
    pub park: ParkLimits,
    /// Where the stage's ports lead.
    pub ports: Arc<Ports>,
    /// For each target of `ports`: the stage of this segment it leads to, if it stays inside.
    pub inside: Vec<Option<usize>>,
    /// Bounds on one call.
    pub limits: LayerLimits,
    /// Bounds on the stage's state in one partition.
    pub state: StateLimits,
    /// How long a key's state stays that is not written; `None`: for ever.
    pub state_ttl: Option<Ttl>,
}

/// A segment: its stages in topological order, the root first.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    /// The stages.
    pub stages: Vec<StagePlan>,
}
