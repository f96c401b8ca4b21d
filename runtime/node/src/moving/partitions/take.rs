//! What a node takes of the state of partitions before they come, and what is remembered of it.
//!
//! - Entries of partitions that are not here mean nothing: they are removed before others are
//!   taken, and at a start. Those of partitions that are here are never touched.
//! - What is taken is noted before anything is in the store, in the document `joins/<id>` of the
//!   catalogue, with the attempt of the source it is for.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::limits::KEY_GROUPS;
use sluicebox_core::recovery::Fold;
use sluicebox_store::key::Key;

use super::groups::{self, Groups};
use super::join::stages_of;
use super::leave::until_settled;
use crate::checkpoint::Of;
use crate::cluster::Peer;
use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;
use crate::spread::Site;

/// What is remembered of partitions whose state is in the store and that are not here yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Taken {
    tenant: String,
    pub(super) partitions: Vec<u16>,
    /// For which attempt of the source.
    pub(super) attempt: u64,
    /// How many there are in all, and the numbers of the stages: what to remove if they do not
    /// come.
    of: u16,
    stages: Vec<u32>,
    /// All their entries are in the store.
    pub(super) whole: bool,
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
        let stages = stages_of(&running).into_iter().map(|stage| stage.0).collect();
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
        let goes = |at: &u16| {
            running.as_ref().is_some_and(|running| {
                let sites = &running.shared().sites;
                sites.of(*at) == Site::Between || sites.is_leaving(*at)
            })
        };
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
        (partitions, attempt): (&[u16], u64),
    ) -> Result<(), Error> {
        if let Some(running) = self.running_by_id(id) {
            // They may have left for there a moment ago.
            until_settled(&running, partitions).await?;
        }
        let _one_at_a_time = self.joining().lock().await;
        let known = self.running_by_id(id);
        if self.has_had_partitions((id, from, name), partitions)? {
            return Ok(());
        }
        if known.is_none() {
            // What an earlier part had is removed before anything comes.
            self.until_kept(self.log().status().appended).await?;
        }
        let shape = from.shape((tenant, name), id).await?;
        self.expect_from((name, from), shape.home.as_deref(), known.as_deref())?;
        let groups = shape.groups(Of::new(tenant, id), partitions)?;
        let taken = |whole| Taken {
            tenant: tenant.to_string(),
            partitions: partitions.to_vec(),
            attempt,
            of: shape.partitions,
            stages: shape.stages.clone(),
            whole,
        };
        // If they do not leave there then nothing is touched here.
        let named = (tenant, name);
        let mut page = Some(from.groups_page(named, (id, partitions), &[]).await?);
        self.note_taken(id, &taken(false)).await?;
        if self.backing().note_joining(groups.prefixes().chain(groups.names())) {
            // Behind this no checkpoint is under way that does not know, and all that was to be
            // done about an earlier visit is done.
            self.until_kept(self.log().status().appended).await?;
        }
        self.clear_all(groups.prefixes().collect()).await?;
        // Nobody else writes to the store for long.
        self.backing().ask();
        while let Some((entries, behind)) = page {
            let entries = groups::entries(&entries, &groups)
                .map_err(|why| from.failed(&format!("sends what is no state: {why}"), false))?;
            self.put(entries).await?;
            page = match behind {
                Some(place) => Some(from.groups_page(named, (id, partitions), &place).await?),
                None => None,
            };
        }
        self.note_taken(id, &taken(true)).await
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
                let shape = Shape { partitions: taken.of, stages: taken.stages, home: None };
                self.clear_all(shape.groups(of, &others)?.prefixes().collect()).await?;
            }
            self.forget_taken(id).await?;
        }
        Ok(())
    }

    /// State was taken of partitions that are about to come.
    pub(super) async fn awaits_partitions(&self, id: PipelineId) -> Result<bool, Error> {
        Ok(self.taken(id).await?.is_some())
    }

    /// Removes what was taken of partitions that do not come any more.
    pub(crate) async fn drop_taken(&self, id: PipelineId) -> Result<(), Error> {
        let Some(taken) = self.taken(id).await? else { return Ok(()) };
        let of = Of::new(&Name::new(&taken.tenant)?, id);
        let shape = Shape { partitions: taken.of, stages: taken.stages, home: None };
        self.clear_all(shape.groups(of, &taken.partitions)?.prefixes().collect()).await?;
        self.backing().note_gone(of);
        self.forget_taken(id).await
    }

    pub(super) async fn taken(&self, id: PipelineId) -> Result<Option<Taken>, Error> {
        self.document(taken_key(id)?).await
    }

    async fn note_taken(&self, id: PipelineId, taken: &Taken) -> Result<(), Error> {
        self.put_document(taken_key(id)?, taken).await
    }

    pub(super) async fn forget_taken(&self, id: PipelineId) -> Result<(), Error> {
        self.forget_document(taken_key(id)?).await
    }
}

impl Shape {
    /// The state of some partitions.
    pub(super) fn groups(&self, of: Of, partitions: &[u16]) -> Result<Groups, Error> {
        let is_ascending = partitions.windows(2).all(|pair| pair[0] < pair[1]);
        let is_there = partitions.last().is_some_and(|last| *last < self.partitions);
        if !is_ascending || !is_there || self.partitions > KEY_GROUPS {
            let message = "partitions are not ascending numbers of those there are";
            return Err(Error::request("request.query", message));
        }
        let stages = self.stages.iter().map(|stage| StageId(*stage));
        Ok(Groups::new(of, stages, (partitions, self.partitions)))
    }
}
