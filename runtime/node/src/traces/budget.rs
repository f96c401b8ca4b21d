//! So many a second, and no more: a second's worth may come at once.

use std::sync::Mutex;
use std::time::Instant;

use crate::mailbox::lock;

/// Parts of one that are counted, so that time adds up.
const PARTS: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In [`PARTS`].
    left: u64,
    since: Instant,
}

impl Budget {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        let state = State { left: per_second * PARTS, since: Instant::now() };
        Self { per_second, state: Mutex::new(state) }
    }

    /// Takes one, if there is one.
    pub(crate) fn draw(&self) -> bool {
        self.draw_at(Instant::now())
    }

    fn draw_at(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let micros = now.saturating_duration_since(state.since).as_micros();
        let more = self.per_second.saturating_mul(u64::try_from(micros).unwrap_or(u64::MAX));
        if more > 0 {
            state.left = state.left.saturating_add(more).min(self.per_second * PARTS);
            state.since = now;
        }
        let has_one = state.left >= PARTS;
        if has_one {
            state.left -= PARTS;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_has_its_worth_and_no_more() {
        let budget = Budget::new(4);
        let now = lock(&budget.state).since;
        let drawn = |at: Duration| (0..100).filter(|_| budget.draw_at(now + at)).count();
        assert_eq!(drawn(Duration::ZERO), 4);
        assert_eq!(drawn(Duration::from_millis(500)), 2);
        assert_eq!(drawn(Duration::from_millis(600)), 0);
        assert_eq!(drawn(Duration::from_millis(750)), 1, "what passed before counts");
        assert_eq!(drawn(Duration::from_secs(3600)), 4, "it does not pile up");
        assert!(!Budget::new(0).draw());
    }
}
