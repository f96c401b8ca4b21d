//! Words counted on one core.
//!
//! Three pipelines in turn: the example without a log, the example with it, and the example with
//! the log whose counts go nowhere, as the reference counts them: state is all that comes of it.
//! What the disk takes is measured between the rounds.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sluicebox_bench::disk::synced_bytes_per_second;
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::{Flow, Pour, Until, flow, pour};
use sluicebox_bench::node::{Home, Node, Setup, Tenant, best_effort, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::COUNT;
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;

use super::{BODIES, FRAMES, MIB, log_bytes, note_spread};

/// Words a second.
const RATE: f64 = 1e6;
/// Bytes of log for a word.
const LOG_BYTES: f64 = 110.0;
/// Connections that send.
const CONNECTIONS: usize = 32;
/// Words that were accepted may take so long until they are counted.
const STALL: Duration = Duration::from_secs(10);
/// Words that every stage was given.
const EVENTS_IN: &str = "sluicebox_stage_events_in_total";

/// What is seen of one pipeline.
#[derive(Default)]
struct Seen {
    rate: Rounds,
    log_bytes: Rounds,
    cpu: String,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let (rounds, time) = super::rounds(options);
    super::with_node(&Setup::one_core(), async |home: &Home, node: &Node| {
        let mut disk = Rounds::default();
        let seen = Load::rounds(node, (rounds, time), async || {
            disk.add(synced_bytes_per_second(home.path(), time / 4)? / MIB);
            Ok(())
        });
        let seen = seen.await?;
        show(&seen, &disk);
        Ok(())
    })
}

/// Applies the three pipelines.
async fn apply(node: &Node, tenant: &Tenant) -> Result<()> {
    for guest in ["word-count-split", "word-count-count", COUNT] {
        node.push(tenant, guest).await?;
    }
    let example = example_manifest("word-count")?;
    let example = example.replace("[outputs.counts]", "[outputs.counts]\nretain-bytes = \"64MiB\"");
    let kept = |name: &str| example.replace("name = \"word-count\"", &format!("name = \"{name}\""));
    let quiet = kept("quiet").replace("word-count-count", COUNT);
    let (quiet, _) = quiet.split_once("[outputs").unwrap_or((&quiet, ""));
    node.apply(tenant, "plain", &best_effort(&kept("plain"))?).await?;
    node.apply(tenant, "kept", &kept("kept")).await?;
    node.apply(tenant, "quiet", quiet).await
}

struct Load<'a> {
    node: &'a Node,
    tenant: &'a Tenant,
    batches: &'a [Batch],
}

/// Words a second, bytes of log for a word, processor time in words.
type Found = (f64, f64, String);

impl Load<'_> {
    /// Rounds of all three in turn, and the first that does not count; `between` runs before each.
    async fn rounds(
        node: &Node,
        (rounds, time): (usize, Duration),
        mut between: impl AsyncFnMut() -> Result<()>,
    ) -> Result<[Seen; 3]> {
        let tenant = Tenant::dev();
        apply(node, &tenant).await?;
        let text = |at: usize| events::text(FRAME_EVENTS, at * 10_007);
        let batches: Vec<Batch> = (0..BODIES).map(text).collect();
        let load = Load { node, tenant: &tenant, batches: &batches };
        let mut seen = <[Seen; 3]>::default();
        for round in 0..=rounds {
            between().await?;
            for (name, seen) in ["plain", "kept", "quiet"].iter().zip(&mut seen) {
                let found = load.round(name, time).await;
                let found = found.with_context(|| format!("pipeline {name}, round {round}"))?;
                if round > 0 {
                    seen.rate.add(found.0);
                    seen.log_bytes.add(found.1);
                    seen.cpu = found.2;
                }
            }
        }
        Ok(seen)
    }

    async fn round(&self, pipeline: &str, time: Duration) -> Result<Found> {
        let before = log_bytes(self.node).await?;
        let spent = Spent::since_now(&self.node.process)?;
        let (words, rate) = if pipeline == "quiet" {
            self.counted(pipeline, time).await?
        } else {
            let flown = flow(&self.flow(pipeline, time)).await?;
            (flown.events, flown.per_second())
        };
        let cpu = spent.for_each(words, "a word")?;
        let bytes = log_bytes(self.node).await? - before;
        Ok((rate, bytes / words as f64, cpu))
    }

    fn flow<'b>(&'b self, pipeline: &'b str, time: Duration) -> Flow<'b> {
        Flow {
            address: self.node.address,
            tenant: self.tenant,
            pipeline,
            output: "counts",
            batches: self.batches,
            content_type: FRAMES,
            frames_out: true,
            connections: CONNECTIONS,
            window: 400_000,
            time,
        }
    }

    /// Words and words a second of the pipeline without an output: the node says how many it has
    /// counted.
    async fn counted(&self, pipeline: &str, time: Duration) -> Result<(u64, f64)> {
        let before = self.node.figure(EVENTS_IN).await?;
        let begun = std::time::Instant::now();
        let poured = pour(&Pour {
            address: self.node.address,
            tenant: self.tenant,
            pipeline,
            batches: self.batches,
            connections: CONNECTIONS,
            until: Until::Over(time),
        })
        .await?;
        // Each line was an event of the first stage, each word one of the second.
        let lines = poured.events / (self.batches[0].tally.events / FRAME_EVENTS as u64);
        let expected = (poured.events + lines) as f64;
        loop {
            let came = self.node.figure(EVENTS_IN).await? - before;
            if came >= expected {
                ensure!(came == expected, "{expected} events went in, {came} were counted");
                return Ok((poured.events, poured.events as f64 / begun.elapsed().as_secs_f64()));
            }
            ensure!(begun.elapsed() < time + STALL, "{came} of {expected} events were counted");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn show([plain, kept, quiet]: &[Seen; 3], disk: &Rounds) {
    let mut report = Report::new("Word count over packed frames: words, one server core");
    let mut rate = |what: &str, seen: &Seen, target| {
        report.row(what, seen.rate.median(), "/s", target);
        note_spread(&mut report, &seen.rate);
        report.note(&seen.cpu);
    };
    rate("best-effort, counts read", plain, Target::None);
    rate("exactly-once, counts read", kept, Target::AtLeast(RATE));
    rate("exactly-once, counters only", quiet, Target::AtLeast(RATE));
    let ratio = kept.rate.over(&plain.rate).median();
    report.row("exactly-once of best-effort", ratio, "", Target::None);
    for (what, seen) in [("each count an output", kept), ("counters only", quiet)] {
        let what = format!("log bytes a word, {what}");
        report.row(&what, seen.log_bytes.median(), " B", Target::AtMost(LOG_BYTES));
    }
    report.row("a plain file, 1 MiB synced at a time", disk.median(), " MiB/s", Target::None);
    note_spread(&mut report, disk);
}
