//! The hard cap of a tenant: a token bucket of device time.
//!
//! It fills at a part of the time that passes, up to a burst, and gives while there is anything in
//! it; what is drawn beyond that is paid back before it gives again. So over any span of time no
//! more is drawn than the burst, the cap's part of the span, and one draw. Exact: the level is in
//! millionths of nanoseconds.

/// Millionths: the rate times nanoseconds gives these without a division.
const MILLION: i128 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    level: i128,
    level_max: i128,
    /// Millionths of the time that passes; at least 1.
    rate: u32,
    filled_at: u64,
}

impl Bucket {
    /// A full one. The burst is at least a nanosecond.
    pub(super) fn new(rate: u32, burst_nanos: u64, now: u64) -> Self {
        let level_max = i128::from(burst_nanos.max(1)) * MILLION;
        Self { level: level_max, level_max, rate: rate.max(1), filled_at: now }
    }

    /// When it gives, if not now. A clock that goes back fills nothing.
    pub(super) fn shut_until(&mut self, now: u64) -> Option<u64> {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let level = self.level + i128::from(passed) * i128::from(self.rate);
        self.level = level.min(self.level_max);
        if self.level > 0 {
            return None;
        }
        let wait = (-self.level) / i128::from(self.rate) + 1;
        Some(self.filled_at.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    pub(super) const fn draw(&mut self, nanos: u64) {
        self.level -= nanos as i128 * MILLION;
    }

    /// What was drawn for `expected` has taken so long.
    pub(super) fn correct(&mut self, expected: u64, took: u64) {
        let level = self.level + (i128::from(expected) - i128::from(took)) * MILLION;
        self.level = level.min(self.level_max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_overdrawn_is_paid_back_first() {
        let mut bucket = Bucket::new(250_000, 10, 100);
        assert_eq!(bucket.shut_until(100), None);
        bucket.draw(20);
        assert_eq!(bucket.shut_until(100), Some(141));
        assert_eq!(bucket.shut_until(140), Some(141));
        assert_eq!(bucket.shut_until(90), Some(141));
        assert_eq!(bucket.shut_until(141), None);
    }

    proptest! {
        #[test]
        fn no_span_of_time_is_given_more_than_burst_rate_and_one_draw(
            rate in 1_u32..=1_000_000,
            burst in 1_u64..2_000,
            steps in prop::collection::vec((0_u64..3_000, 1_u64..500, 0_u64..700), 1..60),
        ) {
            let mut bucket = Bucket::new(rate, burst, 0);
            let (mut now, mut given) = (0, Vec::new());
            for (wait, expected, took) in steps {
                now += wait;
                if bucket.shut_until(now).is_none() {
                    bucket.draw(expected);
                    bucket.correct(expected, took);
                    given.push((now, took));
                }
            }
            for (first, (start, _)) in given.iter().enumerate() {
                let mut sum = 0;
                for (end, took) in &given[first..] {
                    // All but the last draw were there when it was made.
                    let span = i128::from(end - start);
                    let room = i128::from(burst) * MILLION + span * i128::from(rate);
                    prop_assert!(i128::from(sum) * MILLION <= room);
                    sum += took;
                }
            }
        }

        #[test]
        fn it_gives_at_the_moment_it_says_and_not_before(
            rate in 1_u32..=1_000_000,
            drawn in 2_u64..1_000_000,
        ) {
            let mut bucket = Bucket::new(rate, 1, 0);
            bucket.draw(drawn);
            let opens = bucket.shut_until(0).unwrap();
            prop_assert_eq!(bucket.shut_until(opens - 1), Some(opens));
            prop_assert_eq!(bucket.shut_until(opens), None);
        }
    }
}
