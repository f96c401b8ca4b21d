//! Events in at one end and out at the other: batches are sent, an output is read, both at once.
//!
//! - Every event that was accepted must come out, and with it its mark; the clock stops when the
//!   last one has.
//! - The senders stay at most a window ahead of the reader, so that the output's ring never drops
//!   what nobody has read yet.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::sync::Notify;

use super::all;
use crate::client::{Client, get, with_body};
use crate::events::{Batch, Tally, count_frames, count_lines};
use crate::histogram::Histogram;
use crate::node::Tenant;

/// How long a sender leaves a node alone that said it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Events that may not come within this time after the last was sent never will.
const STALL: Duration = Duration::from_secs(10);

/// What flows, and how.
#[derive(Debug, Clone)]
pub struct Flow<'a> {
    /// The node.
    pub address: SocketAddr,
    /// On whose behalf.
    pub tenant: &'a Tenant,
    /// Through which pipeline.
    pub pipeline: &'a str,
    /// Out by which output.
    pub output: &'a str,
    /// The bodies, in turn.
    pub batches: &'a [Batch],
    /// What the bodies are.
    pub content_type: &'a str,
    /// The output is read as packed frames, and marks are compared; else as lines.
    pub frames_out: bool,
    /// Connections that send.
    pub connections: usize,
    /// Events sent and not read yet, at most.
    pub window: u64,
    /// For how long events are sent.
    pub time: Duration,
}

/// What flowed.
#[derive(Debug, Clone, Default)]
pub struct Flown {
    /// Events that went through.
    pub events: u64,
    /// From the first event sent to the last one read.
    pub elapsed: Duration,
    /// Requests that were told to come again.
    pub refused: u64,
    /// Time from sending a batch to its reply.
    pub latency: Histogram,
    /// When each batch that was accepted was said to be.
    pub moments: Vec<Instant>,
    /// Pages read.
    pub pages: u64,
}

impl Flown {
    /// Events a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }
}

/// What senders and reader share.
#[derive(Default)]
struct Shared {
    /// Events sent, less those of refused requests.
    sent: Cell<u64>,
    accepted: RefCell<Tally>,
    read: RefCell<Tally>,
    /// The reader has made room.
    room: Notify,
    senders: Cell<usize>,
    refused: Cell<u64>,
    pages: Cell<u64>,
    latency: RefCell<Histogram>,
    moments: RefCell<Vec<Instant>>,
}

/// Lets events flow and waits until all that were accepted have come out.
///
/// # Errors
/// A connection broke, the node refused for another reason than being busy, or what came out is
/// not what went in.
pub async fn flow(flow: &Flow<'_>) -> Result<Flown> {
    let shared = Shared::default();
    shared.senders.set(flow.connections);
    let path = format!("pipelines/{}/events", flow.pipeline);
    let requests: Vec<Bytes> = flow
        .batches
        .iter()
        .map(|batch| {
            let mut headers = flow.tenant.headers();
            headers.push(("content-type", flow.content_type));
            with_body("POST", &flow.tenant.path(&path), &headers, &batch.body)
        })
        .collect();
    let mut reader = Client::connect(flow.address).await?;
    // What earlier flows left in the ring is not ours.
    let (cursor, _) = page(flow, &mut reader, "cursor=latest").await?;
    let begun = Instant::now();
    let end = begun + flow.time;
    let senders = all((0..flow.connections).map(|number| {
        let sender = Sender { flow, shared: &shared, requests: &requests, end };
        sender.run(number)
    }));
    let read = Box::pin(read(flow, &shared, reader, cursor));
    let ((), last) = tokio::try_join!(senders, read)?;
    let (accepted, came) = (*shared.accepted.borrow(), *shared.read.borrow());
    ensure!(
        accepted.events == came.events,
        "{} events went in, {} came out",
        accepted.events,
        came.events
    );
    if flow.frames_out {
        ensure!(accepted.marks == came.marks || flow.marks_change(), "events came out changed");
    }
    Ok(Flown {
        events: came.events,
        elapsed: last - begun,
        refused: shared.refused.get(),
        latency: shared.latency.into_inner(),
        moments: shared.moments.into_inner(),
        pages: shared.pages.get(),
    })
}

