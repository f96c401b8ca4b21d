//! Pipelines whose partitions are on several nodes: which of them are here, where the others are,
//! and how partitions leave and come.
//!
//! ```text
//!   home   ingest, versions, outputs     a part   some partitions, the same numbers and names
//!   A  here 0 1 · away 2 3 at B                   B  home A · here 2 3 · away 0 1 at A
//! ```
//!
//! - Runs for a partition that is away wait here until a commit of it is written here as well: what
//!   it says it took is taken from the backlog. It has no state and sends nothing over edges.
//! - Runs that were written to another node's log are foreign: they are not in the backlog here.
//!   Those are what a home took in, as a part sees it, what partitions that are away send, and what
//!   partitions that came had sent before.
//! - A partition that comes goes on from the later of what both nodes know of it. What it changed
//!   last may be in its record; whoever folds has to take that from there, behind all that was
//!   here.
//! - A pipeline of which not all is here gets no version, and does not move as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::pipeline::{Folded, ReaderState};
use super::{Fold, Sink, Wrong, only_one, running, standing};
use crate::codec::{CommitRecord, JoinRecord, LeaveRecord, ReleaseRecord};
use crate::ids::{EdgeId, PipelineId};
use crate::key;
use crate::position::{Counter, Place, Source};
use crate::replayed::Replayed;

/// No number that is given out comes near this. One that does would run over here, as it is gone on
/// from.
const NUMBER_MAX: u64 = 1 << 62;

/// Where the partitions of a pipeline are; by default all are here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The node that is its home, if that is not this one.
    pub(super) home: Option<String>,
    /// Partitions that are not here, and the node that has them as far as this one knows.
    pub(super) away: BTreeMap<u16, String>,
    /// Those of them that left from here, and whose data here may not go yet.
    pub(super) leaving: BTreeSet<u16>,
    /// Of partitions that came, the last run they had sent over each edge before.
    pub(super) came: BTreeMap<(EdgeId, u16), u64>,
}

impl Parts {
    /// True if all of the pipeline is here.
    pub(super) fn is_whole(&self) -> bool {
        self.home.is_none() && self.away.is_empty()
    }

    pub(super) fn is_here(&self, partition: u16) -> bool {
        !self.away.contains_key(&partition)
    }

    /// Up to where runs of a source may be in the log of another node; `None` if all are in this
    /// one.
    pub(super) fn foreign(&self, source: Source) -> Option<Place> {
        const ALL: Place = Place { seq: u64::MAX, index: u32::MAX };
        match source {
            Source::Ingest => self.home.is_some().then_some(ALL),
            Source::Edge { partition, .. } if !self.is_here(partition) => Some(ALL),
            Source::Edge { edge, partition } => {
                self.came.get(&(edge, partition)).map(|last| Place::after(*last))
            }
        }
    }
}

impl Folded {
    /// The node that is its home, if only a part of it is here; `None` if this is its home.
    #[must_use]
    pub fn home(&self) -> Option<&str> {
        self.parts.home.as_deref()
    }

    /// The partitions that are not on this node, and the node that has them as far as this one
    /// knows.
    #[must_use]
    pub fn away(&self) -> &BTreeMap<u16, String> {
        &self.parts.away
    }

    /// The partitions that left from here and whose data here may not go yet.
    #[must_use]
    pub fn leaving(&self) -> &BTreeSet<u16> {
        &self.parts.leaving
    }

    /// True if partitions have come here from other nodes, which may have something to say of it.
    #[must_use]
    pub fn has_come(&self) -> bool {
        !self.parts.came.is_empty()
    }

    /// True if a partition is on this node.
    #[must_use]
    pub fn is_here(&self, partition: u16) -> bool {
        self.parts.is_here(partition)
    }

    /// The highest of all numbers that what comes goes on from.
    fn highest_number(&self) -> u64 {
        let own = |state: &ReaderState| state.number.max(state.dead_letters);
        let places = |state: &ReaderState| state.positions.iter().map(|(_, place)| place.seq).max();
        let readers = self.readers.values().map(|state| own(state).max(places(state).unwrap_or(0)));
        let sent = self.sent.values().map(Counter::last);
        readers.chain(sent).chain(self.offsets.values().copied()).max().unwrap_or(0)
    }

    /// Wrong if not all of it is here.
    pub(super) fn expect_whole(&self) -> Result<(), Wrong> {
        if self.parts.is_whole() { Ok(()) } else { Err(Wrong::Scattered) }
    }

