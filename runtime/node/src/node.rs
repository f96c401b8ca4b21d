//! The node: what its parts share, and the order they are built in.
//!
//! Configuration is checked, the data directory is locked, the engine is reserved; nothing reads
//! configuration afterwards. Threads are started and stopped in `start`.

mod readiness;
mod rest;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dashmap::DashMap;
use sluicebox_core::codec::RecordWriter;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::numbering::Numbering;
use sluicebox_core::quota::{Allowance, Resource};
use sluicebox_engine::artefact::{self, Artefacts};
use sluicebox_engine::compile::{CompileLimits, Compiler, CompilerConfig};
use sluicebox_engine::component::Limits;
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::{MemoryMeter, TenantSlots};
use sluicebox_store::catalog::Catalog;
use sluicebox_store::log::{self, Log};

use crate::admission::Admission;
use crate::backing::Backing;
use crate::checkpoint::Checkpointer;
use crate::components::{AssetInfo, ComponentInfo, Components};
use crate::config::Config;
use crate::deploy;
use crate::disk_use::DiskUse;
use crate::durable::{Durable, Ingest, refused};
use crate::error::Error;
use crate::front::Front;
use crate::mailbox::{WorkerHandle, lock};
use crate::metrics::Metrics;
use crate::recover::{self, Recovered};
use crate::requests::Requests;
use crate::running::Running;
use crate::tenancy::Tenancy;
use crate::tenants::{self, Tenants};

/// How often the tenants file is looked at.
const TENANTS_POLL: Duration = Duration::from_secs(1);

/// Share of the engine's instances and stacks one tenant may hold, in percent.
const TENANT_SHARE: usize = 75;

/// How long a record that is no event waits for room in the log, and between two tries.
const LOG_PATIENCE: Duration = Duration::from_secs(10);
const LOG_PAUSE: Duration = Duration::from_millis(5);

/// Argument with which the program is started as compile process.
pub const COMPILE_ARGUMENT: &str = "compile";

/// Argument with which the program is started as the process of a tenant.
pub const TENANT_ARGUMENT: &str = "tenant-process";

/// Tenant and pipeline.
type Named = (Name, Name);

/// One process that runs pipelines.
#[derive(Debug)]
pub struct Node {
    config: Config,
    tenants: Tenants,
    catalog: Arc<dyn Catalog>,
    log: Arc<dyn Log>,
    backing: Arc<Backing>,
    disk: Arc<DiskUse>,
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
    tenancies: DashMap<Name, Arc<Tenancy>>,
    /// Pipelines of the log that could not be started.
    dormant: DashMap<Named, PipelineId>,
    /// Held by whoever changes a pipeline.
    deploying: DashMap<Named, Weak<tokio::sync::Mutex<()>>>,
    memory: Arc<MemoryMeter>,
    next_tenant: AtomicUsize,
    next_uid: AtomicU64,
    incarnation: AtomicU64,
    ready: AtomicBool,
    draining: AtomicBool,
    front: Arc<Front>,
}

