//! How jobs get to the device: through the host, which cuts them into slices, or as they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_gpu::device::{Device, End, Loaded, Run, Span, Step, Ticket};
use sluicebox_gpu::host::{
    Binding, Event, Host, Op, Order, Owner, Settings, TenantLimits, TenantTerms, Verdict,
};
use sluicebox_gpu::kernel::{Kernel, KernelLimits};
use sluicebox_gpu::slice::{Cap, Stage, Tenant};
use sluicebox_gpu::vulkan::{Options, Vulkan};
use sluicebox_gpu::{host, slice};

use super::Failed;
use super::kernels::{BYTES, SOURCES, TILES, input, of};

/// Jobs of a tenant that the host has at once: more than are on the device, so that a tenant that
/// has work always has some that waits.
pub(crate) const PLACES: usize = 4;

/// Jobs that the bare device has at once: when one ends it goes on with the other.
const FIFO_PLACES: usize = 2;

/// What has happened.
pub(crate) enum Happened {
    /// A tenant had the device for so many nanoseconds by its clock.
    Took(usize, u64),
    /// A job has ended.
    Ended(u64),
}

/// See the module.
pub(crate) trait Way {
    /// Which queue jobs of a tenant wait in.
    fn lane(&self, tenant: usize) -> usize;

    /// Whether one more job of a queue is taken.
    fn has_place(&self, lane: usize) -> bool;

    /// Takes a job of so many groups; what it is called when it has ended.
    fn begin(&mut self, tenant: usize, groups: u32) -> Result<u64, Failed>;

    /// Goes on, for so long at most if nothing happens.
    fn go(&mut self, longest: Duration, happened: &mut Vec<Happened>) -> Result<(), Failed>;

    /// Ends all that is left. What of it the device was in the midst of.
    fn clear(&mut self, happened: &mut Vec<Happened>) -> Result<(), Failed>;
}

/// A share of the device, in parts of all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) part: f64,
    /// It gets this and never more.
    pub(crate) is_fixed: bool,
}

/// The host, with tenants.
#[derive(Debug)]
pub(crate) struct Sliced {
    host: Host<Vulkan>,
    began: Instant,
    chunk_time_max: Duration,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    owner: Owner,
    kernel: u64,
    bindings: Vec<Binding>,
    /// Handles of what it has submitted.
    open: Vec<u64>,
    billed: u128,
}

impl Sliced {
    /// Lets tenants in, each with its kernel and its buffers, and has each do one job.
    pub(crate) fn open(slices: slice::Settings, shares: &[Share]) -> Result<Self, Failed> {
        let chunk_time_max = slices.chunk_time_max;
        let settings = Settings { slices, block_bytes: 1 << 20, ..Settings::default() };
        let host = Host::new(settings, || Vulkan::open(&Options::default()))?;
        let began = Instant::now();
        let mut sliced = Self { host, began, chunk_time_max, members: Vec::new() };
        for (tenant, share) in shares.iter().enumerate() {
            sliced.admit(tenant, *share)?;
        }
        for tenant in 0..shares.len() {
            sliced.begin(tenant, TILES)?;
            while sliced.members.iter().any(|member| !member.open.is_empty()) {
                sliced.go(Duration::from_secs(1), &mut Vec::new())?;
            }
        }
        Ok(sliced)
    }

    fn admit(&mut self, tenant: usize, share: Share) -> Result<(), Failed> {
        let now = self.began.elapsed();
        let stage = Stage { tenant: Tenant(tenant as u64), number: 0 };
        let owner = Owner { stage, instance: 0 };
        self.host.open(now, stage.tenant, self.terms(share))?;
        self.host.open_stage(stage, 1)?;
        let kernel = self.host.kernel(owner, SOURCES[of(tenant)], "main")?;
        let read = self.host.create(now, owner, BYTES)?;
        let written = self.host.create(now, owner, BYTES)?;
        self.host.write(owner, read, 0, &input())?;
        let bindings = vec![Binding::whole(read), Binding::whole(written)];
        self.members.push(Member { owner, kernel, bindings, open: Vec::new(), billed: 0 });
        Ok(())
    }

