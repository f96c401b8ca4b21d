//! How parts end: when they have nothing any more, and with their pipeline.
//!
//! - A part without partitions ends by itself, as soon as nothing waits there for others; or at the
//!   latest when something comes that it is in the way of.
//! - A pipeline ends with a record of its home. Which nodes may have parts of it is written down
//!   before, in the document `ended/<id>` of the catalogue, and they are told for as long as it
//!   takes, after restarts as well. So a pipeline can be deleted while nodes are away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicebox_core::codec::{DeleteRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::Fold;
use sluicebox_store::key::Key;

use super::id_of;
use super::stand::{until, until_settled};
use crate::checkpoint::Of;
use crate::cluster::Peer;
use crate::components::blocking;
use crate::error::Error;
use crate::moving::depart::refused;
use crate::node::Node;
use crate::running::Running;
use crate::spread::{Broken, Site};

/// Pauses between two tries, growing.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long whoever deletes waits for other nodes.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// A pipeline that ends, and the nodes that may have parts of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ended {
    tenant: String,
    name: String,
    nodes: BTreeSet<String>,
}

fn ended_key(id: PipelineId) -> Result<Key, Error> {
    Ok(Key::of(&["ended", &id.0.to_string()])?)
}

impl Node {
    /// Ends a part that has nothing any more, as soon as nothing of it waits for others.
    pub(super) fn tidy_later(self: &Arc<Self>, running: &Arc<Running>) {
        if !running.is_part() {
            return;
        }
        let (node, running) = (self.clone(), running.clone());
        drop(tokio::task::spawn_local(async move {
            let mut pause = PAUSE_MIN;
            while let Err(error) = node.tidy_part(&running).await {
                tracing::debug!(pipeline = %running.name(), %error, "a part is not ended yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }));
    }

    /// Ends a part if it has nothing any more.
    ///
    /// # Errors
    /// Something of it waits for others still.
    async fn tidy_part(self: &Arc<Self>, running: &Arc<Running>) -> Result<(), Error> {
        if !is_empty(running) {
            return Ok(());
        }
        let busy = || refused(running.name(), "what is queued has not been forwarded");
        until(|| running.is_idle() || !is_empty(running)).await.ok_or_else(busy)?;
        let id = id_of(running)?;
        let _one_at_a_time = self.joining((running.tenant(), running.name()), Some(id)).await;
        if !self.is_spread_as(id, running) || !is_empty(running) {
            return Ok(());
        }
        if self.awaits_partitions(id).await? {
            return Err(refused(running.name(), "what was taken may be about to come"));
        }
        if running.is_idle() { self.end_part(running).await } else { Err(busy()) }
    }

    /// Ends a part, with all it has. To be called with nobody else joining.
    async fn end_part(self: &Arc<Self>, running: &Arc<Running>) -> Result<(), Error> {
        let (id, tenant, name) = (id_of(running)?, running.tenant(), running.name());
        crate::deploy::end_running(running).await;
        self.delete_part((tenant, name), id).await
    }

    async fn delete_part(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        id: PipelineId,
    ) -> Result<(), Error> {
        let mut writer = RecordWriter::new();
        writer.delete(&DeleteRecord { pipeline: id });
        self.log_and_wait(kind::DELETE, writer).await?;
        self.forget_spread(id);
        self.backing().note_gone(Of::new(tenant, id));
        self.forget_taken(id).await?;
        self.forget_versions(tenant, name).await?;
        tracing::info!(%tenant, pipeline = %name, "nothing of it is here any more");
        Ok(())
    }

    /// Ends the part of a pipeline, whose home says so.
    ///
    /// # Errors
    /// The log fails.
    pub(crate) async fn end_part_of(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (home, id): (u16, PipelineId),
    ) -> Result<(), Error> {
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        let is_its = |running: &Arc<Running>| {
            (running.tenant(), running.name()) == (tenant, name)
                && running.shared().part.as_ref().is_some_and(|reports| reports.home() == home)
        };
        if let Some(running) = self.spread(id).filter(is_its) {
            return self.end_part(&running).await;
        }
        if self.running_by_id(id).is_some_and(|running| !running.is_part()) {
            // Its home is here, whatever of it could not be started.
            return Ok(());
        }
        let broken = self.all_broken().into_iter().find(|(known, _)| *known == id);
        let is_its = |part: &Broken| {
            (&part.tenant, &part.name) == (tenant, name) && part.home.is_none_or(|its| its == home)
        };
        match broken.filter(|(_, part)| is_its(part)) {
            Some((_, part)) => self.delete_part((&part.tenant, &part.name), id).await,
            None if self.running_by_id(id).is_none() && !self.is_broken(id) => {
                self.drop_taken(id).await
            }
            None => Ok(()),
        }
    }

    /// Ends parts that are in the way of what comes under their name: those that have nothing, and
    /// those of a pipeline that is gone, as its home has another of this name.
    ///
    /// # Errors
    /// There is one that has something; or that could not be started.
    pub(in crate::moving) async fn make_way(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        id: PipelineId,
        from: Option<&Peer>,
    ) -> Result<(), Error> {
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        let home = from.and_then(|from| self.trunks().number_of(from.name().as_str()));
        for (other, part) in self.all_broken() {
            if (&part.tenant, &part.name) != (tenant, name) {
                continue;
            }
            if !self.is_gone((other, part.home), (id, home)).await? {
                let why = "the other node has a part of this name and could not start it";
                return Err(refused(name, why));
            }
            match self.spread(other) {
                Some(running) => self.end_part(&running).await?,
                None => self.delete_part((tenant, name), other).await?,
            }
        }
        for part in self.parts_named(tenant, name) {
            let other = id_of(&part)?;
            let its = part.shared().part.as_ref().map(|reports| reports.home());
            let is_over = is_empty(&part) && part.is_idle();
            if is_over || self.is_gone((other, its), (id, home)).await? {
                self.end_part(&part).await?;
            } else if other != id || from.is_none() {
                return Err(refused(name, "the other node has partitions of one of this name"));
            }
        }
        Ok(())
    }

    /// A part is of another pipeline of its name at a home which has one of the name now; or of the
    /// same pipeline at another home, from which it has gone, with all it had. That home is asked:
    /// whoever says that it has the pipeline now can say what it likes.
    ///
    /// # Errors
    /// It cannot be asked.
    async fn is_gone(
        &self,
        (other, its): (PipelineId, Option<u16>),
        (id, home): (PipelineId, Option<u16>),
    ) -> Result<bool, Error> {
        let (Some(its), Some(home)) = (its, home) else { return Ok(false) };
        if other != id || its == home {
            return Ok(other != id && its == home);
        }
        let Some(trunk) = self.trunks().get(its) else { return Ok(false) };
        Ok(!trunk.peer().has_pipeline(id).await?)
    }

    /// Writes down that a pipeline is about to end, if others may have parts of it.
    ///
    /// # Errors
    /// Some of it is on its way; the catalogue fails.
    pub(crate) async fn note_ending(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
    ) -> Result<(), Error> {
        let id = match self.running(tenant, name.as_str()) {
            Some(running) => {
                let id = running.durable().map(|durable| durable.id);
                let Some(id) = id.filter(|id| self.spread(*id).is_some()) else { return Ok(()) };
                let all: Vec<u16> = running.shared().sites.all().map(|(at, _)| at).collect();
                until_settled(&running, &all).await?;
                id
            }
            // Where its partitions are is not known.
            None => match self.dormant(tenant, name) {
                Some(id) if self.cluster().is_some() => id,
                _ => return Ok(()),
            },
        };
        let nodes = self.trunks().iter().map(|trunk| trunk.peer().name().to_string()).collect();
        let (tenant, name) = (tenant.to_string(), name.to_string());
        self.put_ended(id, &Ended { tenant, name, nodes }).await
    }

    /// Has other nodes end their parts of a pipeline that has ended; those that cannot be reached
    /// now do it later.
    pub(crate) async fn end_parts(self: &Arc<Self>, id: PipelineId) -> Result<(), Error> {
        let Some(mut ended) = self.ended(id).await? else { return Ok(()) };
        let first = tokio::time::timeout(ENDING_MAX, self.end_some_parts(id, &mut ended)).await;
        if !matches!(first, Ok(Ok(()))) || !ended.nodes.is_empty() {
            drop(tokio::task::spawn_local(self.clone().end_all_parts(id, ended)));
        }
        Ok(())
    }

    async fn end_all_parts(self: Arc<Self>, id: PipelineId, mut ended: Ended) {
        let mut pause = PAUSE_MIN;
        while !ended.nodes.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if let Err(error) = self.end_some_parts(id, &mut ended).await {
                tracing::warn!(%error, "where parts end is not noted");
            }
        }
    }

    async fn end_some_parts(&self, id: PipelineId, ended: &mut Ended) -> Result<(), Error> {
        let named = (Name::new(&ended.tenant)?, Name::new(&ended.name)?);
        let before = ended.nodes.len();
        for node in ended.nodes.clone() {
            let number = self.trunks().number_of(&node);
            let peer = number.and_then(|number| self.trunks().get(number)).map(|at| at.peer());
            let is_ended = match peer {
                Some(peer) if !peer.is_up() => false,
                Some(peer) => match peer.end_part((&named.0, &named.1), id).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(node, %error, "a part is not ended yet");
                        false
                    }
                },
                // It is none of the nodes any more.
                None => true,
            };
            if is_ended {
                ended.nodes.remove(&node);
            }
        }
        match ended.nodes.len() {
            0 => self.forget_ended(id).await,
            count if count < before => self.put_ended(id, ended).await,
            _ => Ok(()),
        }
    }

    /// At the start: goes on with what ended, and forgets what did not end after all.
    pub(crate) async fn go_on_ending(self: &Arc<Self>, fold: &Fold) -> Result<(), Error> {
        let catalog = self.catalog().clone();
        let keys = blocking(move || Ok(catalog.list(Some(&Key::of(&["ended"])?))?)).await?;
        for key in keys {
            let Some(id) = key.last().parse().ok().map(PipelineId) else { continue };
            if fold.pipeline(id).is_some() {
                self.forget_ended(id).await?;
            } else if let Some(ended) = self.ended(id).await? {
                drop(tokio::task::spawn_local(self.clone().end_all_parts(id, ended)));
            }
        }
        Ok(())
    }

    async fn ended(&self, id: PipelineId) -> Result<Option<Ended>, Error> {
        self.document(ended_key(id)?).await
    }

    async fn put_ended(&self, id: PipelineId, ended: &Ended) -> Result<(), Error> {
        self.put_document(ended_key(id)?, ended).await
    }

    async fn forget_ended(&self, id: PipelineId) -> Result<(), Error> {
        self.forget_document(ended_key(id)?).await
    }

    /// Lets halted partitions go on that other nodes have.
    ///
    /// # Errors
    /// One of them cannot be reached.
    pub(crate) async fn resume_parts(self: &Arc<Self>, running: &Running) -> Result<(), Error> {
        let nodes: BTreeSet<String> = self.away(running).into_values().collect();
        let mut outcome = Ok(());
        for node in nodes {
            let number = self.trunks().number_of(&node);
            let Some(trunk) = number.and_then(|number| self.trunks().get(number)) else { continue };
            let named = (running.tenant(), running.name());
            let resumed = trunk.peer().resume_part(named, id_of(running)?).await;
            outcome = outcome.and(resumed);
        }
        outcome
    }
}

/// A part has no partition, and none is on its way.
fn is_empty(running: &Running) -> bool {
    let sites = &running.shared().sites;
    sites.all().all(|(at, site)| matches!(site, Site::There(_)) && !sites.is_leaving(at))
}
