//! The record of one commit: what was taken, what state it left, what it sent.
//!
//! The places it moves its sources to are not written: they are the ends of what was taken. The
//! state is written while it is read off, so nothing is counted before it.

use std::ops::Range;

use super::ingest::previous;
use super::usage::{self, BY_STAGE};
use super::wire::{FRAME_BYTES_MIN, Reader, put};
use super::{FrameAt, RecordError, RecordWriter, TIME, kind};
use crate::frame::Frame;
use crate::ids::{EdgeId, OutputId, PipelineId, StageId};
use crate::limits::{KEY_BYTES_MAX, SLOT_BYTES_MAX};
use crate::position::{Place, Source};
use crate::state::Change;

/// Which commit it is, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitHead {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The version of it that ran.
    pub version: u32,
    /// The root stage of the segment.
    pub stage: StageId,
    /// The partition.
    pub partition: u16,
    /// The number of this commit there, from 1.
    pub number: u64,
    /// The time its stages saw, in microseconds since 1970.
    pub time: u64,
}

/// What a batch was made of, so that it can be made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Which events were in its frame, in their order there.
    pub pieces: Vec<Piece>,
    /// Every stream ended whose time comes up to here.
    pub ends: Option<u64>,
}

/// Events of one source that lay one behind the other in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The source.
    pub source: Source,
    /// Where they begin: the reader's place before.
    pub from: Place,
    /// Where they end: its place behind them.
    pub to: Place,
    /// How many there are.
    pub events: u32,
}

/// The events of a commit for one partition behind an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRun<F = FrameAt> {
    /// The edge.
    pub edge: EdgeId,
    /// The number of this commit on that edge.
    pub seq: u64,
    /// The partition they go to.
    pub partition: u16,
    /// The seq before it that had events for that partition; 0 if there was none.
    pub previous: u64,
    /// The events.
    pub frame: F,
}

/// The events of a commit that left by an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRun<F = FrameAt> {
    /// The output.
    pub output: OutputId,
    /// The offset of the first of them in that output and partition.
    pub first: u64,
    /// The events.
    pub frame: F,
}

/// The events a commit gave up on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRun<F = FrameAt> {
    /// The offset of the first of them among the dead letters of segment and partition.
    pub first: u64,
    /// The events, with who gave up on them and why.
    pub frame: F,
}

/// What the calls of a batch used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel, that of repeated calls included.
    pub fuel: u64,
    /// Events taken.
    pub events: u64,
    /// Calls that were taken back.
    pub reruns: u64,
}

impl Usage {
    /// Adds what another batch used.
    pub fn add(&mut self, other: &Self) {
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.events = self.events.saturating_add(other.events);
        self.reruns = self.reruns.saturating_add(other.reruns);
    }
}

/// What left a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent<F = FrameAt> {
    /// Over edges.
    pub runs: Vec<EdgeRun<F>>,
    /// By outputs.
    pub outputs: Vec<OutputRun<F>>,
    /// To the dead letters.
    pub dead_letters: Option<DeadRun<F>>,
}

/// One commit, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord<'a> {
    /// Which one.
    pub head: CommitHead,
    /// What was taken.
    pub batch: Batch,
    /// What was changed.
    pub state: StateChanges<'a>,
    /// What left.
    pub sent: Sent,
    /// What it took.
    pub usage: Usage,
    /// What of that stages took other than the root, by their numbers.
    pub by_stage: Vec<(StageId, Usage)>,
    /// The watermark its stages saw, if it is above that of the commit before.
    pub watermark: Option<u64>,
}

impl CommitRecord<'_> {
    /// What each stage used, the root first.
    pub fn used(&self) -> impl Iterator<Item = (StageId, Usage)> + '_ {
        let mut root = self.usage;
        for (_, other) in &self.by_stage {
            root.fuel = root.fuel.saturating_sub(other.fuel);
            root.reruns = root.reruns.saturating_sub(other.reruns);
        }
        [(self.head.stage, root)].into_iter().chain(self.by_stage.iter().copied())
    }
}

/// The changed slots of a commit, stage by stage. They were checked when the record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChanges<'a> {
    body: &'a [u8],
    at: usize,
}

