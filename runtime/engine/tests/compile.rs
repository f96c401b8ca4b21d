//! The compile process as a node sees it: real processes, real limits, every way to fail.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicebox_core::error::Classify as _;
use sluicebox_engine::artefact::{Artefacts, BYTES_MAX_DEFAULT};
use sluicebox_engine::compile::{CompileLimits, Compiler, CompilerConfig};
use sluicebox_engine::component::digest;
use sluicebox_engine::error::Error;
use sluicebox_engine::tuning::{EngineConfig, runtime_engine};
use wasmtime::Engine;

const CHILD: &str = env!("CARGO_BIN_EXE_sluicebox-compile");

fn engine() -> Engine {
    runtime_engine(&EngineConfig::small()).expect("a small engine starts anywhere")
}

fn config(program: &str, limits: CompileLimits) -> CompilerConfig {
    CompilerConfig {
        program: PathBuf::from(program),
        args: Vec::new(),
        limits,
        parallel: 1,
        waiting: 1,
    }
}

fn compiler(limits: CompileLimits) -> Compiler {
    Compiler::new(config(CHILD, limits), &engine())
}

/// A compiler whose process is a shell script.
fn script(script: &str, limits: CompileLimits) -> Compiler {
    let args = vec!["-c".to_owned(), script.to_owned()];
    Compiler::new(CompilerConfig { args, ..config("/bin/sh", limits) }, &engine())
}

fn small() -> Bytes {
    component("(func (export \"run\") (result i32) i32.const 7)")
}

fn component(functions: &str) -> Bytes {
    let text = format!(
        "(component (core module $m {functions}) (core instance $i (instantiate $m)) \
         (func (export \"run\") (result u32) (canon lift (core func $i \"run\"))))"
    );
    wat::parse_str(&text).expect("the text above is well-formed").into()
}

/// Functions that are long, branchy and full of live values: the worst a compiler gets for its
/// bytes.
fn bomb(functions: usize, rounds: usize) -> Bytes {
    let mut text = String::from("(func (export \"run\") (result i32) i32.const 7)");
    for function in 0..functions {
        text.push_str("(func (param i32 i32) (result i32) (local i32 i32 i32 i32 i32 i32)\n");
        for round in 0..rounds {
            let (a, b, c) = (round % 8, (round * 3 + 1) % 8, (round * 5 + function) % 8);
            text.push_str(&format!(
                "(if (i32.gt_u (local.get {a}) (i32.const {round})) (then (local.set {b} (i32.add \
                 (local.get {c}) (i32.mul (local.get {a}) (i32.const {function}))))) (else \
                 (local.set {c} (i32.div_u (local.get {b}) (local.get {a})))))
"
            ));
        }
        text.push_str("local.get 2)\n");
    }
    component(&text)
}

#[tokio::test]
async fn a_component_is_compiled_kept_loaded_and_run() {
    let engine = engine();
    let compiler = Compiler::new(config(CHILD, CompileLimits::default()), &engine);
    let wasm = small();
    let code = compiler.compile(wasm.clone()).await.unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let opened =
        cap_std::fs::Dir::open_ambient_dir(dir.path(), cap_std::ambient_authority()).unwrap();
    let artefacts = Artefacts::open(opened, &engine, BYTES_MAX_DEFAULT).unwrap();
    artefacts.keep(&digest(&wasm), &code).unwrap();
    let component = artefacts.load(&digest(&wasm)).unwrap().unwrap();
    let mut store = wasmtime::Store::new(&engine, ());
    store.set_fuel(1000).unwrap();
    let instance =
        wasmtime::component::Linker::new(&engine).instantiate(&mut store, &component).unwrap();
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run").unwrap();
    assert_eq!(run.call(&mut store, ()).unwrap(), (7,));
}

#[tokio::test]
async fn a_component_the_compiler_refuses_is_told_why() {
    let error = compiler(CompileLimits::default()).compile(Bytes::from_static(b"\0asm")).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), "compile.refused", "{error}");
}

