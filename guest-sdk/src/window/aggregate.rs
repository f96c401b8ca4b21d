//! What is made of a window's events, kept as they come.
//!
//! - An aggregate keeps a value, not events: its size does not grow with a window, but for
//!   [`distinct`], which says its bound.
//! - Values of two panes can be put together, in the order of time; so a sliding window costs an
//!   event no more than a tumbling one.
//!
//! Two aggregates in a pair are made of a pair of inputs. The first so many of something are in
//! `top.rs`.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use serde::Serialize;

use crate::kept::Kept;

/// What is made of a window's events.
///
/// ```
/// use sluicebox_guest::window::{Aggregate, Window};
///
/// /// The first and the last of something in a window.
/// struct Ends;
///
/// impl Aggregate for Ends {
///     type Input = i64;
///     type Kept = (i64, i64);
///     type Output = String;
///
///     fn first(&self, input: i64) -> (i64, i64) {
///         (input, input)
///     }
///
///     fn merge(&self, kept: &mut (i64, i64), later: &(i64, i64)) {
///         kept.1 = later.1;
///     }
///
///     fn output(&self, kept: &(i64, i64)) -> String {
///         format!("from {} to {}", kept.0, kept.1)
///     }
/// }
/// ```
pub trait Aggregate {
    /// What is taken of an event.
    type Input;
    /// What is kept, in state, of the events so far.
    type Kept: Kept;
    /// What a window gives.
    type Output;

    /// What is kept of one event.
    fn first(&self, input: Self::Input) -> Self::Kept;

    /// Adds what is kept of the events behind.
    fn merge(&self, kept: &mut Self::Kept, later: &Self::Kept);

    /// Adds an event.
    fn add(&self, kept: &mut Self::Kept, input: Self::Input) {
        self.merge(kept, &self.first(input));
    }

    /// The result for what is kept.
    fn output(&self, kept: &Self::Kept) -> Self::Output;
}

/// Made by [`count()`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

/// How many events there are.
#[must_use]
pub const fn count() -> Count {
    Count
}

impl Aggregate for Count {
    type Input = ();
    type Kept = u64;
    type Output = u64;

    fn first(&self, (): ()) -> u64 {
        1
    }

    fn merge(&self, kept: &mut u64, later: &u64) {
        *kept += later;
    }

    fn output(&self, kept: &u64) -> u64 {
        *kept
    }
}

/// What can be summed up: integers, whose sum is an `i128` and so never too large, and `f64`.
pub trait Summable {
    /// The sum.
    type Sum: Kept;
    /// This, as a sum of one.
    fn alone(self) -> Self::Sum;
    /// Adds two sums.
    fn plus(a: &Self::Sum, b: &Self::Sum) -> Self::Sum;
    /// The mean of so many.
    fn mean(sum: &Self::Sum, count: u64) -> f64;
}

macro_rules! summable {
    ($($number:ty as $sum:ty),*) => {$(
        impl Summable for $number {
            type Sum = $sum;

            fn alone(self) -> $sum {
                self.into()
            }

            fn plus(a: &$sum, b: &$sum) -> $sum {
                a + b
            }

            fn mean(sum: &$sum, count: u64) -> f64 {
                *sum as f64 / count as f64
            }
        }
    )*};
}

summable!(i32 as i128, u32 as i128, i64 as i128, u64 as i128, f64 as f64);

/// Made by [`sum`].
#[derive(Clone, Copy, Debug)]
pub struct Sum<T>(PhantomData<T>);

/// The sum of numbers.
#[must_use]
pub const fn sum<T: Summable>() -> Sum<T> {
    Sum(PhantomData)
}

impl<T: Summable> Aggregate for Sum<T> {
    type Input = T;
    type Kept = T::Sum;
    type Output = T::Sum;

    fn first(&self, input: T) -> T::Sum {
        input.alone()
    }

    fn merge(&self, kept: &mut T::Sum, later: &T::Sum) {
        *kept = T::plus(kept, later);
    }

    fn output(&self, kept: &T::Sum) -> T::Sum {
        kept.clone()
    }
}

/// Made by [`mean`].
#[derive(Clone, Copy, Debug)]
pub struct Mean<T>(PhantomData<T>);

/// The mean of numbers.
#[must_use]
pub const fn mean<T: Summable>() -> Mean<T> {
    Mean(PhantomData)
}

impl<T: Summable> Aggregate for Mean<T> {
    type Input = T;
    type Kept = (T::Sum, u64);
    type Output = f64;

