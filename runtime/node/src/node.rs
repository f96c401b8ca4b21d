//! Build order, start order, drain order.
//!
//! Start: configuration is checked, the data directory is locked, the engine reserved, workers
//! started, what was applied before is restored, and only then does anything listen. Drain: stop
//! listening, let requests and queued events finish, stop the workers. Nothing reads configuration
//! after the start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dashmap::DashMap;
use sluicebox_core::ids::Name;
use sluicebox_core::quota::{Allowance, Resource};
use sluicebox_engine::artefact::{self, Artefacts};
use sluicebox_engine::compile::{CompileLimits, Compiler, CompilerConfig};
use sluicebox_engine::component::Limits;
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::{MemoryMeter, TenantSlots};
use sluicebox_engine::tuning::EngineConfig;
use sluicebox_store::catalog::Catalog;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::components::{AssetInfo, ComponentInfo, Components};
use crate::config::Config;
use crate::error::Error;
use crate::http;
use crate::mailbox::WorkerHandle;
use crate::metrics::Metrics;
use crate::requests::Requests;
use crate::running::Running;
use crate::tenancy::Tenancy;
use crate::tenants::{self, Tenants};
use crate::worker;

/// How often the tenants file is looked at.
const TENANTS_POLL: Duration = Duration::from_secs(1);

/// Share of the engine's instances and stacks one tenant may hold, in percent.
const TENANT_SHARE: usize = 75;

/// Argument with which the program is started as compile process.
pub const COMPILE_ARGUMENT: &str = "compile";

type PipelineId = (Name, Name);

/// One process that runs pipelines.
#[derive(Debug)]
pub struct Node {
    config: Config,
    tenants: Tenants,
    catalog: Arc<dyn Catalog>,
    components: Arc<Components>,
    requests: Arc<Requests>,
    metrics: Metrics,
    admission: Admission,
    workers: Vec<Arc<WorkerHandle>>,
    running: DashMap<PipelineId, Arc<Running>>,
    tenancies: DashMap<Name, Arc<Tenancy>>,
    /// Held by whoever changes a pipeline.
    deploying: DashMap<PipelineId, Weak<tokio::sync::Mutex<()>>>,
    memory: Arc<MemoryMeter>,
    next_tenant: AtomicUsize,
    next_uid: AtomicU64,
    incarnation: u64,
    ready: AtomicBool,
    draining: AtomicBool,
}

/// A node with its threads.
#[derive(Debug)]
pub struct RunningNode {
    node: Arc<Node>,
    address: SocketAddr,
    stop_listening: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts a node and waits until it listens. Blocks; call it from outside any runtime. The
    /// program itself, started with the argument [`COMPILE_ARGUMENT`], is the compile process.
    ///
    /// # Errors
    /// The data directory, the engine or the address cannot be had; nothing is left running.
    pub fn start(config: Config) -> Result<RunningNode, Error> {
        let program = std::env::current_exe()
            .map_err(|source| Error::Io { doing: "find the program itself".to_owned(), source })?;
        Self::start_with(config, program)
    }

