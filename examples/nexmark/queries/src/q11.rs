//! Query 11, user sessions: how many bids somebody made without ten seconds of nothing between two.

use std::time::Duration;

use serde::Serialize;
use sluicebox_guest::window::{Window, count};
use sluicebox_guest::{Events, Output, Result};

use crate::read::{Key, bid, number_of};

const SESSIONS: Window = Window::session(Duration::from_secs(10));

/// Every bid, by who made it. Nothing else of it is wanted.
pub(crate) fn by_bidder(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        if let Some(bid) = bid(&event)? {
            out.draft(&event).key(Key::of(bid.bidder).as_str()).emit("");
        }
    }
    Ok(())
}

/// Bids of somebody, and from when to when.
#[derive(Serialize)]
pub(crate) struct Bids {
    pub(crate) bidder: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bids: u64,
}

pub(crate) fn sessions(events: Events<'_>, out: &mut Output) {
    SESSIONS.aggregate(count(), |_| Ok(())).run_with(events, out, |session, draft| {
        let bidder = number_of(session.key);
        let (start, end, bids) = (session.start, session.end, session.value);
        draft.json(&Bids { bidder, start, end, bids });
    });
}
