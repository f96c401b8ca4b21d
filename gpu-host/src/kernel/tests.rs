//! Kernels that are taken and kernels that are not.

use proptest::prelude::*;

use super::*;

mod hostile;
mod samples;

fn check(source: &str) -> Result<Kernel, Rejected> {
    Kernel::check(source, "main", &KernelLimits::default())
}

/// Around statements of an entry point.
fn kernel_of(body: &str) -> String {
    format!("{}\n@compute @workgroup_size(64)\nfn main({}) {{\n{body}\n}}", samples::BUFFERS, IDS)
}

const IDS: &str = "@builtin(global_invocation_id) id: vec3u, \
    @builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3u, \
    @builtin(num_workgroups) groups: vec3u";

/// Fails unless it is within what is promised of every kernel that is taken.
#[track_caller]
fn assert_sound(kernel: &Kernel) {
    assert_eq!(kernel.module.entry_points.len(), 1);
    let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES);
    validator.validate(&kernel.module).expect("it is valid behind the passes");
    for robust_buffer_access2 in [true, false] {
        let words = match kernel.spirv(&SpirvOptions { robust_buffer_access2 }) {
            Err(Rejected::Unsupported { .. }) if !robust_buffer_access2 => continue,
            words => words.expect("it is written"),
        };
        assert_eq!(words[0], 0x0723_0203);
        save(kernel, robust_buffer_access2, &words);
    }
}

/// For a look by `spirv-val`, where the variable names a folder.
fn save(kernel: &Kernel, is_robust: bool, words: &[u32]) {
    let Some(folder) = std::env::var_os("SLUICEBOX_SPIRV_TO") else { return };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = format!("{}-{is_robust}.spv", blake3::Hash::from(kernel.hash()).to_hex());
    std::fs::write(std::path::Path::new(&folder).join(name), bytes).expect("the folder is there");
}

#[track_caller]
fn assert_limit(checked: Result<Kernel, Rejected>, what: &str) {
    match checked {
        Err(Rejected::Limit { what: found, .. }) if found.contains(what) => {}
        other => panic!("not refused for {what}: {:?}", other.map(|kernel| kernel.slots)),
    }
}

#[track_caller]
fn assert_refused(source: &str, code: &str) {
    use sluicebox_core::error::Classify;
    match check(source) {
        Err(error) if error.code() == code => {}
        other => panic!("not {code}: {:?}\n{source}", other.map(|kernel| kernel.slots)),
    }
}

