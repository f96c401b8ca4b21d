//! Whose chunk is next on a device that tenants share: decided without a clock, a device or chance.
//!
//! ```text
//!  submit ─► stage ──────────► tenant ──────────► device ─► next ─► chunk
//!            first come,       fair over          fair over           │
//!            first served      its stages         tenants             │
//!              charged and corrected by measured time ◄─ complete ◄───┘
//! ```
//!
//! A dispatch is cut into chunks that should take a given time at most (`cut`, `estimate`), and
//! whose chunk is next is decided by start-time fair queueing, twice (`fair`). Keeps true:
//!
//! - Tenants that have something to do get time by their weights. With one chunk at a time on the
//!   device they are apart by what one chunk of each takes, however wrong the estimates are; with
//!   more, by as much for each. No more than the whole device is ever promised.
//! - Who had nothing to do comes next after the chunks on the device, whatever others have queued;
//!   but who was ahead of its share when it stopped first waits until the others are as far.
//! - The device waits only if nobody has anything to do but tenants at their cap (`bucket`).
//! - Each chunk is charged once, to one dispatch, stage and tenant; all charges together are the
//!   time the device was busy, to the nanosecond.
//! - What is copied to the device and back has its turn as a chunk has, and is charged as one: who
//!   only copies gets no more than its share, beside who computes.
//! - Queues are bounded. A full one says so at once, and nothing of the work is taken.
//!
//! Leaves to others: steps of a submission in their order (a stage's dispatches keep theirs), what
//! a chunk that takes too long is done to, and memory (`ledger`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod bucket;
mod cut;
mod estimate;
mod fair;
#[cfg(test)]
#[expect(dead_code, reason = "the bench needs more of it")]
mod simulate;
mod stage;
mod tenant;
mod words;

use bucket::Bucket;
use fair::{Fair, Turn};
use stage::Queue;
use tenant::Member;
pub use words::{
    Bill, Cap, Chunk, ChunkId, Closing, Completed, Dispatch, Next, Over, Refused, Settings, Stage,
    StageTerms, Tenant, Terms, WHOLE, Work,
};

/// See the module.
#[derive(Debug)]
pub struct Slicer {
    settings: Settings,
    tenants: BTreeMap<u64, Member>,
    /// Over tenants.
    fair: Fair,
    /// Tenants at their cap, by the moment at which they may go on.
    shut: BTreeSet<(u64, u64)>,
    flights: BTreeMap<ChunkId, Flight>,
    /// Chunks and dispatches so far: the last number of each.
    chunks: u64,
    dispatches: u64,
    /// Nanoseconds that were charged to anybody: of chunks, and of copies.
    busy: u128,
    copied: u128,
    /// What was charged to tenants that are gone.
    gone: Bill,
}

/// A chunk on the device.
#[derive(Debug)]
struct Flight {
    dispatch: Dispatch,
    kernel: [u8; 32],
    groups: u64,
    expected: u64,
    tenant_turn: Turn,
    stage_turn: Turn,
}

impl Slicer {
    /// Nobody is there yet. A depth or a time of 0 counts as the least there is.
    #[must_use]
    pub fn new(mut settings: Settings) -> Self {
        settings.depth = settings.depth.max(1);
        settings.probe_groups = settings.probe_groups.max(1);
        settings.chunk_time_max = settings.chunk_time_max.max(Duration::from_nanos(1));
        Self {
            settings,
            tenants: BTreeMap::new(),
            fair: Fair::default(),
            shut: BTreeSet::new(),
            flights: BTreeMap::new(),
            chunks: 0,
            dispatches: 0,
            busy: 0,
            copied: 0,
            gone: Bill::default(),
        }
    }

    /// Lets a tenant in. `now`, here and elsewhere, is the time since some fixed moment.
    ///
    /// # Errors
    /// There is one of this number, or there are too many; the device is promised already; the
    /// terms are out of their bounds.
    pub fn open(&mut self, now: Duration, tenant: Tenant, terms: Terms) -> Result<(), Refused> {
        if self.tenants.contains_key(&tenant.0) {
            return Err(Refused::Exists);
        }
        if self.tenants.len() >= self.settings.tenants_max {
            return Err(Refused::TooMany);
        }
        self.admit(terms, 0)?;
        self.fair.set(tenant.0, terms.weight);
        let bucket = Self::bucket(now, terms);
        self.tenants.insert(tenant.0, Member::new(terms, bucket));
        Ok(())
    }

