//! Kernels as guests write them.

pub(super) const ALL: [(&str, &str); 9] = [
    ("saxpy", SAXPY),
    ("tiled", TILED),
    ("conv5x5", CONV),
    ("scan", SCAN),
    ("mandelbrot", MANDELBROT),
    ("reduce", REDUCE),
    ("calls", CALLS),
    ("histogram", HISTOGRAM),
    ("members", MEMBERS),
];

/// Buffers for statements that need some.
pub(super) const BUFFERS: &str = "
struct Params { n: u32, scale: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
@group(0) @binding(3) var<storage, read_write> counter: atomic<u32>;
var<workgroup> shared_words: array<u32, 64>;
var<workgroup> shared_word: u32;
var<private> own: u32;
";

pub(super) const SAXPY: &str = "
struct Params { n: u32, a: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.n { return; }
    y[id.x] = p.a * x[id.x] + y[id.x];
}";

/// Loops with barriers around one without.
pub(super) const TILED: &str = "
const TILE = 16u;
struct Params { m: u32, n: u32, k: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
var<workgroup> ta: array<array<f32, TILE>, TILE>;
var<workgroup> tb: array<array<f32, TILE>, TILE>;
@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) li: vec3<u32>) {
    let row = wg.y * TILE + li.y;
    let col = wg.x * TILE + li.x;
    var sum = 0.0;
    let tiles = (p.k + TILE - 1u) / TILE;
    for (var t = 0u; t < tiles; t++) {
        let ak = t * TILE + li.x;
        let bk = t * TILE + li.y;
        ta[li.y][li.x] = select(0.0, a[row * p.k + ak], row < p.m && ak < p.k);
        tb[li.y][li.x] = select(0.0, b[bk * p.n + col], bk < p.k && col < p.n);
        workgroupBarrier();
        for (var k = 0u; k < TILE; k++) { sum += ta[li.y][k] * tb[k][li.x]; }
        workgroupBarrier();
    }
    if row < p.m && col < p.n { c[row * p.n + col] = sum; }
}";

pub(super) const CONV: &str = "
struct Params { width: u32, height: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32, 25>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= p.width || id.y >= p.height { return; }
    var sum = 0.0;
    for (var dy = -2; dy <= 2; dy++) {
        for (var dx = -2; dx <= 2; dx++) {
            let x = clamp(i32(id.x) + dx, 0, i32(p.width) - 1);
            let y = clamp(i32(id.y) + dy, 0, i32(p.height) - 1);
            sum += image[u32(y) * p.width + u32(x)] * weights[(dy + 2) * 5 + dx + 2];
        }
    }
    result[id.y * p.width + id.x] = sum;
}";

/// A scan of each workgroup, by doubling steps.
pub(super) const SCAN: &str = "
@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
var<workgroup> front: array<u32, 256>;
@compute @workgroup_size(256)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    front[lane] = values[id.x];
    workgroupBarrier();
    for (var step = 1u; step < 256u; step <<= 1u) {
        var more = 0u;
        if lane >= step { more = front[lane - step]; }
        workgroupBarrier();
        front[lane] += more;
        workgroupBarrier();
    }
    sums[id.x] = front[lane];
}";

pub(super) const MANDELBROT: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(8, 8)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let size = vec2<f32>(f32(groups.x * 8u), f32(groups.y * 8u));
    let c = vec2<f32>(f32(id.x), f32(id.y)) / size * 3.0 - vec2<f32>(2.0, 1.5);
    var z = vec2<f32>();
    var i = 0u;
    loop {
        if i >= 256u || dot(z, z) > 4.0 { break; }
        z = vec2<f32>(z.x * z.x - z.y * z.y, 2.0 * z.x * z.y) + c;
        i++;
    }
    out[id.y * groups.x * 8u + id.x] = i;
}";

/// Barriers in a function that is called from a loop, its bound an argument.
pub(super) const REDUCE: &str = "
@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<uniform> rounds: u32;
var<workgroup> part: array<f32, 128>;
fn reduce(lane: u32, from_step: u32) -> f32 {
    var step = from_step;
    while step > 0u {
        if lane < step { part[lane] += part[lane + step]; }
        workgroupBarrier();
        step /= 2u;
    }
    return workgroupUniformLoad(&part[0]);
}
@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
    var whole = 0.0;
    for (var round = 0u; round < rounds; round++) {
        part[lane] = values[(group.x * rounds + round) * 128u + lane];
        workgroupBarrier();
        whole += reduce(lane, 64u);
        if whole > 1e30 { break; }
    }
    if lane == 0u { sums[group.x] = whole; }
}";

/// Ways out of loops in functions.
pub(super) const CALLS: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
fn collatz(start: u32) -> u32 {
    var n = start;
    for (var i = 0u; ; i++) {
        if n <= 1u { return i; }
        switch n % 2u {
            case 0u: { n /= 2u; continue; }
            default: { if n > 0x50000000u { break; } n = n * 3u + 1u; }
        }
        if i > 500u { break; }
    }
    return 0xffffffffu;
}
fn both(a: u32, b: u32) -> u32 { return collatz(a) + collatz(b); }
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x == 0u { return; }
    var i = 0u;
    loop {
        out[id.x] += both(id.x, i);
        continuing { i++; break if i >= 4u; }
    }
}";

pub(super) const HISTOGRAM: &str = "
@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> bins: array<atomic<u32>, 64>;
var<workgroup> local_bins: array<atomic<u32>, 64>;
@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if id.x < arrayLength(&values) { atomicAdd(&local_bins[values[id.x] % 64u], 1u); }
    workgroupBarrier();
    atomicAdd(&bins[lane], atomicLoad(&local_bins[lane]));
}";

/// What an entry point is told comes in structs, handed on whole.
pub(super) const MEMBERS: &str = "
struct Told {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
}
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
var<workgroup> word: u32;
fn flat(told: Told) -> u32 { return told.group.y * told.groups.x + told.group.x; }
@compute @workgroup_size(32)
fn main(told: Told, @builtin(local_invocation_id) id: vec3<u32>) {
    for (var i = 0u; i < told.groups.x; i++) {
        if told.lane == i { word = id.x; }
        workgroupBarrier();
    }
    out[flat(told) * 32u + told.lane] = word + told.groups.z;
}";
