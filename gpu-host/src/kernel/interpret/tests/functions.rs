//! Values: each operator and built-in function beside what Rust, or WGSL's text, says.

use super::*;

/// What an expression of a number comes to; `given` is nothing the compiler knows.
fn of(expression: &str, given: &[u32]) -> u32 {
    let source = format!(
        "@group(0) @binding(0) var<storage, read> given: array<u32>;
        @group(0) @binding(1) var<storage, read_write> out: u32;
        fn u(at: u32) -> u32 {{ return given[at]; }}
        fn i(at: u32) -> i32 {{ return bitcast<i32>(given[at]); }}
        fn f(at: u32) -> f32 {{ return bitcast<f32>(given[at]); }}
        @compute @workgroup_size(1) fn main() {{ out = bitcast<u32>({expression}); }}"
    );
    words(&run_all(&source, [1, 1, 1], vec![bytes(given), vec![0; 4]])[1])[0]
}

fn of_floats(expression: &str, given: &[f32]) -> f32 {
    f32::from_bits(of(expression, &given.iter().map(|it| it.to_bits()).collect::<Vec<_>>()))
}

fn of_signed(expression: &str, given: &[i32]) -> i32 {
    let given: Vec<_> = given.iter().map(|it| it.cast_unsigned()).collect();
    of(expression, &given).cast_signed()
}

