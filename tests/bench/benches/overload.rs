//! Twice as much as a node can do, and readers that do not read: what still gets through, and what
//! it costs in memory.
//!
//! One core for the node, another for the client. Once with work that guests do (word count), once
//! with work that the edge does (JSON lines). First the peak: a closed loop. Then requests at
//! given times, twice as many as at the peak, whatever the node answers; what it refuses is not
//! sent again. Then readers ask for an output from its beginning and take nothing, while events go
//! on. Memory is looked at all the time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sluicebox_bench::client::{Client, get, with_body};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::{all, wait_until};
use sluicebox_bench::node::{Home, Node, Setup, Tenant, best_effort, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::runtime;

/// Connections at the peak.
const SENDERS: usize = 32;
/// Connections that an overload may take; below what a tenant may have.
const CONNECTIONS_MAX: usize = 900;
/// Readers that do not read.
const STALLED: usize = 16;
/// Lines of JSON in a request.
const LINES: usize = 1024;
/// Of the peak.
const GOODPUT: f64 = 0.9;
/// Growth of memory that is no growth: what allocators keep.
const FLAT_MIB: f64 = 8.0;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let home = Home::new()?;
    let node = home.start(&Setup::one_core())?;
    cores::bind(Core::Client)?;
    let done = runtime()?.block_on(run(&node, &options));
    done.with_context(|| format!("the node's log ends with:\n{}", node.log()))?;
    Ok(())
}

/// How long each part takes.
struct Times {
    peak: Duration,
    overload: Duration,
    stall: Duration,
}

impl Times {
    const fn of(options: &Options) -> Self {
        let (peak, overload, stall) = match (options.quick, options.full) {
            (true, _) => (1, 2, 1),
            (false, false) => (2, 13, 7),
            (false, true) => (5, 60, 600),
        };
        let seconds = Duration::from_secs;
        Self { peak: seconds(peak), overload: seconds(overload), stall: seconds(stall) }
    }
}

/// What a node is overloaded with.
struct Case {
    name: &'static str,
    pipeline: String,
    output: &'static str,
    content_type: &'static str,
    batch: Batch,
}

/// Work that guests do, and work that the edge does.
fn cases() -> Result<[Case; 2]> {
    const RING: &str = "\nretain-bytes = \"32MiB\"";
    let words = best_effort(&example_manifest("word-count")?)?;
    let words = Case {
        name: "word-count",
        pipeline: words.replace("[outputs.counts]", &format!("[outputs.counts]{RING}")),
        output: "counts",
        content_type: "application/vnd.sluicebox.frame",
        batch: events::text(FRAME_EVENTS, 0),
    };
    let chain = Chain { name: "chain", key: Some("/key"), retain: "32MiB", ..Chain::default() };
    let lines = Case {
        name: chain.name,
        pipeline: chain.manifest(),
        output: chain.output,
        content_type: "application/x-ndjson",
        batch: events::lines(LINES, 0),
    };
    Ok([words, lines])
}

async fn run(node: &Node, options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    for guest in [COPY, "word-count-split", "word-count-count"] {
        node.push(&tenant, guest).await?;
    }
    let times = Times::of(options);
    for case in cases()?.iter().filter(|case| options.wants(case.name)) {
        node.apply(&tenant, case.name, &case.pipeline).await?;
        one(node, &tenant, case, &times).await?;
    }
    Ok(())
}

async fn one(node: &Node, tenant: &Tenant, case: &Case, times: &Times) -> Result<()> {
    let path = tenant.path(&format!("pipelines/{}/events", case.name));
    let headers = [("content-type", case.content_type)];
    let load = Load { node, request: with_body("POST", &path, &headers, &case.batch.body) };
    // Fills the output's ring, so that memory is at its usual height from here on.
    load.closed(times.peak).await?;
    let mut report = Report::new(&format!(
        "Overload of {}: events out a second, one server core, {} events a request",
        case.name, case.batch.tally.events
    ));
    let peak = load.closed(times.peak).await?;
    report.row("peak, closed loop", peak.good(), "/s", Target::None);
    let (sent, memory) = watched(node, load.open(peak.per_second() * 2.0, times.overload)).await?;
    let sent = sent?;
    let offered = sent.offered() / peak.per_second();
    report.row("offered, of the peak", offered, "", Target::AtLeast(1.9));
    report.row("goodput, of the peak", sent.good() / peak.good(), "", Target::AtLeast(GOODPUT));
    report.note(&sent.in_words());
    memory.rows("under overload", &mut report);
    let path = tenant.path(&format!("pipelines/{}/outputs/{}", case.name, case.output));
    let rate = peak.per_second() / 2.0;
    let stall = stalled(node, &path, times.stall, load.open(rate, times.stall));
    let (sent, memory) = watched(node, stall).await?;
    let sent = sent?.good() / peak.good();
    report.row("at half the peak, with stalled readers", sent, "", Target::AtLeast(0.45));
    memory.rows("with stalled readers", &mut report);
    Ok(())
}

/// What is sent.
struct Load<'a> {
    node: &'a Node,
    request: Bytes,
}

/// What became of requests.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    accepted: u64,
    refused: u64,
    /// Connections that ended without a reply.
    broken: u64,
    /// Not sent, because all connections were waiting for replies.
    unsent: u64,
    /// From the first request to the last reply.
    elapsed: Duration,
    /// Events that came out by the output meanwhile.
    out: f64,
}

