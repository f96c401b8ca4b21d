//! A directory keeps the contract, and what happens to it when files, disks and processes fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use sluicebox_core::error::{Classify, Kind};
use tempfile::TempDir;

use super::*;
use crate::contract;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// A catalog with one document, closed again, and its directory.
fn one_document() -> TempDir {
    let dir = TempDir::new().unwrap();
    DirCatalog::open(dir.path()).unwrap().create(&key("t/a"), b"the value").unwrap();
    dir
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("documents/t/a_doc")
}

fn temp_files(dir: &Path) -> usize {
    fs::read_dir(dir.join("tmp")).unwrap().count()
}

/// A catalog that takes its directory with it.
#[derive(Debug)]
struct Scratch {
    catalog: DirCatalog,
    dir: TempDir,
}

impl Catalog for Scratch {
    fn create(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        self.catalog.create(key, value)
    }
    fn replace(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        self.catalog.replace(key, value)
    }
    fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.catalog.get(key)
    }
    fn list(&self, under: Option<&Key>) -> Result<Vec<Key>, Error> {
        self.catalog.list(under)
    }
    fn delete(&self, key: &Key) -> Result<bool, Error> {
        self.catalog.delete(key)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        assert_eq!(temp_files(self.dir.path()), 0, "something is left in tmp");
    }
}

#[test]
fn a_directory_keeps_the_contract() {
    contract::every_promise(&|| {
        let dir = TempDir::new().unwrap();
        Box::new(Scratch { catalog: DirCatalog::open(dir.path()).unwrap(), dir })
    });
}

#[test]
fn documents_are_there_after_a_restart() {
    let dir = one_document();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.get(&key("t/a")).unwrap().unwrap(), "the value");
    assert_eq!(catalog.list(None).unwrap(), [key("t/a")]);
    assert!(catalog.create(&key("t/a"), b"").is_err());
}

#[test]
fn files_are_for_nobody_else() {
    let outer = TempDir::new().unwrap();
    let path = outer.path().join("not/there/yet");
    DirCatalog::open(&path).unwrap().create(&key("t/a"), b"").unwrap();
    let mode = |at: &str| fs::metadata(outer.path().join(at)).unwrap().permissions().mode() & 0o777;
    for folder in ["not", "not/there/yet", "not/there/yet/documents/t", "not/there/yet/tmp"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["not/there/yet/documents/t/a_doc", "not/there/yet/lock"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_directory_that_others_can_write_in_is_refused_with_the_command_to_run() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = DirCatalog::open(dir.path()).unwrap_err();
    assert_eq!(refused.code(), "store.not-private");
    let message = refused.to_string();
    assert!(message.contains(&format!("chmod go-w {}", dir.path().display())), "{message}");
}

#[test]
fn a_second_opening_is_refused_until_the_first_ends() {
    let dir = TempDir::new().unwrap();
    let first = DirCatalog::open(dir.path()).unwrap();
    let refused = DirCatalog::open(dir.path()).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Conflict, "store.locked"));
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop(first);
    DirCatalog::open(dir.path()).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let dir = TempDir::new().unwrap();
    let _first = DirCatalog::open(dir.path()).unwrap();
    child("child_opens_a_directory_in_use", dir.path(), "exec \"$@\"");
}

#[test]
fn a_document_cut_short_is_reported_with_its_key() {
    let dir = one_document();
    let whole = fs::read(file(&dir)).unwrap();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    for len in [0, 10, header::HEADER_BYTES, whole.len() - 1] {
        fs::write(file(&dir), &whole[..len]).unwrap();
        let damaged = catalog.get(&key("t/a")).unwrap_err();
        assert_eq!((damaged.kind(), damaged.code()), (Kind::Internal, "store.corrupt"));
        assert!(damaged.to_string().starts_with("t/a is damaged"), "{damaged}");
    }
}

#[test]
fn a_flipped_bit_is_reported_and_the_others_can_still_be_read() {
    let dir = one_document();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    catalog.create(&key("t/b"), b"sound").unwrap();
    let mut bytes = fs::read(file(&dir)).unwrap();
    *bytes.last_mut().unwrap() ^= 0x10;
    fs::write(file(&dir), bytes).unwrap();
    assert_eq!(catalog.get(&key("t/a")).unwrap_err().code(), "store.corrupt");
    assert_eq!(catalog.get(&key("t/b")).unwrap().unwrap(), "sound");
    // What is damaged can be replaced, and counts as there until it is.
    assert_eq!(catalog.create(&key("t/a"), b"").unwrap_err().code(), "store.conflict");
    catalog.replace(&key("t/a"), b"new").unwrap();
    assert_eq!(catalog.get(&key("t/a")).unwrap().unwrap(), "new");
}

