//! Tests of the network on the pictures and weights that lie beside the manifest, and of the stage
//! with a closure for its kernels. The kernels themselves: `gpu-host/tests/examples.rs`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluicebox_guest::Class;
use sluicebox_guest::testing::{Handled, Harness, Input};

use super::*;
use crate::cpu::{DIGITS, HIDDEN};

const ASSET: &[u8] = include_bytes!("../../weights.bin");
const PICTURES: &[u8] = include_bytes!("../../pictures.grey");
const LABELS: &str = include_str!("../../labels.txt");

fn network() -> Network {
    Network::read(ASSET).unwrap()
}

fn held_out() -> Vec<(&'static [u8; PIXELS], u32)> {
    let (pictures, rest) = PICTURES.as_chunks::<PIXELS>();
    let labels: Vec<u32> = LABELS.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((pictures.len(), rest.len(), labels.len()), (500, 0, 500));
    pictures.iter().zip(labels).collect()
}

#[test]
fn of_the_held_out_pictures_as_many_are_recognised_as_the_readme_says() {
    let network = network();
    let shown = held_out();
    let right = shown.iter().filter(|(picture, label)| network.verdict(picture).digit == *label);
    assert_eq!(right.count(), 496);
}

/// Each score in 64 bits, straight from the layout.
fn exact_scores(picture: &[u8; PIXELS]) -> Vec<f64> {
    let floats = ASSET[32..].as_chunks::<4>().0.iter();
    let floats: Vec<f64> = floats.map(|word| f64::from(f32::from_le_bytes(*word))).collect();
    let (hidden, rest) = floats.split_at(PIXELS * 32);
    let (hidden_bias, rest) = rest.split_at(32);
    let (last, last_bias) = rest.split_at(32 * DIGITS);
    let active = |neuron: usize| {
        let of = |at: usize| f64::from(picture[at]) * hidden[at * 32 + neuron];
        (hidden_bias[neuron] + (0..PIXELS).map(of).sum::<f64>()).max(0.0)
    };
    let active: Vec<f64> = (0..32).map(active).collect();
    let score = |digit: usize| {
        let of = |neuron: usize| active[neuron] * last[neuron * DIGITS + digit];
        last_bias[digit] + (0..32).map(of).sum::<f64>()
    };
    (0..DIGITS).map(score).collect()
}

#[test]
fn scores_are_those_of_exact_sums_within_the_tolerance() {
    let network = network();
    for (picture, _) in held_out() {
        let verdict = network.verdict(picture);
        let scores = exact_scores(picture);
        let best = scores.iter().copied().fold(f64::MIN, f64::max);
        let exact = scores[verdict.digit as usize];
        // Two digits may score alike, but no further apart than what is lost in sums.
        let most = f64::from(SCORE_ERROR_MAX);
        assert!(best - exact <= most, "{scores:?}");
        assert!((f64::from(verdict.score) - exact).abs() <= most, "{verdict:?} {exact}");
    }
}

#[test]
fn an_asset_that_is_another_is_refused() {
    let with = |at: usize, byte: u8| {
        let mut asset = ASSET.to_vec();
        asset[at] = byte;
        asset
    };
    assert!(Network::read(&with(40, 1)).is_some());
    // Magic, version, oldest reader, neurons.
    for at in [0, 4, 8, 16] {
        assert!(Network::read(&with(at, 99)).is_none(), "{at}");
    }
    let longer = [ASSET, &[0; 4]].concat();
    for other in [&ASSET[..ASSET_BYTES - 4], &ASSET[..ASSET_BYTES - 1], &longer, b"sbdg", b""] {
        assert!(Network::read(other).is_none(), "{}", other.len());
    }
}

#[test]
fn the_script_makes_what_lies_beside_it() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train.py");
    // `-B`: nothing is to be left in the folder.
    let ran = Command::new("python3").arg("-B").arg(script).arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said.trim(), "recognised 496 of 500");
}

