//! A schedule: an event for each time it says, once, through whatever the node goes through.
//!
//! - The place is the time of the last event, so that each time comes once.
//! - Times at which the pipeline did not run are looked at when it begins: left out, the last of
//!   them, or all, of very many the last [`MISSED_MAX`]. So are times that came while it had no
//!   room for so many.
//! - A clock that is set back brings no time again; one that is set forward brings those between.

mod fields;

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use sluicebox_core::manifest::show;
use sluicebox_core::pipeline::{Cron as Declared, Missed};

use super::grants::Refused;
use super::source::{Piece, Places, Source, What};
use super::{Fault, places};
use crate::running::event_time::now_micros;
use fields::Fields;

/// Most times that come late.
const MISSED_MAX: usize = 1000;

/// How late a time may be that counts as one at which the pipeline ran.
const LATE: u64 = 2_000_000;

/// What was missed is counted anew when so much more of it may be late, in microseconds.
const RECOUNT: u64 = 60_000_000;

/// Longest sleep before the clock is looked at again: somebody may have set it.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    fields: Fields,
    zone: Tz,
    missed: Missed,
    place: String,
    /// Times up to this one are done with, whatever the place says.
    floor: u64,
    begun: bool,
    /// What was missed up to here was counted.
    counted: u64,
}

impl Schedule {
    pub(super) fn open(source: &str, declared: &Declared) -> Result<Self, Refused> {
        let fields = Fields::parse(&declared.at).map_err(|error| {
            let message = format!("is {}, which is no schedule: {error}", show(&declared.at));
            let fix = "write five fields, or six with seconds in front: \"0 3 * * *\"";
            Refused::new("at", "connector.schedule", message, fix)
        })?;
        let zone: Tz = declared.zone.parse().map_err(|_| {
            let message = format!("is {}, which is no time zone", show(&declared.zone));
            let fix = "write a name of the IANA database, such as \"Europe/Berlin\", or \"UTC\"";
            Refused::new("zone", "connector.zone", message, fix)
        })?;
        let schedule = Self {
            fields,
            zone,
            missed: declared.missed,
            place: places::of_schedule(source),
            floor: 0,
            begun: false,
            counted: 0,
        };
        if schedule.after(now_micros()).is_none() {
            let message = format!("is {}, which never comes", show(&declared.at));
            let fix = "write a day that exists";
            return Err(Refused::new("at", "connector.schedule", message, fix));
        }
        Ok(schedule)
    }

    fn at(micros: u64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)
    }

    /// The first time behind another.
    fn after(&self, micros: u64) -> Option<u64> {
        let next = self.fields.after(Self::at(micros)?, self.zone)?;
        u64::try_from(next.timestamp_micros()).ok()
    }

    /// The last time at or before another.
    fn until(&self, micros: u64) -> Option<u64> {
        let last = self.fields.until(Self::at(micros)?, self.zone)?;
        u64::try_from(last.timestamp_micros()).ok()
    }

    /// Where to go on behind `last` if it is `now`: what is too late is passed over.
    fn pass_over(&mut self, last: u64, now: u64) -> u64 {
        let late = now.saturating_sub(LATE);
        // Nothing was missed, or no more than a moment ago: this is nearly always so.
        let is_counted = self.begun && late < self.counted.saturating_add(RECOUNT);
        if is_counted || self.after(last).is_none_or(|next| next > late) {
            return last;
        }
        self.counted = late;
        let Some(newest) = self.until(late).filter(|newest| *newest > last) else { return last };
        match self.missed {
            Missed::Skip if !self.begun => newest,
            Missed::Once if !self.begun => newest.saturating_sub(1),
            _ => {
                let mut first = newest;
                for _ in 1..MISSED_MAX {
                    match self.until(first.saturating_sub(1)).filter(|before| *before > last) {
                        Some(before) => first = before,
                        None => return last,
                    }
                }
                first.saturating_sub(1)
            }
        }
    }

    fn piece(&self, number: u64, what: What) -> Piece {
        let shown = Self::at(number).map(|at| at.with_timezone(&self.zone).to_rfc3339());
        let shown = shown.unwrap_or_default();
        Piece { place: self.place.clone(), number, what, left_out: 0, shown, lag: 0 }
    }
}

