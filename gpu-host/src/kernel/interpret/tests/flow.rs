//! Control flow, calls, barriers, and what is not known.

use super::*;

#[test]
fn loops_break_continue_and_nest() {
    let body = "
        var sum = 0u;
        for (var i = 0u; i < 10u; i++) {
            if i == 3u { continue; }
            var j = 0u;
            loop {
                if j > i { break; }
                sum += 1u;
                continuing { j += 2u; break if j == 6u; }
            }
            if i == 8u { break; }
        }
        out[0] = sum;
        while sum > 10u { sum /= 2u; }
        out[1] = sum;";
    let mut sum = 0;
    for i in (0..=8_u32).filter(|i| *i != 3) {
        sum += (0..=i).step_by(2).take(3).count() as u32;
    }
    assert_eq!(answers(body, 2), [sum, sum / 2]);
}

#[test]
fn switches_choose() {
    let declarations = "
        fn choose(value: i32) -> u32 {
            var found = 1u;
            switch value {
                case 5, -7: { found = 2u; }
                default: { found = 3u; if value == 0 { break; } found = 4u; }
                case 9: { return 5u; }
            }
            return found;
        }";
    let body = "
        out[0] = choose(5); out[1] = choose(-7); out[2] = choose(0); out[3] = choose(1);
        out[4] = choose(9);
        for (var i = 0; i < 5; i++) {
            switch i { case 1, 2: { continue; } default: {} }
            out[5] += 1u;
        }";
    assert_eq!(answers_with(declarations, body, 6), [2, 2, 3, 4, 5, 3]);
}

#[test]
fn calls_begin_afresh() {
    let declarations = "
        struct Two { a: u32, b: vec2u }
        fn fresh(step: u32) -> u32 { var sum = 40u; var zero: u32; zero += step; sum += zero; return sum; }
        fn twice(a: u32) -> Two { let x = fresh(a); return Two(x, vec2u(fresh(x), a)); }
        fn add(to: ptr<function, array<u32, 3>>, at: u32, value: u32) { (*to)[at] += value; }
        fn count() { calls += 1u; }
        var<private> calls = 10u;
        var<private> other: vec2u = vec2u(3u, 4u);";
    let body = "
        let two = twice(2u);
        out[0] = two.a; out[1] = two.b.x; out[2] = two.b.y;
        var sums = array(1u, 2u, 3u);
        add(&sums, 1u, 5u);
        add(&sums, 3u, 5u);
        out[3] = sums[0] + 10u * sums[1] + 100u * sums[2];
        count(); count();
        out[4] = calls + other.y;";
    assert_eq!(answers_with(declarations, body, 5), [42, 82, 2, 371, 16]);
}

#[test]
fn each_invocation_has_its_own_and_a_group_begins_with_zeros() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        var<private> own = 5u;
        var<workgroup> together: u32;
        @compute @workgroup_size(4)
        fn main(@builtin(local_invocation_index) at: u32, @builtin(global_invocation_id) id: vec3u) {
            own += at;
            if at == 3u { together += own; }
            workgroupBarrier();
            out[id.x] = own * 100u + together;
        }";
    let blocks = run_all(source, [2, 1, 1], vec![vec![0; 32]]);
    assert_eq!(words(&blocks[0]), [508, 608, 708, 808, 508, 608, 708, 808]);
}

