//! What an onlooker sees of a shared device: who had what, and how far from its due.
//!
//! A tenant is busy while something of it waits. What is on the device counts as well if one
//! chunk at a time is there: else a tenant that never has more than that asks for less than its
//! share.

use super::{Fared, SECOND};

/// Service of tenants is looked at in windows of this length.
const WINDOW: u64 = SECOND;

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    tenants: Vec<Seen>,
    /// For each two tenants.
    pairs: Vec<Vec<Pair>>,
    /// Chunks that are over.
    pub(crate) chunks: u64,
    /// Nanoseconds in which the device did nothing and somebody had something to do.
    pub(crate) idle: u64,
    any_busy_since: u64,
}

/// What is seen of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) weight: f64,
    pub(crate) fared: Fared,
    /// The longest a chunk was expected to take, the most one took longer than that, and the
    /// longest one took.
    pub(crate) expected_max: u64,
    pub(crate) overshot_max: u64,
    pub(crate) took_max: u64,
    /// For each time it began to have something to do: how long it waited for its first chunk,
    /// and how many others had something to do meanwhile.
    pub(crate) waits: Vec<(u64, usize)>,
    jobs: usize,
    busy_since: Option<u64>,
    windows: Vec<Window>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    busy: u64,
    served: u64,
}

/// Service of one tenant less that of another by their weights, since both had something to do.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    now: f64,
    least: f64,
    most: f64,
    worst: f64,
}

impl Watch {
    /// Weights are parts of the device.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let tenants = weights.iter().map(|weight| Seen { weight: *weight, ..Seen::default() });
        let pairs = vec![vec![Pair::default(); weights.len()]; weights.len()];
        Self { tenants: tenants.collect(), pairs, chunks: 0, idle: 0, any_busy_since: 0 }
    }

    pub(crate) fn tenants(&self) -> &[Seen] {
        &self.tenants
    }

    /// Tenants that have something to do.
    pub(crate) fn busy(&self) -> usize {
        self.tenants.iter().filter(|tenant| tenant.jobs > 0).count()
    }

    /// A job has come.
    pub(crate) fn came(&mut self, tenant: usize, at: u64) {
        if self.busy() == 0 {
            self.any_busy_since = at;
        }
        self.tenants[tenant].jobs += 1;
        if self.tenants[tenant].jobs > 1 {
            return;
        }
        self.tenants[tenant].busy_since = Some(at);
        for other in 0..self.tenants.len() {
            for (one, other) in [(tenant, other), (other, tenant)] {
                let pair = &mut self.pairs[one][other];
                *pair = Pair { worst: pair.worst, ..Pair::default() };
            }
        }
    }

    /// A job has gone, done or not.
    pub(crate) fn went(&mut self, tenant: usize, at: u64) {
        let seen = &mut self.tenants[tenant];
        seen.jobs -= 1;
        if let Some(since) = seen.busy_since.filter(|_| seen.jobs == 0) {
            seen.busy_since = None;
            seen.spread(since, at, |window| &mut window.busy);
        }
    }

    /// A chunk is over that was expected to take so long.
    pub(crate) fn took(&mut self, tenant: usize, (begin, end): (u64, u64), expected: u64) {
        let took = end - begin;
        self.chunks += 1;
        let seen = &mut self.tenants[tenant];
        seen.fared.served += took;
        seen.expected_max = seen.expected_max.max(expected);
        seen.overshot_max = seen.overshot_max.max(took.saturating_sub(expected));
        seen.took_max = seen.took_max.max(took);
        seen.spread(begin, end, |window| &mut window.served);
        let due = took as f64 / seen.weight;
        for other in 0..self.tenants.len() {
            if other != tenant && self.tenants[other].jobs > 0 {
                self.pairs[tenant][other].add(due);
                self.pairs[other][tenant].add(-due);
            }
        }
    }

    /// A chunk begins on a device that was done with all before it at `free_at`.
    pub(crate) fn begins(&mut self, at: u64, free_at: u64) {
        self.idle += at - free_at.max(self.any_busy_since);
    }

    pub(crate) fn waited(&mut self, tenant: usize, nanos: u64, others: usize) {
        self.tenants[tenant].waits.push((nanos, others));
    }

    pub(crate) fn left(&mut self, tenant: usize) -> &mut Fared {
        &mut self.tenants[tenant].fared
    }

    /// It is over now.
    pub(crate) fn end(&mut self, at: u64) {
        for seen in &mut self.tenants {
            if let Some(since) = seen.busy_since.take() {
                seen.spread(since, at, |window| &mut window.busy);
            }
            seen.fared.latencies.sort_unstable();
        }
    }

    pub(crate) fn fared(&self) -> Vec<Fared> {
        self.tenants.iter().map(|seen| seen.fared.clone()).collect()
    }

    /// How far apart two tenants ever were while both had something to do: nanoseconds of the
    /// device over their parts of it.
    pub(crate) fn apart(&self, one: usize, other: usize) -> f64 {
        self.pairs[one][other].worst
    }

    /// The furthest any two were apart.
    pub(crate) fn apart_max(&self) -> f64 {
        self.pairs.iter().flatten().fold(0.0, |most, pair| pair.worst.max(most))
    }

    /// The least part of its guaranteed share that a tenant had in any window in which it had
    /// something to do all the time; 1 if there was no such window.
    pub(crate) fn guaranteed_min(&self) -> f64 {
        let least = |seen: &Seen| {
            let whole = seen.windows.iter().filter(|window| window.busy == WINDOW);
            let parts = whole.map(|window| window.served as f64 / WINDOW as f64 / seen.weight);
            parts.fold(1.0, f64::min)
        };
        self.tenants.iter().map(least).fold(1.0, f64::min)
    }
}

impl Seen {
    /// Adds a span of time to the windows it lies in.
    fn spread(&mut self, begin: u64, end: u64, field: impl Fn(&mut Window) -> &mut u64) {
        let mut at = begin;
        while at < end {
            let window = (at / WINDOW) as usize;
            let until = end.min((window as u64 + 1) * WINDOW);
            if self.windows.len() <= window {
                self.windows.resize(window + 1, Window::default());
            }
            *field(&mut self.windows[window]) += until - at;
            at = until;
        }
    }
}

impl Pair {
    fn add(&mut self, due: f64) {
        self.now += due;
        self.least = self.least.min(self.now);
        self.most = self.most.max(self.now);
        self.worst = self.worst.max(self.most - self.least);
    }
}
