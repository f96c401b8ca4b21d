//! One version in the place of another.
//!
//! The version that runs is taken to rest (`taking`); in a pipeline with a log the next one is then
//! a record of it, and from there on the one that runs, whatever happens. Ingest sees a pause, not
//! an error, if it is short.

use std::sync::Arc;

use sluicebox_core::codec::{ApplyRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, StageId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::pipeline::{Delivery as Promise, Pipeline};
use sluicebox_core::plan::Handover;
use sluicebox_core::recovery::{Folded, Standing};
use sluicebox_core::segment;
use sluicebox_engine::stage::{StageCode, StageSettings};
use sluicebox_store::log::{Health, Refusal};

use super::DEAD_LETTERS;
use super::rings::{Rings, Tails, check_size};
use super::taking::{Heir, Taken, hand_over, take_over};
use crate::durable::{Durable, refused};
use crate::error::Error;
use crate::mailbox::States;
use crate::node::Node;
use crate::running::{Parts, Running};

/// The version to come.
pub(super) struct Next {
    pub version: u32,
    pub pipeline: Pipeline,
    /// For each stage.
    pub code: Vec<(Arc<StageCode>, Arc<StageSettings>)>,
    /// What becomes of the state of the version that runs.
    pub handover: Handover,
    /// What the log knows of it, when the node starts.
    pub restored: Option<Restored>,
}

/// A pipeline as it was found in the log.
pub(super) struct Restored {
    pub durable: Arc<Durable>,
    pub folded: Folded,
    /// By partition.
    pub states: Vec<States>,
    pub tails: Tails,
}

impl Node {
    /// Puts a version in the place of the one that runs.
    pub(super) async fn switch(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        next: Next,
    ) -> Result<(), Error> {
        let Next { version, pipeline, code, handover, restored } = next;
        let old = self.running(tenant, name.as_str());
        let partitions = pipeline.partitions.unwrap_or(1);
        let is_restored = restored.is_some();
        let plan = segment::cut(&pipeline);
        let (taken, tails) = match restored {
            Some(Restored { durable, folded, states, tails }) => {
                let (numbering, standing) = (durable.numbering(), Standing::from(&folded));
                let durable = Some((durable, numbering));
                (Taken { states, standing, durable, left_over: Vec::new() }, tails)
            }
            None => {
                let id = Identity { tenant, name, version };
                let taken = self.begin_version(id, old.as_deref(), &pipeline, &handover).await?;
                (taken, Tails::default())
            }
        };
        let durable = taken.durable.as_ref().map(|(durable, numbering)| (&**durable, numbering));
        let rings = Rings {
            node: self,
            old: old.as_deref(),
            durable,
            standing: &taken.standing,
            tails: &tails,
            partitions,
        };
        let outputs = rings.outputs(&pipeline);
        let dead_letters = rings.dead_letters(&pipeline, &plan);
        let metrics = self.metrics().pipeline(tenant, name);
        let stage_is = |wanted: &str| pipeline.stage_index(wanted).is_some();
        let output_is = |wanted: &str| pipeline.outputs.iter().any(|o| o.name == wanted);
        metrics.set_durable(taken.durable.as_ref().map(|(durable, _)| durable));
        metrics.retain(stage_is, |wanted| wanted == DEAD_LETTERS || output_is(wanted));
        for (output, ring) in pipeline.outputs.iter().zip(&outputs) {
            let _figures = metrics.output(&output.name, ring);
        }
        let _figures = metrics.output(DEAD_LETTERS, &dead_letters.ring);
        let Taken { states, standing, left_over, durable } = taken;
        let parts = Parts {
            tenant: self.tenancy(tenant),
            name: name.clone(),
            version,
            workers: self.workers(),
            requests: self.requests_shared(),
            metrics,
            dead_letters,
            uid: self.take_uids(pipeline.stages.len()),
            code,
            outputs,
            inbox_bytes: self.config().limits.inbox_bytes,
            durable,
            states: by_partition(states, partitions),
            standing,
        };
        let running = Running::build(pipeline, parts);
        hand_over(&running, left_over);
        wake(&running, is_restored);
        self.put_running(running);
        Ok(())
    }

    /// Takes the version that runs to rest. In a pipeline with a log the next one is in the log
    /// then.
    async fn begin_version(
        self: &Arc<Self>,
        id: Identity<'_>,
        old: Option<&Running>,
        pipeline: &Pipeline,
        handover: &Handover,
    ) -> Result<Taken, Error> {
        if pipeline.delivery == Promise::BestEffort {
            return take_over(old, Heir { pipeline, handover, numbering: None }).await;
        }
        self.check_log(old)?;
        let durable = match old.and_then(|old| old.durable().cloned()) {
            Some(durable) => durable,
            None => self.new_durable()?,
        };
        let before = durable.numbering();
        let numbering = Numbering::of(pipeline, &before, handover)?;
        check_size(pipeline, &numbering)?;
        let heir = Heir { pipeline, handover, numbering: Some(&numbering) };
        let mut taken = take_over(old, heir).await?;
        let discarded = before.given_up(handover);
        self.log_version(id, &durable, pipeline, (&numbering, discarded)).await?;
        durable.set_standing(taken.standing.clone());
        taken.durable = Some((durable, numbering));
        Ok(taken)
    }

    /// Refuses a switch that the log could not keep.
    fn check_log(&self, old: Option<&Running>) -> Result<(), Error> {
        match self.log().status().health {
            Health::Healthy => {}
            Health::Full => return Err(refused(Refusal::Full)),
            Health::Failed => return Err(refused(Refusal::Failed)),
        }
        let mut mailboxes = old.into_iter().flat_map(Running::mailboxes).flatten();
        if mailboxes.any(|mailbox| mailbox.is_stopped()) {
            return Err(Error::Conflict {
                what: "pipeline",
                name: old.map(|old| old.name().to_string()).unwrap_or_default(),
                why: "a partition has stopped; its log says why: restart the node first".into(),
            });
        }
        Ok(())
    }

    /// Writes a version into the log, and waits until it is there.
    async fn log_version(
        self: &Arc<Self>,
        id: Identity<'_>,
        durable: &Durable,
        pipeline: &Pipeline,
        (numbering, discarded): (&Numbering, Vec<StageId>),
    ) -> Result<(), Error> {
        let manifest = pipeline.declaration().write().to_json();
        let mut writer = RecordWriter::new();
        writer.apply(&ApplyRecord {
            tenant: id.tenant.clone(),
            name: id.name.clone(),
            pipeline: durable.id,
            version: id.version,
            partitions: pipeline.partitions.unwrap_or(1),
            manifest: manifest.as_bytes(),
            names: numbering.names.clone(),
            discarded,
        });
        self.log_and_wait(kind::APPLY, writer).await?;
        durable.set_numbering(numbering.clone());
        Ok(())
    }
}

/// Which version of what.
#[derive(Clone, Copy)]
struct Identity<'a> {
    tenant: &'a Name,
    name: &'a Name,
    version: u32,
}

/// One entry for each partition.
fn by_partition(mut states: Vec<States>, partitions: u16) -> Vec<States> {
    states.resize_with(partitions.into(), Vec::new);
    states
}

/// Lets what waits for its time go on. When the node starts that has to wait until all runs are
/// handed over.
fn wake(running: &Running, is_restored: bool) {
    if !is_restored {
        running.wake_by_time();
    }
}
