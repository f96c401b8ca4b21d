//! What the process that has a device does, without I/O, a clock or threads of its own.
//!
//! ```text
//!  packet ─► take ─┬─► Host ◄─ drive ─► events ─► replies ─► packet
//!                  ├─► copies (what is written and read, in its turn)
//!                  ├─► parked (submissions that wait)
//!                  ├─► constants (in parts)
//!                  └─► trials (kernels) ─► elsewhere ─► tried
//! ```
//!
//! Keeps true:
//! - Each number is answered once; a submission that is waited for when it has ended, another when
//!   it is taken and once more when it has ended. What is asked for by who is gone meanwhile is not
//!   answered any more.
//! - Submissions of a stage that wait are taken in their order, and none goes past them.
//! - What is copied to the device and back is so when it is its tenant's turn, as work is begun.
//! - All that is kept has a bound: replies and copies ([`Server::has_room`]), submissions that
//!   wait, parts of constants, kernels that are tried.
//! - Nothing is said of a device before [`Answer::Begun`], nor after [`Answer::Hung`].
//!
//! Leaves to others: packets and processes, the clock, and trying kernels ([`Trial`]).

mod constants;
mod convert;
mod copies;
mod figures;
mod outbox;
mod parked;
mod refusal;
mod trials;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use trials::Trial;

use crate::device::Device;
use crate::host::{Event, Host, Order, Owner, Refused, TenantLimits, Verdict};
use crate::kernel::{Kernel, Rejected};
use crate::slice::{Stage, Tenant};
use crate::wire::{Act, Answer, Ask, End, Malformed, Refusal, TAIL_BYTES_MAX, Terms, Want};
use constants::{Constants, Piece};
use convert::{ended, promised};
use copies::{Copies, Copy};
use outbox::Outbox;
use parked::{Parked, Waiting};
use refusal::{refusal, would_block};
use trials::Trials;

/// Stages of all tenants: so many fit into a reply with the figures.
const STAGES_MAX: usize = 8 * 1024;
/// What there is to answer now, with the bytes behind it; none if that comes later.
type Said = Result<Option<(Answer, Vec<u8>)>, Refusal>;

/// Those that are meant: their order is by tenant, stage and instance.
type Owners = RangeInclusive<Owner>;

/// See the module.
#[derive(Debug)]
pub struct Server<D> {
    host: Host<D>,
    limits: TenantLimits,
    /// Those that are not gone, and which of their stages are not.
    tenants: BTreeMap<Tenant, Standing>,
    /// What was asked by which number, of submissions whose end was not told.
    submissions: BTreeMap<(Owner, u64), u64>,
    parked: Parked,
    constants: Constants,
    copies: Copies,
    trials: Trials,
    outbox: Outbox,
    /// The generation of the device that was said last.
    begun: u32,
    /// That was said.
    has_hung: bool,
}

/// Who asks, by which number, and with which bytes.
#[derive(Debug, Clone, Copy)]
struct Asker<'a> {
    number: u64,
    who: Owner,
    tail: &'a [u8],
}

#[derive(Debug, Default)]
struct Standing {
    /// Whether each is to go.
    stages: BTreeMap<u32, bool>,
    is_closing: bool,
}

impl<D: Device> Server<D> {
    /// With a host that no tenant is in yet.
    #[must_use]
    pub fn new(host: Host<D>) -> Self {
        let begun = host.generation();
        let mut server = Self {
            host,
            limits: TenantLimits::default(),
            tenants: BTreeMap::new(),
            submissions: BTreeMap::new(),
            parked: Parked::default(),
            constants: Constants::default(),
            copies: Copies::default(),
            trials: Trials::default(),
            outbox: Outbox::default(),
            begun,
            has_hung: false,
        };
        server.say_begun();
        server
    }

    /// The same with other limits of each tenant.
    #[must_use]
    pub const fn with_limits(mut self, limits: TenantLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What it drives.
    #[must_use]
    pub const fn host(&self) -> &Host<D> {
        &self.host
    }

    /// Whether a packet is to be taken. If not, replies are to be sent first.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.outbox.has_room() && self.copies.has_room()
    }

    /// The next packet to be sent, oldest first: what is before its tail, and its tail.
    pub fn next_packet(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.outbox.next()
    }

