//! Many durations in little memory: exact to under one percent.

use std::time::Duration;

/// Steps within each power of two.
const STEPS: usize = 128;
const STEP_BITS: u32 = STEPS.ilog2();

/// How often which duration was seen.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * (65 - STEP_BITS as usize)], total: 0, most: 0 }
    }
}

impl Histogram {
    /// Adds one duration.
    #[inline]
    pub fn add(&mut self, duration: Duration) {
        let nanos = duration.as_nanos() as u64;
        self.counts[index(nanos)] += 1;
        self.total += 1;
        self.most = self.most.max(nanos);
    }

    /// Adds everything another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    /// Durations seen.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.total
    }

    /// True if none was.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The longest.
    #[must_use]
    pub const fn most(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    /// The duration that this share of all do not exceed; zero if there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        at.map_or(Duration::ZERO, |at| Duration::from_nanos(upper_end(at).min(self.most)))
    }
}

/// Below `STEPS` each number has its place; above, each power of two has `STEPS` places.
fn index(nanos: u64) -> usize {
    let power = nanos.max(1).ilog2();
    if power < STEP_BITS {
        return nanos as usize;
    }
    let shift = power - STEP_BITS;
    (shift as usize + 1) * STEPS + (nanos >> shift) as usize - STEPS
}

fn upper_end(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    let first = (STEPS + index % STEPS) as u64;
    (first + 1).checked_shl(shift as u32).map_or(u64::MAX, |end| end.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_the_place_that_ends_at_or_closely_above_it() {
        for nanos in (0..10_000).chain((14..64).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1]))
        {
            let end = upper_end(index(nanos));
            assert!(end >= nanos && end - nanos <= nanos / STEPS as u64, "{nanos}: {end}");
        }
        assert_eq!(upper_end(index(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=100).for_each(|nanos| histogram.add(Duration::from_nanos(nanos)));
        for (share, nanos) in [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(histogram.quantile(share), Duration::from_nanos(nanos));
        }
        let mut both = Histogram::default();
        both.merge(&histogram);
        both.merge(&histogram);
        assert_eq!((both.len(), both.quantile(0.5)), (200, Duration::from_nanos(50)));
    }
}
