//! Where a new pipeline goes that is granted a GPU, when the node that makes it has none.
//!
//! Which node makes a pipeline follows from its name, so that no two make the same one. If that
//! node has no device and others do, it makes the pipeline all the same and moves it to one of them
//! before whoever applied it is answered: by the hand-over that any move is, so that a crash
//! leaves it on one of the two. What cannot be moved is refused, and nothing of it stays.

use std::sync::Arc;

use sluicebox_core::error::Classify as _;
use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::{Delivery, Pipeline};

use super::{Applied, Order};
use crate::cluster::{Peer, Subject};
use crate::error::Error;
use crate::gpu::Admitted;
use crate::node::Node;

/// What a pipeline that is granted a GPU relies on.
pub(super) struct Device {
    /// That of this node, while this is kept.
    _admitted: Option<Admitted>,
    /// Nodes that say that they have one, the first to be tried first, if this one has none.
    pub(super) elsewhere: Vec<Arc<Peer>>,
}

impl Node {
    /// There is a device if the pipeline needs one, here or, if it is new and can be moved, there.
    ///
    /// # Errors
    /// There is none, or it is promised to others.
    pub(super) async fn find_device(
        &self,
        tenant: &Name,
        pipeline: &Pipeline,
        is_new: bool,
    ) -> Result<Device, Error> {
        let none = match self.admit_gpu(tenant, pipeline).await {
            Ok(admitted) => return Ok(Device { _admitted: admitted, elsewhere: Vec::new() }),
            Err(error) if error.code() != "gpu.none" => return Err(error),
            Err(none) => none,
        };
        if !is_new || pipeline.delivery != Delivery::ExactlyOnce {
            return Err(none);
        }
        let elsewhere = self.nodes_with_device(tenant, &pipeline.name).await;
        match elsewhere.is_empty() {
            true => Err(none),
            false => Ok(Device { _admitted: None, elsewhere }),
        }
    }

    /// Where one is to be moved that was made here for that, and was not moved: if the node ended
    /// between the two. That its device is away or full at the moment is no news to one that runs.
    ///
    /// # Errors
    /// There is no device, neither here nor elsewhere.
    pub(super) async fn still_to_move(
        &self,
        tenant: &Name,
        pipeline: &Pipeline,
        order: &Order,
    ) -> Result<Vec<Arc<Peer>>, Error> {
        if order.dry_run {
            return Ok(Vec::new());
        }
        match self.find_device(tenant, pipeline, true).await {
            Ok(device) => Ok(device.elsewhere),
            Err(error) if error.code() == "gpu.none" => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Those that can be reached and say that they may have one. The order differs from name to
    /// name, so that not all pipelines go to the same.
    async fn nodes_with_device(&self, tenant: &Name, name: &str) -> Vec<Arc<Peer>> {
        let (Some(cluster), Ok(name)) = (self.cluster(), Name::new(name)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for peer in cluster.ranked(&Subject::Pipeline(tenant.clone(), name)) {
            // One that cannot be asked cannot be moved to either.
            if peer.is_up() && peer.report().await.is_ok_and(|report| report.gpu_milli > 0) {
                found.push(peer);
            }
        }
        found
    }

    /// Moves a pipeline that was just made to the first of these nodes that takes it. For who holds
    /// its turn.
    ///
    /// # Errors
    /// None takes it, as the last of them says; it is still here. Or it is on its way, which goes
    /// on by itself.
    pub(super) async fn move_to_device(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        elsewhere: &[Arc<Peer>],
    ) -> Result<(), Error> {
        let mut last = None;
        for peer in elsewhere {
            match Box::pin(self.move_whole(tenant, name, peer.name().as_str())).await {
                Ok(_) => return Ok(()),
                // It has left, and no other may be given it.
                Err(error) if self.running(tenant, name.as_str()).is_none() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Moves what was made to where a device is; what was just made and no node takes is taken
    /// back, unless events came in meanwhile. For who holds its turn.
    ///
    /// # Errors
    /// As of [`Node::move_to_device`].
    pub(super) async fn settle_device(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        applied: Applied,
        elsewhere: &[Arc<Peer>],
    ) -> Result<Applied, Error> {
        let Err(error) = self.move_to_device((tenant, name), elsewhere).await else {
            return Ok(applied);
        };
        let running = self.running(tenant, name.as_str());
        let Some(running) = running.filter(|_| applied.created) else { return Err(error) };
        if running.metrics().events.get() > 0 {
            let why = "events came in: apply it again to have it moved";
            tracing::warn!(%tenant, pipeline = %name, %error, "what has no GPU stays: {why}");
        } else if let Err(kept) = Box::pin(self.delete_in_turn(tenant, name)).await {
            tracing::warn!(%tenant, pipeline = %name, error = %kept, "what has no GPU stays");
        }
        Err(error)
    }
}
