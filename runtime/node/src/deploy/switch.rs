//! One version in the place of another.
//!
//! A switch drains: ingest is held back, what is under way runs to its end, open streams end, and
//! each partition hands over the state of the stages that stay; in a pipeline with a log the
//! version
//! is then a record of it. Ingest sees a pause, not an error, if it is short. A pipeline that has
//! halted cannot drain; then what is queued is handed over as
//! it is, so that the fix for a halt can be applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::codec::{ApplyRecord, RecordWriter, kind};
use sluicebox_core::ids::Name;
use sluicebox_core::numbering::Numbering;
use sluicebox_core::pipeline::{Delivery as Promise, Pipeline};
use sluicebox_core::recovery::Folded;
use sluicebox_core::segment;
use sluicebox_engine::stage::{StageCode, StageSettings};
use sluicebox_store::log::{Health, Refusal};
use tokio::sync::oneshot;

use super::DEAD_LETTERS;
use super::rings::{Rings, Tails};
use super::standing::{Left, Standing};
use crate::durable::{Durable, refused};
use crate::error::Error;
use crate::mailbox::{Command, Delivery, Retired, States};
use crate::node::Node;
use crate::running::{Parts, Running};

/// How long a switch waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The version to come.
pub(super) struct Next {
    pub version: u32,
    pub pipeline: Pipeline,
    /// For each stage.
    pub code: Vec<(Arc<StageCode>, Arc<StageSettings>)>,
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

/// What a version takes over.
#[derive(Default)]
struct Taken {
    /// By partition.
    states: Vec<States>,
    standing: Standing,
    left_over: LeftOver,
    durable: Option<(Arc<Durable>, Numbering)>,
}

impl Node {
    /// Puts a version in the place of the one that runs.
    pub(super) async fn switch(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        next: Next,
    ) -> Result<(), Error> {
        let Next { version, pipeline, code, restored } = next;
        let old = self.running(tenant, name.as_str());
        let partitions = pipeline.partitions.unwrap_or(1);
        let is_restored = restored.is_some();
        let (restored, tails) = match restored {
            Some(Restored { durable, folded, states, tails }) => {
                let numbering = durable.numbering();
                let standing = Standing::Found(Box::new(folded));
                let durable = Some((durable, numbering));
                (Some(Taken { states, standing, durable, left_over: Vec::new() }), tails)
            }
            None => (None, Tails::default()),
        };
        let taken = match (restored, pipeline.delivery) {
            (Some(taken), _) => taken,
            (None, Promise::BestEffort) => take_over(old.as_deref(), &pipeline).await?,
            (None, Promise::ExactlyOnce) => {
                self.check_log(old.as_deref())?;
                let mut taken = take_over(old.as_deref(), &pipeline).await?;
                let durable = old.as_ref().and_then(|old| old.durable().cloned());
                let id = Identity { tenant, name, version };
                taken.durable = Some(self.log_version(id, durable, &pipeline).await?);
                taken
            }
        };
        let plan = segment::cut(&pipeline);
        let durable = taken.durable.as_ref().map(|(durable, numbering)| (&**durable, numbering));
        let rings = Rings {
            node: self,
            old: old.as_deref(),
            durable,
            standing: &taken.standing,
            tails: &tails,
        };
        let outputs = rings.outputs(&pipeline);
        let dead_letters = rings.dead_letters(&pipeline, &plan)?;
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
        durable: Option<Arc<Durable>>,
        pipeline: &Pipeline,
    ) -> Result<(Arc<Durable>, Numbering), Error> {
        let durable = match durable {
            Some(durable) => durable,
            None => self.new_durable()?,
        };
        let numbering = Numbering::of(pipeline, &durable.numbering())?;
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
            discarded: Vec::new(),
        });
        self.log_and_wait(kind::APPLY, writer).await?;
        durable.set_numbering(numbering.clone());
        Ok((durable, numbering))
    }
}

/// Which version of what.
#[derive(Clone, Copy)]
struct Identity<'a> {
    tenant: &'a Name,
    name: &'a Name,
    version: u32,
}

