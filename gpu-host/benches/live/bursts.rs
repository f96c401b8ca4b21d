//! Tenants that come and go: on partitions, in order of arrival, and shared, all on one device with
//! the same jobs; and what the simulation makes of them.

use std::time::Duration;

use super::run::{Arrival, Plan, run};
use super::simulate::fixed::{fifo, partitions};
use super::simulate::shared::{self, shared};
use super::simulate::trace::{Job, Shape, parts, trace};
use super::simulate::watch::Watch;
use super::simulate::{Fared, utilisation};
use super::ways::{Fifo, Share, Sliced, Way};
use super::{CHUNK, Effort, Failed, expect_equal, groups, kernels, settings, spread, verdict};
use sluicebox_gpu::slice::{Settings, WHOLE};

/// Virtual seconds of a trace in a real one.
const SCALE: u64 = 4;

/// Tenants of a trace.
const TENANTS: usize = 8;

/// Virtual nanoseconds. A job that has not begun after that is of no use any more.
const GIVE_UP: u64 = 1_000_000_000;

const LOAD: f64 = 0.7;

/// Parts of the time for which tenants are on, and the gains over equal partitions and over those
/// by demand that are aimed at.
const DUTIES: [(f64, [f64; 2]); 2] = [(0.5, [0.25, 0.14]), (0.25, [0.6, 0.6])];

const WAYS: [&str; 4] = ["equal partitions", "by mean demand", "order of arrival", "shared"];

/// What was seen of one way in one round.
#[derive(Debug)]
struct Seen {
    /// Parts of the span in which tenants had the device, and as the simulation has it.
    used: f64,
    simulated: f64,
    /// What the jobs that ended were long.
    done: f64,
    dropped: f64,
    kept: f64,
    /// Of each tenant, milliseconds.
    late: Vec<Option<f64>>,
}

pub(super) fn bursts(effort: Effort) -> Result<(), Failed> {
    let mut fifo = Fifo::open()?;
    let mut sliced = Sliced::open(settings(2), &[Share { part: 0.125, is_fixed: false }; TENANTS])?;
    expect_equal(&mut fifo, &mut sliced, TENANTS)?;
    for (duty, targets) in DUTIES {
        let mut rounds = Vec::new();
        for round in 0..effort.rounds {
            let jobs = jobs(round + 1, duty, effort.bursts);
            let first = round as usize % WAYS.len();
            rounds.push(one_round((&mut fifo, &mut sliced), first, &jobs, effort.bursts)?);
        }
        print(duty, targets, &rounds);
    }
    Ok(())
}

/// Jobs of a trace, made longer or shorter so that together they are the load.
fn jobs(seed: u64, duty: f64, span: Duration) -> Vec<Job> {
    let span = span.as_nanos() as u64 * SCALE;
    let mut jobs = trace(seed, Shape { tenants: TENANTS, load: LOAD, duty, span });
    let all: u64 = jobs.iter().map(Job::nanos).sum();
    let factor = LOAD * span as f64 / all as f64;
    for job in &mut jobs {
        job.groups = ((f64::from(job.groups) * factor).round() as u32).max(1);
    }
    jobs
}

/// All ways, from the `first` on.
fn one_round(
    (fifo, sliced): (&mut Fifo, &mut Sliced),
    first: usize,
    jobs: &[Job],
    span: Duration,
) -> Result<[Seen; 4], Failed> {
    let group_nanos = fifo.group_nanos()?;
    let arrivals = jobs.iter().map(|job| {
        let time = Duration::from_nanos(job.nanos() / SCALE);
        let groups = groups(&group_nanos, job.tenant, time);
        Arrival { at: Duration::from_nanos(job.at / SCALE), tenant: job.tenant, groups }
    });
    let arrivals: Vec<Arrival> = arrivals.collect();
    let (equal, demand) = (vec![1.0 / TENANTS as f64; TENANTS], parts(TENANTS));
    let all_parts = [&equal, &demand, &equal, &equal];
    let simulated = simulated(jobs, span.as_nanos() as u64 * SCALE);
    let mut seen = [const { None }; WAYS.len()];
    for at in (first..first + WAYS.len()).map(|at| at % WAYS.len()) {
        let parts = all_parts[at];
        let plan = Plan {
            parts,
            jobs: &arrivals,
            hogs: &[],
            hog_jobs: 0,
            span,
            give_up: Duration::from_nanos(GIVE_UP / SCALE),
            scale: SCALE,
        };
        let is_fixed = at < 2;
        sliced.change(
            &parts.iter().map(|part| Share { part: *part, is_fixed }).collect::<Vec<_>>(),
        )?;
        let way: &mut dyn Way = if at == 2 { fifo } else { sliced };
        let ran = run(way, &plan)?;
        let done = ran.groups.iter().enumerate();
        let done = done.map(|(tenant, done)| *done as f64 * group_nanos[kernels::of(tenant)]);
        let done = done.sum::<f64>() / span.as_nanos() as f64;
        seen[at] = Some(note(&ran.watch, span, (simulated[at], done)));
    }
    Ok(seen.map(|seen| seen.expect("each way had its turn")))
}

