//! Taking a version to rest, and everything that goes on with it to the next.
//!
//! - Draining comes first: ingest is held back, what is under way runs to its end, open streams
//!   end. On an error nothing has changed, and the version runs on.
//! - What came to rest is kept as it was until somebody takes it over: the next version, or, if the
//!   log refuses that one, the same version again.
//! - State goes to the stage that is its heir, in the partition its key belongs to.
//! - A pipeline that has halted cannot drain. Then what is queued is handed over as it is, so that
//!   the fix for a halt can be applied; a version under which it would have no reader is refused.
//!   It may also halt while it comes to rest, at the end of a stream or behind it: what is left
//!   over then is looked at again, and if the next version cannot take it the same one goes on. So
//!   it does if there is no room for the instances of streams that are to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::numbering::Numbering;
use sluicebox_core::partition::{name_of_part, stage_of_state};
use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::plan::Handover;
use sluicebox_core::recovery::Standing;
use sluicebox_core::segment;
use sluicebox_core::state::{KeyedState, redistribute};
use tokio::sync::oneshot;

use super::codes::ending;
use crate::durable::Durable;
use crate::error::Error;
use crate::mailbox::{Command, Delivery, Mailbox, Retired, States};
use crate::running::event_time::EventTime;
use crate::running::{Passed, Running};

/// How long a switch waits for what is under way.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often who waits for partitions looks whether one has halted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a version takes over.
#[derive(Default)]
pub(super) struct Taken {
    /// By partition.
    pub states: Vec<States>,
    pub standing: Standing,
    pub left_over: LeftOver,
    pub time: Passed,
    pub durable: Option<(Arc<Durable>, Numbering)>,
    /// The peer that is its home, if it is a part.
    pub home: Option<u16>,
}

/// What is left over of a halted pipeline: the stage it enters by, partition, events.
type LeftOver = Vec<(String, u16, Delivery)>;

/// The version to come, as far as it matters to what it takes over.
#[derive(Clone, Copy)]
pub(super) struct Heir<'a> {
    pub pipeline: &'a Pipeline,
    pub handover: &'a Handover,
    /// The numbers it will have, in a pipeline with a log.
    pub numbering: Option<&'a Numbering>,
}

impl Heir<'_> {
    fn partitions(&self) -> u16 {
        self.pipeline.partitions.unwrap_or(1)
    }
}

/// What every partition of a version held when it came to rest.
pub(super) type Rested = Vec<(u16, Retired)>;

/// Why the next version does not begin.
pub(super) struct NotBegun {
    pub error: Error,
    /// What the version that ran held, if it runs no more.
    pub rested: Option<Rested>,
}

impl From<Error> for NotBegun {
    fn from(error: Error) -> Self {
        Self { error, rested: None }
    }
}

/// Takes the version that runs to rest, so that it runs no more.
pub(super) async fn rest(old: &Running, heir: Heir<'_>) -> Result<Rested, NotBegun> {
    let waiting = Waiting { old, heir };
    let rested =
        retire(old, ending(old, heir.pipeline, heir.handover), || waiting.check_queued()).await?;
    if any(old, Mailbox::is_stopped) {
        // What it held is not what the log knows.
        return Err(waiting.stopped().into());
    }
    let is_short = rested.iter().any(|(_, retired)| retired.is_short);
    let ended = if is_short { Err(waiting.short()) } else { Ok(()) };
    match ended.and_then(|()| waiting.check_left_over(&rested)) {
        Ok(()) => Ok(rested),
        Err(error) => Err(NotBegun { error, rested: Some(rested) }),
    }
}

/// What a version takes over from the one that came to rest. `seed` is secret.
pub(super) fn take_over(old: &Running, rested: Rested, heir: Heir<'_>, seed: u64) -> Taken {
    let mut taken = Taken::default();
    if let Some(durable) = old.durable() {
        // Of partitions that are not there now this is all that is known.
        taken.standing = durable.standing();
    }
    let mut watermarks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (partition, retired) in rested {
        taken.states.resize_with(taken.states.len().max(usize::from(partition) + 1), Vec::new);
        let states = retired.states.into_iter().filter_map(|(stage, state)| {
            let (stage, part) = stage_of_state(&stage);
            Some((name_of_part(heir.handover.heir(stage)?, part), state))
        });
        taken.states[usize::from(partition)].extend(states);
        let left_over = retired.left_over.into_iter().filter_map(|(root, partition, delivery)| {
            let heir = heir.handover.heir(&root)?.to_owned();
            Some((heir, partition, delivery))
        });
        taken.left_over.extend(left_over);
        let (root, watermark) = retired.watermark;
        if let Some(heir) = heir.handover.heir(&root) {
            watermarks.entry(heir.to_owned()).or_default().push(watermark);
        }
        if let Some((root, progress)) = retired.progress {
            taken.standing.add((root, partition), progress);
        }
    }
    let drained = taken.left_over.is_empty();
    if drained {
        taken.standing.drained();
    }
    // What has taken everything has come as far as any of its partitions.
    let common = |all: Vec<u64>| {
        let all = all.into_iter();
        if drained { all.max() } else { all.min() }.unwrap_or(0)
    };
    let watermarks = watermarks.into_iter().map(|(root, all)| (root, common(all)));
    taken.time.watermarks = watermarks.collect();
    taken.time.high = old.event_time().map_or(0, EventTime::high);
    if heir.partitions() != old.partitions() {
        taken.states = by_owner(taken.states, heir.partitions(), seed);
    }
    taken
}

