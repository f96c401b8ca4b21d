//! The keeper of the GPU's process: starts it when it is wanted, has it fed (`pump`), and starts it
//! again when it ended by itself.
//!
//! It has a thread of its own, so that no partition's turn is between a guest and its device.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sluicebox_core::ids::Name;
use sluicebox_engine::gpu::Refused;
use sluicebox_gpu::device::Info;
use sluicebox_gpu::wire::{self, Answer, Reply, TAIL_BYTES_MAX};
use sluicebox_link::ends::recv;
use sluicebox_link::ring::{self, Limits, Offer, RingReceiver, RingSender, Sizes};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::confined::Measure;
use super::line::{Request, lost};
use super::process::Orders;
use super::pump::Pump;
use super::status::{Phase, Up};
use super::trial::exit;
use super::{Gpus, confined, refused, witness};
use crate::front::relay_lines;
use crate::node::GPU_ARGUMENT;

/// How long after an end by itself it is started again: longer each time, up to a bound.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A process that was up for so long did not fail at its start.
const SOUND: Duration = Duration::from_secs(60);

/// Signals that a process sends itself.
const FAULTS: [Signal; 6] =
    [Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE, Signal::ABORT, Signal::SYS];

/// How long the status of a process that is gone is waited for.
const REAP_TIME_MAX: Duration = Duration::from_millis(200);

/// How long a process that was killed is waited for.
const KILL_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes of a packet's head and the head's length at most.
const HEAD_BYTES_MAX: usize = wire::REPLY_BYTES_MAX + 64;

/// Bytes of each of the two rings.
const RING_BYTES: usize = 32 << 20;

/// Kernels that are known to hang a device.
const QUARANTINED_MAX: usize = 1_024;

/// Variables of the environment that the process gets: what drivers and their loader are told by,
/// named, and by how their names begin. No others, as they may hold secrets.
const ENVIRONMENT: [&str; 8] = [
    "HOME",
    "PATH",
    "LD_LIBRARY_PATH",
    "XDG_RUNTIME_DIR",
    "RUST_BACKTRACE",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_VISIBLE_DEVICES",
];
const ENVIRONMENT_BEGINS: [&str; 8] =
    ["VK_", "MESA_", "LP_", "LIBGL_", "GALLIUM_", "RADV_", "__NV_", "__GL_"];

/// What both rings are made with and held to.
pub(super) fn offer() -> Offer {
    let sizes = Sizes { ring_bytes: RING_BYTES, packet_bytes_max: TAIL_BYTES_MAX + HEAD_BYTES_MAX };
    Offer { sizes, ..Offer::default() }
}

/// The same of the end that takes it.
pub(super) fn limits() -> Limits {
    let packet_bytes_max = TAIL_BYTES_MAX + HEAD_BYTES_MAX;
    Limits { ring_bytes_max: RING_BYTES, packet_bytes_max, ..Limits::default() }
}

/// See the module.
pub(crate) struct Keeper {
    gpus: Arc<Gpus>,
    pub(super) queue: mpsc::Receiver<Request>,
    pub(super) stop: watch::Receiver<bool>,
    /// What the next process makes handles with.
    pub(super) generation: u32,
    /// Kernels that have hung a device, by tenant.
    pub(super) quarantined: VecDeque<(Name, [u8; 32])>,
    /// Ends by itself, one after the other.
    failures: u32,
}

/// How a process ended.
pub(super) enum Ended {
    /// Nobody wanted it.
    AtRest,
    /// It was told to, for good.
    Stopped,
    /// By itself.
    Failed(Refused),
    /// It has no device: another try now is no use.
    Refused(Refused),
}

/// A process and the ways to it.
pub(super) struct Running {
    pub(super) child: Child,
    /// None while there is a pump.
    pub(super) sender: Option<RingSender>,
    pub(super) receiver: RingReceiver,
}

impl Gpus {
    /// The keeper, once.
    pub(crate) fn keeper(self: &Arc<Self>) -> Option<Keeper> {
        let queue = crate::mailbox::lock(&self.queue).take()?;
        let (stop, gpus) = (self.stop.subscribe(), self.clone());
        Some(Keeper { gpus, queue, stop, generation: 1, quarantined: VecDeque::new(), failures: 0 })
    }
}

