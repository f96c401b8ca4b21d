//! What a node says of a partition it has, for the one that forwards to it: what it has consumed,
//! and what left there for readers who are here.
//!
//! Bounded: places are one for each source, and what leaves is bounded in bytes. A node sends no
//! more than it was told to have been kept, so that one that goes beyond the bound is not ours.

use std::collections::VecDeque;

use sluicebox_core::frame::Frame;
use sluicebox_core::ids::OutputId;
use sluicebox_core::limits::BATCH_BYTES_MAX;
use sluicebox_core::position::{Place, Positions, Source};

use crate::spread::reports::WINDOW_BYTES;

/// Bytes of events that wait to be kept here: what a node may have under way, twice, and one frame
/// that may be larger.
const BYTES_MAX: usize = 2 * WINDOW_BYTES + BATCH_BYTES_MAX;

/// Something another node says.
#[derive(Debug)]
pub(crate) enum Returned {
    /// Everything of a source before this is consumed, and on its disk.
    Settled(Source, Place),
    /// It cannot take runs now.
    Later,
    /// It has the partition only now, and knows nothing of what was said before.
    Anew,
    /// Events left there.
    Left(Left),
}

/// Events that left, with the offset of the first of them.
#[derive(Debug)]
pub(crate) struct Left {
    pub way: Way,
    pub first: u64,
    pub frame: Frame,
}

/// What they left by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Output(OutputId),
    DeadLetters,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    pub settled: Positions,
    pub later: bool,
    pub anew: bool,
    /// Anything was said.
    pub is_news: bool,
    pub left: VecDeque<Left>,
    bytes: usize,
}

impl Returns {
    /// Adds something. False if it is more than may be under way.
    pub(super) fn push(&mut self, what: Returned) -> bool {
        self.is_news = true;
        match what {
            Returned::Settled(source, place) => {
                // What comes late is behind what is known.
                let _moved = self.settled.advance(source, place);
            }
            Returned::Later => self.later = true,
            Returned::Anew => self.anew = true,
            Returned::Left(left) => {
                let bytes = left.frame.bytes().len();
                let mut same = self.left.iter().rev().filter(|known| known.way == left.way);
                if same.next().is_some_and(|last| last.first >= left.first) {
                    return true;
                }
                if self.bytes > 0 && self.bytes + bytes > BYTES_MAX {
                    return false;
                }
                self.bytes += bytes;
                self.left.push_back(left);
            }
        }
        true
    }
}
