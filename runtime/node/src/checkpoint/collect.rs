//! What a stretch of the log changes in the store.
//!
//! - State goes into the changes as it is read. Of outputs and dead letters only places in the log
//!   are noted: most of them have made way for newer ones before a checkpoint comes.
//! - [`Collected::settle`] then reads the frames that are still wanted, and takes out what is not
//!   wanted any more.
//! - What was settled is in the changes until a checkpoint with them stands.

mod accounts;
mod kept;
mod moved;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use sluicebox_core::bill::{Books, Used, Whose};
use sluicebox_core::codec::{CommitHead, DeadRun, FrameAt, IngestRecord, OutputRun};
use sluicebox_core::dedup::{Dedup, DedupLimits, KnownId, KnownProducer};
use sluicebox_core::ids::{Name, OutputId, Part, PipelineId, StageId};
use sluicebox_core::recovery::{Fold, Sink};
use sluicebox_core::state::Change;
use sluicebox_store::dirty::{Changes, Dirty};
use sluicebox_store::log::{Log, Position};
use sluicebox_store::store::keys::{self, Id};

use self::kept::Retained;
use super::entries::{self, Of};
use super::rests::Rests;
use crate::backing::{Backing, Noted};
use crate::error::Error;

/// Bytes kept of each output and of the dead letters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outputs {
    /// Most an output may keep, whatever its manifest says.
    pub output_bytes_max: usize,
    /// Dead letters of a pipeline.
    pub dead_letter_bytes: usize,
}

/// What events left by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Output(OutputId),
    DeadLetters(StageId),
}

/// Events that left, and where their frame is.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub first: u64,
    pub bytes: usize,
    /// Where in the log; none if it is in the store.
    pub place: Option<(u64, Range<usize>)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Collected {
    seed: u64,
    backing: Arc<Backing>,
    /// The slot that was noted last: most changes are of the same.
    noted: Option<(PipelineId, StageId, Vec<u8>)>,
    outputs: Outputs,
    /// What tenants used, for whoever asks.
    books: Arc<Mutex<Books>>,
    dirty: Dirty,
    /// Prefixes of what is gone; discarded again by the next checkpoint, as changes may have come
    /// behind them.
    discarded: Vec<Vec<u8>>,
    discarded_before: Vec<Vec<u8>>,
    /// The first so many go with the checkpoint under way; others came since.
    discarding: usize,
    tenants: BTreeMap<PipelineId, u32>,
    left: BTreeMap<(PipelineId, Way, u16), VecDeque<Left>>,
    /// Keys of runs that are in the store.
    waiting: BTreeSet<Vec<u8>>,
    known: BTreeMap<PipelineId, Known>,
    /// Bytes kept of each pipeline, but for its state.
    kept: BTreeMap<PipelineId, u64>,
    /// Stages whose state has changed since this was asked for.
    changed: BTreeSet<(PipelineId, StageId)>,
    changed_last: Option<(PipelineId, StageId)>,
    /// Horizons whose folds are in the store.
    folds: VecDeque<u64>,
    /// Events from before it may be in the store although no checkpoint with them stands.
    reach: u64,
    key: Vec<u8>,
}

/// Known ids of a pipeline.
#[derive(Debug)]
struct Known {
    dedup: Dedup,
    /// Those that came since the last checkpoint.
    fresh: Vec<KnownId>,
    /// Entries in the store: their keys, and the newest time in each.
    kept: VecDeque<(Vec<u8>, u64)>,
    producers_changed: bool,
}

impl Collected {
    pub(crate) fn new(seed: u64, backing: Arc<Backing>, outputs: Outputs) -> Self {
        Self {
            seed,
            backing,
            noted: None,
            outputs,
            books: Arc::default(),
            dirty: Dirty::new(seed),
            discarded: Vec::new(),
            discarded_before: Vec::new(),
            discarding: 0,
            tenants: BTreeMap::new(),
            left: BTreeMap::new(),
            waiting: BTreeSet::new(),
            known: BTreeMap::new(),
            kept: BTreeMap::new(),
            changed: BTreeSet::new(),
            changed_last: None,
            folds: VecDeque::new(),
            reach: 0,
            key: Vec::new(),
        }
    }

    /// Notes how far a checkpoint got that did not stand.
    pub(super) fn note_reach(&mut self, reach: Position) {
        self.reach = reach.0;
    }