/// Does what the kernels do.
fn kernel(entry: &str, buffers: &mut [Vec<u8>], groups: [u32; 3]) {
    let [asset, from, to] = buffers else { panic!("three are bound") };
    assert_eq!(asset, ASSET);
    let network = network();
    if entry == "hidden" {
        assert!(from.len() <= groups[1] as usize * 8 * PIXELS, "{groups:?} for {}", from.len());
        let pictures = from.as_chunks::<PIXELS>().0.iter();
        for (place, picture) in to.chunks_exact_mut(HIDDEN * 4).zip(pictures) {
            let active = network.active(picture).into_iter().flat_map(f32::to_le_bytes);
            place.copy_from_slice(&active.collect::<Vec<u8>>());
        }
        return;
    }
    assert_eq!(entry, "verdict");
    assert!(to.len() <= groups[0] as usize * 64 * 8, "{groups:?} for {}", to.len());
    for (place, active) in to.chunks_exact_mut(8).zip(from.chunks_exact(HIDDEN * 4)) {
        let active = active.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));
        let Verdict { digit, score } = network.best(&active.collect::<Vec<f32>>());
        place[..4].copy_from_slice(&digit.to_le_bytes());
        place[4..].copy_from_slice(&score.to_le_bytes());
    }
}

fn harness() -> Harness {
    Harness::new(classify).with_asset(WEIGHTS, ASSET).with_gpu(kernel)
}

/// Sends pictures in one call.
fn send(harness: &mut Harness, pictures: &[&[u8]]) -> Handled {
    harness.handle(pictures.iter().map(|picture| Input::data("test", picture)))
}

fn digits(handled: &Handled) -> Vec<u64> {
    handled.outputs.iter().map(|said| said.json::<Value>()["digit"].as_u64().unwrap()).collect()
}

#[test]
fn all_events_of_a_call_are_one_batch_of_any_size() {
    let mut harness = harness();
    let all = held_out();
    for count in [1, 8, 9, 200, 3] {
        let shown: Vec<&[u8]> = all[..count].iter().map(|(picture, _)| &picture[..]).collect();
        let handled = send(&mut harness, &shown);
        assert_eq!(handled.failures, []);
        let network = network();
        let expected = all[..count].iter().map(|(picture, _)| network.verdict(picture).digit);
        assert_eq!(digits(&handled), expected.map(u64::from).collect::<Vec<_>>());
    }
    let score = send(&mut harness, &[all[0].0]).outputs[0].json::<Value>()["score"].as_f64();
    assert!((score.unwrap() - f64::from(network().verdict(all[0].0).score)).abs() < 1e-6);
}

#[test]
fn what_is_no_picture_fails_alone() {
    let mut harness = harness();
    let picture = held_out()[7].0;
    let handled = send(&mut harness, &[picture, b"no picture", picture, &[]]);
    assert_eq!(digits(&handled), [7, 7]);
    let failed: Vec<u32> = handled.failures.iter().map(|failed| failed.event).collect();
    assert_eq!(failed, [1, 3]);
    let why = handled.failures[0].failure.message();
    assert_eq!(why, "a picture has 144 bytes, 12 × 12, this has 10");
}

#[test]
fn a_device_that_is_lost_costs_nothing_but_time() {
    let mut harness = harness();
    let picture = held_out()[3].0;
    for _ in 0..3 {
        assert_eq!(digits(&send(&mut harness, &[picture])), [3]);
        let made = harness.gpu_handles();
        assert_eq!(digits(&send(&mut harness, &[picture])), [3]);
        assert_eq!(harness.gpu_handles(), made, "nothing is made twice");
        harness.lose_gpu();
    }
}

#[test]
fn a_device_that_errs_is_found_out() {
    let wrong = |entry: &str, buffers: &mut [Vec<u8>], groups| {
        kernel(entry, buffers, groups);
        if entry == "verdict" {
            buffers[2][0] ^= 1;
        }
    };
    let harness = Harness::new(classify).with_asset(WEIGHTS, ASSET).with_gpu(wrong);
    let handled = send(&mut harness.with_config("check", "true"), &[held_out()[0].0]);
    assert!(handled.failures[0].failure.message().starts_with("the device says"));
    assert_eq!(handled.outputs, []);
}

#[test]
fn with_a_check_the_right_verdicts_pass() {
    let mut harness = harness().with_config("check", "true");
    assert_eq!(digits(&send(&mut harness, &[held_out()[5].0])), [5]);
}

#[test]
fn without_the_right_weights_or_a_device_every_picture_fails() {
    let picture = held_out()[0].0;
    for asset in [&ASSET[..4], &[0; ASSET_BYTES]] {
        let harness = Harness::new(classify).with_asset(WEIGHTS, asset).with_gpu(kernel);
        let handled = send(&mut { harness }, &[picture]);
        assert!(handled.failures[0].failure.message().contains("the asset weights"));
    }
    let mut harness = Harness::new(classify).with_asset(WEIGHTS, ASSET);
    let handled = send(&mut harness, &[picture]);
    assert!(handled.failures[0].failure.message().starts_with("gpu.none"));
    assert_eq!(handled.failures[0].failure.class(), Class::Retry);
}
