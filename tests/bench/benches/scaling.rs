//! A burst of ten times the load before it: how long until nothing of it waits, for a pipeline that
//! scales with its load, and for one that has had a partition for each worker all along.
//!
//! The stage computes for about a millisecond an event, so that one partition is one worker's time.
//! The load before takes a third of one worker, the burst three workers' time where there are two:
//! so the best there is has a backlog as well, and the time until it is gone is what is compared.
//! Rounds take turns, each with a node of its own. Which way the number of partitions goes is
//! looked at from the burst on, until the pipeline has as few as before: there and back is one
//! reversal.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sluicebox_bench::events::{Batch, keyed_by};
use sluicebox_bench::load::{Pour, Until, pour, wait_until};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

const PIPELINE: &str = "bursts";
const GUEST: &str = "slow";
const WORKERS: usize = 2;
/// What comes before the burst, in time of one worker; the burst is as many times that.
const BEFORE: f64 = 0.3;
const BURST: f64 = 10.0;
/// The longest it may take, by the time of the best there is.
const RATIO: f64 = 2.0;
const REVERSALS: f64 = 1.0;
/// Events come in so often.
const TICK: Duration = Duration::from_millis(20);
/// How often is looked what is done.
const LOOK: Duration = Duration::from_millis(100);
/// How long the pipeline is given to have as few partitions as before.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// Events by which it is found out how long one takes, and keys.
const TRIED: usize = 400;
const KEYS: usize = 1000;

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let runtime = runtime()?;
    let [mut fixed, mut scaled, mut turns] = [(); 3].map(|()| Rounds::default());
    let mut said = Vec::new();
    for _ in 0..if options.quick { 1 } else { 3 } {
        for scales in [false, true] {
            let home = Home::new()?;
            let node = home.start(&setup())?;
            let burst = Burst { node: &node, scales, done: Cell::new(0.0) };
            let took = runtime.block_on(burst.drive(&options));
            let took = took.with_context(|| node.log())?;
            let rounds = if scales { &mut scaled } else { &mut fixed };
            rounds.add(took.time.as_secs_f64());
            if scales {
                turns.add(took.reversals as f64);
            }
            said.push(took.said);
        }
    }
    let mut report = Report::new("A burst of ten times the load, two workers");
    report.row("gone after, a partition a worker", fixed.median(), " s", Target::None);
    report.row("gone after, scaled from one", scaled.median(), " s", Target::None);
    let ratio = scaled.over(&fixed);
    report.row("scaled by the best", ratio.quantile(1.0), "", Target::AtMost(RATIO));
    report.note(&format!("rounds from {} on", number(ratio.quantile(0.0))));
    report.row("most reversals", turns.quantile(1.0), "", Target::AtMost(REVERSALS));
    said.iter().for_each(|line| report.note(line));
    Ok(())
}

fn setup() -> Setup {
    let settings = vec![
        ("QUOTA__EVENTS_PER_SECOND", "100000000".to_owned()),
        ("QUOTA__BYTES_PER_SECOND", "100GiB".to_owned()),
    ];
    Setup { workers: Some(WORKERS), settings, ..Setup::default() }
}

fn manifest(scales: bool) -> String {
    let partitions = match scales {
        true => format!("[scaling]\nmax = {WORKERS}\nquiet = \"5s\"\n"),
        false => format!("partitions = {WORKERS}\n"),
    };
    format!(
        "version = 1\nname = \"{PIPELINE}\"\n{partitions}[ingest]\nto = [\"work\"]\n\
         [stages.work]\ncomponent = \"{GUEST}\"\n[outputs.all]\nfrom = \"work\"\n"
    )
}

/// What a burst came to.
struct Took {
    /// Until nothing of it waited.
    time: Duration,
    /// How often the number of partitions went the other way than before.
    reversals: usize,
    /// For people.
    said: String,
}

/// One pipeline, once.
struct Burst<'a> {
    node: &'a Node,
    scales: bool,
    /// Events that came out.
    done: Cell<f64>,
}

