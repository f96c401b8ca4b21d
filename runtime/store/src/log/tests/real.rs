//! The log in a real directory: restarts, modes, the lock, links.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sluicebox_core::error::Classify as _;

use super::super::disk::DirDisk;
use super::super::inspect::{Verdict, inspect};
use super::*;

fn open_dir(path: &Path) -> Result<(DurableLog, Vec<Owned>), Error> {
    let mut found = Vec::new();
    let log = DurableLog::open(path, small(), Position(0), &mut |record| {
        found.push((record.position, record.kind, record.body.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok((log, found))
}

#[test]
fn records_are_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("not/there/yet");
    let (log, found) = open_dir(&path).unwrap();
    assert_eq!(found, []);
    let all: Vec<Owned> =
        (0..100).map(|n| (contract::append(&log, n, &[n; 700]), n, vec![n; 700])).collect();
    log.close().unwrap();
    drop(log);
    let (log, found) = open_dir(&path).unwrap();
    assert!(found == all);
    assert!(contract::read_from(&log, all[50].0) == all[50..]);
    log.trim(all[50].0).unwrap();
    assert!(log.status().oldest > Position(0));
}

#[test]
fn files_are_for_nobody_else() {
    let dir = TempDir::new().unwrap();
    let (_log, _) = open_dir(&dir.path().join("log")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("log")), 0o700);
    let files: Vec<_> = fs::read_dir(dir.path().join("log")).unwrap().collect();
    assert!(files.len() >= 2);
    for file in files {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn a_second_opening_is_refused_until_the_first_ends() {
    let dir = TempDir::new().unwrap();
    let (first, _) = open_dir(dir.path()).unwrap();
    let refused = open_dir(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), "store.locked");
    assert!(refused.to_string().contains("another process"), "{refused}");
    // Looking at it is allowed.
    let position = contract::append(&first, 1, b"seen");
    first.wait_synced(position).unwrap();
    let disk = DirDisk::read_only(dir.path()).unwrap();
    let mut seen = 0;
    let inspection = inspect(&disk, &mut |_| {
        seen += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(inspection.unwrap().verdict, Verdict::Clean(_)));
    assert_eq!(seen, 1);
    drop(first);
    open_dir(dir.path()).unwrap();
}

#[test]
fn a_directory_that_others_can_write_in_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = open_dir(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), "store.not-private");
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"").unwrap();
    let refused = open_dir(&path).map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), "log.io");
}

#[test]
fn a_link_out_of_the_directory_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let (inside, outside) = (dir.path().join("log"), dir.path().join("victim"));
    drop(open_dir(&inside).unwrap());
    let file = inside.join("00000000000000000001.log");
    fs::rename(&file, &outside).unwrap();
    let before = fs::read(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    assert!(open_dir(&inside).is_err());
    assert!(fs::read(&outside).unwrap() == before);
}
