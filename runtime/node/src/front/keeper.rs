//! The keeper of one tenant's process: starts it when there is something to do, watches it, sends
//! it to rest, and starts it again when it ended by itself.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use super::control::{self, Leaves, Message, Tag, next};
use super::groups::Held;
use super::process::{Phase, Process, Up, told};
use super::said::relay;
use super::spans::Spans;
use super::{Front, NEVER, failed, make_private};
use crate::config::Otlp;
use crate::error::{Error, shown};
use crate::mailbox::lock;
use crate::node::{Node, TENANT_ARGUMENT};
use crate::running::event_time::now_micros;
use crate::tenants::WEIGHT_DEFAULT;

/// How long after an end by itself a process is started again: longer each time, up to a bound.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A process that was up for so long did not fail at its start.
const SOUND: Duration = Duration::from_secs(60);

/// How long a process may be idle while another tenant waits for its place.
const IDLE_WHEN_SHORT: Duration = Duration::from_millis(500);

/// How often a process is looked at, at the most and at the least.
const LOOK_MIN: Duration = Duration::from_millis(25);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// What a process that ends has at least besides the time in which it drains.
const SLACK: Duration = Duration::from_secs(1);

/// Tells the program's allocator to take memory from the system as it is used. By itself it begins
/// with 1 GiB that can be written to, which counts in full against the limit of a process.
const FRUGAL: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// Why a process ended for which there was no memory.
const OUT_OF_MEMORY: &str = "used more memory than it may, and was ended by the system";

/// Variables of the environment that a process gets; no others, as they may hold secrets.
const ENVIRONMENT: [&str; 3] = ["SLUICEBOX_LOG", "NO_COLOR", "RUST_BACKTRACE"];

/// See the module.
pub(super) struct Keeper {
    node: Arc<Node>,
    process: Arc<Process>,
    /// Ends by itself, one after the other.
    failures: u32,
    spans: Spans,
}

/// How a process ended.
enum Ended {
    /// It had nothing to do, until then.
    AtRest(u64),
    /// It was told to, for good.
    Stopped,
    /// By itself, or it never began.
    Failed(&'static str),
    /// By the kernel, as its group had no memory left.
    OutOfMemory,
}

/// A process and the way to it.
struct Running {
    child: Child,
    /// Of sequenced packets, which the runtime has no type for: it only waits for them.
    control: Arc<UnixDatagram>,
    /// Passes on what it logs, to the last line, which may be why it ended.
    said: Option<JoinHandle<()>>,
    /// Holds it to what it may use.
    held: Option<Held>,
}

/// On its drop nobody waits for the process any more.
struct Kept {
    node: Arc<Node>,
    process: Arc<Process>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.node.front().processes.remove(self.process.tenant());
        self.process.set_phase(Phase::Gone);
    }
}

/// A question that was asked.
struct Asked {
    when: Instant,
    /// Those who had entered by then.
    entries: u64,
}

impl Keeper {
    pub(super) fn new(node: Arc<Node>, process: Arc<Process>) -> Self {
        let spans = Spans::of(&node, process.tenant());
        Self { node, process, failures: 0, spans }
    }

    fn front(&self) -> &Front {
        self.node.front()
    }

    /// Keeps the process until the front stops, or the tenant has none any more.
    pub(super) async fn run(mut self) {
        let _kept = Kept { node: Arc::clone(&self.node), process: Arc::clone(&self.process) };
        let tenant = self.process.tenant();
        let (stray, _) = self.node.count_pipelines(tenant);
        if stray > 0 {
            tracing::warn!(%tenant, "{stray} pipelines from before it had a process of its own go \
                            on in the node's; set its isolation to shared to reach them");
        }
        let mut stop = self.front().stop.subscribe();
        let is_new = !self.front().directory_of(self.process.tenant()).exists();
        let rest = self.front().rest_of(self.process.tenant());
        // What did not go to rest may have work at hand.
        let mut due = if is_new { NEVER } else { rest.unwrap_or(0) };
        while self.wait(due, &mut stop).await {
            let Some(permit) = self.permit(&mut stop).await else { break };
            if !self.is_isolated() {
                break;
            }
            let began = Instant::now();
            let ended = self.keep(&mut stop).await;
            drop(permit);
            due = match ended {
                Ended::Stopped => break,
                Ended::AtRest(until) => {
                    self.process.metrics.ends.add("rest", 1);
                    self.failures = 0;
                    self.process.forget_wanted();
                    self.process.set_phase(Phase::AtRest);
                    until
                }
                Ended::Failed(why) => {
                    self.pause(("failed", why), began.elapsed(), &mut stop).await;
                    0
                }
                Ended::OutOfMemory => {
                    self.pause(("memory", OUT_OF_MEMORY), began.elapsed(), &mut stop).await;
                    0
                }
            };
        }
    }

