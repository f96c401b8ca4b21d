//! Kernels that nobody would write: whatever passes the checks runs, or is refused with a reason.

use proptest::prelude::*;

use super::super::super::{Kernel, KernelLimits};
use super::*;

/// What such kernels are put together from.
const DECLARED: &str = "
    struct Part { a: u32, b: vec3f, c: array<i32, 3> }
    @group(0) @binding(0) var<storage, read_write> all: array<u32>;
    @group(0) @binding(1) var<storage, read_write> parts: array<Part>;
    @group(0) @binding(2) var<uniform> settings: array<vec4u, 4>;
    var<workgroup> together: array<atomic<u32>, 5>;
    var<private> own: array<vec4f, 3>;
    fn mixed(to: ptr<function, Part>, by: u32) -> u32 { (*to).c[by] += i32(by); return (*to).a + by; }
    fn signed(a: u32) -> i32 { return bitcast<i32>(a * 2654435761u); }
    fn float(a: u32) -> f32 { return bitcast<f32>(a * 2654435761u); }";

/// Expressions of a type that need no others.
fn leaves(kind: &str) -> Vec<&'static str> {
    match kind {
        "u32" => vec![
            "0u",
            "1u",
            "5u",
            "4294967295u",
            "x",
            "y",
            "id.x",
            "part.a",
            "all[x]",
            "all[y + 7u]",
            "parts[y].a",
            "settings[x % 3u].z",
            "settings[y][x]",
            "arrayLength(&parts)",
            "atomicLoad(&together[y])",
            "atomicAdd(&together[x], 3u)",
            "mixed(&part, x)",
        ],
        "i32" => {
            vec!["0i", "-1i", "2147483647i", "signed(x)", "part.c[x]", "parts[x].c[y]", "part.c[2]"]
        }
        "f32" => vec![
            "0.0",
            "-1.5",
            "3e38",
            "float(x)",
            "own[x].y",
            "own[1][y]",
            "part.b[x]",
            "parts[y].b.x",
        ],
        _ => vec!["true", "(x < y)", "(vec2(x, y).x == 3u)", "any(part.b < own[y].xyz)"],
    }
}

/// Expressions of a type of two of the same.
fn same(kind: &str) -> Vec<&'static str> {
    match kind {
        "u32" => vec![
            "($a + $b)",
            "($a * $b)",
            "($a - $b)",
            "($a / $b)",
            "($a % $b)",
            "($a << ($b))",
            "($a >> ($b))",
            "min($a, $b)",
            "extractBits($a, $b, $a)",
            "insertBits($a, $b, $a, $b)",
            "reverseBits($a ^ $b)",
            "dot4U8Packed($a, $b)",
            "all[$a % ($b)]",
            "firstLeadingBit($a & ($b))",
            "vec4($a, $b, 1u, 2u)[$a]",
            "array($a, $b, 9u)[$b]",
            "pack4xU8(vec4($a, $b, $a, $b))",
        ],
        "i32" => vec![
            "($a + $b)",
            "($a * $b)",
            "($a - $b)",
            "($a / $b)",
            "($a % $b)",
            "(-($a))",
            "abs($a)",
            "($a >> bitcast<u32>($b))",
            "clamp($a, $b, 9i)",
            "firstLeadingBit($a ^ $b)",
            "extractBits($a, bitcast<u32>($b), 40u)",
            "dot(vec3($a), vec3($b))",
            "sign($a)",
            "select($a, $b, $a < $b)",
            "unpack4xI8(bitcast<u32>($a)).y",
        ],
        "f32" => vec![
            "($a + $b)",
            "($a * $b)",
            "($a / $b)",
            "($a % $b)",
            "pow($a, $b)",
            "sin($a)",
            "fract($a)",
            "round($b)",
            "ldexp($a, i32($b))",
            "frexp($a).fract",
            "modf($b).whole",
            "length(vec3($a, $b, $a))",
            "refract(vec2($a), vec2($b), $a).x",
            "determinant(mat3x3($a, $b, $a, $b, $a, $a, $b, $a, $b))",
            "smoothstep($a, $b, $a)",
            "fma($a, $b, $a)",
            "quantizeToF16($a)",
            "unpack2x16float(bitcast<u32>($a)).x",
            "mix($a, $b, 0.3)",
            "atan2($a, $b)",
            "(mat2x3($a, $b, $a, $b, $a, $b) * vec2($a, $b)).z",
        ],
        _ => vec!["($a && $b)", "($a || !$b)", "($a == $b)", "select($a, $b, $a)"],
    }
}

