//! Images of small guests in text form, each with one thing to remember in one place.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use sluicebox_core::frame::Kind;
use sluicebox_core::partition::Verdict;
use sluicebox_core::pipeline::StageLimits;
use tokio::runtime::Runtime;
use wasmtime::component::Component;

use super::*;
use crate::contract::{call, emitted, layer, limits, returned, stream, trapped, turn};
use crate::invoker::{Invoker, Outcome, Short};
use crate::sandbox::Sandbox;
use crate::stage::{MemoryMeter, StageCode, StageSettings, TenantSlots};
use crate::tuning::EngineConfig;
use crate::wasm::WasmStage;

static SANDBOX: LazyLock<Arc<Sandbox>> =
    LazyLock::new(|| Arc::new(Sandbox::new(&EngineConfig::small()).unwrap()));

/// A stage of one event a call, that emits its payload as `work` leaves it.
struct Guest<'a> {
    /// Imports of the component, and what is lowered of them.
    outside: &'a str,
    /// What the stage's module imports, and defines.
    inside: &'a str,
    /// What is given to it.
    with: &'a str,
    /// Instructions, with the address of the payload in `$p`.
    work: &'a str,
}

impl Guest<'_> {
    fn wasm(&self) -> Vec<u8> {
        let Self { outside, inside, with, work } = self;
        let text = format!(
            r#"(component
              (import "sluicebox:stage/types@0.1.0" (instance $types
                (type $class-shape (enum "retry" "reject"))
                (export "failure-class" (type $class (eq $class-shape)))
                (type $failure-shape (record
                  (field "event" u32) (field "class" $class) (field "message" string)))
                (export "failure" (type $failure (eq $failure-shape)))))
              (alias export $types "failure" (type $failure))
              (import "sluicebox:stage/output@0.1.0" (instance $output
                (export "emit" (func (param "frame" (list u8))))))
              (core module $heap
                (memory (export "memory") 3)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                  (i32.const 65536)))
              (core instance $heap (instantiate $heap))
              (core func $emit (canon lower (func $output "emit") (memory $heap "memory")))
              {outside}
              (core module $stage
                (import "heap" "memory" (memory $main 1))
                (import "host" "emit" (func $emit (param i32 i32)))
                {inside}
                (func $work (param $p i32) (local $i i32) (local $n i32) {work})
                (func (export "handle") (param $frame i32) (param $len i32) (result i32)
                  (local $event i32)
                  (local.set $event (i32.add (local.get $frame) (i32.const 16)))
                  (i32.store8 offset=4 (local.get $event) (i32.const 0))
                  (i32.store offset=12 (local.get $event) (i32.const 0))
                  (call $work (i32.add (i32.add (local.get $event) (i32.const 32))
                    (i32.load16_u offset=10 (local.get $event))))
                  (call $emit (local.get $frame) (local.get $len))
                  (i32.const 0)))
              (core instance $stage (instantiate $stage
                (with "heap" (instance $heap))
                (with "host" (instance (export "emit" (func $emit)) {with}))))
              (func (export "handle") (param "frame" (list u8)) (result (list $failure))
                (canon lift (core func $stage "handle")
                  (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))"#
        );
        wat::parse_str(&text).unwrap()
    }
}

const NOTHING: Guest<'_> = Guest { outside: "", inside: "", with: "", work: "" };

fn code(wasm: &[u8]) -> Arc<StageCode> {
    crate::component::inspect(wasm, &Default::default()).unwrap();
    let wasm = instrument(wasm).unwrap();
    let component = Component::new(SANDBOX.engine(), wasm).unwrap();
    Arc::new(StageCode::link(&SANDBOX, &component).unwrap())
}

fn slots() -> Arc<TenantSlots> {
    Arc::new(TenantSlots::new(16, 4, MemoryMeter::new(1 << 30, None)))
}

fn stage_of(code: &Arc<StageCode>, limits: StageLimits, config: &str) -> WasmStage {
    stage_for(code, (limits, config), slots())
}