impl Keeper {
    /// Keeps the process until the node stops. On a thread of its own.
    pub(crate) fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("blocking-gpu")
            .build();
        match runtime {
            Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, self.keep()),
            Err(error) => tracing::error!("the GPU's keeper cannot start: {error}"),
        }
    }

    async fn keep(&mut self) {
        loop {
            let (gpus, stop) = (self.gpus.clone(), &mut self.stop);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = gpus.line.wanted() => {}
                // What is told while nobody listens is in the introduction of the next.
                () = gpus.line.news() => {
                    drop(gpus.line.take_told());
                    continue;
                }
            }
            let began = Instant::now();
            let ended = self.once().await;
            let names = self.gpus.names();
            self.gpus.status.end_figures(|tenant| names.contains_key(&tenant));
            match ended {
                Ended::Stopped => return,
                Ended::AtRest => {
                    self.failures = 0;
                    self.gpus.status.set_phase(Phase::AtRest);
                    // Somebody may have asked as it went.
                    if !self.queue.is_empty() {
                        self.gpus.line.want();
                    }
                }
                Ended::Failed(why) => self.pause(why, began.elapsed(), false).await,
                Ended::Refused(why) => self.pause(why, began.elapsed(), true).await,
            }
        }
    }

    /// Lets some time pass after an end that nobody asked for.
    async fn pause(&mut self, why: Refused, up: Duration, is_final: bool) {
        let status = &self.gpus.status;
        status.note_failure();
        self.failures = if up >= SOUND { 0 } else { self.failures.saturating_add(1) };
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.clamp(1, 16) >> 1).min(PAUSE_MAX);
        tracing::error!("the GPU's process: {why}; it is started again in {pause:?}, if wanted");
        // With the requests that are in the queue, it is wanted again at once.
        let is_wanted = self.gpus.line.sessions().count() > 0;
        status.set_phase(Phase::Failed { why: why.clone(), is_final });
        let refuse = async {
            // Whoever asks meanwhile is told at once.
            while let Some(request) = self.queue.recv().await {
                drop(request.answer.send(Err(why.clone())));
            }
        };
        let mut stop = self.gpus.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = sleep(pause) => {}
            () = refuse, if is_final => {}
        }
        status.set_phase(Phase::AtRest);
        if is_wanted && !is_final || !self.queue.is_empty() {
            self.gpus.line.want();
        }
    }

    /// Runs the process once.
    async fn once(&mut self) -> Ended {
        let status = &self.gpus.status;
        status.set_phase(Phase::Starting);
        let began = Instant::now();
        let start_time_max = self.gpus.config.start_time_max;
        let mut stop = self.gpus.stop.subscribe();
        let started = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            started = timeout(start_time_max, self.start()) => started,
        };
        let mut running = match started {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                tracing::error!(%error, "the GPU's process");
                return Ended::Failed(refused("gpu.lost", "its process cannot be started"));
            }
            Err(_) => return Ended::Failed(refused("gpu.lost", "it was not there in time")),
        };
        let begun = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            begun = timeout(start_time_max, begun(&mut running.receiver)) => begun,
        };
        let ended = match begun {
            Ok(Ok((info, generation))) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                status.note_start(micros);
                let pid = running.child.id().unwrap_or(0);
                tracing::info!(device = info.name, driver = info.driver, pid, "a GPU is there");
                let up = Up { info, generation, pid, measures: self.measures() };
                self.generation = generation.wrapping_add(1);
                let gpus = self.gpus.clone();
                let mut pump = Pump::new(&gpus, self, &mut running, up);
                gpus.line.set_heard(true);
                let ended = pump.run().await;
                gpus.line.set_heard(false);
                pump.end();
                ended
            }
            Ok(Err(why)) => self.without_device(&mut running, why).await,
            Err(_) => Ended::Failed(refused("gpu.lost", "it had no device in time")),
        };
        if matches!(ended, Ended::Failed(_)) {
            self.blame(&mut running).await;
        }
        // What has not ended by now is not to go on beside the next one. One that the system does
        // not let go of is left behind: it has no way to the node any more.
        if timeout(KILL_TIME_MAX, running.child.kill()).await.is_err() {
            tracing::error!(pid = running.child.id(), "the GPU's process does not end");
        }
        ended
    }

    /// What holds the process in, which is said each time.
    fn measures(&self) -> Arc<[Measure]> {
        let measures = confined::told(&self.gpus.directory);
        for measure in &measures {
            let line = measure.line();
            match measure.is_in_place {
                true => tracing::info!("the GPU's process is {line}"),
                false => tracing::warn!("the GPU's process is {line}"),
            }
        }
        measures.into()
    }

    /// If the process has ended by a fault, the kernel it had to do with is not run again.
    async fn blame(&mut self, running: &mut Running) {
        let status = timeout(REAP_TIME_MAX, running.child.wait()).await.ok().and_then(Result::ok);
        let Some(signal) = status.and_then(|status| status.signal()) else { return };
        if !FAULTS.iter().any(|fault| fault.as_raw() == signal) {
            return;
        }
        let suspect = witness::read(&self.gpus.directory);
        let named = suspect.and_then(|(tenant, kernel)| {
            self.gpus.names().remove(&tenant).map(|name| (name, kernel))
        });
        if let Some((tenant, _)) = &named {
            tracing::error!(%tenant, signal, "the GPU's process died of a kernel, which is not run again");
        }
        self.quarantine(named);
    }

    /// It ended before it had a device; its status says whether it is any use to try again.
    async fn without_device(&self, running: &mut Running, why: Refused) -> Ended {
        let status = timeout(Duration::from_secs(1), running.child.wait()).await;
        match status.ok().and_then(Result::ok).and_then(|status| status.code()) {
            Some(code) if code == i32::from(exit::NO_DEVICE) => Ended::Refused(why),
            _ => Ended::Failed(why),
        }
    }

    /// Starts the program, and makes the two rings.
    async fn start(&self) -> Result<Running, io::Error> {
        let gpus = &self.gpus;
        std::fs::create_dir_all(&gpus.directory)?;
        let (to, their_in) = UnixStream::pair()?;
        let (from, their_out) = UnixStream::pair()?;
        let orders = Orders {
            device: gpus.config.device.to_string(),
            memory_bytes_max: gpus.config.memory_bytes_max as u64,
            generation: self.generation,
            directory: gpus.directory.clone(),
            hold_in: gpus.config.hold_in,
        };
        let mut command = Command::new(&gpus.program);
        command.args([GPU_ARGUMENT, &orders.to_text()]).env_clear().kill_on_drop(true);
        command.envs(std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            ENVIRONMENT.contains(&&*name)
                || ENVIRONMENT_BEGINS.iter().any(|begin| name.starts_with(begin))
        }));
        command.env("MESA_SHADER_CACHE_DIR", gpus.directory.join("shaders"));
        command.env("__GL_SHADER_DISK_CACHE_PATH", gpus.directory.join("shaders"));
        // What such a process writes to the terminal is for the node's log.
        command.stderr(Stdio::piped()).current_dir(&gpus.directory);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(their_in)));
        command.stdout(Stdio::from(std::os::fd::OwnedFd::from(their_out)));
        let mut child = command.spawn()?;
        // Its ends are in the command, and closed with it: else it would not be seen to go.
        drop(command);
        if let Some(said) = child.stderr.take() {
            tokio::task::spawn_local(relay(said));
        }
        let sender = Some(ring::offer(to, offer()).await.map_err(io::Error::other)?);
        let receiver = ring::accept(from, limits()).await.map_err(io::Error::other)?;
        Ok(Running { child, sender, receiver })
    }
}

