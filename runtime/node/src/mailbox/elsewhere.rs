//! What waits for a partition that is on another node, comes from there, or goes there: taken to be
//! forwarded, and put back if it is not consumed.

use sluicebox_core::position::{Positions, RunHeader, Source};

use super::{Delivery, Mailbox, lock};

impl Mailbox {
    /// Takes the first that is queued, as it is.
    pub(crate) fn take_first(&self) -> Option<Delivery> {
        let first = lock(&self.inbox).deliveries.pop_front()?;
        self.freed(first.bytes());
        Some(first)
    }

    /// Takes the first that is queued, to be forwarded.
    pub(crate) fn take_to_forward(&self) -> Option<Delivery> {
        let mut forwarded = lock(&self.forwarded);
        let first = self.take_first()?;
        if let Some(run) = &first.run {
            *forwarded.entry(run.source).or_default() += 1;
        }
        Some(first)
    }

    /// A run of a source that was taken to be forwarded is consumed.
    pub(crate) fn is_forwarded(&self, source: Source) {
        let mut forwarded = lock(&self.forwarded);
        if let Some(count) = forwarded.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                forwarded.remove(&source);
            }
        }
    }

    /// Runs of such sources are queued, or forwarded and not consumed, and no other node has them.
    pub(crate) fn holds(&self, is: impl Fn(Source) -> bool) -> bool {
        let forwarded = lock(&self.forwarded);
        let queued = || {
            let inbox = lock(&self.inbox);
            let mut own = inbox.deliveries.iter().filter(|delivery| !delivery.foreign);
            own.any(|delivery| delivery.run.is_some_and(|run| is(run.source)))
        };
        forwarded.keys().any(|source| is(*source)) || queued()
    }

    /// The runs that are queued and that no other node has.
    pub(crate) fn own_runs(&self) -> Vec<RunHeader> {
        let inbox = lock(&self.inbox);
        let own = inbox.deliveries.iter().filter(|delivery| !delivery.foreign);
        own.filter_map(|delivery| delivery.run).collect()
    }

    /// Puts back what was taken and not handled, before everything else. It has counted as in
    /// flight all along.
    pub(crate) fn put_back(&self, deliveries: Vec<Delivery>) {
        // Held until they are queued, so that they are counted all along.
        let mut forwarded = lock(&self.forwarded);
        let mut inbox = lock(&self.inbox);
        forwarded.clear();
        for delivery in deliveries.into_iter().rev() {
            self.room.fill(delivery.bytes());
            inbox.deliveries.push_front(delivery);
        }
    }

    /// Drops of what is queued what a reader at `positions` has consumed.
    pub(crate) fn trim(&self, positions: &Positions) {
        self.sift(|delivery| delivery.skip_consumed(positions));
    }

    /// Closes the gate, and drops what came in by it: it is sent again to where the partition is.
    pub(crate) fn close_gate(&self) {
        *self.gate() = None;
        self.sift(|delivery| !delivery.foreign);
    }

    /// Keeps of what is queued what `keep` says, which may make it less.
    fn sift(&self, mut keep: impl FnMut(&mut Delivery) -> bool) {
        let mut inbox = lock(&self.inbox);
        let all = std::mem::take(&mut inbox.deliveries);
        let (mut gone, mut bytes) = (0, 0);
        for mut delivery in all {
            bytes += delivery.bytes();
            if keep(&mut delivery) {
                bytes -= delivery.bytes();
                inbox.deliveries.push_back(delivery);
            } else {
                gone += 1;
            }
        }
        drop(inbox);
        self.freed(bytes);
        self.segment.shared.left(gone);
    }
}