fn stage_for(
    code: &Arc<StageCode>,
    (limits, config): (StageLimits, &str),
    tenant: Arc<TenantSlots>,
) -> WasmStage {
    let settings = StageSettings {
        limits,
        config: BTreeMap::from([("c".to_owned(), config.to_owned())]),
        assets: BTreeMap::new(),
        gpu: None,
        buckets: Default::default(),
        http: None,
        secret: [7; 32],
        live: Default::default(),
        away: Default::default(),
        memory: Default::default(),
        tenant,
        fresh: FreshCell::default(),
    };
    WasmStage::new(SANDBOX.clone(), code.clone(), Arc::new(settings), Rc::new(RefCell::default()))
}

fn stage(code: &Arc<StageCode>) -> WasmStage {
    stage_of(code, limits(), "")
}

/// Gives stream 1 one event of eight bytes.
async fn step(stage: &mut WasmStage, payload: [u8; 8]) -> Outcome {
    if !stage.holds(&stream(1)) {
        let mut opening = turn(layer(), 1, Kind::Open);
        let mut builder = sluicebox_core::frame::FrameBuilder::new();
        let mut head = sluicebox_core::frame::Head::data(1);
        head.kind = Kind::Open;
        builder.push(&head, b"k", &payload, &[]);
        opening.layer.begin(builder.finish());
        return stage.invoke(opening).await;
    }
    stage.invoke(call(layer(), stream(1), &[&payload])).await
}

/// What an event came to, trap or payload.
async fn answer(stage: &mut WasmStage, payload: [u8; 8]) -> Result<Vec<Vec<u8>>, String> {
    let mut outcome = step(stage, payload).await;
    match &outcome.verdict {
        Verdict::Returned(_) => {
            outcome.layer.accept();
            Ok(emitted(&mut outcome.layer))
        }
        Verdict::Trapped(text) | Verdict::Lost(text) => Err(text.clone()),
    }
}

/// Runs events, in a fresh instance after each of these numbers of them.
async fn run(
    code: &Arc<StageCode>,
    given: &[[u8; 8]],
    cuts: &[usize],
) -> Vec<Result<Vec<Vec<u8>>, String>> {
    let mut here = stage(code);
    let mut answers = Vec::new();
    for (at, payload) in given.iter().enumerate() {
        if cuts.contains(&at) && here.holds(&stream(1)) {
            let image = here.capture(&stream(1)).await.unwrap();
            here = stage(code);
            here.revive(stream(1), &image).await.unwrap();
            assert_eq!(here.capture(&stream(1)).await, Ok(image), "nothing is lost on the way");
        }
        answers.push(answer(&mut here, *payload).await);
    }
    answers
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn events() -> impl Strategy<Value = (Vec<[u8; 8]>, Vec<usize>)> {
    let given = proptest::collection::vec(any::<[u8; 8]>(), 1..40);
    (given, proptest::collection::vec(0..40_usize, 0..6))
}

/// Remembers in globals of every type, of which it makes the answer.
const GLOBALS: Guest<'_> = Guest {
    inside: r#"(global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const 2))
        (global $c (mut f32) (f32.const nan:0x200001)) (global $d (mut f64) (f64.const 0.5))
        (global $e (mut v128) (v128.const i64x2 5 6)) (global $f i32 (i32.const 9))"#,
    work: r#"
        (global.set $a (i32.add (i32.load (local.get $p)) (i32.mul (global.get $a) (i32.const 31))))
        (global.set $b (i64.add (i64.load (local.get $p)) (i64.mul (global.get $b) (i64.const 31))))
        (global.set $c (f32.reinterpret_i32 (i32.xor (i32.reinterpret_f32 (global.get $c))
            (global.get $a))))
        (global.set $d (f64.reinterpret_i64 (i64.xor (i64.reinterpret_f64 (global.get $d))
            (global.get $b))))
        (global.set $e (i64x2.add (global.get $e)
            (i64x2.replace_lane 1 (i64x2.splat (global.get $b)) (i64.load (local.get $p)))))
        (i64.store (local.get $p) (i64.xor (i64x2.extract_lane 0 (global.get $e))
            (i64.add (i64x2.extract_lane 1 (global.get $e))
                (i64.xor (i64.reinterpret_f64 (global.get $d))
                    (i64.extend_i32_u (i32.reinterpret_f32 (global.get $c)))))))"#,
    ..NOTHING
};

