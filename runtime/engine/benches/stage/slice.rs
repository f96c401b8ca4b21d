//! How long the fuel of one slice lasts.

use sluicebox_engine::sandbox::{SLICE_FUEL, Sandbox};
use sluicebox_engine::tuning::EngineConfig;
use wasmtime::{Instance, Module, Store};

use crate::clock::{Case, measure, quantile, take_turns};
use crate::report::{at_most, figure, section};

const ROUNDS: usize = 21;
/// Slices of a sample.
const SLICES: u64 = 10;

/// Adds and multiplies; nothing to wait for but itself.
const ARITHMETIC: &str = "(local i64)
    (loop $more
        (local.set 0 (i64.add (i64.mul (local.get 0) (i64.const 31)) (i64.const 7)))
        (br $more))";

/// A state machine over bytes in memory whose next step depends on the byte.
const BRANCHES: &str = "(local i32 i32)
    (loop $more
        (local.set 0 (i32.and (i32.add (local.get 0) (i32.const 1)) (i32.const 0xffff)))
        (local.set 1 (i32.load8_u (local.get 0)))
        (if (i32.lt_u (local.get 1) (i32.const 85))
            (then (i32.store8 (local.get 0) (i32.add (local.get 1) (i32.const 97))))
            (else (if (i32.and (local.get 1) (i32.const 1))
                (then (i32.store8 (local.get 0) (i32.mul (local.get 1) (i32.const 5))))
                (else (local.set 0 (i32.xor (local.get 0) (local.get 1)))))))
        (br $more))";

/// Jumps about in twelve megabytes, each time to a place that the last load decides: waits for
/// memory nearly all the time.
const MEMORY: &str = "(local i32)
    (loop $more
        (local.set 0 (i32.add (i32.load (i32.and (local.get 0) (i32.const 0xbffff8)))
            (i32.add (i32.mul (local.get 0) (i32.const 1664525)) (i32.const 1013904223))))
        (br $more))";

pub(crate) fn run() {
    section(&format!("a slice: {SLICE_FUEL} units of fuel"));
    let sandbox = Sandbox::new(&EngineConfig::small()).expect("the engine starts");
    let loops = [("arithmetic", ARITHMETIC), ("branches", BRANCHES), ("memory", MEMORY)];
    let mut cases = loops.map(|(_, body)| case(&sandbox, body));
    let samples = take_turns(ROUNDS, &mut cases);
    for ((name, _), samples) in loops.iter().zip(&samples) {
        figure(&format!("{name}: median"), quantile(samples, 0.5), "ms");
        at_most(&format!("{name}: longest of {ROUNDS}"), quantile(samples, 1.0), "ms", 1.0);
    }
}

/// Runs an endless loop until the fuel of some slices is gone; milliseconds a slice.
fn case(sandbox: &Sandbox, body: &str) -> Case<'static> {
    let text = format!("(module (memory 200) (func (export \"run\") {body}))");
    let wasm = wat::parse_str(text).expect("the text is well-formed");
    let module = Module::new(sandbox.engine(), wasm).expect("the module compiles");
    let mut store = Store::new(sandbox.engine(), ());
    store.set_fuel(1).expect("the engine counts fuel");
    let instance = Instance::new(&mut store, &module, &[]).expect("the pool has room");
    let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("it is exported");
    Box::new(move || {
        store.set_fuel(SLICE_FUEL * SLICES).expect("the engine counts fuel");
        let (result, took) = measure(|| run.call(&mut store, ()));
        result.expect_err("an endless loop ends with its fuel only");
        took.cpu / 1e6 / SLICES as f64
    })
}
