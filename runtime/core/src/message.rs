//! What the nodes of a cluster say to each other of the partitions of a pipeline, format 1.
//!
//! ```text
//! every message  format u8: 1 · kind u8 · fields; a frame goes from there to the message's end
//! n              varint, as in records (`codec`)
//! at             pipeline n · root stage n · partition n
//! source         0, or edge + 1 n · partition n
//! 1 run          at · source · seq n · seq - previous n · skip n · frame
//! 2 settled      at · n × { source · place: seq n · index n }
//! 3 later        at · source
//! 4 output       pipeline n · output n · partition n · first offset n · frame
//! 5 dead letters at · first offset n · frame
//! 6 kept         pipeline n · partition n · n × { output n · next n } · n × { root n · next n }
//! 7 requests     n × { request n · change n, its sign the lowest bit (zigzag) }
//! 8 moved        pipeline n
//! 9 marks        at · ingest n · n × { root stage n · partition n · mark n }
//! ```
//!
//! - A head is written apart from its frame, so that sending copies the frame once.
//! - Equal messages have equal bytes. A list has no more items than there are bytes for.
//! - Frames are not looked at: whoever takes one out parses it, as it would one of a guest.
//!
//! Leaves to the reader: whether the partition is here, and whether this node may say this of it.

use crate::codec::wire::{Reader, put};
use crate::codec::{Fault, RecordError, previous, put_source, source};
use crate::ids::{OutputId, PipelineId, RequestId, StageId};
use crate::position::{Place, RunHeader, Source};

/// The format this code writes, and the newest it reads.
pub const FORMAT: u8 = 1;

/// The kinds of message.
mod kind {
    pub(super) const RUN: u8 = 1;
    pub(super) const SETTLED: u8 = 2;
    pub(super) const LATER: u8 = 3;
    pub(super) const OUTPUT: u8 = 4;
    pub(super) const DEAD_LETTERS: u8 = 5;
    pub(super) const KEPT: u8 = 6;
    pub(super) const REQUESTS: u8 = 7;
    pub(super) const MOVED: u8 = 8;
    pub(super) const MARKS: u8 = 9;
}

/// Least bytes of a mark: three numbers.
const MARK_BYTES_MIN: usize = 3;
/// Least bytes of a source with its place.
const PLACE_BYTES_MIN: usize = 3;
/// Least bytes of all other items of lists, which are two numbers.
const PAIR_BYTES_MIN: usize = 2;

/// A partition of the segment with this root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Of which pipeline.
    pub pipeline: PipelineId,
    /// The stage events enter the segment by.
    pub root: StageId,
    /// Which of its partitions.
    pub partition: u16,
}

