//! Where one pipeline stands, as far as its records tell.
//!
//! - What is numbered is kept where the number is given out: runs by edge and sending partition,
//!   offsets by output and partition. So a version may cut the pipeline into other segments.
//! - Of partitions that are not there any more it keeps all of that: they may come back.
//! - A record is held against all of that before anything of it is handed on.

use std::collections::BTreeMap;

use super::backlog::{Backlog, Waiting};
use super::parts::Parts;
use super::standing::{self, Floors, Root};
use super::{Sink, Stopped, Wrong};
use crate::codec::{ApplyRecord, CommitHead, CommitRecord, EdgeEnds, EdgeRun, IngestRecord};
use crate::codec::{NameTable, Piece, Usage};
use crate::ids::{EdgeId, Name, OutputId, StageId};
use crate::limits::FENCE_OFFSETS_MAX;
use crate::partition::{Progress, SegmentIds};
use crate::position::{Counter, Positions, RunHeader, Source};
use crate::replayed::Replayed;

/// A partition of a segment, by its root stage.
type Reader = (StageId, u16);

/// One pipeline as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    pub(super) tenant: Name,
    pub(super) name: Name,
    pub(super) version: u32,
    pub(super) partitions: u16,
    pub(super) manifest: Vec<u8>,
    pub(super) names: NameTable,
    /// The highest number given out so far, of stages, edges and outputs.
    pub(super) highest: [Option<u32>; 3],
    pub(super) ingest: Counter<Reader>,
    pub(super) readers: BTreeMap<Reader, ReaderState>,
    /// What each partition sent over each edge.
    pub(super) sent: BTreeMap<(EdgeId, u16), Counter<u16>>,
    /// The next offset of each output in each partition.
    pub(super) offsets: BTreeMap<(OutputId, u16), u64>,
    /// Dead letters that were given to their stage again.
    pub(super) replayed: Replayed,
    /// What the commits of each segment used, by its root.
    pub(super) usage: BTreeMap<StageId, Usage>,
    pub(super) fences: Vec<Fence>,
    /// The highest event time ingest has given out.
    pub(super) high: u64,
    pub(super) floors: Floors,
    pub(super) stopped: Option<Stopped>,
    /// The node it went to.
    pub(super) moved: Option<String>,
    /// Which partitions are here, and where the others are.
    pub(super) parts: Parts,
}

/// The next offset of each output in each partition, at some time.
pub type Fence = BTreeMap<(OutputId, u16), u64>;

/// A partition of a segment as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReaderState {
    pub(super) number: u64,
    pub(super) positions: Positions,
    pub(super) dead_letters: u64,
    pub(super) watermark: u64,
    pub(super) backlog: Backlog,
}

impl ReaderState {
    pub(super) fn root(&self) -> Root {
        let Self { number, dead_letters, watermark, .. } = *self;
        Root { number, positions: self.positions.clone(), dead_letters, watermark }
    }
}

impl Folded {
    /// The tenant it belongs to.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The version that runs.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Partitions of each segment.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The manifest of that version, as it was applied.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The numbers of what is in it.
    #[must_use]
    pub fn names(&self) -> &NameTable {
        &self.names
    }

    /// The highest numbers given out so far: of a stage, an edge, an output.
    #[must_use]
    pub fn highest(&self) -> [Option<u32>; 3] {
        self.highest
    }

    /// The numbers of its ingest; destinations are partitions of entry stages.
    #[must_use]
    pub fn ingest_numbers(&self) -> &Counter<(StageId, u16)> {
        &self.ingest
    }

    /// The dead letters that were given to their stage again.
    #[must_use]
    pub fn replayed(&self) -> &Replayed {
        &self.replayed
    }

    /// What its commits used, by the root of the segment; those that are gone are among them.
    #[must_use]
    pub fn usage(&self) -> &BTreeMap<StageId, Usage> {
        &self.usage
    }

