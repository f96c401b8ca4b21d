//! Keys of a partition that go by themselves: when their removal gets a turn, and finding those
//! that are in the store alone.
//!
//! - A turn of it is one piece of work of the machine's (`core/partition/expire.rs`), at most some
//!   tenths of a millisecond, and takes turns with what is queued.
//! - When all that is in memory was looked at and there may be more in the store, the store is gone
//!   through page by page, off the worker, at a pace (`node/backing/aged.rs`). What is found there
//!   and is not in memory is loaded as for a call, as much at a time as for one, and looked at
//!   again: only the machine says what goes.
//! - A partition that does nothing else is not kept awake by it.

use std::collections::VecDeque;

use bytes::Bytes;
use sluicebox_core::key::groups_of;
use sluicebox_core::limits::BATCH_EVENTS_MAX;
use sluicebox_core::partition::{Expiry, Wanted};
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::partition::Driver;
use crate::backing::{Aged, AgedPage};
use crate::error::Error;

/// What a partition knows of it besides the machine.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// The last batch was of this.
    went: bool,
    /// Stages whose keys in the store are to be looked at, each once, the first under way.
    stages: VecDeque<usize>,
    pass: Pass,
}

/// How far the first of the stages is.
#[derive(Debug, Default)]
struct Pass {
    /// The page that is being read.
    page: Option<Receiver<Result<AgedPage, Error>>>,
    /// Where the next begins; `None` if there is none.
    next: Option<Bytes>,
    /// Keys that were found and are not loaded yet.
    found: VecDeque<Box<[u8]>>,
    /// Keys that are loaded, and how many of them were looked at.
    loaded: Vec<Box<[u8]>>,
    hand: usize,
}

impl Expiring {
    /// True if a turn would be of use at once.
    pub(super) fn is_ready(&self) -> bool {
        !self.pass.found.is_empty() || !self.pass.loaded.is_empty()
    }
}

impl Driver {
    /// Starts a batch that removes what is over, if there is any and it is its turn.
    pub(super) async fn start_expiry(&mut self, now: u64) -> bool {
        let others_first = std::mem::take(&mut self.expiring.went) && !self.mailbox.is_empty();
        if self.retire.is_some() || others_first {
            return false;
        }
        let Expiry { started, ended } = self.machine.start_expiry(now);
        let stages = &mut self.expiring.stages;
        if let Some(stage) = ended
            && self.machine.is_cold(stage)
            && !stages.contains(&stage)
        {
            stages.push_back(stage);
            if stages.len() == 1 {
                self.expiring.pass = Pass { next: Some(Bytes::new()), ..Pass::default() };
            }
        }
        self.expiring.went = started || self.expire_stored(now).await;
        self.expiring.went
    }

    /// Does what can be done about keys in the store. True if a batch was started.
    async fn expire_stored(&mut self, now: u64) -> bool {
        let Some(stage) = self.expiring.stages.front().copied() else { return false };
        if !self.take_page(stage) {
            return false;
        }
        if self.expiring.pass.loaded.is_empty() && !self.load_found(stage).await {
            return false;
        }
        let Pass { loaded, hand, .. } = &mut self.expiring.pass;
        if !loaded.is_empty() {
            let started = self.machine.start_expiry_of(stage, (loaded, hand), now);
            if *hand >= loaded.len() {
                loaded.clear();
                *hand = 0;
            }
            return started;
        }
        self.read_on(stage, now);
        false
    }

    /// Takes the page that was read, if it was. False if it could not be. Of what is in memory the
    /// machine knows more.
    fn take_page(&mut self, stage: usize) -> bool {
        let pass = &mut self.expiring.pass;
        let Some(page) = &mut pass.page else { return true };
        let page = match page.try_recv() {
            Ok(page) => page,
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Closed) => Err(Error::Internal("nobody reads it".to_owned())),
        };
        pass.page = None;
        match page {
            Ok(page) => {
                pass.found = page.keys.into();
                pass.found.retain(|key| !self.machine.holds(stage, key));
                pass.next = page.next;
                true
            }
            Err(error) => {
                self.give_up(stage, &error);
                false
            }
        }
    }

    /// Loads some of the keys that were found. False if they cannot be read.
    async fn load_found(&mut self, stage: usize) -> bool {
        let found = &mut self.expiring.pass.found;
        let keys: Vec<_> = found.drain(..found.len().min(BATCH_EVENTS_MAX)).collect();
        if keys.is_empty() {
            return true;
        }
        match self.fetch(Wanted { stage, keys }).await {
            Ok((mut keys, read)) => {
                let pass = &mut self.expiring.pass;
                keys.drain(read..).rev().for_each(|key| pass.found.push_front(key));
                pass.loaded = keys;
                // What turns out to stay leaves memory again, as what a call asked for.
                self.life.set_warm(&self.local, true);
                self.note_state();
                true
            }
            Err(error) => {
                self.give_up(stage, &error);
                false
            }
        }
    }

    /// Asks for the next page, or ends with the stage.
    fn read_on(&mut self, stage: usize, now: u64) {
        let pass = &mut self.expiring.pass;
        if pass.page.is_some() {
            return;
        }
        let segment = &self.segment;
        let ttl = segment.plan.stages[stage].state_ttl;
        let (Some(from), Some(ttl), Some(durable)) = (pass.next.take(), ttl, &segment.durable)
        else {
            self.end_pass();
            return;
        };
        let of = durable.state_of(&segment.shared, stage);
        let groups = groups_of(self.mailbox.partition, segment.shared.partitions);
        let aged = Aged { of, groups, ttl, now, from };
        pass.page = Some(durable.pipeline.backing.look_for(aged, &self.mailbox));
    }

    /// What cannot be read is left for the next time. Whoever needs it is told then.
    fn give_up(&mut self, stage: usize, error: &Error) {
        tracing::warn!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            stage = self.segment.stages[stage].name,
            partition = self.mailbox.partition,
            "its state in the store cannot be looked through for what is over: {error}",
        );
        self.end_pass();
    }

    fn end_pass(&mut self) {
        self.expiring.stages.pop_front();
        let next = (!self.expiring.stages.is_empty()).then(Bytes::new);
        self.expiring.pass = Pass { next, ..Pass::default() };
    }

    /// Counts the keys that went with the last commit.
    pub(super) fn note_expired(&mut self) {
        let stages = &self.segment.stages;
        self.machine.take_expired(|stage, keys| stages[stage].metrics.state_expired.add(keys));
    }
}
