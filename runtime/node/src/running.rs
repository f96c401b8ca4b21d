//! A pipeline that runs: its segments, their partitions, and the way in.
//!
//! - Built whole from a checked pipeline and linked components, then only used; a new version is a
//!   new [`Running`].
//! - Segments point at those behind them, never back, so that dropping the first drops them all.
//! - An [`Intake`] is taken whole or not at all.
//!
//! Which version runs, and how one replaces another, is decided in `deploy`; the partitions' work
//! is done in `worker`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_core::ids::Name;
use sluicebox_core::key;
use sluicebox_core::layer::{KeyRule, LayerLimits, Ports, Spread, Target};
use sluicebox_core::partition::{SegmentPlan, StagePlan};
use sluicebox_core::pipeline::{EdgeKey, Pipeline, StageIndex};
use sluicebox_core::segment::{self, Plan, Segment};
use sluicebox_core::state::StateLimits;
use sluicebox_engine::stage::{StageCode, StageSettings};
use tokio::sync::Notify;

use crate::mailbox::{Mailbox, States, WorkerHandle};
use crate::metrics::{PipelineMetrics, StageMetrics};
use crate::requests::Requests;
use crate::ring::Output;
use crate::tenancy::Tenancy;

/// Name of the output that answers requests which wait for a result.
const REPLY: &str = "reply";

/// When a producer should try again after it found no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Most bytes one state batch may answer.
const REPLY_BYTES: usize = 16 << 20;

/// What all parts of a running pipeline share.
#[derive(Debug)]
pub struct PipelineShared {
    pub(crate) tenant: Arc<Tenancy>,
    pub(crate) name: Name,
    pub(crate) version: u32,
    pub(crate) dead_letters: Arc<Output>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) metrics: Arc<PipelineMetrics>,
    /// No event is taken in: the pipeline is being replaced or deleted.
    paused: AtomicBool,
    /// Frames queued in inboxes, or being worked on.
    in_flight: AtomicI64,
    idle: Notify,
}

impl PipelineShared {
    /// A frame entered an inbox.
    pub(crate) fn entered(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Frames were taken from an inbox and what came of them is passed on.
    pub(crate) fn left(&self, frames: usize) {
        let frames = i64::try_from(frames).unwrap_or(i64::MAX);
        if self.in_flight.fetch_sub(frames, Ordering::AcqRel) == frames {
            self.idle.notify_waiters();
        }
    }

    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }
}

/// One stage of a segment, ready to run.
#[derive(Debug)]
pub(crate) struct StageRuntime {
    pub(crate) name: String,
    /// Unique in the process; warm instances are shared by it.
    pub(crate) uid: u64,
    pub(crate) code: Arc<StageCode>,
    pub(crate) settings: Arc<StageSettings>,
    pub(crate) metrics: Arc<StageMetrics>,
}

/// Where a target of a stage leads.
#[derive(Debug)]
pub(crate) enum Route {
    /// To a stage of the same segment; the machine passes it on itself.
    Inside,
    /// To the same partition of another segment.
    Same(Vec<Arc<Mailbox>>),
    /// To the partition of the new key.
    Keyed(Vec<Arc<Mailbox>>),
    /// Out.
    Output { ring: Arc<Output>, reply: bool },
}

/// A segment, as its partitions run it.
#[derive(Debug)]
pub(crate) struct SegmentRuntime {
    pub(crate) shared: Arc<PipelineShared>,
    pub(crate) plan: Arc<SegmentPlan>,
    pub(crate) stages: Vec<StageRuntime>,
    /// For each stage, the route of each target.
    pub(crate) routes: Vec<Vec<Route>>,
}

impl SegmentRuntime {
    /// Name of the stage events enter by.
    pub(crate) fn root_name(&self) -> &str {
        self.stages.first().map_or("", |stage| stage.name.as_str())
    }
}

