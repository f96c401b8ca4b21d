//! Files that are not as they were written: cut, flipped, missing, foreign, newer.

use sluicebox_core::error::{Classify as _, Kind};

use super::super::format::{HEADER_BYTES, SECTOR_BYTES, SegmentHeader};
use super::super::inspect::{Verdict, inspect};
use super::super::{forge, sim::Dice};
use super::*;

/// Why the log does not open.
#[track_caller]
fn refused(disk: &SimDisk) -> Error {
    open(disk).map(|(.., found)| found.len()).expect_err("it should not open")
}

fn verdict(disk: &SimDisk) -> Verdict {
    inspect(disk, &mut |_| ControlFlow::Continue(())).unwrap().verdict
}

/// Changes a file, on disk.
fn edit(disk: &SimDisk, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(file).unwrap();
    change(&mut bytes);
    disk.put(file, &bytes);
}

/// The same disk again and again: a log of some segments, closed as it should be.
fn closed() -> (SimDisk, Vec<Owned>) {
    let disk = SimDisk::new(5);
    let all = some_segments(&disk);
    let (log, mut writer, _) = open(&disk).unwrap();
    let last = write(&log, &mut writer, 99, &[9; 1000]);
    log.close().unwrap();
    writer.finish();
    (disk, [&all[..], &[last]].concat())
}

#[test]
fn every_region_of_a_full_segment_is_checked() {
    let (disk, all) = closed();
    let files = segment_files(&disk);
    let whole = disk.contents(&files[1]).unwrap();
    let next = SegmentEnd::of(&disk, &files[2]);
    let used = next.base - SegmentEnd::of(&disk, &files[1]).base + HEADER_BYTES;
    let mut dice = Dice::new(1);
    // Every bit of the places where lengths and checksums are, and some of the bodies.
    let heads = (0..used).step_by(SECTOR_BYTES as usize).flat_map(|sector| sector..sector + 48);
    let some = (0..2000).map(|_| dice.below(used)).collect::<Vec<_>>();
    for at in heads.filter(|at| *at < used && (*at < 64 || *at >= HEADER_BYTES)).chain(some) {
        let bit = at % 8;
        edit(&disk, &files[1], |bytes| bytes[at as usize] ^= 1 << bit);
        let error = refused(&disk);
        let (Error::Corrupt { file, .. } | Error::FormatNewer { file, .. }) = &error else {
            panic!("byte {at}: {error}");
        };
        assert_eq!(*file, files[1], "byte {at}: {error}");
        assert_eq!(verdict(&disk), Verdict::Damaged, "byte {at}");
        disk.put(&files[1], &whole);
    }
    assert!(open(&disk).unwrap().2 == all, "the test itself damaged the log");
}

/// What a test needs to know of a header.
struct SegmentEnd {
    base: u64,
}

impl SegmentEnd {
    fn of(disk: &SimDisk, file: &str) -> Self {
        let bytes = disk.contents(file).unwrap();
        let mut base = [0; 8];
        base.copy_from_slice(&bytes[32..40]);
        Self { base: u64::from_le_bytes(base) }
    }
}

#[test]
fn damage_says_where_it_is_and_what_to_do() {
    let (disk, all) = closed();
    let files = segment_files(&disk);
    edit(&disk, &files[1], |bytes| bytes[HEADER_BYTES as usize + 600] ^= 1);
    let error = refused(&disk);
    assert_eq!((error.kind(), error.code()), (Kind::Internal, "log.corrupt"));
    let text = error.to_string();
    let expected =
        format!("the log is damaged in {} at byte {}, position ", files[1], HEADER_BYTES + 32);
    assert!(text.starts_with(&expected) && text.contains("checksum of a record"), "{text}");
    assert!(text.contains("were on disk") && text.contains("backup"), "{text}");
    // What is before it is not needed, so it does not matter there.
    let (.., found) = open_from(&disk, small(), all[38].0).unwrap();
    assert!(found == all[38..]);
}

#[test]
fn a_torn_end_is_cut_and_nothing_before_it() {
    let disk = SimDisk::new(5);
    let (log, mut writer, _) = open(&disk).unwrap();
    let all: Vec<_> = (0..5).map(|n| write(&log, &mut writer, n, &[n; 1000])).collect();
    drop((log, writer));
    let file = &segment_files(&disk)[0];
    let whole = disk.contents(file).unwrap();
    let last = (all[4].0.0 - 32 + HEADER_BYTES) as usize;
    assert!(matches!(verdict(&disk), Verdict::Clean(_)));
    for at in [last + 32, last + 500, last + 1043] {
        edit(&disk, file, |bytes| bytes[at] ^= 4);
        assert_eq!(verdict(&disk), Verdict::Torn(Position((last as u64) - HEADER_BYTES)));
        let (log, mut writer, found) = open(&disk).unwrap();
        assert!(found == all[..4], "byte {at}");
        // It goes on behind, and what was cut does not come back.
        let new = write(&log, &mut writer, 50, b"new");
        drop((log, writer));
        let expected = [&all[..4], &[new]].concat();
        assert!(open(&disk).unwrap().2 == expected, "byte {at}");
        for name in disk.names() {
            disk.take(&name);
        }
        disk.put(file, &whole);
    }
}

