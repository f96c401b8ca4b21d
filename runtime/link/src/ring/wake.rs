//! Who sleeps says so in the memory, and is woken once what it waits for is there.
//!
//! The same both ways: a reader sleeps for a head, a writer for a tail. One end stores a position,
//! then looks whether the other sleeps; the other stores that it sleeps, then looks at the
//! position. A fence of one total order stands between the two steps at both ends, so that at
//! least one of them sees what the other did, and no wake-up is lost: the tests try every order.
//!
//! A wake-up may come that nobody needs. Whoever wakes looks again.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word that two ends share; another one where every order is tried.
pub(super) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fence();
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Awake. Nobody sleeps for position 0, where everything begins.
const AWAKE: u64 = 0;

/// Says how far this end has come. True if the other end sleeps for that: then it is to be woken,
/// and nobody else will do it.
pub(super) fn publish<W: Word>(position: &W, now: u64, sleeper: &W) -> bool {
    // What was written before is there for whoever sees the position.
    position.store(now, Ordering::Release);
    W::fence();
    let waits_for = sleeper.load(Ordering::Relaxed);
    if waits_for == AWAKE || waits_for > now {
        return false;
    }
    // It may have woken by itself and sleep again for more. Then it is woken for nothing, and says
    // again what it waits for.
    sleeper.store(AWAKE, Ordering::Relaxed);
    true
}

/// Says that this end will sleep until the other has come so far, above 0. Gives how far it is: if
/// that is enough, this end stays awake and says so by [`wake_up`].
pub(super) fn lie_down<W: Word>(sleeper: &W, waits_for: u64, position: &W) -> u64 {
    sleeper.store(waits_for, Ordering::Relaxed);
    W::fence();
    position.load(Ordering::Acquire)
}

/// Says that this end is awake.
pub(super) fn wake_up<W: Word>(sleeper: &W) {
    sleeper.store(AWAKE, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
