//! A program that runs beside the bench: its end, its memory and its processor time.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program has to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running program. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_os_string();
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it writes, if that was asked for.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Bytes of memory that are its own or mapped in now (resident set).
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most it ever had.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_peak_bytes(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// Ends it at once, whatever it is doing, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn status(&self, field: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {field} of the program"))? * 1024)
    }

    /// Processor time of all its threads that still live.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        processor_time(&self.child.id().to_string())
    }

    fn wait(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// Processor time of the bench itself.
///
/// # Errors
/// The system does not say.
pub fn own_processor_time() -> Result<Duration> {
    processor_time("self")
}

fn processor_time(process: &str) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the two looks.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time of a program and of the bench itself over a while.
#[derive(Debug)]
pub struct Spent<'a> {
    process: &'a Process,
    theirs: Duration,
    ours: Duration,
    since: Instant,
}

impl<'a> Spent<'a> {
    /// Begins to count.
    ///
    /// # Errors
    /// The program has ended.
    pub fn since_now(process: &'a Process) -> Result<Self> {
        let (theirs, ours) = (process.processor_time()?, own_processor_time()?);
        Ok(Self { process, theirs, ours, since: Instant::now() })
    }

    /// What the program spent.
    ///
    /// # Errors
    /// The program has ended.
    pub fn theirs(&self) -> Result<Duration> {
        Ok(self.process.processor_time()?.saturating_sub(self.theirs))
    }

    /// In words, for each of so many things done.
    ///
    /// # Errors
    /// The program has ended.
    pub fn for_each(&self, count: u64, thing: &str) -> Result<String> {
        let ours = own_processor_time()?.saturating_sub(self.ours).as_secs_f64();
        let (theirs, wall) = (self.theirs()?.as_secs_f64(), self.since.elapsed().as_secs_f64());
        let each = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        Ok(format!(
            "CPU {thing}: node {:.3} us ({:.2} cores), client {:.3} us ({:.2} cores)",
            each(theirs),
            theirs / wall,
            each(ours),
            ours / wall,
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if !(told && self.wait(PATIENCE)) {
            // What does not listen is ended, and collected so that nothing of it is left.
            let _gone_already = self.child.kill();
            let _collected = self.child.wait();
        }
    }
}
