//! Query 4, average price by category: of auctions that are over, what they were sold for.
//!
//! An auction is sold for the highest bid between its begin and its end. That is known when the
//! watermark has passed its end; until then the best bid so far is kept. A bid may come before its
//! auction: it waits, and is nothing if the watermark passes it before the auction is there.

use serde::Serialize;
use sluicebox_guest::{Clock, Event, Events, Kept, Kind, Output, Result, watermark};

use crate::read::{Item, Key, number_of, pack, unpack};

/// Name of the slot and of the timer.
const LOT: &str = "lot";

/// An auction and the bids for it.
#[derive(Clone, Default)]
struct Lot {
    /// Category, begin and end, once it is there.
    auction: Option<(u64, u64, u64)>,
    best: Option<u64>,
    /// Time and price of bids that came before.
    early: Vec<(u64, u64)>,
}

impl Kept for Lot {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.auction.write(bytes);
        self.best.write(bytes);
        self.early.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            auction: Kept::read(bytes)?,
            best: Kept::read(bytes)?,
            early: Kept::read(bytes)?,
        })
    }
}

impl Lot {
    fn offer(&mut self, time: u64, price: u64) {
        match self.auction {
            Some((_, from, to)) if (from..=to).contains(&time) => {
                self.best = self.best.max(Some(price));
            }
            Some(_) => {}
            None => self.early.push((time, price)),
        }
    }

    fn begin(&mut self, category: u64, from: u64, to: u64) {
        self.auction = Some((category, from, to));
        for (time, price) in std::mem::take(&mut self.early) {
            self.offer(time, price);
        }
    }

    /// When there is something to do although nothing comes: all is there up to that time.
    fn wakes(&self) -> Option<u64> {
        let early = || self.early.iter().map(|(time, _)| *time).min();
        self.auction.map_or_else(early, |(_, _, to)| Some(to)).map(|time| time + 1)
    }
}

/// What an auction was sold for.
pub(crate) fn winning(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        let state = event.state();
        let mut lot: Lot = match state.get(LOT) {
            Some(bytes) => unpack(&bytes)?,
            None => Lot::default(),
        };
        let before = lot.wakes();
        if event.kind() == Kind::Timer {
            if end(&event, &mut lot, out) {
                state.delete(LOT);
                continue;
            }
        } else {
            match Item::of(&event)? {
                Item::Auction(auction) => {
                    lot.begin(auction.category, event.time(), auction.expires)
                }
                Item::Bid(bid) => lot.offer(event.time(), bid.price),
                Item::Person(_) => continue,
            }
        }
        state.put(LOT, pack(&lot))?;
        if let Some(at) = lot.wakes()
            && (before != Some(at) || event.kind() == Kind::Timer)
        {
            event.timers().set(LOT, Clock::Event, at)?;
        }
    }
    Ok(())
}

/// Ends what is over; true if nothing is left.
fn end(timer: &Event<'_>, lot: &mut Lot, out: &mut Output) -> bool {
    let reached = watermark().max(timer.time());
    lot.early.retain(|(time, _)| *time >= reached);
    let Some((category, _, to)) = lot.auction else { return lot.early.is_empty() };
    if to >= reached {
        return false;
    }
    if let Some(price) = lot.best {
        out.draft(timer).key(Key::of(category).as_str()).emit(pack(&price));
    }
    true
}

#[derive(Serialize)]
struct Average {
    category: u64,
    auctions: i64,
    average: i64,
}

/// The average so far, with each auction that is sold.
pub(crate) fn average(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        let price = unpack::<u64>(event.payload())?.cast_signed();
        let state = event.state();
        let (sum, auctions) = (state.add("sum", price)?, state.add("auctions", 1)?);
        let category = number_of(event.key());
        out.json(&event, &Average { category, auctions, average: sum / auctions });
    }
    Ok(())
}
