//! The events that benches send, and what they check of those that come back.
//!
//! Each event carries a mark in its last eight bytes. The sum of the marks that come back must be
//! the sum of those that went in, so that an event lost, doubled or changed is noticed at the cost
//! of one addition.

use anyhow::{Result, ensure};
use bytes::Bytes;
use sluicebox_core::frame::{FrameBuilder, HEAD_BYTES, HEADER_BYTES, Head, MAGIC};

/// Events in a packed frame: what a stage is given at once.
pub const FRAME_EVENTS: usize = 256;
/// Payload of an event in a packed frame.
pub const PAYLOAD_BYTES: usize = 64;
/// Different keys.
pub const KEYS: usize = 1000;
/// Bytes of a mark.
const MARK_BYTES: usize = 8;

/// How many events, and the sum of their marks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Sum of their marks.
    pub marks: u64,
}

impl Tally {
    fn add(&mut self, payload: &[u8]) {
        self.events += 1;
        if let Some(mark) = payload.last_chunk::<MARK_BYTES>() {
            self.marks = self.marks.wrapping_add(u64::from_le_bytes(*mark));
        }
    }

    /// Adds the events of another.
    pub const fn join(&mut self, other: Self) {
        self.events += other.events;
        self.marks = self.marks.wrapping_add(other.marks);
    }
}

/// A body to send, and what is in it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The body.
    pub body: Bytes,
    /// Its events.
    pub tally: Tally,
}

/// The key of an event.
fn key(number: usize) -> String {
    format!("key-{:04}", number % KEYS)
}

/// Packed frames of at most 256 events with 64 bytes of payload, one after another.
#[must_use]
pub fn frames(events: usize, first: usize) -> Batch {
    let (mut body, mut tally) = (Vec::new(), Tally::default());
    let mut builder = FrameBuilder::new();
    for number in first..first + events {
        let mut payload = [b'.'; PAYLOAD_BYTES];
        payload[PAYLOAD_BYTES - MARK_BYTES..].copy_from_slice(&spread(number).to_le_bytes());
        // Time 0: the host takes its own.
        builder.push(&Head::data(0), key(number).as_bytes(), &payload, &[]);
        tally.add(&payload);
        if builder.len() == FRAME_EVENTS {
            body.extend_from_slice(builder.finish().bytes());
        }
    }
    if !builder.is_empty() {
        body.extend_from_slice(builder.finish().bytes());
    }
    Batch { body: body.into(), tally }
}

/// JSON lines of 80 bytes with the key at `/key`.
#[must_use]
pub fn lines(events: usize, first: usize) -> Batch {
    let (mut body, mut tally) = (String::new(), Tally::default());
    for number in first..first + events {
        // Numbers of JSON have no leading zeros, and all lines shall have one length.
        let (key, value) = (key(number), 100_000 + spread(number) % 900_000);
        let at = 1_700_000_000 + number;
        let line = format!(
            r#"{{"key":"{key}","sensor":"boiler room 2","unit":"C","at":{at},"v":{value}}}"#
        );
        tally.add(line.as_bytes());
        body.push_str(&line);
        body.push('\n');
    }
    Batch { body: body.into(), tally }
}

/// Packed frames whose payloads are lines of eight words, from a vocabulary of a few thousand.
/// `tally` counts the words; there are no marks.
#[must_use]
pub fn text(lines: usize, first: usize) -> Batch {
    const VOCABULARY: u64 = 4000;
    const WORDS: usize = 8;
    let mut body = Vec::new();
    let mut builder = FrameBuilder::new();
    for number in first..first + lines {
        let word = |at: usize| {
            // Small numbers more often than large ones, like words in a text.
            let rank = spread(number * WORDS + at) % VOCABULARY;
            format!("w{:x}", rank * rank / VOCABULARY)
        };
        let line: Vec<String> = (0..WORDS).map(word).collect();
        let key = key(number);
        builder.push(&Head::data(0), key.as_bytes(), line.join(" ").as_bytes(), &[]);
        if builder.len() == FRAME_EVENTS || number + 1 == first + lines {
            body.extend_from_slice(builder.finish().bytes());
        }
    }
    Batch { body: body.into(), tally: Tally { events: (lines * WORDS) as u64, marks: 0 } }
}

/// Packed frames of events that have nothing but a key, a different one each.
#[must_use]
pub fn keyed(events: usize, first: usize) -> Batch {
    keyed_by(first..first + events)
}