#[test]
fn damage_at_the_end_of_a_closed_log_is_no_torn_end() {
    let (disk, all) = closed();
    let file = segment_files(&disk).pop().unwrap();
    let base = SegmentEnd::of(&disk, &file).base;
    let last = (all.last().unwrap().0.0 - base + HEADER_BYTES) as usize;
    edit(&disk, &file, |bytes| bytes[last + 100] ^= 1);
    let text = refused(&disk).to_string();
    assert!(text.contains("says it was on disk"), "{text}");
    assert_eq!(verdict(&disk), Verdict::Damaged);
}

#[test]
fn damage_before_something_that_was_known_to_be_synced_is_no_torn_end() {
    let disk = SimDisk::new(5);
    let (log, mut writer, _) = open(&disk).unwrap();
    let all: Vec<_> = (0..5).map(|n| write(&log, &mut writer, n, &[n; 1000])).collect();
    drop((log, writer));
    let file = &segment_files(&disk)[0];
    // Header and record of each group but the last.
    for (position, ..) in &all[..4] {
        for at in [position.0 - 32, position.0, position.0 + 500] {
            edit(&disk, file, |bytes| bytes[(at + HEADER_BYTES) as usize] ^= 8);
            assert!(matches!(refused(&disk), Error::Corrupt { .. }), "position {at}");
            edit(&disk, file, |bytes| bytes[(at + HEADER_BYTES) as usize] ^= 8);
        }
    }
    assert!(open(&disk).unwrap().2 == all);
}

#[test]
fn every_cut_of_a_file_is_noticed() {
    let (disk, _) = closed();
    for file in segment_files(&disk) {
        let whole = disk.contents(&file).unwrap();
        for length in [0, 100, 4095, 4096, 5000, whole.len() - 512, whole.len() - 1] {
            disk.put(&file, &whole[..length]);
            assert!(matches!(refused(&disk), Error::Corrupt { .. }), "{file} cut at {length}");
            assert_eq!(verdict(&disk), Verdict::Damaged);
        }
        disk.put(&file, &whole);
    }
    open(&disk).unwrap();
}

#[test]
fn a_missing_segment_is_noticed_unless_it_could_have_been_trimmed() {
    let (disk, all) = closed();
    let files = segment_files(&disk);
    assert!(files.len() >= 4);
    let middle = disk.contents(&files[1]).unwrap();
    disk.take(&files[1]);
    let text = refused(&disk).to_string();
    assert!(text.contains(&format!("{}, is missing", files[1])), "{text}");
    assert_eq!(verdict(&disk), Verdict::Damaged);
    disk.put(&files[1], &middle);
    // The last one: only who knows how far the log went can notice.
    let last = disk.contents(files.last().unwrap()).unwrap();
    disk.take(files.last().unwrap());
    let needed = all.last().unwrap().0;
    let error = open_from(&disk, small(), Position(needed.0 + 512)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
    assert_eq!(error.code(), "log.behind");
    disk.put(files.last().unwrap(), &last);
    disk.take(&files[0]);
    assert!(matches!(refused(&disk), Error::Trimmed { .. }));
    let (.., found) = open_from(&disk, small(), all[20].0).unwrap();
    assert!(found == all[20..]);
}

#[test]
fn a_log_that_is_gone_is_noticed_by_who_needs_it() {
    let disk = SimDisk::new(1);
    let error = open_from(&disk, small(), Position(1000)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Behind { end: Position(0), .. }), "{error}");
}

#[test]
fn a_file_under_a_wrong_name_is_refused() {
    let (disk, _) = closed();
    let files = segment_files(&disk);
    let last = disk.contents(files.last().unwrap()).unwrap();
    disk.put("00000000000000000099.log", &last);
    let text = refused(&disk).to_string();
    assert!(text.contains("wrong name"), "{text}");
}

