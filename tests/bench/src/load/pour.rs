//! Events in, and nothing read: for a pipeline whose work is seen in a figure of the node.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;

use super::all;
use crate::client::{Client, with_body};
use crate::events::Batch;
use crate::node::Tenant;

/// How long a sender leaves a node alone that said it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// When sending ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All batches were sent once.
    Sent,
    /// The time is over; batches are sent in turn.
    Over(Duration),
}

/// What is sent, and where.
#[derive(Debug, Clone)]
pub struct Pour<'a> {
    /// The node.
    pub address: SocketAddr,
    /// On whose behalf.
    pub tenant: &'a Tenant,
    /// To which pipeline.
    pub pipeline: &'a str,
    /// The bodies: packed frames.
    pub batches: &'a [Batch],
    /// Connections that send.
    pub connections: usize,
    /// When it ends.
    pub until: Until,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Poured {
    /// Events that were accepted.
    pub events: u64,
    /// Requests that were told to come again.
    pub refused: u64,
}

/// Sends events and waits until each request was accepted.
///
/// # Errors
/// A connection broke, or the node refused for another reason than being busy.
pub async fn pour(pour: &Pour<'_>) -> Result<Poured> {
    let path = pour.tenant.path(&format!("pipelines/{}/events", pour.pipeline));
    let mut headers = pour.tenant.headers();
    headers.push(("content-type", "application/vnd.sluicebox.frame"));
    let request = |batch: &Batch| with_body("POST", &path, &headers, &batch.body);
    let requests: Vec<Bytes> = pour.batches.iter().map(request).collect();
    let (turn, poured) = (Cell::new(0), RefCell::new(Poured::default()));
    let begun = Instant::now();
    let next = || {
        let at = turn.replace(turn.get() + 1);
        match pour.until {
            Until::Sent => (at < requests.len()).then_some(at),
            Until::Over(time) => (begun.elapsed() < time).then_some(at % requests.len()),
        }
    };
    let sender = || async {
        let mut client = Client::connect(pour.address).await?;
        while let Some(at) = next() {
            while !accepted(&mut client, pour.address, &requests[at]).await? {
                poured.borrow_mut().refused += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            poured.borrow_mut().events += pour.batches[at].tally.events;
        }
        Ok(())
    };
    all((0..pour.connections).map(|_| sender())).await?;
    Ok(poured.into_inner())
}

/// Sends one request. False if the node is busy.
async fn accepted(client: &mut Client, address: SocketAddr, request: &[u8]) -> Result<bool> {
    let reply = client.ask(request).await?;
    match reply.status {
        202 => return Ok(true),
        429 | 503 => {}
        _ => return Err(reply.unexpected().into()),
    }
    if reply.closes() {
        *client = Client::connect(address).await?;
    }
    Ok(false)
}
