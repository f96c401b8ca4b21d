//! Exactly-once: what it costs to keep everything, and how long its interruptions are.
//!
//! Parts, by name:
//!
//! - `words`: the word count on one core, with the log and without;
//! - `packed`: packed frames through two stages on the whole machine, against the disk;
//! - `count`: one event a request, against bare hyper that syncs a file for all that wait;
//! - `steps`: three durable stages in a row, each fed by the one before;
//! - `beside`: what a client sees while a checkpoint is made;
//! - `cold`: counters for four times as many keys as memory has room for;
//! - `restart`: from a kill to ready, with many keys in state;
//! - `replace`: one component in the place of another under load;
//! - `soak`: words for minutes, or an hour, with a kill every minute.
//!
//! What is compared takes turns in the same run: a round that does not count, then five that do, of
//! which the middle one is shown. Everything that was acknowledged is counted where it comes out.

mod beside;
mod cold;
mod count;
mod packed;
mod replace;
mod restart;
mod soak;
mod steps;
mod words;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::node::{Home, Node, Setup};
use sluicebox_bench::options::Options;
use sluicebox_bench::report::{Report, number};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

/// The content type of packed frames.
const FRAMES: &str = "application/vnd.sluicebox.frame";
/// Different bodies, so that no cache makes one of them cheap.
const BODIES: usize = 16;
/// A spread above this is shown.
const SPREAD: f64 = 0.05;
const MIB: f64 = 1_048_576.0;

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    type Part = fn(&Options) -> Result<()>;
    let parts: [(&str, Part); 9] = [
        ("words", words::run),
        ("packed", packed::run),
        ("count", count::run),
        ("steps", steps::run),
        ("beside", beside::run),
        ("cold", cold::run),
        ("restart", restart::run),
        ("replace", replace::run),
        ("soak", soak::run),
    ];
    for (name, part) in parts.iter().filter(|(name, _)| options.wants(name)) {
        part(&options).with_context(|| format!("part {name}"))?;
    }
    Ok(())
}

/// Rounds that count, and the time of one for each thing that is compared.
const fn rounds(options: &Options) -> (usize, Duration) {
    if options.quick { (2, Duration::from_millis(400)) } else { (5, Duration::from_millis(1500)) }
}

/// Starts a node in a new directory and drives it; the client has the second core if the node has
/// the first.
fn with_node(setup: &Setup, drive: impl AsyncFnOnce(&Home, &Node) -> Result<()>) -> Result<()> {
    let home = Home::new()?;
    let node = home.start(setup)?;
    let client = if setup.core == Core::Server { Core::Client } else { Core::Any };
    cores::on(client, || {
        let done = runtime()?.block_on(drive(&home, &node));
        done.with_context(|| format!("the node's log ends with:\n{}", node.log()))
    })
}

/// Says how far apart the rounds were, if they were.
fn note_spread(report: &mut Report, rounds: &Rounds) {
    if rounds.spread() > SPREAD {
        let (least, most) = (rounds.quantile(0.0), rounds.quantile(1.0));
        report.note(&format!("rounds from {} to {}", number(least), number(most)));
    }
}

/// Bytes that the log has written.
async fn log_bytes(node: &Node) -> Result<f64> {
    node.figure("sluicebox_log_written_bytes_total").await
}