    /// Waits until there is something to do. False if there never will be.
    async fn wait(&self, due: u64, stop: &mut watch::Receiver<bool>) -> bool {
        loop {
            let left = due.saturating_sub(now_micros());
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return false,
                () = self.process.wanted.notified() => return true,
                () = sleep(Duration::from_micros(left)), if due != NEVER => return true,
                () = self.process.changed.notified() => {}
            }
            if !self.is_isolated() {
                return false;
            }
        }
    }

    fn is_isolated(&self) -> bool {
        let (tenants, tenant) = (self.node.tenants(), self.process.tenant());
        tenants.current().tenant(tenant).is_some() && self.front().isolates(tenants, tenant)
    }

    /// Waits for its turn to have a process.
    async fn permit(&self, stop: &mut watch::Receiver<bool>) -> Option<OwnedSemaphorePermit> {
        let front = self.front();
        front.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            permit = Arc::clone(&front.permits).acquire_owned() => permit.ok(),
        };
        front.waiting.fetch_sub(1, Ordering::Relaxed);
        permit
    }

    /// Lets some time pass after an end that nobody asked for, of this sort and for this reason.
    async fn pause(
        &mut self,
        (sort, why): (&'static str, &'static str),
        up: Duration,
        stop: &mut watch::Receiver<bool>,
    ) {
        self.process.metrics.ends.add(sort, 1);
        self.failures = if up >= SOUND { 0 } else { self.failures.saturating_add(1) };
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.clamp(1, 16) >> 1).min(PAUSE_MAX);
        let tenant = self.process.tenant();
        tracing::error!(%tenant, "the tenant's process {why}; it is started again in {pause:?}");
        self.process.set_phase(Phase::Failed { until: Instant::now() + pause, why });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = sleep(pause) => {}
        }
    }

    /// Runs the process once.
    async fn keep(&mut self, stop: &mut watch::Receiver<bool>) -> Ended {
        self.process.set_phase(Phase::Starting);
        let began = Instant::now();
        let mut running = match self.start().await {
            Ok(running) => running,
            Err(error) => {
                tracing::error!(tenant = %self.process.tenant(), %error, "cannot be started");
                return Ended::Failed("cannot be started");
            }
        };
        let metrics = &self.process.metrics;
        metrics.starts.inc();
        *lock(&metrics.group) = running.held.as_ref().map(|held| Arc::clone(held.group()));
        metrics.pid.store(running.child.id().unwrap_or(0), Ordering::Relaxed);
        let ready = timeout(self.front().config.start_time_max, self.until_ready(&running));
        let ended = match ready.await {
            Ok(Ok(())) => {
                metrics.start_micros.set(began.elapsed().as_micros() as i64);
                let generation = self.front().starts.fetch_add(1, Ordering::Relaxed) + 1;
                let up = Up::new(Arc::clone(&running.control), generation);
                self.process.set_phase(Phase::Up(up.clone()));
                self.watch(&mut running, &up, stop).await
            }
            Ok(Err(why)) => Ended::Failed(why),
            Err(_) => Ended::Failed("was not ready in time"),
        };
        metrics.pid.store(0, Ordering::Relaxed);
        *lock(&metrics.group) = None;
        // What has not ended by now is not to go on beside the next one.
        drop(running.child.kill().await);
        let ended = match running.held.take() {
            Some(held) => match (held.end(self.process.tenant(), metrics).await, ended) {
                (true, Ended::Failed(_)) => Ended::OutOfMemory,
                (_, ended) => ended,
            },
            None => ended,
        };
        if let Some(said) = running.said.take() {
            // Who else has its end open is not waited for.
            drop(timeout(SLACK, said).await);
        }
        ended
    }

    /// Starts the program and tells it what to be.
    async fn start(&self) -> Result<Running, Error> {
        let (front, tenant) = (self.front(), self.process.tenant());
        let directory = front.directory_of(tenant);
        front.groups.prepare().await;
        let (ours, mut child) = self.spawn(&directory).map_err(failed)?;
        let number = child.id().ok_or_else(|| failed(io::Error::other("it has no number")))?;
        // Before it is told of the tenant: until then it only waits for that.
        let tenants = self.node.tenants().current();
        let weight = tenants.tenant(tenant).map_or(WEIGHT_DEFAULT, |known| known.weight);
        let held = front.groups.hold(tenant, weight, number).await?;
        let mut config = front.template.clone();
        config.node.data_dir = directory;
        let leaves = Leaves {
            writable_bytes: front.groups.writable_bytes(held.as_ref()),
            groups: held
                .iter()
                .flat_map(|held| held.group().directories())
                .map(Into::into)
                .collect(),
        };
        let entry = self.node.tenants().text_of(tenant).unwrap_or_default();
        let traces = config.otlp.as_ref().map(Otlp::to_text).unwrap_or_default();
        let text = [config.to_text(), entry, leaves.to_text(), traces].join("\0");
        let said = child.stderr.take().map(|said| relay(said, tenant.clone()));
        let said = said.map(tokio::task::spawn_local);
        let told = control::send(&ours, Tag::Begin, text.as_bytes(), &[]);
        let control = told.and_then(|()| UnixDatagram::from_std(StdUnixDatagram::from(ours)));
        match control {
            Ok(control) => Ok(Running { child, control: Arc::new(control), said, held }),
            Err(error) => {
                drop(child.kill().await);
                // Else the group stays, with all that is in it.
                if let Some(held) = held {
                    held.end(tenant, &self.process.metrics).await;
                }
                Err(failed(error))
            }
        }
    }

    /// Starts the program, which waits to be told what to be.
    fn spawn(&self, directory: &Path) -> io::Result<(OwnedFd, Child)> {
        let front = self.front();
        make_private(directory)?;
        front.set_rest(self.process.tenant(), None)?;
        let (ours, theirs) = control::pair()?;
        let mut command = Command::new(&front.program);
        command.arg(TENANT_ARGUMENT).env_clear().env(FRUGAL.0, FRUGAL.1).kill_on_drop(true);
        command
            .envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.current_dir(directory).stdin(Stdio::from(theirs)).stdout(Stdio::null());
        command.stderr(Stdio::piped());
        // Its end is in the command, and closed with it: else the front would not see it go.
        Ok((ours, command.spawn()?))
    }

    /// Waits until the process is ready.
    async fn until_ready(&self, running: &Running) -> Result<(), &'static str> {
        let tenant = self.process.tenant();
        let mut measured = false;
        loop {
            let Ok(Some(message)) = next(&running.control).await else {
                return Err("ended while it started");
            };
            match message.tag {
                Tag::Ready => return Ok(()),
                Tag::Measures if !measured => {
                    measured = true;
                    message.text().lines().take(MEASURES_MAX).for_each(|line| {
                        tracing::info!(%tenant, "{}", shown(line));
                    });
                }
                Tag::Spans => self.spans.take(&message.body)?,
                Tag::Failed => {
                    tracing::error!(%tenant, "{}", shown(&message.text()));
                    return Err("could not start");
                }
                _ => return Err("said nonsense"),
            }
        }
    }

    /// Watches it while it is up.
    async fn watch(
        &self,
        running: &mut Running,
        up: &Up,
        stop: &mut watch::Receiver<bool>,
    ) -> Ended {
        let mut asked: Option<Asked> = None;
        let idle_time_max = self.front().config.idle_time_max;
        let mut look = tokio::time::interval((idle_time_max / 4).clamp(LOOK_MIN, LOOK_MAX));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    self.process.set_phase(Phase::Ending);
                    self.end(running).await;
                    return Ended::Stopped;
                }
                status = running.child.wait() => return Ended::Failed(told(status.ok())),
                () = self.process.changed.notified() => {
                    if !self.is_isolated() {
                        self.process.set_phase(Phase::Ending);
                        self.end(running).await;
                        return Ended::Stopped;
                    }
                    let text = self.node.tenants().text_of(self.process.tenant());
                    self.say(running, Tag::Tenant, text.unwrap_or_default().as_bytes());
                }
                message = next(&running.control) => match message {
                    Ok(Some(Message { tag: Tag::Spans, body, .. })) => {
                        if let Err(why) = self.spans.take(&body) {
                            return Ended::Failed(why);
                        }
                    }
                    Ok(Some(message)) => {
                        // What was not asked for is nonsense: else it could talk without end.
                        let Some(asked) = asked.take() else {
                            return Ended::Failed("said nonsense");
                        };
                        match self.heard(&message, &asked, running).await {
                            Ok(None) => {}
                            Ok(Some(ended)) => return ended,
                            Err(why) => return Ended::Failed(why),
                        }
                    }
                    // Its status says more, if it has one.
                    Ok(None) => {
                        let status = timeout(PAUSE_FIRST, running.child.wait()).await;
                        return Ended::Failed(told(status.ok().and_then(Result::ok)));
                    }
                    Err(_) => return Ended::Failed("said nonsense"),
                },
                _ = look.tick() => {
                    if let Some(held) = &mut running.held {
                        held.look(self.process.tenant(), &self.process.metrics);
                    }
                    if let Some(why) = self.look(running, up, &mut asked) {
                        return Ended::Failed(why);
                    }
                }
            }
        }
    }

    /// What is done every now and then. Gives why it has to end, if it has to.
    fn look(&self, running: &Running, up: &Up, asked: &mut Option<Asked>) -> Option<&'static str> {
        // Somebody took it for gone, and it is not.
        if !self.process.is_up() {
            self.process.set_phase(Phase::Up(up.clone()));
        }
        if let Some(asked) = asked {
            let answers = asked.when.elapsed() < self.front().config.start_time_max;
            return (!answers).then_some("does not answer");
        }
        let is_short = self.front().waiting.load(Ordering::Relaxed) > 0;
        let idle_time_max = self.front().config.idle_time_max;
        let most = if is_short { IDLE_WHEN_SHORT.min(idle_time_max) } else { idle_time_max };
        let (_, entries) = self.process.empty_for().filter(|(empty, _)| *empty >= most)?;
        if self.say(running, Tag::AskRest, &[]) {
            *asked = Some(Asked { when: Instant::now(), entries });
        }
        None
    }

    /// Says something; false if there is no room for it, as it does not listen.
    fn say(&self, running: &Running, tag: Tag, body: &[u8]) -> bool {
        let said = control::send(&*running.control, tag, body, &[]);
        if let Err(error) = &said {
            tracing::warn!(tenant = %self.process.tenant(), %error, "the process does not listen");
        }
        said.is_ok()
    }

    /// What an answer about rest leads to.
    async fn heard(
        &self,
        message: &Message,
        asked: &Asked,
        running: &mut Running,
    ) -> Result<Option<Ended>, &'static str> {
        let until = match message.tag {
            Tag::AtWork => return Ok(None),
            Tag::AskRest => <[u8; 8]>::try_from(message.body.as_slice()),
            _ => return Err("said nonsense"),
        };
        let until = u64::from_le_bytes(until.map_err(|_| "said nonsense")?);
        // Not for a nap.
        let nap = self.front().config.idle_time_max.as_micros() as u64;
        if until.saturating_sub(now_micros()) < nap || !self.process.close_if_empty(asked.entries) {
            return Ok(None);
        }
        if !self.end(running).await {
            return Ok(Some(Ended::Failed("did not end in order")));
        }
        if let Err(error) = self.front().set_rest(self.process.tenant(), Some(until)) {
            tracing::warn!(tenant = %self.process.tenant(), %error, "its rest is not noted");
        }
        Ok(Some(Ended::AtRest(until)))
    }

    /// Tells it to end, and waits. False if it did not do so in order.
    async fn end(&self, running: &mut Running) -> bool {
        self.say(running, Tag::End, &[]);
        // As much as it takes itself to drain, and a little to start and stop.
        let drain = self.front().template.node.drain_time_max;
        let patience = drain + (drain / 8).max(SLACK);
        let status = timeout(patience, self.until_ended(running)).await;
        matches!(status, Ok(Ok(status)) if status.success())
    }

    /// Waits for its end, and takes what it still has to say of traces.
    async fn until_ended(&self, running: &mut Running) -> io::Result<ExitStatus> {
        let mut speaks = true;
        loop {
            tokio::select! {
                // What it said before it ended comes before its end.
                biased;
                said = next(&running.control), if speaks => match said {
                    Ok(Some(Message { tag: Tag::Spans, body, .. })) => {
                        // What is not taken is read all the same: it is not to wait for that.
                        let _taken = self.spans.take(&body);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => speaks = false,
                },
                status = running.child.wait() => return status,
            }
        }
    }
}

/// Lines of measures that are logged.
const MEASURES_MAX: usize = 16;
