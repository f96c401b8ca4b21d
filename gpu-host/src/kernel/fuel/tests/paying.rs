//! Which loops are seen through, and that it makes no difference.

use proptest::prelude::*;

use super::super::plan::Payment::{self, Each, Once, Paid};
use super::super::plan::{FREE_MAX, ONCE_MAX, Plan};
use super::{AROUND, IDS, Trial};
use crate::kernel::{self, trap, uniform};

/// How the loops of an entry point pay, in the order in which they begin.
#[track_caller]
fn plan(body: &str) -> Vec<Payment> {
    plan_of(body, "").loops.pop().expect("there is the entry point")
}

#[track_caller]
fn plan_of(body: &str, functions: &str) -> Plan {
    let source =
        format!("{AROUND}{functions}@compute @workgroup_size(8) fn main({IDS}) {{ {body} }}");
    let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|why| panic!("{why} {body}"));
    let counts = uniform::check(&module, &source).expect("barriers are in place");
    let info = kernel::validate(&module, &source).expect("it is right");
    Plan::of(&module, &info, &counts)
}

/// A loop behind a condition, where the entry point does not pay for it.
#[track_caller]
fn one(body: &str) -> Payment {
    let all = plan(&format!("if lane < 4u {{ {body} }}"));
    assert_eq!(all.len(), 1, "{body}");
    all[0]
}

#[test]
fn loops_of_known_length_are_seen_through() {
    for (head, iterations) in [
        ("for (var i = 0u; i < 10u; i++)", 10),
        ("for (var i = 0; i < 10; i++)", 10),
        ("for (var i = -2; i <= 2; i++)", 5),
        ("for (var i = 10u; i > 0u; i--)", 10),
        ("for (var i = 10; i >= 0; i -= 3)", 4),
        ("for (var i = 0u; i != 12u; i += 4u)", 3),
        ("for (var i = 0u; 10u > i; i = 1u + i)", 10),
        ("for (var i = 1u; i < 256u; i <<= 1u)", 8),
        ("for (var i = 128u; i > 0u; i >>= 1u)", 8),
        ("for (var i = -64; i < -1; i >>= 1u)", 6),
        ("for (var i = 128u; i > 0u; i /= 2u)", 8),
        ("for (var i = 1; i < 1000; i *= 10)", 3),
        ("for (var i: u32; i < 3u; i++)", 3),
        ("for (var i = 5u; i < 5u; i++)", 0),
        ("for (var i = 7u; i == 7u; i++)", 1),
        // It wraps, and ends.
        ("for (var i = 4294967290u; i > 5u; i++)", 6),
        ("for (var i = 2147483640; i > 0; i++)", 8),
        ("for (var i = 0u; i < 4095u; i++)", 4095),
        ("const N = 12u; for (var i = 0u; i < N / 2u; i++)", 6),
        ("let n = 6u; for (var i = 0u; i < n; i++)", 6),
        ("for (var i = 0u; i < BOUND; i++)", 9),
    ] {
        for body in [
            "out[id.x] += u32(i);",
            "if lane == 2u { continue; } out[id.x] += 1u;",
            "switch lane { case 1u: { break; } default: { out[0] = 1u; } }",
        ] {
            let source = format!("{} {{ {body} }}", head.replace("BOUND", "(4u + 5u)"));
            assert_eq!(one(&source), Once(iterations + 1), "{source}");
        }
    }
    for body in [
        "var i = 0u; while i < 5u { out[id.x] += 1u; i++; }",
        "var i = 0u; while i < 5u { i++; out[id.x] += 1u; }",
        "var i = 0u; loop { if i >= 5u { break; } out[id.x] += 1u; continuing { i++; } }",
        "var i = 0u; loop { if i < 5u {} else { break; } { { i++; } } }",
        "var i = 9u; out[0] = 1u; { i = 0u; if lane == 1u { return; } while i < 5u { i++; } }",
    ] {
        assert_eq!(one(body), Once(6), "{body}");
    }
}

