//! One suite over both worlds and every language: what `tests/guests/CONFORMANCE.md` says, each
//! guest must do, and all of them alike.
//!
//! - The table in `conformance/cases.rs` is the only statement of what is expected; nothing in it
//!   depends on the guest, but that one without a clock emits nothing for `w`, and one that does
//!   not import timers is not asked for them.
//! - Each case runs in the engine, driven by the machine of a partition; those that need nothing
//!   but what a producer can send also run through a whole node, over HTTP.
//! - A guest that fails some cases is shown all of them at once.

#[path = "conformance/cases.rs"]
mod cases;
#[path = "conformance/over_http.rs"]
mod over_http;

use std::fmt::Write as _;

use cases::{Case, Expected, Step, cases};
use sluicebox_engine::component::World;
use sluicebox_tests::events::{self, frame};
use sluicebox_tests::rig::{Batch, Guest, Rig};

/// What the guests see as wall clock in the first step; a second later with each further one.
const NOW: u64 = 1_800_000_000_000_000;
const SECOND: u64 = 1_000_000;

async fn conforms(name: &str, world: World) {
    let rig = Rig::new(env!("CARGO_BIN_EXE_sluicebox-tests-compile"));
    let guest = rig.guest(name).await;
    assert_eq!(guest.inspection.world, world);
    let has_clock =
        guest.inspection.imports.iter().any(|i| i.starts_with("wasi:clocks/wall-clock"));
    let mut complaints = String::new();
    let mut checked = 0;
    let has_timers =
        guest.inspection.imports.iter().any(|i| i.starts_with("sluicebox:stage/timers"));
    for case in cases().into_iter().filter(|case| has_timers || !case.timers) {
        for (number, complaint) in run(&rig, &guest, &case, has_clock).await {
            writeln!(complaints, "- {}, step {number}: {complaint}", case.name)
                .expect("text takes all one writes");
        }
        checked += 1;
    }
    assert!(checked > 20, "the table has lost its cases");
    assert!(complaints.is_empty(), "{name} does not conform:\n{complaints}");
}

/// Runs one case; gives what was not as expected, by step.
async fn run(rig: &Rig, guest: &Guest, case: &Case, has_clock: bool) -> Vec<(usize, String)> {
    let mut chain = rig.stage(guest, &case.spec);
    let mut complaints = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let now = NOW + number as u64 * SECOND;
        let (batch, expected) = match step {
            Step::Handle { given, expected } => {
                (chain.batch(frame(given), now).await, expected.clone())
            }
            Step::Clock { given } => {
                let outputs = cases::clock(given, has_clock.then_some(now));
                let expected = Expected { outputs, ..Expected::default() };
                (chain.batch(frame(given), now).await, expected)
            }
            Step::Fires { watermark, after, expected } => {
                let fired = chain.fires(*watermark, now + after).await;
                (fired.unwrap_or_default(), expected.clone())
            }
            Step::Ends { after, expected } => {
                let ended = chain.ends(now + after).await;
                (ended.unwrap_or_default(), expected.clone())
            }
        };
        complaints.extend(compare(&batch, &expected).into_iter().map(|text| (number, text)));
    }
    complaints
}

fn compare(batch: &Batch, expected: &Expected) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |what: &str, found: String, expected: String| {
        if found != expected {
            complaints.push(format!("{what}\n    {found}\n  expected\n    {expected}"));
        }
    };
    let commit = batch.commit.clone();
    let found = commit.as_ref().map(events::outputs).unwrap_or_default();
    let mut outputs = expected.outputs.clone();
    outputs.sort_by_key(|out| out.port);
    check("outputs", format!("{found:?}"), format!("{outputs:?}"));
    let found = commit.as_ref().map(events::dead).unwrap_or_default();
    let dead: Vec<_> = found.iter().map(|dead| (&dead.key, &dead.payload, &dead.class)).collect();
    let wanted: Vec<_> =
        expected.dead.iter().map(|dead| (&dead.key, &dead.payload, &dead.class)).collect();
    check("dead letters", format!("{dead:?}"), format!("{wanted:?}"));
    for (dead, wanted) in found.iter().zip(&expected.dead) {
        // The words of a trap come from the engine and the language; the rest is the guest's own.
        let alike = match dead.class.as_str() {
            "trap" | "stream.lost" => dead.message.contains(&wanted.message),
            _ => dead.message == wanted.message,
        };
        if !alike {
            check("message", dead.message.clone(), wanted.message.clone());
        }
    }
    // Before it traps, a language may say why on standard error.
    if batch.calls.iter().all(|call| call.trap.is_none()) {
        check("log", format!("{:?}", batch.lines), format!("{:?}", expected.lines));
    }
    check("lines dropped", batch.lines_dropped.to_string(), expected.lines_dropped.to_string());
    check("metrics", format!("{:?}", batch.metrics), format!("{:?}", expected.metrics));
    let (found, wanted) = (batch.metrics_dropped, expected.metrics_dropped);
    check("metrics dropped", found.to_string(), wanted.to_string());
    check("halt", format!("{:?}", batch.halted), format!("{:?}", expected.halted));
    complaints
}

#[tokio::test]
async fn rust_in_the_framed_world_conforms() {
    conforms("conformance-rust", World::Framed).await;
}

#[tokio::test]
async fn rust_in_the_typed_world_conforms() {
    conforms("conformance-typed", World::Typed).await;
}

#[tokio::test]
async fn c_conforms() {
    conforms("conformance-c", World::Framed).await;
}

#[tokio::test]
async fn go_conforms() {
    conforms("conformance-go", World::Framed).await;
}

#[tokio::test]
async fn python_conforms() {
    conforms("conformance-python", World::Typed).await;
}

#[tokio::test]
async fn the_sdk_for_python_conforms() {
    conforms("conformance-python-sdk", World::Framed).await;
}

#[tokio::test]
async fn the_sdk_for_javascript_conforms() {
    conforms("conformance-js", World::Framed).await;
}

#[tokio::test]
async fn text_form_conforms() {
    conforms("conformance-wat", World::Framed).await;
}
