//! Tenants in processes of their own: which have one, and the keepers of these processes.
//!
//! ```text
//!  client ─► edge (token, scope) ─► process of the tenant: edge, partitions, log, store
//!                 │                     ▲
//!                 └── two rings or a socket for each connection ──┘
//! ```
//!
//! - A tenant's process is a whole node for this one tenant, with a directory, a log and a store of
//!   its own (`tenant_process`). It listens nowhere: only the front has a way in, and has looked at
//!   the token before.
//! - A process is started by the first request, or when time brings something to do; one that has
//!   nothing to do ends. What it holds is on disk; one with pipelines without a log stays.
//! - Whatever happens in it, a trap, a leak, a crash, an escape from the sandbox, happens to it
//!   alone. It is started again, more slowly each time.
//!
//! How requests are passed on: `http/pass`. What holds a process in: the crate `confine`, and from
//! outside `groups`. See ADR 0036 and 0044.

mod control;
pub(crate) mod figures;
mod groups;
mod keeper;
mod lane;
mod process;
mod said;
mod spans;
pub(crate) mod tenant_process;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use sluicebox_core::ids::Name;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{Config, GpuDevice, GroupPlace, IsolationConfig};
use crate::error::Error;
use crate::mailbox::lock;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::tenants::{Isolation, Tenants};

use groups::Groups;
use keeper::Keeper;
pub(crate) use lane::{Lane, Theirs};
pub(crate) use process::{Inside, Process};
pub(crate) use said::relay_lines;
pub(crate) use spans::{SPANS_BYTES_MAX, say_spans};

/// Tenants whose keepers may wait to be begun: more than there can be tenants.
const BEGINNING_MAX: usize = 16 * 1024;

/// What the name of a file ends with that says that a tenant's process ended with nothing to do,
/// and until when: microseconds since 1970. It is beside the tenant's directory, where the process
/// cannot write, and may be missing: then the process is started.
const REST_FILE: &str = ".at-rest";

/// Bytes of that file at most.
const REST_BYTES_MAX: u64 = 32;

/// Eighths of a process's memory that its guests may have together.
const GUEST_EIGHTHS: usize = 5;

const MIB: usize = 1 << 20;

/// Time brings nothing to do.
const NEVER: u64 = u64::MAX;

/// Where the processes' directories are, below the node's.
const DIRECTORY: &str = "tenants";

