//! Which barriers are taken, and how loops are counted.

use super::*;

const AROUND: &str = "
@group(0) @binding(0) var<uniform> n: u32;
@group(0) @binding(1) var<storage> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
var<workgroup> shared_word: u32;
var<private> own: u32;
fn sync() { workgroupBarrier(); }
fn same(x: u32) -> u32 { return x * 2u; }
fn bump(p: ptr<function, u32>) { *p += 1u; }
fn ask(p: ptr<function, u32>) { if *p == 1u { workgroupBarrier(); } }
fn upto(bound: u32) { for (var i = 0u; i < bound; i++) { workgroupBarrier(); } }
fn first(x: u32) -> u32 { if x > 3u { return 1u; } return 2u; }
struct Told { @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32 }
@compute @workgroup_size(8)
fn main(@builtin(local_invocation_id) id: vec3u, told: Told,
    @builtin(num_workgroups) groups: vec3u) {
    let lane = id.x;
";

fn checked(body: &str) -> Result<Counts, Rejected> {
    let source = format!("{AROUND}{body}\n}}");
    let mut module = naga::front::wgsl::parse_str(&source).expect("it is WGSL");
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    check(&module, &source)
}

#[test]
fn barriers_that_all_reach_are_taken() {
    for body in [
        "workgroupBarrier();",
        "storageBarrier();",
        "if n > 1u { workgroupBarrier(); }",
        "if told.group.x == 1u { sync(); }",
        "if words[told.group.x] == groups.y { workgroupBarrier(); }",
        "if arrayLength(&out) > 4u { workgroupBarrier(); }",
        "for (var i = 0u; i < n; i++) { workgroupBarrier(); }",
        "var i = 0u; loop { workgroupBarrier(); i++; if i > n { break; } }",
        "var i = 0u; loop { workgroupBarrier(); continuing { i++; break if i > n; } }",
        "for (var i = 0u; i < n; i++) { for (var j = i; j > 0u; j--) { sync(); } }",
        "if lane > 2u { out[lane] = 1u; } workgroupBarrier();",
        "for (var i = 0u; i < lane; i++) { out[i] = 1u; } workgroupBarrier();",
        "switch n { case 1u { workgroupBarrier(); } default { sync(); } }",
        "switch lane { case 1u { out[0] = 1u; } default {} } workgroupBarrier();",
        "if n == 0u { return; } workgroupBarrier();",
        "let all = workgroupUniformLoad(&shared_word); if all == 1u { sync(); }",
        "upto(n);",
        "upto(same(n));",
        "if first(n) == 1u { workgroupBarrier(); }",
        "own = n; if own > 1u { workgroupBarrier(); }",
        "for (var i = 0u; i < n; i++) { sync(); if first(i) == 2u { continue; } sync(); }",
        "var a = array<u32, 3>(1, 2, 3); a[n] = 5u; if a[1] > 1u { sync(); }",
        "if n > 1u && words[0] > 1u { workgroupBarrier(); }",
        "var x = lane; bump(&x); workgroupBarrier();",
    ] {
        assert!(checked(body).is_ok(), "{body}: {:?}", checked(body));
    }
}

#[test]
fn barriers_that_some_may_not_reach_are_refused() {
    for body in [
        "if lane == 0u { workgroupBarrier(); }",
        "if lane == 0u { sync(); }",
        "if told.index == 0u { workgroupBarrier(); }",
        "if lane == 0u { return; } workgroupBarrier();",
        "if lane == 0u { if n > 1u { return; } } workgroupBarrier();",
        "for (var i = 0u; i < lane; i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < n; i++) { if lane == i { break; } workgroupBarrier(); }",
        "for (var i = 0u; i < n; i++) { if lane == i { continue; } workgroupBarrier(); }",
        // In the next iteration.
        "for (var i = 0u; i < n; i++) { workgroupBarrier(); if lane == i { break; } }",
        "loop { workgroupBarrier(); continuing { break if lane == 0u; } }",
        "for (var i = 0u; i < n; i++) { if lane == i { return; } } workgroupBarrier();",
        "switch lane { case 1u { workgroupBarrier(); } default {} }",
        "switch n { case 1u { if lane == 1u { break; } workgroupBarrier(); } default {} }",
        "if out[0] == 1u { workgroupBarrier(); }",
        "if shared_word == 1u { workgroupBarrier(); }",
        "if words[lane] == 1u { workgroupBarrier(); }",
        "var x = 0u; if lane == 1u { x = 1u; } if x == 1u { workgroupBarrier(); }",
        "var x = 0u; for (var i = 0u; i < lane; i++) { x += 1u; } if x > 1u { sync(); }",
        "var x = 0u; for (var i = 0u; i < 4u; i++) { if x > 1u { sync(); } x = lane; }",
        "var x = n; bump(&x); if x == 1u { workgroupBarrier(); }",
        "var x = lane; ask(&x);",
        "upto(lane);",
        "upto(n); upto(lane);",
        "if first(lane) == 1u { workgroupBarrier(); }",
        "own = lane; if own > 1u { workgroupBarrier(); }",
        "var a = array<u32, 3>(1, 2, 3); a[lane % 3u] = 5u; if a[1] > 1u { sync(); }",
        "if n > 1u && lane > 1u { workgroupBarrier(); }",
        "if select(n, lane, n > 1u) > 1u { workgroupBarrier(); }",
        "if lane == 0u { let all = workgroupUniformLoad(&shared_word); }",
    ] {
        let refused = checked(body);
        assert!(matches!(refused, Err(Rejected::Barrier { .. })), "{body}: {refused:?}");
    }
}

#[test]
fn what_a_workgroup_has_read_before_does_not_count() {
    let body = "if atomicLoad(&flag) == 1u { workgroupBarrier(); }";
    let source = format!("var<workgroup> flag: atomic<u32>; {AROUND}{body} }}");
    let module = naga::front::wgsl::parse_str(&source).expect("it is WGSL");
    assert!(matches!(check(&module, &source), Err(Rejected::Barrier { .. })));
}

const ALONE: Counting = Counting::Alone;
const TOGETHER: Counting = Counting::Together;

/// How the loops of the entry point are counted.
fn counting(body: &str) -> Vec<Counting> {
    let counts = checked(body).expect("it is taken");
    counts.loops.last().cloned().expect("there is an entry point")
}

#[test]
fn loops_are_counted_alone_where_they_can_be() {
    let nested = "for (var i = 0u; i < n; i++) { for (var j = 0u; j < n; j++) { out[j] = i; } ";
    assert_eq!(counting(&format!("{nested} }}")), [ALONE, ALONE]);
    assert_eq!(counting(&format!("{nested} workgroupBarrier(); }}")), [TOGETHER, ALONE]);
    assert_eq!(counting("upto(n); loop { if n > 1u { break; } }"), [ALONE]);
    let counts = checked("for (var i = 0u; i < n; i++) { out[i] = i; }").expect("it is taken");
    assert!(!counts.has_barriers);
    assert!(checked("workgroupBarrier();").expect("it is taken").has_barriers);
}

#[test]
fn loops_are_counted_together_where_barriers_depend_on_them() {
    let levels = "var levels = 0u; while (1u << levels) < n { levels++; }
        for (var i = 0u; i < lane; i++) { out[i] = 1u; }
        for (var i = 0u; i < levels; i++) { workgroupBarrier(); }";
    assert_eq!(counting(levels), [TOGETHER, ALONE, TOGETHER]);
}

#[test]
fn a_line_is_named() {
    let Err(Rejected::Barrier { line, .. }) = checked("\n\nif lane == 1u {\n sync(); }") else {
        panic!("it was taken");
    };
    // That of the barrier, in the function that is called.
    let written = AROUND.lines().position(|text| text.contains("fn sync")).expect("it is there");
    assert_eq!(line as usize, written + 1);
}
