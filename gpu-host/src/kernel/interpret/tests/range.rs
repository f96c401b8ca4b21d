//! Indices out of range, in every address space: reads give 0, writes vanish.

use super::*;

/// Writes and reads an array of 4, with 7 in each and other members around it, at an index which no
/// compiler knows. What is read, what is around it then, and what is in it.
fn beyond([global, local]: [&str; 2], index: u32) -> Vec<u32> {
    let source = format!(
        "struct Three {{ low: u32, all: array<u32, 4>, high: u32 }}
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        @group(0) @binding(1) var<storage, read_write> stored: Three;
        {global}
        @compute @workgroup_size(1) fn main() {{
            let at = out[0];
            {local}
            for (var i = 0; i < 4; i++) {{ it.all[i] = 7u; }}
            it.low = 5u;
            it.high = 6u;
            it.all[at] = 9u;
            out[1] = it.all[at];
            out[2] = it.low + 10u * it.high;
            out[3] = it.all[0] + 10u * it.all[1] + 100u * it.all[2] + 1000u * it.all[3];
        }}"
    );
    let blocks = vec![bytes(&[index, 0, 0, 0]), vec![0; 24]];
    words(&run_all(&source, [1, 1, 1], blocks)[0])[1..].to_vec()
}

#[test]
fn arrays_end_where_they_end_in_every_address_space() {
    let spaces = [
        ["", "let it = &stored;"],
        ["", "var it: Three;"],
        ["var<private> it: Three;", ""],
        ["var<workgroup> it: Three;", ""],
    ];
    for space in spaces {
        assert_eq!(beyond(space, 2), [9, 65, 7977], "in range, {space:?}");
        for index in [4, 5, 100, u32::MAX, 1 << 30, (1 << 30) - 1] {
            assert_eq!(beyond(space, index), [0, 65, 7777], "{index} in {space:?}");
        }
    }
}

#[test]
fn uniform_arrays_end_too() {
    let source = "
        struct Some { all: array<vec4u, 2>, after: vec4u }
        @group(0) @binding(0) var<uniform> it: Some;
        @group(0) @binding(1) var<storage, read_write> out: array<u32>;
        @compute @workgroup_size(1) fn main() {
            let at = out[0];
            out[0] = it.all[at].w + it.all[at + 1].x;
            out[1] = it.all[1][at + 2];
        }";
    let given = bytes(&(1..=12).collect::<Vec<_>>());
    let blocks = run_all(source, [1, 1, 1], vec![given, bytes(&[1, 0])]);
    assert_eq!(words(&blocks[1]), [8, 8]);
}

#[test]
fn negative_indices_are_out_of_range() {
    let body = "
        var all = array(1u, 2u, 3u);
        for (var i = -2; i < 5; i++) { out[i + 2] = all[i]; all[i] = 9u; }
        out[7] = all[0] + all[1] + all[2];";
    assert_eq!(answers(body, 8), [0, 0, 1, 2, 3, 0, 0, 27]);
}

#[test]
fn components_and_columns_end_as_well() {
    let body = "
        let at = out[0] + 3u;
        var v = vec3f(1, 2, 3);
        var m = mat2x3f(1, 2, 3, 4, 5, 6);
        v[at] = 9.0;
        m[at] = v;
        m[1][at] = 9.0;
        put(0, v[at]);
        put(1, v.x + v.y + v.z);
        put(2, m[at].x);
        put(3, dot(m[0] + m[1], vec3f(1)));
        let whole = vec4u(1, 2, 3, 4);
        out[4] = whole[at + 1] + whole[at];
        out[5] = array(5u, 6u)[at] + array(5u, 6u)[at - 2];";
    let expected = [0, 6_f32.to_bits(), 0, 21_f32.to_bits(), 4, 6];
    assert_eq!(answers(body, 6), expected);
}

