//! The source's side of a hand-over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_core::codec::{DeleteRecord, MoveRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::Fold;
use sluicebox_link::tls::NodeName;
use sluicebox_store::log::Position;

use super::{Leaving, Moved, Opening, pages};
use crate::checkpoint::{Condition, Of, key_of_fold};
use crate::cluster::Peer;
use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;

/// How long a checkpoint may take that a move waits for.
const CHECKPOINT_MAX: Duration = Duration::from_secs(60);

/// How often it is asked for again, and looked for.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(1);

/// How long a move that cannot go back is waited for; then it goes on by itself.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Bytes of what is said of where a pipeline stands; it becomes one record of the other log.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Pauses between two tries to end a move, growing.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Node {
    /// Moves a pipeline to another node. To be run to its end.
    ///
    /// # Errors
    /// It cannot be moved, and runs on here; or, if the message says so, it is on its way, and goes
    /// on by itself.
    pub async fn move_pipeline(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        to: &str,
    ) -> Result<Moved, Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        self.move_whole(tenant, name, to).await
    }

    /// As [`Node::move_pipeline`], for who holds the pipeline's turn.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn move_whole(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        to: &str,
    ) -> Result<Moved, Error> {
        let peer = self.destination(name, to)?;
        let running = self.running(tenant, name.as_str());
        let running = running.ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        self.is_whole(&running)?;
        let id = match running.durable() {
            Some(durable) => durable.id,
            None => {
                let why = "it keeps nothing, so that there is nothing to move: delete it and apply \
                           it again, or make its delivery exactly-once";
                return Err(refused(name, why));
            }
        };
        self.has_settled(name, id).await?;
        let preparing = self.preparing(tenant, name).await?;
        peer.prepare((tenant, name), (id, &preparing)).await?;
        let begun = Instant::now();
        let departed = self.depart(&running).await?;
        let handed = self.hand_over((tenant, name, id), &peer).await;
        let opening = match handed {
            Ok(kept) => Opening { pipeline: id.0, kept, preparing },
            Err(error) => {
                self.leaving().remove(&(tenant.clone(), name.clone()));
                self.stay(&running, departed);
                return Err(error);
            }
        };
        self.bill().last_look(&running);
        drop(self.take_running(tenant, name.as_str()));
        self.forget_spread(id);
        drop((running, departed));
        let ended = self.clone().end_move((tenant.clone(), name.clone()), Some(opening));
        // If it takes longer than anybody waits for, it goes on all the same.
        let ended = tokio::task::spawn_local(ended);
        let ended = tokio::time::timeout(OPEN_MAX, ended).await;
        if !matches!(ended, Ok(Ok(()))) {
            return Err(peer.failed("has not opened the pipeline yet; it is on its way", true));
        }
        Ok(Moved {
            name: name.to_string(),
            from: self.cluster().map_or_else(String::new, |own| own.name().to_string()),
            to: peer.name().to_string(),
            partitions: Vec::new(),
            pause_millis: begun.elapsed().as_millis() as u64,
        })
    }

    /// The node to move to.
    pub(super) fn destination(&self, name: &Name, to: &str) -> Result<Arc<Peer>, Error> {
        let Some(cluster) = self.cluster() else {
            return Err(refused(name, "this node is alone: there is no other in cluster.nodes"));
        };
        let to = NodeName::new(to).map_err(|_| Error::request("request.query", NO_NODE))?;
        if to == *cluster.name() {
            return Err(refused(name, "it is on this node already"));
        }
        let peer = cluster.peers().iter().find(|peer| *peer.name() == to);
        let peer = peer.ok_or_else(|| Error::request("request.query", NO_NODE))?;
        if !peer.is_up() {
            return Err(peer.unreachable(false));
        }
        Ok(Arc::clone(peer))
    }

    /// Everything up to the record that says that it is gone; gives where the pipeline stands.
    async fn hand_over(
        self: &Arc<Self>,
        (tenant, name, id): (&Name, &Name, PipelineId),
        peer: &Arc<Peer>,
    ) -> Result<Vec<u8>, Error> {
        self.until_kept(self.log().status().appended).await?;
        let kept = self.kept_of(id).await?;
        if kept.len() > KEPT_BYTES_MAX {
            let why = format!("where it stands takes {} bytes, more than can be moved", kept.len());
            return Err(refused(name, &why));
        }
        let named = (tenant.clone(), name.clone());
        let leaving = Leaving { id, to: peer.name().clone(), is_gone: false };
        self.leaving().insert(named.clone(), leaving);
        peer.take((tenant, name), (id, kept.len())).await?;
        let mut writer = RecordWriter::new();
        writer.moves(&MoveRecord { pipeline: id, to: peer.name().to_string() });
        self.log_and_wait(kind::MOVE, writer).await?;
        if let Some(mut leaving) = self.leaving().get_mut(&named) {
            leaving.is_gone = true;
        }
        Ok(kept)
    }

    /// A page of the entries of a pipeline that is leaving, for the node that takes it: where the
    /// next begins, with its length before, and the entries. None if it is not leaving.
    pub(crate) async fn departing_page(
        &self,
        (tenant, name): (&Name, &Name),
        from: &str,
    ) -> Result<Option<Bytes>, Error> {
        let named = (tenant.clone(), name.clone());
        let Some(id) = self.leaving().get(&named).map(|leaving| leaving.id) else {
            return Ok(None);
        };
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let from: Option<Vec<u8>> = from.as_bytes().chunks(2).map(byte).collect();
        let wrong = || Error::request("request.query", "`from` is in hexadecimal digits");
        let (from, of) = (from.ok_or_else(wrong)?, Of::new(tenant, id));
        let store = self.backing().store().clone();
        let (entries, next) = blocking(move || pages::read(store.as_ref(), of, &from)).await?;
        let next = next.unwrap_or_default();
        let length = (next.len() as u32).to_le_bytes();
        Ok(Some([&length[..], &next, &entries].concat().into()))
    }

    /// Waits until a checkpoint holds everything before a position of the log.
    pub(super) async fn until_kept(&self, position: Position) -> Result<(), Error> {
        let end = Instant::now() + CHECKPOINT_MAX;
        let mut ask = Instant::now();
        while self.backing().horizon() < position {
            if self.backing().checkpoints().condition() == Condition::Stopped {
                return Err(Error::NoCheckpoint { retry_after: None });
            }
            let now = Instant::now();
            if now >= end {
                return Err(Error::NoCheckpoint { retry_after: Some(Duration::from_secs(10)) });
            }
            if now >= ask {
                self.backing().ask();
                ask = now + ASK_AGAIN;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Where a pipeline stands, as the last checkpoint has it.
    async fn kept_of(&self, id: PipelineId) -> Result<Vec<u8>, Error> {
        self.kept_as(move |fold| fold.keep_one(id)).await
    }

    /// What there is to be kept of the last checkpoint.
    pub(super) async fn kept_as(
        &self,
        keep: impl FnOnce(&Fold) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Vec<u8>, Error> {
        let (store, horizon) = (self.backing().store().clone(), self.backing().horizon());
        blocking(move || {
            let gone = || Error::Internal("a checkpoint without the pipeline".to_owned());
            let fold = store.get(&key_of_fold(horizon.0))?.ok_or_else(gone)?;
            let fold = Fold::from_kept(&fold);
            let fold = fold.map_err(|error| Error::Internal(format!("a checkpoint: {error}")))?;
            keep(&fold).ok_or_else(gone)
        })
        .await
    }

    /// Ends a move that cannot go back, however long it takes. `opening` is what the other node is
    /// told; made anew after a start.
    pub(crate) async fn end_move(self: Arc<Self>, named: (Name, Name), opening: Option<Opening>) {
        let mut pause = PAUSE_MIN;
        let mut opening = opening;
        loop {
            match self.try_to_end(&named, &mut opening).await {
                Ok(()) => return,
                Err(error) => {
                    let (tenant, pipeline) = &named;
                    tracing::warn!(%tenant, %pipeline, %error, "a move is not ended yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_to_end(
        self: &Arc<Self>,
        (tenant, name): &(Name, Name),
        opening: &mut Option<Opening>,
    ) -> Result<(), Error> {
        let leaving = self.leaving().get(&(tenant.clone(), name.clone())).map(|it| it.clone());
        let Some(Leaving { id, to, .. }) = leaving else { return Ok(()) };
        let unknown = || Error::Internal(format!("a pipeline is going to {to}, which is no node"));
        let peer = &self.peer(&to).ok_or_else(unknown)?;
        let told = match opening {
            Some(opening) => opening,
            None => {
                // After a start: what the log says of it goes into the store first.
                self.until_kept(self.log().status().synced).await?;
                let kept = self.kept_of(id).await?;
                let preparing = self.preparing(tenant, name).await?;
                opening.insert(Opening { pipeline: id.0, kept, preparing })
            }
        };
        if !peer.open((tenant, name), told).await? {
            // It has lost what it took, or has never got it all.
            peer.take((tenant, name), (id, told.kept.len())).await?;
            if !peer.open((tenant, name), told).await? {
                return Err(peer.failed("does not open a pipeline it has taken", false));
            }
        }
        self.set_moved(tenant, name, peer);
        let mut writer = RecordWriter::new();
        writer.delete(&DeleteRecord { pipeline: id });
        self.log_and_wait(kind::DELETE, writer).await?;
        self.forget_versions(tenant, name).await?;
        self.leaving().remove(&(tenant.clone(), name.clone()));
        tracing::info!(%tenant, pipeline = %name, node = %to, "a pipeline has moved");
        // That it is let go matters to the other only before it moves it on.
        drop(peer.settled((tenant, name), id).await);
        Ok(())
    }

    /// Refuses to move a pipeline on that came from a node which may still hold it.
    async fn has_settled(self: &Arc<Self>, name: &Name, id: PipelineId) -> Result<(), Error> {
        let Some(from) = self.came_from(id).await? else { return Ok(()) };
        let known = NodeName::new(&from).ok().and_then(|from| self.peer(&from));
        let Some(peer) = known else {
            let why = format!(
                "it came from {from}, which may not have let go of it, and is no node \
                               of cluster.nodes any more"
            );
            return Err(refused(name, &why));
        };
        if peer.still_has(id).await? {
            let why = format!("it came from {from}, which has not let go of it yet; try again");
            return Err(refused(name, &why));
        }
        self.settle(id).await
    }
}

const NO_NODE: &str = "`to` is the name of another node of cluster.nodes; `sluicebox nodes` shows \
                       them";

pub(super) fn refused(name: &Name, why: &str) -> Error {
    Error::Conflict { what: "pipeline", name: name.to_string(), why: why.to_owned() }
}
