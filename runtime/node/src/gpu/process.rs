//! The process that has the GPU: one thread, one device, two rings.
//!
//! Begun by the program itself with [`GPU_ARGUMENT`](crate::node::GPU_ARGUMENT); standard input is
//! the socket of the ring it hears by, standard output that of the ring it answers by. It ends when
//! either does, when the device hangs, and when it hears what is no packet. What it does is
//! `sluicebox_gpu::serve`; here are the clock, the rings, and the processes that try kernels.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use sluicebox_core::error::Classify as _;
use sluicebox_gpu::device::{Device, Kind};
use sluicebox_gpu::fake::Fake;
use sluicebox_gpu::host::{Host, Settings, TenantLimits, Verdict};
use sluicebox_gpu::kernel::{Kernel, Rejected};
use sluicebox_gpu::serve::{Server, Trial};
use sluicebox_gpu::vulkan::{Choice, Options, Vulkan};
use sluicebox_gpu::wire::{Answer, Refusal, Reply};
use sluicebox_link::ends::{Receiver as _, Refusal as Unsent, Sender as _, recv, room};
use sluicebox_link::ring::{self, RingReceiver, RingSender};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::keeper::{limits, offer};
use super::witness;
use crate::config::GpuDevice;
use crate::error::Error;
use crate::node::GPU_TRIAL_ARGUMENT;

/// With which status it ends.
pub(super) mod exit {
    /// There is no device as it is wanted.
    pub(crate) const NO_DEVICE: u8 = 3;
}

/// How long the device is waited for before the rings are looked at again.
const TURN: Duration = Duration::from_micros(100);

/// Packets, and bytes of them, that are taken before the device is looked after again.
const TAKEN_MAX: usize = 32;
const TAKEN_BYTES_MAX: usize = 8 << 20;

/// Kernels that are tried at once, each in a process of its own.
const TRIALS_MAX: usize = 2;

/// How long a driver may take for a kernel, its own start included.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(6);

/// How long a device that was lost is waited for before another is tried.
const GONE_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of memory that the interpreter takes for a device's.
const INTERPRETER_BYTES: u64 = 256 << 20;

/// What a process is told as it begins.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Which device.
    pub(super) device: String,
    /// How much of its memory is used at most.
    pub(super) memory_bytes_max: u64,
    /// What handles are made with.
    pub(super) generation: u32,
    /// Where drivers keep what they compile.
    pub(super) directory: PathBuf,
}

impl Orders {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map_err(|_| Error::Internal("this is not how a GPU's process begins".to_owned()))
    }

    fn device(&self) -> Result<GpuDevice, Error> {
        let parsed = self.device.parse();
        parsed.map_err(|()| Error::Internal("the device's name cannot be read".to_owned()))
    }
}

/// What has become of a kernel.
type Tried = Result<Arc<Kernel>, Rejected>;

/// A device of either kind.
type AnyDevice = Box<dyn Device>;

/// Opens the device that is wanted.
fn open(device: &GpuDevice) -> Result<AnyDevice, sluicebox_gpu::Error> {
    let choice = match device {
        GpuDevice::Interpreter => return Ok(Box::new(Fake::new(INTERPRETER_BYTES))),
        GpuDevice::Off => return Err(sluicebox_gpu::Error::None("it is off".to_owned())),
        GpuDevice::Best => return open_hardware(),
        GpuDevice::Any => Choice::Best,
        GpuDevice::Discrete => Choice::Kind(Kind::Discrete),
        GpuDevice::Integrated => Choice::Kind(Kind::Integrated),
        GpuDevice::Software => Choice::Kind(Kind::Software),
        GpuDevice::Named(part) => Choice::Name(part.clone()),
    };
    let device = Vulkan::open(&Options { choice, ..Options::default() })?;
    Ok(Box::new(device))
}

