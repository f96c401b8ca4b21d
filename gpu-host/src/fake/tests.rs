//! The fake device: what all devices promise, its clock, and its failures.

use super::*;
use crate::contract::{Maker, every_promise};
use crate::device::End;
use crate::kernel::KernelLimits;

const MIB: u64 = 1 << 20;

/// Adds 1 to each word.
const ADD: &str = "
    @group(0) @binding(0) var<storage, read_write> all: array<u32>;
    @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
        all[id.x] += 1u;
    }";

/// Four invocations count in turn and wait for each other, for ever.
const TOGETHER: &str = "
    @group(0) @binding(0) var<storage, read_write> count: u32;
    @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) at: u32) {
        for (var turn = 0u; true; turn = (turn + 1u) % 4u) {
            if turn == at { for (var i = 0u; i < 3u; i++) { count += 1u; } }
            storageBarrier();
        }
    }";

/// Counts for ever.
const ENDLESS: &str = "
    @group(0) @binding(0) var<storage, read_write> count: u32;
    @compute @workgroup_size(1) fn main() { loop { count += 1u; if count == 0u { break; } } }";

struct Fakes;

impl Maker for Fakes {
    fn make(&self) -> Box<dyn Device> {
        Box::new(Fake::new(256 * MIB))
    }

    fn long_groups(&self) -> u32 {
        4
    }
}

fn loaded(fake: &mut Fake, source: &str) -> Loaded {
    let kernel = Kernel::check(source, "main", &KernelLimits::default()).expect("it is right");
    fake.load(&Arc::new(kernel)).expect("it is known")
}

fn whole(kernel: Loaded, block: Block, bytes: u64, groups: u32) -> Run {
    Run {
        kernel,
        bindings: vec![Span { block, offset: 0, bytes }],
        grid: [groups, 1, 1],
        from: [0; 3],
        groups: [groups, 1, 1],
        fuel: 1000,
    }
}

fn word(fake: &mut Fake, block: Block) -> u32 {
    let mut bytes = [0; 4];
    fake.read(block, 0, &mut bytes).expect("it is there");
    u32::from_le_bytes(bytes)
}

/// An endless kernel that was submitted with a lot of fuel, and what it counts in.
fn endless(fake: &mut Fake, source: &str) -> (Ticket, Block) {
    let kernel = loaded(fake, source);
    let block = fake.allocate(4).expect("there is room");
    let run = Run { fuel: u32::MAX, ..whole(kernel, block, 4, 1) };
    (fake.submit(&[Step::Run(run)]).expect("it is right"), block)
}

#[test]
fn it_keeps_every_promise() {
    every_promise(&Fakes);
}

#[test]
fn time_is_what_was_done() {
    let step = Duration::from_micros(3);
    let costs = Costs { step, bytes_per_micro: 4, operations_per_micro: 10 };
    let mut fake = Fake::new(MIB).with_costs(costs);
    let kernel = loaded(&mut fake, ADD);
    let block = fake.allocate(1024).expect("there is room");
    let mut took = |steps: &[Step]| {
        let ticket = fake.submit(steps).expect("it is right");
        let before = fake.now();
        let done = fake.wait(ticket, Duration::MAX).expect("it is there").expect("it has ended");
        assert_eq!((fake.now() - before, done.end), (done.took, End::Whole));
        done.took
    };
    assert_eq!(took(&[]), Duration::ZERO);
    let at = |bytes| Span { block, offset: 0, bytes };
    assert_eq!(took(&[Step::Fill { at: at(40), word: 1 }]), step + Duration::from_micros(10));
    let copy = Step::Copy { from: at(80), to: block, offset: 512 };
    assert_eq!(took(&[copy]), step + Duration::from_micros(20));
    let run = |groups| Step::Run(whole(kernel, block, 1024, groups));
    assert_eq!(took(&[run(0)]), step);
    let one = took(&[run(1)]) - step;
    assert!(one > Duration::from_micros(2), "{one:?} for a group");
    assert_eq!(took(&[run(64)]), step + one * 64);
    assert_eq!(took(&[run(1), run(2)]), 2 * step + one * 3);
}

