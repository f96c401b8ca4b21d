//! Opening the log: from its records to what every pipeline goes on from.
//!
//! - What changed in state, the ends of outputs and of dead letters, and known ids are collected
//!   while the log is read; where partitions stand and what waits for them is the fold's.
//! - State is not put together: what changed lies over the store, to be read when it is needed.
//!   Only what is held of stages is.
//! - A pipeline whose records do not follow stays out, with the reason; the others run.
//! - Events that waited for a client's reply wait for nobody now: their client is gone with the
//!   node
//!   it spoke to.
//!
//! Starting the pipelines is the business of `deploy/restore.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::bill::{Used, Whose};
use sluicebox_core::codec::{self, CommitHead, DeadRun, FrameAt, IngestRecord, OutputRun};
use sluicebox_core::dedup::{Dedup, DedupLimits};
use sluicebox_core::frame::{Frame, FrameBuilder, expand, field, push_field};
use sluicebox_core::ids::{Name, OutputId, Part, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::layer::request_of;
use sluicebox_core::recovery::{Fold, Sink, Waiting};
use sluicebox_core::state::{Change, KeyedState, StateLimits, redistribute};
use sluicebox_store::dirty::Ahead;
use sluicebox_store::log::{Config, DurableLog, Error as LogError, Log, Position, Record};
use sluicebox_store::store::{EmbeddedStore, Store, StoreConfig};

use crate::backing::Backing;
use crate::checkpoint::{self, Collected, Loaded, Outputs};
use crate::config::{Config as NodeConfig, LogConfig};
use crate::error::Error;
use crate::mailbox::Delivery;

/// So many times the log a checkpoint is made after may wait for one before no more is taken.
pub(crate) const CHECKPOINTS_BEHIND: u64 = 3;

/// What was found in the log and behind it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub fold: Fold,
    pub found: Found,
    pub store: Arc<dyn Store>,
    pub backing: Arc<Backing>,
    /// What is before this is in the store, and not in the log.
    pub horizon: Position,
    /// For the next checkpoint: what came since the last.
    pub collected: Collected,
    /// The log was read up to here.
    pub read_to: Position,
}

/// What the fold does not keep.
#[derive(Debug)]
pub(crate) struct Found {
    /// Keys the hash tables.
    pub seed: u64,
    /// Bytes kept of the end of each output.
    tail_bytes_max: usize,
    pub backing: Arc<Backing>,
    /// What is held of stages, by part of the stage and partition. It is all here, as it never
    /// leaves memory.
    pub held: BTreeMap<(PipelineId, StageId, u16), KeyedState>,
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
        // What a checkpoint has kept already is read again from the log.
        if self.frames.back().is_some_and(|(last, _)| *last >= first) {
            return;
        }
        // Offsets are counted on from the oldest: behind a hole they would be those of others.
        let next = self.frames.back().map(|(last, frame)| last + frame.len() as u64);
        if next.is_some_and(|next| next != first) {
            self.frames.clear();
            self.bytes = 0;
        }
        self.bytes += frame.bytes().len();
        self.frames.push_back((first, frame));
        while self.bytes > bytes_max && self.frames.len() > 1 {
            let Some((_, old)) = self.frames.pop_front() else { break };
            self.bytes -= old.bytes().len();
        }
    }
}

/// What is made of the records.
struct Reading {
    fold: Fold,
    found: Found,
    collected: Collected,
}

