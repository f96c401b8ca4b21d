//! The partitions of a ring: more can be added while it is used, and none goes.
//!
//! They lie in blocks, each behind the one before, so that adding takes no lock of those who read
//! and append.

use std::sync::{Arc, Mutex, OnceLock};

use super::Ring;

/// See the module.
#[derive(Debug)]
pub(super) struct Partitions {
    /// Each may be in another output as well, which is arranged differently.
    block: Box<[Arc<Mutex<Ring>>]>,
    more: OnceLock<Box<Self>>,
}

impl Partitions {
    pub(super) fn new(count: usize) -> Self {
        (0..count).map(|_| Arc::default()).collect()
    }

    /// Adds empty ones until there are so many.
    pub(super) fn grow(&self, count: usize) {
        let missing = count.saturating_sub(self.block.len());
        if missing > 0 {
            self.more.get_or_init(|| Box::new(Self::new(missing))).grow(missing);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.block.len() + self.more.get().map_or(0, |more| more.len())
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Arc<Mutex<Ring>>> {
        match self.block.get(at) {
            Some(ring) => Some(ring),
            None => self.more.get()?.get(at - self.block.len()),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Mutex<Ring>>> {
        fn next<'a>(block: &&'a Partitions) -> Option<&'a Partitions> {
            block.more.get().map(|more| &**more)
        }
        std::iter::successors(Some(self), next).flat_map(|block| &block.block)
    }
}

impl FromIterator<Arc<Mutex<Ring>>> for Partitions {
    fn from_iter<I: IntoIterator<Item = Arc<Mutex<Ring>>>>(rings: I) -> Self {
        Self { block: rings.into_iter().collect(), more: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_added_and_those_that_are_there_stay() {
        let partitions = Partitions::new(2);
        let first = std::ptr::from_ref(partitions.get(1).expect("the second"));
        for (count, there) in [(5, 5), (3, 5), (9, 9)] {
            partitions.grow(count);
            assert_eq!((partitions.len(), partitions.iter().count()), (there, there));
            let all: Vec<_> = (0..there).map(|at| partitions.get(at).expect("there")).collect();
            assert!(partitions.iter().zip(all).all(|(one, other)| std::ptr::eq(one, other)));
            assert!(partitions.get(there).is_none());
        }
        assert!(std::ptr::eq(first, partitions.get(1).expect("the second")));
    }
}
