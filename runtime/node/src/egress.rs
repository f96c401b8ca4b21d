//! What the node connects to on behalf of tenants: the check of names and addresses, the one way
//! to a connection, and the HTTP requests of stages, which are the engine's port.
//!
//! ```text
//! sink ───────────────► target ─► reach (name) ─► connect: look up ─► reach (address) ─► TLS
//! stage ─► exchange ──► target ─► manifest, reach ─► idle, or connect as above
//! ```
//!
//! - Nothing is reached unless the operator allowed it; a stage reaches besides only what its
//!   manifest lists. The address that was looked at is the one that is connected to.
//! - Redirects are answers like others: whoever follows one makes another request.
//! - Requests of stages run on no worker: connections, names and TLS have a thread of their own,
//!   which is started with the first stage that may make any. A call that waits for an answer is a
//!   future that waits.
//! - Everything is bounded: requests under way and waiting, connections, time, heads and bodies.
//!
//! Leaves to others: what guests see (`engine/host/http.rs`), what sinks send (`connectors`).

mod body;
pub(crate) mod connect;
mod exchange;
mod idle;
pub(crate) mod reach;
pub(crate) mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustls::ClientConfig;
use sluicebox_core::ids::Name;
use sluicebox_core::origin::Origin;
use sluicebox_core::pipeline::HttpGrant;
use sluicebox_engine::http::Http;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

use crate::components::blocking;
use crate::config::Config;
use crate::error::Error;
use crate::mailbox::lock;
use crate::metrics::{PipelineMetrics, StageMetrics};

use exchange::{Granted, Stage};
pub use reach::Network;
use reach::Reach;

/// Threads that look up names; each look-up has one.
const LOOKUPS_MAX: usize = 64;

/// Names of a tenant's stages that are looked up at once.
const LOOKUPS_OF_TENANT: usize = 8;

/// A tenant has one of so many parts of the node's connections.
const PARTS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Egress {
    connections: Arc<Semaphore>,
    connections_max: usize,
    tenants: Mutex<BTreeMap<Name, Weak<Share>>>,
    authorities: PathBuf,
    /// Started when it is first wanted.
    runtime: Mutex<Option<Runtime>>,
}

/// What all stages of a tenant have together.
#[derive(Debug)]
struct Share {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

/// Whose certificates a stage believes; nobody's if there is no file of authorities.
#[derive(Clone)]
struct Trust(Option<Arc<ClientConfig>>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trust").field(&self.0.is_some()).finish()
    }
}

impl Egress {
    pub(crate) fn new(config: &Config) -> Self {
        let connections_max = config.connectors.connections_max;
        Self {
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            tenants: Mutex::default(),
            authorities: config.connectors.authorities.clone(),
            runtime: Mutex::default(),
        }
    }

    /// What a stage has of it, if it may reach anything at all. Its figures are kept for as long.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub(crate) async fn stage(
        &self,
        (tenant, reach): (&Name, Reach),
        grant: &HttpGrant,
        figures: (Arc<PipelineMetrics>, Arc<StageMetrics>),
    ) -> Result<Option<Arc<dyn Http>>, Error> {
        if !grant.allow.iter().any(|origin| reach.covers(origin)) {
            return Ok(None);
        }
        let trust = match grant.allow.iter().any(Origin::tls) {
            true => self.trust().await?,
            false => Trust(None),
        };
        let handle = self.handle()?;
        let share = self.share_of(tenant);
        let connections = self.connections.clone();
        let stage = Stage::new((handle, connections, share), (reach, trust), grant, figures);
        Ok(Some(Arc::new(Granted(Arc::new(stage)))))
    }

    /// Read each time, so that a version that is applied takes another file up.
    async fn trust(&self) -> Result<Trust, Error> {
        let file = self.authorities.clone();
        let read = blocking(move || Ok(connect::trusting(&file))).await?;
        Ok(Trust(match read {
            Ok(trust) => Some(Arc::new(trust)),
            Err(why) => {
                let file: &Path = &self.authorities;
                tracing::warn!(file = %file.display(), why, "no stage can use TLS");
                None
            }
        }))
    }

    fn share_of(&self, tenant: &Name) -> Arc<Share> {
        let mut tenants = lock(&self.tenants);
        tenants.retain(|_, known| known.strong_count() > 0);
        let known = tenants.entry(tenant.clone()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let share = Arc::new(Share {
                connections: Arc::new(Semaphore::new(self.connections_max.div_ceil(PARTS))),
                lookups: Arc::new(Semaphore::new(LOOKUPS_OF_TENANT)),
            });
            *known = Arc::downgrade(&share);
            share
        })
    }

    fn handle(&self) -> Result<Handle, Error> {
        let mut runtime = lock(&self.runtime);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(LOOKUPS_MAX)
            .thread_name("egress")
            .enable_all()
            .build();
        let doing = "start the thread of requests to the outside".to_owned();
        let started = started.map_err(|source| Error::Io { doing, source })?;
        let handle = started.handle().clone();
        *runtime = Some(started);
        Ok(handle)
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // Nobody waits for what it may still be at.
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}
