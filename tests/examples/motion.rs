//! The example `motion` on clips of real video, through the real program.
//!
//! - What is expected is computed here from the same pictures in the plainest way: each score has
//!   to be equal to the last digit. The pictures are decoded by the same library, whose result is
//!   held against ffmpeg's.
//! - When there is motion is known from how the clips were drawn.
//! - Clips are sent at once under keys of their own: as packed frames, in one go, with bad pictures
//!   between, and with the node killed in the middle; and as streams by the command, which has to
//!   write each result once whatever happens to the node.
//!
//! Leaves to others: the stage by itself (its own tests), streams that outlive a node (`durable`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use sluicebox_tests::client::{Client, Reply};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::node::{self, Home, Node, Setup};
use sluicebox_tests::root;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const MOTION: &str = include_str!("../../examples/motion/pipeline.toml");
const CLIPS: [&str; 4] = ["once", "twice", "still", "last"];
const COMPONENT: &str = "motion-detect";

/// Field of an event that says the media type of its payload.
const CONTENT_TYPE: u16 = 258;

/// What the manifest of the example says.
const SHRINK: usize = 2;
const THRESHOLD: i32 = 24;
const HOLD: u64 = 3;

/// A clip as `cargo xtask clips` made it.
struct Clip {
    name: &'static str,
    width: usize,
    height: usize,
    frames: usize,
    /// From which picture to which it moves.
    moves: Vec<(u64, u64)>,
    jpegs: Vec<Vec<u8>>,
}

impl Clip {
    fn new(name: &'static str) -> Self {
        let truth: Value = serde_json::from_slice(&file(name, "json")).expect("xtask wrote JSON");
        let at = |value: &Value| value.as_u64().expect("a number");
        let number = |name: &str| at(&truth[name]) as usize;
        let moves = truth["moves"].as_array().expect("a list").iter();
        let moves = moves.map(|span| (at(&span[0]), at(&span[1])));
        let jpegs = pictures(&file(name, "mjpeg"));
        let clip = Self {
            name,
            width: number("width"),
            height: number("height"),
            frames: number("frames"),
            moves: moves.collect(),
            jpegs,
        };
        assert_eq!(clip.jpegs.len(), clip.frames, "{name}");
        clip
    }

    /// Its pictures as grey pixels, as ffmpeg decoded them: from the video or from the JPEGs.
    fn grey(&self, from: &str) -> Vec<Vec<u8>> {
        let bytes = file(self.name, from);
        let pictures: Vec<Vec<u8>> =
            bytes.chunks(self.width * self.height).map(<[u8]>::to_vec).collect();
        assert_eq!(pictures.len(), self.frames, "{}", self.name);
        pictures
    }

    /// The score of each of these pictures.
    fn scores(&self, pictures: &[Vec<u8>]) -> Vec<f64> {
        let small: Vec<Vec<i32>> =
            pictures.iter().map(|pixels| shrunk(pixels, self.width, self.height)).collect();
        let score = |before: &[i32], after: &[i32]| {
            let pairs = before.iter().zip(after);
            let differ = pairs.filter(|(one, other)| (*one - *other).abs() > THRESHOLD).count();
            differ as f64 / after.len() as f64
        };
        let pairs = small.windows(2).map(|pair| score(&pair[0], &pair[1]));
        [0.0].into_iter().chain(pairs).collect()
    }

    /// What the clip is to come to: each picture's number and score, and where motion turns.
    fn expected(&self, scores: &[f64]) -> Vec<Value> {
        let mut all: Vec<Value> = (0..)
            .zip(scores)
            .map(|(frame, score): (u64, &f64)| json!({"frame": frame, "score": score}))
            .collect();
        for (first, last) in &self.moves {
            all[*first as usize]["event"] = json!("begin");
            if let Some(end) = all.get_mut((last + HOLD) as usize) {
                end["event"] = json!("end");
            }
        }
        all
    }
}

