//! What goes between the node and the process while that is up: requests there, answers back, and
//! what is looked after meanwhile.
//!
//! Keeps true: who waits for an answer gets one, or is told that the process is lost; who is gone
//! is not waited for. What the process says is checked: an answer to what was not asked ends it.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_gpu::wire::{Answer, Reply, Want};
use sluicebox_link::ends::{Sender as _, recv};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::keeper::{Ended, Keeper, Running, said};
use super::line::{Request, lost, outcome};
use super::sending::Sending;
use super::status::{Phase, Up};
use super::{Gpus, refused};
use crate::mailbox::lock;

/// How often it is asked what was used, and whether it may rest.
const LOOK: Duration = Duration::from_secs(1);

/// How long the process may be silent when it is asked what it always knows.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(15);

/// What is to be done next.
enum Next {
    Stop,
    Gone,
    Heard(Bytes),
    News,
    Room,
    Asked(Request),
    Look,
}

/// Carries requests there and answers back while a process is up.
pub(super) struct Pump<'a> {
    gpus: &'a Gpus,
    keeper: &'a mut Keeper,
    running: &'a mut Running,
    up: Up,
    /// What is asked every now and then was not answered yet.
    figures_asked: Option<(u64, Instant)>,
    /// Tenants that the process refused: others may have had to let go of something first.
    again: BTreeSet<u64>,
    /// Since when nobody has anything.
    unused_since: Option<Instant>,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        gpus: &'a Gpus,
        keeper: &'a mut Keeper,
        running: &'a mut Running,
        up: Up,
    ) -> Self {
        Self {
            gpus,
            keeper,
            running,
            up,
            figures_asked: None,
            again: BTreeSet::new(),
            unused_since: None,
        }
    }

    pub(super) async fn run(&mut self) -> Ended {
        if let Some(sender) = self.running.sender.take() {
            let mut sending = Sending::new(sender);
            for want in self.gpus.introduction() {
                self.say(&mut sending, want);
            }
            self.gpus.line.set_sending(sending);
        }
        self.gpus.status.set_phase(Phase::Up(self.up.clone()));
        self.gpus.line.forget_wanted();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = match self.next(&mut look).await {
                Next::Stop => Some(Ended::Stopped),
                Next::Gone => Some(Ended::Failed(lost())),
                Next::Heard(packet) => self.heard(&packet),
                Next::News => {
                    self.tell();
                    None
                }
                Next::Room => {
                    self.with_sending(|_, sending| sending.send_unsent());
                    None
                }
                Next::Asked(request) => {
                    // What it was told before comes first.
                    self.with_sending(|pump, sending| {
                        pump.tell_all(sending);
                        sending.send(request);
                    });
                    None
                }
                Next::Look => self.look(),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Waits for what is to be done next.
    async fn next(&mut self, look: &mut Interval) -> Next {
        let line = &self.gpus.line;
        let may_send = lock(line.sending()).as_ref().is_some_and(Sending::is_clear);
        let room = poll_fn(|cx| match &mut *lock(line.sending()) {
            Some(sending) => sending.sender.poll_room(cx).map(Result::ok),
            None => Poll::Ready(None),
        });
        let Keeper { queue, stop, .. } = &mut *self.keeper;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Next::Stop,
            _ = look.tick() => Next::Look,
            () = line.news() => Next::News,
            packet = recv(&mut self.running.receiver) => packet.map_or(Next::Gone, Next::Heard),
            room = room, if !may_send => room.map_or(Next::Gone, |()| Next::Room),
            request = queue.recv(), if may_send => request.map_or(Next::Stop, Next::Asked),
        }
    }

    /// All who wait are told that it is lost.
    pub(super) fn end(&mut self) {
        self.gpus.status.note_loss();
        let Some(sending) = lock(self.gpus.line.sending()).take() else { return };
        let (sender, waiting) = sending.into_parts();
        // The process ends when it is closed, and how it ended by itself is still to be seen.
        self.running.sender = Some(sender);
        // In whatever order: each is told the same.
        waiting.filter_map(|waiting| waiting.answer).for_each(|answer| {
            drop(answer.send(Err(lost())));
        });
    }

    /// Does something with the sending side.
    fn with_sending<T>(&mut self, does: impl FnOnce(&mut Self, &mut Sending) -> T) -> Option<T> {
        let line = self.gpus.line.clone();
        lock(line.sending()).as_mut().map(|sending| does(self, sending))
    }

    /// Says all that the process is to be told.
    fn tell_all(&self, sending: &mut Sending) {
        for want in self.gpus.line.take_told() {
            self.say(sending, want);
        }
    }

    fn say(&self, sending: &mut Sending, want: Want) {
        let tenant = match &want {
            Want::Tenant { tenant, .. } => Some(*tenant),
            _ => None,
        };
        sending.say(want);
        if let Some(tenant) = tenant {
            self.say_quarantined(sending, tenant);
        }
    }

    /// Says which kernels of a tenant are not to run again.
    fn say_quarantined(&self, sending: &mut Sending, tenant: u64) {
        if self.keeper.quarantined.is_empty() {
            return;
        }
        let Some(name) = self.gpus.names().remove(&tenant) else { return };
        let kernels = self.keeper.quarantined.iter().filter(|(of, _)| *of == name);
        for kernel in kernels.map(|(_, kernel)| *kernel) {
            sending.say(Want::Quarantine { tenant, kernel });
        }
    }

    fn tell(&mut self) {
        self.with_sending(|pump, sending| pump.tell_all(sending));
    }

    /// Takes a packet. Gives how the process ended, if it did.
    fn heard(&mut self, packet: &Bytes) -> Option<Ended> {
        let nonsense = |what: &str| Some(Ended::Failed(refused("gpu.lost", what)));
        let Ok((reply, tail)) = Reply::read(packet) else {
            return nonsense("the process sent what is no packet");
        };
        match reply.answer {
            Answer::Begun { info, generation } => {
                self.gpus.status.note_loss();
                let measures = self.up.measures.clone();
                self.up = Up { info, generation, pid: self.up.pid, measures };
                self.keeper.generation = generation.wrapping_add(1);
                self.gpus.status.set_phase(Phase::Up(self.up.clone()));
                None
            }
            Answer::Hung { kernel, tenant } => {
                self.gpus.status.note_hang();
                let tenant = self.gpus.names().remove(&tenant);
                self.keeper.quarantine(tenant.zip(kernel));
                nonsense("a kernel did not end, and the process with it")
            }
            answer => {
                let tail = packet.slice_ref(tail);
                match self.answered(reply.number, answer, tail) {
                    true => None,
                    false => nonsense("the process answered what was not asked"),
                }
            }
        }
    }

    /// Passes an answer on. False if nobody had asked.
    fn answered(&mut self, number: u64, answer: Answer, tail: Bytes) -> bool {
        let taken = self.with_sending(|_, sending| match sending.take(number) {
            Some(waiting) => Ok(waiting),
            // It may be of somebody who is gone.
            None => Err(sending.has_sent(number)),
        });
        let mut waiting = match taken {
            Some(Ok(waiting)) => waiting,
            Some(Err(was_sent)) => return was_sent,
            None => return false,
        };
        if let Answer::Ended { end, device_nanos } = answer {
            // Who does not wait any more needs no outcome.
            match (waiting.ended, waiting.answer) {
                (Some(ended), None) => drop(ended.send(outcome(end, device_nanos))),
                (None, Some(asked)) if waiting.is_waited_for => {
                    drop(asked.send(Ok((answer, tail))));
                }
                _ => return false,
            }
            return true;
        }
        if self.figures_asked.is_some_and(|(asked, _)| asked == number) {
            self.figures_asked = None;
            if let Answer::Figures(figures) = answer {
                self.gpus.status.set_figures(figures);
            }
            return true;
        }
        let is_taken = matches!(answer, Answer::Handle(_)) && waiting.ended.is_some();
        match (waiting.answer.take(), answer) {
            (Some(asked), Answer::Refused(why)) => drop(asked.send(Err(said(why)))),
            (Some(asked), answer) if is_taken => {
                // Before who asks can have it known that it does not wait any more.
                self.with_sending(|_, sending| sending.put(number, waiting));
                drop(asked.send(Ok((answer, tail))));
            }
            (Some(asked), answer) => drop(asked.send(Ok((answer, tail)))),
            (None, Answer::Refused(why)) => {
                tracing::warn!("the GPU's process refuses: {}", said(why));
                self.again.extend(waiting.tenant);
            }
            (None, _) => {}
        }
        true
    }

    /// What is done every now and then. Gives how it ends, if it does.
    fn look(&mut self) -> Option<Ended> {
        match self.figures_asked {
            // One that is stuck in its driver does not end by itself.
            Some((_, since)) if since.elapsed() >= SILENCE_TIME_MAX => {
                return Some(Ended::Failed(refused("gpu.lost", "the process does not answer")));
            }
            Some(_) => {}
            None => {
                let number = self.with_sending(|_, sending| sending.say(Want::Figures));
                self.figures_asked = number.map(|number| (number, Instant::now()));
            }
        }
        let again = std::mem::take(&mut self.again);
        self.with_sending(|pump, sending| {
            for want in again.into_iter().flat_map(|tenant| pump.gpus.introduction_of(tenant)) {
                pump.say(sending, want);
            }
        });
        let mut sending = lock(self.gpus.line.sending());
        // One of those who wait is ourselves, for the figures.
        let is_waited_for = sending.as_ref().is_some_and(|sending| sending.waiting() > 1);
        if self.gpus.line.sessions().count() > 0 || is_waited_for {
            self.unused_since = None;
            return None;
        }
        let since = *self.unused_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.gpus.config.idle_time_max {
            return None;
        }
        // Who asks from here on does so by the queue, and is heard by the next process.
        self.running.sender = sending.take().map(|sending| sending.into_parts().0);
        Some(Ended::AtRest)
    }
}
