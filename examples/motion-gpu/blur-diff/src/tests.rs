//! Tests of what the processor does, and of the stage on the clip of the example `motion`, with a
//! closure for its kernels. The kernels themselves: `gpu-host/tests/examples.rs`.

use serde_json::{Value, json};
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;

const CLIP: &[u8] = include_bytes!("../../../motion/clip.mjpeg");
const KEY: &str = "door";

/// Bytes that look like no order at all.
fn noise(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn task(width: u32, height: u32, radius: u32, threshold: u8) -> cpu::Settings {
    cpu::Settings { width, height, radius, threshold }
}

/// How many ways there are to choose `taken` of `all`.
fn choose(all: u64, taken: u64) -> u64 {
    (0..taken).fold(1, |ways, at| ways * (all - at) / (at + 1))
}

/// The same blur in one go, each weight a product.
fn plainly_blurred(task: &cpu::Settings, picture: &[u8]) -> Vec<u8> {
    let (width, height) = (i64::from(task.width), i64::from(task.height));
    let (radius, taps) = (i64::from(task.radius), u64::from(task.radius) * 2);
    let mut blurred = Vec::new();
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let mut sum = 0;
        for (down, right) in (0..=taps).flat_map(|down| (0..=taps).map(move |at| (down, at))) {
            let from_y = (y + down as i64 - radius).clamp(0, height - 1);
            let from_x = (x + right as i64 - radius).clamp(0, width - 1);
            let weight = choose(taps, down) * choose(taps, right);
            sum += weight * u64::from(picture[(from_y * width + from_x) as usize]);
        }
        let whole = 1 << (taps * 2);
        blurred.push(((sum * 2 + whole) / (whole * 2)) as u8);
    }
    blurred
}

#[test]
fn a_blur_in_two_directions_is_that_in_one_go() {
    for (width, height, radius) in
        [(17, 9, 2), (30, 31, 3), (1, 6, RADIUS_MAX), (14, 2, RADIUS_MAX), (5, 5, 0), (4, 4, 1)]
    {
        let task = task(width, height, radius, 0);
        let picture = noise(width, (width * height) as usize);
        assert_eq!(task.blurred(&picture), plainly_blurred(&task, &picture));
        // The largest sums there are.
        let white = vec![255; picture.len()];
        assert_eq!(task.blurred(&white), white);
    }
}

#[test]
fn without_a_radius_nothing_is_blurred() {
    let picture = noise(7, 60);
    assert_eq!(task(10, 6, 0, 0).blurred(&picture), picture);
}

#[test]
fn what_the_kernels_are_told_ends_in_the_weights() {
    let words = task(64, 48, 2, 24).words();
    assert_eq!(words[..9], [64, 48, 2, 24, 1, 4, 6, 4, 1]);
    assert_eq!(words[9..], [0; 8]);
    for radius in 0..=RADIUS_MAX {
        let words = task(1, 1, radius, 0).words();
        assert_eq!(words[4..].iter().sum::<u32>(), 1 << (radius * 2));
    }
}

#[test]
fn changed_pixels_are_counted_and_boxed_only_above_the_threshold() {
    let before = vec![100; 24];
    let mut after = before.clone();
    (after[7], after[16], after[23]) = (125, 75, 124);
    let changed = task(6, 4, 0, 24).changed(&before, &after);
    assert_eq!(changed, Changed { left: 1, top: 1, right: 5, bottom: 3, moving: 2 });
    assert_eq!(task(6, 4, 0, 25).changed(&before, &after), Changed::NONE);
    assert!(Within::of(Changed::NONE).is_none());
}