impl Sent {
    fn per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }

    fn offered(&self) -> f64 {
        (self.accepted + self.refused + self.broken) as f64 / self.elapsed.as_secs_f64()
    }

    /// Events that came out, a second.
    fn good(&self) -> f64 {
        self.out / self.elapsed.as_secs_f64()
    }

    fn in_words(&self) -> String {
        format!(
            "requests: {} accepted, {} refused, {} without a reply, {} never sent",
            number(self.accepted as f64),
            number(self.refused as f64),
            number(self.broken as f64),
            number(self.unsent as f64),
        )
    }
}

/// How requests come.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// A number of connections that each send as soon as their last reply is there.
    Closed(usize),
    /// So many a second, on as many connections as that takes.
    Open(f64),
}

impl Load<'_> {
    async fn closed(&self, time: Duration) -> Result<Sent> {
        self.send(Pace::Closed(SENDERS), time).await
    }

    async fn open(&self, rate: f64, time: Duration) -> Result<Sent> {
        self.send(Pace::Open(rate), time).await
    }

    async fn send(&self, pace: Pace, time: Duration) -> Result<Sent> {
        const OUT: &str = "sluicebox_output_events_total";
        let before = self.node.figure(OUT).await?;
        let begun = Instant::now();
        let mut sent = Sent::default();
        let mut idle: Vec<Client> = Vec::new();
        let mut flying = FuturesUnordered::new();
        let mut number = 0_u64;
        let due = |number: u64| match pace {
            Pace::Closed(_) => begun,
            Pace::Open(rate) => begun + Duration::from_secs_f64(number as f64 / rate),
        };
        let most = match pace {
            Pace::Closed(connections) => connections,
            Pace::Open(_) => CONNECTIONS_MAX,
        };
        while begun.elapsed() < time {
            while Instant::now() >= due(number) && begun.elapsed() < time {
                if flying.len() < most {
                    flying.push(self.one(idle.pop()));
                } else if matches!(pace, Pace::Open(_)) {
                    sent.unsent += 1;
                } else {
                    break;
                }
                number += 1;
            }
            let next = wait_until(if flying.len() < most { due(number) } else { begun + time });
            tokio::select! {
                // Replies first: they make room.
                biased;
                Some(done) = flying.next() => idle.extend(sent.note(done?)),
                () = next => {}
            }
        }
        while let Some(done) = flying.next().await {
            sent.note(done?);
        }
        sent.elapsed = begun.elapsed();
        sent.out = self.node.figure(OUT).await? - before;
        Ok(sent)
    }

    /// Sends one request, on a connection that is there or on a new one.
    async fn one(&self, client: Option<Client>) -> Result<Done> {
        let mut client = match client {
            Some(client) => client,
            None => Client::connect(self.node.address).await?,
        };
        let Ok(reply) = client.ask(&self.request).await else { return Ok(Done::Broken) };
        let closes = reply.closes();
        let accepted = match reply.status {
            202 => true,
            429 | 503 => false,
            _ => return Err(reply.unexpected().into()),
        };
        Ok(Done::Replied { accepted, client: (!closes).then_some(client) })
    }
}

/// What became of one request.
enum Done {
    Replied {
        accepted: bool,
        /// Unless the node closes it.
        client: Option<Client>,
    },
    Broken,
}

impl Sent {
    /// Counts it, and gives the connection back if it can be used again.
    fn note(&mut self, done: Done) -> Option<Client> {
        match done {
            Done::Replied { accepted: true, client } => {
                self.accepted += 1;
                client
            }
            Done::Replied { accepted: false, client } => {
                self.refused += 1;
                client
            }
            Done::Broken => {
                self.broken += 1;
                None
            }
        }
    }
}

/// Runs a load beside readers that ask for everything and take nothing.
async fn stalled<T>(
    node: &Node,
    path: &str,
    time: Duration,
    load: impl Future<Output = Result<T>>,
) -> Result<T> {
    let end = Instant::now() + time;
    let reader = || async {
        while Instant::now() < end {
            let mut client = node.connect().await?;
            client.send(&get(path, &[("accept", "application/vnd.sluicebox.frame")])).await?;
            // The node closes it after a while, and we come again.
            let rest = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest.min(Duration::from_secs(61))).await;
        }
        Ok(())
    };
    let readers = all((0..STALLED).map(|_| reader()));
    let (load, ()) = tokio::try_join!(load, readers)?;
    Ok(load)
}

/// Memory over a while, in MiB.
struct Memory {
    looks: Vec<f64>,
}

impl Memory {
    /// The most, and by how much the last third is above the first.
    fn rows(&self, when: &str, report: &mut Report) {
        let most = self.looks.iter().copied().fold(0.0, f64::max);
        let third = (self.looks.len() / 3).max(1).min(self.looks.len());
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
        let growth = mean(&self.looks[self.looks.len() - third..]) - mean(&self.looks[..third]);
        report.row(&format!("memory {when}, most"), most, " MiB", Target::None);
        let what = format!("memory {when}, last third above the first");
        report.row(&what, growth, " MiB", Target::AtMost(FLAT_MIB));
    }
}

/// Runs something and looks at the node's memory meanwhile.
async fn watched<T>(node: &Node, doing: impl Future<Output = T>) -> Result<(T, Memory)> {
    let mut looks = Vec::new();
    let look = async {
        loop {
            match node.process.resident_bytes() {
                Ok(bytes) => looks.push(bytes as f64 / f64::from(1 << 20)),
                Err(error) => return error,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = tokio::select! {
        // What is done ends it; looking only ends with the node.
        biased;
        done = doing => done,
        error = look => return Err(error),
    };
    Ok((done, Memory { looks }))
}
