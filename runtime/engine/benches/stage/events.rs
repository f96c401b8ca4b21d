//! The events of the benches: 16 bytes of key, 64 of payload, made from their number.

use sluicebox_core::frame::{Event, Frame, FrameBuilder, Head};

/// Events in a frame.
pub(crate) const FRAME_EVENTS: usize = 256;
/// Bytes of payload.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Bytes of key.
pub(crate) const KEY_BYTES: usize = 16;
/// Different keys.
const KEYS: u64 = 1024;
/// What `bench-map` adds to the time of an event: the first byte of its key, and its length.
pub(crate) const MARK: u64 = b'k' as u64 + KEY_BYTES as u64;

/// Makes events one after another, all different.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generator {
    next: u64,
}

/// The parts of a made event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) time: u64,
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) payload: [u8; PAYLOAD_BYTES],
}

impl Generator {
    #[inline]
    pub(crate) fn make(&mut self) -> Made {
        let number = self.next;
        self.next += 1;
        let mut key = *b"key-000000000000";
        let mut rest = number % KEYS;
        for digit in key[12..].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        let mut payload = [0; PAYLOAD_BYTES];
        let mut word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for place in payload.as_chunks_mut().0 {
            word ^= word >> 29;
            word = word.wrapping_mul(0xBF58_476D_1CE4_E5B9);
            *place = word.to_le_bytes();
        }
        Made { time: number, key, payload }
    }

    /// A frame of new events.
    #[inline]
    pub(crate) fn frame(&mut self, builder: &mut FrameBuilder, sum: &mut Sum) -> Frame {
        for _ in 0..FRAME_EVENTS {
            let made = self.make();
            sum.add(made.time, &made.key, &made.payload);
            builder.push(&Head::data(made.time), &made.key, &made.payload, &[]);
        }
        builder.finish()
    }
}

/// One frame, to be used many times.
pub(crate) fn one_frame(events: usize) -> Frame {
    let (mut generator, mut builder) = (Generator::default(), FrameBuilder::new());
    for _ in 0..events {
        let made = generator.make();
        builder.push(&Head::data(made.time), &made.key, &made.payload, &[]);
    }
    builder.finish()
}

/// What all events seen so far come to; equal for what was made and what came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) events: u64,
    words: u64,
}

impl Sum {
    #[inline]
    pub(crate) fn add(&mut self, time: u64, key: &[u8], payload: &[u8]) {
        self.events += 1;
        let mut sum = time;
        for word in key.as_chunks().0.iter().chain(payload.as_chunks().0) {
            sum = sum.rotate_left(5) ^ u64::from_le_bytes(*word);
        }
        self.words = self.words.wrapping_add(sum);
    }

    /// Adds an event that has passed `stages` of the kind `bench-map`.
    #[inline]
    pub(crate) fn check(&mut self, event: &Event<'_>, stages: u64) {
        assert_eq!(event.payload.len(), PAYLOAD_BYTES, "an event came out changed");
        self.add(event.head.time - stages * MARK, event.key, event.payload);
    }
}
