//! Kernels that are ended, run by the interpreter.

use std::sync::Arc;

use proptest::prelude::*;

use crate::kernel::interpret::{Bound, Buffers, Dispatch, Execution, Program, Stuck};
use crate::kernel::{CONTROL_WORDS, Kernel, KernelLimits, trap, word};

mod paying;
mod random;

const AROUND: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<uniform> n: u32;
var<workgroup> shared_word: u32;
var<workgroup> shared_words: array<u32, 8>;
";

const IDS: &str = "@builtin(local_invocation_index) lane: u32, \
    @builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u, \
    @builtin(num_workgroups) groups: vec3u";

/// Words of `out`.
const OUT_WORDS: usize = 64;

/// A kernel under way.
struct Trial {
    execution: Execution,
    buffers: Buffers,
}

impl Trial {
    fn new(source: &str, fuel: u32) -> Self {
        let kernel = Kernel::check(source, "main", &KernelLimits::default());
        let kernel = kernel.unwrap_or_else(|error| panic!("{error}\n{source}"));
        let program = Arc::new(Program::of(&kernel).expect("it is known"));
        let mut control = vec![0; CONTROL_WORDS];
        control[word::FUEL as usize] = fuel;
        control[word::GROUPS[0] as usize] = 9;
        let blocks: Vec<Vec<u8>> = kernel
            .slots()
            .iter()
            .map(|slot| match slot.number {
                0 => bytes(&[0; OUT_WORDS]),
                _ => bytes(&[7]),
            })
            .chain([bytes(&control)])
            .collect();
        let all = blocks.iter().enumerate();
        let bindings = all.map(|(block, it)| Bound { block, from: 0, bytes: it.len() }).collect();
        // A piece of the nine groups.
        let dispatch = Dispatch { grid: [2, 1, 1], from: [0; 3], groups: [2, 1, 1] };
        let execution = Execution::new(program, dispatch);
        Self { execution, buffers: Buffers { blocks, bindings } }
    }

    /// Statements of an entry point of 8 invocations.
    fn of(body: &str, fuel: u32) -> Self {
        Self::new(&format!("{AROUND}@compute @workgroup_size(8) fn main({IDS}) {{ {body} }}"), fuel)
    }

    fn run(&mut self) -> Result<bool, Stuck> {
        // Far more than any of these needs.
        self.execution.run(&mut self.buffers, 100_000_000)
    }

    #[track_caller]
    fn ended(mut self) -> Self {
        assert_eq!(self.run(), Ok(true));
        self
    }

    fn control(&self) -> Vec<u32> {
        words(self.buffers.blocks.last().expect("there is one"))
    }

    fn trap(&self) -> u32 {
        self.control()[word::TRAP as usize]
    }

    fn cancel(&mut self) {
        self.buffers.blocks.last_mut().expect("there is one")[word::CANCEL as usize * 4] = 1;
    }

    fn out(&self) -> Vec<u32> {
        words(&self.buffers.blocks[0])
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
}

#[test]
fn an_endless_loop_ends_with_its_fuel() {
    for fuel in [0, 1, 2, 1023, 1024, 1025, 5000] {
        let trial = Trial::of("loop { out[id.x] += 1u; }", fuel).ended();
        assert_eq!(trial.trap(), trap::FUEL);
        assert_eq!(trial.out()[..16], [fuel; 16]);
    }
}

#[test]
fn fuel_that_is_just_enough_is_enough() {
    // The last look at a loop costs one as well.
    let body = "for (var i = 0u; i < 2000u; i++) { out[id.x] += 1u; }";
    assert_eq!(Trial::of(body, 2001).ended().trap(), 0);
    assert_eq!(Trial::of(body, 2000).ended().trap(), trap::FUEL);
}

#[test]
fn all_loops_of_an_invocation_share_its_fuel() {
    let nested = "loop { loop { loop { out[id.x] += 1u; } } }";
    let trial = Trial::of(nested, 100).ended();
    assert_eq!((trial.trap(), trial.out()[0]), (trap::FUEL, 98));
    let in_a_row = "loop { out[id.x] += 1u; } loop { out[id.x] += 1u; } out[id.x + 16u] = 1u;";
    let trial = Trial::of(in_a_row, 100).ended();
    assert_eq!((trial.out()[0], trial.out()[16]), (100, 1));
}

#[test]
fn loops_of_functions_are_counted_where_they_are_called() {
    let source = format!(
        "{AROUND} fn spin(at: u32) -> u32 {{
            for (var i = 0u; i < 10u; i++) {{ out[at] += 1u; if out[at] == 1000u {{ return 1u; }} }}
            return 0u;
        }}
        @compute @workgroup_size(8) fn main({IDS}) {{
            loop {{ if spin(id.x) == 1u {{ return; }} }}
        }}"
    );
    let trial = Trial::new(&source, 600).ended();
    assert_eq!(trial.trap(), trap::FUEL);
    assert!(trial.out()[0] > 450 && trial.out()[0] < 600, "{}", trial.out()[0]);
    assert_eq!(Trial::new(&source, 2000).ended().trap(), 0);
}