/// Everything [`Running::build`] needs besides the pipeline.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub tenant: Arc<Tenancy>,
    pub name: Name,
    pub version: u32,
    pub workers: &'a [Arc<WorkerHandle>],
    pub requests: Arc<Requests>,
    pub metrics: Arc<PipelineMetrics>,
    pub dead_letters: Arc<Output>,
    /// For each stage of the pipeline.
    pub code: Vec<(Arc<StageCode>, Arc<StageSettings>)>,
    /// Rings of the outputs, in the pipeline's order.
    pub outputs: Vec<Arc<Output>>,
    pub inbox_bytes: usize,
    /// First of the uids for the stages.
    pub uid: u64,
    /// For each partition, the state of stages of the version before.
    pub inherited: Vec<States>,
}

/// See the module.
#[derive(Debug)]
pub struct Running {
    shared: Arc<PipelineShared>,
    pipeline: Pipeline,
    plan: Plan,
    partitions: u16,
    /// For each segment, its partitions.
    mailboxes: Vec<Vec<Arc<Mailbox>>>,
    /// Where ingest leads: segment and input.
    entries: Vec<(usize, u16)>,
    outputs: Vec<Arc<Output>>,
    event_bytes_max: usize,
}

impl Running {
    pub(crate) fn build(pipeline: Pipeline, mut parts: Parts<'_>) -> Arc<Self> {
        let plan = segment::cut(&pipeline);
        let partitions = pipeline.partitions.unwrap_or(1);
        let shared = Arc::new(PipelineShared {
            tenant: parts.tenant.clone(),
            name: parts.name.clone(),
            version: parts.version,
            dead_letters: parts.dead_letters.clone(),
            requests: parts.requests.clone(),
            metrics: parts.metrics.clone(),
            paused: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
            idle: Notify::new(),
        });
        let mut mailboxes: Vec<Vec<Arc<Mailbox>>> = vec![Vec::new(); plan.segments.len()];
        // Crossing edges lead to later segments, so the last is built first.
        for (at, segment) in plan.segments.iter().enumerate().rev() {
            let builder = SegmentBuilder {
                pipeline: &pipeline,
                plan: &plan,
                segment,
                partitions,
                mailboxes: &mailboxes,
                parts: &parts,
            };
            let runtime = Arc::new(builder.build(&shared));
            mailboxes[at] = place(&runtime, partitions, &mut parts);
        }
        let targets = pipeline.ingest.targets.iter();
        let entries = targets.map(|(stage, input)| (plan.of_stage[*stage], *input)).collect();
        let root_limits = pipeline.ingest.targets.iter().map(|(stage, _)| {
            usize::try_from(pipeline.stages[*stage].limits.event_bytes).unwrap_or(usize::MAX)
        });
        let event_bytes_max = root_limits.min().unwrap_or(0);
        let outputs = parts.outputs;
        Arc::new(Self {
            shared,
            pipeline,
            plan,
            partitions,
            mailboxes,
            entries,
            outputs,
            event_bytes_max,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        self.shared.tenant.name()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// Which version this is, from 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.shared.version
    }

    /// The checked declaration.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The segments it was cut into.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Partitions of each segment.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Largest event it takes, head included.
    #[must_use]
    pub fn event_bytes_max(&self) -> usize {
        self.event_bytes_max
    }

    /// Its figures.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PipelineMetrics> {
        &self.shared.metrics
    }

    /// A cheap look before a body is parsed: false if most likely nothing would be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_paused()
            && self
                .entries
                .iter()
                .all(|(segment, _)| self.mailboxes[*segment].iter().any(|m| m.has_room()))
    }

