//! Who starts trials of kernels: a process of its own beside the one that has the GPU, so that the
//! latter may start nothing; and the way to it.
//!
//! ```text
//!  process with the GPU ══ a socket for each trial at once ══► starter ─► trial, trial
//! ```
//!
//! - It runs no driver and takes a name and a source for bytes: all it does with them is to start
//!   the program for a trial with them. So it is not held in by more than its being small.
//! - It ends a trial that takes too long, too much memory or too many threads, which is looked at
//!   from here, as no limit of the system's fits drivers: they reserve far more than they use.
//! - A request is the lengths of both as 4 bytes each, and both; an answer a byte, the length of a
//!   text as 4 bytes, and the text. One at a time on a socket.
//! - It ends with the process, or when that closes the sockets.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::confined::end_with_parent;
use super::trial::{TRIAL_TIME_MAX, exit};
use crate::node::{GPU_STARTER_ARGUMENT, GPU_TRIAL_ARGUMENT};

/// Bytes of a source, and of a name, that are started at most.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Bytes of what a trial says.
const SAID_BYTES_MAX: u64 = 1_024;

/// Memory of a trial: what it has written to or shares, but for files. A driver takes some tens of
/// MiB for a kernel.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Threads of a trial: drivers start some for each processor.
const THREADS_MAX: u64 = 1_024;

/// How often a trial is looked at, and how long one that was killed is waited for.
const LOOK: Duration = Duration::from_millis(10);
const REAP_TIME_MAX: Duration = Duration::from_secs(1);

/// What has become of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Became {
    /// The driver takes the kernel.
    Taken,
    /// It does not, and would not another time.
    Refused(String),
    /// It may another time.
    Failed(String),
}

impl Became {
    fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        let (kind, text) = match self {
            Self::Taken => (b't', ""),
            Self::Refused(text) => (b'r', text.as_str()),
            Self::Failed(text) => (b'f', text.as_str()),
        };
        let length = u32::try_from(text.len()).unwrap_or_default().to_le_bytes();
        to.write_all(&[&[kind], &length[..], text.as_bytes()].concat())
    }

    /// What an answer's first bytes say: the kind, and how long the text is.
    pub(super) fn head(bytes: [u8; 5]) -> Option<(u8, usize)> {
        let length = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        (length <= 2 * SAID_BYTES_MAX as usize).then_some((bytes[0], length))
    }

    pub(super) fn read(kind: u8, text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b't' => Some(Self::Taken),
            b'r' => Some(Self::Refused(text)),
            b'f' => Some(Self::Failed(text)),
            _ => None,
        }
    }
}

/// A request, as it is sent.
pub(super) fn request(entry: &str, source: &str) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length(entry)[..], &length(source), entry.as_bytes(), source.as_bytes()].concat()
}

/// Starts the process that starts trials, and gives the ways to it.
///
/// # Errors
/// It cannot be started.
pub(super) fn begin(orders: &str) -> io::Result<Vec<UnixStream>> {
    let (first, their_first) = UnixStream::pair()?;
    let (second, their_second) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([GPU_STARTER_ARGUMENT, orders]);
    command.stdin(Stdio::from(OwnedFd::from(their_first)));
    command.stdout(Stdio::from(OwnedFd::from(their_second)));
    // It ends with this process, which has nobody who could wait for it.
    let _ends_by_itself = command.spawn()?;
    Ok(vec![first, second])
}

/// Is the process that starts trials, to its end.
#[must_use]
pub fn main(orders: &str) -> ExitCode {
    let sockets = || -> io::Result<[UnixStream; 2]> {
        end_with_parent()?;
        let first = io::stdin().as_fd().try_clone_to_owned()?;
        let second = io::stdout().as_fd().try_clone_to_owned()?;
        Ok([first.into(), second.into()])
    };
    let Ok([first, second]) = sockets() else { return ExitCode::FAILURE };
    std::thread::scope(|scope| {
        for socket in [first, second] {
            // The end of one is seen by the other end; the last to end ends the process.
            scope.spawn(move || serve(socket, orders));
        }
    });
    ExitCode::SUCCESS
}

/// Starts trials until nobody asks for one, or one does not end.
fn serve(mut socket: UnixStream, orders: &str) -> io::Result<()> {
    loop {
        let (entry, source) = hear(&mut socket)?;
        let became = match run(orders, &entry, &source) {
            Ok(became) => became,
            Err(Stuck) => return Err(io::ErrorKind::TimedOut.into()),
        };
        became.write(&mut socket)?;
    }
}

fn hear(socket: &mut UnixStream) -> io::Result<(String, Vec<u8>)> {
    let mut length = || -> io::Result<usize> {
        let mut bytes = [0; 4];
        socket.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let (entry, source) = (length()?, length()?);
    if entry.max(source) > SOURCE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (mut name, mut text) = (vec![0; entry], vec![0; source]);
    socket.read_exact(&mut name)?;
    socket.read_exact(&mut text)?;
    let name = String::from_utf8(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((name, text))
}

/// A trial that was killed and does not go: its driver hangs in the system.
struct Stuck;

/// Tries a kernel, and looks after the process that does.
fn run(orders: &str, entry: &str, source: &[u8]) -> Result<Became, Stuck> {
    let failed = |error: io::Error| Ok(Became::Failed(format!("it could not be tried: {error}")));
    let (mut child, mut said) = match start(orders, entry, source) {
        Ok(started) => started,
        Err(error) => return failed(error),
    };
    let process = Pid::from_child(&child);
    let began = Instant::now();
    let ended = pidfd_open(process, PidfdFlags::empty()).ok();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(judged(status, &mut said)),
            Ok(None) => {}
            Err(error) => return failed(error),
        }
        let too_much = if began.elapsed() > TRIAL_TIME_MAX {
            let seconds = TRIAL_TIME_MAX.as_secs();
            let text = format!("the driver takes more than {seconds} s for it: make it smaller");
            Some(Became::Failed(text))
        } else {
            Taken::of(process).too_much().map(Became::Refused)
        };
        if let Some(became) = too_much {
            return kill(&mut child).map(|()| became);
        }
        wait(ended.as_ref());
    }
}

