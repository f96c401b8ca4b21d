//! The record of one request's events: who sent it, for de-duplication, and a run for each
//! partition they go to.
//!
//! It is whole or not there, and so is the request; that is what the acknowledgement says. Dead
//! letters that are replayed are an ingest as well, which says which ones they are. One without
//! events is a place alone (`dedup`): how far a sink is.

use super::wire::{FRAME_BYTES_MIN, Reader};
use super::{FrameAt, RecordError, RecordWriter, TIME, kind};
use crate::frame::Frame;
use crate::ids::{PipelineId, StageId};
use crate::limits::PRODUCER_BYTES_MAX;
use crate::replayed::{self, ReplayedRun};

/// The events of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRecord<'a, F = FrameAt> {
    /// Where they enter.
    pub pipeline: PipelineId,
    /// The number of this ingest in its pipeline.
    pub seq: u64,
    /// When the node took it, in microseconds since 1970.
    pub time: u64,
    /// The producer's own numbering, if it has one.
    pub producer: Option<Producer<'a>>,
    /// A hash of `(source, id)` for each event that has an id of its own.
    pub ids: Vec<u128>,
    /// The events, by stage and partition. An event is in one run for each entry stage.
    pub runs: Vec<IngestRun<F>>,
    /// Dead letters these events were.
    pub replayed: Vec<ReplayedRun>,
    /// The highest event time so far, these events included, if they raised it in a pipeline that
    /// has watermarks.
    pub high: Option<u64>,
}

/// A producer that numbers its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer<'a> {
    /// Its id, at most 128 bytes.
    pub id: &'a str,
    /// The number of this request.
    pub sequence: u64,
}

/// The events of one ingest for one partition of an entry stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestRun<F = FrameAt> {
    /// The entry stage.
    pub stage: StageId,
    /// The partition.
    pub partition: u16,
    /// The ingest before this one that had events for it; 0 if there was none.
    pub previous: u64,
    /// The events.
    pub frame: F,
}

/// Bits of the byte behind the time.
const HAS_PRODUCER: u8 = 1;

/// The extension with the dead letters that were replayed.
const REPLAYED: u64 = 19;

/// Least bytes of a run.
const RUN_BYTES_MIN: usize = 3 + FRAME_BYTES_MIN;

impl RecordWriter {
    /// Writes the record of an ingest.
    pub fn ingest(&mut self, record: &IngestRecord<'_, Frame>) {
        self.begin(kind::INGEST);
        self.number(record.pipeline.0);
        self.number(record.seq);
        self.number(record.time);
        self.byte(if record.producer.is_some() { HAS_PRODUCER } else { 0 });
        if let Some(producer) = &record.producer {
            self.bytes(producer.id.as_bytes());
            self.number(producer.sequence);
        }
        self.number(record.ids.len() as u64);
        for id in &record.ids {
            self.hash(*id);
        }
        self.number(record.runs.len() as u64);
        for run in &record.runs {
            self.number(run.stage.0.into());
            self.number(run.partition.into());
            self.number(record.seq - run.previous);
            self.frame(&run.frame);
        }
        if !record.replayed.is_empty() {
            self.extension(REPLAYED, |out| replayed::put_runs(out, &record.replayed));
        }
        if let Some(high) = record.high {
            self.event_time(high);
        }
    }
}

pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Result<IngestRecord<'a>, RecordError> {
    let pipeline = PipelineId(reader.number("the pipeline")?);
    let seq = reader.positive("the seq")?;
    let time = reader.number("the time")?;
    let flags = reader.byte("the flags")?;
    if flags & !HAS_PRODUCER != 0 {
        return Err(reader.bad("the flags"));
    }
    let producer = match flags & HAS_PRODUCER {
        0 => None,
        _ => Some(Producer {
            id: reader.text(PRODUCER_BYTES_MAX, "the producer")?,
            sequence: reader.number("the producer's sequence")?,
        }),
    };
    let ids = reader.list(16, "the ids", |reader| reader.hash("an id"))?;
    let runs = reader.list(RUN_BYTES_MIN, "the runs", |reader| {
        Ok(IngestRun {
            stage: StageId(reader.number_u32("a run's stage")?),
            partition: reader.partition("a run's partition")?,
            previous: previous(reader, seq)?,
            frame: reader.frame("a run's frame")?,
        })
    })?;
    // Without events it says how far somebody is.
    if runs.is_empty() && producer.is_none() {
        return Err(reader.bad("the runs"));
    }
    let (mut replayed, mut high) = (Vec::new(), None);
    reader.extensions_known(|id, reader| {
        if id == REPLAYED {
            replayed = replayed::runs(reader)?;
        }
        if id == TIME {
            high = Some(reader.time("the highest event time")?);
        }
        Ok(())
    })?;
    Ok(IngestRecord { pipeline, seq, time, producer, ids, runs, replayed, high })
}

/// The run before one of number `seq`, written as how far back it is.
pub(crate) fn previous(reader: &mut Reader<'_>, seq: u64) -> Result<u64, RecordError> {
    let back = reader.positive("how far back the previous run is")?;
    seq.checked_sub(back).ok_or_else(|| reader.bad("how far back the previous run is"))
}
