//! A tenant in a process of its own against the same tenant in the node's process: events a
//! second, the time a request takes, and how long a process that rests takes to answer.
//!
//! Two nodes in one run, and rounds take turns; the ratio is that of each round. Flow takes the
//! whole machine, client included; requests are one after another on one connection.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::client::with_body;
use sluicebox_bench::events::{self, Batch, PAYLOAD_BYTES};
use sluicebox_bench::load::{Asking, Flow, closed_loop, flow};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

const FRAMES: &str = "application/vnd.sluicebox.frame";

/// Different bodies, so that no cache makes one of them cheap.
const BODIES: usize = 16;

/// Figure that is 1 while the process runs.
const UP: &str = "sluicebox_process_up";

/// How long a process may take to rest.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let homes = [Home::new()?, Home::new()?, Home::new()?];
    let process = || vec![("ISOLATION__PROCESSES", "true".to_owned())];
    let short = || ("ISOLATION__IDLE_TIME_MAX", "200ms".to_owned());
    let shared = homes[0].start(&Setup::default())?;
    let apart = homes[1].start(&Setup { settings: process(), ..Setup::default() })?;
    let mut settings = process();
    settings.push(short());
    let resting = homes[2].start(&Setup { settings, ..Setup::default() })?;
    let done = runtime()?.block_on(run([&shared, &apart], &resting, &options));
    done.with_context(|| format!("the log ends with:\n{}\n{}", apart.log(), resting.log()))
}

async fn run(nodes: [&Node; 2], resting: &Node, options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    for node in nodes {
        node.push(&tenant, COPY).await?;
        let chain = Chain { retain: "256MiB", ..Chain::default() };
        node.apply(&tenant, chain.name, &chain.manifest()).await?;
        let reply = Chain { name: "asked", output: "reply", ..Chain::default() };
        node.apply(&tenant, reply.name, &reply.manifest()).await?;
    }
    let title = "A tenant's process against the node's, two stages";
    let mut report = Report::new(title);
    let rounds = if options.quick { 2 } else { 6 };
    throughput(nodes, &tenant, (rounds, options), &mut report).await?;
    latency(nodes, &tenant, (rounds, options), &mut report).await?;
    starts(resting, &tenant, rounds, &mut report).await
}

async fn throughput(
    nodes: [&Node; 2],
    tenant: &Tenant,
    (rounds, options): (usize, &Options),
    report: &mut Report,
) -> Result<()> {
    for (what, frames) in [("frames of 256, 8 a request", 8), ("frames of 256, 1 a request", 1)] {
        let body = |at| events::frames(frames * events::FRAME_EVENTS, at * 10_007);
        let batches: Vec<Batch> = (0..BODIES).map(body).collect();
        let mut rates = [Rounds::default(), Rounds::default()];
        let full = options.time(Duration::from_secs(3), Duration::from_millis(700));
        for round in 0..=rounds {
            for (node, rates) in nodes.iter().zip(&mut rates) {
                let plan = Flow {
                    address: node.address,
                    tenant,
                    pipeline: "chain",
                    output: "copies",
                    batches: &batches,
                    content_type: FRAMES,
                    frames_out: true,
                    connections: 8,
                    window: 400_000,
                    // The first round only warms up.
                    time: if round == 0 { Duration::from_millis(300) } else { full },
                };
                let flown = flow(&plan).await?;
                if round > 0 {
                    rates.add(flown.per_second());
                }
            }
        }
        let [shared, apart] = &rates;
        report.row(&format!("{what}: shared"), shared.median(), " /s", Target::None);
        report.row(&format!("{what}: process"), apart.median(), " /s", Target::None);
        let ratio = apart.over(shared);
        report.row("ratio, median of rounds", ratio.median(), "", Target::AtLeast(0.85));
    }
    Ok(())
}

async fn latency(
    nodes: [&Node; 2],
    tenant: &Tenant,
    (rounds, options): (usize, &Options),
    report: &mut Report,
) -> Result<()> {
    let path = tenant.path("pipelines/asked/events?wait=5s");
    let body = [b'x'; PAYLOAD_BYTES];
    let request = with_body("POST", &path, &[("sluicebox-key", "key-0042")], &body);
    let mut medians = [Rounds::default(), Rounds::default()];
    for round in 0..=rounds {
        for (node, medians) in nodes.iter().zip(&mut medians) {
            let asking = Asking {
                address: node.address,
                requests: vec![request.clone()],
                status: 200,
                connections: 1,
                time: options.time(Duration::from_millis(1500), Duration::from_millis(300)),
            };
            let answers = closed_loop(&asking).await?;
            if round > 0 {
                medians.add(answers.latency.quantile(0.5).as_secs_f64() * 1e6);
            }
        }
    }
    let [shared, apart] = &medians;
    report.row("request with its result, p50: shared", shared.median(), " us", Target::None);
    report.row("request with its result, p50: process", apart.median(), " us", Target::None);
    let more = apart.median() - shared.median();
    report.row("more", more, " us", Target::AtMost(30.0));
    Ok(())
}

/// From the first event after a rest to its acknowledgement, which is on disk.
async fn starts(node: &Node, tenant: &Tenant, rounds: usize, report: &mut Report) -> Result<()> {
    node.push(tenant, COPY).await?;
    let chain = Chain { exactly_once: true, ..Chain::default() };
    node.apply(tenant, chain.name, &chain.manifest()).await?;
    let path = tenant.path("pipelines/chain/events");
    let body = [b'x'; PAYLOAD_BYTES];
    let request = with_body("POST", &path, &[("sluicebox-key", "key-0042")], &body);
    let mut times = Rounds::default();
    for _ in 0..rounds * 3 {
        let begun = Instant::now();
        while node.figure(UP).await? > 0.0 {
            ensure!(begun.elapsed() < PATIENCE, "the process does not rest");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut client = node.connect().await?;
        let begun = Instant::now();
        let reply = client.ask(&request).await?;
        ensure!(reply.status == 202, reply.unexpected());
        times.add(begun.elapsed().as_secs_f64() * 1e3);
    }
    report.row("first event after a rest, median", times.median(), " ms", Target::AtMost(60.0));
    report.row("first event after a rest, worst", times.quantile(1.0), " ms", Target::None);
    Ok(())
}
