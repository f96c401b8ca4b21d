//! What tenants are offered of a device: buffers, kernels, graphs, and submissions of them.
//!
//! ```text
//!  tenant ─► Host ─► space (a tenant's handles) ─► graph, kernels, arena
//!             │            │
//!             │          ledger (memory)
//!             └► slice (whose turn) ─► device ─► settle, bill ─► events
//! ```
//!
//! Driven by one thread, without a clock or I/O: it is told what time it is, and called again and
//! again ([`Host::drive`]). Keeps true:
//!
//! - Handles are numbers that are never used again. Each is good for its owner alone: an instance
//!   of a stage of a tenant. No number reaches what another has.
//! - Nothing is given to the device that it would refuse; what is asked for is checked as a whole
//!   before anything of it is done.
//! - All that a tenant can have of anything has a bound.
//! - Bills of all tenants together are what the device was used: its time to the nanosecond, its
//!   memory, and the bytes that went there and back.
//! - When an owner, a stage or a tenant goes, all it had is given back as soon as the device has
//!   let go of it.
//! - When the device is lost, all handles are over, all work has ended as lost, and a new device
//!   takes its place. When it hangs the host says so, and does nothing more.
//!
//! Leaves to others: processes and messages, who may ask for what, and the clock.

mod arena;
mod books;
mod buffers;
mod graph;
mod kernels;
mod numbers;
mod programs;
mod refused;
mod room;
mod space;
mod turn;
mod witness;
mod words;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

pub use refused::Refused;
pub use words::{
    Bill, Binding, End, Event, Figures, Op, Order, Owner, Part, Settings, StageFigures,
    TenantLimits, TenantTerms, Used, Verdict,
};

use crate::Error;
use crate::device::{Device, Info};
use crate::ledger::{Ledger, Quota};
use crate::slice::{Closing, Dispatch, Slicer, Stage, StageTerms, Tenant, Terms};
use buffers::GRAIN_BYTES_MIN;
use numbers::Numbers;
use space::{Space, StageState};
use turn::{Failure, Flight};
use witness::Witness;

/// Dispatches, copies and fills that a stage has at once, of all its submissions.
const STAGE_STEPS_MAX: usize = 4_096;

/// See the module.
pub struct Host<D> {
    settings: Settings,
    make: Box<dyn FnMut() -> Result<D, Error> + Send>,
    /// None while it is lost.
    device: Option<D>,
    /// As the last device was.
    info: Info,
    slicer: Slicer,
    ledger: Ledger,
    numbers: Numbers,
    spaces: BTreeMap<u64, Space>,
    /// When it was driven last.
    now: Duration,
    /// In the order in which the device does them.
    flights: VecDeque<Flight>,
    /// Since when the first of them is done, as far as is known.
    first_since: Option<Duration>,
    /// Which submission each belongs to.
    parts: BTreeMap<Dispatch, u64>,
    /// When, of which tenant, which submission.
    deadlines: BTreeSet<(Duration, u64, u64)>,
    events: VecDeque<Event>,
    /// Stages that may have a place which they had not.
    freed: BTreeSet<Stage>,
    /// Bytes up and down, of all that ever were.
    moved: Used,
    /// How often something in memory was used.
    uses: u64,
    /// It was lost, and nothing was done about it yet.
    lost: Option<Error>,
    /// How the last try to have another has failed, if there is none.
    failure: Option<Failure>,
    /// How it has hung.
    hung: Option<Verdict>,
    witness: Witness,
}

impl<D> fmt::Debug for Host<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.spaces.len();
        f.debug_struct("Host").field("info", &self.info).field("tenants", &tenants).finish()
    }
}