    /// Notes the pipelines of a fold, and that it is in the store.
    pub(super) fn note_fold(&mut self, fold: &Fold, horizon: u64) {
        self.folds.push_back(horizon);
        self.note_tenants(fold);
        for (id, folded) in fold.pipelines() {
            let of = self.of(id);
            let names = &folded.names().stages;
            let given = folded.highest()[0].map_or(0..0, |highest| 0..highest + 1);
            let gone = given.filter(|n| names.binary_search_by_key(n, |(id, _)| id.0).is_err());
            let prefixes = |stage| keys::all_state_of(of.tenant, of.pipeline.0, stage);
            self.discarded.extend(gone.flat_map(prefixes));
        }
    }

    /// What the entries of a node mean to it.
    pub(super) fn beside(&self) -> (u64, usize, Arc<Backing>) {
        (self.seed, self.outputs.output_bytes_max, self.backing.clone())
    }

    /// Notes a run that is in the store.
    pub(super) fn note_waiting(&mut self, key: Vec<u8>) {
        self.waiting.insert(key);
    }

    /// Notes events of an output that are in the store.
    pub(super) fn note_output(&mut self, id: (PipelineId, OutputId, u16), left: Left) {
        let (pipeline, output, partition) = id;
        let way = (pipeline, Way::Output(output), partition);
        self.left.entry(way).or_default().push_back(left);
    }

    /// Notes dead letters that are in the store.
    pub(super) fn note_dead(&mut self, id: (PipelineId, StageId, u16), left: Left) {
        let (pipeline, root, partition) = id;
        let way = (pipeline, Way::DeadLetters(root), partition);
        self.left.entry(way).or_default().push_back(left);
    }

    /// Notes ids that are in the store under `key`.
    pub(super) fn note_ids(&mut self, pipeline: PipelineId, key: Vec<u8>, ids: &[KnownId]) {
        let known = self.known(pipeline);
        for id in ids {
            known.dedup.note_event(id.hash, id.at, id.time);
        }
        let newest = ids.iter().map(|id| id.time).max().unwrap_or(0);
        known.kept.push_back((key, newest));
    }

    /// Notes a producer that is in the store.
    pub(super) fn note_producer(&mut self, pipeline: PipelineId, producer: KnownProducer) {
        self.known(pipeline).dedup.note_producer(producer);
    }

    fn known(&mut self, pipeline: PipelineId) -> &mut Known {
        let seed = self.seed;
        self.known.entry(pipeline).or_insert_with(|| Known {
            dedup: Dedup::new(seed, DedupLimits::DEFAULT),
            fresh: Vec::new(),
            kept: VecDeque::new(),
            producers_changed: false,
        })
    }

    fn note_tenants(&mut self, fold: &Fold) {
        for (id, folded) in fold.pipelines() {
            self.tenants.insert(id, Of::new(folded.tenant(), id).tenant);
        }
    }

    fn of(&self, pipeline: PipelineId) -> Of {
        Of { tenant: self.tenants.get(&pipeline).copied().unwrap_or(0), pipeline }
    }