#[test]
fn invocations_are_told_who_they_are() {
    let source = "
        struct Told {
            @builtin(workgroup_id) group: vec3u,
            @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_id) at: vec3u,
        }
        @group(0) @binding(0) var<storage, read_write> out: array<array<u32, 4>>;
        @compute @workgroup_size(2, 3, 1)
        fn main(told: Told, @builtin(global_invocation_id) id: vec3u,
                @builtin(local_invocation_index) index: u32) {
            let size = told.groups * vec3u(2, 3, 1);
            let number = (id.z * size.y + id.y) * size.x + id.x;
            out[number] = array(
                told.group.x + 10 * told.group.y + 100 * told.group.z,
                told.at.x + 10 * told.at.y + 100 * told.at.z, index,
                id.x + 10 * id.y + 100 * id.z);
        }";
    let program = program(source);
    let mut buffers = bound(vec![vec![0; 2 * 4 * 6 * 16 * 2]]);
    let grid = [2, 4, 2];
    run_on(&program, Dispatch { grid, from: [1, 1, 0], groups: [1, 2, 2] }, &mut buffers);
    let all = words(&buffers.blocks[0]);
    for (number, told) in all.as_chunks().0.iter().enumerate() {
        let number = number as u32;
        let id = [number % 4, number / 4 % 12, number / 48];
        let (group, at) = ([id[0] / 2, id[1] / 3, id[2]], [id[0] % 2, id[1] % 3]);
        let decimal = |it: &[u32]| it.iter().rev().fold(0, |sum, digit| sum * 10 + digit);
        let expected =
            [decimal(&group), decimal(&at), at[0] + 2 * at[1], id[0] + 10 * id[1] + 100 * id[2]];
        let is_run = group[0] == 1 && (1..3).contains(&group[1]);
        assert_eq!(*told, if is_run { expected } else { [0; 4] }, "{number}");
    }
}

#[test]
fn what_one_wrote_before_a_barrier_all_see_after_it() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        var<workgroup> turn: u32;
        var<workgroup> seen: array<u32, 8>;
        @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) at: u32) {
            for (var round = 0u; round < 8u; round++) {
                if round == at { turn = at * at; }
                let all = workgroupUniformLoad(&turn);
                seen[at] += all;
                workgroupBarrier();
            }
            storageBarrier();
            out[at] = seen[7u - at];
        }";
    let blocks = run_all(source, [1, 1, 1], vec![vec![0; 32]]);
    assert_eq!(words(&blocks[0]), [140; 8]);
}

#[test]
fn a_barrier_that_some_do_not_reach_is_an_error() {
    let kernel = |body: &str| {
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
            @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) at: u32) {{
                {body}
            }}"
        );
        let mut buffers = bound(vec![vec![0; 16]]);
        Execution::new(program(&source), whole([1, 1, 1])).run(&mut buffers, u64::MAX)
    };
    assert_eq!(kernel("if at < 2u { workgroupBarrier(); }"), Err(Stuck::Barrier));
    let two = "if at < 2u { workgroupBarrier(); } else { workgroupBarrier(); }";
    assert_eq!(kernel(two), Err(Stuck::Barrier));
    let times = "for (var i = 0u; i < at; i++) { workgroupBarrier(); }";
    assert_eq!(kernel(times), Err(Stuck::Barrier));
    assert_eq!(kernel("workgroupBarrier(); if at < 2u { return; } out[at] = 1u;"), Ok(true));
}

#[test]
fn an_endless_kernel_can_be_paused_and_told_to_end() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> cancel: atomic<u32>;
        @group(0) @binding(1) var<storage, read_write> count: array<u32>;
        @compute @workgroup_size(2) fn main() {
            loop { if atomicLoad(&cancel) != 0u { break; } count[0] += 1u; }
        }";
    let program = program(source);
    let mut execution = Execution::new(program, whole([3, 1, 1]));
    let mut buffers = bound(vec![bytes(&[0]), bytes(&[0])]);
    assert_eq!(execution.run(&mut buffers, 1_000), Ok(false));
    let before = words(&buffers.blocks[1])[0];
    assert!((1_000..1_010).contains(&execution.spent()) && before > 10);
    assert_eq!(execution.run(&mut buffers, 2_000), Ok(false));
    let after = words(&buffers.blocks[1])[0];
    assert!(after > before);
    buffers.blocks[0] = bytes(&[1]);
    assert_eq!(execution.run(&mut buffers, u64::MAX), Ok(true));
    assert!(words(&buffers.blocks[1])[0] <= after + 1);
}

