//! Killed with many keys in state, and started again in the same directory.
//!
//! Each key was counted once; behind each start one of them is counted again, and its count has to
//! be the next one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use sluicebox_bench::client::with_body;
use sluicebox_bench::events::{Batch, keyed, numbered_key};
use sluicebox_bench::load::{Pour, Until, pour};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

use super::{MIB, note_spread};

/// From the start of the process to ready.
const READY_SECONDS: f64 = 3.0;
/// Events of one request.
const REQUEST_EVENTS: usize = 4096;

pub(super) fn run(options: &Options) -> Result<()> {
    let (keys, starts) = match (options.quick, options.full) {
        (true, _) => (100_000, 2),
        (false, false) => (1_000_000, 5),
        (false, true) => (5_000_000, 5),
    };
    let settings = vec![("QUOTA__STATE_BYTES", "8GiB".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let home = Home::new()?;
    let mut node = home.start(&setup)?;
    runtime()?.block_on(fill(&node, keys))?;
    let title = format!("Restart after a kill, {keys} keys in state, whole machine");
    let mut report = Report::new(&title);
    let (mut ready, mut served) = (Rounds::default(), Rounds::default());
    let mut peak = 0;
    for start in 1..=starts {
        node.process.kill()?;
        node = home.start(&setup)?;
        let after = node.ready_after;
        let begun = Instant::now();
        runtime()?.block_on(count_again(&node, (start * 7919) % keys, 2))?;
        ready.add(after.as_secs_f64());
        served.add((after + begun.elapsed()).as_secs_f64());
        peak = peak.max(node.process.resident_peak_bytes()?);
    }
    report.row("start to ready", ready.median(), " s", Target::AtMost(READY_SECONDS));
    note_spread(&mut report, &ready);
    report.row("start to the first result", served.median(), " s", Target::AtMost(READY_SECONDS));
    report.row("memory at the most", peak as f64 / MIB, " MiB", Target::None);
    let log = log_files_bytes(&home)? / MIB;
    report.row("files of the log", log, " MiB", Target::None);
    Ok(())
}

/// Counts each key once, and waits until all are counted.
async fn fill(node: &Node, keys: usize) -> Result<()> {
    let tenant = Tenant::dev();
    node.push(&tenant, COUNT).await?;
    let chain = Chain {
        name: "keys",
        exactly_once: true,
        stages: &[COUNT],
        output: "reply",
        ..Chain::default()
    };
    node.apply(&tenant, chain.name, &chain.manifest()).await?;
    let batch = |first: usize| keyed(REQUEST_EVENTS.min(keys - first), first);
    let batches: Vec<Batch> = (0..keys).step_by(REQUEST_EVENTS).map(batch).collect();
    let poured = pour(&Pour {
        address: node.address,
        tenant: &tenant,
        pipeline: chain.name,
        batches: &batches,
        connections: 16,
        until: Until::Sent,
    })
    .await?;
    ensure!(poured.events == keys as u64, "{} of {keys} were taken", poured.events);
    let end = Instant::now() + Duration::from_secs(30);
    while node.figure("sluicebox_stage_events_in_total").await? < keys as f64 {
        ensure!(Instant::now() < end, "not all of {keys} were counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The last of them are on disk when one behind them is.
    count_again(node, 0, 2).await
}

/// Counts a key once more and looks at its count.
async fn count_again(node: &Node, number: usize, expected: i64) -> Result<()> {
    let path = Tenant::dev().path("pipelines/keys/events?wait=5s");
    let key = numbered_key(number);
    let request: Bytes = with_body("POST", &path, &[("sluicebox-key", &key)], b"");
    let mut client = node.connect().await?;
    let reply = client.ask(&request).await?;
    ensure!(reply.status == 200, reply.unexpected());
    ensure!(reply.body == expected.to_le_bytes(), "{key} has another count: {:?}", reply.body);
    Ok(())
}

/// Bytes of the log's files.
fn log_files_bytes(home: &Home) -> Result<f64> {
    let files = std::fs::read_dir(home.path().join("data/log"))?;
    let sizes = files.map(|file| Ok(file?.metadata()?.len()));
    Ok(sizes.sum::<Result<u64>>()? as f64)
}
