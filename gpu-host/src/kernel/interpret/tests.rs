//! Kernels as naga reads them, run on bytes.

mod flow;
mod functions;
mod hostile;
mod kernels;
mod range;

use std::sync::Arc;

use naga::Module;
use naga::valid::{ValidationFlags, Validator};

use super::super::CAPABILITIES;
use super::*;

/// A module that is valid, its entry point `main`, and its bindings in order.
fn lowered(source: &str) -> Result<Program, Stuck> {
    let module = parsed(source);
    let info = Validator::new(ValidationFlags::all(), CAPABILITIES)
        .validate(&module)
        .unwrap_or_else(|why| panic!("{}", why.emit_to_string(source)));
    let bindings = module.global_variables.iter().filter_map(|(_, variable)| variable.binding);
    let mut bindings: Vec<_> = bindings.map(|at| (at.group, at.binding)).collect();
    bindings.sort_unstable();
    lower::lower(&module, &info, 0, &bindings)
}

fn parsed(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|why| panic!("{}", why.emit_to_string(source)))
}

fn program(source: &str) -> Arc<Program> {
    Arc::new(lowered(source).expect("it is known"))
}

/// Bytes that are bound whole, one block each.
fn bound(blocks: Vec<Vec<u8>>) -> Buffers {
    let all = blocks.iter().enumerate();
    let bindings = all.map(|(block, bytes)| Bound { block, from: 0, bytes: bytes.len() });
    Buffers { bindings: bindings.collect(), blocks }
}

fn whole(grid: [u32; 3]) -> Dispatch {
    Dispatch { grid, from: [0; 3], groups: grid }
}

fn run_on(program: &Arc<Program>, dispatch: Dispatch, buffers: &mut Buffers) -> u64 {
    let mut execution = Execution::new(Arc::clone(program), dispatch);
    assert_eq!(execution.run(buffers, u64::MAX), Ok(true));
    execution.spent()
}

/// What is in the bindings once all groups were run.
fn run_all(source: &str, grid: [u32; 3], blocks: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut buffers = bound(blocks);
    run_on(&program(source), whole(grid), &mut buffers);
    buffers.blocks
}

/// What one invocation writes to its only binding.
fn answers(body: &str, count: usize) -> Vec<u32> {
    answers_with("", body, count)
}

/// The same with declarations.
fn answers_with(declarations: &str, body: &str, count: usize) -> Vec<u32> {
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
        {declarations}
        fn put(at: u32, value: f32) {{ out[at] = bitcast<u32>(value); }}
        @compute @workgroup_size(1) fn main() {{ {body} }}"
    );
    words(&run_all(&source, [1, 1, 1], vec![vec![0; count * 4]])[0])
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
