//! What is to be written to the device and read from it: it waits for its stage's turn.
//!
//! Keeps true:
//! - Those of a stage are in the order in which they came. The scheduler knows how many there are,
//!   and says whose turn it is.
//! - How many bytes wait is bounded, within a tenant first: who has much on its way is refused
//!   before others.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::refusal::{refusal, would_block};
use super::{Owners, Said, Server, done, named};
use crate::device::Device;
use crate::host::Owner;
use crate::slice::{Stage, Tenant};
use crate::wire::{Answer, Refusal};

/// Bytes of a tenant that wait: sixteen of the largest packets.
const TENANT_WAITING_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes of all that wait with which nothing more is taken.
const WAITING_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Bytes that are copied in a turn, and how often: then it is looked at who else asks.
const COPIED_BYTES_MAX: u64 = 8 * 1024 * 1024;
const COPIED_MAX: usize = 32;
/// What one that waits takes besides its bytes.
const COPY_BYTES: u64 = 256;

/// What is to be copied.
#[derive(Debug)]
pub(super) enum Copy {
    /// A new buffer may have to be cleared.
    Create { bytes: u64 },
    /// To a buffer.
    Write { buffer: u64, offset: u64, tail: Vec<u8> },
    /// From a buffer.
    Read { buffer: u64, offset: u64, bytes: usize },
    /// All of a constant.
    Constant { hash: [u8; 32], tail: Vec<u8> },
}

impl Copy {
    /// Bytes that it takes here, or will.
    fn bytes(&self) -> u64 {
        COPY_BYTES
            + match self {
                Self::Create { .. } => 0,
                Self::Write { tail, .. } | Self::Constant { tail, .. } => tail.len() as u64,
                Self::Read { bytes, .. } => *bytes as u64,
            }
    }
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) who: Owner,
    pub(super) copy: Copy,
}

impl<D: Device> Server<D> {
    /// Has a copy wait for its turn.
    pub(super) fn copy(&mut self, number: u64, who: Owner, copy: Copy) -> Said {
        self.expect_open(who.stage)?;
        self.copies.add(Waiting { number, who, copy })?;
        self.host.want_copy(who.stage).map_err(refusal)?;
        Ok(None)
    }

    /// Makes copies whose turn it is, as many as are made at once.
    pub(super) fn copy_due(&mut self, now: Duration) {
        let mut copied = 0;
        for _ in 0..COPIED_MAX {
            let due = if copied < COPIED_BYTES_MAX { self.host.due_copy(now) } else { None };
            let Some(stage) = due else { return };
            self.host.begin_copy(stage);
            let Some((waiting, bytes)) = self.copies.next(stage) else { continue };
            copied += bytes;
            let said = self.make_copy(now, waiting.who, waiting.copy);
            self.say(waiting.number, said);
            self.settle();
        }
    }

    fn make_copy(&mut self, now: Duration, who: Owner, copy: Copy) -> Said {
        let host = &mut self.host;
        match copy {
            Copy::Create { bytes } => named(host.create(now, who, bytes)),
            Copy::Write { buffer, offset, tail } => {
                host.write(who, buffer, offset, &tail).map_err(refusal)?;
                done()
            }
            Copy::Read { buffer, offset, bytes } => {
                let mut into = vec![0; bytes];
                host.read(who, buffer, offset, &mut into).map_err(refusal)?;
                Ok(Some((Answer::Done, into)))
            }
            Copy::Constant { hash, tail } => named(host.constant(now, who, hash, &tail)),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// None of them is empty.
    stages: BTreeMap<Stage, VecDeque<Waiting>>,
    /// Of all that wait, and of those of each tenant that has any.
    bytes: u64,
    tenants: BTreeMap<Tenant, u64>,
}

impl Copies {
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// Has one wait behind the others of its stage.
    fn add(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        let Waiting { who, copy, .. } = &waiting;
        let (tenant, bytes) = (who.tenant(), copy.bytes());
        let theirs = self.tenants.get(&tenant).copied().unwrap_or_default() + bytes;
        if theirs > TENANT_WAITING_BYTES_MAX {
            return Err(full(theirs));
        }
        self.bytes += bytes;
        self.tenants.insert(tenant, theirs);
        self.stages.entry(who.stage).or_default().push_back(waiting);
        Ok(())
    }

    /// The next of a stage, and how many bytes it is.
    fn next(&mut self, stage: Stage) -> Option<(Waiting, u64)> {
        let queue = self.stages.get_mut(&stage)?;
        let waiting = queue.pop_front()?;
        if queue.is_empty() {
            self.stages.remove(&stage);
        }
        let bytes = waiting.copy.bytes();
        self.discount(stage.tenant, bytes);
        Some((waiting, bytes))
    }

    /// Some owners are gone. How many of which stage do not wait any more.
    pub(super) fn forget(&mut self, owners: &Owners) -> Vec<(Stage, usize)> {
        let mut gone = Vec::new();
        let stages = owners.start().stage..=owners.end().stage;
        for (stage, queue) in self.stages.range_mut(stages) {
            let before = queue.len();
            let mut bytes = 0;
            queue.retain(|waiting| {
                let is_gone = owners.contains(&waiting.who);
                bytes += if is_gone { waiting.copy.bytes() } else { 0 };
                !is_gone
            });
            gone.push((*stage, before - queue.len(), bytes));
        }
        self.stages.retain(|_, queue| !queue.is_empty());
        for (stage, _, bytes) in &gone {
            self.discount(stage.tenant, *bytes);
        }
        gone.into_iter().map(|(stage, count, _)| (stage, count)).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.bytes == 0 && self.tenants.is_empty()
    }

    fn discount(&mut self, tenant: Tenant, bytes: u64) {
        self.bytes -= bytes;
        if let Some(theirs) = self.tenants.get_mut(&tenant) {
            *theirs -= bytes;
            if *theirs == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

fn full(found: u64) -> Refusal {
    let most = TENANT_WAITING_BYTES_MAX;
    would_block(format!(
        "{found} bytes of the tenant are on their way to the device and back, at most {most}: try \
         again when some have got there"
    ))
}