#[test]
fn a_file_of_another_log_is_refused() {
    let (disk, _) = closed();
    let (other, _) = {
        let disk = SimDisk::new(77);
        (disk.clone(), some_segments(&disk))
    };
    let files = segment_files(&disk);
    disk.put(&files[1], &other.contents(&files[1]).unwrap());
    let error = refused(&disk);
    assert!(matches!(&error, Error::Foreign { file, .. } if *file == files[1]), "{error}");
    assert_eq!(error.code(), "log.foreign");
    assert_eq!(verdict(&disk), Verdict::Damaged);
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let (disk, _) = closed();
    let file = segment_files(&disk).pop().unwrap();
    edit(&disk, &file, |bytes| bytes[8..12].copy_from_slice(&[7, 0, 5, 0]));
    let error = refused(&disk);
    assert_eq!(error.code(), "log.format-newer");
    let text = error.to_string();
    assert!(text.contains("format 7") && text.contains("up to 1"), "{text}");
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let disk = SimDisk::new(1);
    for name in ["notes.log", "1.log", "0000000000000000000x.log", "lock", ".DS_Store"] {
        disk.put(name, b"not ours");
    }
    let all = some_segments(&disk);
    assert!(open(&disk).unwrap().2 == all);
    assert_eq!(disk.contents("notes.log").unwrap(), b"not ours");
}

#[test]
fn a_failed_opening_changes_nothing() {
    let (disk, _) = closed();
    let files = segment_files(&disk);
    edit(&disk, &files[0], |bytes| bytes[5000] ^= 1);
    let before: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
    refused(&disk);
    let after: Vec<_> = disk.names().iter().map(|name| disk.contents(name)).collect();
    assert!(before == after);
}

#[test]
fn bytes_of_an_earlier_use_of_a_file_are_never_read() {
    // Records of one size: every old group lies exactly where a new one will.
    let disk = SimDisk::new(1);
    let (log, mut writer, _) = open(&disk).unwrap();
    for n in 0..100 {
        let (position, ..) = write(&log, &mut writer, n, &[n; 1000]);
        log.trim(position).unwrap();
    }
    let oldest = log.status().oldest;
    let kept = contract::read_from(&log, oldest);
    drop((log, writer));
    let (.., found) = open_from(&disk, small(), oldest).unwrap();
    assert!(found == kept && found.last().unwrap().1 == 99);
    assert!(matches!(verdict(&disk), Verdict::Clean(_)));
}

#[test]
fn lengths_that_cannot_be_are_refused_even_under_a_good_checksum() {
    let group = |bytes: u32, records: u32, synced: u64| {
        let mut group = vec![0; 512];
        group[4..8].copy_from_slice(&bytes.to_le_bytes());
        group[8..12].copy_from_slice(&records.to_le_bytes());
        group[24..32].copy_from_slice(&synced.to_le_bytes());
        group
    };
    let name = "00000000000000000001.log";
    let taken = |bytes: &[u8]| {
        let disk = SimDisk::new(1);
        disk.put(name, &forge::segment(1, 0, bytes));
        open(&disk).map(|(.., found)| found.len())
    };
    // A record of 3 bytes, so that the forging itself is known to work.
    let mut good = group(32 + 16, 1, 0);
    good[32..36].copy_from_slice(&3_u32.to_le_bytes());
    assert_eq!(taken(&good).unwrap(), 1);
    let mut too_long = good.clone();
    too_long[32..36].copy_from_slice(&400_u32.to_le_bytes());
    assert_eq!(taken(&too_long).unwrap(), 0);
    let mut padded = good.clone();
    padded[32 + 15] = 1;
    assert_eq!(taken(&padded).unwrap(), 0);
    let mut more = good.clone();
    more[8] = 2;
    assert_eq!(taken(&more).unwrap(), 0);
    for bytes in [0, 31, 33, 40, 4096, 1 << 20, u32::MAX] {
        assert_eq!(taken(&group(bytes, 1, 0)).unwrap(), 0, "{bytes}");
    }
    // Says that something behind itself was synced: not believed as a group, but no crash either.
    taken(&group(32, 0, u64::MAX)).unwrap();
}

#[test]
fn an_inspection_tells_what_is_there_without_touching_it() {
    let (disk, all) = closed();
    let before = disk.calls();
    let mut found = Vec::new();
    let inspection = inspect(&disk, &mut |record| {
        found.push((record.position, record.kind, record.body.to_vec()));
        ControlFlow::Continue(())
    });
    let inspection = inspection.unwrap();
    assert_eq!(disk.calls(), before);
    assert!(found == all, "an inspection reads something else than an opening");
    let records: u64 = inspection.segments.iter().map(|segment| segment.records).sum();
    assert_eq!(records, all.len() as u64);
    let first = &inspection.segments[0];
    assert_eq!(
        (first.file.as_str(), first.header.unwrap().number),
        ("00000000000000000001.log", 1)
    );
    assert!(inspection.segments.windows(2).all(|pair| pair[1].header.unwrap().base == pair[0].end));
    assert_eq!(inspection.verdict, Verdict::Clean(inspection.segments.last().unwrap().end));
    assert_eq!(verdict(&SimDisk::new(1)), Verdict::Empty);
}

