//! What the stages of a segment hand to each other within a batch: how much, and how long it lies
//! between two calls.
//!
//! What a stage is called with by itself, for timers or parked events, is handed to it by nobody:
//! the stage before it was not called in that batch. What is taken back is counted when it is
//! handed over again.

use std::time::{Duration, Instant};

use crate::metrics::HopWay;
use crate::running::SegmentRuntime;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// When each stage's last call of the batch ended.
    ended: Vec<Option<Instant>>,
}

impl Handed {
    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.ended.clear();
    }

    /// A stage was called with so many events and bytes.
    pub(super) fn called(
        &mut self,
        (segment, stage): (&SegmentRuntime, usize),
        (entered, took): (Instant, Duration),
        (events, bytes): (usize, usize),
        stands: bool,
    ) {
        if self.ended.len() <= stage {
            self.ended.resize(stage + 1, None);
        }
        self.ended[stage] = Some(entered + took);
        // An edge to the root leaves the segment, though it comes back to it.
        if !stands || stage == 0 {
            return;
        }
        let Some((before, hop)) = segment.shared.hops.inside(segment.at, stage) else { return };
        if let Some(since) = self.ended.get(before).copied().flatten() {
            let way = hop.way(HopWay::Call);
            way.passed(events, bytes);
            way.took(entered.saturating_duration_since(since));
        }
    }
}