    /// Gives a tenant other terms, from its next chunk on. A new cap begins full.
    ///
    /// # Errors
    /// There is no such tenant; the device is promised already; the terms are out of their bounds.
    pub fn change(&mut self, now: Duration, tenant: Tenant, terms: Terms) -> Result<(), Refused> {
        let before = self.tenants.get(&tenant.0).filter(|member| !member.is_closing);
        let before = before.ok_or(Refused::Unknown)?.terms;
        self.admit(terms, before.weight)?;
        self.fair.set(tenant.0, terms.weight);
        if let Some(member) = self.tenants.get_mut(&tenant.0) {
            member.terms = terms;
            if terms.cap != before.cap {
                member.bucket = Self::bucket(now, terms);
            }
        }
        self.reopen(tenant.0);
        Ok(())
    }

    /// Has a tenant go: what waits is dropped at once, and it is gone when nothing of it is on the
    /// device. Until then its weight stays promised.
    ///
    /// # Errors
    /// There is no such tenant.
    pub fn close(&mut self, tenant: Tenant) -> Result<Closing, Refused> {
        let member = self.tenants.get_mut(&tenant.0).ok_or(Refused::Unknown)?;
        member.close();
        self.refresh(tenant.0);
        let chunks = self.flying(|dispatch| dispatch.stage.tenant == tenant);
        if !chunks.is_empty() {
            return Ok(Closing::Waits(chunks));
        }
        self.reopen(tenant.0);
        self.fair.remove(tenant.0);
        let bill = self.tenants.remove(&tenant.0).map(|member| member.bill).unwrap_or_default();
        self.gone.add(bill);
        Ok(Closing::Gone(bill))
    }

    /// Gives a tenant a stage.
    ///
    /// # Errors
    /// There is no such tenant, or there is such a stage; there are too many; the terms are out of
    /// their bounds.
    pub fn open_stage(&mut self, stage: Stage, terms: StageTerms) -> Result<(), Refused> {
        let stages_max = self.settings.stages_max;
        let member = self.member(stage.tenant)?;
        if !(1..=WHOLE).contains(&terms.weight) || terms.dispatches_max == 0 {
            return Err(Refused::Terms);
        }
        if member.stages.contains_key(&stage.number) {
            return Err(Refused::Exists);
        }
        if member.stages.len() >= stages_max {
            return Err(Refused::TooMany);
        }
        member.fair.set(stage.number.into(), terms.weight);
        member.stages.insert(stage.number, Queue::new(terms.dispatches_max));
        Ok(())
    }

    /// Has a stage go, as [`close`](Self::close) does with a tenant.
    ///
    /// # Errors
    /// There is no such stage.
    pub fn close_stage(&mut self, stage: Stage) -> Result<Closing, Refused> {
        let member = self.tenants.get_mut(&stage.tenant.0).ok_or(Refused::Unknown)?;
        member.close_stage(stage.number)?;
        self.refresh(stage.tenant.0);
        let chunks = self.flying(|dispatch| dispatch.stage == stage);
        if !chunks.is_empty() {
            return Ok(Closing::Waits(chunks));
        }
        let member = self.tenants.get_mut(&stage.tenant.0).ok_or(Refused::Unknown)?;
        Ok(Closing::Gone(member.remove_stage(stage.number)))
    }

    /// Takes a dispatch behind those that the stage has. It is over once [`complete`] says so.
    ///
    /// [`complete`]: Self::complete
    ///
    /// # Errors
    /// It would block; there is no such stage; the grid cannot be.
    pub fn submit(&mut self, stage: Stage, work: Work) -> Result<Dispatch, Refused> {
        let number = self.dispatches + 1;
        self.member(stage.tenant)?.submit(stage.number, number, work)?;
        self.dispatches = number;
        self.refresh(stage.tenant.0);
        Ok(Dispatch { stage, number })
    }

    /// How many dispatches a stage takes now before it would block. None if there is no such stage.
    #[must_use]
    pub fn room(&self, stage: Stage) -> Option<usize> {
        let member = self.tenants.get(&stage.tenant.0)?;
        member.stages.get(&stage.number).map(Queue::room)
    }

    /// Has a dispatch end early: nothing more of it is given out. If chunks of it are on the device
    /// these are returned, and it is over when they are; if none are, it is over now.
    ///
    /// # Errors
    /// It is over.
    pub fn cancel(&mut self, dispatch: Dispatch) -> Result<Vec<ChunkId>, Refused> {
        let Dispatch { stage, number } = dispatch;
        let member = self.tenants.get_mut(&stage.tenant.0).ok_or(Refused::Unknown)?;
        member.cancel(stage.number, number)?;
        self.refresh(stage.tenant.0);
        Ok(self.flying(|flying| *flying == dispatch))
    }

