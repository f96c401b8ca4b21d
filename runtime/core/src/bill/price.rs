//! What something costs.
//!
//! - Money is a whole number of 10^-9 of the currency; prices are so too. Nothing is a floating
//!   point number.
//! - It is rounded in one place, [`Prices::cost`], to the nearest, half of one up, and only of one
//!   item of one line. Everything else is a sum.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use super::{Item, Used};

/// So many of what money is counted in are one of the currency.
const WHOLE: u128 = 1_000_000_000;
/// Digits behind the point.
const DIGITS: usize = 9;

/// Most a price may be, in whole of the currency. Its product with any amount is a number.
const PRICE_MAX: u64 = 1_000_000_000;

/// An amount of the currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u128);

impl Money {
    /// So many times 10^-9.
    #[must_use]
    pub const fn of_nano(nano: u128) -> Self {
        Self(nano)
    }

    /// How many times 10^-9 it is.
    #[must_use]
    pub const fn nano(self) -> u128 {
        self.0
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// With all digits, so that it is what it is.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / WHOLE, self.0 % WHOLE)
    }
}

/// The price of some item, for so much of it as [`Item::priced_by`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    /// So many times 10^-9 of the currency; `None` if it is more than any price.
    #[must_use]
    pub const fn of_nano(nano: u64) -> Option<Self> {
        if nano <= PRICE_MAX * WHOLE as u64 { Some(Self(nano)) } else { None }
    }
}

impl FromStr for Price {
    type Err = ();

    /// A number such as `12`, `0.05` or `0.000000001`: digits, and behind a point one to nine.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (whole, behind) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(behind) || behind.len() > DIGITS || whole.len() > 10 {
            return Err(());
        }
        let number = format!("{whole}{behind:0<DIGITS$}");
        number.parse().ok().and_then(Self::of_nano).ok_or(())
    }
}

/// The shortest text it is read from.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Money(self.0.into()).to_string();
        let text = text.trim_end_matches('0');
        f.write_str(text.strip_suffix('.').unwrap_or(text))
    }
}

/// What everything costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    currency: String,
    prices: [Price; Item::ALL.len()],
}

impl Prices {
    /// Prices in a currency, all of them nothing.
    #[must_use]
    pub fn new(currency: String) -> Self {
        Self { currency, ..Self::default() }
    }

    /// The same with the price of an item.
    #[must_use]
    pub fn with(mut self, item: Item, price: Price) -> Self {
        self.prices[item as usize] = price;
        self
    }

    /// The currency.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The price of an item.
    #[must_use]
    pub fn of(&self, item: Item) -> Price {
        self.prices[item as usize]
    }

    /// What one line costs: each item rounded for itself.
    #[must_use]
    pub fn cost(&self, line: &Used) -> Money {
        let cost = |item: Item| {
            let by = u128::from(item.priced_by());
            let whole = u128::from(line.get(item)) * u128::from(self.of(item).0);
            Money((whole + by / 2) / by)
        };
        Item::ALL.into_iter().map(cost).sum()
    }
}
