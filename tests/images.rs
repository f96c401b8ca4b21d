//! Images of guests in every language: a stream that is put away between any two batches and
//! goes on from its image gives what one gives that is left alone.
//!
//! - Every guest has the command `M` of `tests/guests/CONFORMANCE.md`, which remembers in the
//!   memory of the instance; `guest-remember` uses whatever a standard library has.
//! - Where the stream is cut is by chance, and so are the events.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sluicebox_core::pipeline::{Scope, StageLimits};
use sluicebox_engine::invoker::NoImage;
use sluicebox_tests::events::{Given, Out, frame, outputs};
use sluicebox_tests::rig::{Chain, Guest, Rig, Spec};
use tokio::runtime::Runtime;

/// The time of the first batch.
const NOW: u64 = 1_800_000_000_000_000;
const SECOND: u64 = 1_000_000;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()
        .expect("a runtime")
});

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_sluicebox-tests-compile"))
}

fn spec() -> Spec {
    let limits = StageLimits { memory: 256 << 20, ..Spec::default().limits };
    let fuel_per_event = 2_000_000_000;
    let limits = StageLimits { fuel_per_event, ..limits };
    Spec { scope: Scope::Stream, limits, ..Spec::default() }
}

/// Batches of payloads, and before which of them the stream is put away.
type Story = (Vec<Vec<Vec<u8>>>, Vec<usize>);

fn stories(batches: usize) -> impl Strategy<Value = Story> {
    let payload = proptest::collection::vec(any::<u8>(), 1..60);
    let batch = proptest::collection::vec(payload, 1..4);
    let batches = proptest::collection::vec(batch, 1..batches);
    (batches, proptest::collection::vec(0..20_usize, 0..5))
}

/// What a stream gives and says.
async fn tell(chain: &mut Chain, (batches, cuts): &Story, command: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        if at > 0 && cuts.contains(&at) {
            chain.park_and_wake("k").await.expect("an image, and an instance of it");
        }
        let given: Vec<_> =
            batch.iter().map(|payload| Given::new("k", [command, payload].concat())).collect();
        let batch = chain.batch(frame(&given), NOW + at as u64 * SECOND).await;
        let traps: Vec<_> = batch.calls.iter().filter_map(|call| call.trap.clone()).collect();
        assert!(traps.is_empty(), "{traps:?}");
        let outputs: Vec<Out> = batch.commit.as_ref().map(outputs).unwrap_or_default();
        told.push(format!("{outputs:?} {:?}", batch.lines));
    }
    told
}

/// Runs stories with and without cuts.
fn goes_on(rig: &Rig, guest: &Guest, command: &[u8], cases: u32, batches: usize) {
    guest.code().images().expect("it can have images");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&stories(batches), |story| {
        let (disturbed, undisturbed) = RUNTIME.block_on(async {
            let disturbed = tell(&mut rig.stage(guest, &spec()), &story, command).await;
            let uncut = (story.0.clone(), Vec::new());
            (disturbed, tell(&mut rig.stage(guest, &spec()), &uncut, command).await)
        });
        prop_assert_eq!(disturbed, undisturbed);
        Ok(())
    });
    run.expect("it goes on as if nothing had been");
}

fn remembers(name: &str, cases: u32) {
    let rig = rig();
    let guest = RUNTIME.block_on(rig.guest(name));
    goes_on(&rig, &guest, b"M", cases, 12);
}

#[test]
fn rust_in_the_framed_world_goes_on() {
    remembers("conformance-rust", 24);
}

#[test]
fn rust_in_the_typed_world_goes_on() {
    remembers("conformance-typed", 24);
}

#[test]
fn c_goes_on() {
    remembers("conformance-c", 24);
}

#[test]
fn go_goes_on() {
    remembers("conformance-go", 3);
}

/// The stream function is a goroutine that waits for its next event: it is in the image too.
#[test]
fn a_goroutine_that_waits_goes_on() {
    let rig = rig();
    RUNTIME.block_on(async {
        let guest = rig.guest("stream-go").await;
        let mut chain = rig.stage(&guest, &spec());
        let mut sum = 0;
        for number in 1..=9_u64 {
            let given = Given::new("k", number.to_string().as_bytes());
            let batch = chain.batch(frame(&[given]), NOW + number * SECOND).await;
            sum += number;
            let outputs: Vec<Out> = batch.commit.as_ref().map(outputs).unwrap_or_default();
            assert_eq!(outputs, [Out::of(0, sum.to_string())]);
            chain.park_and_wake("k").await.expect("an image, and an instance of it");
        }
    });
}

#[test]
fn text_form_goes_on() {
    remembers("conformance-wat", 24);
}

#[test]
fn python_goes_on() {
    remembers("conformance-python", 3);
}

/// The first byte of a payload for `guest-remember` says what is printed; from here on nothing is.
const SILENT: u8 = 192;

#[test]
fn rust_goes_on_that_asked_for_chance_and_time() {
    let rig = rig();
    let guest = RUNTIME.block_on(rig.guest("remember"));
    goes_on(&rig, &guest, &[SILENT], 48, 20);
}

/// The standard library keeps more open than the streams themselves once it has used one, of which
/// memory is only half. Such a stream is kept by its history.
#[test]
fn rust_that_used_a_standard_stream_has_no_image() {
    let rig = rig();
    RUNTIME.block_on(async {
        let guest = rig.guest("remember").await;
        let mut chain = rig.stage(&guest, &spec());
        chain.batch(frame(&[Given::new("k", [SILENT])]), NOW).await;
        assert!(chain.park_and_wake("k").await.is_ok());
        chain.batch(frame(&[Given::new("k", [0, 1, 2])]), NOW + SECOND).await;
        assert_eq!(chain.park_and_wake("k").await, Err(NoImage::OpenHandles));
    });
}

#[test]
fn an_image_costs_what_the_stream_wrote() {
    let rig = rig();
    for (name, most) in [("conformance-rust", 64 << 10), ("conformance-python", 4 << 20)] {
        RUNTIME.block_on(async {
            let guest = rig.guest(name).await;
            let mut chain = rig.stage(&guest, &spec());
            let batch = chain.batch(frame(&[Given::new("k", *b"Mabc")]), NOW).await;
            assert!(batch.commit.is_some());
            let image = chain.park_and_wake("k").await.unwrap();
            assert!(image.bytes() < most, "{name}: {} bytes", image.bytes());
        });
    }
}

#[test]
fn what_the_node_compiled_cannot_be_uploaded_again() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let wasm = wat::parse_file(guests.join("conformance-wat/guest.wat")).unwrap();
    let instrumented = sluicebox_engine::image::instrument(&wasm).unwrap();
    let rig = rig();
    let refused = RUNTIME.block_on(rig.upload(instrumented.into())).unwrap_err().to_string();
    assert!(refused.contains("`sluicebox:image/"), "{refused}");
}
