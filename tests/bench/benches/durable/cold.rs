//! State four times as large as the memory it may take.
//!
//! Each key is counted once; then events about keys drawn by Zipf's law, and evenly, in turn. The
//! counts go nowhere: state is all that comes of them. How much of it had to be read is shown.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluicebox_bench::events::{Batch, Draw, keyed, keyed_by};
use sluicebox_bench::load::{Pour, Until, pour};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;

use super::{MIB, note_spread};

/// Events a second by Zipf's law, and evenly.
const RATES: [f64; 2] = [0.8e6, 0.2e6];
const EXPONENT: f64 = 0.99;
/// What a counter under a key of 16 bytes takes in memory.
const KEY_BYTES: usize = 64 + 16 + 48 + 1 + 8;
/// Events of one request.
const REQUEST_EVENTS: usize = 4096;
/// Requests that are sent in turn.
const REQUESTS: usize = 256;
const CONNECTIONS: usize = 8;
const PIPELINE: &str = "cold";
const EVENTS_IN: &str = "sluicebox_stage_events_in_total";
const LOADS: &str = "sluicebox_stage_state_loads_total";
/// Events that were accepted may take so long until they are counted.
const STALL: Duration = Duration::from_secs(60);

pub(super) fn run(options: &Options) -> Result<()> {
    let keys = if options.quick { 100_000 } else { 1_000_000 };
    let (rounds, _) = super::rounds(options);
    // Long enough for a checkpoint in each.
    let time = Duration::from_secs(if options.quick { 1 } else { 6 });
    let memory = keys * KEY_BYTES / 4;
    let settings = vec![
        ("QUOTA__STATE_BYTES", format!("{memory}B")),
        ("LOG__CHECKPOINT_LOG_BYTES", "64MiB".to_owned()),
    ];
    let setup = Setup { settings, ..Setup::default() };
    super::with_node(&setup, async |_: &Home, node: &Node| {
        fill(node, keys).await?;
        let draws = [Draw::zipf(keys, EXPONENT), Draw::uniform(keys)];
        let batches = draws.map(batches);
        let mut seen = <[Seen; 2]>::default();
        for round in 0..=rounds {
            for (batches, seen) in batches.iter().zip(&mut seen) {
                let found = counted(node, batches, Until::Over(time)).await?;
                if round > 0 {
                    seen.rate.add(found.rate);
                    seen.loads.add(found.loads);
                    seen.cpu = found.cpu;
                }
            }
        }
        show(&seen, (keys, memory), node)
    })
}

/// What is seen of one way to draw.
#[derive(Default)]
struct Seen {
    rate: Rounds,
    loads: Rounds,
    cpu: String,
}

/// One round.
struct Found {
    rate: f64,
    /// Keys read for an event.
    loads: f64,
    cpu: String,
}

fn batches(mut draw: Draw) -> Vec<Batch> {
    (0..REQUESTS).map(|_| keyed_by(draw.by_ref().take(REQUEST_EVENTS))).collect()
}

/// Counts each key once.
async fn fill(node: &Node, keys: usize) -> Result<()> {
    let tenant = Tenant::dev();
    node.push(&tenant, COUNT).await?;
    let chain = Chain {
        name: PIPELINE,
        exactly_once: true,
        stages: &[COUNT],
        output: "none",
        ..Chain::default()
    };
    let manifest = chain.manifest();
    let (quiet, _) = manifest.split_once("[outputs").unwrap_or((&manifest, ""));
    node.apply(&tenant, PIPELINE, quiet).await?;
    let batch = |first: usize| keyed(REQUEST_EVENTS.min(keys - first), first);
    let batches: Vec<Batch> = (0..keys).step_by(REQUEST_EVENTS).map(batch).collect();
    counted(node, &batches, Until::Sent).await?;
    Ok(())
}

/// Sends, and waits until all is counted.
async fn counted(node: &Node, batches: &[Batch], until: Until) -> Result<Found> {
    let (before, loads) = (node.figure(EVENTS_IN).await?, node.figure(LOADS).await?);
    let spent = Spent::since_now(&node.process)?;
    let begun = Instant::now();
    let tenant = Tenant::dev();
    let poured = pour(&Pour {
        address: node.address,
        tenant: &tenant,
        pipeline: PIPELINE,
        batches,
        connections: CONNECTIONS,
        until,
    })
    .await?;
    let sent = Instant::now();
    let expected = poured.events as f64;
    loop {
        let came = node.figure(EVENTS_IN).await? - before;
        if came >= expected {
            ensure!(came == expected, "{expected} events went in, {came} were counted");
            break;
        }
        ensure!(sent.elapsed() < STALL, "{came} of {expected} events were counted");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let rate = expected / begun.elapsed().as_secs_f64();
    let loads = (node.figure(LOADS).await? - loads) / expected;
    let cpu = spent.for_each(poured.events, "an event")?;
    Ok(Found { rate, loads, cpu })
}

fn show(seen: &[Seen; 2], (keys, memory): (usize, usize), node: &Node) -> Result<()> {
    let title = format!(
        "State of {keys} keys, {:.0} MiB of memory for a quarter of it, whole machine",
        memory as f64 / MIB
    );
    let mut report = Report::new(&title);
    for ((what, seen), target) in ["Zipf 0.99", "uniform"].iter().zip(seen).zip(RATES) {
        report.row(what, seen.rate.median(), "/s", Target::AtLeast(target));
        note_spread(&mut report, &seen.rate);
        report.note(&seen.cpu);
        report.row("keys read for an event", seen.loads.median(), "", Target::None);
    }
    let peak = node.process.resident_peak_bytes()? as f64 / MIB;
    report.row("memory of the node at the most", peak, " MiB", Target::None);
    Ok(())
}
