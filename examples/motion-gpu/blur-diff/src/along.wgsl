// The first half of a blur: weighted sums along the rows of a grey picture.
//
// Whole numbers only, so that every device comes to the same. The weights come to 4 to the power of
// the radius, which is at most 6. The picture goes on outside as its edge is.

struct Settings {
    width: u32,
    height: u32,
    radius: u32,
    threshold: u32,
    weights: array<u32, 13>,
}

@group(0) @binding(0) var<storage, read> settings: Settings;
// Four pixels a word, row by row without gaps.
@group(0) @binding(1) var<storage, read> picture: array<u32>;
// A sum a word.
@group(0) @binding(2) var<storage, read_write> rows: array<u32>;

// `at` moved by a tap of the blur, and kept from 0 to before `end`.
fn moved(at: u32, tap: u32, end: u32) -> u32 {
    return min(max(at + tap, settings.radius) - settings.radius, end - 1u);
}

// An invocation is a pixel.
@compute @workgroup_size(16, 16)
fn along(@builtin(global_invocation_id) id: vec3<u32>) {
    // What is right of the picture would be written to its next row.
    if (id.x >= settings.width || id.y >= settings.height) {
        return;
    }
    let row = id.y * settings.width;
    var sum = 0u;
    for (var tap = 0u; tap <= settings.radius * 2u; tap++) {
        let place = row + moved(id.x, tap, settings.width);
        let pixel = (picture[place / 4u] >> (place % 4u * 8u)) & 255u;
        sum += settings.weights[tap] * pixel;
    }
    rows[row + id.x] = sum;
}
