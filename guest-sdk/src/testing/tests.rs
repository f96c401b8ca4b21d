//! The harness keeps the host's promises, and stage functions work in each form.

mod timers;

use serde::Deserialize;

use super::*;
use crate::event::{Event, Events};
use crate::failure::{Class, Failure, Result};
use crate::json::Json;
use crate::output::Output;
use crate::state::StateBatch;
use crate::{assets, config, metrics};

fn texts(handled: &Handled) -> Vec<&str> {
    handled.outputs.iter().map(Emitted::text).collect()
}

/// Counts each event, emits its payload, and then fails if the payload says so.
fn counting(event: Event<'_>, out: &mut Output) -> Result {
    event.state().add("n", 1)?;
    out.emit(&event, event.payload());
    match event.payload() {
        b"retry" => Err(Failure::retry("later")),
        b"reject" => Err(Failure::reject("never")),
        _ => Ok(()),
    }
}

#[test]
fn nothing_of_a_failed_event_stands_and_all_of_the_others_does() {
    let mut harness = Harness::new(counting);
    let payloads = ["a", "reject", "b", "retry", "c"];
    let handled = harness.handle(payloads.map(|payload| Input::data("k", payload)));
    assert_eq!(texts(&handled), ["a", "b", "c"]);
    let causes: Vec<u32> = handled.outputs.iter().map(|output| output.cause).collect();
    assert_eq!(causes, [0, 2, 4], "causes are places among the events that were given");
    assert_eq!(harness.counter("k", "n"), Some(3));
    let failures = [
        Failed { event: 1, failure: Failure::reject("never") },
        Failed { event: 3, failure: Failure::retry("later") },
    ];
    assert_eq!(handled.failures, failures);
}

#[test]
fn an_error_of_a_batch_function_fails_the_event_it_belongs_to_in_the_end() {
    fn batch(events: Events<'_>, out: &mut Output) -> Result {
        for event in events {
            let number: i32 = event.text()?.parse()?;
            out.json(&event, &(number * 2));
        }
        Ok(())
    }
    let mut harness = Harness::new(batch);
    let handled = harness.handle(["1", "x", "2"].map(|payload| Input::data("", payload)));
    assert_eq!(texts(&handled), [""; 0]);
    let classes: Vec<Class> = handled.failures.iter().map(|f| f.failure.class()).collect();
    assert_eq!(classes, [Class::Retry; 3], "each is to be tried again, alone");
    assert_eq!(texts(&harness.send("", "1")), ["2"]);
    assert_eq!(harness.send("", "x").failures[0].failure.class(), Class::Reject);
}

