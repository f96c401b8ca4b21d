//! What the entries of the store mean to a node: their keys, and the values that are not as they
//! came.
//!
//! | entry | key: stage, group, the rest | value |
//! |---|---|---|
//! | state | stage, key group, key and slot | the slot's value |
//! | the fold | position: nothing, horizon | `Fold::keep` |
//! | a run that waits | backlog: root stage, partition, place of its frame in the log | the frame |
//! | events of an output | output 0: output, partition, first offset | the frame |
//! | dead letters | output 1: root stage, partition, first offset | the frame |
//! | known ids | dedup: nothing, horizon | `KNOWN_BYTES` each |
//! | a name of slots | slot name: stage, 0 or 1 (too many), the name | nothing |
//! | an account | account: nothing, the tenant's name; of no pipeline | `Books::keep` |
//!
//! Numbers in values are little-endian.

use std::borrow::Cow;

use sluicebox_core::dedup::{KnownId, KnownProducer};
use sluicebox_core::ids::{Name, OutputId, PipelineId, StageId};
use sluicebox_core::key;
use sluicebox_core::recovery::Waiting;
use sluicebox_store::store::keys::{Id, Place};

/// Ports under which frames are kept.
pub(super) const OUTPUT: u16 = 0;
pub(super) const DEAD_LETTER: u16 = 1;

/// Bytes of a known id, and of a known producer.
pub(super) const KNOWN_BYTES: usize = 16 + 8 + 8;
pub(super) const PRODUCER_BYTES: usize = KNOWN_BYTES + 8;

/// Where something ends in a log, and so a horizon, is a multiple of this.
const SECTOR_BYTES: u64 = 512;

/// Before known ids, and before producers.
const IDS: u8 = 0;
const PRODUCERS: u8 = 1;

/// Where entries of a pipeline lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Of {
    pub tenant: u32,
    pub pipeline: PipelineId,
}

impl Of {
    /// Tenants have no numbers; this one tells them apart well enough to count what they use.
    pub(crate) fn new(tenant: &Name, pipeline: PipelineId) -> Self {
        Self { tenant: key::hash(tenant.as_str().as_bytes()) as u32, pipeline }
    }

    /// A key, or the beginning of keys, is of this pipeline.
    pub(crate) fn has(self, key: &[u8]) -> bool {
        let numbers = [&self.tenant.to_be_bytes()[..], &self.pipeline.0.to_be_bytes()].concat();
        key.get(1..).is_some_and(|behind| behind.starts_with(&numbers))
    }

    pub(super) fn place(self, stage: u32, group: u16) -> Place {
        Place { tenant: self.tenant, pipeline: self.pipeline.0, stage, group }
    }

    /// The key of a slot.
    pub(crate) fn slot(self, stage: StageId, key: &[u8], slot: &[u8], out: &mut Vec<u8>) {
        let place = self.place(stage.0, key::group_of(key));
        Id::State { place, key: Cow::Borrowed(key), slot }.encode(out);
    }

    /// The key of a run that waits, whose frame is at `offset` in the log.
    pub(super) fn waiting(self, (root, partition): (StageId, u16), offset: u64) -> Vec<u8> {
        encoded(&Id::Backlog { place: self.place(root.0, partition), offset })
    }

    /// The key of events of an output.
    pub(crate) fn output(self, (output, partition): (OutputId, u16), first: u64) -> Vec<u8> {
        let place = self.place(output.0, partition);
        encoded(&Id::Output { place, port: OUTPUT, offset: first })
    }

    /// The key of dead letters.
    pub(super) fn dead_letters(self, (root, partition): (StageId, u16), first: u64) -> Vec<u8> {
        let place = self.place(root.0, partition);
        encoded(&Id::Output { place, port: DEAD_LETTER, offset: first })
    }

    /// The key that says that slots of a stage have this name, or, without one, that there are too
    /// many.
    pub(crate) fn slot_name(self, stage: StageId, slot: Option<&[u8]>) -> Vec<u8> {
        let place = self.place(stage.0, u16::from(slot.is_none()));
        encoded(&Id::SlotName { place, slot: slot.unwrap_or_default() })
    }

    /// The key of ids that became known up to a horizon.
    pub(super) fn known(self, horizon: u64) -> Vec<u8> {
        let event = [&[IDS], horizon.to_be_bytes().as_slice()].concat();
        encoded(&Id::Dedup { place: self.place(0, 0), event: &event })
    }

    /// The key of the producers.
    pub(crate) fn producers(self) -> Vec<u8> {
        encoded(&Id::Dedup { place: self.place(0, 0), event: &[PRODUCERS] })
    }
}

/// The key of a run that waits.
pub(crate) fn key_of_waiting(
    (tenant, pipeline): (&Name, PipelineId),
    to: (StageId, u16),
    waiting: &Waiting,
) -> Vec<u8> {
    Of::new(tenant, pipeline).waiting(to, waiting.position + waiting.range.start as u64)
}

