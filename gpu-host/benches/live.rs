//! What sharing a device is worth on a real one: `cargo bench -p sluicebox-gpu --bench live`.
//!
//! Sections, as arguments behind `--`: `light`, `shares`, `bursts`; all without one. `--quick` is
//! one short round of each. Which driver is loaded is for the loader's variables to say.
//!
//! - `light` is a tenant with a job of 1 ms twenty times a second beside one that always has
//!   dispatches of 200 ms, through the host and on the bare device in order of arrival.
//! - `shares` is three tenants of weights 1:2:4 that always have work, of 60, 5 and 1 ms.
//! - `bursts` is eight tenants that come and go, by the traces of the simulation: on partitions
//!   (the host's cap, and nothing lent), in order of arrival, and shared. Time runs four times as
//!   fast as there: bursts, jobs and patience are a quarter as long, pieces are not. What the
//!   simulation says of the same jobs stands beside.
//! - Jobs are as long as they should be by the device's clock just before the round; used is what
//!   that clock says while it works, done is the jobs that ended, by that length.
//! - A device on the processor needs it to itself: each piece wakes several threads, and beside
//!   other work each waits for its turn. `chrt -r 1` before the command keeps that out.
//! - What is compared takes turns within a round, on the same jobs; figures are medians of rounds.
//!
//! Targets: `light` five times better than in order of arrival; `shares` within 2 %; `bursts` at
//! a load of 0.7, on for 0.5 / 0.25 of the time: 25 / 60 % over equal partitions, 14 / 60 % over
//! those by demand, and nobody who has work below 95 % of its share.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[path = "live/bursts.rs"]
mod bursts;
#[path = "live/kernels.rs"]
mod kernels;
#[path = "live/run.rs"]
mod run;
#[path = "../src/slice/simulate.rs"]
#[expect(dead_code, reason = "others need more of it")]
mod simulate;
#[path = "live/ways.rs"]
mod ways;

use std::time::Duration;

use bursts::bursts;
use run::{Arrival, Plan, run};
use simulate::dice::Dice;
use simulate::utilisation;
use sluicebox_gpu::slice;
use sluicebox_gpu::slice::Settings;
use ways::{Fifo, PLACES, Share, Sliced, Way};

/// Whatever went wrong.
type Failed = Box<dyn std::error::Error>;

/// How long a piece should take at most.
const CHUNK: Duration = Duration::from_millis(2);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u64,
    light: Duration,
    shares: Duration,
    bursts: Duration,
}

const FULL: Effort = Effort {
    rounds: 3,
    light: Duration::from_secs(3),
    shares: Duration::from_secs(2),
    bursts: Duration::from_secs(5),
};

const QUICK: Effort = Effort {
    rounds: 1,
    light: Duration::from_secs(2),
    shares: Duration::from_secs(1),
    bursts: Duration::from_millis(1_500),
};

type Section = (&'static str, fn(Effort) -> Result<(), Failed>);

const SECTIONS: [Section; 3] = [("light", light), ("shares", shares), ("bursts", bursts)];

fn main() -> Result<(), Failed> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let effort = if is_quick { QUICK } else { FULL };
    println!("{}; {} rounds", Fifo::open()?.name(), effort.rounds);
    for (name, run) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            run(effort)?;
        }
    }
    Ok(())
}

fn settings(depth: usize) -> Settings {
    Settings { depth, chunk_time_max: CHUNK, ..Settings::default() }
}

/// The one in the middle, the least and the most.
fn spread(figures: &[f64]) -> [f64; 3] {
    let mut figures = figures.to_vec();
    figures.sort_unstable_by(f64::total_cmp);
    [figures[figures.len() / 2], figures[0], figures[figures.len() - 1]]
}

const fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

/// Groups of a tenant's kernel that take so long.
fn groups(group_nanos: &[f64], tenant: usize, time: Duration) -> u32 {
    let groups = time.as_nanos() as f64 / group_nanos[kernels::of(tenant)];
    // A grid has so many on an axis at most.
    (groups.round() as u32).clamp(1, 65_535)
}

/// What all that is compared has computed is the same, and that is something.
fn expect_equal(fifo: &mut Fifo, sliced: &mut Sliced, tenants: usize) -> Result<(), Failed> {
    for tenant in 0..tenants {
        let bare = fifo.result(kernels::of(tenant))?;
        let is_equal = sliced.result(tenant)? == bare && bare.iter().any(|byte| *byte != 0);
        if !is_equal {
            return Err(format!("what tenant {tenant} computes in pieces differs").into());
        }
    }
    Ok(())
}

