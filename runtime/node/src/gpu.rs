//! The node's GPU: who may use how much of it, and the process that has it.
//!
//! ```text
//!  instance ─► Session ─┬─► queue ─► keeper ═╦═ two rings ══► process (one device, all tenants)
//!                       │              │     ║
//!                       └─ small ones ─┼─────╝
//!                                starts it, watches it, starts it again
//! ```
//!
//! - The device is in a process of its own, which is started when a stage first wants it, and ended
//!   when no instance has anything of it (`keeper`, `process`). If it crashes or hangs, what was
//!   under way is lost, and told so; nothing else of the node is. It is held in (`confined`), and
//!   so are the processes that try kernels (`trial`), which a third one starts (`starter`).
//! - A tenant has a share of the device's time and memory that it gets in any case. What all are
//!   promised is never more than there is: who would be one too many is refused as it applies.
//! - What is on the device is a cache: no promise of delivery rests on it.
//! - A node without a device runs everything else; a pipeline that wants one is refused when it is
//!   applied, and one that is there from before fails its events and says why.
//!
//! Leaves to others: what a device does (`gpu-host`), what guests see of it (`engine/host/gpu.rs`).

pub(crate) mod confined;
mod keeper;
mod line;
pub(crate) mod process;
mod pump;
mod report;
mod sending;
mod session;
pub(crate) mod starter;
pub(crate) mod status;
pub(crate) mod trial;
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_core::ids::Name;
use sluicebox_core::pipeline::GpuGrant;
use sluicebox_engine::gpu::Refused;
use sluicebox_gpu::slice::{Stage, Tenant};
use sluicebox_gpu::wire::{Answer, Terms, Want};
use tokio::sync::{mpsc, watch};

use crate::config::{Config, GpuConfig, GpuDevice};
use crate::mailbox::lock;
use crate::tenants::GpuShare;

use line::{Line, Request};
pub(crate) use report::{GPU_ITEMS, GpuUsed};
use session::StageGpu;
pub(crate) use session::{Granted, Hashes};
pub(crate) use status::{Phase, Status};

/// Requests that wait to be sent to the process; who would add one waits.
const QUEUE_MAX: usize = 1_024;

/// How long is waited for the process before a request is refused. Less than a call may wait.
const UP_TIME_MAX: Duration = Duration::from_secs(8);

/// How long is waited for what a tenant had before to be let go of, and between two looks.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(2);
const LET_GO_PAUSE: Duration = Duration::from_millis(20);

/// What those are told who have no GPU.
const NO_GPU: &str = "there is none here: the node is configured without (gpu.device), or the tenant \
                      has a process of its own, which may open no device";

/// Millionths in a thousandth.
const MILLIONTHS: u32 = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Gpus {
    config: GpuConfig,
    /// The program that is started.
    program: PathBuf,
    /// Where drivers keep what they have compiled.
    directory: PathBuf,
    line: Arc<Line>,
    queue: Mutex<Option<mpsc::Receiver<Request>>>,
    registry: Mutex<Registry>,
    tenants: AtomicU64,
    stages: AtomicU32,
    owners: Arc<AtomicU64>,
    status: Status,
    stop: watch::Sender<bool>,
}

/// Who there is: what a new process is told first.
#[derive(Debug, Default)]
struct Registry {
    tenants: BTreeMap<Name, Known>,
}

#[derive(Debug)]
struct Known {
    number: u64,
    terms: Terms,
    /// Those who rely on it being there and have no stage yet.
    admitted: usize,
    /// Its stages by their numbers.
    stages: BTreeMap<u32, KnownStage>,
}

#[derive(Debug)]
struct KnownStage {
    pipeline: String,
    name: String,
    weight: u32,
}

