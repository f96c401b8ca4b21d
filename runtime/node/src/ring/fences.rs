//! What is read before what, when the number of partitions has changed.
//!
//! A change moves keys to other partitions. A fence says how far each partition had come: no reader
//! is given anything behind it before it has read everything in front of it, in all partitions. So
//! the results of a key are read in the order in which they came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use sluicebox_core::limits::FENCE_OFFSETS_MAX;

use crate::mailbox::lock;

/// Offsets by partition; 0 for those behind the last.
pub(super) type Fence = Arc<[u64]>;

/// See the module. The oldest first.
#[derive(Debug, Default)]
pub(super) struct Fences(Mutex<VecDeque<Fence>>);

impl Fences {
    /// Puts up a fence behind the others, and takes down those that `passed` says nobody can be in
    /// front of.
    pub(super) fn put_up(&self, fence: Fence, passed: impl Fn(&Fence) -> bool) {
        let mut fences = lock(&self.0);
        fences.push_back(fence);
        let mut offsets: usize = fences.iter().map(|fence| fence.len()).sum();
        while let Some(first) = fences.front() {
            if offsets <= FENCE_OFFSETS_MAX && !passed(first) {
                break;
            }
            offsets -= first.len();
            fences.pop_front();
        }
    }

    /// The fence a reader at these offsets is in front of.
    pub(super) fn ahead(&self, offsets: &[u64]) -> Option<Fence> {
        let fences = lock(&self.0);
        let in_front = |fence: &&Fence| {
            (0..).zip(offsets).any(|(partition, offset)| *offset < at(fence, partition))
        };
        fences.iter().find(in_front).cloned()
    }
}

/// How far a reader may read in a partition.
pub(super) fn limit(fence: Option<&Fence>, partition: usize) -> u64 {
    fence.map_or(u64::MAX, |fence| at(fence, partition))
}

fn at(fence: &Fence, partition: usize) -> u64 {
    fence.get(partition).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_passed_one_after_another_and_bounded() {
        let fences = Fences::default();
        assert!(fences.ahead(&[0, 0]).is_none());
        fences.put_up([3, 5].into(), |_| false);
        fences.put_up([3, 7, 2].into(), |_| false);
        let ahead = |offsets: &[u64]| fences.ahead(offsets).map(|fence| fence.to_vec());
        assert_eq!(ahead(&[0, 5, 0]), Some(vec![3, 5]));
        assert_eq!(ahead(&[3, 5, 0]), Some(vec![3, 7, 2]));
        assert_eq!(ahead(&[9, 7, 2]), None);
        assert_eq!(limit(Some(&[3, 5].into()), 2), 0, "what came later lies behind");
        for n in 10..10 + FENCE_OFFSETS_MAX as u64 {
            fences.put_up([n].into(), |_| false);
        }
        assert_eq!(ahead(&[0]), Some(vec![10]), "the oldest make way");
        fences.put_up([99].into(), |fence| fence[0] < 99);
        assert_eq!(ahead(&[0]), Some(vec![99]));
    }
}
