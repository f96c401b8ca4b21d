//! Rings that go on from what is elsewhere, in the log or on another node: events come with their
//! offsets, and are sent on from where somebody has them.

use sluicebox_core::frame::Frame;

use super::{Kept, Output, Ring, lock};

impl Output {
    /// As [`Output::append`], of events whose first has this offset: what is missing before it was
    /// dropped elsewhere, and readers are told as if it had been dropped here. What is there
    /// already is not appended again.
    pub fn append_at(&self, partition: u16, first: u64, frame: &Frame) {
        let Some(ring) = self.partitions.get(usize::from(partition)) else { return };
        {
            let mut ring = lock(ring);
            if first < ring.next {
                return;
            }
            if first > ring.next {
                self.pass_over(&mut ring, first);
            }
        }
        self.append(partition, frame);
    }

    /// Lets the offsets of a partition go on at `next`, whatever it holds: what it would go on from
    /// is elsewhere.
    pub fn go_on_at(&self, partition: u16, next: u64) {
        if let Some(ring) = self.partitions.get(usize::from(partition)) {
            let mut ring = lock(ring);
            if ring.next != next {
                self.pass_over(&mut ring, next);
            }
        }
    }

    fn pass_over(&self, ring: &mut Ring, next: u64) {
        while let Some(old) = ring.frames.pop_front() {
            self.forget(ring, &old);
        }
        ring.next = next;
        ring.weigh_held();
    }

    /// The frames of a partition from an offset on, or from the oldest that is kept, each with the
    /// offset of its first event: about `bytes_max` bytes of them.
    #[must_use]
    pub fn frames_from(&self, partition: u16, offset: u64, bytes_max: usize) -> Vec<(u64, Frame)> {
        let Some(ring) = self.partitions.get(usize::from(partition)) else { return Vec::new() };
        let ring = lock(ring);
        let first = ring.frames.partition_point(|kept| kept.first < offset);
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            let is_room = bytes < bytes_max;
            bytes += kept.frame.bytes().len();
            is_room
        };
        let frames = ring.frames.iter().skip(first).take_while(fits);
        frames.map(|kept| (kept.first, kept.frame.clone())).collect()
    }

    /// Offset of the next event of a partition.
    #[must_use]
    pub fn next(&self, partition: u16) -> u64 {
        self.partitions.get(usize::from(partition)).map_or(0, |ring| lock(ring).next)
    }

    /// Lets the offsets of a partition that holds nothing go on at `next`.
    pub fn resume(&self, partition: u16, next: u64) {
        let Some(ring) = self.partitions.get(usize::from(partition)) else { return };
        let mut ring = lock(ring);
        if ring.frames.is_empty() {
            ring.next = ring.next.max(next);
        }
    }
}
