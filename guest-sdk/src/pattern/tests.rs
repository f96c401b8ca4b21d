//! Patterns against a model that follows each first event through all events of its key, in order.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::keyed::scenario::{KEYS, Model, Sent, compare, courses};
use crate::testing::{Handled, Harness, Input};

/// A pattern of the values 0 to 5, as data: so that a model can read it as well.
#[derive(Clone, Debug)]
struct Shape {
    steps: Vec<Part>,
    behind: Option<i64>,
    within: u64,
    skip: Skip,
}

/// A step: an event with a value up to `most`.
#[derive(Clone, Copy, Debug)]
struct Part {
    most: i64,
    times: usize,
    at_once: bool,
    without: Option<i64>,
}

const NAMES: [&str; 3] = ["one", "two", "three"];

fn shapes() -> impl Strategy<Value = Shape> {
    let without = || prop::option::weighted(0.3, 0..6_i64);
    let part = (0..5_i64, 1..3_usize, prop::bool::weighted(0.2), without())
        .prop_map(|(most, times, at_once, without)| Part { most, times, at_once, without });
    let skip = prop_oneof![Just(Skip::PastLast), Just(Skip::ToNext)];
    (prop::collection::vec(part, 1..4), without(), 0..200_u64, skip)
        .prop_map(|(steps, behind, within, skip)| Shape { steps, behind, within, skip })
}

impl Shape {
    fn pattern(&self) -> Pattern<i64> {
        let mut pattern = Pattern::within(Duration::from_micros(self.within))
            .skip(self.skip)
            .partials_max(10_000, Full::DropNewest)
            .late_port(7);
        for (place, part) in self.steps.iter().enumerate() {
            let Part { most, times, at_once, without } = *part;
            if let Some(value) = without.filter(|_| place > 0) {
                pattern = pattern.without(move |found, _| *found == value);
            }
            let test = move |found: &i64, _: &Seen<'_, i64>| *found <= most;
            pattern = match (place, at_once) {
                (0, _) => pattern.begin(NAMES[0], test),
                (_, false) => pattern.then(NAMES[place], test),
                (_, true) => pattern.next(NAMES[place], test),
            };
            pattern = pattern.times(times);
        }
        if let Some(value) = self.behind {
            pattern = pattern.without(move |found, _| *found == value);
        }
        pattern
    }

    /// Position by position: the step, and whether it is the first of its step.
    fn positions(&self) -> Vec<(usize, Part, bool)> {
        let times = |(place, part): (usize, &Part)| {
            (0..part.times).map(move |n| (place, *part, n == 0)).collect::<Vec<_>>()
        };
        self.steps.iter().enumerate().flat_map(times).collect()
    }
}

fn harness(shape: Shape, arrival: bool) -> Harness {
    Harness::new(move |events: Events<'_>, out: &mut Output| {
        let mut pattern = shape.pattern();
        if arrival {
            pattern = pattern.in_arrival_order();
        }
        let read = |event: &Event<'_>| Ok(event.text()?.parse()?);
        pattern.run_with_timeouts(events, out, read, |found, draft| {
            let of = |name: &&str| found.all(name).copied().collect::<Vec<i64>>();
            let values: Vec<Vec<i64>> = NAMES.iter().map(of).collect();
            draft.emit(line(found.timed_out, found.start(), &values));
        });
    })
}

fn line(timed_out: bool, start: u64, values: &[Vec<i64>]) -> String {
    format!("{timed_out} {start} {values:?}")
}

/// What comes of one first event.
struct Fate {
    first: usize,
    last: usize,
    /// When it is known: time, behind the events of that time or among them, and which.
    known: (u64, bool, usize),
    timed_out: bool,
    line: String,
}

/// Keeps every event and follows each anew.
struct Naive {
    shape: Shape,
    arrival: bool,
    taken: Vec<Sent>,
    told: Vec<String>,
}

