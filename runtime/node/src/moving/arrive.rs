//! The target's side of a hand-over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluicebox_core::codec::{OpenRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::Fold;
use sluicebox_link::tls::NodeName;
use sluicebox_store::error::Error as StoreError;
use sluicebox_store::key::Key;
use sluicebox_store::store::{Change, Store, keys};

use super::depart::refused;
use super::pages;
use crate::checkpoint::Of;
use crate::cluster::{Peer, Subject};
use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;
use crate::running::Running;

/// What a record has besides what is kept.
const RECORD_HEAD_BYTES: usize = 64;

/// What a node is told before a pipeline comes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Preparing {
    /// Versions as they are stored, oldest first, each with its number.
    pub(crate) versions: Vec<(u32, String)>,
    /// What the randomness of its stages grows from.
    pub(crate) chance: [u8; 32],
}

/// What a node is told that is to run a pipeline from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Opening {
    pub(crate) pipeline: u64,
    /// Where it stands, as a checkpoint keeps it.
    pub(crate) kept: Vec<u8>,
    pub(crate) preparing: Preparing,
}

/// What is remembered of a pipeline that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Arrival {
    tenant: String,
    /// The node it came from.
    from: String,
    /// All its entries are in the store.
    taken: bool,
    /// It has been opened; whatever became of it since.
    opened: bool,
}

fn arrival_key(id: PipelineId) -> Result<Key, Error> {
    Ok(Key::of(&["moves", &id.0.to_string()])?)
}

