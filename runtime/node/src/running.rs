//! A pipeline that runs: its segments, their partitions, and the way in.
//!
//! - Built whole from a checked pipeline and linked components, then only used; a new version is a
//!   new [`Running`].
//! - Segments point at those behind them, never back, so that dropping the first drops them all.
//! - An [`Intake`] is taken whole or not at all.
//!
//! Which version runs, and how one replaces another, is decided in `deploy`; the partitions' work
//! is done in `worker`.

mod entries;
pub(crate) mod event_time;
pub(crate) mod hops;
mod intake;
mod parts;
mod replay;
mod segment_builder;

pub use crate::durable::Identity;
pub use intake::{Intake, Submitted, Unsubmitted};
pub(crate) use parts::{Parts, Passed};
pub use replay::{Asked, Outcome};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use sluicebox_core::ids::{Name, StageId};
use sluicebox_core::partition::SegmentPlan;
use sluicebox_core::pipeline::Pipeline;
use sluicebox_core::segment::{self, Plan, Segment};
use sluicebox_engine::stage::{StageCode, StageSettings};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::counted::Counted;
use crate::deploy::{DeadLetters, StreamCodes};
use crate::durable::Durable;
use crate::error::Error;
use crate::mailbox::{Command, Mailbox};
use crate::metrics::{PipelineMetrics, StageMetrics};
use crate::requests::Requests;
use crate::ring::Output;
use crate::sessions::Sessions;
use crate::spread::{Reports, Sites, Trunks};
use crate::tenancy::Tenancy;
use crate::worker::record::SegmentDurable;
use entries::{EntryPoint, entries};
use event_time::EventTime;
use hops::Hops;

/// What all parts of a running pipeline share.
#[derive(Debug)]
pub struct PipelineShared {
    pub(crate) tenant: Arc<Tenancy>,
    pub(crate) name: Name,
    pub(crate) version: u32,
    /// Partitions of each segment.
    pub(crate) partitions: u16,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) requests: Arc<Requests>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<PipelineMetrics>,
    /// Its way into the log, if it has one.
    pub(crate) durable: Option<Arc<Durable>>,
    /// Its event time, if it has one.
    pub(crate) event_time: Option<EventTime>,
    /// The ways between its segments.
    pub(crate) hops: Hops,
    /// The root of each segment, in a pipeline with a log.
    pub(crate) roots: Vec<StageId>,
    /// Where its partitions are.
    pub(crate) sites: Sites,
    /// What leaves it goes to its home, if this is a part.
    pub(crate) part: Option<Arc<Reports>>,
    pub(crate) trunks: Arc<Trunks>,
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

    /// No event is taken in: it comes to rest.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }
}

/// What a stage runs, and how.
pub(crate) type Code = (Arc<StageCode>, Arc<StageSettings>);

/// One stage of a segment, ready to run.
#[derive(Debug)]
pub(crate) struct StageRuntime {
    pub(crate) name: String,
    /// Unique in the process; warm instances are shared by it.
    pub(crate) uid: u64,
    pub(crate) code: Arc<StageCode>,
    pub(crate) settings: Arc<StageSettings>,
    /// Which codes its streams are open with.
    pub(crate) codes: StreamCodes,
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
    /// Which of the pipeline's segments it is.
    pub(crate) at: usize,
    pub(crate) plan: Arc<SegmentPlan>,
    pub(crate) stages: Vec<StageRuntime>,
    /// For each stage, the route of each target.
    pub(crate) routes: Vec<Vec<Route>>,
    /// In a pipeline with a log.
    pub(crate) durable: Option<SegmentDurable>,
    /// What its outputs are called.
    pub(crate) outputs: Vec<(Arc<Output>, String)>,
}

impl SegmentRuntime {
    /// Name of the stage events enter by.
    pub(crate) fn root_name(&self) -> &str {
        self.stages.first().map_or("", |stage| stage.name.as_str())
    }
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
    /// Where ingest leads.
    entries: Vec<EntryPoint>,
    /// The segments of the entries, each once.
    entered: Vec<usize>,
    outputs: Vec<Arc<Output>>,
    event_bytes_max: usize,
    /// Batches that are read and handed in at a time.
    turnstile: Arc<Semaphore>,
    /// Batches that wait for it.
    queue: AtomicUsize,
    queue_max: usize,
}