impl Naive {
    fn follow(&self, events: &[Sent], first: usize, now: u64) -> Option<Fate> {
        let positions = self.shape.positions();
        let start = events[first].time;
        let over = start + self.shape.within;
        let mut values = vec![Vec::new(); NAMES.len()];
        if events[first].value > positions[0].1.most {
            return None;
        }
        values[0].push(events[first].value);
        let mut position = 1;
        let mut last = first;
        let fate = |known, timed_out, last, values: &[Vec<i64>]| {
            let line = format!("0 {} {}", events[first].key, line(timed_out, start, values));
            Some(Fate { first, last, known, timed_out, line })
        };
        for (place, sent) in events.iter().enumerate().skip(first) {
            if place > first && sent.time > over {
                break;
            }
            if place > first {
                let Some((step, part, fresh)) = positions.get(position) else {
                    if Some(sent.value) == self.shape.behind {
                        return None;
                    }
                    continue;
                };
                if part.without.filter(|_| *step > 0) == Some(sent.value) {
                    return None;
                }
                if sent.value <= part.most {
                    values[*step].push(sent.value);
                    position += 1;
                    last = place;
                } else if part.at_once && *fresh && *step > 0 {
                    return None;
                }
            }
            if position == positions.len() && self.shape.behind.is_none() {
                return fate((sent.time, false, place), false, last, &values);
            }
        }
        // Its time is over, or it still waits.
        let complete = position == positions.len();
        (over < now).then(|| fate((over, true, first), !complete, last, &values))?
    }

    /// Everything that is to be said when all events before `now` are looked at.
    fn all(&self, now: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for key in KEYS {
            let of = self.taken.iter().filter(|sent| sent.key == key && sent.time < now);
            let mut events: Vec<Sent> = of.copied().collect();
            if !self.arrival {
                events.sort_by_key(|sent| sent.time);
            }
            let follow = |first| self.follow(&events, first, now);
            let mut fates: Vec<Fate> = (0..events.len()).filter_map(follow).collect();
            fates.sort_by_key(|fate| (fate.known, fate.first));
            let mut past = None;
            for fate in fates {
                if past.is_some_and(|past| fate.first <= past) {
                    continue;
                }
                if !fate.timed_out && self.shape.skip == Skip::PastLast {
                    past = Some(fate.last);
                }
                lines.push(fate.line);
            }
        }
        lines
    }
}

impl Model for Naive {
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>) {
        if sent.time < watermark {
            out.push(format!("7 {} {}", sent.key, sent.value));
        } else {
            self.taken.push(sent);
        }
    }

    fn watermark(&mut self, watermark: u64, out: &mut Vec<String>) {
        let mut all = self.all(watermark);
        for told in &self.told {
            let place = all.iter().position(|line| line == told);
            all.remove(place.unwrap_or_else(|| panic!("{told} was said too early")));
        }
        out.extend(all.iter().cloned());
        self.told.append(&mut all);
    }
}

proptest! {
    #[test]
    fn matches_and_timeouts_are_what_the_model_says(
        course in courses(120),
        shape in shapes(),
    ) {
        let mut model =
            Naive { shape: shape.clone(), arrival: false, taken: Vec::new(), told: Vec::new() };
        compare(&course, harness(shape, false), &mut model);
    }

    #[test]
    fn without_disorder_arrival_order_says_the_same(
        values in prop::collection::vec((0..3_usize, 0..6_i64, 1..60_u64), 1..60),
        shape in shapes(),
        size in 1..20_usize,
    ) {
        let mut now = 1_000;
        let events: Vec<Sent> = values
            .iter()
            .map(|(key, value, by)| {
                now += by;
                Sent { key: KEYS[*key], time: now, value: *value, input: 0 }
            })
            .collect();
        let mut harness = harness(shape.clone(), true);
        let mut found = Vec::new();
        let mut take = |handled: Handled| {
            found.extend(handled.outputs.iter().map(|one| format!("0 {} {}", one.key, one.text())));
        };
        for batch in events.chunks(size) {
            let input = |sent: &Sent| Input::data(sent.key, sent.value.to_string()).time(sent.time);
            take(harness.handle(batch.iter().map(input)));
        }
        take(harness.advance_watermark(1 << 40));
        for key in KEYS {
            prop_assert_eq!(harness.slots(key).count(), 0);
            prop_assert_eq!(harness.timers(key), []);
        }
        let model = Naive { shape, arrival: true, taken: events, told: Vec::new() };
        let mut expected = model.all(1 << 40);
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}

/// A harness of a pattern over letters, in arrival order; a match leaves as its letters.
fn letters(make: fn() -> Pattern<String>) -> Harness {
    Harness::new(move |events: Events<'_>, out: &mut Output| {
        let read = |event: &Event<'_>| Ok(event.text()?.to_owned());
        make().in_arrival_order().run(events, out, read, |found, draft| {
            let taken: Vec<&str> = found.seen.taken.iter().map(|one| one.value.as_str()).collect();
            draft.emit(taken.join(""));
        });
    })
}

fn is(letter: &'static str) -> impl Fn(&String, &Seen<'_, String>) -> bool {
    move |found, _| found == letter
}

fn texts(handled: &Handled) -> Vec<&str> {
    handled.outputs.iter().map(|output| output.text()).collect()
}

