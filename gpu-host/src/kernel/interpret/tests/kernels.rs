//! Whole kernels, each beside the same in Rust, whole and in pieces.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const SAXPY: &str = "
    @group(0) @binding(0) var<uniform> factor: vec4f;
    @group(0) @binding(1) var<storage, read> x: array<f32>;
    @group(0) @binding(2) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3u) {
        if id.x < arrayLength(&y) { y[id.x] = factor.x * x[id.x] + y[id.x]; }
    }";

const TILED: &str = "
    const TILE = 8u;
    struct Shape { rows: u32, inner: u32, columns: u32 }
    @group(0) @binding(0) var<uniform> shape: Shape;
    @group(0) @binding(1) var<storage, read> left: array<f32>;
    @group(0) @binding(2) var<storage, read> right: array<f32>;
    @group(0) @binding(3) var<storage, read_write> product: array<f32>;
    var<workgroup> lefts: array<array<f32, TILE>, TILE>;
    var<workgroup> rights: array<array<f32, TILE>, TILE>;
    @compute @workgroup_size(TILE, TILE)
    fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) at: vec3u) {
        var sum = 0.0;
        for (var begin = 0u; begin < shape.inner; begin += TILE) {
            lefts[at.y][at.x] = select(0.0, left[id.y * shape.inner + begin + at.x],
                id.y < shape.rows && begin + at.x < shape.inner);
            rights[at.y][at.x] = select(0.0, right[(begin + at.y) * shape.columns + id.x],
                begin + at.y < shape.inner && id.x < shape.columns);
            workgroupBarrier();
            for (var k = 0u; k < TILE; k++) { sum += lefts[at.y][k] * rights[k][at.x]; }
            workgroupBarrier();
        }
        if id.x < shape.columns && id.y < shape.rows {
            product[id.y * shape.columns + id.x] = sum;
        }
    }";

const CONV: &str = "
    struct Image { width: u32, height: u32 }
    @group(0) @binding(0) var<uniform> image: Image;
    @group(0) @binding(1) var<storage, read> weights: array<f32, 25>;
    @group(0) @binding(2) var<storage, read> image_in: array<f32>;
    @group(0) @binding(3) var<storage, read_write> to: array<f32>;
    fn pixel(x: i32, y: i32) -> f32 {
        let inside = vec2i(clamp(x, 0, i32(image.width) - 1), clamp(y, 0, i32(image.height) - 1));
        return image_in[u32(inside.y) * image.width + u32(inside.x)];
    }
    @compute @workgroup_size(8, 4)
    fn main(@builtin(global_invocation_id) id: vec3u) {
        if any(id.xy >= vec2u(image.width, image.height)) { return; }
        var sum = 0.0;
        for (var dy = -2; dy <= 2; dy++) {
            for (var dx = -2; dx <= 2; dx++) {
                sum += weights[(dy + 2) * 5 + dx + 2] * pixel(i32(id.x) + dx, i32(id.y) + dy);
            }
        }
        to[id.y * image.width + id.x] = sum;
    }";

/// Sums within blocks of 64, in steps that double.
const SCAN: &str = "
    @group(0) @binding(0) var<storage, read_write> values: array<u32>;
    var<workgroup> shared_values: array<u32, 64>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) at: u32) {
        shared_values[at] = values[id.x];
        workgroupBarrier();
        for (var distance = 1u; distance < 64u; distance <<= 1u) {
            var before = 0u;
            if at >= distance { before = shared_values[at - distance]; }
            workgroupBarrier();
            shared_values[at] += before;
            workgroupBarrier();
        }
        values[id.x] = shared_values[at];
    }";

const HISTOGRAM: &str = "
    @group(0) @binding(0) var<storage, read> values: array<u32>;
    @group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>, 16>;
    var<workgroup> local_counts: array<atomic<u32>, 16>;
    @compute @workgroup_size(32)
    fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) at: u32) {
        if id.x < arrayLength(&values) { atomicAdd(&local_counts[values[id.x] % 16u], 1u); }
        workgroupBarrier();
        if at < 16u { atomicAdd(&counts[at], atomicLoad(&local_counts[at])); }
    }";

const MANDELBROT: &str = "
    @group(0) @binding(0) var<storage, read_write> steps: array<u32>;
    @compute @workgroup_size(8, 8)
    fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
        let size = groups.xy * 8;
        let c = vec2f(id.xy) / vec2f(size) * vec2f(3.0, 2.0) - vec2f(2.0, 1.0);
        var z = vec2f();
        var count = 0u;
        loop {
            if count == 100u || dot(z, z) > 4.0 { break; }
            z = vec2f(z.x * z.x - z.y * z.y, 2.0 * z.x * z.y) + c;
            continuing { count++; }
        }
        steps[id.y * size.x + id.x] = count;
    }";

/// Numbers that look like any.
fn noise(count: usize) -> Vec<u32> {
    (1..=count as u32).map(|at| at.wrapping_mul(2_654_435_761).rotate_left(7)).collect()
}