/// Remembers in two memories of its own, the second of which grows, and in data it came with.
const MEMORIES: Guest<'_> = Guest {
    inside: r#"(memory $other 0) (memory $third 1)
        (data (memory $third) (i32.const 4096) "\01\02\03\04\05\06\07\08")"#,
    work: r#"
        ;; One time in eight it grows by a page, as far as it may.
        (if (i32.eqz (i32.and (i32.load8_u (local.get $p)) (i32.const 7)))
            (then (drop (memory.grow $other (i32.const 1)))))
        ;; Somewhere in it, the event is added to what is there; or it is taken out of the data.
        (if (memory.size $other) (then
            (local.set $i (i32.rem_u (i32.load (local.get $p))
                (i32.sub (i32.mul (memory.size $other) (i32.const 65536)) (i32.const 8))))
            (i64.store $other (local.get $i)
                (i64.add (i64.load $other (local.get $i)) (i64.load (local.get $p)))))
          (else (memory.fill $third (i32.const 4096) (i32.const 0) (i32.const 8))))
        (local.set $i (i32.const 0))
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $i) (i32.mul (memory.size $other) (i32.const 65536))))
            (i64.store (local.get $p) (i64.add (i64.load (local.get $p))
                (i64.mul (i64.load $other (local.get $i)) (i64.const 31))))
            (local.set $i (i32.add (local.get $i) (i32.const 2048)))
            (br $next)))
        (i64.store (local.get $p) (i64.xor (i64.load (local.get $p))
            (i64.add (i64.load $third (i32.const 4096)) (i64.extend_i32_u (memory.size $other)))))"#,
    ..NOTHING
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn globals_of_every_type_go_on((given, cuts) in events()) {
        let code = code(&GLOBALS.wasm());
        runtime().block_on(async {
            prop_assert_eq!(run(&code, &given, &cuts).await, run(&code, &given, &[]).await);
            Ok(())
        })?;
    }

    #[test]
    fn memories_that_grow_go_on((given, cuts) in events()) {
        let code = code(&MEMORIES.wasm());
        runtime().block_on(async {
            let undisturbed = run(&code, &given, &[]).await;
            prop_assert!(undisturbed.iter().all(Result::is_ok), "{:?}", undisturbed);
            prop_assert_eq!(run(&code, &given, &cuts).await, undisturbed);
            Ok(())
        })?;
    }

    #[test]
    fn handles_of_standard_streams_go_on((given, cuts) in events()) {
        let code = code(&streams_guest());
        runtime().block_on(async {
            let undisturbed = run(&code, &given, &[]).await;
            prop_assert!(undisturbed.iter().all(Result::is_ok), "{:?}", undisturbed);
            prop_assert_eq!(run(&code, &given, &cuts).await, undisturbed);
            Ok(())
        })?;
    }
}