    /// Wrong if a commit of a partition that is away says more than what it took and what left.
    pub(super) fn expect_shadow(&self, record: &CommitRecord<'_>) -> Result<(), Wrong> {
        let partition = record.head.partition;
        let plain = record.sent.runs.is_empty() && record.state.iter().next().is_none();
        if plain || self.is_here(partition) { Ok(()) } else { Err(Wrong::Away(partition)) }
    }

    /// Notes that partitions go to another node; or, if none of them is here, that they went on.
    fn leave(&mut self, record: &LeaveRecord) -> Result<(), Wrong> {
        let partitions = &record.partitions;
        partitions.iter().try_for_each(|partition| self.expect_partition(*partition))?;
        let here = partitions.iter().any(|partition| self.is_here(*partition));
        for partition in partitions {
            if here && !self.is_here(*partition) {
                return Err(Wrong::Away(*partition));
            }
        }
        let Parts { away, leaving, came, .. } = &mut self.parts;
        for partition in partitions {
            away.insert(*partition, record.to.clone());
        }
        if here {
            leaving.extend(partitions);
            came.retain(|(_, partition), _| partitions.binary_search(partition).is_err());
        }
        Ok(())
    }

    fn release(&mut self, record: &ReleaseRecord) -> Result<(), Wrong> {
        let leaving = &mut self.parts.leaving;
        let mut partitions = record.partitions.iter();
        if let Some(other) = partitions.find(|partition| !leaving.contains(partition)) {
            return Err(Wrong::NotLeaving(*other));
        }
        leaving.retain(|partition| record.partitions.binary_search(partition).is_err());
        Ok(())
    }

    /// What came of another node's pipeline, as a new part here.
    fn into_part(self, record: &JoinRecord<'_>) -> Result<Self, Wrong> {
        let home = record.home.clone();
        let home = Some(home.ok_or(Wrong::Joined("this is its home, and nothing of it is here"))?);
        let comes = |partition: u16| record.partitions.binary_search(&partition).is_ok();
        let mut away = self.parts.away;
        for partition in 0..self.partitions {
            away.entry(partition).or_insert_with(|| record.from.clone());
        }
        away.retain(|partition, _| !comes(*partition));
        let (mut readers, mut sent, mut offsets) = (self.readers, self.sent, self.offsets);
        readers.retain(|(_, partition), _| comes(*partition));
        readers.values_mut().for_each(|reader| reader.backlog = Default::default());
        sent.retain(|(_, partition), _| comes(*partition));
        offsets.retain(|(_, partition), _| comes(*partition));
        let came = sent.iter().map(|(from, counter)| (*from, counter.last())).collect();
        Ok(Self {
            ingest: Counter::default(),
            readers,
            sent,
            offsets,
            replayed: Replayed::default(),
            usage: BTreeMap::new(),
            fences: Vec::new(),
            parts: Parts { home, away, leaving: BTreeSet::new(), came },
            ..self
        })
    }

    /// Wrong if partitions of what came cannot go on in what is here.
    fn expect_joinable(&self, record: &JoinRecord<'_>, kept: &Self) -> Result<(), Wrong> {
        if (&kept.tenant, &kept.name) != (&self.tenant, &self.name) {
            return Err(Wrong::Name);
        }
        if kept.version != self.version {
            return Err(Wrong::Version { found: kept.version, current: self.version });
        }
        if kept.partitions != self.partitions {
            return Err(Wrong::Joined("it has another number of partitions there"));
        }
        if record.home.is_some() != self.parts.home.is_some() {
            return Err(Wrong::Joined("the nodes do not agree whether this is its home"));
        }
        match record.partitions.iter().find(|partition| self.is_here(**partition)) {
            Some(here) => Err(Wrong::Here(*here)),
            None => Ok(()),
        }
    }

    /// Wrong if a record brings changes of what does not come with it.
    fn expect_its_own(&self, record: &JoinRecord<'_>) -> Result<(), Wrong> {
        for (stage, change) in record.changed.iter() {
            self.expect_stage(stage.split().0)?;
            let partition = key::partition_of(key::group_of(change.key), self.partitions);
            if record.partitions.binary_search(&partition).is_err() {
                return Err(Wrong::Joined("it brings state of other partitions"));
            }
        }
        Ok(())
    }

