//! What a version is built from besides its pipeline: what goes on, and what is shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicebox_core::ids::Name;
use sluicebox_core::numbering::Numbering;
use sluicebox_core::recovery::Standing;

use super::Code;
use crate::deploy::{DeadLetters, StreamCodes};
use crate::durable::Durable;
use crate::mailbox::{States, WorkerHandle};
use crate::metrics::PipelineMetrics;
use crate::requests::Requests;
use crate::ring::Output;
use crate::sessions::Sessions;
use crate::spread::Trunks;
use crate::tenancy::Tenancy;

/// Everything [`Running::build`] needs besides the pipeline.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub tenant: Arc<Tenancy>,
    pub name: Name,
    pub version: u32,
    pub workers: &'a [Arc<WorkerHandle>],
    pub requests: Arc<Requests>,
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<PipelineMetrics>,
    pub dead_letters: DeadLetters,
    /// For each stage of the pipeline.
    pub code: Vec<Code>,
    pub codes: Vec<StreamCodes>,
    /// Rings of the outputs, in the pipeline's order.
    pub outputs: Vec<Arc<Output>>,
    pub inbox_bytes: usize,
    /// First of the uids for the stages.
    pub uid: u64,
    /// Its way into the log, if it has one, with the numbers of this version.
    pub durable: Option<(Arc<Durable>, Numbering)>,
    /// For each partition, the state of stages of the version before.
    pub states: Vec<States>,
    /// Where partitions stand.
    pub standing: Standing,
    /// The event time that goes on.
    pub time: Passed,
    /// The ways to other nodes, and the peer that is its home, if this is a part.
    pub spread: (Arc<Trunks>, Option<u16>),
}

/// Event time on its way from one version to the next, where no log keeps it.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The highest there was.
    pub high: u64,
    /// By the root of the segment, how far its partitions had come.
    pub watermarks: BTreeMap<String, u64>,
}

impl Passed {
    pub(super) fn watermark(&self, root: &str) -> u64 {
        self.watermarks.get(root).copied().unwrap_or(0)
    }
}