/// Expressions of a type of two others, and of which.
fn others(kind: &str) -> (Vec<&'static str>, [&'static str; 2]) {
    match kind {
        "u32" => (
            vec!["u32($a + f32($b))", "bitcast<u32>($a)", "select(1u, 2u, $a > f32($b))"],
            ["f32", "i32"],
        ),
        "i32" => (vec!["i32($a + f32($b))", "bitcast<i32>($b)", "i32($b)"], ["f32", "u32"]),
        "f32" => (vec!["f32($a)", "f32($b)", "bitcast<f32>($b)"], ["i32", "u32"]),
        _ => (vec!["($a < f32($b))", "bool($a)", "($b != 3u)"], ["f32", "u32"]),
    }
}

/// An expression of a type, of others that nest so deeply.
fn expression(kind: &'static str, depth: u32) -> BoxedStrategy<String> {
    let leaf = prop::sample::select(leaves(kind)).prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let one = |forms: Vec<&'static str>, [a, b]: [&'static str; 2]| {
        let parts = (expression(a, depth - 1), expression(b, depth - 1));
        (prop::sample::select(forms), parts)
            .prop_map(|(form, (a, b))| form.replace("$a", &a).replace("$b", &b))
    };
    let (forms, kinds) = others(kind);
    prop_oneof![
        1 => leaf,
        3 => one(same(kind), [kind, kind]),
        1 => one(forms, kinds),
    ]
    .boxed()
}

fn statement(depth: u32) -> BoxedStrategy<String> {
    let of = |kind| expression(kind, 2);
    let leaf = prop_oneof![
        (of("u32"), of("u32")).prop_map(|(a, b)| format!("all[{a}] = {b};")),
        of("u32").prop_map(|a| format!("x = {a};")),
        of("u32").prop_map(|a| format!("y += {a};")),
        (of("u32"), of("f32"))
            .prop_map(|(a, b)| format!("own[{a}] = vec4({b}); part.b[{a}] = {b};")),
        (of("u32"), of("i32")).prop_map(|(a, b)| format!("part.c[{a}] = {b}; parts[{a}] = part;")),
        of("u32").prop_map(|a| format!("part = parts[{a}];")),
        of("u32").prop_map(|a| {
            format!("x ^= atomicCompareExchangeWeak(&together[{a}], x, y).old_value;")
        }),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let block = || prop::collection::vec(statement(depth - 1), 0..4).prop_map(|all| all.concat());
    prop_oneof![
        3 => leaf,
        1 => (of("bool"), block(), block()).prop_map(|(a, b, c)| format!("if {a} {{ {b} }} else {{ {c} }}")),
        1 => (of("bool"), block()).prop_map(|(a, b)| format!("while {a} {{ {b} x -= 1u; }}")),
        1 => (block(), of("bool"), block()).prop_map(|(a, b, c)| {
            format!("loop {{ {a} if {b} {{ break; }} if y > 9u {{ continue; }} {c} continuing {{ y += 1u; break if {b}; }} }}")
        }),
        1 => (of("u32"), block(), block()).prop_map(|(a, b, c)| {
            format!("switch {a} {{ case 0u, 5u: {{ {b} }} case 1u: {{ if x > y {{ break; }} {c} }} default: {{ }} }}")
        }),
        1 => of("bool").prop_map(|a| format!("if {a} {{ return; }}")),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_global_rejects: 100_000,
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn whatever_is_valid_runs_to_its_end(
        body in prop::collection::vec(statement(2), 1..6),
        fuel in 0..300_u32,
    ) {
        let source = format!(
            "{DECLARED}
            @compute @workgroup_size(3)
            fn main(@builtin(global_invocation_id) id: vec3u) {{
                var x = id.x; var y = all[1]; var part: Part; {} all[id.x] += x ^ y;
            }}",
            body.concat()
        );
        let checked = Kernel::check(&source, "main", &KernelLimits::default());
        // About a third is refused, such as what overflows where it is constant.
        prop_assume!(checked.is_ok());
        let kernel = checked.expect("it is right");
        let program = Arc::new(Program::of(&kernel).expect("all of it is known"));
        let around = vec![0x5A; 64];
        let control = bytes(&[0, 0, fuel, 2, 1, 1]);
        let all = [&around[..], &[7; 40], &around].concat();
        let mut buffers = bound(vec![all, vec![9; 100], vec![3; 64], control]);
        buffers.bindings[0] = Bound { block: 0, from: 64, bytes: 40 };
        run_on(&program, whole([2, 1, 1]), &mut buffers);
        let [all, _, settings, _] = &buffers.blocks[..] else { panic!("a block is gone") };
        prop_assert!(all[..64] == around[..] && all[104..] == around[..]);
        prop_assert_eq!(settings, &vec![3; 64]);
    }
}
