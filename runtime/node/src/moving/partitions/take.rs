//! What a node takes of the state of partitions before they come, and what is remembered of it.
//!
//! - It is taken while they run where they are: pages of what the source has in its store, then
//!   what they changed meanwhile, again and again. What is left in the end comes with the record.
//! - Entries of partitions that are not here mean nothing: they are removed before others are
//!   taken, and at a start. Those of partitions that are here are never touched.
//! - That something is taken is noted before it is in the store, in the document `joins/<id>` of
//!   the catalogue. How far it has come, and for which attempt of the source, is known in memory
//!   alone: a start removes it all.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::limits::KEY_GROUPS;
use sluicebox_core::manifest::bounds::STAGES_MAX;
use sluicebox_core::recovery::{Fold, Folded};
use sluicebox_link::tls::NodeName;
use sluicebox_store::key::Key;

use super::groups::{self, Groups};
use super::join::stages_of;
use super::stand::until_settled;
use crate::checkpoint::Of;
use crate::cluster::Peer;
use crate::components::blocking;
use crate::error::Error;
use crate::moving::Preparing;
use crate::moving::depart::refused;
use crate::moving::steps::Steps;
use crate::node::Node;
use crate::running::Running;

/// What is remembered of partitions of which something may be in the store, and that are not here
/// yet: what to remove if they do not come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Taken {
    tenant: String,
    partitions: Vec<u16>,
    /// How many there are in all, and the numbers of the stages.
    of: u16,
    stages: Vec<u32>,
    /// The name of the pipeline, if nothing of it was here, and its versions that were stored.
    name: Option<String>,
    #[serde(default)]
    versions: Vec<u32>,
}

/// What was taken of partitions that are not here yet, since the node was started.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(super) partitions: Vec<u16>,
    /// Of which node, and for which attempt of it.
    from: NodeName,
    attempt: u64,
    pub(super) groups: Groups,
    /// All pages are here: what the source had in its store. Changes may come behind it.
    pub(super) is_whole: bool,
}

impl Copied {
    /// It was taken for this attempt of this node.
    pub(super) fn is_of(&self, from: &Peer, attempt: u64) -> bool {
        self.from == *from.name() && self.attempt == attempt
    }
}

fn taken_key(id: PipelineId) -> Result<Key, Error> {
    Ok(Key::of(&["joins", &id.0.to_string()])?)
}

/// What the source says of itself with the first page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Shape {
    /// Partitions of each segment.
    pub(crate) partitions: u16,
    /// The numbers of the stages.
    pub(crate) stages: Vec<u32>,
    /// The home; none if that is who asks.
    pub(crate) home: Option<String>,
}

impl Node {
    /// What a node needs to know to take state of partitions from here.
    pub(crate) fn shape(&self, id: PipelineId) -> Option<Shape> {
        let running = self.spread(id)?;
        let stages: BTreeSet<u32> = stages_of(&running).into_iter().map(|stage| stage.0).collect();
        let stages = stages.into_iter().collect();
        let own = self.cluster().map(|own| own.name().to_string());
        // A part gives partitions to nobody but the home.
        let home = own.filter(|_| !running.is_part());
        Some(Shape { partitions: running.partitions(), stages, home })
    }

    /// A page of the state of partitions, for a node that takes them: where the next begins, with
    /// its length before, and the entries. None if there is no such pipeline.
    pub(crate) async fn groups_page(
        &self,
        (tenant, id): (&Name, PipelineId),
        partitions: &[u16],
        from: Vec<u8>,
    ) -> Result<Option<Bytes>, Error> {
        let Some(shape) = self.shape(id) else { return Ok(None) };
        let groups = shape.groups(Of::new(tenant, id), partitions)?;
        let running = self.spread(id);
        let goes =
            |at: &u16| running.as_ref().is_some_and(|running| running.shared().sites.is_given(*at));
        if !partitions.iter().all(goes) {
            let why = "a partition is wanted that does not leave";
            return Err(Error::Internal(why.to_owned()));
        }
        let store = self.backing().store().clone();
        let (entries, next) =
            blocking(move || groups::read(store.as_ref(), &groups, &from)).await?;
        let next = next.unwrap_or_default();
        let length = (next.len() as u32).to_le_bytes();
        Ok(Some([&length[..], &next, &entries].concat().into()))
    }