#[test]
fn nothing_to_do_is_done() {
    let program = program("@compute @workgroup_size(64) fn main() {}");
    for groups in [[0, 1, 1], [5, 0, 1], [1, 1, 0]] {
        let dispatch = Dispatch { grid: [9; 3], from: [0; 3], groups };
        assert_eq!(run_on(&program, dispatch, &mut Buffers::default()), 0);
    }
    assert_eq!(run_on(&program, whole([2, 1, 1]), &mut Buffers::default()), 256);
}

#[test]
fn what_costs_more_is_more() {
    let spent = |body: &str| {
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32, 256>;
            @compute @workgroup_size(1) fn main() {{ {body} }}"
        );
        run_on(&program(&source), whole([1, 1, 1]), &mut bound(vec![vec![0; 1024]]))
    };
    let loops = |count| spent(&format!("for (var i = 0u; i < {count}u; i++) {{ out[i] = i; }}"));
    let each = loops(101) - loops(100);
    assert_eq!(loops(200) - loops(100), 100 * each);
    assert!((5..20).contains(&each), "{each} operations");
    // Moving all at once is not free.
    assert!(spent("let all = out; out = all;") > spent("let all = out[0]; out[0] = all;") + 100);
}

#[test]
fn what_is_not_known_is_named() {
    let why = |source: &str| lowered(source).err().map(|why| why.to_string()).unwrap_or_default();
    let image = "
        @group(0) @binding(0) var image: texture_2d<f32>;
        @compute @workgroup_size(1) fn main() { let it = textureLoad(image, vec2i(), 0); }";
    assert_eq!(why(image), "the interpreter does not know the expression ImageLoad");
    let size = "
        override count = 5u;
        @group(0) @binding(0) var<storage, read_write> out: u32;
        @compute @workgroup_size(1) fn main() { out = count; }";
    assert!(why(size).starts_with("the interpreter does not know "), "{}", why(size));
    // Where it is not used it does not matter.
    let unused = "
        @group(0) @binding(0) var image: texture_2d<f32>;
        fn other() -> vec4f { return textureLoad(image, vec2i(), 0); }
        @compute @workgroup_size(1) fn main() {}";
    assert_eq!(why(unused), "");
    let module = parsed(unused);
    let info = Validator::new(ValidationFlags::all(), CAPABILITIES).validate(&module);
    let entry = lower::lower(&module, &info.expect("it is valid"), 1, &[]);
    assert_eq!(entry.err(), Some(Stuck::Unknown("the entry point 1".to_owned())));
}

#[test]
fn a_binding_that_is_not_given_is_named() {
    let source = "
        @group(0) @binding(3) var<storage, read_write> out: u32;
        @compute @workgroup_size(1) fn main() { out = 1u; }";
    let module = parsed(source);
    let info = Validator::new(ValidationFlags::all(), CAPABILITIES).validate(&module);
    let program = lower::lower(&module, &info.expect("it is valid"), 0, &[(0, 2), (1, 0)]);
    assert_eq!(program.err(), Some(Stuck::Unknown("the binding (0, 3)".to_owned())));
}

#[test]
fn groups_that_need_too_much_are_refused() {
    let large = |body: &str| {
        lowered(&format!(
            "@group(0) @binding(0) var<storage, read_write> all: array<u32, 20000000>;
            struct Half {{ all: array<u32, 60000> }}
            @compute @workgroup_size(256) fn main() {{ {body} }}"
        ))
    };
    assert_eq!(large("let it = all; all = it;").err(), Some(Stuck::Large));
    assert_eq!(
        large("var it: Half; var other: Half; all[0] = it.all[1] + other.all[2];").err(),
        Some(Stuck::Large)
    );
    assert!(large("var it: Half; all[0] = it.all[all[1]];").is_ok());
}
