//! Which codes the streams of a stage are open with: the one it has, and those it had before.
//!
//! - A code is what decides about what a stage's calls come to: component, config, assets and
//!   limits. It is known by the version it came with.
//! - A stream goes on to its end with the code it opened with, unless the version says
//!   `on-update = "restart"`, or calls of before could not be what they were: fewer ports, lower
//!   bounds on what they emit and keep. With `"snapshot"` it begins so, and goes over to the code
//!   of now when it can (`worker/upgrade.rs`).
//! - A version's document says what the codes before were, as long as streams of them may be open.
//!   So their components are kept, and they run again when the node starts.
//! - There are at most [`CODES_MAX`] of a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::Name;
use sluicebox_core::manifest::Reference;
use sluicebox_core::pipeline::{Delivery, OnUpdate, Pipeline, Scope, Stage, StageLimits};
use sluicebox_core::plan::Handover;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Document;
use super::restore::read_manifest;
use super::taking::DRAIN_MAX;
use crate::components::blocking;
use crate::error::Error;
use crate::mailbox::Command;
use crate::node::Node;
use crate::running::{Code, Running};

/// Codes a stage may have streams open with at one time, the one it has included.
pub(crate) const CODES_MAX: usize = 4;

/// The codes that streams of a stage may be open with.
#[derive(Debug, Clone)]
pub(crate) struct StreamCodes {
    /// The one they open with.
    pub now: u32,
    /// Those of before.
    pub before: Vec<Before>,
}

/// A code a stage had before.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    /// The version it came with.
    pub number: u32,
    /// The stage as it was.
    pub stage: Stage,
    pub code: Code,
}

impl StreamCodes {
    /// The one of streams of which it is not known.
    pub(crate) fn oldest(&self) -> u32 {
        self.before.iter().map(|before| before.number).fold(self.now, u32::min)
    }
}

/// The codes of a stage, in the document of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Written {
    now: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<WrittenBefore>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WrittenBefore {
    code: u32,
    /// A manifest of nothing but the stage.
    pub manifest: serde_json::Value,
}

impl Written {
    pub(super) fn manifests(&self) -> impl Iterator<Item = &serde_json::Value> {
        self.before.iter().map(|before| &before.manifest)
    }
}

/// What becomes of the open streams of a stage that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They go on as they are.
    Same,
    /// They go on with the code they have, which is not that of the next version: to their ends, or
    /// until they go over to it.
    Finish,
    End,
}

/// What becomes of them under the stage that is its heir.
fn fate(stage: &Stage, next: &Stage) -> Fate {
    // Code knows ports and inputs by their places in the manifest.
    let places_stay =
        next.ports.starts_with(&stage.ports) && next.inputs.starts_with(&stage.inputs);
    let finishes = next.scope == stage.scope
        && places_stay
        && allows_to_emit(&next.limits, &stage.limits)
        && next.stream.on_update != OnUpdate::Restart;
    match (comes_to_the_same(stage, next), finishes) {
        (true, _) => Fate::Same,
        (false, true) => Fate::Finish,
        (false, false) => Fate::End,
    }
}

/// Whether calls of the one come to the same as those of the other.
fn comes_to_the_same(stage: &Stage, next: &Stage) -> bool {
    next.component.digest == stage.component.digest
        && (next.scope, &next.config, &next.assets) == (stage.scope, &stage.config, &stage.assets)
        && next.ports.len() >= stage.ports.len()
        && allows(&next.limits, &stage.limits)
}

/// Whether what a call came to under the limits of before it can come to under these.
fn allows(limits: &StageLimits, before: &StageLimits) -> bool {
    let of = |limits: &StageLimits| [limits.memory, limits.fuel_per_event];
    of(limits).iter().zip(of(before)).all(|(now, before)| *now >= before)
        && allows_to_emit(limits, before)
}

/// The same of what is bounded by the stage as it is now, whatever code is called.
fn allows_to_emit(limits: &StageLimits, before: &StageLimits) -> bool {
    let of = |limits: &StageLimits| [limits.emit_bytes, limits.event_bytes, limits.state_bytes];
    of(limits).iter().zip(of(before)).all(|(now, before)| *now >= before)
}

