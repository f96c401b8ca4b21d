//! Packed frames through two stages of one segment, on the whole machine, against the disk.
//!
//! Everything is written twice, as it came and as it left, so that the disk may be the bound: what
//! it takes is measured between the rounds, on a plain file in the same folder.

use anyhow::Result;
use sluicebox_bench::disk::synced_bytes_per_second;
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::{Flow, Flown, flow};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::Chain;
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;

use super::{BODIES, FRAMES, MIB, log_bytes, note_spread};

/// Of what the same pipeline does without a log.
const OF_BEST_EFFORT: f64 = 0.5;
/// Of what the disk takes.
const OF_DISK: f64 = 0.6;

#[derive(Default)]
struct Seen {
    plain: Rounds,
    kept: Rounds,
    disk: Rounds,
    /// Bytes of log for an event.
    log_bytes: Rounds,
    words: [String; 2],
}

pub(super) fn run(options: &Options) -> Result<()> {
    super::with_node(&Setup::default(), async |home: &Home, node: &Node| {
        drive(home, node, options).await?.show();
        Ok(())
    })
}

async fn drive(home: &Home, node: &Node, options: &Options) -> Result<Seen> {
    let (rounds, time) = super::rounds(options);
    let tenant = Tenant::dev();
    let plain = Chain { name: "plain", retain: "256MiB", ..Chain::default() };
    let kept = Chain { name: "kept", exactly_once: true, ..plain.clone() };
    node.push(&tenant, plain.stages[0]).await?;
    node.apply(&tenant, plain.name, &plain.manifest()).await?;
    node.apply(&tenant, kept.name, &kept.manifest()).await?;
    let body = |at: usize| events::frames(8 * FRAME_EVENTS, at * 10_007);
    let batches: Vec<Batch> = (0..BODIES).map(body).collect();
    let mut flowing = Flow {
        address: node.address,
        tenant: &tenant,
        pipeline: plain.name,
        output: plain.output,
        batches: &batches,
        content_type: FRAMES,
        frames_out: true,
        connections: 16,
        window: 400_000,
        time,
    };
    let mut seen = Seen::default();
    for round in 0..=rounds {
        flowing.pipeline = plain.name;
        let best = measured(node, &flowing).await?;
        flowing.pipeline = kept.name;
        let once = measured(node, &flowing).await?;
        let disk = synced_bytes_per_second(home.path(), time / 2)?;
        if round > 0 {
            seen.note(&best, &once, disk);
        }
    }
    Ok(seen)
}

/// What flowed, bytes of log that it took, and how that went in words.
type Found = (Flown, f64, String);

async fn measured(node: &Node, flowing: &Flow<'_>) -> Result<Found> {
    let before = log_bytes(node).await?;
    let spent = Spent::since_now(&node.process)?;
    let flown = flow(flowing).await?;
    let cpu = spent.for_each(flown.events, "an event")?;
    let (p50, p99) = (flown.latency.quantile(0.5), flown.latency.quantile(0.99));
    let words = format!("{cpu}; 202 p50 {p50:?}, p99 {p99:?}; {} refused", flown.refused);
    let bytes = log_bytes(node).await? - before;
    Ok((flown, bytes, words))
}

impl Seen {
    fn note(&mut self, best: &Found, once: &Found, disk: f64) {
        self.plain.add(best.0.per_second());
        self.kept.add(once.0.per_second());
        self.disk.add(disk);
        self.log_bytes.add(once.1 / once.0.events as f64);
        self.words = [best.2.clone(), once.2.clone()];
    }

    fn show(&self) {
        let each = self.log_bytes.median();
        let mut report =
            Report::new("Packed frames through two stages: events, whole machine, client included");
        let bounds =
            [OF_BEST_EFFORT * self.plain.median(), OF_DISK * self.disk.median() / each.max(1.0)];
        report.row("best-effort", self.plain.median(), "/s", Target::None);
        note_spread(&mut report, &self.plain);
        report.note(&self.words[0]);
        let target = Target::AtLeast(bounds[0].min(bounds[1]));
        report.row("exactly-once", self.kept.median(), "/s", target);
        note_spread(&mut report, &self.kept);
        report.note(&self.words[1]);
        report.note(&format!(
            "the target is the lesser of {}/s (half of best-effort) and {}/s (0.6 of the disk)",
            number(bounds[0]),
            number(bounds[1])
        ));
        let ratio = self.kept.over(&self.plain).median();
        report.row("exactly-once of best-effort", ratio, "", Target::None);
        let disk = self.disk.median() / MIB;
        report.row("a plain file, 1 MiB synced at a time", disk, " MiB/s", Target::None);
        note_spread(&mut report, &self.disk);
        let log = self.kept.median() * each / MIB;
        report.row("log", log, " MiB/s", Target::None);
        report.row("log bytes an event", each, " B", Target::None);
    }
}
