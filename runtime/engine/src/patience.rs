//! A bound on how long a call may wait, that does not count the time it runs or queues for a slice.
//!
//! A call that is pending and was woken at once has used its slice and queues for the next: that
//! is the scheduler's business. One that is pending and was not woken waits for something, a clock
//! for example, and that must end. Each wait has the whole bound.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Sleep;

/// The call waited for too long and was abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfPatience;

/// Passes a wake on and remembers it. One for each instance, used again.
#[derive(Debug)]
pub(crate) struct Patience {
    witness: Arc<Witness>,
    /// The witness as a waker.
    waker: Waker,
}

impl Patience {
    pub(crate) fn new() -> Self {
        let inner = Mutex::new(Waker::noop().clone());
        let witness = Arc::new(Witness { woken: AtomicBool::new(false), inner });
        Self { waker: Waker::from(witness.clone()), witness }
    }
}

#[derive(Debug)]
struct Witness {
    woken: AtomicBool,
    inner: Mutex<Waker>,
}

impl Witness {
    fn point_at(&self, waker: &Waker) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.will_wake(waker) {
            inner.clone_from(waker);
        }
        self.woken.store(false, Ordering::Relaxed);
    }
}

impl Wake for Witness {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

/// Runs `call`, at most `bound` in any one wait.
pub(crate) async fn bounded<F: Future>(
    patience: &Patience,
    bound: Duration,
    call: F,
) -> Result<F::Output, OutOfPatience> {
    let mut call = pin!(call);
    let mut wait: Option<Pin<Box<Sleep>>> = None;
    let Patience { witness, waker } = patience;
    std::future::poll_fn(|cx| {
        witness.point_at(cx.waker());
        if let Poll::Ready(output) = call.as_mut().poll(&mut Context::from_waker(waker)) {
            return Poll::Ready(Ok(output));
        }
        if witness.woken.load(Ordering::Relaxed) {
            wait = None;
            return Poll::Pending;
        }
        let wait = wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(bound)));
        wait.as_mut().poll(cx).map(|()| Err(OutOfPatience))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pending `times`, woken at once each time.
    async fn slices(times: usize) {
        let mut left = times;
        std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn slices_cost_no_patience_and_waits_do() {
        let patience = Patience::new();
        // No bound at all, and yet a call that only queues for its slices gets to its end.
        assert_eq!(bounded(&patience, Duration::ZERO, slices(1000)).await, Ok(()));
        let hour = Duration::from_secs(3600);
        let short = tokio::time::sleep(Duration::from_millis(1));
        assert_eq!(bounded(&patience, hour, short).await, Ok(()));
        let forever = std::future::pending::<()>();
        let bound = Duration::from_millis(1);
        assert_eq!(bounded(&patience, bound, forever).await, Err(OutOfPatience));
    }
}