    /// The highest event time its ingest has given out; 0 if it is not known.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high
    }

    /// Why it stopped, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// The node it went to, if it has: nothing of it is taken here any more but its end.
    #[must_use]
    pub fn moved(&self) -> Option<&str> {
        self.moved.as_deref()
    }

    /// Where a partition stands, to go on from.
    #[must_use]
    pub fn progress(&self, ids: &SegmentIds) -> Progress {
        let to = ids.stages.first().map(|root| (root.stage, ids.partition));
        let reader = to.and_then(|to| self.readers.get(&to));
        let root = reader.map(ReaderState::root).unwrap_or_default();
        let root = root.above(standing::floor(ids, &self.floors));
        standing::progress(ids, root, &self.sent, &self.offsets)
    }

    /// Where its outputs stood each time the number of partitions changed, oldest first: what a
    /// key left behind before is in another partition than what came after.
    #[must_use]
    pub fn fences(&self) -> &[Fence] {
        &self.fences
    }

    /// The runs that wait for a partition of the segment with this root: source by source, in order
    /// within each.
    pub fn backlog(&self, root: StageId, partition: u16) -> impl Iterator<Item = &Waiting> {
        self.readers.get(&(root, partition)).into_iter().flat_map(|reader| reader.backlog.iter())
    }

    /// Every run that waits, with the root and the partition it waits for.
    pub fn waiting(&self) -> impl Iterator<Item = ((StageId, u16), &Waiting)> {
        let each = self.readers.iter();
        each.flat_map(|(to, reader)| reader.backlog.iter().map(move |waiting| (*to, waiting)))
    }

    /// A pipeline that is new.
    pub(super) fn begin(record: &ApplyRecord<'_>) -> Result<Self, Wrong> {
        let mut folded = Self {
            tenant: record.tenant.clone(),
            name: record.name.clone(),
            version: 0,
            partitions: record.partitions,
            manifest: Vec::new(),
            names: NameTable::default(),
            highest: [None; 3],
            ingest: Counter::default(),
            readers: BTreeMap::new(),
            sent: BTreeMap::new(),
            offsets: BTreeMap::new(),
            replayed: Replayed::default(),
            usage: BTreeMap::new(),
            fences: Vec::new(),
            high: 0,
            floors: Floors::new(),
            stopped: None,
            moved: None,
            parts: Parts::default(),
        };
        folded.change(record)?;
        Ok(folded)
    }

    /// Stops it, unless it has moved: what is refused then is not its fault, and where it stood
    /// is what the other node goes on from.
    pub(super) fn stop(&mut self, stopped: Stopped) {
        if self.moved.is_none() {
            self.stopped.get_or_insert(stopped);
        }
    }

    /// Notes that it goes to another node.
    pub(super) fn go(&mut self, to: &str) -> Result<(), Wrong> {
        if self.moved.is_some() {
            return Err(Wrong::Moved);
        }
        self.expect_whole()?;
        self.moved = Some(to.to_owned());
        Ok(())
    }

    /// The next version.
    pub(super) fn change(&mut self, record: &ApplyRecord<'_>) -> Result<(), Wrong> {
        self.expect_whole()?;
        let is_known = record.names == self.names && record.discarded.is_empty();
        let is_scale = record.version == self.version && is_known;
        if record.version <= self.version && !is_scale {
            return Err(Wrong::Version { found: record.version, current: self.version });
        }
        if (&record.tenant, &record.name) != (&self.tenant, &self.name) {
            return Err(Wrong::Name);
        }
        let (old, new) = (ids(&self.names), ids(&record.names));
        for ((old, new), highest) in old.iter().zip(&new).zip(&mut self.highest) {
            let fresh = new.iter().filter(|id| old.binary_search(id).is_err());
            let before = *highest;
            for id in fresh {
                if before.is_some_and(|highest| *id <= highest) {
                    return Err(Wrong::Reused(*id));
                }
                *highest = (*highest).max(Some(*id));
            }
        }
        for stage in &record.discarded {
            let used = self.highest[0].is_some_and(|highest| stage.0 <= highest);
            if !used || has_stage(&record.names, *stage) {
                return Err(Wrong::Discarded(*stage));
            }
        }
        if self.readers.values().all(|reader| reader.backlog.len() == 0) {
            let watermarks = self.readers.iter().map(|((root, _), at)| (*root, at.watermark));
            standing::raise(&mut self.floors, watermarks);
        }
        self.readers.retain(|(root, _), _| !record.discarded.contains(root));
        self.replayed.discard(&record.discarded);
        self.strand_nothing(record)?;
        if record.partitions != self.partitions {
            self.put_up_fence();
        }
        self.version = record.version;
        self.partitions = record.partitions;
        self.manifest = record.manifest.to_vec();
        self.names = record.names.clone();
        self.forget_what_is_gone();
        Ok(())
    }

    /// Notes how far outputs have come; the oldest notes make way.
    fn put_up_fence(&mut self) {
        self.fences.push(self.offsets.clone());
        let mut offsets: usize = self.fences.iter().map(BTreeMap::len).sum();
        let too_many = |fence: &&Fence| {
            let goes = offsets > FENCE_OFFSETS_MAX;
            offsets -= fence.len();
            goes
        };
        let gone = self.fences.iter().take_while(too_many).count();
        self.fences.drain(..gone);
    }

    /// Drops what was noted of edges and outputs that are not in this version: their numbers do not
    /// come again.
    fn forget_what_is_gone(&mut self) {
        let names = &self.names;
        let outputs = &names.outputs;
        self.sent.retain(|(edge, _), _| edge_of(names, *edge).is_some());
        self.parts.came.retain(|(edge, _), _| edge_of(names, *edge).is_some());
        for offsets in self.fences.iter_mut().chain([&mut self.offsets]) {
            offsets.retain(|(output, _), _| {
                outputs.binary_search_by_key(output, |(id, _)| *id).is_ok()
            });
        }
        for reader in self.readers.values_mut() {
            reader.positions.retain(|source| is_of(names, source));
        }
    }

    /// Refuses a version in which runs that wait would have no reader: of a stage that goes, over
    /// an edge that goes, or of keys that change their partition.
    fn strand_nothing(&self, record: &ApplyRecord<'_>) -> Result<(), Wrong> {
        let moved = record.partitions != self.partitions;
        let mut stranded = 0;
        for ((root, _), reader) in &self.readers {
            let stays = !moved && has_stage(&record.names, *root);
            if !stays || !reader.backlog.sources().all(|source| is_of(&record.names, source)) {
                stranded += reader.backlog.len();
            }
        }
        if stranded > 0 { Err(Wrong::WouldStrand(stranded)) } else { Ok(()) }
    }

    pub(super) fn ingest(&mut self, position: u64, record: &IngestRecord<'_>) -> Result<(), Wrong> {
        if self.parts.home.is_some() {
            return Err(Wrong::Part);
        }
        if record.seq != self.ingest.next() {
            let last = self.ingest.last();
            return Err(Wrong::Number { found: record.seq, last });
        }
        for run in &record.runs {
            self.expect_stage(run.stage)?;
            self.expect_partition(run.partition)?;
            let to = (run.stage, run.partition);
            let last = self.ingest.send(to, record.seq)?;
            follows(run.previous, last)?;
            let header =
                RunHeader { source: Source::Ingest, seq: record.seq, previous: run.previous };
            let reader = self.readers.entry(to).or_default();
            reader.backlog.push(header, &run.frame, position);
        }
        record.replayed.iter().for_each(|run| self.replayed.note(run));
        self.high = self.high.max(record.high.unwrap_or(0));
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        position: u64,
        record: &CommitRecord<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Wrong> {
        let head = &record.head;
        self.expect_head(head)?;
        self.expect_shadow(record)?;
        self.take(head, &record.batch.pieces)?;
        for run in &record.sent.runs {
            self.send(position, head, run)?;
        }
        let behind = if self.is_here(head.partition) { behind } else { behind_a_gap };
        for run in &record.sent.outputs {
            let known = self.names.outputs.binary_search_by_key(&run.output, |(id, _)| *id);
            known.map_err(|_| Wrong::Output(run.output))?;
            let next = self.offsets.entry((run.output, head.partition)).or_default();
            *next = behind(run.first, *next, run.frame.events)?;
        }
        record.by_stage.iter().try_for_each(|(stage, _)| self.expect_stage(*stage))?;
        if record.usage != Usage::default() {
            self.usage.entry(head.stage).or_default().add(&record.usage);
        }
        let reader = self.readers.entry((head.stage, head.partition)).or_default();
        reader.watermark = reader.watermark.max(record.watermark.unwrap_or(0));
        if let Some(dead) = &record.sent.dead_letters {
            reader.dead_letters = behind(dead.first, reader.dead_letters, dead.frame.events)?;
        }
        for (stage, change) in record.state.iter() {
            self.expect_stage(stage.split().0)?;
            sink.changed(head, stage, change);
        }
        self.bill_commit(position, record, sink);
        record.sent.outputs.iter().for_each(|run| sink.output(head, run, position));
        record.sent.dead_letters.iter().for_each(|dead| sink.dead_letters(head, dead, position));
        Ok(())
    }

    fn expect_head(&self, head: &CommitHead) -> Result<(), Wrong> {
        if head.version > self.version {
            return Err(Wrong::Version { found: head.version, current: self.version });
        }
        self.expect_stage(head.stage)?;
        self.expect_partition(head.partition)
    }

    /// Moves a partition to its next commit, and on in what it consumed.
    fn take(&mut self, head: &CommitHead, pieces: &[Piece]) -> Result<(), Wrong> {
        let (edges, parts) = (&self.names, &self.parts);
        let is_here = parts.is_here(head.partition);
        let reader = self.readers.entry((head.stage, head.partition)).or_default();
        if reader.number.checked_add(1) != Some(head.number) {
            return Err(Wrong::Number { found: head.number, last: reader.number });
        }
        reader.number = head.number;
        for piece in pieces {
            let source_of = piece.source;
            if let Source::Edge { edge, .. } = source_of {
                let leads_here = edge_of(edges, edge).is_some_and(|ends| ends.to == head.stage);
                leads_here.then_some(()).ok_or(Wrong::Edge(edge))?;
            }
            let at = reader.positions.at(source_of);
            if piece.from != at {
                return Err(Wrong::Begin { source_of, found: piece.from, at });
            }
            let foreign = parts.foreign(source_of).filter(|_| is_here);
            let is_elsewhere = foreign.is_some_and(|end| piece.to <= end);
            if !is_elsewhere || reader.backlog.reaches_into(piece) {
                reader.backlog.take(piece)?;
            }
            reader.positions.advance(source_of, piece.to)?;
        }
        Ok(())
    }

    fn send(&mut self, position: u64, head: &CommitHead, run: &EdgeRun) -> Result<(), Wrong> {
        let ends = edge_of(&self.names, run.edge).ok_or(Wrong::Edge(run.edge))?;
        let to = ends.to;
        self.expect_partition(run.partition)?;
        let counter = self.sent.entry((run.edge, head.partition)).or_default();
        let last = counter.send(run.partition, run.seq)?;
        follows(run.previous, last)?;
        let source = Source::Edge { edge: run.edge, partition: head.partition };
        let header = RunHeader { source, seq: run.seq, previous: run.previous };
        let reader = self.readers.entry((to, run.partition)).or_default();
        reader.backlog.push(header, &run.frame, position);
        Ok(())
    }

    pub(super) fn expect_stage(&self, stage: StageId) -> Result<(), Wrong> {
        if has_stage(&self.names, stage) { Ok(()) } else { Err(Wrong::Stage(stage)) }
    }

    pub(super) fn expect_partition(&self, partition: u16) -> Result<(), Wrong> {
        if partition < self.partitions { Ok(()) } else { Err(Wrong::Partition(partition)) }
    }
}