    /// As [`Node::start`] with another program as compile process.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(config: Config, compile: PathBuf) -> Result<RunningNode, Error> {
        raise_file_limit();
        let node = Arc::new(Self::build(config, compile)?);
        let (stop_listening, listening) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (address, sockets) = listen(node.config.http.listen, node.workers.len())?;
        let mut threads = Vec::new();
        let (restored, wait_restored) = std::sync::mpsc::channel();
        for (number, listener) in sockets.into_iter().enumerate() {
            let thread = WorkerThread {
                node: node.clone(),
                number,
                listener,
                listening: listening.clone(),
                stopped: stopped.clone(),
                // The first worker restores; the others only wait for work.
                restored: (number == 0).then(|| restored.clone()),
            };
            let spawned = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || thread.run())
                .map_err(|source| Error::Io {
                    doing: "start a worker thread".to_owned(),
                    source,
                })?;
            threads.push(spawned);
        }
        drop(restored);
        let running = RunningNode { node, address, stop_listening, stop, threads };
        match wait_restored.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Internal("the first worker ended at once".to_owned())),
        }
        running.node.ready.store(true, Ordering::Release);
        Ok(running)
    }

    fn build(config: Config, compile: PathBuf) -> Result<Self, Error> {
        let dir = &config.node.data_dir;
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| Error::Io { doing, source }
        };
        std::fs::create_dir_all(dir).map_err(io("create the data directory"))?;
        let catalog: Arc<dyn Catalog> =
            Arc::new(sluicebox_store::dir::DirCatalog::open(&dir.join("catalog"))?);
        let engine_config = engine_config(&config);
        if let Some(warning) = engine_config.mappings_warning() {
            tracing::warn!("{warning}");
        }
        let sandbox = Arc::new(Sandbox::new(&engine_config)?);
        std::fs::create_dir_all(dir.join("artefacts"))
            .map_err(io("create the artefact directory"))?;
        let artefact_dir = Dir::open_ambient_dir(dir.join("artefacts"), ambient_authority())
            .map_err(io("open the artefact directory"))?;
        let engine = sandbox.engine();
        let artefacts =
            Arc::new(Artefacts::open(artefact_dir, engine, artefact::BYTES_MAX_DEFAULT)?);
        let compiler = Compiler::new(compiler_config(&config, compile), engine);
        let limits = Limits {
            bytes_max: config.engine.upload_bytes_max as u64,
            memory_bytes_max: config.engine.memory_bytes_max as u64,
        };
        let components =
            Components::new(catalog.clone(), artefacts, compiler, sandbox.clone(), limits);
        let allowance = config.quota.allowance();
        let tenants = if config.node.dev {
            Tenants::dev(allowance)
        } else {
            Tenants::open(&config.node.tenants_file, allowance)?
        };
        let workers = (0..config.node.workers).map(|_| Arc::default()).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            tenants,
            catalog,
            components: Arc::new(components),
            requests: Arc::new(Requests::new(config.limits.requests_max)),
            metrics: Metrics::new(),
            admission: Admission::new(config.limits.ingest_bytes),
            workers,
            running: DashMap::new(),
            tenancies: DashMap::new(),
            deploying: DashMap::new(),
            memory: Arc::new(MemoryMeter::new(config.engine.memory_bytes_total as u64, None)),
            next_tenant: AtomicUsize::new(0),
            next_uid: AtomicU64::new(0),
            incarnation: since.as_nanos() as u64,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
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

    /// Everything applied before is running again.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.draining()
    }

    /// The node is about to stop.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Takes a component in.
    ///
    /// # Errors
    /// It is none that can be run here, or over the quota.
    pub async fn push_component(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        bytes: Bytes,
    ) -> Result<ComponentInfo, Error> {
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

    pub(crate) fn components_of(&self) -> &Arc<Components> {
        &self.components
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

    /// Differs between starts, so that a cursor of another life is recognised.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
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
            let state = allowance.state_bytes;
            Arc::new(Tenancy::new(tenant.clone(), number, weight, slots, state))
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
    async fn follow_tenants(self: Arc<Self>) {
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
        for entry in &self.tenancies {
            let allowance = self.allowance(entry.key());
            let weight = set.tenant(entry.key()).map_or(1, |known| known.weight);
            entry.value().adjust(weight, allowance.state_bytes);
            entry.value().slots().memory.set_limit(allowance.memory_bytes);
        }
    }
}

impl RunningNode {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Stops: no new connections, then what is under way, then the threads. Waits at most
    /// `patience` for requests and events to finish.
    pub async fn drain(self, patience: Duration) {
        self.node.draining.store(true, Ordering::Release);
        let _nobody_left = self.stop_listening.send(true);
        let quiet = async {
            while self.node.metrics.node().connections.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let all: Vec<Arc<Running>> =
                self.node.running.iter().map(|entry| entry.value().clone()).collect();
            for running in all {
                running.idle().await;
            }
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
            tracing::warn!("stopped before everything under way had finished");
        }
        // Dropping joins the threads, which may take as long as one slice.
        let _joined = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        let _nobody_left = self.stop_listening.send(true);
        let _nobody_left = self.stop.send(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// What one worker's thread is made of.
struct WorkerThread {
    node: Arc<Node>,
    number: usize,
    listener: std::net::TcpListener,
    listening: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
    restored: Option<std::sync::mpsc::Sender<Result<(), Error>>>,
}

impl WorkerThread {
    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Partitions and connections alternate after every turn.
            .event_interval(1)
            .max_blocking_threads(8)
            .thread_name(format!("blocking-{}", self.number))
            .build();
        match runtime {
            Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, self.serve()),
            Err(error) => tracing::error!("a worker cannot start: {error}"),
        }
    }

    async fn serve(self) {
        let Self { node, number, listener, listening, stopped, restored } = self;
        if let Some(restored) = restored {
            let outcome = node.restore().await;
            let failed = outcome.is_err();
            // The other end waits for just this.
            let _told = restored.send(outcome);
            if failed {
                return;
            }
            if !node.dev_mode() {
                tokio::task::spawn_local(node.clone().follow_tenants());
            }
        }
        let served = http::serve(listener, node.clone(), listening);
        tokio::task::spawn_local(async move {
            if let Err(error) = served.await {
                tracing::error!("this worker serves no connections: {error}");
            }
        });
        let metrics = node.metrics.worker(u16::try_from(number).unwrap_or(u16::MAX));
        let handle = node.workers[number].clone();
        worker::run(handle, node.components.sandbox().clone(), metrics, stopped).await;
    }
}

/// A socket for each worker, on one address. The kernel spreads connections over them.
fn listen(
    address: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), Error> {
    // Sockets that share an address could share it with another process by mistake; one that does
    // not share finds out.
    drop(http::listen(address, false)?);
    let first = http::listen(address, true)?;
    let io = |source| Error::Io { doing: format!("listen on {address}"), source };
    // With port 0 the first socket decides which port it is.
    let address = first.local_addr().map_err(io)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(http::listen(address, true)?);
    }
    Ok((address, sockets))
}

/// Connections and loaded components are files; the soft limit is often a thousand. What cannot
/// be raised stays, and connections are then refused earlier.
fn raise_file_limit() {
    use rustix::process::{Resource as Limit, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Limit::Nofile);
    if let Err(error) = setrlimit(Limit::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit on open files could not be raised: {error}");
    }
}

/// The engine's own configuration, from the node's.
fn engine_config(config: &Config) -> EngineConfig {
    EngineConfig {
        instances: config.engine.instances,
        stacks: config.engine.stacks,
        memory_bytes_max: config.engine.memory_bytes_max as u64,
        keep_resident_bytes: config.engine.keep_resident_bytes,
        warm_slots: config.engine.warm_slots,
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
