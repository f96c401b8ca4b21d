//! One version in the place of another.
//!
//! The version that runs is taken to rest (`taking`); in a pipeline with a log the next one is then
//! a record of it, and from there on the one that runs, whatever happens. If the log refuses that
//! record the version that ran goes on. Ingest sees a pause, not an error, if it is short.

use std::sync::Arc;

use sluicebox_core::codec::{ApplyRecord, RecordWriter, kind};
use sluicebox_core::ids::{Name, StageId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::pipeline::{Delivery as Promise, Pipeline};
use sluicebox_core::plan::Handover;
use sluicebox_core::recovery::{Folded, Standing};
use sluicebox_core::segment;
use sluicebox_store::log::{Health, Refusal};

use super::rings::{Rings, Tails, check_size};
use super::secret_number;
use super::taking::{Heir, NotBegun, Rested, Taken, hand_over, rest, take_over};
use super::{DEAD_LETTERS, StreamCodes};
use crate::durable::{Durable, refused};
use crate::error::Error;
use crate::mailbox::States;
use crate::node::Node;
use crate::running::{Code, Parts, Passed, Running};

/// The version to come.
pub(super) struct Next {
    pub version: u32,
    pub pipeline: Pipeline,
    /// For each stage.
    pub code: Vec<Code>,
    pub codes: Vec<StreamCodes>,
    /// What becomes of the state of the version that runs.
    pub handover: Handover,
    /// What the log knows of it, when the node starts.
    pub restored: Option<Restored>,
}

/// A pipeline as it was found in the log.
pub(super) struct Restored {
    pub durable: Arc<Durable>,
    pub folded: Folded,
    /// Partitions that are here and do not run yet.
    pub coming: Vec<u16>,
    /// By partition.
    pub states: Vec<States>,
    pub tails: Tails,
}

impl Node {
    /// Puts a version in the place of the one that runs. To be run to its end: a switch that is
    /// dropped half-way leaves a pipeline that runs no version.
    pub(super) async fn switch(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        next: Next,
    ) -> Result<(), Error> {
        let Next { version, pipeline, code, codes, handover, restored } = next;
        let old = self.running(tenant, name.as_str());
        let id = Identity { tenant, name, version };
        let mut placed = None;
        let (taken, tails, is_restored) = match restored {
            Some(Restored { durable, folded, coming, states, tails }) => {
                let (numbering, standing) = (durable.numbering(), Standing::from(&folded));
                let durable = Some((durable, numbering));
                let (left_over, time) = (Vec::new(), Passed::default());
                let home = self.home_of(&folded)?;
                placed = Some((folded, coming));
                (Taken { states, standing, durable, left_over, time, home }, tails, true)
            }
            None => {
                let seed = secret_number()?;
                let begun = self.begin_version(id, old.as_deref(), &pipeline, (&handover, seed));
                match begun.await {
                    Ok(taken) => (taken, Tails::default(), false),
                    Err(NotBegun { error, rested }) => {
                        if let Some((old, rested)) = old.zip(rested) {
                            self.go_back(&old, rested, seed);
                        }
                        return Err(error);
                    }
                }
            }
        };
        let running =
            self.run_version(id, old.as_deref(), (pipeline, code, codes), (taken, &tails));
        if let Some((folded, coming)) = &placed {
            self.place_partitions(&running, folded, coming);
        }
        if is_restored {
            // When the node starts, nothing may come before the runs that wait are handed over.
            running.pause(true);
        } else {
            running.wake_by_time();
        }
        if let Some(old) = &old {
            self.bill().last_look(old);
        }
        self.put_running(running);
        Ok(())
    }

    /// Lets the version run again that came to rest, since the next one cannot take over or is not
    /// in the log.
    pub(super) fn go_back(self: &Arc<Self>, old: &Running, rested: Rested, seed: u64) {
        if old.durable().is_some() && self.log().status().health == Health::Failed {
            // Whether the next one is on disk is known to a restart only. Nothing gets in before
            // it, and the log says so better than a pause without end.
            old.pause(false);
            return;
        }
        let (pipeline, handover) = (old.pipeline().clone(), Handover::default());
        let heir = Heir { pipeline: &pipeline, handover: &handover, numbering: None };
        let mut taken = take_over(old, rested, heir, seed);
        taken.durable = old.durable().map(|durable| (durable.clone(), durable.numbering()));
        let (tenant, name, version) = (old.tenant().clone(), old.name().clone(), old.version());
        let id = Identity { tenant: &tenant, name: &name, version };
        let tails = Tails::default();
        let version = (pipeline, old.code(), old.codes());
        let running = self.run_version(id, Some(old), version, (taken, &tails));
        running.wake_by_time();
        self.bill().last_look(old);
        self.put_running(running);
        let version = id.version;
        tracing::warn!(%tenant, pipeline = %name, version, "the version that ran goes on");
    }

    /// Builds a version and gives it what it takes over.
    fn run_version(
        self: &Arc<Self>,
        id: Identity<'_>,
        old: Option<&Running>,
        (pipeline, code, codes): (Pipeline, Vec<Code>, Vec<StreamCodes>),
        (taken, tails): (Taken, &Tails),
    ) -> Arc<Running> {
        let Identity { tenant, name, version } = id;
        let partitions = pipeline.partitions.unwrap_or(1);
        let plan = segment::cut(&pipeline);
        let durable = taken.durable.as_ref().map(|(durable, numbering)| (&**durable, numbering));
        let rings =
            Rings { node: self, old, durable, standing: &taken.standing, tails, partitions };
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
        metrics.retain_connectors(&pipeline);
        let Taken { states, standing, left_over, durable, time, home } = taken;
        let parts = Parts {
            tenant: self.tenancy(tenant),
            name: name.clone(),
            version,
            workers: self.workers(),
            requests: self.requests_shared(),
            sessions: old.map(|old| old.sessions().clone()).unwrap_or_default(),
            metrics,
            dead_letters,
            uid: self.take_uids(pipeline.stages.len()),
            code,
            codes,
            outputs,
            inbox_bytes: self.config().limits.inbox_bytes,
            durable,
            states: by_partition(states, partitions),
            standing,
            time,
            spread: (self.trunks().clone(), home),
        };
        let running = Running::build(pipeline, parts);
        hand_over(&running, left_over);
        running
    }

    /// Takes the version that runs to rest. In a pipeline with a log the next one is in the log
    /// then.
    async fn begin_version(
        self: &Arc<Self>,
        id: Identity<'_>,
        old: Option<&Running>,
        pipeline: &Pipeline,
        (handover, seed): (&Handover, u64),
    ) -> Result<Taken, NotBegun> {
        if pipeline.delivery == Promise::BestEffort {
            let heir = Heir { pipeline, handover, numbering: None };
            let Some(old) = old else { return Ok(Taken::default()) };
            return Ok(take_over(old, rest(old, heir).await?, heir, seed));
        }
        self.check_log(old)?;
        let durable = match old.and_then(|old| old.durable().cloned()) {
            Some(durable) => durable,
            None => self.new_durable()?,
        };
        let before = durable.numbering();
        let numbering = Numbering::of(pipeline, &before, handover).map_err(Error::from)?;
        check_size(pipeline, &numbering)?;
        let heir = Heir { pipeline, handover, numbering: Some(&numbering) };
        let rested = match old {
            Some(old) => Some(rest(old, heir).await?),
            None => None,
        };
        let discarded = before.given_up(handover);
        let logged = self.log_version(id, &durable, pipeline, (&numbering, discarded)).await;
        if let Err(error) = logged {
            return Err(NotBegun { error, rested });
        }
        let taken = old.zip(rested).map(|(old, rested)| take_over(old, rested, heir, seed));
        let mut taken = taken.unwrap_or_default();
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