/// Puts each key into the partition that owns it, of so many.
fn by_owner(states: Vec<States>, partitions: u16, seed: u64) -> Vec<States> {
    let mut stages: BTreeMap<String, Vec<KeyedState>> = BTreeMap::new();
    for (stage, state) in states.into_iter().flatten() {
        stages.entry(stage).or_default().push(state);
    }
    let mut owned: Vec<States> = Vec::new();
    owned.resize_with(partitions.into(), Vec::new);
    for (at, (stage, states)) in (0_u64..).zip(stages) {
        let divided = redistribute(states, partitions, seed.rotate_left(at as u32));
        for (there, state) in owned.iter_mut().zip(divided) {
            there.push((stage.clone(), state));
        }
    }
    owned
}

/// Ends a pipeline for good: what it cannot finish goes with it.
pub(crate) async fn end(running: &Running) {
    running.pause(true);
    let drained = tokio::time::timeout(DRAIN_MAX, drained(running)).await.is_ok();
    // Nobody is to read what streams would say at their end, if they could go on.
    let ends = if running.durable().is_some() { BTreeSet::new() } else { all_stages(running) };
    if running.durable().is_some() {
        // Other nodes may still send to it, and what ends here begins no more: commits would come
        // behind its end in the log.
        running.mailboxes().iter().flatten().for_each(|mailbox| mailbox.set_absent());
    }
    drop(collect(running, !drained || stuck(running), ends).await);
}

fn all_stages(running: &Running) -> BTreeSet<String> {
    running.pipeline().stages.iter().map(|stage| stage.name.clone()).collect()
}

/// Takes a running pipeline to rest and collects what its partitions hold. `may_carry` is asked
/// whether what waits in a halted one can be handed over, or in one whose sinks take nothing. On an
/// error it runs on.
pub(super) async fn retire(
    running: &Running,
    ends: BTreeSet<String>,
    may_carry: impl Fn() -> Result<(), Error>,
) -> Result<Rested, Error> {
    if halted(running) {
        may_carry()?;
    }
    running.pause(true);
    let drained = tokio::time::timeout(DRAIN_MAX, drained(running)).await.is_ok();
    // It may have halted meanwhile.
    let ready = match (halted(running), drained) {
        (true, _) => may_carry(),
        (false, true) => Ok(()),
        (false, false) if running.is_kept_from_rest() => may_carry(),
        (false, false) => Err(Error::Conflict {
            what: "pipeline",
            name: running.name().to_string(),
            why: format!(
                "events under way did not finish within {} s; try again when there are fewer",
                DRAIN_MAX.as_secs()
            ),
        }),
    };
    if let Err(error) = ready {
        running.pause(false);
        return Err(error);
    }
    Ok(collect(running, !drained || halted(running), ends).await)
}

/// Retires every partition; with `carry` what it has not finished is given up to the caller, and so
/// it is as soon as one comes to a halt on the way: those before it may wait for it.
async fn collect(running: &Running, mut carry: bool, ends: BTreeSet<String>) -> Rested {
    let mut all = Vec::new();
    let ends = Arc::new(ends);
    let begun = Instant::now();
    let waits_long = || begun.elapsed() >= DRAIN_MAX && any(running, Mailbox::is_short);
    let stuck = || stuck(running) || waits_long() || running.is_kept_from_rest();
    // In this order a segment is still there while the one before it ends its streams.
    for segment in running.mailboxes() {
        let mut replies = Vec::new();
        for mailbox in segment {
            let (reply, retired) = oneshot::channel();
            mailbox.command(Command::Retire { reply, carry, ends: ends.clone() });
            replies.push((mailbox.partition, retired));
        }
        for (partition, mut retired) in replies {
            let retired = loop {
                match tokio::time::timeout(LOOK_AGAIN, &mut retired).await {
                    Ok(retired) => break retired,
                    Err(_) if !carry && stuck() => {
                        carry = true;
                        segment.iter().for_each(|mailbox| mailbox.command(Command::GiveUp));
                    }
                    Err(_) => {}
                }
            };
            all.extend(retired.ok().map(|retired| (partition, retired)));
        }
    }
    all
}

/// Waits until nothing is under way, or a halt makes waiting useless.
async fn drained(running: &Running) {
    while tokio::time::timeout(LOOK_AGAIN, running.idle()).await.is_err() {
        if halted(running) {
            return;
        }
    }
}

