//! Devices keep the contract: that of Vulkan, by the driver that needs no GPU (lavapipe).
//!
//! - Which driver is loaded, and by what it is chosen, is for variables of the process to say. So
//!   each test is this program once more, with the variables set and one test that is ignored
//!   otherwise.
//! - The validation layer looks at every call; an error of ours that it sees fails the test.
//! - Without the driver or the layer, a test says why and passes. Where the variable `CI` is set,
//!   it fails.

#![expect(clippy::print_stdout, reason = "it says why something is not tested")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_gpu::Error;
use sluicebox_gpu::contract::{Maker, every_promise};
use sluicebox_gpu::device::{Device, End, Kind, Run, Span, Step};
use sluicebox_gpu::kernel::{Kernel, KernelLimits};
use sluicebox_gpu::vulkan::{Choice, Complaints, Options, Vulkan};

/// Where packages put the descriptions of drivers.
const DRIVER_FOLDERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Which driver: set by whoever wants another, and here otherwise.
const DRIVER: &str = "VK_DRIVER_FILES";
/// The same for loaders before 1.3.234.
const DRIVER_BEFORE: &str = "VK_ICD_FILENAMES";

fn options(in_place: bool) -> Options {
    Options { choice: Choice::Kind(Kind::Software), validation: true, in_place }
}

/// The description of the driver.
fn driver() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os(DRIVER) {
        return Some(set.into());
    }
    let files = DRIVER_FOLDERS.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let mut files = files.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("lvp_icd") && name.ends_with(".json")
    })
}

/// Runs one of the ignored tests with the variables set.
#[track_caller]
fn with_driver(test: &str, driver: &std::path::Path) {
    let program = std::env::current_exe().expect("this program");
    let ran = Command::new(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DRIVER, driver)
        .env(DRIVER_BEFORE, driver)
        // No layer chooses among devices.
        .env("NODEVICE_SELECT", "1")
        .env("LP_NUM_THREADS", "2")
        .output()
        .expect("it runs");
    let output = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("{}", output.concat());
    assert!(ran.status.success(), "{test} failed");
    assert!(output[0].contains("1 passed"), "there is no test {test}");
}

#[track_caller]
fn with_lavapipe(test: &str) {
    match driver() {
        Some(driver) => with_driver(test, &driver),
        None => skip("there is no lavapipe (Debian: mesa-vulkan-drivers)"),
    }
}

/// Says why nothing is tested.
#[track_caller]
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not tested, as {why}");
    println!("not tested, as {why}");
}

/// A device, unless there is none for this test.
#[track_caller]
fn open(in_place: bool) -> Option<Vulkan> {
    match Vulkan::open(&options(in_place)) {
        Ok(device) => Some(device),
        Err(Error::None(why)) => {
            skip(&why);
            None
        }
        Err(why) => panic!("{why}"),
    }
}

#[track_caller]
fn expect_none(complaints: &Complaints) {
    let complaints = complaints.take();
    assert!(complaints.is_empty(), "the validation layer says:\n{}", complaints.join("\n"));
}

/// Makes devices that are watched until they are gone.
struct Watched {
    in_place: bool,
    complaints: std::cell::RefCell<Vec<Complaints>>,
}

impl Maker for Watched {
    fn make(&self) -> Box<dyn Device> {
        let device = Vulkan::open(&options(self.in_place)).expect("there was one just before");
        self.complaints.borrow_mut().push(device.complaints());
        Box::new(device)
    }

    fn long_groups(&self) -> u32 {
        2048
    }
}

fn keep_the_contract(in_place: bool) {
    let Some(device) = open(in_place) else { return };
    println!("{:?}", device.info());
    assert_eq!(device.info().kind, Kind::Software);
    let complaints = device.complaints();
    drop(device);
    expect_none(&complaints);
    let watched = Watched { in_place, complaints: std::cell::RefCell::default() };
    every_promise(&watched);
    watched.complaints.borrow().iter().for_each(expect_none);
}

#[test]
fn vulkan_keeps_the_contract_in_place() {
    with_lavapipe("in_place");
}

#[test]
#[ignore = "for another test, with its variables"]
fn in_place() {
    keep_the_contract(true);
}

#[test]
fn vulkan_keeps_the_contract_with_copies() {
    with_lavapipe("with_copies");
}

#[test]
#[ignore = "for another test, with its variables"]
fn with_copies() {
    keep_the_contract(false);
}

#[test]
fn without_a_driver_there_is_no_device_and_no_crash() {
    with_driver("no_driver", std::path::Path::new("/no/such/driver.json"));
}

#[test]
#[ignore = "for another test, with its variables"]
fn no_driver() {
    for validation in [false, true] {
        let opened = Vulkan::open(&Options { validation, ..Options::default() });
        assert!(matches!(opened, Err(Error::None(_))), "{opened:?}");
    }
}

#[test]
fn a_device_that_is_not_there_is_named_with_those_that_are() {
    with_lavapipe("no_such_device");
}

