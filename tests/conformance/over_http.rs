//! The same cases through the real program, as far as a producer can send them: frames in, outputs
//! and dead letters out.
//!
//! Each case is a pipeline of one partition. Behind each step a client waits for the result of an
//! event with a key of its own, so that steps do not run together and all of a case is there when
//! it is read.

use std::fmt::Write as _;

use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Dead, Given, Out, frame};
use sluicebox_tests::manifest::of_spec;
use sluicebox_tests::node::Setup;
use sluicebox_tests::rig::{PORTS, Rig};

use super::cases::{Case, Step, cases};

/// Key of the events that only show that what was sent before them is done.
const BARRIER: &str = "barrier";

/// True for what a producer can send: an event without a key would be given one.
fn is_sendable(case: &Case) -> bool {
    let sendable = |step: &Step| match step {
        Step::Handle { given, .. } => given.iter().all(|given| !given.key.is_empty()),
        Step::Clock { .. } | Step::Ends { .. } | Step::Fires { .. } => false,
    };
    case.sendable && case.steps.iter().all(sendable)
}

async fn conforms(guest: &str) {
    // Compiled by whoever comes first, and then not again.
    drop(Rig::new(env!("CARGO_BIN_EXE_sluicebox-tests-compile")).guest(guest).await);
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(guest).await;
    let mut complaints = String::new();
    let mut checked = 0;
    for case in cases().iter().filter(|case| is_sendable(case)) {
        let pipeline = format!("case-{checked}");
        client.apply(&pipeline, of_spec(&pipeline, guest, &case.spec)).await;
        if let Err(complaint) = run(&client, &pipeline, case).await {
            writeln!(complaints, "- {}: {complaint}", case.name).expect("text takes all");
        }
        client.delete(&format!("pipelines/{pipeline}")).await.is(204);
        checked += 1;
    }
    assert!(checked > 15, "the table has lost its cases: {checked}");
    assert!(complaints.is_empty(), "{guest} does not conform over HTTP:\n{complaints}");
}

async fn run(client: &Client, pipeline: &str, case: &Case) -> Result<(), String> {
    let (mut outputs, mut dead) = (Vec::new(), Vec::new());
    for step in &case.steps {
        let Step::Handle { given, expected } = step else { continue };
        send(client, pipeline, given).await;
        outputs.extend(expected.outputs.iter().cloned());
        dead.extend(expected.dead.iter().cloned());
    }
    // Each port is an output, and each output is in order.
    outputs.sort_by_key(|out| out.port);
    let mut found = Vec::new();
    for port in 0..PORTS {
        let source = format!("outputs/p{port}");
        found.extend(client.events(pipeline, &source, |e| Out::read(port, e)).await);
    }
    // A barrier opens a stream as any event does, and a stream says so.
    found.retain(|out: &Out| !out.payload.ends_with(BARRIER.as_bytes()));
    if found != outputs {
        return Err(format!("outputs\n    {found:?}\n  expected\n    {outputs:?}"));
    }
    let found: Vec<Dead> = client.events(pipeline, "dead-letters", Dead::read).await;
    let alike = |(found, expected): (&Dead, &Dead)| {
        let message = match found.class.as_str() {
            "trap" | "stream.lost" => found.message.contains(&expected.message),
            _ => found.message == expected.message,
        };
        let message = if message { expected.message.clone() } else { found.message.clone() };
        Dead { message, ..found.clone() } == *expected
    };
    if found.len() != dead.len() || !found.iter().zip(&dead).all(alike) {
        return Err(format!("dead letters\n    {found:?}\n  expected\n    {dead:?}"));
    }
    Ok(())
}

async fn send(client: &Client, pipeline: &str, given: &[Given]) {
    let reply = client.frame(pipeline, &frame(given)).await.is(202).json();
    assert_eq!(reply["accepted"], given.len(), "{reply}");
    client.call(pipeline, BARRIER, "n\0").await.is(204);
}

#[tokio::test]
async fn rust_conforms_over_http() {
    conforms("conformance-rust").await;
}

#[tokio::test]
async fn go_conforms_over_http() {
    conforms("conformance-go").await;
}

#[tokio::test]
async fn python_conforms_over_http() {
    conforms("conformance-python").await;
}
