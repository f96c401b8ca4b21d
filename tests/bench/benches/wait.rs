//! One event a request, answered with its result, against a server of bare hyper.
//!
//! Both servers run on one core with one thread, the client on another, in the same run and with
//! the same requests; rounds take turns, and the ratio is that of each round. What the node does
//! more is divided by asking it for less: a path that leads nowhere, an event nobody waits for.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sluicebox_bench::client::{get, with_body};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::events::PAYLOAD_BYTES;
use sluicebox_bench::load::{Asking, closed_loop, open_loop};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::process::{Process, Spent};
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::{program, runtime};

const CONNECTIONS: usize = 16;

/// Of bare hyper's requests a second.
const TARGET: f64 = 0.6;

/// One kind of request.
struct Part {
    what: &'static str,
    address: SocketAddr,
    request: Bytes,
    status: u16,
}

/// What one kind of request came to over all rounds.
#[derive(Default)]
struct Seen {
    rates: Vec<f64>,
    micros: Vec<f64>,
    busy_micros: Vec<f64>,
    p50: Duration,
    p99: Duration,
}

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let home = Home::new()?;
    let node = home.start(&Setup::one_core())?;
    let (bare, address) = bare_hyper()?;
    cores::bind(Core::Client)?;
    let done = runtime()?.block_on(run(&node, &bare, address, &options));
    done.with_context(|| format!("the node's log ends with:\n{}", node.log()))?;
    Ok(())
}

/// Starts the ceiling beside the node; idle servers cost nothing.
fn bare_hyper() -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(program("bare-hyper")?);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = cores::on(Core::Server, || Process::start(&mut command))?;
    let mut line = String::new();
    BufReader::new(process.stdout().context("standard output was asked for")?)
        .read_line(&mut line)?;
    Ok((process, line.trim().parse()?))
}

fn parts(node: SocketAddr, bare: SocketAddr, tenant: &Tenant) -> Vec<Part> {
    let body = [b'x'; PAYLOAD_BYTES];
    let post = |pipeline: &str, query: &str| {
        let path = tenant.path(&format!("pipelines/{pipeline}/events{query}"));
        with_body("POST", &path, &[("sluicebox-key", "key-0042")], &body)
    };
    let part = |what, address, request, status| Part { what, address, request, status };
    vec![
        part("bare hyper", bare, post("one", "?wait=5s"), 200),
        part("wait for the result, one stage", node, post("one", "?wait=5s"), 200),
        part("wait for the result, two stages", node, post("two", "?wait=5s"), 200),
        part("event accepted, nobody waits", node, post("one", ""), 202),
        part("no such pipeline", node, post("none", "?wait=5s"), 404),
        part("GET /healthz", node, get("/healthz", &[]), 200),
    ]
}

async fn run(node: &Node, bare: &Process, address: SocketAddr, options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    node.push(&tenant, COPY).await?;
    let one = Chain { name: "one", stages: &[COPY], output: "reply", ..Chain::default() };
    node.apply(&tenant, one.name, &one.manifest()).await?;
    let two = Chain { name: "two", stages: &[COPY, COPY], ..one };
    node.apply(&tenant, two.name, &two.manifest()).await?;
    let parts = parts(node.address, address, &tenant);
    let mut seen: Vec<Seen> = parts.iter().map(|_| Seen::default()).collect();
    let (rounds, time) = if options.quick {
        (2, Duration::from_millis(500))
    } else {
        (4, Duration::from_millis(1800))
    };
    for round in 0..=rounds {
        // The first round only warms up.
        let time = if round == 0 { time / 8 } else { time };
        for (at, part) in parts.iter().enumerate() {
            if !options.wants(part.what) {
                continue;
            }
            let process = if at == 0 { bare } else { &node.process };
            let found = measure(node, process, part, time).await?;
            if round > 0 {
                seen[at].note(found);
            }
        }
    }
    show(&parts, &seen);
    if options.only.is_empty() {
        pace(&parts, options).await?;
    }
    Ok(())
}

/// Rate, CPU and time in partitions a request, p50, p99.
type Found = (f64, f64, f64, Duration, Duration);

