//! Streams in one request: clips of pictures through the example `motion`.
//!
//! Parts, by name:
//!
//! - `short`: 100 pictures of 64 by 64 a stream, 8 at once, each stream a cold start;
//! - `many`: 1,000 clips of 30 pictures of 320 by 240, all at once, against a bare loop that calls
//!   the same component on the same pictures, and the same code without a sandbox: pictures of real
//!   video, as the example takes them, and grey pixels, of which next to nothing is made;
//! - `kept`: the same exactly-once, against the disk, grey as there are more bytes of those;
//! - `parked`: 100,000 streams that wait, and what it takes to wake one.
//!
//! The node has one core and the client the other. Every answer is counted.

mod bare;
mod clip;
#[expect(dead_code, reason = "its tests are built as well, and not run")]
#[path = "../../../../examples/motion/detect/src/luma.rs"]
mod luma;
mod many;
mod parked;
mod short;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::node::{Home, Node, Setup};
use sluicebox_bench::options::Options;
use sluicebox_bench::runtime;

use clip::Clip;

/// The component of the example.
const GUEST: &str = "motion-detect";
const MIB: f64 = 1_048_576.0;

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    type Part = fn(&Options) -> Result<()>;
    let parts: [(&str, Part); 4] = [
        ("short", short::run),
        ("many", many::run),
        ("kept", many::run_kept),
        ("parked", parked::run),
    ];
    for (name, part) in parts.iter().filter(|(name, _)| options.wants(name)) {
        part(&options).with_context(|| format!("part {name}"))?;
    }
    Ok(())
}

/// Starts a node on the first core in a new directory, and drives it from the second.
fn with_node(drive: impl AsyncFnOnce(&Home, &Node) -> Result<()>) -> Result<()> {
    let home = Home::new()?;
    // A tenant has a thousand connections, as much memory as they need, and streams beside those
    // that wait, unless this is said.
    let quotas = [
        ("QUOTA__CONNECTIONS", "4000"),
        ("QUOTA__MEMORY_BYTES", "8GiB"),
        ("QUOTA__STREAMS", "200000"),
    ];
    let settings = quotas.map(|(name, value)| (name, value.to_owned())).to_vec();
    let node = home.start(&Setup { settings, ..Setup::one_core() })?;
    cores::on(Core::Client, || {
        let done = runtime()?.block_on(drive(&home, &node));
        done.with_context(|| format!("the node's log ends with:\n{}", node.log()))
    })
}

/// A pipeline of the example for such a clip.
fn manifest(name: &str, delivery: &str, clip: &Clip) -> String {
    let config: Vec<String> =
        clip.config().iter().map(|(name, value)| format!("{name} = \"{value}\"")).collect();
    format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"{delivery}\"\n[ingest]\nto = [\"detect\"]\n\
         [stages.detect]\ncomponent = \"{GUEST}\"\nscope = \"stream\"\n\
         ports = [\"motion\", \"summary\"]\nconfig = {{ {} }}\n\
         limits = {{ fuel-per-event = 2000000000, instances = 2000 }}\n\
         [outputs.motion]\nfrom = \"detect.motion\"\nretain-bytes = \"64MiB\"\n",
        config.join(", "),
    )
}
