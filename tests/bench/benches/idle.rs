//! A node with the examples applied and nothing to do: memory, processor time, time to start.
//!
//! Measured twice: after a start that found everything applied and compiled before, and after the
//! examples have worked for a moment and fallen silent. Kernel accounting of every thread, so that
//! a single wake-up would show.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::client::with_body;
use sluicebox_bench::events;
use sluicebox_bench::node::{Home, Node, Setup, Tenant, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::runtime;

const MEMORY_MIB: f64 = 80.0;
/// Share of one core that rounds to 0.0 %.
const PROCESSOR_PERCENT: f64 = 0.05;
const START: Duration = Duration::from_millis(100);

/// How long a node is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);

const EXAMPLES: [(&str, &[&str]); 2] = [
    ("word-count", &["word-count-split", "word-count-count"]),
    ("host-metrics", &["host-metrics-anomaly"]),
];

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let home = Home::new()?;
    let runtime = runtime()?;
    let mut report = Report::new("A node with the examples applied and nothing to do");
    let first = home.start(&Setup::default())?;
    report.micros("start with an empty directory, to ready", first.ready_after, None);
    runtime.block_on(prepare(&first))?;
    drop(first);
    let mut starts = Vec::new();
    for _ in 0..if options.quick { 3 } else { 9 } {
        starts.push(home.start(&Setup::default())?.ready_after);
    }
    starts.sort();
    report.micros(
        "start to ready, everything cached, median",
        starts[starts.len() / 2],
        Some(START),
    );
    report.micros("start to ready, everything cached, longest", starts[starts.len() - 1], None);
    let node = home.start(&Setup::default())?;
    let time = options.time(Duration::from_secs(10), Duration::from_millis(1500));
    look(&node, "after the start", time, &mut report)?;
    let worked = runtime.block_on(work(&node));
    worked.with_context(|| format!("the node's log ends with:\n{}", node.log()))?;
    look(&node, "after work", time, &mut report)?;
    report.row(
        "most memory it ever had",
        mib(node.process.resident_peak_bytes()?),
        " MiB",
        Target::None,
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn look(node: &Node, when: &str, time: Duration, report: &mut Report) -> Result<()> {
    std::thread::sleep(SETTLE);
    let before = node.process.processor_time()?;
    std::thread::sleep(time);
    let spent = node.process.processor_time()?.saturating_sub(before);
    let percent = spent.as_secs_f64() / time.as_secs_f64() * 100.0;
    let memory = mib(node.process.resident_bytes()?);
    report.row(&format!("{when}: memory"), memory, " MiB", Target::AtMost(MEMORY_MIB));
    let what = format!("{when}: processor, over {time:?}");
    report.row(&what, percent, " %", Target::AtMost(PROCESSOR_PERCENT));
    report.note(&format!("{spent:?} of processor time in all"));
    Ok(())
}

async fn prepare(node: &Node) -> Result<()> {
    let tenant = Tenant::dev();
    for (example, guests) in EXAMPLES {
        for guest in guests {
            node.push(&tenant, guest).await?;
        }
        node.apply(&tenant, example, &example_manifest(example)?).await?;
    }
    Ok(())
}

/// Something to do for both examples.
async fn work(node: &Node) -> Result<()> {
    let tenant = Tenant::dev();
    let mut readings = String::new();
    for at in 0..500 {
        let (series, value) = (at % 50, at % 7);
        readings
            .push_str(&format!("{{\"series\":\"s{series}\",\"value\":{value},\"time\":{at}}}\n"));
    }
    let mut client = node.connect().await?;
    const FRAMES: &str = "application/vnd.sluicebox.frame";
    const LINES: &str = "application/x-ndjson";
    for (example, kind, body) in [
        ("word-count", FRAMES, events::text(1000, 0).body),
        ("host-metrics", LINES, readings.into()),
    ] {
        let path = tenant.path(&format!("pipelines/{example}/events"));
        let headers = [("content-type", kind)];
        let reply = client.ask(&with_body("POST", &path, &headers, &body)).await?;
        ensure!(reply.status == 202, reply.unexpected());
    }
    Ok(())
}
