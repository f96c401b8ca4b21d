//! A join against a model that remembers everything.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::keyed::scenario::{Model, Sent, compare, courses};
use crate::testing::{Harness, Input};

fn number(event: &Event<'_>) -> Result<i64> {
    Ok(event.text()?.parse()?)
}

/// Says what a pair is, or what is alone.
fn line(left: Option<&Item<i64>>, right: Option<&Item<i64>>) -> String {
    let one = |item: Option<&Item<i64>>| item.map(|item| format!("{}@{}", item.value, item.time));
    format!("{:?} {:?}", one(left), one(right))
}

fn harness(join: Join, outer: bool) -> Harness {
    Harness::new(move |events: Events<'_>, out: &mut Output| {
        let joining = join.of(number, number);
        if outer {
            joining.run_outer(events, out, |left, right, draft| draft.emit(line(left, right)));
        } else {
            joining.run(events, out, |left, right, draft| {
                draft.emit(line(Some(left), Some(right)));
            });
        }
    })
}

/// Remembers every event that was not late.
struct Naive {
    join: Join,
    outer: bool,
    /// Side by side with whether it has a partner.
    taken: Vec<(Sent, bool)>,
}

impl Naive {
    fn close(&self, a: Sent, b: Sent) -> bool {
        let (left, right) = if a.input == 0 { (a, b) } else { (b, a) };
        let apart = right.time as i64 - left.time as i64;
        a.key == b.key && a.input != b.input && (self.join.lower..=self.join.upper).contains(&apart)
    }
}

fn item(sent: Sent) -> Item<i64> {
    Item { time: sent.time, value: sent.value }
}

impl Model for Naive {
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>) {
        if sent.time + self.join.terms.lateness < watermark {
            out.push(format!("7 {} {}", sent.key, sent.value));
            return;
        }
        let partners: Vec<usize> =
            (0..self.taken.len()).filter(|place| self.close(self.taken[*place].0, sent)).collect();
        for place in &partners {
            let other = item(self.taken[*place].0);
            self.taken[*place].1 = true;
            let (left, right) =
                if sent.input == 0 { (item(sent), other) } else { (other, item(sent)) };
            out.push(format!("0 {} {}", sent.key, line(Some(&left), Some(&right))));
        }
        self.taken.push((sent, !partners.is_empty()));
        // One that comes when its time is over already is alone at once.
        self.alone(watermark, out);
    }

    fn watermark(&mut self, watermark: u64, out: &mut Vec<String>) {
        self.alone(watermark, out);
    }
}

impl Naive {
    fn alone(&mut self, watermark: u64, out: &mut Vec<String>) {
        let join = self.join;
        let over = |sent: &Sent| {
            let side = if sent.input == 0 { Side::Left } else { Side::Right };
            join.over(side.id(sent.time / join.bucket())) <= watermark
        };
        for (sent, _) in self.taken.extract_if(.., |(sent, paired)| over(sent) && !*paired) {
            let one = item(sent);
            let (left, right) =
                if sent.input == 0 { (Some(&one), None) } else { (None, Some(&one)) };
            if self.outer {
                out.push(format!("0 {} {}", sent.key, line(left, right)));
            }
        }
    }
}

/// A join with buckets as short as the courses are.
fn small(lower: i64, upper: i64, lateness: u64) -> Join {
    Join::between(lower, upper).allowed_lateness(Duration::from_micros(lateness)).late_port(7)
}

proptest! {
    #[test]
    fn every_pair_that_is_close_leaves_once_and_what_is_alone_is_told(
        course in courses(200),
        bounds in (-60..60_i64, 0..2_200_i64),
        lateness in 0..100_u64,
        outer in any::<bool>(),
    ) {
        let join = small(bounds.0, bounds.0 + bounds.1, lateness);
        compare(&course, harness(join, outer), &mut Naive { join, outer, taken: Vec::new() });
    }
}

#[test]
fn a_pair_has_the_time_of_the_later_event_and_the_key_of_both() {
    let mut harness = harness(Join::within(Duration::ZERO, Duration::from_secs(1)), false);
    harness.handle([Input::data("k", "1").time(5_000_000)]);
    let handled = harness.handle([Input::data("k", "2").time(6_000_000).input(1)]);
    assert_eq!(handled.outputs[0].time, 6_000_000);
    assert_eq!(handled.outputs[0].key, "k");
    let late = harness.handle([Input::data("k", "2").time(6_000_001).input(1)]);
    assert_eq!(late.outputs, [], "beyond the interval");
}

#[test]
fn an_event_too_many_fails_and_says_what_to_raise() {
    let mut harness = harness(Join::between(0, 10).events_max(2), false);
    let handled = harness.handle((0..3).map(|n| Input::data("k", "1").time(n)));
    assert_eq!(handled.failures.len(), 1);
    assert_eq!(handled.failures[0].event, 2);
    assert!(handled.failures[0].failure.message().contains("events_max"));
}

#[test]
fn a_third_input_fails() {
    let mut harness = harness(Join::between(0, 10), false);
    let handled = harness.handle([Input::data("k", "1").input(2)]);
    assert!(handled.failures[0].failure.message().contains("inputs 0 and 1"));
}

#[test]
fn another_interval_over_the_same_state_is_refused_not_misread() {
    let mut first = harness(Join::between(0, 10_000), false);
    first.handle([Input::data("k", "1").time(5)]);
    let slots: Vec<(String, Vec<u8>)> =
        first.slots("k").map(|(slot, value)| (slot.to_owned(), value.to_vec())).collect();
    let mut second = harness(Join::between(0, 90_000), false);
    for (slot, value) in slots {
        second = second.with_state("k", &slot, value);
    }
    let handled = second.handle([Input::data("k", "1").time(6)]);
    assert!(handled.failures[0].failure.message().contains("another interval"));
}