/// The stages whose open streams end with this version. In a pipeline without a log all do.
pub(super) fn ending(old: &Running, next: &Pipeline, handover: &Handover) -> BTreeSet<String> {
    let ends = |stage: &&Stage| {
        let next = handover.heir(&stage.name).and_then(|name| {
            let at = next.stage_index(name)?;
            next.stages.get(at)
        });
        let Some(next) = next.filter(|_| old.durable().is_some()) else { return true };
        // Where the code stays, those of before go on beside it.
        fate(stage, next) == Fate::End
    };
    let stages = old.pipeline().stages.iter().filter(ends);
    stages.map(|stage| stage.name.clone()).collect()
}

/// The codes of each stage of a pipeline that begins with this version.
pub(super) fn first(pipeline: &Pipeline, version: u32) -> Vec<StreamCodes> {
    pipeline.stages.iter().map(|_| StreamCodes { now: version, before: Vec::new() }).collect()
}

/// The codes of each stage of the next version.
///
/// # Errors
/// Streams of too many codes are open.
pub(super) async fn next(
    old: &Running,
    (pipeline, version): (&Pipeline, u32),
    handover: &Handover,
) -> Result<Vec<StreamCodes>, Error> {
    let mut codes = first(pipeline, version);
    if pipeline.delivery != Delivery::ExactlyOnce {
        return Ok(codes);
    }
    let open = open_codes(old).await;
    let (runs, loaded) = (old.pipeline(), old.code());
    let ending = ending(old, pipeline, handover);
    for (codes, stage) in codes.iter_mut().zip(&pipeline.stages) {
        let Some(at) = handover.forebear(&stage.name).and_then(|name| runs.stage_index(name))
        else {
            continue;
        };
        let (was, known) = (&runs.stages[at], &old.codes()[at]);
        if stage.scope != Scope::Stream || was.scope != Scope::Stream {
            continue;
        }
        let is_same = fate(was, stage) == Fate::Same;
        if is_same {
            codes.now = known.now;
        }
        if ending.contains(&was.name) {
            continue;
        }
        // What is not known to be over is kept.
        let open = open.get(was.name.as_str());
        let is_open = |code: u32| open.is_none_or(|open| open.contains(&code));
        let before = known.before.iter().filter(|before| is_open(before.number));
        codes.before = before.cloned().collect();
        if !is_same {
            // It may be one that streams are open with.
            let again = |before: &Before| comes_to_the_same(&before.stage, stage);
            if let Some(at) = codes.before.iter().rposition(again) {
                codes.now = codes.before.remove(at).number;
            }
            let (stage, code) = (was.clone(), loaded[at].clone());
            codes.before.push(Before { number: known.now, stage, code });
        }
        if codes.before.len() >= CODES_MAX {
            return Err(too_many(old, stage));
        }
    }
    Ok(codes)
}

fn too_many(old: &Running, stage: &Stage) -> Error {
    let why = format!(
        "stage {:?} may have open streams with {CODES_MAX} different codes, which is as many as it \
         may have at one time: \
         apply again when the oldest have ended, or write on-update = \"restart\" in its `stream` \
         table to end them",
        stage.name
    );
    Error::Conflict { what: "pipeline", name: old.name().to_string(), why }
}

/// With which codes streams are open, by stage. Nothing is said of stages where that is not known.
async fn open_codes(old: &Running) -> BTreeMap<String, BTreeSet<u32>> {
    let mut open: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut asked = Vec::new();
    for mailbox in old.mailboxes().iter().flatten() {
        let (reply, answer) = oneshot::channel();
        mailbox.command(Command::Codes(reply));
        asked.push((mailbox.clone(), answer));
    }
    let mut unknown: BTreeSet<String> = BTreeSet::new();
    let until = Instant::now() + DRAIN_MAX;
    for (mailbox, answer) in asked {
        let names = mailbox.segment.stages.iter().map(|stage| stage.name.clone());
        match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(answer)) => {
                for (name, codes) in names.zip(answer) {
                    open.entry(name).or_default().extend(codes);
                }
            }
            _ => unknown.extend(names),
        }
    }
    open.retain(|name, _| !unknown.contains(name));
    open
}

/// The codes as a version's document has them.
///
/// # Errors
/// A manifest cannot be written.
pub(super) fn write(
    pipeline: &Pipeline,
    codes: &[StreamCodes],
) -> Result<BTreeMap<String, Written>, Error> {
    let mut written = BTreeMap::new();
    for (stage, codes) in pipeline.stages.iter().zip(codes) {
        let mut before = Vec::new();
        for Before { number, stage, .. } in &codes.before {
            let manifest = alone(pipeline, stage)?;
            before.push(WrittenBefore { code: *number, manifest });
        }
        written.insert(stage.name.clone(), Written { now: codes.now, before });
    }
    Ok(written)
}

