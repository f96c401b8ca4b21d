//! What needs no device: words, answers, and what is kept between calls.

use sluicebox_guest::gpu::Record as _;
use sluicebox_guest::testing::{Emitted, Harness, Input};

use super::*;

/// The kernels whose outcome the guest looks at.
fn kernel(entry: &str, buffers: &mut [Vec<u8>], _groups: [u32; 3]) {
    match (entry, buffers) {
        ("double", [numbers, doubled, _]) => {
            for (place, number) in doubled.chunks_exact_mut(4).zip(numbers.chunks_exact(4)) {
                (u32::read(number) * 2).write(place);
            }
        }
        ("add", [words]) => {
            for (at, word) in words.chunks_exact_mut(4).enumerate() {
                (u32::read(word) * 2 + at as u32).write(word);
            }
        }
        ("total", [table, sum]) => {
            sum_of(table).write(sum);
        }
        ("part", [table, parts]) => {
            sum_of(table).write(&mut parts[..4]);
        }
        _ => {}
    }
}

/// As a device sums: it wraps.
fn sum_of(table: &[u8]) -> u32 {
    table.chunks_exact(4).map(u32::read).fold(0, u32::wrapping_add)
}

fn harness() -> Harness {
    Harness::new(command).with_gpu(kernel).with_asset("table", [1, 0, 0, 0, 2, 0, 0, 0])
}

#[test]
fn commands_answer_with_what_came_of_them() {
    let mut harness = harness();
    for (payload, answer) in [
        ("double 1 2 3", "2 4 6"),
        ("two", "ended whole words 4 7 10 13 7 10 13 0"),
        ("constant table", "ended whole sum 3"),
        ("constant other", "refused gpu.wrong"),
        ("loop", "ended whole"),
        ("peek 64", "zeros 64"),
        ("peek 3", "refused gpu.range"),
        ("forge 77", "refused gpu.lost"),
        ("create-many 3", "made 3"),
        ("drop", "dropped 3"),
        ("kernels 3", "made 3"),
        ("wait", "nothing"),
        ("begin", "begun"),
        ("wait", "ended whole"),
        ("flood 2", "begun 2"),
    ] {
        assert_eq!(harness.send("k", payload).outputs[0].text(), answer, "{payload}");
    }
}

#[test]
fn what_is_held_is_named_by_its_handle_and_can_be_read_by_it() {
    let mut harness = harness();
    let held = harness.send("k", "hold 64");
    let handle = held.outputs[0].text().strip_prefix("handle ").expect("it is held").to_owned();
    assert_eq!(harness.send("k", format!("forge {handle}")).outputs[0].text(), "zeros 4");
    harness.lose_gpu();
    assert_eq!(harness.send("k", format!("forge {handle}")).outputs[0].text(), "refused gpu.lost");
}

#[test]
fn what_is_no_command_fails() {
    let mut harness = harness();
    for payload in ["", "what", "hold many", "double one"] {
        assert_eq!(harness.send("k", payload).failures.len(), 1, "{payload}");
    }
}

/// What comes out of another stage that is given all that is emitted for a payload.
fn next(outputs: &[Emitted]) -> Vec<Emitted> {
    harness().handle(outputs.iter().map(Input::from)).outputs
}

#[test]
fn what_is_attached_is_summed_by_the_next_stage() {
    for (payload, texts) in [
        ("attach 64 7", &["sum 112 of 64"][..]),
        ("attach-twice 8 4294967295", &["sum 4294967294 of 8"; 2]),
        ("attach 64 7 write", &["refused gpu.read-only"]),
        ("attach 64 7 write-step", &["refused gpu.read-only"]),
        ("attach 3 7", &[]),
    ] {
        let given = harness().send("k", payload).outputs;
        let answers = next(&given);
        let answers: Vec<&str> = answers.iter().map(Emitted::text).collect();
        assert_eq!(answers, texts, "{payload}: {given:?}");
    }
    let mut harness = harness();
    assert_eq!(harness.send("k", "attach 64 7").outputs[0].text(), "attached 64");
    assert_eq!(harness.send("k", "attach 3 7").outputs[0].text(), "refused gpu.range");
    assert_eq!(harness.gpu_handles(), 0, "nothing is kept of it");
}

#[test]
fn what_is_attached_is_passed_on_as_far_as_it_says() {
    let first = harness().send("k", "attach 16 2 pass pass sum").outputs;
    let third = next(&next(&first));
    assert_eq!((third[0].text(), third[0].buffers.len()), ("sum", 1));
    assert_eq!(next(&third)[0].text(), "sum 8 of 16");
}

#[test]
#[should_panic(expected = "trap: the call has nothing")]
fn a_number_of_somebody_else_is_not_attached() {
    harness().send("k", "attach-foreign 77");
}