    /// Brings everything but state up to date with the fold, which is that at `end`.
    pub(super) fn settle(
        &mut self,
        fold: &Fold,
        (log, end): (&dyn Log, Position),
        rests: &mut Rests,
    ) -> Result<(), Error> {
        self.note_tenants(fold);
        let retained = Retained::of_all(fold, self.outputs);
        let mut wanted: Wanted = BTreeMap::new();
        self.settle_left(&retained, &mut wanted);
        self.settle_waiting(fold, &mut wanted);
        self.settle_known(end);
        self.count_kept(fold, &retained);
        let Some((first, _)) = wanted.first_key_value() else { return Ok(()) };
        let first = Position(*first);
        let dirty = &mut self.dirty;
        let read = log.read(first, &mut |record| {
            rests.after(record.body.len());
            for (range, key) in wanted.remove(&record.position.0).unwrap_or_default() {
                if let Some(frame) = record.body.get(range) {
                    dirty.put(&key, frame);
                }
            }
            match wanted.is_empty() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let gone = || Error::Internal("frames that are wanted are not in the log".to_owned());
        let read = read.map_err(Error::from);
        let read = read.and_then(|_| wanted.is_empty().then_some(()).ok_or_else(gone));
        if read.is_err() {
            self.want_again(wanted);
        }
        read
    }

    /// Takes back that frames were put which were not read.
    fn want_again(&mut self, wanted: Wanted) {
        let each = |(position, frames): (u64, Vec<_>)| {
            frames.into_iter().map(move |(range, key)| (position, range, key))
        };
        for (position, range, key) in wanted.into_iter().flat_map(each) {
            let Some(Id::Output { place, port, offset }) = Id::decode(&key) else {
                self.waiting.remove(&key);
                continue;
            };
            let way = match port {
                entries::OUTPUT => Way::Output(OutputId(place.stage)),
                _ => Way::DeadLetters(StageId(place.stage)),
            };
            let frames = self.left.get_mut(&(PipelineId(place.pipeline), way, place.group));
            let left = frames.into_iter().flatten().find(|left| left.first == offset);
            if let Some(left) = left {
                left.place = Some((position, range));
            }
        }
    }

    /// What is kept of outputs and dead letters.
    fn settle_left(&mut self, retained: &BTreeMap<PipelineId, Retained>, wanted: &mut Wanted) {
        let mut left = std::mem::take(&mut self.left);
        left.retain(|(pipeline, ..), _| retained.contains_key(pipeline));
        for ((pipeline, way, partition), frames) in &mut left {
            let Some(retained) = retained.get(pipeline) else { continue };
            let held = retained.held_from(self.known.get_mut(pipeline), (*way, *partition));
            let of = self.of(*pipeline);
            let key = |first: u64| match *way {
                Way::Output(output) => of.output((output, *partition), first),
                Way::DeadLetters(root) => of.dead_letters((root, *partition), first),
            };
            let mut bytes: usize = frames.iter().map(|left| left.bytes).sum();
            // The newest is kept whatever its size, if anybody can still read it.
            let least = usize::from(!retained.is_gone(*way));
            while bytes > retained.bytes(*way) && frames.len() > least {
                // What a sink has not handed on is nobody's to drop.
                if held.is_some_and(|held| frames.get(1).is_none_or(|next| next.first > held)) {
                    break;
                }
                let Some(old) = frames.pop_front() else { break };
                bytes -= old.bytes;
                // Left there, it would be taken for something that is kept by a later start.
                if old.place.is_none_or(|(position, _)| position < self.reach) {
                    self.dirty.delete(&key(old.first));
                }
            }
            for left in frames.iter_mut() {
                if let Some((position, range)) = left.place.take() {
                    wanted.entry(position).or_default().push((range, key(left.first)));
                }
            }
        }
        left.retain(|_, frames| !frames.is_empty());
        self.left = left;
    }

    /// Known ids.
    fn settle_known(&mut self, end: Position) {
        let Self { known, dirty, tenants, .. } = self;
        for (pipeline, known) in known {
            let Some(tenant) = tenants.get(pipeline) else { continue };
            let of = Of { tenant: *tenant, pipeline: *pipeline };
            let oldest = known.dedup.events().next().map_or(u64::MAX, |id| id.time);
            while known.kept.front().is_some_and(|(_, newest)| *newest < oldest) {
                let Some((key, _)) = known.kept.pop_front() else { break };
                dirty.delete(&key);
            }
            if let Some(newest) = known.fresh.iter().map(|id| id.time).max() {
                let key = of.known(end.0);
                dirty.put(&key, &entries::put_ids(known.fresh.drain(..)));
                known.kept.push_back((key, newest));
            }
            if std::mem::take(&mut known.producers_changed) {
                let producers = entries::put_producers(known.dedup.producers());
                dirty.put(&of.producers(), &producers);
            }
        }
    }

    /// Puts the fold among the changes. That at `horizon` stays, as it is the one that counts until
    /// this checkpoint stands: deletions are seen before.
    pub(super) fn keep_fold(&mut self, fold: &Fold, end: Position, horizon: Position) {
        while self.folds.front().is_some_and(|old| *old < horizon.0) {
            let Some(old) = self.folds.pop_front() else { break };
            self.dirty.delete(&entries::fold(old));
        }
        self.dirty.put(&entries::fold(end.0), &fold.keep());
        self.folds.push_back(end.0);
        self.keep_accounts(end);
    }

    /// Sets aside what was collected so far, to be read beside the store until the next checkpoint
    /// stands. To be called once, before there was one.
    pub(crate) fn set_aside(&mut self) -> Option<Arc<Changes>> {
        self.dirty.freeze().pop()
    }

    /// Everything that is to go into a checkpoint. What is collected from now on goes into the
    /// next.
    pub(super) fn freeze(&mut self) -> (Vec<Arc<Changes>>, Vec<Vec<u8>>) {
        let discarded = self.discarded.iter().chain(&self.discarded_before);
        // What comes from another node is in the store before the log speaks of it.
        let arrives = |prefix: &&Vec<u8>| self.backing.arrives(prefix);
        let discarded = discarded.filter(|prefix| !arrives(prefix)).cloned().collect();
        self.discarding = self.discarded.len();
        (self.dirty.freeze(), discarded)
    }

    /// A checkpoint with what was frozen stands.
    pub(super) fn release(&mut self) {
        self.dirty.release();
        let gone = std::mem::take(&mut self.discarding);
        self.discarded_before = self.discarded.drain(..gone).collect();
    }
}

/// Frames to read: by the position of their record, where in its body, and their keys.
type Wanted = BTreeMap<u64, Vec<(Range<usize>, Vec<u8>)>>;

impl Collected {
    /// Before anything under a name is in the store, the name is known to whoever reads it.
    fn note_slot(&mut self, pipeline: PipelineId, stage: StageId, slot: &[u8]) {
        let known = self.noted.as_ref();
        if known.is_some_and(|(p, s, name)| (*p, *s, &name[..]) == (pipeline, stage, slot)) {
            return;
        }
        self.noted = Some((pipeline, stage, slot.to_vec()));
        let of = self.of(pipeline);
        match self.backing.note((pipeline, stage), slot) {
            None => {}
            Some(Noted::Name) => self.dirty.put(&of.slot_name(stage, Some(slot)), b""),
            Some(Noted::Many) => self.dirty.put(&of.slot_name(stage, None), b""),
        }
    }

    /// A stage has state in the store and no names: whoever reads it knows as much from now on,
    /// here and where it goes.
    pub(super) fn note_many(&mut self, pipeline: PipelineId, stage: StageId) {
        self.backing.note_many((pipeline, stage));
        let name = self.of(pipeline).slot_name(stage, None);
        self.dirty.put(&name, b"");
    }

    fn leave(
        &mut self,
        (commit, way): (&CommitHead, Way),
        (first, frame): (u64, &FrameAt),
        position: u64,
    ) {
        let range = frame.range.clone();
        let left = Left { first, bytes: frame.bytes, place: Some((position, range)) };
        let frames = self.left.entry((commit.pipeline, way, commit.partition)).or_default();
        // Recovery reads again what a checkpoint that did not stand has put into the store.
        if frames.back().is_none_or(|last| last.first < first) {
            frames.push_back(left);
        }
    }
}

impl Collected {
    /// A slot has another value, or is gone.
    fn change(&mut self, (pipeline, stage): (PipelineId, StageId), change: Change<'_>) {
        let of = self.of(pipeline);
        self.note_changed((pipeline, stage));
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        of.slot(stage, change.key, change.slot, &mut key);
        match change.value {
            Some(value) => {
                self.dirty.put(&key, value);
                // The others are read whole, and have a slot for each event and timer.
                if stage.split().1 == Part::Own {
                    self.note_slot(pipeline, stage, change.slot);
                }
            }
            None => self.dirty.delete(&key),
        }
        self.key = key;
    }
}

impl Sink for Collected {
    fn used(&mut self, whose: Whose<'_>, when: (u64, u64), used: &Used) {
        self.bill(whose, when, used);
    }

    fn changed(&mut self, commit: &CommitHead, stage: StageId, change: Change<'_>) {
        self.change((commit.pipeline, stage), change);
    }

    fn output(&mut self, commit: &CommitHead, run: &OutputRun, position: u64) {
        let way = Way::Output(run.output);
        self.leave((commit, way), (run.first, &run.frame), position);
    }

    fn dead_letters(&mut self, commit: &CommitHead, run: &DeadRun, position: u64) {
        let way = Way::DeadLetters(commit.stage);
        self.leave((commit, way), (run.first, &run.frame), position);
    }

    fn ingested(&mut self, ingest: &IngestRecord<'_>, position: u64) {
        if ingest.producer.is_none() && ingest.ids.is_empty() {
            return;
        }
        let known = self.known(ingest.pipeline);
        if let Some(producer) = &ingest.producer {
            known.dedup.note_request(producer.id, producer.sequence, position, ingest.time);
            known.producers_changed = true;
        }
        for id in &ingest.ids {
            known.dedup.note_event(*id, position, ingest.time);
            known.fresh.push(KnownId { hash: *id, at: position, time: ingest.time });
        }
    }

    fn applied(&mut self, tenant: &Name, pipeline: PipelineId) {
        self.tenants.insert(pipeline, Of::new(tenant, pipeline).tenant);
    }

    fn discarded(&mut self, pipeline: PipelineId, stage: StageId) {
        let of = self.of(pipeline);
        self.note_changed((pipeline, stage));
        self.discarded.extend(keys::all_state_of(of.tenant, of.pipeline.0, stage.0));
        self.noted = None;
        self.backing.forget(|known, at| (known, at) == (pipeline, stage));
    }

    fn deleted(&mut self, pipeline: PipelineId) {
        let of = self.of(pipeline);
        self.discarded.extend(keys::of_pipeline(of.tenant, of.pipeline.0));
        self.noted = None;
        self.backing.forget(|known, _| known == pipeline);
        self.left.retain(|(known, ..), _| *known != pipeline);
        self.known.remove(&pipeline);
    }
}
