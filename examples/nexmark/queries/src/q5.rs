//! Query 5, hot items: of the last ten seconds, every two, the auctions with most bids.
//!
//! The first step counts the bids of an auction in sliding windows. Of the windows that end in one
//! call only the hottest auctions go on, to the key of their window. There the second step puts
//! them together, when the watermark says that all are there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sluicebox_guest::window::{Aggregate, Window, count as counted};
use sluicebox_guest::{Events, Output};

use crate::read::{Key, is_bid, number_of, pack, unpack};

const SLIDE: Duration = Duration::from_secs(2);
const LAST: Window = Window::sliding(Duration::from_secs(10), SLIDE).only(is_bid);
/// A result of a window has its last moment as its time; in this one there are no others.
const EACH: Window = Window::tumbling(SLIDE);
const SIZE: u64 = 10_000_000;

/// How many bids, and which auctions have so many, ascending.
type Hot = (u64, Vec<u64>);

/// Those with most bids.
struct Hottest;

impl Aggregate for Hottest {
    type Input = Hot;
    type Kept = Hot;
    type Output = Hot;

    fn first(&self, input: Hot) -> Hot {
        input
    }

    fn merge(&self, kept: &mut Hot, later: &Hot) {
        if later.0 > kept.0 {
            kept.clone_from(later);
        } else if later.0 == kept.0 {
            kept.1.extend(&later.1);
            kept.1.sort_unstable();
        }
    }

    fn output(&self, kept: &Hot) -> Hot {
        kept.clone()
    }
}

/// How many bids each auction had.
pub(crate) fn count(events: Events<'_>, out: &mut Output) {
    let mut ended: BTreeMap<u64, Hot> = BTreeMap::new();
    LAST.aggregate(counted(), |_| Ok(())).run_with(events, out, |window, _| {
        let hot = (window.value, vec![number_of(window.key)]);
        ended
            .entry(window.end)
            .and_modify(|hottest| Hottest.merge(hottest, &hot))
            .or_insert_with(|| hot.clone());
    });
    let Some(cause) = events.iter().next() else { return };
    for (end, hot) in &ended {
        let key = Key::of(*end);
        out.draft(&cause).time(end - 1).key(key.as_str()).emit(pack(hot));
    }
}

#[derive(Serialize)]
struct Items {
    start: u64,
    end: u64,
    bids: u64,
    auctions: Vec<u64>,
}

/// The hottest of each window.
pub(crate) fn hottest(events: Events<'_>, out: &mut Output) {
    EACH.aggregate(Hottest, |event| unpack(event.payload())).run_with(
        events,
        out,
        |window, draft| {
            let (bids, auctions) = window.value.clone();
            let end = window.end;
            draft.json(&Items { start: end - SIZE, end, bids, auctions });
        },
    );
}
