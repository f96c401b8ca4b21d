//! Which dead letters were given to their stage again, so that none is twice.
//!
//! - A dead letter is known by the root of its segment, its partition there, and its offset, which
//!   never change and are never used again. So it is known for as long as it is kept, whatever the
//!   time.
//! - Offsets are kept as ranges: who replays all of them makes one.
//! - What is no longer kept cannot be replayed, and is forgotten.
//!
//! Reading dead letters and sending them is the business of the node.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::codec::RecordError;
use crate::codec::wire::{Reader, put};
use crate::ids::StageId;

/// Most ranges of one partition: more would come only of choosing dead letters one by one.
pub const RANGES_MAX: usize = 4096;

/// Dead letters of one partition that are replayed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedRun {
    /// The root of the segment they are of.
    pub root: StageId,
    /// Their partition there.
    pub partition: u16,
    /// Those before this offset are not kept any more.
    pub kept_from: u64,
    /// Their offsets, in order.
    pub offsets: Offsets,
}

/// A set of offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offsets(BTreeMap<u64, u64>);

impl Offsets {
    /// Adds the offsets of a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Every range that touches the new one becomes part of it.
        while let Some((from, to)) = self.0.range(..=end).next_back() {
            if *to < start {
                break;
            }
            let (from, to) = (*from, *to);
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// Adds those of another set.
    pub fn extend(&mut self, other: &Self) {
        other.ranges().for_each(|range| self.insert(range));
    }

    /// True if it holds the offset.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// Drops the offsets before this one.
    pub fn forget_before(&mut self, offset: u64) {
        let kept = self.0.split_off(&offset);
        let last = std::mem::replace(&mut self.0, kept).pop_last();
        if let Some((_, end)) = last.filter(|(_, end)| *end > offset) {
            self.0.insert(offset, end);
        }
    }

    /// The ranges, in order, none touching the next.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The dead letters of a pipeline that were replayed and are still kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed(BTreeMap<(StageId, u16), Offsets>);

impl Replayed {
    /// True if this dead letter was.
    #[must_use]
    pub fn contains(&self, place: (StageId, u16), offset: u64) -> bool {
        self.0.get(&place).is_some_and(|offsets| offsets.contains(offset))
    }

    /// Notes those of a record.
    pub fn note(&mut self, run: &ReplayedRun) {
        let offsets = self.0.entry((run.root, run.partition)).or_default();
        offsets.extend(&run.offsets);
        offsets.forget_before(run.kept_from);
    }

    /// True if noting them would make more ranges than are remembered.
    #[must_use]
    pub fn is_too_scattered(&self, run: &ReplayedRun) -> bool {
        let mut after = self.0.get(&(run.root, run.partition)).cloned().unwrap_or_default();
        after.extend(&run.offsets);
        after.forget_before(run.kept_from);
        after.ranges().len() > RANGES_MAX
    }

    /// Forgets those of stages that are given up.
    pub(crate) fn discard(&mut self, stages: &[StageId]) {
        self.0.retain(|(root, _), _| !stages.contains(root));
    }

    /// Writes all of it.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put(out, self.0.len() as u64);
        for ((root, partition), offsets) in &self.0 {
            put_place(out, (*root, *partition), 0);
            put_offsets(out, offsets);
        }
    }

    /// Reads what `put` wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut all = Self::default();
        runs(reader)?.iter().for_each(|run| all.note(run));
        Ok(all)
    }
}

/// Writes the runs of a record.
pub(crate) fn put_runs(out: &mut Vec<u8>, runs: &[ReplayedRun]) {
    put(out, runs.len() as u64);
    for run in runs {
        put_place(out, (run.root, run.partition), run.kept_from);
        put_offsets(out, &run.offsets);
    }
}

fn put_place(out: &mut Vec<u8>, (root, partition): (StageId, u16), kept_from: u64) {
    put(out, root.0.into());
    put(out, partition.into());
    put(out, kept_from);
}

fn put_offsets(out: &mut Vec<u8>, offsets: &Offsets) {
    let ranges = offsets.ranges();
    put(out, ranges.len() as u64);
    let mut at = 0;
    for range in ranges {
        put(out, range.start - at);
        put(out, range.end - range.start);
        at = range.end;
    }
}

/// Reads what `put_runs` wrote.
pub(crate) fn runs(reader: &mut Reader<'_>) -> Result<Vec<ReplayedRun>, RecordError> {
    reader.list(4, "what was replayed", |reader| {
        let root = StageId(reader.number_u32("the root of dead letters")?);
        let partition = reader.partition("the partition of dead letters")?;
        let kept_from = reader.number("the first dead letter that is kept")?;
        let mut at = 0_u64;
        let ranges = reader.list(2, "offsets of dead letters", |reader| {
            let gap = reader.number("an offset of dead letters")?;
            let length = reader.positive("an offset of dead letters")?;
            let start = at.checked_add(gap).filter(|_| at == 0 || gap > 0);
            let end = start.and_then(|start| start.checked_add(length));
            let range = start.zip(end).map(|(start, end)| start..end);
            let range = range.ok_or_else(|| reader.bad("an offset of dead letters"))?;
            at = range.end;
            Ok(range)
        })?;
        let mut offsets = Offsets::default();
        ranges.into_iter().for_each(|range| offsets.insert(range));
        Ok(ReplayedRun { root, partition, kept_from, offsets })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn offsets_are_a_set(
            steps in prop::collection::vec((0_u64..60, 0_u64..12, any::<bool>()), 0..40),
        ) {
            let (mut offsets, mut model) = (Offsets::default(), BTreeSet::new());
            for (start, length, forget) in steps {
                if forget {
                    offsets.forget_before(start / 2);
                    model.retain(|at| *at >= start / 2);
                } else {
                    offsets.insert(start..start + length);
                    model.extend(start..start + length);
                }
                for at in 0..80 {
                    prop_assert_eq!(offsets.contains(at), model.contains(&at), "{}", at);
                }
                let ranges: Vec<_> = offsets.ranges().collect();
                prop_assert!(ranges.windows(2).all(|two| two[0].end < two[1].start));
            }
            let run = ReplayedRun { root: StageId(3), partition: 7, kept_from: 5, offsets };
            let mut bytes = Vec::new();
            put_runs(&mut bytes, std::slice::from_ref(&run));
            let mut reader = Reader::new(0, &bytes);
            prop_assert_eq!(runs(&mut reader), Ok(vec![run]));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn what_is_not_kept_is_forgotten_and_too_many_pieces_are_noticed() {
        let run = |kept_from, range: Range<u64>| {
            let mut offsets = Offsets::default();
            offsets.insert(range);
            ReplayedRun { root: StageId(1), partition: 2, kept_from, offsets }
        };
        let mut replayed = Replayed::default();
        replayed.note(&run(0, 0..10));
        assert!(replayed.contains((StageId(1), 2), 9) && !replayed.contains((StageId(1), 2), 10));
        assert!(!replayed.contains((StageId(1), 1), 9));
        replayed.note(&run(8, 20..30));
        assert!(!replayed.contains((StageId(1), 2), 7) && replayed.contains((StageId(1), 2), 8));
        for n in 0..RANGES_MAX as u64 - 2 {
            replayed.note(&run(8, 100 + 2 * n..101 + 2 * n));
        }
        assert!(replayed.is_too_scattered(&run(8, 50_000..50_001)));
        assert!(!replayed.is_too_scattered(&run(8, 30..40)));
        assert!(!replayed.is_too_scattered(&run(9_000, 50_000..50_001)));
    }
}
