//! Query 1, currency conversion: every bid, its price in euros instead of dollars.

use sluicebox_guest::{Events, Output, Result};

use crate::read::bid;

/// Euros for a thousand dollars.
const EUROS: u64 = 908;
/// Where the price of a bid lies.
const PRICE: std::ops::Range<usize> = 17..25;

pub(crate) fn convert(events: Events<'_>, out: &mut Output) -> Result {
    let mut payload = Vec::new();
    for event in events {
        let Some(bid) = bid(&event)? else { continue };
        payload.clear();
        payload.extend_from_slice(event.payload());
        payload[PRICE].copy_from_slice(&(bid.price * EUROS / 1_000).to_le_bytes());
        out.emit(&event, &payload);
    }
    Ok(())
}
