//! Events through two stages and out again, over HTTP, client included: how many a second?
//!
//! The whole machine works: the node takes as many cores as there are, and the client, which sends,
//! reads and counts, shares them. The two stages are in one segment; each reads key and time of an
//! event and copies its payload. Packed frames hold at most 256 events.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::events::{self, Batch};
use sluicebox_bench::load::{Flow, flow};
use sluicebox_bench::node::{Home, Node, Setup, Tenant, best_effort, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::runtime;

const FRAMES: &str = "application/vnd.sluicebox.frame";
const LINES: &str = "application/x-ndjson";

/// Different bodies, so that no cache makes one of them cheap.
const BODIES: usize = 16;

/// One way to feed the node.
struct Part {
    name: &'static str,
    what: &'static str,
    pipeline: &'static str,
    output: &'static str,
    content_type: &'static str,
    batch: fn(usize) -> Batch,
    frames_out: bool,
    target: Target,
}

fn parts() -> [Part; 5] {
    let frames = Part {
        name: "frames",
        what: "frames of 256, 8 a request",
        pipeline: "chain",
        output: "copies",
        content_type: FRAMES,
        batch: |at| events::frames(8 * events::FRAME_EVENTS, at),
        frames_out: true,
        target: Target::AtLeast(1e6),
    };
    let single = Part {
        name: "single-frames",
        what: "frames of 256, 1 a request",
        batch: |at| events::frames(events::FRAME_EVENTS, at),
        ..frames
    };
    let lines = Part {
        name: "ndjson",
        what: "NDJSON in, 2048 lines a request, frames out",
        pipeline: "json-chain",
        content_type: LINES,
        batch: |at| events::lines(2048, at),
        target: Target::AtLeast(4e5),
        ..frames
    };
    let both =
        Part { name: "ndjson-both", what: "NDJSON in, NDJSON out", frames_out: false, ..lines };
    let words = Part {
        name: "word-count",
        what: "word count, words: split, re-key, count",
        pipeline: "word-count",
        output: "counts",
        content_type: FRAMES,
        batch: |at| events::text(256, at),
        frames_out: true,
        target: Target::None,
    };
    [frames, single, lines, both, words]
}

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let home = Home::new()?;
    let node = home.start(&Setup::default())?;
    let done = runtime()?.block_on(run(&node, &options));
    done.with_context(|| format!("the node's log ends with:\n{}", node.log()))?;
    Ok(())
}

async fn run(node: &Node, options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    prepare(node, &tenant).await?;
    let mut report = Report::new("Ingest: events a second, whole machine, client included");
    for part in parts().iter().filter(|part| options.wants(part.name)) {
        let time = options.time(Duration::from_secs(9), Duration::from_millis(1500));
        one(node, &tenant, part, time, &mut report).await?;
    }
    Ok(())
}

async fn prepare(node: &Node, tenant: &Tenant) -> Result<()> {
    for guest in [COPY, "word-count-split", "word-count-count"] {
        node.push(tenant, guest).await?;
    }
    let chain = Chain { retain: "256MiB", ..Chain::default() };
    node.apply(tenant, chain.name, &chain.manifest()).await?;
    let json = Chain { name: "json-chain", key: Some("/key"), ..chain };
    node.apply(tenant, json.name, &json.manifest()).await?;
    let words = best_effort(&example_manifest("word-count")?)?;
    let words = words.replace("[outputs.counts]", "[outputs.counts]\nretain-bytes = \"256MiB\"");
    node.apply(tenant, "word-count", &words).await
}

async fn one(
    node: &Node,
    tenant: &Tenant,
    part: &Part,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let batches: Vec<Batch> = (0..BODIES).map(|at| (part.batch)(at * 10_007)).collect();
    let mut plan = Flow {
        address: node.address,
        tenant,
        pipeline: part.pipeline,
        output: part.output,
        batches: &batches,
        content_type: part.content_type,
        frames_out: part.frames_out,
        connections: 8,
        window: 400_000,
        time: Duration::from_millis(300),
    };
    // Until instances are warm and buffers have grown.
    flow(&plan).await?;
    plan.time = time;
    let spent = Spent::since_now(&node.process)?;
    let flown = flow(&plan).await?;
    report.row(part.what, flown.per_second(), "/s", part.target);
    report.note(&spent.for_each(flown.events, "an event")?);
    report.note(&format!(
        "{} requests refused as busy; reply to a request p50 {:?}, p99 {:?}; {} events a page",
        flown.refused,
        flown.latency.quantile(0.5),
        flown.latency.quantile(0.99),
        flown.events / flown.pages.max(1),
    ));
    Ok(())
}
