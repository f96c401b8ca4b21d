//! What the module makes of a device, with a closure for its kernels.

use super::*;
use crate::event::{Event, Events};
use crate::failure::{Class, Failure};
use crate::output::Output;
use crate::testing::{Emitted, Handled, Harness, Input};

const SOURCE: &str = "
    @group(0) @binding(0) var<storage, read> numbers: array<u32>;
    @group(0) @binding(1) var<storage, read_write> doubled: array<u32>;
    @group(0) @binding(2) var<uniform> count: u32;
    @compute @workgroup_size(64)
    fn double(@builtin(global_invocation_id) id: vec3u) {
        if id.x < count { doubled[id.x] = numbers[id.x] * 2; }
    }";

/// Does what `double` does.
fn kernel(entry: &str, buffers: &mut [Vec<u8>], groups: [u32; 3]) {
    assert_eq!(entry, "double");
    let [numbers, doubled, count] = buffers else { panic!("three are bound") };
    let count = u32::read(&count[..4]) as usize;
    assert!(count <= groups[0] as usize * 64, "{groups:?} for {count}");
    let places = doubled.chunks_exact_mut(4).zip(numbers.chunks_exact(4));
    for (place, number) in places.take(count) {
        (u32::read(number) * 2).write(place);
    }
}

fn texts(handled: &Handled) -> Vec<&str> {
    handled.outputs.iter().map(Emitted::text).collect()
}

/// Runs a test inside a call of a stage, where there is a host.
fn within(harness: fn(Harness) -> Harness, test: fn() -> Result<()>) {
    let stage = move |_: Event<'_>, _: &mut Output| test();
    let handled = harness(Harness::new(stage)).send("k", "");
    assert_eq!(handled.failures, []);
}

fn with_gpu(harness: Harness) -> Harness {
    harness.with_gpu(kernel)
}

#[test]
fn without_a_gpu_every_function_says_so() {
    within(
        |harness| harness,
        || {
            let codes = [
                device().map(drop),
                Buffer::new(4).map(drop),
                Buffer::constant("a").map(drop),
                Kernel::new(SOURCE, "double").map(drop),
                Graph::record(|_| {}).map(drop),
            ];
            for made in codes {
                assert_eq!(made.unwrap_err().code(), "gpu.none");
            }
            Ok(())
        },
    );
    assert_eq!(device().unwrap_err().code(), "gpu.none", "nor outside a call");
}

#[test]
fn what_is_written_to_a_buffer_is_read_again() {
    within(with_gpu, || {
        let buffer = Buffer::of(&[1.5_f32, -2.0])?;
        assert_eq!((buffer.bytes(), buffer.read_all::<f32>()?), (8, vec![1.5, -2.0]));
        buffer.write(4, &[-7_i32])?;
        assert_eq!(buffer.read::<i32>(4, 1)?, [-7]);
        let bytes = Buffer::of(b"hello")?;
        assert_eq!(bytes.read_all::<u8>()?, b"hello\0\0\0", "filled up to a multiple of 4");
        assert_eq!(bytes.read::<u8>(0, 5)?, b"hello");
        assert_eq!(Buffer::new(12)?.read_all::<u32>()?, [0; 3]);
        for wrong in [buffer.write(8, &[0_u32]), buffer.read::<u8>(2, 4).map(drop)] {
            assert_eq!(wrong.unwrap_err().code(), "gpu.range");
        }
        Ok(())
    });
}

#[test]
fn a_constant_is_the_bytes_of_an_asset_and_is_not_written() {
    within(
        |harness| harness.with_gpu(kernel).with_asset("table", [7, 0, 0, 0]),
        || {
            let table = Buffer::constant("table")?;
            assert_eq!((table.bytes(), table.read_all::<u32>()?), (4, vec![7]));
            assert_eq!(table.write(0, &[1_u32]).unwrap_err().code(), "gpu.read-only");
            assert!(Buffer::constant("other").is_err());
            Ok(())
        },
    );
}

