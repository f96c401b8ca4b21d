//! The process that has the GPU: one thread, one device, two rings.
//!
//! Begun by the program itself with [`GPU_ARGUMENT`](crate::node::GPU_ARGUMENT); standard input is
//! the socket of the ring it hears by, standard output that of the ring it answers by. It ends when
//! either does, when the device hangs, and when it hears what is no packet. What it does is
//! `sluicebox_gpu::serve`; here are the clock and the rings. What holds it in is `confined`, and
//! how kernels are tried before it gets them `trial`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicebox_core::error::Classify as _;
use sluicebox_gpu::device::{Device, Kind};
use sluicebox_gpu::fake::Fake;
use sluicebox_gpu::host::{Host, Settings, Verdict};
use sluicebox_gpu::kernel::Rejected;
use sluicebox_gpu::serve::Server;
use sluicebox_gpu::vulkan::{Choice, Options, Vulkan};
use sluicebox_gpu::wire::{Answer, Refusal, Reply};
use sluicebox_link::ends::{Receiver as _, Refusal as Unsent, Sender as _, recv, room};
use sluicebox_link::ring::{self, RingReceiver, RingSender};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::confined::GpuProcess;
use super::keeper::{limits, offer};
use super::trial::{Starter, Tried, exit, try_kernel};
use super::witness;
use crate::config::GpuDevice;
use crate::error::Error;

/// How long the device is waited for before the rings are looked at again.
const TURN: Duration = Duration::from_micros(100);

/// Packets, and bytes of them, that are taken before the device is looked after again.
const TAKEN_MAX: usize = 32;
const TAKEN_BYTES_MAX: usize = 8 << 20;

/// Kernels that are tried at once, each in a process of its own.
const TRIALS_MAX: usize = 2;

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
    /// Whether processes with drivers are held in.
    pub(super) hold_in: bool,
}

impl Orders {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map_err(|_| Error::Internal("this is not how a GPU's process begins".to_owned()))
    }

    pub(super) fn device(&self) -> Result<GpuDevice, Error> {
        let parsed = self.device.parse();
        parsed.map_err(|()| Error::Internal("the device's name cannot be read".to_owned()))
    }
}

/// A device of either kind.
type AnyDevice = Box<dyn Device>;

/// Opens the device that is wanted.
pub(super) fn open(device: &GpuDevice) -> Result<AnyDevice, sluicebox_gpu::Error> {
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
pub fn main(process: GpuProcess) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
    let ended = runtime
        .map_err(|source| Error::Io { doing: "start the loop".to_owned(), source })
        .and_then(|runtime| {
            let local = tokio::task::LocalSet::new();
            let ended = local.block_on(&runtime, serve(process));
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

async fn serve(mut process: GpuProcess) -> Result<u8, Error> {
    let starter = Starter::of(&mut process);
    let starter = starter
        .map_err(|source| Error::Io { doing: "reach the starter of trials".to_owned(), source })?;
    let orders = &process.orders;
    let link = |error: sluicebox_link::Error| Error::Internal(format!("the rings: {error}"));
    let receiver = ring::accept(socket(&io::stdin())?, limits()).await.map_err(link)?;
    let mut sender = ring::offer(socket(&io::stdout())?, offer()).await.map_err(link)?;
    let settings = Settings {
        memory_bytes_max: orders.memory_bytes_max,
        generation: orders.generation,
        ..Settings::default()
    };
    let device = process.wanted.clone();
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
    let mut served = Process {
        server: Server::new(host),
        began: Instant::now(),
        receiver,
        sender,
        unsent: VecDeque::new(),
        trials: JoinSet::new(),
        tried_by: HashMap::new(),
        starter,
    };
    Box::pin(served.run()).await
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
    /// Kernels are tried in a process of their own first, if there is a driver to try them.
    starter: Option<Rc<Starter>>,
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
            self.begin_trials()?;
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

    fn begin_trials(&mut self) -> Result<(), Error> {
        if self.starter.as_ref().is_some_and(|starter| starter.is_gone()) {
            return Err(Error::Internal("nobody is there any more to try kernels".to_owned()));
        }
        while self.trials.len() < TRIALS_MAX
            && let Some(trial) = self.server.next_trial()
        {
            let number = trial.number;
            let task = self.trials.spawn_local(try_kernel(self.starter.clone(), trial));
            self.tried_by.insert(task.id(), number);
        }
        Ok(())
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
