//! A figure that was taken several times.

/// The values of one figure, one a round.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds that of a round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The one in the middle; zero if there are none.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The one that this share of all do not exceed; zero if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// By how much the largest is above the smallest, as a share of the middle one.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.quantile(1.0) - self.quantile(0.0)) / self.median().max(f64::MIN_POSITIVE)
    }

    /// This figure by another, round by round.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, theirs)| mine / theirs).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_sorted_list() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.median(), 0.0);
        [4.0, 1.0, 3.0, 2.0, 5.0].into_iter().for_each(|value| rounds.add(value));
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| rounds.quantile(share));
        assert_eq!(found, [1.0, 3.0, 5.0, 5.0]);
        assert_eq!(rounds.spread(), 4.0 / 3.0);
        assert_eq!(rounds.over(&rounds).quantile(1.0), 1.0);
    }
}