    /// Takes the state of partitions from the node that has them. Again, if need be.
    ///
    /// # Errors
    /// That node, or the store.
    pub(crate) async fn take_groups(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, from): (PipelineId, &Arc<Peer>),
        (partitions, attempt, preparing): (&[u16], u64, &Preparing),
    ) -> Result<(), Error> {
        if let Some(running) = self.running_by_id(id) {
            // They may have left for there a moment ago.
            until_settled(&running, partitions).await?;
        }
        if let Some(number) = self.trunks().number_of(from.name().as_str()) {
            // What leaves them here is to find a link.
            self.trunks().get(number).iter().for_each(|trunk| trunk.want());
        }
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        let mut steps = Steps::begin();
        let known = self.running_by_id(id);
        if self.has_had_partitions((id, from, name), partitions)? {
            return Ok(());
        }
        if known.is_none() {
            self.is_free(tenant, name)?;
            if self.has_id(id) {
                return Err(refused(name, "it is about to go from the other node"));
            }
            // What an earlier part had is removed before anything comes.
            self.until_kept(self.log().status().appended).await?;
        }
        let shape = from.shape((tenant, name), id).await?;
        self.expect_from(((tenant, name), from), shape.home.as_deref(), known.as_deref())?;
        if known.as_ref().is_some_and(|running| !shape.is_of(running)) {
            // What is removed below would be of other partitions.
            return Err(refused(name, "the nodes do not agree what it consists of"));
        }
        let groups = shape.groups(Of::new(tenant, id), partitions)?;
        // If they do not leave there then nothing is touched here.
        let first = from.groups_page((tenant, name), (id, partitions), &[]).await?;
        let mut taken = Taken {
            tenant: tenant.to_string(),
            partitions: partitions.to_vec(),
            of: shape.partitions,
            stages: shape.stages,
            name: None,
            versions: Vec::new(),
        };
        if known.is_none() {
            taken.name = Some(name.to_string());
            taken.versions = preparing.versions.iter().map(|(version, _)| *version).collect();
        }
        self.note_taken(id, &taken).await?;
        if known.is_none() {
            self.store_arrival((tenant, name), preparing).await?;
            // What somebody tidied away meanwhile, as it was nobody's, is back.
            self.get_ready_for(tenant, preparing).await?;
        }
        let copied = Copied {
            partitions: partitions.to_vec(),
            from: from.name().clone(),
            attempt,
            groups: groups.clone(),
            is_whole: false,
        };
        self.copies().insert(id, copied);
        steps.done("ready");
        if self.backing().note_joining(groups.prefixes().chain(groups.names())) {
            // Behind this no checkpoint is under way that does not know, and all that was to be
            // done about an earlier visit is done.
            if let Err(error) = self.until_kept(self.log().status().appended).await {
                // The next that comes has to wait as well.
                self.backing().note_joined(groups.prefixes().chain(groups.names()));
                return Err(error);
            }
        }
        steps.done("checkpoint");
        self.clear_all(groups.prefixes().collect()).await?;
        steps.done("clear");
        self.take_pages((tenant, name), (id, from), first).await?;
        steps.done("pages");
        tracing::debug!(%steps, ?partitions, "partitions taken");
        Ok(())
    }

    /// Takes all pages, of which this is the first.
    async fn take_pages(
        &self,
        named: (&Name, &Name),
        (id, from): (PipelineId, &Arc<Peer>),
        first: (Bytes, Option<Vec<u8>>),
    ) -> Result<(), Error> {
        let gone = || Error::Internal("what is taken is forgotten".to_owned());
        let copied = self.copies().get(&id).ok_or_else(gone)?;
        let (groups, partitions) = (copied.groups.clone(), copied.partitions.clone());
        drop(copied);
        // Nobody else writes to the store for long.
        self.backing().ask();
        let (mut page, mut read_to) = (Some(first), Vec::new());
        while let Some((entries, behind)) = page {
            if behind.as_ref().is_some_and(|behind| *behind <= read_to) {
                return Err(from.failed("sends pages that do not go on", false));
            }
            let entries = groups::entries(&entries, &groups)
                .map_err(|why| from.failed(&format!("sends what is no state: {why}"), false))?;
            self.put(entries).await?;
            page = match behind {
                Some(place) => {
                    let next = from.groups_page(named, (id, &partitions), &place).await?;
                    read_to = place;
                    Some(next)
                }
                None => None,
            };
        }
        self.copies().get_mut(&id).ok_or_else(gone)?.is_whole = true;
        Ok(())
    }

    /// Takes what partitions changed since their state was taken, from the node that has them.
    ///
    /// # Errors
    /// It was not taken, or not for this attempt; these are no changes of theirs; the store fails.
    pub(crate) async fn take_changes(
        &self,
        (tenant, name): (&Name, &Name),
        (id, from, attempt): (PipelineId, &Peer, u64),
        page: &[u8],
    ) -> Result<(), Error> {
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        let none = || refused(name, "the other node has not taken the state of its partitions");
        let groups = {
            let copied = self.copies().get(&id);
            let copied = copied.filter(|copied| copied.is_whole && copied.is_of(from, attempt));
            copied.ok_or_else(none)?.groups.clone()
        };
        let puts = groups::changes(page, &groups).map_err(|why| refused(name, why))?;
        self.put_or_delete(puts).await
    }

    /// At the start: what was taken and did not come is removed.
    pub(crate) async fn tidy_taken(&self, fold: &Fold) -> Result<(), Error> {
        let catalog = self.catalog().clone();
        let keys = blocking(move || Ok(catalog.list(Some(&Key::of(&["joins"])?))?)).await?;
        for key in keys {
            let Some(id) = key.last().parse().ok().map(PipelineId) else { continue };
            let Some(taken) = self.taken(id).await? else { continue };
            let folded = fold.pipeline(id);
            // Here, or still on its way from here.
            let is_kept = |at: &u16| {
                folded.is_some_and(|folded| folded.is_here(*at) || folded.leaving().contains(at))
            };
            let mut others = taken.partitions.clone();
            others.retain(|at| !is_kept(at));
            if !others.is_empty() {
                let of = Of::new(&Name::new(&taken.tenant)?, id);
                self.clear_all(taken.shape().groups(of, &others)?.prefixes().collect()).await?;
            }
            let has_name = |folded: &Folded| {
                folded.tenant().as_str() == taken.tenant
                    && taken.name.as_deref() == Some(folded.name().as_str())
            };
            if !fold.pipelines().any(|(_, folded)| has_name(folded)) {
                self.forget_stored(&taken).await?;
            }
            self.forget_taken(id).await?;
        }
        Ok(())
    }

    /// State may have been taken of partitions that are about to come.
    pub(super) async fn awaits_partitions(&self, id: PipelineId) -> Result<bool, Error> {
        Ok(self.taken(id).await?.is_some())
    }

    /// Removes what was taken of partitions that do not come any more.
    pub(crate) async fn drop_taken(self: &Arc<Self>, id: PipelineId) -> Result<(), Error> {
        let Some(taken) = self.taken(id).await? else { return Ok(()) };
        let tenant = Name::new(&taken.tenant)?;
        let of = Of::new(&tenant, id);
        self.clear_all(taken.shape().groups(of, &taken.partitions)?.prefixes().collect()).await?;
        self.backing().note_gone(of);
        let name = taken.name.as_deref().and_then(|name| Name::new(name).ok());
        if name.is_some_and(|name| self.is_free(&tenant, &name).is_ok()) {
            self.forget_stored(&taken).await?;
            self.tidy_files(&tenant).await;
        }
        self.forget_taken(id).await
    }

    /// The same, as the node says so that they are on: they stay there.
    ///
    /// # Errors
    /// The store or the catalogue fails.
    pub(crate) async fn drop_copied(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, from, attempt): (PipelineId, &Peer, u64),
    ) -> Result<(), Error> {
        let _one_at_a_time = self.joining((tenant, name), Some(id)).await;
        match self.copies().get(&id).is_some_and(|copied| copied.is_of(from, attempt)) {
            true => self.drop_taken(id).await,
            false => Ok(()),
        }
    }

    /// Removes what was stored of a pipeline of which nothing came.
    async fn forget_stored(&self, taken: &Taken) -> Result<(), Error> {
        let Some(name) = &taken.name else { return Ok(()) };
        let named = (&Name::new(&taken.tenant)?, &Name::new(name)?);
        self.forget_arrival(named, &taken.versions).await
    }

    async fn taken(&self, id: PipelineId) -> Result<Option<Taken>, Error> {
        self.document(taken_key(id)?).await
    }

    async fn note_taken(&self, id: PipelineId, taken: &Taken) -> Result<(), Error> {
        self.put_document(taken_key(id)?, taken).await
    }

    /// Forgets what was taken: it is here, or is gone.
    pub(super) async fn forget_taken(&self, id: PipelineId) -> Result<(), Error> {
        self.copies().remove(&id);
        self.forget_document(taken_key(id)?).await
    }

    /// The same of what is here, when there is time for it, unless more is taken by then.
    pub(super) fn forget_taken_later(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        id: PipelineId,
    ) {
        self.copies().remove(&id);
        let (node, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        drop(tokio::task::spawn_local(async move {
            let _one_at_a_time = node.joining((&tenant, &name), Some(id)).await;
            if !node.copies().contains_key(&id)
                && let Err(error) = node.forget_taken(id).await
            {
                // The next start forgets it, and touches nothing that is here.
                tracing::warn!(%error, "what was taken is remembered still");
            }
        }));
    }
}

