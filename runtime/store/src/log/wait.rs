//! Waiting for a sync on a plain thread.
//!
//! A subscription is a future; a thread without a runtime polls it with a waker that unparks it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::{Health, Position, Subscription};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks until the record that begins at `position` is synced; `None` if that cannot happen.
pub(super) fn until_synced(mut subscription: Subscription, position: Position) -> Option<()> {
    loop {
        let progress = *subscription.borrow_and_update();
        if position < progress.synced {
            return Some(());
        }
        if progress.health == Health::Failed {
            return None;
        }
        // The other end is dropped when the log ends.
        block_on(subscription.changed()).ok()?;
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        // A wake between the poll and here is kept by the thread's token.
        thread::park();
    }
}
