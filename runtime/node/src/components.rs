//! Components and assets of tenants: check all, then compile, then store, then name.
//!
//! - A name is only ever put on bytes that were inspected, compiled and stored; a push that fails
//!   on the way changes nothing a user can see.
//! - Bytes are kept for each tenant apart: whether another tenant has the same component cannot be
//!   told.
//! - Compiled code is shared: it depends on nothing but the bytes, and holds no data.

mod apart;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use sluicebox_core::ids::{Digest, Name};
use sluicebox_core::quota::{Refused, Resource};
use sluicebox_engine::artefact::Artefacts;
use sluicebox_engine::compile::Compiler;
use sluicebox_engine::component::{self, Limits, World};
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::StageCode;
use sluicebox_store::catalog::Catalog;
use sluicebox_store::key::Key;

use crate::error::Error;
use crate::mailbox::lock;
pub(crate) use apart::{Files, Names};

/// What is known of a component under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentInfo {
    /// The name it was pushed under.
    pub name: String,
    /// `sha256:` and 64 hex digits, of the bytes that were pushed.
    pub digest: String,
    /// Size of what was pushed.
    pub bytes: u64,
    /// `stage` or `stage-typed`.
    pub world: String,
    /// It exports `sluicebox:stage/snapshot`: open streams can go over to it, and from it.
    #[serde(default)]
    pub snapshots: bool,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// When it was pushed, seconds since 1970.
    pub created: u64,
}

/// An asset that was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssetInfo {
    /// What a manifest calls it by.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

/// See the module.
pub(crate) struct Components {
    catalog: Arc<dyn Catalog>,
    artefacts: Arc<Artefacts>,
    compiler: Compiler,
    sandbox: Arc<Sandbox>,
    limits: Limits,
    /// Linked code in use by some pipeline.
    linked: DashMap<Digest, Weak<StageCode>>,
    /// Taken for the moment in which a quota is looked at and used.
    quota: Mutex<()>,
    /// Tenants that have components or assets here, and how often that changed.
    tenants: Mutex<(BTreeSet<Name>, u64)>,
}

impl std::fmt::Debug for Components {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Components").field("linked", &self.linked.len()).finish_non_exhaustive()
    }
}

impl Components {
    pub(crate) fn new(
        catalog: Arc<dyn Catalog>,
        artefacts: Arc<Artefacts>,
        compiler: Compiler,
        sandbox: Arc<Sandbox>,
        limits: Limits,
    ) -> Self {
        let (linked, quota, tenants) = Default::default();
        Self { catalog, artefacts, compiler, sandbox, limits, linked, quota, tenants }
    }

    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Takes a component in under a name, in place of the one that had it. Says as well whether the
    /// name stood for something else before, or for nothing.
    pub(crate) async fn push(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        bytes: Bytes,
        bytes_max: u64,
    ) -> Result<(ComponentInfo, bool), Error> {
        let this = self.clone();
        let wasm = bytes.clone();
        let inspected = blocking(move || Ok(component::inspect(&wasm, &this.limits)?)).await?;
        self.compiled(&inspected.digest, bytes.clone()).await?;
        // Types of imported functions are compared only when code is linked.
        drop(self.load(&inspected.digest).await?);
        let info = ComponentInfo {
            name: name.to_string(),
            digest: inspected.digest.to_string(),
            bytes: inspected.bytes,
            world: match inspected.world {
                World::Framed => "stage".to_owned(),
                World::Typed => "stage-typed".to_owned(),
            },
            snapshots: inspected.snapshots,
            imports: inspected.imports.into_iter().filter(|name| name.contains('/')).collect(),
            created: now_seconds(),
        };
        let (this, tenant) = (self.clone(), tenant.clone());
        let digest = inspected.digest;
        blocking(move || {
            let _one = lock(&this.quota);
            this.admit(&tenant, &digest, bytes.len() as u64, bytes_max)?;
            this.store_blob(&tenant, (Files::Components.word(), &digest), &bytes)?;
            let text = serde_json::to_vec(&info)
                .map_err(|error| Error::Internal(format!("component document: {error}")))?;
            let key = component_key(&tenant, &info.name)?;
            let before = this.catalog.get(&key)?;
            let before = before.and_then(|text| serde_json::from_slice(&text).ok());
            let same = before.is_some_and(|before: ComponentInfo| before.digest == info.digest);
            this.catalog.replace(&key, &text)?;
            this.note(&tenant, true);
            this.sweep_blobs(&tenant)?;
            Ok((info, !same))
        })
        .await
    }