#[test]
fn ordinary_kernels_are_taken() {
    for (name, source) in samples::ALL {
        match check(source) {
            Ok(kernel) => assert_sound(&kernel),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn a_kernel_says_what_it_needs() {
    let kernel = check(samples::SAXPY).expect("it is taken");
    assert_eq!(kernel.threads(), [64, 1, 1]);
    let slot = |number, access, bytes_min| Slot { number, access, bytes_min };
    let slots =
        [slot(0, Access::Uniform, 8), slot(1, Access::Read, 4), slot(2, Access::ReadWrite, 4)];
    assert_eq!(kernel.slots(), slots);
    assert_eq!(kernel.group_bytes(), 0);
    let tiled = check(samples::TILED).expect("it is taken");
    // Two tiles, and the word by which a workgroup asks together.
    assert_eq!(tiled.group_bytes(), 2 * 16 * 16 * 4 + 16);
}

#[test]
fn slots_are_those_that_the_entry_point_uses_in_order() {
    let source = "@group(0) @binding(7) var<storage> b: array<vec4f>;
        @group(0) @binding(3) var<storage, read_write> a: array<u32>;
        @group(0) @binding(5) var<uniform> unused: vec4f;
        @compute @workgroup_size(1) fn main() { a[0] = u32(b[0].x); }
        @compute @workgroup_size(1) fn other() { a[0] = u32(unused.x); }";
    let kernel = check(source).expect("it is taken");
    let numbers: Vec<u32> = kernel.slots().iter().map(|slot| slot.number).collect();
    assert_eq!(numbers, [3, 7]);
    let other = Kernel::check(source, "other", &KernelLimits::default()).expect("it is taken");
    assert_eq!(other.slots().len(), 2);
    assert_ne!(kernel.hash(), other.hash());
}

#[test]
fn hashes_tell_sources_apart() {
    let hash = |source: &str| check(source).expect("it is taken").hash();
    let source = kernel_of("out[id.x] = 1u;");
    assert_eq!(hash(&source), hash(&source));
    assert_ne!(hash(&source), hash(&kernel_of("out[id.x] = 2u;")));
}

#[test]
fn overrides_have_their_values() {
    let sized = |value: &str| {
        format!(
            "override n: u32{value}; @group(0) @binding(0) var<storage, read_write> a: array<u32>;
            @compute @workgroup_size(n) fn main() {{ a[0] = n; }}"
        )
    };
    let kernel = check(&sized(" = 48u")).expect("it is taken");
    assert_eq!(kernel.threads(), [48, 1, 1]);
    assert_sound(&kernel);
    assert_refused(&sized(""), "kernel.invalid");
    assert_limit(check(&sized(" = 257u")), "invocations");
}

#[test]
fn only_the_named_entry_point_is_looked_for() {
    let source = "@fragment fn main() {} @compute @workgroup_size(1) fn other() {}";
    assert_refused(source, "kernel.entry");
    assert!(Kernel::check(source, "other", &KernelLimits::default()).is_ok());
}

#[test]
fn every_limit_is_kept() {
    let limits = KernelLimits::default();
    let limited = |limits: KernelLimits, source: &str| Kernel::check(source, "main", &limits);
    let tiled = samples::TILED;
    assert!(limited(limits, tiled).is_ok());
    let few = KernelLimits { source_bytes: tiled.len() - 1, ..limits };
    assert_limit(limited(few, tiled), "bytes of source");
    assert_limit(limited(KernelLimits { size: 40, ..limits }, tiled), "expressions");
    assert_limit(limited(KernelLimits { nesting: 2, ..limits }, tiled), "blocks within");
    let threads = KernelLimits { group_threads: 255, ..limits };
    assert_limit(limited(threads, tiled), "invocations");
    let shared = KernelLimits { group_bytes: 2047, ..limits };
    assert_limit(limited(shared, tiled), "workgroup memory");
    assert_limit(limited(KernelLimits { slots: 2, ..limits }, tiled), "buffers");
    let private = KernelLimits { private_bytes: 4, ..limits };
    assert_limit(limited(private, tiled), "variables");
    let small = KernelLimits { uniform_bytes: 4, ..limits };
    assert_limit(limited(small, tiled), "uniform buffer");
    let flat = KernelLimits { calls: 1, ..limits };
    assert_limit(limited(flat, samples::CALLS), "calls within");
    let values = KernelLimits { value_bytes: 16, ..limits };
    let source =
        kernel_of("let v = array<u32, 8>(1, 2, 3, 4, 5, 6, 7, 8); out[id.x] = v[lane % 8];");
    assert_limit(limited(values, &source), "bytes of values");
}

#[test]
fn private_memory_is_counted_along_calls() {
    let functions = "fn a() -> u32 { var x: array<u32, 500>; x[out[0] % 500] = 1; return x[9]; }
        fn b() -> u32 { var x: array<u32, 500>; x[out[1] % 500] = 1; return x[9] + a(); }
        fn c() -> u32 { return b() + b(); }";
    let both = kernel_of("out[id.x] = c();") + functions;
    assert!(check(&both).is_ok());
    let three = kernel_of("var x: array<u32, 500>; x[lane] = c(); out[id.x] = x[lane + 1];");
    assert_limit(check(&(three + functions)), "variables");
    assert_limit(check(&(kernel_of("out[p[0]] = 1;") + "var<private> p: array<u32, 1025>;")), "");
}

#[test]
fn calls_count_as_if_written_out() {
    let mut source = kernel_of("f13();") + "fn f0() { out[0] += 1u; }";
    for at in 1..14 {
        source += &format!("fn f{at}() {{ f{0}(); f{0}(); }}", at - 1);
    }
    assert_limit(check(&source), "calls written out");
}

#[test]
fn only_buffers_are_bound() {
    for global in [
        "@group(0) @binding(9) var t: texture_2d<f32>;",
        "@group(0) @binding(9) var s: sampler;",
        "@group(0) @binding(9) var t: texture_storage_2d<r32uint, write>;",
        "@group(1) @binding(0) var<storage, read_write> control: array<u32>;",
        "@group(1) @binding(9) var<uniform> u: vec4f;",
        "@group(0) @binding(32) var<uniform> u: vec4f;",
    ] {
        let source = kernel_of("out[id.x] = 1u;") + global;
        assert_refused(&source, "kernel.unsupported");
    }
    let told = kernel_of("out[id.x] = i;") + "var<immediate> i: u32;";
    assert_refused(&told, "kernel.unsupported");
}

#[test]
fn what_is_no_kernel_is_refused() {
    for body in [
        "out[id.x] = ;",
        "out[id.x] = 1.5;",
        "counter += 1u;",
        "atomicAdd(&out[0], 1u);",
        "let x = atomicAdd(&counter, 1i);",
        "discard;",
        "out[id.x] = main();",
        "out[id.x] = subgroupAdd(lane);",
        "subgroupBarrier();",
        "let x = 1.0lf; out[id.x] = u32(x);",
        "let x = 1.0h; out[id.x] = u32(x);",
        "let x = u64(lane); out[id.x] = u32(x);",
        "params.n = 1u;",
    ] {
        let source = kernel_of(body);
        assert_refused(&source, "kernel.invalid");
    }
    let recursive = "fn f(n: u32) -> u32 { if n == 0 { return 0; } return g(n - 1); }
        fn g(n: u32) -> u32 { return f(n); }";
    assert_refused(&(kernel_of("out[0] = f(lane);") + recursive), "kernel.invalid");
}

#[test]
fn a_refusal_names_the_line() {
    let source = kernel_of("out[id.x] = 1u;\nout[id.x] = nothing;");
    let Err(Rejected::Invalid { line, message }) = check(&source) else { panic!("it was taken") };
    let written = source.lines().position(|text| text.contains("nothing")).expect("it is there");
    assert_eq!(line as usize, written + 1);
    assert!(message.contains("nothing"), "{message}");
    let source = kernel_of("if lane == 0 {\nworkgroupBarrier();\n}");
    let Err(Rejected::Barrier { line, .. }) = check(&source) else { panic!("it was taken") };
    let written = source.lines().position(|text| text.contains("Barrier")).expect("it is there");
    assert_eq!(line as usize, written + 1);
}

#[test]
fn atomics_anywhere_in_a_buffer_need_a_device_that_bounds_them() {
    let spirv = |source: &str, robust_buffer_access2| {
        let kernel = check(source).expect("it is taken");
        kernel.spirv(&SpirvOptions { robust_buffer_access2 })
    };
    assert!(spirv(samples::HISTOGRAM, true).is_ok());
    let refused = spirv(samples::HISTOGRAM, false);
    assert!(matches!(refused, Err(Rejected::Unsupported { .. })), "{refused:?}");
    assert!(spirv(&kernel_of("out[0] = atomicAdd(&counter, 1u);"), false).is_ok());
}

#[test]
fn every_loop_is_counted() {
    let endless = kernel_of("loop {}");
    // These have a loop that others pay for: the loop around it, and the entry point.
    let paid = |name| u32::from(["conv5x5", "scan"].contains(&name));
    for (name, source) in samples::ALL.into_iter().chain([("endless", endless.as_str())]) {
        let kernel = check(source).expect("it is taken");
        let functions = kernel.module.functions.iter().map(|(_, function)| function);
        let entry = &kernel.module.entry_points[0].function;
        let uncounted = functions.chain([entry]).map(|function| uncounted(&function.body, false));
        assert_eq!(uncounted.sum::<u32>(), paid(name), "{name}");
    }
}

/// Loops that neither begin with a call that says whether to leave, nor are behind one that says
/// whether to begin.
fn uncounted(block: &naga::Block, is_behind: bool) -> u32 {
    use naga::Statement;
    let mut count = 0;
    for (at, statement) in block.iter().enumerate() {
        let said = match block[..at].last() {
            Some(Statement::Call { result, arguments, .. }) if arguments.len() == 1 => *result,
            _ => None,
        };
        let mut is_asked = false;
        match statement {
            Statement::Loop { body, .. } => {
                let is_counted = match &body[..] {
                    [
                        Statement::Call { result, .. },
                        Statement::If { condition, accept, reject },
                        ..,
                    ] if matches!(reject[..], [Statement::Break]) => {
                        accept.is_empty() && *result == Some(*condition)
                    }
                    _ => false,
                };
                count += u32::from(!is_counted && !is_behind);
            }
            Statement::If { condition, .. } => is_asked = said == Some(*condition),
            _ => {}
        }
        for inner in limits::inner_blocks(statement) {
            count += uncounted(inner, is_asked);
        }
    }
    count
}

#[test]
fn drivers_are_not_asked_for_the_number_of_workgroups() {
    let kernel = check(&kernel_of("out[id.x] = groups.x;")).expect("it is taken");
    let arguments = &kernel.module.entry_points[0].function.arguments;
    let binding = naga::Binding::BuiltIn(naga::BuiltIn::NumWorkGroups);
    assert_eq!(arguments.len(), 3);
    assert!(arguments.iter().all(|argument| argument.binding != Some(binding.clone())));
}

#[test]
fn messages_are_short_and_on_one_line() {
    let source = kernel_of(&format!("out[0] = {};", "\u{e9}y".repeat(2000)));
    let error = check(&source).expect_err("it means nothing").to_string();
    assert!(error.chars().count() < 400 && !error.contains('\n'), "{error}");
}