#[test]
fn what_only_looks_like_it_is_not() {
    for body in [
        // It is written in the body, by itself, a pointer, a function.
        "for (var i = 0u; i < 9u; i++) { i = 0u; }",
        "for (var i = 0u; i < 9u; i++) { if lane == 1u { i -= 1u; } }",
        "for (var i = 0u; i < 9u; i++) { let p = &i; *p = 0u; }",
        "for (var i = 0u; i < 9u; i++) { reset(&i); }",
        "var i = 0u; for (reset(&i); i < 9u; i++) {}",
        // It does not end, or later than is looked at.
        "for (var i = 0u; i < 9u; i += 0u) {}",
        "for (var i = 1u; i < 9u; i *= 1u) {}",
        "for (var i = 0u; i < 9u; i <<= 1u) {}",
        "for (var i = 9u; i >= 0u; i--) {}",
        "for (var i = 0; i <= 2147483647; i++) {}",
        "for (var i = 0u; i != 9u; i += 2u) {}",
        "for (var i = 0u; i < 4096u; i++) {}",
        "for (var i = -1; i < 0; i >>= 1u) {}",
        // The bound, the step or the first is told.
        "for (var i = 0u; i < n; i++) {}",
        "for (var i = 0u; i < out[0]; i++) {}",
        "var b = 9u; for (var i = 0u; i < b; i++) { b = lane; }",
        "for (var i = 0u; i < 9u; i += lane) {}",
        "for (var i = lane; i < 9u; i++) {}",
        "var i = 0u; if lane == 1u { i = 5u; } while i < 9u { i++; }",
        // It has other ways out.
        "for (var i = 0u; i < 9u; i++) { if out[i] == 1u { break; } }",
        "for (var i = 0u; i < 9u; i++) { if out[i] == 1u { return; } }",
        "var i = 0u; loop { if i >= 9u { break; } continuing { i++; break if lane == 1u; } }",
        "for (var i = 0u; i < 9u && out[i] == 0u; i++) {}",
        // The step may be passed by, or is not made each time.
        "var i = 0u; while i < 9u { if lane == 1u { continue; } i++; }",
        "var i = 0u; while i < 9u { switch lane { case 1u: { continue; } default: {} } i++; }",
        "var i = 0u; while i < 9u { if lane == 1u { i++; } }",
        // The test is not first, or of another time.
        "var i = 0u; loop { out[0] += 1u; if i >= 9u { break; } i++; }",
        "var i = 0u; let j = i; while j < 9u { i++; }",
        "var i = 0u; let more = i < 9u; loop { if !more { break; } i++; }",
        "var i = 0u; let more = i < 9u; loop { if more {} else { break; } i++; }",
        "var i = 0u; let j = i; while i < 9u { i = j + 1u; }",
        "var i = 0u; let next = i + 1u; while i < 9u { i = next; }",
        // It is another kind of step, test or variable.
        "for (var i = 0u; i < 9u; i = 1u - i) {}",
        "for (var i = 1u; i < 9u; i = 1u << i) {}",
        "for (var i = 9u; i > 0u; i %= 10u) {}",
        "for (var i = 0.0; i < 9.0; i += 1.0) {}",
        "var i = vec2u(); while i.x < 9u { i.x++; }",
        "for (own = 0u; own < 9u; own++) {}",
        "for (shared_word = 0u; shared_word < 9u; shared_word++) {}",
        "for (;;) { break; }",
    ] {
        let plan = plan_of(&format!("if lane < 4u {{ {body} }}"), FUNCTIONS);
        assert_eq!(plan.loops.last(), Some(&vec![Each]), "{body}");
        // There the variable is set by a statement.
        let inside = format!("for (var o = 0u; o < n; o++) {{ {body} }}");
        let plan = plan_of(&inside, FUNCTIONS);
        assert_eq!(plan.loops.last(), Some(&vec![Each; 2]), "{body}");
    }
    let functions = "fn f(i: ptr<function, u32>) { for (; *i < 9u; *i += 1u) {} }";
    let plan = plan_of("var i = 0u; f(&i);", functions);
    assert_eq!(plan.loops, [vec![Each], vec![]]);
}

const FUNCTIONS: &str = "var<private> own: u32; fn reset(i: ptr<function, u32>) { *i = 0u; }";

#[test]
fn a_variable_that_is_not_made_anew_is_not_known() {
    // The second time it does not begin at 0.
    let outer = "loop { while i < 5u { i++; out[id.x] += 1u; } if lane == 1u { break; } }";
    assert_eq!(plan(&format!("var i = 0u; {outer}")), [Each, Each]);
    assert_eq!(plan(&format!("var i: u32; {outer}")), [Each, Each]);
    let inside = outer.replace("loop {", "loop { var i = 0u;");
    assert_eq!(plan(&inside), [Each, Once(6)]);
    // Two loops have one variable.
    let shared = "var i = 0u; for (; i < 5u; i++) {} for (; i < 9u; i++) {}";
    assert_eq!(plan(shared), [Each, Each]);
}