fn any(running: &Running, is: impl Fn(&Mailbox) -> bool) -> bool {
    running.mailboxes().iter().flatten().any(|mailbox| is(mailbox))
}

fn halted(running: &Running) -> bool {
    any(running, |mailbox| mailbox.halted().is_some())
}

/// True if a partition goes no further by itself.
fn stuck(running: &Running) -> bool {
    halted(running) || any(running, Mailbox::is_stopped)
}

/// What waits in a pipeline that has halted, and the version it would be handed to.
struct Waiting<'a> {
    old: &'a Running,
    heir: Heir<'a>,
}

impl Waiting<'_> {
    /// Looks at what waits while it runs.
    fn check_queued(&self) -> Result<(), Error> {
        let mut mailboxes = self.old.mailboxes().iter().flatten();
        if mailboxes.any(|mailbox| mailbox.is_stopped()) {
            return Err(self.stopped());
        }
        let mailboxes = self.old.mailboxes().iter().flatten();
        // What it has halted at is queued no more.
        let waiting = mailboxes.filter(|at| !at.is_empty() || at.halted().is_some());
        self.check(waiting.map(|mailbox| mailbox.segment.root_name()))
    }

    /// Looks at what was in fact left over.
    fn check_left_over(&self, rested: &Rested) -> Result<(), Error> {
        let left_over = rested.iter().flat_map(|(_, retired)| &retired.left_over);
        let mut roots = left_over.map(|(root, ..)| root.as_str()).peekable();
        if roots.peek().is_none() { Ok(()) } else { self.check(roots) }
    }

    /// Events that wait for these roots can be handed over only if each finds its reader where it
    /// is.
    fn check<'r>(&self, mut waiting: impl Iterator<Item = &'r str>) -> Result<(), Error> {
        let Heir { pipeline, handover, .. } = self.heir;
        if self.heir.partitions() != self.old.partitions() {
            return Err(self.refuse(
                "it has halted or its sinks take nothing, and events wait in the partitions there \
                 are; apply a version that gets over that first, then change their number"
                    .to_owned(),
            ));
        }
        if let Some(stage) = handover.discarded().next() {
            return Err(self.refuse(format!(
                "it has halted or its sinks take nothing, and events wait beside the state of \
                 {stage:?}; apply a version that gets over that first, then give state up"
            )));
        }
        let plan = segment::cut(pipeline);
        let stages = &pipeline.stages;
        let roots: BTreeSet<&str> =
            plan.segments.iter().map(|segment| stages[segment.root].name.as_str()).collect();
        let is_missing = |root: &&str| handover.heir(root).is_none_or(|heir| !roots.contains(heir));
        if let Some(root) = waiting.find(is_missing) {
            return Err(self.refuse(format!(
                "it has halted or its sinks take nothing, and events are queued for stage \
                 {root:?}, which the new version does not begin a segment with; apply a version \
                 that does, or delete the pipeline"
            )));
        }
        match self.cut_edge() {
            Some(edge) => Err(self.refuse(format!(
                "it has halted or its sinks take nothing, and events may wait that were sent over \
                 the edge {edge}, which the new version does not have; apply a version that has \
                 it, or delete the pipeline"
            ))),
            None => Ok(()),
        }
    }

    fn short(&self) -> Error {
        let why = "there was no room for the instances of streams that end with this version (quota \
                   memory-bytes, or what others use): apply again when there is more";
        self.refuse(why.to_owned())
    }

    fn stopped(&self) -> Error {
        let why = "a partition has stopped; its log says why: restart the node first";
        self.refuse(why.to_owned())
    }

    fn refuse(&self, why: String) -> Error {
        let name = self.old.name().to_string();
        Error::Conflict { what: "pipeline", name, why }
    }

    /// An edge between segments that goes. In the log a run that waits is known by its edge.
    fn cut_edge(&self) -> Option<String> {
        let (durable, next) = self.old.durable().zip(self.heir.numbering)?;
        let (now, old) = (durable.numbering(), self.old.pipeline());
        let crossing = self.old.plan().segments.iter().flat_map(|segment| &segment.entering);
        let mut edges = crossing.map(|edge| &old.edges[*edge]);
        let gone = edges.find(|edge| {
            let id = now.edge(old, edge);
            id.is_none_or(|id| next.names.edges.binary_search_by_key(&id, |(id, _)| *id).is_err())
        })?;
        Some(format!("{} → {}", old.stages[gone.from].name, old.stages[gone.to].name))
    }
}

/// Hands what was left over to the version that runs now. The last segment first: a partition runs
/// as soon as it has something, and what it sends must not come before what is handed over there.
pub(super) fn hand_over(running: &Running, mut left_over: LeftOver) {
    for segment in running.mailboxes().iter().rev() {
        let Some(root) = segment.first().map(|mailbox| mailbox.segment.root_name()) else { return };
        for (_, partition, delivery) in left_over.extract_if(.., |(to, ..)| to == root) {
            if let Some(mailbox) = segment.get(usize::from(partition)) {
                mailbox.push_over(delivery);
            }
        }
    }
}
