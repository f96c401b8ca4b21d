//! Who reads the log besides checkpoints: what they have still to read is not recycled.
//!
//! A reader holds everything before it has said where it stands. One that stands still holds the
//! log up, so it is dropped when nobody waits for it any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sluicebox_store::log::Position;

use crate::mailbox::lock;

/// Readers of the log, by number, and where each goes on.
#[derive(Debug, Default)]
pub(super) struct Readers {
    all: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    at: BTreeMap<u64, Position>,
}

impl Readers {
    /// One more, which stands before everything there is.
    pub(super) fn begin(self: &Arc<Self>) -> Reading {
        let mut all = lock(&self.all);
        all.last += 1;
        let number = all.last;
        all.at.insert(number, Position(0));
        Reading { readers: self.clone(), number }
    }

    /// The first place that somebody has still to read.
    pub(super) fn first(&self) -> Option<Position> {
        lock(&self.all).at.values().min().copied()
    }
}

/// A reader of the log.
#[derive(Debug)]
pub(crate) struct Reading {
    readers: Arc<Readers>,
    number: u64,
}

impl Reading {
    /// It goes on from here.
    pub(crate) fn is_at(&self, position: Position) {
        lock(&self.readers.all).at.insert(self.number, position);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        lock(&self.readers.all).at.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_has_to_read_is_held_until_it_has_or_is_gone() {
        let readers = Arc::new(Readers::default());
        assert_eq!(readers.first(), None);
        let (slow, quick) = (readers.begin(), readers.begin());
        quick.is_at(Position(9));
        assert_eq!(readers.first(), Some(Position(0)), "one has not said where it stands");
        slow.is_at(Position(5));
        assert_eq!(readers.first(), Some(Position(5)));
        drop(slow);
        assert_eq!(readers.first(), Some(Position(9)));
        drop(quick);
        assert_eq!(readers.first(), None);
    }
}
