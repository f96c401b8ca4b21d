//! What waits for a partition, and making batches of it.
//!
//! - A batch is one whole delivery if that is within the bounds or the only choice; else a part of
//!   the first, or several small ones together, which are copied for it.
//! - In a pipeline with a log each delivery is a run, and a batch says which part of which runs it
//!   is, in the order in which they lie in its frame.

use std::collections::VecDeque;
use std::ops::Range;

use sluicebox_core::frame::{Frame, FrameBuilder, HEADER_BYTES};
use sluicebox_core::position::{Positions, RunHeader};
use sluicebox_store::log::Position;

use crate::running::hops::Hop;

/// Events in one batch of a partition: calls are smaller, commits are not made smaller than they
/// need be, so that runs between partitions stay long.
pub(crate) const BATCH_EVENTS: usize = 1024;
/// Bytes in one batch of a partition.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
/// Bytes of deliveries that are joined. What is larger is a batch by itself: to copy it would take
/// longer than another batch does.
const JOIN_BYTES: usize = 64 * 1024;

/// Events on their way into a partition.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// They are in here.
    pub frame: Frame,
    /// These of them; the others were handled before.
    pub range: Range<u32>,
    /// Which run it is; none in a pipeline that logs nothing.
    pub run: Option<RunHeader>,
    /// Where in the log its record is; the beginning if it is on disk for sure.
    pub at: Position,
    /// It came from another node, which sends it again if it is not consumed.
    pub foreign: bool,
    /// Which stage of its segment it comes from, if it comes from one here.
    pub stage: u16,
    /// How it came from another segment here.
    pub hop: Option<Hop>,
}

impl From<Frame> for Delivery {
    fn from(frame: Frame) -> Self {
        let range = 0..frame.len() as u32;
        Self { frame, range, run: None, at: Position(0), foreign: false, stage: 0, hop: None }
    }
}

impl Delivery {
    /// A run of a pipeline with a log, but for its first `skip` events.
    pub(crate) fn of(run: RunHeader, frame: Frame, skip: u32) -> Self {
        let range = skip..frame.len() as u32;
        let run = Some(run);
        Self { frame, range, run, at: Position(0), foreign: false, stage: 0, hop: None }
    }

    /// The same, whose record is here in the log.
    pub(crate) fn logged(self, at: Position) -> Self {
        Self { at, ..self }
    }

    /// The same, which comes from a stage of its segment.
    pub(crate) fn of_stage(self, stage: usize) -> Self {
        Self { stage: u16::try_from(stage).unwrap_or(u16::MAX), ..self }
    }

    /// The same, which came from another node.
    pub(crate) fn foreign(self) -> Self {
        Self { foreign: true, ..self }
    }

    /// Passes over the events that a reader at `positions` has consumed. False if those are all.
    pub(super) fn skip_consumed(&mut self, positions: &Positions) -> bool {
        let Some(run) = &self.run else { return true };
        let place = positions.at(run.source);
        if run.seq < place.seq {
            return false;
        }
        if run.seq == place.seq {
            self.range.start = self.range.start.max(place.index.min(self.range.end));
        }
        !self.range.is_empty()
    }

    /// Nothing of it was handled.
    fn is_whole(&self) -> bool {
        self.range == (0..self.frame.len() as u32)
    }

    /// What it counts in its inbox.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_whole() {
            return self.frame.bytes().len();
        }
        let starts = self.starts();
        let at = |event: u32| starts[event as usize] as usize;
        HEADER_BYTES + at(self.range.end) - at(self.range.start)
    }

    /// Appends the events that are left of it.
    pub(crate) fn append_to(&self, builder: &mut FrameBuilder) {
        let starts = self.starts();
        let at = |event: u32| starts[event as usize] as usize;
        let Range { start, end } = self.range.clone();
        builder.push_packed(&self.frame.bytes()[at(start)..at(end)], end - start);
    }

    fn starts(&self) -> Vec<u32> {
        let mut starts = Vec::new();
        self.frame.index_into(&mut starts);
        starts
    }
}

/// What is run at once.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The events.
    pub frame: Frame,
    /// Which parts of which runs they are; nothing in a pipeline that logs nothing.
    pub parts: Vec<Delivery>,
    /// How events with fields came, by their place in the frame.
    pub hops: Vec<(Range<u32>, Hop)>,
    /// Deliveries that are thereby done with.
    pub done: usize,
    /// Bytes that leave the inbox.
    pub(super) freed: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) deliveries: VecDeque<Delivery>,
}

