//! Query 2, selection: the bids for every 123rd auction.

use serde::Serialize;
use sluicebox_guest::{Events, Output, Result};

use crate::read::bid;

#[derive(Serialize)]
struct Selected {
    auction: u64,
    price: u64,
}

pub(crate) fn select(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        if let Some(bid) = bid(&event)?
            && bid.auction.is_multiple_of(123)
        {
            out.json(&event, &Selected { auction: bid.auction, price: bid.price });
        }
    }
    Ok(())
}
