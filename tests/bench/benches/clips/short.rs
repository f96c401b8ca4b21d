//! Short streams, one after another on each of a few connections.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluicebox_bench::load::all;
use sluicebox_bench::node::{Node, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::session::{Sessions, head};

use super::{Clip, GUEST, manifest};

const SIDE: (usize, usize) = (64, 64);
const PICTURES: usize = 100;
const AT_ONCE: usize = 8;

/// A thousandth of what a job of a stream costs elsewhere.
const TARGET: f64 = 0.28;

pub(super) fn run(options: &Options) -> Result<()> {
    let (rounds, streams) = if options.quick { (2, 40) } else { (5, 400) };
    super::with_node(async |_home, node| {
        let tenant = Tenant::dev();
        node.push(&tenant, GUEST).await?;
        let clip = Clip::grey(SIDE, PICTURES);
        node.apply(&tenant, "short", &manifest("short", "best-effort", &clip)).await?;
        let body = clip.units().concat();
        let (mut each, mut busy) = (Rounds::default(), Rounds::default());
        for round in 0..=rounds {
            let spent = Spent::since_now(&node.process)?;
            let took = streams_at_once(node, &tenant, &body, (round, streams)).await?;
            let count = (streams * AT_ONCE) as f64;
            if round > 0 {
                each.add(took.as_secs_f64() * 1e3 / count);
                busy.add(spent.theirs()?.as_secs_f64() * 1e3 / count);
            }
        }
        let mut report = Report::new(&format!(
            "Streams of {PICTURES} pictures of 64 by 64, one request each, {AT_ONCE} at once, cold"
        ));
        report.row(
            "a stream, first byte to last word",
            each.median(),
            " ms",
            Target::AtMost(TARGET),
        );
        report.row("  of the node's core", busy.median(), " ms", Target::None);
        Ok(())
    })
}

async fn streams_at_once(
    node: &Node,
    tenant: &Tenant,
    body: &[u8],
    (round, streams): (usize, usize),
) -> Result<Duration> {
    let began = Instant::now();
    let chunk = (body.len() / PICTURES).to_string();
    let one = async |connection: usize| -> Result<()> {
        let mut sessions = Sessions::connect(node.address).await?;
        for stream in 0..streams {
            let key = format!("{round}-{connection}-{stream}");
            sessions.send(&head(tenant, ("short", &key), &chunk, body.len())).await?;
            sessions.send(body).await?;
            let outputs = sessions.finish().await?;
            ensure!(outputs == PICTURES, "{outputs} outputs of {PICTURES} pictures");
        }
        Ok(())
    };
    all((0..AT_ONCE).map(one)).await?;
    Ok(began.elapsed())
}