/// Opens a GPU that is one.
fn open_hardware() -> Result<AnyDevice, sluicebox_gpu::Error> {
    for kind in [Kind::Discrete, Kind::Integrated] {
        let options = Options { choice: Choice::Kind(kind), ..Options::default() };
        match Vulkan::open(&options) {
            Err(sluicebox_gpu::Error::None(_)) => {}
            opened => return opened.map(|device| Box::new(device) as AnyDevice),
        }
    }
    let why = "there is none but what drivers make of the processor, if any; that is allowed by \
               gpu.device = \"any\" or \"software\"";
    Err(sluicebox_gpu::Error::None(why.to_owned()))
}

/// Is the process that has the GPU, to its end.
#[must_use]
pub fn main(orders: &str) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let ended = runtime
        .map_err(|source| Error::Io { doing: "start the loop".to_owned(), source })
        .and_then(|runtime| {
            let local = tokio::task::LocalSet::new();
            let ended = local.block_on(&runtime, serve(orders));
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket that is behind one of the standard streams.
fn socket(stream: &impl std::os::fd::AsFd) -> Result<UnixStream, Error> {
    let copied = stream.as_fd().try_clone_to_owned().map(UnixStream::from);
    copied.map_err(|source| Error::Io { doing: "take the node's socket".to_owned(), source })
}

async fn serve(orders: &str) -> Result<u8, Error> {
    let held = end_with_parent();
    held.map_err(|source| Error::Io { doing: "hold the process in".to_owned(), source })?;
    let orders = Orders::parse(orders)?;
    let wanted = orders.device()?;
    let link = |error: sluicebox_link::Error| Error::Internal(format!("the rings: {error}"));
    let receiver = ring::accept(socket(&io::stdin())?, limits()).await.map_err(link)?;
    let mut sender = ring::offer(socket(&io::stdout())?, offer()).await.map_err(link)?;
    let settings = Settings {
        memory_bytes_max: orders.memory_bytes_max,
        generation: orders.generation,
        ..Settings::default()
    };
    let device = wanted.clone();
    let host = match Host::new(settings, move || open(&device)) {
        Ok(mut host) => {
            match witness::writer(&orders.directory) {
                Ok(tell) => host.set_witness(Box::new(tell)),
                Err(error) => tracing::warn!(%error, "a crash will be nobody's"),
            }
            host
        }
        Err(why) => {
            let why = Refusal { code: why.code().to_owned(), text: why.to_string() };
            let reply = Reply { number: 0, answer: Answer::Refused(why) };
            if let Ok(head) = reply.head(0) {
                drop(sender.try_send(&[&head]));
                // It is read before the end of the ring is seen.
                drop(timeout(GONE_PAUSE, sluicebox_link::ends::close(&mut sender)).await);
            }
            return Ok(exit::NO_DEVICE);
        }
    };
    let mut process = Process {
        server: Server::new(host),
        began: Instant::now(),
        receiver,
        sender,
        unsent: VecDeque::new(),
        trials: JoinSet::new(),
        tried_by: HashMap::new(),
        tries: wanted != GpuDevice::Interpreter,
        orders,
    };
    Box::pin(process.run()).await
}

/// See the module.
struct Process {
    server: Server<AnyDevice>,
    began: Instant,
    receiver: RingReceiver,
    sender: RingSender,
    unsent: VecDeque<(Vec<u8>, Vec<u8>)>,
    trials: JoinSet<Tried>,
    /// The trials by their tasks.
    tried_by: HashMap<Id, u64>,
    /// Kernels are tried in a process of their own first.
    tries: bool,
    orders: Orders,
}

impl Process {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Works until the node is gone, or the device does not end what it does.
    async fn run(&mut self) -> Result<u8, Error> {
        loop {
            if !self.take_all()? {
                return Ok(0);
            }
            self.begin_trials();
            let verdict = self.server.drive(self.now(), TURN);
            if !self.send_all() {
                return Ok(0);
            }
            let wait = match verdict {
                // The ring is looked at between two turns; a task that waits is not starved.
                Verdict::Busy => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Verdict::Hung { .. } => return Ok(self.end_hung().await),
                Verdict::Later(at) => Some(at.saturating_sub(self.now())),
                Verdict::Gone(_) => Some(GONE_PAUSE),
                Verdict::Idle => None,
            };
            if !self.wait(wait).await? {
                return Ok(0);
            }
        }
    }

    /// Takes what has come. False if the node is gone.
    fn take_all(&mut self) -> Result<bool, Error> {
        let mut bytes = 0;
        for _ in 0..TAKEN_MAX {
            if !self.may_take() || bytes >= TAKEN_BYTES_MAX {
                break;
            }
            match self.receiver.try_recv() {
                Ok(Some(packet)) => {
                    bytes += packet.len();
                    self.take(&packet)?;
                }
                Ok(None) => break,
                Err(_) => return Ok(false),
            }
        }
        while let Some(tried) = self.trials.try_join_next_with_id() {
            self.tried(tried);
        }
        Ok(true)
    }

    fn may_take(&self) -> bool {
        self.unsent.is_empty() && self.server.has_room()
    }

    fn take(&mut self, packet: &Bytes) -> Result<(), Error> {
        let now = self.now();
        let taken = self.server.take(now, packet);
        taken.map_err(|why| Error::Internal(format!("the node sent what is no packet: {why}")))
    }

    /// Sends what there is. False if the node is gone.
    fn send_all(&mut self) -> bool {
        loop {
            let Some((head, bytes)) = self.unsent.pop_front().or_else(|| self.server.next_packet())
            else {
                return true;
            };
            match self.sender.try_send(&[&head, &bytes]) {
                Ok(()) => {}
                Err(Unsent::Full) => {
                    self.unsent.push_front((head, bytes));
                    return true;
                }
                Err(Unsent::TooLarge { .. } | Unsent::Over(_)) => return false,
            }
        }
    }

    /// Waits until there is something to do. False if the node is gone.
    async fn wait(&mut self, longest: Option<Duration>) -> Result<bool, Error> {
        let (may_take, is_full) = (self.may_take(), !self.unsent.is_empty());
        let longest = longest.unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            packet = recv(&mut self.receiver), if may_take => match packet {
                Ok(packet) => self.take(&packet)?,
                Err(_) => return Ok(false),
            },
            end = room(&mut self.sender), if is_full => return Ok(end.is_ok()),
            Some(tried) = self.trials.join_next_with_id() => self.tried(tried),
            () = sleep(longest) => {}
        }
        Ok(true)
    }

    /// Says that the device hangs, and gives the node time to hear it.
    async fn end_hung(&mut self) -> u8 {
        let told = async {
            while self.send_all() && !self.unsent.is_empty() {
                if room(&mut self.sender).await.is_err() {
                    return;
                }
            }
            drop(sluicebox_link::ends::close(&mut self.sender).await);
        };
        drop(timeout(GONE_PAUSE, told).await);
        1
    }

    fn begin_trials(&mut self) {
        while self.trials.len() < TRIALS_MAX
            && let Some(trial) = self.server.next_trial()
        {
            let orders = self.tries.then(|| self.orders.to_text());
            let number = trial.number;
            let task = self.trials.spawn_local(try_kernel(orders, trial));
            self.tried_by.insert(task.id(), number);
        }
    }

    fn tried(&mut self, tried: Result<(Id, Tried), JoinError>) {
        let (task, outcome) = match tried {
            Ok(tried) => tried,
            Err(error) => (error.id(), Err(Rejected::Failed(error.to_string()))),
        };
        if let Some(number) = self.tried_by.remove(&task) {
            self.server.tried(number, &outcome);
        }
    }
}

/// Checks a kernel, and has a process of its own compile it: what the driver makes of it, or what
/// it does to the driver, stays there, but for the driver's cache.
async fn try_kernel(orders: Option<String>, trial: Trial) -> Tried {
    let trial = Arc::new(trial);
    let checked = trial.clone();
    let checked = tokio::task::spawn_blocking(move || checked.check()).await;
    let kernel = checked.map_err(|error| Rejected::Failed(error.to_string()))??;
    let Some(orders) = orders else { return Ok(kernel) };
    let program = std::env::current_exe().map_err(|error| Rejected::Failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args([GPU_TRIAL_ARGUMENT, &orders, &trial.entry]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it did not read, it did not like: that is in what it says.
            drop(stdin.write_all(trial.source.as_bytes()).await);
        }
        child.wait_with_output().await
    };
    let unsupported = |what: String| Err(Rejected::Unsupported { line: 0, what });
    match timeout(TRIAL_TIME_MAX, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(kernel),
        // That it was short of something says nothing of the kernel.
        Ok(Ok(output)) if is_passing(output.status) => {
            Err(Rejected::Failed(format!("it could not be tried: {}", output.status)))
        }
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
            unsupported(format!("the driver does not take it ({}): {said}", output.status))
        }
        Ok(Err(error)) => Err(Rejected::Failed(error.to_string())),
        Err(_) => {
            let seconds = TRIAL_TIME_MAX.as_secs();
            let text = format!("the driver takes more than {seconds} s for it: make it smaller");
            Err(Rejected::Failed(text))
        }
    }
}

