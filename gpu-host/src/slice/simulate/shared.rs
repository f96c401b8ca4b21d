//! A device that tenants share through the scheduler: events in the order of virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::slice::{
    Chunk, Dispatch, Next, Refused, Settings, Slicer, Stage, StageTerms, Tenant, Terms, WHOLE, Work,
};

use super::GAP_NANOS;
use super::dice::Dice;
use super::trace::{GROUP_NANOS, Job};
use super::watch::Watch;

/// What happens on the device.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) settings: Settings,
    /// Of each tenant, at most [`WHOLE`] together.
    pub(crate) weights: &'a [u32],
    pub(crate) jobs: &'a [Job],
    /// Tenants that always have two dispatches of so many groups.
    pub(crate) hogs: &'a [(usize, u32)],
    /// No job is cut.
    pub(crate) is_whole: bool,
    /// A chunk takes up to so much of its time more or less.
    pub(crate) noise: f64,
    pub(crate) seed: u64,
    pub(crate) span: u64,
    /// A job that has not begun after this long is dropped.
    pub(crate) give_up: u64,
}

/// Dispatches of a hog at any time: so that it has one when the other ends.
const HOG_DISPATCHES: usize = 2;

/// See the module.
struct World<'a> {
    plan: &'a Plan<'a>,
    slicer: Slicer,
    now: u64,
    /// Chunks on the device in their order, with their begin and end.
    device: VecDeque<(Chunk, u64, u64)>,
    /// When the device is done with all of them.
    free_at: u64,
    jobs: VecDeque<Job>,
    /// What was submitted and is not over.
    pending: BTreeMap<Dispatch, Pending>,
    /// Who drops what, by time.
    deadlines: VecDeque<(u64, Dispatch)>,
    /// Of tenants that wait for their first chunk: since when, and how many others there were.
    waiting: Vec<Option<(u64, usize)>>,
    dice: Dice,
    watch: Watch,
}

#[derive(Debug)]
struct Pending {
    tenant: usize,
    came_at: u64,
    has_begun: bool,
    /// Groups that were not sent.
    left: u64,
    /// Of a hog: what comes after it.
    again: Option<u32>,
}

