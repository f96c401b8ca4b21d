//! A thousand clips at once, picture by picture.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluicebox_bench::disk::synced_bytes_per_second;
use sluicebox_bench::load::all;
use sluicebox_bench::node::{Home, Node, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::session::{Sessions, head};
use tokio::sync::Barrier;

use super::bare::Bare;
use super::clip::Clip;
use super::{GUEST, MIB, manifest};

const SIDE: (usize, usize) = (320, 240);
const PICTURES: usize = 30;

/// Clips in a loop beside the node.
const LOOPS: usize = 100;

/// How much more a picture may cost than in the bare loop.
const TARGET: f64 = 1.25;
/// Of what the disk takes.
const OF_DISK: f64 = 0.6;

/// What the clips of a round came to.
struct Seen {
    took: Duration,
    busy: Duration,
    resident: u64,
}

fn clips(options: &Options) -> usize {
    if options.quick { 50 } else { 1000 }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let clips = clips(options);
    let encoded = Clip::encoded(PICTURES)?;
    beside_loop("of real video, decoded", &encoded, clips)?;
    beside_loop("of grey pixels", &Clip::grey(SIDE, PICTURES), clips)
}

fn beside_loop(what: &str, clip: &Clip, clips: usize) -> Result<()> {
    super::with_node(async |_home, node| {
        let tenant = Tenant::dev();
        node.push(&tenant, GUEST).await?;
        node.apply(&tenant, "many", &manifest("many", "best-effort", clip)).await?;
        let (bare, metered) = (Bare::new(GUEST, false)?, Bare::new(GUEST, true)?);
        let mut report = Report::new(&format!(
            "{clips} clips of {PICTURES} pictures of 320 by 240, all at once, {what}, best-effort"
        ));
        let native = clip.native(LOOPS)?;
        let before = (bare.each(clip, LOOPS)?, metered.each(clip, LOOPS)?);
        let seen = at_once(node, &tenant, "many", (clips, clip)).await?;
        let after = (bare.each(clip, LOOPS)?, metered.each(clip, LOOPS)?);
        let count = (clips * PICTURES) as f64;
        let wall = seen.took.as_secs_f64() * 1e6 / count;
        let busy = seen.busy.as_secs_f64() * 1e6 / count;
        let (loops, with_fuel) = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
        report.row("a picture, by the clock", wall, " us", Target::None);
        report.row("  of the node's core", busy, " us", Target::None);
        report.row("a bare loop over the same component", loops, " us", Target::None);
        report.row("  with fuel, as the node has to", with_fuel, " us", Target::None);
        report.row("the same code, native", native, " us", Target::None);
        report.row("the node's core by the loop", busy / loops, "", Target::AtMost(TARGET));
        report.row("  by the loop with fuel", busy / with_fuel, "", Target::None);
        report.row("memory with all open", seen.resident as f64 / MIB, " MiB", Target::None);
        Ok(())
    })
}

pub(super) fn run_kept(options: &Options) -> Result<()> {
    let clips = clips(options) / 4;
    let clip = Clip::grey(SIDE, PICTURES);
    super::with_node(async |home: &Home, node: &Node| {
        let tenant = Tenant::dev();
        node.push(&tenant, GUEST).await?;
        node.apply(&tenant, "kept", &manifest("kept", "exactly-once", &clip)).await?;
        let mut report = Report::new(&format!(
            "{clips} clips of {PICTURES} pictures of 320 by 240, all at once, exactly-once"
        ));
        let disk = || synced_bytes_per_second(home.path(), Duration::from_secs(1));
        let before = disk()?;
        let log = node.figure("sluicebox_log_written_bytes_total").await?;
        let seen = at_once(node, &tenant, "kept", (clips, &clip)).await?;
        let log = node.figure("sluicebox_log_written_bytes_total").await? - log;
        let raw = (before + disk()?) / 2.0;
        let seconds = seen.took.as_secs_f64();
        let sent = (clips * PICTURES * SIDE.0 * SIDE.1) as f64;
        let count = (clips * PICTURES) as f64;
        report.row("a picture, by the clock", seconds * 1e6 / count, " us", Target::None);
        let busy = seen.busy.as_secs_f64() * 1e6 / count;
        report.row("  of the node's core", busy, " us", Target::None);
        report.row("pictures, sent and answered", sent / seconds / MIB, " MiB/s", Target::None);
        report.row("bytes of log for one of a picture", log / sent, "", Target::None);
        report.row("a plain file, 1 MiB synced at a time", raw / MIB, " MiB/s", Target::None);
        report.row("log by the plain file", log / seconds / raw, "", Target::AtLeast(OF_DISK));
        Ok(())
    })
}

/// Sends all clips, a picture of each in turn.
async fn at_once(
    node: &Node,
    tenant: &Tenant,
    pipeline: &str,
    (clips, clip): (usize, &Clip),
) -> Result<Seen> {
    let (barrier, resident) = (Barrier::new(clips), Cell::new(0));
    let spent = Spent::since_now(&node.process)?;
    let (pictures, chunk) = (&clip.units(), &clip.chunk());
    let length = pictures.iter().map(Vec::len).sum();
    let one = async |clip: usize| -> Result<()> {
        let mut sessions = Sessions::connect(node.address).await?;
        let key = format!("clip-{clip}");
        let head = head(tenant, (pipeline, &key), chunk, length);
        sessions.send(&head).await?;
        sessions.send(&pictures[0]).await?;
        sessions.until_outputs(1).await?;
        // All are open, before any goes on.
        if barrier.wait().await.is_leader() {
            resident.set(node.process.resident_bytes()?);
        }
        let mut outputs = 1;
        for picture in &pictures[1..] {
            sessions.send(picture).await?;
        }
        outputs += sessions.finish().await?;
        ensure!(outputs == pictures.len(), "{outputs} outputs of {} pictures", pictures.len());
        Ok(())
    };
    let began = Instant::now();
    all((0..clips).map(one)).await?;
    Ok(Seen { took: began.elapsed(), busy: spent.theirs()?, resident: resident.get() })
}