/// Batches of one pipeline that each worker reads and hands in at a time. What was read and then
/// finds no room is work for nothing, and under overload there would be nothing but such work: so
/// batches wait before they are read, first come first served.
const BATCHES_A_WORKER: usize = 2;
/// Batches that wait for each of those; further ones are refused before their body is taken in.
const BATCHES_BEHIND: usize = 8;

/// The numbers of the roots of all segments.
fn roots(parts: &Parts<'_>, (pipeline, plan): (&Pipeline, &Plan)) -> Vec<StageId> {
    let numbering = parts.durable.as_ref().map(|(_, numbering)| numbering);
    let root = |segment: &Segment| numbering?.stage(&pipeline.stages[segment.root].name);
    plan.segments.iter().filter_map(root).collect()
}

impl Running {
    pub(crate) fn build(pipeline: Pipeline, mut parts: Parts<'_>) -> Arc<Self> {
        let plan = segment::cut(&pipeline);
        let partitions = pipeline.partitions.unwrap_or(1);
        let shared = Arc::new(PipelineShared {
            tenant: parts.tenant.clone(),
            name: parts.name.clone(),
            version: parts.version,
            partitions,
            dead_letters: parts.dead_letters.clone(),
            requests: parts.requests.clone(),
            sessions: parts.sessions.clone(),
            metrics: parts.metrics.clone(),
            durable: parts.durable.as_ref().map(|(durable, _)| durable.clone()),
            event_time: pipeline.time.as_ref().map(|declared| {
                let high = parts.durable.as_ref().map_or(parts.time.high, |(d, _)| d.high());
                let is_home = parts.spread.1.is_none();
                EventTime::new(declared, (&pipeline, &plan, partitions), (high, is_home))
            }),
            hops: Hops::new(&parts.metrics, (&pipeline, &plan)),
            roots: roots(&parts, (&pipeline, &plan)),
            sites: Sites::new(partitions),
            part: parts.spread.1.map(Reports::new),
            trunks: parts.spread.0.clone(),
            paused: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
            idle: Notify::new(),
        });
        let mut mailboxes: Vec<Vec<Arc<Mailbox>>> = vec![Vec::new(); plan.segments.len()];
        // Crossing edges lead to later segments, so the last is built first.
        for (at, segment) in plan.segments.iter().enumerate().rev() {
            let builder = segment_builder::SegmentBuilder {
                pipeline: &pipeline,
                plan: &plan,
                segment,
                partitions,
                mailboxes: &mailboxes,
                parts: &parts,
            };
            let runtime = Arc::new(builder.build(&shared, at));
            let apart = pipeline.scaling.as_ref().and_then(|own| own.apart.as_deref());
            let is_apart = apart == Some(runtime.root_name());
            mailboxes[at] = segment_builder::place(&runtime, (partitions, is_apart), &mut parts);
        }
        shared.metrics.set_running(Arc::downgrade(&shared));
        if let Some(time) = &shared.event_time {
            time.set_mailboxes(&mailboxes);
        }
        let (entries, entered) = entries(&pipeline, &plan);
        let root_limits = pipeline.ingest.targets.iter().map(|(stage, _)| {
            usize::try_from(pipeline.stages[*stage].limits.event_bytes).unwrap_or(usize::MAX)
        });
        let event_bytes_max = root_limits.min().unwrap_or(0);
        let outputs = parts.outputs;
        let turns = parts.workers.len() * BATCHES_A_WORKER;
        Arc::new(Self {
            shared,
            pipeline,
            plan,
            partitions,
            mailboxes,
            entries,
            entered,
            outputs,
            event_bytes_max,
            turnstile: Arc::new(Semaphore::new(turns)),
            queue: AtomicUsize::new(0),
            queue_max: turns * BATCHES_BEHIND,
        })
    }