impl Flow<'_> {
    /// The stages change payloads, so marks say nothing: batches without marks.
    fn marks_change(&self) -> bool {
        self.batches.iter().all(|batch| batch.tally.marks == 0)
    }
}

struct Sender<'a> {
    flow: &'a Flow<'a>,
    shared: &'a Shared,
    requests: &'a [Bytes],
    end: Instant,
}

impl Sender<'_> {
    async fn run(self, number: usize) -> Result<()> {
        let sent = self.send(number).await;
        self.shared.senders.set(self.shared.senders.get() - 1);
        sent
    }

    async fn send(&self, number: usize) -> Result<()> {
        let shared = self.shared;
        let mut client = Client::connect(self.flow.address).await?;
        let mut at = number;
        while Instant::now() < self.end {
            let batch = self.flow.batches[at % self.requests.len()].tally;
            self.window(batch.events).await;
            let begun = Instant::now();
            let reply = client.ask(&self.requests[at % self.requests.len()]).await?;
            match reply.status {
                202 => {
                    shared.accepted.borrow_mut().join(batch);
                    shared.latency.borrow_mut().add(begun.elapsed());
                    shared.moments.borrow_mut().push(Instant::now());
                    at += self.flow.connections;
                }
                429 | 503 => {
                    shared.sent.set(shared.sent.get() - batch.events);
                    shared.refused.set(shared.refused.get() + 1);
                    if reply.closes() {
                        client = Client::connect(self.flow.address).await?;
                    }
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                _ => return Err(reply.unexpected().into()),
            }
        }
        Ok(())
    }

    /// Waits until so many more events may be sent, and counts them as sent.
    async fn window(&self, events: u64) {
        let shared = self.shared;
        while shared.sent.get() + events > shared.read.borrow().events + self.flow.window {
            // All on one thread: nothing can happen between the look and the wait.
            shared.room.notified().await;
        }
        shared.sent.set(shared.sent.get() + events);
    }
}

/// Reads the output until the senders have ended and everything is there. Gives the moment the last
/// event came.
async fn read(
    flow: &Flow<'_>,
    shared: &Shared,
    mut client: Client,
    mut cursor: String,
) -> Result<Instant> {
    let mut last = Instant::now();
    while shared.senders.get() > 0 || shared.read.borrow().events < shared.accepted.borrow().events
    {
        let query = format!("wait=100ms&cursor={cursor}");
        let (next, tally) = page(flow, &mut client, &query).await?;
        cursor = next;
        if tally.events > 0 {
            last = Instant::now();
            shared.pages.set(shared.pages.get() + 1);
            shared.read.borrow_mut().join(tally);
            shared.room.notify_waiters();
        }
        ensure!(last.elapsed() < STALL, "events went in and did not come out");
    }
    Ok(last)
}

/// Reads one page: where to go on, and what it held.
async fn page(flow: &Flow<'_>, client: &mut Client, query: &str) -> Result<(String, Tally)> {
    let path = format!("pipelines/{}/outputs/{}?{query}", flow.pipeline, flow.output);
    let mut headers = flow.tenant.headers();
    if flow.frames_out {
        headers.push(("accept", "application/vnd.sluicebox.frame"));
    }
    let reply = client.ask(&get(&flow.tenant.path(&path), &headers)).await?;
    ensure!(reply.status == 200, reply.unexpected());
    let tally = if flow.frames_out { count_frames(reply.body)? } else { count_lines(reply.body) };
    let cursor = reply.header("sluicebox-cursor").context("a page without a cursor")?;
    Ok((cursor.to_owned(), tally))
}
