//! All partitions of a pipeline at its home for a while, and back where they were.
//!
//! A version begins with everything in one log (ADR 0039), and so does another scale. So what is
//! elsewhere comes home before one takes the place of another, and goes back behind it. Each of
//! these is a move as any other; if the node ends in between, partitions are at home, and stay
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicebox_core::ids::Name;

use crate::error::Error;
use crate::node::Node;
use crate::running::Running;

/// Which partitions were at which node.
pub(crate) type Places = BTreeMap<String, BTreeSet<u16>>;

impl Node {
    /// Refuses what cannot be brought home now, before anything is begun for it.
    ///
    /// # Errors
    /// A node that has some of its partitions is not reached.
    pub(crate) fn may_gather(&self, running: &Running) -> Result<(), Error> {
        let names = self.away(running).into_values().collect::<BTreeSet<_>>();
        let peers = self.cluster().into_iter().flat_map(|cluster| cluster.peers());
        let mut silent = peers.filter(|peer| names.contains(peer.name().as_str()) && !peer.is_up());
        match silent.next() {
            Some(peer) => Err(peer.unreachable(false)),
            None => Ok(()),
        }
    }

    /// Brings home what is elsewhere, and says where it was. For who has the pipeline's turn.
    ///
    /// # Errors
    /// As of a move. What has come already has gone back.
    pub(crate) async fn gather(self: &Arc<Self>, running: &Arc<Running>) -> Result<Places, Error> {
        let mut places = Places::new();
        for (partition, node) in self.away(running) {
            places.entry(node).or_default().insert(partition);
        }
        let Some(own) = self.cluster().filter(|_| !places.is_empty()) else { return Ok(places) };
        let (own, all) = (own.name().to_string(), places.values().flatten().copied().collect());
        match self.move_in_turn(running, &all, &own).await {
            Ok(_) => Ok(places),
            Err(error) => {
                self.scatter((running.tenant(), running.name()), places).await;
                Err(error)
            }
        }
    }

    /// Takes partitions back to where they were, those that there still are. For who has the
    /// pipeline's turn. What does not go stays at home, and the log says why.
    pub(crate) async fn scatter(
        self: &Arc<Self>,
        (tenant, pipeline): (&Name, &Name),
        places: Places,
    ) {
        let Some(running) = self.running(tenant, pipeline.as_str()) else { return };
        for (node, mut partitions) in places {
            partitions.retain(|partition| *partition < running.partitions());
            if partitions.is_empty() {
                continue;
            }
            if let Err(error) = self.move_in_turn(&running, &partitions, &node).await {
                tracing::warn!(
                    %tenant, %pipeline, node, ?partitions, %error,
                    "partitions stay at home that came there for another version or scale"
                );
            }
        }
    }
}
