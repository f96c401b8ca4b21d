//! Replies that wait to be sent, oldest first.
//!
//! What waits is bounded by whoever asks: nothing more is to be taken while there is no room. What
//! is taken adds a tail and an answer at most; ends of submissions are as many as hosts have.

use std::collections::VecDeque;

use crate::wire::{Answer, Refusal, Reply};

/// Bytes of replies with which nothing more is taken.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a reply takes besides its bytes.
const REPLY_BYTES: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    replies: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Outbox {
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    pub(super) fn push(&mut self, number: u64, answer: Answer) {
        self.push_with(number, answer, Vec::new());
    }

    pub(super) fn push_with(&mut self, number: u64, answer: Answer, tail: Vec<u8>) {
        match (Reply { number, answer }).head(tail.len()) {
            Ok(head) => self.add(head, tail),
            Err(why) => {
                // All that is answered has a bound below that: this is said rather than nothing.
                let refusal = Refusal { code: "gpu.limit".to_owned(), text: why.to_string() };
                let reply = Reply { number, answer: Answer::Refused(refusal) };
                self.add(reply.head(0).unwrap_or_default(), Vec::new());
            }
        }
    }

    fn add(&mut self, head: Vec<u8>, tail: Vec<u8>) {
        self.bytes += size_of_reply(&head, &tail);
        self.replies.push_back((head, tail));
    }

    pub(super) fn next(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (head, tail) = self.replies.pop_front()?;
        self.bytes -= size_of_reply(&head, &tail);
        Some((head, tail))
    }
}

const fn size_of_reply(head: &[u8], tail: &[u8]) -> usize {
    REPLY_BYTES + head.len() + tail.len()
}