/// Opens the store and the log of a node, and reads what there is. `seed` is secret.
pub(crate) fn open(config: &NodeConfig, seed: u64) -> Result<(DurableLog, Recovered), Error> {
    let dir = &config.node.data_dir;
    let cache_bytes = config.log.store_cache_bytes as u64;
    let store = StoreConfig { cache_bytes, ..StoreConfig::default() };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&dir.join("store"), store)?);
    let outputs = Outputs {
        output_bytes_max: config.limits.output_bytes_max,
        dead_letter_bytes: config.limits.dead_letter_bytes,
    };
    let log_bytes_max = config.log.checkpoint_log_bytes as u64 * CHECKPOINTS_BEHIND;
    let backing = Arc::new(Backing::new(store.clone(), log_bytes_max));
    let mut found = Found::new(seed, outputs.output_bytes_max, backing.clone());
    let mut collected = Collected::new(seed, backing.clone(), outputs);
    let Loaded { fold, horizon, reach } =
        checkpoint::load(store.as_ref(), &mut found, &mut collected)?;
    let mut reading = Reading { fold, found, collected };
    let mut wrong = None;
    let log = DurableLog::open(&dir.join("log"), log_config(&config.log), horizon, &mut |record| {
        match take(&mut reading, store.as_ref(), &record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                wrong = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = wrong {
        return Err(error);
    }
    let log = log?;
    let read_to = log.synced();
    if read_to < reach {
        // Only records that were on disk are in a checkpoint.
        return Err(LogError::Behind { from: reach, end: read_to }.into());
    }
    let Reading { fold, found, mut collected } = reading;
    if let Some(changes) = collected.set_aside() {
        backing.put_ahead(read_to, Ahead::new(changes));
    }
    Ok((log, Recovered { fold, found, store, backing, horizon, collected, read_to }))
}

fn log_config(config: &LogConfig) -> Config {
    let defaults = Config::default();
    Config {
        segment_bytes: config.segment_bytes as u64,
        record_bytes_max: defaults.record_bytes_max.min(config.segment_bytes / 2),
        ..defaults
    }
}

/// Takes one record. Only bytes that are no record stop everything; what is wrong with one pipeline
/// is noted there.
fn take(reading: &mut Reading, store: &dyn Store, record: &Record<'_>) -> Result<(), Error> {
    let Record { position, kind, body } = *record;
    let decoded = codec::decode(kind, body);
    let decoded = decoded
        .map_err(|error| Error::Internal(format!("the log at position {position}: {error}")))?;
    let Reading { fold, found, collected } = reading;
    let mut visit = Visit { found, collected, body };
    if let Err(stopped) = fold.apply(position.0, &decoded, &mut visit) {
        tracing::error!("a pipeline stays out: {stopped}");
    } else {
        checkpoint::note_partitions(fold, &decoded, collected);
        match &decoded {
            codec::Record::Open(opened) => {
                let of = (&*fold, opened.pipeline);
                checkpoint::load_opened(store, of, Some(found), collected)?;
            }
            codec::Record::Join(join) => {
                let of = (&*fold, join.pipeline);
                checkpoint::load_joined(store, of, &join.partitions, (found, collected))?;
                checkpoint::note_brought(&decoded, collected);
                found.brought(fold, join);
            }
            _ => {}
        }
    }
    Ok(())
}

impl Found {
    pub(crate) fn new(seed: u64, tail_bytes_max: usize, backing: Arc<Backing>) -> Self {
        Self {
            seed,
            tail_bytes_max,
            backing,
            held: BTreeMap::new(),
            outputs: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            dedup: BTreeMap::new(),
        }
    }

    /// What is held of a stage in a partition: as much of it as is known now.
    pub(crate) fn held_at(&mut self, place: (PipelineId, StageId, u16)) -> &mut KeyedState {
        let seed = self.seed;
        self.held.entry(place).or_insert_with(|| KeyedState::new(seed, StateLimits::NONE))
    }

    /// What is held of partitions that came is as their record says, where it says so.
    fn brought(&mut self, fold: &Fold, join: &codec::JoinRecord<'_>) {
        let Some(folded) = fold.pipeline(join.pipeline) else { return };
        for (stage, change) in join.changed.iter() {
            let at = key::partition_of(key::group_of(change.key), folded.partitions());
            self.change((join.pipeline, stage, at), change);
        }
    }

    /// A slot has another value, or is gone: it is kept here if it is held.
    fn change(&mut self, place: (PipelineId, StageId, u16), change: Change<'_>) {
        if !Part::HELD.contains(&place.1.split().1) {
            return;
        }
        let held = self.held_at(place);
        match change.value {
            Some(value) => held.restore(change.key, change.slot, value),
            None => held.forget(change.key, change.slot),
        }
    }

    /// Events that left by an output.
    pub(crate) fn left(
        &mut self,
        place: (PipelineId, OutputId, u16),
        (first, frame): (u64, Frame),
    ) {
        self.outputs.entry(place).or_default().push(first, frame, self.tail_bytes_max);
    }

    /// Dead letters.
    pub(crate) fn dead_letter(
        &mut self,
        place: (PipelineId, StageId, u16),
        (first, frame): (u64, Frame),
    ) {
        self.dead_letters.entry(place).or_default().push(first, frame, self.tail_bytes_max);
    }
}

/// Takes what comes of one record.
struct Visit<'a> {
    found: &'a mut Found,
    collected: &'a mut Collected,
    body: &'a [u8],
}

impl Visit<'_> {
    /// A copy of a frame of the record. A log that was read is as it was written, so that a frame
    /// that cannot be read is left out only if we wrote it wrong.
    fn frame(&self, at: &FrameAt) -> Option<Frame> {
        let bytes = Bytes::copy_from_slice(&self.body[at.range.clone()]);
        let frame = expand(bytes);
        frame.inspect_err(|error| tracing::error!("a frame in the log: {error}")).ok()
    }
}