/// Imports of standard streams, as toolchains write them.
const STREAMS: &str = r#"
    (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
    (alias export $error "error" (type $error-t))
    (import "wasi:io/streams@0.2.0" (instance $streams
      (export "input-stream" (type $is (sub resource)))
      (export "output-stream" (type $os (sub resource)))
      (alias outer 1 $error-t (type $e)) (export "error" (type $err (eq $e)))
      (type $shape (variant (case "last-operation-failed" (own $err)) (case "closed")))
      (export "stream-error" (type $failed (eq $shape)))
      (export "[method]output-stream.check-write"
        (func (param "self" (borrow $os)) (result (result u64 (error $failed)))))))
    (alias export $streams "input-stream" (type $in))
    (alias export $streams "output-stream" (type $out))
    (import "wasi:cli/stdin@0.2.0" (instance $stdin
      (alias outer 1 $in (type $i)) (export "input-stream" (type $is (eq $i)))
      (export "get-stdin" (func (result (own $is))))))
    (import "wasi:cli/stderr@0.2.0" (instance $stderr
      (alias outer 1 $out (type $o)) (export "output-stream" (type $os (eq $o)))
      (export "get-stderr" (func (result (own $os))))))
    (import "wasi:sockets/network@0.2.0" (instance $network
      (export "network" (type (sub resource)))))
    (alias export $network "network" (type $net))
    (import "wasi:sockets/instance-network@0.2.0" (instance $instance-network
      (alias outer 1 $net (type $n)) (export "network" (type $ns (eq $n)))
      (export "instance-network" (func (result (own $ns))))))
    (core func $get-in (canon lower (func $stdin "get-stdin")))
    (core func $get-out (canon lower (func $stderr "get-stderr")))
    (core func $get-net (canon lower (func $instance-network "instance-network")))
    (core func $drop-in (canon resource.drop $in))
    (core func $drop-out (canon resource.drop $out))
    (core func $drop-net (canon resource.drop $net))
    (core func $check (canon lower (func $streams "[method]output-stream.check-write")
      (memory $heap "memory")))"#;

const STREAMS_INSIDE: &str = r#"
    (import "host" "get-in" (func $get-in (result i32)))
    (import "host" "get-out" (func $get-out (result i32)))
    (import "host" "get-net" (func $get-net (result i32)))
    (import "host" "drop-in" (func $drop-in (param i32)))
    (import "host" "drop-out" (func $drop-out (param i32)))
    (import "host" "drop-net" (func $drop-net (param i32)))
    (import "host" "check" (func $check (param i32 i32)))"#;

const STREAMS_WITH: &str = r#"
    (export "get-in" (func $get-in)) (export "get-out" (func $get-out))
    (export "get-net" (func $get-net))
    (export "drop-in" (func $drop-in)) (export "drop-out" (func $drop-out))
    (export "drop-net" (func $drop-net))
    (export "check" (func $check))"#;

/// Opens and drops handles in eight places, as its events say: the even ones are of input, the odd
/// ones of output. After each it uses all there are.
fn streams_guest() -> Vec<u8> {
    let work = r#"
        (local.set $i (i32.and (i32.shl (i32.load8_u (local.get $p)) (i32.const 2)) (i32.const 28)))
        (if (i32.load offset=1024 (local.get $i))
          (then
            (if (i32.and (local.get $i) (i32.const 4))
              (then (call $drop-out (i32.load offset=1024 (local.get $i))))
              (else (call $drop-in (i32.load offset=1024 (local.get $i)))))
            (i32.store offset=1024 (local.get $i) (i32.const 0)))
          (else
            (if (i32.and (local.get $i) (i32.const 4))
              (then (i32.store offset=1024 (local.get $i) (call $get-out)))
              (else (i32.store offset=1024 (local.get $i) (call $get-in))))))
        (local.set $i (i32.const 4))
        (loop $next
          (if (i32.load offset=1024 (local.get $i))
            (then (call $check (i32.load offset=1024 (local.get $i)) (i32.const 2048))))
          (local.set $i (i32.add (local.get $i) (i32.const 8)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const 32))))"#;
    Guest { outside: STREAMS, inside: STREAMS_INSIDE, with: STREAMS_WITH, work }.wasm()
}

#[tokio::test]
async fn other_handles_than_standard_streams_are_in_the_way_while_they_are_open() {
    let work = r#"
        (if (i32.load offset=1024 (i32.const 0))
          (then (call $drop-net (i32.load offset=1024 (i32.const 0)))
            (i32.store offset=1024 (i32.const 0) (i32.const 0)))
          (else (i32.store offset=1024 (i32.const 0) (call $get-net))))"#;
    let guest = Guest { outside: STREAMS, inside: STREAMS_INSIDE, with: STREAMS_WITH, work };
    let code = code(&guest.wasm());
    let mut stage = stage(&code);
    returned(&step(&mut stage, [0; 8]).await);
    assert_eq!(stage.capture(&stream(1)).await, Err(NoImage::OpenHandles));
    assert!(stage.holds(&stream(1)), "it may go on");
    returned(&step(&mut stage, [0; 8]).await);
    assert!(stage.capture(&stream(1)).await.is_ok());
}

