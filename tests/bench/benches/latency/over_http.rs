//! The same pace over HTTP: one connection sends whatever is due when its last request is answered,
//! another reads the output as it comes.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::client::{Client, get, with_body};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::histogram::Histogram;
use sluicebox_bench::load::wait_until;
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::pipelines::Chain;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::runtime;
use sluicebox_core::frame::{CheckedEvents, FrameBuilder, FrameLimits, HEADER_BYTES, Head};

use super::{GUESTS, RATE, STALL, chains, due, key, payload};

/// Media type of packed frames.
const FRAMES: &str = "application/vnd.sluicebox.frame";

/// Measures the node's program.
pub(super) fn over_http(events: u64, report: &mut Report) -> Result<()> {
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
            let each = events as f64 / requests as f64;
            report.row(&format!("HTTP, {what}, events a request"), each, "", Target::None);
        }
        Ok(())
    })
}

/// Events over one connection, their copies over another.
struct Stream<'a> {
    node: &'a Node,
    chain: &'a Chain<'a>,
    events: u64,
}

impl Stream<'_> {
    async fn run(&self) -> Result<(Histogram, u64)> {
        let mut reader = self.node.connect().await?;
        let mut sender = self.node.connect().await?;
        let cursor = self.page(&mut reader, "latest", "0s").await?.0;
        let start = Instant::now() + std::time::Duration::from_millis(1);
        let latency = RefCell::new(Histogram::default());
        let send = self.send(&mut sender, start);
        let read = self.read(&mut reader, cursor, start, &latency);
        let (requests, ()) = tokio::try_join!(send, read)?;
        Ok((latency.into_inner(), requests))
    }

    async fn send(&self, client: &mut Client, start: Instant) -> Result<u64> {
        let path = Tenant::dev().path(&format!("pipelines/{}/events", self.chain.name));
        let (mut sent, mut requests) = (0, 0);
        while sent < self.events {
            wait_until(due(start, sent)).await;
            let mut builder = FrameBuilder::new();
            while sent < self.events && Instant::now() >= due(start, sent) {
                builder.push(&Head::data(0), key(sent).as_bytes(), &payload(sent), &[]);
                sent += 1;
            }
            let frame = builder.finish();
            let request = with_body("POST", &path, &[("content-type", FRAMES)], frame.bytes());
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
                latency.add(now.saturating_duration_since(due(start, number)));
            }
            let late = now > due(start, self.events) + STALL;
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
        let reply = client.ask(&get(&Tenant::dev().path(&path), &[("accept", FRAMES)])).await?;
        let now = Instant::now();
        ensure!(reply.status == 200, reply.unexpected());
        let next = reply.header("sluicebox-cursor").context("a page without a cursor")?.to_owned();
        Ok((next, numbers(reply.body)?, now))
    }
}

/// The numbers of the events in frames, one frame after another.
fn numbers(mut rest: &[u8]) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let length = rest.get(12..HEADER_BYTES).and_then(|bytes| bytes.first_chunk());
        let length = length.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        ensure!((HEADER_BYTES..=rest.len()).contains(&length), "what came is no frame");
        let (frame, behind) = rest.split_at(length);
        let mut events = CheckedEvents::new(frame, &FrameLimits::FORMAT)?;
        while let Some(event) = events.next_event()? {
            let mark = event.payload.last_chunk().context("a changed event")?;
            numbers.push(u64::from_le_bytes(*mark));
        }
        rest = behind;
    }
    Ok(numbers)
}
