//! Kernels of the tenants: each does what real ones do, in as many groups as a job is long.
//!
//! A group does one tile of the same result again and again, so that any number of groups is a
//! job, and what they leave is known whatever their number. Groups of one tile write equal bytes.

/// Bytes of what each kernel reads, and of what it writes.
pub(crate) const BYTES: u64 = 128 * 128 * 4 * 2;

/// Groups that write each byte of a result at least once.
pub(crate) const TILES: u32 = 256;

const MATMUL: &str = "
const SIDE: u32 = 128u;
@group(0) @binding(0) var<storage, read> all: array<f32>;
@group(0) @binding(1) var<storage, read_write> product: array<f32>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let tile = group.x % 64u;
    let x = (tile % 8u) * 16u + at.x;
    let y = (tile / 8u) * 16u + at.y;
    var sum = 0.0;
    for (var i = 0u; i < SIDE; i++) {
        sum += all[y * SIDE + i] * all[SIDE * SIDE + i * SIDE + x];
    }
    product[y * SIDE + x] = sum;
}
";

const CONVOLUTION: &str = "
const SIDE: i32 = 128;
@group(0) @binding(0) var<storage, read> all: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let tile = group.x % 64u;
    let place = vec2<i32>(vec2<u32>(tile % 8u, tile / 8u) * 16u + at.xy);
    var sum = 0.0;
    for (var dy = -4; dy <= 4; dy++) {
        for (var dx = -4; dx <= 4; dx++) {
            let x = clamp(place.x + dx, 0, SIDE - 1);
            let y = clamp(place.y + dy, 0, SIDE - 1);
            sum += all[y * SIDE + x] * all[SIDE * SIDE + (dy + 4) * 9 + dx + 4];
        }
    }
    result[place.y * SIDE + place.x] = sum;
}
";

const HASH: &str = "
@group(0) @binding(0) var<storage, read> all: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) at: u32) {
    let place = (group.x % 256u) * 64u + at;
    var word = all[place] + place + 1u;
    for (var i = 0u; i < 1024u; i++) {
        word ^= word << 13u;
        word ^= word >> 17u;
        word ^= word << 5u;
    }
    result[place] = word;
}
";

/// All of them.
pub(crate) const SOURCES: [&str; 3] = [MATMUL, CONVOLUTION, HASH];

/// Which one a tenant has.
pub(crate) const fn of(tenant: usize) -> usize {
    tenant % SOURCES.len()
}

/// What they read: small numbers.
pub(crate) fn input() -> Vec<u8> {
    (0..BYTES / 4).flat_map(|at| ((at % 17) as f32).to_le_bytes()).collect()
}
