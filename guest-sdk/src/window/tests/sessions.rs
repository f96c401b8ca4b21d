//! Sessions against a model that joins events anew each time, and against what they come to if all
//! events were there from the beginning.

use super::*;

/// One session: its events, whether it gave its result, and starts of the results it stands for.
#[derive(Clone, Default)]
struct Whole {
    events: Vec<Sent>,
    told: bool,
    replaces: Vec<u64>,
}

impl Whole {
    fn start(&self) -> u64 {
        self.events.iter().map(|sent| sent.time).min().unwrap()
    }

    fn end(&self, gap: u64) -> u64 {
        self.events.iter().map(|sent| sent.time).max().unwrap() + gap
    }

    fn say(&mut self, gap: u64, firing: Firing) -> String {
        let value = self.events.iter().map(|sent| i128::from(sent.value)).sum();
        let span = (self.start(), self.end(gap));
        let said = line(firing, span, &self.replaces, (value, self.events.len() as u64));
        if firing != Firing::Early {
            self.told = true;
            self.replaces = vec![span.0];
        }
        format!("0 {} {said}", self.events[0].key)
    }
}

struct Naive {
    gap: u64,
    lateness: u64,
    early: u64,
    armed: [u64; 3],
    sessions: Vec<Whole>,
}

impl Model for Naive {
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>) {
        let gap = self.gap;
        let near = |one: &mut Whole| {
            let close = |other: &Sent| other.time.abs_diff(sent.time) < gap;
            one.events[0].key == sent.key && one.events.iter().any(close)
        };
        let mut near: Vec<Whole> = self.sessions.extract_if(.., near).collect();
        if near.is_empty() && sent.time + gap + self.lateness <= watermark {
            out.push(format!("7 {} {}", sent.key, sent.value));
            return;
        }
        near.sort_by_key(Whole::start);
        let mut all = Whole::default();
        for one in near {
            all.events.extend(one.events);
            all.replaces.extend(one.replaces);
        }
        all.events.push(sent);
        if all.end(gap) <= watermark {
            out.push(all.say(gap, Firing::Late));
        } else {
            let place = scenario::KEYS.iter().position(|key| *key == sent.key).unwrap();
            if self.early > 0 && self.armed[place] == 0 {
                self.armed[place] = (watermark / self.early + 1) * self.early;
            }
        }
        self.sessions.push(all);
    }

    fn watermark(&mut self, watermark: u64, out: &mut Vec<String>) {
        let gap = self.gap;
        for one in self.sessions.iter_mut().filter(|one| !one.told && one.end(gap) <= watermark) {
            out.push(one.say(gap, Firing::OnTime));
        }
        for (place, key) in scenario::KEYS.iter().enumerate() {
            if self.armed[place] == 0 || self.armed[place] > watermark {
                continue;
            }
            self.armed[place] = 0;
            let open = |one: &&mut Whole| {
                one.events[0].key == *key && !one.told && one.start() < watermark
            };
            for one in self.sessions.iter_mut().filter(open) {
                out.push(one.say(gap, Firing::Early));
            }
        }
        self.sessions.retain(|one| one.end(gap) + self.lateness > watermark);
        for (place, key) in scenario::KEYS.iter().enumerate() {
            // Nothing is kept of a key without sessions.
            if !self.sessions.iter().any(|one| one.events[0].key == *key) {
                self.armed[place] = 0;
            }
        }
    }
}

proptest! {
    #[test]
    fn sessions_are_what_the_model_says(
        course in courses(200),
        gap in 1..80_u64,
        lateness in prop_oneof![Just(0), 1..150_u64],
        early in prop_oneof![Just(0), 1..40_u64],
    ) {
        let mut window =
            Window::session(micros(gap)).allowed_lateness(micros(lateness)).late_port(7);
        if early > 0 {
            window = window.early_every(micros(early));
        }
        let mut model =
            Naive { gap, lateness, early, armed: [0; 3], sessions: Vec::new() };
        compare(&course, harness(window), &mut model);
    }

    #[test]
    fn results_that_nothing_takes_the_place_of_are_the_sessions_of_all_events(
        times in prop::collection::vec(0..2_000_u64, 1..60),
        gap in 1..100_u64,
        watermarks in prop::collection::vec(0..2_000_u64, 0..5),
    ) {
        // Nothing is too late, so the order in which events and watermarks come must not matter.
        let mut harness = harness(Window::session(micros(gap)).allowed_lateness(micros(5_000)));
        let mut results: Vec<String> = Vec::new();
        let mut take = |handled: Handled| {
            for text in texts(&handled) {
                let replaced = text.split_once('[').unwrap().1.split_once(']').unwrap().0;
                for start in replaced.split(", ").filter(|start| !start.is_empty()) {
                    let before = results.len();
                    let of = format!("({start}, ");
                    results.retain(|result| !result.split_once(' ').unwrap().1.starts_with(&of));
                    assert_eq!(results.len(), before - 1, "{text} takes the place of one for each");
                }
                results.push(text.to_owned());
            }
        };
        let chunks = times.chunks(times.len().div_ceil(watermarks.len() + 1));
        for (place, chunk) in chunks.enumerate() {
            take(harness.handle(chunk.iter().map(|time| Input::data("k", "1").time(*time))));
            if let Some(watermark) = watermarks.get(place) {
                take(harness.advance_watermark(*watermark));
            }
        }
        take(harness.advance_watermark(scenario::END));
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let expected: Vec<(u64, u64, usize)> = sorted
            .chunk_by(|a, b| b - a < gap)
            .map(|all| (all[0], all[all.len() - 1] + gap, all.len()))
            .collect();
        prop_assert_eq!(results.len(), expected.len());
        for (start, end, count) in expected {
            let wanted = (format!("({start}, {end})"), format!("({count}, {count})"));
            let is = |text: &String| text.contains(&wanted.0) && text.ends_with(&wanted.1);
            prop_assert!(results.iter().any(is), "{:?} in {:?}", wanted, results);
        }
    }
}

#[test]
fn an_event_between_two_sessions_makes_them_one() {
    let mut harness = harness(Window::session(micros(10)));
    harness.handle([0, 15].map(|time| Input::data("k", "1").time(time)));
    harness.handle([Input::data("k", "1").time(8)]);
    assert_eq!(texts(&harness.advance_watermark(100)), ["OnTime (0, 25) [] (3, 3)"]);
}

#[test]
fn events_exactly_the_gap_apart_are_two_sessions() {
    let mut harness = harness(Window::session(micros(10)));
    harness.handle([0, 10].map(|time| Input::data("k", "1").time(time)));
    let handled = harness.advance_watermark(100);
    assert_eq!(texts(&handled), ["OnTime (0, 10) [] (1, 1)", "OnTime (10, 20) [] (1, 1)"]);
}

#[test]
fn a_late_event_that_joins_two_sessions_names_both() {
    let mut harness = harness(Window::session(micros(10)).allowed_lateness(micros(100)));
    harness.handle([0, 15].map(|time| Input::data("k", "1").time(time)));
    assert_eq!(harness.advance_watermark(50).outputs.len(), 2);
    let handled = harness.handle([Input::data("k", "1").time(8)]);
    assert_eq!(texts(&handled), ["Late (0, 25) [0, 15] (3, 3)"]);
}
