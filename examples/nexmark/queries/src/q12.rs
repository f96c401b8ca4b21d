//! Query 12, windows by the clock: how many bids of somebody the node handled in each ten seconds.

use std::time::Duration;

use sluicebox_guest::window::{Window, count as counted};
use sluicebox_guest::{Events, Output};

use crate::q11::Bids;
use crate::read::number_of;

const TEN_SECONDS: Window = Window::tumbling(Duration::from_secs(10)).by_clock();

pub(crate) fn count(events: Events<'_>, out: &mut Output) {
    TEN_SECONDS.aggregate(counted(), |_| Ok(())).run_with(events, out, |window, draft| {
        let bidder = number_of(window.key);
        let (start, end, bids) = (window.start, window.end, window.value);
        draft.json(&Bids { bidder, start, end, bids });
    });
}
