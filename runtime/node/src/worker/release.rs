//! What waits until the log is on disk: acknowledgements, outputs, replies.
//!
//! - Each worker has one of these. What it holds is let go in the order of the log, by one wake for
//!   each sync, whatever is in it.
//! - Nothing is let go before its record is synced. If the log fails, what waits is dropped, and
//!   whoever waited is told that it is not known.
//! - It is bounded by what the log lets wait to be written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use sluicebox_store::log::{Health, Log, Position};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::mailbox::Mailbox;

/// What is done when a record is on disk.
type Act = Box<dyn FnOnce()>;

/// See the module.
pub(crate) struct Releases {
    log: Arc<dyn Log>,
    waiting: RefCell<VecDeque<(Position, Act)>>,
    /// Partitions whose commit the log refused for want of room.
    blocked: RefCell<Vec<Arc<Mailbox>>>,
}

impl fmt::Debug for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releases").field("waiting", &self.waiting.borrow().len()).finish()
    }
}

impl Releases {
    pub(crate) fn new(log: Arc<dyn Log>) -> Rc<Self> {
        Rc::new(Self { log, waiting: RefCell::default(), blocked: RefCell::default() })
    }

    /// Does something when the record at `position` is on disk.
    pub(crate) fn after(&self, position: Position, act: impl FnOnce() + 'static) {
        if self.waiting.borrow().is_empty() && position < self.log.synced() {
            act();
            return;
        }
        self.waiting.borrow_mut().push_back((position, Box::new(act)));
    }

    /// Waits until the record at `position` is on disk.
    ///
    /// # Errors
    /// [`Error::LogFailed`]: it may be there or not.
    pub(crate) async fn synced(&self, position: Position) -> Result<(), Error> {
        let (tell, told) = oneshot::channel();
        self.after(position, move || {
            // A client that went away does not want to know.
            let _gone = tell.send(());
        });
        told.await.map_err(|_| Error::LogFailed)
    }

    /// Schedules a partition when the log may have room again.
    pub(crate) fn when_room(&self, mailbox: &Arc<Mailbox>) {
        self.blocked.borrow_mut().push(mailbox.clone());
    }

    /// Lets go what may go, for as long as the log lives. Runs on the worker's own thread.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut progress = self.log.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            self.release(now.synced);
            if now.health == Health::Failed {
                self.waiting.borrow_mut().clear();
            }
            for mailbox in self.blocked.take() {
                mailbox.schedule();
            }
            if progress.changed().await.is_err() {
                self.waiting.borrow_mut().clear();
                return;
            }
        }
    }

    fn release(&self, synced: Position) {
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some((_, act)) = waiting.pop_front_if(|(position, _)| *position < synced) else {
                return;
            };
            // What is done may add to what waits.
            drop(waiting);
            act();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use sluicebox_store::log::{Class, MemoryLog};

    use super::*;

    #[tokio::test]
    async fn nothing_goes_before_its_record_is_on_disk_and_all_goes_in_order() {
        let log = Arc::new(MemoryLog::new(Default::default()));
        let releases = Releases::new(log.clone());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let local = tokio::task::LocalSet::new();
        local.spawn_local(releases.clone().run());
        let at: Vec<Position> =
            (0..3).map(|n| log.append(Class::Commit, 1, &[&[n]]).expect("room")).collect();
        for (n, position) in at.iter().enumerate() {
            let seen = seen.clone();
            releases.after(*position, move || seen.borrow_mut().push(n));
        }
        let told = Rc::new(Cell::new(false));
        local
            .run_until(async {
                releases.synced(at[2]).await.expect("synced");
                told.set(true);
            })
            .await;
        assert!(told.get());
        assert_eq!(*seen.borrow(), [0, 1, 2]);
    }
}
