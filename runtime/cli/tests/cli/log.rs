//! `log inspect` on files: sound, torn, damaged, of a newer version, not there.
//!
//! The files are those that hold the format of the log (`runtime/store/tests/golden/log-v1`). Their
//! records say nothing to a node, which is what records of a newer version do.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::support::command::{Run, run, sluicebox};
use super::support::golden;

/// A data directory with a copy of the files.
fn data_dir() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("data/log");
    fs::create_dir_all(&log).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/golden/log-v1");
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, log.join(path.file_name().unwrap())).unwrap();
    }
    directory
}

fn file(directory: &TempDir, number: u64) -> PathBuf {
    directory.path().join(format!("data/log/{number:020}.log"))
}

fn inspect(directory: &TempDir, more: &[&str]) -> Run {
    let all: Vec<&str> =
        ["log", "inspect", "--data-dir", "data"].iter().chain(more).copied().collect();
    run(sluicebox(directory.path(), &all), b"")
}

/// Turns a bit of a byte.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn files_and_records_are_shown_and_what_cannot_be_read_is_named() {
    let directory = data_dir();
    let run = inspect(&directory, &["--records"]);
    assert_eq!(run.code, 74);
    golden::check("log/records.txt", &run.out);
    golden::check("errors/log-unreadable.txt", &run.err);
}

#[test]
fn the_same_is_json_when_asked_for_a_line_for_each_record() {
    let directory = data_dir();
    let run = inspect(&directory, &["--records", "--output", "json"]);
    assert_eq!(run.code, 74);
    let lines: Vec<serde_json::Value> =
        run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[0]["end"]), (&"torn".into(), &13_824.into()));
    assert_eq!(lines[0]["segments"][1]["base"], 12_288);
    assert_eq!(lines.len(), 10, "the log and its nine records");
    assert_eq!((&lines[9]["position"], &lines[9]["kind"]), (&13_344.into(), &"unknown".into()));
    let error: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(error["error"]["code"], "internal", "the first record is none of any version");
}

#[test]
fn what_only_a_newer_program_reads_is_said_to_be_so() {
    let directory = data_dir();
    // The next one begins with a record of a kind that does not exist yet.
    fs::remove_file(file(&directory, 3)).unwrap();
    let run = inspect(&directory, &["--output", "json"]);
    assert_eq!(run.code, 74);
    let error: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(error["error"]["code"], "log.format-newer", "{error}");
}

#[test]
fn damage_is_named_with_its_place_and_ends_with_a_code() {
    let directory = data_dir();
    // In the body of the first record of the second file.
    flip(&file(&directory, 4), 4096 + 32 + 16 + 12);
    let run = inspect(&directory, &[]);
    assert_eq!(run.code, 74);
    golden::check("log/damaged.txt", &run.out);
    golden::check("errors/log-damaged.txt", &run.err);
    let doctor = ["doctor", "--data-dir", "data", "--url", "http://127.0.0.1:1"];
    let doctor = super::support::command::run(sluicebox(directory.path(), &doctor), b"");
    assert_eq!(doctor.code, 69, "{doctor:?}");
    let row = doctor.out.lines().find(|line| line.starts_with("BAD")).unwrap();
    assert!(row.contains("log") && row.contains("damaged at position 12288"), "{row}");
}

#[test]
fn a_file_that_is_missing_in_the_middle_is_damage() {
    let directory = data_dir();
    fs::remove_file(file(&directory, 4)).unwrap();
    let run = inspect(&directory, &["--output", "json"]);
    assert_eq!(run.code, 74);
    let found: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(found["verdict"], "damaged");
    let what = found["segments"][1]["problem"]["what"].as_str().unwrap();
    assert!(what.contains("00000000000000000004.log, is missing"), "{what}");
}

#[test]
fn nothing_is_changed_by_looking() {
    let directory = data_dir();
    let names = || {
        let entries = fs::read_dir(directory.path().join("data/log")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (before, bytes) = (names(), fs::read(file(&directory, 5)).unwrap());
    inspect(&directory, &["--records"]);
    assert_eq!(names(), before);
    assert_eq!(fs::read(file(&directory, 5)).unwrap(), bytes);
}

#[test]
fn where_there_is_no_log_is_said_how_to_name_one() {
    let directory = tempfile::tempdir().unwrap();
    let run = inspect(&directory, &[]);
    assert_eq!((run.code, run.out.as_str()), (74, ""));
    golden::check("errors/no-log.txt", &run.err);
}
