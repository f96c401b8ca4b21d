//! Components and assets that a pipeline needs and another node has.
//!
//! A tenant's files have one home, and its pipelines others: what a pipeline runs is taken in where
//! it runs, before its version is stored, and from then on needs nobody else. Names stand for what
//! they stand for at the tenant's home.

use std::sync::Arc;

use sluicebox_core::ids::{Digest, Name};
use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::quota::Resource;

use super::digest_of;
use crate::cluster::{Peer, Place, Subject};
use crate::components::{Files, Names};
use crate::error::Error;
use crate::node::Node;

impl Node {
    /// What a manifest of this tenant may refer to, with what its home has; none if that is here.
    pub(super) async fn names_at_home(
        self: &Arc<Self>,
        tenant: &Name,
    ) -> Result<Option<Names>, Error> {
        let Some(home) = self.home_of_files(tenant)? else { return Ok(None) };
        let mut names = self.components_of().names(tenant).await?;
        names.join(home.components(tenant).await?);
        Ok(Some(names))
    }

    /// Takes in what the pipeline needs and is not here.
    pub(crate) async fn fetch_files(
        self: &Arc<Self>,
        tenant: &Name,
        pipeline: &Pipeline,
    ) -> Result<(), Error> {
        if self.cluster().is_none() {
            return Ok(());
        }
        for stage in &pipeline.stages {
            self.fetch(tenant, (Files::Components, &digest_of(stage)?)).await?;
            for digest in stage.assets.values().filter_map(|digest| Digest::parse(digest)) {
                self.fetch(tenant, (Files::Assets, &digest)).await?;
            }
        }
        Ok(())
    }

    async fn fetch(
        self: &Arc<Self>,
        tenant: &Name,
        (files, digest): (Files, &Digest),
    ) -> Result<(), Error> {
        let components = self.components_of();
        if components.has_file(tenant, (files, digest)).await? {
            return Ok(());
        }
        let home = self.home_of_files(tenant)?;
        let others = self.cluster().map_or(&[][..], |cluster| cluster.peers());
        // Of what stands under no name any more, a node that runs it has the bytes.
        let others = others.iter().filter(|peer| peer.is_up()).cloned();
        let most = self.allowance(tenant).limit(Resource::Components);
        let bytes_max = components.file_bytes_max();
        for peer in home.into_iter().chain(others) {
            if let Some(bytes) = peer.file(tenant, (files.word(), digest), bytes_max).await? {
                return components.take_in(tenant, (files, digest), bytes, most).await;
            }
        }
        Ok(())
    }

    /// The node that has the tenant's files, if it is another one.
    fn home_of_files(&self, tenant: &Name) -> Result<Option<Arc<Peer>>, Error> {
        let Some(cluster) = self.cluster() else { return Ok(None) };
        let subject = Subject::Tenant(tenant.clone());
        let is_here = self.holds(&subject, false);
        Ok(match cluster.find(&subject, is_here)? {
            Place::There(peer) | Place::NowhereYet(peer) => Some(peer),
            Place::Here | Place::Nowhere => None,
        })
    }

    /// Refuses to make a pipeline here that may be elsewhere.
    ///
    /// # Errors
    /// [`Error::Peer`].
    pub(super) fn may_make(&self, tenant: &Name, name: &Name) -> Result<(), Error> {
        let subject = Subject::Pipeline(tenant.clone(), name.clone());
        if let Some(to) = self.passes_to(&subject) {
            return Err(Error::on_its_way(&to));
        }
        if self.has_part_named(tenant, name) {
            // The log would take nothing else under this name.
            let why = "this node has partitions of one of this name that ends; try again";
            let (name, why) = (name.to_string(), why.to_owned());
            return Err(Error::Conflict { what: "pipeline", name, why });
        }
        self.cluster().map_or(Ok(()), |cluster| cluster.may_make(&subject))
    }

    /// Removes what was taken in and is not needed any more. That it cannot be is no reason to say
    /// that what was done before was not.
    pub(crate) async fn tidy_files(self: &Arc<Self>, tenant: &Name) {
        if self.cluster().is_none() {
            return;
        }
        if let Err(error) = self.components_of().tidy(tenant).await {
            tracing::warn!(%tenant, %error, "files that are not needed any more stay");
        }
    }
}