#[test]
fn an_element_that_is_not_whole_is_out_of_range() {
    let source = "
        struct Pair { a: vec3u, b: u32 }
        @group(0) @binding(0) var<storage, read_write> pairs: array<Pair>;
        @compute @workgroup_size(1) fn main() {
            let count = arrayLength(&pairs);
            pairs[2] = Pair(vec3u(9), 9u);
            pairs[count] = Pair(vec3u(9), 9u);
            let last = pairs[2];
            pairs[0] = Pair(vec3u(count, last.a.x, pairs[2].b), 7u);
        }";
    // Two and three quarters.
    let blocks = run_all(source, [1, 1, 1], vec![bytes(&[1; 11])]);
    assert_eq!(words(&blocks[0]), [2, 0, 0, 7, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn nothing_outside_of_a_binding_is_touched() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> all: array<u32>;
        @compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
            all[id.x] = all[id.x] + 100u;
            all[id.x - 20u] = 9u;
        }";
    let bindings = vec![Bound { block: 0, from: 8, bytes: 24 }];
    let mut buffers = Buffers { blocks: vec![bytes(&(0..12).collect::<Vec<_>>())], bindings };
    run_on(&program(source), whole([2, 1, 1]), &mut buffers);
    let expected = [0, 1, 102, 103, 104, 105, 106, 107, 8, 9, 10, 11];
    assert_eq!(words(&buffers.blocks[0]), expected);
}

#[test]
fn a_binding_that_is_shorter_than_its_type_ends_where_it_ends() {
    let source = "
        struct Long { all: array<u32, 8>, last: vec2u }
        @group(0) @binding(0) var<storage, read_write> long: Long;
        @group(0) @binding(1) var<storage, read_write> out: array<u32>;
        @compute @workgroup_size(1) fn main() {
            out[0] = long.all[2] + long.all[3] + long.last.y;
            let before = long;
            out[1] = before.all[0] + before.all[3] + before.last.x;
            for (var i = 0; i < 8; i++) { long.all[i] = 50u; }
            long.last = vec2u(50);
            long = Long(array(1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u), vec2u(9));
        }";
    let bindings =
        vec![Bound { block: 0, from: 4, bytes: 12 }, Bound { block: 1, from: 0, bytes: 8 }];
    let blocks = vec![bytes(&(10..24).collect::<Vec<_>>()), vec![0; 8]];
    let mut buffers = Buffers { blocks, bindings };
    run_on(&program(source), whole([1, 1, 1]), &mut buffers);
    assert_eq!(words(&buffers.blocks[1]), [13, 11]);
    let mut expected: Vec<u32> = (10..24).collect();
    expected[1..4].copy_from_slice(&[1, 2, 3]);
    assert_eq!(words(&buffers.blocks[0]), expected);
}

#[test]
fn bindings_may_show_the_same_bytes() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> left: array<u32>;
        @group(0) @binding(1) var<storage, read_write> right: array<u32>;
        @compute @workgroup_size(1) fn main() { left[1] = 5u; right[1] = right[0] + 1u; }";
    let bindings =
        vec![Bound { block: 0, from: 0, bytes: 12 }, Bound { block: 0, from: 4, bytes: 8 }];
    let mut buffers = Buffers { blocks: vec![bytes(&[0; 3])], bindings };
    run_on(&program(source), whole([1, 1, 1]), &mut buffers);
    assert_eq!(words(&buffers.blocks[0]), [0, 5, 6]);
}

#[test]
fn atomics_out_of_range_change_nothing() {
    let source = "
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        @group(0) @binding(1) var<storage, read_write> all: array<atomic<i32>>;
        var<workgroup> local_all: array<atomic<u32>, 3>;
        @compute @workgroup_size(1) fn main() {
            let at = out[0] + 3u;
            out[1] = u32(atomicAdd(&all[at], 5));
            let exchanged = atomicCompareExchangeWeak(&all[at], 0, 1);
            out[2] = u32(exchanged.old_value) + u32(exchanged.exchanged);
            atomicStore(&local_all[at], 4u);
            out[3] = atomicExchange(&local_all[at], 8u) + atomicLoad(&local_all[at]);
            out[4] = atomicLoad(&local_all[0]) + atomicLoad(&local_all[2]);
        }";
    let blocks = run_all(source, [1, 1, 1], vec![bytes(&[0, 1, 1, 1, 1]), bytes(&[7; 3])]);
    assert_eq!(words(&blocks[0]), [0; 5]);
    assert_eq!(words(&blocks[1]), [7; 3]);
}

#[test]
fn a_pointer_that_is_passed_stays_out_of_range() {
    let declarations = "
        struct Inner { a: u32, b: array<u32, 2> }
        fn change(it: ptr<function, Inner>) -> u32 { (*it).b[1] += 5u; return (*it).b[1]; }";
    let body = "
        var all: array<Inner, 3>;
        let at = out[0];
        out[1] = change(&all[at + 2u]);
        out[2] = change(&all[at + 3u]);
        out[3] = all[2].b[1];
        out[4] = all[0].a + all[0].b[1];";
    assert_eq!(answers_with(declarations, body, 5), [0, 5, 0, 5, 0]);
}