/// Logs what the process says.
async fn relay(said: ChildStderr) {
    relay_lines(said, |text| tracing::info!(target: "gpu-process", "{text}")).await;
}

/// Waits until the process has its device.
async fn begun(receiver: &mut RingReceiver) -> Result<(Info, u32), Refused> {
    let nonsense = || refused("gpu.lost", "the process said nonsense as it started");
    let packet = recv(receiver).await.map_err(|_| lost())?;
    let (reply, _) = Reply::read(&packet).map_err(|_| nonsense())?;
    match reply.answer {
        Answer::Begun { info, generation } => Ok((info, generation)),
        Answer::Refused(why) => Err(said(why)),
        _ => Err(nonsense()),
    }
}

/// A refusal as the process says it, cut and without what could make a line of a log.
pub(super) fn said(why: wire::Refusal) -> Refused {
    let plain = |text: String, most: usize| -> String {
        text.chars().filter(|c| !c.is_control()).take(most).collect()
    };
    Refused { code: plain(why.code, 64), text: plain(why.text, 1_024) }
}

impl Keeper {
    /// Remembers a kernel that has hung a device, for the processes to come.
    pub(super) fn quarantine(&mut self, kernel: Option<(Name, [u8; 32])>) {
        let Some(kernel) = kernel.filter(|kernel| !self.quarantined.contains(kernel)) else {
            return;
        };
        if self.quarantined.len() == QUARANTINED_MAX {
            self.quarantined.pop_front();
        }
        self.quarantined.push_back(kernel);
    }
}