impl Node {
    /// Sees whether a pipeline can come, and gets ready for it.
    ///
    /// # Errors
    /// There is one of this name, or no room; what it runs cannot be had.
    pub(crate) async fn prepare_arrival(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, preparing): (PipelineId, &Preparing),
    ) -> Result<(), Error> {
        self.make_way((tenant, name), id, None).await?;
        self.is_free(tenant, name)?;
        if self.front().isolates(self.tenants(), tenant) {
            return Err(refused(name, "its tenant has a process of its own on the other node"));
        }
        self.admit_pipeline(tenant)?;
        self.has_device_for(tenant, preparing).await?;
        self.get_ready_for(tenant, preparing).await?;
        self.expect(Of::new(tenant, id)).await
    }

    /// Sees to it that no checkpoint removes what comes of a pipeline that was here before.
    async fn expect(&self, of: Of) -> Result<(), Error> {
        if !self.backing().note_arriving(of) {
            return Ok(());
        }
        // Behind this no checkpoint is under way that does not know, and all that was to be done
        // about an earlier visit is done.
        let kept = self.until_kept(self.log().status().appended).await;
        if kept.is_err() {
            self.backing().note_arrived(of);
        }
        kept
    }

    /// Bytes of where something stands that the log takes in a record.
    pub(crate) fn record_room(&self) -> usize {
        self.log().record_bytes_max().saturating_sub(RECORD_HEAD_BYTES)
    }

    /// Refuses a pipeline that is more than the log takes.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub(crate) fn check_room_for(&self, name: &Name, kept_bytes: usize) -> Result<(), Error> {
        let most = self.record_room();
        if kept_bytes <= most {
            return Ok(());
        }
        Err(refused(name, &format!("the other node's log takes records of {most} bytes at most")))
    }

    /// Takes the entries of a pipeline from the node that has it. Again, if need be.
    ///
    /// # Errors
    /// That node, or the store.
    pub(crate) async fn take_arrival(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (id, from): (PipelineId, &Arc<Peer>),
    ) -> Result<(), Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        let was_opened = self.arrival(id).await?.is_some_and(|arrival| arrival.opened);
        if was_opened || self.has_id(id) {
            return Ok(());
        }
        self.is_free(tenant, name)?;
        let arrival = |taken| Arrival {
            tenant: tenant.to_string(),
            from: from.name().to_string(),
            taken,
            opened: false,
        };
        let of = Of::new(tenant, id);
        {
            let _nobody_joins = self.joining((tenant, name), Some(id)).await;
            if self.spread(id).is_some() || self.is_broken(id) {
                // All that is here under its number is about to be removed, and whoever asks can
                // ask for what it likes.
                return Err(refused(name, "the other node has partitions of it"));
            }
            self.drop_taken(id).await?;
            self.note_arrival(id, &arrival(false)).await?;
            self.expect(of).await?;
            self.clear(of).await?;
        }
        // Nobody else writes to the store for long.
        self.backing().ask();
        let (mut next, mut renamed) = (Some(Vec::new()), 0);
        while let Some(place) = next {
            let (page, behind) = from.page((tenant, name), &place).await?;
            let entries = pages::entries(&page, of, &mut renamed)
                .map_err(|why| from.failed(&format!("sends what is no pipeline: {why}"), false))?;
            self.put(entries).await?;
            next = behind;
        }
        self.note_arrival(id, &arrival(true)).await
    }

    /// Runs a pipeline from now on that came from this node. False if its entries were not taken.
    ///
    /// # Errors
    /// The log or the store fails; what it was told is wrong.
    pub(crate) async fn open_arrival(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (from, opening): (&NodeName, Opening),
    ) -> Result<bool, Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        let id = PipelineId(opening.pipeline);
        let Some(arrival) = self.arrival(id).await? else { return Ok(false) };
        if arrival.opened {
            return Ok(true);
        }
        if self.has_id(id) {
            self.note_arrival(id, &Arrival { opened: true, ..arrival }).await?;
            if self.dormant(tenant, name) == Some(id) {
                self.try_to_start((tenant, name), id, &opening.kept).await;
            }
            return Ok(true);
        }
        let is_its = arrival.tenant == tenant.as_str() && arrival.from == from.as_str();
        if !arrival.taken || !is_its {
            return Ok(false);
        }
        self.is_free(tenant, name)?;
        check_kept((tenant, name, id), &opening.kept)?;
        self.store_arrival((tenant, name), &opening.preparing).await?;
        // What somebody tidied away meanwhile, as it was nobody's, is back.
        self.get_ready_for(tenant, &opening.preparing).await?;
        // Whoever asks before it runs is told to try again.
        let _coming = self.hold_name(tenant, name);
        let mut writer = RecordWriter::new();
        writer.open(&OpenRecord { pipeline: id, kept: &opening.kept });
        self.log_and_wait(kind::OPEN, writer).await?;
        // From here on it is this node's, whatever comes.
        self.set_dormant(tenant, name, Some(id));
        self.note_arrival(id, &Arrival { opened: true, ..arrival }).await?;
        self.try_to_start((tenant, name), id, &opening.kept).await;
        Ok(true)
    }

    /// Runs what is in the log. If it cannot be run now, it is this node's all the same, and runs
    /// when what is wrong is mended.
    async fn try_to_start(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        id: PipelineId,
        kept: &[u8],
    ) {
        match self.start_arrival(id, kept).await {
            Ok(()) => self.set_dormant(tenant, name, None),
            Err(error) => tracing::error!(%tenant, pipeline = %name, "not started: {error}"),
        }
    }

    /// A pipeline of this number is here, whatever it does.
    pub(crate) fn has_id(&self, id: PipelineId) -> bool {
        let of = |running: &Arc<Running>| running.durable().map(|durable| durable.id);
        self.all_running().iter().any(|running| of(running) == Some(id))
            || self.is_dormant(id)
            || self.leaving().iter().any(|entry| entry.id == id)
    }

    /// Refuses one under a name that another has.
    pub(super) fn is_free(&self, tenant: &Name, name: &Name) -> Result<(), Error> {
        let subject = Subject::Pipeline(tenant.clone(), name.clone());
        match self.holds(&subject, false) || self.has_part_named(tenant, name) {
            true => Err(refused(name, "the other node has one of this name")),
            false => Ok(()),
        }
    }

    /// The node a pipeline came from, if that may still have it.
    pub(super) async fn came_from(&self, id: PipelineId) -> Result<Option<String>, Error> {
        Ok(self.arrival(id).await?.map(|arrival| arrival.from))
    }

    /// A node says that it has let go of a pipeline that came from there.
    pub(crate) async fn settle_from(&self, id: PipelineId, from: &NodeName) -> Result<(), Error> {
        match self.arrival(id).await? {
            Some(arrival) if arrival.opened && arrival.from == from.as_str() => {
                self.settle(id).await
            }
            _ => Ok(()),
        }
    }

    /// The node a pipeline came from has let go of it.
    pub(crate) async fn settle(&self, id: PipelineId) -> Result<(), Error> {
        self.forget_document(arrival_key(id)?).await
    }

    /// At the start: what came half is removed; what was opened just before the end is noted so.
    pub(crate) async fn tidy_arrivals(&self, fold: &Fold) -> Result<(), Error> {
        let catalog = self.catalog().clone();
        let keys = blocking(move || Ok(catalog.list(Some(&Key::of(&["moves"])?))?)).await?;
        for key in keys {
            let Some(id) = key.last().parse().ok().map(PipelineId) else { continue };
            let Some(arrival) = self.arrival(id).await? else { continue };
            if arrival.opened {
                continue;
            }
            if fold.pipeline(id).is_some_and(|folded| folded.moved().is_none()) {
                self.note_arrival(id, &Arrival { opened: true, ..arrival }).await?;
            } else {
                self.clear(Of::new(&Name::new(&arrival.tenant)?, id)).await?;
                self.settle(id).await?;
            }
        }
        Ok(())
    }

    async fn arrival(&self, id: PipelineId) -> Result<Option<Arrival>, Error> {
        self.document(arrival_key(id)?).await
    }

    async fn note_arrival(&self, id: PipelineId, arrival: &Arrival) -> Result<(), Error> {
        self.put_document(arrival_key(id)?, arrival).await
    }

    /// Removes every entry of a pipeline that does not run here.
    async fn clear(&self, of: Of) -> Result<(), Error> {
        self.clear_all(keys::of_pipeline(of.tenant, of.pipeline.0).collect()).await
    }

    /// Removes everything whose keys begin so, beside checkpoints.
    pub(super) async fn clear_all(&self, prefixes: Vec<Vec<u8>>) -> Result<(), Error> {
        let store = self.backing().store().clone();
        let clear = move || {
            aside(store.as_ref(), |checkpoint| checkpoint.delete_prefixes(&prefixes).map(drop))
        };
        blocking(clear).await
    }

    pub(super) async fn put(&self, entries: Vec<pages::Entry>) -> Result<(), Error> {
        let puts = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.put_or_delete(puts).await
    }

    /// Writes entries beside checkpoints; those without a value go.
    pub(super) async fn put_or_delete(&self, puts: Vec<pages::Put>) -> Result<(), Error> {
        let store = self.backing().store().clone();
        blocking(move || {
            let changes = puts.iter().map(|(key, value)| Change { key, value: value.as_deref() });
            let piece: Vec<Change<'_>> = changes.collect();
            aside(store.as_ref(), |checkpoint| checkpoint.write(&piece))
        })
        .await
    }
}

/// Changes the store beside checkpoints: what is written counts for nobody before a record speaks
/// of it, so that the horizon stays.
pub(super) fn aside(
    store: &dyn Store,
    change: impl Fn(&mut dyn sluicebox_store::store::Checkpoint) -> Result<(), StoreError>,
) -> Result<(), Error> {
    loop {
        match store.begin(store.extent().horizon) {
            Ok(mut checkpoint) => return Ok(change(checkpoint.as_mut())?),
            // A checkpoint has stood meanwhile.
            Err(StoreError::HorizonBehind { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Refuses what would not be taken when the log is read.
fn check_kept((tenant, name, id): (&Name, &Name, PipelineId), kept: &[u8]) -> Result<(), Error> {
    let fold = Fold::from_kept(kept).map_err(|error| refused(name, &error.to_string()))?;
    let folded = fold.pipeline(id).filter(|_| fold.pipelines().count() == 1);
    let is_its = folded.is_some_and(|folded| {
        folded.tenant() == tenant
            && folded.name() == name
            && folded.stopped().is_none()
            && folded.moved().is_none()
            && folded.waiting().next().is_none()
    });
    if is_its { Ok(()) } else { Err(refused(name, "the other node says where another one stands")) }
}
