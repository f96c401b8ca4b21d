//! Events handed to a node in this process, by the same calls that the HTTP edge makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::node::guest_bytes;
use sluicebox_bench::report::Report;
use sluicebox_bench::{program, runtime};
use sluicebox_core::frame::Head;
use sluicebox_core::ids::Name;
use sluicebox_node::deploy::Order;
use sluicebox_node::ring::Output;
use sluicebox_node::running::{Identity, Intake, Running};
use sluicebox_node::{Config, Node, RunningNode};

use super::{GUESTS, P50, P99, RATE, STALL, chains, due, key, payload};

/// Wake-ups that are measured beside the events.
const WAKES: usize = 2000;

/// Where events are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// By a thread on the core of the worker, which it gives away whenever nothing is due.
    SameCore,
    /// By the thread that looks at the output, on the other core.
    OtherCore,
}

/// Measures a node in this process.
pub(super) fn in_process(events: u64, report: &mut Report) -> Result<()> {
    let home = tempfile::TempDir::with_prefix("sluicebox-bench-")?;
    let mut config = Config::default();
    config.node.data_dir = home.path().join("data");
    config.node.dev = true;
    config.node.workers = 1;
    config.http.listen = ([127, 0, 0, 1], 0).into();
    let program = program("sluicebox")?;
    let started =
        cores::on(Core::Server, || Node::start_with(config, program).context("start a node"))?;
    runtime()?.block_on(prepare(&started))?;
    cores::bind(Core::Client)?;
    let makers = [(Maker::SameCore, "one core"), (Maker::OtherCore, "two cores")];
    for (maker, place) in makers {
        for (at, (what, chain)) in chains().iter().enumerate() {
            let tenant = Name::new("dev").context("a good name")?;
            let running = started.node().running(&tenant, chain.name).context("it was applied")?;
            let output = running.output(chain.output).context("it has one output")?.clone();
            Pulses::new(&running, &output, u64::from(RATE) / 10).run(maker)?;
            let latency = Pulses::new(&running, &output, events).run(maker)?;
            // The target is that of the reference figures; the rest is for information.
            let targeted = maker == Maker::SameCore && at == 0;
            let target = |bound| targeted.then_some(bound);
            let (p50, p99) = (latency.quantile(0.5), latency.quantile(0.99));
            report.micros(&format!("in process, {place}, {what}, p50"), p50, target(P50));
            report.micros(&format!("in process, {place}, {what}, p99"), p99, target(P99));
            report.note(&format!("p99.9 {:?}, most {:?}", latency.quantile(0.999), latency.most()));
        }
        let wakes = wakes(maker)?;
        report.micros(&format!("a bare thread woken, {place}, p50"), wakes.quantile(0.5), None);
    }
    Ok(())
}

async fn prepare(started: &RunningNode) -> Result<()> {
    let node = started.node();
    let tenant = Name::new("dev").context("a good name")?;
    for (name, file) in GUESTS {
        let name = Name::new(name).context("a good name")?;
        node.push_component(&tenant, &name, guest_bytes(file)?).await?;
    }
    for (_, chain) in chains() {
        let name = Name::new(chain.name).context("a good name")?;
        node.apply(&tenant, &name, chain.manifest().into(), &Order::default()).await?;
    }
    Ok(())
}

/// A number of events at the given pace.
struct Pulses<'a> {
    running: &'a Arc<Running>,
    output: &'a Output,
    start: Instant,
    /// Nanoseconds after the start at which each event was handed in.
    handed: Vec<AtomicU64>,
}

impl<'a> Pulses<'a> {
    fn new(running: &'a Arc<Running>, output: &'a Output, events: u64) -> Self {
        let handed = (0..events).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { running, output, start: Instant::now() + Duration::from_millis(5), handed }
    }

    fn run(&self, maker: Maker) -> Result<Histogram> {
        if maker == Maker::OtherCore {
            let mut sent = 0;
            return self.collect(|now| {
                if sent < self.len() && now >= due(self.start, sent) {
                    self.hand_in(sent)?;
                    sent += 1;
                }
                Ok(())
            });
        }
        thread::scope(|scope| {
            let making = scope.spawn(|| {
                cores::bind(Core::Server)?;
                (0..self.len()).try_for_each(|number| {
                    give_way_until(due(self.start, number));
                    self.hand_in(number)
                })
            });
            let latency = self.collect(|_| Ok(()));
            making.join().map_err(|_| anyhow::anyhow!("the maker panicked"))??;
            latency
        })
    }

