//! Small texts of the HTTP interface: times, durations, query strings, percent-encoding.
//!
//! Reading is strict and bounded by what the caller hands in; nothing here panics on any input.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluicebox_core::json_key;
use sluicebox_core::limits::TIME_END;

use crate::config::quantity::parse_duration;
use crate::error::Error;

/// Microseconds since 1970, now.
pub(super) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0).min(TIME_END - 1)
}

/// A duration such as `5s` or `250ms`; a bare number is seconds, as in `Prefer: wait=5`.
pub(super) fn parse_wait(text: &str) -> Option<Duration> {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if bare { text.parse().ok().map(Duration::from_secs) } else { parse_duration(text) }
}

/// Appends a time as RFC 3339 with microseconds. Years beyond 9999 do not occur below 2^53.
pub(super) fn push_time(out: &mut Vec<u8>, micros: u64) {
    let seconds = micros / 1_000_000;
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date_of(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second_of_day / 3600);
    put(&mut text[14..16], second_of_day / 60 % 60);
    put(&mut text[17..19], second_of_day % 60);
    put(&mut text[20..26], micros % 1_000_000);
    out.extend_from_slice(&text);
}

/// Writes a number right-aligned over zeros.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a number of days since 1970. Years begin in March here, so that the
/// leap day is a year's last and months follow a fixed pattern of 153 days in five.
fn date_of(days: u64) -> (u64, u64, u64) {
    // Days since the first of March of the year 0, in blocks of 400 years.
    let days = days + 719_468;
    let (block, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (block * 400 + year + next_year, month, day)
}

/// The number of days since 1970 of a date; `None` if there is no such day or it is earlier.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (years, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (block, of_block) = (years / 400, years % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = block * 146_097 + of_block * 365 + of_block / 4 - of_block / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    // A 30th of February lands in March.
    (date_of(days).2 == day).then_some(days)
}

/// Reads RFC 3339, or a whole number of microseconds since 1970.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let micros = if bytes.len() <= 16 && !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        text.parse().ok()?
    } else {
        parse_rfc3339(bytes)?
    };
    (micros < TIME_END).then_some(micros)
}

pub(crate) fn parse_rfc3339(bytes: &[u8]) -> Option<u64> {
    let (head, rest) = bytes.split_at_checked(19)?;
    let separators = [head[4], head[7], head[13], head[16]];
    if separators != *b"--::" || !matches!(head[10], b'T' | b't' | b' ') {
        return None;
    }
    let part = |from: usize, to: usize| number(&head[from..to]);
    let days = days_of(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let mut six = [b'0'; 6];
            six.iter_mut().zip(&rest[..digits]).for_each(|(place, digit)| *place = *digit);
            if digits == 0 || digits > 20 {
                return None;
            }
            (number(&six)?, &rest[digits..])
        }
        None => (0, rest),
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = seconds.checked_add_signed(-zone_seconds(zone)?)?;
    Some(seconds * 1_000_000 + fraction)
}

/// How far a zone is ahead of universal time.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
            let seconds = (hours * 3600 + minutes * 60) as i64;
            let fits = hours < 24 && minutes < 60;
            fits.then_some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum: u64, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

/// True if the bytes are one JSON value in UTF-8. What cannot be is told by its first letter.
pub(crate) fn holds_json(payload: &[u8]) -> bool {
    let first = payload.trim_ascii_start().first();
    let may_be =
        matches!(first, Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'));
    may_be && std::str::from_utf8(payload).is_ok() && json_key::check(payload).is_ok()
}

/// Undoes `%XX`. `None` if a `%` is not followed by two hex digits, or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The parameters of a query string, in order, decoded.
///
/// # Errors
/// `request.query` for a parameter that cannot be decoded.
pub(super) fn query_pairs(
    query: Option<&str>,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Error>> {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let pair = form_decode(name).zip(form_decode(value));
        pair.ok_or_else(|| {
            let message = "the query string has a `%` that is not followed by two hex digits, or \
                           bytes that are not UTF-8";
            Error::request("request.query", message)
        })
    })
}

/// In a query string a space may be written `+`.
fn form_decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        percent_decode(&spaced).map(|text| Cow::Owned(text.into_owned()))
    } else {
        percent_decode(text)
    }
}

/// A name in a list of what a client accepts, and how much it wants that: `gzip;q=0.5`. What
/// cannot be read is not wanted.
pub(super) fn quality(item: &str) -> (&str, f32) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let said = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, said.map_or(1.0, |text| text.parse().unwrap_or(0.0)))
}

/// A parameter that the route does not have.
pub(super) fn unknown_parameter(name: &str, known: &str) -> Error {
    let shown = crate::error::shown(name);
    Error::request("request.query", format!("there is no parameter {shown:?}; use {known}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(micros: u64) -> String {
        let mut out = Vec::new();
        push_time(&mut out, micros);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn times_are_written_as_people_know_them() {
        assert_eq!(text_of(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text_of(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(text_of(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(text_of(TIME_END - 1), "2255-06-05T23:47:34.740991Z");
    }

    #[test]
    fn times_are_read_in_the_usual_forms() {
        let micros = 1_700_000_000_123_456;
        for text in [
            "2023-11-14T22:13:20.123456Z",
            "2023-11-14t22:13:20.123456789z",
            "2023-11-15 00:13:20.123456+02:00",
            "2023-11-14T16:43:20.123456-05:30",
            "1700000000123456",
        ] {
            assert_eq!(parse_time(text), Some(micros), "{text}");
        }
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        for bad in [
            "",
            "now",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+0200",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59Z",
            "-5",
            "99999999999999999999",
            "2023-11-14T22:13:20é",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_was_written(micros in 0..TIME_END) {
            prop_assert_eq!(parse_time(&text_of(micros)), Some(micros));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,40}") {
            let _ = (parse_time(&text), parse_wait(&text), percent_decode(&text).is_some());
            prop_assert!(query_pairs(Some(&text)).count() <= 41);
        }
    }

    #[test]
    fn waits_are_durations_or_bare_seconds() {
        assert_eq!(parse_wait("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_wait("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_wait("7"), Some(Duration::from_secs(7)));
        for bad in ["", "s", "-1", "5 parsecs", "99999999999999999999999"] {
            assert_eq!(parse_wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_query_is_decoded_pair_by_pair() {
        let pairs: Result<Vec<_>, _> = query_pairs(Some("key=a%2Fb+c&&wait=5s&flag")).collect();
        let pairs = pairs.expect("well-formed");
        let expected = [("key", "a/b c"), ("wait", "5s"), ("flag", "")];
        assert!(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).eq(expected));
        for bad in ["key=%", "key=%2", "key=%zz", "key=%FF", "%C3=x"] {
            assert!(query_pairs(Some(bad)).any(|pair| pair.is_err()), "{bad}");
        }
    }
}