/// The same between -1 and 1.
fn float_noise(count: usize) -> Vec<f32> {
    noise(count).into_iter().map(|word| word as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

/// A kernel, its grid, what it is given, which of that it writes, and what that is to become.
struct Sample {
    source: &'static str,
    grid: [u32; 3],
    blocks: Vec<Vec<u8>>,
    written: usize,
    wanted: Vec<u8>,
}

fn saxpy() -> Sample {
    let (x, y) = (float_noise(1000), float_noise(1100)[100..].to_vec());
    let wanted: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.5 * x + y).collect();
    let blocks = vec![float_bytes(&[2.5, 0.0, 0.0, 0.0]), float_bytes(&x), float_bytes(&y)];
    let wanted = float_bytes(&wanted);
    Sample { source: SAXPY, grid: [16, 1, 1], blocks, written: 2, wanted }
}

fn tiled() -> Sample {
    let (rows, inner, columns) = (20, 29, 27);
    let (left, right) = (float_noise(rows * inner), float_noise(inner * columns));
    let mut wanted = vec![0.0_f32; rows * columns];
    for row in 0..rows {
        for column in 0..columns {
            wanted[row * columns + column] = (0..inner)
                .map(|k| left[row * inner + k] * right[k * columns + column])
                .fold(0.0, |sum, product| sum + product);
        }
    }
    let shape = bytes(&[rows as u32, inner as u32, columns as u32]);
    let blocks = vec![shape, float_bytes(&left), float_bytes(&right), vec![0; rows * columns * 4]];
    Sample { source: TILED, grid: [4, 3, 1], blocks, written: 3, wanted: float_bytes(&wanted) }
}

fn conv() -> Sample {
    let (width, height) = (37_usize, 18_usize);
    let (weights, image) = (float_noise(25), float_noise(width * height));
    let at = |x: i32, y: i32| {
        let x = x.clamp(0, width as i32 - 1) as usize;
        image[y.clamp(0, height as i32 - 1) as usize * width + x]
    };
    let mut wanted = Vec::new();
    for y in 0..height as i32 {
        for x in 0..width as i32 {
            let taps =
                (0..25).map(|tap| weights[tap as usize] * at(x + tap % 5 - 2, y + tap / 5 - 2));
            wanted.push(taps.fold(0.0, |sum, product| sum + product));
        }
    }
    let size = bytes(&[width as u32, height as u32]);
    let blocks =
        vec![size, float_bytes(&weights), float_bytes(&image), vec![0; width * height * 4]];
    Sample { source: CONV, grid: [5, 5, 1], blocks, written: 3, wanted: float_bytes(&wanted) }
}

fn scan() -> Sample {
    let values = noise(320);
    let mut wanted = values.clone();
    for block in wanted.chunks_mut(64) {
        for at in 1..block.len() {
            block[at] = block[at].wrapping_add(block[at - 1]);
        }
    }
    let blocks = vec![bytes(&values)];
    Sample { source: SCAN, grid: [5, 1, 1], blocks, written: 0, wanted: bytes(&wanted) }
}

fn histogram() -> Sample {
    let values = noise(1000);
    let mut wanted = [0; 16];
    for value in &values {
        wanted[*value as usize % 16] += 1;
    }
    let blocks = vec![bytes(&values), vec![0; 64]];
    Sample { source: HISTOGRAM, grid: [32, 1, 1], blocks, written: 1, wanted: bytes(&wanted) }
}

fn mandelbrot() -> Sample {
    let (width, height) = (40_u32, 24_u32);
    let mut wanted = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let c = [x as f32 / width as f32 * 3.0 - 2.0, y as f32 / height as f32 * 2.0 - 1.0];
            let (mut z, mut count) = ([0.0_f32; 2], 0);
            while count < 100 && z[0] * z[0] + z[1] * z[1] <= 4.0 {
                z = [z[0] * z[0] - z[1] * z[1] + c[0], 2.0 * z[0] * z[1] + c[1]];
                count += 1;
            }
            wanted.push(count);
        }
    }
    let blocks = vec![vec![0; wanted.len() * 4]];
    Sample { source: MANDELBROT, grid: [5, 3, 1], blocks, written: 0, wanted: bytes(&wanted) }
}

fn samples() -> [Sample; 6] {
    [saxpy(), tiled(), conv(), scan(), histogram(), mandelbrot()]
}

#[test]
fn kernels_do_as_the_same_in_rust() {
    for sample in samples() {
        let Sample { source, grid, blocks, written, wanted } = sample;
        let blocks = run_all(source, grid, blocks);
        assert!(blocks[written] == wanted, "this came out otherwise:{source}");
    }
}

#[test]
fn pauses_change_nothing() {
    for Sample { source, grid, blocks, written, wanted } in samples() {
        let program = program(source);
        let mut buffers = bound(blocks);
        let mut execution = Execution::new(Arc::clone(&program), whole(grid));
        let mut pauses = 0;
        while !execution.run(&mut buffers, execution.spent() + 97).expect("it goes on") {
            pauses += 1;
        }
        assert!(buffers.blocks[written] == wanted, "this came out otherwise:{source}");
        assert!(pauses > 50, "there were {pauses} pauses");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each piece is cut in two along an axis, some times over, and the pieces come in any order.
    #[test]
    fn pieces_come_to_the_same_as_the_whole(
        cuts in prop::collection::vec((any::<Index>(), 0..3_usize, any::<Index>()), 0..6),
        seed in any::<u64>(),
    ) {
        for Sample { source, grid, blocks, written, wanted } in samples() {
            let mut pieces = vec![whole(grid)];
            for (which, axis, at) in &cuts {
                let piece = which.index(pieces.len());
                let groups = pieces[piece].groups[*axis];
                let at = at.index(groups as usize + 1) as u32;
                let mut rest = pieces[piece];
                rest.from[*axis] += at;
                rest.groups[*axis] -= at;
                pieces[piece].groups[*axis] = at;
                pieces.push(rest);
            }
            let first = seed as usize % pieces.len();
            pieces.rotate_left(first);
            let program = program(source);
            let mut buffers = bound(blocks);
            for piece in pieces {
                run_on(&program, piece, &mut buffers);
            }
            prop_assert!(buffers.blocks[written] == wanted, "this came out otherwise:{}", source);
        }
    }
}
