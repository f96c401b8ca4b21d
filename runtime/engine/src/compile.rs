//! Compiling a component in a short-lived process of its own: the node's side.
//!
//! Keeps true: a component that makes the compiler spin, swell or crash costs that process, never
//! the node. The process gets an empty environment, limits on memory, processor time, files and
//! output, the lowest claim on the processor, and one component; it is killed when nobody waits
//! for it any more. Every way to fail has an error of its own. Code of another build of the program
//! is never accepted. At most `parallel` compilations run and `waiting` more wait.
//!
//! Leaves to others: whether the component may be run at all (`component`, before), keeping the
//! result (`artefact`, after). The other side is `compile/child.rs`, the bytes between the two are
//! `compile/wire.rs`.

mod child;
mod wire;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use wasmtime::Engine;

pub use child::compile_main;

use crate::error::{Error, shown};
use crate::tuning::Fingerprint;
use wire::{Reply, Request, Status};

/// Bytes kept of what the process says on standard error.
const STDERR_BYTES_MAX: usize = 8 << 10;

/// Bytes of it that are shown.
const STDERR_SHOWN_MAX: usize = 512;

/// Signals by number, as on every Linux we run on.
mod signal {
    /// Raised by `abort`, which is how running out of memory ends.
    pub(super) const ABORT: i32 = 6;
    /// Not from us: we wait for those we kill.
    pub(super) const KILL: i32 = 9;
    /// Too much processor time.
    pub(super) const CPU: i32 = 24;
}

/// What one compilation may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the process, which bounds its memory.
    pub memory_bytes: u64,
    /// Processor time, over all its threads.
    pub cpu_seconds: u64,
    /// Time by the clock.
    pub wall: Duration,
    /// Size of the compiled component.
    pub output_bytes_max: u64,
    /// Threads it compiles with.
    pub threads: u32,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 3 << 30,
            cpu_seconds: 60,
            wall: Duration::from_secs(120),
            output_bytes_max: 128 << 20,
            threads: 2,
        }
    }
}

/// How the compile process is started and how many of them there may be.
#[derive(Debug, Clone)]
pub struct CompilerConfig {
    /// A program that calls [`compile_main`] when started with `args`; as a rule the node's own.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What each may take.
    pub limits: CompileLimits,
    /// Compilations at once.
    pub parallel: usize,
    /// Compilations that wait for their turn, each holding its component in memory.
    pub waiting: usize,
}

/// Code the compile process gave, for an engine of the same fingerprint. Nobody else can make one,
/// which is what makes it safe to load.
#[derive(Debug, Clone)]
pub struct Compiled(Bytes);

impl Compiled {
    /// The code.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Code made in this process.
    #[cfg(test)]
    pub(crate) fn here(wasm: &[u8]) -> Self {
        let engine = crate::tuning::compile_engine(1).unwrap();
        let wasm = crate::image::instrument(wasm).unwrap();
        Self(engine.precompile_component(&wasm).unwrap().into())
    }
}

/// Compiles components for one engine.
#[derive(Debug)]
pub struct Compiler {
    config: CompilerConfig,
    fingerprint: Fingerprint,
    /// One permit for each compilation that runs or waits.
    admitted: Arc<Semaphore>,
    /// One permit for each that runs.
    running: Arc<Semaphore>,
}

impl Compiler {
    /// A compiler whose results `engine` can run.
    #[must_use]
    pub fn new(config: CompilerConfig, engine: &Engine) -> Self {
        let parallel = config.parallel.max(1);
        Self {
            fingerprint: Fingerprint::of(engine),
            admitted: Arc::new(Semaphore::new(parallel + config.waiting)),
            running: Arc::new(Semaphore::new(parallel)),
            config,
        }
    }

    /// Compiles one component that passed inspection; gives the code for
    /// [`Artefacts::keep`](crate::artefact::Artefacts::keep).
    ///
    /// Dropping the future kills the process. So does the end of the thread that polled it first:
    /// call this on a thread that lives as long as the node.
    ///
    /// # Errors
    /// One of the `compile.*` errors.
    pub async fn compile(&self, wasm: Bytes) -> Result<Compiled, Error> {
        let _admitted = self.admitted.try_acquire().map_err(|_| Error::CompileBusy {
            waiting: self.config.parallel.max(1) + self.config.waiting,
        })?;
        let _running = self.running.acquire().await.map_err(|_| {
            // The semaphore is never closed while `self` lives.
            Error::CompileStart("the compiler is shut down".to_owned())
        })?;
        let limits = &self.config.limits;
        let mut child = self.spawn()?;
        let Ok(said) = timeout(limits.wall, self.exchange(&mut child, &wasm)).await else {
            // Also reaped here; `kill_on_drop` is for the case that this future is dropped.
            if let Err(error) = child.kill().await {
                tracing::warn!(%error, "a compile process could not be killed");
            }
            return Err(Error::CompileTimeout { seconds: limits.wall.as_secs() });
        };
        self.judge(said?)
    }

