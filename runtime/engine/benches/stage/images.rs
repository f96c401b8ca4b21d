//! Images: taking one of an instance, and going on from it in a fresh one.
//!
//! The guest fills as much of its memory as its first event says, and then counts. What is taken is
//! checked by an event before and after; taking and going on are measured apart from those.

use std::sync::Arc;

use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_core::partition::Serves;
use sluicebox_core::pipeline::Scope;
use sluicebox_engine::image::instrument;
use sluicebox_engine::tuning::EngineConfig;
use wasmtime::component::Component;

use crate::bed::{Bed, Chain, NOW, chain_plan};
use crate::clock::{Took, measure, median};
use crate::report::{at_most, figure, section};

const ROUNDS: usize = 40;

/// Live state and what parking and waking it may take.
const SIZES: [(&str, u32, f64); 3] =
    [("16 KiB", 16 << 10, 200.0), ("1 MiB", 1 << 20, 600.0), ("8 MiB", 8 << 20, 8_000.0)];

/// Fills the bytes behind the first three pages, as many as its first event says; traps
/// if the last word is not what it was filled with.
const GUEST: &str = r#"(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (core module $m
    (memory (export "memory") 3)
    (global $end (mut i32) (i32.const 0))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
    (func (export "handle") (param $frame i32) (param $len i32) (result i32) (local $at i32)
      (if (i32.eqz (global.get $end))
        (then
          ;; The payload is the last four bytes of the frame.
          (global.set $end (i32.add (i32.const 196608)
            (i32.load (i32.sub (i32.add (local.get $frame) (local.get $len)) (i32.const 4)))))
          (drop (memory.grow (i32.shr_u
            (i32.sub (global.get $end) (i32.const 131073)) (i32.const 16))))
          (local.set $at (i32.const 196608))
          (loop $next
            (i32.store (local.get $at) (i32.mul (local.get $at) (i32.const 0x9E3779B1)))
            (local.set $at (i32.add (local.get $at) (i32.const 4)))
            (br_if $next (i32.lt_u (local.get $at) (global.get $end))))))
      (local.set $at (i32.sub (global.get $end) (i32.const 4)))
      (if (i32.ne (i32.load (local.get $at)) (i32.mul (local.get $at) (i32.const 0x9E3779B1)))
        (then unreachable))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $i "handle") (memory $i "memory") (realloc (func $i "cabi_realloc")))))"#;

pub(crate) fn run() {
    section("images of an instance: taking one, and going on from it");
    let bed = Bed::new(&EngineConfig::default());
    let wasm = wat::parse_str(GUEST).expect("the text is a component");
    let wasm = instrument(&wasm).expect("the guest is valid");
    let component = Component::new(bed.sandbox.engine(), wasm).expect("the guest compiles");
    let code = bed.link(&component);
    code.images().expect("the guest has images");
    for (name, bytes, most) in SIZES {
        let mut chain = Chain::new(chain_plan(1, Scope::Stream), vec![bed.stage(&code)]);
        send(&bed, &mut chain, bytes);
        let mut serves = (0..9).map(|serial| Serves::Stream(Arc::from(&b"k"[..]), serial));
        let serves = serves.find(|serves| chain.first().holds(serves)).expect("it is open");
        let mut taken: Vec<Took> = Vec::new();
        let mut woken: Vec<Took> = Vec::new();
        let mut size = 0;
        for _ in 0..=ROUNDS {
            let stage = chain.first();
            let (image, took) = measure(|| bed.runtime.block_on(stage.capture(&serves)));
            taken.push(took);
            let image = image.expect("the guest has images");
            size = image.bytes();
            stage.drop_instance(&serves);
            let (done, took) =
                measure(|| bed.runtime.block_on(stage.revive(serves.clone(), &image)));
            woken.push(took);
            done.expect("the image fits");
            send(&bed, &mut chain, bytes);
        }
        let cpu = |took: &[Took]| {
            median(&took[1..].iter().map(|took| took.cpu / 1e3).collect::<Vec<f64>>())
        };
        figure(&format!("{name}: bytes of the image"), size as f64, "B");
        figure(&format!("{name}: taking it"), cpu(&taken), "us");
        figure(&format!("{name}: going on from it"), cpu(&woken), "us");
        at_most(&format!("{name}: both"), cpu(&taken) + cpu(&woken), "us", most);
    }
}

/// One event of the one stream.
fn send(bed: &Bed, chain: &mut Chain, bytes: u32) {
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(NOW), b"k", &bytes.to_le_bytes(), &[]);
    bed.runtime.block_on(chain.batch(builder.finish()));
}
