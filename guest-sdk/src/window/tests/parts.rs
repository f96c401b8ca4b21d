//! Aggregates: putting parts together is the same as adding one after the other.

use std::fmt::Debug;

use super::*;
use crate::kept::{self, Kept};

/// What comes of values that are added one after the other, and of the same in parts that were
/// kept, read back and put together.
fn both_ways<A>(aggregate: &A, values: &[A::Input], parts: usize) -> (A::Output, A::Output)
where
    A: Aggregate,
    A::Input: Clone,
{
    let whole = |values: &[A::Input]| {
        let mut kept = aggregate.first(values[0].clone());
        values[1..].iter().for_each(|value| aggregate.add(&mut kept, value.clone()));
        kept
    };
    let kept = |part: &[A::Input]| {
        let mut bytes = Vec::new();
        whole(part).write(&mut bytes);
        kept::read_all::<A::Kept>(&bytes).expect("what was written is read")
    };
    let mut parts = values.chunks(values.len().div_ceil(parts)).map(kept);
    let mut together = parts.next().expect("there is a value");
    parts.for_each(|part| aggregate.merge(&mut together, &part));
    (aggregate.output(&whole(values)), aggregate.output(&together))
}

fn same<A>(aggregate: &A, values: &[A::Input], parts: usize) -> A::Output
where
    A: Aggregate<Output: PartialEq + Debug>,
    A::Input: Clone,
{
    let (whole, together) = both_ways(aggregate, values, parts);
    assert_eq!(whole, together);
    together
}

proptest! {
    #[test]
    fn parts_come_to_the_same_as_the_whole(
        values in prop::collection::vec(-20..20_i64, 1..40),
        parts in 1..8_usize,
        most in 1..6_usize,
    ) {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        let total: i64 = values.iter().sum();
        assert_eq!(same(&sum(), &values, parts), i128::from(total));
        assert_eq!(same(&min(), &values, parts), sorted[0]);
        assert_eq!(same(&max(), &values, parts), sorted[sorted.len() - 1]);
        assert_eq!(same(&mean(), &values, parts), total as f64 / values.len() as f64);
        assert_eq!(same(&count(), &vec![(); values.len()], parts), values.len() as u64);

        let scored: Vec<(i64, u64)> = values.iter().copied().zip(0..).collect();
        let mut ranked = scored.clone();
        ranked.sort_by_key(|(score, _)| -score);
        ranked.truncate(most);
        let found = same(&top(most), &scored, parts);
        let found: Vec<(i64, u64)> = found.iter().map(|one| (one.score, one.item)).collect();
        assert_eq!(found, ranked);

        let mut different = sorted.clone();
        different.dedup();
        let exact = different.len() <= most;
        let counted = DistinctCount { count: different.len().min(most) as u64, exact };
        assert_eq!(same(&distinct(most), &values, parts), counted);

        let times = |value: &i64| values.iter().filter(|other| *other == value).count() as u64;
        let found = same(&most_frequent(most, 64), &values, parts);
        let mut frequent: Vec<(u64, i64)> = different.iter().map(|v| (times(v), *v)).collect();
        frequent.sort_by_key(|(times, value)| (u64::MAX - times, *value));
        frequent.truncate(most);
        let items: Vec<(u64, i64)> = found.items.iter().map(|one| (one.score, one.item)).collect();
        assert_eq!(items, frequent);
        assert_eq!(found.others, 0);
    }

    #[test]
    fn counts_beyond_the_bound_are_off_by_what_is_said_at_most(
        values in prop::collection::vec(0..30_i64, 1..60),
        parts in 1..8_usize,
    ) {
        let (_, found) = both_ways(&most_frequent(100, 5), &values, parts);
        for one in &found.items {
            let times = values.iter().filter(|value| **value == one.item).count() as u64;
            assert!(one.score <= times && times <= one.score + found.others);
        }
        let counted: u64 = found.items.iter().map(|one| one.score).sum();
        assert_eq!(counted + found.others, values.len() as u64);
        assert!(found.items.len() <= 5);
    }
}

#[test]
fn a_sum_is_never_too_large() {
    let most = [i64::MAX; 3];
    assert_eq!(same(&sum(), &most, 2), 3 * i128::from(i64::MAX));
}
