//! Deadlines of one worker's requests, looked at every tick of the edge.
//!
//! Ends come late by up to a tick, which nobody waiting for seconds notices; in return a deadline
//! costs a few instructions, and none if what it guards is ready at once. Wakers are called outside
//! the table's borrow.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// All deadlines that are running.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    table: RefCell<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    /// On the edge's clock.
    end: Duration,
    /// Who waits; none while nobody does, and once the end was told.
    waker: Option<Waker>,
}

/// One running deadline. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Deadline<'a> {
    deadlines: &'a Deadlines,
    index: usize,
    end: Duration,
}

impl Deadlines {
    /// Starts one that ends at `end` of the edge's clock.
    pub(super) fn start(&self, end: Duration) -> Deadline<'_> {
        let mut table = self.table.borrow_mut();
        let entry = Entry { end, waker: None };
        let index = match table.free.pop() {
            Some(index) => {
                table.entries[index] = entry;
                index
            }
            None => {
                table.entries.push(entry);
                table.entries.len() - 1
            }
        };
        Deadline { deadlines: self, index, end }
    }

    /// Wakes whoever waits for an end that has come.
    pub(super) fn tell(&self, now: Duration) {
        let mut ended = Vec::new();
        for entry in &mut self.table.borrow_mut().entries {
            if entry.end <= now {
                ended.extend(entry.waker.take());
            }
        }
        ended.into_iter().for_each(Waker::wake);
    }
}

impl Deadline<'_> {
    /// Ready once the end has come.
    pub(super) fn poll(&self, now: Duration, context: &Context<'_>) -> Poll<()> {
        if now >= self.end {
            return Poll::Ready(());
        }
        let waker = &mut self.deadlines.table.borrow_mut().entries[self.index].waker;
        match waker {
            Some(kept) => kept.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        let mut table = self.deadlines.table.borrow_mut();
        let waker = table.entries[self.index].waker.take();
        table.entries[self.index].end = Duration::MAX;
        table.free.push(self.index);
        drop(table);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_end_is_told_once_it_has_come_and_places_are_used_again() {
        let deadlines = Deadlines::default();
        let context = Context::from_waker(Waker::noop());
        let deadline = deadlines.start(SECOND);
        assert_eq!(deadline.poll(Duration::ZERO, &context), Poll::Pending);
        deadlines.tell(SECOND / 2);
        assert!(deadlines.table.borrow().entries[0].waker.is_some());
        deadlines.tell(SECOND);
        assert!(deadlines.table.borrow().entries[0].waker.is_none(), "woken");
        assert_eq!(deadline.poll(SECOND, &context), Poll::Ready(()));
        drop(deadline);
        let again = deadlines.start(2 * SECOND);
        assert_eq!((again.index, deadlines.table.borrow().entries.len()), (0, 1));
    }
}