    /// Gives tenants other shares. Those before are taken back first, as all of the device may be
    /// promised.
    pub(crate) fn change(&mut self, shares: &[Share]) -> Result<(), Failed> {
        let now = self.began.elapsed();
        let none = vec![Share { part: 0.0, is_fixed: false }; shares.len()];
        for (tenant, share) in none.iter().enumerate().chain(shares.iter().enumerate()) {
            let terms = self.terms(*share);
            self.host.change(now, Tenant(tenant as u64), terms)?;
        }
        Ok(())
    }

    fn terms(&self, share: Share) -> TenantTerms {
        let weight = ((share.part * f64::from(slice::WHOLE)) as u32).max(1);
        // As much saved up as one chunk takes: a partition is for each moment.
        let burst = self.chunk_time_max;
        TenantTerms {
            weight,
            cap: share.is_fixed.then_some(Cap { rate: weight, burst }),
            guaranteed_bytes: 1 << 20,
            borrowable_bytes: 0,
            limits: TenantLimits::default(),
        }
    }

    /// What a tenant's kernel has written.
    pub(crate) fn result(&mut self, tenant: usize) -> Result<Vec<u8>, Failed> {
        let member = &self.members[tenant];
        let mut bytes = vec![0; BYTES as usize];
        self.host.read(member.owner, member.bindings[1].buffer, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// What has happened since it was asked last. Whether anything ended.
    fn note(&mut self, happened: &mut Vec<Happened>) -> Result<bool, Failed> {
        let now = self.began.elapsed();
        for (tenant, member) in self.members.iter_mut().enumerate() {
            let bill = self.host.bill(now, member.owner.tenant()).unwrap_or_default();
            let nanos = bill.used.device_nanos - member.billed;
            if nanos > 0 {
                member.billed += nanos;
                happened.push(Happened::Took(tenant, nanos as u64));
            }
        }
        let mut has_ended = false;
        while let Some(event) = self.host.poll() {
            let Event::Ended { owner, submission, end, .. } = event else { continue };
            let member = &mut self.members[owner.tenant().0 as usize];
            member.open.retain(|open| *open != submission);
            if !matches!(end, host::End::Whole | host::End::Cancelled | host::End::Poisoned) {
                return Err(format!("a job ended otherwise: {end:?}").into());
            }
            happened.push(Happened::Ended(submission));
            has_ended = true;
        }
        Ok(has_ended)
    }
}

impl Way for Sliced {
    fn lane(&self, tenant: usize) -> usize {
        tenant
    }

    fn has_place(&self, lane: usize) -> bool {
        self.members[lane].open.len() < PLACES
    }

    fn begin(&mut self, tenant: usize, groups: u32) -> Result<u64, Failed> {
        let now = self.began.elapsed();
        let Member { owner, kernel, .. } = self.members[tenant];
        let op = Op::Dispatch { kernel, grid: [groups, 1, 1], slots: vec![0, 1] };
        let graph = self.host.record(owner, &[op])?;
        let bindings = self.members[tenant].bindings.clone();
        let submission = self.host.submit(owner, &Order { graph, bindings, deadline: None })?;
        self.host.drop_handle(now, owner, graph)?;
        self.members[tenant].open.push(submission);
        Ok(submission)
    }

    fn go(&mut self, longest: Duration, happened: &mut Vec<Happened>) -> Result<(), Failed> {
        let now = self.began.elapsed();
        let verdict = self.host.drive(now, longest);
        let has_ended = self.note(happened)?;
        let wait = match verdict {
            Verdict::Busy => Duration::ZERO,
            Verdict::Idle => longest,
            Verdict::Later(at) => longest.min(at.saturating_sub(now)),
            Verdict::Hung { .. } | Verdict::Gone(_) => {
                return Err(format!("the device is gone: {verdict:?}").into());
            }
        };
        if !has_ended && !wait.is_zero() {
            std::thread::sleep(wait);
        }
        Ok(())
    }

    fn clear(&mut self, happened: &mut Vec<Happened>) -> Result<(), Failed> {
        let now = self.began.elapsed();
        for member in &self.members {
            for submission in &member.open {
                self.host.cancel(now, member.owner, *submission)?;
            }
        }
        while self.members.iter().any(|member| !member.open.is_empty()) {
            self.go(Duration::from_secs(1), happened)?;
        }
        for member in &self.members {
            // What was cancelled has left it half written.
            self.host.write(member.owner, member.bindings[1].buffer, 0, &[0; BYTES as usize])?;
        }
        Ok(())
    }
}

/// The device with nothing around it: jobs are done whole, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Fifo {
    device: Vulkan,
    kernels: Vec<Loaded>,
    /// What is read, and what is written.
    bindings: Vec<Span>,
    flights: VecDeque<(Ticket, usize, u64)>,
    jobs: u64,
}

impl Fifo {
    pub(crate) fn open() -> Result<Self, Failed> {
        let mut device = Vulkan::open(&Options::default())?;
        let mut kernels = Vec::new();
        for source in SOURCES {
            let kernel = Kernel::check(source, "main", &KernelLimits::default())?;
            kernels.push(device.load(&Arc::new(kernel))?);
        }
        let mut bindings = Vec::new();
        for _ in 0..2 {
            bindings.push(Span { block: device.allocate(BYTES)?, offset: 0, bytes: BYTES });
        }
        device.write(bindings[0].block, 0, &input())?;
        Ok(Self { device, kernels, bindings, flights: VecDeque::new(), jobs: 0 })
    }