impl Sink for Visit<'_> {
    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        self.collected.changed(commit, stage, change);
        self.found.change((commit.pipeline, stage, commit.partition), change);
    }

    fn output(&mut self, commit: &CommitHead, run: &OutputRun, position: u64) {
        self.collected.output(commit, run, position);
        let Some(frame) = self.frame(&run.frame) else { return };
        self.found.left((commit.pipeline, run.output, commit.partition), (run.first, frame));
    }

    fn dead_letters(&mut self, commit: &CommitHead, run: &DeadRun, position: u64) {
        self.collected.dead_letters(commit, run, position);
        let Some(frame) = self.frame(&run.frame) else { return };
        let place = (commit.pipeline, commit.stage, commit.partition);
        self.found.dead_letter(place, (run.first, frame));
    }

    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64) {
        self.collected.ingested(ingest, position);
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

    fn used(&mut self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        self.collected.used(whose, when, used);
    }

    fn applied(&mut self, tenant: &Name, pipeline: PipelineId) {
        self.collected.applied(tenant, pipeline);
    }

    fn repartitioned(&mut self, pipeline: PipelineId, partitions: u16) {
        let seed = self.found.seed;
        let mut stages: BTreeMap<StageId, Vec<KeyedState>> = BTreeMap::new();
        for ((_, stage, _), held) in self.found.held.extract_if(.., |(of, ..), _| *of == pipeline) {
            stages.entry(stage).or_default().push(held);
        }
        for (stage, held) in stages {
            let divided = redistribute(held, partitions, seed);
            let places = (0..partitions).map(|partition| (pipeline, stage, partition));
            self.found.held.extend(places.zip(divided));
        }
    }

    fn discarded(&mut self, pipeline: PipelineId, stage: StageId) {
        self.collected.discarded(pipeline, stage);
        self.found.held.retain(|(of, at, _), _| (*of, *at) != (pipeline, stage));
    }

    fn deleted(&mut self, pipeline: PipelineId) {
        self.collected.deleted(pipeline);
        let Found { held, outputs, dead_letters, dedup, .. } = &mut *self.found;
        held.retain(|(of, ..), _| *of != pipeline);
        outputs.retain(|(of, ..), _| *of != pipeline);
        dead_letters.retain(|(of, ..), _| *of != pipeline);
        dedup.remove(&pipeline);
    }
}

/// Reads runs that wait for their reader, from the log or from the store.
#[derive(Debug)]
pub(crate) struct Backlog<'a> {
    log: &'a dyn Log,
    store: &'a dyn Store,
    horizon: Position,
    /// The record read last: several runs are in one.
    last: Option<(u64, Bytes)>,
}

impl<'a> Backlog<'a> {
    pub(crate) fn new(log: &'a dyn Log, store: &'a dyn Store, horizon: Position) -> Self {
        Self { log, store, horizon, last: None }
    }

    /// A run that is kept in the store under `key`, if it is from before the horizon, as it is
    /// handed to its partition.
    pub(crate) fn read(&mut self, waiting: &Waiting, key: &[u8]) -> Result<Delivery, Error> {
        let bytes = if waiting.position < self.horizon.0 {
            self.store.get(key)?
        } else {
            let body = self.body(waiting.position)?;
            (waiting.range.end <= body.len()).then(|| body.slice(waiting.range.clone()))
        };
        let gone = || Error::Internal(format!("the run at position {} is gone", waiting.position));
        let bytes = bytes.ok_or_else(gone)?;
        let frame = expand(bytes).map_err(|error| {
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
