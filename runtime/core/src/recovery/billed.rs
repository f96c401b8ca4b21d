//! What a record says was used, for the bill.
//!
//! - Work is billed by the commit that holds it, once: what a node had begun and not committed when
//!   it ended is nobody's, and what is run again for it is billed where it is committed.
//! - Bytes are those of frames. What came in is the pipeline's own; replayed dead letters came in
//!   before. What left is of the partition's node: a home that only notes it bills nothing.

use super::Sink;
use super::pipeline::Folded;
use crate::bill::{Item, Used, Whose};
use crate::codec::{CommitRecord, IngestRecord};
use crate::ids::{Name, StageId};

impl Folded {
    pub(super) fn bill_ingest(
        &self,
        position: u64,
        record: &IngestRecord<'_>,
        sink: &mut impl Sink,
    ) {
        if record.replayed.is_empty() {
            let bytes = record.runs.iter().map(|run| run.frame.bytes as u64).sum();
            let when = (record.time, position);
            sink.used(self.whose(None), when, &Used::of(Item::BytesIn, bytes));
        }
    }

    pub(super) fn bill_commit(
        &self,
        position: u64,
        record: &CommitRecord<'_>,
        sink: &mut impl Sink,
    ) {
        let head = &record.head;
        if !self.is_here(head.partition) {
            return;
        }
        let when = (head.time, position);
        let left = record.sent.outputs.iter().map(|run| run.frame.bytes as u64).sum();
        let sent = record.sent.runs.iter().map(|run| run.frame.bytes as u64).sum();
        for (at, (stage, usage)) in record.used().enumerate() {
            let mut used = Used::of(Item::Fuel, usage.fuel)
                .and(Item::Events, usage.events)
                .and(Item::Reruns, usage.reruns);
            if at == 0 {
                used = used.and(Item::BytesOut, left).and(Item::BytesBetween, sent);
            }
            sink.used(self.whose(self.stage_name(stage)), when, &used);
        }
    }

    fn whose<'a>(&'a self, stage: Option<&'a Name>) -> Whose<'a> {
        Whose { tenant: self.tenant(), pipeline: Some(self.name()), stage }
    }

    fn stage_name(&self, stage: StageId) -> Option<&Name> {
        let stages = &self.names().stages;
        let at = stages.binary_search_by_key(&stage, |(id, _)| *id).ok()?;
        stages.get(at).map(|(_, name)| name)
    }
}
