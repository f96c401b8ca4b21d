//! What tenants submit: bursts, and jobs of very different lengths.
//!
//! To the shape published of functions in clouds (Shahrad and others 2020; Joosen and others 2023):
//! rates by Zipf's law, lengths lognormal with a heavy tail. Bursts are exponential ON and OFF
//! times, each tenant for itself.

use super::dice::Dice;
use super::{MILLI, SECOND};

/// Time of one workgroup of a job.
pub(crate) const GROUP_NANOS: u64 = 10_000;

/// Median and deviation of the logarithm of the length of a job.
const MEDIAN: f64 = 4.0 * MILLI as f64;
const SIGMA: f64 = 1.2;
/// No job is longer.
const LONGEST: f64 = 500.0 * MILLI as f64;

/// Mean length of an ON time.
const BURST: f64 = 1.5 * SECOND as f64;

/// How rates of tenants differ: the k-th has a rate of 1 / k to this power.
const ZIPF: f64 = 0.6;

/// What sort of trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) tenants: usize,
    /// Time that all jobs take on the whole device, over the span.
    pub(crate) load: f64,
    /// Part of the time in which a tenant is ON.
    pub(crate) duty: f64,
    pub(crate) span: u64,
}

/// One dispatch that a tenant submits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) at: u64,
    pub(crate) tenant: usize,
    pub(crate) groups: u32,
}

impl Job {
    /// Its time on the whole device.
    pub(crate) fn nanos(&self) -> u64 {
        u64::from(self.groups) * GROUP_NANOS
    }
}

/// Parts of the load that each tenant has on average; 1 together.
pub(crate) fn parts(tenants: usize) -> Vec<f64> {
    let rates: Vec<f64> = (1..=tenants).map(|rank| (rank as f64).powf(-ZIPF)).collect();
    let sum: f64 = rates.iter().sum();
    rates.into_iter().map(|rate| rate / sum).collect()
}

/// All jobs in the order of their arrival.
pub(crate) fn trace(seed: u64, shape: Shape) -> Vec<Job> {
    let mut dice = Dice::new(seed);
    let mean = mean_length();
    let mut jobs = Vec::new();
    for (tenant, part) in parts(shape.tenants).into_iter().enumerate() {
        // Between two jobs while it is ON.
        let pause = mean * shape.duty / (part * shape.load);
        tenant_jobs(&mut dice, shape, pause, |dice, at| {
            jobs.push(Job { at, tenant, groups: groups(dice) });
        });
    }
    jobs.sort_unstable();
    jobs
}

fn tenant_jobs(dice: &mut Dice, shape: Shape, pause: f64, mut job: impl FnMut(&mut Dice, u64)) {
    let off = BURST * (1.0 - shape.duty) / shape.duty;
    let span = shape.span as f64;
    // It is as probable that it is ON first as at any other time.
    let mut begin = if dice.even() <= shape.duty { 0.0 } else { dice.exponential(off) };
    while begin < span {
        let is_steady = off == 0.0;
        let end = if is_steady { span } else { (begin + dice.exponential(BURST)).min(span) };
        let mut at = begin + dice.exponential(pause);
        while at < end {
            job(dice, at as u64);
            at += dice.exponential(pause);
        }
        begin = if is_steady { span } else { end + dice.exponential(off) };
    }
}

fn groups(dice: &mut Dice) -> u32 {
    let nanos = dice.lognormal(MEDIAN, SIGMA).min(LONGEST);
    (nanos / GROUP_NANOS as f64).ceil() as u32
}

/// The mean of what `groups` gives: those that are cut off make it less than the formula.
fn mean_length() -> f64 {
    const DRAWS: u64 = 100_000;
    let mut dice = Dice::new(0);
    let sum: u64 = (0..DRAWS).map(|_| u64::from(groups(&mut dice)) * GROUP_NANOS).sum();
    sum as f64 / DRAWS as f64
}
