// The second half of a blur: weighted sums down the columns of what came of the first.
//
// The weights of both halves come to 16 to the power of the radius, by which the sums are divided
// here, and rounded once. The largest is 255 * 16^6 and a half of that power, less than 2^32.

struct Settings {
    width: u32,
    height: u32,
    radius: u32,
    threshold: u32,
    weights: array<u32, 13>,
}

@group(0) @binding(0) var<storage, read> settings: Settings;
// A sum a word, row by row.
@group(0) @binding(1) var<storage, read> rows: array<u32>;
// Four pixels a word, row by row without gaps.
@group(0) @binding(2) var<storage, read_write> blurred: array<u32>;

// `at` moved by a tap of the blur, and kept from 0 to before `end`.
fn moved(at: u32, tap: u32, end: u32) -> u32 {
    return min(max(at + tap, settings.radius) - settings.radius, end - 1u);
}

// An invocation is a word, of four pixels that follow one another.
@compute @workgroup_size(256)
fn down(@builtin(global_invocation_id) id: vec3<u32>) {
    let shift = settings.radius * 4u;
    // Half of what is shifted out, so that the result is rounded.
    let half = (1u << shift) / 2u;
    var word = 0u;
    for (var pixel = 0u; pixel < 4u; pixel++) {
        let to = id.x * 4u + pixel;
        let x = to % settings.width;
        let y = to / settings.width;
        if (y < settings.height) {
            var sum = half;
            for (var tap = 0u; tap <= settings.radius * 2u; tap++) {
                let place = moved(y, tap, settings.height) * settings.width + x;
                sum += settings.weights[tap] * rows[place];
            }
            word |= (sum >> shift) << (pixel * 8u);
        }
    }
    blurred[id.x] = word;
}
