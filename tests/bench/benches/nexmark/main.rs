//! The queries of Nexmark on one core, exactly-once, with all results read and checked.
//!
//! - The node has one core, the load generator the other. Events are made in the load generator's
//!   process as they are sent, packed, over loopback.
//! - Each query is run on a node of its own: a first part that warms it up and says how many events
//!   ten seconds take, then five rounds of so many, of which the middle one is shown. The clock
//!   runs from the first event sent to the last result read.
//! - What came out is held against the model of `sluicebox_nexmark`. Query 12 is left out: its
//!   results come by the clock, so that there is no moment at which the last one is due.
//!
//! The figures beside it are those published for Flink, by core, of the older and the newer guide
//! of its own benchmark; where there is one, both are the same. They are of other machines, larger
//! clusters and, in one respect, a lighter task: their source makes rows in the process of the
//! query, ours are taken from the network and are on disk before they are acknowledged.

mod drive;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicebox_bench::cores::{self, Core};
use sluicebox_bench::node::{Home, Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::process::Spent;
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;

use drive::Drive;

/// The component of all queries.
const GUEST: &str = "nexmark-queries";
/// Events a second of event time: windows of ten seconds have a million events.
const EVENT_RATE: u64 = 100_000;
/// Events of the part that does not count.
const WARM_UP: u64 = 400_000;
/// A spread above this is shown.
const SPREAD: f64 = 0.05;
/// What is aimed for beyond the target.
const AIM: f64 = 3.0;

/// A query, and what Flink does: events a second and core, by the older and the newer guide.
struct Query {
    name: &'static str,
    published: [f64; 2],
}

const QUERIES: [Query; 9] = [
    Query { name: "q0", published: [155e3, 378e3] },
    Query { name: "q1", published: [158e3, 158e3] },
    Query { name: "q2", published: [175e3, 175e3] },
    Query { name: "q3", published: [152e3, 152e3] },
    Query { name: "q4", published: [34e3, 34e3] },
    Query { name: "q5", published: [22e3, 74e3] },
    Query { name: "q7", published: [12.3e3, 23e3] },
    Query { name: "q8", published: [146e3, 162e3] },
    Query { name: "q11", published: [40e3, 46e3] },
];

fn main() -> ExitCode {
    sluicebox_bench::end(bench())
}

fn bench() -> Result<()> {
    let Some(options) = Options::read()? else { return Ok(()) };
    // `q1` is to mean that one, not those whose names begin so.
    let wanted = |query: &&Query| {
        options.only.is_empty() || options.only.iter().any(|only| only == query.name)
    };
    let chosen: Vec<&Query> = QUERIES.iter().filter(wanted).collect();
    anyhow::ensure!(!chosen.is_empty(), "the queries are q0 to q5, q7, q8 and q11");
    let mut report = Report::new("Nexmark, exactly-once: events, one server core");
    for query in chosen {
        let home = Home::new()?;
        let node = home.start(&Setup::one_core())?;
        let seen = cores::on(Core::Client, || {
            let done = runtime()?.block_on(measure(query, &node, &options));
            done.with_context(|| format!("the node's log ends with:\n{}", node.log()))
        });
        seen.with_context(|| query.name)?.show(query, &mut report);
    }
    Ok(())
}

/// What is seen of a query.
#[derive(Default)]
struct Seen {
    rate: Rounds,
    log_bytes: Rounds,
    events: u64,
    results: usize,
    notes: String,
}

async fn measure(query: &Query, node: &Node, options: &Options) -> Result<Seen> {
    let tenant = Tenant::dev();
    node.push(&tenant, GUEST).await?;
    let warm = Drive::new(query.name, 0, WARM_UP)?.run(node, &tenant).await?;
    let (rounds, time) =
        if options.quick { (1, Duration::from_secs(1)) } else { (5, Duration::from_secs(10)) };
    let events = (WARM_UP as f64 / warm.as_secs_f64() * time.as_secs_f64()) as u64;
    let mut seen = Seen { events, ..Seen::default() };
    for round in 1..=rounds {
        let drive = Drive::new(query.name, round, events)?;
        let before = log_bytes(node).await?;
        let spent = Spent::since_now(&node.process)?;
        let elapsed = drive.run(node, &tenant).await?;
        seen.notes = spent.for_each(events, "an event")?;
        seen.rate.add(events as f64 / elapsed.as_secs_f64());
        seen.log_bytes.add((log_bytes(node).await? - before) / events as f64);
        seen.results = drive.results();
    }
    Ok(seen)
}

/// Bytes that the log has written.
async fn log_bytes(node: &Node) -> Result<f64> {
    node.figure("sluicebox_log_written_bytes_total").await
}

impl Seen {
    fn show(&self, query: &Query, report: &mut Report) {
        let [older, newer] = query.published;
        let rate = self.rate.median();
        report.row(query.name, rate, "/s", Target::AtLeast(newer));
        if self.rate.spread() > SPREAD {
            let (least, most) = (self.rate.quantile(0.0), self.rate.quantile(1.0));
            report.note(&format!("rounds from {} to {}", number(least), number(most)));
        }
        let aim = if rate >= AIM * newer { "reached" } else { "not reached" };
        report.note(&format!(
            "Flink {} and {}: {} and {} times; the aim of {AIM} times {aim}",
            number(older),
            number(newer),
            number(rate / older),
            number(rate / newer)
        ));
        report.note(&format!(
            "{} events, {} results; log bytes an event {}; {}",
            number(self.events as f64),
            number(self.results as f64),
            number(self.log_bytes.median()),
            self.notes
        ));
    }
}