#[test]
fn loops_pay_for_loops_in_them() {
    let nest = |counts: &[u32], inner: &str| {
        let heads = counts.iter().enumerate();
        let heads = heads.map(|(at, n)| format!("for (var i{at} = 0u; i{at} < {n}u; i{at}++) {{"));
        let body = heads.collect::<String>() + inner + &"}".repeat(counts.len());
        plan(&format!("if lane < 4u {{ {body} }}"))
    };
    assert_eq!(nest(&[4, 5], ""), [Once(4 * 6 + 5), Paid(5)]);
    assert_eq!(nest(&[60, 60], ""), [Once(60 * 61 + 61), Paid(60)]);
    assert_eq!(nest(&[63, 63], ""), [Once(63 * 64 + 64), Paid(63)]);
    // More than is paid for at once.
    assert_eq!(nest(&[63, 64], ""), [Once(64), Once(65)]);
    assert_eq!(nest(&[4000, 4000], ""), [Once(4001), Once(4001)]);
    assert_eq!(nest(&[10, 20, 30], ""), [Once(11), Once(20 * 31 + 21), Paid(30)]);
    let (inner, more) = ("for (var i = 0u; i < 3u; i++) {}", "out[0] = 1u;");
    let expected = [Once(4 * 4 + 5), Paid(3)];
    assert_eq!(nest(&[4], &format!("{more} {{ {inner} }} {more}")), expected);
    assert_eq!(nest(&[4], &format!("{inner} if lane == 1u {{ continue; }}")), expected);
    // What may not run is not paid for before.
    let apart = [Once(5), Once(4)];
    assert_eq!(nest(&[4], &format!("if lane == 1u {{ {inner} }}")), apart);
    assert_eq!(nest(&[4], &format!("if lane == 1u {{ continue; }} {inner}")), apart);
    assert_eq!(nest(&[4], &format!("switch lane {{ default: {{ {inner} }} }}")), apart);
    let unknown = "for (var i = 0u; i < n; i++) {}";
    assert_eq!(nest(&[4], unknown), [Once(5), Each]);
    let between = format!("for (var j = 0u; j < n; j++) {{ {inner} }}");
    assert_eq!(nest(&[4], &between), [Once(5), Each, Once(4)]);
}

#[test]
fn no_more_is_done_for_one_payment_than_a_bound() {
    let heavy = "out[id.x] += 1u;".repeat(60);
    let of =
        |count: u32, body: &str| one(&format!("for (var i = 0u; i < {count}u; i++) {{ {body} }}"));
    assert_eq!(of(1000, &heavy), Once(1001));
    assert_eq!(of(4000, &heavy), Each);
    assert_eq!(of(4000, "out[id.x] += 1u;"), Once(4001));
    let nested = "for (var o = 0u; o < 60u; o++) { for (var i = 0u; i < 60u; i++) { BODY } }";
    let nested = |body: &str| plan(&format!("if n > 1u {{ {} }}", nested.replace("BODY", body)));
    assert_eq!(nested("out[id.x] += 1u;"), [Once(60 * 61 + 61), Paid(60)]);
    assert_eq!(nested(&heavy), [Once(61), Once(61)]);
    // Functions count where they are called.
    let functions = format!("fn f(id: vec3u) {{ {heavy} }}");
    let called = plan_of("if n > 1u { for (var i = 0u; i < 4000u; i++) { f(id); } }", &functions);
    assert_eq!(called.loops.last(), Some(&vec![Each]));
}

