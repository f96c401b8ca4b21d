//! The components and assets of a node's tenants, within their quotas.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;
use sluicebox_engine::compile::{CompileLimits, CompilerConfig};

use super::{COMPILE_ARGUMENT, Node};
use crate::components::{AssetInfo, ComponentInfo};
use crate::config::Config;
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

/// What a component is compiled with.
pub(super) fn compiler_config(config: &Config, program: PathBuf) -> CompilerConfig {
    let engine = &config.engine;
    let limits = CompileLimits {
        memory_bytes: engine.compile_memory_bytes_max as u64,
        cpu_seconds: engine.compile_cpu_max.as_secs().max(1),
        wall: engine.compile_time_max,
        output_bytes_max: engine.compile_output_bytes_max as u64,
        ..CompileLimits::default()
    };
    CompilerConfig {
        program,
        args: vec![COMPILE_ARGUMENT.to_owned()],
        limits,
        parallel: engine.compile_processes.into(),
        waiting: engine.compile_waiting_max.into(),
    }
}