    /// True if so many batches wait for their turn that another one is better sent away.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.queue.load(Ordering::Relaxed) >= self.queue_max
    }

    /// The right to read a batch and hand it in; waits for others, for at most `patience`.
    pub async fn turn(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.turnstile.clone().try_acquire_owned() {
            return Some(permit);
        }
        let _counted = Counted::new(&self.queue);
        let turn = self.turnstile.clone().acquire_owned();
        tokio::time::timeout(patience, turn).await.ok()?.ok()
    }

    /// What its parts share.
    pub(crate) fn shared(&self) -> &PipelineShared {
        &self.shared
    }

    /// The same, to know it by.
    pub(crate) fn shared_arc(&self) -> &Arc<PipelineShared> {
        &self.shared
    }

    /// It is a part of a pipeline whose home is another node.
    pub(crate) fn is_part(&self) -> bool {
        self.shared.part.is_some()
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        self.shared.tenant.name()
    }

    /// It has a log.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.shared.durable.is_some()
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

    /// Its way into the log, if it has one.
    pub(crate) fn durable(&self) -> Option<&Arc<Durable>> {
        self.shared.durable.as_ref()
    }

    /// What its stages run, in the pipeline's order.
    pub(crate) fn code(&self) -> Vec<Code> {
        self.stages().map(|stage| (stage.code.clone(), stage.settings.clone())).collect()
    }

    /// With which codes streams of its stages may be open, in the pipeline's order.
    pub(crate) fn codes(&self) -> Vec<StreamCodes> {
        self.stages().map(|stage| stage.codes.clone()).collect()
    }

    fn stages(&self) -> impl Iterator<Item = &StageRuntime> {
        let of = |index: usize| {
            let segment = self.plan.of_stage[index];
            let at = self.plan.segments[segment].stages.iter().position(|stage| *stage == index);
            let runtime = self.mailboxes[segment].first()?;
            runtime.segment.stages.get(at?)
        };
        (0..self.pipeline.stages.len()).filter_map(of)
    }

    /// Who sends streams over sessions.
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.shared.sessions
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
                .entered
                .iter()
                .all(|segment| self.mailboxes[*segment].iter().any(|m| m.has_room()))
    }

    /// A look before anything is taken in that would be kept: may the tenant keep more on disk?
    ///
    /// # Errors
    /// [`Error::DiskQuota`] if not. What was taken in before goes on.
    pub fn check_disk(&self) -> Result<(), Error> {
        let disk = self.shared.tenant.disk_bytes();
        if self.shared.durable.is_none() || disk.room() > 0 {
            return Ok(());
        }
        Err(Error::DiskQuota { used: disk.used() as u64, limit: disk.most() as u64 })
    }

    /// True while it is being replaced or deleted.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused()
    }

    /// Its event time, if it has one.
    pub(crate) fn event_time(&self) -> Option<&EventTime> {
        self.shared.event_time.as_ref()
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

    /// The dead letters.
    pub(crate) fn dead_letters(&self) -> &DeadLetters {
        &self.shared.dead_letters
    }

    pub(crate) fn mailboxes(&self) -> &[Vec<Arc<Mailbox>>] {
        &self.mailboxes
    }

    /// Lets partitions run to which time will bring something to do. Not before everything that
    /// waits for the partitions behind them was handed over: what they send comes later.
    pub(crate) fn wake_by_time(&self) {
        if let Some(time) = &self.shared.event_time {
            time.open();
        }
        let waiting = self.mailboxes.iter().flatten().filter(|mailbox| mailbox.waits_for_time());
        waiting.for_each(Mailbox::schedule);
    }

    /// Lets halted partitions try their batch again, and parked events be tried at once.
    pub(crate) fn resume(&self) {
        let mailboxes = self.mailboxes.iter().flatten();
        mailboxes.for_each(|mailbox| mailbox.command(Command::Resume));
    }

    /// Takes no more events, or takes them again.
    pub(crate) fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Release);
        // Who comes to rest does not wait for sinks.
        self.outputs.iter().for_each(|output| output.wake_held());
    }

    /// What sinks have not taken keeps it from coming to rest.
    pub(crate) fn is_kept_from_rest(&self) -> bool {
        self.outputs.iter().any(|output| output.keeps_from_rest())
    }

    /// Its events may wait in the log for as long as somebody outside takes no results.
    pub(crate) fn may_wait_for_sinks(&self) -> bool {
        self.is_logged() && !self.pipeline.sinks.is_empty()
    }

    /// No event is queued or being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.is_idle()
    }

    /// Waits until that is so.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.shared.idle.notified();
            if self.shared.is_idle() {
                return;
            }
            notified.await;
        }
    }
}
