//! What a tenant notices of others that take all they can get.
//!
//! One core, one worker. The victim asks for results at a modest pace. Beside it run hogs, each a
//! tenant of its own with a token of its own: guests that spin, take all memory, emit without end
//! or log without end, and whoever feeds them sends more as soon as there is room. The target is
//! twice the victim's own 99th percentile, or its fair share if that is larger: one slice for each
//! hog, then the victim.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::client::{Client, with_body};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::events;
use sluicebox_bench::load::{Answers, Asking, open_loop};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COPY, Chain};
use sluicebox_bench::report::Report;
use sluicebox_bench::runtime;

/// The guests of hogs, and what they take.
const KINDS: [(&str, &str); 4] = [
    ("hostile/spin", "CPU"),
    ("hostile/grow-one", "memory"),
    ("hostile/emit-many", "output"),
    ("hostile/log-flood", "log"),
];

/// The longest a guest runs before others do.
const SLICE: Duration = Duration::from_millis(1);

/// Requests of the victim in a second, and its connections.
const RATE: f64 = 200.0;
const CONNECTIONS: usize = 8;

/// How long a hog's feeder rests between two requests.
const REST: Duration = Duration::from_millis(50);

/// Events in a request of a hog.
const EVENTS: usize = 64;

/// Some hogs beside the victim.
struct Case {
    name: String,
    /// Indices into `KINDS`, one for each hog.
    hogs: Vec<usize>,
}

fn cases(options: &Options) -> Vec<Case> {
    let mixed = |count: usize| Case {
        name: format!("{count} hogs of all kinds"),
        hogs: (0..count).map(|at| at % KINDS.len()).collect(),
    };
    let one = |(at, kind): (usize, &(&str, &str))| Case {
        name: format!("1 hog: {}", kind.1),
        hogs: vec![at],
    };
    let mut cases: Vec<Case> = KINDS.iter().enumerate().map(one).collect();
    cases.push(mixed(10));
    if !options.quick {
        cases.push(mixed(100));
    }
    cases.retain(|case| options.wants(&case.name));
    cases
}

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    let runtime = runtime()?;
    cores::bind(Core::Client)?;
    let time = options.time(Duration::from_secs(5), Duration::from_millis(800));
    let alone = Case { name: "alone".to_owned(), hogs: Vec::new() };
    let mut report = Report::new("A victim's time to its result beside hogs, one core");
    let base = runtime.block_on(run(&alone, time))?.latency;
    report.micros("alone, p50", base.quantile(0.5), None);
    report.micros("alone, p99", base.quantile(0.99), None);
    for case in cases(&options) {
        let latency = runtime.block_on(run(&case, time))?.latency;
        let hogs = u32::try_from(case.hogs.len()).unwrap_or(u32::MAX);
        let share = base.quantile(0.99) + SLICE * hogs;
        let target = share.max(base.quantile(0.99) * 2);
        report.micros(&format!("{}, p50", case.name), latency.quantile(0.5), None);
        report.micros(&format!("{}, p99", case.name), latency.quantile(0.99), Some(target));
        report.note(&format!("{} requests, the longest {:?}", latency.len(), latency.most()));
    }
    Ok(())
}

/// A node of its own for each case, so that no hog works off what an earlier case left.
async fn run(case: &Case, time: Duration) -> Result<Answers> {
    let home = Home::new()?;
    let victim = Tenant::new("victim", &home.add_tenant("victim")?);
    let mut hogs = Vec::new();
    for (at, kind) in case.hogs.iter().enumerate() {
        let name = format!("hog-{at:03}");
        hogs.push((Tenant::new(&name, &home.add_tenant(&name)?), KINDS[*kind].0));
    }
    let node = home.start(&Setup { tenants: true, ..Setup::one_core() })?;
    let done = measure(&node, &victim, &hogs, time).await;
    done.with_context(|| format!("{}; the node's log ends with:\n{}", case.name, node.log()))
}

async fn measure(
    node: &Node,
    victim: &Tenant,
    hogs: &[(Tenant, &str)],
    time: Duration,
) -> Result<Answers> {
    node.push(victim, COPY).await?;
    let chain = Chain { name: "work", stages: &[COPY], output: "reply", ..Chain::default() };
    node.apply(victim, chain.name, &chain.manifest()).await?;
    for (tenant, guest) in hogs {
        node.push(tenant, guest).await?;
        let component = guest.rsplit('/').next().unwrap_or(guest);
        let chain = Chain { name: "hog", stages: &[component], ..Chain::default() };
        node.apply(tenant, chain.name, &chain.manifest()).await?;
    }
    let feeding = sluicebox_bench::load::all(hogs.iter().map(|(tenant, _)| feed(node, tenant)));
    let mut headers = victim.headers();
    headers.push(("sluicebox-key", "key"));
    let path = victim.path("pipelines/work/events?wait=30s");
    let body = [b'x'; events::PAYLOAD_BYTES];
    let mut asking = Asking {
        address: node.address,
        requests: vec![with_body("POST", &path, &headers, &body)],
        status: 200,
        connections: CONNECTIONS,
        time: time / 4,
    };
    let asked = async {
        // First without a look at the clock: instances get warm, hogs get going.
        open_loop(&asking, RATE).await?;
        asking.time = time;
        open_loop(&asking, RATE).await
    };
    tokio::select! {
        // The measurement ends it; a feeder only ends by failing.
        biased;
        answers = asked => answers,
        fed = feeding, if !hogs.is_empty() => {
            fed?;
            anyhow::bail!("a hog's feeder ended")
        }
    }
}

/// Sends a hog its events for as long as anybody waits for this.
async fn feed(node: &Node, tenant: &Tenant) -> Result<()> {
    let mut headers = tenant.headers();
    headers.push(("content-type", "application/vnd.sluicebox.frame"));
    let batch = events::frames(EVENTS, 0);
    let path = tenant.path("pipelines/hog/events");
    let request = with_body("POST", &path, &headers, &batch.body);
    let mut client = Client::connect(node.address).await?;
    loop {
        let reply = client.ask(&request).await?;
        if !matches!(reply.status, 202 | 429 | 503) {
            return Err(reply.unexpected().into());
        }
        tokio::time::sleep(REST).await;
    }
}
