//! Whether checkpoints are made: told by their thread, read by everybody who depends on them.
//!
//! - *Good* until one fails; *failing* until one stands again, which is tried with growing pauses;
//!   *stopped* for good when the thread has panicked: nobody knows then what it had half done.
//! - While no checkpoint is made the node goes on, until more of the log waits for one than may.
//!   Then nothing new is taken in, and who is refused is told why.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The first pause after a failure, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How it stands with checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Good,
    /// The last one failed; tried again by itself.
    Failing,
    /// None is made until the node is started again.
    Stopped,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Health {
    made: AtomicU64,
    failed: AtomicU64,
    /// Failures since the last one that stands.
    in_a_row: AtomicU64,
    stopped: AtomicBool,
}

impl Health {
    pub(crate) fn condition(&self) -> Condition {
        if self.stopped.load(Ordering::Relaxed) {
            Condition::Stopped
        } else if self.in_a_row.load(Ordering::Relaxed) > 0 {
            Condition::Failing
        } else {
            Condition::Good
        }
    }

    /// Checkpoints made since the start.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Failures since the start.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// A checkpoint stands, or there is nothing to be made one of.
    pub(super) fn note_good(&self, made: bool) {
        self.made.fetch_add(made.into(), Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// One failed. Gives how long to wait before the next try.
    pub(super) fn note_failed(&self) -> Duration {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let before = self.in_a_row.fetch_add(1, Ordering::Relaxed);
        let doublings = u32::try_from(before).unwrap_or(u32::MAX).min(16);
        (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
    }

    /// No more will be made.
    pub(super) fn note_stopped(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew_behind_a_good_one() {
        let health = Health::default();
        assert_eq!(health.condition(), Condition::Good);
        let pauses: Vec<u128> = (0..8).map(|_| health.note_failed().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(health.condition(), Condition::Failing);
        assert!((0..100).all(|_| health.note_failed() == PAUSE_MAX));
        health.note_good(true);
        assert_eq!((health.condition(), health.made(), health.failed()), (Condition::Good, 1, 108));
        assert_eq!(health.note_failed(), PAUSE_MIN);
        health.note_stopped();
        health.note_good(false);
        assert_eq!(health.condition(), Condition::Stopped, "for good");
    }
}
