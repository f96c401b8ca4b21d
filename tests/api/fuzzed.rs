//! The published description against requests that a fuzzer makes of it: whatever is sent, no
//! answer is an error inside the node, and each has a status, a media type, headers and a body
//! that the description knows; what breaks the description is refused; nothing is given without a
//! token.
//!
//! What is asked for, and what is not held against the node and why, is in
//! `fuzzed/schemathesis.toml`; bodies and stricter checks are in `fuzzed/hooks.py`. Time is
//! bounded, and choices follow from a seed; `SLUICEBOX_FUZZ_SECONDS` and `SLUICEBOX_SEED` set
//! others.

use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};
use sluicebox_tests::schemathesis::Fuzzer;
use sluicebox_tests::{events, guests, root};

use super::ECHO;

/// What the fuzzer finds on a node: pipelines and components by the names its settings have.
async fn with_something_in_it(client: &Client) {
    client.push(ECHO).await;
    for name in ["kept", "spare"] {
        client.apply(name, single(name, "echo", "")).await;
    }
    let lasting = single("lasting", "echo", "").replace("best-effort", "exactly-once");
    client.apply("lasting", lasting).await;
    client.send("kept", "", &[("sluicebox-key", "k")], "x").await.is(202);
}

/// What it may send: a manifest, a component and a frame that are good.
fn fuzzer(node: &Node) -> Fuzzer {
    let frame = events::frame(&[events::Given::new("k", "x")]);
    Fuzzer::new(&node.url(), &root().join("tests/api/fuzzed"))
        .with("manifest.toml", single("spare", "echo", "").as_bytes())
        .with("component.wasm", &guests::bytes(ECHO))
        .with("frame", frame.bytes())
}

#[tokio::test]
async fn whatever_is_sent_is_answered_as_described() {
    let node = Setup::dev().start().await;
    with_something_in_it(&node.client()).await;
    // In development mode there is nothing to be ignored.
    fuzzer(&node).finds_nothing(&["--exclude-checks", "ignored_auth"]);
}

#[tokio::test]
async fn nothing_is_given_without_a_token() {
    let node = Setup::tenants(&["dev"]).start().await;
    with_something_in_it(&node.client()).await;
    let token = format!("Authorization: Bearer {}", node.token("dev"));
    fuzzer(&node).finds_nothing(&["--header", &token]);
}
