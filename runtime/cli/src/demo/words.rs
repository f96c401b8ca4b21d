//! The first part: the words of the licence texts on this machine, counted and checked.
//!
//! Every line is an event; the pipeline cuts it into words, brings equal words together and counts
//! them. The same words are counted here directly, so that the result can be compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicebox_core::ids::Name;

use super::Stage;
use crate::failure::{Cause, Failure};
use crate::render::{align, grouped};
use crate::send::Feed;
use crate::send::batch::{Batch, Form};
use crate::tail::Follower;

/// Where Debian and its relatives keep licence texts.
const LICENCES: &str = "/usr/share/common-licenses";

/// Text that is counted; more would only take longer.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// Words shown.
const TOP: usize = 10;

/// Lines in one request.
const BATCH_LINES: usize = 1000;

/// A longer word is refused by the pipeline, with what follows it on its line.
const WORD_BYTES_MAX: usize = 512;

/// How long the last counts may take after the last line went in.
const FINISH_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a request is made again while the node has no room.
const PATIENCE: Duration = Duration::from_secs(60);

/// Words and how often each came.
type Counts = BTreeMap<String, u64>;

/// Counts the words of real texts and shows the most frequent ones.
pub(super) async fn play(stage: &Stage<'_>, pipeline: &Name) -> Result<Value, Failure> {
    let texts = texts(stage.args.examples.as_path())?;
    let lines: Vec<&[u8]> =
        texts.iter().flat_map(|(_, text)| text.split(|b| *b == b'\n')).collect();
    let expected = count(&lines);
    let total: u64 = expected.values().sum();
    stage.say(&format!(
        "feeding it {} texts, {} lines, from {}",
        texts.len(),
        grouped(lines.len() as u64),
        texts[0].0.parent().unwrap_or_else(|| Path::new(".")).display(),
    ))?;
    let counts: Name = Name::new("counts").expect("counts keeps the rule for names");
    let follower = Follower::output(stage.client.clone(), pipeline, &counts, "oldest");
    let start = Instant::now();
    let feed = Feed::new(stage.client.clone(), pipeline.clone(), PATIENCE);
    let ((), found) = tokio::try_join!(send(feed, &lines), read(follower, total))?;
    let seconds = start.elapsed().as_secs_f64();
    show(stage, &found)?;
    let wrong = differences(&expected, &found);
    if let Some(example) = wrong.first() {
        let what = format!("{} words were counted differently directly: {example}", wrong.len());
        return Err(Failure::new(Cause::Internal, what)
            .fix("this should never happen; please report it with the texts that were counted"));
    }
    // Far below 2^53.
    let rate = (total as f64 / seconds.max(1e-3)) as u64;
    stage.say(&format!(
        "{} words, {} different, in {seconds:.2} s ({} words/s, sent and read over HTTP).\n\
         Checked: a direct count gives the same number for every word.",
        grouped(total),
        grouped(expected.len() as u64),
        grouped(rate),
    ))?;
    Ok(json!({
        "lines": lines.len(),
        "words": total,
        "different-words": expected.len(),
        "seconds": seconds,
        "checked": true,
        "top": top(&found).into_iter().map(|(word, n)| json!({ "word": word, "count": n })).collect::<Vec<_>>(),
    }))
}

/// Sends all lines.
async fn send(mut feed: Feed, lines: &[&[u8]]) -> Result<(), Failure> {
    let mut batch = Batch::new(Form::Raw { key: String::new() }, BATCH_LINES);
    for (number, line) in (1..).zip(lines) {
        batch.push(number, line);
        if batch.is_full() {
            feed.send(batch.take()).await?;
        }
    }
    if !batch.is_empty() {
        feed.send(batch.take()).await?;
    }
    Ok(())
}

