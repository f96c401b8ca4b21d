//! Accept a pipeline: check all, then store, then switch.
//!
//! - Applying is idempotent: an equal manifest over equal components changes nothing.
//! - A version is stored before it runs. The newest [`VERSIONS_KEPT`] are kept.
//! - One apply at a time for each pipeline.

mod chance;
mod codes;
mod devices;
mod files;
mod loading;
mod moving;
mod rescale;
mod restore;
mod rings;
mod rollback;
mod switch;
mod taking;

pub(crate) use codes::StreamCodes;
pub(crate) use restore::read_manifest;
pub(crate) use rings::DeadLetters;
pub(crate) use taking::end as end_running;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicebox_core::codec::{DeleteRecord, RecordWriter, kind};
use sluicebox_core::ids::{Digest, Name};
use sluicebox_core::manifest::{Problem, Problems};
use sluicebox_core::pipeline::{self, Facts, KnownComponents, Pipeline, Stage};
use sluicebox_core::plan;
use sluicebox_core::quota::{Refused, Resource};
use sluicebox_store::key::Key;

use crate::checkpoint::Of;
use crate::cluster::{Peer, Subject};
use crate::components::{Names, blocking, now_seconds};
use crate::connectors;
use crate::error::Error;
use crate::manifest_text::{self, Format};
use crate::node::Node;
use crate::running::Running;
use switch::Next;

/// Versions of a pipeline that are kept, the running one included.
pub const VERSIONS_KEPT: usize = 20;

/// A version of a pipeline, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    version: u32,
    created: u64,
    /// The checked manifest with every default spelled out and every component's digest.
    manifest: serde_json::Value,
    /// Which codes streams may be open with, by stage. In documents of before there are none.
    #[serde(default)]
    codes: BTreeMap<String, codes::Written>,
}

/// What an apply is told besides the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Nothing is changed.
    pub dry_run: bool,
    /// Stages that run and whose state is given up, whether they stay or go.
    pub discard: BTreeSet<String>,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Applied {
    /// The pipeline.
    pub name: String,
    /// The version that runs now, or would.
    pub version: u32,
    /// It is new.
    pub created: bool,
    /// Something changed.
    pub changed: bool,
    /// The changes, a line each.
    pub changes: Vec<String>,
    /// Partitions of each segment.
    pub partitions: u16,
    /// The earlier version whose manifest it is, of a rollback.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest_of: Option<u32>,
}

/// Digests of the components and assets named in a stored version.
pub(crate) fn digests_in(text: &[u8]) -> BTreeSet<String> {
    let Ok(document) = serde_json::from_slice::<Document>(text) else { return BTreeSet::new() };
    let digest = |value: &serde_json::Value| {
        let text = value.as_str()?;
        let at = text.find("sha256:")?;
        Some(text[at..].to_owned())
    };
    let before = document.codes.values().flat_map(codes::Written::manifests);
    let mut digests = BTreeSet::new();
    for manifest in std::iter::once(&document.manifest).chain(before) {
        let stages = manifest.get("stages").and_then(serde_json::Value::as_object);
        for stage in stages.into_iter().flat_map(serde_json::Map::values) {
            let assets = stage.get("assets").and_then(serde_json::Value::as_object);
            let assets = assets.into_iter().flat_map(serde_json::Map::values);
            digests.extend(stage.get("component").into_iter().chain(assets).filter_map(digest));
        }
    }
    digests
}