/// One thing that a node says to another. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A run for a partition on the other node.
    Run {
        /// Where it goes.
        to: At,
        /// What it says of itself.
        run: RunHeader,
        /// Its first events that are consumed.
        skip: u32,
        /// All of its events, unchecked.
        frame: &'a [u8],
    },
    /// Everything of these sources before these places is consumed by the partition, and on its
    /// disk.
    Settled {
        /// Who has consumed it.
        of: At,
        /// How far, by source.
        places: Vec<(Source, Place)>,
    },
    /// The partition cannot take runs of this source now: send again from the oldest that is not
    /// settled, after a pause.
    Later {
        /// Who has no room.
        of: At,
        /// For runs of whom.
        source: Source,
    },
    /// Events that left by an output of a partition, for the pipeline's home.
    Output {
        /// Of which pipeline.
        pipeline: PipelineId,
        /// By which output.
        output: OutputId,
        /// Of which partition.
        partition: u16,
        /// Offset of the first event.
        first: u64,
        /// The events, unchecked.
        frame: &'a [u8],
    },
    /// Events that a partition gave up on, for the home.
    DeadLetters {
        /// Who gave up.
        of: At,
        /// Offset of the first of them.
        first: u64,
        /// The events, unchecked.
        frame: &'a [u8],
    },
    /// What the home has of a partition: all before these offsets.
    Kept {
        /// Of which pipeline.
        pipeline: PipelineId,
        /// Of which partition.
        partition: u16,
        /// By output, the offset that it wants next.
        outputs: Vec<(OutputId, u64)>,
        /// The same of dead letters, by the root of the segment.
        dead_letters: Vec<(StageId, u64)>,
    },
    /// For requests that wait at the home.
    Requests {
        /// Descendants of each that were sent on, less its events that were consumed.
        deltas: Vec<(RequestId, i64)>,
    },
    /// The partition on the other node has consumed everything it was sent of events before these
    /// times, in microseconds since 1970, and gets nothing before them but what is late.
    Marks {
        /// Who has.
        to: At,
        /// Of ingest, from the home; 0 if nothing is said of it.
        ingest: u64,
        /// Of partitions that are here, each with the root of its segment.
        sources: Vec<(StageId, u16, u64)>,
    },
    /// Partitions have moved: the home knows where they are, and wants to be asked.
    Moved {
        /// Of which pipeline.
        pipeline: PipelineId,
    },
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message of kind {kind}, byte {at}: {fault}")]
pub struct MessageError {
    /// The kind it says it is; 0 if it says none.
    pub kind: u8,
    /// Where in it.
    pub at: usize,
    /// What is wrong.
    pub fault: MessageFault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// Another format than this program reads.
    #[error("it has format {0}, this program reads format {FORMAT}; use the same on all nodes")]
    Format(u8),
    /// A kind that does not exist.
    #[error("there is no such kind")]
    Kind,
    /// It ends too early.
    #[error("the message ends inside {0}")]
    Truncated(&'static str),
    /// A value that cannot be.
    #[error("{0} cannot be this")]
    Value(&'static str),
    /// It goes on where it should end.
    #[error("something stands behind its end")]
    Longer,
}

impl<'a> Message<'a> {
    /// Appends all but the frame, which follows when it is sent: see [`Message::frame`].
    ///
    /// What cannot be, as a run that does not come after the one before it, is written and will be
    /// refused when it is read.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        out.extend([FORMAT, self.kind()]);
        match self {
            Self::Run { to, run, skip, .. } => {
                put_at(out, to);
                put_source(out, run.source);
                put(out, run.seq);
                put(out, run.seq.saturating_sub(run.previous));
                put(out, (*skip).into());
            }
            Self::Settled { of, places } => {
                put_at(out, of);
                put_list(out, places, |out, (source, place)| {
                    put_source(out, *source);
                    put(out, place.seq);
                    put(out, place.index.into());
                });
            }
            Self::Later { of, source } => {
                put_at(out, of);
                put_source(out, *source);
            }
            Self::Output { pipeline, output, partition, first, .. } => {
                put(out, pipeline.0);
                put(out, output.0.into());
                put(out, (*partition).into());
                put(out, *first);
            }
            Self::DeadLetters { of, first, .. } => {
                put_at(out, of);
                put(out, *first);
            }
            Self::Kept { pipeline, partition, outputs, dead_letters } => {
                put(out, pipeline.0);
                put(out, (*partition).into());
                put_list(out, outputs, |out, (id, next)| put_pair(out, id.0.into(), *next));
                put_list(out, dead_letters, |out, (id, next)| put_pair(out, id.0.into(), *next));
            }
            Self::Requests { deltas } => {
                put_list(out, deltas, |out, (id, delta)| put_pair(out, id.0, zigzag(*delta)));
            }
            Self::Moved { pipeline } => put(out, pipeline.0),
            Self::Marks { to, ingest, sources } => {
                put_at(out, to);
                put(out, *ingest);
                put_list(out, sources, |out, (root, partition, mark)| {
                    put_pair(out, root.0.into(), (*partition).into());
                    put(out, *mark);
                });
            }
        }
    }

    /// The bytes that follow the head; of most kinds there are none.
    #[must_use]
    pub const fn frame(&self) -> &'a [u8] {
        match self {
            Self::Run { frame, .. }
            | Self::Output { frame, .. }
            | Self::DeadLetters { frame, .. } => frame,
            _ => &[],
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Run { .. } => kind::RUN,
            Self::Settled { .. } => kind::SETTLED,
            Self::Later { .. } => kind::LATER,
            Self::Output { .. } => kind::OUTPUT,
            Self::DeadLetters { .. } => kind::DEAD_LETTERS,
            Self::Kept { .. } => kind::KEPT,
            Self::Requests { .. } => kind::REQUESTS,
            Self::Moved { .. } => kind::MOVED,
            Self::Marks { .. } => kind::MARKS,
        }
    }

    /// True if these are the first bytes of a kind that a frame belongs to.
    #[must_use]
    pub fn has_frame(bytes: &[u8]) -> bool {
        let kind = bytes.get(1).copied().unwrap_or(0);
        matches!(kind, kind::RUN | kind::OUTPUT | kind::DEAD_LETTERS)
    }

    /// Reads one from its first byte to its last.
    ///
    /// # Errors
    /// The first thing that is wrong. Frames are not looked at.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let kind = bytes.get(1).copied().unwrap_or(0);
        let wrong = |at, fault| Err(MessageError { kind, at, fault });
        match bytes {
            [] => return wrong(0, MessageFault::Truncated("the format")),
            [FORMAT] => return wrong(1, MessageFault::Truncated("the kind")),
            [FORMAT, _, ..] => {}
            [format, ..] => return wrong(0, MessageFault::Format(*format)),
        }
        if !(kind::RUN..=kind::MARKS).contains(&kind) {
            return wrong(1, MessageFault::Kind);
        }
        let mut reader = Reader::behind(kind, bytes, 2);
        let message = fields(kind, &mut reader, bytes)?;
        // A frame takes all that is left.
        if !Self::has_frame(bytes) && !reader.is_at_end() {
            return wrong(reader.at(), MessageFault::Longer);
        }
        Ok(message)
    }
}

