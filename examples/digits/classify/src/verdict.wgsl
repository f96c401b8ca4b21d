// The last layer of the network, and which digit has the largest score.
//
// How many pictures there are follows from what is bound: what is beyond it reads as 0, and takes
// no writes.

const NEURONS: u32 = 32u;
const DIGITS: u32 = 10u;

// Where in the asset its parts begin, in words: behind those of the hidden layer.
const WEIGHTS: u32 = 8u + 144u * NEURONS + NEURONS;
const BIAS: u32 = WEIGHTS + NEURONS * DIGITS;

struct Verdict {
    digit: u32,
    score: f32,
}

@group(0) @binding(0) var<storage, read> asset: array<f32>;
@group(0) @binding(1) var<storage, read> layer: array<f32>;
@group(0) @binding(2) var<storage, read_write> verdicts: array<Verdict>;

// An invocation is a picture. Of equal scores the smaller digit has it.
@compute @workgroup_size(64)
fn verdict(@builtin(global_invocation_id) id: vec3<u32>) {
    var best = Verdict(0u, 0.0);
    for (var digit = 0u; digit < DIGITS; digit++) {
        var score = asset[BIAS + digit];
        for (var neuron = 0u; neuron < NEURONS; neuron++) {
            let weight = asset[WEIGHTS + neuron * DIGITS + digit];
            score += layer[id.x * NEURONS + neuron] * weight;
        }
        if (digit == 0u || score > best.score) {
            best = Verdict(digit, score);
        }
    }
    verdicts[id.x] = best;
}
