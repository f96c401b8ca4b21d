//! Feeds one partition's machine and performs what it decides.
//!
//! One batch a turn: take it from the inbox, make the calls the machine asks for, pass the commit
//! on, and give the thread back. A partition whose runs are not all accepted takes no batch; it is
//! scheduled again when there is room. What was taken counts as in flight until all that came of
//! it has been passed on.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use sluicebox_core::frame::Frame;
use sluicebox_core::key;
use sluicebox_core::partition::Partition;
use tokio::sync::oneshot;

use super::cold::{GivenUp, Keeping};
use super::expiry::Expiring;
use super::handed::Handed;
use super::invokers::Invokers;
use super::parked::Parked;
use super::record::Recording;
use super::spans::Followed;
use super::streams::Rest;
use super::time::Timing;
use super::{Life, Local};
use crate::error::Error;
use crate::mailbox::{Command, Delivery, Inherited, Mailbox, Retired};
use crate::running::SegmentRuntime;

/// How long a batch goes on without giving others a turn.
pub(super) const SLICE: Duration = Duration::from_micros(500);

/// Runs a partition until it is retired.
pub(super) async fn run(mailbox: Arc<Mailbox>, local: Rc<Local>, life: Rc<Life>) {
    let segment = mailbox.segment.clone();
    let seed = key::hash(&local.clock.now().to_le_bytes()) ^ std::process::id() as u64;
    let mut machine = Partition::new(segment.plan.clone(), seed);
    let inherited = mailbox.take_inherited();
    for (name, state) in inherited.states {
        machine.adopt(&name, state);
    }
    if let Some(durable) = &segment.durable {
        let ids = durable.ids(mailbox.partition);
        machine.keep_ledger(ids, inherited.progress.unwrap_or_default());
    }
    if segment.shared.event_time.is_some() {
        machine.keep_event_time();
        machine.raise_watermark(inherited.watermark);
    }
    let invokers = segment.stages.iter().map(|stage| local.invokers(stage)).collect();
    let mut driver = Driver {
        mailbox,
        segment,
        local,
        life,
        machine,
        invokers,
        outgoing: Vec::new(),
        taken: 0,
        commits: 0,
        retire: None,
        leave: None,
        carry: false,
        giving_up: false,
        ends: Arc::default(),
        parked: Parked::default(),
        expiring: Expiring::default(),
        stopped: false,
        recording: Recording::default(),
        keeping: Keeping::default(),
        timing: Timing::default(),
        rest: Rest::default(),
        handed: Handed::default(),
        spans: Followed::default(),
    };
    driver.back_state();
    driver.spare_instances();
    driver.note_state();
    while driver.turn().await {}
}

pub(super) struct Driver {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) segment: Arc<SegmentRuntime>,
    pub(super) local: Rc<Local>,
    pub(super) life: Rc<Life>,
    pub(super) machine: Partition,
    pub(super) invokers: Vec<Invokers>,
    /// Runs not accepted yet.
    pub(super) outgoing: Vec<(Arc<Mailbox>, Delivery)>,
    /// Frames of the inbox whose results are not all passed on yet.
    taken: usize,
    commits: u64,
    pub(super) retire: Option<oneshot::Sender<Retired>>,
    /// It goes to another node.
    pub(super) leave: Option<oneshot::Sender<Result<Inherited, Error>>>,
    /// On retiring, give up what cannot be finished.
    pub(super) carry: bool,
    /// On retiring, it ends streams and does nothing else any more.
    pub(super) giving_up: bool,
    /// On retiring, the stages whose streams end.
    pub(super) ends: Arc<BTreeSet<String>>,
    pub(super) parked: Parked,
    pub(super) expiring: Expiring,
    /// It takes nothing more, whatever comes.
    pub(super) stopped: bool,
    pub(super) recording: Recording,
    pub(super) keeping: Keeping,
    pub(super) timing: Timing,
    pub(super) rest: Rest,
    pub(super) handed: Handed,
    /// What is seen of the batch whose traces are kept.
    pub(super) spans: Followed,
}

