//! Tenants at a real device: jobs come when their time has come, wait, and are seen to end.
//!
//! - A tenant waits with what the device does not take, and gives a job up that it could not even
//!   hand over in time.
//! - Only what lies inside the span counts: of what goes on at its end the part before it.
//! - The onlooker is that of the simulation, and its time: a second of it is a part of a real one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Failed;
use super::simulate::watch::Watch;
use super::ways::{Happened, Way};

/// A job, in real time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    pub(crate) tenant: usize,
    pub(crate) groups: u32,
}

/// What happens.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Guaranteed parts of the device.
    pub(crate) parts: &'a [f64],
    /// In their order.
    pub(crate) jobs: &'a [Arrival],
    /// Tenants that always have some jobs, and of how many groups.
    pub(crate) hogs: &'a [(usize, u32)],
    /// How many jobs they have.
    pub(crate) hog_jobs: usize,
    pub(crate) span: Duration,
    pub(crate) give_up: Duration,
    /// So many seconds of the onlooker are a real one.
    pub(crate) scale: u64,
}

#[derive(Debug)]
struct Waiting {
    came: Duration,
    tenant: usize,
    groups: u32,
    is_hog: bool,
}

struct World<'a> {
    plan: &'a Plan<'a>,
    began: Instant,
    jobs: VecDeque<Arrival>,
    queues: Vec<VecDeque<Waiting>>,
    flights: BTreeMap<u64, Waiting>,
    watch: Watch,
    groups: Vec<u64>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) watch: Watch,
    /// Of jobs that have ended, by tenant.
    pub(crate) groups: Vec<u64>,
}

/// Has it happen, and says what was seen.
pub(crate) fn run(way: &mut dyn Way, plan: &Plan<'_>) -> Result<Ran, Failed> {
    let mut world = World {
        plan,
        began: Instant::now(),
        jobs: plan.jobs.iter().copied().collect(),
        queues: plan.parts.iter().map(|_| VecDeque::new()).collect(),
        flights: BTreeMap::new(),
        watch: Watch::new(plan.parts),
        groups: vec![0; plan.parts.len()],
    };
    for (tenant, groups) in plan.hogs.iter().copied() {
        for _ in 0..plan.hog_jobs {
            let came = Duration::ZERO;
            world.come(way, Waiting { came, tenant, groups, is_hog: true });
        }
    }
    while world.step(way)? {}
    let mut happened = Vec::new();
    way.clear(&mut happened)?;
    happened.retain(|what| matches!(what, Happened::Took(..)));
    world.note(way, happened);
    world.watch.end(world.virtual_time(plan.span));
    Ok(Ran { watch: world.watch, groups: world.groups })
}

impl World<'_> {
    fn virtual_time(&self, time: Duration) -> u64 {
        time.as_nanos() as u64 * self.plan.scale
    }

    /// Goes on until something happens; false if it is too late.
    fn step(&mut self, way: &mut dyn Way) -> Result<bool, Failed> {
        let now = self.began.elapsed();
        if now >= self.plan.span {
            return Ok(false);
        }
        while let Some(Arrival { at, tenant, groups }) = self.jobs.pop_front_if(|job| job.at <= now)
        {
            self.come(way, Waiting { came: at, tenant, groups, is_hog: false });
        }
        self.begin(way, now)?;
        let next = self.jobs.front().map_or(self.plan.span, |job| job.at.min(self.plan.span));
        let mut happened = Vec::new();
        way.go(next.saturating_sub(self.began.elapsed()), &mut happened)?;
        self.note(way, happened);
        Ok(true)
    }

    fn come(&mut self, way: &dyn Way, job: Waiting) {
        self.watch.came(job.tenant, self.virtual_time(job.came));
        self.queues[way.lane(job.tenant)].push_back(job);
    }

    /// Hands over what is taken, and gives up what is of no use any more.
    fn begin(&mut self, way: &mut dyn Way, now: Duration) -> Result<(), Failed> {
        for lane in 0..self.queues.len() {
            while way.has_place(lane)
                && let Some(job) = self.queues[lane].pop_front()
            {
                if !job.is_hog && now > job.came.saturating_add(self.plan.give_up) {
                    self.watch.left(job.tenant).dropped += 1;
                    self.watch.went(job.tenant, self.virtual_time(now));
                    continue;
                }
                let name = way.begin(job.tenant, job.groups)?;
                self.flights.insert(name, job);
            }
        }
        Ok(())
    }

    fn note(&mut self, way: &dyn Way, happened: Vec<Happened>) {
        let now = self.began.elapsed();
        let end = self.virtual_time(now.min(self.plan.span));
        for what in happened {
            match what {
                Happened::Took(tenant, nanos) => {
                    // What lies behind the span is not in it.
                    let begin = self.virtual_time(now).saturating_sub(nanos * self.plan.scale);
                    if begin < end {
                        self.watch.took(tenant, (begin, end), end - begin);
                    }
                }
                Happened::Ended(name) => {
                    let Some(job) = self.flights.remove(&name) else { continue };
                    self.watch.went(job.tenant, end);
                    self.groups[job.tenant] += u64::from(job.groups);
                    if job.is_hog {
                        self.come(way, Waiting { came: now, ..job });
                    } else {
                        let latency = self.virtual_time(now.saturating_sub(job.came));
                        self.watch.left(job.tenant).latencies.push(latency);
                    }
                }
            }
        }
    }
}
