//! What the dashboard costs: time to the first useful picture, and what viewers take of the node.
//!
//! Figures, not promises: they are taken when asked for, on a release build, and stand in
//! `docs/bench`.

use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use sluicebox_tests::browser::Browser;
use sluicebox_tests::node::Setup;

use super::{at, say, with_words};

const VIEWERS: usize = 5;
const RUNS: usize = 5;

/// How long viewers look.
const LOOK: Duration = Duration::from_secs(30);

/// Processor time of a process so far.
fn used(process: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    let stat = stat.expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    // Behind the name: the 12th and 13th are ticks in programs and in the kernel.
    let ticks: u64 = fields[11..13].iter().map(|text| text.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}

/// The share of a core that a process takes while something else goes on.
async fn share(process: Pid, load: &impl AsyncFn()) -> f64 {
    let (before, began) = (used(process), Instant::now());
    while began.elapsed() < LOOK {
        load().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (used(process) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "figures: cargo test -p sluicebox-tests --release --test dashboard -- --ignored --nocapture"]
async fn what_it_costs() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let process = node.process().expect("it runs");
    let load = async || say(&client, "to be or not to be").await;
    let alone = share(process, &load).await;

    let browser = Browser::start().await;
    browser.size(1280, 900).await;
    let mut paints = Vec::new();
    for _ in 0..RUNS {
        browser.go("about:blank").await;
        browser.go(&at(&node, "#/p/word-count")).await;
        let useful = browser.until("performance.getEntriesByName('useful')[0]?.startTime").await;
        let first = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        let first = browser.until(first).await;
        let bytes = "return performance.getEntriesByType('resource').reduce((sum, one) => sum + \
                     one.transferSize, 0)";
        let bytes = browser.run(bytes, &[]).await;
        paints.push((useful.as_f64(), first.as_f64(), bytes.as_u64()));
    }
    eprintln!("useful, first contentful paint in ms, bytes sent: {paints:?}");

    for _ in 1..VIEWERS {
        browser.another().await;
        browser.size(1280, 900).await;
        browser.go(&at(&node, "#/p/word-count")).await;
        browser.shows("Acknowledged in").await;
    }
    let looked = share(process, &load).await;
    let hidden = browser.run("return document.hidden", &[]).await;
    eprintln!("node, share of a core: alone {alone:.4}, with {VIEWERS} viewers {looked:.4}");
    eprintln!("the last is hidden: {hidden}");
}
