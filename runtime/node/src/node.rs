//! The node: what its parts share, and the order they are built in.
//!
//! Configuration is checked, the data directory is locked, the engine is reserved; nothing reads
//! configuration afterwards. Threads are started and stopped in `start`.

mod documents;
mod follow;
mod held;
mod library;
mod readiness;
mod rest;
mod spread;

use std::fs::DirBuilder;
use std::hash::Hash;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dashmap::DashMap;
use sluicebox_core::codec::RecordWriter;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::quota::Allowance;
use sluicebox_engine::artefact::{self, Artefacts};
use sluicebox_engine::compile::Compiler;
use sluicebox_engine::component::Limits;
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::{MemoryMeter, TenantSlots};
use sluicebox_store::catalog::Catalog;
use sluicebox_store::dir::DirCatalog;
use sluicebox_store::log::{self, Log};

use crate::admission::Admission;
use crate::backing::Backing;
use crate::bill::Bill;
use crate::checkpoint::Checkpointer;
use crate::cluster::Cluster;
use crate::components::Components;
use crate::config::Config;
use crate::deploy;
use crate::disk_use::DiskUse;
use crate::durable::{Durable, Ingest, refused};
use crate::egress::Egress;
use crate::error::Error;
use crate::front::Front;
use crate::gpu::Gpus;
use crate::mailbox::{WorkerHandle, lock};
use crate::metrics::Metrics;
use crate::moving::{Gone, Leaving};
use crate::plan::Flows;
use crate::recover::{self, Recovered};
use crate::requests::Requests;
use crate::running::Running;
use crate::scale::Scales;
use crate::spread::Spread;
use crate::tenancy::Tenancy;
use crate::tenants::Tenants;
use crate::traces::Traces;

/// Share of the engine's instances and stacks one tenant may hold, in percent.
const TENANT_SHARE: usize = 75;

/// How long a record that is no event waits for room in the log, and between two tries.
const LOG_PATIENCE: Duration = Duration::from_secs(10);
const LOG_PAUSE: Duration = Duration::from_millis(5);

/// Argument with which the program is started as compile process.
pub const COMPILE_ARGUMENT: &str = "compile";

/// Argument with which the program is started as the process of a tenant.
pub const TENANT_ARGUMENT: &str = "tenant-process";

/// Argument with which the program is started as the process that has the GPU.
pub const GPU_ARGUMENT: &str = "gpu-host";

/// Argument with which that process starts the program as the one that starts trials.
pub const GPU_STARTER_ARGUMENT: &str = "gpu-starter";

/// Argument with which that one starts the program to try a kernel.
pub const GPU_TRIAL_ARGUMENT: &str = "gpu-trial";

/// Tenant and pipeline.
type Named = (Name, Name);

/// Locks, each for as long as somebody has it.
pub(crate) type Locks<K> = DashMap<K, Weak<tokio::sync::Mutex<()>>>;

/// One process that runs pipelines.
#[derive(Debug)]
pub struct Node {
    config: Config,
    tenants: Tenants,
    catalog: Arc<dyn Catalog>,
    log: Arc<dyn Log>,
    backing: Arc<Backing>,
    disk: Arc<DiskUse>,
    bill: Arc<Bill>,
    /// What the log held, until it is started again.
    recovered: Mutex<Option<Recovered>>,
    /// Until its thread is started.
    checkpointer: Mutex<Option<Checkpointer>>,
    components: Arc<Components>,
    requests: Arc<Requests>,
    metrics: Metrics,
    admission: Admission,
    workers: Vec<Arc<WorkerHandle>>,
    running: DashMap<Named, Arc<Running>>,
    /// What there is of pipelines whose partitions are on several nodes.
    spread: Spread,
    /// What partitions do in a second.
    flows: Flows,
    /// How pipelines scale.
    scales: Scales,
    tenancies: DashMap<Name, Arc<Tenancy>>,
    /// Pipelines of the log that could not be started.
    dormant: DashMap<Named, PipelineId>,
    /// Names that are taken though nothing runs under them; true if that passes soon.
    names_held: DashMap<Named, bool>,
    /// Pipelines that are going to other nodes.
    leaving: DashMap<Named, Leaving>,
    /// Pipelines that have gone, for as long as others may not know.
    moved: DashMap<Named, Gone>,
    /// Held by whoever changes a pipeline.
    deploying: Locks<Named>,
    memory: Arc<MemoryMeter>,
    next_tenant: AtomicUsize,
    next_uid: AtomicU64,
    incarnation: AtomicU64,
    ready: AtomicBool,
    draining: AtomicBool,
    front: Arc<Front>,
    gpus: Arc<Gpus>,
    egress: Egress,
    /// Where somebody wants them.
    pub(crate) traces: Option<Arc<Traces>>,
    /// The nodes it works with, if it is not alone.
    cluster: Option<Arc<Cluster>>,
    /// When it was started, in nanoseconds since 1970.
    began: u64,
    /// Changes of which pipelines it has.
    changes: AtomicU64,
}

