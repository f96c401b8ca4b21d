//! What the queries are to find in a list of events, by going through it.
//!
//! - Each result is one line, as the components write it; lines are sorted, as no order between
//!   results is promised.
//! - Windows are found by trying which ones an event is in. An event that closes the list lets all
//!   windows end, so each window with something in it has its result.
//!
//! Query 0 gives what came, 12 goes by the clock: what there is to say of them is in the tests.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Bid, Event, What};

/// Microseconds of a window or a gap, and from one sliding window to the next.
const SIZE: u64 = 10_000_000;
const SLIDE: u64 = 2_000_000;
/// States whose people query 3 is about, and the category.
const STATES: [&str; 3] = ["OR", "ID", "CA"];
const CATEGORY: u64 = 10;

/// Sorted lines.
fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}

fn bids<'g>(events: impl Iterator<Item = Event<'g>>) -> impl Iterator<Item = (u64, Bid<'g>)> {
    events.filter_map(|event| match event.what {
        What::Bid(bid) => Some((event.time, bid)),
        What::Person(_) | What::Auction(_) => None,
    })
}

/// Currency conversion: every bid, its price in euros. As auction, bidder and price.
#[must_use]
pub fn q1<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<(u64, u64, u64)> {
    let euros = |bid: &Bid<'_>| bid.price * 908 / 1_000;
    let mut all: Vec<_> =
        bids(events).map(|(_, bid)| (bid.auction, bid.bidder, euros(&bid))).collect();
    all.sort_unstable();
    all
}

