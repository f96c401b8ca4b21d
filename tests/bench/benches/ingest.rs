//! Events through two stages and out again, over HTTP, client included: how many a second?
//!
//! The whole machine works: the node takes as many cores as there are, and the client, which
//! sends, reads and counts, shares them. The two stages are in one segment; each reads key and
//! time of an event and copies its payload. Packed frames hold at most 256 events.
//!
//! The part `traced` holds a node that sends traces, with the sampling nobody has to set, against
//! one that does not: in turns, with the same requests.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::events::{self, Batch};
use sluicebox_bench::load::{Flow, Flown, flow};
use sluicebox_bench::node::{Home, Node, Setup, Tenant, best_effort, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::process::{Process, Spent};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::{program, runtime};

const FRAMES: &str = "application/vnd.sluicebox.frame";
const LINES: &str = "application/x-ndjson";

/// Of the events a second that a node without traces takes, and in how many rounds.
const TRACED_TARGET: f64 = 0.95;
const TRACED_ROUNDS: usize = 7;

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
    drop(node);
    if options.wants("traced") { traced(&options) } else { Ok(()) }
}

/// Two nodes that take turns: one sends traces.
fn traced(options: &Options) -> Result<()> {
    let (_collector, url) = collector()?;
    let (plain, traced) = (Home::new()?, Home::new()?);
    let variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url)];
    let (plain, traced) =
        (plain.start(&Setup::default())?, traced.start(&Setup { variables, ..Setup::default() })?);
    let done = runtime()?.block_on(in_turns((&plain, &traced), options));
    done.with_context(|| format!("the node's log ends with:\n{}", traced.log()))
}

async fn in_turns((plain, traced): (&Node, &Node), options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    prepare(plain, &tenant).await?;
    prepare(traced, &tenant).await?;
    let mut report = Report::new("Traces: events a second with them, by those without");
    let time = options.time(Duration::from_secs(3), Duration::from_millis(500));
    for part in parts().iter().filter(|part| ["frames", "word-count"].contains(&part.name)) {
        let (mut without, mut with) = (Rounds::default(), Rounds::default());
        for _ in 0..TRACED_ROUNDS {
            without.add(measure(plain, &tenant, part, time).await?.0.per_second());
            with.add(measure(traced, &tenant, part, time).await?.0.per_second());
        }
        let ratio = with.over(&without);
        report.row(part.what, ratio.median(), "", Target::AtLeast(TRACED_TARGET));
        report.note(&format!(
            "{:.0} events/s without; spread {:.2}",
            without.median(),
            ratio.spread()
        ));
    }
    Ok(())
}

/// Something that takes traces, and where.
fn collector() -> Result<(Process, String)> {
    let mut command = Command::new(program("bare-hyper")?);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command)?;
    let mut line = String::new();
    BufReader::new(process.stdout().context("standard output was asked for")?)
        .read_line(&mut line)?;
    Ok((process, format!("http://{}", line.trim())))
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
    let (flown, spent) = measure(node, tenant, part, time).await?;
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

async fn measure<'a>(
    node: &'a Node,
    tenant: &Tenant,
    part: &Part,
    time: Duration,
) -> Result<(Flown, Spent<'a>)> {
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
    Ok((flow(&plan).await?, spent))
}
