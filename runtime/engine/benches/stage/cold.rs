//! The first event to a stage that has no instance: many different components, each in its turn.
//!
//! All components are the same code under different digests, compiled once and loaded a thousand
//! times: for the engine they are as different as any, each with machine code, data image and place
//! in the pool of its own. They are loaded and linked, and never instantiated before.

use std::path::PathBuf;
use std::sync::Arc;

use sluicebox_core::ids::Digest;
use sluicebox_engine::artefact::{Artefacts, BYTES_MAX_DEFAULT};
use sluicebox_engine::compile::{CompileLimits, Compiler, CompilerConfig};
use sluicebox_engine::stage::StageCode;
use sluicebox_engine::tuning::EngineConfig;

use crate::bed::{Bed, Chain, chain_plan, wasm};
use crate::clock::{Took, measure, quantile};
use crate::events::one_frame;
use crate::report::{at_most, figure, section};
use sluicebox_core::pipeline::Scope;

const COMPONENTS: u16 = 1_000;
const ROUNDS: usize = 5;

pub(crate) fn run() {
    section("first event to a cold stage: 1,000 compiled components, round robin");
    let bed = Bed::new(&EngineConfig::default());
    let codes = load(&bed);
    let first = round(&bed, &codes);
    let later: Vec<Took> = (0..ROUNDS).flat_map(|_| round(&bed, &codes)).collect();
    let cpu = |took: &[Took]| took.iter().map(|took| took.cpu / 1e3).collect::<Vec<f64>>();
    let wall = |took: &[Took]| took.iter().map(|took| took.wall / 1e3).collect::<Vec<f64>>();
    at_most("p50, processor time", quantile(&cpu(&later), 0.5), "us", 50.0);
    at_most("p99, processor time", quantile(&cpu(&later), 0.99), "us", 300.0);
    at_most("p50, by the clock", quantile(&wall(&later), 0.5), "us", 50.0);
    at_most("p99, by the clock", quantile(&wall(&later), 0.99), "us", 300.0);
    let title = "the very first round, nothing of the pool used before";
    at_most(&format!("{title}: p50, processor time"), quantile(&cpu(&first), 0.5), "us", 50.0);
    at_most(&format!("{title}: p99, processor time"), quantile(&cpu(&first), 0.99), "us", 300.0);
    figure("to compare: the same event again, to a warm stage", warm(&bed, &codes[0]), "us");
}

/// Compiles one guest in a process of its own and loads it under as many digests as there are
/// components.
fn load(bed: &Bed) -> Vec<Arc<StageCode>> {
    let engine = bed.sandbox.engine();
    let config = CompilerConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_sluicebox-compile")),
        args: Vec::new(),
        limits: CompileLimits::default(),
        parallel: 1,
        waiting: 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime of one thread needs nothing special");
    let compiled =
        runtime.block_on(Compiler::new(config, engine).compile(wasm("bench-map").into()));
    let compiled = compiled.expect("the guest compiles");
    let folder = tempfile::TempDir::new().expect("there is a place for temporary files");
    let dir = cap_std::fs::Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority());
    let dir = dir.expect("it was just made");
    let artefacts =
        Artefacts::open(dir, engine, BYTES_MAX_DEFAULT).expect("an empty folder is fine");
    let load = |number: u16| {
        let mut digest = Digest([0; 32]);
        digest.0[..2].copy_from_slice(&number.to_le_bytes());
        artefacts.keep(&digest, &compiled).expect("it can be written");
        let component = artefacts.load(&digest).expect("it can be read");
        bed.link(&component.expect("it is there"))
    };
    (0..COMPONENTS).map(load).collect()
}

/// Gives each stage one event; its instance is dropped when all have had theirs.
fn round(bed: &Bed, codes: &[Arc<StageCode>]) -> Vec<Took> {
    let frame = one_frame(1);
    let mut kept = Vec::new();
    let mut invoke = |code: &Arc<StageCode>| {
        let mut chain = Chain::new(chain_plan(1, Scope::Shared), vec![bed.stage(code)]);
        let (commit, took) = measure(|| bed.runtime.block_on(chain.batch(frame.clone())));
        assert_eq!(commit.runs[0].frame.len(), 1);
        kept.push(chain);
        took
    };
    codes.iter().map(&mut invoke).collect()
}

fn warm(bed: &Bed, code: &Arc<StageCode>) -> f64 {
    let frame = one_frame(1);
    let mut chain = bed.chain(code, 1);
    let mut sample = || measure(|| bed.runtime.block_on(chain.batch(frame.clone()))).1.cpu / 1e3;
    let samples: Vec<f64> = (0..1_000).map(|_| sample()).collect();
    quantile(&samples, 0.5)
}