/// Changed slots by themselves, in the bytes they have in a commit: what partitions changed that go
/// to another node. They were checked when this was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed<'a>(&'a [u8]);

/// Bits of the byte before a change. A byte of 0 ends the changes of a stage.
const CHANGE: u8 = 1;
const DELETED: u8 = 2;
const SAME_KEY: u8 = 4;
const SAME_SLOT: u8 = 8;

/// The bit of the byte before the pieces.
const HAS_ENDS: u8 = 1;

/// Least bytes of a piece, a run, an output and a frame of dead letters.
const PIECE_BYTES_MIN: usize = 6;
const RUN_BYTES_MIN: usize = 4 + FRAME_BYTES_MIN;
const OUTPUT_BYTES_MIN: usize = 2 + FRAME_BYTES_MIN;
const DEAD_BYTES_MIN: usize = 1 + FRAME_BYTES_MIN;

/// The middle of a commit's record: changes, stage by stage. Ends with [`StateWriter::finish`].
#[derive(Debug)]
pub struct StateWriter<'w> {
    writer: &'w mut RecordWriter,
    stage: Option<StageId>,
    /// Where key and slot of the change before are in the buffer.
    key: Range<usize>,
    slot: Range<usize>,
}

impl RecordWriter {
    /// Begins the record of a commit.
    pub fn commit(&mut self, head: &CommitHead, batch: &Batch) -> StateWriter<'_> {
        self.begin(kind::COMMIT);
        self.number(head.pipeline.0);
        self.number(head.version.into());
        self.number(head.stage.0.into());
        self.number(head.partition.into());
        self.number(head.number);
        self.number(head.time);
        self.byte(if batch.ends.is_some() { HAS_ENDS } else { 0 });
        if let Some(until) = batch.ends {
            self.number(until);
        }
        self.number(batch.pieces.len() as u64);
        for piece in &batch.pieces {
            self.piece(piece);
        }
        StateWriter { writer: self, stage: None, key: 0..0, slot: 0..0 }
    }

    /// Appends the watermark to a commit, or the highest event time so far to an ingest.
    pub fn event_time(&mut self, time: u64) {
        self.extension(TIME, |out| put(out, time));
    }

    /// Begins changes by themselves, to be read as [`Changed`]. Ends with [`StateWriter::end`].
    pub fn changed(&mut self) -> StateWriter<'_> {
        self.clear();
        StateWriter { writer: self, stage: None, key: 0..0, slot: 0..0 }
    }

    fn piece(&mut self, piece: &Piece) {
        self.source(piece.source);
        self.number(piece.from.seq);
        self.number(piece.from.index.into());
        self.number(piece.to.seq - piece.from.seq);
        self.number(piece.to.index.into());
        self.number(piece.events.into());
    }
}

impl StateWriter<'_> {
    /// Appends a change of a stage's state. Changes of one stage come one after another.
    pub fn change(&mut self, stage: StageId, change: &Change<'_>) {
        let fresh = self.stage != Some(stage);
        if fresh {
            self.end_stage();
            self.writer.number(u64::from(stage.0) + 1);
            self.stage = Some(stage);
        }
        let same_key = !fresh && self.writer.written(self.key.clone()) == change.key;
        let same_slot = !fresh && self.writer.written(self.slot.clone()) == change.slot;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let deleted = flag(change.value.is_none(), DELETED);
        let same = flag(same_key, SAME_KEY) | flag(same_slot, SAME_SLOT);
        self.writer.byte(CHANGE | deleted | same);
        if !same_key {
            self.key = self.put(change.key);
        }
        if !same_slot {
            self.slot = self.put(change.slot);
        }
        if let Some(value) = change.value {
            self.writer.bytes(value);
        }
    }

    /// Ends changes that are by themselves.
    pub fn end(mut self) {
        self.end_all();
    }

    /// Appends what left the batch and what it took; the record is whole.
    pub fn finish(mut self, sent: &Sent<Frame>, usage: &Usage) {
        self.end_all();
        let writer = self.writer;
        writer.number(sent.runs.len() as u64);
        for run in &sent.runs {
            writer.number(run.edge.0.into());
            writer.number(run.seq);
            writer.number(run.partition.into());
            writer.number(run.seq - run.previous);
            writer.frame(&run.frame);
        }
        writer.number(sent.outputs.len() as u64);
        for output in &sent.outputs {
            writer.number(output.output.0.into());
            writer.number(output.first);
            writer.frame(&output.frame);
        }
        writer.number(sent.dead_letters.iter().len() as u64);
        if let Some(dead) = &sent.dead_letters {
            writer.number(dead.first);
            writer.frame(&dead.frame);
        }
        for number in [usage.fuel, usage.events, usage.reruns] {
            writer.number(number);
        }
    }

    fn end_all(&mut self) {
        self.end_stage();
        self.writer.number(0);
    }

    fn end_stage(&mut self) {
        if self.stage.take().is_some() {
            self.writer.byte(0);
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        self.writer.bytes(bytes);
        let end = self.writer.end();
        end - bytes.len()..end
    }
}

pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    body: &'a [u8],
) -> Result<CommitRecord<'a>, RecordError> {
    let head = CommitHead {
        pipeline: PipelineId(reader.number("the pipeline")?),
        version: reader.number_u32("the version")?,
        stage: StageId(reader.number_u32("the stage")?),
        partition: reader.partition("the partition")?,
        number: reader.positive("the number")?,
        time: reader.number("the time")?,
    };
    let flags = reader.byte("the flags")?;
    if flags & !HAS_ENDS != 0 {
        return Err(reader.bad("the flags"));
    }
    let has_ends = flags & HAS_ENDS != 0;
    let ends = has_ends.then(|| reader.number("the time of ends")).transpose()?;
    let pieces = reader.list(PIECE_BYTES_MIN, "the pieces", piece)?;
    let state = StateChanges { body, at: reader.at() };
    let mut changes = Changes::at(reader.clone());
    while changes.step()?.is_some() {}
    *reader = changes.reader;
    let sent = sent(reader)?;
    let usage = Usage {
        fuel: reader.number("the fuel")?,
        events: reader.number("the events")?,
        reruns: reader.number("the reruns")?,
    };
    let (mut watermark, mut by_stage) = (None, Vec::new());
    reader.extensions_known(|id, reader| {
        match id {
            TIME => watermark = Some(reader.time("the watermark")?),
            BY_STAGE => by_stage = usage::by_stage(reader, (head.stage, usage))?,
            _ => {}
        }
        Ok(())
    })?;
    let batch = Batch { pieces, ends };
    Ok(CommitRecord { head, batch, state, sent, usage, by_stage, watermark })
}

fn piece(reader: &mut Reader<'_>) -> Result<Piece, RecordError> {
    let source = source(reader)?;
    let seq = reader.positive("where a piece begins")?;
    let from = Place { seq, index: reader.number_u32("where a piece begins")? };
    let forward = reader.number("where a piece ends")?;
    let seq = seq.checked_add(forward).ok_or_else(|| reader.bad("where a piece ends"))?;
    let to = Place { seq, index: reader.number_u32("where a piece ends")? };
    let events = reader.number_u32("the events of a piece")?;
    if to <= from || events == 0 {
        return Err(reader.bad("where a piece ends"));
    }
    Ok(Piece { source, from, to, events })
}

pub(crate) fn put_source(out: &mut Vec<u8>, source: Source) {
    match source {
        Source::Ingest => put(out, 0),
        Source::Edge { edge, partition } => {
            put(out, u64::from(edge.0) + 1);
            put(out, partition.into());
        }
    }
}

pub(crate) fn source(reader: &mut Reader<'_>) -> Result<Source, RecordError> {
    let number = reader.number("a source")?;
    let Some(edge) = number.checked_sub(1) else { return Ok(Source::Ingest) };
    let edge = u32::try_from(edge).map_err(|_| reader.bad("a source"))?;
    Ok(Source::Edge { edge: EdgeId(edge), partition: reader.partition("a source's partition")? })
}

