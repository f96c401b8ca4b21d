//! What goes between the node and the process while that is up: requests there, answers back, and
//! what is looked after meanwhile.
//!
//! Keeps true: who waits for an answer gets one, or is told that the process is lost; who is gone
//! is not waited for. What the process says is checked: an answer to what was not asked ends it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_engine::gpu::{End, Outcome, Refused};
use sluicebox_gpu::host::Owner;
use sluicebox_gpu::wire::{self, Act, Answer, Ask, Reply, Want};
use sluicebox_link::ends::{Refusal, Sender as _, recv, room};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::keeper::{Ended, Keeper, Running, said};
use super::line::{Answered, Request, lost};
use super::status::{Phase, Up};
use super::{Gpus, refused};

/// How often it is asked what was used, and whether it may rest.
const LOOK: Duration = Duration::from_secs(1);

/// Requests that were sent and not answered, running submissions too; more are refused.
const WAITING_MAX: usize = 64 * 1024;

/// The same of one tenant.
const TENANT_WAITING_MAX: usize = 1_024;

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

/// Whoever waits for something that was sent.
struct Waiting {
    /// With it go those who wait.
    owner: Option<Owner>,
    answer: Option<oneshot::Sender<Answered>>,
    ended: Option<oneshot::Sender<Outcome>>,
    /// It is this tenant that is let in, or has other terms.
    tenant: Option<u64>,
}