/// Reads running counts until they add up to `total`, or none came for long.
async fn read(mut follower: Follower, total: u64) -> Result<Counts, Failure> {
    let mut counts = Counts::new();
    let mut sum = 0;
    let mut heard = Instant::now();
    while sum < total && heard.elapsed() < FINISH_TIME_MAX {
        for record in follower.records(Duration::from_secs(1)).await? {
            let data = record.get("data");
            let word = data.and_then(|data| data.get("word")).and_then(Value::as_str);
            let count = data.and_then(|data| data.get("count")).and_then(Value::as_u64);
            let (Some(word), Some(count)) = (word, count) else { continue };
            let known = counts.entry(word.to_owned()).or_insert(0);
            // Counts only grow; partitions may be read in any order, words never are.
            sum += count.saturating_sub(*known);
            *known = count.max(*known);
            heard = Instant::now();
        }
    }
    Ok(counts)
}

fn show(stage: &Stage<'_>, counts: &Counts) -> Result<(), Failure> {
    let rows =
        top(counts).into_iter().map(|(word, count)| vec![format!("  {word}"), grouped(count)]);
    stage.say(align(rows.collect()).trim_end())
}

/// The most frequent words, ties by the alphabet.
fn top(counts: &Counts) -> Vec<(&str, u64)> {
    let mut all: Vec<(&str, u64)> = counts.iter().map(|(word, n)| (word.as_str(), *n)).collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all.truncate(TOP);
    all
}

/// Words as the pipeline cuts them: runs of letters and digits, in lower case. Lines that are not
/// text are left to the dead letters there, and left out here.
fn count(lines: &[&[u8]]) -> Counts {
    let mut counts = Counts::new();
    for line in lines.iter().filter_map(|line| std::str::from_utf8(line).ok()) {
        for word in line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let word: String = word.chars().flat_map(char::to_lowercase).collect();
            if word.len() > WORD_BYTES_MAX {
                break;
            }
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    counts
}

fn differences(expected: &Counts, found: &Counts) -> Vec<String> {
    let words = expected.keys().chain(found.keys().filter(|word| !expected.contains_key(*word)));
    words
        .filter(|word| expected.get(*word) != found.get(*word))
        .map(|word| {
            let number = |counts: &Counts| counts.get(word).copied().unwrap_or(0);
            format!("{word:?} came {} times, {} were counted", number(expected), number(found))
        })
        .collect()
}

/// The licence texts of this machine, or the project's own.
fn texts(examples: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(LICENCES)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.path().canonicalize().ok())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    // Some names are links to others.
    files.dedup();
    let licence = examples.parent().unwrap_or_else(|| Path::new("")).join("LICENSE");
    if files.is_empty() && licence.is_file() {
        files.push(licence);
    }
    let mut texts = Vec::new();
    let mut left = TEXT_BYTES_MAX;
    for file in files {
        let Ok(text) = std::fs::read(&file) else { continue };
        if !text.is_empty() && text.len() <= left {
            left -= text.len();
            texts.push((file, text));
        }
    }
    if texts.is_empty() {
        let what = format!("there is no text to count: neither {LICENCES} nor a file LICENSE");
        return Err(Failure::new(Cause::Local, what).fix("run this in a clone of the project"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_the_pipeline_does() {
        let long = format!("a {} b", "x".repeat(513));
        let lines: [&[u8]; 4] =
            [b"The quick, THE 2nd!", "Äpfel".as_bytes(), b"\xFFx", long.as_bytes()];
        let counts = count(&lines);
        let expected = [("2nd", 1), ("a", 1), ("quick", 1), ("the", 2), ("äpfel", 1)];
        assert_eq!(counts, expected.map(|(word, n)| (word.to_owned(), n)).into());
    }

    #[test]
    fn every_difference_is_found() {
        let counts = |list: &[(&str, u64)]| -> Counts {
            list.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect()
        };
        let (expected, found) = (counts(&[("a", 1), ("b", 2)]), counts(&[("b", 3), ("c", 1)]));
        assert_eq!(differences(&expected, &found).len(), 3);
        assert_eq!(differences(&expected, &expected), [""; 0]);
    }

    #[test]
    fn the_most_frequent_words_come_first() {
        let counts = Counts::from([("b".to_owned(), 2), ("a".to_owned(), 2), ("c".to_owned(), 5)]);
        assert_eq!(top(&counts), [("c", 5), ("a", 2), ("b", 2)]);
    }
}