    /// The device, as its driver names it.
    pub(crate) fn name(&self) -> String {
        let info = self.device.info();
        format!("{}, {}", info.name, info.driver)
    }

    fn steps(&self, kernel: usize, groups: u32) -> [Step; 1] {
        let (grid, fuel) = ([groups, 1, 1], 1 << 20);
        let (kernel, bindings) = (self.kernels[kernel], self.bindings.clone());
        [Step::Run(Run { kernel, bindings, grid, from: [0; 3], groups: grid, fuel })]
    }

    fn done(&mut self, steps: &[Step]) -> Result<Duration, Failed> {
        let ticket = self.device.submit(steps)?;
        let done = self.device.wait(ticket, Duration::from_secs(10))?;
        let done = done.ok_or("a job of some milliseconds does not end")?;
        if done.end != End::Whole { Err("a job did not end whole".into()) } else { Ok(done.took) }
    }

    /// What a group of each kernel takes now, in nanoseconds: the middle of some long jobs.
    pub(crate) fn group_nanos(&mut self) -> Result<Vec<f64>, Failed> {
        const JOBS: usize = 7;
        const JOB: Duration = Duration::from_millis(20);
        let mut nanos = Vec::new();
        for kernel in 0..self.kernels.len() {
            let steps = self.steps(kernel, TILES);
            let first = self.done(&steps)?.as_secs_f64() / f64::from(TILES);
            let groups = (JOB.as_secs_f64() / first) as u32;
            let steps = self.steps(kernel, groups.max(1));
            let took = (0..JOBS).map(|_| self.done(&steps)).collect::<Result<Vec<_>, _>>();
            let mut took = took?;
            took.sort_unstable();
            nanos.push(took[JOBS / 2].as_nanos() as f64 / f64::from(groups.max(1)));
        }
        Ok(nanos)
    }

    /// What a kernel writes.
    pub(crate) fn result(&mut self, kernel: usize) -> Result<Vec<u8>, Failed> {
        self.done(&[Step::Fill { at: self.bindings[1], word: 0 }])?;
        let steps = self.steps(kernel, TILES);
        self.done(&steps)?;
        let mut bytes = vec![0; BYTES as usize];
        self.device.read(self.bindings[1].block, 0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Way for Fifo {
    fn lane(&self, _tenant: usize) -> usize {
        0
    }

    fn has_place(&self, _lane: usize) -> bool {
        self.flights.len() < FIFO_PLACES
    }

    fn begin(&mut self, tenant: usize, groups: u32) -> Result<u64, Failed> {
        let ticket = self.device.submit(&self.steps(of(tenant), groups))?;
        self.jobs += 1;
        self.flights.push_back((ticket, tenant, self.jobs));
        Ok(self.jobs)
    }

    fn go(&mut self, longest: Duration, happened: &mut Vec<Happened>) -> Result<(), Failed> {
        let Some((ticket, tenant, job)) = self.flights.front().copied() else {
            std::thread::sleep(longest);
            return Ok(());
        };
        if let Some(done) = self.device.wait(ticket, longest)? {
            self.flights.pop_front();
            happened.push(Happened::Took(tenant, done.took.as_nanos() as u64));
            happened.push(Happened::Ended(job));
        }
        Ok(())
    }

    fn clear(&mut self, happened: &mut Vec<Happened>) -> Result<(), Failed> {
        while !self.flights.is_empty() {
            self.go(Duration::from_secs(1), happened)?;
        }
        Ok(())
    }
}