impl Source for Schedule {
    async fn next(&mut self, places: &impl Places) -> Result<Piece, Fault> {
        loop {
            let now = now_micros();
            let known = places.of(&self.place);
            let Some(last) = known.or_else(|| (self.floor > 0).then_some(self.floor)) else {
                // From now on its times count, whether it runs by then or not.
                (self.floor, self.begun) = (now, true);
                return Ok(self.piece(now, What::Nothing));
            };
            self.floor = self.pass_over(last.max(self.floor), now);
            self.begun = true;
            let never = || Fault::new("connector.schedule", "there is no further time");
            let next = self.after(self.floor).ok_or_else(never)?;
            if next <= now {
                // Without a log this is all that is remembered.
                self.floor = if known.is_none() { next } else { self.floor };
                return Ok(self.piece(next, What::Tick(next)));
            }
            tokio::time::sleep(Duration::from_micros(next - now).min(SLEEP_MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::contract::{Noted, all};
    use super::*;

    const SECOND: u64 = 1_000_000;
    const HOUR: u64 = 3600 * SECOND;
    /// 2026-01-31T12:00:00Z.
    const NOON: u64 = 1_769_860_800_000_000;

    fn schedule(at: &str, zone: &str, missed: Missed) -> Schedule {
        let declared = Declared { at: at.to_owned(), zone: zone.to_owned(), missed };
        Schedule::open("s", &declared).expect("a good schedule")
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_field() {
        let refused = |at: &str, zone: &str| {
            let missed = Missed::Once;
            let declared = Declared { at: at.to_owned(), zone: zone.to_owned(), missed };
            Schedule::open("s", &declared)
                .map(drop)
                .map_err(|refused| (refused.field, refused.code))
        };
        assert_eq!(refused("*/5 * * * *", "UTC"), Ok(()));
        assert_eq!(refused("30 */5 * * * *", "Europe/Berlin"), Ok(()));
        let long = "* ".repeat(2000);
        for wrong in
            ["", "* * * *", "61 * * * *", "a b c d e", "0 0 31 2 *", "* * * * * * * *", &long]
        {
            assert_eq!(refused(wrong, "UTC"), Err(("at", "connector.schedule")), "{wrong:?}");
        }
        assert_eq!(refused("* * * * *", "Berlin"), Err(("zone", "connector.zone")));
    }

    #[test]
    fn times_are_of_the_zone_and_of_its_summers() {
        let utc = schedule("0 3 * * *", "UTC", Missed::Once);
        assert_eq!(utc.after(NOON), Some(NOON + 15 * HOUR));
        let berlin = schedule("0 3 * * *", "Europe/Berlin", Missed::Once);
        assert_eq!(berlin.after(NOON), Some(NOON + 14 * HOUR));
        // In July Berlin is two hours ahead.
        let july = NOON + 160 * 24 * HOUR;
        assert_eq!(berlin.after(july), Some(july + 13 * HOUR));
    }

    #[test]
    fn what_was_missed_is_left_out_or_comes_once_or_all_within_a_bound() {
        let now = NOON + 10 * LATE;
        let last = NOON - 5 * HOUR;
        let first = |missed, last| {
            let mut hourly = schedule("0 * * * *", "UTC", missed);
            hourly.floor = hourly.pass_over(last, now);
            hourly.after(hourly.floor).expect("there is always another")
        };
        assert_eq!(first(Missed::Skip, last), NOON + HOUR);
        assert_eq!(first(Missed::Once, last), NOON);
        assert_eq!(first(Missed::All, last), last + HOUR);
        let long_ago = NOON - 20_000 * HOUR;
        assert_eq!(first(Missed::All, long_ago), NOON - (MISSED_MAX as u64 - 1) * HOUR);
        assert_eq!(first(Missed::Once, long_ago), NOON);
        // A clock that was set back.
        assert_eq!(first(Missed::All, now + HOUR / 2), NOON + HOUR);
    }

    #[tokio::test]
    async fn keeps_the_contract_of_sources() {
        let noted = Noted::default();
        let make = || schedule("* * * * * *", "UTC", Missed::All);
        let begun = make().next(&noted).await.expect("it begins");
        assert_eq!(begun.what, What::Nothing);
        // It has been away for some seconds.
        noted.note(&Piece { number: begun.number - 6_000_000, ..begun.clone() });
        let times = all(&noted, make, |number| number % 2 == 0).await;
        let times: Vec<u64> = times.iter().map(|time| time.parse().expect("a time")).collect();
        assert!(times.len() >= 6, "{times:?}");
        assert!(times.is_sorted_by(|a, b| a + SECOND == *b), "each once: {times:?}");
    }
}
