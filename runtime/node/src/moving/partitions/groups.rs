//! The state of partitions in the store, in pages, as it goes from one node to another.
//!
//! The pages are those of a pipeline that moves (`moving/pages`), of fewer entries: state of the
//! key groups the partitions own, of every stage, and the names its slots have. What left a
//! partition is at the home, and what waits for it where it was sent.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use sluicebox_core::codec::Changed;
use sluicebox_core::ids::{Part, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::limits::KEY_GROUPS;
use sluicebox_core::recovery::Folded;
use sluicebox_store::store::keys::{self, Id, Place};
use sluicebox_store::store::{Page, Store};

use super::super::pages::{self, Entry, PAGE, PAGE_BYTES_MAX, Put};
use crate::checkpoint::Of;
use crate::error::Error;

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) of: Of,
    /// Stages, with what they hold besides their own state; ascending.
    stages: Vec<StageId>,
    /// Key groups, ascending.
    groups: Vec<Range<u16>>,
}

impl Groups {
    /// Of these partitions, of so many; ascending.
    pub(crate) fn new(
        of: Of,
        stages: impl Iterator<Item = StageId>,
        (partitions, count): (&[u16], u16),
    ) -> Self {
        let parts = |stage: StageId| {
            Part::HELD.into_iter().map(move |part| stage.part(part)).chain([stage])
        };
        let mut stages: Vec<StageId> = stages.flat_map(parts).collect();
        stages.sort_unstable();
        let groups = partitions.iter().map(|at| key::groups_of(*at, count)).collect();
        Self { of, stages, groups }
    }

    /// Of partitions of a pipeline, as the log has it.
    pub(crate) fn of_fold((id, folded): (PipelineId, &Folded), partitions: &[u16]) -> Self {
        let stages = folded.names().stages.iter().map(|(stage, _)| *stage);
        Self::new(Of::new(folded.tenant(), id), stages, (partitions, folded.partitions()))
    }

    /// True if it is all state of these partitions of a pipeline, as it says where it stands.
    pub(super) fn is_of_fold(&self, fold: (PipelineId, &Folded), partitions: &[u16]) -> bool {
        let other = Self::of_fold(fold, partitions);
        let has = |stage: &StageId| self.stages.binary_search(stage).is_ok();
        (self.of, &self.groups) == (other.of, &other.groups) && other.stages.iter().all(has)
    }

    /// The stages, with what they hold besides their own state.
    pub(crate) fn stages(&self) -> impl Iterator<Item = StageId> {
        self.stages.iter().copied()
    }

    fn place(&self, stage: StageId, group: u16) -> Place {
        Place { tenant: self.of.tenant, pipeline: self.of.pipeline.0, stage: stage.0, group }
    }

    /// What all its entries begin with, but for names of slots: a prefix for each stage and group.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Vec<u8>> {
        self.stages.iter().flat_map(move |stage| {
            let groups = self.groups.iter().cloned().flatten();
            groups.map(move |group| keys::state_of_group(self.place(*stage, group)))
        })
    }

    /// What everything begins with that is held of the stages, in any group.
    pub(crate) fn held(&self) -> impl Iterator<Item = Vec<u8>> {
        let of = self.of;
        let held = self.stages.iter().filter(|stage| stage.split().1 != Part::Own);
        held.map(move |stage| keys::state_of_stage(of.tenant, of.pipeline.0, stage.0))
    }

    /// Each stage with what its own state begins with, in any group.
    pub(crate) fn own(&self) -> impl Iterator<Item = (StageId, Vec<u8>)> {
        let of = self.of;
        let own = self.stages.iter().filter(|stage| stage.split().1 == Part::Own);
        own.map(move |stage| (*stage, keys::state_of_stage(of.tenant, of.pipeline.0, stage.0)))
    }

    /// What the names of slots begin with.
    pub(crate) fn names(&self) -> impl Iterator<Item = Vec<u8>> {
        let of = self.of;
        let stages = self.stages.iter().filter(|stage| stage.split().1 == Part::Own);
        stages.flat_map(move |stage| keys::all_state_of(of.tenant, of.pipeline.0, stage.0).nth(1))
    }

    /// An entry is one of these.
    pub(crate) fn has(&self, id: &Id<'_>) -> bool {
        match id {
            Id::State { place, .. } => {
                self.stages.binary_search(&StageId(place.stage)).is_ok()
                    && self.groups.iter().any(|groups| groups.contains(&place.group))
            }
            Id::SlotName { place, .. } => self.stages.binary_search(&StageId(place.stage)).is_ok(),
            _ => false,
        }
    }

    /// What there is to be read, in the order of keys.
    fn spans(&self) -> Vec<Span> {
        let all = self.stages.iter().flat_map(|stage| self.spans_of(*stage));
        all.chain(self.names().map(Span::all)).collect()
    }

    /// What is held of the stages, in these groups.
    pub(super) fn held_spans(&self) -> impl Iterator<Item = Span> {
        let held = self.stages.iter().filter(|stage| stage.split().1 != Part::Own);
        held.flat_map(|stage| self.spans_of(*stage))
    }

    /// State of a stage.
    fn spans_of(&self, stage: StageId) -> impl Iterator<Item = Span> {
        let prefix = keys::state_of_stage(self.of.tenant, self.of.pipeline.0, stage.0);
        self.groups.iter().map(move |groups| {
            let at = |group: u16| keys::state_of_group(self.place(stage, group));
            let end = (groups.end < KEY_GROUPS).then(|| at(groups.end));
            Span { prefix: prefix.clone(), begin: at(groups.start), end }
        })
    }
}