fn has_stage(names: &NameTable, stage: StageId) -> bool {
    names.stages.binary_search_by_key(&stage, |(id, _)| *id).is_ok()
}

fn edge_of(names: &NameTable, edge: EdgeId) -> Option<&EdgeEnds> {
    let at = names.edges.binary_search_by_key(&edge, |(id, _)| *id).ok()?;
    names.edges.get(at).map(|(_, ends)| ends)
}

/// True if the source is in a version.
fn is_of(names: &NameTable, source: Source) -> bool {
    match source {
        Source::Ingest => true,
        Source::Edge { edge, .. } => edge_of(names, edge).is_some(),
    }
}

/// The numbers of stages, edges and outputs, each in order.
fn ids(names: &NameTable) -> [Vec<u32>; 3] {
    [
        names.stages.iter().map(|(id, _)| id.0).collect(),
        names.edges.iter().map(|(id, _)| id.0).collect(),
        names.outputs.iter().map(|(id, _)| id.0).collect(),
    ]
}

fn follows(found: u64, last: u64) -> Result<(), Wrong> {
    if found == last { Ok(()) } else { Err(Wrong::Previous { found, last }) }
}

/// The offset behind a run that should begin at `next`.
fn behind(found: u64, next: u64, events: u32) -> Result<u64, Wrong> {
    let end = found.checked_add(events.into()).filter(|_| found == next);
    end.ok_or(Wrong::Offset { found, next })
}

/// As [`behind`], of a partition on another node: what lay before may never have come here.
fn behind_a_gap(found: u64, next: u64, events: u32) -> Result<u64, Wrong> {
    behind(found, next.max(found), events).map_err(|_| Wrong::Offset { found, next })
}
