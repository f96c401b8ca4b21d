//! Ten thousand events a second through two stages: how long does each take?
//!
//! In the process first, as the reference figures were found: who makes the events and who handles
//! them share one core. A thread hands in an event every 100 microseconds and gives the core away
//! in between; the node has one worker on that core; a third thread on another core does nothing
//! but look at the output. The time is that from just before an event is handed in until it is
//! seen behind the last stage. The same again with the events made on another core: then the
//! worker's core rests between events and has to be woken. Then over HTTP.
//!
//! What it costs to wake a bare thread is measured beside it, because on a virtual machine waking a
//! core that rests takes several times as long as everything the node does.

mod in_process;
mod over_http;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain, ECHO};
use sluicebox_bench::report::Report;

/// The allocator of the node's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let time = options.time(Duration::from_secs(7), Duration::from_secs(1));
    let events = (time.as_secs_f64() * f64::from(RATE)) as u64;
    let mut report = Report::new("Latency at 10,000 events a second, open loop, two stages");
    if options.wants("process") {
        in_process::in_process(events, &mut report)?;
    }
    if options.wants("http") {
        over_http::over_http(events, &mut report)?;
    }
    Ok(())
}

/// Pipelines of two stages: in one segment, and in two with a queue between them.
fn chains() -> [(&'static str, Chain<'static>); 2] {
    let chain = Chain { retain: "64MiB", ..Chain::default() };
    let hop = Chain { name: "hop", stages: &[ECHO, COPY], rekey: true, ..chain.clone() };
    [("one segment", chain), ("re-keyed", hop)]
}

/// When an event is due.
fn due(start: Instant, number: u64) -> Instant {
    start + INTERVAL * u32::try_from(number).unwrap_or(u32::MAX)
}

fn key(number: u64) -> String {
    format!("key-{:02}", number % KEYS)
}

/// The number of an event, as the last bytes of its payload.
fn payload(number: u64) -> [u8; 64] {
    let mut payload = [b'.'; 64];
    payload[56..].copy_from_slice(&number.to_le_bytes());
    payload
}
