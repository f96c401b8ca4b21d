//! The thread: one scheduler over tenants, I/O between slices.
//!
//! ```text
//! loop { take what became ready ─► pick a tenant's partition ─► run it for a slice ─► let I/O in }
//! ```
//!
//! - A worker is a current-thread runtime. It serves its connections and its partitions; a request
//!   whose partition lives here never leaves the thread.
//! - Partitions are futures that only this loop polls, each with its mailbox as waker. Pending and
//!   queued again means the slice is used up; pending and not queued means it waits.
//! - Tenants take turns by start-time fair queueing, charged in time on the thread: guest code,
//!   host work and cold starts alike.
//! - Nothing here blocks. Instances nobody used for a while are dropped, by a tick that runs only
//!   while there are any; and so are idle ones when somebody on another worker is short.

mod call;
mod cold;
mod costs;
mod expiry;
mod forward;
mod handed;
mod invokers;
mod leaving;
mod parked;
mod partition;
pub(crate) mod record;
pub(crate) mod release;
mod retire;
pub(crate) mod said;
mod schedule;
mod spans;
mod streams;
mod time;
mod unlogged;
mod upgrade;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluicebox_engine::invoker::Invoker;
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::wasm::{WarmPool, WasmStage};
use tokio::sync::watch;

use crate::mailbox::{Mailbox, WorkerHandle};
use crate::metrics::WorkerMetrics;
use crate::running::StageRuntime;
use crate::spread::Site;
use invokers::Invokers;
use release::Releases;
use schedule::Schedule;

/// How often idle instances are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Sweeps an instance survives without work.
const IDLE_SWEEPS: u32 = 3;

/// What a worker's partitions share. Lives on its thread.
#[derive(Debug)]
pub(crate) struct Local {
    sandbox: Arc<Sandbox>,
    warm: RefCell<HashMap<u64, WarmPool>>,
    clock: Clock,
    /// Partitions that may have instances.
    warm_partitions: Cell<usize>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) releases: Rc<Releases>,
}

impl Local {
    /// The invoker of one stage in one partition.
    fn invoker(&self, stage: &StageRuntime) -> WasmStage {
        let warm = self.warm.borrow_mut().entry(stage.uid).or_default().clone();
        WasmStage::new(self.sandbox.clone(), stage.code.clone(), stage.settings.clone(), warm)
    }

    /// The invokers of one stage in one partition.
    fn invokers(&self, stage: &StageRuntime) -> Invokers {
        let now: Box<dyn Invoker> = Box::new(self.invoker(stage));
        let before = stage.codes.before.iter().map(|before| {
            let (code, settings) = before.code.clone();
            // Streams have instances of their own.
            let warm = WarmPool::default();
            let invoker = WasmStage::new(self.sandbox.clone(), code, settings, warm);
            (before.number, Box::new(invoker) as Box<dyn Invoker>)
        });
        Invokers::new((stage.codes.now, now), before)
    }

    /// Drops all idle instances of scope `shared`.
    fn cool(&self) {
        self.forget_unused();
        self.warm.borrow_mut().values().for_each(|pool| pool.borrow_mut().clear());
    }

    /// Forgets stages nobody runs any more, with their idle instances and what those hold on to.
    fn forget_unused(&self) {
        self.warm.borrow_mut().retain(|_, pool| Rc::strong_count(pool) > 1);
    }
}

/// Microseconds since 1970, never going back: the wall clock at start, and the monotonic one since.
#[derive(Debug)]
struct Clock {
    wall: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: wall.as_micros() as u64, start: Instant::now() }
    }

    fn now(&self) -> u64 {
        self.wall + self.start.elapsed().as_micros() as u64
    }
}

/// A partition on its worker.
struct Task {
    mailbox: Arc<Mailbox>,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = ()>>>,
    life: Rc<Life>,
}

/// What the loop and a partition's future tell each other.
#[derive(Debug, Default)]
struct Life {
    /// How short its tenant's own share was when it was last looked at.
    pressure: Cell<u64>,
    /// Sweeps since it last ran a batch.
    idle_sweeps: Cell<u32>,
    /// It may have instances.
    warm: Cell<bool>,
    /// It should drop them.
    trim: Cell<bool>,
}

impl Life {
    fn set_warm(&self, local: &Local, warm: bool) {
        let count = local.warm_partitions.get();
        match (self.warm.replace(warm), warm) {
            (false, true) => local.warm_partitions.set(count + 1),
            (true, false) => local.warm_partitions.set(count - 1),
            _ => {}
        }
    }
}

/// One worker's loop.
struct Worker {
    handle: Arc<WorkerHandle>,
    local: Rc<Local>,
    schedule: Schedule<Arc<Mailbox>>,
    tasks: HashMap<*const Mailbox, Task>,
    became_ready: Vec<Arc<Mailbox>>,
    /// How short all, and shares of tenants, were when they were last looked at.
    pressure: (u64, u64),
}