/// Until it has ended, or is to be looked at.
fn wait(ended: Option<&OwnedFd>) {
    let Some(ended) = ended else { return std::thread::sleep(LOOK) };
    let mut polled = [PollFd::new(ended, PollFlags::IN)];
    let longest = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    if poll(&mut polled, Some(&longest)).is_err() {
        std::thread::sleep(LOOK);
    }
}

/// Kills it and sees it go.
fn kill(child: &mut Child) -> Result<(), Stuck> {
    drop(child.kill());
    let began = Instant::now();
    while began.elapsed() < REAP_TIME_MAX {
        if !matches!(child.try_wait(), Ok(None)) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Err(Stuck)
}

/// Starts a trial. Its source and what it says are files in memory: neither end waits for the
/// other, whatever the trial does with them.
fn start(orders: &str, entry: &str, source: &[u8]) -> io::Result<(Child, File)> {
    let memory = || memfd_create("trial", MemfdFlags::CLOEXEC).map(File::from);
    let (mut given, said) = (memory()?, memory()?);
    given.write_all(source)?;
    given.rewind()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([GPU_TRIAL_ARGUMENT, orders, entry]);
    command.stdin(Stdio::from(given)).stdout(Stdio::from(said.try_clone()?)).stderr(Stdio::null());
    // It has nowhere to write, and drivers make a fuss about it.
    let caches = [("MESA_SHADER_CACHE_DISABLE", "true"), ("MESA_GLSL_CACHE_DISABLE", "true")];
    command.envs(caches).env("__GL_SHADER_DISK_CACHE", "0").env_remove("MESA_SHADER_CACHE_DIR");
    Ok((command.spawn()?, said))
}

/// What the end of a trial means.
fn judged(status: ExitStatus, said: &mut File) -> Became {
    // That it was short of something says nothing of the kernel.
    let is_passing = status.code() == Some(i32::from(exit::NO_DEVICE))
        || status.signal() == Some(Signal::KILL.as_raw());
    if status.success() {
        return Became::Taken;
    }
    let mut bytes = Vec::new();
    let read = said.rewind().and_then(|()| said.take(SAID_BYTES_MAX).read_to_end(&mut bytes));
    let text = match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if is_passing {
        return Became::Failed(format!("it could not be tried: {status} {text}"));
    }
    Became::Refused(format!("the driver does not take it ({status}): {text}"))
}

/// What a trial has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Taken {
    memory_bytes: u64,
    threads: u64,
}

impl Taken {
    /// Of a process that may be gone.
    fn of(process: Pid) -> Self {
        let path = format!("/proc/{}/status", process.as_raw_nonzero());
        std::fs::read_to_string(path).map(|text| Self::read(&text)).unwrap_or_default()
    }

    fn read(status: &str) -> Self {
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let kilobytes = ["RssAnon", "RssShmem", "VmSwap"].map(field).iter().sum::<u64>();
        Self { memory_bytes: kilobytes.saturating_mul(1_024), threads: field("Threads") }
    }

    /// What is too much of it, if anything.
    fn too_much(self) -> Option<String> {
        let most = MEMORY_BYTES_MAX >> 20;
        if self.memory_bytes > MEMORY_BYTES_MAX {
            let text = format!("the driver takes more than {most} MiB for it: make it smaller");
            return Some(text);
        }
        (self.threads > THREADS_MAX).then(|| format!("more than {THREADS_MAX} threads are at it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trial_has_taken_is_read_and_held_against_bounds() {
        let status = "Name:\tx\nVmPeak:\t 9999999 kB\nRssAnon:\t 1048000 kB\nRssFile:\t 900000 kB\n\
                      RssShmem:\t 500 kB\nVmSwap:\t 76 kB\nThreads:\t12\n";
        let taken = Taken::read(status);
        assert_eq!(taken, Taken { memory_bytes: 1 << 30, threads: 12 });
        assert_eq!(taken.too_much(), None);
        let more = Taken { memory_bytes: taken.memory_bytes + 1, ..taken };
        assert!(more.too_much().unwrap().contains("1024 MiB"));
        assert!(Taken { threads: THREADS_MAX + 1, ..taken }.too_much().is_some());
        assert_eq!(Taken::read("Name:\nRssAnon: x kB\n"), Taken::default());
        let own = Taken::of(rustix::process::getpid());
        assert!(own.memory_bytes > 0 && own.threads > 0, "{own:?}");
    }

    #[test]
    fn requests_and_answers_are_read_as_they_were_written() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(&request("main", "fn main() {}")).unwrap();
        assert_eq!(hear(&mut there).unwrap(), ("main".to_owned(), b"fn main() {}".to_vec()));
        here.write_all(&[0, 0, 0, 1, 255, 255, 255, 255]).unwrap();
        assert_eq!(hear(&mut there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for became in
            [Became::Taken, Became::Refused("no".to_owned()), Became::Failed("not now".to_owned())]
        {
            let mut bytes = Vec::new();
            became.write(&mut bytes).unwrap();
            let (head, text) = bytes.split_first_chunk().unwrap();
            let (kind, length) = Became::head(*head).unwrap();
            assert_eq!((Became::read(kind, text), length), (Some(became), text.len()));
        }
        assert_eq!(Became::head([b't', 255, 255, 0, 0]), None);
        assert_eq!(Became::read(b'x', b""), None);
    }
}
