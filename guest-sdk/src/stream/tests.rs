//! Streams over several calls, and what can go wrong in one.

use std::future::pending;

use super::*;
use crate::testing::{Handled, Harness, Input};

/// Emits the sum so far for each number, and the final sum with port 1 at the end.
async fn sum(mut events: EventStream, mut out: StreamOutput) -> Result {
    let mut sum = 0;
    while let Some(event) = events.next().await {
        sum += event.text()?.parse::<i64>()?;
        out.emit(sum.to_string());
    }
    out.draft().port(1).emit(sum.to_string());
    Ok(())
}

fn data(payload: &str) -> Input {
    Input::data("k", payload)
}

fn texts(handled: &Handled) -> Vec<(u32, u16, &str)> {
    handled.outputs.iter().map(|out| (out.cause, out.port, out.text())).collect()
}

fn failures(handled: &Handled) -> Vec<(u32, &str)> {
    handled.failures.iter().map(|failed| (failed.event, failed.failure.message())).collect()
}

#[test]
fn local_variables_last_from_call_to_call() {
    let mut harness = Harness::stream(sum);
    let handled = harness.handle([Input::open("k"), data("1"), data("2")]);
    assert_eq!(texts(&handled), [(1, 0, "1"), (2, 0, "3")]);
    assert_eq!(texts(&harness.handle([data("10")])), [(0, 0, "13")]);
    let handled = harness.handle([data("100"), Input::end("k")]);
    assert_eq!(texts(&handled), [(0, 0, "113"), (1, 1, "113")]);
    assert_eq!(handled.failures, []);
}

#[test]
fn the_end_alone_is_a_cause_too() {
    let mut harness = Harness::stream(sum);
    harness.handle([Input::open("k"), data("1")]);
    let handled = harness.handle([Input::end("k").time(9)]);
    assert_eq!(texts(&handled), [(0, 1, "1")]);
    assert_eq!(handled.outputs[0].time, 9);
}

#[test]
fn an_opening_alone_starts_the_function() {
    async fn hello(mut events: EventStream, mut out: StreamOutput) {
        out.emit("hello");
        while events.next().await.is_some() {}
    }
    let handled = Harness::stream(hello).handle([Input::open("k").time(3)]);
    assert_eq!(texts(&handled), [(0, 0, "hello")]);
    assert_eq!(handled.outputs[0].time, 3);
}

#[test]
fn a_wake_up_is_an_event_of_the_stream() {
    async fn kinds(mut events: EventStream, mut out: StreamOutput) {
        while let Some(event) = events.next().await {
            out.emit(format!("{:?}", event.kind()));
        }
    }
    let handled =
        Harness::stream(kinds).handle([Input::open("k"), Input::timer("k", "t"), data("")]);
    assert_eq!(texts(&handled), [(1, 0, "Timer"), (2, 0, "Data")]);
}

#[test]
fn an_error_fails_its_event_and_those_behind_it() {
    let mut harness = Harness::stream(sum);
    let handled = harness.handle([Input::open("k"), data("1"), data("x"), data("2")]);
    assert_eq!(texts(&handled), [(1, 0, "1")], "what was emitted stands");
    let expected = [
        (2, "invalid digit found in string"),
        (3, "the stream function failed before: invalid digit found in string"),
    ];
    assert_eq!(failures(&handled), expected);
    let handled = harness.handle([data("3"), Input::end("k")]);
    assert_eq!(failures(&handled), [(0, expected[1].1)], "the end itself is no event to be lost");
}

#[test]
fn a_failure_that_is_reported_does_not_end_the_stream() {
    async fn picky(mut events: EventStream, mut out: StreamOutput) {
        while let Some(event) = events.next().await {
            match event.text() {
                Ok("bad") => out.fail(Failure::retry("bad")),
                _ => out.emit("good"),
            }
        }
    }
    let handled =
        Harness::stream(picky).handle([Input::open("k"), data("bad"), data("x"), data("bad")]);
    assert_eq!(failures(&handled), [(1, "bad"), (3, "bad")]);
    assert_eq!(texts(&handled), [(2, 0, "good")]);
}

#[test]
fn events_after_an_early_return_are_ignored() {
    async fn first(mut events: EventStream, mut out: StreamOutput) {
        if let Some(event) = events.next().await {
            out.emit(event.payload());
        }
    }
    let mut harness = Harness::stream(first);
    let handled = harness.handle([Input::open("k"), data("1"), data("2")]);
    assert_eq!((texts(&handled), failures(&handled)), (vec![(1, 0, "1")], vec![]));
    assert_eq!(harness.handle([data("3"), Input::end("k")]), Handled::default());
}

#[test]
fn an_opening_begins_anew() {
    let mut harness = Harness::stream(sum);
    harness.handle([Input::open("k"), data("5")]);
    let handled = harness.handle([Input::open("k"), data("1")]);
    assert_eq!(texts(&handled), [(1, 0, "1")]);
}

#[test]
fn a_function_that_waits_for_something_else_fails_what_it_left() {
    async fn stuck(mut events: EventStream, _out: StreamOutput) {
        events.next().await;
        pending::<()>().await;
    }
    let mut harness = Harness::stream(stuck);
    let handled = harness.handle([Input::open("k"), data("1")]);
    assert_eq!(failures(&handled), [], "all events were taken");
    let handled = harness.handle([data("2"), data("3")]);
    let message = "the stream function waits for something else than its next event";
    assert_eq!(failures(&handled), [(0, message), (1, message)]);
}

#[test]
fn a_foreign_key_is_refused_because_the_scope_is_wrong() {
    let mut harness = Harness::stream(sum);
    let handled = harness.handle([data("1"), Input::data("other", "2"), data("3")]);
    assert_eq!(texts(&handled), [(0, 0, "1"), (2, 0, "4")]);
    let expected = "a stream function needs scope = \"stream\" in the manifest";
    assert_eq!(failures(&handled), [(1, expected)]);
}

#[test]
fn state_belongs_to_the_event_at_hand() {
    async fn counting(mut events: EventStream, mut out: StreamOutput) -> Result {
        while let Some(event) = events.next().await {
            let count = event.state().add("n", 1)?;
            out.json(&count);
        }
        Ok(())
    }
    let mut harness = Harness::stream(counting);
    harness.handle([Input::open("k"), data("")]);
    assert_eq!(texts(&harness.handle([data(""), data("")])), [(0, 0, "2"), (1, 0, "3")]);
    assert_eq!(harness.counter("k", "n"), Some(3));
}
