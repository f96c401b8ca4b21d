//! Where all partitions of a pipeline stand, on the way from one version to the next.
//!
//! - What is numbered goes with what numbers it: runs with the edge and the partition that sends,
//!   offsets with the output, places and commits with the root of the segment. So a version may cut
//!   the pipeline into other segments.
//! - Of a partition that is not there any more everything is kept. When there are as many
//!   partitions again it goes on where it was, and no number and no offset comes twice.
//! - It is the same whether it was carried over in memory or found in the log.

use std::collections::BTreeMap;

use super::pipeline::Folded;
use crate::ids::{EdgeId, OutputId, StageId};
use crate::partition::{Leads, Progress, SegmentIds};
use crate::position::{Counter, Numbers, Positions};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    roots: BTreeMap<(StageId, u16), Root>,
    floors: Floors,
    sent: BTreeMap<(EdgeId, u16), Counter<u16>>,
    offsets: BTreeMap<(OutputId, u16), u64>,
}

/// How far a partition of a segment has come, by its root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) number: u64,
    pub(super) positions: Positions,
    pub(super) dead_letters: u64,
    pub(super) watermark: u64,
}

impl Root {
    /// With a watermark that is at least this.
    pub(super) fn above(self, floor: u64) -> Self {
        Self { watermark: self.watermark.max(floor), ..self }
    }
}

impl Standing {
    /// Takes over where a partition of the segment with this root stands now.
    pub fn add(&mut self, (root, partition): (StageId, u16), progress: Progress) {
        let Progress { number, positions, numbers, offsets, dead_letters, watermark } = progress;
        let root_of = Root { number, positions, dead_letters, watermark };
        self.roots.insert((root, partition), root_of);
        for (edge, counter) in numbers.iter() {
            self.sent.insert((edge, partition), counter.clone());
        }
        for (output, next) in offsets {
            self.offsets.insert((output, partition), next);
        }
    }

    /// All partitions have taken everything that was sent to them, and the next version begins.
    pub fn drained(&mut self) {
        let watermarks = self.roots.iter().map(|((root, _), at)| (*root, at.watermark));
        raise(&mut self.floors, watermarks);
    }

    /// What a partition goes on from.
    #[must_use]
    pub fn progress(&self, ids: &SegmentIds) -> Progress {
        let root = ids.stages.first().and_then(|root| self.roots.get(&(root.stage, ids.partition)));
        let root = root.cloned().unwrap_or_default().above(floor(ids, &self.floors));
        progress(ids, root, &self.sent, &self.offsets)
    }

    /// The next offset of an output in a partition.
    #[must_use]
    pub fn offset(&self, output: OutputId, partition: u16) -> u64 {
        self.offsets.get(&(output, partition)).copied().unwrap_or(0)
    }

    /// The next offset of the dead letters of the segment with this root in a partition.
    #[must_use]
    pub fn dead_letters(&self, root: StageId, partition: u16) -> u64 {
        self.roots.get(&(root, partition)).map_or(0, |root| root.dead_letters)
    }

    /// Partitions in which anything ever left by an output, those before them included.
    #[must_use]
    pub fn partitions_of(&self, output: OutputId) -> u16 {
        let used = self.offsets.range((output, 0)..=(output, u16::MAX)).next_back();
        used.map_or(0, |((_, partition), _)| partition + 1)
    }

    /// Partitions in which the segment with this root ever gave up on anything, those before them
    /// included.
    #[must_use]
    pub fn partitions_with_dead_letters(&self, root: StageId) -> u16 {
        let of_root = self.roots.range((root, 0)..=(root, u16::MAX)).rev();
        let mut used = of_root.filter(|(_, root)| root.dead_letters > 0);
        used.next().map_or(0, |((_, partition), _)| partition + 1)
    }
}

impl From<&Folded> for Standing {
    fn from(folded: &Folded) -> Self {
        let roots = folded.readers.iter().map(|(to, reader)| (*to, reader.root()));
        let (sent, offsets) = (folded.sent.clone(), folded.offsets.clone());
        Self { roots: roots.collect(), floors: folded.floors.clone(), sent, offsets }
    }
}

/// For the root of each segment, the highest watermark in any of its partitions when the version
/// began. All had taken everything, so it holds for each of them, however many there are now.
pub(super) type Floors = BTreeMap<StageId, u64>;

/// Lets floors rise to watermarks of partitions.
pub(super) fn raise(floors: &mut Floors, watermarks: impl Iterator<Item = (StageId, u64)>) {
    for (root, watermark) in watermarks.filter(|(_, watermark)| *watermark > 0) {
        let floor = floors.entry(root).or_default();
        *floor = watermark.max(*floor);
    }
}

/// The floor of a segment.
pub(super) fn floor(ids: &SegmentIds, floors: &Floors) -> u64 {
    let floor = ids.stages.first().and_then(|root| floors.get(&root.stage));
    floor.copied().unwrap_or(0)
}

/// Gathers what a partition goes on from.
pub(super) fn progress(
    ids: &SegmentIds,
    root: Root,
    sent: &BTreeMap<(EdgeId, u16), Counter<u16>>,
    left: &BTreeMap<(OutputId, u16), u64>,
) -> Progress {
    let partition = ids.partition;
    let (mut numbers, mut offsets) = (Numbers::default(), BTreeMap::new());
    for leads in ids.stages.iter().flat_map(|stage| &stage.leads) {
        match *leads {
            Leads::Inside => {}
            Leads::Edge(edge) => {
                if let Some(counter) = sent.get(&(edge, partition)) {
                    numbers.insert(edge, counter.clone());
                }
            }
            Leads::Output(output) => {
                if let Some(next) = left.get(&(output, partition)) {
                    offsets.insert(output, *next);
                }
            }
        }
    }
    let Root { number, positions, dead_letters, watermark } = root;
    Progress { number, positions, numbers, offsets, dead_letters, watermark }
}