impl Burst<'_> {
    async fn drive(&self, options: &Options) -> Result<Took> {
        let tenant = Tenant::dev();
        self.node.push(&tenant, &format!("hostile/{GUEST}")).await?;
        self.node.apply(&tenant, PIPELINE, &manifest(self.scales)).await?;
        let each = self.try_out().await?;
        let rate = BEFORE / each.as_secs_f64();
        let before = options.time(Duration::from_secs(10), Duration::from_secs(2));
        let time = options.time(Duration::from_secs(10), Duration::from_secs(3));
        let sent = self.send(rate, before).await?;
        let begun = Instant::now();
        let (burst, counts) =
            tokio::try_join!(self.send(rate * BURST, time), self.watch(begun, sent))?;
        let (took, counts) = counts;
        let what = if self.scales { "scaled" } else { "a partition a worker" };
        let (each, seconds) = (each.as_micros(), took.as_secs_f64());
        let said = format!(
            "{what}: {burst} events of {each} us, gone after {seconds:.2} s; partitions {counts:?}"
        );
        Ok(Took { time: took, reversals: reversals(&counts), said })
    }

    /// How long one event takes, of events of one key.
    async fn try_out(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.pour(&[keyed_by([0; TRIED])]).await?;
        while self.look().await? < TRIED as f64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(begun.elapsed() / TRIED as u32)
    }

    async fn look(&self) -> Result<f64> {
        let done = self.node.figure("sluicebox_output_events_total").await?;
        self.done.set(done);
        Ok(done)
    }

    async fn pour(&self, batches: &[Batch]) -> Result<u64> {
        let tenant = Tenant::dev();
        let what = Pour {
            address: self.node.address,
            tenant: &tenant,
            pipeline: PIPELINE,
            batches,
            connections: 1,
            until: Until::Sent,
        };
        Ok(pour(&what).await?.events)
    }

    /// Sends so many events a second for so long, whatever becomes of them; what is refused is sent
    /// again. Gives how many.
    async fn send(&self, rate: f64, time: Duration) -> Result<usize> {
        let (begun, mut sent) = (Instant::now(), 0);
        for tick in 1..=(time.as_millis() / TICK.as_millis()) as u32 {
            wait_until(begun + TICK * tick).await;
            let due = (rate * (TICK * tick).as_secs_f64()) as usize;
            if due > sent {
                self.pour(&[keyed_by((sent..due).map(|number| number % KEYS))]).await?;
                sent = due;
            }
        }
        Ok(sent)
    }

    /// Looks until all that was sent is done, for the last time after there are as few partitions
    /// as at first. Gives when it was, and each number of partitions there was.
    async fn watch(&self, begun: Instant, before: usize) -> Result<(Duration, Vec<f64>)> {
        let (mut counts, mut done): (Vec<f64>, Option<Duration>) = (Vec::new(), None);
        loop {
            let partitions = self.node.figure("sluicebox_pipeline_partitions").await?;
            if counts.last() != Some(&partitions) {
                counts.push(partitions);
            }
            let taken = self.node.figure("sluicebox_ingest_events_total").await?;
            let out = self.look().await?;
            // Behind the burst, and not in a gap of it.
            if done.is_none() && out >= taken && out > (TRIED + before) as f64 {
                done = Some(begun.elapsed());
            } else if out < taken {
                done = None;
            }
            if let Some(done) = done {
                let is_over = counts.last() == counts.first() || !self.scales;
                let waited = begun.elapsed().saturating_sub(done);
                if (is_over && waited > LOOK * 10) || waited > QUIET_MAX {
                    return Ok((done, counts));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How often a number that changed goes the other way than before.
fn reversals(counts: &[f64]) -> usize {
    let ways: Vec<bool> = counts.windows(2).map(|pair| pair[1] > pair[0]).collect();
    ways.windows(2).filter(|pair| pair[0] != pair[1]).count()
}
