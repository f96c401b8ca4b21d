//! Ten thousand events a second through two stages: how long does each take?
//!
//! In the process: one thread hands in an event every 100 microseconds, and between two of them
//! looks at the output without pause; the node has one worker on the other core. Measured from when
//! an event was due until its copy is seen behind the last stage, two looks at a clock and nothing
//! else of the bench's between them. Over HTTP: the same pace, one connection that sends whatever
//! is due when its last request is answered, one that reads the output as it comes.

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::client::{Client, get, with_body};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::load::wait_until;
use sluicebox_bench::node::{self, Home, Setup, Tenant, guest_bytes};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain, ECHO};
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::{program, runtime};
use sluicebox_core::frame::{FrameBuilder, HEADER_BYTES, Head};
use sluicebox_core::ids::Name;
use sluicebox_node::ring::Output;
use sluicebox_node::running::{Intake, Running};
use sluicebox_node::{Config, Node, RunningNode};

const RATE: u32 = 10_000;
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);
const P50: Duration = Duration::from_micros(10);
const P99: Duration = Duration::from_micros(150);

/// The components that are needed, and their files.
const GUESTS: [(&str, &str); 2] = [(COPY, COPY), (ECHO, "hostile/echo")];

/// Different keys, so that all partitions have work.
const KEYS: u64 = 64;

/// Events that may not come within this time never will.
const STALL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let time = options.time(Duration::from_secs(10), Duration::from_secs(2));
    let events = (time.as_secs_f64() * f64::from(RATE)) as u64;
    let mut report = Report::new("Latency at 10,000 events a second, open loop, two stages");
    if options.wants("process") {
        in_process(events, &mut report)?;
    }
    if options.wants("http") {
        over_http(events, &mut report)?;
    }
    Ok(())
}

/// Pipelines of two stages: in one segment, and in two with a queue between them.
fn chains() -> [(&'static str, Chain<'static>); 2] {
    let chain = Chain { retain: "64MiB", ..Chain::default() };
    let hop = Chain { name: "hop", stages: &[ECHO, COPY], rekey: true, ..chain.clone() };
    [("one segment", chain), ("two segments, re-keyed between", hop)]
}

fn in_process(events: u64, report: &mut Report) -> Result<()> {
    let home = tempfile::TempDir::with_prefix("sluicebox-bench-")?;
    let mut config = Config::default();
    config.node.data_dir = home.path().join("data");
    config.node.dev = true;
    config.node.workers = 1;
    config.http.listen = ([127, 0, 0, 1], 0).into();
    let program = program("sluicebox")?;
    let started =
        cores::on(Core::Server, || Node::start_with(config, program).context("start a node"))?;
    runtime()?.block_on(prepare(&started))?;
    cores::bind(Core::Client)?;
    let tenant = Name::new("dev").context("a good name")?;
    for (at, (what, chain)) in chains().iter().enumerate() {
        let running = started.node().running(&tenant, chain.name).context("it was applied")?;
        let output = running.output(chain.output).context("it has one output")?.clone();
        pulses(&running, &output, u64::from(RATE) / 10)?;
        let latency = pulses(&running, &output, events)?;
        // The target is that of one segment; a hop more is for information.
        let target = |bound| (at == 0).then_some(bound);
        report.micros(&format!("in process, {what}, p50"), latency.quantile(0.5), target(P50));
        report.micros(&format!("in process, {what}, p99"), latency.quantile(0.99), target(P99));
        report.note(&format!("p99.9 {:?}, most {:?}", latency.quantile(0.999), latency.most()));
    }
    Ok(())
}

async fn prepare(started: &RunningNode) -> Result<()> {
    let node = started.node();
    let tenant = Name::new("dev").context("a good name")?;
    for (name, file) in GUESTS {
        let name = Name::new(name).context("a good name")?;
        node.push_component(&tenant, &name, guest_bytes(file)?).await?;
    }
    for (_, chain) in chains() {
        let name = Name::new(chain.name).context("a good name")?;
        node.apply(&tenant, &name, chain.manifest().into(), false).await?;
    }
    Ok(())
}

/// Hands in events at the given pace and sees them come out, on this thread alone.
fn pulses(running: &Arc<Running>, output: &Output, events: u64) -> Result<Histogram> {
    let mut latency = Histogram::default();
    let mut cursor = output.latest();
    let start = Instant::now() + Duration::from_millis(1);
    let due = |number: u64| start + INTERVAL * u32::try_from(number).unwrap_or(u32::MAX);
    let mut sent = 0;
    while latency.len() < events {
        if output.has_news(&cursor) {
            let page = output.read(&cursor, usize::MAX)?;
            let now = Instant::now();
            for (_, event) in page.chunks.iter().flat_map(|chunk| chunk.events()) {
                let number = event.payload.last_chunk().map(|mark| u64::from_le_bytes(*mark));
                let number = number.filter(|number| *number < sent).context("a changed event")?;
                latency.add(now.saturating_duration_since(due(number)));
            }
            cursor = page.next;
        }
        let now = Instant::now();
        if sent < events && now >= due(sent) {
            let mut intake = Intake::new(running);
            intake.push(&Head::data(1), key(sent).as_bytes(), &payload(sent), &[]);
            ensure!(intake.submit().is_ok(), "the node is busy at this pace");
            sent += 1;
        }
        ensure!(now < due(events) + STALL, "{} of {events} events came out", latency.len());
        std::hint::spin_loop();
    }
    Ok(latency)
}

