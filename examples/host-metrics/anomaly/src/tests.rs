//! Tests of the anomaly stage.

use serde_json::{Value, json};
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;

const SERIES: &str = "cpu.user";

fn reading(value: f64) -> Input {
    Input::data(SERIES, json!({"series": SERIES, "value": value, "time": 7}).to_string())
}

/// An open stream that has read these values.
fn stream_of(values: impl IntoIterator<Item = f64>) -> (Harness, Handled) {
    let mut harness = Harness::stream(anomaly);
    let events = [Input::open(SERIES)].into_iter().chain(values.into_iter().map(reading));
    let handled = harness.handle(events);
    assert_eq!(handled.failures, []);
    (harness, handled)
}

fn on_port(handled: &Handled, port: u16) -> Vec<Value> {
    let outputs = handled.outputs.iter().filter(|output| output.port == port);
    outputs.map(|output| output.json()).collect()
}

/// Readings that go up and down by one around ten.
fn usual(count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(|n| if n % 2 == 0 { 9.0 } else { 11.0 })
}

#[test]
fn stats_are_of_the_readings_before() {
    let (_, handled) = stream_of([1.0, 3.0, 2.0]);
    let expected = [
        json!({"series": SERIES, "value": 1.0, "mean": 0.0, "deviation": 0.0}),
        json!({"series": SERIES, "value": 3.0, "mean": 1.0, "deviation": 0.0}),
        json!({"series": SERIES, "value": 2.0, "mean": 2.0, "deviation": 1.0}),
    ];
    assert_eq!(on_port(&handled, PORT_STATS), expected);
}

#[test]
fn what_stands_out_is_an_anomaly_and_the_usual_is_not() {
    let (mut harness, handled) = stream_of(usual(30));
    assert_eq!(on_port(&handled, PORT_ANOMALIES), [Value::Null; 0]);
    let handled = harness.handle([reading(15.0)]);
    let expected = json!({"series": SERIES, "value": 15.0, "mean": 10.0, "deviation": 1.0});
    assert_eq!(on_port(&handled, PORT_ANOMALIES), [expected]);
}

#[test]
fn the_last_digit_of_a_constant_is_no_anomaly_and_a_jump_is() {
    let (mut harness, _) = stream_of(std::iter::repeat_n(10.0, 30));
    let handled = harness.handle([reading(10.001), reading(10.5)]);
    let anomalies = on_port(&handled, PORT_ANOMALIES);
    assert_eq!(anomalies.len(), 1);
    assert_eq!(anomalies[0]["value"], 10.5);
}

#[test]
fn a_few_readings_say_nothing_about_what_is_usual() {
    let (mut harness, _) = stream_of(usual(READINGS_MIN - 1));
    let handled = harness.handle([reading(1e6)]);
    assert_eq!(on_port(&handled, PORT_ANOMALIES), [Value::Null; 0]);
}

#[test]
fn old_readings_are_forgotten() {
    let high = std::iter::repeat_n(1000.0, WINDOW_DEFAULT);
    let (_, handled) = stream_of(high.chain(std::iter::repeat_n(5.0, WINDOW_DEFAULT + 1)));
    let stats = on_port(&handled, PORT_STATS);
    assert_eq!(stats[2 * WINDOW_DEFAULT]["mean"], 5.0);
}

#[test]
fn a_bad_reading_fails_alone() {
    let (mut harness, _) = stream_of(usual(2));
    let handled = harness.handle([Input::data(SERIES, "{\"series\":"), reading(10.0)]);
    assert_eq!(handled.failures.len(), 1);
    assert_eq!(handled.failures[0].event, 0);
    assert_eq!(on_port(&handled, PORT_STATS).len(), 1);
}

#[test]
fn settings_are_read_and_checked() {
    let mut harness = Harness::stream(anomaly).with_config("deviations", "2");
    let events = [Input::open(SERIES)].into_iter().chain(usual(30).map(reading));
    let handled = harness.handle(events.chain([reading(12.5)]));
    assert_eq!(on_port(&handled, PORT_ANOMALIES).len(), 1);

    for window in ["9", "0", "many", "-1"] {
        let mut harness = Harness::stream(anomaly).with_config("window", window);
        let handled = harness.handle([Input::open(SERIES), reading(1.0)]);
        assert!(!handled.failures.is_empty(), "window = {window}");
    }
}

#[test]
fn the_end_of_a_stream_is_quiet() {
    let (mut harness, _) = stream_of(usual(3));
    assert_eq!(harness.handle([Input::end(SERIES)]), Handled::default());
}