fn path(name: &str, ending: &str) -> PathBuf {
    root().join(format!("target/clips/{name}.{ending}"))
}

fn file(name: &str, ending: &str) -> Vec<u8> {
    let path = path(name, ending);
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; make it with `cargo xtask clips`", path.display()))
}

/// Cuts JPEGs apart that lie one behind the other. In what ffmpeg writes nothing else begins so.
fn pictures(bytes: &[u8]) -> Vec<Vec<u8>> {
    let begins = bytes.windows(3).enumerate().filter(|(_, three)| *three == [0xFF, 0xD8, 0xFF]);
    let mut begins: Vec<usize> = begins.map(|(at, _)| at).collect();
    begins.push(bytes.len());
    begins.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

fn decoded(jpeg: &[u8]) -> Vec<u8> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::Luma);
    let decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options).decode();
    decoder.expect("ffmpeg wrote a JPEG")
}

/// Averages of squares, one after another.
fn shrunk(pixels: &[u8], width: usize, height: usize) -> Vec<i32> {
    let mut small = Vec::new();
    for row in 0..height / SHRINK {
        for column in 0..width / SHRINK {
            let mut sum = 0;
            for y in 0..SHRINK {
                for x in 0..SHRINK {
                    sum += i32::from(pixels[(row * SHRINK + y) * width + column * SHRINK + x]);
                }
            }
            small.push(sum / (SHRINK * SHRINK) as i32);
        }
    }
    small
}

fn picture(clip: &Clip, jpeg: &[u8]) -> Given {
    Given::new(clip.name, jpeg).field(CONTENT_TYPE, b"image/jpeg")
}

/// The pictures of a range of all clips, in turns.
fn interleaved(clips: &[Clip], range: std::ops::Range<usize>) -> Vec<Given> {
    let at = |at: usize| {
        let shown = clips.iter().filter_map(move |clip| Some((clip, clip.jpegs.get(at)?)));
        shown.map(|(clip, jpeg)| picture(clip, jpeg))
    };
    range.flat_map(at).collect()
}

/// Makes a request again until there is room for it.
async fn patiently<F: Future<Output = Reply>>(mut ask: impl FnMut() -> F) {
    let taken = || {
        let asked = ask();
        async { Some(asked.await).filter(|reply| reply.status != 429) }
    };
    eventually("there is room", SOON, taken).await.is(202);
}

/// Sends events as packed frames, some at once.
async fn send(client: &Client, events: &[Given]) {
    for some in events.chunks(60) {
        let frame = frame(some);
        patiently(|| client.frame("motion", &frame)).await;
    }
}

async fn end(client: &Client, key: &str) {
    let headers = [("sluicebox-key", key), ("sluicebox-end", "true")];
    patiently(|| client.send("motion", "", &headers, "")).await;
}

async fn begin(client: &Client, manifest: &str) {
    client.push(COMPONENT).await;
    client.apply("motion", manifest.to_owned()).await;
}

/// Everything an output has, by key, in its order.
async fn said(client: &Client, output: &str) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut cursor = "oldest".to_owned();
    loop {
        let source = format!("outputs/{output}");
        let page = client.page("motion", &source, &format!("cursor={cursor}")).await.is(200);
        let records = page.records();
        if records.is_empty() {
            return all;
        }
        for record in records {
            let key = record["key"].as_str().expect("a key").to_owned();
            all.entry(key).or_default().push(record["data"].clone());
        }
        cursor = page.cursor();
    }
}

/// What is to come of the clips, each picture decoded here.
fn expected(clips: &[Clip]) -> BTreeMap<String, Vec<Value>> {
    let of = |clip: &Clip| {
        let pixels: Vec<Vec<u8>> = clip.jpegs.iter().map(|jpeg| decoded(jpeg)).collect();
        (clip.name.to_owned(), clip.expected(&clip.scores(&pixels)))
    };
    clips.iter().map(of).collect()
}

