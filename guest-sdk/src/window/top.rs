//! The first so many of a window: by a score each has, or by how often they come.
//!
//! - [`top`] keeps no more than it gives, and is exact.
//! - [`most_frequent`] has to count every value it meets. It counts up to a bound of different
//!   ones; values that come when it is reached are counted together, and the result says how many
//!   events that were.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::Serialize;

use crate::kept::Kept;
use crate::window::Aggregate;

/// Made by [`top`].
#[derive(Clone, Copy, Debug)]
pub struct Top<S, T> {
    most: usize,
    of: PhantomData<(S, T)>,
}

/// The `most` values with the greatest scores, best first; of equal scores the first to come. Its
/// input is a score and a value; its state is what it gives.
///
/// ```
/// # use std::time::Duration;
/// # use sluicebox_guest::window::{Window, top};
/// # use sluicebox_guest::{Events, Output};
/// # #[derive(serde::Deserialize)]
/// # struct Bid { price: i64, bidder: String }
/// /// The three highest bids of each minute.
/// fn highest(events: Events<'_>, out: &mut Output) {
///     Window::tumbling(Duration::from_mins(1))
///         .aggregate(top(3), |event| {
///             let bid: Bid = event.json()?;
///             Ok((bid.price, bid.bidder))
///         })
///         .run(events, out);
/// }
/// ```
#[must_use]
pub const fn top<S: Kept + PartialOrd, T: Kept>(most: usize) -> Top<S, T> {
    Top { most, of: PhantomData }
}

/// One of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ranked<S, T> {
    /// What it is ranked by.
    pub score: S,
    /// What it is.
    pub item: T,
}

impl<S: Kept + PartialOrd, T: Kept> Top<S, T> {
    /// Puts one behind all that are as good.
    fn insert(&self, kept: &mut Vec<(S, T)>, one: (S, T)) {
        let place = kept.partition_point(|(score, _)| *score >= one.0);
        if place < self.most {
            kept.insert(place, one);
            kept.truncate(self.most);
        }
    }
}

impl<S: Kept + PartialOrd, T: Kept> Aggregate for Top<S, T> {
    type Input = (S, T);
    type Kept = Vec<(S, T)>;
    type Output = Vec<Ranked<S, T>>;

    fn first(&self, input: (S, T)) -> Vec<(S, T)> {
        let mut kept = Vec::with_capacity(1);
        self.insert(&mut kept, input);
        kept
    }

    fn add(&self, kept: &mut Vec<(S, T)>, input: (S, T)) {
        self.insert(kept, input);
    }

    fn merge(&self, kept: &mut Vec<(S, T)>, later: &Vec<(S, T)>) {
        for one in later {
            self.insert(kept, one.clone());
        }
    }

    fn output(&self, kept: &Vec<(S, T)>) -> Vec<Ranked<S, T>> {
        let ranked = |(score, item): &(S, T)| Ranked { score: score.clone(), item: item.clone() };
        kept.iter().map(ranked).collect()
    }
}

/// Made by [`most_frequent`].
#[derive(Clone, Copy, Debug)]
pub struct MostFrequent<T> {
    most: usize,
    counted_max: usize,
    of: PhantomData<T>,
}

/// The `most` values that come most often, most frequent first, equals in their own order. Up to
/// `counted_max` different values are counted; while there are no more, counts are exact.
#[must_use]
pub const fn most_frequent<T: Kept + Ord>(most: usize, counted_max: usize) -> MostFrequent<T> {
    MostFrequent { most, counted_max, of: PhantomData }
}

/// What comes most often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted<T> {
    /// The first by number.
    pub items: Vec<Ranked<u64, T>>,
    /// Events whose values were not counted, as there were too many different ones: each count is
    /// too small by at most this, and a value that is not counted came at most so often.
    pub others: u64,
}

impl<T: Kept + Ord> MostFrequent<T> {
    fn count(&self, (counts, others): &mut (BTreeMap<T, u64>, u64), value: T, times: u64) {
        if let Some(count) = counts.get_mut(&value) {
            *count += times;
        } else if counts.len() < self.counted_max {
            counts.insert(value, times);
        } else {
            *others += times;
        }
    }
}

impl<T: Kept + Ord> Aggregate for MostFrequent<T> {
    type Input = T;
    type Kept = (BTreeMap<T, u64>, u64);
    type Output = Counted<T>;

    fn first(&self, input: T) -> Self::Kept {
        let mut kept = (BTreeMap::new(), 0);
        self.count(&mut kept, input, 1);
        kept
    }

    fn add(&self, kept: &mut Self::Kept, input: T) {
        self.count(kept, input, 1);
    }

    fn merge(&self, kept: &mut Self::Kept, later: &Self::Kept) {
        for (value, times) in &later.0 {
            self.count(kept, value.clone(), *times);
        }
        kept.1 += later.1;
    }

    fn output(&self, (counts, others): &Self::Kept) -> Counted<T> {
        let ranked = |(item, count): (&T, &u64)| Ranked { score: *count, item: item.clone() };
        let mut items: Vec<_> = counts.iter().map(ranked).collect();
        items.sort_by_key(|one| Reverse(one.score));
        items.truncate(self.most);
        Counted { items, others: *others }
    }
}
