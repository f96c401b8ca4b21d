//! A directory keeps the contract, and what happens to it when files, disks and processes fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use sluicebox_core::error::{Classify, Kind};
use tempfile::TempDir;

use super::*;
use crate::header;
use crate::store::contract;

mod killed;

const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

/// A store that takes its directory with it.
#[derive(Debug)]
struct Scratch {
    store: EmbeddedStore,
    _dir: TempDir,
}

impl Store for Scratch {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.store.get(key)
    }
    fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, Error> {
        self.store.scan(prefix, from, limit)
    }
    fn measure(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Measured, Error> {
        self.store.measure(prefix, from, limit)
    }
    fn extent(&self) -> Extent {
        self.store.extent()
    }
    fn metadata(&self, name: &str) -> Option<Bytes> {
        self.store.metadata(name)
    }
    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error> {
        self.store.begin(horizon)
    }
    fn close(&self) {
        self.store.close();
    }
}

#[test]
fn a_directory_keeps_the_contract() {
    for (compression, merge_bytes_per_second) in
        [(Compression::Lz4, Some(40_000_000)), (Compression::None, None)]
    {
        contract::every_promise(&|| {
            let dir = TempDir::new().unwrap();
            let config =
                StoreConfig { compression, merge_bytes_per_second, ..StoreConfig::default() };
            let store = EmbeddedStore::open(dir.path(), config).unwrap();
            Box::new(Scratch { store, _dir: dir })
        });
    }
}

fn open(dir: &Path) -> Result<EmbeddedStore, Error> {
    EmbeddedStore::open(dir, StoreConfig { cache_bytes: 1 << 20, ..StoreConfig::default() })
}

/// The value these tests put under the key of a number; it cannot be packed much.
fn value_of(number: u32) -> [u8; 64] {
    let hash = blake3::hash(&number.to_le_bytes());
    let mut value = [0; 64];
    value[..32].copy_from_slice(hash.as_bytes());
    value[32..].copy_from_slice(hash.as_bytes());
    value
}

fn number_key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn apply(store: &EmbeddedStore, horizon: u64, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    let entries: Vec<_> = numbers.map(|n| (number_key(n), value_of(n))).collect();
    let change = |(key, value): &'static ([u8; 4], [u8; 64])| Change { key, value: Some(value) };
    let piece: Vec<Change<'_>> = entries.leak().iter().map(change).collect();
    let mut checkpoint = store.begin(horizon)?;
    checkpoint.write(&piece)?;
    checkpoint.commit(&[("horizon", &horizon.to_be_bytes())])
}

/// A store of a thousand entries, closed again, and its directory.
fn thousand() -> TempDir {
    let dir = TempDir::new().unwrap();
    apply(&open(dir.path()).unwrap(), 7, 0..1_000).unwrap();
    dir
}

fn is_thousand(store: &EmbeddedStore) {
    let entries = store.scan(b"", b"", ALL).unwrap().entries;
    assert_eq!(entries.len(), 1_000);
    for (number, (key, value)) in (0..).zip(entries) {
        assert_eq!((&key[..], &value[..]), (&number_key(number)[..], &value_of(number)[..]));
    }
    assert_eq!(store.extent().horizon, 7);
    assert_eq!(store.metadata("horizon").as_deref(), Some(&7_u64.to_be_bytes()[..]));
}

