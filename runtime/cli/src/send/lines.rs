//! Lines of a file or a pipe, as they come.
//!
//! - A line is handed out without its end; bytes after the last line end are a line too.
//! - A line has a bound; a longer one ends the reading with its number.
//! - [`Lines::fill`] may be dropped while it waits; nothing that was read is lost.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line; the largest event a pipeline may allow.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes asked for at once.
const READ_BYTES: usize = 64 << 10;

/// Why lines cannot be read on.
#[derive(Debug)]
pub(super) enum LinesError {
    /// The system said so.
    Io(io::Error),
    /// The line with this number is too long.
    TooLong(u64),
}

/// The lines of an input.
pub(super) struct Lines<R> {
    input: R,
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no line end.
    scanned: usize,
    ended: bool,
    /// Number of the line that comes next, counted from 1.
    number: u64,
    bytes_read: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new(), scanned: 0, ended: false, number: 1, bytes_read: 0 }
    }

    /// The next line with its number, if it is here already.
    pub(super) fn ready(&mut self) -> Result<Option<(u64, Bytes)>, LinesError> {
        let fresh = &self.buffer[self.scanned..];
        let (line, skip) = match fresh.iter().position(|byte| *byte == b'\n') {
            Some(at) => (self.scanned + at, 1),
            None if self.ended && !self.buffer.is_empty() => (self.buffer.len(), 0),
            None => {
                self.scanned = self.buffer.len();
                if self.scanned > LINE_BYTES_MAX {
                    return Err(LinesError::TooLong(self.number));
                }
                return Ok(None);
            }
        };
        if line > LINE_BYTES_MAX {
            return Err(LinesError::TooLong(self.number));
        }
        let bytes = self.buffer.split_to(line).freeze();
        // The line end itself.
        drop(self.buffer.split_to(skip));
        self.scanned = 0;
        self.number += 1;
        Ok(Some((self.number - 1, bytes)))
    }

    /// True if nothing is left, neither here nor in the input.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// Bytes read so far.
    pub(super) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Waits for more input.
    pub(super) async fn fill(&mut self) -> Result<(), LinesError> {
        if self.ended {
            return Ok(());
        }
        self.buffer.reserve(READ_BYTES);
        let read = self.input.read_buf(&mut self.buffer).await.map_err(LinesError::Io)?;
        self.bytes_read += read as u64;
        self.ended = read == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, LinesError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(input);
            let mut found = Vec::new();
            while !lines.is_done() {
                match lines.ready()? {
                    Some((number, line)) => found.push((number, line.to_vec())),
                    None => lines.fill().await?,
                }
            }
            Ok(found)
        })
    }

    fn texts(input: &str) -> Vec<String> {
        let lines = all(input.as_bytes()).unwrap();
        assert!(lines.iter().zip(1..).all(|((number, _), expected)| *number == expected));
        lines.into_iter().map(|(_, line)| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(texts("a\n\nbc"), ["a", "", "bc"]);
        assert_eq!(texts("a\n"), ["a"]);
        assert_eq!(texts(""), [""; 0]);
    }

    #[test]
    fn lines_longer_than_a_read_are_whole() {
        let long = "x".repeat(3 * READ_BYTES + 1);
        assert_eq!(texts(&format!("a\n{long}\nb")), ["a", &long, "b"]);
    }

    #[test]
    fn an_endless_line_is_refused_by_number() {
        let mut input = b"a\n".to_vec();
        input.resize(LINE_BYTES_MAX + 3, b'x');
        assert!(matches!(all(&input), Err(LinesError::TooLong(2))));
    }
}
