//! Opening the log: from its records to what every pipeline goes on from.
//!
//! - State, the ends of outputs and of dead letters, and known ids are collected while the log is
//!   read; where partitions stand and what waits for them is the fold's.
//! - A pipeline whose records do not follow stays out, with the reason; the others run.
//! - Events that waited for a client's reply wait for nobody now: their client is gone with the node
//!   it spoke to.
//!
//! Starting the pipelines is the business of `deploy/restore.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use sluicebox_core::codec::{self, CommitHead, DeadRun, FrameAt, IngestRecord, OutputRun};
use sluicebox_core::dedup::{Dedup, DedupLimits};
use sluicebox_core::frame::{Frame, FrameBuilder, FrameLimits, field, push_field};
use sluicebox_core::ids::{OutputId, PipelineId, StageId};
use sluicebox_core::layer::request_of;
use sluicebox_core::recovery::{Fold, Sink, Waiting};
use sluicebox_core::state::{Change, KeyedState, StateLimits};
use sluicebox_store::log::{Config, DurableLog, Error as LogError, Log, Position, Record};

use crate::error::Error;
use crate::mailbox::Delivery;

/// No bound: what was committed once is loaded, whatever the limits are now.
const UNBOUNDED: StateLimits = StateLimits { key_bytes: usize::MAX, total_bytes: usize::MAX };

/// What was found in the log.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub fold: Fold,
    pub found: Found,
}

/// What the fold does not keep.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Keys the hash tables.
    seed: u64,
    /// Bytes kept of the end of each output.
    tail_bytes_max: usize,
    pub state: BTreeMap<(PipelineId, StageId, u16), KeyedState>,
    pub outputs: BTreeMap<(PipelineId, OutputId, u16), Tail>,
    /// By the root of the segment.
    pub dead_letters: BTreeMap<(PipelineId, StageId, u16), Tail>,
    pub dedup: BTreeMap<PipelineId, Dedup>,
}

/// The newest events that left by something in one partition.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Each with the offset of its first event.
    pub frames: VecDeque<(u64, Frame)>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, first: u64, frame: Frame, bytes_max: usize) {
        self.bytes += frame.bytes().len();
        self.frames.push_back((first, frame));
        while self.bytes > bytes_max && self.frames.len() > 1 {
            let Some((_, old)) = self.frames.pop_front() else { break };
            self.bytes -= old.bytes().len();
        }
    }
}

/// Opens the log of a node and reads all of it. `seed` is secret.
pub(crate) fn open(
    path: &Path,
    config: Config,
    (seed, tail_bytes_max): (u64, usize),
) -> Result<(DurableLog, Recovered), Error> {
    let mut recovered = Recovered::default();
    recovered.found = Found { seed, tail_bytes_max, ..Found::default() };
    let mut wrong = None;
    let log = DurableLog::open(path, config, Position(0), &mut |record| match take(
        &mut recovered,
        &record,
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            wrong = Some(error);
            ControlFlow::Break(())
        }
    });
    match (log, wrong) {
        (_, Some(error)) => Err(error),
        (log, None) => Ok((log?, recovered)),
    }
}

/// Takes one record. Only bytes that are no record stop everything; what is wrong with one pipeline
/// is noted there.
fn take(recovered: &mut Recovered, record: &Record<'_>) -> Result<(), Error> {
    let Record { position, kind, body } = *record;
    let decoded = codec::decode(kind, body);
    let decoded = decoded
        .map_err(|error| Error::Internal(format!("the log at position {position}: {error}")))?;
    let mut visit = Visit { found: &mut recovered.found, body };
    if let Err(stopped) = recovered.fold.apply(position.0, &decoded, &mut visit) {
        tracing::error!("a pipeline stays out: {stopped}");
    }
    Ok(())
}

/// Takes what comes of one record.
struct Visit<'a> {
    found: &'a mut Found,
    body: &'a [u8],
}

impl Visit<'_> {
    /// A copy of a frame of the record. A log that was read is as it was written, so that a frame
    /// that cannot be read is left out only if we wrote it wrong.
    fn frame(&self, at: &FrameAt) -> Option<Frame> {
        let bytes = Bytes::copy_from_slice(&self.body[at.range.clone()]);
        let frame = Frame::parse(bytes, &FrameLimits::FORMAT);
        frame.inspect_err(|error| tracing::error!("a frame in the log: {error}")).ok()
    }
}