#[test]
#[ignore = "for another test, with its variables"]
fn no_such_device() {
    if open(true).is_none() {
        return;
    }
    let wants = |choice| Vulkan::open(&Options { choice, ..Options::default() });
    match wants(Choice::Name("no such device".to_owned())) {
        Err(Error::None(why)) => assert!(why.contains("llvmpipe"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(wants(Choice::Name("LLVMpipe".to_owned())).is_ok());
    assert!(wants(Choice::Kind(Kind::Fake)).is_err());
    assert!(wants(Choice::Best).is_ok());
}

#[test]
fn work_under_way_keeps_its_memory_to_itself() {
    with_lavapipe("under_way");
}

/// Work that takes long, and its memory: settings and results.
fn long_work(device: &mut Vulkan) -> (Step, [Span; 2]) {
    const SOURCE: &str = "
    @group(0) @binding(0) var<storage, read> iterations: u32;
    @group(0) @binding(1) var<storage, read_write> result: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        var mixed = id.x;
        for (var i = 0u; i < iterations; i++) {
            mixed = (mixed ^ (mixed << 5u)) * 69069u + i;
        }
        result[id.x] = mixed;
    }";
    const GROUPS: u32 = 4096;
    let kernel = Kernel::check(SOURCE, "main", &KernelLimits::default()).expect("it is good");
    let kernel = device.load(&Arc::new(kernel)).expect("it is loaded");
    let bytes = u64::from(GROUPS) * 256;
    let block = device.allocate(bytes * 2).expect("there is memory");
    device.write(block, 0, &30_000_u32.to_le_bytes()).expect("it is written");
    let bindings = [Span { block, offset: 0, bytes: 4 }, Span { block, offset: bytes, bytes }];
    let run = Run {
        kernel,
        bindings: bindings.to_vec(),
        grid: [GROUPS, 1, 1],
        from: [0; 3],
        groups: [GROUPS, 1, 1],
        fuel: 60_000,
    };
    (Step::Run(run), bindings)
}

#[test]
#[ignore = "for another test, with its variables"]
fn under_way() {
    for in_place in [true, false] {
        let Some(mut device) = open(in_place) else { return };
        let complaints = device.complaints();
        let (work, [settings, results]) = long_work(&mut device);
        let ticket = device.submit(&[work]).expect("it is taken");
        // What it reads may be read, what it does not use may be written.
        let mut word = [0; 4];
        let at = |span: Span| (span.block, span.offset);
        let (block, read_only) = at(settings);
        let refused = device.write(block, read_only, &[1]);
        assert!(matches!(refused, Err(Error::Wrong(_))), "{refused:?}");
        let (block, written) = at(results);
        let refused = device.read(block, written, &mut word);
        assert!(matches!(refused, Err(Error::Wrong(_))), "{refused:?}");
        device.write(block, 4, &[1; 4]).expect("nothing uses it");
        if in_place {
            device.read(block, 0, &mut word).expect("it is only read");
            assert_eq!(u32::from_le_bytes(word), 30_000);
            let told = device.wait(ticket, Duration::ZERO);
            assert_eq!(told, Ok(None), "reading has waited for work");
        }
        device.cancel(ticket);
        let done = device.wait(ticket, Duration::from_secs(60)).expect("it is there");
        assert_eq!(done.map(|done| done.end), Some(End::Cancelled));
        device.read(block, written, &mut word).expect("nothing uses it any more");
        device.write(block, read_only, &[1]).expect("nothing uses it any more");
        drop(device);
        expect_none(&complaints);
    }
}

#[test]
fn a_device_that_is_dropped_ends_its_work() {
    with_lavapipe("dropped");
}

#[test]
#[ignore = "for another test, with its variables"]
fn dropped() {
    let Some(mut device) = open(true) else { return };
    let complaints = device.complaints();
    let (work, [settings, _]) = long_work(&mut device);
    for _ in 0..3 {
        device.submit(std::slice::from_ref(&work)).expect("it is taken");
    }
    device.free(settings.block);
    drop(device);
    expect_none(&complaints);
}

#[test]
fn a_device_that_does_not_end_is_left_as_it_is() {
    with_lavapipe("left");
}

/// So many groups take minutes, and without a loop in them nothing cuts them short.
#[test]
#[ignore = "for another test, with its variables"]
fn left() {
    const SOURCE: &str = "
    @group(0) @binding(0) var<storage, read_write> word: u32;
    @compute @workgroup_size(1) fn main() { word = 1u; }";
    let Some(mut device) = open(true) else { return };
    let complaints = device.complaints();
    let kernel = Kernel::check(SOURCE, "main", &KernelLimits::default()).expect("it is good");
    let kernel = device.load(&Arc::new(kernel)).expect("it is loaded");
    let block = device.allocate(4).expect("there is memory");
    let groups = device.info().limits.groups;
    let grid = [groups, groups, 1];
    let bindings = vec![Span { block, offset: 0, bytes: 4 }];
    let run = Run { kernel, bindings, grid, from: [0; 3], groups: grid, fuel: 1 };
    let ticket = device.submit(&[Step::Run(run)]).expect("it is taken");
    let told = device.wait(ticket, Duration::from_millis(1));
    assert_eq!(told, Ok(None), "it is done, and tests nothing");
    device.free(block);
    drop(device);
    expect_none(&complaints);
    // The process goes on, and can have another.
    assert!(open(true).is_some());
}
