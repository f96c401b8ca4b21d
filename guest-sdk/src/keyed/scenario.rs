//! Random courses of events for the tests against naive models: keys, disorder, calls of any size,
//! a watermark that moves and jumps.
//!
//! A stage and a model see the same course. What leaves between two moments is compared as a set,
//! as the order of keys is the host's. In the end the watermark passes everything, and then no
//! slot and no timer may be left.

use proptest::prelude::*;

use crate::testing::{Handled, Harness, Input};

/// Keys of a course.
pub(crate) const KEYS: [&str; 3] = ["a", "b", "c"];
/// Behind everything that happens in a course.
pub(crate) const END: u64 = 1 << 40;

/// An event of a course, as a model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) key: &'static str,
    pub(crate) time: u64,
    pub(crate) value: i64,
    pub(crate) input: u16,
}

impl Sent {
    fn input(self) -> Input {
        Input::data(self.key, self.value.to_string()).time(self.time).input(self.input)
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// An event, so long behind the time of the course.
    Event { key: usize, back: u64, value: i64, input: u16 },
    /// Time goes on.
    Forward(u64),
    /// The events so far are given to the stage.
    Flush,
    /// They are, and the watermark comes so close to the time of the course.
    Watermark(u64),
}

/// Courses whose events lie back by less than `disorder`.
pub(crate) fn courses(disorder: u64) -> impl Strategy<Value = Vec<Step>> {
    let event = (0..KEYS.len(), 0..disorder, 0..6_i64, 0..2_u16)
        .prop_map(|(key, back, value, input)| Step::Event { key, back, value, input });
    let step = prop_oneof![
        12 => event,
        5 => (1..15_u64).prop_map(Step::Forward),
        1 => (50..300_u64).prop_map(Step::Forward),
        3 => Just(Step::Flush),
        3 => (0..60_u64).prop_map(Step::Watermark),
    ];
    prop::collection::vec(step, 1..120)
}

/// What a model says of a course.
pub(crate) trait Model {
    /// What leaves because of an event, at this watermark.
    fn event(&mut self, sent: Sent, watermark: u64, out: &mut Vec<String>);
    /// What leaves when the watermark has come this far.
    fn watermark(&mut self, watermark: u64, out: &mut Vec<String>);
}

/// Runs a course through both, and holds what leaves against each other.
pub(crate) fn compare(course: &[Step], mut harness: Harness, model: &mut impl Model) {
    let (mut now, mut watermark) = (1_000, 0);
    let mut batch: Vec<Sent> = Vec::new();
    let mut said = 0;
    let ends = [Step::Flush, Step::Forward(END), Step::Watermark(0)];
    for step in course.iter().chain(&ends) {
        let mut expected = Vec::new();
        let mut actual = Vec::new();
        match *step {
            Step::Event { key, back, value, input } => {
                let time = now - back;
                batch.push(Sent { key: KEYS[key], time, value, input });
                continue;
            }
            Step::Forward(by) => {
                now += by;
                continue;
            }
            Step::Flush | Step::Watermark(_) => {
                batch.iter().for_each(|sent| model.event(*sent, watermark, &mut expected));
                if !batch.is_empty() {
                    actual = lines(&harness.handle(batch.drain(..).map(Sent::input)));
                }
            }
        }
        expected.sort();
        actual.sort();
        assert_eq!(actual, expected, "for the events before the step {said}");
        if let Step::Watermark(back) = *step {
            expected.clear();
            watermark = watermark.max(now - back);
            model.watermark(watermark, &mut expected);
            actual = lines(&harness.advance_watermark(watermark));
            expected.sort();
            actual.sort();
            assert_eq!(actual, expected, "at the watermark {watermark}, step {said}");
        }
        said += 1;
    }
    for key in KEYS {
        let slots: Vec<&str> = harness.slots(key).map(|(slot, _)| slot).collect();
        assert_eq!(slots, [""; 0], "slots of {key} in the end");
        assert_eq!(harness.timers(key), [], "timers of {key} in the end");
    }
}

/// What left, a line each: port and payload. No event fails in a course.
fn lines(handled: &Handled) -> Vec<String> {
    assert_eq!(handled.failures, []);
    let line = |out: &crate::testing::Emitted| format!("{} {} {}", out.port, out.key, out.text());
    handled.outputs.iter().map(line).collect()
}