#[test]
fn a_function_over_json_is_called_for_what_is_json() {
    #[derive(Deserialize)]
    struct Point {
        x: i64,
        y: i64,
    }
    fn sum(point: Json<'_, Point>, out: &mut Output) {
        assert_eq!(point.event().key(), "k");
        out.json(&point, &(point.x + point.y));
    }
    let mut harness = Harness::new(sum);
    let handled = harness.handle([
        Input::data("k", r#"{"x":1,"y":2}"#),
        Input::data("k", r#"{"x":1}"#),
        Input::timer("k", "t"),
        Input::data("k", r#"{"x":3,"y":4}"#),
    ]);
    assert_eq!(texts(&handled), ["3", "7"]);
    assert_eq!(handled.failures.len(), 1);
    assert_eq!(handled.failures[0].event, 1);
    let message = handled.failures[0].failure.message();
    assert!(message.contains("missing field `y`"), "{message}");
}

#[test]
fn json_may_be_borrowed_from_the_payload() {
    #[derive(Deserialize)]
    struct Name<'a> {
        name: &'a str,
    }
    fn name(event: Event<'_>, out: &mut Output) -> Result {
        let Name { name } = event.json()?;
        out.emit(&event, name);
        Ok(())
    }
    assert_eq!(texts(&Harness::new(name).send("", r#"{"name":"n"}"#)), ["n"]);
}

#[test]
fn state_calls_do_what_the_contract_says() {
    fn stage(event: Event<'_>, out: &mut Output) -> Result {
        let state = event.state();
        assert_eq!(state.get("a"), None);
        assert!(!state.delete("a"));
        state.put("a", "1")?;
        state.put_json("ab", &[1, 2])?;
        state.put("b", [])?;
        assert_eq!(state.get("b"), Some(vec![]));
        assert_eq!(state.json::<Vec<i32>>("ab")?, Some(vec![1, 2]));
        assert_eq!(state.json::<i32>("c")?, None);
        assert_eq!(state.counter("n")?, 0);
        assert_eq!(state.add("n", i64::MAX)?, i64::MAX);
        assert_eq!(state.add("n", 1)?, i64::MIN, "it wraps around");
        assert_eq!(state.counter("n")?, i64::MIN);
        assert!(state.add("a", 1).is_err());
        assert!(state.counter("a").is_err());
        let slots = |prefix, limit| -> Vec<String> {
            state.scan(prefix, limit).into_iter().map(|(slot, _)| slot).collect()
        };
        assert_eq!(slots("", 9), ["a", "ab", "b", "n"]);
        assert_eq!(slots("a", 9), ["a", "ab"]);
        assert_eq!(slots("", 1), ["a"]);
        assert!(state.delete("a"));
        out.emit(&event, "");
        Ok(())
    }
    let mut harness = Harness::new(stage).with_state("other", "a", "not this key's");
    let handled = harness.send("k", "");
    assert_eq!(handled.failures, []);
    assert_eq!(handled.outputs.len(), 1);
    assert_eq!(harness.state("k", "ab"), Some(&b"[1,2]"[..]));
    assert_eq!(harness.state("k", "a"), None);
    assert_eq!(harness.state("other", "a"), Some(&b"not this key's"[..]));
}

#[test]
fn a_batch_of_state_operations_is_answered_in_order() {
    fn stage(events: Events<'_>, out: &mut Output) {
        let mut batch = StateBatch::new();
        for event in events {
            batch.get(&event, "v");
            batch.put(&event, "v", event.payload());
            batch.get(&event, "v");
            batch.add(&event, "n", -2);
            batch.add(&event, "v", 1);
            batch.delete(&event, "v");
            batch.delete(&event, "v");
            batch.put(&event, "large", [0; 9]);
        }
        let replies = batch.run();
        for (event, replies) in events.iter().zip(replies.iter().collect::<Vec<_>>().chunks(8)) {
            assert_eq!(replies[0].value(), Ok(None));
            assert_eq!(replies[1].done(), Ok(true));
            assert_eq!(replies[2].value(), Ok(Some(event.payload())));
            assert_eq!(replies[3].number(), Ok(-2));
            let refused = replies[4].number().expect_err("the slot holds text");
            assert!(refused.message().contains("a counter is 8"), "{refused}");
            assert_eq!(replies[5].done(), Ok(true));
            assert_eq!(replies[6].done(), Ok(false));
            assert!(replies[7].done().is_err());
            out.emit(&event, "");
        }
        assert_eq!(batch.run().iter().count(), 0, "what was done is not done again");
    }
    let mut harness = Harness::new(stage).with_value_bytes_max(8);
    let handled = harness.handle(["a", "b"].map(|key| Input::data(key, key)));
    assert_eq!(handled.outputs.len(), 2);
    assert_eq!(harness.counter("a", "n"), Some(-2));
}

#[test]
#[should_panic(expected = "the name of a slot is at most 64 bytes")]
fn a_slot_name_that_is_too_long_traps() {
    fn stage(event: Event<'_>, _out: &mut Output) {
        StateBatch::new().get(&event, &"s".repeat(65));
    }
    Harness::new(stage).send("", "");
}

#[test]
fn settings_and_assets_are_those_of_the_harness() {
    fn stage(event: Event<'_>, out: &mut Output) -> Result {
        assert_eq!(config::names(), ["bad", "count"]);
        assert_eq!(config::get("none"), None);
        assert_eq!(config::parse::<u8>("none")?, None);
        assert_eq!(config::parse::<u8>("count")?, Some(7));
        assert_eq!(assets::size("none"), None);
        assert_eq!(assets::read("none", 0, 9), b"");
        assert_eq!(assets::read_all("none"), None);
        assert_eq!(assets::size("table"), Some(3_000_000));
        assert_eq!(assets::read("table", 2_999_999, 9), [7]);
        assert_eq!(assets::read("table", u64::MAX, 9), b"");
        assert_eq!(assets::read_all("table"), Some(vec![7; 3_000_000]));
        out.emit(&event, "");
        config::parse::<u8>("bad")?;
        Ok(())
    }
    let mut harness = Harness::new(stage)
        .with_config("count", "7")
        .with_config("bad", "256")
        .with_asset("table", vec![7; 3_000_000]);
    let handled = harness.send("", "");
    let message = handled.failures[0].failure.message();
    assert_eq!(message, "config bad = \"256\": number too large to fit in target type");
}

#[test]
fn log_lines_and_metrics_can_be_looked_at() {
    fn stage(event: Event<'_>, _out: &mut Output) {
        crate::info!("event {}", event.index());
        crate::error!("bad");
        metrics::count("seen", 2);
        metrics::gauge("level", 0.5);
    }
    let mut harness = Harness::new(stage);
    harness.send("", "");
    harness.send("", "");
    let line = (Level::Info, "event 0".to_owned());
    assert_eq!(harness.log()[0], line);
    assert_eq!(harness.log()[3], (Level::Error, "bad".to_owned()));
    assert_eq!(harness.counts()["seen"], 4);
    assert_eq!(harness.gauges()["level"].to_bits(), 0.5_f64.to_bits());
}

#[test]
fn two_harnesses_know_nothing_of_each_other() {
    let (mut one, mut two) = (Harness::new(counting), Harness::new(counting));
    one.send("k", "");
    one.send("k", "");
    two.send("k", "");
    assert_eq!((one.counter("k", "n"), two.counter("k", "n")), (Some(2), Some(1)));
}

#[test]
fn a_panic_in_one_harness_leaves_nothing_to_the_next() {
    fn stage(event: Event<'_>, _out: &mut Output) {
        assert_eq!(event.state().add("n", 1), Ok(1));
        assert_ne!(event.payload(), b"panic");
    }
    let panicked = std::panic::catch_unwind(|| Harness::new(stage).send("k", "panic"));
    assert!(panicked.is_err());
    assert_eq!(Harness::new(stage).send("k", "").failures, []);
}

#[test]
fn what_the_stage_sees_is_what_was_given() {
    fn stage(event: Event<'_>, out: &mut Output) {
        let fields: Vec<(u16, &[u8])> = event.fields().collect();
        out.emit(&event, format!("{event:?} {fields:?}"));
    }
    let input = Input::data("k", "p").input(1).port(2).time(3).field(40_000, "f");
    let handled = Harness::new(stage).handle([input]);
    let expected = "Event { index: 0, kind: Data, input: 1, port: 2, time: 3, key: \"k\", \
                    payload: \"p\", .. } [(40000, [102])]";
    assert_eq!(texts(&handled), [expected]);
}
