//! Files, while the node is killed and files are rotated.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use sluicebox_tests::node::{Home, Setup};

use super::{Dice, comes_to, echo, holds, state};

/// Kills in a run.
const KILLS: u64 = 5;

fn source(kind: &str, path: &Path, more: &str) -> String {
    echo(&format!("[sources.in.{kind}]\npath = \"{}\"\n{more}", path.display()))
}

fn allowed(home: &std::sync::Arc<Home>, folder: &Path) -> Setup {
    Setup::dev().home(home).set("connectors.folders", &folder.display().to_string())
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("opened").write_all(text.as_bytes()).expect("written");
}

#[tokio::test]
async fn each_line_of_a_file_counts_once_through_kills_and_rotations() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("app.log");
    let home = Home::new();
    // Checkpoints come often, so that places come from the store as well.
    let setup = || {
        allowed(&home, folder.path())
            .set("log.checkpoint-interval", "300ms")
            .set("log.checkpoint-log-bytes", "1MiB")
    };
    let mut node = setup().start().await;
    node.client().push("hostile/echo").await;
    node.client().apply("echo", source("file", &path, "")).await;
    let mut dice = Dice(7);
    let (mut written, mut number) = (Vec::new(), 0);
    for round in 0..KILLS {
        // A file that comes and goes while nobody looks is not seen; from here on somebody does.
        number += 1;
        let line = format!("{{\"begins\":{round},\"n\":{number}}}");
        append(&path, &format!("{line}\n"));
        written.push(line);
        holds(&node.client(), &written).await;
        for _ in 0..40 {
            let lines: Vec<String> = (0..1 + dice.below(60))
                .map(|_| {
                    number += 1;
                    format!("{{\"n\":{number},\"round\":{round}}}")
                })
                .collect();
            let text = lines.join("\n") + "\n";
            // In two pieces, so that lines are seen before they are whole.
            let middle = dice.below(text.len() as u64) as usize;
            append(&path, &text[..middle]);
            tokio::time::sleep(Duration::from_millis(dice.below(6))).await;
            append(&path, &text[middle..]);
            written.extend(lines);
            if dice.below(12) == 0 {
                let to = folder.path().join(format!("app.log.{number}"));
                fs::rename(&path, to).expect("rotated");
                append(&path, &format!("{{\"first\":{number}}}\n"));
                written.push(format!("{{\"first\":{number}}}"));
                holds(&node.client(), &written).await;
            }
        }
        drop(node.kill());
        node = setup().start().await;
    }
    holds(&node.client(), &written).await;
    let told = state(&node.client(), "source", 0).await;
    assert_eq!((&told["state"], &told["lag"]), (&"running".into(), &0.into()), "{told}");
}

#[tokio::test]
async fn each_file_of_a_folder_counts_once_through_kills() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let home = Home::new();
    let setup = || allowed(&home, folder.path());
    let mut node = setup().start().await;
    node.client().push("hostile/echo").await;
    node.client().apply("echo", source("folder", folder.path(), "form = \"text\"")).await;
    let mut dice = Dice(11);
    let mut written = Vec::new();
    for round in 0..KILLS {
        for file in 0..30 {
            let lines: Vec<String> =
                (0..dice.below(300)).map(|n| format!("{round}-{file}-{n}")).collect();
            let hidden = folder.path().join(format!(".{round}-{file}"));
            fs::write(&hidden, lines.join("\n")).expect("written");
            let name = folder.path().join(format!("{round}-{file}"));
            fs::rename(hidden, name).expect("moved");
            written.extend(lines);
        }
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        drop(node.kill());
        node = setup().start().await;
    }
    holds(&node.client(), &written).await;
    let left = fs::read_dir(folder.path()).expect("it is there").count();
    assert_eq!(left, 1, "only the folder of those that were read");
}

#[tokio::test]
async fn bad_lines_are_left_out_and_counted_and_the_pipeline_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("in");
    let node = allowed(&Home::new(), folder.path()).start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let long = format!("{{\"long\":\"{}\"}}\n", "x".repeat(2000));
    append(&path, "{\"a\":1}\nnot JSON\n\n\u{0}\u{1}\n{\"a\":\n");
    append(&path, &long);
    append(&path, "{\"b\":2}\n");
    client.apply("echo", source("file", &path, "line-bytes = \"1KiB\"")).await;
    holds(&client, &["{\"a\":1}".to_owned(), "{\"b\":2}".to_owned()]).await;
    assert_eq!(state(&client, "source", 0).await["rejected"], 4);
    let figures = client.plain("/metrics").await.is(200);
    let line = "sluicebox_source_rejected_total{tenant=\"dev\",pipeline=\"echo\",source=\"in\"} 4";
    assert!(figures.text().lines().any(|found| found == line), "{}", figures.text());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_and_read_once_it_can() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("in");
    fs::create_dir(&path).expect("made");
    let node = allowed(&Home::new(), folder.path()).start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", source("file", &path, "form = \"text\"")).await;
    comes_to(&client, "source", "failing", "connector.file").await;
    fs::remove_dir(&path).expect("removed");
    append(&path, "one\n");
    holds(&client, &["one".to_owned()]).await;
    comes_to(&client, "source", "running", "").await;
}

#[tokio::test]
async fn a_source_goes_on_over_versions_and_waits_while_a_pipeline_has_no_room() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("in");
    let setup = allowed(&Home::new(), folder.path()).set("limits.inbox-bytes", "64KiB");
    let node = setup.start().await;
    let client = node.client();
    client.push("hostile/slow").await;
    let slow = |more: &str| {
        let text = source("file", &path, "form = \"text\"");
        text.replace("component = \"echo\"", &format!("component = \"slow\"\n{more}"))
    };
    let lines: Vec<String> = (0..600).map(|n| format!("{n} {}", "x".repeat(1000))).collect();
    append(&path, &(lines.join("\n") + "\n"));
    client.apply("echo", slow("")).await;
    for version in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.apply("echo", slow(&format!("config = {{ version = \"{version}\" }}"))).await;
    }
    holds(&client, &lines).await;
}
