//! Sending no faster than asked, evenly.

use std::time::Duration;

/// A batch may take at most this much of a second's events, so that slow rates stay even.
const BURSTS_PER_SECOND: f64 = 20.0;

/// Events a second, counted from a start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    rate: f64,
    sent: u64,
}

impl Pace {
    pub(crate) const fn new(rate: f64) -> Self {
        Self { rate, sent: 0 }
    }

    /// Most events in one batch.
    pub(crate) fn burst(&self, batch: u32) -> u32 {
        // The cast saturates, and a rate is above zero.
        ((self.rate / BURSTS_PER_SECOND).ceil() as u32).clamp(1, batch)
    }

    /// How long after the start the next batch may go.
    pub(crate) fn due(&self) -> Duration {
        Duration::try_from_secs_f64(self.sent as f64 / self.rate).unwrap_or(Duration::MAX)
    }

    /// A batch went.
    pub(crate) const fn sent(&mut self, events: u64) {
        self.sent += events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_due_at_the_rate() {
        let mut pace = Pace::new(500.0);
        assert_eq!(pace.due(), Duration::ZERO);
        pace.sent(250);
        assert_eq!(pace.due(), Duration::from_millis(500));
        assert_eq!(pace.burst(1000), 25);
        assert_eq!(pace.burst(10), 10);
    }

    #[test]
    fn a_very_slow_rate_sends_one_at_a_time() {
        let mut pace = Pace::new(0.5);
        assert_eq!(pace.burst(1000), 1);
        pace.sent(1);
        assert_eq!(pace.due(), Duration::from_secs(2));
    }
}