/// Every file below a folder of the tree.
fn files(dir: &Path, what: &str) -> Vec<PathBuf> {
    let mut folders = vec![dir.join("tree")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains(what) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The one table of the entries, which has the most bytes.
fn table(dir: &Path) -> PathBuf {
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    files(dir, "/tables/").into_iter().max_by_key(size).unwrap()
}

#[test]
fn a_checkpoint_is_there_after_a_restart() {
    let dir = thousand();
    let store = open(dir.path()).unwrap();
    is_thousand(&store);
    assert_eq!(store.extent(), Extent { horizon: 7, reach: 7 });
    apply(&store, 8, 500..1_500).unwrap();
    drop(store.begin(12).unwrap());
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(store.extent(), Extent { horizon: 8, reach: 12 });
    assert_eq!(store.scan(b"", b"", ALL).unwrap().entries.len(), 1_500);
}

#[test]
fn newer_values_win_after_any_number_of_restarts() {
    let dir = TempDir::new().unwrap();
    for horizon in 1..60 {
        let store = open(dir.path()).unwrap();
        let value = horizon.to_string();
        let mut checkpoint = store.begin(horizon).unwrap();
        let piece = [b"a", b"b"].map(|key| Change { key, value: Some(value.as_bytes()) });
        checkpoint.write(&piece).unwrap();
        checkpoint.commit(&[]).unwrap();
        let store = if horizon % 3 == 0 {
            drop(store);
            open(dir.path()).unwrap()
        } else {
            store
        };
        assert_eq!(store.get(b"a").unwrap().unwrap(), value);
        let page = store.scan(b"b", b"", ALL).unwrap();
        assert_eq!(page.entries, [(Bytes::from("b"), Bytes::from(value))]);
    }
}

#[test]
fn merging_removes_what_it_replaced() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    // It is merged beside us, on a busy machine some checkpoints later.
    let end = Instant::now() + Duration::from_secs(60);
    for horizon in 0.. {
        apply(&store, horizon, 0..1_000).unwrap();
        let files = files(dir.path(), "/tables/").len();
        if horizon > 100 && files < 20 {
            break;
        }
        assert!(Instant::now() < end, "{files} files for {horizon} checkpoints of the same keys");
    }
    assert_eq!(store.scan(b"", b"", ALL).unwrap().entries.len(), 1_000);
}

#[test]
fn a_second_opening_is_refused_until_the_first_ends() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (Kind::Conflict, "store.locked"));
    child("child_opens_a_store_in_use", dir.path(), "exec \"$@\"");
    first.close();
    open(dir.path()).unwrap();
}

#[test]
fn a_newer_layout_is_refused_with_both_versions() {
    let dir = thousand();
    let file = dir.path().join("documents/format_doc");
    let value = [&[9, 0, 8, 0][..], tree::NAME].concat();
    fs::write(&file, [&header::header_of(&format_key(), &value)[..], &value].concat()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert_eq!(refused.code(), "store.format-newer");
    let message = refused.to_string();
    assert!(message.contains("format 9") && message.contains("up to 2:"), "{message}");
    // One that lets us read it is read.
    let value = [&[9, 0, 1, 0][..], tree::NAME].concat();
    fs::write(&file, [&header::header_of(&format_key(), &value)[..], &value].concat()).unwrap();
    is_thousand(&open(dir.path()).unwrap());
}

#[test]
fn an_older_layout_is_read_and_becomes_the_one_that_is_written() {
    let dir = thousand();
    let file = dir.path().join("documents/format_doc");
    let of = |layout: u8| {
        let value = [&[layout, 0, layout, 0][..], tree::NAME].concat();
        [&header::header_of(&format_key(), &value)[..], &value].concat()
    };
    assert_eq!(fs::read(&file).unwrap(), of(2));
    fs::write(&file, of(1)).unwrap();
    is_thousand(&open(dir.path()).unwrap());
    assert_eq!(fs::read(&file).unwrap(), of(2));
}

#[test]
fn another_tree_or_no_format_is_refused() {
    let dir = thousand();
    for value in [&b"\x01\0\x01\0other 1"[..], b"\x01\0", b""] {
        let file = [&header::header_of(&format_key(), value)[..], value].concat();
        fs::write(dir.path().join("documents/format_doc"), file).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().code(), "store.corrupt", "{value:?}");
    }
}

#[test]
fn files_of_a_newer_tree_are_refused() {
    let dir = thousand();
    for version in [[b'F', b'J', b'L', 4], [b'F', b'J', b'L', 2], [0; 4]] {
        fs::write(dir.path().join("tree/version"), version).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().code(), "store.damaged", "{version:?}");
    }
}

