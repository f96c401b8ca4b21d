//! Streams that wait for their next event: what a hundred thousand of them keep in memory, and what
//! one takes that is woken.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluicebox_bench::client::with_body;
use sluicebox_bench::node::{Home, Node, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::session::{Sessions, head};
use sluicebox_core::frame::{FrameBuilder, Head};

use super::MIB;

/// Keeps everything it is sent, and says something of each event.
const GUEST: &str = "stream-memory";
const FRAMES: &str = "application/vnd.sluicebox.frame";

const STATE_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Memory of a stream that waits, in bytes; what it keeps is on disk.
const MEMORY: f64 = 1024.0;
/// Parking and waking a stream of a mebibyte, in milliseconds.
const WAKE: f64 = 1.0;

fn manifest(name: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\n[ingest]\nto = [\"fold\"]\n\
         [stages.fold]\ncomponent = \"{GUEST}\"\nscope = \"stream\"\n\
         stream = {{ idle-timeout = \"1h\", duration-max = \"2h\" }}\n\
         [outputs.out]\nfrom = \"fold\"\n"
    )
}

pub(super) fn run(options: &Options) -> Result<()> {
    let streams = if options.quick { 2_000 } else { 100_000 };
    super::with_node(async |home: &Home, node: &Node| {
        let tenant = Tenant::dev();
        node.push(&tenant, GUEST).await?;
        node.apply(&tenant, "parked", &manifest("parked")).await?;
        let mut report = Report::new(&format!("{streams} open streams that wait, exactly-once"));
        let empty = node.process.resident_bytes()? as f64;
        // What a node needs however many there are is in both.
        open(node, &tenant, 0..streams / 2).await?;
        let half = settled(node).await?;
        open(node, &tenant, streams / 2..streams).await?;
        let open = node.process.resident_bytes()? as f64;
        let parked = settled(node).await?;
        let each = (parked - half) / (streams / 2) as f64;
        report.row("memory without any", empty / MIB, " MiB", Target::None);
        report.row("memory when half of them wait", half / MIB, " MiB", Target::None);
        report.row("memory with all open", open / MIB, " MiB", Target::None);
        report.row("memory when they wait", parked / MIB, " MiB", Target::None);
        report.row("  one more", each, " B", Target::AtMost(MEMORY));
        report.row("disk, log and store", disk_bytes(home)? / MIB, " MiB", Target::None);
        wake(node, &tenant, (options, streams), &mut report).await
    })
}

/// Opens streams, each with one event, until all have been answered.
async fn open(node: &Node, tenant: &Tenant, streams: Range<usize>) -> Result<()> {
    let path = tenant.path("pipelines/parked/events");
    let mut client = node.connect().await?;
    let numbers: Vec<usize> = streams.collect();
    for some in numbers.chunks(500) {
        let mut builder = FrameBuilder::new();
        for number in some {
            let key = format!("stream-{number}");
            builder.push(&Head::data(0), key.as_bytes(), b"the first of its stream", &[]);
        }
        let headers = [&[("content-type", FRAMES)][..], &tenant.headers()].concat();
        let request = with_body("POST", &path, &headers, builder.finish().bytes());
        loop {
            let reply = client.ask(&request).await?;
            match reply.status {
                202 => break,
                429 => {
                    // The node may not have read all of it.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    client = node.connect().await?;
                }
                _ => return Err(reply.unexpected().into()),
            }
        }
    }
    Ok(())
}

/// Memory when it does not become less any more.
async fn settled(node: &Node) -> Result<f64> {
    let mut least = f64::MAX;
    let mut same = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = node.process.resident_bytes()? as f64;
        same = if now < least * 0.99 { 0 } else { same + 1 };
        least = least.min(now);
        if same >= 8 {
            break;
        }
    }
    Ok(least)
}

/// Times an event to streams whose instance is there, and to some whose instance is not.
async fn wake(
    node: &Node,
    tenant: &Tenant,
    (options, streams): (&Options, usize),
    report: &mut Report,
) -> Result<()> {
    let rounds = if options.quick { 4 } else { 30 };
    let (mut small, mut warm, mut cold) = Default::default();
    let piece = vec![7; 16];
    for round in 0..rounds {
        let key = format!("stream-{}", round * (streams / rounds));
        let (first, second) = twice(node, tenant, &key, &piece).await?;
        Rounds::add(&mut small, first);
        Rounds::add(&mut warm, second);
    }
    let large: Vec<String> = (0..rounds).map(|round| format!("large-{round}")).collect();
    for key in &large {
        let mut sessions = Sessions::connect(node.address).await?;
        let body = vec![9; STATE_BYTES];
        // Left open: the body is longer than what is sent of it.
        let chunk = PIECE_BYTES.to_string();
        sessions.send(&head(tenant, ("parked", key), &chunk, 2 * STATE_BYTES)).await?;
        sessions.send(&body).await?;
        sessions.until_outputs(STATE_BYTES / PIECE_BYTES).await?;
    }
    settled(node).await?;
    for key in &large {
        let (first, _) = twice(node, tenant, key, &piece).await?;
        Rounds::add(&mut cold, first);
    }
    let less = |woken: &Rounds| woken.median() - warm.median();
    report.row("an event to a stream that is there", warm.median(), " ms", Target::None);
    report.row("more, to wake a small one", less(&small), " ms", Target::None);
    report.row("more, to wake one of 1 MiB", less(&cold), " ms", Target::AtMost(WAKE));
    Ok(())
}

/// Milliseconds from an event to what the stream says of it, twice in a row.
async fn twice(node: &Node, tenant: &Tenant, key: &str, piece: &[u8]) -> Result<(f64, f64)> {
    let mut sessions = Sessions::connect(node.address).await?;
    sessions.send(&head(tenant, ("parked", key), &piece.len().to_string(), 1 << 20)).await?;
    let mut took = [0.0; 2];
    for took in &mut took {
        let began = Instant::now();
        sessions.send(piece).await?;
        sessions.until_outputs(1).await?;
        *took = began.elapsed().as_secs_f64() * 1e3;
    }
    ensure!(took.iter().all(|took| *took > 0.0), "no time went by");
    Ok((took[0], took[1]))
}

/// Bytes of everything below the node's directory.
fn disk_bytes(home: &Home) -> Result<f64> {
    let mut folders = vec![home.path().to_path_buf()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            bytes += if found.is_dir() { 0 } else { found.len() };
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes as f64)
}