impl Driver {
    /// One turn. False when the partition is retired.
    async fn turn(&mut self) -> bool {
        self.obey().await;
        if self.life.trim.take() {
            self.trim().await;
        }
        self.keep_time(self.local.clock.now());
        let halted = self.machine.halted().is_some();
        if !self.log() || !self.deliver() || self.stopped || halted || self.giving_up {
            return self.stand(halted).await;
        }
        if let Some(until) = self.rest.until(self.local.clock.now()) {
            if self.carry && self.retire.is_some() {
                self.retired();
                return false;
            }
            let tick = self.timing.next_tick;
            self.sleep_with(Some(tick.map_or(until, |tick| tick.min(until))), false).await;
            return true;
        }
        if self.leaves() {
            return false;
        }
        if self.waits_for_sinks() {
            return self.stand(false).await;
        }
        self.note_horizon();
        if self.retire.is_none() && !self.has_memory() {
            self.sleep_with(self.timing.next_tick, false).await;
            return true;
        }
        let now = self.local.clock.now();
        self.note_time(now);
        if self.upgrade_streams(now).await {
            // What is left of them comes before anything else.
        } else if self.start_divided(now) || self.start_by_time(now) {
            self.batch(now).await;
        } else if self.start_expiry(now).await {
            // It is no less idle for it.
            let sweeps = self.life.idle_sweeps.get();
            self.batch(now).await;
            self.life.idle_sweeps.set(sweeps);
        } else if let Some(batch) = self.mailbox.take() {
            self.taken += batch.done;
            self.timing.took(batch.done);
            let tenant = &self.segment.shared.tenant;
            // With a log what is there leaves; only what would never fit is refused.
            let memory = tenant.state_bytes();
            let room = if self.segment.durable.is_some() { memory.most() } else { memory.room() };
            self.machine.bound_state(room);
            self.machine.bound_streams(tenant.streams().room());
            self.spans = Followed::of(&self.segment, &batch);
            if self.start(batch.frame, batch.parts, now) {
                self.batch(now).await;
            }
        } else if self.retire.is_some() {
            self.retired();
            return false;
        } else {
            self.wait().await;
            return true;
        }
        // Others first; then, if there is more, us again.
        let divided = !self.recording.divided.is_empty() || self.leave.is_some();
        let noted = !self.has_time_to_note();
        if !self.mailbox.is_empty() || divided || self.retire.is_some() || !noted {
            self.mailbox.schedule();
        }
        self.wait().await;
        true
    }

    /// Starts a batch. False if it cannot be.
    fn start(&mut self, frame: Frame, parts: Vec<Delivery>, now: u64) -> bool {
        self.note_late(&frame);
        if self.segment.durable.is_some() {
            return self.start_recorded(frame, parts, now);
        }
        self.recording.events = frame.len() as u64;
        self.machine.start(frame, now);
        true
    }

    /// Sleeps until something happens, or time brings something to do.
    async fn wait(&mut self) {
        self.sleep_with(self.next_by_time(), true).await;
    }

    /// Sleeps until something happens, or to this time. `rests`: it has nothing to do until then.
    pub(super) async fn sleep_with(&self, until: Option<u64>, rests: bool) {
        self.mailbox.set_sleeps_until(if rests { until.unwrap_or(u64::MAX) } else { 0 });
        match until {
            None => park().await,
            Some(next) => {
                let left = next.saturating_sub(self.local.clock.now()).max(1);
                let sleep = tokio::time::sleep(Duration::from_micros(left));
                tokio::select! {
                    // Only one of the two can come first; the order does not matter.
                    biased;
                    () = park() => {}
                    () = sleep => {}
                }
            }
        }
        self.mailbox.set_sleeps_until(0);
    }

    async fn obey(&mut self) {
        while let Some(command) = self.mailbox.next_command() {
            match command {
                Command::Resume => self.resume().await,
                // Whoever asked may have given up.
                Command::Codes(reply) => drop(reply.send(self.machine.open_codes())),
                Command::Retire { reply, carry, ends } => {
                    self.retire = Some(reply);
                    self.carry = carry;
                    self.ends = ends;
                }
                Command::GiveUp => self.carry = true,
                Command::Leave(reply) => self.leave = Some(reply),
            }
        }
    }

    /// Runs the batch of a halted partition again, and lets parked events be tried at once.
    async fn resume(&mut self) {
        let halted = self.machine.resume();
        self.machine.hurry_parked();
        self.rest.hurry();
        let Some(frame) = halted else { return };
        self.recording.taken_back();
        self.mailbox.set_halted(None);
        self.drop_instances();
        let now = self.local.clock.now();
        let parts = std::mem::take(&mut self.recording.parts);
        self.spans = Followed::again(&self.segment, &frame);
        if !frame.is_empty() && self.start(frame, parts, now) {
            self.batch(now).await;
        }
    }

