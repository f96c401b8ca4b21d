//! Interfaces of WASI in place of our own, through the real program: what a component that knows
//! nothing but them is given, and what it is refused.
//!
//! Leaves to others: that what it keeps outlives a kill (`durable/portable.rs`).

#[path = "wasi/config.rs"]
mod config;
#[path = "wasi/http.rs"]
mod http;
#[path = "wasi/keyvalue.rs"]
mod keyvalue;
#[path = "wasi/server.rs"]
mod server;

use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

/// The guest's name, and the pipeline's.
const WASI: &str = "wasi";

/// A grant of two buckets.
const BUCKETS: &str = "grants = { keyvalue = { buckets = [\"counts\", \"seen\"] } }";

/// A node with the guest as the one stage of a pipeline, of which the manifest says `more`.
async fn with(more: &str) -> (Node, Client) {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(WASI).await;
    client.apply(WASI, single(WASI, WASI, more)).await;
    (node, client)
}

/// What is answered to a command.
async fn say(client: &Client, key: &str, command: &str) -> String {
    client.call(WASI, key, command.to_owned()).await.is(200).text().to_owned()
}
