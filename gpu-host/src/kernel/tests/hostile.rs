//! Sources that are written to break the compiler, and sources that are nothing at all.

use super::*;

/// Largest source.
const MOST: usize = 64 * 1024;

/// A text as often as it fits in what is left by another.
fn filled(text: &str, beside: &str) -> String {
    text.repeat((MOST - beside.len()) / text.len())
}

#[test]
fn long_chains_need_no_more_stack_than_there_is() {
    let around = kernel_of("out[0] = words[0];") + "0123456789012345678901234567890123456789";
    for text in ["+words[0]", "+1u", "[0]", ".x", "&words[0]", "^1", "||true", "-1"] {
        let source = kernel_of(&format!("out[0] = words[0]{};", filled(text, &around)));
        assert_comes_back(&source);
    }
    for (before, text, after) in [
        ("out[0] = ", "(", "1;"),
        ("out[0] = ", "- ", "1;"),
        ("out[0] = u32(", "!", "true);"),
        ("out[0] = ", "vec2(", "1;"),
        ("", "{", ""),
        ("", "loop {", ""),
        ("if lane == 0 {}", "else if lane == 1 {}", ""),
        ("", "if lane == 0 {", ""),
        ("var x: ", "array<", ""),
        ("var x: ", "ptr<function,", ""),
        ("", "*&", "own = 1;"),
        ("", "switch lane { default {", ""),
        ("/*", "/*", ""),
        ("out[0] = lane", "<lane", ";"),
        ("out[0] = min(", "1,", "1);"),
        ("", "@", ""),
    ] {
        let source = kernel_of(&format!("{before}{}{after}", filled(text, &around)));
        assert_comes_back(&source);
    }
}

/// Taken or not.
#[track_caller]
fn assert_comes_back(source: &str) {
    match check(source) {
        Ok(kernel) => assert_sound(&kernel),
        Err(Rejected::Failed(message)) => panic!("{message}\n{:.200}", source),
        Err(_) => {}
    }
}

#[test]
fn long_chains_of_declarations_come_back() {
    for declare in [
        |at: usize| format!("fn f{at}() {{ f{}(); }}\n", at + 1),
        |at: usize| format!("const c{at} = c{};\n", at + 1),
        |at: usize| format!("alias T{at} = T{};\n", at + 1),
        |at: usize| format!("struct S{at} {{ a: S{} }}\n", at + 1),
        |at: usize| format!("alias T{at} = array<T{}, 2>;\n", at + 1),
    ] {
        let chain: String = (0..1900).map(declare).collect();
        let ends = "fn f1900() {} const c1900 = 1; alias T1900 = u32; struct S1900 { a: u32 }";
        let uses = kernel_of("f0(); out[0] = 1;") + ends;
        let source = uses + &chain;
        assert!(source.len() < MOST);
        assert_comes_back(&source);
    }
}

#[test]
fn large_values_are_refused_before_they_are_made() {
    for body in [
        "const a = -array<i32, 500000000>();",
        "const a = array<i32, 500000000>() + array<i32, 500000000>();",
        "var a: array<u32, 500000000>; a[lane] = 1; out[0] = a[lane + 1];",
        "var a: array<array<u32, 1000>, 1000>; out[0] = a[lane][lane];",
        "out[0] = big[lane];",
        "out[0] = many[lane];",
        "let all = whole; out[0] = all.words[lane];",
    ] {
        let source = kernel_of(body)
            + "var<private> big: array<u32, 100000000>;
               var<workgroup> many: array<u32, 262144>;
               struct Whole { words: array<u32, 1000000> }
               @group(0) @binding(9) var<storage> whole: Whole;";
        assert!(
            matches!(check(&source), Err(Rejected::Limit { .. } | Rejected::Unsupported { .. })),
            "{body}"
        );
    }
    // Not as a value.
    let source = kernel_of("out[0] = whole.words[lane];")
        + "struct Whole { words: array<u32, 1000000> }
           @group(0) @binding(9) var<storage> whole: Whole;";
    let kernel = check(&source).expect("it is taken");
    assert_eq!(kernel.slots().last().map(|slot| slot.bytes_min), Some(4_000_000));
}

#[test]
fn a_long_source_is_not_looked_at() {
    assert_limit(check(&"/".repeat(1024 * 1024)), "bytes of source");
    assert_limit(check(&"\u{1f980}".repeat(1024 * 256)), "bytes of source");
}

#[test]
fn a_panic_is_a_refusal() {
    let failed: Result<(), Rejected> = apart(0, || panic!("on purpose"));
    assert_eq!(failed, Err(Rejected::failed("on purpose")));
}

/// A kernel with some of it changed: bytes, words, or lines.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..10_u8);
    let changes = prop::collection::vec(change, 1..5);
    (prop::sample::select(&samples::ALL[..]), changes).prop_map(|((_, source), changes)| {
        let change = |text: String, (at, from, how)| mutate(&text, at, from, how);
        changes.into_iter().fold(source.to_owned(), change)
    })
}

fn mutate(text: &str, at: prop::sample::Index, from: prop::sample::Index, how: u8) -> String {
    const STATEMENTS: [&str; 8] = [
        "workgroupBarrier();",
        "return;",
        "break;",
        "continue;",
        "loop { ",
        "}",
        "if lane > 1u {",
        "var i = 0xffffffffu;",
    ];
    match how {
        0 => {
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = b"0a({<;-\xff"[from.index(8)];
            String::from_utf8_lossy(&bytes).into_owned()
        }
        1..=5 => {
            let words: Vec<&str> = text.split_inclusive(|c: char| !c.is_alphanumeric()).collect();
            replaced(&words, at.index(words.len()), words[from.index(words.len())])
        }
        6 => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            replaced(&lines, at.index(lines.len()), "")
        }
        7 => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let at = at.index(lines.len());
            replaced(&lines, at, &(lines[at].to_owned() + lines[from.index(lines.len())]))
        }
        _ => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let at = at.index(lines.len());
            replaced(&lines, at, &(lines[at].to_owned() + STATEMENTS[from.index(STATEMENTS.len())]))
        }
    }
}

/// The parts with one of them another.
fn replaced(parts: &[&str], at: usize, part: &str) -> String {
    [&parts[..at].concat(), part, &parts[at + 1..].concat()].concat()
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC{0,400}") {
        prop_assert!(!matches!(check(&text), Err(Rejected::Failed(_))));
    }

    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(!matches!(check(&text), Err(Rejected::Failed(_))));
    }

    #[test]
    fn mutated_kernels_come_back_and_what_is_taken_is_sound(source in mutated()) {
        assert_comes_back(&source);
    }
}
