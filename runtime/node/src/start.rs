//! Start order, drain order, and the threads in between.
//!
//! Start: the node is built, a thread is started for each worker, the first one restores what was
//! applied before; only then is the node ready. Drain: stop listening, let requests and queued
//! events finish, stop the workers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sluicebox_core::ids::Name;
use sluicebox_link::way::Meeting;
use tokio::sync::{mpsc, watch};

use crate::cluster;
use crate::config::Config;
use crate::error::Error;
use crate::front::Theirs;
use crate::http;
use crate::node::Node;
use crate::running::Running;
use crate::spread;
use crate::tenants::Tenants;
use crate::worker::{self, release::Releases};

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Door {
    /// The configured address.
    Listen,
    /// Somebody who hands them over, for each worker, on behalf of the one tenant, and takes the
    /// traces.
    Handed { tenants: Box<Tenants>, handed: Vec<mpsc::Receiver<Theirs>>, front: OwnedFd },
}

/// The address of a node that listens nowhere.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A node with its threads.
#[derive(Debug)]
pub struct RunningNode {
    node: Arc<Node>,
    address: SocketAddr,
    tls: Option<Arc<http::Tls>>,
    stop_listening: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    stop_checkpoints: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Ends behind all others, as they may have something for it.
    exporter: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Node {
    /// Starts a node and waits until it listens. Blocks; call it from outside any runtime. The
    /// program itself, started with the argument [`crate::node::COMPILE_ARGUMENT`], is the compile
    /// process.
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
    pub fn start_with(config: Config, program: PathBuf) -> Result<RunningNode, Error> {
        Self::start_at(config, program, Door::Listen)
    }

    /// As [`Node::start_with`], with connections from wherever they come.
    pub(crate) fn start_at(
        config: Config,
        program: PathBuf,
        door: Door,
    ) -> Result<RunningNode, Error> {
        raise_file_limit();
        let tls = http::Tls::load(&config.tls)?.map(Arc::new);
        let (tenants, handed, front) = match door {
            Door::Listen => (None, None, None),
            Door::Handed { tenants, handed, front } => (Some(*tenants), Some(handed), Some(front)),
        };
        let node = Arc::new(Self::build(config, program, tenants)?);
        node.metrics().set_log(node.log().clone());
        node.metrics().set_gpus(node.gpus().clone());
        node.metrics().set_kept(node.disk().clone(), node.backing().clone());
        let (stop_listening, listening) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let workers = node.workers().len();
        let (address, sockets): (_, Vec<_>) = match handed {
            None => {
                let (address, sockets) = listen(node.config().http.listen, workers)?;
                (address, sockets.into_iter().map(http::Listener::Tcp).collect())
            }
            Some(handed) => (NOWHERE, handed.into_iter().map(http::Listener::Handed).collect()),
        };
        let mut nodes = match node.cluster() {
            Some(_) => listen(node.config().cluster.listen, workers)?.1.into_iter(),
            None => Vec::new().into_iter(),
        };
        let mut threads = Vec::new();
        let (restored, wait_restored) = std::sync::mpsc::sync_channel(1);
        for (number, clients) in sockets.into_iter().enumerate() {
            let thread = WorkerThread {
                node: node.clone(),
                number,
                listeners: http::Listeners { clients, nodes: nodes.next() },
                tls: tls.clone(),
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
        let stop_checkpoints = Arc::default();
        let running = RunningNode {
            node,
            address,
            tls,
            stop_listening,
            stop,
            stop_checkpoints,
            threads,
            exporter: None,
        };
        match wait_restored.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Internal("the first worker ended at once".to_owned())),
        }
        let mut running = running;
        running.keep_checkpoints()?;
        running.keep_gpu()?;
        running.keep_traces(front)?;
        running.node.set_ready();
        Ok(running)
    }
}

impl RunningNode {
    /// Starts the thread that makes checkpoints.
    fn keep_checkpoints(&mut self) -> Result<(), Error> {
        let Some(mut checkpointer) = self.node.take_checkpointer() else { return Ok(()) };
        let (config, stop) = (self.node.config().log.clone(), self.stop_checkpoints.clone());
        checkpointer.begin(&config, &stop);
        let spawned = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || checkpointer.run(&config, &stop));
        let spawned = spawned.map_err(|source| Error::Io {
            doing: "start the thread of checkpoints".to_owned(),
            source,
        })?;
        self.threads.push(spawned);
        Ok(())
    }

    /// Starts the thread that keeps the process with the GPU.
    fn keep_gpu(&mut self) -> Result<(), Error> {
        let gpus = self.node.gpus();
        let Some(keeper) = gpus.keeper().filter(|_| gpus.is_on()) else { return Ok(()) };
        let spawned = std::thread::Builder::new().name("gpu".to_owned()).spawn(|| keeper.run());
        let spawned = spawned.map_err(|source| Error::Io {
            doing: "start the thread of the GPU".to_owned(),
            source,
        })?;
        self.threads.push(spawned);
        Ok(())
    }

