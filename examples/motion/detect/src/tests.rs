//! Tests of the stage, on the clip that lies beside the manifest.

use serde_json::{Value, json};
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;

const CLIP: &[u8] = include_bytes!("../../clip.mjpeg");
const KEY: &str = "door";

/// The pictures of the clip. Nothing in it but a picture begins so.
fn pictures() -> Vec<&'static [u8]> {
    let begins = CLIP.windows(3).enumerate().filter(|(_, bytes)| *bytes == [0xFF, 0xD8, 0xFF]);
    let mut begins: Vec<usize> = begins.map(|(at, _)| at).collect();
    begins.push(CLIP.len());
    begins.windows(2).map(|pair| &CLIP[pair[0]..pair[1]]).collect()
}

fn run(mut harness: Harness, pictures: &[&[u8]]) -> Handled {
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
    let handled = run(Harness::stream(motion), &pictures());
    assert_eq!(handled.failures, []);
    let seen = on_port(&handled, PORT_MOTION);
    assert_eq!(seen.len(), 24);
    assert_eq!(seen[0], json!({"frame": 0, "score": 0.0}));
    // It moves from picture 8 to 14, and three quiet ones make an end.
    assert_eq!(turns(&handled), [(8, "begin".to_owned()), (17, "end".to_owned())]);
    let summary = &on_port(&handled, PORT_SUMMARY)[0];
    assert_eq!((&summary["frames"], &summary["motions"]), (&json!(24), &json!(1)), "{summary}");
    assert_eq!((&summary["moving"], &summary["open"]), (&json!(9), &json!(false)), "{summary}");
}

#[test]
fn a_bad_picture_fails_alone_and_is_counted() {
    let good = pictures();
    let cut = &good[9][..good[9].len() / 2];
    // Cut off, but with an end.
    let patched = [cut, &[0xFF, 0xD9]].concat();
    for bad in [b"no picture".as_slice(), b"", cut, &patched, &[0xFF, 0xD8, 0xFF, 0xD9]] {
        let with_bad = [&good[..10], &[bad], &good[10..]].concat();
        let handled = run(Harness::stream(motion), &with_bad);
        assert_eq!(handled.failures.len(), 1, "{bad:?}");
        // The first event opens the stream.
        assert_eq!(handled.failures[0].event, 11);
        let frames = on_port(&handled, PORT_MOTION);
        let frames: Vec<&Value> = frames.iter().map(|seen| &seen["frame"]).collect();
        assert_eq!((frames.len(), frames[9], frames[10]), (24, &json!(9), &json!(11)));
        assert_eq!(turns(&handled), [(8, "begin".to_owned()), (18, "end".to_owned())]);
        let summary = &on_port(&handled, PORT_SUMMARY)[0];
        assert_eq!((&summary["frames"], &summary["refused"]), (&json!(25), &json!(1)));
    }
}

#[test]
fn zeros_behind_a_picture_do_no_harm() {
    let filled: Vec<Vec<u8>> =
        pictures().iter().map(|picture| [*picture, &[0; 100]].concat()).collect();
    let filled: Vec<&[u8]> = filled.iter().map(Vec::as_slice).collect();
    let plain = run(Harness::stream(motion), &pictures());
    assert_eq!(run(Harness::stream(motion), &filled), plain);
}

fn grey(width: &str, height: &str) -> Harness {
    let harness = Harness::stream(motion).with_config("format", "grey");
    harness.with_config("width", width).with_config("height", height).with_config("shrink", "1")
}

#[test]
fn grey_pictures_are_compared_pixel_by_pixel() {
    let black = [0; 8];
    let handled = run(grey("4", "2"), &[&black, &[0, 0, 0, 25, 0, 24, 0, 255], &[7; 9], &black]);
    let scores: Vec<Value> =
        on_port(&handled, PORT_MOTION).iter().map(|seen| seen["score"].clone()).collect();
    assert_eq!(scores, [0.0, 0.25, 0.25]);
    assert_eq!(handled.failures.len(), 1);
    let why = handled.failures[0].failure.message();
    assert_eq!(why, "a grey picture of 4 × 2 has 8 bytes, this has 9");
}

#[test]
fn settings_are_checked() {
    let picture = pictures()[0];
    for (name, value) in [
        ("format", "gif"),
        ("format", "grey"),
        ("shrink", "0"),
        ("shrink", "65"),
        ("threshold", "255"),
        ("begin", "1.1"),
        ("begin", "NaN"),
        ("begin", "0.004"),
        ("hold", "0"),
        ("hold", "soon"),
    ] {
        let harness = Harness::stream(motion).with_config(name, value);
        let handled = run(harness, &[picture]);
        assert!(!handled.failures.is_empty(), "{name} = {value}");
        let why = handled.failures[0].failure.message();
        let named = why.contains(name) || value == "grey" && why.contains("width");
        assert!(named || value == "0.004", "{name} = {value}: {why}");
    }
    let handled = run(grey("0", "2"), &[&[0; 8]]);
    assert!(!handled.failures.is_empty());
}
