//! What a host says to the scheduler, and what it is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The weight of a whole device: a tenant's weight is its guaranteed share in millionths.
pub const WHOLE: u32 = 1_000_000;

/// What holds for all tenants of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Chunks on the device at once: 1 is fairest, 2 hides what lies between two chunks. At
    /// least 1.
    pub depth: usize,
    /// What a chunk should take at most. A single workgroup that takes longer does so.
    pub chunk_time_max: Duration,
    /// Workgroups of the first chunk of a kernel that nothing is known of.
    pub probe_groups: u64,
    /// Tenants at once.
    pub tenants_max: usize,
    /// Stages of a tenant at once.
    pub stages_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            depth: 2,
            chunk_time_max: Duration::from_millis(2),
            probe_groups: 64,
            tenants_max: 1_024,
            stages_max: 256,
        }
    }
}

/// A tenant, by the number its host gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tenant(pub u64);

/// A stage of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stage {
    /// Whose it is.
    pub tenant: Tenant,
    /// The number its host gives it; tenants do not share numbers.
    pub number: u32,
}

/// What a tenant is promised, and held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Millionths of the device that it gets whenever it has enough to do; what others leave it
    /// gets besides. At least 1.
    pub weight: u32,
    /// What it never gets more than.
    pub cap: Option<Cap>,
}

/// A bound on a tenant's time that holds even if the device is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// Millionths of the device. At least 1 and at most [`WHOLE`].
    pub rate: u32,
    /// Time it may have saved up.
    pub burst: Duration,
}

/// How a stage stands in its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTerms {
    /// Its share beside the tenant's other stages'. At least 1 and at most [`WHOLE`].
    pub weight: u32,
    /// Dispatches that were taken and are not over.
    pub dispatches_max: usize,
}

/// One dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// What its time is learnt by: the hash of the kernel, or a name for one sort of fill or copy.
    pub kernel: [u8; 32],
    /// Workgroups on each axis, or whatever this sort of work is counted in. No axis is 0.
    pub grid: [u32; 3],
    /// It has to be one chunk.
    pub is_whole: bool,
    /// No chunk has more groups, if it need not be whole. At least 1.
    pub chunk_groups_max: u64,
}

/// A dispatch that was taken. It is never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dispatch {
    pub(super) stage: Stage,
    pub(super) number: u64,
}

impl Dispatch {
    /// Where it was submitted.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }
}

/// A chunk that was given out. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub(super) u64);

/// Some groups of a dispatch, to be begun now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// To complete it by.
    pub id: ChunkId,
    /// What it is part of.
    pub dispatch: Dispatch,
    /// Its first group.
    pub from: [u32; 3],
    /// Its groups on each axis.
    pub groups: [u32; 3],
    /// What it should take; what a chunk should take at most if nothing is known of the kernel.
    pub expected: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Begin this.
    Chunk(Chunk),
    /// As many chunks are on the device as may be.
    Deep,
    /// Nobody has anything to do.
    Idle,
    /// Nobody may do anything before this moment.
    At(Duration),
    /// A copy of this stage is to be made now, before anything else is begun.
    Copy(Stage),
}

/// What a chunk that is over has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// What it was part of.
    pub dispatch: Dispatch,
    /// How the dispatch ended, if it has.
    pub over: Option<Over>,
}

/// How a dispatch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// All of its chunks were done whole.
    pub is_whole: bool,
    /// Nanoseconds that were charged for it.
    pub nanos: u128,
}

/// What was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// Nanoseconds of the device.
    pub nanos: u128,
    /// Chunks that are over.
    pub chunks: u64,
    /// Nanoseconds that copies there and back took: they count as time of the device does.
    pub copy_nanos: u128,
}

impl Bill {
    /// One chunk more.
    pub(super) const fn charge(&mut self, nanos: u64) {
        self.nanos += nanos as u128;
        self.chunks += 1;
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.nanos += other.nanos;
        self.chunks += other.chunks;
        self.copy_nanos += other.copy_nanos;
    }
}

/// How far a tenant or stage is that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// These chunks are on the device still. It takes no more work, and what waited is dropped;
    /// to be closed again once they are completed.
    Waits(Vec<ChunkId>),
    /// It is gone, and this was charged in all.
    Gone(Bill),
}

/// Why something was not done. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Would block: the stage has as many dispatches as it may. Some must end first.
    #[error("the stage has as many dispatches as it may have")]
    Full,
    /// There is none, or it is to go.
    #[error("there is no such tenant, stage or dispatch")]
    Unknown,
    /// There is one of this number.
    #[error("there is a tenant or stage of this number")]
    Exists,
    /// There are as many as may be.
    #[error("there are as many tenants or stages as may be")]
    TooMany,
    /// The weights of all tenants would be more than the device.
    #[error("the weights of all tenants together would be more than the device")]
    Oversold,
    /// A weight or rate is 0 or more than the whole, or a stage may have no dispatch.
    #[error("a weight, a rate or a length of a queue is out of its bounds")]
    Terms,
    /// The grid has no groups, or more than can be counted.
    #[error("the grid has no groups, or too many")]
    Grid,
}