impl Node {
    /// Applies a manifest, or says what applying it would do.
    ///
    /// # Errors
    /// Everything that is wrong with the manifest; a quota; a component that cannot be loaded; a
    /// running version that does not drain.
    pub async fn apply(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        text: Bytes,
        order: &Order,
    ) -> Result<Applied, Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        let applied = match self.apply_in_turn((tenant, name), &text, order).await {
            Ok((applied, elsewhere)) => {
                self.settle_device((tenant, name), applied, &elsewhere).await
            }
            Err(error) => Err(error),
        };
        // Whatever came of it: what was taken in for nothing does not stay.
        self.tidy_files(tenant).await;
        applied
    }

    /// As [`Node::apply`], for who holds the pipeline's turn. Gives the nodes, too, to which it is
    /// to be moved before it is of use.
    async fn apply_in_turn(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        text: &[u8],
        order: &Order,
    ) -> Result<(Applied, Vec<Arc<Peer>>), Error> {
        let pipeline = self.check_manifest(tenant, name, text).await?;
        self.is_awake(tenant, name)?;
        let old = self.running(tenant, name.as_str());
        if old.is_none() {
            self.may_make(tenant, name)?;
        }
        if let Some(old) = &old {
            self.may_gather(old)?;
        }
        let runs = old.as_ref().map(|old| old.pipeline());
        let diff = plan::diff(runs, &pipeline, &order.discard);
        if !diff.refused.is_empty() {
            return Err(diff.refused.into());
        }
        let mut pipeline = pipeline;
        if let Some(old) = &old {
            plan::go_on(old.pipeline(), &mut pipeline, &diff.handover);
        }
        pipeline.fix_partitions(pipeline.first_partitions(self.default_partitions()));
        let version = old.as_ref().map_or(0, |old| old.version());
        let changed = !diff.is_empty();
        let mut applied = Applied {
            name: name.to_string(),
            version,
            created: old.is_none(),
            changed,
            changes: diff.changes.iter().map(ToString::to_string).collect(),
            partitions: pipeline.partitions.unwrap_or(1),
            manifest_of: None,
        };
        if !changed {
            let elsewhere = self.still_to_move(tenant, &pipeline, order).await?;
            return Ok((applied, elsewhere));
        }
        // The catalogue may have lost what the running version knows.
        applied.version = self.next_version(tenant, name).await?.max(version + 1);
        let (version, handover) = (applied.version, diff.handover);
        self.fetch_files(tenant, &pipeline).await?;
        self.check_codes(tenant, &pipeline).await?;
        let device = self.find_device(tenant, &pipeline, old.is_none()).await?;
        let codes = match &old {
            Some(old) => codes::next(old, (&pipeline, version), &handover).await?,
            None => codes::first(&pipeline, version),
        };
        if order.dry_run {
            return Ok((applied, Vec::new()));
        }
        if old.is_none() {
            self.admit_pipeline(tenant)?;
        }
        let code = self.load_stages(tenant, &pipeline).await?;
        self.store_version((tenant, name), version, &pipeline, &codes).await?;
        // From here on they are known to be needed: what somebody tidied away before is back.
        self.fetch_files(tenant, &pipeline).await?;
        let next = Next { version, pipeline, code, codes, handover, restored: None };
        let switching = self.switch_gathered(old.as_ref(), (tenant, name), next);
        // What brings partitions home is large, and hardly ever needed.
        let switched = Box::pin(switching).await;
        if switched.is_err() {
            // Whoever applied it wants to know why it does not run, not what follows from that.
            if let Err(error) = self.forget_version(tenant, name, applied.version).await {
                tracing::warn!(%tenant, pipeline = %name, %error, "a version cannot be removed");
            }
        }
        switched.map(|()| (applied, device.elsewhere))
    }

    /// Refuses a pipeline that is there and does not run.
    fn is_awake(&self, tenant: &Name, name: &Name) -> Result<(), Error> {
        if self.dormant(tenant, name).is_none() {
            return Ok(());
        }
        Err(Error::Conflict {
            what: "pipeline",
            name: name.to_string(),
            why: "it is in the log and could not be started or deleted, the node's log says why: \
                  mend that and restart the node, or delete the pipeline"
                .to_owned(),
        })
    }

    /// Switches with all partitions at home; those that were elsewhere go back behind it.
    async fn switch_gathered(
        self: &Arc<Self>,
        old: Option<&Arc<Running>>,
        (tenant, name): (&Name, &Name),
        next: Next,
    ) -> Result<(), Error> {
        let places = match old {
            Some(old) => self.gather(old).await?,
            None => Default::default(),
        };
        let switched = self.switch(tenant, name, next).await;
        self.scatter((tenant, name), places).await;
        switched
    }

    /// Ends a pipeline and forgets its versions. What is under way is finished if it can be.
    ///
    /// # Errors
    /// There is none of this name; the store fails.
    pub async fn delete_pipeline(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<(), Error> {
        let turn = self.deploying(tenant, name);
        let _turn = turn.lock().await;
        self.delete_in_turn(tenant, name).await
    }

    /// As [`Node::delete_pipeline`], for who holds the pipeline's turn.
    async fn delete_in_turn(self: &Arc<Self>, tenant: &Name, name: &Name) -> Result<(), Error> {
        if self.running(tenant, name.as_str()).is_none()
            && let Some(to) = self.passes_to(&Subject::Pipeline(tenant.clone(), name.clone()))
        {
            return Err(Error::on_its_way(&to));
        }
        self.note_ending((tenant, name)).await?;
        // The name is taken until nothing of the pipeline is there any more.
        let _held = self.hold_name(tenant, name);
        let running = {
            // Nothing of it comes from other nodes from here on, nor is it about to.
            let running = self.running(tenant, name.as_str());
            let id = running.and_then(|running| running.durable().map(|durable| durable.id));
            let _nobody_joins = self.joining((tenant, name), id).await;
            self.take_running(tenant, name.as_str())
        };
        let dormant = self.dormant(tenant, name);
        let known = running.is_some() || dormant.is_some();
        let mut ended = None;
        if let Some(pipeline) = dormant {
            let mut writer = RecordWriter::new();
            writer.delete(&DeleteRecord { pipeline });
            self.log_and_wait(kind::DELETE, writer).await?;
            self.set_dormant(tenant, name, None);
            ended = Some(pipeline);
        }
        if let Some(running) = running {
            // Whatever is left over goes with the pipeline.
            taking::end(&running).await;
            self.bill().last_look(&running);
            if let Some(durable) = running.durable() {
                // Until the log says that it is gone it would be back after a restart. So it can
                // be deleted again if the log refuses.
                self.set_dormant(tenant, name, Some(durable.id));
                self.backing().note_gone(Of::new(tenant, durable.id));
                let mut writer = RecordWriter::new();
                writer.delete(&DeleteRecord { pipeline: durable.id });
                self.log_and_wait(kind::DELETE, writer).await?;
                self.set_dormant(tenant, name, None);
                ended = Some(durable.id);
            }
        }
        if let Some(id) = ended {
            self.forget_spread(id);
            self.drop_taken(id).await?;
            self.end_parts(id).await?;
        }
        let mut keys = self.version_keys(tenant, name).await?;
        if keys.is_empty() && !known {
            return Err(Error::not_found("pipeline", name.as_str()));
        }
        keys.push(chance::own_key(tenant, name)?);
        let catalog = self.catalog().clone();
        blocking(move || {
            for key in keys {
                catalog.delete(&key)?;
            }
            Ok(())
        })
        .await?;
        self.tidy_files(tenant).await;
        Ok(())
    }

    /// Lets halted partitions try their batch again, and parked events be tried at once.
    ///
    /// # Errors
    /// There is no such pipeline.
    pub async fn resume(self: &Arc<Self>, tenant: &Name, name: &Name) -> Result<(), Error> {
        let running = self
            .running(tenant, name.as_str())
            .ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        running.resume();
        running.metrics().resume_connectors();
        self.resume_parts(&running).await
    }

    async fn check_manifest(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        text: &[u8],
    ) -> Result<Pipeline, Error> {
        let value = manifest_text::parse(text, Format::of_text(text))?;
        let build = |known: Names| {
            let components = KnownComponents { names: known.components, digests: known.digests };
            let facts = Facts { components: Some(components), assets: Some(known.assets) };
            pipeline::build(&value, &facts)
        };
        // What it names by digests may all be here; names are known at the tenant's home.
        let pipeline = match build(self.components_of().names(tenant).await?) {
            Ok(pipeline) => pipeline,
            Err(problems) => match self.names_at_home(tenant).await? {
                Some(names) => build(names)?,
                None => return Err(problems.into()),
            },
        };
        if pipeline.name != name.as_str() {
            let message = format!("is {:?}, and was applied as {:?}", pipeline.name, name.as_str());
            let mut problems = Problems::new();
            let fix = "write the same name in the manifest and in the path";
            problems.add(Problem::new("name", "manifest.name", message, fix));
            return Err(problems.into());
        }
        connectors::check(self, tenant, &pipeline)?;
        Ok(pipeline)
    }

    pub(crate) fn admit_pipeline(&self, tenant: &Name) -> Result<(), Error> {
        let limit = self.allowance(tenant).limit(Resource::Pipelines);
        let (own, all) = self.count_pipelines(tenant);
        if own as u64 >= limit {
            let resource = Resource::Pipelines;
            return Err(Refused { resource, limit, retry_after_micros: None }.into());
        }
        if all >= self.config().limits.pipelines_max {
            let what = "another pipeline";
            return Err(Error::Overloaded { what, retry_after: Duration::from_secs(60) });
        }
        Ok(())
    }

    async fn store_version(
        &self,
        (tenant, name): (&Name, &Name),
        version: u32,
        pipeline: &Pipeline,
        codes: &[StreamCodes],
    ) -> Result<(), Error> {
        let manifest = pipeline.declaration().write().to_json();
        let manifest = serde_json::from_str(&manifest)
            .map_err(|error| Error::Internal(format!("manifest as JSON: {error}")))?;
        let codes = codes::write(pipeline, codes)?;
        let document = Document { version, created: now_seconds(), manifest, codes };
        let text = serde_json::to_vec(&document)
            .map_err(|error| Error::Internal(format!("stored version: {error}")))?;
        let key = version_key(tenant, name, version)?;
        let mut kept = self.version_keys(tenant, name).await?;
        kept.truncate((kept.len() + 1).saturating_sub(VERSIONS_KEPT));
        let catalog = self.catalog().clone();
        blocking(move || {
            catalog.create(&key, &text)?;
            for old in kept {
                catalog.delete(&old)?;
            }
            Ok(())
        })
        .await
    }

    async fn forget_version(&self, tenant: &Name, name: &Name, version: u32) -> Result<(), Error> {
        let (catalog, key) = (self.catalog().clone(), version_key(tenant, name, version)?);
        blocking(move || Ok(catalog.delete(&key)?)).await.map(|_| ())
    }

    async fn next_version(&self, tenant: &Name, name: &Name) -> Result<u32, Error> {
        let keys = self.version_keys(tenant, name).await?;
        let last = keys.last().and_then(|key| key.last().parse::<u32>().ok());
        Ok(last.unwrap_or(0) + 1)
    }

    /// Stored versions, oldest first.
    pub(crate) async fn version_keys(&self, tenant: &Name, name: &Name) -> Result<Vec<Key>, Error> {
        let under = Key::of(&["tenants", tenant.as_str(), "pipelines", name.as_str()])?;
        let catalog = self.catalog().clone();
        blocking(move || Ok(catalog.list(Some(&under))?)).await
    }
}

/// Name of the ring of dead letters among the outputs.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

fn version_key(tenant: &Name, name: &Name, version: u32) -> Result<Key, Error> {
    // As wide as any number, so that the order of keys is that of versions.
    let version = format!("{version:010}");
    Ok(Key::of(&["tenants", tenant.as_str(), "pipelines", name.as_str(), &version])?)
}

fn digest_of(stage: &Stage) -> Result<Digest, Error> {
    let digest = stage.component.digest.as_deref().and_then(Digest::parse);
    digest.ok_or_else(|| Error::not_found("component", &stage.component.to_string()))
}

/// A number nobody outside can know.
pub(crate) fn secret_number() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn fill_random(out: &mut [u8]) -> Result<(), Error> {
    let mut filled = 0;
    while filled < out.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut out[filled..], flags)
            .map_err(|error| Error::Internal(format!("no randomness from the system: {error}")))?;
    }
    Ok(())
}