/// Whether another time may come to something else: there was no device for it, or the system ended
/// it.
fn is_passing(status: std::process::ExitStatus) -> bool {
    status.code() == Some(i32::from(exit::NO_DEVICE))
        || status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

/// Is a process that tries a kernel: the source is on standard input; what is wrong with it is said
/// on standard output.
#[must_use]
pub fn trial_main(orders: &str, entry: &str) -> ExitCode {
    let (code, why) = match trial(orders, entry) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(TrialError::Kernel(why)) => (1, why),
        Err(TrialError::Device(why)) => (exit::NO_DEVICE, why),
    };
    // Who does not hear it sees how this ends.
    drop(io::stdout().write_all(why.as_bytes()));
    ExitCode::from(code)
}

/// Why a trial came to nothing.
enum TrialError {
    /// It is the kernel.
    Kernel(String),
    /// It is not the kernel.
    Device(String),
}

fn trial(orders: &str, entry: &str) -> Result<(), TrialError> {
    let device = |error: &dyn std::fmt::Display| TrialError::Device(error.to_string());
    let kernel = |error: &dyn std::fmt::Display| TrialError::Kernel(error.to_string());
    hold_in().map_err(|error| device(&error))?;
    let orders = Orders::parse(orders).map_err(|error| device(&error))?;
    let wanted = orders.device().map_err(|error| device(&error))?;
    let limits = TenantLimits::default().kernel;
    let mut source = String::new();
    let most = limits.source_bytes as u64 + 1;
    io::stdin().lock().take(most).read_to_string(&mut source).map_err(|error| device(&error))?;
    let checked = Kernel::check(&source, entry, &limits).map_err(|error| kernel(&error))?;
    let mut opened = open(&wanted).map_err(|error| device(&error))?;
    opened.load(&Arc::new(checked)).map(|_| ()).map_err(|error| kernel(&error))
}

/// Ends with whoever tries the kernel, and is the first to go where something is short.
fn hold_in() -> io::Result<()> {
    end_with_parent()?;
    // Refused in some containers, and then so be it.
    std::fs::write("/proc/self/oom_score_adj", "1000").unwrap_or_default();
    let seconds = TRIAL_TIME_MAX.as_secs() * 4;
    let limits = [(Resource::Cpu, seconds), (Resource::Core, 0), (Resource::Nofile, 256)];
    for (resource, value) in limits {
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(value);
        setrlimit(resource, Rlimit { current: Some(allowed), maximum: Some(allowed) })?;
    }
    Ok(())
}

/// The kernel ends this process when the thread that started it does, and it gets no rights that
/// it does not have.
fn end_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