    async fn trim(&mut self) {
        for (invokers, stage) in self.invokers.iter_mut().zip(&self.segment.stages) {
            for invoker in invokers.all() {
                invoker.trim();
                if self.segment.durable.is_some() {
                    // Those of streams are made again.
                    invoker.abandon();
                } else {
                    invoker.put_away().await;
                }
            }
            stage.note_instances();
        }
        let given_up = self.give_up_state();
        if given_up == GivenUp::Piece {
            // The rest in turns of its own, beside others'.
            self.life.trim.set(true);
            self.mailbox.schedule();
        }
        // What is too new to leave is tried again later.
        self.life.set_warm(&self.local, given_up != GivenUp::All);
    }

    /// Makes all calls of the batch that was started, and passes on its commit.
    pub(super) async fn batch(&mut self, now: u64) {
        self.life.idle_sweeps.set(0);
        self.life.set_warm(&self.local, true);
        self.commits += 1;
        self.rest.used.clone_from(&self.recording.used);
        self.rest.losses = self.losses();
        let number = [self.mailbox.partition.to_le_bytes().as_slice(), &now.to_le_bytes()].concat();
        let seed = key::hash(&number).wrapping_add(self.commits);
        self.machine.set_seed(seed);
        self.handed.begin();
        self.make_calls(now, seed).await;
        // Whatever became of it: what is run again attaches anew.
        self.segment.stages.iter().filter_map(|stage| stage.settings.gpu.as_ref()).for_each(
            |gpu| {
                gpu.end_batch(seed);
            },
        );
    }

    async fn make_calls(&mut self, now: u64, seed: u64) {
        let mut began = Instant::now();
        loop {
            while let Some(call) = self.machine.next_call() {
                if !self.call(call, now, seed).await {
                    return;
                }
                // Many short calls are a slice as well.
                if began.elapsed() >= SLICE {
                    self.mailbox.schedule();
                    park().await;
                    began = Instant::now();
                }
            }
            let Some(wanted) = self.machine.take_wanted() else { break };
            if !self.load(wanted).await {
                return;
            }
            began = Instant::now();
        }
        if let Some(halt) = self.machine.halted() {
            tracing::error!(
                tenant = %self.segment.shared.tenant.name(),
                pipeline = %self.segment.shared.name,
                stage = halt.stage,
                partition = self.mailbox.partition,
                "halted: {}", halt.message,
            );
            self.mailbox.set_halted(Some(halt.clone()));
            return;
        }
        self.segment.shared.metrics.commits.inc();
        if self.rest.over() {
            self.mailbox.set_short(false);
        }
        if self.segment.durable.is_some() {
            self.take_images().await;
            self.spare_instances();
            self.commit_recorded();
            self.note_state();
            return;
        }
        let commit = self.machine.finish();
        for (stage, events) in self.segment.stages.iter().zip(self.recording.taken()) {
            stage.metrics.taken.add(events);
        }
        self.note_state();
        self.spans.commits(|| self.local.clock.now());
        self.pass_on(commit);
        self.committed(None);
    }

    /// Tries to get rid of the runs at hand. False if some are left.
    pub(super) fn deliver(&mut self) -> bool {
        let from = &self.mailbox;
        // In order: a later run must not overtake an earlier one to the same partition.
        let mut stuck: Vec<(Arc<Mailbox>, Delivery)> = Vec::new();
        for (to, delivery) in self.outgoing.drain(..) {
            let behind = stuck.iter().any(|(other, _)| Arc::ptr_eq(other, &to));
            let refused = if behind { Err(delivery) } else { to.push_or_block(delivery, from) };
            if let Err(delivery) = refused {
                stuck.push((to, delivery));
            }
        }
        self.outgoing = stuck;
        let done = self.machine.halted().is_none() && self.recording.divided.is_empty();
        if self.outgoing.is_empty() && done && self.taken > 0 {
            self.segment.shared.left(std::mem::take(&mut self.taken));
        }
        self.outgoing.is_empty()
    }

    pub(super) fn note_state(&mut self) {
        self.note_parked();
        self.note_timers();
        self.note_expired();
        let after = self.machine.state_bytes();
        let before = self.mailbox.state_bytes.swap(after, Ordering::Relaxed);
        self.segment.shared.tenant.state_bytes().changed(before, after);
        let after = self.machine.open_streams();
        let before = self.mailbox.open_streams.swap(after, Ordering::Relaxed);
        self.segment.shared.tenant.streams().changed(before, after);
        let of_before = self.machine.streams_of_before();
        self.mailbox.streams_of_before.store(of_before, Ordering::Relaxed);
    }
}

/// Pending once: the next poll is the answer.
pub(super) async fn park() {
    let mut parked = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut parked, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