    /// What to do now. To be asked again after each chunk it gives, until it gives none, and after
    /// each submission and completion.
    pub fn next(&mut self, now: Duration) -> Next {
        let first = self.first(nanos(now));
        if let Some(stage) = first.and_then(|tenant| self.copying(tenant)) {
            return Next::Copy(stage);
        }
        if self.flights.len() >= self.settings.depth {
            return Next::Deep;
        }
        if let Some(tenant) = first {
            return self.send(tenant);
        }
        let at = self.shut.first().map(|(at, _)| Duration::from_nanos(*at));
        at.map_or(Next::Idle, Next::At)
    }

    /// A copy of a stage waits for its turn, which [`next`](Self::next) and
    /// [`due_copy`](Self::due_copy) say; then it begins ([`begin_copy`](Self::begin_copy)). It has
    /// its turn as a chunk has, and is not one: it does not wait until the device has a place.
    ///
    /// # Errors
    /// There is no such stage.
    pub fn want_copy(&mut self, stage: Stage) -> Result<(), Refused> {
        self.member(stage.tenant)?.want_copy(stage.number)?;
        self.refresh(stage.tenant.0);
        Ok(())
    }

    /// So many copies of a stage are not wanted any more.
    pub fn drop_copies(&mut self, stage: Stage, count: usize) {
        if let Some(member) = self.tenants.get_mut(&stage.tenant.0) {
            member.drop_copies(stage.number, count);
        }
        self.refresh(stage.tenant.0);
    }

    /// The stage whose turn it is, if what it has to do is a copy.
    pub fn due_copy(&mut self, now: Duration) -> Option<Stage> {
        let tenant = self.first(nanos(now))?;
        self.copying(tenant)
    }

    /// A copy that was due begins now.
    pub fn begin_copy(&mut self, stage: Stage) {
        self.fair.begin(stage.tenant.0);
        if let Some(member) = self.tenants.get_mut(&stage.tenant.0) {
            member.begin_copy(stage.number);
        }
        self.refresh(stage.tenant.0);
    }

    /// Copies of a stage have taken so long, in their turn or without one: then the stage waits for
    /// its next turn until others are as far. Nothing if there is no such tenant.
    pub fn charge_copy(&mut self, stage: Stage, took: Duration) {
        let took = nanos(took);
        let Some(member) = self.tenants.get_mut(&stage.tenant.0) else { return };
        member.charge_copy(stage.number, took);
        self.copied += u128::from(took);
        self.fair.charge(stage.tenant.0, took);
    }

    /// A chunk is over: it has taken so long, and was done whole or not. Then the rest of its
    /// dispatch is dropped. Nothing if there is no such chunk: each is charged once.
    pub fn complete(
        &mut self,
        chunk: ChunkId,
        took: Duration,
        is_whole: bool,
    ) -> Option<Completed> {
        let flight = self.flights.remove(&chunk)?;
        let took = nanos(took);
        let tenant = flight.dispatch.stage.tenant.0;
        self.busy += u128::from(took);
        self.fair.settle(tenant, flight.tenant_turn, took);
        let member = self.tenants.get_mut(&tenant)?;
        let over = member.settle(&flight, took, is_whole);
        // What it has taken more or less than expected changes when it may go on.
        self.reopen(tenant);
        Some(Completed { dispatch: flight.dispatch, over })
    }

    /// What was charged to a tenant so far, stages that are gone included.
    #[must_use]
    pub fn bill(&self, tenant: Tenant) -> Option<Bill> {
        self.tenants.get(&tenant.0).map(|member| member.bill)
    }

    /// What was charged to a stage so far.
    #[must_use]
    pub fn stage_bill(&self, stage: Stage) -> Option<Bill> {
        let member = self.tenants.get(&stage.tenant.0)?;
        member.stages.get(&stage.number).map(|queue| queue.bill)
    }

    /// What was charged to tenants that are gone.
    #[must_use]
    pub const fn gone(&self) -> Bill {
        self.gone
    }

    /// Nanoseconds for which the device was busy: what was charged to all tenants together.
    #[must_use]
    pub const fn busy_nanos(&self) -> u128 {
        self.busy
    }

    /// Nanoseconds that copies took: what was charged to all tenants together.
    #[must_use]
    pub const fn copy_nanos(&self) -> u128 {
        self.copied
    }