#[test]
fn missing_parts_are_reported() {
    for part in ["tree", "/tables/", ".jnl", "/current", "documents/extent_doc"] {
        let dir = thousand();
        match part {
            "tree" => fs::remove_dir_all(dir.path().join("tree")).unwrap(),
            "/tables/" => fs::remove_file(table(dir.path())).unwrap(),
            "documents/extent_doc" => fs::write(dir.path().join(part), b"?").unwrap(),
            name => files(dir.path(), name).iter().for_each(|file| fs::remove_file(file).unwrap()),
        }
        let before = dir.path().join("tree").is_dir().then(|| files(dir.path(), "/tables/"));
        let refused = open(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Internal, "{part}: {refused}");
        let after = dir.path().join("tree").is_dir().then(|| files(dir.path(), "/tables/"));
        assert_eq!(before, after, "{part}: what was left is for the one who repairs it");
    }
}

#[test]
fn flipped_bits_are_never_taken_for_values() {
    let dir = thousand();
    let whole = fs::read(table(dir.path())).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(table(dir.path()), bytes).unwrap();
        let read = open(dir.path()).and_then(|store| {
            for number in 0..1_000_u32 {
                let value = store.get(&number.to_be_bytes())?;
                assert_eq!(value.as_deref(), Some(&value_of(number)[..]), "byte {at} flipped");
            }
            Ok(())
        });
        if let Err(damaged) = read {
            assert_eq!(damaged.kind(), Kind::Internal, "{damaged}");
            noticed += 1;
        }
    }
    assert!(noticed > 40, "only {noticed} of 60 flips were noticed");
}

#[test]
fn a_table_cut_short_is_reported() {
    let dir = thousand();
    let whole = fs::read(table(dir.path())).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(table(dir.path()), &whole[..length]).unwrap();
        let read = open(dir.path()).and_then(|store| store.scan(b"", b"", ALL));
        assert_eq!(read.unwrap_err().kind(), Kind::Internal, "{length}");
    }
}

#[test]
fn a_crash_while_it_is_set_up_leaves_nothing_in_the_way() {
    let dir = thousand();
    // Between the renaming of the tree and the document that says so.
    fs::remove_file(dir.path().join("documents/format_doc")).unwrap();
    is_thousand(&open(dir.path()).unwrap());
    let half = TempDir::new().unwrap();
    fs::create_dir_all(half.path().join("making/keyspaces")).unwrap();
    fs::write(half.path().join("making/0.jnl"), b"half").unwrap();
    apply(&open(half.path()).unwrap(), 7, 0..1_000).unwrap();
    is_thousand(&open(half.path()).unwrap());
    assert!(!half.path().join("making").exists());
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused() {
    let dir = thousand();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    child("child_opens_what_it_may_only_read", dir.path(), "exec \"$@\"");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    is_thousand(&open(dir.path()).unwrap());
}

#[test]
fn a_file_that_may_not_grow_leaves_the_old_horizon() {
    // A limit on file size stands for the full disk: writing fails in the middle of a table.
    let dir = thousand();
    child("child_writes_what_does_not_fit", dir.path(), "trap '' XFSZ; ulimit -f 512; exec \"$@\"");
    let store = open(dir.path()).unwrap();
    assert_eq!(store.extent(), Extent { horizon: 9, reach: 9 });
    assert_eq!(store.scan(b"", b"", ALL).unwrap().entries.len(), 2_000);
}

#[test]
fn a_full_disk_leaves_the_old_horizon_and_goes_on_when_there_is_room() {
    // A small file system of the child's own, where the system lets anybody make one: some let
    // nobody mount what they let everybody keep apart.
    let dir = TempDir::new().unwrap();
    let mount = format!("mount -t tmpfs -o size=12m tmpfs \"{}\"", dir.path().display());
    let may = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: this system lets nobody make a file system of one's own");
        return;
    }
    let shell = format!("exec unshare -rm sh -c '{mount} && exec \"$@\"' sh \"$@\"");
    child("child_fills_the_disk", dir.path(), &shell);
}

