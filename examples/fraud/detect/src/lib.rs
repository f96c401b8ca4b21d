//! Looks at the payments of a card for two patterns of fraud.
//!
//! - *Probed*: small payments that find out whether a card works, then a large one, within ten
//!   minutes. Looked at as payments come, since the next may be seconds away.
//! - *Travelled*: two payments one behind the other in different countries within half an hour, and
//!   the first was not refused. Looked at in the order of their times, so that payments that come
//!   out of order raise no alarm.
//!
//! Port 0, `alerts`, gets what was found; port 1, `late`, what is too late for the second.
//! Settings: `small` and `large`, in cents, what a payment of the first pattern is below and above.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicebox_guest::pattern::{Found, Pattern};
use sluicebox_guest::{Events, Output, Result, config, kept_as_json, stage};

const PORT_LATE: u16 = 1;
const SMALL_DEFAULT: i64 = 200;
const LARGE_DEFAULT: i64 = 50_000;

/// What comes in; other members are left alone.
#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    cents: i64,
    country: String,
    #[serde(default)]
    refused: bool,
}

kept_as_json!(Payment);

/// What goes out.
#[derive(Serialize)]
struct Alert<'a> {
    card: &'a str,
    rule: &'a str,
    from: u64,
    to: u64,
    cents: i64,
    countries: Vec<&'a str>,
}

#[stage]
fn detect(events: Events<'_>, out: &mut Output) -> Result {
    let small = config::parse("small")?.unwrap_or(SMALL_DEFAULT);
    let large = config::parse("large")?.unwrap_or(LARGE_DEFAULT);
    Pattern::within(Duration::from_mins(10))
        .named("probed")
        .begin("probe", move |payment: &Payment, _| payment.cents < small)
        .times(2)
        .then("drain", move |payment, _| payment.cents > large && !payment.refused)
        .in_arrival_order()
        .run(
            events,
            out,
            |event| event.json(),
            |found, draft| {
                draft.json(&alert("probed", found));
            },
        );
    Pattern::within(Duration::from_mins(30))
        .named("travelled")
        .begin("here", |payment: &Payment, _| !payment.refused)
        .next("there", |payment, seen| payment.country != seen.last("here").country)
        .late_port(PORT_LATE)
        .run(
            events,
            out,
            |event| event.json(),
            |found, draft| {
                draft.json(&alert("travelled", found));
            },
        );
    Ok(())
}

fn alert<'a>(rule: &'a str, found: &'a Found<'_, Payment>) -> Alert<'a> {
    let payments = || ["probe", "drain", "here", "there"].into_iter().flat_map(|s| found.all(s));
    Alert {
        card: found.key,
        rule,
        from: found.start(),
        to: found.end(),
        cents: payments().map(|payment| payment.cents).sum(),
        countries: payments().map(|payment| payment.country.as_str()).collect(),
    }
}

#[cfg(test)]
mod tests;