/// Runs a plan and says what was seen.
pub(crate) fn shared(plan: &Plan<'_>) -> Watch {
    let mut world = World::new(plan);
    for (tenant, groups) in plan.hogs {
        (0..HOG_DISPATCHES).for_each(|_| world.submit(*tenant, *groups, Some(*groups)));
    }
    while world.step() {}
    world.watch.end(plan.span);
    world.watch
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan<'a>) -> Self {
        let mut slicer = Slicer::new(plan.settings.clone());
        for (tenant, weight) in plan.weights.iter().enumerate() {
            let terms = Terms { weight: *weight, cap: None };
            let opened = slicer.open(Duration::ZERO, Tenant(tenant as u64), terms);
            assert_eq!(opened, Ok(()), "weights are no more than the device");
            let terms = StageTerms { weight: 1, dispatches_max: usize::MAX };
            assert_eq!(slicer.open_stage(stage(tenant), terms), Ok(()), "it is new");
        }
        let weights = plan.weights.iter().map(|weight| f64::from(*weight) / f64::from(WHOLE));
        Self {
            plan,
            slicer,
            now: 0,
            device: VecDeque::new(),
            free_at: 0,
            jobs: plan.jobs.iter().copied().collect(),
            pending: BTreeMap::new(),
            deadlines: VecDeque::new(),
            waiting: vec![None; plan.weights.len()],
            dice: Dice::new(plan.seed),
            watch: Watch::new(&weights.collect::<Vec<_>>()),
        }
    }

    /// Goes on to the next moment at which something happens; false if it is too late.
    fn step(&mut self) -> bool {
        while let Next::Chunk(chunk) = self.slicer.next(Duration::from_nanos(self.now)) {
            self.begin(chunk);
        }
        let moments = [
            self.jobs.front().map(|job| job.at),
            self.device.front().map(|(_, _, end)| *end),
            self.deadlines.front().map(|(at, _)| *at),
        ];
        let next = moments.into_iter().flatten().min();
        let Some(now) = next.filter(|at| *at <= self.plan.span) else { return false };
        self.now = now;
        while let Some((chunk, begin, end)) = self.device.pop_front_if(|(_, _, end)| *end <= now) {
            self.complete(&chunk, (begin, end));
        }
        while let Some(job) = self.jobs.pop_front_if(|job| job.at <= now) {
            self.submit(job.tenant, job.groups, None);
        }
        while let Some((_, dispatch)) = self.deadlines.pop_front_if(|(at, _)| *at <= now) {
            self.give_up(dispatch);
        }
        true
    }

    fn submit(&mut self, tenant: usize, groups: u32, again: Option<u32>) {
        let kernel = [tenant as u8; 32];
        let (grid, is_whole) = ([groups, 1, 1], self.plan.is_whole);
        let work = Work { kernel, grid, is_whole, chunk_groups_max: u64::MAX };
        let submitted = self.slicer.submit(stage(tenant), work);
        let dispatch = submitted.expect("the stage is there, its queue long and the grid small");
        if self.pending.values().all(|pending| pending.tenant != tenant) {
            self.waiting[tenant] = Some((self.now, self.watch.busy()));
        }
        self.watch.came(tenant, self.now);
        let pending =
            Pending { tenant, came_at: self.now, has_begun: false, left: groups.into(), again };
        self.pending.insert(dispatch, pending);
        if again.is_none() {
            self.deadlines.push_back((self.now.saturating_add(self.plan.give_up), dispatch));
        }
    }

    fn begin(&mut self, chunk: Chunk) {
        let begin = self.free_at.max(self.now + GAP_NANOS);
        let groups: u64 = chunk.groups.iter().map(|axis| u64::from(*axis)).product();
        let noise = 1.0 + self.plan.noise * (2.0 * self.dice.even() - 1.0);
        let took = (groups * GROUP_NANOS) as f64 * noise;
        self.watch.begins(begin, self.free_at);
        self.free_at = begin + took as u64;
        self.device.push_back((chunk, begin, self.free_at));
        let Some(pending) = self.pending.get_mut(&chunk.dispatch) else { return };
        pending.has_begun = true;
        pending.left -= groups;
        if pending.left == 0 && self.plan.settings.depth > 1 {
            self.watch.went(pending.tenant, self.now);
        }
        if let Some((since, others)) = self.waiting[pending.tenant].take() {
            self.watch.waited(pending.tenant, begin - since, others);
        }
    }

    fn complete(&mut self, chunk: &Chunk, (begin, end): (u64, u64)) {
        let took = Duration::from_nanos(end - begin);
        let completed = self.slicer.complete(chunk.id, took, true);
        let completed = completed.expect("it was given out and not completed");
        let tenant = completed.dispatch.stage().tenant.0 as usize;
        self.watch.took(tenant, (begin, end), chunk.expected.as_nanos() as u64);
        if completed.over.is_none() {
            return;
        }
        let Some(pending) = self.pending.remove(&completed.dispatch) else { return };
        if let Some(groups) = pending.again {
            self.submit(tenant, groups, pending.again);
        } else {
            self.watch.left(tenant).latencies.push(end - pending.came_at);
        }
        if self.plan.settings.depth == 1 {
            self.watch.went(tenant, self.now);
        }
    }

    fn give_up(&mut self, dispatch: Dispatch) {
        let Some(pending) = self.pending.get(&dispatch).filter(|job| !job.has_begun) else {
            return;
        };
        let tenant = pending.tenant;
        self.watch.left(tenant).dropped += 1;
        self.watch.went(tenant, self.now);
        self.pending.remove(&dispatch);
        let cancelled: Result<_, Refused> = self.slicer.cancel(dispatch);
        assert_eq!(cancelled, Ok(Vec::new()), "it has not begun");
        if self.pending.values().all(|pending| pending.tenant != tenant) {
            self.waiting[tenant] = None;
        }
    }
}

const fn stage(tenant: usize) -> Stage {
    Stage { tenant: Tenant(tenant as u64), number: 0 }
}
