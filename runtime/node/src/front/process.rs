//! A tenant's process as the workers see it: whether it is up, and who is inside.
//!
//! Whoever has a request for it enters, and waits for it to be up; who has entered keeps it from
//! being sent to rest. What happens to the process is decided by its keeper (`keeper`) alone.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluicebox_core::ids::Name;
use tokio::net::UnixDatagram;
use tokio::sync::Notify;

use super::control::{self, Tag};
use crate::error::Error;
use crate::metrics::ProcessMetrics;

/// A request waits for a process that is to be started again soon, and is told of one that is not.
const SOON: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    tenant: Name,
    state: Mutex<State>,
    /// Told when the phase changes.
    news: Notify,
    /// Told when somebody waits for it to be started.
    pub(super) wanted: Notify,
    /// Told when the tenant's entry in the tenants file has changed.
    pub(super) changed: Notify,
    start_time_max: Duration,
    pub(super) metrics: Arc<ProcessMetrics>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    inside: usize,
    /// When the last one left.
    left: Instant,
}

/// How it is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Not running, and started when somebody asks.
    AtRest,
    /// Being started.
    Starting,
    /// Running.
    Up(Up),
    /// It takes nobody in any more.
    Ending,
    /// It ended by itself or could not be started; not tried before a time.
    Failed { until: Instant, why: &'static str },
}

/// A process that runs.
#[derive(Debug, Clone)]
pub(super) struct Up {
    control: Arc<UnixDatagram>,
    /// Grows with every start.
    generation: u64,
}

impl Up {
    pub(super) fn new(control: Arc<UnixDatagram>, generation: u64) -> Self {
        Self { control, generation }
    }
}

impl Process {
    pub(super) fn new(
        tenant: Name,
        start_time_max: Duration,
        metrics: Arc<ProcessMetrics>,
    ) -> Arc<Self> {
        let state = State { phase: Phase::AtRest, inside: 0, left: Instant::now() };
        Arc::new(Self {
            tenant,
            state: Mutex::new(state),
            news: Notify::new(),
            wanted: Notify::new(),
            changed: Notify::new(),
            start_time_max,
            metrics,
        })
    }

    pub(crate) fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// Waits until it is up, and keeps it up.
    ///
    /// # Errors
    /// It does not start, or not in time.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Inside, Error> {
        let end = tokio::time::Instant::now() + self.start_time_max;
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            if let Some(inside) = self.try_enter()? {
                return Ok(inside);
            }
            self.wanted.notify_one();
            if tokio::time::timeout_at(end, news).await.is_err() {
                return Err(unavailable("does not start in time", Duration::from_secs(5)));
            }
        }
    }

    /// Enters if it is up; `None` if that may be soon.
    fn try_enter(self: &Arc<Self>) -> Result<Option<Inside>, Error> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Up(up) => {
                let up = up.clone();
                state.inside += 1;
                Ok(Some(Inside { process: Arc::clone(self), up }))
            }
            Phase::Failed { until, why } => {
                let left = until.saturating_duration_since(Instant::now());
                if left > SOON { Err(unavailable(why, left)) } else { Ok(None) }
            }
            Phase::AtRest | Phase::Starting | Phase::Ending => Ok(None),
        }
    }

    /// Enters a process that is up now, without asking for it to be.
    pub(crate) fn enter_if_up(self: &Arc<Self>) -> Option<Inside> {
        self.try_enter().ok().flatten()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.metrics.up.set(i64::from(matches!(phase, Phase::Up(_))));
        self.lock().phase = phase;
        self.news.notify_waiters();
    }

    /// How long nobody was inside; `None` while somebody is.
    pub(super) fn empty_for(&self) -> Option<Duration> {
        let state = self.lock();
        (state.inside == 0).then(|| state.left.elapsed())
    }

    /// Lets nobody in any more, unless somebody is inside.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut state = self.lock();
        let is_empty = state.inside == 0;
        if is_empty {
            state.phase = Phase::Ending;
        }
        is_empty
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenant's process cannot be had now.
pub(super) fn unavailable(why: &'static str, retry_after: Duration) -> Error {
    Error::Process { why, retry_after }
}

/// Somebody in a process, which is kept from rest by it.
#[derive(Debug)]
pub(crate) struct Inside {
    process: Arc<Process>,
    up: Up,
}

impl Inside {
    /// Which start of the process it is.
    pub(crate) fn generation(&self) -> u64 {
        self.up.generation
    }

    /// Whose process it is.
    pub(crate) fn tenant(&self) -> &Name {
        &self.process.tenant
    }

    /// A new connection to it. Does not block.
    ///
    /// # Errors
    /// It is gone, or takes no more at the moment.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = control::connection()?;
        control::send(&*self.up.control, Tag::Connection, &[], Some(theirs.as_fd()))?;
        Ok(UnixStream::from(ours))
    }
}

impl Inside {
    /// It was found to be gone: nobody is let in until its keeper has found out as well.
    pub(crate) fn is_gone(self) {
        let mut state = self.process.lock();
        if matches!(&state.phase, Phase::Up(up) if up.generation == self.up.generation) {
            state.phase = Phase::Ending;
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.process.lock();
        state.inside -= 1;
        state.left = Instant::now();
    }
}
