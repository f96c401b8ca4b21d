//! Query 8, new users: who came and put something up for auction in the same ten seconds.

use std::time::Duration;

use serde::Serialize;
use sluicebox_guest::window::{Aggregate, Window};
use sluicebox_guest::{Events, Output, Result};

use crate::read::{Item, Key, number_of};

const TEN_SECONDS: Window = Window::tumbling(Duration::from_secs(10));
const PORT_PEOPLE: u16 = 0;
const PORT_AUCTIONS: u16 = 1;
const INPUT_PEOPLE: u16 = 0;

/// Both sides of the join.
struct Both;

impl Aggregate for Both {
    /// The name, if it is a person; else it is an auction.
    type Input = Option<String>;
    /// The name of the person, and whether there was an auction.
    type Kept = (Option<String>, bool);
    type Output = Option<String>;

    fn first(&self, input: Option<String>) -> (Option<String>, bool) {
        let auction = input.is_none();
        (input, auction)
    }

    fn merge(&self, kept: &mut (Option<String>, bool), later: &(Option<String>, bool)) {
        if kept.0.is_none() {
            kept.0.clone_from(&later.0);
        }
        kept.1 |= later.1;
    }

    fn output(&self, kept: &(Option<String>, bool)) -> Option<String> {
        kept.0.clone().filter(|_| kept.1)
    }
}

/// People and auctions, by who sells.
pub(crate) fn split(events: Events<'_>, out: &mut Output) -> Result {
    for event in events {
        match Item::of(&event)? {
            Item::Person(person) => {
                let key = Key::of(person.id);
                out.draft(&event).port(PORT_PEOPLE).key(key.as_str()).emit(person.name);
            }
            Item::Auction(auction) => {
                let key = Key::of(auction.seller);
                out.draft(&event).port(PORT_AUCTIONS).key(key.as_str()).emit("");
            }
            Item::Bid(_) => {}
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct User<'a> {
    id: u64,
    name: &'a str,
    start: u64,
}

/// Brings them together.
pub(crate) fn join(events: Events<'_>, out: &mut Output) {
    let both = TEN_SECONDS.aggregate(Both, |event| {
        Ok((event.input() == INPUT_PEOPLE).then_some(event.text()?.to_owned()))
    });
    both.run_with(events, out, |window, draft| {
        if let Some(name) = &window.value {
            draft.json(&User { id: number_of(window.key), name, start: window.start });
        }
    });
}