/// Runs the partitions of a worker until told to stop. To be spawned on the worker's own thread.
pub(crate) async fn run(
    handle: Arc<WorkerHandle>,
    sandbox: Arc<Sandbox>,
    (metrics, releases): (Arc<WorkerMetrics>, Rc<Releases>),
    mut stop: watch::Receiver<bool>,
) {
    let pressure = (sandbox.pressure(), sandbox.pressure_of_shares());
    let local = Rc::new(Local {
        sandbox,
        warm: RefCell::default(),
        clock: Clock::new(),
        warm_partitions: Cell::new(0),
        metrics,
        releases,
    });
    let mut worker = Worker {
        handle,
        local,
        schedule: Schedule::default(),
        tasks: HashMap::new(),
        became_ready: Vec::new(),
        pressure,
    };
    let mut next_sweep = Instant::now() + SWEEP;
    while !*stop.borrow() {
        let busy = worker.turn();
        if Instant::now() >= next_sweep {
            worker.sweep();
            next_sweep = Instant::now() + SWEEP;
        }
        if busy {
            tokio::task::yield_now().await;
            continue;
        }
        let sandbox = worker.local.sandbox.clone();
        let mut pressed = std::pin::pin!(sandbox.pressed());
        pressed.as_mut().enable();
        if worker.heed_pressure() {
            continue;
        }
        // Without anything to tidy up an idle worker sleeps for good.
        let anything_warm = worker.local.warm_partitions.get() > 0;
        let sleep = tokio::time::sleep_until(next_sweep.into());
        let handle = worker.handle.clone();
        tokio::select! {
            // Whatever comes, the loop looks at everything again; the order does not matter.
            biased;
            () = handle.notify.notified() => {}
            changed = stop.changed() => if changed.is_err() { return },
            () = sleep, if anything_warm => {}
            () = pressed, if anything_warm => {}
        }
    }
}

impl Worker {
    /// Runs one partition for at most a slice. False if none is ready.
    fn turn(&mut self) -> bool {
        self.collect();
        let Some((tenant, mailbox)) = self.schedule.next() else { return false };
        let began = Instant::now();
        self.poll(&mailbox);
        let took = began.elapsed();
        self.schedule.charge(tenant, took);
        mailbox.load.was_busy(took);
        self.local.metrics.slices.inc();
        self.local.metrics.busy_micros.add(took.as_micros() as u64);
        self.heed_pressure();
        true
    }

    /// Lets go of idle instances if somebody is short of them. True if that is news.
    fn heed_pressure(&mut self) -> bool {
        let sandbox = &self.local.sandbox;
        let pressure = (sandbox.pressure(), sandbox.pressure_of_shares());
        let before = std::mem::replace(&mut self.pressure, pressure);
        if pressure.0 != before.0 {
            self.local.cool();
            self.trim_idle(0);
        } else if pressure.1 != before.1 {
            self.trim_short();
        }
        pressure != before
    }

    /// Gives what became ready its place in the schedule.
    fn collect(&mut self) {
        self.handle.take_ready(&mut self.became_ready);
        for mailbox in self.became_ready.drain(..) {
            let tenant = &mailbox.segment.shared.tenant;
            let (number, weight) = (tenant.number(), tenant.weight());
            self.schedule.push(number, weight, mailbox);
        }
    }

    fn poll(&mut self, mailbox: &Arc<Mailbox>) {
        let at = Arc::as_ptr(mailbox);
        // From here on a wake puts it on the ready list again.
        mailbox.set_sleeps_until(0);
        mailbox.unqueue();
        let waits = mailbox.is_absent() || mailbox.site() == Site::Between;
        if waits && !self.tasks.contains_key(&at) {
            // Whoever moves it lets it run again.
            mailbox.refuse_commands();
            return;
        }
        let local = &self.local;
        let task = self.tasks.entry(at).or_insert_with(|| {
            let life = Rc::<Life>::default();
            let future: Pin<Box<dyn Future<Output = ()>>> = match mailbox.site() {
                Site::There(peer) => Box::pin(forward::run(mailbox.clone(), local.clone(), peer)),
                _ => Box::pin(partition::run(mailbox.clone(), local.clone(), life.clone())),
            };
            let waker = Waker::from(mailbox.clone());
            Task { mailbox: mailbox.clone(), waker, future, life }
        });
        let mut cx = Context::from_waker(&task.waker);
        if task.future.as_mut().poll(&mut cx).is_ready() {
            self.tasks.remove(&at);
            self.local.forget_unused();
            // It may be somebody else's by now; who is elsewhere is told of time, also without
            // events.
            let has_time = mailbox.segment.shared.event_time.is_some();
            if !mailbox.is_empty() || has_time && matches!(mailbox.site(), Site::There(_)) {
                mailbox.schedule();
            }
        }
    }

    /// Ages everything by one sweep and drops the instances of what is old.
    #[expect(clippy::iter_over_hash_type, reason = "each is treated alike, in any order")]
    fn sweep(&mut self) {
        for task in self.tasks.values() {
            task.life.idle_sweeps.set(task.life.idle_sweeps.get() + 1);
        }
        self.trim_idle(IDLE_SWEEPS);
    }

    /// Drops the instances of tenants whose own share is short.
    #[expect(clippy::iter_over_hash_type, reason = "each is treated alike, in any order")]
    fn trim_short(&self) {
        for task in self.tasks.values() {
            let slots = task.mailbox.segment.shared.tenant.slots();
            let pressure = slots.pressure();
            if task.life.pressure.replace(pressure) != pressure && task.life.warm.get() {
                task.life.trim.set(true);
                task.mailbox.schedule();
            }
        }
    }

    #[expect(clippy::iter_over_hash_type, reason = "each is treated alike, in any order")]
    fn trim_idle(&self, sweeps: u32) {
        for task in self.tasks.values() {
            if task.life.warm.get() && task.life.idle_sweeps.get() >= sweeps {
                task.life.trim.set(true);
                task.mailbox.schedule();
            }
        }
    }
}