#[test]
fn pictures_that_are_none_are_refused() {
    let grey = Format::Grey { width: 4, height: 2 };
    assert!(Picture::read(grey, &[0; 8], None).is_ok());
    assert!(Picture::read(grey, &[0; 7], None).unwrap_err().contains("8 bytes, this has 7"));
    for bad in [b"no picture".as_slice(), b"", &[0xFF, 0xD8], &[0xFF, 0xD8, 0xFF, 0xD9]] {
        assert!(Picture::read(Format::Jpeg, bad, None).is_err(), "{bad:?}");
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Does what the kernels do: `along` leaves all of the blur to `down`.
fn kernel(entry: &str, buffers: &mut [Vec<u8>], groups: [u32; 3]) {
    let told = words(&buffers[0]);
    let task = task(told[0], told[1], told[2], told[3] as u8);
    assert_eq!(task.words()[..], told);
    let pixels = (task.width * task.height) as usize;
    let squares = [task.width.div_ceil(16), task.height.div_ceil(16), 1];
    assert_eq!(groups, if entry == "along" { squares } else { [told_groups(pixels), 1, 1] });
    match (entry, &mut buffers[1..]) {
        ("along", [picture, rows]) => rows[..pixels].copy_from_slice(&picture[..pixels]),
        ("down", [rows, blurred]) => {
            blurred[..pixels].copy_from_slice(&task.blurred(&rows[..pixels]));
        }
        ("count", [before, blurred, changed]) => {
            assert_eq!(words(changed), [u32::MAX, u32::MAX, 0, 0, 0], "it was not emptied");
            let Changed { left, top, right, bottom, moving } =
                task.changed(&before[..pixels], &blurred[..pixels]);
            let words = [left, top, right, bottom, moving].map(u32::to_le_bytes);
            changed.copy_from_slice(words.as_flattened());
        }
        (other, _) => panic!("there is no kernel {other}"),
    }
}

fn told_groups(pixels: usize) -> u32 {
    pixels.div_ceil(1024) as u32
}

/// The pictures of the clip. Nothing in it but a picture begins so.
fn pictures() -> Vec<&'static [u8]> {
    let begins = CLIP.windows(3).enumerate().filter(|(_, bytes)| *bytes == [0xFF, 0xD8, 0xFF]);
    let mut begins: Vec<usize> = begins.map(|(at, _)| at).collect();
    begins.push(CLIP.len());
    begins.windows(2).map(|pair| &CLIP[pair[0]..pair[1]]).collect()
}

fn clip() -> Harness {
    Harness::stream(motion).with_gpu(kernel).with_config("check", "true")
}

fn grey(width: &str, height: &str) -> Harness {
    let harness = clip().with_config("format", "grey").with_config("radius", "0");
    harness.with_config("width", width).with_config("height", height)
}

fn run(harness: &mut Harness, pictures: &[&[u8]]) -> Handled {
    let events = pictures.iter().map(|picture| Input::data(KEY, picture));
    let all = [Input::open(KEY)].into_iter().chain(events).chain([Input::end(KEY)]);
    harness.handle(all)
}

fn on_port(handled: &Handled, port: u16) -> Vec<Value> {
    let outputs = handled.outputs.iter().filter(|output| output.port == port);
    outputs.map(|output| output.json()).collect()
}

fn turns(handled: &Handled) -> Vec<(u64, String)> {
    let turn = |seen: &Value| {
        let event = seen["event"].as_str()?.to_owned();
        Some((seen["frame"].as_u64().unwrap(), event))
    };
    on_port(handled, PORT_MOTION).iter().filter_map(turn).collect()
}

#[test]
fn motion_is_found_where_it_is_in_the_clip() {
    let handled = run(&mut clip(), &pictures());
    assert_eq!(handled.failures, []);
    let seen = on_port(&handled, PORT_MOTION);
    assert_eq!(seen.len(), 24);
    assert_eq!(seen[0], json!({"frame": 0, "score": 0.0}));
    // It moves from picture 8 to 14, and three quiet ones make an end.
    assert_eq!(turns(&handled), [(8, "begin".to_owned()), (17, "end".to_owned())]);
    let summary = &on_port(&handled, PORT_SUMMARY)[0];
    assert_eq!((&summary["frames"], &summary["motions"]), (&json!(24), &json!(1)), "{summary}");
}

#[test]
fn a_device_that_is_lost_between_two_pictures_changes_nothing_that_is_said() {
    let expected = run(&mut clip(), &pictures());
    let mut harness = clip();
    let mut said = Vec::new();
    harness.handle([Input::open(KEY)]);
    for picture in pictures() {
        let handled = harness.send(KEY, picture);
        assert_eq!(handled.failures, []);
        said.extend(on_port(&handled, PORT_MOTION));
        harness.lose_gpu();
    }
    assert_eq!(said, on_port(&expected, PORT_MOTION));
}

#[test]
fn nothing_is_made_twice_and_nothing_is_left() {
    let mut harness = clip();
    harness.handle([Input::open(KEY)]);
    harness.send(KEY, pictures()[0]);
    // Six buffers and two graphs, which keep their kernels.
    assert_eq!(harness.gpu_handles(), 8);
    harness.send(KEY, pictures()[8]);
    assert_eq!(harness.gpu_handles(), 8);
    harness.handle([Input::end(KEY)]);
    assert_eq!(harness.gpu_handles(), 0);
}

#[test]
fn grey_pictures_are_compared_pixel_by_pixel_and_boxed() {
    let black = [0; 8];
    let changed = [0, 0, 0, 25, 0, 24, 0, 255];
    let handled = run(&mut grey("4", "2"), &[&black, &changed, &[7; 9], &black]);
    let seen = on_port(&handled, PORT_MOTION);
    let within = json!({"x": 3, "y": 0, "width": 1, "height": 2});
    assert_eq!(seen[1], json!({"frame": 1, "score": 0.25, "event": "begin", "box": within}));
    assert_eq!(seen[2], json!({"frame": 3, "score": 0.25, "box": within}));
    assert_eq!(handled.failures.len(), 1);
    let why = handled.failures[0].failure.message();
    assert_eq!(why, "a grey picture of 4 × 2 has 8 bytes, this has 9");
}

#[test]
fn a_device_that_errs_is_found_out() {
    let wrong = |entry: &str, buffers: &mut [Vec<u8>], groups| {
        kernel(entry, buffers, groups);
        if entry == "count" {
            buffers[3][16] ^= 1;
        }
    };
    let mut harness = grey("4", "2").with_gpu(wrong);
    let handled = run(&mut harness, &[&[0; 8], &[0; 8]]);
    assert!(handled.failures[0].failure.message().starts_with("the device says"));
    assert_eq!(on_port(&handled, PORT_SUMMARY)[0]["refused"], 1);
}

#[test]
fn settings_are_checked() {
    for (name, value) in [
        ("format", "gif"),
        ("format", "grey"),
        ("radius", "7"),
        ("threshold", "255"),
        ("begin", "1.1"),
        ("begin", "0.004"),
        ("hold", "0"),
        ("check", "perhaps"),
    ] {
        let mut harness = clip().with_config(name, value);
        let handled = run(&mut harness, &[pictures()[0]]);
        assert!(!handled.failures.is_empty(), "{name} = {value}");
    }
}