fn light(effort: Effort) -> Result<(), Failed> {
    const NAMES: [&str; 3] = ["order of arrival", "2 ms", "2 ms, depth 2"];
    let shares = [Share { part: 0.5, is_fixed: false }; 2];
    let mut fifo = Fifo::open()?;
    let mut sliced = [Sliced::open(settings(1), &shares)?, Sliced::open(settings(2), &shares)?];
    for sliced in &mut sliced {
        expect_equal(&mut fifo, sliced, shares.len())?;
    }
    // Of each way and round: p50, p99, used.
    let mut seen = [const { [Vec::new(), Vec::new(), Vec::new()] }; 3];
    for round in 0..effort.rounds {
        let group_nanos = fifo.group_nanos()?;
        let jobs = now_and_then(round, effort.light, groups(&group_nanos, 0, millis(1)));
        let plan = Plan {
            parts: &[0.5; 2],
            jobs: &jobs,
            hogs: &[(1, groups(&group_nanos, 1, millis(200)))],
            hog_jobs: 2,
            span: effort.light,
            give_up: Duration::MAX,
            scale: 1,
        };
        let [one, two] = &mut sliced;
        let ways: [&mut dyn Way; 3] = [&mut fifo, one, two];
        for (way, seen) in ways.into_iter().zip(&mut seen) {
            let fared = run(way, &plan)?.watch.fared();
            let late = |percent| fared[0].percentile(percent).unwrap_or(0) as f64 / 1e6;
            let used = utilisation(&fared, plan.span.as_nanos() as u64);
            let figures = [late(50), late(99), used];
            seen.iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
        }
    }
    println!("\nlight: 1 ms twenty times a second beside dispatches of 200 ms that never end");
    println!("way                p50 ms   p99 ms (least, most)        used   times better");
    let bare = spread(&seen[0][1])[0];
    for (way, (name, seen)) in NAMES.into_iter().zip(&seen).enumerate() {
        let [[p50, ..], [p99, least, most], [used, ..]] = seen.each_ref().map(|all| spread(all));
        print!("{name:<18} {p50:>6.2} {p99:>8.2} ({least:.2}, {most:.2}) {used:>14.3}");
        let better = bare / p99;
        match way {
            0 => println!(),
            _ => println!("   {better:.1} (>= 5: {})", verdict(better >= 5.0)),
        }
    }
    Ok(())
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Jobs of the first tenant, twenty times a second.
fn now_and_then(seed: u64, span: Duration, groups: u32) -> Vec<Arrival> {
    let mut dice = Dice::new(seed);
    let (mut at, mut jobs) = (0.0, Vec::new());
    while at < span.as_secs_f64() {
        at += dice.exponential(1.0 / 20.0);
        jobs.push(Arrival { at: Duration::from_secs_f64(at), tenant: 0, groups });
    }
    jobs
}

fn shares(effort: Effort) -> Result<(), Failed> {
    let parts = [1.0, 2.0, 4.0].map(|weight| weight / 7.0);
    let shares = parts.map(|part| Share { part, is_fixed: false });
    let mut fifo = Fifo::open()?;
    let mut sliced = [Sliced::open(settings(1), &shares)?, Sliced::open(settings(2), &shares)?];
    // Of each depth and round: the error, what was kept, used, and the part of each.
    let mut seen = [const { [const { Vec::new() }; 6] }; 2];
    for _ in 0..effort.rounds {
        let group_nanos = fifo.group_nanos()?;
        let hogs = [60, 5, 1].map(millis).into_iter().enumerate();
        let hogs = hogs.map(|(tenant, time)| (tenant, groups(&group_nanos, tenant, time)));
        let hogs: Vec<(usize, u32)> = hogs.collect();
        let plan = Plan {
            parts: &parts,
            jobs: &[],
            hogs: &hogs,
            hog_jobs: PLACES,
            span: effort.shares,
            give_up: Duration::MAX,
            scale: 1,
        };
        for (way, seen) in sliced.iter_mut().zip(&mut seen) {
            let watch = run(way, &plan)?.watch;
            let served =
                watch.fared().iter().map(|tenant| tenant.served as f64).collect::<Vec<_>>();
            let all: f64 = served.iter().sum();
            let errors = served.iter().zip(parts).map(|(had, part)| (had / all / part - 1.0).abs());
            let used = all / effort.shares.as_nanos() as f64;
            let error = errors.fold(0.0, f64::max) * 100.0;
            let figures = [error, watch.guaranteed_min(), used];
            let figures = figures.into_iter().chain(served.iter().map(|had| had / all));
            seen.iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
        }
    }
    println!("\nshares: weights 1, 2, 4, jobs of 60, 5, 1 ms, always busy");
    println!(
        "depth      1/7    2/7    4/7   error (least, most)            share kept            used"
    );
    for (depth, seen) in (1..).zip(&seen) {
        let [error, [kept, ..], [used, ..], parts @ ..] = seen.each_ref().map(|all| spread(all));
        let [error, least, most] = error;
        print!("{depth:>5}   {:.4} {:.4} {:.4}", parts[0][0], parts[1][0], parts[2][0]);
        print!(" {error:>6.2} % ({least:.2}, {most:.2}) (<= 2 %: {})", verdict(error <= 2.0));
        println!(" {kept:>7.3} (>= 0.95: {}) {used:>6.3}", verdict(kept >= 0.95));
    }
    Ok(())
}
