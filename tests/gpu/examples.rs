//! The examples that use a GPU, through the real program, on each device there is.

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};

use super::{devices, with_device};

const DIGITS: &str = include_str!("../../examples/digits/pipeline.toml");
const WEIGHTS: &[u8] = include_bytes!("../../examples/digits/weights.bin");
const PICTURES: &[u8] = include_bytes!("../../examples/digits/pictures.grey");
const LABELS: &str = include_str!("../../examples/digits/labels.txt");
const MOTION: &str = include_str!("../../examples/motion-gpu/pipeline.toml");
const CLIP: &[u8] = include_bytes!("../../examples/motion/clip.mjpeg");

/// Bytes of a picture of a digit.
const PICTURE_BYTES: usize = 144;

/// Field of an event that says the media type of its payload.
const CONTENT_TYPE: u16 = 258;

/// The data of all records of an output, in their order.
async fn said(client: &Client, pipeline: &str, output: &str, count: usize) -> Vec<Value> {
    let records = client.records(pipeline, &format!("outputs/{output}"), count).await;
    records.iter().map(|record| record["data"].clone()).collect()
}

async fn nothing_failed(client: &Client, pipeline: &str) {
    let dead = client.page(pipeline, "dead-letters", "").await.is(200).records();
    assert!(dead.is_empty(), "{dead:?}");
}

#[tokio::test]
async fn digits_are_recognised_as_on_the_processor() {
    for device in devices() {
        // The interpreter is slow.
        let count = if device == "interpreter" { 50 } else { 500 };
        let node = with_device(device).start().await;
        let client = node.client();
        let asset = client.ask(hyper::Method::POST, &client.path("assets"), &[], WEIGHTS).await;
        asset.is(201);
        client.push("digits-classify").await;
        // Each score is held against the processor's by the stage itself.
        let checked = DIGITS.replace("grants =", "config = { check = \"true\" }\ngrants =");
        assert_ne!(checked, DIGITS);
        client.apply("digits", checked).await;
        let pictures: Vec<Given> = PICTURES
            .chunks(PICTURE_BYTES)
            .take(count)
            .map(|picture| Given::new("test", picture))
            .collect();
        for some in pictures.chunks(100) {
            client.frame("digits", &frame(some)).await.is(202);
        }
        let said = said(&client, "digits", "digits", count).await;
        let right = said
            .iter()
            .zip(LABELS.lines())
            .filter(|(said, label)| said["digit"].as_u64() == label.parse().ok());
        let right = right.count();
        assert!(right * 100 >= count * 98, "{device}: {right} of {count}");
        if count == 500 {
            assert_eq!(right, 496, "{device}: as on the processor");
        }
        nothing_failed(&client, "digits").await;
    }
}

#[tokio::test]
async fn motion_is_found_as_on_the_processor() {
    for device in devices() {
        let node = with_device(device).start().await;
        let client = node.client();
        client.push("motion-gpu-blur-diff").await;
        // Each picture is held against what the processor makes of it by the stage itself.
        let checked = MOTION.replace("config = { ", "config = { check = \"true\", ");
        assert_ne!(checked, MOTION);
        client.apply("motion-gpu", checked).await;
        let begins = CLIP.windows(3).enumerate().filter(|(_, three)| *three == [0xFF, 0xD8, 0xFF]);
        let mut begins: Vec<usize> = begins.map(|(at, _)| at).collect();
        let count = if device == "interpreter" { 4 } else { begins.len() };
        begins.push(CLIP.len());
        for pair in begins.windows(2).take(count) {
            let picture = Given::new("door", &CLIP[pair[0]..pair[1]]);
            let picture = picture.field(CONTENT_TYPE, b"image/jpeg");
            client.frame("motion-gpu", &frame(&[picture])).await.is(202);
        }
        let found = said(&client, "motion-gpu", "motion", count).await;
        let numbers: Vec<_> = found.iter().map(|one| one["frame"].as_u64()).collect();
        assert_eq!(numbers, (0..count as u64).map(Some).collect::<Vec<_>>(), "{device}");
        if device != "interpreter" {
            let turns = found.iter().filter_map(|one| one["event"].as_str());
            assert_eq!(turns.collect::<Vec<_>>(), ["begin", "end"], "{device}");
        }
        nothing_failed(&client, "motion-gpu").await;
    }
}