#[tokio::test]
async fn an_image_holds_what_was_written_and_no_more() {
    let work = r#"(i32.store (i32.const 8192) (i32.const 0x01020304))"#;
    let code = code(&Guest { work, ..NOTHING }.wasm());
    let mut stage = stage(&code);
    returned(&step(&mut stage, [0; 8]).await);
    let image = stage.capture(&stream(1)).await.unwrap();
    // The frame, where it always is, and the word.
    assert_eq!(image.pages.keys().copied().collect::<Vec<_>>(), [2, 16]);
    assert_eq!(&image.pages[&2][..], [4, 3, 2, 1]);
    assert!(image.bytes() < 300, "{} bytes", image.bytes());
}

#[tokio::test]
async fn an_image_of_other_code_is_refused() {
    let (one, other) = (code(&NOTHING.wasm()), code(&GLOBALS.wasm()));
    let mut here = stage(&one);
    returned(&step(&mut here, [0; 8]).await);
    let image = here.capture(&stream(1)).await.unwrap();
    let mut there = stage(&other);
    let refused = there.revive(stream(1), &image).await.unwrap_err().to_string();
    assert!(refused.contains("another component"), "{refused}");
    assert!(!there.holds(&stream(1)));
}

#[tokio::test]
async fn an_image_of_another_start_is_refused() {
    // It keeps how many bytes of configuration there were when it started.
    let outside = r#"
        (import "sluicebox:stage/config@0.1.0" (instance $config
          (export "get" (func (param "name" string) (result (option string))))))
        (core func $get (canon lower (func $config "get") (memory $heap "memory")
          (realloc (func $heap "cabi_realloc"))))"#;
    let inside = r#"
        (import "host" "get" (func $get (param i32 i32 i32)))
        (data (i32.const 100) "c")
        (func $start (call $get (i32.const 100) (i32.const 1) (i32.const 200))
          (i32.store (i32.const 200) (i32.const 0)) (i32.store (i32.const 204) (i32.const 0)))
        (start $start)"#;
    let with = r#"(export "get" (func $get))"#;
    let code = code(&Guest { outside, inside, with, work: "" }.wasm());
    let mut here = stage_of(&code, limits(), "one");
    returned(&step(&mut here, [0; 8]).await);
    let image = here.capture(&stream(1)).await.unwrap();
    stage_of(&code, limits(), "one").revive(stream(1), &image).await.unwrap();
    let mut there = stage_of(&code, limits(), "another");
    let refused = there.revive(stream(1), &image).await.unwrap_err().to_string();
    assert!(refused.contains("started differently"), "{refused}");
    assert_eq!(there.live(), 0);
}

#[tokio::test]
async fn an_image_has_the_limits_of_the_stage_it_comes_to() {
    let work = r#"(drop (memory.grow (i32.const 16)))"#;
    let code = code(&Guest { work, ..NOTHING }.wasm());
    let mut here = stage(&code);
    returned(&step(&mut here, [0; 8]).await);
    let image = here.capture(&stream(1)).await.unwrap();
    let less = StageLimits { memory: 1 << 20, ..limits() };
    let mut there = stage_of(&code, less, "");
    let refused = there.revive(stream(1), &image).await.unwrap_err().to_string();
    assert!(refused.contains("limits.memory"), "{refused}");
    assert_eq!(there.live(), 0);
}

/// Grows by two pages of 64 KiB with each event, and traps if it cannot.
const GROWS: Guest<'_> = Guest {
    work: "(if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))",
    ..NOTHING
};

/// A tenant with so much memory, and a stage of it whose instances are made again.
fn bounded(work: &Guest<'_>, bytes: u64) -> (Arc<TenantSlots>, WasmStage) {
    let tenant = Arc::new(TenantSlots::new(16, 4, MemoryMeter::new(bytes, None)));
    let mut stage = stage_for(&code(&work.wasm()), (limits(), ""), tenant.clone());
    stage.spare(16);
    (tenant, stage)
}