impl Taken {
    fn shape(&self) -> Shape {
        Shape { partitions: self.of, stages: self.stages.clone(), home: None }
    }
}

impl Shape {
    /// It is what a pipeline here consists of.
    fn is_of(&self, running: &Running) -> bool {
        let stages: BTreeSet<u32> = stages_of(running).into_iter().map(|stage| stage.0).collect();
        self.partitions == running.partitions() && self.stages.iter().copied().eq(stages)
    }

    /// The state of some partitions.
    pub(super) fn groups(&self, of: Of, partitions: &[u16]) -> Result<Groups, Error> {
        let is_ascending = partitions.windows(2).all(|pair| pair[0] < pair[1]);
        let is_there = partitions.last().is_some_and(|last| *last < self.partitions);
        let has_stages = self.stages.len() <= STAGES_MAX && self.stages.is_sorted_by(|a, b| a < b);
        if !has_stages {
            return Err(Error::request("request.query", "stages are not ascending, or too many"));
        }
        if !is_ascending || !is_there || self.partitions > KEY_GROUPS {
            let message = "partitions are not ascending numbers of those there are";
            return Err(Error::request("request.query", message));
        }
        let stages = self.stages.iter().map(|stage| StageId(*stage));
        Ok(Groups::new(of, stages, (partitions, self.partitions)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_cannot_be_is_no_state_of_partitions() {
        let of = Of::new(&Name::new("acme").expect("a name"), PipelineId(3));
        let groups = |stages: &[u32], partitions: &[u16]| {
            let shape = Shape { partitions: 4, stages: stages.to_vec(), home: None };
            shape.groups(of, partitions).is_ok()
        };
        assert!(groups(&[1, 2, 9], &[0, 3]));
        assert!(!groups(&[2, 1], &[0]), "stages that are not in order");
        assert!(!groups(&[1, 1], &[0]), "one twice");
        let many: Vec<u32> = (0..=STAGES_MAX as u32).collect();
        assert!(groups(&many[1..], &[0]) && !groups(&many, &[0]), "more than there can be");
        assert!(!groups(&[1], &[3, 2]) && !groups(&[1], &[2, 2]) && !groups(&[1], &[4]));
        assert!(!groups(&[1], &[]));
    }
}
