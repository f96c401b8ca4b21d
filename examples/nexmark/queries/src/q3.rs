//! Query 3, local item suggestion: who sells things of category 10 in Oregon, Idaho or California.
//!
//! A join without an end in time: people stay for as long as the pipeline does, and an auction
//! waits for its seller if it comes first.

use serde::{Deserialize, Serialize};
use sluicebox_guest::{Events, Kind, Output, Result};

use crate::read::{Item, Key, pack, unpack};

const STATES: [&str; 3] = ["OR", "ID", "CA"];
const CATEGORY: u64 = 10;
const PORT_PEOPLE: u16 = 0;
const PORT_AUCTIONS: u16 = 1;
const INPUT_PEOPLE: u16 = 0;

/// A seller, as kept.
#[derive(Serialize, Deserialize)]
struct Seller {
    name: String,
    city: String,
    state: String,
}

#[derive(Serialize)]
struct Suggestion<'a> {
    name: &'a str,
    city: &'a str,
    state: &'a str,
    auction: u64,
}

/// Lets those pass that the query is about, by who sells.
pub(crate) fn local(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        match Item::of(&event)? {
            Item::Person(person) if STATES.contains(&person.state) => {
                let (name, city, state) = (person.name, person.city, person.state);
                let key = Key::of(person.id);
                let seller = Seller { name: name.into(), city: city.into(), state: state.into() };
                out.draft(&event).port(PORT_PEOPLE).key(key.as_str()).json(&seller);
            }
            Item::Auction(auction) if auction.category == CATEGORY => {
                let key = Key::of(auction.seller);
                out.draft(&event).port(PORT_AUCTIONS).key(key.as_str()).emit(pack(&auction.id));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Brings people and auctions together.
pub(crate) fn join(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        if event.kind() != Kind::Data {
            continue;
        }
        let state = event.state();
        let mut waiting: Vec<u64> = match state.get("waiting") {
            Some(bytes) => unpack(&bytes)?,
            None => Vec::new(),
        };
        if event.input() == INPUT_PEOPLE {
            state.put("seller", event.payload())?;
        } else {
            waiting.push(unpack(event.payload())?);
        }
        let Some(seller) = state.json::<Seller>("seller")? else {
            state.put("waiting", pack(&waiting))?;
            continue;
        };
        for auction in &waiting {
            let Seller { name, city, state } = &seller;
            out.json(&event, &Suggestion { name, city, state, auction: *auction });
        }
        state.delete("waiting");
    }
    Ok(())
}
