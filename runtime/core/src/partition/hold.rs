//! Parking in a partition: which events wait, when they are tried again, and when they are given
//! up on.
//!
//! - An event that traps, or that still fails with class retry after its retries, waits, and so do
//!   those of its key behind it. One that is rejected does not: trying again cannot help it.
//! - A batch of parked events is one of its own (`own`), of one stage. What a stage makes of them
//!   goes on like everything else.
//! - Events parked under a policy that is not there any more are tried as well, and then what the
//!   stage says now holds.

use super::cold::Wanting;
use super::isolate::Lost;
use super::{Partition, layer_of};
use crate::frame::{Event, Frame, FrameBuilder};
use crate::layer::request_of;
use crate::pipeline::OnFailure;

/// Class and message of an event that could not be parked.
const FULL: (&str, &str) =
    ("park.full", "as many events of its key, or in its partition, are parked as may be");

impl Partition {
    /// When `start_parked` has something to do next, in the same clock as `now`.
    #[must_use]
    pub fn next_parked(&self) -> Option<u64> {
        self.stages.iter().filter_map(|stage| stage.park.next_due()).min()
    }

    /// Lets parked events be tried at once. Between batches.
    pub fn hurry_parked(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.park.hurry());
    }

    /// Keys that are parked at a stage of the segment, and their events.
    #[must_use]
    pub fn parked(&self, stage: usize) -> (usize, u64) {
        let park = self.stages.get(stage).map(|stage| &stage.park);
        park.map_or((0, 0), |park| (park.keys(), park.events()))
    }

    /// Takes the events of parked keys out of a frame for a stage, and lets them wait.
    pub(super) fn hold_followers(&mut self, at: usize, frame: Frame) -> Frame {
        let park = &self.stages[at].park;
        if park.is_empty() || !frame.events().any(|event| park.is_parked(event.key)) {
            return frame;
        }
        let mut others = FrameBuilder::new();
        for event in frame.events() {
            if self.stages[at].park.is_parked(event.key) {
                self.follow(at, &event);
            } else {
                others.push(&event.head, event.key, event.payload, event.fields.bytes());
            }
        }
        others.finish()
    }

    /// Parks an event of the work at hand that failed for good, with those of its key behind it.
    /// False if it is to be given up on.
    pub(super) fn park(&mut self, event: &Event<'_>, lost: &Lost) -> bool {
        let at = self.current;
        let plan = &self.plan.stages[at];
        let may = plan.on_failure == OnFailure::Park && matches!(lost.class, "retry" | "trap");
        if !may {
            return false;
        }
        let limits = plan.park;
        let park = &mut self.stages[at].park;
        let Some(count) = park.under_way(event.key) else {
            if park.begin(event, self.now, &limits).is_err() {
                return false;
            }
            self.keep_waiting(event);
            for frame in self.take_behind(lost.event, event.key) {
                frame.events().for_each(|event| self.follow(at, &event));
            }
            return true;
        };
        let entry = park.entry(event.key).expect("a key under way is parked");
        let behind = self.count_behind(lost.event, event.key);
        let done = count.saturating_sub(behind + 1);
        let age_max = limits.age_max_ms.saturating_mul(1000);
        let over = done == 0
            && (entry.attempts.saturating_add(1) >= limits.attempts
                || self.now.saturating_sub(entry.since) >= age_max);
        if over {
            return false;
        }
        // They are still where they are parked.
        drop(self.take_behind(lost.event, event.key));
        self.stages[at].park.put_off(event.key, done, self.now, &limits);
        true
    }

    /// Lets an event wait behind those of its key, or gives it up.
    fn follow(&mut self, at: usize, event: &Event<'_>) {
        let plan = self.plan.clone();
        if self.stages[at].park.follow(event, &plan.stages[at].park).is_ok() {
            return self.keep_waiting(event);
        }
        let (class, why) = FULL;
        self.draft.dead_letter(&plan.stages[at].name, event, class, why);
    }

    /// A client that waits for the event's result waits on.
    fn keep_waiting(&mut self, event: &Event<'_>) {
        if let Some(request) = request_of(event) {
            self.draft.sent(vec![request]);
        }
    }

    /// Events of a key behind the `lost` one of the work at hand.
    fn count_behind(&self, lost: u32, key: &[u8]) -> u64 {
        let mut skip = lost as usize + 1;
        let mut count = 0;
        for work in &self.stages[self.current].work {
            let of_key = |event: &Event<'_>| event.key == key;
            count += work.frame.events().skip(skip).filter(of_key).count() as u64;
            skip = 0;
        }
        count
    }

    /// Takes the events of a key behind the `lost` one out of the work of the current stage.
    fn take_behind(&mut self, lost: u32, key: &[u8]) -> Vec<Frame> {
        let mut taken = Vec::new();
        let mut begin = lost + 1;
        for work in &mut self.stages[self.current].work {
            let from = std::mem::take(&mut begin);
            let (mut behind, mut others) = (FrameBuilder::new(), FrameBuilder::new());
            let mut places = Vec::new();
            for event in work.frame.events().skip(from as usize) {
                let of_key = event.key == key;
                let builder = if of_key { &mut behind } else { &mut others };
                places.push((!of_key).then_some(builder.len() as u32));
                builder.push(&event.head, event.key, event.payload, event.fields.bytes());
            }
            if from > 0 || !behind.is_empty() {
                work.isolation.renumber(from, &places);
                work.frame = others.finish();
            }
            if !behind.is_empty() {
                taken.push(behind.finish());
            }
        }
        taken
    }

    /// Parks stand as the batch left them.
    pub(super) fn settle_parked(&mut self) {
        let now = self.now;
        self.stages.iter_mut().for_each(|stage| stage.park.settle(now));
    }

    /// Everything of the batch is taken back in every stage.
    pub(super) fn take_back_stages(&mut self) {
        self.wanting = Wanting::default();
        for stage in &mut self.stages {
            stage.work.clear();
            stage.park.roll_back();
            stage.streams.roll_back();
            layer_of(stage).abandon();
        }
        if self.ledger.is_none() {
            self.abandon_streams();
        }
    }
}
