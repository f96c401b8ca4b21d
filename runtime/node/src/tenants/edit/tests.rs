//! Changes to a real file: that they arrive, that others are not lost, whom the file belongs to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use sluicebox_core::error::Classify as _;
use tempfile::TempDir;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tenants.toml");
    (dir, path)
}

fn change(path: &Path, change: impl FnOnce(&mut Edit) -> Result<(), Error>) {
    let mut edit = Edit::open(path).unwrap();
    change(&mut edit).unwrap();
    edit.commit().unwrap();
}

#[test]
fn the_first_change_makes_the_file_and_its_folder_for_nobody_else() {
    let (dir, _) = scratch();
    let path = dir.path().join("new/folder/tenants.toml");
    change(&path, |edit| edit.add(&name("acme")));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let edit = Edit::open(&path).unwrap();
    assert!(edit.tenants().keys().eq([&name("acme")]));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "something is left over");
}

#[test]
fn every_change_is_in_the_file() {
    let (_dir, path) = scratch();
    change(&path, |edit| {
        ["a", "b", "c"].into_iter().try_for_each(|tenant| edit.add(&name(tenant)))
    });
    change(&path, |edit| {
        edit.remove(&name("b"))?;
        edit.set_weight(&name("a"), 100)?;
        edit.set_quota(&name("a"), Resource::Streams, Some(7))?;
        edit.set_quota(&name("a"), Resource::Memory, Some(0))?;
        edit.add_token(&name("c"), Some(name("ci")), Scopes::TENANT, UNIX_EPOCH)?;
        edit.add_token(&name("c"), None, Scopes::ALL, UNIX_EPOCH).map(drop)
    });
    change(&path, |edit| {
        edit.set_quota(&name("a"), Resource::Memory, None)?;
        edit.revoke_token(&name("c"), &name("ci"))
    });
    let edit = Edit::open(&path).unwrap();
    assert!(edit.tenants().keys().eq([&name("a"), &name("c")]));
    let a = &edit.tenants()[&name("a")];
    assert_eq!((a.weight, &a.quota), (100, &BTreeMap::from([(Resource::Streams, 7)])));
    let tokens = &edit.tenants()[&name("c")].tokens;
    assert_eq!((tokens.len(), tokens[0].scopes), (1, Scopes::ALL));
    assert!(tokens[0].id.as_str().starts_with("t-"), "{}", tokens[0].id);
}

#[test]
fn the_token_itself_is_not_in_the_file() {
    let (_dir, path) = scratch();
    let mut edit = Edit::open(&path).unwrap();
    edit.add(&name("a")).unwrap();
    let (_, token) = edit.add_token(&name("a"), None, Scopes::ALL, SystemTime::now()).unwrap();
    edit.commit().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let secret = token.reveal().strip_prefix("sbx_a_").unwrap();
    assert!(!text.contains(secret));
    assert!(text.contains(&token.hash().to_string()));
}

#[test]
fn a_change_that_cannot_be_made_says_why() {
    let (_dir, path) = scratch();
    change(&path, |edit| {
        edit.add(&name("a"))?;
        edit.add_token(&name("a"), Some(name("ci")), Scopes::ALL, UNIX_EPOCH).map(drop)
    });
    let mut edit = Edit::open(&path).unwrap();
    let (a, ci, ghost) = (name("a"), name("ci"), name("ghost"));
    let none = Scopes::default();
    let codes = [
        edit.add(&a).unwrap_err().code(),
        edit.remove(&ghost).unwrap_err().code(),
        edit.add_token(&ghost, None, Scopes::ALL, UNIX_EPOCH).unwrap_err().code(),
        edit.add_token(&a, Some(ci.clone()), Scopes::ALL, UNIX_EPOCH).unwrap_err().code(),
        edit.add_token(&a, None, none, UNIX_EPOCH).unwrap_err().code(),
        edit.revoke_token(&a, &ghost).unwrap_err().code(),
        edit.revoke_token(&ghost, &ci).unwrap_err().code(),
        edit.set_weight(&a, 0).unwrap_err().code(),
        edit.set_weight(&a, 101).unwrap_err().code(),
        edit.set_quota(&a, Resource::Events, Some(u64::MAX)).unwrap_err().code(),
    ];
    assert_eq!(
        codes,
        [
            "tenant.exists",
            "tenant.unknown",
            "tenant.unknown",
            "tenant.token-exists",
            "tenant.out-of-range",
            "tenant.token-unknown",
            "tenant.unknown",
            "tenant.out-of-range",
            "tenant.out-of-range",
            "tenant.out-of-range",
        ]
    );
}

#[test]
fn a_file_with_mistakes_is_not_overwritten() {
    let (_dir, path) = scratch();
    fs::write(&path, "version = 1\nmine = true\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Edit::open(&path).unwrap_err().code(), "tenants.invalid");
    assert!(fs::read_to_string(&path).unwrap().contains("mine"));
}

#[test]
fn changes_at_one_time_are_all_made() {
    let (_dir, path) = scratch();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let path = &path;
            scope.spawn(move || change(path, |edit| edit.add(&name(&format!("t{i}")))));
        }
    });
    assert_eq!(Edit::open(&path).unwrap().tenants().len(), 8);
}

#[test]
fn an_edit_that_is_not_committed_changes_nothing() {
    let (_dir, path) = scratch();
    change(&path, |edit| edit.add(&name("a")));
    let before = fs::metadata(&path).unwrap();
    Edit::open(&path).unwrap().add(&name("b")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
    assert_eq!(Edit::open(&path).unwrap().tenants().len(), 1);
}

#[test]
fn what_a_crash_left_is_written_over() {
    let (dir, path) = scratch();
    fs::write(dir.path().join("tenants.toml.new"), "half").unwrap();
    change(&path, |edit| edit.add(&name("a")));
    assert!(!dir.path().join("tenants.toml.new").exists());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_link_to_the_file_stays_a_link() {
    let (dir, path) = scratch();
    let real = dir.path().join("real/tenants.toml");
    change(&real, |edit| edit.add(&name("a")));
    std::os::unix::fs::symlink(&real, &path).unwrap();
    change(&path, |edit| edit.add(&name("b")));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(Edit::open(&real).unwrap().tenants().len(), 2);
}

#[test]
fn the_file_stays_with_its_owner() {
    let (dir, path) = scratch();
    change(&path, |edit| edit.add(&name("a")));
    let other = 65_534;
    if std::os::unix::fs::chown(&path, Some(other), Some(other)).is_ok() {
        // Only the superuser gets here; it is the superuser's command that could go wrong.
        change(&path, |edit| edit.add(&name("b")));
        fs::remove_file(&path).map(|()| change(&path, |edit| edit.add(&name("c")))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), fs::metadata(dir.path()).unwrap().uid());
        std::os::unix::fs::chown(dir.path(), Some(other), Some(other)).unwrap();
        fs::remove_file(&path).unwrap();
        change(&path, |edit| edit.add(&name("d")));
        assert_eq!(fs::metadata(&path).unwrap().uid(), other, "a new file left the folder's owner");
    } else {
        change(&path, |edit| edit.add(&name("b")));
        let owner = |path: &Path| fs::metadata(path).unwrap().uid();
        assert_eq!(owner(&path), owner(dir.path()));
    }
}

#[test]
fn the_time_is_that_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_709_164_800, "2024-02-29T00:00:00Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
        (1_795_161_845, "2026-11-20T08:04:05Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
    }
}