    fn len(&self) -> u64 {
        self.handed.len() as u64
    }

    fn hand_in(&self, number: u64) -> Result<()> {
        let mut intake = Intake::new(self.running, Identity::default());
        let (key, payload) = (key(number), payload(number));
        self.handed[number as usize].store(self.nanos(Instant::now()), Ordering::Release);
        intake.push(&Head::data(1), key.as_bytes(), &payload, &[]);
        ensure!(intake.submit(0).is_ok(), "the node is busy at this pace");
        Ok(())
    }

    fn nanos(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Looks at the output until everything is there, and does something between two looks.
    fn collect(&self, mut between: impl FnMut(Instant) -> Result<()>) -> Result<Histogram> {
        let mut latency = Histogram::default();
        let mut cursor = self.output.latest();
        let end = due(self.start, self.len()) + STALL;
        while latency.len() < self.len() {
            let now = Instant::now();
            if self.output.has_news(&cursor) {
                let page = self.output.read(&cursor, usize::MAX)?;
                for (_, event) in page.chunks.iter().flat_map(|chunk| chunk.events()) {
                    let mark = event.payload.last_chunk().context("a changed event")?;
                    let handed = self.handed.get(u64::from_le_bytes(*mark) as usize);
                    let handed = handed.context("a changed event")?.load(Ordering::Acquire);
                    // `now` was read before the look: half a look too early, on average.
                    latency.add(Duration::from_nanos(self.nanos(now).saturating_sub(handed)));
                }
                cursor = page.next;
            }
            between(now)?;
            ensure!(now < end, "{} of {} events came out", latency.len(), self.len());
            std::hint::spin_loop();
        }
        Ok(latency)
    }
}

/// Leaves the core to others until a moment. Not by sleeping: to set a timer, and to leave the
/// core's rest, may each take a virtual machine longer than an event takes a node.
fn give_way_until(due: Instant) {
    while Instant::now() < due {
        thread::yield_now();
    }
}

/// Time from just before a thread is woken until it runs, on the worker's core.
fn wakes(maker: Maker) -> Result<Histogram> {
    let wakes = Wakes {
        start: Instant::now() + Duration::from_millis(5),
        asked: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| wakes.sleep());
        let woken = sleeper.thread().clone();
        let waker = scope.spawn({
            let wakes = &wakes;
            move || wakes.wake(maker, &woken)
        });
        let waker = waker.join();
        waker.map_err(|_| anyhow::anyhow!("the waker panicked"))??;
        sleeper.join().map_err(|_| anyhow::anyhow!("the sleeper panicked"))?
    })
}

/// What the two threads share.
struct Wakes {
    start: Instant,
    /// Nanoseconds after the start at which the sleeper was woken; 0 while it was not.
    asked: AtomicU64,
    done: AtomicBool,
}

impl Wakes {
    fn nanos(&self) -> u64 {
        Instant::now().saturating_duration_since(self.start).as_nanos() as u64
    }

    fn sleep(&self) -> Result<Histogram> {
        cores::bind(Core::Server)?;
        let mut latency = Histogram::default();
        while !self.done.load(Ordering::Acquire) {
            thread::park();
            let asked = self.asked.swap(0, Ordering::AcqRel);
            if asked > 0 {
                latency.add(Duration::from_nanos(self.nanos().saturating_sub(asked)));
            }
        }
        Ok(latency)
    }

    fn wake(&self, maker: Maker, sleeper: &thread::Thread) -> Result<()> {
        cores::bind(if maker == Maker::SameCore { Core::Server } else { Core::Client })?;
        for number in 0..WAKES {
            let due = due(self.start, number as u64);
            match maker {
                Maker::SameCore => give_way_until(due),
                Maker::OtherCore => {
                    while Instant::now() < due {
                        std::hint::spin_loop();
                    }
                }
            }
            self.asked.store(self.nanos().max(1), Ordering::Release);
            sleeper.unpark();
        }
        self.done.store(true, Ordering::Release);
        sleeper.unpark();
        Ok(())
    }
}