/// Keys that follow each other in the store.
pub(super) struct Span {
    /// What they begin with.
    pub(super) prefix: Vec<u8>,
    /// The first of them.
    pub(super) begin: Vec<u8>,
    /// The first behind them; none if they are all that begin so.
    end: Option<Vec<u8>>,
}

impl Span {
    /// All that begins so.
    pub(super) fn all(prefix: Vec<u8>) -> Self {
        Self { begin: prefix.clone(), prefix, end: None }
    }

    /// A key that begins so is one of these.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// Reads the page that begins at `from`, empty for the first; gives where the next begins. Blocks.
///
/// # Errors
/// The store fails.
pub(crate) fn read(
    store: &dyn Store,
    groups: &Groups,
    from: &[u8],
) -> Result<(Bytes, Option<Bytes>), Error> {
    let spans = groups.spans();
    for (at, span) in spans.iter().enumerate() {
        let Span { prefix, begin, end } = span;
        let is_over = |from: &[u8]| match end {
            Some(end) => from >= &end[..],
            None => from > &begin[..] && !from.starts_with(prefix),
        };
        if is_over(from) {
            continue;
        }
        let Page { mut entries, next } = store.scan(prefix, from.max(begin), PAGE)?;
        let before = entries.len();
        entries.retain(|(key, _)| span.has(key));
        let next = next.filter(|next| entries.len() == before && !is_over(next));
        let behind = || spans.get(at + 1).map(|span| Bytes::copy_from_slice(&span.begin));
        let next = next.or_else(behind);
        if entries.is_empty() && next.is_some() {
            continue;
        }
        return Ok((pages::put(&entries), next));
    }
    Ok((Bytes::new(), None))
}

/// The entries of a page, as they are to be written.
///
/// # Errors
/// It is not a page of this state; with what is wrong.
pub(crate) fn entries(page: &[u8], groups: &Groups) -> Result<Vec<Entry>, &'static str> {
    let entries = pages::entries(page, groups.of, &mut 0)?;
    let is_its = |(key, _): &Entry| Id::decode(key).is_some_and(|id| groups.has(&id));
    if entries.iter().all(is_its) { Ok(entries) } else { Err("a key is of other partitions") }
}

/// What changes of this state mean to the store: in order, with the names their slots have.
///
/// # Errors
/// They are none of this state; with what is wrong.
pub(crate) fn changes(page: &[u8], groups: &Groups) -> Result<Vec<Put>, &'static str> {
    let changed = Changed::read(page).map_err(|_| "changes cannot be read")?;
    let (mut puts, mut names) = (Vec::<Put>::new(), BTreeSet::new());
    let mut bytes = 0;
    for (stage, change) in changed.iter() {
        let mut key = Vec::new();
        groups.of.slot(stage, change.key, change.slot, &mut key);
        if !Id::decode(&key).is_some_and(|id| groups.has(&id)) {
            return Err("a change is of other partitions");
        }
        if puts.last().is_some_and(|(last, _)| *last >= key) {
            return Err("changes are not in order");
        }
        // Keys that repeat take a byte in a page, and all of their own here.
        bytes += key.len() + change.value.map_or(0, <[u8]>::len);
        if bytes > PAGE_BYTES_MAX {
            return Err("changes are larger than any page");
        }
        if stage.split().1 == Part::Own && change.value.is_some() {
            names.insert(groups.of.slot_name(stage, Some(change.slot)));
        }
        puts.push((key, change.value.map(<[u8]>::to_vec)));
    }
    // Their kind is behind that of slots.
    puts.extend(names.into_iter().map(|name| (name, Some(Vec::new()))));
    Ok(puts)
}

