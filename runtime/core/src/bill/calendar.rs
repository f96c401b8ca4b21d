//! Hours, days and months of universal time, as the books have them.
//!
//! The last [`HOUR_DAYS`] days are kept by hour, the last [`DAY_MONTHS`] months before by day, and
//! the last [`MONTHS`] by month. Whole days and whole months go over at once, so that each moment
//! is in one span.

use std::ops::Range;

/// Microseconds of an hour.
pub const HOUR_MICROS: u64 = 3_600_000_000;

/// So many days are kept by hour, that of the newest hour included.
pub(super) const HOUR_DAYS: u32 = 3;
/// So many months are kept by day, that of the newest hour included.
pub(super) const DAY_MONTHS: u32 = 3;
/// So many months are kept, that of the newest hour included.
pub(super) const MONTHS: u32 = 25;

/// The last hour there is: that of the end of the year 9999.
pub(super) const HOUR_END: u32 = 70_389_528;

/// A stretch of time that is kept as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// The number of an hour since 1970.
    Hour(u32),
    /// The number of a day since 1970.
    Day(u32),
    /// The number of a month since the year 0.
    Month(u32),
}

impl Span {
    /// From its first hour to the one behind it.
    #[must_use]
    pub fn hours(self) -> Range<u32> {
        match self {
            Self::Hour(hour) => hour..hour + 1,
            Self::Day(day) => day * 24..(day + 1) * 24,
            Self::Month(month) => first_of(month) * 24..first_of(month + 1) * 24,
        }
    }

    /// The day it is in, or begins with.
    #[must_use]
    pub fn day(self) -> Self {
        Self::Day(self.hours().start / 24)
    }

    /// The month it is in.
    #[must_use]
    pub fn month(self) -> Self {
        match self {
            Self::Hour(hour) => Self::Month(month_of(hour / 24)),
            Self::Day(day) => Self::Month(month_of(day)),
            Self::Month(_) => self,
        }
    }

    /// The span that an hour is kept in, when `newest` is the newest there is; `None` if it is too
    /// long ago.
    pub(super) fn kept(hour: u32, newest: u32) -> Option<Self> {
        let (day, today) = (hour / 24, newest / 24);
        if day + HOUR_DAYS > today {
            return Some(Self::Hour(hour));
        }
        let (month, this) = (month_of(day), month_of(today));
        if month + DAY_MONTHS > this {
            return Some(Self::Day(day));
        }
        (month + MONTHS > this).then_some(Self::Month(month))
    }

    /// The oldest span that is kept when `newest` is the newest hour.
    pub(super) fn oldest(newest: u32) -> Self {
        Self::Month((month_of(newest / 24) + 1).saturating_sub(MONTHS).max(1970 * 12))
    }
}

/// Year, month and day of the number of a day since 1970.
#[must_use]
pub fn date_of(day: u32) -> (u32, u32, u32) {
    // Years that begin with March have their odd day last; 400 of them are always as long.
    let day = day + 719_468;
    let (block, of_block) = (day / 146_097, day % 146_097);
    let year = (of_block - of_block / 1_460 + of_block / 36_524 - of_block / 146_096) / 365;
    let of_year = of_block - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (block * 400 + year + next, month, day)
}

fn month_of(day: u32) -> u32 {
    let (year, month, _) = date_of(day);
    year * 12 + month - 1
}

/// The first day of a month, which is none before 1970.
fn first_of(month: u32) -> u32 {
    let (year, month) = (month / 12, month % 12 + 1);
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (block, of_block) = (year / 400, year % 400);
    let days = block * 146_097 + of_block * 365 + of_block / 4 - of_block / 100;
    (days + (153 * month + 2) / 5).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates_and_months_their_days() {
        assert_eq!(date_of(0), (1970, 1, 1));
        assert_eq!(date_of(19_782), (2024, 2, 29));
        assert_eq!(date_of(HOUR_END / 24), (10_000, 1, 1));
        let mut expected = 0;
        for day in 0..HOUR_END / 24 {
            let month = month_of(day);
            if date_of(day).2 == 1 {
                expected = day;
            }
            assert_eq!(first_of(month), expected);
        }
    }

    #[test]
    fn each_hour_is_in_one_span_whatever_is_newest() {
        for newest in (480_000..500_000).step_by(997) {
            for hour in (newest - 30_000..=newest).step_by(7) {
                let Some(span) = Span::kept(hour, newest) else { continue };
                let hours = span.hours();
                assert!(hours.contains(&hour), "{hour} in {span:?}");
                for other in [hours.start, (hours.end - 1).min(newest)] {
                    assert_eq!(Span::kept(other, newest), Some(span));
                }
            }
        }
    }
}
