//! The sending side of the ways to the process while it is up: who asks puts a small request into
//! the ring itself, which spares a wake-up of the keeper's thread; all else goes by the queue.
//!
//! Keeps true:
//! - What was sent is known by its number until it is answered, or who asked is gone.
//! - What is told is said before any request that is made later: both are put into the ring under
//!   one lock.
//! - What the ring has no room for waits in its order, and nothing goes past it: meanwhile who asks
//!   waits in the queue, and the keeper looks for room.
//! - The lock is held for no longer than it takes to copy a packet, and who asks does not wait for
//!   it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sluicebox_engine::gpu::{Outcome, Refused};
use sluicebox_gpu::host::Owner;
use sluicebox_gpu::wire::{Act, Ask, Want};
use sluicebox_link::ends::{Refusal, Sender as _};
use sluicebox_link::ring::RingSender;
use tokio::sync::oneshot;

use super::line::{Answered, Request};
use super::refused;

/// Requests that were sent and not answered, running submissions too; more are refused.
const WAITING_MAX: usize = 64 * 1024;

/// The same of one tenant.
const TENANT_WAITING_MAX: usize = 1_024;

/// Bytes that who asks copies into the ring itself: a worker has others' events to look after too.
pub(super) const DIRECT_BYTES_MAX: usize = 64 << 10;

/// Whoever waits for something that was sent.
#[derive(Debug)]
pub(super) struct Waiting {
    /// With it go those who wait.
    pub(super) owner: Option<Owner>,
    pub(super) answer: Option<oneshot::Sender<Answered>>,
    /// How it ends, of a submission whose answer is that it was taken.
    pub(super) ended: Option<oneshot::Sender<Outcome>>,
    /// It is a submission whose answer is how it has ended.
    pub(super) is_waited_for: bool,
    /// It is this tenant that is let in, or has other terms.
    pub(super) tenant: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) sender: RingSender,
    /// Of the last that was sent.
    number: u64,
    waiting: HashMap<u64, Waiting>,
    /// What the ring had no room for, in its order.
    unsent: VecDeque<(Vec<u8>, Bytes)>,
    /// How many of those that wait are of which tenant.
    of_tenants: HashMap<u64, usize>,
}

impl Sending {
    pub(super) fn new(sender: RingSender) -> Self {
        Self {
            sender,
            number: 0,
            waiting: HashMap::new(),
            unsent: VecDeque::new(),
            of_tenants: HashMap::new(),
        }
    }

    /// Whether nothing waits for room.
    pub(super) fn is_clear(&self) -> bool {
        self.unsent.is_empty()
    }

    /// How many answers are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether that was sent, some time or other.
    pub(super) const fn has_sent(&self, number: u64) -> bool {
        number > 0 && number <= self.number
    }

    /// Sends a request, or tells who asks that it is not taken.
    pub(super) fn send(&mut self, request: Request) {
        let Request { want, bytes, answer, ended } = request;
        if answer.is_closed() {
            return;
        }
        if let Some(full) = self.is_full(&want) {
            drop(answer.send(Err(full)));
            return;
        }
        let (owner, waits) = match &want {
            Want::Of(owner, Act::Submit { waits, .. }) => (Some(*owner), Some(*waits)),
            Want::Of(owner, _) => (Some(*owner), None),
            _ => (None, None),
        };
        self.number += 1;
        let ask = Ask { number: self.number, want };
        match ask.head(bytes.len()) {
            Ok(head) => {
                let waiting = Waiting {
                    owner,
                    answer: Some(answer),
                    ended: (waits == Some(false)).then_some(ended),
                    is_waited_for: waits == Some(true),
                    tenant: None,
                };
                self.put(ask.number, waiting);
                self.push(head, bytes);
            }
            Err(why) => drop(answer.send(Err(refused("gpu.limit", &why.to_string())))),
        }
    }

    /// Says something whose answer nobody waits for. By which number.
    pub(super) fn say(&mut self, want: Want) -> u64 {
        self.number += 1;
        let ask = Ask { number: self.number, want };
        let tenant = match &ask.want {
            Want::Tenant { tenant, .. } => Some(*tenant),
            _ => None,
        };
        let (owner, answer, ended) = (None, None, None);
        self.put(ask.number, Waiting { owner, answer, ended, is_waited_for: false, tenant });
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
        ask.number
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

    /// Somebody waits for what was sent by that number, or for its end.
    pub(super) fn put(&mut self, number: u64, waiting: Waiting) {
        if let Some(owner) = waiting.owner {
            *self.of_tenants.entry(owner.tenant().0).or_default() += 1;
        }
        self.waiting.insert(number, waiting);
    }

    /// Who waits for it, and does not any more.
    pub(super) fn take(&mut self, number: u64) -> Option<Waiting> {
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

    /// Its end of the ring, and all who wait, in whatever order.
    pub(super) fn into_parts(self) -> (RingSender, impl Iterator<Item = Waiting>) {
        (self.sender, self.waiting.into_values())
    }

    fn push(&mut self, head: Vec<u8>, bytes: Bytes) {
        self.unsent.push_back((head, bytes));
        self.send_unsent();
    }

    /// Puts what waits into the ring, as far as there is room.
    pub(super) fn send_unsent(&mut self) {
        while let Some((head, bytes)) = self.unsent.pop_front() {
            match self.sender.try_send(&[&head, &bytes]) {
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
}