fn say(harness: &mut Harness, text: &str) -> Handled {
    let letters = text.split("").filter(|letter| !letter.is_empty());
    harness.handle(letters.zip(0..).map(|(letter, time)| Input::data("k", letter).time(time)))
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_step_can_look_at_what_was_seen_before_it() {
    let mut harness = letters(|| {
        Pattern::within(HOUR)
            .begin("any", |_, _| true)
            .then("same", |found, seen: &Seen<'_, String>| found == seen.last("any"))
    });
    assert_eq!(texts(&say(&mut harness, "abcb")), ["bb"]);
}

#[test]
fn past_the_last_no_event_is_in_two_matches_and_to_the_next_it_may_be() {
    let past = || Pattern::within(HOUR).begin("a", is("a")).then("b", is("b"));
    assert_eq!(texts(&say(&mut letters(past), "aabab")), ["ab", "ab"]);
    let next = || {
        let pattern = Pattern::within(HOUR).begin("a", is("a")).then("b", is("b"));
        pattern.skip(Skip::ToNext)
    };
    assert_eq!(texts(&say(&mut letters(next), "aabab")), ["ab", "ab", "ab"]);
}

#[test]
fn next_is_at_once_and_then_is_not() {
    let pattern = || Pattern::within(HOUR).begin("a", is("a")).next("b", is("b"));
    assert_eq!(texts(&say(&mut letters(pattern), "axb")), [""; 0]);
    assert_eq!(texts(&say(&mut letters(pattern), "ab")), ["ab"]);
    let pattern = || Pattern::within(HOUR).begin("a", is("a")).then("b", is("b"));
    assert_eq!(texts(&say(&mut letters(pattern), "axb")), ["ab"]);
}

#[test]
fn what_does_not_follow_is_known_when_the_time_is_over() {
    let pattern = || {
        let order = Pattern::within(Duration::from_micros(10)).begin("order", is("o"));
        order.without(is("p"))
    };
    let mut harness = letters(pattern);
    harness.handle([Input::data("k", "o").time(100), Input::data("k", "x").time(105)]);
    assert_eq!(texts(&harness.advance_watermark(110)), [""; 0]);
    let handled = harness.advance_watermark(111);
    assert_eq!(texts(&handled), ["o"]);
    assert_eq!(handled.outputs[0].time, 110);
    harness.handle([Input::data("k", "o").time(200), Input::data("k", "p").time(210)]);
    assert_eq!(texts(&harness.advance_watermark(1_000)), [""; 0]);
}

#[test]
fn when_partial_matches_are_too_many_the_policy_says_which_goes() {
    let make = |full| {
        let first = |found: &String, _: &Seen<'_, String>| found != "z";
        let pattern = Pattern::within(HOUR).begin("any", first).then("z", is("z"));
        pattern.skip(Skip::ToNext).partials_max(2, full)
    };
    let mut oldest = Harness::new(move |events: Events<'_>, out: &mut Output| {
        let read = |event: &Event<'_>| Ok(event.text()?.to_owned());
        let pattern = make(Full::DropOldest).in_arrival_order();
        pattern.run(events, out, read, |found, draft| draft.emit(found.last("any")));
    });
    assert_eq!(texts(&say(&mut oldest, "abcz")), ["b", "c"]);
    assert_eq!(oldest.counts()["pattern_partials_dropped"], 1);
    let mut newest = Harness::new(move |events: Events<'_>, out: &mut Output| {
        let read = |event: &Event<'_>| Ok(event.text()?.to_owned());
        let pattern = make(Full::DropNewest).in_arrival_order();
        pattern.run(events, out, read, |found, draft| draft.emit(found.last("any")));
    });
    assert_eq!(texts(&say(&mut newest, "abcz")), ["a", "b"]);
}

#[test]
fn one_event_too_many_that_waits_fails() {
    let mut harness = Harness::new(|events: Events<'_>, out: &mut Output| {
        let read = |event: &Event<'_>| Ok(event.text()?.to_owned());
        let pattern = Pattern::within(HOUR).begin("a", is("a")).waiting_max(2);
        pattern.run(events, out, read, |_, draft| draft.emit("a"));
    });
    let handled = say(&mut harness, "aaa");
    assert_eq!(handled.failures.len(), 1);
    assert!(handled.failures[0].failure.message().contains("waiting_max"));
}

#[test]
#[should_panic(expected = "a pattern begins with `begin`")]
fn a_pattern_without_a_beginning_is_a_mistake() {
    drop(Pattern::<String>::within(HOUR).then("a", is("a")));
}
