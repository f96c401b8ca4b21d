//! What is asked of the scheduler: tenants with bursts beside partitions, tenants that always have
//! work, and a light tenant beside a heavy one.

use std::time::Duration;

use crate::slice::{Settings, WHOLE};

use super::dice::Dice;
use super::fixed::{fifo, partitions};
use super::shared::{Plan, shared};
use super::trace::{GROUP_NANOS, Job, Shape, parts, trace};
use super::watch::Watch;
use super::{Fared, MILLI, SECOND, dropped, utilisation};

/// Tenants of a trace, all of one weight.
const TENANTS: usize = 8;

/// A job that has not begun after this long is of no use any more.
const GIVE_UP: u64 = SECOND;

/// A chunk takes up to so much of its time more or less.
const NOISE: f64 = 0.1;

/// How work is sent to the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) depth: usize,
    /// None if dispatches are not cut.
    pub(crate) chunk_micros: Option<u64>,
}

impl Sending {
    fn settings(self) -> Settings {
        let chunk_time_max = Duration::from_micros(self.chunk_micros.unwrap_or(2_000));
        Settings { depth: self.depth, chunk_time_max, ..Settings::default() }
    }
}

/// One trace on partitions, in one queue and shared.
#[derive(Debug)]
pub(crate) struct Compared {
    span: u64,
    /// Each tenant has an equal part of the device.
    pub(crate) equal: Vec<Fared>,
    /// Each has the part that its mean demand is of that of all.
    pub(crate) by_demand: Vec<Fared>,
    pub(crate) queue: Vec<Fared>,
    pub(crate) shared: Vec<Fared>,
    pub(crate) watch: Watch,
}

/// Runs one trace in all ways.
pub(crate) fn compare(seed: u64, (load, duty): (f64, f64), span: u64, how: Sending) -> Compared {
    let jobs = trace(seed, Shape { tenants: TENANTS, load, duty, span });
    let watch = shared(&Plan {
        settings: how.settings(),
        weights: &[WHOLE / TENANTS as u32; TENANTS],
        jobs: &jobs,
        hogs: &[],
        is_whole: how.chunk_micros.is_none(),
        noise: NOISE,
        seed,
        span,
        give_up: GIVE_UP,
    });
    Compared {
        span,
        equal: partitions(&jobs, &[1.0 / TENANTS as f64; TENANTS], span, GIVE_UP),
        by_demand: partitions(&jobs, &parts(TENANTS), span, GIVE_UP),
        queue: fifo(&jobs, TENANTS, span, GIVE_UP),
        shared: watch.fared(),
        watch,
    }
}

impl Compared {
    /// The part of the device that is used on equal partitions, on those by demand, in one queue,
    /// and shared.
    pub(crate) fn utilisations(&self) -> [f64; 4] {
        let all = [&self.equal, &self.by_demand, &self.queue, &self.shared];
        all.map(|fared| utilisation(fared, self.span))
    }

    /// The part of jobs that gave up on equal partitions, in one queue and shared.
    pub(crate) fn dropped(&self) -> [f64; 3] {
        [&self.equal, &self.queue, &self.shared].map(|fared| dropped(fared))
    }

    /// The 99th percentile of a tenant's latencies shared over that on its own equal partition,
    /// of the tenant for whom this is most.
    pub(crate) fn slower_max(&self) -> f64 {
        let both = self.shared.iter().zip(&self.equal);
        let parts = both.filter_map(|(shared, own)| {
            Some(shared.percentile(99)? as f64 / own.percentile(99)? as f64)
        });
        parts.fold(0.0, f64::max)
    }

    /// The part of the time for which the device did nothing while there was work.
    pub(crate) fn idle(&self) -> f64 {
        self.watch.idle as f64 / self.span as f64
    }
}

/// Three tenants that always have work, of weights 1, 2 and 4 and jobs of 60, 5 and 1 ms: what was
/// seen, and the part of all service that each had.
pub(crate) fn three(seed: u64, span: u64, how: Sending) -> (Watch, [f64; 3]) {
    let groups = |millis: u64| (millis * MILLI / GROUP_NANOS) as u32;
    let watch = shared(&Plan {
        settings: how.settings(),
        weights: &[1, 2, 4].map(|weight| WHOLE / 7 * weight),
        jobs: &[],
        hogs: &[(0, groups(60)), (1, groups(5)), (2, groups(1))],
        is_whole: how.chunk_micros.is_none(),
        noise: NOISE,
        seed,
        span,
        give_up: GIVE_UP,
    });
    let served = [0, 1, 2].map(|tenant: usize| watch.tenants()[tenant].fared.served as f64);
    let all: f64 = served.iter().sum();
    (watch, served.map(|served| served / all))
}

/// A tenant with a job of 1 ms twenty times a second beside one of the same weight that always has
/// dispatches of 200 ms: how the light one fared, and the part of the time the device was used.
pub(crate) fn beside_a_hog(seed: u64, span: u64, how: Sending) -> (Fared, f64) {
    let mut dice = Dice::new(seed);
    let (mut at, mut jobs) = (0.0, Vec::new());
    while at < span as f64 {
        at += dice.exponential(SECOND as f64 / 20.0);
        jobs.push(Job { at: at as u64, tenant: 0, groups: (MILLI / GROUP_NANOS) as u32 });
    }
    let watch = shared(&Plan {
        settings: how.settings(),
        weights: &[WHOLE / 2; 2],
        jobs: &jobs,
        hogs: &[(1, (200 * MILLI / GROUP_NANOS) as u32)],
        is_whole: how.chunk_micros.is_none(),
        noise: NOISE,
        seed,
        span,
        give_up: GIVE_UP,
    });
    let fared = watch.fared();
    let used = utilisation(&fared, span);
    (fared[0].clone(), used)
}