async fn check_summaries(client: &Client, clips: &[Clip]) {
    eventually_equal(clips.len(), SOON, || async { said(client, "summary").await.len() }).await;
    for (key, summaries) in said(client, "summary").await {
        let clip = clips.iter().find(|clip| clip.name == key).expect("one of ours");
        let [summary] = &summaries[..] else { panic!("{key}: {summaries:?}") };
        let last = clip.moves.last().map_or(0, |(_, last)| *last);
        let open = last > 0 && last + HOLD >= clip.frames as u64;
        let found = ["frames", "refused", "motions", "open"].map(|name| summary[name].clone());
        let motions = clip.moves.len();
        assert_eq!(found, [json!(clip.frames), json!(0), json!(motions), json!(open)], "{key}");
    }
}

#[tokio::test]
async fn motion_of_several_clips_at_once_is_scored_to_the_last_digit() {
    let node = Setup::dev().start().await;
    let client = node.client();
    begin(&client, MOTION).await;
    let clips = CLIPS.map(Clip::new);
    send(&client, &interleaved(&clips, 0..200)).await;
    for clip in &clips {
        end(&client, clip.name).await;
    }
    eventually_equal(expected(&clips), SOON, || said(&client, "motion")).await;
    check_summaries(&client, &clips).await;
    let dead = client.page("motion", "dead-letters", "").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
}

#[tokio::test]
async fn motion_is_where_it_was_after_a_kill_in_the_middle_of_the_clips() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    begin(&node.client(), MOTION).await;
    let clips = CLIPS.map(Clip::new);
    // In the midst of the first and second motion, and where some clips are over.
    for range in [0..17, 17..38, 38..77, 77..200] {
        send(&node.client(), &interleaved(&clips, range)).await;
        drop(node.kill());
        node = Setup::dev().home(&home).start().await;
    }
    let client = node.client();
    for clip in &clips {
        end(&client, clip.name).await;
    }
    eventually_equal(expected(&clips), SOON, || said(&client, "motion")).await;
    check_summaries(&client, &clips).await;
}

#[tokio::test]
async fn motion_in_grey_pixels_is_the_same_as_in_the_decoded_ones() {
    let node = Setup::dev().start().await;
    let client = node.client();
    let clip = Clip::new("once");
    let format = format!("format = \"grey\", width = \"{}\", height = \"{}\"", 320, 240);
    assert_eq!((clip.width, clip.height), (320, 240));
    begin(&client, &MOTION.replace("format = \"jpeg\"", &format)).await;
    let pixels = clip.grey("grey");
    let events: Vec<Given> =
        pixels.iter().map(|pixels| Given::new(clip.name, pixels.clone())).collect();
    send(&client, &events).await;
    end(&client, clip.name).await;
    let expected = [(clip.name.to_owned(), clip.expected(&clip.scores(&pixels)))];
    let expected: BTreeMap<_, _> = expected.into_iter().collect();
    eventually_equal(expected, SOON, || said(&client, "motion")).await;
}

#[tokio::test]
async fn motion_goes_on_behind_pictures_that_are_none() {
    let node = Setup::dev().start().await;
    let client = node.client();
    begin(&client, MOTION).await;
    let (clip, other) = (Clip::new("once"), Clip::new("still"));
    let cut = &clip.jpegs[40][..clip.jpegs[40].len() / 2];
    let bad: [(&[u8], &str); 4] = [
        (b"no picture", "this is not a JPEG"),
        (cut, "the JPEG has no end"),
        (&other.jpegs[0], "the picture is 160 × 120, and those before it 320 × 240"),
        (&[0xFF, 0xD8, 0xFF, 0xD9], "the JPEG cannot be decoded"),
    ];
    let mut events: Vec<Given> = clip.jpegs.iter().map(|jpeg| picture(&clip, jpeg)).collect();
    for (at, (bytes, _)) in bad.iter().enumerate() {
        events.insert(30 + at, picture(&clip, bytes));
    }
    send(&client, &events).await;
    end(&client, clip.name).await;
    let dead = client.records("motion", "dead-letters", bad.len()).await;
    for (letter, (_, why)) in dead.iter().zip(&bad) {
        let message = letter["message"].as_str().expect("a reason");
        assert!(message.starts_with(why), "{message}: {why}");
    }
    assert_eq!(dead.len(), bad.len());
    let mut expected = expected(std::slice::from_ref(&clip)).remove("once").expect("the clip");
    for seen in expected.iter_mut().skip(30) {
        let frame = seen["frame"].as_u64().expect("a number");
        seen["frame"] = json!(frame + bad.len() as u64);
    }
    eventually_equal(Some(expected), SOON, || async {
        said(&client, "motion").await.remove("once")
    })
    .await;
}

