//! The HTTP interface of the real program: what it promises, and what bad input gets.
//!
//! - Tests of one kind share a node and keep apart by the names of their pipelines; a test that
//!   stops its node, or needs it set up in its own way, starts one of its own.
//! - Every wait has a bound; nothing is asserted about how fast something is.
//!
//! Leaves to others: what single functions of the edge do with odd bytes (their own tests), what a
//! stage may do (`hostile`, `conformance`), the command (`cli`).

#[path = "api/clients.rs"]
mod clients;
#[path = "api/cloudevents.rs"]
mod cloudevents;
#[path = "api/coding.rs"]
mod coding;
#[path = "api/failures.rs"]
mod failures;
#[path = "api/figures.rs"]
mod figures;
#[path = "api/follow.rs"]
mod follow;
#[path = "api/fuzzed.rs"]
mod fuzzed;
#[path = "api/ingest.rs"]
mod ingest;
#[path = "api/lifecycle.rs"]
mod lifecycle;
#[path = "api/logs.rs"]
mod logs;
#[path = "api/manifests.rs"]
mod manifests;
#[path = "api/openapi.rs"]
mod openapi;
#[path = "api/outputs.rs"]
mod outputs;
#[path = "api/stages.rs"]
mod stages;
#[path = "api/streams.rs"]
mod streams;
#[path = "api/tenancy.rs"]
mod tenancy;
#[path = "api/time.rs"]
mod time;
#[path = "api/tls.rs"]
mod tls;
#[path = "api/traces.rs"]
mod traces;
#[path = "api/uploads.rs"]
mod uploads;

use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Lent, Setup, Shared};

/// A node in development mode with the usual limits.
static NODE: Shared = Shared::new(Setup::dev);

/// The guest that echoes events.
const ECHO: &str = "hostile/echo";
/// The guest that does what the first byte of an event says.
const OBEYS: &str = "conformance-rust";

/// The shared node with a pipeline of one stage.
async fn with(name: &str, guest: &str, more: &str) -> (Lent, Client) {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(guest).await;
    let component = guest.rsplit('/').next().expect("a name");
    client.apply(name, single(name, component, more)).await;
    (node, client)
}