#[test]
fn steps_of_a_graph_are_done_in_order_on_what_is_bound() {
    within(with_gpu, || {
        let kernel = Kernel::new(SOURCE, "double")?;
        let access: Vec<Access> = kernel.slots()?.iter().map(|slot| slot.access).collect();
        assert_eq!(access, [Access::Read, Access::ReadWrite, Access::Uniform]);
        let graph = Graph::record(|steps| {
            steps.fill((1, 8), 8, 9).dispatch(&kernel, [1, 1, 1], &[0, 1, 2]).copy(1, (1, 12), 4);
        })?;
        drop(kernel);
        let (numbers, count) = (Buffer::of(&[0_u32, 5, 6])?, Buffer::of(&[2_u32])?);
        let doubled = Buffer::new(16)?;
        let bindings = [numbers.range(4, 8), doubled.whole(), count.whole()];
        assert_eq!(graph.submit(&bindings)?.end, End::Whole);
        assert_eq!(doubled.read_all::<u32>()?, [10, 12, 9, 10]);

        let submission = graph.try_submit(&bindings)?;
        submission.cancel()?;
        submission.wait()?.whole()?;
        drop(graph.try_submit(&bindings)?);
        assert_eq!(graph.submit(&bindings[..1]).unwrap_err().code(), "gpu.binding");
        assert_eq!(graph.submit(&[count.whole(); 3]).unwrap_err().code(), "gpu.binding");
        Ok(())
    });
}

#[test]
fn what_is_dropped_is_freed() {
    let stage = |_: Event<'_>, _: &mut Output| -> Result<()> {
        let kernel = Kernel::new(SOURCE, "double")?;
        let buffer = Buffer::new(64)?;
        let graph = Graph::record(|steps| {
            steps.dispatch(&kernel, [1, 1, 1], &[0, 1, 0]);
        })?;
        drop(graph.try_submit(&[buffer.whole(), buffer.whole()])?);
        Ok(())
    };
    let mut harness = Harness::new(stage).with_gpu(|_, _, _| {});
    assert_eq!(harness.send("k", "").failures, []);
    assert_eq!(harness.gpu_handles(), 0);
}

#[test]
fn errors_that_may_pass_are_to_be_tried_again_and_no_others() {
    let class = |text: &str| Failure::from(Error::new(text)).class();
    for code in ["lost", "hung", "would-block", "memory", "none"] {
        assert_eq!(class(&format!("gpu.{code}: why")), Class::Retry, "{code}");
    }
    for code in ["gpu.kernel: why", "gpu.ended: why", "gpu.handle: gpu.lost", "", "no code"] {
        assert_eq!(class(code), Class::Reject, "{code}");
    }
    let error = Error::new("gpu.memory: 8 bytes: not there");
    assert_eq!((error.code(), error.message()), ("gpu.memory", "8 bytes: not there"));
    assert_eq!(Failure::from(error).message(), "gpu.memory: 8 bytes: not there");
    let outcome = |end| Outcome { end, device_time: std::time::Duration::ZERO };
    assert!(outcome(End::Lost).whole().unwrap_err().is_lost());
    assert_eq!(outcome(End::Fuel).whole().unwrap_err().code(), "gpu.ended");
}

#[test]
fn records_lie_without_gaps_and_read_as_they_were_written() {
    let record: ([u32; 2], (f32, [u8; 4])) = ([1, 2], (0.5, *b"abcd"));
    let mut bytes = [0; 16];
    record.write(&mut bytes);
    assert_eq!(bytes, *b"\x01\0\0\0\x02\0\0\0\0\0\0\x3fabcd");
    assert_eq!(<([u32; 2], (f32, [u8; 4]))>::read(&bytes), record);
}