/// Sends a clip as a stream by the command, and reads its results there.
fn stream(node: &Node, clip: &Clip, arguments: &[&str]) -> Child {
    let file = path(clip.name, "mjpeg");
    let file = file.to_str().expect("a plain path");
    let all = ["stream", "motion", clip.name, file, "--results", "motion", "--raw"];
    let mut command = node::command(&[&all[..], arguments].concat());
    command.env("SLUICEBOX_URL", node.url()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program can be started")
}

/// What a command wrote that did all it was to do.
fn written(child: Child) -> Vec<Value> {
    let output = child.wait_with_output().expect("its output can be read");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn motion_comes_back_while_the_clips_go_in() {
    let node = Setup::dev().start().await;
    begin(&node.client(), MOTION).await;
    let clips = CLIPS.map(Clip::new);
    let children: Vec<Child> = clips.iter().map(|clip| stream(&node, clip, &[])).collect();
    let expected = expected(&clips);
    for (clip, child) in clips.iter().zip(children) {
        assert_eq!(written(child), expected[clip.name], "{}", clip.name);
    }
    check_summaries(&node.client(), &clips).await;
    // The same once more, as the same streams: all of it was taken.
    let again: Vec<Child> =
        clips.iter().map(|clip| stream(&node, clip, &["--from", "0"])).collect();
    for child in again {
        assert_eq!(written(child), [Value::Null; 0]);
    }
    check_summaries(&node.client(), &clips).await;
}

#[tokio::test]
async fn motion_comes_back_once_though_the_node_is_killed_under_the_clips() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    begin(&node.client(), MOTION).await;
    let clips = CLIPS.map(Clip::new);
    let pace = ["--every", "20ms", "--patience", "60s"];
    let children: Vec<Child> = clips.iter().map(|clip| stream(&node, clip, &pace)).collect();
    for results in [40, 120, 200] {
        let client = node.client();
        eventually("the clips go on", SOON, || async {
            let said = said(&client, "motion").await;
            (said.values().map(Vec::len).sum::<usize>() >= results).then_some(())
        })
        .await;
        let address = node.address();
        drop(node.kill());
        node = Setup::dev().home(&home).at(address).start().await;
    }
    let expected = expected(&clips);
    for (clip, child) in clips.iter().zip(children) {
        assert_eq!(written(child), expected[clip.name], "{}", clip.name);
    }
    // And there is no more of it than was written.
    assert_eq!(said(&node.client(), "motion").await, expected);
    check_summaries(&node.client(), &clips).await;
}

#[test]
fn motion_is_decoded_as_ffmpeg_decodes_it() {
    for name in CLIPS {
        let clip = Clip::new(name);
        let ours: Vec<Vec<u8>> = clip.jpegs.iter().map(|jpeg| decoded(jpeg)).collect();
        let theirs = clip.grey("decoded");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // Two ways to round the same transform.
            let far = ours.iter().zip(theirs).map(|(one, other)| one.abs_diff(*other)).max();
            assert!(far.is_some_and(|far| far <= 2), "{name}: {far:?}");
        }
        let scores = clip.scores(&ours).into_iter().zip(clip.scores(&theirs));
        for (ours, theirs) in scores {
            assert!((ours - theirs).abs() < 0.002, "{name}: {ours} {theirs}");
        }
    }
}
