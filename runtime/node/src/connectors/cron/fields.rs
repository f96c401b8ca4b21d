//! The fields of a schedule, and the times they mean in a time zone.
//!
//! - Five fields: minute, hour, day of the month, month, day of the week; six with seconds in
//!   front. A field is `*`, a number, a range `a-b`, any of these with a step `/n`, or a list of
//!   them; months and days of the week have names of three letters, Sunday is 0 or 7.
//! - Where day of the month and day of the week both say something, either is enough.
//! - A time that the clock leaves out does not come. One that it repeats comes once, unless the
//!   hour says nothing: then each hour counts.

use chrono::{DateTime, Datelike as _, Days, LocalResult, NaiveDateTime, NaiveTime, TimeDelta};
use chrono::{TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;

/// The longest time between two that are looked for: leap days may be eight years apart.
const YEARS_MAX: i64 = 9;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// See the module. A bit for each number that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of the month, and of the week, say something.
    chooses: (bool, bool),
}

impl Fields {
    /// # Errors
    /// What is wrong, and in which field.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_ascii_whitespace().take(7).collect();
        let (seconds, rest) = match parts.as_slice() {
            rest @ [_, _, _, _, _] => ("0", rest),
            [seconds, rest @ ..] if rest.len() == 5 => (*seconds, rest),
            _ => return Err("it has not five fields, or six".to_owned()),
        };
        let field = |at: usize, what: &str, range, names: &[&str]| {
            bits(rest[at], range, names).ok_or_else(|| format!("{:?} is no {what}", rest[at]))
        };
        let seconds =
            bits(seconds, (0, 59), &[]).ok_or_else(|| format!("{seconds:?} is no second"));
        let weekdays = field(4, "day of the week", (0, 7), &WEEKDAYS)?;
        Ok(Self {
            seconds: seconds?,
            minutes: field(0, "minute", (0, 59), &[])?,
            hours: field(1, "hour", (0, 23), &[])?,
            days: field(2, "day of the month", (1, 31), &[])?,
            months: field(3, "month", (1, 12), &MONTHS)?,
            // Sunday has two numbers.
            weekdays: (weekdays | (weekdays >> 7)) & 0x7F,
            chooses: (!rest[2].starts_with('*'), !rest[4].starts_with('*')),
        })
    }

    fn has_day(&self, at: &NaiveDateTime) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().num_days_from_sunday());
        match self.chooses {
            (true, true) => day || weekday,
            _ => day && weekday,
        }
    }

    /// The first time behind another; none if there is none for years.
    pub(super) fn after(&self, time: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let end = time + TimeDelta::days(366 * YEARS_MAX);
        let mut at = time.with_nanosecond(0)? + TimeDelta::seconds(1);
        while at < end {
            let local = at.with_timezone(&zone).naive_local();
            let (hour, minute, second) = (local.hour(), local.minute(), local.second());
            if !has(self.months, local.month()) || !self.has_day(&local) {
                at = next_day(&local, zone, at)?;
            } else if !has(self.hours, hour) {
                at += TimeDelta::seconds(i64::from(3600 - minute * 60 - second));
            } else if !has(self.minutes, minute) {
                at += TimeDelta::seconds(i64::from(60 - second));
            } else if !has(self.seconds, second) || self.came_before(&local, zone, at) {
                at += TimeDelta::seconds(1);
            } else {
                return Some(at);
            }
        }
        None
    }

    /// The last time at or before another; none if there was none for years.
    pub(super) fn until(&self, time: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // The longer ago, the wider it is looked.
        let reaches = [60, 3600, 86_400, 32 * 86_400, 366 * 86_400, YEARS_MAX * 366 * 86_400];
        let next = |from: DateTime<Utc>| self.after(from, zone).filter(|at| *at <= time);
        let (mut low, mut seconds) = reaches.into_iter().find_map(|seconds| {
            let from = time - TimeDelta::seconds(seconds);
            next(from).map(|_| (from, seconds))
        })?;
        // Behind `low` there is one, and behind `low` and so many seconds there is none. Times are
        // whole seconds, so within one there is one.
        while seconds > 1 {
            let half = seconds / 2;
            let middle = low + TimeDelta::seconds(half);
            if next(middle).is_some() {
                (low, seconds) = (middle, seconds - half);
            } else {
                seconds = half;
            }
        }
        next(low)
    }

    /// The clock shows this for the second time, and once was enough.
    fn came_before(&self, local: &NaiveDateTime, zone: Tz, at: DateTime<Utc>) -> bool {
        let every_hour = self.hours == (1 << 24) - 1;
        match zone.from_local_datetime(local) {
            LocalResult::Ambiguous(first, _) => !every_hour && first < at,
            _ => false,
        }
    }
}