/// Any bytes as a segment: opening gives records or an error with a message, and what it gave once
/// it gives again.
fn any_bytes(data: &[u8]) {
    for file in [data.to_vec(), forge::segment(1, 0, data)] {
        let disk = SimDisk::new(1);
        disk.put("00000000000000000001.log", &file);
        inspect(&disk, &mut |_| ControlFlow::Continue(())).unwrap();
        match open(&disk) {
            Ok((.., found)) => assert!(open(&disk).unwrap().2 == found),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn any_bytes_may_be_found_as_a_segment() {
    let (disk, _) = closed();
    let file = disk.contents(&segment_files(&disk)[1]).unwrap();
    let mut dice = Dice::new(3);
    any_bytes(&[]);
    for _ in 0..300 {
        let start = if dice.once_in(2) { HEADER_BYTES as usize } else { 0 };
        let mut data = file[start..].to_vec();
        for _ in 0..1 + dice.below(6) {
            let at = dice.below(data.len() as u64) as usize;
            match dice.below(3) {
                0 => data[at] ^= 1 << dice.below(8),
                1 => data[at / 8 * 8..][..4]
                    .copy_from_slice(&(dice.roll() as u32 >> dice.below(32)).to_le_bytes()),
                _ => data.truncate(at.max(1)),
            }
        }
        any_bytes(&data);
    }
}

#[test]
fn the_seeds_of_the_fuzzer_are_read_and_the_good_ones_taken() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/log_segment");
    let mut good = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        any_bytes(&data);
        if path.to_string_lossy().contains("seed-good") {
            let disk = SimDisk::new(1);
            disk.put("00000000000000000001.log", &forge::segment(1, 0, &data));
            assert!(!open(&disk).unwrap().2.is_empty(), "{}", path.display());
            good += 1;
        }
    }
    assert!(good > 0);
}

/// A group with one record, without checksums.
fn one_record(body: &[u8]) -> Vec<u8> {
    let end = 32 + (12 + body.len()).next_multiple_of(8);
    let mut group = vec![0; end.next_multiple_of(512)];
    group[4..8].copy_from_slice(&(end as u32).to_le_bytes());
    group[8] = 1;
    group[32..36].copy_from_slice(&(body.len() as u32).to_le_bytes());
    group[44..44 + body.len()].copy_from_slice(body);
    group
}

#[test]
fn groups_and_records_of_another_generation_are_none() {
    let old = forge::segment(1, 0, &one_record(b"old"));
    let head = <&[u8; 4096]>::try_from(&old[..4096]).unwrap();
    let header = SegmentHeader { generation: 8, ..SegmentHeader::decode(head).unwrap() };
    let found = |file: &[u8]| {
        let disk = SimDisk::new(1);
        disk.put("00000000000000000001.log", file);
        open(&disk).unwrap().2.len()
    };
    assert_eq!(found(&old), 1);
    // The file used again: a new header, and behind it what was there.
    let mut again = old.clone();
    again[..4096].copy_from_slice(&header.encode());
    assert_eq!(found(&again), 0);
    let disk = SimDisk::new(1);
    disk.put("00000000000000000001.log", &again);
    assert_eq!(verdict(&disk), Verdict::Clean(Position(0)), "an old group is not even a torn one");
    // And the header of a group written over an old one, but not its record.
    let mut torn = again.clone();
    forge::sign_groups(&mut torn, 8, 0);
    assert_eq!(found(&torn), 1);
    torn[4096 + 32..].copy_from_slice(&old[4096 + 32..]);
    assert_eq!(found(&torn), 0);
}

#[test]
fn a_group_beyond_the_beginning_of_the_next_segment_is_damage() {
    let disk = SimDisk::new(1);
    disk.put("00000000000000000001.log", &forge::segment(1, 0, &one_record(&[1; 700])));
    disk.put("00000000000000000002.log", &forge::segment(2, 512, &one_record(b"two")));
    let text = refused(&disk).to_string();
    assert!(text.contains("beyond the end of its segment"), "{text}");
    disk.put("00000000000000000002.log", &forge::segment(2, 1024, &one_record(b"two")));
    assert_eq!(open(&disk).unwrap().2.len(), 2);
}