#[tokio::test]
async fn who_goes_on_from_an_image_waits_for_memory_that_others_use() {
    let (tenant, mut stage) = bounded(&GROWS, 2 << 20);
    returned(&step(&mut stage, [0; 8]).await);
    let used = tenant.memory.used();
    let image = stage.capture(&stream(1)).await.unwrap();
    stage.drop_instance(&stream(1));
    // All but what a fresh instance needs, and all but nothing.
    for left in [used - (2 << 16), 1 << 16] {
        assert!(tenant.memory.take((2 << 20) - left));
        let others = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            tenant.memory.give_back((2 << 20) - left);
        };
        let (revived, ()) = tokio::join!(stage.revive(stream(1), &image), others);
        assert_eq!((revived, stage.holds(&stream(1))), (Ok(()), true));
        assert_eq!(stage.capture(&stream(1)).await.as_ref(), Ok(&image));
        stage.drop_instance(&stream(1));
    }
    assert_eq!(tenant.memory.used(), 0);
    // Others keep it, or there is less than it needs: it is said that this may pass.
    assert!(tenant.memory.take(2 << 20));
    let refused = stage.revive(stream(1), &image).await;
    assert!(matches!(refused, Err(NoImage::NoRoom(_))), "{refused:?}");
    assert_eq!((stage.live(), tenant.memory.used()), (0, 2 << 20));
    tenant.memory.give_back(2 << 20);
    tenant.memory.set_limit(used - 1);
    let refused = stage.revive(stream(1), &image).await;
    assert!(matches!(refused, Err(NoImage::NoRoom(_))), "{refused:?}");
    tenant.memory.set_limit(used);
    assert_eq!(stage.revive(stream(1), &image).await, Ok(()));
}

#[tokio::test]
async fn what_is_put_away_has_its_part_of_the_quota_and_gives_it_back() {
    let tenant = slots();
    let mut stage = stage_for(&code(&GROWS.wasm()), (limits(), ""), tenant.clone());
    let open = |serial| turn(layer(), serial, Kind::Open);
    for serial in 1..=2 {
        returned(&stage.invoke(open(serial)).await);
    }
    let whole = tenant.memory.used();
    let image = stage.capture(&stream(1)).await.unwrap();
    stage.put_away().await;
    assert_eq!(stage.live(), 0);
    let kept = tenant.memory.used();
    assert!(kept >= 2 * image.bytes() && kept < whole / 4, "{kept} bytes of {whole} are kept");
    assert_eq!(stage.capture(&stream(1)).await, Ok(image));
    returned(&stage.invoke(turn(layer(), 1, Kind::Data)).await);
    assert_eq!(stage.live(), 1);
    stage.drop_instance(&stream(1));
    assert_eq!(tenant.memory.used(), kept / 2);
    stage.abandon();
    assert_eq!(tenant.memory.used(), 0);
}

#[tokio::test]
async fn a_stream_that_opens_waits_and_its_idle_neighbours_make_way() {
    let (tenant, mut stage) = bounded(&NOTHING, 1 << 20);
    let open = |serial| turn(layer(), serial, Kind::Open);
    returned(&stage.invoke(open(2)).await);
    // What is left holds no other instance; the one there is can be made again.
    let left = tenant.memory.used() - 1;
    assert!(tenant.memory.take((1 << 20) - tenant.memory.used() - left));
    let outcome = stage.invoke(open(1)).await;
    returned(&outcome);
    assert_eq!(outcome.usage.short, None);
    assert!(stage.holds(&stream(1)) && !stage.holds(&stream(2)));
    // Now others have it.
    stage.drop_instance(&stream(1));
    assert!(tenant.memory.take((1 << 20) - tenant.memory.used()));
    let outcome = stage.invoke(open(1)).await;
    assert_eq!((trapped(&outcome).is_empty(), outcome.usage.short), (false, Some(Short::Others)));
}

