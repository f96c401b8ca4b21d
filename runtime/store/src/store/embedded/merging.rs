//! The pace of merging, which shares the disk with the log as much as a checkpoint does.
//!
//! The tree offers to look at each entry it merges. Nothing is changed on that occasion: the bytes
//! are counted, and the tree's thread sleeps when there were more than the pace allows.

use std::thread;
use std::time::{Duration, Instant};

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use crate::priority::Stretches;

/// Bytes merged between two looks at the clock.
const LOOK_BYTES: u64 = 256 * 1024;
/// The longest sleep: a store that is closed waits for it.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// Makes a pace for each merge.
pub(super) struct Paced {
    pub(super) bytes_per_second: u64,
}

impl Factory for Paced {
    fn name(&self) -> &'static str {
        "sluicebox.pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Pace::new(self.bytes_per_second))
    }
}

struct Pace {
    bytes_per_second: u64,
    /// Bytes since the clock was looked at, and when that was.
    bytes: u64,
    since: Instant,
    stretches: Stretches,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            bytes: 0,
            since: Instant::now(),
            stretches: Stretches::begin(),
        }
    }

    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes < LOOK_BYTES {
            return;
        }
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        thread::sleep(due.saturating_sub(self.since.elapsed()).min(SLEEP_MAX));
        (self.bytes, self.since) = (0, Instant::now());
    }
}

impl CompactionFilter for Pace {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        self.stretches.step();
        self.count((item.key().len() + item.value()?.len()) as u64);
        Ok(Verdict::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_takes_as_long_as_its_pace_says() {
        let start = Instant::now();
        let mut pace = Pace::new(10_000_000);
        (0..20_000).for_each(|_| pace.count(100));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(170), "2 MB at 10 MB/s took {took:?}");
    }

    #[test]
    fn no_sleep_is_long() {
        let start = Instant::now();
        Pace::new(0).count(LOOK_BYTES);
        assert!(start.elapsed() < 2 * SLEEP_MAX);
    }
}