/// When the next day begins; where the clock leaves that out, an hour later.
fn next_day(local: &NaiveDateTime, zone: Tz, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let day = local.date().checked_add_days(Days::new(1))?;
    let hours = (0..4).filter_map(|hour| NaiveTime::from_hms_opt(hour, 0, 0));
    let begins = hours.filter_map(|time| zone.from_local_datetime(&day.and_time(time)).earliest());
    let next = begins.map(|begin| begin.with_timezone(&Utc)).find(|begin| *begin > at);
    next.or_else(|| at.checked_add_signed(TimeDelta::hours(1)))
}

const fn has(bits: u64, number: u32) -> bool {
    bits >> number & 1 == 1
}

/// The numbers a field means.
fn bits(text: &str, (least, most): (u64, u64), names: &[&str]) -> Option<u64> {
    let number = |text: &str| {
        let lower = text.to_ascii_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(at) => Some(at as u64 + if names.len() == MONTHS.len() { 1 } else { 0 }),
            None if text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().filter(|number| (least..=most).contains(number))
            }
            None => None,
        }
    };
    text.split(',').try_fold(0, |bits, part| {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|n| *n > 0)?)),
            None => (part, None),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((first, last))) => (number(first)?, number(last)?),
            (one, None) => {
                let one = number(one)?;
                (one, if step.is_some() { most } else { one })
            }
        };
        let numbers = (first..=last).step_by(step.unwrap_or(1));
        (first <= last).then(|| numbers.fold(bits, |bits, number| bits | 1 << number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn next(fields: &str, from: &str, zone: Tz) -> String {
        let fields = Fields::parse(fields).expect("good fields");
        fields.after(time(from), zone).expect("a time").to_rfc3339()
    }

    #[test]
    fn fields_mean_what_they_always_did() {
        let noon = "2026-01-31T12:00:00Z"; // A Saturday.
        for (fields, expected) in [
            ("* * * * *", "2026-01-31T12:01:00+00:00"),
            ("* * * * * *", "2026-01-31T12:00:01+00:00"),
            ("*/20 * * * * *", "2026-01-31T12:00:20+00:00"),
            ("0 3 * * *", "2026-02-01T03:00:00+00:00"),
            ("30 9-17/4 * * mon-fri", "2026-02-02T09:30:00+00:00"),
            ("0 0 * * 7", "2026-02-01T00:00:00+00:00"),
            ("0 0 * * 0", "2026-02-01T00:00:00+00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
            ("0 0 31 apr,MAY *", "2026-05-31T00:00:00+00:00"),
            // Either day is enough.
            ("0 0 13 * fri", "2026-02-06T00:00:00+00:00"),
            ("5/20 * * * *", "2026-01-31T12:05:00+00:00"),
        ] {
            assert_eq!(next(fields, noon, Tz::UTC), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for wrong in [
            "",
            "*",
            "* * * *",
            "* * * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "*/x * * * *",
            "5-1 * * * *",
            "a * * * *",
            "-1 * * * *",
            "1, * * * *",
            "1--2 * * * *",
            "+1 * * * *",
            "* * * foo *",
            "* * * * jan",
        ] {
            assert!(Fields::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_clock_of_a_zone_leaves_out_and_repeats() {
        let berlin = Tz::Europe__Berlin;
        // 2026-03-29: from 02:00 to 03:00.
        let night = "2026-03-28T20:00:00Z";
        assert_eq!(next("30 2 * * *", night, berlin), "2026-03-30T00:30:00+00:00");
        assert_eq!(next("0 4 * * *", night, berlin), "2026-03-29T02:00:00+00:00");
        // 2026-10-25: 02:00 to 03:00 comes twice.
        let night = "2026-10-24T20:00:00Z";
        assert_eq!(next("30 2 * * *", night, berlin), "2026-10-25T00:30:00+00:00");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z", berlin), "2026-10-26T01:30:00+00:00");
        assert_eq!(next("30 * * * *", "2026-10-25T00:30:00Z", berlin), "2026-10-25T01:30:00+00:00");
    }

    #[test]
    fn the_last_time_is_the_one_before_the_next() {
        for fields in ["* * * * * *", "*/7 * * * *", "0 3 * * 1", "0 0 29 2 *", "15 10 1 jan *"] {
            let fields = Fields::parse(fields).expect("good fields");
            for zone in [Tz::UTC, Tz::America__New_York] {
                let now = time("2026-07-31T12:34:56Z");
                let last = fields.until(now, zone).expect("there was one");
                assert!(last <= now && fields.after(last, zone).expect("another") > now);
                let again = fields.until(last, zone);
                assert_eq!(again, Some(last), "a time is its own last");
            }
        }
        let never = Fields::parse("0 0 31 2 *").expect("good fields");
        assert_eq!(never.after(time("2026-01-01T00:00:00Z"), Tz::UTC), None);
        assert_eq!(never.until(time("2026-01-01T00:00:00Z"), Tz::UTC), None);
    }
}
