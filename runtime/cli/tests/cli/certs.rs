//! `certs`: what it makes is what nodes take, and what is there is not lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use sluicebox_link::tls::{Identity, NodeName};
use tempfile::TempDir;

use super::support::command::{Run, run, sluicebox};
use super::support::golden;

fn certs(directory: &TempDir, arguments: &[&str]) -> Run {
    let all: Vec<&str> = ["certs"].iter().chain(arguments).copied().collect();
    run(sluicebox(directory.path(), &all), b"")
}

/// Every file below a directory, with its bytes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Whether these are files of a node of this name.
fn identity(directory: &Path, name: &str, authority: &Path) -> Result<Identity, String> {
    let read = |path: &Path| fs::read(path).unwrap();
    let file = |ending: &str| read(&directory.join(format!("{name}.{ending}")));
    let named = NodeName::new(name).unwrap();
    Identity::from_pem(named, &file("crt"), &file("key"), &read(authority))
        .map_err(|error| error.to_string())
}

#[test]
fn one_command_makes_all_that_nodes_need_to_know_each_other() {
    let home = tempfile::tempdir().unwrap();
    let made = certs(&home, &["a", "b", "C", "a"]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    golden::check("certs.txt", &made.out);
    let directory = home.path().join("certs");
    let names: Vec<String> = files(&directory).into_iter().map(|(name, _)| name).collect();
    let both = |name: &str| [format!("{name}.crt"), format!("{name}.key")];
    assert_eq!(names, ["a", "authority", "b", "c"].map(both).concat());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for name in names.iter().filter(|name| name.ends_with(".key")) {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    for name in ["a", "b", "c"] {
        identity(&directory, name, &directory.join("authority.crt")).unwrap();
    }
}

#[test]
fn what_is_to_be_configured_is_toml_whatever_the_directory_is_called() {
    let home = tempfile::tempdir().unwrap();
    let made = certs(&home, &["--dir", "my \"own\"/keys", "a"]);
    let block = made.out.split("\n\n").find(|part| part.starts_with("[cluster]")).unwrap();
    let read: toml::Table = block.parse().unwrap();
    let cluster = &read["cluster"];
    assert_eq!(cluster["node"].as_str(), Some("a"));
    for (field, name) in
        [("certificate", "a.crt"), ("key", "a.key"), ("authority", "authority.crt")]
    {
        let path = cluster[field].as_str().unwrap();
        assert_eq!(path, format!("my \"own\"/keys/{name}"));
        assert!(home.path().join(path).is_file());
    }
}

#[test]
fn more_nodes_come_to_an_authority_that_is_there() {
    let home = tempfile::tempdir().unwrap();
    certs(&home, &["a"]);
    let directory = home.path().join("certs");
    let before = files(&directory);
    let more = certs(&home, &["b", "--output", "json"]);
    assert_eq!(more.code, 0, "{more:?}");
    let value: Value = serde_json::from_str(&more.out).unwrap();
    assert_eq!(
        value,
        json!({
            "nodes": [{ "node": "b", "certificate": "certs/b.crt", "key": "certs/b.key",
                "authority": "certs/authority.crt" }],
            "authority": { "certificate": "certs/authority.crt", "key": "certs/authority.key",
                "new": false },
        })
    );
    let after = files(&directory);
    assert!(before.iter().all(|file| after.contains(file)));
    identity(&directory, "b", &directory.join("authority.crt")).unwrap();
}

#[test]
fn what_a_node_has_is_replaced_only_when_asked() {
    let home = tempfile::tempdir().unwrap();
    certs(&home, &["a", "b"]);
    let directory = home.path().join("certs");
    fs::remove_file(directory.join("b.crt")).unwrap();
    let before = files(&directory);
    let refused = certs(&home, &["c", "b", "a"]);
    assert_eq!((refused.code, refused.out.as_str()), (73, ""));
    golden::check("errors/certs-there.txt", &refused.err);
    assert!(files(&directory) == before, "something was made all the same");
    let forced = certs(&home, &["a", "b", "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    let after = files(&directory);
    let changed: Vec<&str> =
        after.iter().filter(|file| !before.contains(file)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(changed, ["a.crt", "a.key", "b.crt", "b.key"]);
    identity(&directory, "a", &directory.join("authority.crt")).unwrap();
}

#[test]
fn an_authority_that_is_not_whole_or_not_ours_makes_nothing() {
    let home = tempfile::tempdir().unwrap();
    certs(&home, &["a"]);
    let directory = home.path().join("certs");
    let key = fs::read(directory.join("authority.key")).unwrap();
    fs::remove_file(directory.join("authority.key")).unwrap();
    let before = files(&directory);
    for arguments in [&["b"][..], &["b", "--force"]] {
        let refused = certs(&home, arguments);
        assert_eq!((refused.code, refused.out.as_str()), (74, ""));
        golden::check("errors/certs-no-key.txt", &refused.err);
        assert!(files(&directory) == before, "something was made all the same");
    }
    // Two files that do not belong together.
    fs::copy(directory.join("a.key"), directory.join("authority.key")).unwrap();
    let refused = certs(&home, &["b"]);
    assert_eq!(refused.code, 64, "{refused:?}");
    assert!(refused.err.contains("the key of the authority cannot be used"), "{}", refused.err);
    fs::write(directory.join("authority.key"), key).unwrap();
    assert_eq!(certs(&home, &["b"]).code, 0);
}

#[test]
fn a_name_that_no_node_can_have_is_refused_before_it_becomes_a_path() {
    let home = tempfile::tempdir().unwrap();
    let long = "a".repeat(64);
    for name in ["../a", "a/b", "", ".", "10.0.0.1", "a b", "authority", "AUTHORITY", &long] {
        let refused = certs(&home, &["b", name]);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{name}: {refused:?}");
    }
    for days in ["0", "3651", "-1"] {
        assert_eq!(certs(&home, &["b", "--days", days]).code, 2, "{days}");
    }
    assert_eq!(certs(&home, &[]).code, 2);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