/// The same with keys of these numbers.
#[must_use]
pub fn keyed_by(numbers: impl IntoIterator<Item = usize>) -> Batch {
    let (mut body, mut events) = (Vec::new(), 0);
    let mut builder = FrameBuilder::new();
    for number in numbers {
        builder.push(&Head::data(0), numbered_key(number).as_bytes(), &[], &[]);
        events += 1;
        if builder.len() == FRAME_EVENTS {
            body.extend_from_slice(builder.finish().bytes());
        }
    }
    if !builder.is_empty() {
        body.extend_from_slice(builder.finish().bytes());
    }
    Batch { body: body.into(), tally: Tally { events, marks: 0 } }
}

/// Which of a number of keys an event is about.
#[derive(Debug)]
pub struct Draw {
    keys: usize,
    state: u64,
    /// Of Zipf's law: exponent, and the constants of the method; `None` is uniform.
    zipf: Option<(f64, f64, f64)>,
}

impl Draw {
    /// Each as often as the others.
    #[must_use]
    pub fn uniform(keys: usize) -> Self {
        Self { keys, state: 1, zipf: None }
    }

    /// The n-th most frequent `n^-exponent` times as often as the first, by the method of Gray and
    /// others, "Quickly generating billion-record synthetic databases" (1994). `exponent` < 1.
    #[must_use]
    pub fn zipf(keys: usize, exponent: f64) -> Self {
        let zeta = |n: usize| (1..=n).map(|rank| (rank as f64).powf(-exponent)).sum::<f64>();
        let all = zeta(keys);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - exponent)) / (1.0 - zeta(2) / all);
        Self { keys, state: 1, zipf: Some((exponent, all, eta)) }
    }
}

impl Iterator for Draw {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.state = self.state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let unit = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        let Some((exponent, all, eta)) = self.zipf else {
            return Some((unit * self.keys as f64) as usize);
        };
        let scaled = unit * all;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(exponent) {
            1
        } else {
            (self.keys as f64 * (eta * unit - eta + 1.0).powf(1.0 / (1.0 - exponent))) as usize
        };
        // The frequent ones shall not lie side by side.
        Some(rank.min(self.keys - 1) * 7919 % self.keys)
    }
}

/// A key of [`keyed`].
#[must_use]
pub fn numbered_key(number: usize) -> String {
    format!("key-{number:012}")
}

/// Numbers that look like chance and are the same every time.
const fn spread(number: usize) -> u64 {
    let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

/// Counts the events of packed frames, one frame after another.
///
/// # Errors
/// The bytes are no frames.
pub fn count_frames(bytes: &[u8]) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        ensure!(rest.starts_with(&MAGIC), "what came is no frame");
        let (count, length) = (u32_at(rest, 8)?, u32_at(rest, 12)? as usize);
        ensure!((HEADER_BYTES..=rest.len()).contains(&length), "a frame is cut off");
        let mut events = &rest[HEADER_BYTES..length];
        for _ in 0..count {
            let size = u32_at(events, 0)? as usize;
            let key = usize::from(u16_at(events, 10)?);
            let payload = u32_at(events, 24)? as usize;
            ensure!(size >= HEAD_BYTES + key + payload && size <= events.len(), "a bad event");
            tally.add(&events[HEAD_BYTES + key..HEAD_BYTES + key + payload]);
            events = &events[size..];
        }
        ensure!(events.is_empty(), "a frame holds more than its events");
        rest = &rest[length..];
    }
    Ok(tally)
}

/// Counts lines; their marks are not looked at.
#[must_use]
pub fn count_lines(bytes: &[u8]) -> Tally {
    Tally { events: memchr::memchr_iter(b'\n', bytes).count() as u64, marks: 0 }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found
        .map(|four| u32::from_le_bytes(*four))
        .ok_or_else(|| anyhow::anyhow!("an event is cut off"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map(|two| u16::from_le_bytes(*two)).ok_or_else(|| anyhow::anyhow!("an event is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_with_the_sum_they_were_made_with() {
        let batch = frames(600, 7);
        assert_eq!(batch.tally.events, 600);
        assert_eq!(count_frames(&batch.body).expect("frames"), batch.tally);
        let mut changed = batch.body.to_vec();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert_ne!(count_frames(&changed).expect("frames"), batch.tally);
        assert!(count_frames(&batch.body[..batch.body.len() - 1]).is_err());
    }

    #[test]
    fn lines_are_of_one_length_and_their_marks_differ() {
        let batch = lines(100, 0);
        let text = std::str::from_utf8(&batch.body).expect("text");
        assert!(text.lines().all(|line| (64..=100).contains(&line.len())), "{text}");
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!(count_lines(&batch.body).events, 100);
        assert_ne!(batch.tally.marks, lines(100, 1).tally.marks);
        assert_eq!(count_frames(&super::text(300, 0).body).expect("frames").events, 300);
    }
}