    /// Takes in partitions that were away, each from the later of what both nodes know of it.
    fn take_in(&mut self, record: &JoinRecord<'_>, kept: Self) {
        let comes = |partition: u16| record.partitions.binary_search(&partition).is_ok();
        self.parts.home.clone_from(&record.home);
        self.parts.away.retain(|partition, _| !comes(*partition));
        self.parts.leaving.retain(|partition| !comes(*partition));
        for (to, state) in kept.readers.into_iter().filter(|((_, at), _)| comes(*at)) {
            self.readers.entry(to).or_default().go_on_from(&state);
        }
        for (from, counter) in kept.sent.into_iter().filter(|((_, at), _)| comes(*at)) {
            self.parts.came.insert(from, counter.last());
            let own = self.sent.entry(from).or_default();
            if counter.last() > own.last() {
                *own = counter;
            }
        }
        for (from, next) in kept.offsets.into_iter().filter(|((_, at), _)| comes(*at)) {
            let own = self.offsets.entry(from).or_default();
            *own = next.max(*own);
        }
        self.high = self.high.max(kept.high);
        standing::raise(&mut self.floors, kept.floors.into_iter());
    }
}

impl ReaderState {
    /// Goes on from what another node knows of it, if that is later, without what was consumed
    /// there. What waits there is in the other log.
    fn go_on_from(&mut self, other: &Self) {
        self.number = self.number.max(other.number);
        self.dead_letters = self.dead_letters.max(other.dead_letters);
        self.watermark = self.watermark.max(other.watermark);
        for (source, place) in other.positions.iter() {
            if self.positions.advance(source, place).is_ok() {
                self.backlog.drop_before(source, place);
            }
        }
    }
}

impl Fold {
    /// One pipeline in bytes, for partitions of it to go on elsewhere: as in
    /// [`keep_one`](Self::keep_one), without the runs that wait, which stay in this log, and as if
    /// nothing had left from here. `None` if it is not there.
    #[must_use]
    pub fn keep_part(&self, pipeline: PipelineId) -> Option<Vec<u8>> {
        let mut folded = Folded { moved: None, ..self.pipelines.get(&pipeline)?.clone() };
        folded.readers.values_mut().for_each(|reader| reader.backlog = Default::default());
        // Those that are on their way come one after the other, maybe, and are here until then.
        let leaving = std::mem::take(&mut folded.parts.leaving);
        folded.parts.away.retain(|partition, _| !leaving.contains(partition));
        folded.parts.came.clear();
        let pipelines = BTreeMap::from([(pipeline, folded)]);
        Some(Self { pipelines, checkpoint: None, last: None }.keep())
    }

    pub(super) fn leave(&mut self, record: &LeaveRecord) -> Result<(), Wrong> {
        let folded = running(&mut self.pipelines, record.pipeline)?;
        folded.map_or(Ok(()), |folded| folded.leave(record))
    }

    pub(super) fn release(
        &mut self,
        record: &ReleaseRecord,
        sink: &mut impl Sink,
    ) -> Result<(), Wrong> {
        let id = record.pipeline;
        let Some(folded) = running(&mut self.pipelines, id)? else { return Ok(()) };
        folded.release(record)?;
        sink.released(id, &record.partitions, folded.partitions);
        Ok(())
    }

    /// Takes in partitions from another node: a new part, or more of what is here.
    pub(super) fn join(
        &mut self,
        record: &JoinRecord<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), Wrong> {
        let id = record.pipeline;
        let known = match running(&mut self.pipelines, id) {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => true,
            Err(Wrong::Pipeline) => false,
            Err(wrong) => return Err(wrong),
        };
        let kept = only_one(id, record.kept).map_err(Wrong::Joined)?;
        if kept.highest_number() > NUMBER_MAX {
            return Err(Wrong::Joined("a number of it is higher than any that are given out"));
        }
        for partition in &record.partitions {
            kept.expect_partition(*partition)?;
        }
        kept.expect_its_own(record)?;
        let tenant = kept.tenant.clone();
        if !known {
            if self.has_name(&kept.tenant, &kept.name) {
                return Err(Wrong::Name);
            }
            self.pipelines.insert(id, kept.into_part(record)?);
        } else if let Some(folded) = self.pipelines.get_mut(&id) {
            folded.expect_joinable(record, &kept)?;
            folded.take_in(record, kept);
        }
        sink.joined(&tenant, id, &record.partitions);
        Ok(())
    }
}