#[tokio::test]
async fn a_call_says_that_it_was_refused_memory_and_by_what() {
    for (kept, expected) in [(true, Short::Others), (false, Short::Quota)] {
        let (tenant, mut stage) = bounded(&GROWS, 1 << 20);
        let outcome = step(&mut stage, [0; 8]).await;
        returned(&outcome);
        assert_eq!(outcome.usage.short, None);
        let used = tenant.memory.used();
        match kept {
            true => assert!(tenant.memory.take((1 << 20) - used)),
            false => tenant.memory.set_limit(used),
        }
        let outcome = step(&mut stage, [0; 8]).await;
        assert_eq!((trapped(&outcome).is_empty(), outcome.usage.short), (false, Some(expected)));
    }
}

#[tokio::test]
async fn an_image_larger_than_any_is_refused_and_the_instance_goes_on() {
    let work = r#"
        (drop (memory.grow (i32.const 1100)))
        (memory.fill (i32.const 262144) (i32.load8_u (local.get $p)) (i32.const 67200000))"#;
    let code = code(&Guest { work, ..NOTHING }.wasm());
    let large = StageLimits { memory: 256 << 20, fuel_per_event: 1 << 40, ..limits() };
    let mut stage = stage_of(&code, large, "");
    returned(&step(&mut stage, [1; 8]).await);
    assert_eq!(stage.capture(&stream(1)).await, Err(NoImage::TooLarge));
    returned(&step(&mut stage, [0; 8]).await);
    assert!(stage.capture(&stream(1)).await.is_ok(), "what is zero again is not in it");
}

#[tokio::test]
async fn a_table_that_changes_is_said_before_any_traffic() {
    let inside = r#"(table $t 2 funcref) (func $f) (elem declare func $f)"#;
    let work = r#"(table.set $t (i32.const 0) (ref.func $f))"#;
    let code = code(&Guest { inside, work, ..NOTHING }.wasm());
    let reason = code.images().unwrap_err();
    assert!(reason.contains("table"), "{reason}");
    let mut stage = stage(&code);
    returned(&step(&mut stage, [0; 8]).await);
    let refused = stage.capture(&stream(1)).await;
    assert_eq!(refused, Err(NoImage::Unsupported(reason.clone())));
    let refused = stage.revive(stream(1), &Image::default()).await;
    assert_eq!(refused, Err(NoImage::Unsupported(reason)));
}

#[tokio::test]
async fn a_trapped_stream_has_no_image() {
    let code = code(&Guest { work: "unreachable", ..NOTHING }.wasm());
    let mut stage = stage(&code);
    trapped(&step(&mut stage, [0; 8]).await);
    assert_eq!(stage.capture(&stream(1)).await, Err(NoImage::NoInstance));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_that_are_no_image_are_refused_or_harmless(
        head in proptest::collection::vec(any::<u8>(), 0..40),
        at in 0..300_usize,
        byte: u8,
        pages in proptest::collection::btree_map(any::<u32>(), 0..5000_usize, 0..4),
    ) {
        static CODE: LazyLock<Arc<StageCode>> = LazyLock::new(|| code(&MEMORIES.wasm()));
        runtime().block_on(async {
            let mut stage = stage(&CODE);
            returned(&step(&mut stage, [3; 8]).await);
            let image = stage.capture(&stream(1)).await.unwrap();
            let mut changed = image.head.to_vec();
            let at = at % changed.len();
            changed[at] = byte;
            for head in [head, changed, image.head.to_vec()] {
                let pages = pages.iter().map(|(at, len)| (*at, vec![1; *len].into()));
                let hostile = Image { head: head.into(), pages: pages.collect() };
                match stage.revive(stream(1), &hostile).await {
                    Ok(()) => prop_assert!(stage.holds(&stream(1))),
                    Err(reason) => {
                        prop_assert!(matches!(reason, NoImage::Failed(_)), "{}", reason);
                        prop_assert_eq!(stage.live(), 0);
                    }
                }
            }
            Ok(())
        })?;
    }
}