#[test]
fn work_is_done_when_its_time_has_come() {
    let costs = Costs { step: Duration::from_micros(100), ..Costs::default() };
    let mut fake = Fake::new(MIB).with_costs(costs);
    let block = fake.allocate(64).expect("there is room");
    let fill = |word| [Step::Fill { at: Span { block, offset: 0, bytes: 4 }, word }];
    let first = fake.submit(&fill(1)).expect("it is right");
    let second = fake.submit(&fill(2)).expect("it is right");
    assert_eq!(fake.wait(first, Duration::from_micros(60)), Ok(None));
    assert_eq!(fake.now(), Duration::from_micros(60));
    let other = Span { block, offset: 8, bytes: 4 };
    assert!(fake.write(block, other.offset, &[9; 4]).is_ok());
    assert!(matches!(fake.write(block, 0, &[9; 4]), Err(Error::Wrong(_))));
    assert!(matches!(fake.read(block, 0, &mut [0; 4]), Err(Error::Wrong(_))));
    fake.advance(Duration::from_micros(100));
    // The first is done, the second is not.
    assert!(matches!(fake.wait(first, Duration::ZERO), Ok(Some(_))));
    assert_eq!(fake.wait(second, Duration::ZERO), Ok(None));
    assert!(matches!(fake.wait(first, Duration::ZERO), Err(Error::Wrong(_))));
    assert!(matches!(fake.wait(second, Duration::from_secs(1)), Ok(Some(_))));
    // As long as they take one after the other, and no longer.
    let both = fake.now();
    assert!(both >= Duration::from_micros(200) && both < Duration::from_micros(201), "{both:?}");
    assert_eq!(word(&mut fake, block), 2);
    // While there is nothing to do time passes as well.
    fake.advance(Duration::from_micros(1000));
    let third = fake.submit(&fill(3)).expect("it is right");
    assert_eq!(fake.wait(third, Duration::from_micros(99)), Ok(None));
}

#[test]
fn the_same_calls_take_the_same_time_however_they_are_waited_for() {
    let run = |pause: Duration| {
        let mut fake = Fake::new(MIB);
        let kernel = loaded(&mut fake, ADD);
        let block = fake.allocate(4096).expect("there is room");
        let steps = [
            Step::Run(whole(kernel, block, 4096, 256)),
            Step::Run(whole(kernel, block, 4096, 256)),
        ];
        let ticket = fake.submit(&steps).expect("it is right");
        loop {
            if let Some(done) = fake.wait(ticket, pause).expect("it is there") {
                return (done, word(&mut fake, block), fake.now());
            }
        }
    };
    let at_once = run(Duration::from_secs(1));
    assert_eq!((at_once.0.end, at_once.1, at_once.2), (End::Whole, 2, at_once.0.took));
    for nanos in [777, 1000, 12_345] {
        assert_eq!(run(Duration::from_nanos(nanos)), at_once, "by {nanos} ns");
    }
}

#[test]
fn an_endless_kernel_is_endless_and_can_be_cancelled() {
    for source in [ENDLESS, TOGETHER] {
        let mut fake = Fake::new(MIB);
        let (ticket, block) = endless(&mut fake, source);
        for _ in 0..20 {
            assert_eq!(fake.wait(ticket, Duration::from_micros(100)), Ok(None), "{source}");
        }
        assert_eq!(fake.now(), Duration::from_millis(2));
        fake.cancel(ticket);
        let done = fake.wait(ticket, Duration::from_millis(1)).expect("it is there");
        assert_eq!(done.map(|done| done.end), Some(End::Cancelled), "{source}");
        // What it has written until then is there.
        assert!(word(&mut fake, block) > 1000);
    }
}

#[test]
fn fuel_ends_an_endless_kernel() {
    for (source, counted) in [(ENDLESS, 1000), (TOGETHER, 3000)] {
        let mut fake = Fake::new(MIB);
        let kernel = loaded(&mut fake, source);
        let block = fake.allocate(4).expect("there is room");
        let steps = [Step::Run(whole(kernel, block, 4, 1))];
        let ticket = fake.submit(&steps).expect("it is right");
        let done = fake.wait(ticket, Duration::from_secs(1)).expect("it is there");
        assert_eq!(done.map(|done| done.end), Some(End::Fuel), "{source}");
        assert_eq!(word(&mut fake, block), counted, "{source}");
    }
}

