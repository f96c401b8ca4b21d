//! One event a request, counted and on disk before it is answered, against bare hyper that does the
//! same.
//!
//! Both servers have one core, the client the other. Bare hyper keeps a hash table and one file,
//! which it syncs for all that wait; it has no sandbox, no commit, no outputs and no bounds.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use sluicebox_bench::client::with_body;
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::events::{KEYS, PAYLOAD_BYTES};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::load::{Asking, closed_loop};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::process::{Process, Spent};
use sluicebox_bench::program;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;

use super::note_spread;

/// Connections, each with one request under way.
const CLIENTS: usize = 64;
/// Of bare hyper's requests a second.
const OF_RATE: f64 = 0.6;
/// Of its p99.
const OF_P99: f64 = 2.0;

/// One kind of request.
struct Kind {
    what: &'static str,
    asking: Asking,
}

/// What came of one kind.
#[derive(Default)]
struct Seen {
    rate: Rounds,
    p99: Rounds,
    latency: Histogram,
    cpu: String,
}

pub(super) fn run(options: &Options) -> Result<()> {
    super::with_node(&Setup::one_core(), async |home: &Home, node: &Node| {
        let (bare, address) = bare_hyper(home)?;
        let tenant = Tenant::dev();
        node.push(&tenant, COUNT).await?;
        let chain = Chain { name: "kept", stages: &[COUNT], output: "reply", ..Chain::default() };
        node.apply(&tenant, "plain", &Chain { name: "plain", ..chain.clone() }.manifest()).await?;
        let chain = Chain { exactly_once: true, ..chain };
        node.apply(&tenant, chain.name, &chain.manifest()).await?;
        let (rounds, time) = super::rounds(options);
        let kinds = kinds(node.address, address, time);
        let mut seen: Vec<Seen> = kinds.iter().map(|_| Seen::default()).collect();
        let mut sent = 0;
        for round in 0..=rounds {
            for (at, (kind, seen)) in kinds.iter().zip(&mut seen).enumerate() {
                let process = if at == 0 { &bare } else { &node.process };
                let spent = Spent::since_now(process)?;
                let answers = closed_loop(&kind.asking).await?;
                sent += if at == 0 { 0 } else { answers.latency.len() };
                if round > 0 {
                    seen.rate.add(answers.per_second());
                    seen.p99.add(answers.latency.quantile(0.99).as_secs_f64());
                    seen.latency.merge(&answers.latency);
                    seen.cpu = spent.for_each(answers.latency.len(), "a request")?;
                }
            }
        }
        show(&kinds, &seen);
        came_out(node, 0.0, sent as f64).await
    })
}

/// Waits until so many events have left by outputs since there were `before`, and sees that no more
/// do.
pub(super) async fn came_out(node: &Node, before: f64, expected: f64) -> Result<()> {
    const OUT: &str = "sluicebox_output_events_total";
    let end = Instant::now() + Duration::from_secs(5);
    while node.figure(OUT).await? - before < expected && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let came = node.figure(OUT).await? - before;
    ensure!(came == expected, "{expected} events went in, {came} came out");
    Ok(())
}

/// Starts the ceiling beside the node; idle servers cost nothing.
fn bare_hyper(home: &Home) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(program("bare-hyper")?);
    command.arg(home.path().join("bare")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = cores::on(Core::Server, || Process::start(&mut command))?;
    let mut line = String::new();
    BufReader::new(process.stdout().context("standard output was asked for")?)
        .read_line(&mut line)?;
    Ok((process, line.trim().parse()?))
}

fn kinds(node: SocketAddr, bare: SocketAddr, time: Duration) -> [Kind; 5] {
    let kind = |what, address, requests, status| {
        let asking = Asking { address, requests, status, connections: CLIENTS, time };
        Kind { what, asking }
    };
    [
        kind("bare hyper, synced", bare, requests("kept", ""), 200),
        kind("exactly-once, 202 when on disk", node, requests("kept", ""), 202),
        kind("exactly-once, wait for the result", node, requests("kept", "?wait=5s"), 200),
        kind("best-effort, 202", node, requests("plain", ""), 202),
        kind("best-effort, wait for the result", node, requests("plain", "?wait=5s"), 200),
    ]
}

/// A request for each key.
pub(super) fn requests(pipeline: &str, query: &str) -> Vec<Bytes> {
    let path = Tenant::dev().path(&format!("pipelines/{pipeline}/events{query}"));
    let body = [b'x'; PAYLOAD_BYTES];
    let request = |number: usize| {
        let key = format!("key-{number:04}");
        with_body("POST", &path, &[("sluicebox-key", &key)], &body)
    };
    (0..KEYS).map(request).collect()
}

fn show(kinds: &[Kind], seen: &[Seen]) {
    let mut report = Report::new("Durable count: one event a request, 64 clients, one server core");
    for (at, (kind, seen_of)) in kinds.iter().zip(seen).enumerate() {
        let is_held = at == 1 || at == 2;
        let bound = |of: f64, figure: f64| (is_held, of * figure);
        let (held, rate) = bound(OF_RATE, seen[0].rate.median());
        let target = if held { Target::AtLeast(rate) } else { Target::None };
        report.row(kind.what, seen_of.rate.median(), "/s", target);
        note_spread(&mut report, &seen_of.rate);
        report.note(&seen_of.cpu);
        let p50 = seen_of.latency.quantile(0.5);
        report.micros(&format!("{}, p50", kind.what), p50, None);
        let (held, p99) = bound(OF_P99, seen[0].p99.median());
        let target = held.then(|| Duration::from_secs_f64(p99));
        let median = Duration::from_secs_f64(seen_of.p99.median());
        report.micros(&format!("{}, p99", kind.what), median, target);
        if at > 0 {
            let ratio = seen_of.rate.over(&seen[0].rate).median();
            report.note(&format!("{ratio:.2} of bare hyper, round by round"));
        }
    }
}
