//! The way out of a session: the events of one output that have the session's key.
//!
//! - As a rule they are told as they are appended (`ring::Watch`). What the watch could not hold,
//!   and what a client missed on its last connection, is read from the ring.
//! - The cursor is always exact: everything of the key in front of it was said, and nothing behind.

use std::future::poll_fn;
use std::sync::Arc;

use super::super::outputs::{Renderer, STEP_BYTES, Source};
use super::said::Said;
use crate::error::Error;
use crate::ring::{Cursor, News, Output, Watch};
use crate::running::Running;

/// See the module.
pub(super) struct Outlet {
    output: String,
    key: Box<[u8]>,
    ring: Arc<Output>,
    watch: Watch,
    cursor: Cursor,
    /// What is behind the cursor has to be read from the ring.
    lags: bool,
}

impl Outlet {
    /// From a cursor on, or from now.
    pub(super) fn begin(
        running: &Running,
        output: &str,
        key: &str,
        cursor: Option<Cursor>,
    ) -> Result<Self, Error> {
        let ring = running.output(output).ok_or_else(|| Error::not_found("output", output))?;
        let ring = Arc::clone(ring);
        // Watched before it is known how far the output has come, so that nothing falls between.
        let watch = ring.watch(key.as_bytes());
        let lags = cursor.is_some();
        let cursor = match cursor {
            None => ring.latest(),
            Some(cursor) if cursor == Cursor::OLDEST => ring.oldest(),
            Some(cursor) => cursor,
        };
        if lags {
            read(&ring, &cursor)?;
        }
        let (output, key) = (output.to_owned(), key.as_bytes().into());
        Ok(Self { output, key, ring, watch, cursor, lags })
    }

    /// Everything in front of it was said.
    pub(super) const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Says what there is to say, or as much as one piece takes.
    pub(super) fn look(&mut self, running: &Running, said: &mut Said) -> Result<(), Error> {
        self.follow(running)?;
        let before = said.len();
        if !self.lags {
            // In this order: what is told of afterwards includes all that is in front of it.
            let latest = self.ring.latest();
            match self.watch.take() {
                News::Lags => self.lags = true,
                News::Events(events) if events.is_empty() => self.cursor.advance(&latest),
                News::Events(events) => {
                    let renderer = self.renderer(running);
                    for told in &events {
                        let place = (told.partition, told.offset);
                        if self.cursor.offset(told.partition) <= told.offset {
                            self.cursor.pass(told.partition, told.offset);
                            said.output(&renderer, place, &told.event(), &self.cursor);
                        }
                    }
                    self.count(running, events.len(), said.len() - before);
                    self.cursor.advance(&latest);
                }
            }
        }
        // A piece at a time: there may be much behind the cursor that is of other keys.
        if self.lags { self.catch_up(running, said) } else { Ok(()) }
    }

    /// Looks once more. True if there was something, or is more.
    pub(super) fn has_more(&mut self, running: &Running, said: &mut Said) -> Result<bool, Error> {
        let before = said.len();
        self.look(running, said)?;
        Ok(self.lags || said.len() > before)
    }

    /// Waits until there is something to say.
    pub(super) async fn news(&self) {
        if !self.lags {
            poll_fn(|context| self.watch.poll_news(context)).await;
        }
    }

    /// Reads some of what is behind the cursor.
    fn catch_up(&mut self, running: &Running, said: &mut Said) -> Result<(), Error> {
        let page = read(&self.ring, &self.cursor)?;
        if page.chunks.is_empty() {
            self.cursor = page.next;
            self.lags = false;
            return Ok(());
        }
        let renderer = self.renderer(running);
        let before = said.len();
        let mut cursor = page.begin();
        let mut count = 0;
        for chunk in &page.chunks {
            for (offset, event) in chunk.events() {
                cursor.pass(chunk.partition, offset);
                if event.key == &*self.key {
                    said.output(&renderer, (chunk.partition, offset), &event, &cursor);
                    count += 1;
                }
            }
        }
        self.cursor = page.next;
        self.count(running, count, said.len() - before);
        Ok(())
    }

    /// Goes on with the output of the version that runs.
    fn follow(&mut self, running: &Running) -> Result<(), Error> {
        let gone = || Error::not_found("output", &self.output);
        let ring = running.output(&self.output).ok_or_else(gone)?;
        if !Arc::ptr_eq(ring, &self.ring) {
            self.watch = ring.watch(&self.key);
            self.ring = Arc::clone(ring);
            self.lags = true;
        }
        Ok(())
    }

    fn renderer<'a>(&self, running: &'a Running) -> Renderer<'a> {
        Renderer::new(running, Source::Output(&self.output), self.ring.incarnation())
    }

    fn count(&self, running: &Running, events: usize, bytes: usize) {
        let metrics = running.metrics().output(&self.output, &self.ring);
        metrics.read_events.add(events as u64);
        metrics.read_bytes.add(bytes as u64);
    }
}

fn read(ring: &Output, cursor: &Cursor) -> Result<crate::ring::Page, Error> {
    ring.read_limited(cursor, usize::MAX, STEP_BYTES)
        .map_err(|trimmed| Error::Trimmed { oldest: trimmed.oldest.to_string() })
}
