//! What is in the log: the bodies of its records, format version 6.
//!
//! ```text
//! every body     format u8 · oldest format a reader must know u8 · fields · extensions
//! n              varint, see `wire`       bytes  n, then so many
//! frame          bytes, as it is (wit/FRAME.md) or compact
//! 1 ingest       pipeline n · seq n · time n · flags u8 (1 producer) · [id bytes · sequence n]
//!                · n × id 16 bytes · n × { stage n · partition n · seq - previous n · frame }
//!                · extension 19: n × { root n · partition n · oldest kept n
//!                · n × { gap n · length n } }
//!                · extension 22: highest event time so far n
//! 2 commit       pipeline n · version n · root stage n · partition n · number n · time n
//!                · flags u8 (1 ends) · [ends until n] · n × piece · state · n × run
//!                · n × { output n · first offset n · frame } · 0 or 1 × { first n · frame }
//!                · fuel n · events n · reruns n · extension 22: watermark n
//!                · extension 26: n × { stage n · fuel n · events n · reruns n }: those of stages
//!                other than the root, in the order of their numbers
//!    piece       0, or edge + 1 n · partition n; then from: seq n · index n;
//!                to: seq - from.seq n · index n; events n
//!    state       { stage + 1 n · changes · 0 u8 } … 0 u8
//!                the stage is 2^31 more for what is parked at it, 2^30 more for its timers,
//!                2^29 more for its streams
//!    change      u8: 1, + 2 removed, + 4 key as before, + 8 slot as before;
//!                · [key bytes] · [slot bytes] · [value bytes]
//!    run         edge n · seq n · partition n · seq - previous n · frame
//! 3 apply        tenant bytes · name bytes · pipeline n · version n · partitions n
//!                · manifest bytes · names · n × discarded stage n
//!    names       n × { stage n · name bytes } · n × { edge n · from stage n · port bytes
//!                · to stage n · input bytes } · n × { output n · name bytes }
//! 4 delete       pipeline n                  5 checkpoint   horizon n · generation n
//! 6 open         pipeline n · kept bytes     7 move         pipeline n · name of a node bytes
//! 8 leave        pipeline n · name of a node bytes · n × partition n
//! 9 join         pipeline n · name of a node bytes · name of the home bytes (empty: none)
//!                · n × partition n · kept bytes
//!                · extension 25: state, as in a commit: what changed since it was copied
//! 10 release     pipeline n · n × partition n
//! 11 usage       time n · n × { tenant bytes · pipeline bytes (empty: none) · stage bytes
//!                (empty: none) · what was used, see `bill` }
//! extensions     { id n · bytes } … to the end of the body; a reader skips what it does not know
//! ```
//! The log keeps the kind beside the body. What was written once can be read for ever.

mod commit;
mod control;
mod ingest;
mod parts;
mod usage;
pub(crate) mod wire;
mod writer;

pub use commit::{
    Batch, Changed, CommitHead, CommitRecord, DeadRun, EdgeRun, OutputRun, Piece, Sent,
    StateChanges, StateWriter, Usage,
};
pub(crate) use commit::{put_source, source};
pub(crate) use control::name_table;
pub use control::{
    ApplyRecord, CheckpointRecord, DeleteRecord, EdgeEnds, MoveRecord, NameTable, OpenRecord,
};
pub(crate) use ingest::previous;
pub use ingest::{IngestRecord, IngestRun, Producer};
pub use parts::{JoinRecord, LeaveRecord, ReleaseRecord};
pub use usage::{UsageLine, UsageRecord};
pub use writer::RecordWriter;
pub(crate) use writer::put_frame;

use std::ops::Range;

use bytes::Bytes;

use crate::frame::{Frame, FrameError, expand};
use crate::ids::PipelineId;

use wire::Reader;

/// The extension with an event time: of an ingest the highest so far, of a commit its watermark.
const TIME: u64 = 22;

/// The format this code writes, and the newest it reads.
pub const FORMAT: u8 = 6;

/// The format that came with the bill: its record, and accounts in checkpoints.
pub(crate) const FORMAT_OF_BILL: u8 = 6;

/// The format a kind is written in, and the oldest reader that understands it: that in which the
/// kind changed last. Compact frames came with 2, pipelines that move with 3, those whose
/// partitions are on several nodes with 4; with 5 those may bring what they changed last, and with
/// 6 there is what was measured.
pub(crate) const fn format_of(kind: u8) -> u8 {
    match kind {
        kind::USAGE => FORMAT_OF_BILL,
        kind::LEAVE | kind::JOIN | kind::RELEASE => 4,
        kind::OPEN | kind::MOVE => 3,
        kind::INGEST | kind::COMMIT => 2,
        _ => 1,
    }
}

