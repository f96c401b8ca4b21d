//! Third stage of the clicks: visits of a user.
//!
//! What was shown to a user and what they clicked on (inputs 0 and 1) makes a visit until there is
//! nothing for half an hour. Port 0, `visits`, gets how much of each there was, and of how many
//! ads, when the visit is over; and again if something comes up to five minutes late. What is later
//! than that leaves by port 1, `late`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicebox_guest::window::{Window, distinct, sum};
use sluicebox_guest::{Events, Output, stage};

const VISITS: Window =
    Window::session(Duration::from_mins(30)).allowed_lateness(Duration::from_mins(5)).late_port(1);
/// Of how many ads a visit counts each.
const ADS_MAX: usize = 100;

/// What comes in; other members are left alone.
#[derive(Deserialize)]
struct Seen {
    ad: String,
}

/// What goes out.
#[derive(Serialize)]
struct Visit<'a> {
    user: &'a str,
    from: u64,
    to: u64,
    shown: i128,
    clicked: i128,
    ads: u64,
    /// When earlier results began that this one takes the place of.
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    replaces: &'a [u64],
}

#[stage]
fn sessions(events: Events<'_>, out: &mut Output) {
    let visits = VISITS.aggregate(((sum(), sum()), distinct(ADS_MAX)), |event| {
        let Seen { ad } = event.json()?;
        let clicked = u32::from(event.input() == 1);
        Ok(((1 - clicked, clicked), ad))
    });
    visits.run_with(events, out, |visit, draft| {
        let ((shown, clicked), ads) = visit.value;
        let (user, from, to) = (visit.key, visit.start, visit.end);
        draft.json(&Visit {
            user,
            from,
            to,
            shown,
            clicked,
            ads: ads.count,
            replaces: visit.replaces,
        });
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluicebox_guest::testing::{Handled, Harness, Input};

    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn at(input: u16, minutes: u64, ad: &str) -> Input {
        Input::data("u", json!({"ad": ad}).to_string()).input(input).time(minutes * MINUTE)
    }

    fn visits(handled: &Handled) -> Vec<Value> {
        assert_eq!(handled.failures, []);
        handled.outputs.iter().map(|out| out.json()).collect()
    }

    #[test]
    fn a_visit_ends_after_half_an_hour_of_nothing() {
        let mut harness = Harness::new(sessions);
        let given = [at(0, 0, "a"), at(0, 10, "b"), at(1, 11, "a"), at(0, 41, "a")];
        harness.handle(given);
        let expected = [
            json!({"user": "u", "from": 0, "to": 41 * MINUTE, "shown": 2, "clicked": 1, "ads": 2}),
            json!({
                "user": "u", "from": 41 * MINUTE, "to": 71 * MINUTE,
                "shown": 1, "clicked": 0, "ads": 1,
            }),
        ];
        assert_eq!(visits(&harness.advance_watermark(100 * MINUTE)), expected);
        assert_eq!(harness.slots("u").count(), 0);
    }

    #[test]
    fn what_comes_a_little_late_makes_the_result_anew() {
        let mut harness = Harness::new(sessions);
        harness.handle([at(0, 0, "a")]);
        assert_eq!(visits(&harness.advance_watermark(32 * MINUTE)).len(), 1);
        let again = visits(&harness.handle([at(1, 1, "a")]));
        assert_eq!((&again[0]["clicked"], &again[0]["replaces"]), (&json!(1), &json!([0])));
    }
}
