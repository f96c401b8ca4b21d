//! What sinks have not handed on yet stays in an output, and partitions wait rather than add to it
//! without end.
//!
//! - A sink holds each partition from its place on: nothing from there on is dropped to make room.
//! - When half of a partition's share is held, the partition takes no batch before a sink is
//!   further. What is under way by then is added all the same; that is bounded by one batch and by
//!   what the log lets wait to be written.
//! - A partition that comes to rest ends what it has, so that a version with another sink does not
//!   wait for this one; but not beyond twice its share, whatever timers bring or how often it
//!   rests.
//! - Who reads an output without being a sink holds nothing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::cursor::Place;
use super::{Cursor, Kept, Output, Ring, cost_of, lock};
use crate::mailbox::Mailbox;

/// So many shares, or bytes where shares are small, are held of a partition that comes to rest:
/// what is queued for it may still get through, and it is paused again and again.
const RESTING_SHARES: usize = 2;
const RESTING_BYTES: usize = 1024 * 1024;

/// What is held of one partition.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// For each sink, the offset of the first event it has not handed on.
    sinks: Vec<(Arc<str>, u64)>,
    /// Bytes of the frames that are held.
    bytes: usize,
}

impl Holds {
    fn first(&self) -> Option<u64> {
        self.sinks.iter().map(|(_, offset)| *offset).min()
    }
}

fn end_of(kept: &Kept) -> u64 {
    kept.first + kept.frame.len() as u64
}

impl Ring {
    /// The oldest frame is not to be dropped.
    pub(super) fn holds_oldest(&self) -> bool {
        let oldest = self.frames.front();
        oldest.zip(self.holds.first()).is_some_and(|(oldest, first)| end_of(oldest) > first)
    }

    pub(super) fn is_held(&self) -> bool {
        !self.holds.sinks.is_empty()
    }

    /// A frame was appended.
    pub(super) fn note_held(&mut self, cost: usize) {
        if self.is_held() {
            self.holds.bytes += cost;
        }
    }

    /// Looks anew at what is held.
    pub(super) fn weigh_held(&mut self) {
        let Some(first) = self.holds.first() else {
            self.holds.bytes = 0;
            return;
        };
        let held = self.frames.iter().rev().take_while(|kept| end_of(kept) > first);
        self.holds.bytes = held.map(|kept| cost_of(&kept.frame)).sum();
    }

    /// A sink is further.
    fn let_go(&mut self, sink: &str, offset: u64) {
        let Some(before) = self.holds.first() else { return };
        if let Some((_, at)) = self.holds.sinks.iter_mut().find(|(name, _)| &**name == sink) {
            *at = offset.max(*at);
        }
        let first = self.holds.first().unwrap_or(before);
        let passed = self.frames.iter().skip(self.index_of(before.max(self.oldest())));
        let passed = passed.take_while(|kept| end_of(kept) <= first);
        let passed: usize = passed.map(|kept| cost_of(&kept.frame)).sum();
        self.holds.bytes = self.holds.bytes.saturating_sub(passed);
    }
}

impl Output {
    /// A sink has handed on what is before the place that `place` says of each partition, which is
    /// given the oldest event there is, and how far the sink was already.
    pub fn hold(&self, sink: &str, place: impl Fn(u16, u64, Option<u64>) -> u64) {
        let name: Arc<str> = Arc::from(sink);
        for (partition, ring) in (0_u16..).zip(self.partitions.iter()) {
            let mut ring = lock(ring);
            let known = ring.holds.sinks.iter().position(|(known, _)| **known == *sink);
            let before = known.map(|at| ring.holds.sinks[at].1);
            let offset = place(partition, ring.oldest(), before);
            match known {
                Some(at) => ring.holds.sinks[at].1 = offset,
                None => ring.holds.sinks.push((name.clone(), offset)),
            }
            ring.weigh_held();
        }
        self.shared.held.store(true, Ordering::Relaxed);
        self.wake_held();
    }

    /// Sinks that are not among these hold nothing any more.
    pub fn hold_only(&self, is_there: impl Fn(&str) -> bool) {
        let mut held = false;
        for ring in self.partitions.iter() {
            let mut ring = lock(ring);
            ring.holds.sinks.retain(|(name, _)| is_there(name));
            held |= ring.is_held();
            ring.weigh_held();
        }
        self.shared.held.store(held, Ordering::Relaxed);
        self.wake_held();
    }

    /// Where a sink is; its next page begins with a partition.
    #[must_use]
    pub fn held_by(&self, sink: &str, start: u16) -> Cursor {
        let offset = |ring: &Ring| {
            let known = ring.holds.sinks.iter().find(|(name, _)| &**name == sink);
            known.map_or_else(|| ring.oldest(), |(_, offset)| *offset)
        };
        let offsets = self.partitions.iter().map(|ring| offset(&lock(ring))).collect();
        Cursor::at(Place { incarnation: self.incarnation, start, offsets })
    }

    /// Events of all partitions that a sink has not handed on.
    #[must_use]
    pub fn behind(&self, sink: &str) -> u64 {
        let of = |ring: &Ring| {
            let known = ring.holds.sinks.iter().find(|(name, _)| &**name == sink);
            known.map_or(0, |(_, offset)| ring.next.saturating_sub((*offset).max(ring.oldest())))
        };
        self.partitions.iter().map(|ring| of(&lock(ring))).sum()
    }

    /// A sink has handed on everything before this offset of a partition.
    pub fn let_go(&self, sink: &str, partition: u16, offset: u64) {
        if let Some(ring) = self.partitions.get(usize::from(partition)) {
            lock(ring).let_go(sink, offset);
        }
        self.wake_held();
    }