#[test]
fn a_trap_is_told_on_every_way_out() {
    let body = "loop { if lane == 3u { break; } continue; }
        if lane < 4u { return; } out[id.x] = 1u; return;";
    let trial = Trial::of(body, 50).ended();
    assert_eq!(trial.trap(), trap::FUEL);
    let only_last = "if lane != 7u || group.x != 1u { return; } loop { out[0] += 1u; }";
    assert_eq!(Trial::of(only_last, 50).ended().trap(), trap::FUEL);
}

#[test]
fn a_kernel_without_a_trap_leaves_the_control_buffer_alone() {
    let trial = Trial::of("for (var i = 0u; i < 9u; i++) { out[id.x] += i; }", 4000);
    let before = trial.control();
    let trial = trial.ended();
    assert_eq!(trial.control(), before);
    assert_eq!(trial.out()[..16], [36; 16]);
}

#[test]
fn the_number_of_workgroups_is_that_of_the_whole() {
    assert_eq!(Trial::of("out[id.x] = groups.x;", 1).ended().out()[..16], [9; 16]);
    let source = "struct Told { @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) lane: u32 }
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        fn both(told: Told) -> u32 { return told.groups.x * 10u + told.lane; }
        @compute @workgroup_size(8) fn main(told: Told) { out[told.lane] = both(told); }";
    let trial = Trial::new(source, 1).ended();
    assert_eq!(trial.out()[..8], [90, 91, 92, 93, 94, 95, 96, 97]);
}

#[test]
fn a_kernel_that_was_cancelled_before_counts_nothing() {
    let cancelled = |body: &str| {
        let mut trial = Trial::of(body, 5000);
        trial.cancel();
        let trial = trial.ended();
        (trial.trap(), trial.out()[0], trial.out()[16])
    };
    // None of this can be ended, and all of it is short.
    let short = "out[id.x] = 1u; for (var i = 0u; i < 5u; i++) { out[id.x + 16u] += 1u; }";
    assert_eq!(cancelled(short), (0, 1, 5));
    let counted = "out[id.x] = 1u; for (var i = 0u; i < n; i++) { out[id.x + 16u] += 1u; }";
    assert_eq!(cancelled(counted), (trap::CANCELLED, 1, 0));
    let once = "out[id.x] = 1u; for (var i = 0u; i < 500u; i++) { out[id.x + 16u] += 1u; }";
    assert_eq!(cancelled(once), (trap::CANCELLED, 1, 0));
}

#[test]
fn loops_that_are_counted_together_look_at_once() {
    let body = "for (var i = 0u; i < 1000u; i++) { out[id.x] += 1u; workgroupBarrier(); }";
    for (fuel, made) in [(3072, 0), (3500, 428)] {
        let mut trial = Trial::of(body, fuel);
        trial.cancel();
        let trial = trial.ended();
        assert_eq!((trial.trap(), trial.out()[0]), (trap::CANCELLED, made));
    }
}

#[test]
fn what_is_left_of_a_kernel_that_was_cancelled_is_known() {
    let left = |body: &str| {
        let source = format!("{AROUND}@compute @workgroup_size(8) fn main({IDS}) {{ {body} }}");
        let kernel = Kernel::check(&source, "main", &KernelLimits::default()).expect("it is right");
        kernel.stubborn_operations() / 8
    };
    let one = left("out[id.x] += 1u;");
    assert!((3..20).contains(&one), "{one}");
    let free = left("for (var i = 0u; i < 50u; i++) { out[id.x] += 1u; }");
    assert!((50 * one..150 * one).contains(&free), "{free}");
    // What is moved at once counts as much as it is.
    let moved = left(
        "var all: array<u32, 500>; all[lane] = 1u;
        for (var i = 0u; i < 30u; i++) { var copy = all; copy[i] += 1u; all = copy; }
        workgroupBarrier(); out[id.x] = all[n];",
    );
    assert!(moved > 30 * 2 * 500, "{moved}");
    // Loops that pay do not begin, and without barriers what is long does not either.
    assert_eq!(left(&"out[id.x] += 1u;".repeat(500)), 0);
    let payers = left("for (var i = 0u; i < n; i++) { out[id.x] += 1u; }");
    assert!(payers < 20, "{payers}");
}