    /// The next kernel to be tried elsewhere; [`tried`](Self::tried) has to follow. Tenants take
    /// turns, and while several wait none is given that has one tried already.
    pub fn next_trial(&mut self) -> Option<Trial> {
        self.trials.next()
    }

    /// Whose kernel it is to be if the process dies now ([`Host::suspect`]).
    #[must_use]
    pub fn suspect(&self) -> Option<(u64, [u8; 32])> {
        self.host.suspect()
    }

    /// Does what a packet asks for. `now`, here and elsewhere, is the time since some fixed moment,
    /// and never goes back.
    ///
    /// # Errors
    /// It is no packet. Who sends such is not to be listened to any more.
    pub fn take(&mut self, now: Duration, packet: &[u8]) -> Result<(), Malformed> {
        let (Ask { number, want }, tail) = Ask::read(packet)?;
        if self.has_hung {
            return Ok(());
        }
        let said = match want {
            Want::Of(who, act) => self.act(now, Asker { number, who, tail }, act),
            want => self.order(now, want),
        };
        self.say(number, said);
        self.settle();
        Ok(())
    }

    /// Has the device go on, and waits for it up to `longest` if there is nothing else to do. When
    /// it is to be called again is what is returned.
    pub fn drive(&mut self, now: Duration, longest: Duration) -> Verdict {
        if self.has_hung {
            return self.host.drive(now, Duration::ZERO);
        }
        for number in self.parked.expire(now) {
            self.outbox.push(number, Answer::Ended { end: End::Deadline, device_nanos: 0 });
        }
        self.copy_due(now);
        let due = self.parked.due();
        let longest = due.map_or(longest, |due| longest.min(due.saturating_sub(now)));
        let verdict = self.host.drive(now, longest);
        self.settle();
        match &verdict {
            Verdict::Hung { kernel, tenant } => {
                self.has_hung = true;
                let (kernel, tenant) = (*kernel, tenant.0);
                self.outbox.push(0, Answer::Hung { kernel, tenant });
                return verdict;
            }
            Verdict::Gone(_) => {}
            _ if self.begun != self.host.generation() => {
                self.begun = self.host.generation();
                self.say_begun();
            }
            _ => {}
        }
        let has_entered = self.admit_parked();
        match verdict {
            Verdict::Idle | Verdict::Later(_) if has_entered => Verdict::Busy,
            Verdict::Idle => self.parked.due().map_or(Verdict::Idle, Verdict::Later),
            Verdict::Later(at) => {
                Verdict::Later(self.parked.due().map_or(at, |due| at.min(due)).max(now))
            }
            verdict => verdict,
        }
    }

    /// What a trial has come to. A driver that dies of a kernel is [`Rejected::Unsupported`], so
    /// that it is not tried again; [`Rejected::Failed`] is not remembered.
    pub fn tried(&mut self, trial: u64, outcome: &Result<Arc<Kernel>, Rejected>) {
        let Some(trials::Open { hash, askers, .. }) = self.trials.end(trial) else { return };
        if self.has_hung {
            return;
        }
        for (number, who) in askers {
            let handle = self.host.admit_kernel(who, hash, outcome.clone());
            self.say(number, named(handle));
        }
    }

    /// What is asked for by the node itself.
    fn order(&mut self, now: Duration, want: Want) -> Said {
        match want {
            Want::Tenant { tenant, terms } => self.admit(now, Tenant(tenant), &terms)?,
            Want::CloseTenant { tenant } => {
                let tenant = Tenant(tenant);
                self.host.close(now, tenant).map_err(refusal)?;
                if let Some(standing) = self.tenants.get_mut(&tenant) {
                    standing.is_closing = true;
                }
                let first = Stage { tenant, number: 0 };
                let last = Stage { tenant, number: u32::MAX };
                self.forget(&(first_of(first)..=last_of(last)));
            }
            Want::Stage { stage, weight } => self.open_stage(stage, weight)?,
            Want::CloseStage { stage } => {
                self.host.close_stage(now, stage).map_err(refusal)?;
                self.tenants.entry(stage.tenant).or_default().stages.insert(stage.number, true);
                self.forget(&(first_of(stage)..=last_of(stage)));
            }
            Want::DropOwner { owner } => {
                self.host.drop_owner(now, owner);
                self.forget(&(owner..=owner));
            }
            Want::Quarantine { tenant, kernel } => self.host.quarantine(Tenant(tenant), kernel),
            Want::Figures => return Ok(Some((Answer::Figures(self.figures(now)), Vec::new()))),
            Want::Of(..) => {}
        }
        done()
    }