/// Names the directory to a child process.
const CHILD_DIR: &str = "SLUICEBOX_STORE_TEST_DIR";
/// The numbers of a user who owns nothing here.
const NOBODY: u32 = 65_534;

/// One of the ignored tests below as a process of its own, started by a line of shell.
fn command(bin: &TempDir, test: &str, dir: &Path, shell: &str) -> Command {
    let name = format!("store::embedded::tests::{test}");
    // Copied: another user may not reach the folder of the build.
    let exe = bin.path().join("test");
    if !exe.exists() {
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("sh");
    command.args(["-c", shell, "sh"]).arg(exe).args(["--exact", &name, "--ignored", "--nocapture"]);
    command.env(CHILD_DIR, dir).current_dir("/");
    command
}

/// Runs it to its end; as another user where we are root, whom no permission bits stop.
fn child(test: &str, dir: &Path, shell: &str) {
    let bin = TempDir::new().unwrap();
    let mut command = command(&bin, test, dir, shell);
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bin.path()).unwrap()) == 0;
    if root && test == "child_opens_what_it_may_only_read" {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// None if all ignored tests are run: these have nothing to say on their own.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

#[test]
#[ignore = "the other process of `a_second_opening_is_refused_until_the_first_ends`"]
fn child_opens_a_store_in_use() {
    let Some(dir) = child_dir() else { return };
    assert_eq!(open(&dir).unwrap_err().code(), "store.locked");
}

#[test]
#[ignore = "the other process of `a_directory_that_cannot_be_written_to_is_refused`"]
fn child_opens_what_it_may_only_read() {
    let Some(dir) = child_dir() else { return };
    let refused = open(&dir).unwrap_err();
    assert_eq!(refused.code(), "store.read-only", "{refused}");
}

#[test]
#[ignore = "the other process of `a_file_that_may_not_grow_leaves_the_old_horizon`"]
fn child_writes_what_does_not_fit() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir).unwrap();
    let tables = files(&dir, "/tables/").len();
    for _ in 0..2 {
        let full = apply(&store, 8, 0..20_000).unwrap_err();
        assert_eq!(full.code(), "store.full", "{full}");
        assert_eq!(store.extent(), Extent { horizon: 7, reach: 8 });
        is_thousand(&store);
    }
    assert_eq!(files(&dir, "/tables/").len(), tables, "half a table is left");
    apply(&store, 9, 1_000..2_000).expect("this fits");
}

#[test]
#[ignore = "the other process of \
    `a_full_disk_leaves_the_old_horizon_and_goes_on_when_there_is_room`"]
fn child_fills_the_disk() {
    let Some(dir) = child_dir() else { return };
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let store = open(&dir).unwrap();
    apply(&store, 7, 0..1_000).unwrap();
    let ballast = dir.join("ballast");
    for round in 0..3 {
        fs::write(&ballast, vec![0; 8 << 20]).unwrap();
        let full = apply(&store, 8, 0..200_000).unwrap_err();
        assert_eq!(full.code(), "store.full", "{round}: {full}");
        assert_eq!(store.extent(), Extent { horizon: 7, reach: 8 });
        is_thousand(&store);
        fs::remove_file(&ballast).unwrap();
    }
    // Merging finds no room either, in the background, and then the tree takes nothing more.
    for horizon in 8.. {
        fs::write(&ballast, vec![0; 9 << 20]).ok();
        if apply(&store, horizon, 0..3_000).is_err() {
            break;
        }
    }
    let before = store.extent().horizon;
    assert_eq!(store.get(&9_u32.to_be_bytes()).unwrap().as_deref(), Some(&value_of(9)[..]));
    fs::remove_file(&ballast).unwrap();
    for horizon in before + 1..before + 60 {
        apply(&store, horizon, 0..3_000).expect("there is room again");
    }
    store.close();
    let store = open(&dir).unwrap();
    assert_eq!(store.extent().horizon, before + 59);
    assert_eq!(store.scan(b"", b"", ALL).unwrap().entries.len(), 3_000);
}