#[test]
fn a_long_kernel_that_was_cancelled_before_does_nothing() {
    let more = "out[id.x] += 1u;".repeat(400);
    let around = format!("out[id.x] = 1u; for (var i = 0u; i < 50u; i++) {{ {} }}", &more[..320]);
    for body in [more, around] {
        for counted in ["", "for (var i = 0u; i < n; i++) { out[0] += 1u; }"] {
            let mut trial = Trial::of(&(body.clone() + counted), 5000);
            trial.cancel();
            let trial = trial.ended();
            assert_eq!((trial.trap(), trial.out()[0]), (trap::CANCELLED, 0), "{body:.80}");
        }
    }
}

#[test]
fn an_endless_kernel_is_cancelled_soon() {
    for body in [
        "loop { out[id.x] += 1u; }",
        "loop { out[id.x] += 1u; workgroupBarrier(); }",
        "loop { loop { out[id.x] += 1u; if out[id.x] % 7u == 0u { break; } } workgroupBarrier(); }",
        "loop { shared_word = 1u; if workgroupUniformLoad(&shared_word) == 2u { break; } }",
        // All have to leave together what a barrier depends on.
        "var k = 0u; loop { k++; if k == n - 8u { break; } }
            for (var i = 0u; i < k; i++) { workgroupBarrier(); }",
    ] {
        let mut trial = Trial::of(body, u32::MAX);
        assert_eq!(trial.execution.run(&mut trial.buffers, 2_000_000), Ok(false), "{body}");
        trial.cancel();
        let before = trial.execution.spent();
        assert_eq!(trial.run(), Ok(true), "{body}");
        assert_eq!(trial.trap(), trap::CANCELLED, "{body}");
        // 8 invocations of two groups, 1024 iterations of some tens of operations in each loop.
        assert!(trial.execution.spent() - before < 16 * 2048 * 100, "{body}");
    }
}

#[test]
fn invocations_leave_loops_with_barriers_together() {
    // They have made different numbers of iterations by themselves before.
    let body = "for (var i = 0u; i < lane * 30u; i++) { out[id.x] += 1u; }
        for (var i = 0u; i < 200u; i++) { shared_words[lane] = i; workgroupBarrier(); }
        out[id.x + 16u] = shared_words[7];";
    for fuel in [0, 1, 100, 150, 199, 200, 201, 5000] {
        let trial = Trial::of(body, fuel).ended();
        let is_enough = fuel > 210;
        assert_eq!(trial.trap() == 0, is_enough, "{fuel}");
    }
}

#[test]
fn what_a_loop_has_counted_stays_the_same_for_all() {
    let body = "for (var i = 0u; i < lane * 30u; i++) { out[id.x] += 1u; }
        var levels = 0u;
        while levels < 100u { levels++; }
        if levels == 100u { workgroupBarrier(); out[id.x + 16u] = 1u; }";
    for fuel in [50, 101, 150, 250, 1000] {
        let out = Trial::of(body, fuel).ended().out();
        assert!(out[16..32] == [0; 16] || out[16..32] == [1; 16], "{fuel}: {out:?}");
    }
}

#[test]
fn fuel_bounds_what_is_executed() {
    let body = "loop { loop { workgroupBarrier(); loop { out[id.x] += 1u; } } }";
    let spent = |fuel| Trial::of(body, fuel).ended().execution.spent();
    let (few, many) = (spent(1000), spent(10_000));
    assert!(many > few * 5 && many < few * 15, "{few} {many}");
}

proptest! {
    #[test]
    fn no_kernel_waits_for_invocations_that_have_left(
        source in random::kernel(),
        fuel in prop::sample::select(vec![0, 1, 2, 3, 5, 8, 13, 40, 200, 1030, 5000]),
        cancel_after in prop::option::of(0..40_000_u64),
    ) {
        if Kernel::check(&source, "main", &KernelLimits::default()).is_err() {
            return Ok(());
        }
        let mut trial = Trial::new(&source, fuel);
        if let Some(spent) = cancel_after {
            let ran = trial.execution.run(&mut trial.buffers, spent);
            prop_assert!(ran.is_ok(), "{ran:?}\n{source}");
            trial.cancel();
        }
        prop_assert_eq!(trial.run(), Ok(true), "{}", source);
    }
}

#[test]
fn enough_random_kernels_have_barriers_and_are_taken() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut taken = 0;
    for _ in 0..200 {
        let source = random::kernel().new_tree(&mut runner).expect("it can be made").current();
        let kernel = Kernel::check(&source, "main", &KernelLimits::default());
        taken += usize::from(kernel.is_ok() && source.contains("Barrier();"));
    }
    assert!(taken > 40, "{taken}");
}