fn note(watch: &Watch, span: Duration, (simulated, done): (f64, f64)) -> Seen {
    let fared = watch.fared();
    let span = span.as_nanos() as u64 * SCALE;
    let late = |tenant: &Fared| Some(tenant.percentile(99)? as f64 / SCALE as f64 / 1e6);
    Seen {
        used: utilisation(&fared, span),
        simulated,
        done,
        dropped: super::simulate::dropped(&fared),
        kept: watch.guaranteed_min(),
        late: fared.iter().map(late).collect(),
    }
}

/// How much of the device the simulation has used, in each way.
fn simulated(jobs: &[Job], span: u64) -> [f64; 4] {
    let watch = shared(&shared::Plan {
        settings: Settings { chunk_time_max: CHUNK * SCALE as u32, ..settings(2) },
        weights: &[WHOLE / TENANTS as u32; TENANTS],
        jobs,
        hogs: &[],
        is_whole: false,
        noise: 0.1,
        seed: 1,
        span,
        give_up: GIVE_UP,
    });
    let ways = [
        partitions(jobs, &[1.0 / TENANTS as f64; TENANTS], span, GIVE_UP),
        partitions(jobs, &parts(TENANTS), span, GIVE_UP),
        fifo(jobs, TENANTS, span, GIVE_UP),
        watch.fared(),
    ];
    ways.map(|fared| utilisation(&fared, span))
}

fn print(duty: f64, targets: [f64; 2], rounds: &[[Seen; 4]]) {
    println!("\nbursts: load {LOAD}, on for {duty} of the time");
    println!("way                 used   done  simulated   dropped");
    for (way, name) in WAYS.into_iter().enumerate() {
        let middle = |figure: fn(&Seen) -> f64| {
            spread(&rounds.iter().map(|ways| figure(&ways[way])).collect::<Vec<_>>())[0]
        };
        let [used, done] = [middle(|seen| seen.used), middle(|seen| seen.done)];
        let [simulated, dropped] = [middle(|seen| seen.simulated), middle(|seen| seen.dropped)];
        let dropped = dropped * 100.0;
        println!("{name:<18} {used:>5.3}  {done:.3} {simulated:>10.3} {dropped:>8.1} %");
    }
    for (other, target) in targets.into_iter().enumerate() {
        let gain = |figure: fn(&Seen) -> f64| {
            let gains = rounds.iter().map(|ways| figure(&ways[3]) / figure(&ways[other]) - 1.0);
            spread(&gains.collect::<Vec<_>>()).map(|gain| gain * 100.0)
        };
        let [gained, least, most] = gain(|seen| seen.used);
        let [simulated, done] = [gain(|seen| seen.simulated)[0], gain(|seen| seen.done)[0]];
        let (target, is_met) = (target * 100.0, verdict(gained >= target * 100.0));
        print!("shared over {}: {gained:+.1} % ({least:+.1}, {most:+.1})", WAYS[other]);
        print!(" (>= {target:.0} %: {is_met})");
        println!(", by what was done {done:+.1} %, simulated {simulated:+.1} %");
    }
    let kept = rounds.iter().map(|ways| ways[3].kept).fold(1.0, f64::min);
    println!("least share kept: {:.1} % (>= 95 %: {})", kept * 100.0, verdict(kept >= 0.95));
    let slower = rounds.iter().flat_map(|ways| {
        let both = ways[3].late.iter().zip(&ways[0].late);
        both.filter_map(|(shared, own)| Some((*shared)? / (*own)?))
    });
    let slower = slower.fold(0.0, f64::max);
    println!("p99 shared by p99 on its own partition, of the tenant worst off: {slower:.2}");
}
