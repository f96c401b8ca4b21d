//! Tests of the fraud stage, on payments made for one thing each and on those the example ships.

use serde_json::{Value, json};
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;

const PAYMENTS: &str = include_str!("../../payments.ndjson");
const SECOND: u64 = 1_000_000;

fn payment(seconds: u64, cents: i64, country: &str) -> Input {
    let payload = json!({"cents": cents, "country": country, "other": 1}).to_string();
    Input::data("card", payload).time(seconds * SECOND)
}

fn alerts(handled: &Handled) -> Vec<Value> {
    assert_eq!(handled.failures, []);
    handled.outputs.iter().filter(|output| output.port == 0).map(|output| output.json()).collect()
}

#[test]
fn two_small_payments_and_a_large_one_are_seen_at_once() {
    let mut harness = Harness::new(detect);
    let given = [payment(0, 100, "DE"), payment(60, 150, "DE"), payment(300, 90_000, "DE")];
    let expected = json!({
        "card": "card", "rule": "probed", "from": 0, "to": 300 * SECOND, "cents": 90_250,
        "countries": ["DE", "DE", "DE"],
    });
    assert_eq!(alerts(&harness.handle(given)), [expected]);
}

#[test]
fn after_ten_minutes_the_large_payment_is_another_matter() {
    let mut harness = Harness::new(detect);
    let given = [payment(0, 100, "DE"), payment(60, 150, "DE"), payment(601, 90_000, "DE")];
    assert_eq!(alerts(&harness.handle(given)), [Value::Null; 0]);
}

#[test]
fn the_thresholds_are_settings() {
    let given = || [payment(0, 900, "DE"), payment(60, 950, "DE"), payment(300, 9_000, "DE")];
    let mut usual = Harness::new(detect);
    assert_eq!(alerts(&usual.handle(given())), [Value::Null; 0]);
    let mut strict = Harness::new(detect).with_config("small", "1000").with_config("large", "8000");
    assert_eq!(alerts(&strict.handle(given())).len(), 1);
}

#[test]
fn two_countries_within_half_an_hour_are_seen_in_the_order_of_time() {
    let mut harness = Harness::new(detect);
    // The one between comes last: without it this would be a journey.
    harness.handle([payment(0, 1_000, "DE"), payment(1_200, 1_000, "BR")]);
    harness.handle([payment(600, 1_000, "DE")]);
    let found = alerts(&harness.advance_watermark(2_000 * SECOND));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["rule"], "travelled");
    assert_eq!(found[0]["from"], 600 * SECOND);
    assert_eq!(found[0]["countries"], json!(["DE", "BR"]));
}

#[test]
fn a_payment_that_was_refused_is_not_where_the_card_is() {
    let mut harness = Harness::new(detect);
    let refused = json!({"cents": 1_000, "country": "BR", "refused": true}).to_string();
    harness.handle([Input::data("card", refused), payment(60, 1_000, "DE")]);
    assert_eq!(alerts(&harness.advance_watermark(10_000 * SECOND)), [Value::Null; 0]);
}

#[test]
fn a_late_payment_leaves_by_its_own_port_and_what_is_no_payment_fails() {
    let mut harness = Harness::new(detect);
    harness.advance_watermark(100 * SECOND);
    let handled = harness.handle([payment(99, 1_000, "DE")]);
    assert_eq!(handled.outputs[0].port, PORT_LATE);
    let handled = harness.handle([Input::data("card", "{}").time(200 * SECOND)]);
    assert_eq!(handled.failures.len(), 1);
}

#[test]
fn the_payments_of_the_example_hold_one_of_each() {
    let mut harness = Harness::new(detect);
    let mut found = Vec::new();
    for line in PAYMENTS.lines() {
        let payment: Value = serde_json::from_str(line).unwrap();
        let millis = payment["at"].as_u64().unwrap();
        let input = Input::data(payment["card"].as_str().unwrap(), line).time(millis * 1_000);
        found.extend(alerts(&harness.handle([input])));
    }
    found.extend(alerts(&harness.advance_watermark(1 << 52)));
    let said: Vec<(&str, &str)> = found
        .iter()
        .map(|alert| (alert["card"].as_str().unwrap(), alert["rule"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("4000-0003", "probed"), ("4000-0006", "travelled")]);
    assert_eq!(harness.slots("4000-0003").count(), 0);
}
