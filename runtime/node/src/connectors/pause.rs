//! Pauses between attempts: each twice as long as the one before, up to a bound, and never the same
//! for two who began together.

use std::time::Duration;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    first: Duration,
    most: Duration,
    next: Duration,
    seed: u64,
}

impl Pause {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        let seed = crate::deploy::secret_number().unwrap_or_default();
        Self { first: first.min(most), most, next: first.min(most), seed }
    }

    /// What was tried went well.
    pub(super) fn begin_again(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now: between a half of the pause and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = (self.seed >> 40) as u32 % 1000;
        whole / 2 + whole / 2 * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut pause = Pause::new(first, most);
        let mut least = first / 2;
        for _ in 0..40 {
            let now = pause.next();
            assert!(now >= least && now <= most, "{now:?}");
            least = (least * 2).min(most / 2);
        }
        pause.begin_again();
        assert!(pause.next() <= first);
        assert!(Pause::new(most, first).next() <= first, "the bound is the bound");
    }
}
