//! Waiting for what will be true soon, with a bound.
//!
//! Polls; the pause between two looks grows, so that a quick thing is seen quickly and a slow one
//! does not keep the machine busy.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// A bound for things that take milliseconds on an idle machine. Generous, because the machine is
/// often not idle; it costs time only where something is broken.
pub const SOON: Duration = Duration::from_secs(30);

const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// Looks until there is something, at most for `bound`. Panics with `what` if there never is.
pub async fn eventually<T, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + bound;
    let mut pause = PAUSE_FIRST;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Looks until `look` gives `expected`, at most for `bound`. Panics with what it gave last.
pub async fn eventually_equal<T: PartialEq + Debug, F: Future<Output = T>>(
    expected: T,
    bound: Duration,
    mut look: impl FnMut() -> F,
) {
    let end = Instant::now() + bound;
    let mut pause = PAUSE_FIRST;
    loop {
        let found = look().await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < end, "not within {bound:?}: {found:#?} is not {expected:#?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}