impl Gpus {
    pub(crate) fn new(config: &Config, program: PathBuf) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        Self {
            config: gpu_config(config),
            program,
            directory: config.node.data_dir.join("gpu"),
            line: Arc::new(Line::new(queue, config.gpu.device != GpuDevice::Off)),
            queue: Mutex::new(Some(waiting)),
            registry: Mutex::default(),
            tenants: AtomicU64::new(1),
            stages: AtomicU32::new(1),
            owners: Arc::new(AtomicU64::new(1)),
            status: Status::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// Whether the configuration has a device at all.
    pub(crate) fn is_on(&self) -> bool {
        self.config.device != GpuDevice::Off
    }

    /// Whether there is one, as far as is known: it is looked for when somebody first wants it.
    pub(crate) fn may_be_there(&self) -> bool {
        self.is_on() && !self.status.is_absent()
    }

    /// How it stands, for people and figures.
    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// What a tenant is promised: what the tenants file says, else what is configured.
    pub(crate) fn terms(&self, share: Option<&GpuShare>) -> Terms {
        let share = share.copied().unwrap_or_default();
        let part = share.share.unwrap_or(self.config.share);
        let most = share.share_max.unwrap_or(self.config.share_max).max(part);
        let bytes = |own: Option<u64>, usual: usize| own.unwrap_or(usual as u64);
        Terms {
            weight: (part * MILLIONTHS).max(1),
            cap: (most < 1_000).then_some((most * MILLIONTHS).max(1)),
            guaranteed_bytes: bytes(share.memory_bytes, self.config.memory_bytes),
            borrowable_bytes: bytes(share.memory_bytes_lent, self.config.memory_bytes_lent),
        }
    }

    /// Finds out whether a tenant can have what it is promised, before it is relied on: it has it
    /// until what is given is dropped, or its stages are.
    ///
    /// # Errors
    /// There is no device, or it is promised to others.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        tenant: &Name,
        terms: Terms,
    ) -> Result<Admitted, Refused> {
        let number = {
            let mut registry = lock(&self.registry);
            let known = self.known(&mut registry, tenant, terms);
            known.admitted += 1;
            known.number
        };
        let admitted = Admitted { gpus: self.clone(), tenant: tenant.clone() };
        let end = Instant::now() + LET_GO_TIME_MAX;
        loop {
            match self.ask(Want::Tenant { tenant: number, terms }).await {
                Ok(_) => return Ok(admitted),
                // What it had before may be on the device for some moments more.
                Err(why) if why.code == "gpu.oversold" && Instant::now() < end => {
                    tokio::time::sleep(LET_GO_PAUSE).await;
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn drop_admitted(&self, tenant: &Name) {
        if let Some(known) = lock(&self.registry).tenants.get_mut(tenant) {
            known.admitted = known.admitted.saturating_sub(1);
        }
        self.forget_unused(tenant);
    }

    /// A stage with the grant; it is there until what it gives is dropped.
    pub(crate) fn stage(
        self: &Arc<Self>,
        (tenant, terms): (&Name, Terms),
        (pipeline, name): (&str, &str),
        grant: &GpuGrant,
        hashes: Hashes,
    ) -> Arc<StageGpu> {
        let number = self.stages.fetch_add(1, Ordering::Relaxed);
        let weight = grant.weight;
        let stage = {
            let mut registry = lock(&self.registry);
            let known = self.known(&mut registry, tenant, terms);
            let (pipeline, name) = (pipeline.to_owned(), name.to_owned());
            known.stages.insert(number, KnownStage { pipeline, name, weight });
            let stage = Stage { tenant: Tenant(known.number), number };
            self.line.tell(Want::Tenant { tenant: known.number, terms });
            self.line.tell(Want::Stage { stage, weight });
            stage
        };
        let deadline = Duration::from_millis(grant.deadline_ms);
        let whose = (tenant.clone(), stage);
        Arc::new(StageGpu::new(self.clone(), whose, (terms, deadline), hashes))
    }

    /// The tenant, as it is known from now on.
    fn known<'a>(&self, registry: &'a mut Registry, tenant: &Name, terms: Terms) -> &'a mut Known {
        let known = registry.tenants.entry(tenant.clone()).or_insert_with(|| Known {
            number: self.tenants.fetch_add(1, Ordering::Relaxed),
            terms,
            admitted: 0,
            stages: BTreeMap::new(),
        });
        known.terms = terms;
        known
    }

    /// A stage is not there any more.
    fn drop_stage(&self, tenant: &Name, stage: Stage) {
        let mut registry = lock(&self.registry);
        if let Some(known) = registry.tenants.get_mut(tenant) {
            known.stages.remove(&stage.number);
            self.line.tell(Want::CloseStage { stage });
        }
        drop(registry);
        self.forget_unused(tenant);
    }

    fn forget_unused(&self, tenant: &Name) {
        let mut registry = lock(&self.registry);
        let is_unused = |known: &Known| known.stages.is_empty() && known.admitted == 0;
        if registry.tenants.get(tenant).is_some_and(is_unused)
            && let Some(known) = registry.tenants.remove(tenant)
        {
            self.line.tell(Want::CloseTenant { tenant: known.number });
        }
    }

    /// Takes over what the tenants file says now.
    pub(crate) fn adjust(&self, tenant: &Name, share: Option<&GpuShare>) {
        let terms = self.terms(share);
        let mut registry = lock(&self.registry);
        if let Some(known) = registry.tenants.get_mut(tenant)
            && known.terms != terms
        {
            known.terms = terms;
            self.line.tell(Want::Tenant { tenant: known.number, terms });
        }
    }

    /// The tenants by their numbers.
    pub(crate) fn names(&self) -> BTreeMap<u64, Name> {
        let registry = lock(&self.registry);
        registry.tenants.iter().map(|(name, known)| (known.number, name.clone())).collect()
    }

    /// What a new process is told before anything else.
    fn introduction(&self) -> Vec<Want> {
        let registry = lock(&self.registry);
        // What was to be told before is in it.
        drop(self.line.take_told());
        registry.tenants.values().flat_map(Known::introduction).collect()
    }

    /// What is told once more of a tenant, if it is there.
    fn introduction_of(&self, tenant: u64) -> Vec<Want> {
        let registry = lock(&self.registry);
        let known = registry.tenants.values().find(|known| known.number == tenant);
        known.map(|known| known.introduction().collect()).unwrap_or_default()
    }

    /// Asks the process for something that has no bytes, once it is up. Bounded in time.
    async fn ask(&self, want: Want) -> Result<Answer, Refused> {
        self.wait_up(self.config.start_time_max).await?;
        let asked = tokio::time::timeout(UP_TIME_MAX, self.line.ask(want, Bytes::new()));
        let silent = |_| refused("gpu.lost", "the process that has the device does not answer");
        Ok(asked.await.map_err(silent)??.0.0)
    }

    /// Waits until the process is up, and has it started if it is not.
    async fn wait_up(&self, longest: Duration) -> Result<(), Refused> {
        if !self.is_on() {
            return Err(refused("gpu.none", NO_GPU));
        }
        let mut phases = self.status.phases();
        if matches!(*phases.borrow(), Phase::Up(_)) {
            return Ok(());
        }
        self.line.want();
        let settled = phases.wait_for(|phase| match phase {
            Phase::Up(_) => true,
            Phase::Failed { is_final, .. } => *is_final,
            Phase::AtRest | Phase::Starting => false,
        });
        match tokio::time::timeout(longest, settled).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Failed { why, .. } => Err(why.clone()),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(refused("gpu.lost", "the node is shutting down")),
            Err(_) => Err(refused("gpu.lost", "the process that has the device does not start")),
        }
    }

    /// The keeper ends, and its process.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// A driver that makes a GPU of the processor takes from the processors what no share of the node
/// counts: nobody is given one by surprise, but whoever tries things out.
fn gpu_config(config: &Config) -> GpuConfig {
    let mut gpu = config.gpu.clone();
    if gpu.device == GpuDevice::Best && config.node.dev {
        gpu.device = GpuDevice::Any;
    }
    gpu
}

/// A tenant that relies on what it is promised, until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    gpus: Arc<Gpus>,
    tenant: Name,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gpus.drop_admitted(&self.tenant);
    }
}

impl Known {
    /// What a process is told of it.
    fn introduction(&self) -> impl Iterator<Item = Want> {
        let tenant = self.number;
        let stages = self.stages.iter().map(move |(number, stage)| Want::Stage {
            stage: Stage { tenant: Tenant(tenant), number: *number },
            weight: stage.weight,
        });
        [Want::Tenant { tenant, terms: self.terms }].into_iter().chain(stages)
    }
}

/// A refusal of the node's own.
fn refused(code: &str, text: &str) -> Refused {
    Refused { code: code.to_owned(), text: text.to_owned() }
}

/// Instances that have something of the device.
#[derive(Debug, Default)]
pub(crate) struct Sessions(AtomicUsize);

impl Sessions {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn remove(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
