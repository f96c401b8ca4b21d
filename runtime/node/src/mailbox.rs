//! The shared side of a partition: its inbox, and how its worker learns that there is work.
//!
//! - Any thread may push; only the owning worker takes. Both hold the lock for a few instructions.
//! - An inbox is bounded in bytes. A run is taken while there is any room, so that one larger than
//!   the bound still passes; the excess is one run for each thread that pushes.
//! - Whoever found no room is told when there is some again: partitions by being scheduled, ingest
//!   by a notification, and sessions, which wait for as long as it takes, one by one (`room`).
//! - A partition is in its worker's ready list at most once, so the list is bounded by the number
//!   of partitions.

mod elsewhere;
pub(crate) mod gate;
mod inbox;
pub(crate) mod load;
pub(crate) mod returns;
mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Instant;

use sluicebox_core::codec::Piece;
use sluicebox_core::ids::{Part, StageId};
use sluicebox_core::message::{At, Message};
use sluicebox_core::partition::{Halt, Progress, stage_of_state};
use sluicebox_core::position::Source;
use sluicebox_core::state::KeyedState;
use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::metrics::HopWay;
use crate::running::SegmentRuntime;
use crate::running::hops::Hop;
use crate::spread::Site;
use gate::Gate;
use inbox::Inbox;
use load::Load;
pub(crate) use load::Unlogged;
use returns::{Returned, Returns};

pub(crate) use inbox::{Batch, Delivery};
pub(crate) use room::{Place, Room};

/// The state of a partition's stages, by name.
pub(crate) type States = Vec<(String, KeyedState)>;

/// What a partition goes on from.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// State by stage.
    pub states: States,
    /// Where it stands, in a pipeline with a log.
    pub progress: Option<Progress>,
    /// Its watermark, in one without.
    pub watermark: u64,
}

/// What a worker is asked to do with a partition besides running it.
#[derive(Debug)]
pub(crate) enum Command {
    /// Go on after a halt.
    Resume,
    /// Say with which codes streams of each stage are open.
    Codes(oneshot::Sender<Vec<BTreeSet<u32>>>),
    /// End open streams that cannot go on, then give up the state and be forgotten.
    Retire {
        /// Where what it held goes.
        reply: oneshot::Sender<Retired>,
        /// Give up what cannot be finished as well, rather than wait for it.
        carry: bool,
        /// The stages whose open streams end. Those of others are handed over as they are.
        ends: Arc<BTreeSet<String>>,
    },
    /// If it is being retired: from now on as with `carry`.
    GiveUp,
    /// Give up the state between two batches, and leave what is queued where it is: the partition
    /// goes to another node, or comes from one.
    Leave(oneshot::Sender<Result<Inherited, Error>>),
}

/// What a partition held when it was retired.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// State by stage.
    pub states: States,
    /// The root of its segment and where it stood, in a pipeline with a log.
    pub progress: Option<(StageId, Progress)>,
    /// The root of its segment, and its watermark.
    pub watermark: (String, u64),
    /// Events that were not handled: stage they enter by, partition, and the events.
    pub left_over: Vec<(String, u16, Delivery)>,
    /// Streams that were to end may be open: there was no room for it.
    pub is_short: bool,
}

/// One worker, as others see it.
#[derive(Debug, Default)]
pub(crate) struct WorkerHandle {
    ready: Mutex<Vec<Arc<Mailbox>>>,
    pub(crate) notify: Notify,
}

impl WorkerHandle {
    /// Moves what became ready into `out`.
    pub(crate) fn take_ready(&self, out: &mut Vec<Arc<Mailbox>>) {
        out.append(&mut lock(&self.ready));
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) segment: Arc<SegmentRuntime>,
    pub(crate) partition: u16,
    pub(crate) owner: Arc<WorkerHandle>,
    inbox: Mutex<Inbox>,
    pub(crate) room: Arc<Room>,
    /// In the owner's ready list, or about to be.
    queued: AtomicBool,
    /// Partitions that wait for room here.
    blocked: Mutex<Vec<Arc<Self>>>,
    commands: Mutex<VecDeque<Command>>,
    /// Carried over from the version before; taken when the partition first runs.
    inherited: Mutex<Inherited>,
    /// What it goes on from was given up to somebody: it does not run before it is back.
    absent: AtomicBool,
    /// What has come from other nodes, where some partitions of the pipeline are there.
    gate: Mutex<Option<Box<Gate>>>,
    /// What the node says that has the partition, if another one has it.
    returns: Mutex<Returns>,
    /// Runs that were taken to be forwarded and are not consumed, by source.
    forwarded: Mutex<BTreeMap<Source, usize>>,
    halted: Mutex<Option<Halt>>,
    /// What it holds is not what the log knows: only a restart helps.
    stopped: AtomicBool,
    /// It waits for room for an instance.
    short: AtomicBool,
    /// When it goes on by itself, in microseconds since 1970; 0 while it is at work.
    sleeps_until: AtomicU64,
    pub(crate) load: Load,
    pub(crate) state_bytes: AtomicUsize,
    pub(crate) open_streams: AtomicUsize,
    /// Those with a code that their stage had before.
    pub(crate) streams_of_before: AtomicUsize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    pub(crate) fn new(
        segment: Arc<SegmentRuntime>,
        partition: u16,
        owner: Arc<WorkerHandle>,
        bytes_max: usize,
        inherited: Inherited,
    ) -> Arc<Self> {
        let is_alone = segment.shared.trunks.iter().next().is_none();
        let load = Load::new(if is_alone { 0 } else { segment.shared.sites.count() });
        Arc::new(Self {
            segment,
            partition,
            owner,
            inbox: Mutex::default(),
            room: Arc::new(Room::new(bytes_max)),
            queued: AtomicBool::new(false),
            blocked: Mutex::default(),
            commands: Mutex::default(),
            inherited: Mutex::new(inherited),
            absent: AtomicBool::new(false),
            gate: Mutex::default(),
            returns: Mutex::default(),
            forwarded: Mutex::default(),
            halted: Mutex::default(),
            stopped: AtomicBool::new(false),
            short: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(u64::MAX),
            load,
            state_bytes: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            streams_of_before: AtomicUsize::new(0),
        })
    }

