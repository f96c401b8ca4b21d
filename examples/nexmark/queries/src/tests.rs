//! Tests of single steps, for what generated events seldom have: equals, and what comes too early.

use serde_json::{Value, json};
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;
use crate::read::pack;

const SECOND: u64 = 1_000_000;

fn step(step: &str) -> Harness {
    Harness::new(query).with_config("step", step)
}

fn packed(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    std::iter::once(kind).chain(numbers).collect()
}

fn bid(seconds: u64, auction: u64, price: u64) -> Input {
    let payload = packed(2, &[auction, 1, price]);
    Input::data(auction.to_string(), payload).time(seconds * SECOND)
}

fn auction(seconds: u64, id: u64, until: u64) -> Input {
    let payload = packed(1, &[id, 1, 10, 0, 0, until * SECOND]);
    Input::data(id.to_string(), payload).time(seconds * SECOND)
}

fn results(handled: &Handled) -> Vec<Value> {
    assert_eq!(handled.failures, []);
    handled.outputs.iter().map(|output| output.json()).collect()
}

#[test]
fn auctions_with_equally_many_bids_are_equally_hot() {
    let mut first = step("q5-count");
    first.handle([bid(101, 7, 1), bid(101, 9, 1), bid(101, 8, 1), bid(102, 9, 1)]);
    let handled = first.advance_watermark(102 * SECOND);
    assert_eq!(handled.outputs.len(), 1, "the hottest of a call go on together");
    let one = &handled.outputs[0];
    let mut second = step("q5-hottest");
    for payload in [&one.payload, &pack(&(1_u64, vec![4_u64]))] {
        second.handle([Input::data(one.key.as_str(), payload).time(one.time)]);
    }
    let expected = json!({
        "start": 92 * SECOND, "end": 102 * SECOND, "bids": 1, "auctions": [4, 7, 8, 9],
    });
    assert_eq!(results(&second.advance_watermark(102 * SECOND)), [expected]);
}

#[test]
fn equal_highest_bids_are_both_the_highest() {
    let mut first = step("q7-highest");
    let mut second = step("q7-highest-of-all");
    for bids in [[bid(1, 7, 500), bid(2, 8, 500)], [bid(3, 9, 500), bid(4, 9, 400)]] {
        let handled = first.handle(bids);
        assert_eq!(handled.outputs.len(), 1);
        let out = &handled.outputs[0];
        second.handle([Input::data(out.key.as_str(), &out.payload).time(out.time)]);
    }
    let found = results(&second.advance_watermark(10 * SECOND));
    let auctions: Vec<u64> = found.iter().filter_map(|bid| bid["auction"].as_u64()).collect();
    assert_eq!(auctions, [7, 8, 9]);
}

#[test]
fn a_bid_counts_from_the_begin_of_its_auction_to_its_end_whichever_comes_first() {
    let mut stage = step("q4-winning");
    // Too early; at the begin; at the end; too late, though highest.
    stage.handle([bid(1, 7, 900), bid(2, 7, 100), bid(5, 7, 300), bid(6, 7, 800)]);
    stage.handle([auction(2, 7, 5)]);
    assert!(stage.advance_watermark(5 * SECOND).outputs.is_empty());
    let handled = stage.advance_watermark(5 * SECOND + 1);
    assert_eq!(handled.failures, []);
    let sold: Vec<_> = handled.outputs.iter().map(|out| (&*out.key, &out.payload)).collect();
    assert_eq!(sold, [("10", &pack(&300_u64))]);
    stage.handle([bid(6, 7, 800)]);
    stage.advance_watermark(7 * SECOND);
    assert_eq!(stage.slots("7").count(), 0, "what nobody can want any more is gone");
}

#[test]
fn an_auction_waits_for_its_seller() {
    let mut stage = step("q3-join");
    let sold = |id: u64| Input::data("1", pack(&id)).input(1);
    assert!(results(&stage.handle([sold(7), sold(8)])).is_empty());
    let seller = json!({"name": "Kate Smith", "city": "Bend", "state": "OR"}).to_string();
    let found = results(&stage.handle([Input::data("1", seller)]));
    let auctions: Vec<u64> = found.iter().filter_map(|one| one["auction"].as_u64()).collect();
    assert_eq!(auctions, [7, 8]);
    assert_eq!(results(&stage.handle([sold(9)])).len(), 1);
}

#[test]
fn what_is_no_event_of_an_auction_house_fails_and_so_does_an_unknown_step() {
    let handled = step("q2").handle([Input::data("1", [2, 0])]);
    assert_eq!(handled.failures.len(), 1);
    let handled = step("q6").handle([Input::data("1", "")]);
    assert!(handled.failures[0].failure.message().contains("q6"));
}
