//! What can be wrong with a record that is well formed: it does not follow from those before it.
//!
//! Either our bug, or damage that a checksum did not see. The messages are for whoever has to find
//! out which; what to do about it is said by the node.

use crate::ids::{EdgeId, OutputId, PipelineId, StageId};
use crate::position::{Backwards, OutOfOrder, Place, Source};

/// Why a pipeline stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record at position {position} of the log does not fit pipeline {}: {wrong}",
    pipeline.0
)]
pub struct Stopped {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Position of the record.
    pub position: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Something before the checkpoint recovery began at.
    #[error("it had stopped there before the last checkpoint")]
    Earlier,
    /// Nobody applied it, or it is gone.
    #[error("there is no such pipeline")]
    Pipeline,
    /// It is another node's by now.
    #[error("it has moved to another node, and everything of it is refused here")]
    Moved,
    /// What came from another node is not one pipeline that can go on here.
    #[error("it came from another node and cannot go on here: {0}")]
    Opened(&'static str),
    /// What came from another node are not partitions that can go on here.
    #[error("partitions of it came from another node and cannot go on here: {0}")]
    Joined(&'static str),
    /// Only its home takes in events from outside.
    #[error("only a part of it is on this node, and events come in at its home")]
    Part,
    /// It changes and moves only as a whole.
    #[error("not all of its partitions are on this node, and it changes and moves as a whole")]
    Scattered,
    /// A partition that is on another node.
    #[error("partition {0} is on another node")]
    Away(u16),
    /// A partition that is on this node.
    #[error("partition {0} is on this node already")]
    Here(u16),
    /// A partition of which nothing is to go.
    #[error("partition {0} has not left this node, or what it left behind was let go before")]
    NotLeaving(u16),
    /// Another one of its tenant has the name.
    #[error("another pipeline of the tenant has its name")]
    Name,
    /// A version that is not there yet, or not a later one.
    #[error("version {found} comes while version {current} runs")]
    Version {
        /// In the record.
        found: u32,
        /// The one that runs.
        current: u32,
    },
    /// A stage that is not in this version.
    #[error("stage {} is not in it", .0.0)]
    Stage(StageId),
    /// An edge that is not in this version, or does not lead here.
    #[error("edge {} is not in it, or leads elsewhere", .0.0)]
    Edge(EdgeId),
    /// An output that is not in this version.
    #[error("output {} is not in it", .0.0)]
    Output(OutputId),
    /// A partition beyond the last.
    #[error("partition {0} is beyond its last")]
    Partition(u16),
    /// A number was given out again.
    #[error("the number {0} of something new was used before")]
    Reused(u32),
    /// A discarded stage is not there, or still in the version.
    #[error("stage {} is discarded, and is not there or stays", .0.0)]
    Discarded(StageId),
    /// Events wait for a stage that goes, or for partitions that change.
    #[error("{0} runs wait that would have no reader")]
    WouldStrand(usize),
    /// Commits or ingests are not one after another.
    #[error("number {found} follows number {last}")]
    Number {
        /// In the record.
        found: u64,
        /// The one before.
        last: u64,
    },
    /// A run's number does not follow.
    #[error("{0}")]
    Seq(#[from] OutOfOrder),
    /// A run names another one before it than there was.
    #[error("a run says the one before it is {found}, it is {last}")]
    Previous {
        /// In the record.
        found: u64,
        /// What it should be.
        last: u64,
    },
    /// A batch does not begin where the one before ended.
    #[error("a batch begins at {found:?} in {source_of:?}, the one before ended at {at:?}")]
    Begin {
        /// The source.
        source_of: Source,
        /// In the record.
        found: Place,
        /// Where the reader is.
        at: Place,
    },
    /// A place before the one that was reached.
    #[error("{0}")]
    Backwards(#[from] Backwards),
    /// A batch takes more or other events than were sent.
    #[error("a batch says it took {found} events of {source_of:?}, there are {sent}")]
    Events {
        /// The source.
        source_of: Source,
        /// In the record.
        found: u64,
        /// What lies between its places.
        sent: u64,
    },
    /// A place inside or behind runs that were not sent.
    #[error("a batch ends at {to:?} in {source_of:?}, where nothing was sent")]
    Unsent {
        /// The source.
        source_of: Source,
        /// In the record.
        to: Place,
    },
    /// An offset that does not follow.
    #[error("offset {found} follows, where the next is {next}")]
    Offset {
        /// In the record.
        found: u64,
        /// What it should be.
        next: u64,
    },
}