/// The kinds of record, as the log keeps them.
pub mod kind {
    /// No record: what a checkpoint keeps of the fold.
    pub(crate) const KEPT: u8 = 0;
    /// Events of one request.
    pub const INGEST: u8 = 1;
    /// One commit of one partition.
    pub const COMMIT: u8 = 2;
    /// A version of a pipeline.
    pub const APPLY: u8 = 3;
    /// The end of a pipeline.
    pub const DELETE: u8 = 4;
    /// A checkpoint.
    pub const CHECKPOINT: u8 = 5;
    /// A pipeline came from another node: where it stands.
    pub const OPEN: u8 = 6;
    /// A pipeline goes to another node; from here on this one refuses everything of it.
    pub const MOVE: u8 = 7;
    /// Partitions of a pipeline go to another node, or are known to be on another one.
    pub const LEAVE: u8 = 8;
    /// Partitions of a pipeline came from another node: where they stand.
    pub const JOIN: u8 = 9;
    /// What is still here of partitions that left may go.
    pub const RELEASE: u8 = 10;
    /// What was used, as far as no commit says it.
    pub const USAGE: u8 = 11;
}

/// One item of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// Events of one request.
    Ingest(IngestRecord<'a>),
    /// One commit of one partition.
    Commit(CommitRecord<'a>),
    /// A version of a pipeline.
    Apply(ApplyRecord<'a>),
    /// The end of a pipeline.
    Delete(DeleteRecord),
    /// A checkpoint.
    Checkpoint(CheckpointRecord),
    /// A pipeline came from another node.
    Open(OpenRecord<'a>),
    /// A pipeline goes to another node.
    Move(MoveRecord),
    /// Partitions of a pipeline go to another node.
    Leave(LeaveRecord),
    /// Partitions of a pipeline came from another node.
    Join(JoinRecord<'a>),
    /// What is still here of partitions that left may go.
    Release(ReleaseRecord),
    /// What was used, as far as no commit says it.
    Usage(UsageRecord),
}

/// A frame inside a record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAt {
    /// Where it is in the record's body.
    pub range: Range<usize>,
    /// How many events it has, as its header says.
    pub events: u32,
    /// Bytes of the frame itself, which may lie there in its compact form.
    pub bytes: usize,
}

impl FrameAt {
    /// Takes the frame out of the body it was found in.
    ///
    /// # Errors
    /// One of its events is wrong.
    ///
    /// # Panics
    /// `body` is shorter than the one it was found in.
    pub fn frame(&self, body: &Bytes) -> Result<Frame, FrameError> {
        expand(body.slice(self.range.clone()))
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record of kind {kind}, byte {at}: {fault}")]
pub struct RecordError {
    /// The record's kind.
    pub kind: u8,
    /// Where in its body.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// The pipeline a record is of, without a look at the rest; `None` if that cannot be told so.
#[must_use]
pub fn pipeline_of(kind: u8, body: &[u8]) -> Option<PipelineId> {
    if matches!(kind, kind::APPLY | kind::CHECKPOINT | kind::USAGE) {
        return None;
    }
    let mut reader = Reader::new(kind, body);
    reader.format().ok()?;
    reader.number("the pipeline").ok().map(PipelineId)
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kind this program does not know.
    #[error(
        "this program knows kinds 1 to 11 of format {FORMAT}; a newer one wrote this, so use that"
    )]
    Kind,
    /// Written for newer readers.
    #[error("it needs a reader of format {0}, this one reads up to {FORMAT}; use a newer program")]
    Newer(u8),
    /// The body ends too early.
    #[error("the record ends inside {0}")]
    Truncated(&'static str),
    /// A value that cannot be.
    #[error("{0} cannot be this")]
    Value(&'static str),
    /// The header of a frame is wrong.
    #[error("{0}")]
    Frame(FrameError),
}

/// Reads the body of a record. Frames are found and counted; their events are checked by
/// [`FrameAt::frame`].
///
/// # Errors
/// The first thing that is wrong.
pub fn decode(kind: u8, body: &[u8]) -> Result<Record<'_>, RecordError> {
    let mut reader = Reader::new(kind, body);
    if !(kind::INGEST..=kind::USAGE).contains(&kind) {
        return Err(reader.error(Fault::Kind));
    }
    reader.format()?;
    let reader = &mut reader;
    match kind {
        kind::INGEST => ingest::read(reader).map(Record::Ingest),
        kind::COMMIT => commit::read(reader, body).map(Record::Commit),
        kind::APPLY => control::apply(reader).map(Record::Apply),
        kind::DELETE => control::delete(reader).map(Record::Delete),
        kind::CHECKPOINT => control::checkpoint(reader).map(Record::Checkpoint),
        kind::OPEN => control::open(reader).map(Record::Open),
        kind::MOVE => control::moves(reader).map(Record::Move),
        kind::LEAVE => parts::leave(reader).map(Record::Leave),
        kind::JOIN => parts::join(reader).map(Record::Join),
        kind::RELEASE => parts::release(reader).map(Record::Release),
        _ => usage::read(reader).map(Record::Usage),
    }
}