    /// The tenant whose turn it is, of those that are not at their cap.
    fn first(&mut self, now: u64) -> Option<u64> {
        while let Some((_, tenant)) = self.shut.first().copied().filter(|(at, _)| *at <= now) {
            self.reopen(tenant);
        }
        while let Some(tenant) = self.fair.first() {
            let member = self.tenants.get_mut(&tenant);
            let shut_until = member.and_then(|member| member.shut_until(now));
            let Some(at) = shut_until else { return Some(tenant) };
            self.shut.insert((at, tenant));
            self.fair.rest(tenant);
        }
        None
    }

    fn copying(&self, tenant: u64) -> Option<Stage> {
        let number = self.tenants.get(&tenant)?.copying()?;
        Some(Stage { tenant: Tenant(tenant), number })
    }

    fn admit(&self, terms: Terms, weight_before: u32) -> Result<(), Refused> {
        let cap_is_wrong = terms.cap.is_some_and(|cap| !(1..=WHOLE).contains(&cap.rate));
        if terms.weight == 0 || cap_is_wrong {
            return Err(Refused::Terms);
        }
        let promised = self.fair.weights() - u64::from(weight_before) + u64::from(terms.weight);
        if promised > u64::from(WHOLE) { Err(Refused::Oversold) } else { Ok(()) }
    }

    fn bucket(now: Duration, terms: Terms) -> Option<Bucket> {
        terms.cap.map(|cap| Bucket::new(cap.rate, nanos(cap.burst), nanos(now)))
    }

    /// A tenant that stays.
    fn member(&mut self, tenant: Tenant) -> Result<&mut Member, Refused> {
        let member = self.tenants.get_mut(&tenant.0);
        member.filter(|member| !member.is_closing).ok_or(Refused::Unknown)
    }

    fn flying(&self, is_meant: impl Fn(&Dispatch) -> bool) -> Vec<ChunkId> {
        let flights = self.flights.iter().filter(|(_, flight)| is_meant(&flight.dispatch));
        flights.map(|(chunk, _)| *chunk).collect()
    }

    /// Has a tenant stand in line or not, as it has something to do and may.
    fn refresh(&mut self, tenant: u64) {
        let member = self.tenants.get(&tenant);
        let is_ready = member.is_some_and(|member| member.has_work() && member.shut_at.is_none());
        if is_ready {
            self.fair.wake(tenant);
        } else {
            self.fair.rest(tenant);
        }
    }

    /// Has a tenant's cap looked at again when its turn comes.
    fn reopen(&mut self, tenant: u64) {
        let member = self.tenants.get_mut(&tenant);
        if let Some(at) = member.and_then(|member| member.shut_at.take()) {
            self.shut.remove(&(at, tenant));
        }
        self.refresh(tenant);
    }

    /// What the next chunk should take at most. Who begins to have work waits for all that is on
    /// the device, so that together they take a quarter of a chunk less than each by itself could:
    /// it is left for what takes longer than expected.
    fn chunk_nanos(&self) -> u64 {
        let longest = nanos(self.settings.chunk_time_max);
        if self.flights.is_empty() {
            return longest;
        }
        let sent = self.flights.values().fold(0, |sum: u64, it| sum.saturating_add(it.expected));
        let together = longest.saturating_mul(self.settings.depth as u64) - longest / 4;
        together.saturating_sub(sent).clamp((longest / 4).max(1), longest)
    }

    /// Gives the next chunk of a tenant out.
    fn send(&mut self, tenant: u64) -> Next {
        let id = ChunkId(self.chunks + 1);
        let longest = self.chunk_nanos();
        let member = self.tenants.get_mut(&tenant);
        let sent = member.and_then(|member| member.send(longest, self.settings.probe_groups));
        let Some(sent) = sent else { return Next::Idle };
        self.chunks = id.0;
        let tenant_turn = self.fair.serve(tenant, sent.expected);
        self.refresh(tenant);
        let stage = Stage { tenant: Tenant(tenant), number: sent.stage };
        let dispatch = Dispatch { stage, number: sent.dispatch };
        let flight = Flight {
            dispatch,
            kernel: sent.kernel,
            groups: sent.cut.count(),
            expected: sent.expected,
            tenant_turn,
            stage_turn: sent.turn,
        };
        self.flights.insert(id, flight);
        let expected = Duration::from_nanos(sent.expected);
        Next::Chunk(Chunk { id, dispatch, from: sent.cut.from, groups: sent.cut.groups, expected })
    }
}

/// Nanoseconds of a time; 584 years count as for ever.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
