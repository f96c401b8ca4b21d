//! What a device costs besides its kernels: `cargo bench -p sluicebox-gpu --bench device`.
//!
//! Sections, as arguments behind `--`: `trip`, `passes`; both without one. Which driver is loaded
//! is for the loader's variables to say (`VK_DRIVER_FILES`).
//!
//! - `trip` is from the submission of an empty kernel to its result, beside the same by bare calls
//!   of Vulkan: one list of commands, no descriptors, no barriers, without and with two readings of
//!   the device's clock.
//! - `passes` is what fuel, the cancel word and indices in range cost: the same kernels with and
//!   without them, by processor time of all threads, which is what a driver on the processor uses.
//!   On a GPU the times of its own clock stand beside.
//! - Processor time is that of all threads of the process, the driver's included.
//! - What is compared takes turns within one run; each figure is a median.
//!
//! Targets: `trip` at most 60 us over bare, `passes` at most 1.15.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use sluicebox_gpu::Error;
use sluicebox_gpu::device::{Block, Device, End, Loaded, Run, Span, Step};
use sluicebox_gpu::kernel::{Kernel, KernelLimits};
use sluicebox_gpu::vulkan::bare::Bare;
use sluicebox_gpu::vulkan::{Options, Vulkan};

const EMPTY: &str = "@compute @workgroup_size(1) fn main() {}";

const MATMUL: &str = "
const SIDE: u32 = 256u;
@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read_write> product: array<f32>;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = 0.0;
    for (var i = 0u; i < SIDE; i++) {
        sum += left[id.y * SIDE + i] * right[i * SIDE + id.x];
    }
    product[id.y * SIDE + id.x] = sum;
}
";

const TILED: &str = "
const SIDE: u32 = 256u;
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

const CONVOLUTION: &str = "
const SIDE: i32 = 512;
@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = vec2<i32>(id.xy);
    var sum = 0.0;
    for (var dy = -2; dy <= 2; dy++) {
        for (var dx = -2; dx <= 2; dx++) {
            let x = clamp(at.x + dx, 0, SIDE - 1);
            let y = clamp(at.y + dy, 0, SIDE - 1);
            sum += image[y * SIDE + x] * weights[(dy + 2) * 5 + dx + 2];
        }
    }
    result[at.y * SIDE + at.x] = sum;
}
";

/// Name, source, bytes of each buffer, groups on two axes.
const KERNELS: [(&str, &str, u64, u32); 3] = [
    ("matmul", MATMUL, 256 * 256 * 4, 16),
    ("tiled", TILED, 256 * 256 * 4, 16),
    ("convolution", CONVOLUTION, 512 * 512 * 4, 32),
];

type Section = (&'static str, fn() -> Result<(), Error>);

const SECTIONS: [Section; 2] = [("trip", trip), ("passes", passes)];

fn main() -> Result<(), Error> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    for (name, run) in SECTIONS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            run()?;
        }
    }
    Ok(())
}

fn checked(source: &str) -> Arc<Kernel> {
    let kernel = Kernel::check(source, "main", &KernelLimits::default());
    Arc::new(kernel.expect("our own kernels are good"))
}

fn run(kernel: Loaded, bindings: &[Span], grid: [u32; 3]) -> [Step; 1] {
    let (from, groups, fuel) = ([0; 3], grid, 1 << 20);
    [Step::Run(Run { kernel, bindings: bindings.to_vec(), grid, from, groups, fuel })]
}

/// Does work, all of it. By its own clock.
fn done(device: &mut Vulkan, steps: &[Step]) -> Result<Duration, Error> {
    let ticket = device.submit(steps)?;
    let done = device.wait(ticket, Duration::from_secs(60))?.expect("it takes less");
    assert_eq!(done.end, End::Whole);
    Ok(done.took)
}

