//! The kernels of the contract.

/// `y` becomes `a x + y`; where there is less of `x`, `y` stays.
pub(super) const SAXPY: &str = "
struct Settings { a: f32, count: u32 }
@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= settings.count) {
        return;
    }
    y[id.x] = settings.a * x[id.x] + y[id.x];
}
";

/// A product of two square matrices, by tiles that a workgroup shares.
pub(super) const MATMUL: &str = "
const SIDE: u32 = 64u;
const TILE: u32 = 16u;
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> product: array<f32>;
var<workgroup> lefts: array<array<f32, 16>, 16>;
var<workgroup> rights: array<array<f32, 16>, 16>;

@compute @workgroup_size(16, 16)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_id) at: vec3<u32>,
) {
    var sum = 0.0;
    for (var tile = 0u; tile < SIDE / TILE; tile++) {
        lefts[at.y][at.x] = left[id.y * SIDE + tile * TILE + at.x];
        rights[at.y][at.x] = right[(tile * TILE + at.y) * SIDE + id.x];
        workgroupBarrier();
        for (var i = 0u; i < TILE; i++) {
            sum += lefts[at.y][i] * rights[i][at.x];
        }
        workgroupBarrier();
    }
    product[id.y * SIDE + id.x] = sum;
}
";

/// Five by five weights over an image of 80 by 48, whose edge goes on outside.
pub(super) const CONVOLUTION: &str = "
const WIDTH: i32 = 80;
const HEIGHT: i32 = 48;
@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32, 25>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = vec2<i32>(id.xy);
    var sum = 0.0;
    for (var dy = -2; dy <= 2; dy++) {
        for (var dx = -2; dx <= 2; dx++) {
            let x = clamp(at.x + dx, 0, WIDTH - 1);
            let y = clamp(at.y + dy, 0, HEIGHT - 1);
            sum += image[y * WIDTH + x] * weights[(dy + 2) * 5 + dx + 2];
        }
    }
    result[at.y * WIDTH + at.x] = sum;
}
";

/// Each invocation of a grid of 3 by 4 by 5 groups of 2 by 1 by 3 says what it sees.
pub(super) const WITNESS: &str = "
@group(0) @binding(0) var<storage, read_write> seen: array<u32>;

@compute @workgroup_size(2, 1, 3)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = 8u * (id.x + 6u * (id.y + 4u * id.z));
    seen[at] += 1u;
    seen[at + 1u] = id.x | (id.y << 8u) | (id.z << 16u);
    seen[at + 2u] = group.x | (group.y << 8u) | (group.z << 16u);
    seen[at + 3u] = index;
    seen[at + 4u] = groups.x;
    seen[at + 5u] = groups.y;
    seen[at + 6u] = groups.z;
}
";

/// Adds one to each word, as often as there are runs.
pub(super) const INCREMENT: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&words)) {
        words[id.x] += 1u;
    }
}
";

/// Reads and writes at the places it is told, wherever they are, in buffers and in memory of its
/// own and of its workgroup.
pub(super) const STRAY: &str = "
@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> four: array<u32, 4>;
@group(0) @binding(4) var<storage, read_write> got: array<u32>;
var<workgroup> shared_words: array<u32, 8>;
var<private> own: array<u32, 8>;

@compute @workgroup_size(1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let place = places[id.x];
    own[place] = place;
    shared_words[place] = own[place];
    got[id.x] = words[place];
    words[place] = 7u + 0u * shared_words[place];
    atomicAdd(&counts[place], 1u);
    four[place] = 9u;
}
";

/// As many iterations as the first word of the settings says, each of which depends on the one
/// before; what comes out is how many there were.
pub(super) const SPIN: &str = "
@group(0) @binding(0) var<storage, read> iterations: u32;
@group(0) @binding(1) var<storage, read_write> counted: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var count = 0u;
    var mixed = id.x;
    for (var i = 0u; i < iterations; i++) {
        mixed = (mixed ^ (mixed << 5u)) * 69069u + i;
        count += 1u;
    }
    // So that none of it can be left out.
    if (mixed == 1u) {
        count = 0u;
    }
    counted[id.x] = count;
}
";