    /// True while it is being replaced or deleted.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Acquire)
    }

    /// The ring of an output.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Arc<Output>> {
        let outputs = &self.pipeline.outputs;
        let at = outputs.iter().position(|output| output.name == name)?;
        self.outputs.get(at)
    }

    /// All outputs, in the order of their names.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Arc<Output>)> {
        self.pipeline.outputs.iter().map(|output| output.name.as_str()).zip(&self.outputs)
    }

    /// The ring of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> &Arc<Output> {
        &self.shared.dead_letters
    }

    pub(crate) fn mailboxes(&self) -> &[Vec<Arc<Mailbox>>] {
        &self.mailboxes
    }

    pub(crate) fn shared(&self) -> &PipelineShared {
        &self.shared
    }

    /// Takes no more events, or takes them again.
    pub(crate) fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
    }

    /// Waits until no event is queued or being worked on.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.shared.idle.notified();
            if self.shared.is_idle() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until an entry may have room again.
    pub async fn room(&self) {
        let full = self
            .entries
            .iter()
            .flat_map(|(segment, _)| &self.mailboxes[*segment])
            .find(|mailbox| !mailbox.has_room());
        if let Some(mailbox) = full {
            let notified = mailbox.room.notified();
            if !mailbox.has_room() {
                notified.await;
            }
        }
    }
}

/// Gives each partition of a segment its worker and what it inherits.
fn place(
    runtime: &Arc<SegmentRuntime>,
    partitions: u16,
    parts: &mut Parts<'_>,
) -> Vec<Arc<Mailbox>> {
    let workers = parts.workers.len();
    // Pipelines begin at different workers, so that many small ones spread evenly.
    let first = key::hash(parts.name.as_str().as_bytes()) as usize % workers;
    let stages: Vec<&str> = runtime.stages.iter().map(|stage| stage.name.as_str()).collect();
    let mut make = |partition: u16| {
        let owner = &parts.workers[(first + usize::from(partition)) % workers];
        let states = parts.inherited.get_mut(usize::from(partition)).map(|states| {
            let mine = |(name, _): &mut (String, _)| stages.contains(&name.as_str());
            states.extract_if(.., mine).collect()
        });
        Mailbox::new(runtime.clone(), partition, owner.clone(), parts.inbox_bytes, states)
    };
    (0..partitions).map(&mut make).collect()
}

struct SegmentBuilder<'a> {
    pipeline: &'a Pipeline,
    plan: &'a Plan,
    segment: &'a Segment,
    partitions: u16,
    mailboxes: &'a [Vec<Arc<Mailbox>>],
    parts: &'a Parts<'a>,
}

impl SegmentBuilder<'_> {
    fn build(&self, shared: &Arc<PipelineShared>) -> SegmentRuntime {
        let mut plans = Vec::new();
        let mut stages = Vec::new();
        let mut routes = Vec::new();
        for stage in &self.segment.stages {
            let (plan, of_stage) = self.stage(*stage);
            plans.push(plan);
            routes.push(of_stage);
            let (code, settings) = self.parts.code[*stage].clone();
            let name = self.pipeline.stages[*stage].name.clone();
            let metrics = self.parts.metrics.stage(&name);
            let uid = self.parts.uid + *stage as u64;
            stages.push(StageRuntime { name, uid, code, settings, metrics });
        }
        let plan = Arc::new(SegmentPlan { stages: plans });
        SegmentRuntime { shared: shared.clone(), plan, stages, routes }
    }

    fn stage(&self, index: StageIndex) -> (StagePlan, Vec<Route>) {
        let stage = &self.pipeline.stages[index];
        let (mut targets, mut inside, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, edge) in self.pipeline.edges.iter().enumerate() {
            if edge.from != index {
                continue;
            }
            let local = self.segment.inside.contains(&at);
            let spread = match edge.key {
                EdgeKey::Cause => Spread::One,
                EdgeKey::Emitted | EdgeKey::Json(_) => Spread::Groups(self.partitions),
            };
            let key = rule(&edge.key);
            targets.push(Target {
                port: edge.port,
                input: edge.input,
                key,
                spread,
                inside: !local,
            });
            let child = self.segment.stages.iter().position(|s| *s == edge.to);
            inside.push(child.filter(|_| local));
            let there = || self.mailboxes[self.plan.of_stage[edge.to]].clone();
            routes.push(match (local, spread) {
                (true, _) => Route::Inside,
                (false, Spread::One) => Route::Same(there()),
                (false, Spread::Groups(_)) => Route::Keyed(there()),
            });
        }
        for (at, output) in self.pipeline.outputs.iter().enumerate() {
            if output.from != index {
                continue;
            }
            let (key, port, spread) = (rule(&output.key), output.port, Spread::One);
            targets.push(Target { port, input: 0, key, spread, inside: false });
            inside.push(None);
            let ring = self.parts.outputs[at].clone();
            routes.push(Route::Output { ring, reply: output.name == REPLY });
        }
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = LayerLimits {
            emit_bytes: bytes(stage.limits.emit_bytes),
            event_bytes: bytes(stage.limits.event_bytes),
            reply_bytes: REPLY_BYTES,
        };
        let state = StateLimits {
            key_bytes: bytes(stage.limits.state_bytes),
            total_bytes: self.parts.tenant.state_bytes_max(),
        };
        let plan = StagePlan {
            name: stage.name.clone(),
            scope: stage.scope,
            on_failure: stage.on_failure,
            retries: stage.retries,
            stream: stage.stream,
            ports: Arc::new(Ports::new(stage.ports.len() as u16, targets)),
            inside,
            limits,
            state,
        };
        (plan, routes)
    }
}