    /// Lets a tenant in, or gives it other terms.
    fn admit(&mut self, now: Duration, tenant: Tenant, terms: &Terms) -> Result<(), Refusal> {
        let terms = promised(terms, self.limits);
        if self.tenants.get(&tenant).is_some_and(|standing| !standing.is_closing) {
            return self.host.change(now, tenant, terms).map_err(refusal);
        }
        self.host.open(now, tenant, terms).map_err(refusal)?;
        self.tenants.insert(tenant, Standing::default());
        Ok(())
    }

    fn open_stage(&mut self, stage: Stage, weight: u32) -> Result<(), Refusal> {
        let stages: usize = self.tenants.values().map(|standing| standing.stages.len()).sum();
        if stages >= STAGES_MAX {
            return Err(refusal(Refused::Limit {
                what: "stages of all tenants",
                found: stages as u64 + 1,
                limit: STAGES_MAX as u64,
                fix: "close some",
            }));
        }
        self.host.open_stage(stage, weight).map_err(refusal)?;
        self.tenants.entry(stage.tenant).or_default().stages.insert(stage.number, false);
        Ok(())
    }

    /// What is asked for by an instance.
    fn act(&mut self, now: Duration, asker: Asker<'_>, act: Act) -> Said {
        let Asker { number, who, tail } = asker;
        let host = &mut self.host;
        match act {
            Act::Create { bytes } => self.copy(number, who, Copy::Create { bytes }),
            Act::Write { buffer, offset } => {
                self.copy(number, who, Copy::Write { buffer, offset, tail: tail.to_vec() })
            }
            Act::Read { buffer, offset, bytes } => {
                let count = usize::try_from(bytes).ok().filter(|count| *count <= TAIL_BYTES_MAX);
                let why = "more than can be read at once, which are 8 MiB: read them in parts";
                let range = || refusal(Refused::Range { offset, bytes, why });
                let bytes = count.ok_or_else(range)?;
                self.copy(number, who, Copy::Read { buffer, offset, bytes })
            }
            Act::Size { buffer } => {
                let bytes = host.bytes(who, buffer).map_err(refusal)?;
                Ok(Some((Answer::Bytes(bytes), Vec::new())))
            }
            Act::FindConstant { hash } => match host.find_constant(who, hash) {
                Ok(None) => Ok(Some((Answer::Unknown, Vec::new()))),
                Ok(Some(handle)) => named(Ok(handle)),
                Err(why) => Err(refusal(why)),
            },
            Act::Constant { hash, bytes, offset } => {
                let piece = Piece { hash, bytes, offset, part: tail };
                self.constant(number, who, &piece)
            }
            Act::Kernel { entry } => self.kernel(asker, entry),
            Act::Slots { kernel } => {
                let slots = host.slots(who, kernel).map_err(refusal)?;
                Ok(Some((Answer::Slots(slots), Vec::new())))
            }
            Act::Record { steps } => named(host.record(who, &steps)),
            Act::Submit { graph, bindings, time_max, waits } => {
                let deadline = now.saturating_add(time_max);
                let order = Order { graph, bindings, deadline: Some(deadline) };
                self.submit(Waiting { number, who, deadline, order }, waits)
            }
            Act::Cancel { submission } => {
                host.cancel(now, who, submission).map_err(refusal)?;
                done()
            }
            Act::Attach { buffer, holder } => {
                let holder = Owner { instance: holder, ..who };
                host.attach(who, buffer, holder).map_err(refusal)?;
                done()
            }
            Act::Free { handle } => {
                host.drop_handle(now, who, handle).map_err(refusal)?;
                done()
            }
        }
    }

    /// Takes one more part of a constant, and has it made if that was the last.
    fn constant(&mut self, number: u64, who: Owner, piece: &Piece<'_>) -> Said {
        self.expect_open(who.stage)?;
        match self.constants.add(who, piece)? {
            None => done(),
            Some(tail) => self.copy(number, who, Copy::Constant { hash: piece.hash, tail }),
        }
    }