    /// So much of a partition is held that it is to wait, the later if it `rests`. It is scheduled
    /// when that changes.
    pub(crate) fn makes_wait(&self, mailbox: &Arc<Mailbox>, rests: bool) -> bool {
        if !self.is_crowded(mailbox.partition, rests) {
            return false;
        }
        let own = Arc::downgrade(mailbox);
        let mut waiting = super::lock_of(&self.shared.held_up);
        if !waiting.iter().any(|known| Weak::ptr_eq(known, &own)) {
            waiting.push(own);
        }
        drop(waiting);
        // A sink may have come on just before it was noted down.
        self.is_crowded(mailbox.partition, rests)
    }

    /// Sinks hold so much of some partition that it cannot even come to rest.
    pub(crate) fn keeps_from_rest(&self) -> bool {
        (0..self.partitions()).any(|partition| self.is_crowded(partition, true))
    }

    fn is_crowded(&self, partition: u16, rests: bool) -> bool {
        if !self.shared.held.load(Ordering::Relaxed) {
            return false;
        }
        let share = self.shared.share_bytes.load(Ordering::Relaxed);
        let most = match rests {
            true => share.saturating_mul(RESTING_SHARES).max(RESTING_BYTES),
            false => share / 2,
        };
        let ring = self.partitions.get(usize::from(partition));
        ring.is_some_and(|ring| lock(ring).holds.bytes >= most)
    }

    /// Lets all look again that wait; who still has to notes itself down anew.
    pub(crate) fn wake_held(&self) {
        let waiting = std::mem::take(&mut *super::lock_of(&self.shared.held_up));
        // Of a version that is over nothing is left.
        waiting.iter().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.schedule());
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::{Frame, FrameBuilder, Head};

    use super::*;

    fn frame(events: usize, payload_bytes: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        let payload = vec![b'x'; payload_bytes];
        (0..events).for_each(|_| builder.push(&Head::data(1), b"k", &payload, &[]));
        builder.finish()
    }

    #[test]
    fn what_a_sink_has_not_handed_on_is_not_dropped_and_makes_the_partition_wait() {
        let output = Output::new(1, 10_000, 1);
        output.hold("a", |_, oldest, _| oldest);
        for _ in 0..20 {
            output.append(0, &frame(2, 1000));
        }
        assert_eq!((output.dropped(), output.behind("a")), (0, 40));
        assert!(output.is_crowded(0, false));
        // Partly handed on, a frame is still held.
        output.let_go("a", 0, 37);
        assert!(!output.is_crowded(0, false));
        output.append(0, &frame(1, 10));
        assert_eq!(output.kept_from(0), 32, "what nobody holds goes as it always did");
        assert!(output.read(&output.held_by("a", 0), usize::MAX).is_ok());
        assert_eq!(output.behind("a"), 4);
        output.let_go("a", 0, 30);
        assert_eq!(output.behind("a"), 4, "a place only goes forward");
    }

    #[test]
    fn of_two_sinks_the_slower_counts_and_one_that_is_gone_does_not() {
        let output = Output::new(2, 20_000, 1);
        output.hold("a", |_, oldest, _| oldest);
        output.hold("b", |_, oldest, _| oldest);
        for _ in 0..20 {
            output.append(1, &frame(1, 1000));
        }
        output.let_go("a", 1, 20);
        assert!(output.is_crowded(1, false) && !output.is_crowded(0, false));
        assert_eq!((output.behind("a"), output.behind("b")), (0, 20));
        output.hold_only(|name| name == "a");
        assert!(!output.is_crowded(1, false));
        output.append(1, &frame(1, 1000));
        assert!(output.dropped() > 0);
    }

    #[test]
    fn a_frame_larger_than_a_share_is_held_as_well() {
        let output = Output::new(4, 8_000, 1);
        output.hold("a", |_, oldest, _| oldest);
        (0..5).for_each(|_| output.append(2, &frame(1, 5_000)));
        assert_eq!((output.dropped(), output.behind("a")), (0, 5));
        output.let_go("a", 2, 5);
        output.append(2, &frame(1, 10));
        assert_eq!(output.stats().bytes, cost_of(&frame(1, 10)));
    }

    #[test]
    fn a_sink_goes_on_where_it_is_told_to() {
        let output = Output::new(1, 100_000, 1);
        output.append(0, &frame(5, 10));
        output.hold("a", |_, _, before| before.unwrap_or(3));
        assert_eq!(output.behind("a"), 2);
        output.let_go("a", 0, 4);
        output.hold("a", |_, _, before| before.unwrap_or(0).max(3));
        assert_eq!(output.behind("a"), 1);
    }

    #[test]
    fn a_partition_that_rests_adds_to_it_but_not_without_end() {
        let output = Output::new(1, 4 * RESTING_BYTES, 1);
        output.hold("a", |_, oldest, _| oldest);
        let one = frame(1, RESTING_BYTES);
        (0..2).for_each(|_| output.append(0, &one));
        assert!(output.is_crowded(0, false), "half of its share");
        assert!(!output.is_crowded(0, true), "what is under way ends all the same");
        (0..6).for_each(|_| output.append(0, &one));
        assert!(output.is_crowded(0, true) && output.keeps_from_rest());
        output.let_go("a", 0, 8);
        assert!(!output.is_crowded(0, true) && !output.keeps_from_rest());
        // Where shares are small, what is queued for a partition is more than they are.
        let small = Output::new(1, 1_000, 1);
        small.hold("a", |_, oldest, _| oldest);
        (0..10).for_each(|_| small.append(0, &frame(1, 1_000)));
        assert!(small.is_crowded(0, false) && !small.is_crowded(0, true));
    }
}