#[test]
fn memory_is_full_when_it_is_and_when_it_is_told_to_be() {
    let mut fake = Fake::new(1000);
    let first = fake.allocate(600).expect("there is room");
    assert_eq!(fake.allocate(401), Err(Error::Memory { bytes: 401 }));
    assert_eq!(fake.allocate(u64::MAX), Err(Error::Memory { bytes: u64::MAX }));
    assert!(fake.allocate(400).is_ok());
    fake.free(first);
    fake.free(first);
    fake.fill_up_at_allocate(2);
    assert!(fake.allocate(1).is_ok());
    assert_eq!(fake.allocate(1), Err(Error::Memory { bytes: 1 }));
    assert_eq!(fake.allocate(1), Err(Error::Memory { bytes: 1 }));
}

#[test]
fn memory_that_is_used_is_given_back_only_then() {
    let mut fake = Fake::new(8);
    let (ticket, block) = endless(&mut fake, ENDLESS);
    fake.free(block);
    // It is still counted, but not there for anybody.
    assert_eq!(fake.allocate(5), Err(Error::Memory { bytes: 5 }));
    assert!(matches!(fake.read(block, 0, &mut [0; 4]), Err(Error::Wrong(_))));
    fake.cancel(ticket);
    assert!(matches!(fake.wait(ticket, Duration::from_millis(1)), Ok(Some(_))));
    let fresh = fake.allocate(8).expect("there is room");
    assert_eq!(word(&mut fake, fresh), 0);
}

#[test]
fn a_device_that_is_lost_has_nothing_and_does_nothing() {
    let mut fake = Fake::new(MIB);
    let kernel = loaded(&mut fake, ADD);
    let block = fake.allocate(64).expect("there is room");
    let steps = [Step::Run(whole(kernel, block, 64, 1))];
    fake.lose_at_submit(2);
    let ticket = fake.submit(&steps).expect("it is not lost yet");
    let lost = Err(Error::Lost("it was told to be".to_owned()));
    assert_eq!(fake.submit(&steps), lost);
    assert_eq!(fake.wait(ticket, Duration::from_secs(1)), lost.clone().map(|_| None));
    assert_eq!(fake.submit(&steps), lost);
    assert_eq!(fake.allocate(4), lost.clone().map(|_| block));
    assert_eq!(fake.write(block, 0, &[0; 4]), lost.clone().map(|_| Duration::ZERO));
    assert_eq!(fake.read(block, 0, &mut [0; 4]), lost.map(|_| Duration::ZERO));
    // These have no answer.
    fake.free(block);
    fake.unload(kernel);
    fake.cancel(ticket);
    fake.advance(Duration::from_secs(1));
}

#[test]
fn what_is_too_large_for_it_is_refused() {
    let limits = KernelLimits { group_threads: 2048, slots: 9, ..KernelLimits::default() };
    let load = |source: &str| {
        let kernel = Kernel::check(source, "main", &limits).expect("it is right");
        Fake::new(MIB).load(&Arc::new(kernel))
    };
    let threads = "@compute @workgroup_size(64, 32) fn main() {}";
    let most = "2048 invocations in a workgroup, at most 1024".to_owned();
    assert_eq!(load(threads), Err(Error::Wrong(most)));
    let slots = (0..9)
        .map(|slot| format!("@group(0) @binding(0{slot}) var<storage, read_write> b{slot}: u32;"));
    let uses = (0..9).map(|slot| format!("b{slot} = 1u;"));
    let (slots, uses): (String, String) = (slots.collect(), uses.collect());
    let slots = slots.replace("binding(0", "binding(");
    let source = format!("{slots} @compute @workgroup_size(1) fn main() {{ {uses} }}");
    assert_eq!(load(&source), Err(Error::Wrong("9 slots, at most 8".to_owned())));
}