/// See the module.
#[derive(Debug)]
pub(crate) struct Front {
    config: IsolationConfig,
    /// The program that is started.
    program: PathBuf,
    directory: PathBuf,
    /// What a process runs with, but for its directory.
    template: Config,
    groups: Arc<Groups>,
    processes: DashMap<Name, Arc<Process>>,
    /// Starts of all processes so far.
    starts: AtomicU64,
    /// Changes of which tenants are here.
    changes: AtomicU64,
    begin: mpsc::Sender<Arc<Process>>,
    beginning: Mutex<Option<mpsc::Receiver<Arc<Process>>>>,
    /// One for each process that may run.
    permits: Arc<Semaphore>,
    /// Keepers that wait for a permit.
    waiting: AtomicUsize,
    stop: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Front {
    pub(crate) fn new(config: &Config, program: PathBuf) -> Self {
        let (begin, beginning) = mpsc::channel(BEGINNING_MAX);
        let mut template = config.clone();
        template.node.dev = false;
        template.tls.certificate = None;
        template.tls.key = None;
        // It can open no files, and has no network.
        template.connectors = config.connectors.closed();
        template.isolation.processes = false;
        // Its process may open no device, nor start one that does.
        template.gpu.device = GpuDevice::Off;
        template.isolation.cgroup = GroupPlace::Off;
        // The front is its way to other nodes.
        template.cluster.node = None;
        template.cluster.nodes.clear();
        let instances = config.isolation.instances.min(config.engine.instances);
        template.engine.instances = instances;
        // Guests are refused memory, while the process has some left for everything else.
        let guests = config.isolation.memory_bytes_max / 8 * GUEST_EIGHTHS / MIB * MIB;
        let engine = &mut template.engine;
        engine.memory_bytes_total = engine.memory_bytes_total.min(guests);
        engine.memory_bytes_max = engine.memory_bytes_max.min(engine.memory_bytes_total);
        template.engine.warm_slots = config.engine.warm_slots.min(instances);
        // So that the front is there to see them end.
        template.node.drain_time_max = config.node.drain_time_max * 3 / 4;
        let directory = config.node.data_dir.join(DIRECTORY);
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        Self {
            config: config.isolation.clone(),
            program,
            directory,
            template,
            groups: Groups::new(config),
            processes: DashMap::new(),
            starts: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            begin,
            beginning: Mutex::new(Some(beginning)),
            permits: Arc::new(Semaphore::new(config.isolation.processes_max.into())),
            waiting: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        }
    }

    /// Finds out what processes can be held to. Blocks; the data directory is this node's by then.
    ///
    /// # Errors
    /// Not to what the configuration says.
    pub(crate) fn begin(&self, tenants: &Tenants) -> Result<(), Error> {
        let any = || tenants.current().iter().any(|tenant| self.isolates(tenants, &tenant.name));
        self.groups.begin(self.config.processes || any())
    }

    /// Whether the tenant has a process of its own.
    pub(crate) fn isolates(&self, tenants: &Tenants, tenant: &Name) -> bool {
        let said = tenants.current().tenant(tenant).and_then(|known| known.isolation);
        match said {
            Some(isolation) => isolation == Isolation::Process,
            None => self.config.processes,
        }
    }

    /// The tenant's process, running or not.
    pub(crate) fn process(&self, tenant: &Name, metrics: &Metrics) -> Arc<Process> {
        let make = || {
            let figures = metrics.process(tenant);
            let process = Process::new(tenant.clone(), self.config.start_time_max, figures);
            let begun = self.begin.try_send(Arc::clone(&process));
            (process, begun.is_ok())
        };
        if let Some(known) = self.processes.get(tenant) {
            return Arc::clone(&known);
        }
        let entry = self.processes.entry(tenant.clone());
        match entry {
            dashmap::Entry::Occupied(known) => Arc::clone(known.get()),
            dashmap::Entry::Vacant(place) => {
                let (process, is_kept) = make();
                if is_kept {
                    place.insert(Arc::clone(&process));
                    self.changes.fetch_add(1, Ordering::AcqRel);
                }
                process
            }
        }
    }

    /// The tenant's process is, or was, on this node.
    pub(crate) fn has(&self, tenant: &Name) -> bool {
        self.processes.contains_key(tenant) || self.directory_of(tenant).exists()
    }

    /// How often that changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// All processes there are or were.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        self.processes.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// The tenants file was read anew.
    pub(crate) fn tenants_changed(&self, tenants: &Tenants, metrics: &Metrics) {
        self.wake_at_start(tenants, metrics);
        self.all().iter().for_each(|process| process.changed.notify_one());
    }

    /// Keeps the processes until told to stop, and then until all have ended. On one worker.
    pub(crate) async fn run(self: Arc<Self>, node: Arc<Node>) {
        let Some(mut beginning) = lock(&self.beginning).take() else { return };
        let mut stopped = self.stop.subscribe();
        let mut keepers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                Some(ended) = keepers.join_next(), if !keepers.is_empty() => note(ended),
                Some(process) = beginning.recv() => {
                    keepers.spawn_local(Keeper::new(Arc::clone(&node), process).run());
                }
            }
        }
        while let Some(ended) = keepers.join_next().await {
            note(ended);
        }
        self.groups.close();
        self.ended.send_replace(true);
    }

    /// Returns when all processes have ended, after [`Self::stop`].
    pub(crate) async fn has_ended(&self) {
        // The sender is here, so that it does not fail.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// Tells all processes to finish what they do, and to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Begins what has to go on by itself: processes that were not at rest, and those that time
    /// brings something to do.
    pub(crate) fn wake_at_start(&self, tenants: &Tenants, metrics: &Metrics) {
        for tenant in tenants.current().iter().map(|tenant| &tenant.name) {
            if self.isolates(tenants, tenant)
                && self.directory_of(tenant).exists()
                && self.rest_of(tenant) != Some(NEVER)
            {
                self.process(tenant, metrics);
            }
        }
    }

    /// Where a tenant's process keeps everything.
    fn directory_of(&self, tenant: &Name) -> PathBuf {
        self.directory.join(tenant.as_str())
    }

    /// When time brings a process at rest something to do; `None` if it is not at rest.
    fn rest_of(&self, tenant: &Name) -> Option<u64> {
        let mut text = String::new();
        let file = std::fs::File::open(self.rest_file(tenant)).ok()?;
        file.take(REST_BYTES_MAX).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn rest_file(&self, tenant: &Name) -> PathBuf {
        self.directory.join(format!("{tenant}{REST_FILE}"))
    }

    /// Notes whether a process is at rest, and until when.
    fn set_rest(&self, tenant: &Name, until: Option<u64>) -> io::Result<()> {
        let file = self.rest_file(tenant);
        match until {
            Some(until) => std::fs::write(file, format!("{until}\n")),
            None if file.exists() => {
                std::fs::remove_file(file)?;
                // Else it could come back with a power cut, beside work that is in the log.
                std::fs::File::open(&self.directory)?.sync_all()
            }
            None => Ok(()),
        }
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended.as_ref()
        && error.is_panic()
    {
        tracing::error!(%error, "the keeper of a tenant's process panicked");
    }
}

/// The system does not do what a process needs to begin.
fn failed(source: io::Error) -> Error {
    Error::Io { doing: "start the process".to_owned(), source }
}

/// Makes a directory that is nobody else's.
fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