/// Selection: bids for every 123rd auction.
#[must_use]
pub fn q2<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let chosen = bids(events).map(|(_, bid)| bid).filter(|bid| bid.auction.is_multiple_of(123));
    sorted(chosen.map(|bid| format!(r#"{{"auction":{},"price":{}}}"#, bid.auction, bid.price)))
}

/// Local item suggestion: who sells things of one category in three states.
#[must_use]
pub fn q3<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let (mut people, mut auctions) = (BTreeMap::new(), Vec::new());
    for event in events {
        match event.what {
            What::Person(person) if STATES.contains(&person.state) => {
                people.insert(person.id, person);
            }
            What::Auction(auction) if auction.category == CATEGORY => auctions.push(auction),
            _ => {}
        }
    }
    sorted(auctions.iter().filter_map(|auction| {
        let person = people.get(&auction.seller)?;
        Some(format!(
            r#"{{"name":"{}","city":"{}","state":"{}","auction":{}}}"#,
            person.full_name(),
            person.city,
            person.state,
            auction.id
        ))
    }))
}

/// Average price by category: how many auctions were sold, and the mean of the prices they were
/// sold for, in whole cents.
#[must_use]
pub fn q4<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let (mut auctions, mut offers) = (Vec::new(), BTreeMap::<u64, Vec<(u64, u64)>>::new());
    for event in events {
        match event.what {
            What::Auction(auction) => auctions.push((event.time, auction)),
            What::Bid(bid) => offers.entry(bid.auction).or_default().push((event.time, bid.price)),
            What::Person(_) => {}
        }
    }
    let mut sold = BTreeMap::<u64, (u64, u64)>::new();
    for (from, auction) in auctions {
        let offers = offers.get(&auction.id).map_or(&[][..], Vec::as_slice);
        let open = |(time, _): &&(u64, u64)| (from..=auction.expires).contains(time);
        if let Some((_, price)) = offers.iter().filter(open).max_by_key(|(_, price)| price) {
            let (sum, count) = sold.entry(auction.category).or_default();
            (*sum, *count) = (*sum + price, *count + 1);
        }
    }
    sorted(sold.iter().map(|(category, (sum, count))| {
        format!(r#"{{"category":{category},"auctions":{count},"average":{}}}"#, sum / count)
    }))
}

/// Hot items: of each ten seconds, every two, the auctions with most bids.
#[must_use]
pub fn q5<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let mut counts = BTreeMap::<u64, BTreeMap<u64, u64>>::new();
    for (time, bid) in bids(events) {
        let mut start = time / SLIDE * SLIDE;
        while start + SIZE > time {
            *counts.entry(start).or_default().entry(bid.auction).or_default() += 1;
            start -= SLIDE;
        }
    }
    sorted(counts.iter().filter_map(|(start, auctions)| {
        let most = auctions.values().max()?;
        let hot = auctions.iter().filter(|(_, count)| *count == most).map(|(auction, _)| auction);
        let (end, hot) = (start + SIZE, hot.collect::<Vec<_>>());
        Some(format!(r#"{{"start":{start},"end":{end},"bids":{most},"auctions":{hot:?}}}"#))
    }))
    .into_iter()
    .map(|line| line.replace(", ", ","))
    .collect()
}

/// Highest bid: of each ten seconds, the bids with the highest price.
#[must_use]
pub fn q7<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let mut highest = BTreeMap::<u64, Vec<(u64, Bid<'g>)>>::new();
    for (time, bid) in bids(events) {
        let best = highest.entry(time / SIZE * SIZE).or_default();
        if best.first().is_none_or(|(_, other)| bid.price > other.price) {
            *best = vec![(time, bid)];
        } else if best[0].1.price == bid.price {
            best.push((time, bid));
        }
    }
    sorted(highest.values().flatten().map(|(time, bid)| {
        let Bid { auction, bidder, price, .. } = bid;
        format!(r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"time":{time}}}"#)
    }))
}

/// New users: who came and put something up in the same ten seconds.
#[must_use]
pub fn q8<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let (mut people, mut sellers) = (BTreeMap::new(), BTreeSet::new());
    for event in events {
        let window = event.time / SIZE * SIZE;
        match event.what {
            What::Person(person) => {
                people.insert((window, person.id), person);
            }
            What::Auction(auction) => {
                sellers.insert((window, auction.seller));
            }
            What::Bid(_) => {}
        }
    }
    let both = people.iter().filter(|(of, _)| sellers.contains(*of));
    sorted(both.map(|((start, id), person)| {
        format!(r#"{{"id":{id},"name":"{}","start":{start}}}"#, person.full_name())
    }))
}

/// User sessions: bids of a bidder that follow each other by less than ten seconds.
#[must_use]
pub fn q11<'g>(events: impl Iterator<Item = Event<'g>>) -> Vec<String> {
    let mut times = BTreeMap::<u64, Vec<u64>>::new();
    for (time, bid) in bids(events) {
        times.entry(bid.bidder).or_default().push(time);
    }
    sorted(times.iter_mut().flat_map(|(bidder, times)| {
        times.sort_unstable();
        let sessions = times.chunk_by(|one, next| next - one < SIZE);
        sessions.map(move |session| {
            let (start, end) = (session[0], session[session.len() - 1] + SIZE);
            let bids = session.len();
            format!(r#"{{"bidder":{bidder},"start":{start},"end":{end},"bids":{bids}}}"#)
        })
    }))
}

/// How many bids each bidder made.
#[must_use]
pub fn by_bidder<'g>(events: impl Iterator<Item = Event<'g>>) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for (_, bid) in bids(events) {
        *counts.entry(bid.bidder).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn bid(seconds: u64, auction: u64, bidder: u64, price: u64) -> Event<'static> {
        let what = What::Bid(Bid { auction, bidder, price, extra: "" });
        Event { time: 1_000 * SECOND + seconds * SECOND, what }
    }

    #[test]
    fn a_bid_is_in_five_sliding_windows() {
        let found = q5([bid(1, 7, 1, 1), bid(11, 7, 1, 1), bid(11, 8, 1, 1)].into_iter());
        let starts: Vec<u64> = (0..10).map(|place| (992 + 2 * place) * SECOND).collect();
        let line = |start: &u64| {
            let hot = if *start <= 1_000 * SECOND { "[7]" } else { "[7,8]" };
            let end = start + SIZE;
            format!(r#"{{"start":{start},"end":{end},"bids":1,"auctions":{hot}}}"#)
        };
        let expected: Vec<String> = starts.iter().map(line).collect();
        assert_eq!(found, sorted(expected));
    }

    #[test]
    fn sessions_end_after_ten_seconds_of_nothing() {
        let found = q11([bid(0, 7, 1, 1), bid(9, 7, 1, 1), bid(19, 7, 1, 1)].into_iter());
        assert_eq!(found.len(), 2);
        assert!(found[0].contains(r#""end":1019000000,"bids":2"#), "{found:?}");
    }

    #[test]
    fn equal_highest_bids_are_both_there() {
        let found = q7([bid(0, 7, 1, 5), bid(1, 8, 1, 6), bid(2, 9, 2, 6)].into_iter());
        assert_eq!(found.len(), 2);
    }
}
