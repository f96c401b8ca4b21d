//! Lines of the log that somebody else can cause: one a second is written, whatever they do.
//!
//! What is left out is counted in the metrics, as whoever asks may see from there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seldom(AtomicU64);

impl Seldom {
    /// One that has said nothing.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// True if a line is due, which is then the last for a second.
    pub(crate) fn is_due(&self) -> bool {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = since.map_or(0, |since| since.as_secs()) + 1;
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_few_are_written() {
        let seldom = Seldom::new();
        let began = std::time::Instant::now();
        let written = (0..10_000).filter(|_| seldom.is_due()).count();
        let most = 2 + began.elapsed().as_secs() as usize;
        assert!((1..=most).contains(&written), "{written} lines");
    }
}