    /// Takes an asset in.
    pub(crate) async fn push_asset(
        self: &Arc<Self>,
        tenant: &Name,
        bytes: Bytes,
        bytes_max: u64,
    ) -> Result<AssetInfo, Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        blocking(move || {
            let digest = component::digest(&bytes);
            let _one = lock(&this.quota);
            this.admit(&tenant, &digest, bytes.len() as u64, bytes_max)?;
            this.store_blob(&tenant, (Files::Assets.word(), &digest), &bytes)?;
            this.note(&tenant, true);
            Ok(AssetInfo { digest: digest.to_string(), bytes: bytes.len() as u64 })
        })
        .await
    }

    /// The tenant's components, by name.
    pub(crate) async fn list(self: &Arc<Self>, tenant: &Name) -> Result<Vec<ComponentInfo>, Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        blocking(move || this.list_now(&tenant)).await
    }

    /// Forgets a name, and the bytes if no other name stands for them.
    pub(crate) async fn delete(self: &Arc<Self>, tenant: &Name, name: &Name) -> Result<(), Error> {
        let (this, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        blocking(move || {
            let _one = lock(&this.quota);
            if !this.catalog.delete(&component_key(&tenant, name.as_str())?)? {
                return Err(Error::not_found("component", name.as_str()));
            }
            let assets = Key::of(&["tenants", tenant.as_str(), Files::Assets.word()])?;
            let none_left = this.list_now(&tenant)?.is_empty();
            if none_left && this.catalog.list(Some(&assets))?.is_empty() {
                this.note(&tenant, false);
            }
            this.sweep_blobs(&tenant)
        })
        .await
    }

    /// What a manifest of this tenant may refer to, of what is here.
    pub(crate) async fn names(self: &Arc<Self>, tenant: &Name) -> Result<Names, Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        blocking(move || {
            let components = this.list_now(&tenant)?;
            let digests = |files: Files| {
                let mut all = BTreeSet::new();
                for kind in [files.word(), files.word_taken_in()] {
                    let under = Key::of(&["tenants", tenant.as_str(), kind])?;
                    let keys = this.catalog.list(Some(&under))?;
                    all.extend(keys.iter().map(|key| format!("sha256:{}", key.last())));
                }
                Ok::<_, Error>(all)
            };
            Ok(Names {
                components: components.into_iter().map(|info| (info.name, info.digest)).collect(),
                // Versions that are kept have their components kept, whatever names stand for now.
                digests: digests(Files::Components)?,
                assets: digests(Files::Assets)?,
            })
        })
        .await
    }

    /// A file of a tenant, if it is here.
    pub(crate) async fn file(
        self: &Arc<Self>,
        tenant: &Name,
        files: Files,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Error> {
        let this = self.clone();
        let keys = [files.word(), files.word_taken_in()];
        let keys = keys.map(|kind| blob_key(tenant, kind, digest));
        blocking(move || {
            for key in keys {
                if let Some(file) = this.catalog.get(&key?)? {
                    return Ok(Some(file));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The linked code of one of the tenant's components; compiles it if the artefact is gone.
    pub(crate) async fn code(
        self: &Arc<Self>,
        tenant: &Name,
        digest: &Digest,
    ) -> Result<Arc<StageCode>, Error> {
        if let Some(code) = self.linked.get(digest).and_then(|code| code.upgrade()) {
            return Ok(code);
        }
        let found = self.load(digest).await?;
        let code = match found {
            Some(code) => code,
            None => {
                let bytes = self.file(tenant, Files::Components, digest).await?;
                let bytes =
                    bytes.ok_or_else(|| Error::not_found("component", &digest.to_string()))?;
                self.compiled(digest, bytes).await?;
                let again = self.load(digest).await?;
                again.ok_or_else(|| Error::Internal("an artefact vanished".to_owned()))?
            }
        };
        let code = Arc::new(code);
        self.linked.retain(|_, code| code.strong_count() > 0);
        self.linked.insert(*digest, Arc::downgrade(&code));
        Ok(code)
    }

    /// The bytes of one of the tenant's assets.
    pub(crate) async fn asset(
        self: &Arc<Self>,
        tenant: &Name,
        digest: &Digest,
    ) -> Result<Bytes, Error> {
        let found = self.file(tenant, Files::Assets, digest).await?;
        found.ok_or_else(|| Error::not_found("asset", &digest.to_string()))
    }

    /// Loads and links the artefact, if there is one.
    async fn load(self: &Arc<Self>, digest: &Digest) -> Result<Option<StageCode>, Error> {
        let (this, digest) = (self.clone(), *digest);
        blocking(move || {
            let component = this.artefacts.load(&digest)?;
            Ok(component.map(|loaded| StageCode::link(&this.sandbox, &loaded)).transpose()?)
        })
        .await
    }

    /// Makes sure there is an artefact.
    async fn compiled(self: &Arc<Self>, digest: &Digest, wasm: Bytes) -> Result<(), Error> {
        if self.artefacts.has(digest) {
            return Ok(());
        }
        let code = self.compiler.compile(wasm).await?;
        let (this, digest) = (self.clone(), *digest);
        blocking(move || Ok(this.artefacts.keep(&digest, &code)?)).await
    }

    fn store_blob(
        &self,
        tenant: &Name,
        (kind, digest): (&str, &Digest),
        bytes: &[u8],
    ) -> Result<(), Error> {
        match self.catalog.create(&blob_key(tenant, kind, digest)?, bytes) {
            // The same bytes, by their digest.
            Ok(()) | Err(sluicebox_store::error::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn list_now(&self, tenant: &Name) -> Result<Vec<ComponentInfo>, Error> {
        let under = Key::of(&["tenants", tenant.as_str(), "components"])?;
        let mut list = Vec::new();
        for key in self.catalog.list(Some(&under))? {
            let Some(text) = self.catalog.get(&key)? else { continue };
            let info = serde_json::from_slice(&text)
                .map_err(|error| Error::Internal(format!("{}: {error}", key.as_str())))?;
            list.push(info);
        }
        Ok(list)
    }

    /// Refuses bytes beyond the tenant's quota.
    fn admit(
        &self,
        tenant: &Name,
        digest: &Digest,
        bytes: u64,
        bytes_max: u64,
    ) -> Result<(), Error> {
        let mut used = 0;
        let (components, assets) = (Files::Components, Files::Assets);
        for kind in [components.word(), assets.word(), assets.word_taken_in()] {
            let under = Key::of(&["tenants", tenant.as_str(), kind])?;
            for key in self.catalog.list(Some(&under))? {
                if key.last() != digest.hex() {
                    used += self.catalog.get(&key)?.map_or(0, |blob| blob.len() as u64);
                }
            }
        }
        if used.saturating_add(bytes) > bytes_max {
            let resource = Resource::Components;
            return Err(Refused { resource, limit: bytes_max, retry_after_micros: None }.into());
        }
        Ok(())
    }

    /// Removes the bytes no name stands for. A pipeline that runs them keeps its code; one that is
    /// applied again needs the component pushed again, and says so.
    fn sweep_blobs(&self, tenant: &Name) -> Result<(), Error> {
        let named: BTreeSet<String> =
            self.list_now(tenant)?.into_iter().map(|info| info.digest).collect();
        let used = self.used_by_pipelines(tenant)?;
        let under = Key::of(&["tenants", tenant.as_str(), Files::Components.word()])?;
        for key in self.catalog.list(Some(&under))? {
            let digest = format!("sha256:{}", key.last());
            if !named.contains(&digest) && !used.contains(&digest) {
                self.catalog.delete(&key)?;
            }
        }
        let under = Key::of(&["tenants", tenant.as_str(), Files::Assets.word_taken_in()])?;
        for key in self.catalog.list(Some(&under))? {
            if !used.contains(&format!("sha256:{}", key.last())) {
                self.catalog.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Digests in the kept versions of the tenant's pipelines.
    fn used_by_pipelines(&self, tenant: &Name) -> Result<BTreeSet<String>, Error> {
        let mut used = BTreeSet::new();
        let under = Key::of(&["tenants", tenant.as_str(), "pipelines"])?;
        for key in self.catalog.list(Some(&under))? {
            if let Some(text) = self.catalog.get(&key)? {
                used.extend(crate::deploy::digests_in(&text));
            }
        }
        Ok(used)
    }
}

fn component_key(tenant: &Name, name: &str) -> Result<Key, Error> {
    Ok(Key::of(&["tenants", tenant.as_str(), "components", name])?)
}

fn blob_key(tenant: &Name, kind: &str, digest: &Digest) -> Result<Key, Error> {
    Ok(Key::of(&["tenants", tenant.as_str(), kind, &digest.hex()])?)
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Runs something that reads files or computes for long where it holds nobody up.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Internal(format!("a background task ended early: {error}"))),
    }
}
