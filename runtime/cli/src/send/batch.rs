//! The events of one request, in the form it is sent.
//!
//! JSON lines go as NDJSON, and the node takes the key from the payload if the pipeline says so.
//! Raw lines go as one packed frame. Either way the batch knows the input line of each event, so
//! that what the node refuses is reported by the number people see in their file.

use bytes::Bytes;
use sluicebox_core::frame::{FrameBuilder, Head};

/// A batch is sent when it has this many bytes, however few events; a larger event goes alone.
const BATCH_BYTES: usize = 1 << 20;

const MEDIA_NDJSON: &str = "application/x-ndjson";
const MEDIA_FRAME: &str = "application/vnd.sluicebox.frame";

/// How lines become events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// Each line is JSON; empty ones are skipped.
    Json,
    /// Each line is a payload as it is, with this key.
    Raw {
        /// The key of every event; empty for none.
        key: String,
    },
}

/// Events that go into one request.
pub(crate) struct Batch {
    form: Form,
    text: Vec<u8>,
    frame: FrameBuilder,
    /// Input line of each event.
    numbers: Vec<u64>,
    events_max: usize,
}

/// A request's body, and how to read the reply.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) media_type: &'static str,
    pub(crate) body: Bytes,
    /// Input line of each event.
    pub(crate) numbers: Vec<u64>,
    /// The node counts lines from 1 and events of a frame from 0.
    first: u64,
}

impl Batch {
    pub(crate) fn new(form: Form, events_max: usize) -> Self {
        let (text, frame) = (Vec::new(), FrameBuilder::new());
        Self { form, text, frame, numbers: Vec::new(), events_max }
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, number: u64, line: &[u8]) {
        match &self.form {
            Form::Json if line.trim_ascii().is_empty() => return,
            Form::Json => {
                self.text.extend_from_slice(line);
                self.text.push(b'\n');
            }
            // Time 0: the node puts the time it received the event.
            Form::Raw { key } => self.frame.push(&Head::data(0), key.as_bytes(), line, &[]),
        }
        self.numbers.push(number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// True if it is time to send it.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.text.len().max(self.frame.bytes_len());
        self.numbers.len() >= self.events_max || bytes >= BATCH_BYTES
    }

    /// Takes the request out; the batch is empty afterwards.
    pub(crate) fn take(&mut self) -> Packet {
        let numbers = std::mem::take(&mut self.numbers);
        match self.form {
            Form::Json => Packet {
                media_type: MEDIA_NDJSON,
                body: std::mem::take(&mut self.text).into(),
                numbers,
                first: 1,
            },
            Form::Raw { .. } => Packet {
                media_type: MEDIA_FRAME,
                body: self.frame.finish().bytes().clone(),
                numbers,
                first: 0,
            },
        }
    }
}

impl Packet {
    /// The input line of what the node calls `line`; that number itself if it names none of ours.
    pub(crate) fn input_line(&self, line: u64) -> u64 {
        let index = line.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.numbers.get(index)).copied().unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::{Frame, FrameLimits};

    use super::*;

    #[test]
    fn empty_lines_are_no_json_events_and_numbers_still_fit() {
        let mut batch = Batch::new(Form::Json, 10);
        for (number, line) in [(7, "{}"), (8, "  "), (9, ""), (10, "[")] {
            batch.push(number, line.as_bytes());
        }
        let packet = batch.take();
        assert_eq!(&packet.body[..], b"{}\n[\n");
        assert_eq!(packet.input_line(2), 10);
        assert_eq!(packet.input_line(3), 3);
        assert!(batch.is_empty());
    }

    #[test]
    fn raw_lines_become_a_frame_the_node_takes() {
        let mut batch = Batch::new(Form::Raw { key: "k".to_owned() }, 2);
        batch.push(1, b"\xFF\x00");
        assert!(!batch.is_full());
        batch.push(2, b"");
        assert!(batch.is_full());
        let packet = batch.take();
        let frame = Frame::parse(packet.body.clone(), &FrameLimits::FORMAT).unwrap();
        let events: Vec<_> = frame.events().map(|e| (e.key_str().to_owned(), e.payload)).collect();
        assert_eq!(events, [("k".to_owned(), &b"\xFF\x00"[..]), ("k".to_owned(), &b""[..])]);
        assert_eq!(packet.input_line(1), 2);
        assert_eq!(packet.media_type, MEDIA_FRAME);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let mut batch = Batch::new(Form::Json, usize::MAX);
        batch.push(1, &vec![b'1'; BATCH_BYTES]);
        assert!(batch.is_full());
    }
}
