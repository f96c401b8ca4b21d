//! One version in the place of another.
//!
//! A switch drains: ingest is held back, what is under way runs to its end, open streams end, and
//! each partition hands over the state of the stages that stay. Ingest sees a pause, not an error,
//! if it is short. A pipeline that has halted cannot drain; then what is queued is handed over as
//! it is, so that the fix for a halt can be applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::frame::Frame;
use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::Pipeline;
use sluicebox_engine::stage::{StageCode, StageSettings};
use tokio::sync::oneshot;

use super::DEAD_LETTERS;
use crate::error::Error;
use crate::mailbox::{Command, Retired, States};
use crate::node::Node;
use crate::ring::Output;
use crate::running::{Parts, Running};

/// How long a switch waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The version to come.
pub(super) struct Next {
    pub version: u32,
    pub pipeline: Pipeline,
    /// For each stage.
    pub code: Vec<(Arc<StageCode>, Arc<StageSettings>)>,
}

impl Node {
    /// Puts a version in the place of the one that runs.
    pub(super) async fn switch(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        next: Next,
    ) -> Result<(), Error> {
        let Next { version, pipeline, code } = next;
        let old = self.running(tenant, name.as_str());
        let partitions = pipeline.partitions.unwrap_or(1);
        let (inherited, left_over) = match &old {
            Some(old) => {
                check_left_over(old, &pipeline)?;
                by_partition(retire(old, false).await?, partitions)
            }
            None => (Vec::new(), Vec::new()),
        };
        let ring = |retain: usize| {
            let most = self.config().limits.output_bytes_max;
            Arc::new(Output::new(partitions, retain.min(most), self.next_incarnation()))
        };
        // An output whose size changes begins anew; cursors of the old one are told so.
        let kept = |output: &sluicebox_core::pipeline::Output| {
            let old = old.as_ref()?;
            let before = old.pipeline().outputs.iter().find(|o| o.name == output.name)?;
            let same = before.retain_bytes == output.retain_bytes;
            old.output(&output.name).filter(|_| same).cloned()
        };
        let outputs = pipeline.outputs.iter().map(|output| {
            let bytes = usize::try_from(output.retain_bytes).unwrap_or(usize::MAX);
            kept(output).unwrap_or_else(|| ring(bytes))
        });
        let outputs: Vec<_> = outputs.collect();
        let dead_letters = old.as_ref().map_or_else(
            || ring(self.config().limits.dead_letter_bytes),
            |old| old.dead_letters().clone(),
        );
        let metrics = self.metrics().pipeline(tenant, name);
        let stage_is = |wanted: &str| pipeline.stage_index(wanted).is_some();
        let output_is = |wanted: &str| pipeline.outputs.iter().any(|o| o.name == wanted);
        metrics.retain(stage_is, |wanted| wanted == DEAD_LETTERS || output_is(wanted));
        for (output, ring) in pipeline.outputs.iter().zip(&outputs) {
            let _figures = metrics.output(&output.name, ring);
        }
        let _figures = metrics.output(DEAD_LETTERS, &dead_letters);
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
            inherited,
        };
        let running = Running::build(pipeline, parts);
        hand_over(&running, left_over);
        self.put_running(running);
        Ok(())
    }
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
    let plan = sluicebox_core::segment::cut(new);
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
type LeftOver = Vec<(String, u16, Frame)>;

fn by_partition(retired: Vec<(u16, Retired)>, partitions: u16) -> (Vec<States>, LeftOver) {
    let mut states: Vec<States> = Vec::new();
    states.resize_with(partitions.into(), Vec::new);
    let mut left_over = Vec::new();
    for (partition, retired) in retired {
        if let Some(of_partition) = states.get_mut(usize::from(partition)) {
            of_partition.extend(retired.states);
        }
        left_over.extend(retired.left_over);
    }
    (states, left_over)
}

fn hand_over(running: &Running, left_over: LeftOver) {
    for (root, partition, frame) in left_over {
        let segment = running.mailboxes().iter().find(|segment| {
            segment.first().is_some_and(|mailbox| mailbox.segment.root_name() == root)
        });
        if let Some(mailbox) = segment.and_then(|segment| segment.get(usize::from(partition))) {
            mailbox.push_over(frame);
        }
    }
}