#[test]
fn a_document_of_a_newer_version_is_refused() {
    let dir = one_document();
    let mut bytes = fs::read(file(&dir)).unwrap();
    bytes[8..12].copy_from_slice(&[2, 0, 2, 0]);
    fs::write(file(&dir), bytes).unwrap();
    let refused = DirCatalog::open(dir.path()).unwrap().get(&key("t/a")).unwrap_err();
    assert_eq!(refused.code(), "store.format-newer");
    assert!(refused.to_string().contains("format 2"), "{refused}");
}

#[test]
fn a_document_moved_to_another_tenant_is_refused() {
    let dir = one_document();
    fs::create_dir(dir.path().join("documents/u")).unwrap();
    fs::rename(file(&dir), dir.path().join("documents/u/a_doc")).unwrap();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.get(&key("u/a")).unwrap_err().code(), "store.corrupt");
}

#[test]
fn what_a_crash_left_half_written_is_removed() {
    let dir = one_document();
    fs::write(dir.path().join("tmp/0"), b"half").unwrap();
    fs::create_dir_all(dir.path().join("tmp/1/2")).unwrap();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert_eq!(temp_files(dir.path()), 0);
    assert_eq!(catalog.list(None).unwrap(), [key("t/a")]);
    catalog.replace(&key("t/a"), b"written over").unwrap();
    assert_eq!(temp_files(dir.path()), 0);
}

#[test]
fn what_is_not_ours_is_neither_listed_nor_removed() {
    let dir = one_document();
    let documents = dir.path().join("documents");
    for stray in ["t/.DS_Store", "t/b", "t/UPPER_doc", "t/..x_doc", "_doc"] {
        fs::write(documents.join(stray), b"").unwrap();
    }
    fs::create_dir_all(documents.join("t/dir_doc")).unwrap();
    fs::create_dir_all(documents.join("1/2/3/4/5/6/7/8/9/10")).unwrap();
    fs::write(documents.join("1/2/3/4/5/6/7/8/9_doc"), b"").unwrap();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.list(None).unwrap(), [key("t/a")]);
    assert_eq!(catalog.list(Some(&key("t/b"))).unwrap(), []);
    assert_eq!(catalog.get(&key("t/b/c")).unwrap(), None);
    assert!(catalog.delete(&key("t/a")).unwrap());
    assert!(documents.join("t/.DS_Store").exists());
}