impl From<RecordError> for MessageError {
    fn from(error: RecordError) -> Self {
        let fault = match error.fault {
            Fault::Truncated(part) => MessageFault::Truncated(part),
            Fault::Value(part) => MessageFault::Value(part),
            // Nothing that reads these is called for a message.
            Fault::Kind | Fault::Newer(_) | Fault::Frame(_) => MessageFault::Value("it"),
        };
        Self { kind: error.kind, at: error.at, fault }
    }
}

fn fields<'a>(
    kind: u8,
    reader: &mut Reader<'a>,
    bytes: &'a [u8],
) -> Result<Message<'a>, RecordError> {
    Ok(match kind {
        kind::RUN => {
            let (to, source) = (at(reader)?, source(reader)?);
            let seq = reader.positive("a run's seq")?;
            let run = RunHeader { source, seq, previous: previous(reader, seq)? };
            let skip = reader.number_u32("how many events are consumed")?;
            Message::Run { to, run, skip, frame: &bytes[reader.at()..] }
        }
        kind::SETTLED => {
            let of = at(reader)?;
            let places = reader.list(PLACE_BYTES_MIN, "the places", |reader| {
                let source = source(reader)?;
                let seq = reader.positive("a place")?;
                Ok((source, Place { seq, index: reader.number_u32("a place")? }))
            })?;
            Message::Settled { of, places }
        }
        kind::LATER => Message::Later { of: at(reader)?, source: source(reader)? },
        kind::OUTPUT => {
            let pipeline = PipelineId(reader.number("the pipeline")?);
            let output = OutputId(reader.number_u32("an output")?);
            let partition = reader.partition("a partition")?;
            let first = reader.number("an output's offset")?;
            Message::Output { pipeline, output, partition, first, frame: &bytes[reader.at()..] }
        }
        kind::DEAD_LETTERS => {
            let of = at(reader)?;
            let first = reader.number("the offset of dead letters")?;
            Message::DeadLetters { of, first, frame: &bytes[reader.at()..] }
        }
        kind::KEPT => {
            let pipeline = PipelineId(reader.number("the pipeline")?);
            let partition = reader.partition("a partition")?;
            let outputs = reader.list(PAIR_BYTES_MIN, "the outputs", |reader| {
                let output = OutputId(reader.number_u32("an output")?);
                Ok((output, reader.number("an output's offset")?))
            })?;
            let dead_letters = reader.list(PAIR_BYTES_MIN, "the dead letters", |reader| {
                let stage = StageId(reader.number_u32("a stage")?);
                Ok((stage, reader.number("the offset of dead letters")?))
            })?;
            Message::Kept { pipeline, partition, outputs, dead_letters }
        }
        kind::REQUESTS => {
            let deltas = reader.list(PAIR_BYTES_MIN, "the requests", |reader| {
                let request = RequestId(reader.positive("a request")?);
                Ok((request, unzigzag(reader.number("a request's change")?)))
            })?;
            Message::Requests { deltas }
        }
        kind::MOVED => Message::Moved { pipeline: PipelineId(reader.number("the pipeline")?) },
        _ => {
            let (to, ingest) = (at(reader)?, reader.time("the mark of ingest")?);
            let sources = reader.list(MARK_BYTES_MIN, "the marks", |reader| {
                let root = StageId(reader.number_u32("a stage")?);
                Ok((root, reader.partition("a partition")?, reader.time("a mark")?))
            })?;
            Message::Marks { to, ingest, sources }
        }
    })
}

fn at(reader: &mut Reader<'_>) -> Result<At, RecordError> {
    Ok(At {
        pipeline: PipelineId(reader.number("the pipeline")?),
        root: StageId(reader.number_u32("the root stage")?),
        partition: reader.partition("a partition")?,
    })
}

fn put_at(out: &mut Vec<u8>, at: &At) {
    put(out, at.pipeline.0);
    put(out, at.root.0.into());
    put(out, at.partition.into());
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], each: impl Fn(&mut Vec<u8>, &T)) {
    put(out, items.len() as u64);
    items.iter().for_each(|item| each(out, item));
}

fn put_pair(out: &mut Vec<u8>, one: u64, two: u64) {
    put(out, one);
    put(out, two);
}

/// Small changes are short, whichever sign they have.
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests;