/// Doubles the numbers of a call, in a map of its own.
fn doubling() -> impl Fn(Events<'_>, &mut Output) + 'static {
    let map: Map<u32, u32> = Map::new(SOURCE, "double");
    move |events: Events<'_>, out: &mut Output| {
        map.run(events, out, Event::json, |event, doubled, out| {
            if doubled == 14 {
                return Err(Failure::reject("not fourteen"));
            }
            out.json(event, &doubled);
            Ok(())
        });
    }
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = Input> {
    range.map(|number| Input::data("k", number.to_string()))
}

#[test]
fn a_map_gives_every_event_what_the_kernel_made_of_it() {
    let mut harness = Harness::new(doubling()).with_gpu(kernel);
    for (first, end) in [(100, 103), (100, 101), (100, 150), (100, 356), (8, 12)] {
        let handled = harness.handle(numbers(first..end));
        let expected: Vec<String> = (first..end).map(|number| (number * 2).to_string()).collect();
        assert_eq!(texts(&handled), expected);
        assert_eq!(handled.failures, []);
        assert_eq!(harness.gpu_handles(), 4, "three buffers and a graph are kept, no more");
    }
}

#[test]
fn an_event_that_cannot_be_packed_or_emitted_fails_alone() {
    let mut harness = Harness::new(doubling()).with_gpu(kernel);
    let handled = harness.handle(["1", "x", "7", "3"].map(|text| Input::data("k", text)));
    assert_eq!(texts(&handled), ["2", "6"]);
    let failed: Vec<u32> = handled.failures.iter().map(|failed| failed.event).collect();
    assert_eq!(failed, [1, 2]);
    let handled = harness.send("k", "x");
    assert_eq!((handled.outputs.len(), handled.failures.len()), (0, 1), "nothing to compute");
}

#[test]
fn a_map_goes_on_after_the_device_was_lost_between_two_calls() {
    let mut harness = Harness::new(doubling()).with_gpu(kernel);
    for _ in 0..3 {
        assert_eq!(texts(&harness.handle(numbers(1..3))), ["2", "4"]);
        harness.lose_gpu();
    }
}

#[test]
fn a_kernel_of_a_map_may_leave_a_binding_out_and_has_no_others() {
    const FILL: &str = "
        @group(0) @binding(1) var<storage, read_write> answers: array<u32>;
        @compute @workgroup_size(64) fn fill(@builtin(global_invocation_id) id: vec3u) {
            answers[id.x] = 5;
        }";
    const MORE: &str = "@group(0) @binding(3) var<storage> more: array<u32>; fn more() {}";
    let stage = |source: &'static str, entry: &'static str| {
        let map: Map<u32, u32> = Map::new(source, entry);
        let stage = move |events: Events<'_>, out: &mut Output| {
            map.run(events, out, Event::json, |event, answer, out| out.json(event, &answer));
        };
        Harness::new(stage).with_gpu(|_, buffers, _| {
            assert_eq!(buffers.len(), 1);
            5_u32.write(&mut buffers[0]);
        })
    };
    assert_eq!(texts(&stage(FILL, "fill").send("k", "1")), ["5"]);
    let refused = stage(MORE, "more").send("k", "1");
    assert!(refused.failures[0].failure.message().starts_with("gpu.graph: "));
}

#[test]
fn a_map_of_another_harness_is_made_anew() {
    static MAP: Map<u32, u32> = Map::new(SOURCE, "double");
    fn stage(events: Events<'_>, out: &mut Output) {
        MAP.run(events, out, Event::json, |event, doubled, out| out.json(event, &doubled));
    }
    for _ in 0..2 {
        let mut harness = Harness::new(stage).with_gpu(kernel);
        assert_eq!(texts(&harness.send("k", "4")), ["8"]);
    }
}

#[test]
fn without_a_device_all_events_of_a_map_are_to_be_tried_again() {
    let handled = Harness::new(doubling()).handle(numbers(1..4));
    let classes: Vec<Class> = handled.failures.iter().map(|f| f.failure.class()).collect();
    assert_eq!(classes, [Class::Retry; 3]);
    assert!(handled.failures[0].failure.message().starts_with("gpu.none: "));
}
