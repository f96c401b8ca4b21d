//! The dispatches of one stage: those that wait in their order, and those all of which was sent.

use std::collections::BTreeMap;

use super::{Bill, Over, Refused, Work};

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    /// By number, which is the order of arrival. Each has groups that were not sent.
    waiting: BTreeMap<u64, Pending>,
    /// Nothing more is to be sent of these, and some of their chunks are on the device.
    sent: BTreeMap<u64, Pending>,
    dispatches_max: usize,
    /// How many wait for their turn. They come before dispatches: whoever waits for one can do
    /// nothing else.
    pub(super) copies: usize,
    pub(super) bill: Bill,
    /// Takes no more.
    pub(super) is_closing: bool,
}

/// A dispatch that is not over.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) work: Work,
    pub(super) total: u64,
    /// Groups that were sent.
    pub(super) done: u64,
    /// Chunks on the device.
    chunks: u32,
    nanos: u128,
    is_whole: bool,
}

impl Pending {
    const fn over(&self) -> Over {
        Over { is_whole: self.is_whole, nanos: self.nanos }
    }
}

impl Queue {
    pub(super) const fn new(dispatches_max: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            sent: BTreeMap::new(),
            dispatches_max,
            copies: 0,
            bill: Bill { nanos: 0, chunks: 0, copy_nanos: 0 },
            is_closing: false,
        }
    }

    pub(super) fn room(&self) -> usize {
        if self.is_closing {
            return 0;
        }
        self.dispatches_max.saturating_sub(self.waiting.len() + self.sent.len())
    }

    pub(super) fn has_work(&self) -> bool {
        self.copies > 0 || !self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, number: u64, work: Work, total: u64) -> Result<(), Refused> {
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        let pending = Pending { work, total, done: 0, chunks: 0, nanos: 0, is_whole: true };
        self.waiting.insert(number, pending);
        Ok(())
    }

    /// The dispatch whose turn it is.
    pub(super) fn first(&self) -> Option<(u64, &Pending)> {
        self.waiting.first_key_value().map(|(number, pending)| (*number, pending))
    }

    /// So many groups of the first dispatch are sent as a chunk.
    pub(super) fn send(&mut self, groups: u64) {
        let Some(mut first) = self.waiting.first_entry() else { return };
        let pending = first.get_mut();
        pending.done += groups;
        pending.chunks += 1;
        if pending.done >= pending.total {
            let (number, pending) = first.remove_entry();
            self.sent.insert(number, pending);
        }
    }

    /// Drops what was not sent of a dispatch; it is over if nothing of it is on the device.
    pub(super) fn cancel(&mut self, number: u64) -> Result<(), Refused> {
        if let Some(mut pending) = self.waiting.remove(&number) {
            pending.is_whole = false;
            if pending.chunks > 0 {
                self.sent.insert(number, pending);
            }
            return Ok(());
        }
        self.sent.contains_key(&number).then_some(()).ok_or(Refused::Unknown)
    }

    /// Drops all that was not sent, and takes no more.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.copies = 0;
        while let Some((number, mut pending)) = self.waiting.pop_first() {
            pending.is_whole = false;
            if pending.chunks > 0 {
                self.sent.insert(number, pending);
            }
        }
    }

    /// A chunk of a dispatch is over; how the dispatch ended, if it was the last.
    pub(super) fn settle(&mut self, number: u64, took: u64, is_whole: bool) -> Option<Over> {
        self.bill.charge(took);
        let waiting = self.waiting.get_mut(&number);
        let pending = waiting.or_else(|| self.sent.get_mut(&number))?;
        pending.chunks -= 1;
        pending.nanos += u128::from(took);
        if !is_whole {
            pending.is_whole = false;
            if let Some(pending) = self.waiting.remove(&number) {
                self.sent.insert(number, pending);
            }
        }
        if self.sent.get(&number)?.chunks > 0 {
            return None;
        }
        self.sent.remove(&number).map(|pending| pending.over())
    }
}
