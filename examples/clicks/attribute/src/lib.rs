//! Second stage of the clicks: which click belongs to what was shown before it.
//!
//! Input 0, `shown`, and input 1, `clicked`, are joined by user and ad: a click belongs to each
//! time the ad was shown in the ten minutes before it. Port 0, `clicks`, gets each such pair;
//! port 1, `unclicked`, what was shown and not clicked in that time; port 2, `unseen`, clicks on
//! what was not shown; port 3, `late`, what comes too late to tell.

use std::time::Duration;

use serde::Serialize;
use sluicebox_guest::join::Join;
use sluicebox_guest::{Events, Output, stage};

const PORT_UNCLICKED: u16 = 1;
const PORT_UNSEEN: u16 = 2;
const PORT_LATE: u16 = 3;

const TEN_MINUTES: Join =
    Join::within(Duration::ZERO, Duration::from_mins(10)).late_port(PORT_LATE);

/// What goes out by `clicks`; the others say when something was shown or clicked.
#[derive(Serialize)]
struct Click {
    shown: u64,
    clicked: u64,
    after_ms: u64,
}

#[derive(Serialize)]
struct Alone {
    at: u64,
}

#[stage]
fn attribute(events: Events<'_>, out: &mut Output) {
    // The key says all there is to know of either.
    let joining = TEN_MINUTES.of(|_shown| Ok(()), |_clicked| Ok(()));
    joining.run_outer(events, out, |shown, clicked, draft| match (shown, clicked) {
        (Some(shown), Some(clicked)) => draft.json(&Click {
            shown: shown.time,
            clicked: clicked.time,
            after_ms: (clicked.time - shown.time) / 1_000,
        }),
        (Some(shown), None) => draft.port(PORT_UNCLICKED).json(&Alone { at: shown.time }),
        (None, Some(clicked)) => draft.port(PORT_UNSEEN).json(&Alone { at: clicked.time }),
        (None, None) => {}
    });
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::{Handled, Harness, Input};

    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn at(input: u16, minutes: u64) -> Input {
        Input::data("u a", "{}").input(input).time(minutes * MINUTE)
    }

    fn said(handled: &Handled) -> Vec<(u16, String)> {
        assert_eq!(handled.failures, []);
        handled.outputs.iter().map(|out| (out.port, out.text().to_owned())).collect()
    }

    #[test]
    fn a_click_belongs_to_what_was_shown_in_the_ten_minutes_before() {
        let mut harness = Harness::new(attribute);
        // The click comes first: nothing is promised of the order.
        let handled = harness.handle([at(1, 12), at(0, 2), at(0, 1), at(0, 13)]);
        let expected = r#"{"shown":120000000,"clicked":720000000,"after_ms":600000}"#.to_owned();
        assert_eq!(said(&handled), [(0, expected)]);
        let alone = said(&harness.advance_watermark(100 * MINUTE));
        let unclicked = [1, 13].map(|minute| (1, format!("{{\"at\":{}}}", minute * MINUTE)));
        assert_eq!(alone, unclicked);
        assert_eq!(harness.slots("u a").count(), 0);
    }

    #[test]
    fn a_click_on_nothing_and_one_too_late_are_told_apart() {
        let mut harness = Harness::new(attribute);
        harness.handle([at(1, 30)]);
        assert_eq!(said(&harness.advance_watermark(60 * MINUTE))[0].0, PORT_UNSEEN);
        assert_eq!(said(&harness.handle([at(1, 59)]))[0].0, PORT_LATE);
    }
}