#[cfg(test)]
mod tests {
    use sluicebox_core::codec::{self, ApplyRecord, NameTable, RecordWriter};
    use sluicebox_core::ids::{Name, OutputId, PipelineId};
    use sluicebox_core::recovery::{Fold, Nothing};
    use sluicebox_core::state::Change as Changes;
    use sluicebox_store::store::{Change, MemoryStore};

    use super::*;

    const PARTITIONS: u16 = 4;

    fn of() -> Of {
        Of::new(&Name::new("acme").expect("a name"), PipelineId(3))
    }

    fn groups(partitions: &[u16]) -> Groups {
        Groups::new(of(), [StageId(1), StageId(0)].into_iter(), (partitions, PARTITIONS))
    }

    /// Entries of two stages, one of which holds timers, and what is none of this.
    fn filled(count: u32) -> MemoryStore {
        let store = MemoryStore::new();
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for n in 0..count {
            for stage in [StageId(0), StageId(1), StageId(1).part(Part::Timers), StageId(2)] {
                let mut key = Vec::new();
                of().slot(stage, &n.to_le_bytes(), b"s", &mut key);
                entries.push((key, vec![7; 500]));
            }
        }
        entries.push((of().output((OutputId(0), 0), 5), b"frame".to_vec()));
        entries.push((of().slot_name(StageId(1), Some(b"s")), Vec::new()));
        entries.sort();
        let piece: Vec<_> =
            entries.iter().map(|(key, value)| Change { key, value: Some(value) }).collect();
        let mut checkpoint = store.begin(7).expect("begins");
        checkpoint.write(&piece).expect("is written");
        checkpoint.commit(&[]).expect("stands");
        store
    }

