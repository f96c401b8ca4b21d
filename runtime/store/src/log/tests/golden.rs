//! Format version 1 as it was first written, which every later version reads.
//!
//! The files in `tests/golden/log-v1` were made once, by `SLUICEBOX_BLESS_LOG_V1=1` in an empty
//! folder. They hold every sort of thing a log can have: several segments, one begun after a failed
//! sync, empty and long records, groups of many, a recycled file with old bytes, a torn end.

use std::fs;
use std::path::PathBuf;

use super::super::inspect::{Verdict, inspect};
use super::super::sim::Faults;
use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v1")
}

fn tiny() -> Config {
    Config { segment_bytes: 8 << 10, record_bytes_max: 3000, ..small() }
}

/// What was done to make the files.
fn make(disk: &SimDisk) {
    let (log, mut writer, _) = open_from(disk, tiny(), Position(0)).unwrap();
    for n in 0..6 {
        write(&log, &mut writer, n, &[n; 1500]);
    }
    log.trim(log.synced()).unwrap();
    for n in 0..5 {
        log.append(Class::Ingest, 100 + n, &[&b"group"[..usize::from(n)]]).unwrap();
    }
    writer.step();
    disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    write(&log, &mut writer, 7, b"moved to another segment");
    write(&log, &mut writer, 255, &(0..=255).collect::<Vec<u8>>());
    let torn = log.append(Class::Commit, 8, &[&[8; 600]]).unwrap();
    writer.step();
    let file = segment_files(disk).pop().unwrap();
    let mut bytes = disk.contents(&file).unwrap();
    let at = bytes.windows(600).position(|body| body == [8; 600]).unwrap();
    bytes[at + 400..at + 600].fill(0);
    disk.put(&file, &bytes);
    assert!(torn > Position(0));
}

/// The files as they were found to be, as text.
fn describe(disk: &SimDisk) -> String {
    let mut text = String::new();
    let inspection = inspect(disk, &mut |record| {
        let Record { position, kind, body } = record;
        let body = match body {
            [first, .., last] if body.len() > 40 => format!("{} bytes {first}..{last}", body.len()),
            _ => format!("\"{}\"", body.escape_ascii()),
        };
        text.push_str(&format!("record {position} kind {kind} {body}\n"));
        ControlFlow::Continue(())
    });
    let inspection = inspection.unwrap();
    for segment in inspection.segments {
        let header = segment.header.unwrap();
        text.push_str(&format!(
            "segment {} base {} end {} generation {:016x} log {:016x} groups {} records {}\n",
            header.number,
            header.base,
            segment.end,
            header.generation,
            header.log_id,
            segment.groups,
            segment.records,
        ));
    }
    text.push_str(&format!("spares {:?}\n{:?}\n", inspection.spares, inspection.verdict));
    text
}

fn golden() -> SimDisk {
    let disk = SimDisk::new(1);
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        disk.put(&name, &fs::read(&path).unwrap());
    }
    disk
}

#[test]
fn version_one_is_read_as_it_always_was() {
    if std::env::var_os("SLUICEBOX_BLESS_LOG_V1").is_some() && !folder().exists() {
        let disk = SimDisk::new(1);
        make(&disk);
        fs::create_dir_all(folder()).unwrap();
        for name in disk.names() {
            fs::write(folder().join(&name), disk.contents(&name).unwrap()).unwrap();
        }
        fs::write(folder().join("expected.txt"), describe(&disk)).unwrap();
    }
    let expected = fs::read_to_string(folder().join("expected.txt")).unwrap();
    let disk = golden();
    assert_eq!(describe(&disk), expected);
    let oldest = inspect(&disk, &mut |_| ControlFlow::Continue(())).unwrap().segments[0].header;
    let (log, mut writer, found) = open_from(&disk, tiny(), oldest.unwrap().base).unwrap();
    let records = expected.lines().filter(|line| line.starts_with("record")).count();
    assert_eq!(found.len(), records);
    // It goes on in a segment of its own.
    write(&log, &mut writer, 1, b"more");
    assert!(matches!(
        inspect(&disk, &mut |_| ControlFlow::Continue(())).unwrap().verdict,
        Verdict::Clean(_)
    ));
}

#[test]
fn version_one_is_written_as_it_always_was() {
    let disk = SimDisk::new(1);
    make(&disk);
    for name in disk.names() {
        let written = disk.contents(&name).unwrap();
        let golden = fs::read(folder().join(&name)).unwrap();
        assert!(written == golden, "{name} is no longer written as format 1");
    }
}
