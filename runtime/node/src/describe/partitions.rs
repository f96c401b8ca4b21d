//! The partitions of a pipeline, wherever they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluicebox_core::ids::PipelineId;

use super::PartitionDetail;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::running::Running;
use crate::spread::Site;

/// The watermark of a partition, if it has one and is here.
fn watermark(mailbox: &Mailbox) -> Option<u64> {
    let time = mailbox.segment.shared.event_time.as_ref()?;
    let is_here = mailbox.site() == Site::Here;
    is_here.then(|| time.watermark_of((mailbox.segment.at, mailbox.partition)))
}

impl Node {
    /// All partitions; those of other nodes as these say.
    pub(super) async fn all_partitions(&self, running: &Running) -> Vec<PartitionDetail> {
        let mut all: Vec<PartitionDetail> =
            running.mailboxes().iter().flatten().map(|mailbox| self.partition(mailbox)).collect();
        let Some(id) = running.durable().map(|durable| durable.id) else { return all };
        let mut there = BTreeMap::new();
        for (_, site) in running.shared().sites.all() {
            if let Site::There(peer) = site {
                there.insert(peer, Err("is not asked".to_owned()));
            }
        }
        let named = (running.tenant(), running.name());
        for (peer, known) in &mut there {
            let Some(trunk) = self.trunks().get(*peer) else { continue };
            let asked = trunk.peer().partitions(named, id).await;
            *known = asked.map_err(|error| error.to_string());
        }
        let mailboxes = running.mailboxes().iter().flatten();
        for (detail, mailbox) in all.iter_mut().zip(mailboxes) {
            let Site::There(peer) = mailbox.site() else { continue };
            let trunk = self.trunks().get(peer);
            let known = there.get(&peer).map_or(Ok(None), |known| match known {
                Ok(details) => Ok(details.iter().find(|known| {
                    (&known.segment, known.partition) == (&detail.segment, detail.partition)
                })),
                Err(why) => Err(why.clone()),
            });
            let (inbox_bytes, inbox_events) = (detail.inbox_bytes, detail.inbox_events);
            match known {
                Ok(Some(known)) => {
                    *detail = known.clone();
                    // What waits for it does so at both ends.
                    detail.inbox_bytes += inbox_bytes;
                    detail.inbox_events += inbox_events;
                }
                Ok(None) => detail.unavailable = Some("it is on its way".to_owned()),
                Err(why) => detail.unavailable = Some(why),
            }
            detail.node = trunk.map(|trunk| trunk.peer().name().to_string());
            detail.way = trunk.and_then(|trunk| trunk.class()).map(|class| class.to_string());
        }
        all
    }

    /// The partitions of a pipeline that are here, for another node.
    pub(crate) fn partitions_here(&self, id: PipelineId) -> Vec<PartitionDetail> {
        let Some(running) = self.spread(id) else { return Vec::new() };
        let here = running.mailboxes().iter().flatten();
        here.filter(|at| at.site() == Site::Here).map(|at| self.partition(at)).collect()
    }

    fn partition(&self, mailbox: &Arc<Mailbox>) -> PartitionDetail {
        let worker = self.workers().iter().position(|worker| Arc::ptr_eq(worker, &mailbox.owner));
        PartitionDetail {
            segment: mailbox.segment.root_name().to_owned(),
            partition: mailbox.partition,
            worker: worker.unwrap_or_default(),
            inbox_bytes: mailbox.bytes(),
            inbox_events: mailbox.queued_events(),
            state_bytes: mailbox.state_bytes.load(Ordering::Relaxed),
            open_streams: mailbox.open_streams.load(Ordering::Relaxed),
            earlier_code_streams: mailbox.streams_of_before.load(Ordering::Relaxed),
            watermark: watermark(mailbox),
            halted: mailbox.halted().map(|halt| format!("{}: {}", halt.stage, halt.message)),
            node: None,
            way: None,
            unavailable: None,
        }
    }
}