impl Sink for Visit<'_> {
    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        let Found { state, seed, .. } = &mut *self.found;
        let place = (commit.pipeline, stage, commit.partition);
        let state = state.entry(place).or_insert_with(|| KeyedState::new(*seed, UNBOUNDED));
        match change.value {
            Some(value) => state.restore(change.key, change.slot, value),
            None => state.forget(change.key, change.slot),
        }
    }

    fn output(&mut self, commit: &CommitHead, run: &OutputRun, _: u64) {
        let Some(frame) = self.frame(&run.frame) else { return };
        let most = self.found.tail_bytes_max;
        let place = (commit.pipeline, run.output, commit.partition);
        self.found.outputs.entry(place).or_default().push(run.first, frame, most);
    }

    fn dead_letters(&mut self, commit: &CommitHead, run: &DeadRun, _: u64) {
        let Some(frame) = self.frame(&run.frame) else { return };
        let most = self.found.tail_bytes_max;
        let place = (commit.pipeline, commit.stage, commit.partition);
        self.found.dead_letters.entry(place).or_default().push(run.first, frame, most);
    }

    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64) {
        let seed = self.found.seed;
        let dedup = self.found.dedup.entry(ingest.pipeline);
        let dedup = dedup.or_insert_with(|| Dedup::new(seed, DedupLimits::DEFAULT));
        if let Some(producer) = &ingest.producer {
            dedup.note_request(producer.id, producer.sequence, position, ingest.time);
        }
        for id in &ingest.ids {
            dedup.note_event(*id, position, ingest.time);
        }
    }

    fn discarded(&mut self, pipeline: PipelineId, stage: StageId) {
        self.found.state.retain(|(of, at, _), _| (*of, *at) != (pipeline, stage));
    }

    fn deleted(&mut self, pipeline: PipelineId) {
        let Found { state, outputs, dead_letters, dedup, .. } = &mut *self.found;
        state.retain(|(of, ..), _| *of != pipeline);
        outputs.retain(|(of, ..), _| *of != pipeline);
        dead_letters.retain(|(of, ..), _| *of != pipeline);
        dedup.remove(&pipeline);
    }
}

/// Reads runs that wait for their reader, whose records are in the log.
#[derive(Debug)]
pub(crate) struct Backlog<'a> {
    log: &'a dyn Log,
    /// The record read last: several runs are in one.
    last: Option<(u64, Bytes)>,
}

impl<'a> Backlog<'a> {
    pub(crate) fn new(log: &'a dyn Log) -> Self {
        Self { log, last: None }
    }

    /// A run, as it is handed to its partition.
    pub(crate) fn read(&mut self, waiting: &Waiting) -> Result<Delivery, Error> {
        let body = self.body(waiting.position)?;
        let bytes = body.slice(waiting.range.clone());
        let frame = Frame::parse(bytes, &FrameLimits::FORMAT).map_err(|error| {
            Error::Internal(format!("the log at position {}: {error}", waiting.position))
        })?;
        Ok(Delivery::of(waiting.run, without_requests(frame), waiting.skip))
    }

    fn body(&mut self, position: u64) -> Result<Bytes, Error> {
        if let Some((at, body)) = &self.last
            && *at == position
        {
            return Ok(body.clone());
        }
        let mut body = Bytes::new();
        let read = self.log.read(Position(position), &mut |record| {
            body = Bytes::copy_from_slice(record.body);
            ControlFlow::Break(())
        });
        match read {
            Ok(_) | Err(LogError::Stopped { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.last = Some((position, body.clone()));
        Ok(body)
    }
}

/// The events without the requests they belonged to.
fn without_requests(frame: Frame) -> Frame {
    if frame.is_plain() || frame.events().all(|event| request_of(&event).is_none()) {
        return frame;
    }
    let mut builder = FrameBuilder::new();
    let mut fields = Vec::new();
    for event in frame.events() {
        fields.clear();
        for (id, value) in event.fields.iter().filter(|(id, _)| *id != field::REQUEST) {
            let _fits = push_field(&mut fields, id, value);
        }
        builder.push(&event.head, event.key, event.payload, &fields);
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::Head;

    use super::*;

    #[test]
    fn requests_are_taken_out_and_nothing_else() {
        let mut builder = FrameBuilder::new();
        let mut fields = Vec::new();
        assert!(push_field(&mut fields, field::REQUEST, &7_u64.to_le_bytes()));
        assert!(push_field(&mut fields, field::EVENT_ID, b"id"));
        builder.push(&Head::data(5), b"k", b"payload", &fields);
        builder.push(&Head::data(6), b"l", b"other", &[]);
        let frame = without_requests(builder.finish());
        let events: Vec<_> = frame.events().collect();
        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|event| request_of(event).is_none()));
        assert_eq!(events[0].fields.get(field::EVENT_ID), Some(&b"id"[..]));
        assert_eq!((events[0].key, events[1].payload), (&b"k"[..], &b"other"[..]));
    }
}
