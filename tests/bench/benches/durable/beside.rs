//! What a client sees while a checkpoint is made, against the same without one.
//!
//! Two nodes with the same work on one core take turns; one makes a checkpoint of all its keys
//! right behind each change of them, the other never. In an open loop, so that a reply that is
//! late does not spare the next one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::events::{Batch, keyed};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::load::{Asking, Pour, Until, open_loop, pour};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

use super::count::requests;
use super::{MIB, note_spread};

/// Of the p99 without a checkpoint.
const OF_P99: f64 = 2.0;
/// Requests a second: a tenth of what the core can do.
const PACE: f64 = 5000.0;
const CLIENTS: usize = 16;
/// Events of one request that changes keys.
const REQUEST_EVENTS: usize = 4096;
const CONNECTIONS: usize = 4;
const EVENTS_IN: &str = "sluicebox_stage_events_in_total";
/// Where keys are changed, and what is asked.
const MANY: &str = "many";
const ASKED: &str = "asked";
/// Changes may take so long until they are counted.
const STALL: Duration = Duration::from_secs(60);

/// A node and where it keeps things.
struct Side {
    home: Home,
    node: Node,
    p99: Rounds,
    latency: Histogram,
    written: Rounds,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let keys = if options.quick { 100_000 } else { 1_000_000 };
    let (rounds, time) = super::rounds(options);
    let batches = (0..keys).step_by(REQUEST_EVENTS);
    let batches: Vec<Batch> =
        batches.map(|first| keyed(REQUEST_EVENTS.min(keys - first), first)).collect();
    let mut sides = [Side::start("1h", "64GiB")?, Side::start("1s", "64MiB")?];
    cores::on(Core::Client, || {
        runtime()?.block_on(async {
            for side in &sides {
                side.prepare().await?;
            }
            for round in 0..=rounds {
                for side in &mut sides {
                    let seen = side.round(&batches, time * 2, round > 0).await;
                    let log = || format!("the node's log ends with:\n{}", side.node.log());
                    seen.with_context(log)?;
                }
            }
            Ok(())
        })
    })?;
    show(keys, &sides)
}

impl Side {
    fn start(interval: &str, log_bytes: &str) -> Result<Self> {
        let settings = vec![
            ("LOG__CHECKPOINT_INTERVAL", interval.to_owned()),
            ("LOG__CHECKPOINT_LOG_BYTES", log_bytes.to_owned()),
        ];
        let home = Home::new()?;
        let node = home.start(&Setup { settings, ..Setup::one_core() })?;
        let (p99, written) = (Rounds::default(), Rounds::default());
        Ok(Self { home, node, p99, latency: Histogram::default(), written })
    }

    async fn prepare(&self) -> Result<()> {
        let tenant = Tenant::dev();
        self.node.push(&tenant, COUNT).await?;
        let chain = |name, output| Chain {
            name,
            exactly_once: true,
            stages: &[COUNT],
            output,
            ..Chain::default()
        };
        let manifest = chain(MANY, "none").manifest();
        let (quiet, _) = manifest.split_once("[outputs").unwrap_or((&manifest, ""));
        self.node.apply(&tenant, MANY, quiet).await?;
        self.node.apply(&tenant, ASKED, &chain(ASKED, "reply").manifest()).await
    }

    /// Changes every key, and sees how long requests take behind that.
    async fn round(&mut self, batches: &[Batch], time: Duration, counts: bool) -> Result<()> {
        self.change(batches).await?;
        let before = bytes_in(&self.home.path().join("data/store"))?;
        let asking = Asking {
            address: self.node.address,
            requests: requests(ASKED, ""),
            status: 202,
            connections: CLIENTS,
            time,
        };
        let answers = open_loop(&asking, PACE).await?;
        if counts {
            self.p99.add(answers.latency.quantile(0.99).as_secs_f64());
            self.latency.merge(&answers.latency);
            let after = bytes_in(&self.home.path().join("data/store"))?;
            self.written.add(after.saturating_sub(before) as f64 / MIB);
        }
        Ok(())
    }

    async fn change(&self, batches: &[Batch]) -> Result<()> {
        let before = self.node.figure(EVENTS_IN).await?;
        let tenant = Tenant::dev();
        let poured = pour(&Pour {
            address: self.node.address,
            tenant: &tenant,
            pipeline: MANY,
            batches,
            connections: CONNECTIONS,
            until: Until::Sent,
        })
        .await?;
        let begun = Instant::now();
        while self.node.figure(EVENTS_IN).await? - before < poured.events as f64 {
            ensure!(begun.elapsed() < STALL, "not all of {} events were counted", poured.events);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// Bytes of all files below a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        // One that is gone by now was replaced.
        let Ok(found) = path.metadata() else { continue };
        bytes += if found.is_dir() { bytes_in(&path)? } else { found.len() };
    }
    Ok(bytes)
}

fn show(keys: usize, [without, beside]: &[Side; 2]) -> Result<()> {
    let title = format!("A checkpoint of {keys} keys beside 5,000 requests a second, one core");
    let mut report = Report::new(&title);
    let bound = without.p99.median() * OF_P99 * 1e3;
    let sides = [
        ("without a checkpoint", without, Target::None),
        ("while one is made", beside, Target::AtMost(bound)),
    ];
    for (what, side, target) in sides {
        report.row(&format!("{what}: p99"), side.p99.median() * 1e3, " ms", target);
        note_spread(&mut report, &side.p99);
        let of = |share| side.latency.quantile(share).as_secs_f64() * 1e3;
        report.note(&format!("p50 {:.2} ms, p99.9 {:.2} ms over all rounds", of(0.5), of(0.999)));
    }
    report.row("the store grew meanwhile", beside.written.median(), " MiB", Target::None);
    ensure!(beside.written.median() > 1.0, "no checkpoint was under way while it was measured");
    ensure!(without.written.median() < 0.1, "the other node made one as well");
    Ok(())
}
