//! A tenant's process as the workers see it: whether it is up, and who is inside.
//!
//! Whoever has a request for it enters, and waits for it to be up; who has entered keeps it from
//! being sent to rest. What happens to the process is decided by its keeper (`keeper`) alone.

use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use sluicebox_core::ids::Name;
use tokio::net::UnixDatagram;
use tokio::sync::Notify;

use super::control::{self, Tag};
use super::lane::{Lane, Places};
use crate::error::Error;
use crate::metrics::ProcessMetrics;

/// A request waits for a process that is to be started again soon, and is told of one that is not.
const SOON: Duration = Duration::from_secs(1);

/// How long it takes at most until the end of a process is known that has gone away.
const END_TIME_MAX: Duration = Duration::from_millis(500);

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
    /// Of its connections.
    places: Places,
    pub(super) metrics: Arc<ProcessMetrics>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    inside: usize,
    /// How many have entered so far.
    entries: u64,
    /// When the last one left.
    left: Instant,
    /// Which start of it ended last by itself, and why.
    end: Option<(u64, &'static str)>,
    /// The start that was up last.
    generation: u64,
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
    /// Nobody keeps it any more.
    Gone,
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
        let state = State {
            phase: Phase::AtRest,
            inside: 0,
            entries: 0,
            left: Instant::now(),
            end: None,
            generation: 0,
        };
        Arc::new(Self {
            tenant,
            state: Mutex::new(state),
            news: Notify::new(),
            wanted: Notify::new(),
            changed: Notify::new(),
            start_time_max,
            places: Places::default(),
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
            if let Some(inside) = self.try_enter(true)? {
                return Ok(inside);
            }
            self.wanted.notify_one();
            if tokio::time::timeout_at(end, news).await.is_err() {
                return Err(unavailable("does not start in time", Duration::from_secs(5)));
            }
        }
    }

    /// Enters if it is up; `None` if that may be soon.
    fn try_enter(self: &Arc<Self>, works: bool) -> Result<Option<Inside>, Error> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Up(up) => {
                let up = up.clone();
                state.inside += 1;
                state.entries += u64::from(works);
                Ok(Some(Inside { process: Arc::clone(self), up, works }))
            }
            Phase::Failed { until, why } => {
                let left = until.saturating_duration_since(Instant::now());
                if left > SOON { Err(unavailable(why, left)) } else { Ok(None) }
            }
            Phase::Gone => Err(unavailable("has just been given up", SOON)),
            Phase::AtRest | Phase::Starting | Phase::Ending => Ok(None),
        }
    }

    /// Enters a process that is up now, to look at it only: that is no work that keeps it up.
    pub(crate) fn look_in(self: &Arc<Self>) -> Option<Inside> {
        self.try_enter(false).ok().flatten()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.metrics.up.set(i64::from(matches!(phase, Phase::Up(_))));
        let mut state = self.lock();
        match &phase {
            Phase::Up(up) => state.generation = up.generation,
            Phase::Failed { why, .. } => state.end = Some((state.generation, *why)),
            _ => {}
        }
        state.phase = phase;
        drop(state);
        self.news.notify_waiters();
    }

    /// Why this start of it ended, if it ended by itself and is the last that did.
    fn end_of(&self, generation: u64) -> Option<&'static str> {
        self.lock().end.filter(|(ended, _)| *ended == generation).map(|(_, why)| why)
    }

    /// How long nobody was inside, and how many have entered so far; `None` while somebody is.
    pub(super) fn empty_for(&self) -> Option<(Duration, u64)> {
        let state = self.lock();
        (state.inside == 0).then(|| (state.left.elapsed(), state.entries))
    }

    /// Lets nobody in any more, unless somebody is inside or has entered since.
    pub(super) fn close_if_empty(&self, entries: u64) -> bool {
        let mut state = self.lock();
        let is_empty = state.inside == 0 && state.entries == entries;
        if is_empty {
            state.phase = Phase::Ending;
        }
        is_empty
    }

    /// Forgets that somebody wanted it to be started: who still does asks again at the next news.
    pub(super) fn forget_wanted(&self) {
        let _forgotten = self.wanted.notified().now_or_never();
    }

    /// Whether it lets anybody in.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.lock().phase, Phase::Up(_))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tenant's process cannot be had now.
pub(super) fn unavailable(why: &'static str, retry_after: Duration) -> Error {
    Error::Process { why, is_sent: false, retry_after }
}

/// Somebody in a process, which is kept from rest by it.
#[derive(Debug)]
pub(crate) struct Inside {
    process: Arc<Process>,
    up: Up,
    /// A request, and not only a look.
    works: bool,
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

    /// It was found to be gone: nobody is let in until its keeper has found out as well, or, if it
    /// is there after all, looks at it next.
    pub(crate) fn found_gone(self) {
        let mut state = self.process.lock();
        if matches!(&state.phase, Phase::Up(up) if up.generation == self.up.generation) {
            state.phase = Phase::Ending;
        }
    }

    /// Why the process ended, once its keeper knows; `None` if that does not come out soon, as it
    /// goes on or something else is wrong.
    pub(crate) async fn end(&self) -> Option<&'static str> {
        let end = tokio::time::Instant::now() + END_TIME_MAX;
        loop {
            let mut news = pin!(self.process.news.notified());
            news.as_mut().enable();
            let why = self.process.end_of(self.up.generation);
            if why.is_some() || tokio::time::timeout_at(end, news).await.is_err() {
                return why;
            }
        }
    }

    /// A new connection to it. Does not block; in a runtime that drives sockets.
    ///
    /// # Errors
    /// It is gone, or takes no more at the moment.
    pub(crate) fn connect(&self) -> io::Result<Lane> {
        let (ours, theirs) = Lane::make(&self.process.places)?;
        control::send(&*self.up.control, Tag::Connection, &[], &theirs.files())?;
        Ok(ours)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.process.lock();
        state.inside -= 1;
        if self.works {
            state.left = Instant::now();
        }
    }
}

/// How a process ended, as far as that is known.
pub(super) fn told(status: Option<ExitStatus>) -> &'static str {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Some(status) if status.signal().is_some() => "was ended by a signal",
        Some(_) => "ended by itself",
        None => "went away",
    }
}
