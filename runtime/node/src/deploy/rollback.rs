//! Going back: the manifest of an earlier version, applied as a new one.
//!
//! - It is an apply like any other: shown the same way, refused for the same reasons in the same
//!   words. State does not go back.
//! - Components are those the version ran, by digest, and the number of partitions is the one it
//!   had.

use std::sync::Arc;

use sluicebox_core::ids::Name;

use super::{Applied, Document, Order, version_key};
use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;

impl Node {
    /// Applies the manifest of version `to` again, or of the one before that which runs.
    ///
    /// # Errors
    /// There is no such version; all that [`Node::apply`] may say.
    pub async fn roll_back(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        to: Option<u32>,
        order: &Order,
    ) -> Result<Applied, Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        let running = self.running(tenant, name.as_str());
        let running = running.ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        let current = running.version();
        let keys = self.version_keys(tenant, name).await?;
        let kept = keys.iter().filter_map(|key| key.last().parse::<u32>().ok());
        // One that was stored and never ran may be behind the one that runs.
        let mut earlier = kept.filter(|version| *version < current);
        let found = match to {
            Some(to) => earlier.find(|version| *version == to),
            None => earlier.next_back(),
        };
        let shown = || to.map_or_else(|| format!("before {current}"), |to| to.to_string());
        let found = found.ok_or_else(|| Error::not_found("version", &shown()))?;
        let manifest = self.manifest_of(tenant, name, found).await?;
        let applied = self.apply_in_turn((tenant, name), &manifest, order).await;
        self.tidy_files(tenant).await;
        Ok(Applied { manifest_of: Some(found), ..applied?.0 })
    }

    async fn manifest_of(
        &self,
        tenant: &Name,
        name: &Name,
        version: u32,
    ) -> Result<Vec<u8>, Error> {
        let (catalog, key) = (self.catalog().clone(), version_key(tenant, name, version)?);
        let text = blocking(move || Ok(catalog.get(&key)?)).await?.unwrap_or_default();
        let unreadable = |error| Error::Internal(format!("stored version: {error}"));
        let document: Document = serde_json::from_slice(&text).map_err(unreadable)?;
        serde_json::to_vec(&document.manifest).map_err(unreadable)
    }
}