#[tokio::test]
async fn a_compile_bomb_ends_at_its_limit_on_processor_time() {
    let limits = CompileLimits { cpu_seconds: 1, threads: 1, ..CompileLimits::default() };
    let wasm = bomb(400, 400);
    let begun = Instant::now();
    let error = compiler(limits).compile(wasm).await.unwrap_err();
    assert_eq!(error.code(), "compile.cpu", "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_compile_bomb_ends_at_its_limit_on_memory() {
    let limits = CompileLimits { memory_bytes: 160 << 20, threads: 1, ..CompileLimits::default() };
    let compiler = compiler(limits);
    compiler.compile(small()).await.unwrap();
    let error = compiler.compile(bomb(4, 12_000)).await.unwrap_err();
    assert_eq!(error.code(), "compile.memory", "{error}");
}

#[tokio::test]
async fn code_that_is_too_large_is_refused() {
    let limits = CompileLimits { output_bytes_max: 1000, ..CompileLimits::default() };
    let error = compiler(limits).compile(small()).await.unwrap_err();
    assert_eq!(error.code(), "compile.output", "{error}");
}

#[tokio::test]
async fn a_process_that_hangs_is_killed() {
    let limits = CompileLimits { wall: Duration::from_millis(200), ..CompileLimits::default() };
    let begun = Instant::now();
    let error = script("exec /bin/sleep 600", limits).compile(small()).await.unwrap_err();
    assert_eq!(error.code(), "compile.timeout", "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_process_that_writes_without_end_is_stopped() {
    let limits = CompileLimits { output_bytes_max: 1 << 20, ..CompileLimits::default() };
    let error = script("exec /bin/cat /dev/zero", limits).compile(small()).await.unwrap_err();
    assert_eq!(error.code(), "compile.output", "{error}");
}

#[tokio::test]
async fn a_process_that_crashes_is_reported_with_its_last_words() {
    let error = script("echo 'it broke' >&2; kill -SEGV $$", CompileLimits::default())
        .compile(small())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "compile.crash", "{error}");
    assert!(error.to_string().contains("(signal 11): it broke"), "{error}");
}

#[tokio::test]
async fn a_process_killed_from_outside_is_not_blamed_on_the_component() {
    let error =
        script("kill -KILL $$", CompileLimits::default()).compile(small()).await.unwrap_err();
    assert_eq!(error.code(), "compile.killed", "{error}");
}

#[tokio::test]
async fn a_program_that_answers_something_else_is_refused() {
    let error = script("echo hello", CompileLimits::default()).compile(small()).await.unwrap_err();
    assert_eq!(error.code(), "compile.crash", "{error}");
}

#[tokio::test]
async fn the_process_gets_an_empty_environment() {
    let error = script("/usr/bin/env >&2; exit 3", CompileLimits::default()).compile(small()).await;
    let Err(Error::CompileCrash { stderr, .. }) = error else { panic!("{error:?}") };
    assert!(stderr.contains("RAYON_NUM_THREADS=2"), "{stderr}");
    assert!(!stderr.contains("HOME=") && !stderr.contains("CARGO"), "{stderr}");
}

#[tokio::test]
async fn more_uploads_than_may_wait_are_turned_away() {
    let limits = CompileLimits { wall: Duration::from_millis(500), ..CompileLimits::default() };
    let compiler = script("exec /bin/sleep 600", limits);
    let (one, two, three) = tokio::join!(
        compiler.compile(small()),
        compiler.compile(small()),
        compiler.compile(small()),
    );
    assert_eq!(one.unwrap_err().code(), "compile.timeout");
    assert_eq!(two.unwrap_err().code(), "compile.timeout");
    assert_eq!(three.unwrap_err().code(), "compile.busy");
}

#[tokio::test]
async fn a_dropped_compilation_takes_its_process_along() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("pid");
    let text = format!("echo $$ > {}; exec /bin/sleep 600", path.display());
    let compiler = script(&text, CompileLimits::default());
    let mut pid = String::new();
    {
        let mut compiling = std::pin::pin!(compiler.compile(small()));
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..2000 {
            tokio::select! {
                biased;
                done = &mut compiling => panic!("it ended by itself: {done:?}"),
                _ = tick.tick() => {}
            }
            pid = std::fs::read_to_string(&path).unwrap_or_default();
            if pid.ends_with('\n') {
                break;
            }
        }
    }
    let process = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..2000 {
        // A zombie has an empty command line; once reaped it has no directory.
        if std::fs::read(&process).is_ok_and(|line| !line.is_empty()) {
            tick.tick().await;
        } else {
            return;
        }
    }
    panic!("process {pid} lives on");
}