impl Node {
    /// `tenants` are those of the configuration unless given.
    pub(crate) fn build(
        config: Config,
        program: PathBuf,
        tenants: Option<Tenants>,
    ) -> Result<Self, Error> {
        let front = Arc::new(Front::new(&config, program.clone()));
        let metrics = Metrics::new();
        let traces = Traces::new(&config, &metrics)?;
        let cluster = Cluster::load(&config.cluster, &metrics)?.map(Arc::new);
        let dir = &config.node.data_dir;
        std::fs::create_dir_all(dir).map_err(io("create the data directory"))?;
        let catalog: Arc<dyn Catalog> = Arc::new(DirCatalog::open(&dir.join("catalog"))?);
        let (log, recovered) = recover::open(&config, deploy::secret_number()?)?;
        let sandbox = Arc::new(sandbox(&config)?);
        let artefacts = Arc::new(open_artefacts(dir, &sandbox)?);
        let compiler = library::compiler_config(&config, program.clone());
        let compiler = Compiler::new(compiler, sandbox.engine());
        let limits = Limits {
            bytes_max: config.engine.upload_bytes_max as u64,
            memory_bytes_max: config.engine.memory_bytes_max as u64,
        };
        let components = Components::new(catalog.clone(), artefacts, compiler, sandbox, limits);
        if cluster.is_some() {
            components.count_tenants()?;
        }
        let allowance = config.quota.allowance();
        let tenants = match tenants {
            Some(tenants) => tenants,
            None if config.node.dev => Tenants::dev(allowance),
            None => Tenants::open(&config.node.tenants_file, allowance)?,
        };
        front.begin(&tenants)?;
        let workers = (0..config.node.workers).map(|_| Arc::default()).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tenants,
            catalog,
            log: Arc::new(log),
            backing: recovered.backing.clone(),
            disk: Arc::default(),
            bill: Arc::new(Bill::new(recovered.collected.books().clone(), &config.bill)),
            recovered: Mutex::new(Some(recovered)),
            checkpointer: Mutex::default(),
            components: Arc::new(components),
            requests: Arc::new(Requests::new(config.limits.requests_max)),
            metrics,
            admission: Admission::new(config.limits.ingest_bytes),
            workers,
            running: DashMap::new(),
            spread: Spread::new(cluster.as_deref()),
            flows: Flows::default(),
            scales: Scales::default(),
            tenancies: DashMap::new(),
            dormant: DashMap::new(),
            names_held: DashMap::new(),
            leaving: DashMap::new(),
            moved: DashMap::new(),
            deploying: DashMap::new(),
            memory: Arc::new(MemoryMeter::new(config.engine.memory_bytes_total as u64, None)),
            next_tenant: AtomicUsize::new(0),
            next_uid: AtomicU64::new(0),
            incarnation: AtomicU64::new(since.as_nanos() as u64),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            front,
            gpus: Arc::new(Gpus::new(&config, program)),
            egress: Egress::new(&config),
            traces,
            cluster,
            began: since.as_nanos() as u64,
            changes: AtomicU64::new(0),
            config,
        })
    }

    /// The version of a tenant's pipeline that runs.
    #[must_use]
    pub fn running(&self, tenant: &Name, pipeline: &str) -> Option<Arc<Running>> {
        let pipeline = Name::new(pipeline).ok()?;
        self.running.get(&(tenant.clone(), pipeline)).map(|found| found.value().clone())
    }

    /// All running pipelines of a tenant, by name.
    #[must_use]
    pub fn running_of(&self, tenant: &Name) -> Vec<Arc<Running>> {
        let mut all: Vec<Arc<Running>> = self
            .running
            .iter()
            .filter(|entry| entry.key().0 == *tenant)
            .map(|entry| entry.value().clone())
            .collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Who may do what.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// The GPU, and who has what of it.
    pub(crate) fn gpus(&self) -> &Arc<Gpus> {
        &self.gpus
    }

    /// Requests that stages make to the outside.
    pub(crate) fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Tenants in processes of their own.
    pub(crate) fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// No tokens, tenant `dev`, loopback only.
    #[must_use]
    pub fn dev_mode(&self) -> bool {
        self.config.node.dev
    }

    /// Clients that wait for a result.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The tenants' accounts.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What the node runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every pipeline that runs.
    pub(crate) fn all_running(&self) -> Vec<Arc<Running>> {
        self.running.iter().map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn components_of(&self) -> &Arc<Components> {
        &self.components
    }

    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The store behind state.
    pub(crate) fn backing(&self) -> &Arc<Backing> {
        &self.backing
    }

    /// What pipelines keep on disk.
    pub(crate) fn disk(&self) -> &Arc<DiskUse> {
        &self.disk
    }

    /// What tenants have used.
    pub(crate) fn bill(&self) -> &Arc<Bill> {
        &self.bill
    }

    /// What the log held when the node was built. Given once.
    pub(crate) fn take_recovered(&self) -> Option<Recovered> {
        lock(&self.recovered).take()
    }

    /// Keeps what makes checkpoints until its thread takes it.
    pub(crate) fn keep_checkpointer(&self, checkpointer: Checkpointer) {
        *lock(&self.checkpointer) = Some(checkpointer);
    }

    pub(crate) fn take_checkpointer(&self) -> Option<Checkpointer> {
        lock(&self.checkpointer).take()
    }

    /// A pipeline with a log that nobody knows yet. Its number is one no other ever had.
    pub(crate) fn new_durable(&self) -> Result<Arc<Durable>, Error> {
        let ingest = Ingest::begin(deploy::secret_number()?);
        let id = PipelineId(self.next_incarnation());
        let behind = (self.log.clone(), self.backing.clone());
        Ok(Arc::new(Durable::new(id, behind, ingest, Numbering::default())))
    }

    /// Writes a record that is in nobody's way, and waits until it is on disk: on a full disk for
    /// as long as there is no room.
    ///
    /// # Errors
    /// The log refuses the record, which is not in it then; or it has failed.
    pub(crate) async fn log_and_wait(&self, kind: u8, writer: RecordWriter) -> Result<(), Error> {
        let end = Instant::now() + LOG_PATIENCE;
        let position = loop {
            match self.log.append(log::Class::Commit, kind, &writer.parts()) {
                Ok(position) => break position,
                Err(log::Refusal::Busy | log::Refusal::Full) if Instant::now() < end => {
                    tokio::time::sleep(LOG_PAUSE).await;
                }
                Err(refusal) => return Err(refused(refusal)),
            }
        };
        let mut progress = self.log.subscribe();
        let reached =
            |now: &log::Progress| position < now.synced || now.health == log::Health::Failed;
        // The other end is dropped when the log ends.
        match progress.wait_for(reached).await {
            Ok(now) if position < now.synced => Ok(()),
            _ => Err(Error::LogFailed),
        }
    }

    pub(crate) fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    pub(crate) fn workers(&self) -> &[Arc<WorkerHandle>] {
        &self.workers
    }

    pub(crate) fn requests_shared(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// A number no output of this or an earlier life of the node has: it grows from the time of
    /// the start, in nanoseconds. By it a cursor of another output is recognised.
    pub(crate) fn next_incarnation(&self) -> u64 {
        self.incarnation.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn take_uids(&self, count: usize) -> u64 {
        self.next_uid.fetch_add(count as u64, Ordering::Relaxed)
    }

    pub(crate) fn default_partitions(&self) -> u16 {
        u16::try_from(self.workers.len() * 2).unwrap_or(u16::MAX).clamp(1, 1024)
    }

    pub(crate) fn put_running(&self, running: Arc<Running>) {
        // What was spread once stays among them: another node may have something to say of it.
        let was_spread = running.durable().is_some_and(|own| self.spread(own.id).is_some());
        if running.is_spread() || was_spread {
            self.keep_spread(&running);
        }
        if running.is_part() {
            // Who asks for it is sent to its home.
            return;
        }
        let named = (running.tenant().clone(), running.name().clone());
        self.names_held.remove(&named);
        self.moved.remove(&named);
        self.running.insert(named, running);
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn take_running(&self, tenant: &Name, name: &str) -> Option<Arc<Running>> {
        let name = Name::new(name).ok()?;
        let taken = self.running.remove(&(tenant.clone(), name)).map(|(_, running)| running);
        self.changes.fetch_add(1, Ordering::AcqRel);
        taken
    }

    /// Pipelines of the tenant, and of all.
    pub(crate) fn count_pipelines(&self, tenant: &Name) -> (usize, usize) {
        let own = self.running.iter().filter(|entry| entry.key().0 == *tenant).count();
        (own, self.running.len())
    }

    /// What a tenant may use.
    pub(crate) fn allowance(&self, tenant: &Name) -> Allowance {
        let defaults = || self.config.quota.allowance();
        self.tenants.current().tenant(tenant).map_or_else(defaults, |known| known.allowance)
    }

    /// The tenant at run time; made when first asked for.
    pub(crate) fn tenancy(&self, tenant: &Name) -> Arc<Tenancy> {
        let make = || {
            let allowance = self.allowance(tenant);
            let share = |all: usize| (all * TENANT_SHARE / 100).max(1);
            let memory = MemoryMeter::new(allowance.memory_bytes, Some(self.memory.clone()));
            let engine = &self.config.engine;
            let instances = share(engine.instances as usize);
            let slots = TenantSlots::new(instances, share(engine.stacks as usize), memory);
            let number = self.next_tenant.fetch_add(1, Ordering::Relaxed);
            let weight = self.tenants.current().tenant(tenant).map_or(1, |known| known.weight);
            let disk = self.disk.of(tenant);
            let own = Tenancy::new(tenant.clone(), number, weight, (slots, disk), &allowance);
            Arc::new(own.traced(self.traces.as_ref()))
        };
        self.tenancies.entry(tenant.clone()).or_insert_with(make).clone()
    }

    /// The lock on changes of one pipeline.
    pub(crate) fn deploying(&self, tenant: &Name, name: &Name) -> Arc<tokio::sync::Mutex<()>> {
        lock_of(&self.deploying, (tenant.clone(), name.clone()))
    }
}

/// The lock of one of them.
fn lock_of<K: Eq + Hash>(locks: &Locks<K>, of: K) -> Arc<tokio::sync::Mutex<()>> {
    locks.retain(|_, lock| lock.strong_count() > 0);
    let mut entry = locks.entry(of).or_default();
    entry.upgrade().unwrap_or_else(|| {
        let lock = Arc::default();
        *entry = Arc::downgrade(&lock);
        lock
    })
}

/// What guests run in; says so if the system has too little for as many as there may be.
fn sandbox(config: &Config) -> Result<Sandbox, Error> {
    let tuning = config.engine.tuning();
    if let Some(warning) = tuning.mappings_warning() {
        tracing::warn!("{warning}");
    }
    Ok(Sandbox::new(&tuning)?)
}

/// The directory of compiled code, made if there is none.
fn open_artefacts(dir: &Path, sandbox: &Sandbox) -> Result<Artefacts, Error> {
    let folder = dir.join("artefacts");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(io("create the artefact directory"))?;
    let folder = Dir::open_ambient_dir(folder, ambient_authority())
        .map_err(io("open the artefact directory"))?;
    Ok(Artefacts::open(folder, sandbox.engine(), artefact::BYTES_MAX_DEFAULT)?)
}

/// Says of an error of the system what was being done.
fn io(doing: &str) -> impl FnOnce(std::io::Error) -> Error {
    let doing = doing.to_owned();
    move |source| Error::Io { doing, source }
}