fn trip() -> Result<(), Error> {
    const ROUNDS: usize = 41;
    const TRIPS: u32 = 50;
    let mut device = Vulkan::open(&Options::default())?;
    println!("{}, {}", device.info().name, device.info().driver);
    let mut bare = Bare::open(&Options::default())?;
    let kernel = device.load(&checked(EMPTY))?;
    let steps = run(kernel, &[], [1; 3]);
    let mut all = [const { [Vec::new(), Vec::new()] }; 3];
    for _ in 0..ROUNDS {
        timed(TRIPS, &mut all[0], || done(&mut device, &steps).map(drop))?;
        timed(TRIPS, &mut all[1], || bare.trip(false).map(drop))?;
        timed(TRIPS, &mut all[2], || bare.trip(true).map(drop))?;
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    for (at, what) in ["by the clock", "by processor time"].into_iter().enumerate() {
        let [ours, bare, timed] = all.each_ref().map(|times| micros(middle(&times[at])));
        println!("trip {what}: {ours:.1} us");
        for (what, other) in [("bare", bare), ("bare with its clock", timed)] {
            let (ratio, more) = (ours / other, ours - other);
            println!("  over {what}, {other:.1} us: {ratio:.2} times, {more:+.1} us");
        }
    }
    Ok(())
}

/// Does something again and again. Notes how long each time took, and in the mean of all of them
/// the processor.
fn timed(
    times: u32,
    notes: &mut [Vec<Duration>; 2],
    mut what: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let before = processor_time();
    for _ in 0..times {
        let from = Instant::now();
        what()?;
        notes[0].push(from.elapsed());
    }
    notes[1].push((processor_time() - before) / times);
    Ok(())
}

/// The one in the middle.
fn middle(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn passes() -> Result<(), Error> {
    const RUNS: usize = 21;
    let mut device = Vulkan::open(&Options::default())?;
    for (name, source, bytes, side) in KERNELS {
        let kernel = checked(source);
        let with = device.load(&kernel)?;
        let without = device.load_trusted(&trusted(source), "main", kernel.slots())?;
        let mut bindings = Vec::new();
        for _ in 0..3 {
            bindings.push(Span { block: filled(&mut device, bytes)?, offset: 0, bytes });
        }
        let result = bindings[2];
        let steps = [with, without].map(|kernel| run(kernel, &bindings, [side, side, 1]));
        let results =
            [results(&mut device, &steps[0], result)?, results(&mut device, &steps[1], result)?];
        assert!(results[0] == results[1], "{name}: the passes change what is computed");
        let [mut cpu, mut clock] = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        for _ in 0..RUNS {
            for (which, steps) in steps.iter().enumerate() {
                let before = processor_time();
                // Several, as the threads' times are not exact to less.
                let took = (0..5).map(|_| done(&mut device, steps)).sum::<Result<Duration, _>>()?;
                cpu[which].push(processor_time() - before);
                clock[which].push(took);
            }
        }
        let ratio = |[with, without]: &[Vec<Duration>; 2]| {
            middle(with).as_secs_f64() / middle(without).as_secs_f64()
        };
        let millis = middle(&cpu[1]).as_secs_f64() * 1e3 / 5.0;
        let (by_cpu, by_clock) = (ratio(&cpu), ratio(&clock));
        println!("{name}: {by_cpu:.3} times by processor time, {by_clock:.3} by its clock");
        println!("  without passes {millis:.2} ms of processor time");
    }
    Ok(())
}

/// What work leaves in a span that was all zeros. The first time of a kernel, which does not count.
fn results(device: &mut Vulkan, steps: &[Step], at: Span) -> Result<Vec<u8>, Error> {
    done(device, &[Step::Fill { at, word: 0 }])?;
    done(device, steps)?;
    let mut bytes = vec![0; usize::try_from(at.bytes).expect("it was allocated")];
    device.read(at.block, at.offset, &mut bytes)?;
    Ok(bytes)
}

/// A block of small numbers.
fn filled(device: &mut Vulkan, bytes: u64) -> Result<Block, Error> {
    let block = device.allocate(bytes)?;
    let floats = (0..bytes / 4).flat_map(|at| ((at % 17) as f32).to_le_bytes());
    device.write(block, 0, &floats.collect::<Vec<_>>())?;
    Ok(block)
}

/// A kernel as the compiler writes it without any check.
fn trusted(source: &str) -> Vec<u32> {
    let module = naga::front::wgsl::parse_str(source).expect("our own kernels are good");
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    let info = validator.validate(&module).expect("our own kernels are good");
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::Native,
        force_loop_bounding: false,
        ..spv::Options::default()
    };
    spv::write_vec(&module, &info, &options, None).expect("our own kernels are good")
}

/// What all threads of this process have run for.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("a Linux");
    let nanos = threads.filter_map(|thread| {
        let path = thread.ok()?.path().join("schedstat");
        let text = std::fs::read_to_string(path).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