#[test]
fn floats_are_those_of_rust() {
    type Pair = (&'static str, fn(f32) -> f32);
    let functions: [Pair; 34] = [
        ("-f(0)", |a| -a),
        ("f(0) + 1.5", |a| a + 1.5),
        ("f(0) - 1.5", |a| a - 1.5),
        ("f(0) * 1.5", |a| a * 1.5),
        ("f(0) / 1.5", |a| a / 1.5),
        ("f(0) % 1.5", |a| a % 1.5),
        ("abs(f(0))", f32::abs),
        ("saturate(f(0))", |a| a.clamp(0.0, 1.0)),
        ("clamp(f(0), -0.5, 0.25)", |a| a.clamp(-0.5, 0.25)),
        ("min(f(0), 0.5)", |a| a.min(0.5)),
        ("max(f(0), 0.5)", |a| a.max(0.5)),
        ("sin(f(0))", f32::sin),
        ("cos(f(0))", f32::cos),
        ("tan(f(0))", f32::tan),
        ("sinh(f(0))", f32::sinh),
        ("cosh(f(0))", f32::cosh),
        ("tanh(f(0))", f32::tanh),
        ("asin(f(0))", f32::asin),
        ("acos(f(0))", f32::acos),
        ("atan(f(0))", f32::atan),
        ("asinh(f(0))", f32::asinh),
        ("acosh(f(0))", f32::acosh),
        ("atanh(f(0))", f32::atanh),
        ("atan2(f(0), 2.0)", |a| a.atan2(2.0)),
        ("ceil(f(0))", f32::ceil),
        ("floor(f(0))", f32::floor),
        ("trunc(f(0))", f32::trunc),
        ("round(f(0))", f32::round_ties_even),
        ("exp(f(0))", f32::exp),
        ("exp2(f(0))", f32::exp2),
        ("log(f(0))", f32::ln),
        ("log2(f(0))", f32::log2),
        ("sqrt(f(0))", f32::sqrt),
        ("pow(f(0), 3.0)", |a| a.powf(3.0)),
    ];
    for (expression, f) in functions {
        for given in [-2.5_f32, -0.75, 0.0, 0.5, 1.0, 2.5, 1e30] {
            let (found, expected) = (of_floats(expression, &[given]), f(given));
            let is_same =
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(is_same, "{expression} of {given} is {found}, not {expected}");
        }
    }
}

#[test]
fn other_functions_of_floats_do_as_wgsl_says() {
    for (expression, given, expected) in [
        ("fract(f(0))", -1.25, 0.75),
        ("sign(f(0))", -3.0, -1.0),
        ("sign(f(0))", 0.0, 0.0),
        ("step(f(0), 1.0)", 1.0, 1.0),
        ("step(f(0), 1.0)", 1.5, 0.0),
        ("smoothstep(0.0, 4.0, f(0))", 1.0, 0.15625),
        ("mix(2.0, 4.0, f(0))", 0.25, 2.5),
        ("fma(f(0), 2.0, 1.0)", 3.0, 7.0),
        ("inverseSqrt(f(0))", 4.0, 0.5),
        ("ldexp(f(0), 3)", 1.5, 12.0),
        ("ldexp(f(0), -200)", 1.5, 0.0),
        ("ldexp(f(0), -149)", 1.0, f32::from_bits(1)),
        ("degrees(f(0))", std::f32::consts::PI, 180.0),
        ("quantizeToF16(f(0))", 1.000_5, 1.000_976_6),
        ("modf(f(0)).fract + 10 * modf(f(0)).whole", -2.5, -20.5),
        ("frexp(f(0)).fract", 12.0, 0.75),
        ("f32(frexp(f(0)).exp)", 12.0, 4.0),
        ("frexp(f(0)).fract", -1e-45, -0.5),
        ("f32(frexp(f(0)).exp)", -1e-45, -148.0),
        ("f32(f(0) == 1.0)", f32::NAN, 0.0),
        ("f32(f(0) != 1.0)", f32::NAN, 1.0),
        ("f32(f(0) >= 1.0) + f32(f(0) <= 1.0)", f32::NAN, 0.0),
    ] {
        assert_eq!(
            of_floats(expression, &[given]).to_bits(),
            f32::to_bits(expected),
            "{expression} of {given}"
        );
    }
}

#[test]
fn integers_wrap_and_never_fail() {
    for (expression, given, expected) in [
        ("i(0) + i(1)", [i32::MAX, 1], i32::MIN),
        ("i(0) - i(1)", [i32::MIN, 1], i32::MAX),
        ("i(0) * i(1)", [1 << 20, 1 << 13], 0),
        ("i(0) / i(1)", [-7, 2], -3),
        ("i(0) / i(1)", [-7, 0], -7),
        ("i(0) / i(1)", [i32::MIN, -1], i32::MIN),
        ("i(0) % i(1)", [-7, 2], -1),
        ("i(0) % i(1)", [-7, 0], 0),
        ("i(0) % i(1)", [i32::MIN, -1], 0),
        ("-i(0)", [i32::MIN, 0], i32::MIN),
        ("abs(i(0))", [i32::MIN, 0], i32::MIN),
        ("~i(0)", [5, 0], -6),
        ("i(0) >> u32(i(1))", [-8, 1], -4),
        ("i(0) >> u32(i(1))", [-8, 33], -4),
        ("i(0) << u32(i(1))", [1, 34], 4),
        ("sign(i(0))", [-9, 0], -1),
        ("min(i(0), i(1))", [-1, 1], -1),
        ("max(i(0), i(1))", [-1, 1], 1),
        ("clamp(i(0), -3, i(1))", [-9, 4], -3),
        ("i32(i(0) < i(1)) + 2 * i32(i(0) > i(1))", [-1, 1], 1),
        ("i32(i(0) <= i(1)) + 2 * i32(i(0) >= i(1))", [1, 1], 3),
        ("firstLeadingBit(i(0))", [-1, 0], -1),
        ("firstLeadingBit(i(0))", [-5, 0], 2),
        ("firstTrailingBit(i(0))", [0, 0], -1),
        ("extractBits(i(0), 4u, 4u)", [0xF5, 0], -1),
        ("extractBits(i(0), 30u, u32(i(1)))", [-1, 9], -1),
        ("extractBits(i(0), 30u, u32(i(1)))", [-1, 0], 0),
        ("insertBits(i(0), i(1), 8u, 4u)", [-1, 0], !0xF00),
        ("dot(vec3(i(0)), vec3(1, 2, i(1)))", [3, -5], -6),
    ] {
        assert_eq!(of_signed(expression, &given), expected, "{expression} of {given:?}");
    }
    for (expression, given, expected) in [
        ("u(0) / u(1)", [7, 0], 7),
        ("u(0) % u(1)", [7, 0], 0),
        ("u(0) / u(1)", [u32::MAX, 2], i32::MAX.cast_unsigned()),
        ("u(0) - u(1)", [0, 1], u32::MAX),
        ("u(0) >> u(1)", [1 << 31, 31], 1),
        ("u32(u(0) > u(1))", [u32::MAX, 1], 1),
        ("max(u(0), u(1))", [u32::MAX, 1], u32::MAX),
        ("(u(0) & 12u) + (u(0) | 1u) + (u(0) ^ 5u)", [6, 0], 4 + 7 + 3),
        ("countLeadingZeros(u(0)) + 100u * countTrailingZeros(u(0))", [24, 0], 327),
        ("countOneBits(u(0)) + reverseBits(u(1))", [7, 1 << 31], 4),
        ("firstLeadingBit(u(0))", [0, 0], u32::MAX),
        ("firstLeadingBit(u(0))", [24, 0], 4),
        ("extractBits(u(0), u(1), 8u)", [0xABCD, 8], 0xAB),
        ("extractBits(u(0), u(1), 8u)", [0xABCD, 99], 0),
        ("insertBits(u(0), 5u, u(1), 99u)", [0xFFFF, 4], 0x5F),
        ("dot4U8Packed(u(0), u(1))", [0xFF01_0203, 0x0101_0101], 261),
        ("u32(dot4I8Packed(u(0), u(1)) + 10)", [0xFF01_0203, 0x0101_0101], 15),
    ] {
        assert_eq!(of(expression, &given), expected, "{expression} of {given:?}");
    }
}

#[test]
fn kinds_are_converted() {
    let float = f32::to_bits;
    for (expression, given, expected) in [
        ("i32(f(0))", float(-2.9), (-2_i32).cast_unsigned()),
        ("u32(f(0))", float(-2.9), 0),
        ("u32(f(0))", float(1e20), 4_294_967_040),
        ("f32(i(0))", (-3_i32).cast_unsigned(), float(-3.0)),
        ("f32(u(0))", u32::MAX, float(4_294_967_296.0)),
        ("u32(bool(f(0))) + u32(bool(u(0)))", float(-0.0), 1),
        ("i32(u(0))", 7, 7),
        ("f32(bool(i(0)))", 9, float(1.0)),
        ("vec2u(vec2f(f(0), 3.5)).y", 0, 3),
        ("u32(vec2<bool>(vec2u(u(0), 0u)).x)", 2, 1),
    ] {
        assert_eq!(of(expression, &[given]), expected, "{expression}");
    }
}

#[test]
fn vectors_and_matrices_compute() {
    let given = [1.0, 2.0, 3.0, 4.0];
    for (expression, expected) in [
        ("dot(vec4(f(0), f(1), f(2), f(3)), vec4(1.0, 10.0, 100.0, 1000.0))", 4321.0),
        ("length(vec2(f(2), f(3)))", 5.0),
        ("length(-f(2))", 3.0),
        ("distance(vec2(f(0), f(1)), vec2(4.0, 6.0))", 5.0),
        ("normalize(vec2(f(2), f(3))).y", 0.8),
        ("dot(cross(vec3(f(0), f(1), f(2)), vec3(4.0, 5.0, 6.0)), vec3(1.0, 10.0, 100.0))", -243.0),
        ("faceForward(vec2(f(0)), vec2(f(1)), vec2(1.0)).x", -1.0),
        ("reflect(vec2(f(0), f(1)), vec2(0.0, 1.0)).y", -2.0),
        ("refract(vec2(0.0, -f(0)), vec2(0.0, 1.0), 0.5).y", -1.0),
        ("refract(vec2(0.8, -0.6), vec2(0.0, 1.0), f(3)).x", 0.0),
        ("vec4(f(0), f(1), f(2), f(3)).wzyx.y", 3.0),
        ("(vec2(f(0)) * f(1) + f(2) * vec2(f(3))).x", 14.0),
        ("mix(vec2(f(0)), vec2(f(2)), 0.5).y", 2.0),
        ("mix(vec2(f(0)), vec2(f(2)), vec2(0.0, 1.0)).y", 3.0),
        ("select(vec2(f(0)), vec2(f(1)), vec2(f(0) > 0.0, f(0) > 2.0)).y", 1.0),
        ("select(vec2(f(0)), vec2(f(1)), f(0) > 0.0).y", 2.0),
        (
            "f32(all(vec2(f(0), f(1)) < vec2(2.0))) + 2.0 * f32(any(vec2(f(0), f(1)) < vec2(2.0)))",
            2.0,
        ),
        ("(mat2x2(f(0), f(1), f(2), f(3)) * vec2(1.0, 10.0)).x", 31.0),
        ("(vec2(1.0, 10.0) * mat2x2(f(0), f(1), f(2), f(3))).x", 21.0),
        (
            "(mat2x3(f(0), f(1), f(2), f(3), 5.0, 6.0) * mat3x2(1.0, 0.0, 0.0, 1.0, 1.0, 1.0))[2].z",
            9.0,
        ),
        ("(mat2x2(f(0), f(1), f(2), f(3)) * 2.0 - mat2x2(1.0, 1.0, 1.0, 1.0))[1].y", 7.0),
        ("transpose(mat2x3(f(0), f(1), f(2), f(3), 5.0, 6.0))[2].y", 6.0),
        ("transpose(mat2x3(f(0), f(1), f(2), f(3), 5.0, 6.0))[0].y", 4.0),
        ("determinant(mat2x2(f(0), f(1), f(2), f(3)))", -2.0),
        ("determinant(mat3x3(2.0, 0.0, f(0), 0.0, f(2), 0.0, f(0), 0.0, f(3)))", 21.0),
        ("determinant(mat4x4(f(1), 0, 0, 0, 0, 0, f(2), 0, 0, f(3), 0, 0, 0, 0, 0, f(0)))", -24.0),
    ] {
        assert_eq!(of_floats(expression, &given), expected, "{expression}");
    }
}

#[test]
fn small_numbers_are_packed_and_unpacked() {
    for (expression, expected) in [
        ("pack4x8snorm(vec4f(-1, 0, 0.5, 2))", 0x7F40_0081),
        ("pack4x8unorm(vec4f(-1, 0.5, 1, 0))", 0x00FF_8000),
        ("pack2x16snorm(vec2f(-1, 1))", 0x7FFF_8001),
        ("pack2x16unorm(vec2f(0.5, 1))", 0xFFFF_8000),
        ("pack2x16float(vec2f(1, -2))", 0xC000_3C00),
        ("pack4xI8(vec4i(-1, 2, 300, 4))", 0x042C_02FF),
        ("pack4xU8(vec4u(1, 2, 300, 4))", 0x042C_0201),
        ("pack4xI8Clamp(vec4i(-1, 2, 300, -300))", 0x807F_02FF),
        ("pack4xU8Clamp(vec4u(1, 2, 300, 4))", 0x04FF_0201),
        ("unpack4xI8(u(0)).w + unpack4xI8(u(0)).x", (-128_i32 + 1).cast_unsigned()),
        ("unpack4xU8(u(0)).w", 128),
        ("unpack4x8snorm(u(0)).w", (-1_f32).to_bits()),
        ("unpack4x8unorm(u(0)).z", 1_f32.to_bits()),
        ("unpack2x16snorm(u(1)).y", 1_f32.to_bits()),
        ("unpack2x16unorm(u(1)).x", 1_f32.to_bits()),
        ("unpack2x16float(u(2)).y", (-2_f32).to_bits()),
    ] {
        let found = of(expression, &[0x80FF_0001, 0x7FFF_FFFF, 0xC000_3C00]);
        assert_eq!(found, expected, "{expression}: {found:#x}");
    }
}

#[test]
fn constants_and_parts_of_values_are_found() {
    let declarations = "
        struct Point { at: vec3f, weight: f32 }
        const POINTS = array(Point(vec3f(1, 2, 3), 4), Point(vec3f(5, 6, 7), 8));
        const MATRIX = mat2x2f(1, 2, 3, 4);
        var<private> table = array(array(1u, 2u), array(3u, 4u));";
    let body = "
        let one = out[0] + 1u;
        var points = POINTS;
        put(0, points[one].at.y);
        points[one].at = vec3f(9);
        put(1, points[one].at.y + points[1].weight + points[0].at.z);
        put(2, POINTS[one].weight + MATRIX[1].y);
        out[3] = table[one][0] * 10u + array(5u, 6u)[one];
        let copy = points[0];
        points[0].weight = 50;
        put(4, copy.weight);
        var zero: Point;
        put(5, zero.at.x + zero.weight);
        out[6] = u32(array<bool, 2>(false, true)[one]);";
    let found = answers_with(declarations, body, 7);
    let expected = [6.0, 9.0 + 8.0 + 3.0, 8.0 + 4.0].map(f32::to_bits);
    assert_eq!(found[..3], expected);
    assert_eq!(found[3..], [36, 4_f32.to_bits(), 0, 1]);
}

#[test]
fn values_lie_in_bindings_as_wgsl_says() {
    let source = "
        struct Inner { a: vec3f, b: f32, c: mat3x3f }
        struct Outer { first: u32, inner: array<Inner, 2>, last: vec2u }
        @group(0) @binding(0) var<storage, read> given: Outer;
        @group(0) @binding(1) var<storage, read_write> to: Outer;
        @compute @workgroup_size(1) fn main() {
            var it = given;
            it.inner[1].c[2].y = -1.0;
            to = it;
        }";
    // 16 before the first, 64 for each inner one, 16 behind.
    let given: Vec<u32> = (1..=40).collect();
    let blocks = run_all(source, [1, 1, 1], vec![bytes(&given), vec![0; 160]]);
    let found = words(&blocks[1]);
    let is_padding = |at: usize| {
        matches!(at, 1..4 | 38..40) || (4..36).contains(&at) && matches!((at - 4) % 16, 7 | 11 | 15)
    };
    for (at, word) in found.into_iter().enumerate() {
        let expected = match at {
            33 => (-1_f32).to_bits(),
            at if is_padding(at) => 0,
            at => given[at],
        };
        assert_eq!(word, expected, "word {at}");
    }
}

#[test]
fn atomics_give_what_was_there() {
    let declarations = "
        @group(0) @binding(1) var<storage, read_write> a: array<atomic<i32>, 2>;
        var<workgroup> b: atomic<u32>;";
    let body = "
        out[0] = u32(atomicAdd(&a[0], 5));
        out[1] = u32(atomicSub(&a[0], 2));
        out[2] = u32(atomicMax(&a[0], -9) + atomicMin(&a[0], -9));
        out[3] = u32(atomicExchange(&a[0], 7) + 20);
        let failed = atomicCompareExchangeWeak(&a[0], 6, 1);
        out[4] = u32(failed.old_value) + 10u * u32(failed.exchanged);
        let done = atomicCompareExchangeWeak(&a[0], 7, 1);
        out[5] = u32(done.old_value) + 10u * u32(done.exchanged);
        atomicStore(&b, 12u);
        out[6] = atomicAnd(&b, 9u) + atomicOr(&b, 3u) + atomicXor(&b, 1u) + atomicLoad(&b);
        out[7] = u32(atomicLoad(&a[0]) + a_len());";
    let declarations = format!("{declarations} fn a_len() -> i32 {{ return 2; }}");
    let source = format!(
        "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
        {declarations}
        @compute @workgroup_size(1) fn main() {{ {body} }}"
    );
    let blocks = run_all(&source, [1, 1, 1], vec![vec![0; 32], bytes(&[100, 0])]);
    let expected = [100, 105, 206, 11, 7, 17, 12 + 8 + 11 + 10, 3];
    assert_eq!(words(&blocks[0]), expected);
    assert_eq!(words(&blocks[1]), [1, 0]);
}
