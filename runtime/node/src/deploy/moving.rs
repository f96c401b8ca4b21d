//! What a hand-over needs of deploying: taking a pipeline to rest as it is, running it again, and
//! running one that came from another node.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::recovery::{Fold, Folded};
use sluicebox_store::error::Error as StoreError;

use super::restore::read_manifest;
use super::taking::{Rested, retire};
use super::{Document, chance, secret_number, version_key};
use crate::checkpoint::{Collected, Outputs, load_opened};
use crate::components::blocking;
use crate::error::Error;
use crate::moving::Preparing;
use crate::node::Node;
use crate::recover::Found;
use crate::running::Running;

/// What is left of a pipeline that came to rest, to run on from if it stays.
pub(crate) struct Departed(Rested);

impl Node {
    /// Takes a pipeline to rest as it is: open streams stay open.
    ///
    /// # Errors
    /// It has halted, or events under way do not finish; it runs on.
    pub(crate) async fn depart(self: &Arc<Self>, running: &Running) -> Result<Departed, Error> {
        let halted = || {
            Err(Error::Conflict {
                what: "pipeline",
                name: running.name().to_string(),
                why: "it has halted or its sinks take nothing, and events wait; let it go on first"
                    .to_owned(),
            })
        };
        retire(running, BTreeSet::new(), halted).await.map(Departed)
    }

    /// Runs a pipeline again that does not go after all.
    pub(crate) fn stay(self: &Arc<Self>, running: &Running, departed: Departed) {
        // It keys hash tables in memory; without chance they are only slower.
        let seed = secret_number().unwrap_or_default();
        self.go_back(running, departed.0, seed);
    }

