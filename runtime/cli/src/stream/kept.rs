//! Units that were cut and that the node has not acknowledged yet.
//!
//! - Each has its ordinal: which unit of its key it is, over all streams of the key. Counting
//!   begins where the node said that the key stands.
//! - They are let go of when they are acknowledged, and not before: after a broken connection those
//!   that the node has not are sent again, from the first on.
//! - One that was refused is kept as well: whether the node counts it is known when it acknowledges
//!   a later one.
//! - Their bytes are bounded; while there is no room nothing more is read.

use std::collections::VecDeque;

use bytes::Bytes;

/// Most bytes that wait to be acknowledged; one unit more may be there.
const BYTES_MAX: usize = 64 << 20;

/// Units of a stream, from the first that is not acknowledged on.
#[derive(Debug, Default)]
pub(super) struct Kept {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Of those waiting, how many were sent over this connection.
    sent: usize,
    /// The ordinal of the first that waits, or that is to come.
    first: u64,
}

#[derive(Debug)]
struct Waiting {
    unit: Bytes,
    refused: bool,
}

impl Kept {
    /// Counting from this ordinal on.
    pub(super) fn from(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The ordinal of the first unit that is not acknowledged.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The ordinal behind all units that were cut.
    pub(super) fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// True while more may be added.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    /// True if of each unit it is known what became of it.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.refused)
    }

    /// Adds the next unit.
    pub(super) fn add(&mut self, unit: Bytes) {
        self.bytes += unit.len();
        self.waiting.push_back(Waiting { unit, refused: false });
    }

    /// The next unit to be sent over this connection.
    pub(super) fn unsent(&mut self) -> Option<Bytes> {
        let waiting = self.waiting.get(self.sent)?;
        self.sent += 1;
        Some(waiting.unit.clone())
    }

    /// True if there is one to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Everything that is not acknowledged is to be sent anew.
    pub(super) const fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Notes that a unit was refused; false if that was known.
    pub(super) fn refuse(&mut self, ordinal: u64) -> bool {
        let at = ordinal.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let Some(waiting) = at.and_then(|at| self.waiting.get_mut(at)) else { return true };
        !std::mem::replace(&mut waiting.refused, true)
    }

    /// Lets go of the units before an ordinal.
    pub(super) fn release(&mut self, ordinal: u64) {
        while self.first < ordinal {
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.bytes -= waiting.unit.len();
            self.sent = self.sent.saturating_sub(1);
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(first: u64, units: &[&'static str]) -> Kept {
        let mut kept = Kept::from(first);
        units.iter().for_each(|unit| kept.add(Bytes::from(*unit)));
        kept
    }

    fn sent(kept: &mut Kept) -> Vec<Bytes> {
        std::iter::from_fn(|| kept.unsent()).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_and_nothing_else() {
        let mut kept = kept(7, &["a", "b", "c"]);
        assert_eq!(sent(&mut kept), ["a", "b", "c"]);
        kept.release(8);
        kept.add(Bytes::from("d"));
        assert_eq!(sent(&mut kept), ["d"]);
        kept.rewind();
        assert_eq!((kept.first(), kept.end()), (8, 11));
        assert_eq!(sent(&mut kept), ["b", "c", "d"]);
        // No node acknowledges what it was never sent.
        kept.release(12);
        assert!(kept.is_settled() && !kept.has_unsent());
        assert_eq!((kept.first(), kept.end(), kept.bytes), (11, 11, 0));
    }

    #[test]
    fn what_was_refused_is_told_once_and_sent_again() {
        let mut kept = kept(3, &["a", "b"]);
        assert_eq!(sent(&mut kept), ["a", "b"]);
        assert!(kept.refuse(4) && !kept.refuse(4));
        assert!(!kept.is_settled());
        kept.release(4);
        assert!(kept.is_settled());
        kept.rewind();
        assert_eq!(sent(&mut kept), ["b"]);
        // Of one that is not there any more nothing is known.
        assert!(kept.refuse(0));
    }

    #[test]
    fn its_bytes_are_bounded() {
        let mut kept = Kept::default();
        let large = Bytes::from(vec![0; BYTES_MAX / 2]);
        for left in [true, false] {
            kept.add(large.clone());
            assert_eq!(kept.has_room(), left);
        }
        kept.release(1);
        assert!(kept.has_room());
    }
}
