//! Where the partitions of a pipeline with a log stand, on the way from one version to the next.
//!
//! A segment may be cut differently in the next version: what was sent over an edge and what left
//! by
//! an output goes with the edge and the output, how far was read and committed with the root.

use std::collections::BTreeMap;

use sluicebox_core::codec::NameTable;
use sluicebox_core::ids::{EdgeId, OutputId, StageId};
use sluicebox_core::partition::{Leads, Progress, SegmentIds};
use sluicebox_core::position::{Counter, Numbers, Positions};
use sluicebox_core::recovery::{Folded, Stood};

/// What partitions go on from.
#[derive(Debug, Default)]
pub(crate) enum Standing {
    /// The pipeline is new, or has no log.
    #[default]
    New,
    /// As it was found in the log.
    Found(Box<Folded>),
    /// As the version before left it.
    Left(Left),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Left {
    roots: BTreeMap<(StageId, u16), Root>,
    sent: BTreeMap<(EdgeId, u16), Counter<u16>>,
    offsets: BTreeMap<(OutputId, u16), u64>,
}

/// Where partitions stood whose root begins no segment now, and what was sent over edges that are
/// inside one. That may change in a later version, and both are then numbered on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apart {
    roots: BTreeMap<(StageId, u16), Root>,
    sent: BTreeMap<(EdgeId, u16), Counter<u16>>,
}

#[derive(Debug, Clone, Default)]
struct Root {
    number: u64,
    positions: Positions,
    dead_letters: u64,
}

impl Left {
    /// Nothing, beside those that stood apart in the version before.
    pub(crate) fn beside(apart: &Apart) -> Self {
        let Apart { roots, sent } = apart.clone();
        Self { roots, sent, offsets: BTreeMap::new() }
    }

    /// Takes over where a partition of the segment with this root stood.
    pub(crate) fn add(&mut self, (root, partition): (StageId, u16), progress: Progress) {
        let Progress { number, positions, numbers, offsets, dead_letters } = progress;
        self.roots.insert((root, partition), Root { number, positions, dead_letters });
        for (edge, counter) in numbers.iter() {
            self.sent.insert((edge, partition), counter.clone());
        }
        for (output, next) in offsets {
            self.offsets.insert((output, partition), next);
        }
    }

    fn progress(&self, ids: &SegmentIds) -> Progress {
        let partition = ids.partition;
        let root = ids.stages.first().and_then(|root| self.roots.get(&(root.stage, partition)));
        let Root { number, positions, dead_letters } = root.cloned().unwrap_or_default();
        let (mut numbers, mut offsets) = (Numbers::default(), BTreeMap::new());
        for leads in ids.stages.iter().flat_map(|stage| &stage.leads) {
            match *leads {
                Leads::Inside => {}
                Leads::Edge(edge) => {
                    if let Some(counter) = self.sent.get(&(edge, partition)) {
                        numbers.insert(edge, counter.clone());
                    }
                }
                Leads::Output(output) => {
                    if let Some(next) = self.offsets.get(&(output, partition)) {
                        offsets.insert(output, *next);
                    }
                }
            }
        }
        Progress { number, positions, numbers, offsets, dead_letters }
    }
}

impl Standing {
    /// What it knows of partitions and edges, whether they are of a segment or not. `names` are
    /// those of the version: what is not there does not come again.
    pub(crate) fn into_apart(self, names: Option<&NameTable>) -> Apart {
        let mut apart = match self {
            Self::New => Apart::default(),
            Self::Found(folded) => {
                let root = |stood: Stood<'_>| {
                    let Stood { root, number, positions, dead_letters } = stood;
                    (root, Root { number, positions: positions.clone(), dead_letters })
                };
                let roots = folded.stood().map(root).collect();
                let sent = folded.sent().map(|(edge, counter)| (edge, counter.clone()));
                Apart { roots, sent: sent.collect() }
            }
            Self::Left(Left { roots, sent, .. }) => Apart { roots, sent },
        };
        let edges = names.map_or(&[][..], |names| &names.edges);
        apart.sent.retain(|(edge, _), _| edges.iter().any(|(known, _)| known == edge));
        apart
    }

    /// What a partition goes on from.
    pub(crate) fn progress(&self, ids: &SegmentIds) -> Progress {
        match self {
            Self::New => Progress::default(),
            Self::Found(folded) => folded.progress(ids),
            Self::Left(left) => left.progress(ids),
        }
    }
}
