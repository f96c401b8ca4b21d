//! What a stage pays for a GPU that it does not have to itself, on the software device: from a
//! guest's submission to its result beside the same by bare calls of Vulkan, a picture that goes
//! from stage to stage on the device beside one that goes through the host, and how long it takes
//! until a kernel runs again behind the end of the process that has the device.
//!
//! A submission is timed by the event that makes many of them, less the event that makes none. Both
//! sides take turns within a round; each figure is a median.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sluicebox_bench::client::{Client, with_body};
use sluicebox_bench::node::{Home, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::report::{Report, Target};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;
use sluicebox_gpu::device::Kind;
use sluicebox_gpu::vulkan::bare::Bare;
use sluicebox_gpu::vulkan::{Choice, Options as Device};

/// A picture of 1920 by 1080 points of four bytes.
const PICTURE: usize = 1920 * 1080 * 4;
/// Submissions of one event, and events of a round.
const SUBMITS: u32 = 500;
const PICTURES: u32 = 20;
/// The most that a submission may take more than bare calls, in microseconds.
const MORE_MICROS: f64 = 60.0;
/// How often faster a picture has to be that stays.
const FASTER: f64 = 10.0;
const RESTART_MILLIS: f64 = 300.0;

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let runtime = runtime()?;
    let (home, tenant) = (Home::new()?, Tenant::dev());
    let node = home.start(&setup())?;
    let choice = Choice::Kind(Kind::Software);
    let mut bare = Bare::open(&Device { choice, ..Device::default() })?;
    let mut all = [(); 5].map(|()| Rounds::default());
    let rounds = if options.quick { 2 } else { 7 };
    runtime
        .block_on(async {
            node.push(&tenant, "bench-gpu").await?;
            for (name, stages) in [("one", 1), ("two", 2)] {
                node.apply(&tenant, name, &manifest(name, stages)).await?;
            }
            let mut client = node.connect().await?;
            ask(&mut client, &tenant, ("one", "submits 10")).await?;
            for _ in 0..rounds {
                let [ours, bares, timed, attached, copied] = &mut all;
                for _ in 0..SUBMITS {
                    bare.trip(false)?;
                }
                bares.add(micros(of_each(SUBMITS, || bare.trip(false).map(drop))?));
                timed.add(micros(of_each(SUBMITS, || bare.trip(true).map(drop))?));
                let many =
                    ask(&mut client, &tenant, ("one", &format!("submits {SUBMITS}"))).await?;
                let none = ask(&mut client, &tenant, ("one", "submits 0")).await?;
                ours.add(micros(many.saturating_sub(none) / SUBMITS));
                attached.add(pictures(&mut client, &tenant, "attach").await?);
                copied.add(pictures(&mut client, &tenant, "copy").await?);
            }
            anyhow::Ok(())
        })
        .with_context(|| node.log())?;
    drop(node);
    let mut restart = Rounds::default();
    for _ in 0..if options.quick { 1 } else { 5 } {
        // A process that ends again and again is started more slowly each time.
        restart.add(runtime.block_on(restarted())? * 1e3);
    }
    let [ours, bares, timed, attached, copied] = all;
    let mut report = Report::new("A GPU by guests, on the software device");
    report.row("submission, bare", bares.median(), " us", Target::None);
    report.row("submission, bare and timed", timed.median(), " us", Target::None);
    report.row("submission, by a guest", ours.median(), " us", Target::None);
    let more = ours.median() - bares.median();
    report.row("more than bare", more, " us", Target::AtMost(MORE_MICROS));
    report.row("picture that stays", attached.median(), " ms", Target::None);
    report.row("picture by the host", copied.median(), " ms", Target::None);
    let faster = copied.over(&attached).median();
    report.row("as fast, that stays", faster, " x", Target::AtLeast(FASTER));
    let millis = restart.median();
    report.row("killed to first kernel", millis, " ms", Target::AtMost(RESTART_MILLIS));
    Ok(())
}

fn manifest(name: &str, stages: usize) -> String {
    let mut text = format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"best-effort\"\npartitions = 1\n\
         [ingest]\nto = [\"stage-1\"]\n[outputs.reply]\nfrom = \"stage-{stages}\"\n"
    );
    for number in 1..=stages {
        text.push_str(&format!(
            "[stages.stage-{number}]\ncomponent = \"bench-gpu\"\n\
             grants = {{ gpu = {{ deadline = \"8s\" }} }}\n\
             limits = {{ event-bytes = \"16MiB\", emit-bytes = \"32MiB\", memory = \"256MiB\", \
             fuel-per-event = 100000000000 }}\n"
        ));
    }
    if stages == 2 {
        text.push_str("[[edges]]\nfrom = \"stage-1\"\nto = \"stage-2\"\n");
    }
    text
}

/// Sends one event and waits for what comes of it. How long that took.
async fn ask(
    client: &mut Client,
    tenant: &Tenant,
    (pipeline, payload): (&str, &str),
) -> Result<Duration> {
    let path = tenant.path(&format!("pipelines/{pipeline}/events?wait=20s"));
    let headers = [("sluicebox-key", "k"), ("content-type", "application/octet-stream")];
    let request = with_body("POST", &path, &headers, payload.as_bytes());
    let begun = Instant::now();
    let reply = client.ask(&request).await?;
    ensure!(reply.status == 200, "{payload}: {}", reply.unexpected());
    Ok(begun.elapsed())
}

/// How long a picture takes from its stage to the next, in milliseconds.
async fn pictures(client: &mut Client, tenant: &Tenant, how: &str) -> Result<f64> {
    let payload = format!("{how} {PICTURE}");
    ask(client, tenant, ("two", &payload)).await?;
    let mut sum = Duration::ZERO;
    for _ in 0..PICTURES {
        sum += ask(client, tenant, ("two", &payload)).await?;
    }
    Ok((sum / PICTURES).as_secs_f64() * 1e3)
}

fn setup() -> Setup {
    Setup { settings: vec![("GPU__DEVICE", "software".to_owned())], ..Setup::default() }
}

/// Ends the process with the device of a new node. How long until a kernel has run, in seconds.
async fn restarted() -> Result<f64> {
    let (home, tenant) = (Home::new()?, Tenant::dev());
    let node = home.start(&setup())?;
    node.push(&tenant, "bench-gpu").await?;
    node.apply(&tenant, "one", &manifest("one", 1)).await?;
    let mut client = node.connect().await?;
    ask(&mut client, &tenant, ("one", "submits 1")).await?;
    let process = device_process(node.process.id()).context("the node has no such process")?;
    kill_process(process, Signal::KILL)?;
    Ok(ask(&mut client, &tenant, ("one", "submits 1")).await?.as_secs_f64())
}

/// The process that has the device of a node.
fn device_process(node: u32) -> Option<Pid> {
    let mut all = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
        let is_it =
            parent == node.to_string() && command.split(|byte| *byte == 0).nth(1)? == b"gpu-host";
        is_it.then_some(pid)
    });
    all.next().and_then(Pid::from_raw)
}

fn of_each<E>(
    count: u32,
    mut act: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Duration, E> {
    let begun = Instant::now();
    for _ in 0..count {
        act()?;
    }
    Ok(begun.elapsed() / count)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
