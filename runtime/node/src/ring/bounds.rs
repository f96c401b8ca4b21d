//! How much an output keeps: the shares of its partitions, and frames larger than those.
//!
//! Partitions that are in use divide the bound. Others keep what they have within the bound once
//! more, until it is dropped.

use std::sync::atomic::Ordering;

use super::{Kept, Output, Ring, cost_of, lock};

impl Output {
    /// Adds partitions until there are so many.
    pub fn grow(&self, partitions: u16) {
        self.partitions.grow(partitions.into());
    }

    /// Bounds the first `partitions` together anew, and adds those that are missing. What one of
    /// them keeps beyond its share goes with its next event; what the others keep is held to the
    /// bound at once.
    pub fn resize(&self, bytes_max: usize, partitions: u16) {
        let partitions = usize::from(partitions.max(1));
        self.partitions.grow(partitions);
        self.shared.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.shared.share_bytes.store(bytes_max / partitions, Ordering::Relaxed);
        let rest = || self.partitions.iter().skip(partitions);
        let held: usize = rest().map(|ring| lock(ring).bytes).sum();
        if held <= bytes_max {
            return;
        }
        let share = bytes_max / rest().count();
        for ring in rest() {
            let mut ring = lock(ring);
            while ring.bytes > share && !ring.holds_oldest() {
                let Some(old) = ring.frames.pop_front() else { break };
                self.forget(&mut ring, &old);
            }
        }
    }

    /// Divides the bound by so many partitions, where not all of them are in use. What the others
    /// hold beyond their share is dropped.
    pub fn share_among(&self, partitions: usize) {
        let share_bytes = self.shared.bytes_max.load(Ordering::Relaxed) / partitions.max(1);
        self.shared.share_bytes.store(share_bytes, Ordering::Relaxed);
        for ring in self.partitions.iter() {
            let mut ring = lock(ring);
            while ring.bytes > share_bytes && ring.frames.len() > 1 && !ring.holds_oldest() {
                let Some(old) = ring.frames.pop_front() else { break };
                self.forget(&mut ring, &old);
            }
        }
    }

    /// Whether a partition may hold a frame of this cost, larger than a share, alone.
    pub(super) fn admit_oversize(&self, cost: usize) -> bool {
        let bytes_max = self.shared.bytes_max.load(Ordering::Relaxed);
        let add = |held: usize| held.checked_add(cost).filter(|sum| *sum <= bytes_max);
        let order = Ordering::Relaxed;
        self.shared.oversize_bytes.fetch_update(order, order, add).is_ok()
    }

    /// Accounts for a frame that has left its ring to make room.
    pub(super) fn forget(&self, ring: &mut Ring, old: &Kept) {
        let cost = cost_of(&old.frame);
        ring.bytes -= cost;
        if old.oversize {
            self.shared.oversize_bytes.fetch_sub(cost, Ordering::Relaxed);
        }
        self.shared.dropped.fetch_add(old.frame.len() as u64, Ordering::Relaxed);
    }
}
