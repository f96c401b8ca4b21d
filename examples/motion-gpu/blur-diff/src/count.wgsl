// Counts the pixels that differ between two blurred pictures, and says where they are.
//
// Before it, `left` and `top` are filled with the largest number there is and the others with 0;
// the box is without its `right` and `bottom`. A workgroup sums up what it has seen, and one
// invocation adds that to the result: few reach for the same words at once.

struct Settings {
    width: u32,
    height: u32,
    radius: u32,
    threshold: u32,
    weights: array<u32, 13>,
}

struct Changed {
    left: atomic<u32>,
    top: atomic<u32>,
    right: atomic<u32>,
    bottom: atomic<u32>,
    moving: atomic<u32>,
}

@group(0) @binding(0) var<storage, read> settings: Settings;
@group(0) @binding(1) var<storage, read> before: array<u32>;
@group(0) @binding(2) var<storage, read> blurred: array<u32>;
@group(0) @binding(3) var<storage, read_write> changed: Changed;

var<workgroup> left: atomic<u32>;
var<workgroup> top: atomic<u32>;
var<workgroup> right: atomic<u32>;
var<workgroup> bottom: atomic<u32>;
var<workgroup> moving: atomic<u32>;

// An invocation is a word of four pixels.
@compute @workgroup_size(256)
fn count(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // They begin as 0, which is no beginning for a least value.
    if (index == 0u) {
        atomicStore(&left, 0xFFFFFFFFu);
        atomicStore(&top, 0xFFFFFFFFu);
    }
    workgroupBarrier();
    for (var pixel = 0u; pixel < 4u; pixel++) {
        let at = id.x * 4u + pixel;
        let x = at % settings.width;
        let y = at / settings.width;
        let one = i32((before[id.x] >> (pixel * 8u)) & 255u);
        let other = i32((blurred[id.x] >> (pixel * 8u)) & 255u);
        // The last word may have more pixels than the picture.
        if (y < settings.height && u32(abs(one - other)) > settings.threshold) {
            atomicMin(&left, x);
            atomicMin(&top, y);
            atomicMax(&right, x + 1u);
            atomicMax(&bottom, y + 1u);
            atomicAdd(&moving, 1u);
        }
    }
    workgroupBarrier();
    if (index == 0u && atomicLoad(&moving) > 0u) {
        atomicMin(&changed.left, atomicLoad(&left));
        atomicMin(&changed.top, atomicLoad(&top));
        atomicMax(&changed.right, atomicLoad(&right));
        atomicMax(&changed.bottom, atomicLoad(&bottom));
        atomicAdd(&changed.moving, atomicLoad(&moving));
    }
}