impl Node {
    /// `tenants` are those of the configuration unless given.
    pub(crate) fn build(
        config: Config,
        program: PathBuf,
        tenants: Option<Tenants>,
    ) -> Result<Self, Error> {
        let front = Arc::new(Front::new(&config, program.clone()));
        let dir = &config.node.data_dir;
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Io { doing, source }
        };
        std::fs::create_dir_all(dir).map_err(io("create the data directory"))?;
        let catalog: Arc<dyn Catalog> =
            Arc::new(sluicebox_store::dir::DirCatalog::open(&dir.join("catalog"))?);
        let mut seed = [0; 8];
        deploy::fill_random(&mut seed)?;
        let (log, recovered) = recover::open(&config, u64::from_le_bytes(seed))?;
        let engine_config = config.engine.tuning();
        if let Some(warning) = engine_config.mappings_warning() {
            tracing::warn!("{warning}");
        }
        let sandbox = Arc::new(Sandbox::new(&engine_config)?);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join("artefacts"))
            .map_err(io("create the artefact directory"))?;
        let artefact_dir = Dir::open_ambient_dir(dir.join("artefacts"), ambient_authority())
            .map_err(io("open the artefact directory"))?;
        let engine = sandbox.engine();
        let artefacts =
            Arc::new(Artefacts::open(artefact_dir, engine, artefact::BYTES_MAX_DEFAULT)?);
        let compiler = Compiler::new(compiler_config(&config, program), engine);
        let limits = Limits {
            bytes_max: config.engine.upload_bytes_max as u64,
            memory_bytes_max: config.engine.memory_bytes_max as u64,
        };
        let components =
            Components::new(catalog.clone(), artefacts, compiler, sandbox.clone(), limits);
        let allowance = config.quota.allowance();
        let tenants = match tenants {
            Some(tenants) => tenants,
            None if config.node.dev => Tenants::dev(allowance),
            None => Tenants::open(&config.node.tenants_file, allowance)?,
        };
        let workers = (0..config.node.workers).map(|_| Arc::default()).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tenants,
            catalog,
            log: Arc::new(log),
            backing: recovered.backing.clone(),
            disk: Arc::default(),
            recovered: Mutex::new(Some(recovered)),
            checkpointer: Mutex::default(),
            components: Arc::new(components),
            requests: Arc::new(Requests::new(config.limits.requests_max)),
            metrics: Metrics::new(),
            admission: Admission::new(config.limits.ingest_bytes),
            workers,
            running: DashMap::new(),
            tenancies: DashMap::new(),
            dormant: DashMap::new(),
            deploying: DashMap::new(),
            memory: Arc::new(MemoryMeter::new(config.engine.memory_bytes_total as u64, None)),
            next_tenant: AtomicUsize::new(0),
            next_uid: AtomicU64::new(0),
            incarnation: AtomicU64::new(since.as_nanos() as u64),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            front,
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

    /// Takes a component in. Says as well whether its name stood for something else before, or for
    /// nothing.
    ///
    /// # Errors
    /// It is none that can be run here, or over the quota.
    pub async fn push_component(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        bytes: Bytes,
    ) -> Result<(ComponentInfo, bool), Error> {
        let most = self.allowance(tenant).limit(Resource::Components);
        self.components.push(tenant, name, bytes, most).await
    }

    /// Takes an asset in.
    ///
    /// # Errors
    /// Over the quota.
    pub async fn push_asset(
        self: &Arc<Self>,
        tenant: &Name,
        bytes: Bytes,
    ) -> Result<AssetInfo, Error> {
        let most = self.allowance(tenant).limit(Resource::Components);
        self.components.push_asset(tenant, bytes, most).await
    }

    /// A tenant's components.
    ///
    /// # Errors
    /// The store fails.
    pub async fn components(self: &Arc<Self>, tenant: &Name) -> Result<Vec<ComponentInfo>, Error> {
        self.components.list(tenant).await
    }

    /// Forgets a component.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn delete_component(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<(), Error> {
        self.components.delete(tenant, name).await
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

    /// The number of a pipeline that is in the log and could not be started.
    pub(crate) fn dormant(&self, tenant: &Name, name: &Name) -> Option<PipelineId> {
        self.dormant.get(&(tenant.clone(), name.clone())).map(|id| *id)
    }

    /// Notes that a pipeline of the log could not be started, or is not there any more.
    pub(crate) fn set_dormant(&self, tenant: &Name, name: &Name, id: Option<PipelineId>) {
        let named = (tenant.clone(), name.clone());
        match id {
            Some(id) => drop(self.dormant.insert(named, id)),
            None => drop(self.dormant.remove(&named)),
        }
    }

    /// A pipeline with a log that nobody knows yet. Its number is one no other ever had.
    pub(crate) fn new_durable(&self) -> Result<Arc<Durable>, Error> {
        let mut seed = [0; 8];
        deploy::fill_random(&mut seed)?;
        let ingest = Ingest::begin(u64::from_le_bytes(seed));
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
        self.running.insert((running.tenant().clone(), running.name().clone()), running);
    }

    pub(crate) fn take_running(&self, tenant: &Name, name: &str) -> Option<Arc<Running>> {
        let name = Name::new(name).ok()?;
        self.running.remove(&(tenant.clone(), name)).map(|(_, running)| running)
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
            Arc::new(Tenancy::new(tenant.clone(), number, weight, (slots, disk), &allowance))
        };
        self.tenancies.entry(tenant.clone()).or_insert_with(make).clone()
    }

    /// The lock on changes of one pipeline.
    pub(crate) fn deploying(&self, tenant: &Name, name: &Name) -> Arc<tokio::sync::Mutex<()>> {
        self.deploying.retain(|_, lock| lock.strong_count() > 0);
        let mut entry = self.deploying.entry((tenant.clone(), name.clone())).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let lock = Arc::default();
            *entry = Arc::downgrade(&lock);
            lock
        })
    }

    /// Follows the tenants file while the node runs.
    pub(crate) async fn follow_tenants(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TENANTS_POLL).await;
            let this = self.clone();
            let reloaded = tokio::task::spawn_blocking(move || this.tenants.reload_if_changed());
            match reloaded.await {
                Ok(Ok(true)) => self.tenants_changed(&self.tenants.current()),
                Ok(Err(error)) => tracing::error!("tenants file, the old one stays: {error}"),
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }

    fn tenants_changed(&self, set: &tenants::Set) {
        self.admission.refresh(set);
        self.front.tenants_changed(&self.tenants, &self.metrics);
        for entry in &self.tenancies {
            let allowance = self.allowance(entry.key());
            let weight = set.tenant(entry.key()).map_or(1, |known| known.weight);
            entry.value().adjust(weight, &allowance);
        }
    }
}

fn compiler_config(config: &Config, program: PathBuf) -> CompilerConfig {
    let engine = &config.engine;
    let limits = CompileLimits {
        memory_bytes: engine.compile_memory_bytes_max as u64,
        cpu_seconds: engine.compile_cpu_max.as_secs().max(1),
        wall: engine.compile_time_max,
        output_bytes_max: engine.compile_output_bytes_max as u64,
        ..CompileLimits::default()
    };
    CompilerConfig {
        program,
        args: vec![COMPILE_ARGUMENT.to_owned()],
        limits,
        parallel: engine.compile_processes.into(),
        waiting: engine.compile_waiting_max.into(),
    }
}