    fn spawn(&self) -> Result<Child, Error> {
        Command::new(&self.config.program)
            .args(&self.config.args)
            .env_clear()
            .env("RAYON_NUM_THREADS", self.config.limits.threads.max(1).to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Error::CompileStart(format!("`{}`: {error}", self.config.program.display()))
            })
    }

    /// Feeds the process and hears it out.
    async fn exchange(&self, child: &mut Child, wasm: &[u8]) -> Result<Said, Error> {
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::CompileStart("it has no standard streams".to_owned()));
        };
        let limits = &self.config.limits;
        let request = Request {
            memory_bytes: limits.memory_bytes,
            cpu_seconds: limits.cpu_seconds.max(1),
            output_bytes_max: limits.output_bytes_max,
            threads: limits.threads.max(1),
            wasm_bytes: wasm.len() as u64,
        };
        let feed = async {
            // A process that dies early breaks the pipe; how it died says more than that.
            if stdin.write_all(&request.encode()).await.is_ok() {
                stdin.write_all(wasm).await.unwrap_or_default();
            }
            drop(stdin);
        };
        let room = limits.output_bytes_max.saturating_add(wire::REPLY_BYTES as u64);
        let hear = async {
            let mut out = Vec::new();
            let read = stdout.take(room + 1).read_to_end(&mut out).await;
            // Dropping the pipe here ends a process that writes without end.
            read.map(|_| out)
        };
        let ((), out, err) = tokio::join!(feed, hear, hear_errors(stderr));
        let out = out.map_err(|error| Error::CompileStart(error.to_string()))?;
        let status = if out.len() as u64 > room {
            child.kill().await.map_err(|error| Error::CompileStart(error.to_string()))?;
            None
        } else {
            Some(child.wait().await.map_err(|error| Error::CompileStart(error.to_string()))?)
        };
        Ok(Said { status, out, err })
    }

    /// From what a process said and how it ended to code or an error.
    fn judge(&self, said: Said) -> Result<Compiled, Error> {
        let limits = &self.config.limits;
        let Some(status) = said.status else {
            return Err(Error::CompileOutput { max: limits.output_bytes_max });
        };
        if !status.success() {
            return Err(self.judge_end(status, &said.err));
        }
        let out = Bytes::from(said.out);
        let crash = |cause: &str| Error::CompileCrash {
            cause: cause.to_owned(),
            stderr: shown(&said.err, STDERR_SHOWN_MAX),
        };
        let Some(reply) = Reply::decode(&out) else {
            return Err(crash("it ended without an answer"));
        };
        let body = out.slice(wire::REPLY_BYTES..);
        if body.len() as u64 != reply.body_bytes {
            return Err(crash("its answer is cut off"));
        }
        if reply.fingerprint != self.fingerprint {
            return Err(Error::CompileMismatch);
        }
        let text = || shown(&String::from_utf8_lossy(&body), 1024);
        match reply.status {
            Status::Compiled => Ok(Compiled(body)),
            Status::Refused => Err(Error::CompileRefused(text())),
            Status::OutputTooLarge => Err(Error::CompileOutput { max: limits.output_bytes_max }),
            Status::OutOfMemory => Err(Error::CompileMemory { max: limits.memory_bytes }),
        }
    }

    /// What an end without an answer means.
    fn judge_end(&self, status: ExitStatus, stderr: &str) -> Error {
        use std::os::unix::process::ExitStatusExt as _;
        let limits = &self.config.limits;
        match status.signal() {
            Some(signal::CPU) => Error::CompileCpu { seconds: limits.cpu_seconds.max(1) },
            Some(signal::KILL) => Error::CompileKilled,
            Some(signal::ABORT) | None if wire::says_out_of_memory(stderr) => {
                Error::CompileMemory { max: limits.memory_bytes }
            }
            Some(number) => Error::CompileCrash {
                cause: format!("signal {number}"),
                stderr: shown(stderr, STDERR_SHOWN_MAX),
            },
            None => Error::CompileCrash {
                cause: status.to_string(),
                stderr: shown(stderr, STDERR_SHOWN_MAX),
            },
        }
    }
}

/// What came back from a process. No status if it had to be killed for saying too much.
struct Said {
    status: Option<ExitStatus>,
    out: Vec<u8>,
    err: String,
}

/// Keeps the beginning of what a process complains, and takes the rest so that it is not stuck.
async fn hear_errors(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let room = STDERR_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests;
