//! Timers in the harness: what is due fires, once, in order, and with its call or not at all.

use super::super::{Emitted, Handled, Harness, Input};
use crate::event::{Event, Events};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::state::StateBatch;
use crate::stream::{EventStream, StreamOutput};
use crate::timers::{Clock, now, watermark};

/// A payload `name@at` sets an event timer, `name@@at` a wall timer, `-name` cancels one. A timer
/// that fires tells what it is.
fn told(event: Event<'_>, out: &mut Output) -> Result {
    if let Some(name) = event.timer() {
        out.emit(&event, format!("{} {name} {}", event.key(), event.time()));
        return Ok(());
    }
    let text = event.text()?;
    if let Some(name) = text.strip_prefix('-') {
        out.emit(&event, event.timers().cancel(name).to_string());
        return Ok(());
    }
    let (name, at) = text.split_once('@').ok_or_else(|| Failure::reject("no time"))?;
    match at.strip_prefix('@') {
        Some(at) => event.timers().set(name, Clock::Wall, at.parse()?)?,
        None => event.timers().set(name, Clock::Event, at.parse()?)?,
    }
    Ok(())
}

fn texts(handled: &Handled) -> Vec<&str> {
    handled.outputs.iter().map(Emitted::text).collect()
}

#[test]
fn timers_fire_once_in_order_of_their_times_when_their_clock_has_come() {
    let mut harness = Harness::new(told);
    let set = [("b", "x@30"), ("a", "y@20"), ("a", "x@20"), ("a", "w@@20"), ("b", "far@99")];
    let handled = harness.handle(set.map(|(key, payload)| Input::data(key, payload)));
    assert_eq!(handled.failures, []);
    assert_eq!(harness.timers("b"), [("far", Clock::Event, 99), ("x", Clock::Event, 30)]);
    assert_eq!(texts(&harness.advance_watermark(19)), [""; 0]);
    assert_eq!(texts(&harness.advance_watermark(30)), ["a x 20", "a y 20", "b x 30"]);
    assert_eq!(texts(&harness.advance_watermark(31)), [""; 0]);
    assert_eq!(texts(&harness.advance_clock(20)), ["a w 20"]);
    assert_eq!(harness.timers("b"), [("far", Clock::Event, 99)]);
}

#[test]
fn a_timer_is_replaced_and_cancelled_by_its_name_within_its_key() {
    let mut harness = Harness::new(told);
    harness.send("k", "t@10");
    harness.send("k", "t@20");
    harness.send("other", "t@10");
    assert_eq!(texts(&harness.advance_watermark(15)), ["other t 10"]);
    assert_eq!(texts(&harness.send("k", "-t")), ["true"]);
    assert_eq!(texts(&harness.send("k", "-t")), ["false"]);
    assert_eq!(texts(&harness.advance_watermark(99)), [""; 0]);
}

#[test]
fn what_a_failed_event_set_or_cancelled_does_not_stand() {
    fn stage(event: Event<'_>, _out: &mut Output) -> Result {
        match event.timer() {
            Some(_) => event.timers().set("again", Clock::Event, 1)?,
            None => event.timers().set("t", Clock::Event, 10)?,
        }
        let _was = event.timers().cancel("kept");
        Err(Failure::reject("no"))
    }
    let mut harness = Harness::new(stage);
    harness.memory.timers.pending.insert(("k".to_owned(), "kept".to_owned()), (Clock::Event, 5));
    assert_eq!(harness.send("k", "").failures.len(), 1);
    assert_eq!(harness.timers("k"), [("kept", Clock::Event, 5)]);
    let fired = harness.advance_watermark(9);
    assert_eq!((fired.failures.len(), fired.failures[0].event), (1, 0));
    assert_eq!(harness.timers("k"), [], "it is gone before its call");
}

#[test]
fn a_timer_may_be_set_again_while_it_fires() {
    fn every_ten(event: Event<'_>, out: &mut Output) -> Result {
        out.emit(&event, format!("{} {} {}", event.time(), watermark(), now()));
        event.timers().set("t", Clock::Event, event.time() + 10)?;
        Ok(())
    }
    let mut harness = Harness::new(every_ten);
    harness.advance_clock(7);
    harness.handle([Input::data("k", "").time(0)]);
    let fired = harness.advance_watermark(35);
    assert_eq!(texts(&fired), ["10 35 7", "20 35 7", "30 35 7"]);
    let causes: Vec<u32> = fired.outputs.iter().map(|output| output.cause).collect();
    assert_eq!(causes, [0, 1, 2]);
    assert_eq!(harness.timers("k"), [("t", Clock::Event, 40)]);
}

#[test]
#[should_panic(expected = "for a time that has come")]
fn a_timer_that_fires_for_ever_is_found() {
    fn stage(event: Event<'_>, _out: &mut Output) -> Result {
        Ok(event.timers().set("t", Clock::Wall, 0)?)
    }
    let mut harness = Harness::new(stage);
    harness.send("k", "");
    harness.advance_clock(1);
}

#[test]
fn a_batch_sets_and_cancels_timers_in_its_one_call() {
    fn stage(events: Events<'_>, out: &mut Output) {
        let mut batch = StateBatch::new();
        for event in events {
            batch.put(&event, "t", "a slot is no timer");
            batch.cancel_timer(&event, "t");
            batch.set_timer(&event, "t", Clock::Event, 10);
            batch.cancel_timer(&event, "t");
            batch.set_timer(&event, "t", Clock::Wall, 20);
            batch.set_timer(&event, "t", Clock::Event, 1 << 53);
        }
        let replies = batch.run();
        let done: Vec<Result<bool, String>> =
            replies.iter().map(|reply| reply.done().map_err(|r| r.to_string())).collect();
        assert_eq!(done[..5], [Ok(true), Ok(false), Ok(true), Ok(true), Ok(true)]);
        assert!(done[5].as_ref().is_err_and(|refused| refused.contains("2^53")), "{done:?}");
        events.iter().for_each(|event| out.emit(&event, ""));
    }
    let mut harness = Harness::new(stage);
    assert_eq!(harness.send("k", "").outputs.len(), 1);
    assert_eq!(harness.timers("k"), [("t", Clock::Wall, 20)]);
}

#[test]
fn a_name_or_time_out_of_range_is_refused() {
    fn stage(event: Event<'_>, _out: &mut Output) {
        let set = |name: &str, at| event.timers().set(name, Clock::Event, at);
        assert!(set(&"n".repeat(65), 1).is_err_and(|refused| refused.message().contains("64")));
        assert!(set("n", 1 << 53).is_err_and(|refused| refused.message().contains("2^53")));
        assert_eq!((set(&"n".repeat(64), 1), set("", (1 << 53) - 1)), (Ok(()), Ok(())));
    }
    Harness::new(stage).send("k", "");
}

#[test]
fn a_stream_is_given_its_timers_between_its_events() {
    async fn stream(mut events: EventStream, mut out: StreamOutput) -> Result {
        while let Some(event) = events.next().await {
            match event.timer() {
                Some(name) => {
                    let text = format!("{name} at {}", event.time());
                    out.emit(text);
                }
                None => event.timers().set("idle", Clock::Wall, event.time() + 5)?,
            }
        }
        Ok(())
    }
    let mut harness = Harness::stream(stream);
    harness.handle([Input::open("k"), Input::data("k", "").time(10)]);
    harness.handle([Input::data("k", "").time(20)]);
    assert_eq!(texts(&harness.advance_clock(24)), [""; 0]);
    assert_eq!(texts(&harness.advance_clock(25)), ["idle at 25"]);
}
