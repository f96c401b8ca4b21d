//! De-duplication against a model that remembers everything.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::keyed::scenario::{Model, Sent, compare, courses};
use crate::testing::{Harness, Input};

fn harness(dedup: Dedup) -> Harness {
    Harness::new(move |events: Events<'_>, out: &mut Output| {
        dedup.by(|event| Ok(event.payload().to_vec())).run(events, out);
    })
}

struct Naive {
    dedup: Dedup,
    passed: Vec<Sent>,
}

impl Model for Naive {
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>) {
        let same = |one: &&Sent| one.key == sent.key && one.value == sent.value;
        let near = |one: &Sent| one.time.abs_diff(sent.time) < self.dedup.within;
        let port = if sent.time + self.dedup.terms.lateness < watermark {
            7
        } else if self.passed.iter().filter(same).any(near) {
            8
        } else {
            self.passed.push(sent);
            0
        };
        out.push(format!("{port} {} {}", sent.key, sent.value));
    }

    fn watermark(&mut self, _: u64, _: &mut Vec<String>) {}
}

proptest! {
    #[test]
    fn the_first_passes_and_the_same_within_the_time_does_not(
        course in courses(200),
        within in 1..150_u64,
        lateness in 0..100_u64,
    ) {
        let dedup = Dedup::within(Duration::from_micros(within))
            .allowed_lateness(Duration::from_micros(lateness))
            .late_port(7)
            .duplicate_port(8);
        compare(&course, harness(dedup), &mut Naive { dedup, passed: Vec::new() });
    }
}

#[test]
fn ids_that_share_a_slot_are_told_apart() {
    // The slot of "x" says that "y" passed, as it would if their hashes were the same.
    let mut bytes = Vec::new();
    Seen(vec![(b"y".to_vec(), 100)]).write(&mut bytes);
    let slot = format!("@dedup/2/{:x}", hash(b"x"));
    let mut harness =
        harness(Dedup::within(Duration::from_micros(50))).with_state("k", &slot, bytes);
    let handled = harness.handle([Input::data("k", "x").time(101), Input::data("k", "x").time(99)]);
    assert_eq!(handled.outputs.len(), 1);
    assert_eq!(handled.outputs[0].time, 101);
    harness.advance_watermark(1_000);
    assert_eq!(harness.slots("k").count(), 0);
}

#[test]
fn the_key_alone_can_be_the_id() {
    let by_key = |events: Events<'_>, out: &mut Output| {
        Dedup::within(Duration::from_secs(1)).by_key().run(events, out);
    };
    let mut harness = Harness::new(by_key);
    let handled = harness.handle(["a", "a", "b"].map(|key| Input::data(key, key)));
    let passed: Vec<&str> = handled.outputs.iter().map(|output| output.text()).collect();
    assert_eq!(passed, ["a", "b"]);
}

#[test]
fn a_key_has_one_timer_however_many_ids_it_has_and_they_go_in_parts() {
    let count = 2 * SWEPT_MAX + 7;
    let mut harness = harness(Dedup::within(Duration::from_micros(50)));
    harness.handle((0..count).map(|n| Input::data("k", n.to_string()).time(10)));
    assert_eq!(harness.slots("k").count(), count as usize + 1);
    assert_eq!(harness.timers("k").len(), 1);
    harness.advance_watermark(1_000);
    assert_eq!(harness.slots("k").count(), 0);
    assert_eq!(harness.timers("k").len(), 0);
}
