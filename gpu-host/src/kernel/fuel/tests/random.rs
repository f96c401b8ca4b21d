//! Random kernels: some values are the same for a workgroup, some are not, and barriers anywhere.

use proptest::prelude::*;

use super::{AROUND, IDS};

/// A kernel with a function.
pub(super) fn kernel() -> impl Strategy<Value = String> {
    (statements(false), statements(false)).prop_map(|(function, body)| {
        format!(
            "{AROUND}
            var<private> own: u32;
            fn mix(a: u32, b: u32, lane: u32) -> u32 {{
                var u = a; var v = b; let group = vec3u();
                {function}
                return u;
            }}
            @compute @workgroup_size(8) fn main({IDS}) {{
                var u = n; var v = lane;
                {}
                out[id.x] = u; out[id.x + 16u] = v;
            }}",
            // In the function there is no other to call.
            body.replace("CALL", "mix")
        )
        .replace("CALL", "max3")
            + "fn max3(a: u32, b: u32, c: u32) -> u32 { return max(a, max(b, c)); }"
    })
}

fn statements(is_in_loop: bool) -> BoxedStrategy<String> {
    prop::collection::vec(statement(3, is_in_loop), 1..6).prop_map(|all| all.join("\n")).boxed()
}

fn statement(depth: u32, is_in_loop: bool) -> BoxedStrategy<String> {
    let mut simple = vec![
        "u += 1u;",
        "u = n;",
        "u = u / 2u;",
        "u ^= group.x;",
        "v += lane;",
        "v = out[v % 64u];",
        "out[v % 64u] = u;",
        "own = u;",
        "u = own;",
        "shared_word = v;",
        "v = shared_word;",
        "u = workgroupUniformLoad(&shared_word);",
        "u = CALL(u, v, lane);",
        "v = CALL(u, v, lane);",
        "own += v;",
        "u = v;",
    ];
    simple.extend(["workgroupBarrier();"; 8]);
    let simple = prop::sample::select(simple).prop_map(str::to_owned);
    let leave = leaving(is_in_loop);
    if depth == 0 {
        return prop_oneof![9 => simple, 1 => leave].boxed();
    }
    let inner = |is_in_loop| {
        let some = prop::collection::vec(statement(depth - 1, is_in_loop), 1..4);
        some.prop_map(|all| all.join("\n"))
    };
    prop_oneof![
        8 => simple,
        1 => leave,
        2 => (condition(), inner(is_in_loop)).prop_map(|(c, a)| format!("if {c} {{ {a} }}")),
        1 => (condition(), inner(is_in_loop), inner(is_in_loop))
            .prop_map(|(c, a, b)| format!("if {c} {{ {a} }} else {{ {b} }}")),
        3 => (bound(), inner(true))
            .prop_map(|(b, a)| format!("for (var i = 0u; i < {b}; i++) {{ {a} }}")),
        1 => (condition(), inner(true)).prop_map(|(c, a)| format!("while {c} {{ {a} }}")),
        1 => (condition(), inner(true))
            .prop_map(|(c, a)| format!("loop {{ {a} continuing {{ u += 1u; break if {c}; }} }}")),
        1 => (inner(is_in_loop), inner(is_in_loop))
            .prop_map(|(a, b)| format!("switch u % 3u {{ case 0u {{ {a} }} default {{ {b} }} }}")),
    ]
    .boxed()
}

fn leaving(is_in_loop: bool) -> BoxedStrategy<String> {
    // In both functions a return has to be of the right type: leave by loops alone.
    let ways = if is_in_loop { vec!["break;", "continue;"] } else { vec!["v += 1u;"] };
    let way = prop::sample::select(ways);
    (condition(), way).prop_map(|(c, way)| format!("if {c} {{ {way} }}")).boxed()
}

fn condition() -> BoxedStrategy<String> {
    let uniform = ["u % 2u == 0u", "u > 3u", "n == 7u", "group.x == 0u", "own == 2u"];
    let varying = ["lane % 2u == 0u", "v > 3u", "out[0] > u", "shared_word == 1u"];
    let select = |all: &[&str]| {
        let all: Vec<String> = all.iter().map(|it| (*it).to_owned()).collect();
        prop::sample::select(all)
    };
    prop_oneof![3 => select(&uniform), 1 => select(&varying)].boxed()
}

fn bound() -> BoxedStrategy<String> {
    let uniform = prop::sample::select(vec!["3u", "u % 5u", "n", "own % 4u", "40u"]);
    let varying = prop::sample::select(vec!["lane", "v % 7u"]);
    prop_oneof![3 => uniform, 1 => varying].prop_map(str::to_owned).boxed()
}