    fn all(store: &MemoryStore, groups: &Groups) -> Vec<Entry> {
        let (mut from, mut all) = (Bytes::new(), Vec::new());
        loop {
            let (page, next) = read(store, groups, &from).expect("it is memory");
            all.extend(entries(&page, groups).expect("its own"));
            match next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }

    #[test]
    fn partitions_have_all_state_of_their_keys_and_no_other() {
        for count in [0, 1, 7_000] {
            let store = filled(count);
            let each: Vec<_> = (0..PARTITIONS).map(|at| all(&store, &groups(&[at]))).collect();
            let names = usize::from(PARTITIONS);
            let found: usize = each.iter().map(Vec::len).sum();
            assert_eq!(
                found,
                3 * count as usize + names,
                "{count}: the third stage is not asked for"
            );
            let together = all(&store, &groups(&[0, 1, 2, 3]));
            assert_eq!(together.len(), 3 * count as usize + 1);
            assert!(together.is_sorted());
            let some = all(&store, &groups(&[1, 3]));
            assert_eq!(some.len() + 1, each[1].len() + each[3].len());
        }
    }

    #[test]
    fn what_was_taken_is_of_as_many_partitions_and_of_all_stages() {
        let folded = |partitions: u16, stages: &[u32]| {
            let name = |text: &str| Name::new(text).expect("a name");
            let stages = stages.iter().map(|stage| (StageId(*stage), name(&format!("s{stage}"))));
            let mut writer = RecordWriter::new();
            writer.apply(&ApplyRecord {
                tenant: name("acme"),
                name: name("p"),
                pipeline: PipelineId(3),
                version: 1,
                partitions,
                manifest: b"{}",
                names: NameTable { stages: stages.collect(), ..NameTable::default() },
                discarded: Vec::new(),
            });
            let body = writer.to_bytes();
            let record = codec::decode(writer.kind(), &body).expect("a record");
            let mut fold = Fold::new();
            fold.apply(0, &record, &mut Nothing).expect("the first of its pipeline");
            fold.pipeline(PipelineId(3)).expect("it is there").clone()
        };
        let taken = groups(&[1, 2]);
        let is_of = |count, stages: &[u32], partitions: &[u16]| {
            taken.is_of_fold((PipelineId(3), &folded(count, stages)), partitions)
        };
        assert!(is_of(PARTITIONS, &[0, 1], &[1, 2]) && is_of(PARTITIONS, &[1], &[1, 2]));
        assert!(!is_of(PARTITIONS * 2, &[0, 1], &[1, 2]), "other key groups");
        assert!(!is_of(PARTITIONS, &[0, 1, 2], &[1, 2]), "a stage of which nothing was taken");
        assert!(!is_of(PARTITIONS, &[0, 1], &[1]) && !is_of(PARTITIONS, &[0, 1], &[1, 2, 3]));
        assert!(!taken.is_of_fold((PipelineId(4), &folded(PARTITIONS, &[0, 1])), &[1, 2]));
    }

    #[test]
    fn a_page_of_other_partitions_is_refused() {
        let store = filled(100);
        let (page, _) = read(&store, &groups(&[0, 1]), b"").expect("it is memory");
        assert!(entries(&page, &groups(&[0, 1])).is_ok());
        assert!(entries(&page, &groups(&[0])).is_ok(), "the first page is of the first of them");
        assert_eq!(entries(&page, &groups(&[1])), Err("a key is of other partitions"));
    }

    #[test]
    fn changes_become_entries_in_order_with_the_names_of_their_slots() {
        let own = groups(&[2]);
        let is_in = |groups: &Groups, n: &u32| {
            let mut slot = Vec::new();
            of().slot(StageId(1), &n.to_le_bytes(), b"s", &mut slot);
            Id::decode(&slot).is_some_and(|id| groups.has(&id)).then_some(slot)
        };
        let mut keys: Vec<(Vec<u8>, u32)> =
            (0..100).filter_map(|n| Some((is_in(&own, &n)?, n))).collect();
        keys.sort();
        let page = |keys: &[(Vec<u8>, u32)], stage| {
            let mut writer = RecordWriter::new();
            let mut state = writer.changed();
            for (_, n) in keys {
                let value = (n % 3 > 0).then_some(&b"v"[..]);
                state.change(stage, &Changes { key: &n.to_le_bytes(), slot: b"s", value });
            }
            state.end();
            writer.to_bytes()
        };
        let puts = changes(&page(&keys, StageId(1)), &own).expect("its own");
        assert!(puts.is_sorted() && puts.len() == keys.len() + 1);
        for ((slot, n), (key, value)) in keys.iter().zip(&puts) {
            assert_eq!((key, value.is_some()), (slot, n % 3 > 0));
        }
        let name = (of().slot_name(StageId(1), Some(b"s")), Some(Vec::new()));
        assert_eq!(puts.last(), Some(&name));
        // Timers have a slot for each of them, which nobody looks for by its name.
        let timers = page(&keys, StageId(1).part(Part::Timers));
        assert_eq!(changes(&timers, &own).expect("its own").len(), keys.len());
        let others = changes(&page(&keys, StageId(1)), &groups(&[1]));
        assert_eq!(others, Err("a change is of other partitions"));
        assert!(changes(&page(&keys, StageId(2)), &own).is_err(), "there is no such stage");
        keys.reverse();
        let wrong = changes(&page(&keys, StageId(1)), &own);
        assert_eq!(wrong, Err("changes are not in order"));
        assert_eq!(changes(b"garbage", &own), Err("changes cannot be read"));
        assert_eq!(changes(b"", &own), Ok(Vec::new()));
    }

    #[test]
    fn changes_that_are_small_on_their_way_and_large_here_are_refused() {
        let all = groups(&[0, 1, 2, 3]);
        let key = [7; 500];
        let page = |slots: u32| {
            let mut writer = RecordWriter::new();
            let mut state = writer.changed();
            for slot in 0..slots {
                let slot = slot.to_be_bytes();
                state.change(StageId(1), &Changes { key: &key, slot: &slot, value: None });
            }
            state.end();
            writer.to_bytes()
        };
        assert_eq!(changes(&page(100), &all).map(|puts| puts.len()), Ok(100));
        let many = page((PAGE_BYTES_MAX / key.len()) as u32);
        assert!(many.len() < PAGE_BYTES_MAX / 10);
        assert_eq!(changes(&many, &all), Err("changes are larger than any page"));
    }

    #[test]
    fn what_its_entries_begin_with_is_each_of_them() {
        let store = filled(1_000);
        let groups = groups(&[2]);
        let prefixes: Vec<_> = groups.prefixes().collect();
        let state = all(&store, &groups).into_iter().filter(|(key, _)| key[0] == 1);
        for (key, _) in state {
            assert!(prefixes.iter().any(|prefix| key.starts_with(prefix)));
        }
    }
}
