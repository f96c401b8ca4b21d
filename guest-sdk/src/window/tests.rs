//! Windows against models that keep every event, and what authors rely on.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::keyed::scenario::{self, Model, Sent, compare, courses};
use crate::testing::{Handled, Harness, Input};

mod parts;
mod sessions;

/// Windows whose results are told as a line: why, span, and sum and number of the values.
fn harness(window: Window) -> Harness {
    Harness::new(move |events: Events<'_>, out: &mut Output| {
        let pair = (sum(), count());
        let read = |event: &Event<'_>| Ok((event.text()?.parse::<i64>()?, ()));
        window.aggregate(pair, read).run_with(events, out, |result, draft| {
            let (start, end) = (result.start, result.end);
            draft.emit(line(result.firing, (start, end), result.replaces, result.value));
        });
    })
}

fn line(firing: Firing, span: (u64, u64), replaces: &[u64], value: (i128, u64)) -> String {
    format!("{firing:?} {span:?} {replaces:?} {value:?}")
}

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

fn texts(handled: &Handled) -> Vec<&str> {
    handled.outputs.iter().map(|output| output.text()).collect()
}

/// Tumbling and sliding windows, by looking at every event for every window.
struct Naive {
    size: u64,
    slide: u64,
    shift: u64,
    lateness: u64,
    early: u64,
    taken: Vec<Sent>,
    armed: [u64; 3],
    watermark: u64,
}

impl Naive {
    /// The ends of all windows with this time in them.
    fn ends(&self, time: u64) -> Vec<u64> {
        let ends = (0..=(time + self.shift) / self.slide).map(|n| n * self.slide + self.size);
        let ends = ends.filter(|end| *end > time + self.shift);
        ends.filter(|end| end - self.size <= time + self.shift)
            .map(|end| end - self.shift)
            .collect()
    }

    fn result(&self, key: &str, end: u64, firing: Firing) -> String {
        let shifted = |sent: &&Sent| {
            let time = sent.time + self.shift;
            time < end + self.shift && time + self.size >= end + self.shift
        };
        let of: Vec<&Sent> =
            self.taken.iter().filter(|sent| sent.key == key).filter(shifted).collect();
        let value = (of.iter().map(|sent| i128::from(sent.value)).sum(), of.len() as u64);
        let start = (end + self.shift - self.size).saturating_sub(self.shift);
        format!("0 {key} {}", line(firing, (start, end), &[], value))
    }

    /// The windows of a key that end in a range, and have events.
    fn windows(&self, key: &str, range: impl Fn(u64) -> bool) -> Vec<u64> {
        let of = self.taken.iter().filter(|sent| sent.key == key);
        let mut ends: Vec<u64> = of.flat_map(|sent| self.ends(sent.time)).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| range(*end));
        ends
    }
}

