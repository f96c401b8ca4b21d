//! Several nodes: how long partitions stand still when they go to another node, and what it costs
//! to reach one by memory or by network.
//!
//! Parts, by name:
//!
//! - `pause`: one partition of four goes out and comes back under load, with more and more state;
//!   and the whole pipeline;
//! - `links`: the same two nodes linked by a ring and by TLS, in turns.
//!
//! Both nodes and the clients share the machine.

mod links;
mod pause;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sluicebox_bench::options::Options;

/// Partitions of the pipelines here.
const PARTITIONS: u16 = 4;

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    type Part = fn(&Options) -> Result<()>;
    let parts: [(&str, Part); 2] = [("pause", pause::run), ("links", links::run)];
    for (name, part) in parts.iter().filter(|(name, _)| options.wants(name)) {
        part(&options).with_context(|| format!("part {name}"))?;
    }
    Ok(())
}

/// A manifest with so many partitions.
fn in_partitions(manifest: &str) -> String {
    manifest.replacen("\n\n[ingest]", &format!("\npartitions = {PARTITIONS}\n\n[ingest]"), 1)
}