    /// Starts the thread that takes traces to their collector.
    fn keep_traces(&mut self, front: Option<OwnedFd>) -> Result<(), Error> {
        let exporter = self.node.traces.as_ref().and_then(|traces| traces.take_exporter());
        let Some(exporter) = exporter else { return Ok(()) };
        let exporter = match front {
            Some(front) => exporter.by_front(front),
            None => exporter,
        };
        let (stop, stopped) = watch::channel(false);
        let spawned = std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || exporter.run(stopped));
        let spawned = spawned.map_err(|source| Error::Io {
            doing: "start the thread of traces".to_owned(),
            source,
        })?;
        self.exporter = Some((stop, spawned));
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Reads certificate and key again, for connections from now on. Without TLS there is nothing
    /// to read.
    ///
    /// # Errors
    /// A file cannot be used; then what was read before goes on.
    pub fn reload_tls(&self) -> Result<(), Error> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload())
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Stops: no new connections, then what is under way, then the threads. Waits at most
    /// `patience` for requests and events to finish. False if they did not, or the log failed.
    pub async fn drain(self, patience: Duration) -> bool {
        self.node.begin_draining();
        let _nobody_left = self.stop_listening.send(true);
        self.node.front().stop();
        let quiet = async {
            while self.node.metrics().node().connections.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // What waits for other nodes is in the log, and is sent again; so is what waits for
            // receivers.
            let all = self.node.all_running();
            let ends =
                |running: &Arc<Running>| !running.is_spread() && !running.may_wait_for_sinks();
            for running in all.into_iter().filter(ends) {
                running.idle().await;
            }
            self.node.front().has_ended().await;
        };
        let is_quiet = tokio::time::timeout(patience, quiet).await.is_ok();
        if !is_quiet {
            tracing::warn!("stopped before everything under way had finished");
        }
        self.node.bill().close(&self.node);
        let log = self.node.log().clone();
        // Dropping joins the threads, which may take as long as one slice.
        let ended = tokio::task::spawn_blocking(move || {
            drop(self);
            log.close()
        });
        match ended.await {
            Ok(Ok(())) => is_quiet,
            Ok(Err(error)) => {
                tracing::error!("the log: {error}");
                false
            }
            Err(_) => false,
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        let _nobody_left = self.stop_listening.send(true);
        let _nobody_left = self.stop.send(true);
        self.stop_checkpoints.store(true, Ordering::Relaxed);
        self.node.gpus().stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        if let Some((stop, thread)) = self.exporter.take() {
            let _ended = stop.send(true);
            if thread.join().is_err() {
                tracing::error!("the thread of traces panicked");
            }
        }
    }
}

/// What one worker's thread is made of.
struct WorkerThread {
    node: Arc<Node>,
    number: usize,
    listeners: http::Listeners,
    tls: Option<Arc<http::Tls>>,
    listening: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
    restored: Option<std::sync::mpsc::SyncSender<Result<(), Error>>>,
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
        let Self { node, number, listeners, tls, listening, stopped, restored } = self;
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
            let front = node.front().clone();
            front.wake_at_start(node.tenants(), node.metrics());
            tokio::task::spawn_local(front.run(node.clone()));
            for peer in node.cluster().into_iter().flat_map(|cluster| cluster.peers()) {
                let list = node.cluster().map(|cluster| cluster.list().to_owned());
                let list = list.unwrap_or_default();
                tokio::task::spawn_local(cluster::watch(Arc::clone(peer), list));
            }
            tokio::task::spawn_local(crate::bill::run(node.clone()));
            link(&node);
        }
        let releases = Releases::new(node.log().clone());
        tokio::task::spawn_local(releases.clone().run());
        let served = http::serve(listeners, node.clone(), (releases.clone(), tls), listening);
        tokio::task::spawn_local(async move {
            if let Err(error) = served.await {
                tracing::error!("this worker serves no connections: {error}");
            }
        });
        let metrics = node.metrics().worker(u16::try_from(number).unwrap_or(u16::MAX));
        let handle = node.workers()[number].clone();
        let sandbox = node.components_of().sandbox().clone();
        worker::run(handle, sandbox, (metrics, releases), stopped).await;
    }
}

/// Makes the links to other nodes, when they are wanted, and takes those of this machine.
fn link(node: &Arc<Node>) {
    let config = &node.config().cluster;
    let dir = config.meeting_dir.as_ref().filter(|_| node.cluster().is_some());
    let meeting = dir.and_then(|dir| match meeting(dir, config.host.as_ref()) {
        Ok(meeting) => Some(Arc::new(meeting)),
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "cluster.meeting-dir: nobody is met");
            None
        }
    });
    if let Some(meeting) = &meeting {
        tokio::task::spawn_local(spread::receive::meet(node.clone(), meeting.clone()));
    }
    tokio::task::spawn_local(spread::whereabouts::run(node.clone()));
    tokio::task::spawn_local(crate::scale::run(node.clone()));
    tokio::task::spawn_local(crate::connectors::run(node.clone()));
    if node.cluster().is_some() {
        tokio::task::spawn_local(crate::plan::rates::run(node.clone()));
        tokio::task::spawn_local(crate::plan::balance::run(node.clone()));
    }
    for trunk in node.trunks().iter() {
        tokio::task::spawn_local(trunk.clone().keep(node.clone(), meeting.clone()));
    }
}

/// Where the nodes of this machine meet: those that are told to be on another one are not there,
/// also if they see the folder.
fn meeting(dir: &Path, host: Option<&Name>) -> Result<Meeting, sluicebox_link::Error> {
    let all = Meeting::new(dir)?;
    host.map_or(Ok(all), |host| Meeting::new(dir.join(host.as_str())))
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