/// Carries requests there and answers back while a process is up.
pub(super) struct Pump<'a> {
    gpus: &'a Gpus,
    keeper: &'a mut Keeper,
    running: &'a mut Running,
    up: Up,
    /// Of the last that was sent.
    number: u64,
    waiting: HashMap<u64, Waiting>,
    /// What the ring had no room for, in its order.
    unsent: VecDeque<(Vec<u8>, Bytes)>,
    /// How many of them are of which tenant.
    of_tenants: HashMap<u64, usize>,
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
            number: 0,
            waiting: HashMap::new(),
            unsent: VecDeque::new(),
            of_tenants: HashMap::new(),
            figures_asked: None,
            again: BTreeSet::new(),
            unused_since: None,
        }
    }

    pub(super) async fn run(&mut self) -> Ended {
        for want in self.gpus.introduction() {
            self.say(want);
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
                    self.send_unsent();
                    None
                }
                Next::Asked(request) => {
                    self.send(request);
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
        let may_send = self.unsent.is_empty();
        let is_full = !self.unsent.is_empty();
        let Running { sender, receiver, .. } = &mut *self.running;
        let Keeper { queue, stop, .. } = &mut *self.keeper;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Next::Stop,
            _ = look.tick() => Next::Look,
            () = self.gpus.line.news() => Next::News,
            packet = recv(receiver) => packet.map_or(Next::Gone, Next::Heard),
            room = room(sender), if is_full => room.map_or(Next::Gone, |()| Next::Room),
            request = queue.recv(), if may_send => request.map_or(Next::Stop, Next::Asked),
        }
    }

    /// All who wait are told that it is lost.
    pub(super) fn end(&mut self) {
        self.gpus.status.note_loss();
        // In whatever order: each is told the same.
        let waiting = std::mem::take(&mut self.waiting).into_values();
        waiting.filter_map(|waiting| waiting.answer).for_each(|answer| {
            drop(answer.send(Err(lost())));
        });
    }

    fn send(&mut self, request: Request) {
        // What it was told before comes first.
        self.tell();
        let Request { want, bytes, answer, ended } = request;
        if answer.is_closed() {
            return;
        }
        if let Some(full) = self.is_full(&want) {
            drop(answer.send(Err(full)));
            return;
        }
        let (owner, ended) = match &want {
            Want::Of(owner, Act::Submit { .. }) => (Some(*owner), Some(ended)),
            Want::Of(owner, _) => (Some(*owner), None),
            _ => (None, None),
        };
        self.number += 1;
        let ask = Ask { number: self.number, want };
        match ask.head(bytes.len()) {
            Ok(head) => {
                let tenant = None;
                self.put(ask.number, Waiting { owner, answer: Some(answer), ended, tenant });
                self.push(head, bytes);
            }
            Err(why) => drop(answer.send(Err(refused("gpu.limit", &why.to_string())))),
        }
    }

    /// Says something whose answer nobody waits for.
    fn say(&mut self, want: Want) {
        self.number += 1;
        let ask = Ask { number: self.number, want };
        let tenant = match &ask.want {
            Want::Tenant { tenant, .. } => Some(*tenant),
            _ => None,
        };
        self.put(ask.number, Waiting { owner: None, answer: None, ended: None, tenant });
        // Nothing that they have asked for is answered from here on.
        match ask.want {
            Want::DropOwner { owner: gone } => self.forget(|owner| owner == gone),
            Want::CloseStage { stage } => self.forget(|owner| owner.stage == stage),
            Want::CloseTenant { tenant } => self.forget(|owner| owner.tenant().0 == tenant),
            _ => {}
        }
        // All that is told this way is small.
        if let Ok(head) = ask.head(0) {
            self.push(head, Bytes::new());
        }
        if let Want::Tenant { tenant, .. } = ask.want {
            self.say_quarantined(tenant);
        }
    }

    /// Says which kernels of a tenant are not to run again.
    fn say_quarantined(&mut self, tenant: u64) {
        if self.keeper.quarantined.is_empty() {
            return;
        }
        let Some(name) = self.gpus.names().remove(&tenant) else { return };
        let kernels = self.keeper.quarantined.iter().filter(|(of, _)| *of == name);
        for kernel in kernels.map(|(_, kernel)| *kernel).collect::<Vec<_>>() {
            self.say(Want::Quarantine { tenant, kernel });
        }
    }

    fn forget(&mut self, is_gone: impl Fn(Owner) -> bool) {
        let all = self.waiting.iter().filter(|(_, it)| it.owner.is_some_and(&is_gone));
        for number in all.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.take(number);
        }
    }

    /// Why no more can be asked for, if so.
    fn is_full(&self, want: &Want) -> Option<Refused> {
        let Want::Of(owner, _) = want else { return None };
        let own = self.of_tenants.get(&owner.tenant().0).copied().unwrap_or_default();
        let is_full = own >= TENANT_WAITING_MAX || self.waiting.len() >= WAITING_MAX;
        let text = "the tenant has as much under way as it may: wait until some has ended";
        is_full.then(|| refused("gpu.would-block", text))
    }

    fn put(&mut self, number: u64, waiting: Waiting) {
        if let Some(owner) = waiting.owner {
            *self.of_tenants.entry(owner.tenant().0).or_default() += 1;
        }
        self.waiting.insert(number, waiting);
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        if let Some(owner) = waiting.owner
            && let Entry::Occupied(mut count) = self.of_tenants.entry(owner.tenant().0)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(waiting)
    }

    fn tell(&mut self) {
        for want in self.gpus.line.take_told() {
            self.say(want);
        }
    }

    fn push(&mut self, head: Vec<u8>, bytes: Bytes) {
        self.unsent.push_back((head, bytes));
        self.send_unsent();
    }

    fn send_unsent(&mut self) {
        while let Some((head, bytes)) = self.unsent.pop_front() {
            match self.running.sender.try_send(&[&head, &bytes]) {
                Ok(()) => {}
                Err(Refusal::Full) => {
                    self.unsent.push_front((head, bytes));
                    return;
                }
                // That it is over is heard by the other end as well.
                Err(Refusal::TooLarge { .. } | Refusal::Over(_)) => return,
            }
        }
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
        let Some(mut waiting) = self.take(number) else {
            // It may be of somebody who is gone.
            return number > 0 && number <= self.number;
        };
        if let Answer::Ended { end, device_nanos } = answer {
            let Some(ended) = waiting.ended.take() else { return false };
            // Who does not wait any more needs no outcome.
            let _unheard = ended.send(Outcome { end: port_end(end), device_nanos });
            if let Some(asked) = waiting.answer {
                drop(asked.send(Ok((answer, tail))));
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
        match waiting.answer.take() {
            Some(asked) => {
                let answer = match answer {
                    Answer::Refused(why) => Err(said(why)),
                    answer => Ok((answer, tail)),
                };
                drop(asked.send(answer));
            }
            None => {
                if let Answer::Refused(why) = answer {
                    tracing::warn!("the GPU's process refuses: {}", said(why));
                    self.again.extend(waiting.tenant);
                }
            }
        }
        if is_taken {
            self.put(number, waiting);
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
                self.say(Want::Figures);
                self.figures_asked = Some((self.number, Instant::now()));
            }
        }
        for tenant in std::mem::take(&mut self.again) {
            for want in self.gpus.introduction_of(tenant) {
                self.say(want);
            }
        }
        if self.gpus.line.sessions().count() > 0 || self.waiting.len() > 1 {
            self.unused_since = None;
            return None;
        }
        let since = *self.unused_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= self.gpus.config.idle_time_max).then_some(Ended::AtRest)
    }
}

fn port_end(end: wire::End) -> End {
    match end {
        wire::End::Whole => End::Whole,
        wire::End::Fuel => End::Fuel,
        wire::End::Cancelled => End::Cancelled,
        wire::End::Deadline => End::Deadline,
        wire::End::Overdue => End::Overdue,
        wire::End::Poisoned => End::Poisoned,
        wire::End::Refused => End::Refused,
        wire::End::Lost => End::Lost,
    }
}
