//! The components and assets of a node's tenants, within their quotas.

use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;

use super::Node;
use crate::components::{AssetInfo, ComponentInfo};
use crate::error::Error;

impl Node {
    /// Takes a component in. Says as well whether its name stood for something else before, or for
    /// nothing.
    ///
    /// # Errors
    /// It is none that can be run here, or over the quota.
    pub async fn push_component(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        bytes: Bytes,
    ) -> Result<(ComponentInfo, bool), Error> {
        let most = self.allowance(tenant).limit(Resource::Components);
        self.components.push(tenant, name, bytes, most).await
    }

    /// Takes an asset in.
    ///
    /// # Errors
    /// Over the quota.
    pub async fn push_asset(
        self: &Arc<Self>,
        tenant: &Name,
        bytes: Bytes,
    ) -> Result<AssetInfo, Error> {
        let most = self.allowance(tenant).limit(Resource::Components);
        self.components.push_asset(tenant, bytes, most).await
    }

    /// A tenant's components.
    ///
    /// # Errors
    /// The store fails.
    pub async fn components(self: &Arc<Self>, tenant: &Name) -> Result<Vec<ComponentInfo>, Error> {
        self.components.list(tenant).await
    }

    /// Forgets a component.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn delete_component(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<(), Error> {
        self.components.delete(tenant, name).await
    }
}
