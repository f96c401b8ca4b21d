//! Components and assets where a tenant's files have one home and its pipelines others.
//!
//! Which tenants have files here, what names stand for, and taking in what a pipeline needs here
//! and another node has. Who asks whom: `deploy/files.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicebox_core::ids::{Digest, Name};
use sluicebox_engine::component;
use sluicebox_store::key::Key;

use super::{Components, blocking};
use crate::error::Error;
use crate::mailbox::lock;

/// What the manifests of a tenant may refer to, as nodes tell each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Names {
    /// Digests, by name.
    pub(crate) components: BTreeMap<String, String>,
    /// Digests of components that are kept, whatever they are called.
    pub(crate) digests: BTreeSet<String>,
    /// Digests of assets.
    pub(crate) assets: BTreeSet<String>,
}

impl Names {
    /// Knows what another node knows as well; of a name, what that says.
    pub(crate) fn join(&mut self, other: Self) {
        self.components.extend(other.components);
        self.digests.extend(other.digests);
        self.assets.extend(other.assets);
    }
}

/// Files of tenants, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Components,
    Assets,
}

impl Files {
    /// What they are called in keys and paths.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Components => "components-data",
            Self::Assets => "assets",
        }
    }

    /// The same of those that were taken in from the tenant's home. Of components, names say which
    /// those are.
    pub(super) const fn word_taken_in(self) -> &'static str {
        match self {
            Self::Components => "components-data",
            Self::Assets => "assets-taken-in",
        }
    }

    pub(crate) fn of_word(word: &str) -> Option<Self> {
        [Self::Components, Self::Assets].into_iter().find(|files| files.word() == word)
    }
}

impl Components {
    /// Finds out which tenants have something here.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn count_tenants(&self) -> Result<(), Error> {
        let keys = self.catalog.list(Some(&Key::of(&["tenants"])?))?;
        let of_files = keys.iter().filter_map(|key| {
            let mut segments = key.segments().skip(1);
            let tenant = segments.next()?;
            let kind = segments.next()?;
            matches!(kind, "components" | "assets").then(|| Name::new(tenant).ok())?
        });
        lock(&self.tenants).0 = of_files.collect();
        Ok(())
    }

    /// The tenant has components or assets here.
    pub(crate) fn has_any(&self, tenant: &Name) -> bool {
        lock(&self.tenants).0.contains(tenant)
    }

    /// Tenants that have.
    pub(crate) fn tenants(&self) -> BTreeSet<Name> {
        lock(&self.tenants).0.clone()
    }

    /// How often that changed.
    pub(crate) fn changes(&self) -> u64 {
        lock(&self.tenants).1
    }

    /// Notes whether a tenant has something here.
    pub(super) fn note(&self, tenant: &Name, has: bool) {
        let mut tenants = lock(&self.tenants);
        let is_news = if has { tenants.0.insert(tenant.clone()) } else { tenants.0.remove(tenant) };
        tenants.1 += u64::from(is_news);
    }

    /// Takes in a file that another node has, for a pipeline that needs it here.
    ///
    /// # Errors
    /// It is not what it should be, or over the quota `bytes_max`; it cannot be compiled; the store
    /// fails.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        tenant: &Name,
        (files, digest): (Files, &Digest),
        bytes: Bytes,
        bytes_max: u64,
    ) -> Result<(), Error> {
        let this = self.clone();
        let (wasm, expected) = (bytes.clone(), *digest);
        blocking(move || {
            if component::digest(&wasm) != expected {
                let why = format!("a node sent other bytes than those of {expected}");
                return Err(Error::Internal(why));
            }
            if files == Files::Components {
                component::inspect(&wasm, &this.limits)?;
            }
            Ok(())
        })
        .await?;
        if files == Files::Components {
            self.compiled(digest, bytes.clone()).await?;
        }
        let (this, tenant, digest) = (self.clone(), tenant.clone(), *digest);
        blocking(move || {
            let _one = lock(&this.quota);
            this.admit(&tenant, &digest, bytes.len() as u64, bytes_max)?;
            this.store_blob(&tenant, (files.word_taken_in(), &digest), &bytes)
        })
        .await
    }

    /// Whether a file of a tenant is here, whoever brought it. Waits for who tidies up.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn has_file(
        self: &Arc<Self>,
        tenant: &Name,
        (files, digest): (Files, &Digest),
    ) -> Result<bool, Error> {
        let (this, tenant, digest) = (self.clone(), tenant.clone(), *digest);
        blocking(move || {
            let _one = lock(&this.quota);
            for kind in [files.word(), files.word_taken_in()] {
                let under = Key::of(&["tenants", tenant.as_str(), kind])?;
                let keys = this.catalog.list(Some(&under))?;
                if keys.iter().any(|key| key.last() == digest.hex()) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Largest file there can be.
    pub(crate) fn file_bytes_max(&self) -> usize {
        usize::try_from(self.limits.bytes_max).unwrap_or(usize::MAX)
    }

    /// Removes what was taken in for pipelines that do not need it any more.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn tidy(self: &Arc<Self>, tenant: &Name) -> Result<(), Error> {
        let (this, tenant) = (self.clone(), tenant.clone());
        blocking(move || {
            let _one = lock(&this.quota);
            this.sweep_blobs(&tenant)
        })
        .await
    }
}