impl<D: Device> Host<D> {
    /// Makes a device, which no tenant has anything of yet. `make` is asked again when it is lost.
    ///
    /// # Errors
    /// There is no device.
    pub fn new(
        mut settings: Settings,
        mut make: impl FnMut() -> Result<D, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let device = make()?;
        let info = device.info().clone();
        let memory_bytes = info.memory_bytes.min(settings.memory_bytes_max);
        let grain = info.limits.offset_bytes.max(GRAIN_BYTES_MIN);
        settings.block_bytes = settings.block_bytes.max(1).next_multiple_of(grain);
        Ok(Self {
            slicer: Slicer::new(settings.slices.clone()),
            ledger: Ledger::new(memory_bytes, settings.block_bytes),
            numbers: Numbers::new(settings.generation),
            settings,
            make: Box::new(make),
            device: Some(device),
            info,
            spaces: BTreeMap::new(),
            now: Duration::ZERO,
            flights: VecDeque::new(),
            first_since: None,
            parts: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            freed: BTreeSet::new(),
            moved: Used::default(),
            uses: 0,
            lost: None,
            failure: None,
            hung: None,
            witness: Witness::default(),
        })
    }

    /// What the device is.
    #[must_use]
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// What handles are made with now. It moves on when the device is lost.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.numbers.generation()
    }

    /// Lets a tenant in. `now`, here and elsewhere, is the time since some fixed moment.
    ///
    /// # Errors
    /// There is one of this number, or there are too many; the device's time or memory is promised
    /// already; a term is out of its bounds.
    pub fn open(
        &mut self,
        now: Duration,
        tenant: Tenant,
        terms: TenantTerms,
    ) -> Result<(), Refused> {
        self.slicer.open(now, tenant, slice_terms(&terms))?;
        if let Err(why) = self.ledger.open(now, tenant, self.quota(&terms)) {
            // Nothing of it is on the device, so it is gone at once.
            self.slicer.close(tenant)?;
            return Err(Refused::Memory { bytes: terms.guaranteed_bytes, why });
        }
        self.spaces.insert(tenant.0, Space::new(terms));
        Ok(())
    }

    /// Gives a tenant other terms. What it has beyond them it keeps.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and there is no such tenant.
    pub fn change(
        &mut self,
        now: Duration,
        tenant: Tenant,
        terms: TenantTerms,
    ) -> Result<(), Refused> {
        let before = self.open_space(tenant)?.terms;
        let bytes = terms.guaranteed_bytes;
        self.ledger
            .change(tenant, self.quota(&terms))
            .map_err(|why| Refused::Memory { bytes, why })?;
        if let Err(why) = self.slicer.change(now, tenant, slice_terms(&terms)) {
            // What it was promised before fits still.
            let restored = self.ledger.change(tenant, self.quota(&before));
            debug_assert_eq!(restored, Ok(()), "it was so before");
            return Err(why.into());
        }
        let space = self.open_space(tenant)?;
        space.terms = terms;
        if terms.limits.kernel != before.limits.kernel {
            space.cache.forget_rejected();
        }
        // Each may have more of them now.
        let stages = space.stages.keys().map(|number| Stage { tenant, number: *number });
        let stages = stages.collect::<Vec<_>>();
        self.freed.extend(stages);
        Ok(())
    }

    /// Has a tenant go, with all it has. It is gone when nothing of it is on the device any more
    /// ([`Event::Closed`]), and a new one of its number is refused until then.
    ///
    /// # Errors
    /// There is no such tenant.
    pub fn close(&mut self, now: Duration, tenant: Tenant) -> Result<(), Refused> {
        self.open_space(tenant)?.is_closing = true;
        self.drop_all(now, tenant, |_| true);
        self.drop_kept(now, tenant);
        self.reap(now, tenant);
        Ok(())
    }

    /// Gives a tenant a stage, with a share beside its other stages: at least 1, at most a million.
    ///
    /// # Errors
    /// There is no such tenant, or there is such a stage; there are too many; the weight is out of
    /// its bounds.
    pub fn open_stage(&mut self, stage: Stage, weight: u32) -> Result<(), Refused> {
        self.open_space(stage.tenant)?;
        let terms = StageTerms { weight, dispatches_max: STAGE_STEPS_MAX };
        self.slicer.open_stage(stage, terms)?;
        let stages = &mut self.open_space(stage.tenant)?.stages;
        stages.insert(stage.number, StageState::default());
        Ok(())
    }

    /// Has a stage go, with all its instances have, as [`close`](Self::close) does with a tenant.
    ///
    /// # Errors
    /// There is no such stage.
    pub fn close_stage(&mut self, now: Duration, stage: Stage) -> Result<(), Refused> {
        let space = self.open_space(stage.tenant)?;
        let state = space.stages.get_mut(&stage.number).filter(|state| !state.is_closing);
        state.ok_or(Refused::Stage(stage.number))?.is_closing = true;
        self.drop_all(now, stage.tenant, |owner| owner.stage == stage);
        self.reap(now, stage.tenant);
        Ok(())
    }

    /// An owner is no longer there: all it has goes, its work is ended, and nobody is told how.
    pub fn drop_owner(&mut self, now: Duration, owner: Owner) {
        self.drop_all(now, owner.tenant(), |other| other == owner);
        let space = self.spaces.get(&owner.tenant().0);
        if space.is_some_and(|space| space.handles() == 0) {
            // Who has asked for memory in vain is likely to be gone.
            self.ledger.withdraw(owner.tenant());
        }
    }

    /// A copy of a stage waits for its turn: something is to be written or read, once it is due.
    ///
    /// # Errors
    /// There is no such stage.
    pub fn want_copy(&mut self, stage: Stage) -> Result<(), Refused> {
        Ok(self.slicer.want_copy(stage)?)
    }

    /// So many copies of a stage are not wanted any more.
    pub fn drop_copies(&mut self, stage: Stage, count: usize) {
        self.slicer.drop_copies(stage, count);
    }

    /// The stage whose turn it is, if a copy is what it has to do.
    pub fn due_copy(&mut self, now: Duration) -> Option<Stage> {
        self.slicer.due_copy(now)
    }

    /// A copy that was due is made now, by whoever asks for the turn.
    pub fn begin_copy(&mut self, stage: Stage) {
        self.slicer.begin_copy(stage);
    }

    /// The next that has happened, oldest first.
    pub fn poll(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Ended { owner, .. } = &event
            && let Some(space) = self.spaces.get_mut(&owner.tenant().0)
            && let Some(state) = space.stages.get_mut(&owner.stage.number)
        {
            state.queue -= 1;
            self.freed.insert(owner.stage);
        }
        Some(event)
    }

    /// A tenant that is not to go.
    fn open_space(&mut self, tenant: Tenant) -> Result<&mut Space, Refused> {
        let space = self.spaces.get_mut(&tenant.0).filter(|space| !space.is_closing);
        space.ok_or(Refused::Tenant(tenant.0))
    }

    /// The tenant of an owner, if neither it nor its stage is to go.
    fn space(&self, who: Owner) -> Result<&Space, Refused> {
        let Stage { tenant, number } = who.stage;
        let space = self.spaces.get(&tenant.0).filter(|space| !space.is_closing);
        let space = space.ok_or(Refused::Tenant(tenant.0))?;
        match space.stages.get(&number) {
            Some(state) if !state.is_closing => Ok(space),
            _ => Err(Refused::Stage(number)),
        }
    }

    fn space_mut(&mut self, who: Owner) -> Result<&mut Space, Refused> {
        self.space(who)?;
        self.open_space(who.tenant())
    }

    /// The device, if it can be used.
    fn device(&mut self) -> Result<&mut D, Refused> {
        if self.hung.is_some() {
            return Err(Refused::Hung);
        }
        if let Some(why) = &self.lost {
            return Err(why.clone().into());
        }
        let none = || Error::Lost("there is no new device yet".to_owned());
        self.device.as_mut().ok_or_else(none).map_err(Refused::from)
    }

    /// What a device has answered; it may be that it is lost.
    fn noted<T>(&mut self, answer: Result<T, Error>) -> Result<T, Refused> {
        answer.map_err(|why| {
            if matches!(why, Error::Lost(_)) {
                self.lost.get_or_insert_with(|| why.clone());
            }
            Refused::Device(why)
        })
    }

    /// Drops all that those who are meant have.
    fn drop_all(&mut self, now: Duration, tenant: Tenant, is_meant: impl Fn(Owner) -> bool) {
        self.forget_events(tenant, &is_meant);
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return };
        let mut ended = Vec::new();
        for (handle, submission) in &mut space.submissions {
            if is_meant(submission.owner) {
                submission.is_orphan = true;
                ended.push(*handle);
            }
        }
        let handles = space.handles_of(&is_meant);
        for submission in ended {
            self.end(now, tenant, submission, End::Cancelled);
        }
        for (owner, handle) in handles {
            self.remove(now, owner, handle);
        }
    }

    /// Nobody is to be told any more how work of those who are meant has ended.
    fn forget_events(&mut self, tenant: Tenant, is_meant: impl Fn(Owner) -> bool) {
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return };
        self.events.retain(|event| {
            let Event::Ended { owner, .. } = event else { return true };
            let is_kept = owner.tenant() != tenant || !is_meant(*owner);
            if !is_kept && let Some(state) = space.stages.get_mut(&owner.stage.number) {
                state.queue -= 1;
                self.freed.insert(owner.stage);
            }
            is_kept
        });
    }

    /// A tenant and its stages that are to go do, if nothing of them is on the device.
    fn reap(&mut self, now: Duration, tenant: Tenant) {
        let Some(space) = self.spaces.get_mut(&tenant.0) else { return };
        let is_closing = space.is_closing;
        let going = space.stages.iter().filter(|(number, state)| {
            let submissions = &mut space.submissions.values();
            let has_work = submissions.any(|it| it.owner.stage.number == **number);
            (is_closing || state.is_closing) && !has_work
        });
        for number in going.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.reap_stage(now, Stage { tenant, number });
        }
        let is_gone = |space: &Space| is_closing && space.stages.is_empty();
        if self.spaces.get(&tenant.0).is_some_and(is_gone) {
            self.reap_tenant(now, tenant);
        }
    }

    fn reap_stage(&mut self, now: Duration, stage: Stage) {
        let bill = self.stage_bill(now, stage).unwrap_or_default();
        self.inherit(stage);
        let closed = self.slicer.close_stage(stage);
        debug_assert!(matches!(closed, Ok(Closing::Gone(_))), "nothing of it is on the device");
        if let Some(space) = self.spaces.get_mut(&stage.tenant.0) {
            space.stages.remove(&stage.number);
            space.moved.up_bytes += bill.used.up_bytes;
            space.moved.down_bytes += bill.used.down_bytes;
        }
        self.freed.remove(&stage);
        self.events.push_back(Event::StageClosed { stage, bill });
    }

    fn reap_tenant(&mut self, now: Duration, tenant: Tenant) {
        let bill = self.bill(now, tenant).unwrap_or_default();
        let Some(space) = self.spaces.remove(&tenant.0) else { return };
        debug_assert!(space.stores.is_empty(), "nothing needs any of it");
        if let Some(device) = &mut self.device {
            space.cache.loaded().for_each(|kernel| device.unload(kernel));
        }
        let closed = self.slicer.close(tenant);
        debug_assert!(matches!(closed, Ok(Closing::Gone(_))), "nothing of it is on the device");
        let closed = self.ledger.close(now, tenant);
        debug_assert_eq!(closed, Ok(bill.memory_byte_nanos), "it was billed up to now");
        self.events.push_back(Event::Closed { tenant, bill });
    }

    fn quota(&self, terms: &TenantTerms) -> Quota {
        let block_bytes = self.settings.block_bytes;
        Quota {
            guaranteed: terms.guaranteed_bytes.div_ceil(block_bytes),
            borrowable: terms.borrowable_bytes / block_bytes,
        }
    }
}

const fn slice_terms(terms: &TenantTerms) -> Terms {
    Terms { weight: terms.weight, cap: terms.cap }
}

#[cfg(test)]
mod tests;