    /// The stored versions of a pipeline, and its secret, for another node.
    pub(crate) async fn preparing(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<Preparing, Error> {
        let chance = self.chance_of_durable(tenant, name.as_str()).await?;
        let (keys, catalog) = (self.version_keys(tenant, name).await?, self.catalog().clone());
        blocking(move || {
            let mut versions = Vec::new();
            for key in keys {
                let text = catalog.get(&key)?.unwrap_or_default();
                if let (Ok(number), Ok(text)) = (key.last().parse(), String::from_utf8(text.into()))
                {
                    versions.push((number, text));
                }
            }
            Ok(Preparing { versions, chance })
        })
        .await
    }

    /// Refuses a pipeline that is to come and is granted a GPU, if there is none for it. It is
    /// asked before the other node lets go: what has left that one has to be taken in any case,
    /// and its stages wait for what others have of the device.
    ///
    /// # Errors
    /// There is none, or it is promised to others.
    pub(crate) async fn has_device_for(
        &self,
        tenant: &Name,
        preparing: &Preparing,
    ) -> Result<(), Error> {
        let Some((_, text)) = preparing.versions.last() else { return Ok(()) };
        let pipeline = read_manifest(read(text)?.manifest.to_string().as_bytes())?;
        drop(self.admit_gpu(tenant, &pipeline).await?);
        Ok(())
    }

    /// Fetches and compiles what a pipeline that is to come runs.
    pub(crate) async fn get_ready_for(
        self: &Arc<Self>,
        tenant: &Name,
        preparing: &Preparing,
    ) -> Result<(), Error> {
        let Some((_, text)) = preparing.versions.last() else { return Ok(()) };
        let document = read(text)?;
        let before = document.codes.values().flat_map(super::codes::Written::manifests);
        for manifest in std::iter::once(&document.manifest).chain(before) {
            let pipeline = read_manifest(manifest.to_string().as_bytes())?;
            self.fetch_files(tenant, &pipeline).await?;
            for stage in &pipeline.stages {
                drop(self.components_of().code(tenant, &super::digest_of(stage)?).await?);
            }
        }
        Ok(())
    }

    /// Stores the versions of a pipeline that comes, and its secret.
    pub(crate) async fn store_arrival(
        &self,
        (tenant, name): (&Name, &Name),
        preparing: &Preparing,
    ) -> Result<(), Error> {
        let mut documents = vec![(chance::own_key(tenant, name)?, preparing.chance.to_vec())];
        for (number, text) in &preparing.versions {
            let document = read(text)?;
            if document.version != *number {
                return Err(Error::Internal(format!("version {number} is another")));
            }
            documents.push((version_key(tenant, name, *number)?, text.clone().into_bytes()));
        }
        let catalog = self.catalog().clone();
        blocking(move || {
            for (key, text) in documents {
                catalog.replace(&key, &text)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes these versions and the secret of a pipeline that did not come after all.
    pub(crate) async fn forget_arrival(
        &self,
        (tenant, name): (&Name, &Name),
        versions: &[u32],
    ) -> Result<(), Error> {
        let mut keys = vec![chance::own_key(tenant, name)?];
        for version in versions {
            keys.push(version_key(tenant, name, *version)?);
        }
        let catalog = self.catalog().clone();
        blocking(move || {
            keys.iter().try_for_each(|key| catalog.delete(key).map(drop))?;
            Ok(())
        })
        .await
    }

    /// Runs a pipeline whose entries are in the store, and whose record is in the log.
    pub(crate) async fn start_arrival(
        self: &Arc<Self>,
        id: PipelineId,
        kept: &[u8],
    ) -> Result<(), Error> {
        let unreadable = |error| Error::Internal(format!("where a pipeline stands: {error}"));
        let fold = Fold::from_kept(kept).map_err(unreadable)?;
        let (seed, limits) = (secret_number()?, &self.config().limits);
        let backing = self.backing().clone();
        let outputs = Outputs {
            output_bytes_max: limits.output_bytes_max,
            dead_letter_bytes: limits.dead_letter_bytes,
        };
        let (fold, mut found) = blocking(move || {
            let mut found = Found::new(seed, outputs.output_bytes_max, backing.clone());
            // The thread of checkpoints notes the same for itself, when it reads the record.
            let mut aside = Collected::new(seed, backing.clone(), outputs);
            let store = backing.store().clone();
            load_opened(store.as_ref(), (&fold, id), Some(&mut found), &mut aside)?;
            Ok((fold, found))
        })
        .await?;
        let none = || Error::Internal("a fold without its pipeline".to_owned());
        let folded = fold.pipeline(id).ok_or_else(none)?;
        self.restore_logged(id, folded, (&mut found, &[])).await?;
        if let Some(running) = self.running(folded.tenant(), folded.name().as_str()) {
            running.pause(false);
            running.wake_by_time();
        }
        Ok(())
    }

    /// Runs a part of a pipeline, of which these partitions come. They do not run yet.
    pub(crate) async fn start_part(
        self: &Arc<Self>,
        id: PipelineId,
        (folded, coming): (&Folded, &[u16]),
    ) -> Result<Arc<Running>, Error> {
        let bytes_max = self.config().limits.output_bytes_max;
        let mut found = Found::new(secret_number()?, bytes_max, self.backing().clone());
        self.restore_logged(id, folded, (&mut found, coming)).await?;
        let none = || Error::Internal("a part that does not run".to_owned());
        let running = self.spread(id).ok_or_else(none)?;
        running.pause(false);
        running.wake_by_time();
        Ok(running)
    }

    /// Forgets the stored versions of a pipeline that is elsewhere now.
    pub(crate) async fn forget_versions(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<(), Error> {
        let mut keys = self.version_keys(tenant, name).await?;
        keys.push(chance::own_key(tenant, name)?);
        let catalog = self.catalog().clone();
        blocking(move || {
            for key in keys {
                match catalog.delete(&key) {
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await?;
        self.tidy_files(tenant).await;
        Ok(())
    }
}

fn read(text: &str) -> Result<Document, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::Internal(format!("a version from another node: {error}")))
}