    /// Notes until when it sleeps; never if it waits for others only, 0 when it goes on.
    pub(crate) fn set_sleeps_until(&self, time: u64) {
        self.sleeps_until.store(time, Ordering::Release);
    }

    /// When it goes on by itself; `None` if it is at work or about to be.
    pub(crate) fn rests_until(&self) -> Option<u64> {
        let until = self.sleeps_until.load(Ordering::Acquire);
        (until > 0 && !self.queued.load(Ordering::Acquire)).then_some(until)
    }

    /// Bytes queued.
    pub(crate) fn bytes(&self) -> usize {
        self.room.bytes()
    }

    /// True if a push would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.room.is_there()
    }

    /// Queues a run and wakes the owner; gives it back if there is no room.
    pub(crate) fn push(self: &Arc<Self>, delivery: Delivery) -> Result<(), Delivery> {
        if !self.has_room() {
            return Err(delivery);
        }
        self.push_over(delivery);
        Ok(())
    }

    /// Queues a run whatever the room; for a caller that has looked just before.
    pub(crate) fn push_over(self: &Arc<Self>, mut delivery: Delivery) {
        let has_traces =
            !delivery.frame.is_plain() && self.segment.shared.tenant.traces().is_some();
        if has_traces && delivery.hop.is_none() {
            delivery.hop = Some(Hop::into_inbox());
        }
        self.segment.shared.entered();
        let bytes = delivery.bytes();
        if delivery.run.is_some_and(|run| run.source == Source::Ingest) && !delivery.foreign {
            self.load.came_in(bytes);
        }
        self.load.arrived(delivery.range.len());
        self.room.fill(bytes);
        lock(&self.inbox).push(delivery);
        self.schedule();
    }

    /// As [`Mailbox::push`] for a partition, which is scheduled again when there is room.
    pub(crate) fn push_or_block(
        self: &Arc<Self>,
        mut delivery: Delivery,
        from: &Arc<Self>,
    ) -> Result<(), Delivery> {
        let stage = delivery.stage;
        let hop = *delivery.hop.get_or_insert_with(|| self.hop(from, stage));
        let size = (delivery.range.len(), delivery.bytes());
        self.push_or_wait(delivery, from)?;
        self.segment.shared.hops.passed((hop, self.segment.at), size);
        Ok(())
    }

    /// The way from a stage of a partition to this one, which begins now.
    fn hop(&self, from: &Self, stage: u16) -> Hop {
        let way = match self.site() {
            Site::Here if Arc::ptr_eq(&self.owner, &from.owner) => Some(HopWay::Worker),
            Site::Here => Some(HopWay::Node),
            Site::There(_) | Site::Between => None,
        };
        let from = (u16::try_from(from.segment.at).unwrap_or(u16::MAX), stage);
        Hop { from, way, since: Instant::now() }
    }

    fn push_or_wait(
        self: &Arc<Self>,
        delivery: Delivery,
        from: &Arc<Self>,
    ) -> Result<(), Delivery> {
        let Err(delivery) = self.push(delivery) else { return Ok(()) };
        {
            let mut blocked = lock(&self.blocked);
            if !blocked.iter().any(|other| Arc::ptr_eq(other, from)) {
                blocked.push(from.clone());
            }
        }
        // Room may have come between the two locks, and then nobody would schedule us.
        self.push(delivery)
    }

    /// How many runs are queued.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.inbox).deliveries.len()
    }

    /// How many events are queued.
    pub(crate) fn queued_events(&self) -> u64 {
        lock(&self.inbox).deliveries.iter().map(|one| one.range.len() as u64).sum()
    }

    /// Takes the next batch.
    pub(crate) fn take(&self) -> Option<Batch> {
        let (batch, hop) = {
            let mut inbox = lock(&self.inbox);
            let hop = inbox.deliveries.front().and_then(|first| first.hop);
            (inbox.next_batch()?, hop)
        };
        if let Some(hop) = hop {
            self.segment.shared.hops.took((hop, self.segment.at));
        }
        self.load.took(batch.frame.len());
        self.freed(batch.freed);
        Some(batch)
    }

    /// Takes everything that is queued, as it is.
    pub(crate) fn take_all(&self) -> Vec<Delivery> {
        let all: Vec<Delivery> = lock(&self.inbox).deliveries.drain(..).collect();
        self.freed(all.iter().map(Delivery::bytes).sum());
        self.segment.shared.left(all.len());
        all
    }

    fn freed(&self, bytes: usize) {
        if self.room.free(bytes) {
            self.tell_room();
        }
    }

    /// True if nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inbox).deliveries.is_empty()
    }

    /// Puts the partition on its worker's ready list, once.
    pub(crate) fn schedule(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.owner.ready).push(self.clone());
            self.owner.notify.notify_one();
        }
    }

    /// Called by the owner just before it runs the partition: from now on it may be queued again.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    pub(crate) fn command(self: &Arc<Self>, command: Command) {
        lock(&self.commands).push_back(command);
        self.schedule();
    }

    /// Answers commands while it does not run, so that nobody waits for it: it has nothing to give.
    pub(crate) fn refuse_commands(&self) {
        while let Some(command) = self.next_command() {
            match command {
                Command::Retire { reply, .. } => drop(reply.send(Retired::default())),
                Command::Codes(reply) => drop(reply.send(Vec::new())),
                Command::Leave(reply) => {
                    let retry_after = std::time::Duration::from_secs(1);
                    let busy = Error::Busy { what: "a partition that moves", retry_after };
                    drop(reply.send(Err(busy)));
                }
                Command::Resume | Command::GiveUp => {}
            }
        }
    }

    pub(crate) fn next_command(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    /// True if the partition did not run yet, and takes over parked events, timers, open streams or
    /// state that expires.
    pub(crate) fn waits_for_time(&self) -> bool {
        let stages = &self.segment.plan.stages;
        let expires =
            |name: &str| stages.iter().any(|stage| stage.name == name && stage.state_ttl.is_some());
        let states = &lock(&self.inherited).states;
        states.iter().any(|(name, _)| stage_of_state(name).1 != Part::Own || expires(name))
    }

    pub(crate) fn take_inherited(&self) -> Inherited {
        std::mem::take(&mut *lock(&self.inherited))
    }

    /// It has given up what it goes on from.
    pub(crate) fn set_absent(&self) {
        self.absent.store(true, Ordering::Release);
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Acquire)
    }

    /// What it goes on from when it next runs, which it may from now on.
    pub(crate) fn set_inherited(&self, inherited: Inherited) {
        *lock(&self.inherited) = inherited;
        self.absent.store(false, Ordering::Release);
    }

    /// Where its partition is.
    pub(crate) fn site(&self) -> Site {
        self.segment.shared.sites.of(self.partition)
    }

    /// What has come from other nodes; none if nothing may.
    pub(crate) fn gate(&self) -> MutexGuard<'_, Option<Box<Gate>>> {
        lock(&self.gate)
    }

    /// A commit with these pieces is on disk: whoever sent them is told.
    pub(crate) fn settle(&self, pieces: &[Piece]) {
        let told = self.gate().as_mut().map(|gate| gate.settle(pieces));
        let Some(durable) = &self.segment.durable else { return };
        let (pipeline, root, partition) = (durable.pipeline.id, durable.root(), self.partition);
        for (peer, places) in told.unwrap_or_default() {
            if let Some(trunk) = self.segment.shared.trunks.get(peer) {
                trunk.say(&Message::Settled { of: At { pipeline, root, partition }, places });
            }
        }
    }

    /// The node that has the partition says something. False if it is more than it may.
    pub(crate) fn returned(self: &Arc<Self>, what: Returned) -> bool {
        let is_taken = lock(&self.returns).push(what);
        self.schedule();
        is_taken
    }

    /// What it said since.
    pub(crate) fn take_returns(&self) -> Returns {
        std::mem::take(&mut *lock(&self.returns))
    }

    pub(crate) fn set_halted(&self, halt: Option<Halt>) {
        *lock(&self.halted) = halt;
    }

    pub(crate) fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Release);
    }

    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    pub(crate) fn halted(&self) -> Option<Halt> {
        lock(&self.halted).clone()
    }

    #[cold]
    fn tell_room(&self) {
        for partition in std::mem::take(&mut *lock(&self.blocked)) {
            partition.schedule();
        }
    }
}

/// The waker of a partition's task.
impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.schedule();
    }
}
