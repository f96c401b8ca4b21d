//! The end of a partition that is retired: which streams end with it, and what it hands over.
//!
//! - A partition that has halted, or cannot get rid of its runs, gives up what it cannot finish.
//!   Its streams that do not go on in the next version end under this one all the same, as they
//!   would without the halt: the batch of the halt is taken back and handed over, and comes behind
//!   their ends.
//! - Such an end halts nothing: what fails becomes a dead letter. Else nobody could get past it.

use std::sync::atomic::Ordering;

use sluicebox_core::partition::Partition;

use super::partition::{Driver, park};
use super::record::SegmentDurable;
use crate::error::Error;
use crate::mailbox::{Delivery, Inherited, Retired, States};

/// Bytes that the ends of a retiring partition may leave for others, about.
const OUTGOING_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Driver {
    /// Cannot go on: gives up if it is being retired, else waits. False when it is retired.
    pub(super) async fn stand(&mut self, halted: bool) -> bool {
        // Whoever retires it waits for it to be empty, which it will not be any more if a stream
        // halted it at its end, or its sinks take nothing. A commit the log has not taken is not
        // given up while it may still go in.
        let gives_up = self.carry || halted || self.giving_up;
        if gives_up && self.retire.is_some() && (self.stopped || self.log()) {
            if self.end_before_giving_up().await {
                return true;
            }
            self.retired();
            return false;
        }
        if self.stopped || halted {
            self.cannot_leave();
        }
        // What halted waits for somebody; what else is here is not done.
        self.sleep_with(self.timing.next_tick, halted).await;
        true
    }

    /// Ends some of the streams that end with this version, in a partition that gives up the rest.
    /// False if there are none left.
    pub(super) async fn end_before_giving_up(&mut self) -> bool {
        let now = self.local.clock.now();
        if self.stopped || self.ends.is_empty() || self.rest.until(now).is_some() {
            return false;
        }
        let waiting: usize = self.outgoing.iter().map(|(_, d)| d.frame.bytes().len()).sum();
        if waiting > OUTGOING_BYTES_MAX {
            // There are more streams, and no room for what comes of their ends.
            self.mailbox.set_short(true);
            return false;
        }
        if !self.giving_up {
            self.giving_up = true;
            self.machine.halt_no_more();
        }
        if self.machine.halted().is_some() {
            let own = self.batch_of_halt();
            if !own.is_empty() {
                self.recording.divided.push_front(own);
            }
            self.drop_instances();
        }
        let ends = self.ends.clone();
        if !self.machine.start_abandoned(now)
            && !self.machine.start_all_ends(now, |stage| ends.contains(stage))
        {
            return false;
        }
        self.batch(now).await;
        // The rest behind others' turns.
        self.mailbox.schedule();
        park().await;
        true
    }

    /// The batch the partition has halted at, if it has: nothing of it stands.
    fn batch_of_halt(&mut self) -> Vec<Delivery> {
        let batch = self.machine.resume().filter(|batch| !batch.is_empty());
        let mut own = std::mem::take(&mut self.recording.parts);
        if own.is_empty() {
            own.extend(batch.map(Delivery::from));
        }
        own
    }

    /// Gives up everything it holds and lets the partition be forgotten.
    pub(super) fn retired(&mut self) {
        let mut left_over: Vec<(String, u16, Delivery)> = Vec::new();
        for (to, delivery) in self.outgoing.drain(..) {
            left_over.push((to.segment.root_name().to_owned(), to.partition, delivery));
        }
        // The batch of a halt first, then what was queued behind it.
        let mut own = self.batch_of_halt();
        own.extend(self.recording.divided.drain(..).flatten());
        own.extend(self.mailbox.take_all());
        let (root, partition) = (self.segment.root_name(), self.mailbox.partition);
        left_over.extend(own.into_iter().map(|delivery| (root.to_owned(), partition, delivery)));
        let root = self.segment.durable.as_ref().map(SegmentDurable::root);
        let progress = root.zip(self.machine.progress().cloned());
        let watermark = (self.segment.root_name().to_owned(), self.machine.watermark());
        let is_short = self.mailbox.is_short() && !self.ends.is_empty();
        let states = self.give_up_states();
        if let Some(reply) = self.retire.take() {
            // Nobody wants what a pipeline held that was deleted meanwhile.
            let retired = Retired { states, progress, watermark, left_over, is_short };
            let _unwanted = reply.send(retired);
        }
    }

    /// Gives up the state of its stages; whoever takes it over counts it.
    fn give_up_states(&mut self) -> States {
        let tenant = &self.segment.shared.tenant;
        tenant.state_bytes().changed(self.machine.state_bytes(), 0);
        tenant.streams().changed(self.machine.open_streams(), 0);
        self.life.set_warm(&self.local, false);
        let empty = Partition::new(self.segment.plan.clone(), 0);
        let states = std::mem::replace(&mut self.machine, empty).into_states();
        self.note_parked();
        self.note_timers();
        states
    }

    /// Leaves between two batches if it is asked to; what is queued stays. True if it is over.
    pub(super) fn leaves(&mut self) -> bool {
        if !self.recording.divided.is_empty() {
            return false;
        }
        let Some(reply) = self.leave.take().filter(|reply| !reply.is_closed()) else {
            return false;
        };
        let progress = self.machine.progress().cloned();
        let watermark = self.machine.watermark();
        self.drop_instances();
        let states = self.give_up_states();
        self.mailbox.state_bytes.store(0, Ordering::Relaxed);
        self.mailbox.open_streams.store(0, Ordering::Relaxed);
        self.mailbox.set_absent();
        if let Err(Ok(unwanted)) = reply.send(Ok(Inherited { states, progress, watermark })) {
            // Whoever asked gave up in this moment.
            self.mailbox.set_inherited(unwanted);
        }
        true
    }

    /// What it holds is not what the log knows, or it stands still.
    pub(super) fn cannot_leave(&mut self) {
        let Some(reply) = self.leave.take() else { return };
        let why = "a partition has halted or stopped; let it go on before it is moved";
        let name = self.segment.shared.name.to_string();
        let error = Error::Conflict { what: "pipeline", name, why: why.to_owned() };
        let _gone = reply.send(Err(error));
    }
}