fn sent(reader: &mut Reader<'_>) -> Result<Sent, RecordError> {
    let runs = reader.list(RUN_BYTES_MIN, "the runs", |reader| {
        let edge = EdgeId(reader.number_u32("a run's edge")?);
        let seq = reader.positive("a run's seq")?;
        let partition = reader.partition("a run's partition")?;
        let previous = previous(reader, seq)?;
        Ok(EdgeRun { edge, seq, partition, previous, frame: reader.frame("a run's frame")? })
    })?;
    let outputs = reader.list(OUTPUT_BYTES_MIN, "the outputs", |reader| {
        Ok(OutputRun {
            output: OutputId(reader.number_u32("an output")?),
            first: reader.number("an output's offset")?,
            frame: reader.frame("an output's frame")?,
        })
    })?;
    let mut dead = reader.list(DEAD_BYTES_MIN, "the dead letters", |reader| {
        Ok(DeadRun {
            first: reader.number("the offset of dead letters")?,
            frame: reader.frame("the frame of dead letters")?,
        })
    })?;
    if dead.len() > 1 {
        return Err(reader.bad("the dead letters"));
    }
    Ok(Sent { runs, outputs, dead_letters: dead.pop() })
}

impl<'a> StateChanges<'a> {
    /// The changes in order, each with its stage.
    pub fn iter(&self) -> impl Iterator<Item = (StageId, Change<'a>)> + use<'a> {
        let mut changes = Changes::at(Reader::behind(kind::COMMIT, self.body, self.at));
        // It was read once without an error, and reads the same again.
        std::iter::from_fn(move || changes.step().ok().flatten())
    }
}

impl<'a> Changed<'a> {
    /// Checks bytes that hold changes and nothing else; none at all are no changes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut changes = Changes::at(Reader::behind(kind::JOIN, bytes, 0));
        while changes.step()?.is_some() {}
        match changes.reader.is_at_end() {
            true => Ok(Self(bytes)),
            false => Err(changes.reader.bad("the end of what changed")),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The changes in order, each with its stage.
    pub fn iter(&self) -> impl Iterator<Item = (StageId, Change<'a>)> + use<'a> {
        let mut changes = Changes::at(Reader::behind(kind::JOIN, self.0, 0));
        // They were read once without an error, and read the same again; no bytes are none.
        std::iter::from_fn(move || changes.step().ok().flatten())
    }
}

/// Goes through the changes of a commit.
struct Changes<'a> {
    reader: Reader<'a>,
    stage: Option<StageId>,
    key: Option<&'a [u8]>,
    slot: Option<&'a [u8]>,
}

impl<'a> Changes<'a> {
    fn at(reader: Reader<'a>) -> Self {
        Self { reader, stage: None, key: None, slot: None }
    }

    fn step(&mut self) -> Result<Option<(StageId, Change<'a>)>, RecordError> {
        let reader = &mut self.reader;
        let (stage, flags) = loop {
            let Some(stage) = self.stage else {
                let Some(stage) = reader.number("a stage of the state")?.checked_sub(1) else {
                    return Ok(None);
                };
                let stage = u32::try_from(stage).map_err(|_| reader.bad("a stage of the state"))?;
                self.stage = Some(StageId(stage));
                continue;
            };
            match reader.byte("a change")? {
                0 => (self.stage, self.key, self.slot) = (None, None, None),
                flags => break (stage, flags),
            }
        };
        if flags & CHANGE == 0 || flags & !(CHANGE | DELETED | SAME_KEY | SAME_SLOT) != 0 {
            return Err(reader.bad("a change"));
        }
        if flags & SAME_KEY == 0 {
            self.key = Some(reader.bytes(KEY_BYTES_MAX, "a changed key")?);
        }
        if flags & SAME_SLOT == 0 {
            self.slot = Some(reader.bytes(SLOT_BYTES_MAX, "a changed slot")?);
        }
        let (Some(key), Some(slot)) = (self.key, self.slot) else {
            return Err(reader.bad("a change"));
        };
        let value = match flags & DELETED {
            0 => Some(reader.bytes(usize::MAX, "a changed value")?),
            _ => None,
        };
        Ok(Some((stage, Change { key, slot, value })))
    }
}
