//! Files that are not as the node left them: it says which, and does not start; what a kill may
//! have cut short it leaves out.
//!
//! Leaves to others: every place where a bit may flip (the tests of `store`); here it is what a
//! person sees of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Home, Refused, Setup, refused};

use super::{Count, all_counts, with_words};

/// Small files, so that there are some, and no checkpoint, so that they stay.
fn setup(home: &Arc<Home>) -> Setup {
    Setup::dev().home(home).set("log.segment-bytes", "1MiB").set("log.checkpoint-interval", "24h")
}

/// A directory with at least three segments, of a node that was killed or ended, and what came out.
async fn with_segments(is_killed: bool) -> (Arc<Home>, Vec<PathBuf>, Vec<Count>) {
    let home = Home::new();
    let node = setup(&home).start().await;
    let client = node.client();
    with_words(&client).await;
    let mut sent = 0;
    while segments(&home).len() < 3 {
        client.send("words", "?key=k", &[], "word ".repeat(1_000)).await.is(202);
        sent += 1_000;
    }
    let counts = eventually("all are counted", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() == sent).then_some(counts)
    })
    .await;
    if is_killed {
        drop(node.kill());
    } else {
        node.terminate();
        drop(node.ended().await);
    }
    (home.clone(), segments(&home), counts)
}

fn segments(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.data().join("log")).expect("there is a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut logs: Vec<PathBuf> =
        paths.filter(|path| path.extension() == Some("log".as_ref())).collect();
    logs.sort();
    logs
}

/// Changes a file, sees that no node starts, and puts it back. Nothing else may have changed.
fn refused_with(home: &Arc<Home>, file: &Path, change: impl FnOnce(&Path, Vec<u8>)) -> Refused {
    let before = fs::read(file).expect("it can be read");
    change(file, before.clone());
    let refused = refused(setup(home).command());
    fs::write(file, before).expect("it is ours");
    let name = file.file_name().expect("a name").to_str().expect("UTF-8");
    let name = name.strip_suffix("_doc").unwrap_or(name);
    assert!(refused.message.contains(name), "{name} is not named: {refused:?}");
    refused
}

fn flip(file: &Path, mut bytes: Vec<u8>, at: usize) {
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("it is ours");
}

#[tokio::test]
async fn a_damaged_log_is_named_and_nothing_starts() {
    let (home, files, counts) = with_segments(false).await;
    for file in &files[..2] {
        let bit = refused_with(&home, file, |file, bytes| {
            let middle = bytes.len() / 2;
            flip(file, bytes, middle);
        });
        assert_eq!(bit.code, "log.corrupt", "{bit:?}");
        assert!(bit.message.contains("at byte") && bit.message.contains("position"), "{bit:?}");
    }
    let header = refused_with(&home, &files[1], |file, bytes| flip(file, bytes, 40));
    assert_eq!(header.code, "log.corrupt", "{header:?}");
    let cut = refused_with(&home, &files[1], |file, bytes| {
        fs::write(file, &bytes[..bytes.len() / 2]).expect("it is ours");
    });
    assert_eq!(cut.code, "log.corrupt", "{cut:?}");
    let newer = refused_with(&home, &files[2], |file, mut bytes| {
        bytes[8] = 2;
        bytes[10] = 2;
        fs::write(file, bytes).expect("it is ours");
    });
    assert_eq!(newer.code, "log.format-newer", "{newer:?}");
    // With nothing of it changed, all is there.
    let node = setup(&home).start().await;
    assert_eq!(all_counts(&node.client()).await, counts);
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let (home, files, counts) = with_segments(false).await;
    let aside = home.data().join("aside");
    for (at, code) in [(0, "log.trimmed"), (1, "log.corrupt")] {
        fs::rename(&files[at], &aside).expect("it is there");
        let refused = refused(setup(&home).command());
        assert_eq!(refused.code, code, "{refused:?}");
        fs::rename(&aside, &files[at]).expect("it is there");
    }
    let node = setup(&home).start().await;
    assert_eq!(all_counts(&node.client()).await, counts);
}

