// The hidden layer of the network, over a batch of pictures of 12 by 12 bytes.
//
// How many pictures there are follows from what is bound: what is beyond it reads as 0, and takes
// no writes.

const WORDS: u32 = 36u; // of a picture, with four pixels each
const NEURONS: u32 = 32u;

// Where in the asset its parts begin, in words.
const WEIGHTS: u32 = 8u;
const BIAS: u32 = WEIGHTS + WORDS * 4u * NEURONS;

@group(0) @binding(0) var<storage, read> asset: array<f32>;
@group(0) @binding(1) var<storage, read> pictures: array<u32>;
@group(0) @binding(2) var<storage, read_write> layer: array<f32>;

// The pictures of a workgroup: each is read once from the buffer and 32 times from here.
var<workgroup> shown: array<array<u32, 36>, 8>;

// An invocation is a neuron (x) of a picture (y).
@compute @workgroup_size(32, 8)
fn hidden(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_id) at: vec3<u32>,
) {
    for (var word = at.x; word < WORDS; word += NEURONS) {
        shown[at.y][word] = pictures[id.y * WORDS + word];
    }
    workgroupBarrier();
    var sum = asset[BIAS + at.x];
    for (var word = 0u; word < WORDS; word++) {
        var pixels = shown[at.y][word];
        let first = WEIGHTS + word * 4u * NEURONS + at.x;
        for (var pixel = 0u; pixel < 4u; pixel++) {
            sum += f32(pixels & 255u) * asset[first + pixel * NEURONS];
            pixels >>= 8u;
        }
    }
    layer[id.y * NEURONS + at.x] = max(sum, 0.0);
}