/// The key of a tenant's account.
pub(super) fn account(tenant: &Name) -> Vec<u8> {
    let place = Of::new(tenant, PipelineId(0)).place(0, 0);
    encoded(&Id::Account { place, name: tenant.as_str().as_bytes() })
}

/// The key of the fold at a horizon.
pub(crate) fn fold(horizon: u64) -> Vec<u8> {
    let place = Place { tenant: 0, pipeline: 0, stage: 0, group: 0 };
    encoded(&Id::Position { place, source: horizon })
}

fn encoded(id: &Id<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    id.encode(&mut out);
    out
}

/// Ids in bytes.
pub(super) fn put_ids(ids: impl Iterator<Item = KnownId>) -> Vec<u8> {
    let mut out = Vec::new();
    for KnownId { hash, at, time } in ids {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(&time.to_le_bytes());
    }
    out
}

/// Ids as `put_ids` wrote them.
pub(super) fn ids(bytes: &[u8]) -> impl Iterator<Item = KnownId> + '_ {
    bytes.as_chunks::<KNOWN_BYTES>().0.iter().map(|bytes| KnownId {
        hash: u128::from_le_bytes(part(bytes, 0)),
        at: u64::from_le_bytes(part(bytes, 16)),
        time: u64::from_le_bytes(part(bytes, 24)),
    })
}

/// Producers in bytes.
pub(super) fn put_producers(producers: impl Iterator<Item = KnownProducer>) -> Vec<u8> {
    let mut out = Vec::new();
    for KnownProducer { hash, sequence, at, time } in producers {
        out.extend_from_slice(&hash.to_le_bytes());
        for number in [sequence, at, time] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out
}

/// Producers as `put_producers` wrote them.
pub(super) fn producers(bytes: &[u8]) -> impl Iterator<Item = KnownProducer> + '_ {
    bytes.as_chunks::<PRODUCER_BYTES>().0.iter().map(|bytes| KnownProducer {
        hash: u128::from_le_bytes(part(bytes, 0)),
        sequence: u64::from_le_bytes(part(bytes, 16)),
        at: u64::from_le_bytes(part(bytes, 24)),
        time: u64::from_le_bytes(part(bytes, 32)),
    })
}

/// An entry as another node is to have it, whose log is another: where something was in this one's
/// becomes the beginning. Ids are kept by numbers that no place in a log has, from the beginning on
/// in the order in which they are here; `renamed` is the last one.
pub(crate) fn without_places(
    of: Of,
    id: &Id<'_>,
    (key, value): (&[u8], &[u8]),
    renamed: &mut u64,
) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    match id {
        Id::Dedup { event, .. } => match holds_ids(event) {
            Some(true) => {
                // A log's own numbers are those of its sectors.
                *renamed += if (*renamed + 1).is_multiple_of(SECTOR_BYTES) { 2 } else { 1 };
                let key = of.known(*renamed);
                Ok((key, put_ids(ids(value).map(|id| KnownId { at: 0, ..id }))))
            }
            Some(false) => {
                let all = producers(value).map(|known| KnownProducer { at: 0, ..known });
                Ok((key.to_vec(), put_producers(all)))
            }
            None => Err("what is known of producers cannot be read"),
        },
        Id::Backlog { .. } => Err("runs wait, which a pipeline at rest has none of"),
        Id::Account { .. } => Err("a tenant's account is among the entries of a pipeline"),
        Id::Position { .. } => Err("a fold is among the entries of a pipeline"),
        Id::State { .. } | Id::Output { .. } | Id::SlotName { .. } => {
            Ok((key.to_vec(), value.to_vec()))
        }
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the chunk is as long as its parts")
}

/// Whether a de-duplication entry holds ids or producers.
pub(super) fn holds_ids(event: &[u8]) -> Option<bool> {
    match *event.first()? {
        IDS => Some(true),
        PRODUCERS => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_pipeline() {
        let of = |pipeline| Of { tenant: 7, pipeline: PipelineId(pipeline) };
        let mut key = Vec::new();
        of(9).slot(StageId(1), b"k", b"s", &mut key);
        assert!(of(9).has(&key) && !of(8).has(&key) && !of(9).has(b""));
        for prefix in sluicebox_store::store::keys::of_pipeline(7, 9) {
            assert!(of(9).has(&prefix) && !of(10).has(&prefix));
        }
    }

    #[test]
    fn what_is_known_is_read_back() {
        let known = [1, 2, 3].map(|n| KnownId { hash: n << 100, at: n as u64, time: 7 });
        assert_eq!(ids(&put_ids(known.into_iter())).collect::<Vec<_>>(), known);
        let heard = [4, 5].map(|n| KnownProducer { hash: n, sequence: 9, at: n as u64, time: 8 });
        assert_eq!(producers(&put_producers(heard.into_iter())).collect::<Vec<_>>(), heard);
    }
}