impl Model for Naive {
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>) {
        let ends = self.ends(sent.time);
        let counts = |end: &u64| end + self.lateness > watermark;
        if !ends.iter().any(counts) {
            out.push(format!("7 {} {}", sent.key, sent.value));
            return;
        }
        self.taken.push(sent);
        for end in ends.iter().copied().filter(counts).filter(|end| *end <= watermark) {
            out.push(self.result(sent.key, end, Firing::Late));
        }
        let place = scenario::KEYS.iter().position(|key| *key == sent.key).unwrap();
        if self.early > 0 && ends.iter().any(|end| *end > watermark) && self.armed[place] == 0 {
            self.armed[place] = (watermark / self.early + 1) * self.early;
        }
    }

    fn watermark(&mut self, watermark: u64, out: &mut Vec<String>) {
        let before = std::mem::replace(&mut self.watermark, watermark);
        for (place, key) in scenario::KEYS.iter().enumerate() {
            for end in self.windows(key, |end| before < end && end <= watermark) {
                out.push(self.result(key, end, Firing::OnTime));
            }
            if self.armed[place] != 0 && self.armed[place] <= watermark {
                self.armed[place] = 0;
                let begun = |end: u64| (end + self.shift - self.size) < watermark + self.shift;
                for end in self.windows(key, |end| end > watermark && begun(end)) {
                    out.push(self.result(key, end, Firing::Early));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn tumbling_and_sliding_windows_are_what_the_model_says(
        course in courses(200),
        size in 1..60_u64,
        slide in 1..60_u64,
        shift in prop_oneof![Just(0_u64), 1..100_u64],
        lateness in prop_oneof![Just(0), 1..150_u64],
        early in prop_oneof![Just(0), 1..40_u64],
    ) {
        let slide = slide.min(size);
        let mut window = Window::sliding(micros(size), micros(slide))
            .shifted(micros(shift))
            .allowed_lateness(micros(lateness))
            .late_port(7);
        if early > 0 {
            window = window.early_every(micros(early));
        }
        let mut model = Naive {
            size,
            slide,
            // A shift forward is one back from the next multiple of the slide.
            shift: (slide - shift % slide) % slide,
            lateness,
            early,
            taken: Vec::new(),
            armed: [0; 3],
            watermark: 0,
        };
        compare(&course, harness(window), &mut model);
    }

    #[test]
    fn windows_of_a_count_give_a_result_when_they_are_full(
        course in courses(200),
        most in 1..6_u64,
    ) {
        struct Counting(u64, [Vec<Sent>; 3]);
        impl Model for Counting {
            fn event(&mut self, sent: Sent, _: u64, out: &mut Vec<String>) {
                let place = scenario::KEYS.iter().position(|key| *key == sent.key).unwrap();
                let of = &mut self.1[place];
                of.push(sent);
                if of.len() as u64 == self.0 {
                    let value = of.iter().map(|sent| i128::from(sent.value)).sum();
                    let first = of.iter().map(|sent| sent.time).min().unwrap();
                    let end = of.iter().map(|sent| sent.time).max().unwrap() + 1;
                    let said = line(Firing::OnTime, (first, end), &[], (value, self.0));
                    out.push(format!("0 {} {said}", sent.key));
                    of.clear();
                }
            }

            fn watermark(&mut self, watermark: u64, out: &mut Vec<String>) {
                if watermark < scenario::END {
                    return;
                }
                // What is left in the end, the harness is made to give.
                for (key, of) in scenario::KEYS.iter().zip(&mut self.1) {
                    let times = || of.iter().map(|sent| sent.time);
                    if let (Some(first), Some(last)) = (times().min(), times().max()) {
                        let value = of.iter().map(|sent| i128::from(sent.value)).sum();
                        let span = (first, last + 1);
                        let said = line(Firing::OnTime, span, &[], (value, of.len() as u64));
                        out.push(format!("0 {key} {said}"));
                    }
                    of.clear();
                }
            }
        }
        // It ends after a time that no course reaches before its end.
        let window = Window::count(most).or_after(micros(scenario::END / 2));
        compare(&course, harness(window), &mut Counting(most, Default::default()));
    }
}

#[test]
fn a_result_is_json_with_the_last_time_of_its_window() {
    const WINDOW: Window = Window::tumbling(Duration::from_secs(10));
    let mut harness = Harness::new(|events: Events<'_>, out: &mut Output| {
        WINDOW.aggregate(sum(), |event| Ok(event.text()?.parse::<i64>()?)).run(events, out);
    });
    let at = [12_000_000, 19_999_999, 20_000_000];
    harness.handle(at.map(|time| Input::data("shop", "5").time(time)));
    let handled = harness.advance_watermark(20_000_000);
    assert_eq!(texts(&handled), [r#"{"key":"shop","start":10000000,"end":20000000,"value":10}"#]);
    assert_eq!(handled.outputs[0].time, 19_999_999);
    assert_eq!(handled.outputs[0].key, "shop");
}

#[test]
fn a_late_result_says_so() {
    let window = Window::tumbling(micros(10)).allowed_lateness(micros(5));
    let mut harness = Harness::new(move |events: Events<'_>, out: &mut Output| {
        window.aggregate(count(), |_| Ok(())).run(events, out);
    });
    harness.advance_watermark(12);
    let handled = harness.handle([Input::data("k", "").time(9)]);
    assert_eq!(texts(&handled), [r#"{"key":"k","start":0,"end":10,"firing":"late","value":1}"#]);
}

#[test]
fn a_late_event_without_a_port_fails_and_says_how_late_it_is() {
    let mut harness = harness(Window::tumbling(micros(10)));
    harness.advance_watermark(40);
    let handled = harness.handle([29, 40].map(|time| Input::data("k", "1").time(time)));
    assert_eq!(handled.failures.len(), 1);
    let message = handled.failures[0].failure.message();
    assert!(message.contains("at 29 with the watermark at 40"), "{message}");
    assert!(harness.log().is_empty());
}

#[test]
fn what_is_dropped_for_being_late_is_counted() {
    let mut harness = harness(Window::tumbling(micros(10)).drop_late());
    harness.advance_watermark(40);
    let handled = harness.handle([Input::data("k", "1").time(29)]);
    assert_eq!(handled, Handled::default());
    assert_eq!(harness.counts()["late_events_dropped"], 1);
}

#[test]
fn a_late_event_leaves_as_it_came() {
    let mut harness = harness(Window::tumbling(micros(10)).late_port(3));
    harness.advance_watermark(40);
    let handled = harness.handle([Input::data("k", "1").time(7).field(258, "text/plain")]);
    let late = &handled.outputs[0];
    assert_eq!((late.port, late.time, late.text()), (3, 7, "1"));
    assert_eq!(late.fields, [(258, b"text/plain".to_vec())]);
}

#[test]
fn an_event_that_cannot_be_read_fails_alone() {
    let mut harness = harness(Window::tumbling(micros(10)));
    let handled = harness.handle(["1", "x", "2"].map(|text| Input::data("k", text)));
    assert_eq!(handled.failures.len(), 1);
    assert_eq!(handled.failures[0].event, 1);
    assert_eq!(texts(&harness.advance_watermark(10)), ["OnTime (0, 10) [] (3, 2)"]);
}

#[test]
fn two_windows_and_slots_of_the_stage_live_side_by_side() {
    const SHORT: Window = Window::tumbling(Duration::from_micros(10)).named("short");
    const LONG: Window = Window::tumbling(Duration::from_micros(20)).named("shorter");
    let mut harness = Harness::new(|events: Events<'_>, out: &mut Output| {
        SHORT.aggregate(count(), |_| Ok(())).run(events, out);
        LONG.aggregate(count(), |_| Ok(())).run(events, out);
        for event in events.iter().filter(|event| event.timer().is_none()) {
            event.state().add("window", 1).unwrap();
        }
    });
    harness.handle([3, 13].map(|time| Input::data("k", "").time(time)));
    assert_eq!(harness.timers("k").len(), 2);
    let handled = harness.advance_watermark(20);
    let ends: Vec<u64> = handled
        .outputs
        .iter()
        .map(|output| output.json::<serde_json::Value>())
        .map(|result| result["end"].as_u64().unwrap())
        .collect();
    assert_eq!(ends, [10, 20, 20]);
    let slots: Vec<&str> = harness.slots("k").map(|(slot, _)| slot).collect();
    assert_eq!(slots, ["window"]);
    assert_eq!(harness.counter("k", "window"), Some(2));
}

#[test]
fn a_key_has_one_timer_however_many_windows_it_is_in() {
    let mut harness = harness(Window::sliding(micros(100), micros(10)));
    harness.handle([5, 95, 55].map(|time| Input::data("k", "1").time(time)));
    assert_eq!(harness.timers("k").len(), 1);
    // Ten windows that began before time did are not there; the first ends at 100.
    assert_eq!(harness.timers("k")[0].2, 100);
}

#[test]
fn an_event_of_a_sliding_window_touches_one_pane() {
    let mut harness = harness(Window::sliding(micros(1_000), micros(10)));
    harness.handle([Input::data("k", "1").time(5_005)]);
    let slots: Vec<&str> = harness.slots("k").map(|(slot, _)| slot).collect();
    assert_eq!(slots, ["@window", "@window/1f4"]);
}

#[test]
fn a_watermark_that_jumps_gives_every_window_its_result() {
    let mut harness = harness(Window::sliding(micros(1_000), micros(1)));
    harness.handle([Input::data("k", "1").time(5_000)]);
    let handled = harness.advance_watermark(1 << 40);
    assert_eq!(handled.outputs.len(), 1_000);
    assert_eq!(harness.slots("k").count(), 0);
}

#[test]
fn one_pane_too_many_fails_and_says_what_to_raise() {
    for window in [Window::tumbling(micros(10)), Window::session(micros(10))] {
        let mut harness = harness(window.panes_max(2));
        let handled = harness.handle([0, 100, 200].map(|time| Input::data("k", "1").time(time)));
        assert_eq!(handled.failures.len(), 1);
        assert_eq!(handled.failures[0].event, 2);
        assert!(handled.failures[0].failure.message().contains("panes_max"));
    }
}

#[test]
fn a_value_the_host_refuses_fails_the_events_of_its_key_only() {
    let window = Window::tumbling(micros(10));
    let mut harness = Harness::new(move |events: Events<'_>, out: &mut Output| {
        let read = |event: &Event<'_>| Ok(event.text()?.to_owned());
        window.aggregate(distinct(10), read).run(events, out);
    })
    .with_value_bytes_max(20);
    let long = "much longer than twenty bytes";
    let handled = harness.handle([Input::data("a", long), Input::data("b", "short")]);
    assert_eq!(handled.failures.len(), 1);
    assert_eq!(handled.failures[0].event, 0);
    assert_eq!(harness.advance_watermark(10).outputs[0].key, "b");
}

#[test]
fn the_end_of_time_is_refused() {
    let last = (1 << 53) - 1;
    for window in [Window::tumbling(micros(10)), Window::session(micros(10))] {
        let handled = harness(window).handle([Input::data("k", "1").time(last)]);
        assert!(handled.failures[0].failure.message().contains("2^53"));
    }
}

#[test]
fn another_size_over_the_same_state_is_refused_not_misread() {
    let mut first = harness(Window::tumbling(micros(10)));
    first.handle([Input::data("k", "1").time(5)]);
    let index = first.state("k", "@window").unwrap().to_vec();
    let mut second = harness(Window::tumbling(micros(20))).with_state("k", "@window", index);
    let handled = second.handle([Input::data("k", "1").time(6)]);
    assert!(handled.failures[0].failure.message().contains("another size"));
}

#[test]
fn state_that_is_not_a_window_s_is_refused() {
    let mut harness = harness(Window::session(micros(10))).with_state("k", "@window", "what?");
    let handled = harness.handle([Input::data("k", "1"), Input::data("l", "1")]);
    assert_eq!(handled.failures.len(), 1);
    assert!(handled.failures[0].failure.message().contains("@window"));
}

#[test]
fn a_window_that_was_not_delivered_yet_takes_a_late_event_in() {
    // The host may give a key an event between the watermark and the timer.
    let mut harness = harness(Window::tumbling(micros(10)).allowed_lateness(micros(100)));
    harness.handle([Input::data("k", "1").time(5)]);
    let state: Vec<(String, Vec<u8>)> =
        harness.slots("k").map(|(slot, value)| (slot.to_owned(), value.to_vec())).collect();
    let mut later = self::harness(Window::tumbling(micros(10)).allowed_lateness(micros(100)));
    later.advance_watermark(50);
    for (slot, value) in state {
        later = later.with_state("k", &slot, value);
    }
    let handled =
        later.handle([Input::data("k", "2").time(6), Input::timer("k", "@window").time(10)]);
    assert_eq!(texts(&handled), ["OnTime (0, 10) [] (3, 2)"]);
}

#[test]
fn by_the_clock_an_event_counts_when_it_comes() {
    let mut harness = harness(Window::tumbling(micros(10)).by_clock());
    harness.advance_clock(103);
    harness.handle([Input::data("k", "1").time(9_999)]);
    harness.advance_clock(109);
    harness.handle([Input::data("k", "2").time(0)]);
    assert_eq!(texts(&harness.advance_clock(110)), ["OnTime (100, 110) [] (3, 2)"]);
    assert_eq!(harness.slots("k").count(), 0);
}

#[test]
fn a_window_of_a_count_is_given_after_its_time() {
    let mut harness = harness(Window::count(100).or_after(micros(50)));
    harness.handle([20, 10].map(|time| Input::data("k", "1").time(time)));
    assert_eq!(texts(&harness.advance_watermark(69)), [""; 0]);
    assert_eq!(texts(&harness.advance_watermark(70)), ["OnTime (10, 21) [] (2, 2)"]);
    assert_eq!(harness.slots("k").count(), 0);
}

#[test]
fn events_that_are_not_asked_for_are_left_alone() {
    let window = Window::tumbling(micros(10)).only(|event| event.input() == 1);
    let mut harness = harness(window);
    let handled = harness.handle([
        Input::data("k", "not a number"),
        Input::data("k", "1").input(1),
        Input::timer("k", "of the stage"),
        Input::open("k"),
    ]);
    assert_eq!(handled, Handled::default());
    assert_eq!(texts(&harness.advance_watermark(10)), ["OnTime (0, 10) [] (1, 1)"]);
}

#[test]
fn a_call_costs_two_calls_of_the_host_however_many_events_and_keys_it_has() {
    let windows = [
        Window::tumbling(micros(100)),
        Window::sliding(micros(100), micros(5)),
        Window::session(micros(100)),
        Window::count(1_000),
    ];
    for window in windows {
        let mut harness = harness(window);
        let event = |n: u64| Input::data(format!("key {}", n % 50), "1").time(n);
        harness.handle((0..256).map(event));
        assert_eq!(harness.batches(), 2, "{window:?}");
        // One reads the indices, one the panes, one writes.
        harness.advance_watermark(100);
        assert!(harness.batches() <= 5, "{window:?}");
    }
}
