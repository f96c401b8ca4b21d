//! Units that were cut and that the node has not acknowledged yet.
//!
//! - Each has its ordinal: which unit of its key it is, over all streams of the key. Counting
//!   begins where the node said that the key stands.
//! - They are let go of when they are acknowledged, and not before: after a broken connection those
//!   that the node has not are sent again, from the first on.
//! - Their bytes are bounded; while there is no room nothing more is read.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cut::Unit;

/// Most bytes that wait to be acknowledged; one unit more may be there.
const BYTES_MAX: usize = 64 << 20;

/// Units of a stream, from the first that is not acknowledged on.
#[derive(Debug, Default)]
pub(super) struct Kept {
    waiting: VecDeque<Placed>,
    bytes: usize,
    /// Of those waiting, how many were sent over this connection.
    sent: usize,
    /// The ordinal behind the last.
    end: u64,
}

#[derive(Debug)]
struct Placed {
    /// The ordinal behind the last of its units.
    end: u64,
    unit: Unit,
}

impl Kept {
    /// Counting from this ordinal on.
    pub(super) fn from(first: u64) -> Self {
        Self { end: first, ..Self::default() }
    }

    /// The ordinal behind all units that were cut.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// The ordinal of the first unit that is not acknowledged.
    pub(super) fn first(&self) -> u64 {
        self.waiting.front().map_or(self.end, |placed| placed.end - placed.unit.units)
    }

    /// True while more may be added.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    /// True if all that was added was acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds the next unit.
    pub(super) fn add(&mut self, unit: Unit) {
        self.bytes += unit.bytes.len();
        self.end += unit.units;
        self.waiting.push_back(Placed { end: self.end, unit });
    }

    /// The next unit to be sent over this connection.
    pub(super) fn unsent(&mut self) -> Option<Bytes> {
        let placed = self.waiting.get(self.sent)?;
        self.sent += 1;
        Some(placed.unit.bytes.clone())
    }

    /// True if there is one to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.waiting.len()
    }

    /// Everything that is not acknowledged is to be sent anew.
    pub(super) const fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Lets go of the units before an ordinal.
    pub(super) fn release(&mut self, ordinal: u64) {
        while let Some(placed) = self.waiting.front().filter(|placed| placed.end <= ordinal) {
            self.bytes -= placed.unit.bytes.len();
            self.sent = self.sent.saturating_sub(1);
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(units: u64, bytes: &'static str) -> Unit {
        Unit { units, bytes: bytes.into() }
    }

    fn sent(kept: &mut Kept) -> Vec<Bytes> {
        std::iter::from_fn(|| kept.unsent()).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_and_nothing_else() {
        let mut kept = Kept::from(7);
        for line in ["a", "b", "c"] {
            kept.add(unit(1, line));
        }
        assert_eq!(sent(&mut kept), ["a", "b", "c"]);
        kept.release(8);
        kept.add(unit(1, "d"));
        assert_eq!(sent(&mut kept), ["d"]);
        kept.rewind();
        assert_eq!((kept.first(), kept.end()), (8, 11));
        assert_eq!(sent(&mut kept), ["b", "c", "d"]);
        kept.release(11);
        assert!(kept.is_empty() && !kept.has_unsent());
        assert_eq!((kept.first(), kept.bytes), (11, 0));
    }

    #[test]
    fn a_frame_is_kept_until_all_its_events_are_acknowledged() {
        let mut kept = Kept::from(0);
        kept.add(unit(3, "three"));
        kept.add(unit(2, "two"));
        kept.release(2);
        assert_eq!(kept.first(), 0);
        kept.release(4);
        assert_eq!(kept.first(), 3);
    }

    #[test]
    fn its_bytes_are_bounded() {
        let mut kept = Kept::default();
        let large = Bytes::from(vec![0; BYTES_MAX / 2]);
        for left in [true, false] {
            kept.add(Unit { units: 1, bytes: large.clone() });
            assert_eq!(kept.has_room(), left);
        }
        kept.release(1);
        assert!(kept.has_room());
    }
}