#[test]
fn the_entry_point_pays_for_what_always_runs() {
    let (conv, small) = (
        "for (var y = 0u; y < 5u; y++) { for (var x = 0u; x < 5u; x++) { out[0] = 1u; } }",
        "for (var i = 0u; i < 3u; i++) {}",
    );
    let entry = |body: &str, functions: &str| {
        let plan = plan_of(body, functions);
        let has_payers = plan.has_payers();
        (plan.free, has_payers, plan.loops.concat())
    };
    assert_eq!(entry(conv, ""), (36, false, vec![Paid(5), Paid(5)]));
    let two = format!("{conv} {{ {small} }}");
    assert_eq!(entry(&two, ""), (40, false, vec![Paid(5), Paid(5), Paid(3)]));
    // No more than there is for free.
    let long = "for (var i = 0u; i < 63u; i++) {}";
    assert_eq!(entry(long, ""), (64, false, vec![Paid(63)]));
    assert_eq!(entry(&long.replace("63", "64"), ""), (0, true, vec![Once(65)]));
    assert_eq!(entry(&(conv.to_owned() + long), ""), (36, true, vec![Paid(5), Paid(5), Once(64)]));
    for may_not_run in [
        format!("if lane == 1u {{ {small} }}"),
        format!("if lane == 1u {{ return; }} {small}"),
        format!("switch n {{ case 1u: {{ return; }} default: {{}} }} {small}"),
        format!("switch n {{ default: {{ {small} }} }}"),
    ] {
        assert_eq!(entry(&may_not_run, ""), (0, true, vec![Once(4)]), "{may_not_run}");
    }
    let endless = format!("loop {{ if lane == 1u {{ return; }} }} {small}");
    assert_eq!(entry(&endless, ""), (0, true, vec![Each, Once(4)]));
    // Functions run as often as they are called.
    let functions = format!("fn f() {{ {small} }} fn g() {{ f(); f(); }}");
    assert_eq!(entry("g(); g(); f();", &functions), (20, false, vec![Paid(3)]));
    let many = "g(); g(); g(); g(); g(); g(); g(); g(); f();";
    assert_eq!(entry(many, &functions), (0, true, vec![Once(4)]));
    for sometimes in ["if lane == 1u { g(); }", "f(); if lane == 1u { return; } g();"] {
        assert_eq!(entry(sometimes, &functions), (0, true, vec![Once(4)]), "{sometimes}");
    }
    let in_loop = "for (var i = 0u; i < 2u; i++) { f(); }";
    assert_eq!(entry(in_loop, &functions), (3, true, vec![Once(4), Paid(2)]));
}

#[test]
fn loops_with_barriers_pay_for_each_iteration_or_not_at_all() {
    let tiled = "for (var t = 0u; t < 16u; t++) { for (var i = 0u; i < 8u; i++) {}
        workgroupBarrier(); for (var y = 0u; y < 2u; y++) { for (var x = 0u; x < 2u; x++) {} } }";
    assert_eq!(plan(tiled), [Each, Once(9), Once(9), Paid(2)]);
    let inner = "for (var y = 0u; y < 40u; y++) { for (var x = 0u; x < 40u; x++) {
        workgroupBarrier(); } }";
    assert_eq!(plan(inner), [Each, Each]);
    let scan = "for (var s = 1u; s < 256u; s <<= 1u) { workgroupBarrier(); }";
    assert_eq!(plan(scan), [Paid(8)]);
}

#[test]
fn who_cannot_pay_does_not_begin() {
    let body = "for (var i = 0u; i < 500u; i++) { out[id.x] += 1u; }
        for (var i = 0u; i < n; i++) { out[id.x + 16u] += 1u; }";
    let ended = |fuel| {
        let trial = Trial::of(body, fuel).ended();
        (trial.trap(), trial.out()[0], trial.out()[16])
    };
    assert_eq!(ended(500), (trap::FUEL, 0, 0));
    assert_eq!(ended(501), (trap::FUEL, 500, 0));
    assert_eq!(ended(508), (trap::FUEL, 500, 7));
    assert_eq!(ended(509), (0, 500, 7));
}

#[test]
fn what_is_free_is_charged_and_runs() {
    let body = "for (var i = 0u; i < 5u; i++) { out[id.x] += 1u; }
        for (var i = 0u; i < n; i++) { out[id.x + 16u] += 1u; }";
    for (fuel, ended) in [
        (0, (trap::FUEL, 5, 0)),
        (6, (trap::FUEL, 5, 0)),
        (13, (trap::FUEL, 5, 7)),
        (14, (0, 5, 7)),
    ] {
        let trial = Trial::of(body, fuel).ended();
        assert_eq!((trial.trap(), trial.out()[0], trial.out()[16]), ended, "{fuel}");
    }
}

#[test]
fn loops_that_are_paid_for_at_once_are_cancelled_soon() {
    // Each pays 4001, and none of them looks by itself.
    let nested = "for (var a = 0u; a < 4000u; a++) { for (var b = 0u; b < 4000u; b++) {
        for (var c = 0u; c < 4000u; c++) { out[id.x] += 1u; } } }";
    let together = "for (var a = 0u; a < 4000u; a++) { workgroupBarrier();
        for (var b = 0u; b < 4000u; b++) { out[id.x] += 1u; } }";
    for body in [nested, together] {
        let mut trial = Trial::of(body, u32::MAX);
        assert_eq!(trial.execution.run(&mut trial.buffers, 3_000_000), Ok(false));
        trial.cancel();
        let before = trial.execution.spent();
        assert_eq!(trial.run(), Ok(true));
        assert_eq!(trial.trap(), trap::CANCELLED);
        // 8 invocations of two groups: what each has paid for in three loops.
        let spent = trial.execution.spent() - before;
        assert!(spent < 16 * 3 * u64::from(ONCE_MAX) * 30, "{spent}");
    }
}