#[tokio::test]
async fn an_end_that_a_kill_cut_short_is_left_out() {
    let (home, files, counts) = with_segments(true).await;
    let last = files.last().expect("segments");
    let bytes = fs::read(last).expect("it can be read");
    // The last byte that is not zero is one of the last group.
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("groups");
    flip(last, bytes, end);
    let node = setup(&home).start().await;
    let client = node.client();
    let found = eventually("what was left out is made again", SOON, || async {
        let found = all_counts(&client).await;
        (found.len() >= counts.len() - 1_000).then_some(found)
    })
    .await;
    assert!(counts.starts_with(&found) || found.starts_with(&counts), "a prefix, and no more");
    client.send("words", "?key=k", &[], "on").await.is(202);
}

#[tokio::test]
async fn documents_that_are_damaged_or_of_a_newer_format_are_named() {
    let home = Home::new();
    let often = || Setup::dev().home(&home).set("log.checkpoint-interval", "250ms");
    let node = often().start().await;
    let client = node.client();
    with_words(&client).await;
    client.send("words", "?key=k", &[], "word").await.is(202);
    let extent = home.data().join("store/documents/extent_doc");
    eventually("a checkpoint stands", SOON, || {
        std::future::ready(fs::read(&extent).is_ok_and(|bytes| bytes.len() > 56).then_some(()))
    })
    .await;
    node.terminate();
    drop(node.ended().await);
    let newer = |file: &Path, mut bytes: Vec<u8>| {
        bytes[8] = 2;
        bytes[10] = 2;
        fs::write(file, bytes).expect("it is ours");
    };
    let flipped = |file: &Path, bytes: Vec<u8>| {
        let last = bytes.len() - 1;
        flip(file, bytes, last);
    };
    let refused_newer = refused_with(&home, &extent, newer);
    assert_eq!(refused_newer.code, "store.format-newer", "{refused_newer:?}");
    let damaged = refused_with(&home, &extent, flipped);
    assert_eq!(damaged.code, "store.corrupt", "{damaged:?}");
    // A document of one pipeline is its own affair.
    goes_on_with(&home, newer, "has format 2").await;
    goes_on_with(&home, flipped, "is damaged").await;
    // Without it the store counts as empty; this log still reaches back to its beginning.
    fs::remove_file(&extent).expect("it is there");
    let node = often().start().await;
    assert_eq!(all_counts(&node.client()).await.len(), 3);
}

/// Changes the document of the version of the pipeline. The node names it and starts, and as the
/// log has the version too, with exactly-once the pipeline goes on from there.
async fn goes_on_with(home: &Arc<Home>, change: impl FnOnce(&Path, Vec<u8>), what: &str) {
    let file = version_of_words(home);
    let before = fs::read(&file).expect("it can be read");
    change(&file, before.clone());
    let node = Setup::dev().home(home).start().await;
    let named = |line: &str| line.contains("pipelines/words/") && line.contains(what);
    assert!(node.log().lines().any(named), "{what}: {}", node.log());
    let client = node.client();
    let count = all_counts(&client).await.len();
    client.send("words", "?key=k", &[], "on").await.is(202);
    eventually("it runs", SOON, || async {
        (all_counts(&client).await.len() > count).then_some(())
    })
    .await;
    node.terminate();
    drop(node.ended().await);
    fs::write(&file, before).expect("it is ours");
}

/// The document of the version of the pipeline.
fn version_of_words(home: &Home) -> PathBuf {
    versions(home).pop().expect("the one that was applied")
}

/// The documents of the versions of all pipelines, in order.
pub(super) fn versions(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.data().join("catalog/documents")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.retain(|path| path.to_string_lossy().contains("pipelines"));
    found.sort();
    found
}
