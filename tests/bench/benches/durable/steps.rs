//! Three durable stages in a row, each in a segment of its own: an event passes four records of the
//! log before its result is told.
//!
//! Each counts the events of a key in its state. All 64 clients at once find what one core does; a
//! pace well below that finds what one client would see.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluicebox_bench::load::{Asking, closed_loop, open_loop};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain};
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;

use super::count::requests;
use super::note_spread;

const CLIENTS: usize = 64;
const RATE: f64 = 10_000.0;
const P50: Duration = Duration::from_millis(2);
/// Requests a second at an easy pace.
const PACE: f64 = 1000.0;
const STAGES: usize = 3;

pub(super) fn run(options: &Options) -> Result<()> {
    super::with_node(&Setup::one_core(), async |_: &Home, node: &Node| drive(node, options).await)
}

async fn drive(node: &Node, options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    node.push(&tenant, COUNT).await?;
    let steps = Chain {
        name: "steps",
        exactly_once: true,
        stages: &[COUNT; STAGES],
        output: "reply",
        rekey: true,
        ..Chain::default()
    };
    node.apply(&tenant, steps.name, &steps.manifest()).await?;
    let (rounds, time) = super::rounds(options);
    let mut asking = Asking {
        address: node.address,
        requests: requests(steps.name, "?wait=5s"),
        status: 200,
        connections: CLIENTS,
        time,
    };
    let title = "Three durable stages in a row: wait for the result, one server core";
    let mut report = Report::new(title);
    let (mut rate, mut p50, mut p99) = (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut cpu, mut sent) = (String::new(), 0);
    for round in 0..=rounds {
        let spent = Spent::since_now(&node.process)?;
        let answers = closed_loop(&asking).await?;
        sent += answers.latency.len();
        if round > 0 {
            rate.add(answers.per_second());
            p50.add(answers.latency.quantile(0.5).as_secs_f64());
            p99.add(answers.latency.quantile(0.99).as_secs_f64());
            cpu = spent.for_each(answers.latency.len(), "a request")?;
        }
    }
    report.row("64 clients", rate.median(), "/s", Target::AtLeast(RATE));
    note_spread(&mut report, &rate);
    report.note(&cpu);
    let seconds = Duration::from_secs_f64;
    report.micros("64 clients, p50", seconds(p50.median()), Some(P50));
    report.micros("64 clients, p99", seconds(p99.median()), None);
    asking.connections = 1;
    let alone = closed_loop(&asking).await?;
    report.micros("one client, p50", alone.latency.quantile(0.5), Some(P50));
    report.micros("one client, p99", alone.latency.quantile(0.99), None);
    asking.connections = CLIENTS;
    asking.time = time * 2;
    let paced = open_loop(&asking, PACE).await?;
    report.micros("1,000/s, open loop, p50", paced.latency.quantile(0.5), Some(P50));
    report.micros("1,000/s, open loop, p99", paced.latency.quantile(0.99), None);
    sent += alone.latency.len() + paced.latency.len();
    let came = node.figure("sluicebox_stage_events_in_total").await?;
    let expected = (sent * STAGES as u64) as f64;
    ensure!(came == expected, "{expected} events for all stages, {came} came");
    Ok(())
}
