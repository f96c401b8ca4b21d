//! The units of an input, as they come and at the pace that was asked for.
//!
//! [`Source::next`] may be dropped while it waits; no unit is lost by that.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::cut::{CutError, Cutter, Form};
use crate::failure::{Cause, Failure, printable};
use crate::send::pace::Pace;

/// Bytes asked for at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes of a line that are shown.
const SHOWN_BYTES: usize = 60;

/// An input that is cut into units.
pub(super) struct Source {
    input: Box<dyn AsyncRead + Unpin>,
    form: Form,
    cutter: Cutter,
    ended: bool,
    /// Units cut so far.
    count: u64,
    pace: Option<Pace>,
    /// When the first unit that counts for the pace was due.
    start: Option<Instant>,
}

impl Source {
    pub(super) fn new(
        input: Box<dyn AsyncRead + Unpin>,
        form: Form,
        every_second: Option<f64>,
    ) -> Self {
        let pace = every_second.map(Pace::new);
        let cutter = Cutter::new(form);
        Self { input, form, cutter, ended: false, count: 0, pace, start: None }
    }

    /// The next unit when it is due; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(pace) = self.pace {
            let start = *self.start.get_or_insert_with(Instant::now);
            tokio::time::sleep_until((start + pace.due()).into()).await;
        }
        let unit = self.cut().await?;
        if let (Some(_), Some(pace)) = (&unit, &mut self.pace) {
            pace.sent(1);
        }
        Ok(unit)
    }

    /// The next unit, whenever it would be due.
    pub(super) async fn skip(&mut self) -> Result<Option<Bytes>, Failure> {
        self.cut().await
    }

    async fn cut(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let cut = match self.cutter.next() {
                Ok(None) if self.ended => self.cutter.rest().map(|rest| (rest, true)),
                cut => cut.map(|unit| (unit, false)),
            };
            match cut.map_err(|error| self.uncut(error))? {
                (Some(unit), _) => {
                    self.check(&unit)?;
                    self.count += 1;
                    return Ok(Some(unit));
                }
                (None, true) => return Ok(None),
                (None, false) => {}
            }
            let buffer = self.cutter.buffer();
            buffer.reserve(READ_BYTES);
            let read = self.input.read_buf(buffer).await;
            self.ended = read.map_err(|error| Failure::local("read the input", &error))? == 0;
        }
    }

    fn uncut(&self, error: CutError) -> Failure {
        let failure =
            Failure::new(Cause::Invalid, format!("unit {} of the input {error}", self.count + 1));
        match error {
            CutError::TooLong => {
                failure.fix("no event may be that large; is it cut the right way?")
            }
            CutError::NoFrame => failure.fix("wit/FRAME.md says what a packed frame is"),
            CutError::Unfinished => failure.fix("what was whole was sent, and the stream is open"),
        }
    }

    /// Someone who sends something else than lines learns at once how to say so.
    fn check(&self, unit: &[u8]) -> Result<(), Failure> {
        let known = self.form != Form::Lines || self.count > 0;
        if known || serde_json::from_slice::<serde::de::IgnoredAny>(unit).is_ok() {
            return Ok(());
        }
        let begin = &unit[..unit.len().min(SHOWN_BYTES)];
        let shown = printable(&String::from_utf8_lossy(begin));
        Err(Failure::new(Cause::Invalid, format!("the first line is not JSON: {shown}"))
            .fix("say how the input is cut: --jpeg, --chunk, --prefixed or --frames"))
    }
}

/// A file, or standard input.
pub(super) async fn open(path: Option<&Path>) -> Result<Box<dyn AsyncRead + Unpin>, Failure> {
    let Some(path) = path else { return Ok(Box::new(tokio::io::stdin())) };
    let doing = || format!("read {}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|e| Failure::local(doing(), &e))?;
    let metadata = file.metadata().await.map_err(|e| Failure::local(doing(), &e))?;
    if metadata.is_dir() {
        return Err(Failure::new(Cause::Local, format!("{} is a directory", path.display())));
    }
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(input: &'static [u8], form: Form, every_second: Option<f64>) -> Source {
        Source::new(Box::new(input), form, every_second)
    }

    #[tokio::test]
    async fn units_come_one_after_another_to_the_end() {
        let mut source = source(b"1\n2\n3", Form::Lines, None);
        for expected in ["1\n", "2\n", "3\n"] {
            assert_eq!(source.next().await.unwrap().unwrap(), expected);
        }
        assert_eq!(source.next().await.unwrap(), None);
        assert_eq!(source.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn units_come_at_the_pace_however_often_the_wait_is_dropped() {
        let start = Instant::now();
        let mut source = source(b"1\n2\n3\n", Form::Lines, Some(20.0));
        let mut came = Vec::new();
        while came.len() < 3 {
            let wait = tokio::time::timeout(Duration::from_millis(7), source.next());
            if let Ok(unit) = wait.await {
                came.push(unit.unwrap().unwrap());
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert_eq!(came, ["1\n", "2\n", "3\n"]);
    }

    #[tokio::test]
    async fn what_is_no_json_is_told_about_the_other_ways() {
        let failure = source(b"\xFF\xD8\xFF", Form::Lines, None).next().await.unwrap_err();
        assert!(failure.text().contains("--jpeg"), "{}", failure.text());
        let failure = source(b"{}\n{", Form::Prefixed, None).next().await.unwrap_err();
        assert_eq!(failure.cause, Cause::Invalid);
    }
}
