//! When motion begins and ends, of how much changed from one picture to the next.
//!
//! - Two bounds: it begins at the upper one, and ends when so many pictures in a row were below the
//!   lower one. What lies between keeps things as they are, so that a score that trembles around
//!   one bound does not begin and end motion all the time.
//! - Pictures are counted from 0, refused ones included: the number is that of the picture in the
//!   clip.

use serde::Serialize;

/// From where on is motion, and down to where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// It begins with a score of at least this.
    pub(crate) begin: f64,
    /// A score below this is quiet.
    pub(crate) end: f64,
    /// It ends with so many quiet pictures in a row.
    pub(crate) hold: u32,
}

/// What is said of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Seen {
    frame: u64,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Turn>,
}

/// What happens at a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Turn {
    Begin,
    End,
}

/// What is said of a clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Pictures that came.
    frames: u64,
    /// Of these, pictures that could not be read.
    refused: u64,
    /// Of these, pictures with motion.
    moving: u64,
    /// How often it began.
    motions: u64,
    /// The highest score, and where it was.
    highest: f64,
    highest_frame: u64,
    /// Whether there is motion at the last picture.
    open: bool,
}

/// How a clip went so far.
#[derive(Debug)]
pub(crate) struct Course {
    bounds: Bounds,
    /// Quiet pictures in a row, while there is motion.
    quiet: u32,
    summary: Summary,
}

impl Course {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, quiet: 0, summary: Summary::default() }
    }

    /// A picture came of which nothing is known.
    pub(crate) const fn refuse(&mut self) {
        self.summary.frames += 1;
        self.summary.refused += 1;
    }

    /// A picture of which so much changed.
    pub(crate) fn step(&mut self, score: f64) -> Seen {
        let frame = self.summary.frames;
        let event = self.turn(score);
        self.summary.frames += 1;
        self.summary.moving += u64::from(self.summary.open);
        if score > self.summary.highest {
            self.summary.highest = score;
            self.summary.highest_frame = frame;
        }
        Seen { frame, score, event }
    }

    fn turn(&mut self, score: f64) -> Option<Turn> {
        if !self.summary.open {
            // A bound of 0 would make motion of two equal pictures.
            self.summary.open = score > 0.0 && score >= self.bounds.begin;
            self.summary.motions += u64::from(self.summary.open);
            self.quiet = 0;
            return self.summary.open.then_some(Turn::Begin);
        }
        self.quiet = if score < self.bounds.end || score == 0.0 { self.quiet + 1 } else { 0 };
        self.summary.open = self.quiet < self.bounds.hold;
        (!self.summary.open).then_some(Turn::End)
    }

    /// What there was of it.
    pub(crate) const fn summary(&self) -> &Summary {
        &self.summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(scores: &[f64]) -> Vec<(u64, Turn)> {
        let mut course = Course::new(Bounds { begin: 0.1, end: 0.05, hold: 2 });
        let seen: Vec<Seen> = scores.iter().map(|score| course.step(*score)).collect();
        seen.iter().filter_map(|seen| Some((seen.frame, seen.event?))).collect()
    }

    #[test]
    fn motion_begins_at_the_upper_bound_and_ends_after_the_hold_below_the_lower() {
        let scores = [0.0, 0.09, 0.1, 0.2, 0.04, 0.04, 0.0, 0.3];
        assert_eq!(turns(&scores), [(2, Turn::Begin), (5, Turn::End), (7, Turn::Begin)]);
    }

    #[test]
    fn a_score_that_trembles_around_a_bound_begins_one_motion() {
        let scores = [0.1, 0.09, 0.11, 0.04, 0.06, 0.04, 0.06, 0.1];
        assert_eq!(turns(&scores), [(0, Turn::Begin)]);
    }

    #[test]
    fn nothing_changed_is_no_motion_even_with_bounds_of_zero() {
        let mut course = Course::new(Bounds { begin: 0.0, end: 0.0, hold: 1 });
        let events = [0.0, 0.001, 0.0].map(|score| course.step(score).event);
        assert_eq!(events, [None, Some(Turn::Begin), Some(Turn::End)]);
    }

    #[test]
    fn refused_pictures_are_counted_and_change_nothing() {
        let mut course = Course::new(Bounds { begin: 0.1, end: 0.05, hold: 1 });
        course.step(0.5);
        course.refuse();
        assert_eq!(course.step(0.25).frame, 2);
        let expected = Summary {
            frames: 3,
            refused: 1,
            moving: 2,
            motions: 1,
            highest: 0.5,
            highest_frame: 0,
            open: true,
        };
        assert_eq!(*course.summary(), expected);
    }
}
