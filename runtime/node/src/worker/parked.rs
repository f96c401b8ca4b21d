//! What time brings to a partition: which of it has its turn, and the figures of parked events.
//!
//! Which streams end, and which parked events are to be tried and when, is decided by the machine
//! (`core/partition/streams.rs`, `core/partition/hold.rs`).

use super::partition::Driver;

/// What a partition knows of its parked events besides the machine.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// The last batch was of parked events or timers.
    own: bool,
    /// And it was of timers.
    fired: bool,
    /// Keys and events parked at each stage, as its figures know.
    known: Vec<(i64, i64)>,
    /// Bytes of all that is parked, as the tenant's sum knows.
    bytes: usize,
}

impl Driver {
    /// Starts a batch of what time brings: streams that end, timers that are due, parked events
    /// whose pause is over. The latter two take turns with what is queued, and with one another,
    /// and wait on when the partition is to be retired.
    pub(super) fn start_by_time(&mut self, now: u64) -> bool {
        let tenant = &self.segment.shared.tenant;
        self.machine.bound_parked(tenant.parked_bytes().room());
        self.machine.bound_timers(tenant.timer_bytes().room());
        if self.retire.is_some() {
            let ends = self.ends.clone();
            return self.machine.start_all_ends(now, |stage| ends.contains(stage));
        }
        if self.machine.start_ends(now) {
            return true;
        }
        let others_first = self.parked.own && !self.mailbox.is_empty();
        self.parked.own = !others_first && self.start_own(now);
        self.parked.own
    }

    /// Starts a batch of timers or of parked events; those that did not have the last one first.
    fn start_own(&mut self, now: u64) -> bool {
        if self.parked.fired && self.machine.start_parked(now) {
            self.parked.fired = false;
            return true;
        }
        self.parked.fired = self.machine.start_timers(now);
        self.parked.fired || self.machine.start_parked(now)
    }

    /// When time brings something to do, in the clock of the worker.
    pub(super) fn next_by_time(&self) -> Option<u64> {
        let at_once = self.expiring.is_ready().then_some(0);
        let timer = self.next_timer();
        let all = [self.machine.next_parked(), self.machine.next_expiry(), at_once, timer];
        // A partition that is to be retired leaves all but its streams to its heir.
        let all = all.into_iter().filter(|_| self.retire.is_none());
        let ends = self.machine.next_end().into_iter().chain(self.timing.next_tick);
        ends.chain(all.flatten()).min()
    }

    /// Brings the figures of what is parked up to date.
    pub(super) fn note_parked(&mut self) {
        let bytes = self.machine.parked_bytes();
        let before = std::mem::replace(&mut self.parked.bytes, bytes);
        self.segment.shared.tenant.parked_bytes().changed(before, bytes);
        self.parked.known.resize(self.segment.stages.len(), (0, 0));
        let stages = self.parked.known.iter_mut().zip(&self.segment.stages);
        for (at, (known, stage)) in stages.enumerate() {
            let (keys, events) = self.machine.parked(at);
            let now = (keys as i64, events as i64);
            if now != *known {
                stage.metrics.parked_keys.add(now.0 - known.0);
                stage.metrics.parked_events.add(now.1 - known.1);
                *known = now;
            }
        }
    }
}
