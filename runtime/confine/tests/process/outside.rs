//! What surrounds the process that is locked in: the other tenant, the listener, another process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::inside::{PART, abstract_name};

/// The user with no rights, by the number every system gives it.
const NOBODY: u32 = 65_534;

/// What a process that was locked in said of itself.
pub(crate) struct Told {
    /// As whom it ran.
    pub(crate) user: &'static str,
    rows: BTreeMap<String, String>,
    tried: BTreeMap<String, String>,
}

impl Told {
    /// The row of a measure.
    #[track_caller]
    pub(crate) fn row(&self, measure: &str) -> &str {
        self.rows.get(measure).unwrap_or_else(|| panic!("no row `{measure}`"))
    }

    pub(crate) fn in_place(&self, measure: &str) -> bool {
        self.row(measure).starts_with("in place")
    }

    /// What became of a try.
    #[track_caller]
    pub(crate) fn tried(&self, name: &str) -> &str {
        self.tried.get(name).unwrap_or_else(|| panic!("`{name}` was not tried"))
    }

    #[track_caller]
    pub(crate) fn works(&self, name: &str) {
        assert_eq!(self.tried(name), "ok", "{name}");
    }

    /// Whether one of the measures is in place; else says that nobody looked.
    pub(crate) fn looks(&self, measures: &[&str]) -> bool {
        let looks = measures.iter().any(|measure| self.in_place(measure));
        if !looks {
            println!("  not looked at, as this kernel lacks {}", measures.join(" and "));
        }
        looks
    }

    /// One of the measures refuses it, in one of the ways divided by `|`.
    #[track_caller]
    pub(crate) fn refused(&self, name: &str, measures: &[&str], how: &str) {
        let tried = self.tried(name);
        if self.looks(measures) {
            assert!(how.split('|').any(|way| way == tried), "{name}: {tried}, not {how}");
        }
    }
}

/// The network this process is in.
pub(crate) fn network() -> String {
    fs::read_link("/proc/self/ns/net").expect("/proc").display().to_string()
}

/// Lets a process lock itself in and try, as each user that can be had.
pub(crate) fn told_by_all(part: &str) -> Vec<Told> {
    if rustix::process::geteuid().is_root() {
        vec![told(part, "root", None), told(part, "nobody", Some(NOBODY))]
    } else {
        vec![told(part, "this user", None)]
    }
}

fn told(part: &str, user: &'static str, id: Option<u32>) -> Told {
    let base = tempfile::tempdir().expect("a directory");
    let base = base.path();
    furnish(base, id);
    let listener = UnixListener::bind(base.join("listener")).expect("a listener");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let abstract_address = SocketAddr::from_abstract_name(abstract_name(base)).expect("a name");
    let _abstract = UnixListener::bind_addr(&abstract_address).expect("an abstract socket");
    let answer = talk(&base.join("listener"));
    let as_user = |part: &str| {
        let mut command = Command::new(base.join("program"));
        command.env(PART, part).arg(base).current_dir(base);
        if let Some(id) = id {
            command.uid(id).gid(id);
        }
        command
    };
    let mut other = as_user("wait").stdin(Stdio::piped()).spawn().expect("another process");
    let output = as_user(part)
        .arg(tcp.local_addr().expect("an address").to_string())
        .arg(other.id().to_string())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::inherit())
        .output()
        .expect("the process");
    let alive = other.try_wait().expect("another process").is_none();
    other.kill().expect("another process");
    other.wait().expect("another process");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "as {user} it ended with {}: {said}", output.status);
    let after = |start: &str| {
        let lines = said.lines().filter_map(|line| line.strip_prefix(start));
        lines.filter_map(|line| line.split_once('=')).map(own).collect::<BTreeMap<_, _>>()
    };
    let mut tried = after("try ");
    let answer = answer.join().expect("the other end");
    tried.insert("the answer arrived".to_owned(), answer);
    let lives = if alive { "ok" } else { "it ended" };
    tried.insert("the other process lives".to_owned(), lives.to_owned());
    Told { user, rows: after("row "), tried }
}

/// All that a process says which plays a part on its own.
pub(crate) fn said_by(part: &str) -> String {
    let base = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).env(PART, part).arg(base.path()).output();
    String::from_utf8(output.expect("a process").stdout).expect("text")
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Makes what the process finds: its directory, what it may read, and another tenant.
fn furnish(base: &Path, id: Option<u32>) {
    for directory in ["own", "own/within", "other"] {
        fs::create_dir(base.join(directory)).expect("a directory");
    }
    for file in ["granted", "own/file", "other/secret"] {
        fs::write(base.join(file), file).expect("a file");
    }
    symlink(base.join("other/secret"), base.join("own/way-out")).expect("a link");
    let program = std::env::current_exe().expect("this program");
    for copy in ["program", "own/program"] {
        fs::copy(&program, base.join(copy)).expect("a copy");
    }
    fs::set_permissions(base, fs::Permissions::from_mode(0o755)).expect("a mode");
    let Some(id) = id else { return };
    // The other tenant's as well: Landlock has to keep them apart, not the owner.
    let paths = ["own", "own/within", "own/file", "own/program", "other", "other/secret"];
    for path in paths.iter().chain(&["granted"]) {
        chown(base.join(path), Some(id), Some(id)).expect("an owner");
    }
}

/// Sends to the listener and says whether it was answered.
fn talk(path: &Path) -> thread::JoinHandle<String> {
    let mut stream = UnixStream::connect(path).expect("the listener");
    thread::spawn(move || {
        stream.write_all(b"ping").expect("it is read when it is accepted");
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) if answer == "pong" => "ok".to_owned(),
            Ok(_) => format!("{answer:?}"),
            Err(error) => error.to_string(),
        }
    })
}
