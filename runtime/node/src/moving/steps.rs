//! How long each step of a hand-over takes: one line of the log at debug level.
//!
//! Keeps true: the steps follow one another, so that they add up to the whole. It decides nothing.

use std::fmt;
use std::time::{Duration, Instant};

/// Steps that were taken since a moment, each with its time.
#[derive(Debug)]
pub(super) struct Steps {
    begun: Instant,
    last: Instant,
    taken: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// None were taken yet.
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, taken: Vec::new() }
    }

    /// A step has ended, and the next begins.
    pub(super) fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.taken.push((step, now - self.last));
        self.last = now;
    }

    /// From the beginning to now.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |took: &Duration| took.as_secs_f64() * 1e3;
        write!(f, "{:.1} ms", millis(&(self.last - self.begun)))?;
        for (at, (step, took)) in self.taken.iter().enumerate() {
            let before = if at == 0 { ": " } else { ", " };
            write!(f, "{before}{step} {:.1}", millis(took))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_the_whole() {
        let mut steps = Steps::begin();
        steps.done("first");
        std::thread::sleep(Duration::from_millis(2));
        steps.done("second");
        let sum: Duration = steps.taken.iter().map(|(_, took)| *took).sum();
        assert_eq!(sum, steps.last - steps.begun);
        let text = steps.to_string();
        let (whole, each) = text.split_once(": ").expect("the whole, and its parts");
        assert!(whole.ends_with(" ms") && each.starts_with("first 0.0, second "), "{text}");
    }
}
