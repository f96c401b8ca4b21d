//! The load: how requests are sent, and what is noted of the replies.
//!
//! Two kinds. A closed loop has a number of connections that each send the next request when the
//! reply to the last is there: it finds what a server can do. An open loop sends at given times
//! whatever the server does, and counts the time from when a request was due: it finds what a
//! client would see.

mod pour;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::client::{Client, Reply};
use crate::histogram::Histogram;
pub use pour::{Pour, Poured, Until, pour};
pub use stream::{Flow, Flown, flow};

/// Requests that are sent again and again.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Where to.
    pub address: SocketAddr,
    /// The whole requests, in turn; there is at least one.
    pub requests: Vec<Bytes>,
    /// The status of a good reply.
    pub status: u16,
    /// Connections at once.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
}

/// What came of many requests.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Time from sending, or from when it was due, to the reply.
    pub latency: Histogram,
    /// Good replies with another body than the first one.
    pub odd: u64,
    /// When each good reply came.
    pub moments: Vec<Instant>,
    /// From the first request to the last reply.
    pub elapsed: Duration,
}

impl Answers {
    /// Good replies a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends a request from each connection as soon as its last reply is there.
///
/// # Errors
/// A connection broke, or a reply had another status.
pub async fn closed_loop(asking: &Asking) -> Result<Answers> {
    let begun = Instant::now();
    let end = begun + asking.time;
    drive(asking, begun, || {
        let now = Instant::now();
        (now < end).then_some(now)
    })
    .await
}

/// Sends `rate` requests a second, spread over the connections; a request is late if all of them
/// are taken.
///
/// # Errors
/// As [`closed_loop`].
pub async fn open_loop(asking: &Asking, rate: f64) -> Result<Answers> {
    let begun = Instant::now();
    let end = begun + asking.time;
    let sent = Cell::new(0_u64);
    drive(asking, begun, || {
        let due = begun + Duration::from_secs_f64(sent.get() as f64 / rate);
        sent.set(sent.get() + 1);
        (due < end).then_some(due)
    })
    .await
}

/// Runs the connections until `next` has no more times at which a request is due.
async fn drive(
    asking: &Asking,
    begun: Instant,
    next: impl Fn() -> Option<Instant>,
) -> Result<Answers> {
    let answers = RefCell::new(Answers::default());
    let first = RefCell::new(None::<Vec<u8>>);
    let turn = Cell::new(0);
    let connection = || async {
        let mut client = Client::connect(asking.address).await?;
        while let Some(due) = next() {
            wait_until(due).await;
            let at = turn.replace(turn.get() + 1);
            let reply = client.ask(&asking.requests[at % asking.requests.len()]).await?;
            let now = Instant::now();
            ensure!(reply.status == asking.status, reply.unexpected());
            let mut answers = answers.borrow_mut();
            answers.latency.add(now.saturating_duration_since(due));
            answers.moments.push(now);
            answers.odd += u64::from(is_odd(&first, &reply));
        }
        Ok(())
    };
    all((0..asking.connections).map(|_| connection())).await?;
    let mut answers = answers.into_inner();
    answers.elapsed = begun.elapsed();
    Ok(answers)
}

fn is_odd(first: &RefCell<Option<Vec<u8>>>, reply: &Reply<'_>) -> bool {
    let mut first = first.borrow_mut();
    first.get_or_insert_with(|| reply.body.to_vec()) != reply.body
}

/// Runs futures side by side until all are done or one has failed.
///
/// # Errors
/// The first failure.
pub async fn all<F: Future<Output = Result<()>>>(futures: impl Iterator<Item = F>) -> Result<()> {
    let open: FuturesUnordered<_> = futures.collect();
    open.try_collect().await
}

/// Waits until a moment, to the microsecond: timers are too coarse for that, so the last bit is
/// spent looking at the clock between looks at the connections.
pub async fn wait_until(due: Instant) {
    const COARSE: Duration = Duration::from_millis(2);
    let early = due.saturating_duration_since(Instant::now());
    if early > COARSE {
        tokio::time::sleep(early - COARSE).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}