impl Inbox {
    pub(super) fn push(&mut self, delivery: Delivery) {
        self.deliveries.push_back(delivery);
    }

    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let first = self.deliveries.front()?;
        let fits =
            |frame: &Frame| frame.len() <= BATCH_EVENTS && frame.bytes().len() <= BATCH_BYTES;
        if !first.is_whole() || (!fits(&first.frame) && first.frame.len() > 1) {
            return Some(self.part_of_first());
        }
        let first = self.deliveries.pop_front()?;
        let freed = first.bytes();
        let (parts, hops) = Default::default();
        let mut batch = Batch { frame: first.frame.clone(), parts, hops, done: 1, freed };
        let joins = |events: usize, bytes: usize, next: Option<&Delivery>| {
            next.is_some_and(|next| {
                next.is_whole()
                    && events + next.frame.len() <= BATCH_EVENTS
                    && bytes + next.frame.bytes().len() <= JOIN_BYTES
            })
        };
        let alone = !joins(first.frame.len(), freed, self.deliveries.front());
        note(&mut batch, first, 0);
        if alone {
            return Some(batch);
        }
        let mut builder = FrameBuilder::new();
        append(&mut builder, &batch.frame);
        while joins(builder.len(), builder.bytes_len(), self.deliveries.front()) {
            let Some(next) = self.deliveries.pop_front() else { break };
            batch.freed += next.bytes();
            batch.done += 1;
            let from = builder.len() as u32;
            append(&mut builder, &next.frame);
            note(&mut batch, next, from);
        }
        batch.frame = builder.finish();
        Some(batch)
    }

    fn part_of_first(&mut self) -> Batch {
        let first = &mut self.deliveries[0];
        let starts = first.starts();
        let at = |event: u32| starts[event as usize] as usize;
        let Range { start: from, end } = first.range.clone();
        let most = end.min(from + BATCH_EVENTS as u32);
        let within = |to: &u32| at(*to) - at(from) <= BATCH_BYTES;
        let to = (from + 1..=most).take_while(within).last().unwrap_or(from + 1);
        let bytes = &first.frame.bytes()[at(from)..at(to)];
        let mut builder = FrameBuilder::new();
        builder.push_packed(bytes, to - from);
        let part = Delivery { range: from..to, ..first.clone() };
        first.range.start = to;
        let (parts, hops) = Default::default();
        let (frame, freed) = (builder.finish(), bytes.len());
        let mut batch = Batch { frame, parts, hops, done: 0, freed };
        if to == end {
            batch.freed += HEADER_BYTES;
            batch.done = 1;
            self.deliveries.pop_front();
        }
        note(&mut batch, part, 0);
        batch
    }
}

/// Only where there are runs does a batch say what it is made of, and only of events with fields
/// how they came; those of `part` lie in its frame from `from` on.
fn note(batch: &mut Batch, part: Delivery, from: u32) {
    if let Some(hop) = part.hop.filter(|_| !part.frame.is_plain()) {
        batch.hops.push((from..from + part.range.len() as u32, hop));
    }
    if part.run.is_some() {
        batch.parts.push(part);
    }
}

fn append(builder: &mut FrameBuilder, frame: &Frame) {
    builder.push_packed(&frame.bytes()[HEADER_BYTES..], frame.len() as u32);
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::Head;
    use sluicebox_core::position::Source;

    use super::*;

    fn frame(events: usize, payload: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        for at in 0..events {
            builder.push(&Head::data(at as u64), b"k", &vec![0; payload], &[]);
        }
        builder.finish()
    }

    fn drain(deliveries: Vec<Delivery>) -> Vec<Batch> {
        let total: usize = deliveries.iter().map(Delivery::bytes).sum();
        let count = deliveries.len();
        let mut inbox = Inbox { deliveries: deliveries.into() };
        let batches: Vec<Batch> = std::iter::from_fn(|| inbox.next_batch()).collect();
        let freed: usize = batches.iter().map(|batch| batch.freed).sum();
        assert_eq!(freed, total, "every byte that entered is freed");
        assert_eq!(batches.iter().map(|batch| batch.done).sum::<usize>(), count);
        batches
    }

    fn sizes(frames: Vec<Frame>) -> Vec<usize> {
        let batches = drain(frames.into_iter().map(Delivery::from).collect());
        assert!(batches.iter().all(|batch| batch.parts.is_empty()));
        batches.iter().map(|batch| batch.frame.len()).collect()
    }

    #[test]
    fn small_runs_are_joined_and_large_ones_divided() {
        assert_eq!(sizes(vec![frame(3, 1), frame(4, 1), frame(5, 1)]), [12]);
        assert_eq!(sizes(vec![frame(1000, 1), frame(100, 1), frame(1, 1)]), [1000, 101]);
        assert_eq!(sizes(vec![frame(2500, 1), frame(1, 1)]), [1024, 1024, 452, 1]);
        let large = BATCH_BYTES;
        assert_eq!(sizes(vec![frame(1, large), frame(1, 1)]), [1, 1]);
        let (half, most) = (JOIN_BYTES / 2, JOIN_BYTES);
        assert_eq!(sizes(vec![frame(1, half - 100), frame(1, half - 100), frame(1, 1)]), [3]);
        assert_eq!(sizes(vec![frame(1, half), frame(1, half), frame(1, 1)]), [1, 2]);
        assert_eq!(sizes(vec![frame(2, most), frame(1, 1), frame(3, most / 2)]), [2, 1, 3]);
        assert_eq!(sizes(vec![frame(3, large / 2 + 100)]), [1, 1, 1]);
    }

    #[test]
    fn a_batch_of_runs_says_which_parts_of_them_it_is() {
        let run = |seq| RunHeader { source: Source::Ingest, seq, previous: seq - 1 };
        let deliveries = vec![
            Delivery::of(run(1), frame(1500, 1), 100),
            Delivery::of(run(2), frame(3, 1), 0),
            Delivery::of(run(3), frame(4, 1), 0),
            Delivery::of(run(4), frame(2, 1), 1),
        ];
        let parts = |batch: &Batch| {
            let part = |d: &Delivery| (d.run.expect("a run").seq, d.range.clone());
            let parts: Vec<_> = batch.parts.iter().map(part).collect();
            let events: usize = parts.iter().map(|(_, range)| range.len()).sum();
            assert_eq!(events, batch.frame.len(), "the parts are the batch");
            parts
        };
        let batches = drain(deliveries);
        let found: Vec<_> = batches.iter().map(parts).collect();
        let expected = [
            vec![(1, 100..1124)],
            vec![(1, 1124..1500)],
            vec![(2, 0..3), (3, 0..4)],
            vec![(4, 1..2)],
        ];
        assert_eq!(found, expected);
    }
}