/// Statements with loops of constant form; `ZERO` is nothing, or 0 that is not known to be.
fn statements(depth: u32) -> BoxedStrategy<String> {
    let select = |all: &[&str]| {
        prop::sample::select(all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    };
    let simple = || select(&["out[id.x] += 1u;", "out[id.x] = out[id.x] * 3u + 1u;"]);
    if depth == 0 {
        return simple().boxed();
    }
    let condition = || select(&["lane % 2u == 0u", "out[id.x] % 3u == 1u", "n == 7u"]);
    let forms = [
        ("0u", "<", "BOUNDu", "i++"),
        ("1u", "<=", "BOUNDu", "i += 2u"),
        ("BOUNDu", ">", "0u", "i--"),
        ("BOUNDu", "!=", "2u", "i -= 1u"),
        ("1u", "<", "BOUNDu", "i *= 2u"),
        ("9u", ">=", "BOUNDu", "i >>= 1u"),
        ("-3", "<", "BOUND", "i += 1"),
        ("BOUND", ">", "-4", "i -= 3"),
        ("4294967293u", ">", "BOUNDu", "i++"),
    ];
    let form = (prop::sample::select(forms.to_vec()), 0..12_u32);
    let form = form.prop_map(|((first, op, bound, step), number)| {
        let number = number.to_string();
        // What is not known may be 0 of either type.
        let hidden = if step.ends_with('u') || step.ends_with(['+', '-']) && !first.starts_with('-')
        {
            "ZERO"
        } else {
            "SIGNED"
        };
        let (first, bound) = (first.replace("BOUND", &number), bound.replace("BOUND", &number));
        (first, format!("{op} {bound}{hidden}"), step.to_owned())
    });
    let inner = move || {
        prop::collection::vec(statements(depth - 1), 1..3).prop_map(|all| all.join("\n")).boxed()
    };
    // Each loop has a variable of its own; the name may be the same.
    prop_oneof![
        2 => simple(),
        6 => (form.clone(), inner()).prop_map(|((first, test, step), body)| {
            format!("for (var i = {first}; i {test}; {step}) {{ {body} }}")
        }),
        2 => (form, inner(), condition(), select(&["continue", "break", "return"])).prop_map(
            |((first, test, step), body, condition, way)| format!(
                "for (var i = {first}; i {test}; {step}) {{ if {condition} {{ {way}; }} {body} }}"
            )
        ),
        1 => (condition(), inner())
            .prop_map(|(condition, body)| format!("if {condition} {{ {body} }}")),
        1 => inner().prop_map(|body| format!("{{ {body} }}")),
    ]
    .boxed()
}

/// The least fuel that is enough, if a little is.
fn needed(body: &str) -> Option<u32> {
    let is_enough = |fuel: &u32| Trial::of(body, *fuel).ended().trap() == 0;
    const MOST: u32 = 20_000;
    if !is_enough(&MOST) {
        return None;
    }
    let (mut least, mut enough) = (0, MOST);
    while least < enough {
        let middle = least.midpoint(enough);
        if is_enough(&middle) { enough = middle } else { least = middle + 1 }
    }
    Some(least)
}

proptest! {
    #[test]
    fn how_loops_pay_makes_no_difference(
        all in prop::collection::vec(statements(3), 1..4),
    ) {
        let body = all.join("\n");
        let known = body.replace("ZERO", "").replace("SIGNED", "");
        let unknown = body.replace("ZERO", " + (n - 7u)").replace("SIGNED", " + i32(n - 7u)");
        let (ours, theirs) = (needed(&known), needed(&unknown));
        if ours == Some(0) {
            // Nothing that could be ended was reached.
            prop_assert!(theirs.is_some_and(|it| it <= FREE_MAX), "{theirs:?}\n{body}");
        } else {
            prop_assert_eq!(ours, theirs, "{}", body);
        }
        if theirs.is_some() {
            let out = |body| Trial::of(body, 1 << 20).ended().out();
            prop_assert_eq!(out(&known), out(&unknown), "{}", body);
        }
    }
}

#[test]
fn enough_random_loops_are_seen_through() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = [0; 3];
    for _ in 0..100 {
        let body = statements(3).new_tree(&mut runner).expect("it can be made").current();
        for payment in plan(&body.replace("ZERO", "").replace("SIGNED", "")) {
            counts[match payment {
                Each => 0,
                Once(_) => 1,
                Paid(_) => 2,
            }] += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 40), "{counts:?}");
}
