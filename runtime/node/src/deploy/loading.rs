//! What the stages of a pipeline run with: whether their code fits the manifest, then code,
//! settings and what they are granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicebox_core::ids::{Digest, Name};
use sluicebox_core::manifest::{Problem, Problems};
use sluicebox_core::pipeline::{OnUpdate, Pipeline, Scope, Stage};
use sluicebox_engine::gpu::Gpu;
use sluicebox_engine::stage::{Buckets, StageCode, StageSettings};

use super::digest_of;
use crate::components::blocking;
use crate::egress::reach::Reach;
use crate::error::Error;
use crate::gpu::{Admitted, Granted, Hashes};
use crate::metrics::{PipelineMetrics, StageMetrics};
use crate::node::Node;

impl Node {
    /// Stages have code that does, and may do, what the manifest says of them.
    pub(super) async fn check_codes(
        self: &Arc<Self>,
        tenant: &Name,
        pipeline: &Pipeline,
    ) -> Result<(), Error> {
        let mut problems = Problems::new();
        for stage in &pipeline.stages {
            let code = self.components_of().code(tenant, &digest_of(stage)?).await?;
            if let Some(problem) = misfit(stage, &code) {
                problems.add(problem);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
    }

    /// There is a device if the pipeline needs one, and it is not promised to others.
    pub(super) async fn admit_gpu(
        &self,
        tenant: &Name,
        pipeline: &Pipeline,
    ) -> Result<Option<Admitted>, Error> {
        if !pipeline.needs_gpu() {
            return Ok(None);
        }
        Ok(Some(self.gpus().admit(tenant, self.gpu_terms(tenant)).await?))
    }

    /// Code and settings for each stage.
    pub(super) async fn load_stages(
        self: &Arc<Self>,
        tenant: &Name,
        pipeline: &Pipeline,
    ) -> Result<Vec<(Arc<StageCode>, Arc<StageSettings>)>, Error> {
        let secret = self.chance_of(tenant, pipeline).await?;
        let mut loaded = Vec::new();
        for stage in &pipeline.stages {
            let digest = digest_of(stage)?;
            let code = self.components_of().code(tenant, &digest).await?;
            let mut assets = BTreeMap::new();
            for (name, digest) in &stage.assets {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| Error::Internal(format!("asset digest {digest:?}")))?;
                assets.insert(name.clone(), self.components_of().asset(tenant, &digest).await?);
            }
            let mut gpu: Option<Arc<dyn Gpu>> = None;
            if let Some(grant) = &stage.grants.gpu {
                let all = assets.clone();
                let hashes = blocking(move || Ok(Hashes::of(&all))).await?;
                let (whose, what) =
                    ((tenant, self.gpu_terms(tenant)), (&*pipeline.name, &*stage.name));
                gpu = Some(Arc::new(Granted(self.gpus().stage(whose, what, grant, hashes))));
            }
            let mut http = None;
            if let Some(grant) = &stage.grants.http {
                let figures = self.figures(tenant, pipeline, stage)?;
                let reach = Reach::new(&self.config().connectors, tenant, self.dev_mode());
                http = self.egress().stage((tenant, reach), grant, figures).await?;
            }
            let settings = StageSettings {
                limits: stage.limits,
                config: stage.config.clone(),
                assets,
                gpu,
                buckets: Buckets {
                    names: stage.grants.buckets.clone(),
                    one_key: stage.scope != Scope::Shared,
                },
                http,
                secret,
                live: Default::default(),
                away: Default::default(),
                memory: Default::default(),
                tenant: self.tenancy(tenant).slots().clone(),
                fresh: Default::default(),
            };
            loaded.push((code, Arc::new(settings)));
        }
        Ok(loaded)
    }

    /// Where requests of a stage are counted.
    fn figures(
        &self,
        tenant: &Name,
        pipeline: &Pipeline,
        stage: &Stage,
    ) -> Result<(Arc<PipelineMetrics>, Arc<StageMetrics>), Error> {
        let name = Name::new(&pipeline.name);
        let name = name.map_err(|error| Error::Internal(error.to_string()))?;
        let pipeline = self.metrics().pipeline(tenant, &name);
        let stage = pipeline.stage(&stage.name);
        Ok((pipeline, stage))
    }

    /// What a tenant has of the GPU.
    pub(crate) fn gpu_terms(&self, tenant: &Name) -> sluicebox_gpu::wire::Terms {
        let tenants = self.tenants().current();
        self.gpus().terms(tenants.tenant(tenant).map(|known| &known.gpu))
    }
}

/// What does not fit between a stage and its code.
fn misfit(stage: &Stage, code: &StageCode) -> Option<Problem> {
    let goes_over = stage.scope == Scope::Stream && stage.stream.on_update == OnUpdate::Snapshot;
    if goes_over && !code.snapshots() {
        let field = format!("stages.{}.stream.on-update", stage.name);
        let message = "is \"snapshot\", and the component does not export \
                       `sluicebox:stage/snapshot@0.1.0`";
        let fix = "build it with snapshots, or write \"finish\" or \"restart\"";
        return Some(Problem::new(field, "pipeline.no-snapshots", message, fix));
    }
    if code.wants().gpu && stage.grants.gpu.is_none() {
        let field = format!("stages.{}.grants.gpu", stage.name);
        let message = "is missing, and the component imports `sluicebox:gpu`";
        let fix = "write grants = { gpu = {} }, or take a component that does without";
        return Some(Problem::new(field, "pipeline.no-grant", message, fix));
    }
    if code.wants().keyvalue && stage.grants.buckets.is_empty() {
        let field = format!("stages.{}.grants.keyvalue", stage.name);
        let message = "is missing, and the component imports `wasi:keyvalue`";
        let fix = "write grants = { keyvalue = { buckets = [\"…\"] } } with the names it opens, or \
                   take a component that does without";
        return Some(Problem::new(field, "pipeline.no-grant", message, fix));
    }
    if code.wants().http && stage.grants.http.is_none() {
        let field = format!("stages.{}.grants.http", stage.name);
        let message = "is missing, and the component imports `wasi:http`";
        let fix = "write grants = { http = { allow = [\"https://…\"] } } with the places it makes \
                   requests to, or build it without: the tools of some languages import it unasked";
        return Some(Problem::new(field, "pipeline.no-grant", message, fix));
    }
    None
}
