//! One component in the place of another, again and again, while events flow as fast as they can.
//!
//! The first of two stages, each in a segment of its own, is replaced by another program that does
//! the same. The pause is what producers see of it: the longest time without an acknowledgement
//! around the replacement, over all connections. The same is looked at without a replacement, as a
//! busy machine has pauses of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::{Asking, Flow, closed_loop, flow};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain, ECHO};
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;

use super::count::{came_out, requests};
use super::{BODIES, FRAMES};

/// The pause, in milliseconds.
const PAUSE: f64 = 10.0;
/// Between two replacements.
const REST: Duration = Duration::from_millis(150);
const CLIENTS: usize = 64;
const OUT: &str = "sluicebox_output_events_total";

/// Moments of one replacement.
type Window = (Instant, Instant);

pub(super) fn run(options: &Options) -> Result<()> {
    super::with_node(&Setup::default(), async |_: &Home, node: &Node| drive(node, options).await)
}

async fn drive(node: &Node, options: &Options) -> Result<()> {
    let times = match (options.quick, options.full) {
        (true, _) => 5,
        (false, false) => 20,
        (false, true) => 100,
    };
    let tenant = Tenant::dev();
    node.push(&tenant, COPY).await?;
    node.push(&tenant, &format!("hostile/{ECHO}")).await?;
    let replacing = Replacing { node, tenant: &tenant, times };
    let mut report = Report::new("A component replaced under load, whole machine");
    replacing.frames(&mut report).await?;
    replacing.single(&mut report).await
}

struct Replacing<'a> {
    node: &'a Node,
    tenant: &'a Tenant,
    times: usize,
}

impl Replacing<'_> {
    /// Packed frames, read and compared with what was sent.
    async fn frames(&self, report: &mut Report) -> Result<()> {
        let name = "frames";
        self.apply(name, 0).await?;
        let body = |at: usize| events::frames(FRAME_EVENTS, at * 10_007);
        let batches: Vec<Batch> = (0..BODIES).map(body).collect();
        let flowing = Flow {
            address: self.node.address,
            tenant: self.tenant,
            pipeline: name,
            output: "copies",
            batches: &batches,
            content_type: FRAMES,
            frames_out: true,
            connections: 16,
            window: 400_000,
            time: self.time(),
        };
        let (flown, windows) = tokio::join!(flow(&flowing), self.replace(name));
        // The flow has compared what came out with what went in.
        let (flown, windows) = (flown?, windows?);
        report.row("packed frames of 256", flown.per_second(), "/s", Target::None);
        report.note(&format!("{} refused as busy; nothing lost or doubled", flown.refused));
        show("packed frames", &flown.moments, &windows, report)
    }

    /// One event a request.
    async fn single(&self, report: &mut Report) -> Result<()> {
        let name = "single";
        self.apply(name, 0).await?;
        let before = self.node.figure(OUT).await?;
        let asking = Asking {
            address: self.node.address,
            requests: requests(name, ""),
            status: 202,
            connections: CLIENTS,
            time: self.time(),
        };
        let (answers, windows) = tokio::join!(closed_loop(&asking), self.replace(name));
        let (answers, windows) = (answers?, windows?);
        let sent = answers.latency.len() as f64;
        came_out(self.node, before, sent).await?;
        report.row("one event a request, 64 clients", answers.per_second(), "/s", Target::None);
        report.note("nothing lost or doubled");
        show("one event a request", &answers.moments, &windows, report)
    }

    /// Long enough for all of them, also where one takes twice as long as the rest behind it.
    fn time(&self) -> Duration {
        REST * u32::try_from(self.times).unwrap_or(u32::MAX) * 3 + REST * 4
    }

    async fn replace(&self, name: &str) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        tokio::time::sleep(REST * 2).await;
        for at in 1..=self.times {
            let begun = Instant::now();
            self.apply(name, at).await.with_context(|| format!("replacement {at}"))?;
            windows.push((begun, Instant::now()));
            tokio::time::sleep(REST).await;
        }
        Ok(windows)
    }

    async fn apply(&self, name: &str, at: usize) -> Result<()> {
        let stages = if at.is_multiple_of(2) { [ECHO, COPY] } else { [COPY, COPY] };
        let chain = Chain {
            name,
            exactly_once: true,
            stages: &stages,
            rekey: true,
            retain: "256MiB",
            ..Chain::default()
        };
        self.node.apply(self.tenant, name, &chain.manifest()).await
    }
}

fn show(what: &str, moments: &[Instant], windows: &[Window], report: &mut Report) -> Result<()> {
    let (first, last) = moments.first().zip(moments.last()).context("nothing was acknowledged")?;
    let (mut pauses, mut beside, mut took) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    for (begun, ended) in windows {
        ensure!(ended < last, "the load ended before the last replacement");
        let length = *ended - *begun;
        pauses.add(longest_gap(moments, (*begun, *ended)));
        // As long a time, in the rest behind it.
        let quiet = (*ended + REST / 4, *ended + REST / 4 + length.min(REST / 2));
        beside.add(longest_gap(moments, quiet));
        took.add(length.as_secs_f64() * 1e3);
    }
    ensure!(windows.iter().all(|(begun, _)| begun > first), "the load began too late");
    let row = format!("{what}: pause, p99 of {}", windows.len());
    report.row(&row, pauses.quantile(0.99), " ms", Target::AtMost(PAUSE));
    let all = |of: &Rounds| [0.5, 0.99].map(|share| number(of.quantile(share))).join(" / ");
    report.note(&format!(
        "p50 / p99 in ms: pause {}, the request that replaces {}, pauses without one {}",
        all(&pauses),
        all(&took),
        all(&beside)
    ));
    Ok(())
}

/// The longest time between two moments, one of which may lie outside the window, in milliseconds.
fn longest_gap(moments: &[Instant], (begun, ended): Window) -> f64 {
    let from = moments.partition_point(|moment| *moment < begun).saturating_sub(1);
    let to = moments.partition_point(|moment| *moment <= ended);
    let inside = &moments[from..moments.len().min(to + 1)];
    let gaps = inside.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default().as_secs_f64() * 1e3
}