    fn first(&self, input: T) -> (T::Sum, u64) {
        (input.alone(), 1)
    }

    fn merge(&self, kept: &mut (T::Sum, u64), later: &(T::Sum, u64)) {
        *kept = (T::plus(&kept.0, &later.0), kept.1 + later.1);
    }

    fn output(&self, (sum, count): &(T::Sum, u64)) -> f64 {
        T::mean(sum, *count)
    }
}

/// Made by [`min`].
#[derive(Clone, Copy, Debug)]
pub struct Min<T>(PhantomData<T>);

/// The least of something; of equals the first.
#[must_use]
pub const fn min<T: Kept + PartialOrd>() -> Min<T> {
    Min(PhantomData)
}

impl<T: Kept + PartialOrd> Aggregate for Min<T> {
    type Input = T;
    type Kept = T;
    type Output = T;

    fn first(&self, input: T) -> T {
        input
    }

    fn merge(&self, kept: &mut T, later: &T) {
        if later < kept {
            kept.clone_from(later);
        }
    }

    fn output(&self, kept: &T) -> T {
        kept.clone()
    }
}

/// Made by [`max`].
#[derive(Clone, Copy, Debug)]
pub struct Max<T>(PhantomData<T>);

/// The greatest of something; of equals the first.
#[must_use]
pub const fn max<T: Kept + PartialOrd>() -> Max<T> {
    Max(PhantomData)
}

impl<T: Kept + PartialOrd> Aggregate for Max<T> {
    type Input = T;
    type Kept = T;
    type Output = T;

    fn first(&self, input: T) -> T {
        input
    }

    fn merge(&self, kept: &mut T, later: &T) {
        if later > kept {
            kept.clone_from(later);
        }
    }

    fn output(&self, kept: &T) -> T {
        kept.clone()
    }
}

/// Made by [`distinct`].
#[derive(Clone, Copy, Debug)]
pub struct Distinct<T> {
    most: usize,
    of: PhantomData<T>,
}

/// How many different values there are, exactly up to `most` of them. They are kept, so their sizes
/// and `most` bound the state.
///
/// # Panics
///
/// If `most` is 0.
#[must_use]
pub const fn distinct<T: Kept + Ord>(most: usize) -> Distinct<T> {
    assert!(most > 0, "at least one value is told from none");
    Distinct { most, of: PhantomData }
}

/// How many different values a window had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DistinctCount {
    /// How many were told apart.
    pub count: u64,
    /// Whether that is all: false if there were more than the stage asked for.
    pub exact: bool,
}

impl<T: Kept + Ord> Distinct<T> {
    fn bound(&self, (values, more): &mut (BTreeSet<T>, bool)) {
        while values.len() > self.most {
            values.pop_last();
            *more = true;
        }
    }
}

impl<T: Kept + Ord> Aggregate for Distinct<T> {
    type Input = T;
    type Kept = (BTreeSet<T>, bool);
    type Output = DistinctCount;

    fn first(&self, input: T) -> Self::Kept {
        (BTreeSet::from([input]), false)
    }

    fn add(&self, kept: &mut Self::Kept, input: T) {
        kept.0.insert(input);
        self.bound(kept);
    }

    fn merge(&self, kept: &mut Self::Kept, later: &Self::Kept) {
        kept.0.extend(later.0.iter().cloned());
        kept.1 |= later.1;
        self.bound(kept);
    }

    fn output(&self, (values, more): &Self::Kept) -> DistinctCount {
        DistinctCount { count: values.len() as u64, exact: !more }
    }
}

impl<A: Aggregate, B: Aggregate> Aggregate for (A, B) {
    type Input = (A::Input, B::Input);
    type Kept = (A::Kept, B::Kept);
    type Output = (A::Output, B::Output);

    fn first(&self, (a, b): Self::Input) -> Self::Kept {
        (self.0.first(a), self.1.first(b))
    }

    fn add(&self, kept: &mut Self::Kept, (a, b): Self::Input) {
        self.0.add(&mut kept.0, a);
        self.1.add(&mut kept.1, b);
    }

    fn merge(&self, kept: &mut Self::Kept, later: &Self::Kept) {
        self.0.merge(&mut kept.0, &later.0);
        self.1.merge(&mut kept.1, &later.1);
    }

    fn output(&self, kept: &Self::Kept) -> Self::Output {
        (self.0.output(&kept.0), self.1.output(&kept.1))
    }
}