#[test]
fn a_link_out_of_the_directory_is_not_followed() {
    let (dir, outside) = (one_document(), TempDir::new().unwrap());
    fs::copy(file(&dir), outside.path().join("a_doc")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("documents/u")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("a_doc"), dir.path().join("documents/t/l_doc"))
        .unwrap();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert!(catalog.get(&key("u/a")).is_err());
    assert!(catalog.get(&key("t/l")).is_err());
    assert!(catalog.create(&key("u/b"), b"").is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(catalog.list(None).unwrap(), [key("t/a")]);
}

#[test]
fn a_file_too_large_to_be_ours_is_not_read() {
    let dir = one_document();
    let file = fs::File::options().write(true).open(file(&dir)).unwrap();
    file.set_len(1 << 40).unwrap();
    let damaged = DirCatalog::open(dir.path()).unwrap().get(&key("t/a")).unwrap_err();
    assert_eq!(damaged.code(), "store.corrupt");
}

#[test]
fn a_folder_goes_with_its_last_document() {
    let dir = one_document();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    catalog.create(&key("t/x/y"), b"").unwrap();
    catalog.delete(&key("t/x/y")).unwrap();
    assert!(!dir.path().join("documents/t/x").exists());
    assert!(dir.path().join("documents/t").exists());
    catalog.delete(&key("t/a")).unwrap();
    assert!(!dir.path().join("documents/t").exists());
}

#[test]
fn after_a_change_that_may_not_be_on_disk_no_other_is_taken() {
    let dir = one_document();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    catalog.poisoned.store(true, Ordering::Release);
    let refusals = [
        catalog.create(&key("n"), b"").unwrap_err(),
        catalog.replace(&key("t/a"), b"").unwrap_err(),
        catalog.delete(&key("t/a")).unwrap_err(),
    ];
    assert!(refusals.iter().all(|e| e.code() == "store.poisoned"), "{refusals:?}");
    assert_eq!(catalog.get(&key("t/a")).unwrap().unwrap(), "the value");
    drop(catalog);
    DirCatalog::open(dir.path()).unwrap().replace(&key("t/a"), b"again").unwrap();
}

#[test]
fn a_folder_that_cannot_be_brought_to_disk_stops_further_changes() {
    let dir = one_document();
    let catalog = DirCatalog::open(dir.path()).unwrap();
    // A folder that vanished between the change and the sync is the nearest thing to a disk that
    // fails there.
    assert!(catalog.sync_folder(&key("gone/a")).is_err());
    assert_eq!(catalog.delete(&key("t/a")).unwrap_err().code(), "store.poisoned");
}

#[test]
fn what_the_system_says_is_told_apart() {
    let at = Place(Path::new("/some/where"));
    for (number, code) in [
        (28, "store.full"),      // no space left
        (122, "store.full"),     // disk quota
        (27, "store.full"),      // file size limit
        (13, "store.read-only"), // permission
        (30, "store.read-only"), // file system
        (5, "store.io"),         // disk failed
        (24, "store.io"),        // open files
    ] {
        let error = at.write_error("write t/a", io::Error::from_raw_os_error(number));
        assert_eq!((error.code(), error.kind()), (code, Kind::Unavailable), "{number}");
        assert!(error.to_string().contains("/some/where"), "{error}");
    }
}

#[test]
fn a_disk_that_fills_up_leaves_what_was_there() {
    // A limit on file size stands for the full disk: the write fails in the middle of the file.
    let dir = one_document();
    child("child_writes_with_no_room", dir.path(), "trap '' XFSZ; ulimit -f 8; exec \"$@\"");
    let catalog = DirCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.get(&key("t/a")).unwrap().unwrap(), "the value");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused() {
    let dir = one_document();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    child("child_opens_what_it_may_only_read", dir.path(), "exec \"$@\"");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Names the directory to a child process.
const CHILD_DIR: &str = "SLUICEBOX_STORE_TEST_DIR";
/// The numbers of a user who owns nothing here.
const NOBODY: u32 = 65_534;

/// Runs one of the ignored tests below as a process of its own, started by a line of shell; as
/// another user where we are root, whom no permission bits stop.
fn child(test: &str, dir: &Path, shell: &str) {
    let name = format!("dir::tests::{test}");
    let bin = TempDir::new().unwrap();
    // Copied: that user may not reach the folder of the build.
    let exe = bin.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(exe).args(["--exact", &name, "--ignored"]);
    command.env(CHILD_DIR, dir).current_dir("/");
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bin.path()).unwrap()) == 0;
    if root && test == "child_opens_what_it_may_only_read" {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// None if all ignored tests are run: these have nothing to say on their own.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

#[test]
#[ignore = "the other process of `a_second_process_is_refused`"]
fn child_opens_a_directory_in_use() {
    let Some(dir) = child_dir() else { return };
    assert_eq!(DirCatalog::open(&dir).unwrap_err().code(), "store.locked");
}

#[test]
#[ignore = "the other process of `a_disk_that_fills_up_leaves_what_was_there`"]
fn child_writes_with_no_room() {
    let Some(dir) = child_dir() else { return };
    let catalog = DirCatalog::open(&dir).unwrap();
    for full in [
        catalog.replace(&key("t/a"), &[1; 100_000]).unwrap_err(),
        catalog.create(&key("t/b"), &[1; 100_000]).unwrap_err(),
    ] {
        assert_eq!(full.code(), "store.full", "{full}");
    }
    assert_eq!(temp_files(&dir), 0, "what was written in part is left");
    catalog.create(&key("t/c"), b"small").expect("there is room for this");
    assert_eq!(catalog.list(None).unwrap(), [key("t/a"), key("t/c")]);
}

#[test]
#[ignore = "the other process of `a_directory_that_cannot_be_written_to_is_refused`"]
fn child_opens_what_it_may_only_read() {
    let Some(dir) = child_dir() else { return };
    let refused = DirCatalog::open(&dir).unwrap_err();
    assert_eq!(refused.code(), "store.read-only", "{refused}");
}
