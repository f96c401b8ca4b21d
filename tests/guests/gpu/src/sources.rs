//! The kernels, in WGSL.

/// For a map of numbers.
pub(crate) const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read> numbers: array<u32>;
@group(0) @binding(1) var<storage, read_write> doubled: array<u32>;
@group(0) @binding(2) var<uniform> count: u32;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) id: vec3u) {
    if id.x < count { doubled[id.x] = numbers[id.x] * 2u; }
}";

/// Goes on until it is ended.
pub(crate) const ENDLESS: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn endless(@builtin(global_invocation_id) id: vec3u) {
    var i = 0u;
    loop {
        words[id.x % arrayLength(&words)] = i;
        i += 1u;
        if words[0] == 0xffffffffu && i == 0u { break; }
    }
}";

/// Writes in front of its buffer, behind it and far from it, and says that it has.
pub(crate) const OUT_OF_BOUNDS: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn out_of_bounds(@builtin(global_invocation_id) id: vec3u) {
    let length = arrayLength(&words);
    words[length + id.x] = 7u;
    words[length * 1024u + id.x * 4096u] = 7u;
    words[~id.x] = 7u;
    let read = words[length + 5u + id.x];
    if id.x == 0u { words[1] = 1u + read; }
}";

/// Numbers that are none: divides what it finds by zero.
pub(crate) const NAN: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<f32>;

@compute @workgroup_size(1)
fn nan() {
    let zero = words[0];
    words[0] = zero / zero;
    words[1] = sqrt(zero - 1.0);
    words[2] = 1.0;
}";

/// Adds a number, so that the order of steps can be told from the sum.
pub(crate) const ADD: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&words) { words[id.x] = words[id.x] * 2u + id.x; }
}";

/// Sums the words of a table.
pub(crate) const SUM: &str = "
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read_write> sum: array<u32>;

@compute @workgroup_size(1)
fn total() {
    var all = 0u;
    for (var i = 0u; i < arrayLength(&table); i += 1u) { all += table[i]; }
    sum[0] = all;
}";

/// Sums the words of a large table in as many parts as there are invocations; `SUM` does the rest.
pub(crate) const PARTS: &str = "
@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read_write> parts: array<u32>;

@compute @workgroup_size(64)
fn part(@builtin(global_invocation_id) id: vec3u) {
    var all = 0u;
    for (var i = id.x; i < arrayLength(&table); i += arrayLength(&parts)) { all += table[i]; }
    parts[id.x] = all;
}";

/// One of many kernels that differ.
pub(crate) fn numbered(number: u64) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn numbered(@builtin(global_invocation_id) id: vec3u) {{
    words[id.x] = {}u;
}}",
        number % u64::from(u32::MAX)
    )
}

/// A source whose constants are each the one before doubled: to write it out takes for ever.
pub(crate) fn bomb() -> String {
    let mut source = String::from("const c0 = vec4u(1u);\n");
    for at in 1..40 {
        let before = at - 1;
        source += &format!("const c{at} = vec4u(c{before}.x + c{before}.y);\n");
    }
    source += "struct S0 { a: u32, b: u32 }\n";
    for at in 1..40 {
        let before = at - 1;
        source += &format!("struct S{at} {{ a: S{before}, b: S{before} }}\n");
    }
    source
        + "@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@compute @workgroup_size(1)
fn bomb() { var big = S39(); words[0] = c39.x; }"
}