fn rule(key: &EdgeKey) -> KeyRule {
    match key {
        EdgeKey::Cause => KeyRule::Cause,
        EdgeKey::Emitted => KeyRule::Emitted,
        EdgeKey::Json(pointer) => KeyRule::Json(pointer.clone()),
    }
}

/// Collects the events of one request, divided by partition; all or nothing.
#[derive(Debug)]
pub struct Intake {
    running: Arc<Running>,
    /// For each entry, a builder a partition.
    builders: Vec<FrameBuilder>,
    filled: Vec<usize>,
    events: usize,
    bytes: usize,
}

/// An intake that found no room.
#[derive(Debug)]
pub struct Busy {
    /// To try again with.
    pub intake: Intake,
    /// When trying again is worth it.
    pub retry_after: Duration,
}

impl Intake {
    /// An empty intake.
    #[must_use]
    pub fn new(running: &Arc<Running>) -> Self {
        let mut builders = Vec::new();
        let count = running.entries.len() * usize::from(running.partitions);
        builders.resize_with(count, FrameBuilder::new);
        Self { running: running.clone(), builders, filled: Vec::new(), events: 0, bytes: 0 }
    }

    /// Adds one event. The parts are within the format's limits, see [`FrameBuilder::push`].
    pub fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        let partitions = self.running.partitions;
        let partition = usize::from(key::partition_of(key::group_of(key), partitions));
        for (entry, (_, input)) in self.running.entries.iter().enumerate() {
            let at = entry * usize::from(partitions) + partition;
            let builder = &mut self.builders[at];
            if builder.is_empty() {
                self.filled.push(at);
            }
            builder.push(&Head { input: *input, ..*head }, key, payload, fields);
        }
        self.events += 1;
        self.bytes += payload.len();
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often each event is handed in: once for each stage that ingest feeds.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.running.entries.len()
    }

    /// Hands all events to their partitions.
    ///
    /// # Errors
    /// A partition has no room, or the pipeline is being replaced; nothing was taken.
    pub fn submit(mut self) -> Result<(), Busy> {
        let partitions = usize::from(self.running.partitions);
        let mailbox_of = |running: &Running, at: usize| {
            let (segment, _) = running.entries[at / partitions];
            running.mailboxes[segment][at % partitions].clone()
        };
        // Counted as under way before the look at `paused`, so that whoever pauses and then waits
        // for idleness waits for this intake too.
        self.running.shared.entered();
        let room = self.filled.iter().all(|at| mailbox_of(&self.running, *at).has_room());
        if self.running.is_paused() || !room {
            self.running.shared.left(1);
            return Err(Busy { intake: self, retry_after: RETRY_AFTER });
        }
        for at in std::mem::take(&mut self.filled) {
            // Another thread may have filled the inbox since the look; the excess is one frame.
            mailbox_of(&self.running, at).push_over(self.builders[at].finish());
        }
        self.running.shared.left(1);
        Ok(())
    }
}