fn key(number: u64) -> String {
    format!("key-{:02}", number % KEYS)
}

fn payload(number: u64) -> [u8; 64] {
    let mut payload = [b'.'; 64];
    payload[56..].copy_from_slice(&number.to_le_bytes());
    payload
}

fn over_http(events: u64, report: &mut Report) -> Result<()> {
    let home = Home::new()?;
    let node = home.start(&Setup::one_core())?;
    cores::bind(Core::Client)?;
    runtime()?.block_on(async {
        let tenant = Tenant::dev();
        for (_, file) in GUESTS {
            node.push(&tenant, file).await?;
        }
        for (what, chain) in chains() {
            node.apply(&tenant, chain.name, &chain.manifest()).await?;
            Stream { node: &node, chain: &chain, events: u64::from(RATE) / 10 }.run().await?;
            let (latency, requests) = Stream { node: &node, chain: &chain, events }.run().await?;
            report.micros(&format!("HTTP, {what}, p50"), latency.quantile(0.5), None);
            report.micros(&format!("HTTP, {what}, p99"), latency.quantile(0.99), None);
            report.row("    events a request", events as f64 / requests as f64, "", Target::None);
        }
        Ok(())
    })
}

/// Events over one connection, their copies over another.
struct Stream<'a> {
    node: &'a node::Node,
    chain: &'a Chain<'a>,
    events: u64,
}

impl Stream<'_> {
    async fn run(&self) -> Result<(Histogram, u64)> {
        let mut reader = self.node.connect().await?;
        let mut sender = self.node.connect().await?;
        let cursor = self.page(&mut reader, "latest", "0s").await?.0;
        let start = Instant::now() + Duration::from_millis(1);
        let latency = RefCell::new(Histogram::default());
        let send = self.send(&mut sender, start);
        let read = self.read(&mut reader, cursor, start, &latency);
        let (requests, ()) = tokio::try_join!(send, read)?;
        Ok((latency.into_inner(), requests))
    }

    fn due(start: Instant, number: u64) -> Instant {
        start + INTERVAL * u32::try_from(number).unwrap_or(u32::MAX)
    }

    async fn send(&self, client: &mut Client, start: Instant) -> Result<u64> {
        let path = Tenant::dev().path(&format!("pipelines/{}/events", self.chain.name));
        let headers = [("content-type", "application/vnd.sluicebox.frame")];
        let (mut sent, mut requests) = (0, 0);
        while sent < self.events {
            wait_until(Self::due(start, sent)).await;
            let mut builder = FrameBuilder::new();
            while sent < self.events && Instant::now() >= Self::due(start, sent) {
                builder.push(&Head::data(0), key(sent).as_bytes(), &payload(sent), &[]);
                sent += 1;
            }
            let request = with_body("POST", &path, &headers, builder.finish().bytes());
            let reply = client.ask(&request).await?;
            ensure!(reply.status == 202, reply.unexpected());
            requests += 1;
        }
        Ok(requests)
    }

    async fn read(
        &self,
        client: &mut Client,
        mut cursor: String,
        start: Instant,
        latency: &RefCell<Histogram>,
    ) -> Result<()> {
        while latency.borrow().len() < self.events {
            let (next, numbers, now) = self.page(client, &cursor, "1s").await?;
            cursor = next;
            let mut latency = latency.borrow_mut();
            for number in numbers {
                latency.add(now.saturating_duration_since(Self::due(start, number)));
            }
            let late = now > Self::due(start, self.events) + STALL;
            ensure!(!late, "{} of {} events came out", latency.len(), self.events);
        }
        Ok(())
    }

    /// One page: the next cursor, the numbers of its events, and when it was there.
    async fn page(
        &self,
        client: &mut Client,
        cursor: &str,
        wait: &str,
    ) -> Result<(String, Vec<u64>, Instant)> {
        let (name, output) = (self.chain.name, self.chain.output);
        let path = format!("pipelines/{name}/outputs/{output}?cursor={cursor}&wait={wait}");
        let headers = [("accept", "application/vnd.sluicebox.frame")];
        let reply = client.ask(&get(&Tenant::dev().path(&path), &headers)).await?;
        let now = Instant::now();
        ensure!(reply.status == 200, reply.unexpected());
        let next = reply.header("sluicebox-cursor").context("a page without a cursor")?.to_owned();
        let mut numbers = Vec::new();
        let mut rest = reply.body;
        while !rest.is_empty() {
            let length = rest.get(12..HEADER_BYTES).and_then(|bytes| bytes.first_chunk());
            let length = length.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
            ensure!((HEADER_BYTES..=rest.len()).contains(&length), "what came is no frame");
            let (frame, behind) = rest.split_at(length);
            let limits = &sluicebox_core::frame::FrameLimits::FORMAT;
            let mut events = sluicebox_core::frame::CheckedEvents::new(frame, limits)?;
            while let Some(event) = events.next_event()? {
                let mark = event.payload.last_chunk().context("a changed event")?;
                numbers.push(u64::from_le_bytes(*mark));
            }
            rest = behind;
        }
        Ok((next, numbers, now))
    }
}