/// Takes everything from the version that runs.
async fn take_over(old: Option<&Running>, pipeline: &Pipeline) -> Result<Taken, Error> {
    let Some(old) = old else { return Ok(Taken::default()) };
    check_left_over(old, pipeline)?;
    let mut taken = Taken::default();
    let mut left = Left::beside(old.apart());
    for (partition, retired) in retire(old, false).await? {
        taken.states.resize_with(taken.states.len().max(usize::from(partition) + 1), Vec::new);
        taken.states[usize::from(partition)].extend(retired.states);
        taken.left_over.extend(retired.left_over);
        if let Some((root, progress)) = retired.progress {
            left.add((root, partition), progress);
        }
    }
    taken.standing = Standing::Left(left);
    Ok(taken)
}

/// Takes a running pipeline to rest and collects what its partitions hold. On an error it runs on.
pub(super) async fn retire(running: &Running, give_up: bool) -> Result<Vec<(u16, Retired)>, Error> {
    running.pause(true);
    let drained = tokio::time::timeout(DRAIN_MAX, drained(running)).await.is_ok();
    let halted = running.mailboxes().iter().flatten().any(|mailbox| mailbox.halted().is_some());
    if !drained && !halted && !give_up {
        running.pause(false);
        return Err(Error::Conflict {
            what: "pipeline",
            name: running.name().to_string(),
            why: format!(
                "events under way did not finish within {} s; apply again when there are fewer",
                DRAIN_MAX.as_secs()
            ),
        });
    }
    let carry = !drained || halted;
    let mut all = Vec::new();
    // In this order a segment is still there while the one before it ends its streams.
    for segment in running.mailboxes() {
        let mut replies = Vec::new();
        for mailbox in segment {
            let (reply, retired) = oneshot::channel();
            mailbox.command(Command::Retire { reply, carry });
            replies.push((mailbox.partition, retired));
        }
        for (partition, retired) in replies {
            if let Ok(retired) = retired.await {
                all.push((partition, retired));
            }
        }
    }
    Ok(all)
}

/// Waits until nothing is under way, or a halt makes waiting useless.
async fn drained(running: &Running) {
    let look_again = Duration::from_millis(20);
    while tokio::time::timeout(look_again, running.idle()).await.is_err() {
        if running.mailboxes().iter().flatten().any(|mailbox| mailbox.halted().is_some()) {
            return;
        }
    }
}

/// Events that are queued for a stage can be handed over only if events still enter there.
fn check_left_over(old: &Running, new: &Pipeline) -> Result<(), Error> {
    if old.mailboxes().iter().flatten().all(|mailbox| mailbox.halted().is_none()) {
        return Ok(());
    }
    let plan = segment::cut(new);
    let roots: BTreeSet<&str> =
        plan.segments.iter().map(|segment| new.stages[segment.root].name.as_str()).collect();
    let missing = old
        .mailboxes()
        .iter()
        .flatten()
        .find(|mailbox| !mailbox.is_empty() && !roots.contains(mailbox.segment.root_name()));
    match missing {
        None => Ok(()),
        Some(mailbox) => Err(Error::Conflict {
            what: "pipeline",
            name: old.name().to_string(),
            why: format!(
                "it has halted with events queued for stage {:?}, which the new version does not \
                 begin a segment with; apply a version that does, or delete the pipeline",
                mailbox.segment.root_name()
            ),
        }),
    }
}

/// What is left over of a halted pipeline: stage, partition, events.
type LeftOver = Vec<(String, u16, Delivery)>;

/// One entry for each partition.
fn by_partition(mut states: Vec<States>, partitions: u16) -> Vec<States> {
    states.resize_with(partitions.into(), Vec::new);
    states
}

/// Lets what is parked go on. When the node starts that waits until all runs are handed over.
fn wake(running: &Running, is_restored: bool) {
    if !is_restored {
        running.wake_parked();
    }
}

/// The last segment first: a partition runs as soon as it has something, and what it sends must not
/// come before what is handed over there.
fn hand_over(running: &Running, mut left_over: LeftOver) {
    for segment in running.mailboxes().iter().rev() {
        let Some(root) = segment.first().map(|mailbox| mailbox.segment.root_name()) else { return };
        for (_, partition, delivery) in left_over.extract_if(.., |(to, ..)| to == root) {
            if let Some(mailbox) = segment.get(usize::from(partition)) {
                mailbox.push_over(delivery);
            }
        }
    }
}