    /// Makes a handle of a kernel that is known, or has it tried.
    fn kernel(&mut self, asker: Asker<'_>, entry: String) -> Said {
        let Asker { number, who, tail } = asker;
        let limits = self.limits.kernel;
        let source = trials::expect_source(tail, &entry, &limits);
        let source = source.map_err(|why| refusal(why.into()))?;
        let hash = Kernel::hash_of(source, &entry);
        if let Some(handle) = self.host.find_kernel(who, hash).map_err(refusal)? {
            return named(Ok(handle));
        }
        let trial = Trial { number: 0, hash, source: source.to_owned(), entry, limits };
        self.trials.ask(number, who, trial)?;
        Ok(None)
    }

    /// Takes a submission, or has it wait for a place of its stage, which those that wait already
    /// have first.
    fn submit(&mut self, waiting: Waiting, waits: bool) -> Said {
        let before = self.parked.count(waiting.who.stage);
        if before > 0 && !waits {
            return Err(would_block(format!("{before} submissions of the stage wait before it")));
        }
        if before == 0 {
            match self.enter(&waiting) {
                Ok(submission) if !waits => return named(Ok(submission)),
                Ok(_) => return Ok(None),
                Err(Refused::WouldBlock(_)) if waits => {}
                Err(why) => return Err(refusal(why)),
            }
        }
        self.expect_open(waiting.who.stage)?;
        self.parked.add(waiting)?;
        Ok(None)
    }

    /// Gives a submission to the host.
    fn enter(&mut self, waiting: &Waiting) -> Result<u64, Refused> {
        let submission = self.host.submit(waiting.who, &waiting.order)?;
        self.submissions.insert((waiting.who, submission), waiting.number);
        Ok(submission)
    }

    /// Says what has happened in the host.
    fn settle(&mut self) {
        while let Some(event) = self.host.poll() {
            match event {
                Event::Ended { owner, submission, end, device_nanos } => {
                    let Some(number) = self.submissions.remove(&(owner, submission)) else {
                        continue;
                    };
                    let device_nanos = u64::try_from(device_nanos).unwrap_or(u64::MAX);
                    self.outbox.push(number, Answer::Ended { end: ended(&end), device_nanos });
                }
                Event::StageClosed { stage, .. } => {
                    if let Some(standing) = self.tenants.get_mut(&stage.tenant) {
                        standing.stages.remove(&stage.number);
                    }
                }
                Event::Closed { tenant, .. } => {
                    self.tenants.remove(&tenant);
                }
            }
        }
    }

    /// Some owners are gone: nothing more is done or said for them.
    fn forget(&mut self, owners: &Owners) {
        let (first, last) = (*owners.start(), *owners.end());
        let gone = self.submissions.range((first, 0)..=(last, u64::MAX));
        for submission in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.submissions.remove(&submission);
        }
        self.parked.forget(owners);
        self.constants.forget(owners);
        for (stage, count) in self.copies.forget(owners) {
            self.host.drop_copies(stage, count);
        }
        self.trials.forget(owners);
    }

    fn expect_open(&self, stage: Stage) -> Result<(), Refusal> {
        let standing = self.tenants.get(&stage.tenant).filter(|standing| !standing.is_closing);
        let standing = standing.ok_or_else(|| refusal(Refused::Tenant(stage.tenant.0)))?;
        match standing.stages.get(&stage.number) {
            Some(false) => Ok(()),
            _ => Err(refusal(Refused::Stage(stage.number))),
        }
    }

    fn say(&mut self, number: u64, said: Said) {
        match said {
            Ok(None) => {}
            Ok(Some((answer, tail))) => self.outbox.push_with(number, answer, tail),
            Err(refusal) => self.outbox.push(number, Answer::Refused(refusal)),
        }
    }

    fn say_begun(&mut self) {
        let info = self.host.info().clone();
        self.outbox.push(0, Answer::Begun { info, generation: self.begun });
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what all answers are")]
const fn done() -> Said {
    Ok(Some((Answer::Done, Vec::new())))
}

fn named(handle: Result<u64, Refused>) -> Said {
    let handle = handle.map_err(refusal)?;
    Ok(Some((Answer::Handle(handle), Vec::new())))
}

const fn first_of(stage: Stage) -> Owner {
    Owner { stage, instance: 0 }
}

const fn last_of(stage: Stage) -> Owner {
    Owner { stage, instance: u64::MAX }
}

#[cfg(test)]
mod tests;
