//! Kernels are tried: each is compiled in a process of its own first, so that what the driver makes
//! of it, or what it does to the driver, stays there.
//!
//! - [`try_kernel`] is in the process that has the device: it checks the kernel, and asks the
//!   starter of trials (`starter`) for one.
//! - [`main`] is the trial: held in as drivers are, with no place to write and bounds of memory and
//!   time. The source is on standard input; what is wrong with it is said on standard output.
//! - The process that has the device compiles the kernel again and waits for that, as it believes
//!   nothing that a trial wrote; so what takes long for a driver is refused.

use std::cell::{Cell, RefCell};
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sluicebox_gpu::host::TenantLimits;
use sluicebox_gpu::kernel::{Kernel, Rejected};
use sluicebox_gpu::serve::Trial;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::confined::{GpuProcess, end_with_parent, hold_trial_in};
use super::process::{Orders, open};
use super::starter::{Became, request};

/// With which status a process of a driver ends.
pub(super) mod exit {
    /// There is no device as it is wanted.
    pub(crate) const NO_DEVICE: u8 = 3;
}

/// How long a driver may take for a kernel, its own start included.
pub(super) const TRIAL_TIME_MAX: Duration = Duration::from_secs(6);

/// How long whoever ends it may take besides.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

/// Processor time that a driver may take for a kernel alone: nobody has the device meanwhile when
/// it is compiled for that.
const COMPILE_TIME_MAX: Duration = Duration::from_secs(2);

/// What has become of a kernel.
pub(super) type Tried = Result<Arc<Kernel>, Rejected>;

/// The way to the process that starts trials.
#[derive(Debug)]
pub(super) struct Starter {
    idle: RefCell<Vec<UnixStream>>,
    /// Ways that are left.
    left: Cell<usize>,
}

impl Starter {
    /// None if nothing is to be tried. In a runtime.
    ///
    /// # Errors
    /// The runtime has no room for the sockets.
    pub(super) fn of(process: &mut GpuProcess) -> io::Result<Option<Rc<Self>>> {
        let sockets = std::mem::take(&mut process.starter).into_iter().map(|socket| {
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket)
        });
        let idle = sockets.collect::<io::Result<Vec<_>>>()?;
        let left = idle.len();
        let starter = Self { idle: RefCell::new(idle), left: Cell::new(left) };
        Ok((left > 0).then(|| Rc::new(starter)))
    }

    /// Nothing can be tried any more.
    pub(super) fn is_gone(&self) -> bool {
        self.left.get() == 0
    }

    /// Has a kernel tried.
    async fn run(&self, trial: &Trial) -> Option<Became> {
        // There are as many as there are trials at once; who is not heard in time keeps none.
        let mut socket = self.idle.borrow_mut().pop()?;
        let asked = request(&trial.entry, &trial.source);
        let answered = timeout(TRIAL_TIME_MAX + ANSWER_TIME_MAX, ask(&mut socket, &asked)).await;
        match answered {
            Ok(Ok(Some(became))) => {
                self.idle.borrow_mut().push(socket);
                Some(became)
            }
            Ok(Ok(None) | Err(_)) | Err(_) => {
                self.left.set(self.left.get().saturating_sub(1));
                None
            }
        }
    }
}

async fn ask(socket: &mut UnixStream, asked: &[u8]) -> io::Result<Option<Became>> {
    socket.write_all(asked).await?;
    let mut head = [0; 5];
    socket.read_exact(&mut head).await?;
    let Some((kind, length)) = Became::head(head) else { return Ok(None) };
    let mut text = vec![0; length];
    socket.read_exact(&mut text).await?;
    Ok(Became::read(kind, &text))
}

/// Checks a kernel, and has a process of its own compile it.
pub(super) async fn try_kernel(starter: Option<Rc<Starter>>, trial: Trial) -> Tried {
    let trial = Arc::new(trial);
    let checked = trial.clone();
    let checked = tokio::task::spawn_blocking(move || checked.check()).await;
    let kernel = checked.map_err(|error| Rejected::Failed(error.to_string()))??;
    let Some(starter) = starter else { return Ok(kernel) };
    match starter.run(&trial).await {
        Some(Became::Taken) => Ok(kernel),
        Some(Became::Refused(what)) => Err(Rejected::Unsupported { line: 0, what }),
        Some(Became::Failed(why)) => Err(Rejected::Failed(why)),
        None => Err(Rejected::Failed("it could not be tried: nobody answers".to_owned())),
    }
}

/// Is a process that tries a kernel.
#[must_use]
pub fn main(orders: &str, entry: &str) -> ExitCode {
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
    end_with_parent().map_err(|error| device(&error))?;
    // The first to go where memory is short. Refused in some containers, and then so be it.
    std::fs::write("/proc/self/oom_score_adj", "1000").unwrap_or_default();
    let orders = Orders::parse(orders).map_err(|error| device(&error))?;
    let wanted = orders.device().map_err(|error| device(&error))?;
    let held = orders.hold_in.then(|| hold_trial_in(&orders.directory)).transpose();
    let _own = held.map_err(|error| device(&error))?;
    let limits = TenantLimits::default().kernel;
    let mut source = String::new();
    let most = limits.source_bytes as u64 + 1;
    io::stdin().lock().take(most).read_to_string(&mut source).map_err(|error| device(&error))?;
    let checked = Kernel::check(&source, entry, &limits).map_err(|error| kernel(&error))?;
    let mut opened = open(&wanted).map_err(|error| device(&error))?;
    let before = processor_time();
    opened.load(&Arc::new(checked)).map_err(|error| kernel(&error))?;
    let took = processor_time().saturating_sub(before);
    if took > COMPILE_TIME_MAX {
        let most = COMPILE_TIME_MAX.as_secs();
        let text = format!("the driver works more than {most} s on it: make it smaller");
        return Err(TrialError::Kernel(text));
    }
    Ok(())
}

/// Of this process, until now.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
