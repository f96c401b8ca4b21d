//! How many bytes of log an event costs on the path of the word count.

use std::collections::BTreeMap;

use super::*;

/// Events of a batch.
const BATCH: usize = 1000;
/// Partitions of each segment.
const PARTITIONS: u16 = 4;
/// Different words.
const WORDS: usize = 10_000;
/// What the log adds to a record, at most: head, checksum, alignment, and its share of a group.
const LOG_HEAD: usize = 12 + 7 + 32;

/// The words of a text, by Zipf's law: word n comes about 1 / n as often as the first.
fn words(count: usize) -> Vec<String> {
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    // The logarithm of a number below 2^n is spread evenly: so is that of a rank under this law.
    let rank = |random: u64| {
        let steps = u64::from(WORDS.ilog2());
        ((1_u64 << (random % (steps + 1))) + (random >> 32) % (1 << (random % (steps + 1))))
            as usize
    };
    let word = |rank: usize| {
        let mut word = String::new();
        let mut left = rank * 7 + 11;
        while left > 0 {
            word.push(char::from(b'a' + (left % 26) as u8));
            left /= 26;
        }
        word
    };
    (0..count).map(|_| word(rank(roll()))).collect()
}

fn frame_of(events: &[(&str, &[u8])]) -> Frame {
    let mut builder = FrameBuilder::new();
    for (key, payload) in events {
        builder.push(&Head::data(1_700_000_000_000_000), key.as_bytes(), payload, &[]);
    }
    builder.finish()
}

/// By partition, in order.
fn spread(words: &[String]) -> Vec<Vec<&str>> {
    use sluicebox_core::key::{group_of, partition_of};
    let mut spread = vec![Vec::new(); PARTITIONS.into()];
    for word in words {
        let partition = partition_of(group_of(word.as_bytes()), PARTITIONS);
        spread[usize::from(partition)].push(word.as_str());
    }
    spread
}

fn size(record: (u8, Bytes)) -> usize {
    record.1.len() + LOG_HEAD
}

/// A commit that took `events` from a source, changed counters, and sent these runs.
fn committed(source: Source, events: usize, changed: &[&str], sent: &Sent<Frame>) -> usize {
    let head = CommitHead { number: 1 << 20, ..HEAD };
    let (from, to) = (Place { seq: 1 << 20, index: 0 }, Place::after(1 << 20));
    let piece = Piece { source, from, to, events: events as u32 };
    let batch = Batch { pieces: vec![piece], ends: None };
    size(written(|writer| {
        let mut state = writer.commit(&head, &batch);
        for key in changed {
            let value = Some(&[9; 8][..]);
            state.change(StageId(4), &Change { key: key.as_bytes(), slot: b"count", value });
        }
        let usage = Usage { fuel: 1 << 30, events: events as u64, reruns: 0 };
        state.finish(sent, &usage);
    }))
}

fn ingested(frames: Vec<Frame>) -> usize {
    let run = |(partition, frame)| IngestRun {
        stage: StageId(1),
        partition: partition as u16,
        previous: (1 << 20) - 1,
        frame,
    };
    let runs = frames.into_iter().enumerate().map(run).collect();
    let producer = Some(Producer { id: "loader-17", sequence: 1 << 20 });
    let (seq, ids) = (1 << 20, Vec::new());
    let pipeline = PipelineId(1);
    let record = IngestRecord {
        pipeline,
        seq,
        time: HEAD.time,
        producer,
        ids,
        runs,
        replayed: Vec::new(),
        high: None,
    };
    size(written(|writer| writer.ingest(&record)))
}

/// What splits: takes `events`, sends each word under its key, with nothing else.
fn split(events: usize, words: &[String], payload: bool) -> usize {
    let runs = spread(words).into_iter().enumerate().map(|(partition, words)| {
        let mut events: Vec<(&str, &[u8])> = Vec::new();
        for word in words {
            events.push((word, if payload { word.as_bytes() } else { &[] }));
        }
        EdgeRun {
            edge: EdgeId(5),
            seq: 1 << 20,
            partition: partition as u16,
            previous: (1 << 20) - 1,
            frame: frame_of(&events),
        }
    });
    let sent = Sent { runs: runs.collect(), outputs: Vec::new(), dead_letters: None };
    committed(Source::Ingest, events, &[], &sent)
}

/// What counts: changes one counter a word, and answers as the example does if `answers`.
fn count(words: &[&str], answers: bool) -> usize {
    let mut counters: BTreeMap<&str, usize> = BTreeMap::new();
    let mut texts = Vec::new();
    for word in words {
        let number = counters.entry(word).or_insert(12_000);
        *number += 1;
        texts.push((*word, format!("{{\"word\":\"{word}\",\"count\":{number}}}")));
    }
    let events: Vec<(&str, &[u8])> = texts.iter().map(|(k, t)| (*k, t.as_bytes())).collect();
    let output = OutputRun { output: OutputId(0), first: 1 << 20, frame: frame_of(&events) };
    let outputs = if answers { vec![output] } else { Vec::new() };
    let sent = Sent { runs: Vec::new(), outputs, dead_letters: None };
    let source = Source::Edge { edge: EdgeId(5), partition: 2 };
    let changed: Vec<&str> = counters.into_keys().collect();
    committed(source, words.len(), &changed, &sent)
}

/// Bytes of log for each word, if they come `line` to an event.
fn bytes_a_word(line: usize, answers: bool) -> f64 {
    let words = words(BATCH * usize::from(PARTITIONS));
    let lines: Vec<String> = words.chunks(line).map(|words| words.join(" ")).collect();
    let mut total = 0;
    for batch in words.chunks(BATCH) {
        total += split(BATCH / line, batch, answers);
    }
    if line == 1 {
        // One word is one event, with the word as its key.
        let frames = spread(&words).into_iter();
        let frames =
            frames.map(|words| frame_of(&words.iter().map(|w| (*w, &[][..])).collect::<Vec<_>>()));
        total += ingested(frames.collect());
    } else {
        for lines in lines.chunks(BATCH / line) {
            let events: Vec<(&str, &[u8])> =
                lines.iter().map(|text| ("0000000017", text.as_bytes())).collect();
            total += ingested(vec![frame_of(&events)]);
        }
    }
    // What goes to one partition is gathered to batches over the runs.
    for words in spread(&words) {
        for batch in words.chunks(BATCH) {
            total += count(batch, answers);
        }
    }
    total as f64 / words.len() as f64
}

#[test]
fn an_event_of_the_word_count_costs_at_most_110_bytes() {
    let words = bytes_a_word(1, false);
    println!("a word an event, counters only: {words:.1} bytes of log a word");
    let lines = bytes_a_word(10, false);
    println!("ten words an event, counters only: {lines:.1} bytes of log a word");
    let example = bytes_a_word(10, true);
    println!("the example, ten words an event, a JSON line each: {example:.1} bytes a word");
    let all = [words, lines, example];
    assert!(all.iter().all(|bytes| *bytes <= 110.0), "{all:?}");
}