async fn measure(node: &Node, process: &Process, part: &Part, time: Duration) -> Result<Found> {
    let asking = Asking {
        address: part.address,
        requests: vec![part.request.clone()],
        status: part.status,
        connections: CONNECTIONS,
        time,
    };
    const BUSY: &str = "sluicebox_worker_busy_seconds_total";
    let busy = node.figure(BUSY).await?;
    let spent = Spent::since_now(process)?;
    let answers = closed_loop(&asking).await?;
    let cpu = spent.theirs()?.as_secs_f64();
    let busy = node.figure(BUSY).await? - busy;
    let each = |seconds: f64| seconds * 1e6 / answers.latency.len() as f64;
    let (p50, p99) = (answers.latency.quantile(0.5), answers.latency.quantile(0.99));
    Ok((answers.per_second(), each(cpu), each(busy), p50, p99))
}

impl Seen {
    fn note(&mut self, (rate, micros, busy, p50, p99): Found) {
        self.rates.push(rate);
        self.micros.push(micros);
        self.busy_micros.push(busy);
        self.p50 = self.p50.max(p50);
        self.p99 = self.p99.max(p99);
    }
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn show(parts: &[Part], seen: &[Seen]) {
    let mut report = Report::new(
        "Requests: keep-alive, 16 connections, one server core (median of rounds; worst p50, p99)",
    );
    for (part, seen) in parts.iter().zip(seen).filter(|(_, seen)| !seen.rates.is_empty()) {
        report.row(part.what, median(&seen.rates), "/s", Target::None);
        report.note(&format!(
            "p50 {:?}, p99 {:?}, CPU {} us a request, {} us of it in partitions",
            seen.p50,
            seen.p99,
            number(median(&seen.micros)),
            number(median(&seen.busy_micros)),
        ));
    }
    let ratio = |at: usize| {
        let pairs = seen[at].rates.iter().zip(&seen[0].rates);
        median(&pairs.map(|(ours, bare)| ours / bare).collect::<Vec<_>>())
    };
    if seen[0].rates.is_empty() || seen[1].rates.is_empty() {
        return;
    }
    let mut report = Report::new("Against bare hyper in the same rounds");
    report.row("one stage, of hyper's requests a second", ratio(1), "", Target::AtLeast(TARGET));
    let cpu = |at: usize| median(&seen[at].micros);
    report.row("one stage, by CPU time of a request", cpu(0) / cpu(1), "", Target::None);
    if seen.iter().any(|seen| seen.rates.is_empty()) {
        return;
    }
    report.row("two stages", ratio(2), "", Target::None);
    report.row("event accepted, nobody waits", ratio(3), "", Target::None);
    let call = median(&seen[1].busy_micros);
    let mut report = Report::new("Where the CPU time of one request goes");
    report.row("HTTP: read, parse the head, write (bare hyper)", cpu(0), " us", Target::None);
    report.row(
        "parse: route, tenant, headers (no such pipeline)",
        cpu(4) - cpu(0),
        " us",
        Target::None,
    );
    report.row("call: inbox to commit, the guest included", call, " us", Target::None);
    let rest = cpu(1) - cpu(4) - call;
    report.row("queue and reply: event made, queued, woken, answered", rest, " us", Target::None);
    report.row("of that, to wait for and render the result", cpu(1) - cpu(3), " us", Target::None);
    report.row("in all", cpu(1), " us", Target::None);
}

/// The same at a pace well below what the server can do.
async fn pace(parts: &[Part], options: &Options) -> Result<()> {
    let mut report = Report::new("At 2,000 requests a second, open loop");
    for part in &parts[..2] {
        let asking = Asking {
            address: part.address,
            requests: vec![part.request.clone()],
            status: part.status,
            connections: CONNECTIONS,
            time: options.time(Duration::from_secs(4), Duration::from_secs(1)),
        };
        let answers = open_loop(&asking, 2000.0).await?;
        report.micros(&format!("{}, p50", part.what), answers.latency.quantile(0.5), None);
        report.micros(&format!("{}, p99", part.what), answers.latency.quantile(0.99), None);
    }
    Ok(())
}
