//! What a client sees while a checkpoint is made, against the same without one.
//!
//! One node on one core changes all its keys, which is enough log for a checkpoint; requests are
//! sent while it is made, and again when it stands. In an open loop, so that a reply that is late
//! does not spare the next one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::events::{Batch, keyed};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::load::{Asking, Pour, Until, open_loop, pour};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;

use super::MIB;
use super::count::requests;

/// Of the p99 without a checkpoint.
const OF_P99: f64 = 2.0;
/// Requests a second: some hundredths of what the core can do, and little log beside the changes.
const PACE: f64 = 2000.0;
/// More than ever wait at once, so that a late reply keeps nobody from being sent.
const CLIENTS: usize = 512;
/// Events of one request that changes keys.
const REQUEST_EVENTS: usize = 4096;
const CONNECTIONS: usize = 4;
const EVENTS_IN: &str = "sluicebox_stage_events_in_total";
/// Where keys are changed, and what is asked.
const MANY: &str = "many";
const ASKED: &str = "asked";
/// No checkpoint for so long: there will be none.
const CALM: Duration = Duration::from_millis(700);
/// Changes may take so long until they are counted, and checkpoints until they are made.
const STALL: Duration = Duration::from_secs(60);

/// Log for each key that waits before a checkpoint is made: a little less than changing it takes,
/// so that it is made at the usual pace; more than what is asked.
const LOG_BYTES: usize = 24;
const CHECKPOINTS: &str = "sluicebox_checkpoints_total";

/// What requests saw, with a checkpoint or without.
#[derive(Default)]
struct Seen {
    p99: Rounds,
    latency: Histogram,
    /// What the store grew by meanwhile, in MiB.
    written: Rounds,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let keys = if options.quick { 200_000 } else { 1_000_000 };
    let (rounds, time) = super::rounds(options);
    let batches = (0..keys).step_by(REQUEST_EVENTS);
    let batches: Vec<Batch> =
        batches.map(|first| keyed(REQUEST_EVENTS.min(keys - first), first)).collect();
    let settings = vec![
        ("LOG__CHECKPOINT_INTERVAL", "1h".to_owned()),
        ("LOG__CHECKPOINT_LOG_BYTES", format!("{}B", keys * LOG_BYTES)),
    ];
    let setup = Setup { settings, ..Setup::one_core() };
    super::with_node(&setup, async |home: &Home, node: &Node| {
        prepare(node).await?;
        let (mut without, mut beside) = (Seen::default(), Seen::default());
        for round in 0..=rounds {
            let made = node.figure(CHECKPOINTS).await?;
            change(node, &batches).await?;
            let found = ask(home, node, time * 2).await?;
            beside.add(found, round > 0);
            rested(node, made).await?;
            let found = ask(home, node, time * 2).await?;
            without.add(found, round > 0);
        }
        show(keys, &without, &beside)
    })
}

impl Seen {
    fn add(&mut self, (latency, written): (Histogram, f64), counts: bool) {
        if counts {
            self.p99.add(latency.quantile(0.99).as_secs_f64());
            self.latency.merge(&latency);
            self.written.add(written);
        }
    }
}

async fn prepare(node: &Node) -> Result<()> {
    let tenant = Tenant::dev();
    node.push(&tenant, COUNT).await?;
    let chain = |name, output| Chain {
        name,
        exactly_once: true,
        stages: &[COUNT],
        output,
        ..Chain::default()
    };
    let manifest = chain(MANY, "none").manifest();
    let (quiet, _) = manifest.split_once("[outputs").unwrap_or((&manifest, ""));
    node.apply(&tenant, MANY, quiet).await?;
    node.apply(&tenant, ASKED, &chain(ASKED, "reply").manifest()).await
}

/// Changes every key, and waits until that is done.
async fn change(node: &Node, batches: &[Batch]) -> Result<()> {
    let before = node.figure(EVENTS_IN).await?;
    let tenant = Tenant::dev();
    let poured = pour(&Pour {
        address: node.address,
        tenant: &tenant,
        pipeline: MANY,
        batches,
        connections: CONNECTIONS,
        until: Until::Sent,
    })
    .await?;
    let begun = Instant::now();
    while node.figure(EVENTS_IN).await? - before < poured.events as f64 {
        ensure!(begun.elapsed() < STALL, "not all of {} events were counted", poured.events);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Waits until there were checkpoints since there were so many, and no more come.
async fn rested(node: &Node, mut made: f64) -> Result<()> {
    let (begun, mut last) = (Instant::now(), None);
    loop {
        let now = node.figure(CHECKPOINTS).await?;
        if now > made {
            (made, last) = (now, Some(Instant::now()));
        }
        if last.is_some_and(|last| last.elapsed() > CALM) {
            return Ok(());
        }
        ensure!(begun.elapsed() < STALL, "no end of checkpoints after {now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long requests take, and what the store grew by meanwhile.
async fn ask(home: &Home, node: &Node, time: Duration) -> Result<(Histogram, f64)> {
    let store = home.path().join("data/store");
    let before = bytes_in(&store)?;
    let asking = Asking {
        address: node.address,
        requests: requests(ASKED, ""),
        status: 202,
        connections: CLIENTS,
        time,
    };
    let latency = open_loop(&asking, PACE).await?.latency;
    Ok((latency, bytes_in(&store)?.saturating_sub(before) as f64 / MIB))
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

fn show(keys: usize, without: &Seen, beside: &Seen) -> Result<()> {
    let title = format!("A checkpoint of {keys} keys beside {PACE} requests a second, one core");
    let mut report = Report::new(&title);
    let bound = without.p99.median() * OF_P99 * 1e3;
    let both = [
        ("without a checkpoint", without, Target::None),
        ("while one is made", beside, Target::AtMost(bound)),
    ];
    for (what, seen, target) in both {
        report.row(&format!("{what}: p99"), seen.p99.median() * 1e3, " ms", target);
        let (least, most) = (seen.p99.quantile(0.0) * 1e3, seen.p99.quantile(1.0) * 1e3);
        let of = |share| seen.latency.quantile(share).as_secs_f64() * 1e3;
        report.note(&format!(
            "rounds from {least:.2} to {most:.2} ms; of all p50 {:.2} ms, p99.9 {:.2} ms",
            of(0.5),
            of(0.999)
        ));
    }
    report.row("the store grew meanwhile", beside.written.median(), " MiB", Target::None);
    ensure!(beside.written.median() > 1.0, "no checkpoint was under way while it was measured");
    ensure!(without.written.median() < 1.0, "one was under way while there should be none");
    Ok(())
}
