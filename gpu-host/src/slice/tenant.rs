//! One tenant: its stages, whose turn it is among them, and what it may and has cost.

use std::collections::BTreeMap;

use super::bucket::Bucket;
use super::cut::{Cut, count, cut};
use super::estimate::Estimates;
use super::fair::{Fair, Turn};
use super::stage::{Pending, Queue};
use super::{Bill, Flight, Over, Refused, Terms, Work};

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) terms: Terms,
    pub(super) stages: BTreeMap<u32, Queue>,
    /// Over stages.
    pub(super) fair: Fair,
    estimates: Estimates,
    pub(super) bucket: Option<Bucket>,
    /// It waits at its cap until then.
    pub(super) shut_at: Option<u64>,
    pub(super) bill: Bill,
    /// Takes no more.
    pub(super) is_closing: bool,
}

/// A chunk that a tenant sends.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) stage: u32,
    pub(super) dispatch: u64,
    pub(super) kernel: [u8; 32],
    pub(super) cut: Cut,
    pub(super) expected: u64,
    pub(super) turn: Turn,
}

impl Member {
    pub(super) fn new(terms: Terms, bucket: Option<Bucket>) -> Self {
        Self {
            terms,
            stages: BTreeMap::new(),
            fair: Fair::default(),
            estimates: Estimates::default(),
            bucket,
            shut_at: None,
            bill: Bill::default(),
            is_closing: false,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.fair.first().is_some()
    }

    /// Until when it may do nothing, from now on.
    pub(super) fn shut_until(&mut self, now: u64) -> Option<u64> {
        self.shut_at = self.bucket.as_mut().and_then(|bucket| bucket.shut_until(now));
        self.shut_at
    }

    pub(super) fn submit(&mut self, stage: u32, number: u64, work: Work) -> Result<(), Refused> {
        let queue = self.stages.get_mut(&stage).filter(|queue| !queue.is_closing);
        let queue = queue.ok_or(Refused::Unknown)?;
        let total = count(work.grid).filter(|total| *total > 0).ok_or(Refused::Grid)?;
        queue.push(number, work, total)?;
        self.fair.wake(stage.into());
        Ok(())
    }

    /// A copy of a stage waits for its turn.
    pub(super) fn want_copy(&mut self, stage: u32) -> Result<(), Refused> {
        let queue = self.stages.get_mut(&stage).filter(|queue| !queue.is_closing);
        queue.ok_or(Refused::Unknown)?.copies += 1;
        self.fair.wake(stage.into());
        Ok(())
    }

    /// So many copies of a stage wait no longer.
    pub(super) fn drop_copies(&mut self, stage: u32, count: usize) {
        if let Some(queue) = self.stages.get_mut(&stage) {
            queue.copies = queue.copies.saturating_sub(count);
        }
        self.refresh(stage);
    }

    /// The stage whose turn it is, if what it has to do is a copy.
    pub(super) fn copying(&self) -> Option<u32> {
        // It was a number of a stage when it was put in.
        let stage = self.fair.first()? as u32;
        self.stages.get(&stage).filter(|queue| queue.copies > 0).map(|_| stage)
    }

    /// A copy of a stage begins, in its turn.
    pub(super) fn begin_copy(&mut self, stage: u32) {
        self.fair.begin(stage.into());
        self.drop_copies(stage, 1);
    }

    /// Copies of a stage have taken so long.
    pub(super) fn charge_copy(&mut self, stage: u32, took: u64) {
        self.bill.copy_nanos += u128::from(took);
        if let Some(bucket) = &mut self.bucket {
            bucket.draw(took);
        }
        self.fair.charge(stage.into(), took);
        if let Some(queue) = self.stages.get_mut(&stage) {
            queue.bill.copy_nanos += u128::from(took);
        }
    }

    pub(super) fn cancel(&mut self, stage: u32, number: u64) -> Result<(), Refused> {
        let queue = self.stages.get_mut(&stage).ok_or(Refused::Unknown)?;
        queue.cancel(number)?;
        self.refresh(stage);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.is_closing = true;
        for (stage, queue) in &mut self.stages {
            queue.close();
            self.fair.rest(u64::from(*stage));
        }
    }

    pub(super) fn close_stage(&mut self, stage: u32) -> Result<(), Refused> {
        self.stages.get_mut(&stage).ok_or(Refused::Unknown)?.close();
        self.fair.rest(stage.into());
        Ok(())
    }

    /// Forgets a stage of which nothing is on the device.
    pub(super) fn remove_stage(&mut self, stage: u32) -> Bill {
        self.fair.remove(stage.into());
        self.stages.remove(&stage).map(|queue| queue.bill).unwrap_or_default()
    }

    /// The next chunk of the stage whose turn it is, which should take `chunk_nanos` at most, or
    /// has `probe_groups` if nothing is known of the kernel.
    pub(super) fn send(&mut self, chunk_nanos: u64, probe_groups: u64) -> Option<Sent> {
        let stage = self.fair.first()?;
        // It was a number of a stage when it was put in.
        let number = stage as u32;
        let (dispatch, pending) = self.stages.get(&number)?.first()?;
        let kernel = pending.work.kernel;
        let (cut, expected) = Self::size(&mut self.estimates, pending, (chunk_nanos, probe_groups));
        self.stages.get_mut(&number)?.send(cut.count());
        let turn = self.fair.serve(stage, expected);
        self.refresh(number);
        if let Some(bucket) = &mut self.bucket {
            bucket.draw(expected);
        }
        Some(Sent { stage: number, dispatch, kernel, cut, expected, turn })
    }

    /// A chunk is over; how its dispatch ended, if it has.
    pub(super) fn settle(&mut self, flight: &Flight, took: u64, is_whole: bool) -> Option<Over> {
        let stage = flight.dispatch.stage.number;
        // One that ended early says how long its groups take only if that is longer than thought.
        if is_whole || took > flight.expected {
            self.estimates.learn(&flight.kernel, flight.groups, took);
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.correct(flight.expected, took);
        }
        self.bill.charge(took);
        self.fair.settle(stage.into(), flight.stage_turn, took);
        let queue = self.stages.get_mut(&stage)?;
        let over = queue.settle(flight.dispatch.number, took, is_whole);
        self.refresh(stage);
        over
    }

    /// How much of a dispatch is the next chunk, and what it should take.
    fn size(
        estimates: &mut Estimates,
        pending: &Pending,
        (chunk_nanos, probe_groups): (u64, u64),
    ) -> (Cut, u64) {
        let Pending { work, total, done, .. } = pending;
        let fitting = estimates.groups(&work.kernel, chunk_nanos);
        let fitting = fitting.unwrap_or(probe_groups).min(work.chunk_groups_max);
        let groups_max = if work.is_whole { *total } else { fitting };
        let cut = cut(work.grid, *done, groups_max);
        (cut, estimates.nanos(&work.kernel, cut.count()).unwrap_or(chunk_nanos))
    }

    fn refresh(&mut self, stage: u32) {
        if self.stages.get(&stage).is_some_and(Queue::has_work) {
            self.fair.wake(stage.into());
        } else {
            self.fair.rest(stage.into());
        }
    }
}