/// A manifest of nothing but a stage.
fn alone(pipeline: &Pipeline, stage: &Stage) -> Result<serde_json::Value, Error> {
    let mut declaration = pipeline.declaration();
    let stage = Stage { from: None, inputs: vec!["in".to_owned()], ..stage.clone() };
    declaration.ingest.to = vec![Reference { stage: stage.name.clone(), part: None }];
    declaration.stages = BTreeMap::from([(stage.name.clone(), stage)]);
    declaration.edges.clear();
    declaration.outputs.clear();
    serde_json::from_str(&declaration.write().to_json())
        .map_err(|error| Error::Internal(format!("the manifest of a stage: {error}")))
}

/// What is written of a version, as far as the document of an earlier one says.
fn since(
    earlier: &Document,
    (pipeline, version): (&Pipeline, u32),
) -> Result<BTreeMap<String, Written>, Error> {
    let old = read_manifest(earlier.manifest.to_string().as_bytes())?;
    let mut all = BTreeMap::new();
    for stage in &pipeline.stages {
        let was = old.stage_index(&stage.name).map(|at| &old.stages[at]);
        let Some((was, written)) = was.zip(earlier.codes.get(&stage.name)) else { continue };
        let mut written = written.clone();
        if fate(was, stage) != Fate::Same {
            let manifest = alone(&old, was)?;
            written.before.push(WrittenBefore { code: written.now, manifest });
            written.now = version;
        }
        all.insert(stage.name.clone(), written);
    }
    Ok(all)
}

impl Node {
    /// The codes of a version that ran when the node was last stopped. One whose component is gone
    /// is left out: streams of it say so when something comes for them.
    ///
    /// # Errors
    /// They cannot be read or loaded now. The pipeline must not run without them: its streams would
    /// be lost.
    pub(super) async fn read_codes(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (pipeline, version): (&Pipeline, u32),
    ) -> Result<Vec<StreamCodes>, Error> {
        let mut codes = first(pipeline, version);
        let all = self.written_codes((tenant, name), (pipeline, version)).await?;
        for (codes, stage) in codes.iter_mut().zip(&pipeline.stages) {
            let Some(written) = all.get(&stage.name) else { continue };
            codes.now = written.now;
            for WrittenBefore { code: number, manifest } in &written.before {
                match self.read_code(tenant, manifest).await {
                    Ok((stage, code)) => {
                        codes.before.push(Before { number: *number, stage, code });
                    }
                    Err(error @ Error::NotFound { .. }) => tracing::error!(
                        %tenant,
                        pipeline = %name,
                        stage = stage.name,
                        "the code of open streams is gone: {error}"
                    ),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(codes)
    }

    /// What the document of the version says, or, if that is damaged, the newest before it.
    async fn written_codes(
        self: &Arc<Self>,
        (tenant, name): (&Name, &Name),
        (pipeline, version): (&Pipeline, u32),
    ) -> Result<BTreeMap<String, Written>, Error> {
        for key in self.version_keys(tenant, name).await?.into_iter().rev() {
            let number = key.last().parse::<u32>().unwrap_or(u32::MAX);
            if number > version {
                continue;
            }
            let catalog = self.catalog().clone();
            // One that is damaged was named when it was looked at first.
            let text = blocking(move || Ok(catalog.get(&key)?)).await.ok().flatten();
            let document = text.and_then(|text| serde_json::from_slice::<Document>(&text).ok());
            match document {
                Some(document) if number == version => return Ok(document.codes),
                Some(document) => return since(&document, (pipeline, version)),
                None => {}
            }
        }
        Ok(BTreeMap::new())
    }

    async fn read_code(
        self: &Arc<Self>,
        tenant: &Name,
        manifest: &serde_json::Value,
    ) -> Result<(Stage, Code), Error> {
        let none = || Error::Internal("a stored stage is none".to_owned());
        let pipeline = read_manifest(manifest.to_string().as_bytes())?;
        let code = self.load_stages(tenant, &pipeline).await?.pop().ok_or_else(none)?;
        let stage = pipeline.stages.into_iter().next().ok_or_else(none)?;
        Ok((stage, code))
    }
}
