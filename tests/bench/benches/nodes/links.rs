//! The same pipeline on two nodes, linked by memory and by network: events a second, and for each
//! second of processor time of both nodes.
//!
//! Two of four partitions are on the other node, so that half of the events go there and what comes
//! of them comes back. Two clusters in one run, and rounds take turns; the ratio is that of each
//! round.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::cluster::{Cluster, NAMES, Way};
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::{Flow, flow};
use sluicebox_bench::node::{Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

use super::in_partitions;

const FRAMES: &str = "application/vnd.sluicebox.frame";
/// Different bodies, so that no cache makes one of them cheap.
const BODIES: usize = 16;
/// Frames of a request.
const REQUEST_FRAMES: usize = 8;
/// The partitions that are on the other node.
const AWAY: [u16; 2] = [2, 3];

pub(super) fn run(options: &Options) -> Result<()> {
    runtime()?.block_on(drive(options))
}

async fn drive(options: &Options) -> Result<()> {
    let mut sides = Vec::new();
    for (way, name) in [(Way::Ring, "ring"), (Way::Network, "network")] {
        let cluster = Cluster::start(way, &Setup::default()).await?;
        let home = spread(&cluster).await.with_context(|| cluster.logs())?;
        sides.push(Side { name, cluster, home, rates: Rounds::default(), each: Rounds::default() });
    }
    let (rounds, time) = match options.quick {
        true => (2, Duration::from_millis(700)),
        false => (6, Duration::from_secs(3)),
    };
    let body = |at| events::frames(REQUEST_FRAMES * FRAME_EVENTS, at * 10_007);
    let batches: Vec<Batch> = (0..BODIES).map(body).collect();
    for round in 0..=rounds {
        for side in &mut sides {
            // The first round only warms up.
            let time = if round == 0 { Duration::from_millis(300) } else { time };
            let found = side.flows(&batches, time).await;
            let (rate, each) = found.with_context(|| side.cluster.logs())?;
            if round > 0 {
                side.rates.add(rate);
                side.each.add(each);
            }
        }
    }
    show(&sides);
    Ok(())
}

/// Applies the pipeline, and moves some of it. Gives its home.
async fn spread(cluster: &Cluster) -> Result<usize> {
    let tenant = Tenant::dev();
    let chain = Chain { exactly_once: true, retain: "256MiB", ..Chain::default() };
    cluster.nodes[0].push(&tenant, COPY).await?;
    cluster.nodes[0].apply(&tenant, chain.name, &in_partitions(&chain.manifest())).await?;
    let home = cluster.home_of(&tenant, chain.name).await?;
    cluster.moves((&tenant, chain.name), Some(&AWAY), (home + 1) % NAMES.len()).await?;
    Ok(home)
}

/// One way to link nodes.
struct Side {
    name: &'static str,
    cluster: Cluster,
    home: usize,
    /// Events a second.
    rates: Rounds,
    /// Events for each second of processor time of both nodes.
    each: Rounds,
}

impl Side {
    async fn flows(&self, batches: &[Batch], time: Duration) -> Result<(f64, f64)> {
        let before = self.spent()?;
        let flown = flow(&Flow {
            address: self.cluster.nodes[self.home].address,
            tenant: &Tenant::dev(),
            pipeline: "chain",
            output: "copies",
            batches,
            content_type: FRAMES,
            frames_out: true,
            connections: 8,
            window: 400_000,
            time,
        })
        .await?;
        let spent = self.spent()?.saturating_sub(before);
        Ok((flown.per_second(), flown.events as f64 / spent.as_secs_f64()))
    }

    /// Processor time of both nodes.
    fn spent(&self) -> Result<Duration> {
        let each = |node: &Node| node.process.processor_time();
        self.cluster.nodes.iter().map(each).sum()
    }
}

fn show(sides: &[Side]) {
    let mut report =
        Report::new("Two of four partitions on another node, two stages, whole machine");
    for side in sides {
        report.row(&format!("{}: events", side.name), side.rates.median(), " /s", Target::None);
        let what = format!("{}: events a second of processor", side.name);
        report.row(&what, side.each.median(), "", Target::None);
        let range = |rounds: &Rounds| [0.0, 1.0].map(|share| number(rounds.quantile(share)));
        let ([least, most], [from, to]) = (range(&side.rates), range(&side.each));
        report.note(&format!("rounds from {least} to {most} /s; {from} to {to}"));
    }
    if let [ring, network] = sides {
        let (rates, each) = (ring.rates.over(&network.rates), ring.each.over(&network.each));
        report.row("ring by network, a second", rates.median(), "", Target::None);
        report.row("ring by network, a second of processor", each.median(), "", Target::None);
    }
}
