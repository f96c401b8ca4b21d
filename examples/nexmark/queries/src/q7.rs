//! Query 7, highest bid: of each ten seconds, the bids with the highest price.
//!
//! The first step keeps nothing: of the bids of a call it lets the highest of each window go on, to
//! the key of their window. The second has the window.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sluicebox_guest::window::{Aggregate, Window};
use sluicebox_guest::{Events, Output, Result};

use crate::read::{Key, bid, pack, unpack};

const SIZE: u64 = 10_000_000;
const TEN_SECONDS: Window = Window::tumbling(Duration::from_micros(SIZE));

/// A price, and auction, bidder and time of each bid of it.
type High = (u64, Vec<(u64, u64, u64)>);

/// Those with the highest price.
struct Highest;

impl Aggregate for Highest {
    type Input = High;
    type Kept = High;
    type Output = High;

    fn first(&self, input: High) -> High {
        input
    }

    fn merge(&self, kept: &mut High, later: &High) {
        if later.0 > kept.0 {
            kept.clone_from(later);
        } else if later.0 == kept.0 {
            kept.1.extend(&later.1);
        }
    }

    fn output(&self, kept: &High) -> High {
        kept.clone()
    }
}

/// The highest of a call.
pub(crate) fn highest(events: Events<'_>, out: &mut Output) -> Result {
    let mut windows: BTreeMap<u64, High> = BTreeMap::new();
    for event in events {
        let Some(bid) = bid(&event)? else { continue };
        let best = windows.entry(event.time() / SIZE).or_default();
        if bid.price >= best.0 {
            let high = (bid.price, vec![(bid.auction, bid.bidder, event.time())]);
            Highest.merge(best, &high);
        }
    }
    let Some(cause) = events.iter().next() else { return Ok(()) };
    for (window, high) in &windows {
        let key = Key::of(*window);
        out.draft(&cause).time(high.1[0].2).key(key.as_str()).emit(pack(high));
    }
    Ok(())
}

#[derive(Serialize)]
struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    time: u64,
}

/// The highest of all.
pub(crate) fn highest_of_all(events: Events<'_>, out: &mut Output) {
    let mut ended = Vec::new();
    TEN_SECONDS.aggregate(Highest, |event| unpack(event.payload())).run_with(
        events,
        out,
        |window, _| ended.push((window.end, window.value.clone())),
    );
    let Some(cause) = events.iter().next() else { return };
    for (end, (price, bids)) in ended {
        for (auction, bidder, time) in bids {
            out.draft(&cause).time(end - 1).json(&Bid { auction, bidder, price, time });
        }
    }
}
